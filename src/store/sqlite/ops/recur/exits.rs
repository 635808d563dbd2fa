//! What follows for a recurrence from the end of one of its tasks: a slot that waited makes its task, failures are counted, and
//! an expectation is met.

use rusqlite::OptionalExtension;

use crate::log::log;
use crate::model::recurrence::event::RecurrenceEventKind;
use crate::model::recurrence::view::PausedBy;
use crate::model::task::{SlotOf, TaskState};
use crate::store::sqlite::ops::options;
use crate::store::sqlite::ops::recur::due::{decide_due, decide_some};
use crate::store::sqlite::ops::recur::make::{Maker, add_live};
use crate::store::sqlite::ops::recur::row::{self as rows, Recurring, mark};
use crate::store::sqlite::ops::row;
use crate::store::sqlite::ops::write_tx::{Turned, WriteTx};
use crate::store::sqlite::sql::{columns, sql};
use crate::time::Timestamp;

pub(crate) const END_LIVE: &str =
    "DELETE FROM punctual_recurrence_live WHERE seq = :seq RETURNING recurrence";

columns! {
    /// When a task was made, and for which slot of a recurrence.
    struct MadeRow {
        created_at: Timestamp = "created_at" by row::time,
        options: Option<Vec<u8>> = "options" by row::get,
    }
}

pub(crate) const MADE: &str = sql!(
    "SELECT {columns} FROM punctual_task WHERE seq = :seq",
    columns = MadeRow::COLUMNS
);

/// Tells the recurrences of the tasks that the operation has ended or revived. It may end more: those follow.
pub(crate) fn tell(tx: &mut WriteTx<'_>) -> rusqlite::Result<()> {
    while let Some(turned) = tx.turned.pop() {
        match turned {
            Turned::Ended { seq, state } => ended(tx, seq, state)?,
            Turned::Revived(seq) => revived(tx, seq)?,
        }
    }
    Ok(())
}

fn ended(tx: &mut WriteTx<'_>, seq: i64, state: TaskState) -> rusqlite::Result<()> {
    let recurrence: Option<i64> = tx
        .conn
        .prepare_cached(END_LIVE)?
        .query_row([seq], |row| row.get(0))
        .optional()?;
    // The recurrence may be removed, and its name may be in use by another.
    let Some(recurrence) = recurrence else {
        return Ok(());
    };
    let Some(mut recurring) = Recurring::by_id(tx.conn, recurrence)? else {
        return Ok(());
    };
    match state {
        TaskState::Completed => {
            recurring.failures = 0;
            recurring.tell_overdue(tx);
            if recurring.is_stopped() {
                // Slots of the pause that have come are met as well.
                decide_due(tx, &mut recurring)?;
            }
            if recurring.meet(tx.conn, seq, tx.now)? {
                tx.recurrence_event(&recurring.name, RecurrenceEventKind::Recovered);
            }
        }
        TaskState::Failed => recurring.failures = recurring.failures.saturating_add(1),
        _ => {}
    }
    if let Some((definition, payload)) = rows::definition(tx.conn, &recurring)? {
        let bound = definition.pause_after_failures;
        if bound.is_some_and(|bound| recurring.failures >= bound) && recurring.paused_at.is_none() {
            log!(warn, recurrence = %recurring.name, "paused: its tasks have failed in a row");
            decide_due(tx, &mut recurring)?;
            recurring.pause(tx, PausedBy::Failures);
        }
        let mut maker = Maker {
            recurring: &mut recurring,
            definition: &definition,
            payload: &payload,
            mark: mark(tx.conn)?,
        };
        maker.release(tx)?;
    }
    if state == TaskState::Completed
        && recurring.expect_within.is_some()
        && recurring.paused_at.is_none()
        && recurring.due_slot(tx.now).is_some()
    {
        // It is met. If nobody came to decide it, nothing would be expected after it.
        decide_some(tx, &mut recurring, 1)?;
    }
    recurring.keep(tx)
}

/// A caller has made an ended task pending again: it is live.
fn revived(tx: &mut WriteTx<'_>, seq: i64) -> rusqlite::Result<()> {
    let made = tx
        .conn
        .prepare_cached(MADE)?
        .query_row([seq], MadeRow::read)
        .optional()?;
    // `None`: the task is gone, or of no slot.
    let Some((made_at, slot)) = made.and_then(MadeRow::slot) else {
        return Ok(());
    };
    // It may be removed, and its name may be in use by another.
    if let Some(recurring) = Recurring::by_id(tx.conn, slot.key)? {
        let from = slot.at.map(|at| at.max(made_at));
        let since = slot.at.filter(|at| recurring.is_unmet(*at));
        let since = since.or(from.filter(|from| recurring.expects_again(*from)));
        add_live(tx.conn, seq, slot.key, from, since)?;
    }
    Ok(())
}

impl MadeRow {
    /// When it was made, and its slot, unless it was made beside the others.
    fn slot(self) -> Option<(Timestamp, SlotOf)> {
        let options = options::decode(self.options.as_deref()).ok().flatten();
        let slot = options?.slot.filter(|slot| !slot.is_beside)?;
        Some((self.created_at, slot))
    }
}
