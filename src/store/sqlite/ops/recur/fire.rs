//! Firing: the slots that are due make their tasks, and their recurrences move on.

use rusqlite::params;

use crate::log::log;
use crate::model::recurrence::decide::{Decision, Step, Upcoming, decide};
use crate::model::recurrence::definition::Draw;
use crate::model::recurrence::event::RecurrenceEventKind;
use crate::model::recurrence::policy::Fate;
use crate::model::recurrence::view::PausedBy;
use crate::store::sqlite::ops::recur::head;
use crate::store::sqlite::ops::recur::make::{Maker, Placed};
use crate::store::sqlite::ops::recur::row::{self as rows, Recurring, Run, mark};
use crate::store::sqlite::ops::recur::runs;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::sql::sql;

pub(crate) const DUE: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence INDEXED BY punctual_recurrence_due
    WHERE due_at <= :now ORDER BY due_at LIMIT :limit",
    columns = Recurring::COLUMNS
);

pub(crate) const OVERDUE: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence INDEXED BY punctual_recurrence_expected
    WHERE expected_by <= :now ORDER BY expected_by LIMIT :limit",
    columns = Recurring::COLUMNS
);

/// Fires up to `limit` recurrences, and notes up to `limit` whose completion is overdue. Returns how many there were.
pub(crate) fn fire(tx: &mut WriteTx<'_>, limit: usize) -> rusqlite::Result<usize> {
    let due = select(tx, DUE, limit)?;
    let mut fired = due.len();
    for recurring in due {
        fire_one(tx, recurring)?;
    }
    for mut recurring in select(tx, OVERDUE, limit)? {
        fired += 1;
        log!(warn, recurrence = %recurring.name, "a recurrence has not completed in time");
        recurring.overdue_since = recurring.expected_by.take();
        tx.recurrence_event(&recurring.name, RecurrenceEventKind::Overdue);
        recurring.keep(tx)?;
    }
    tx.done.learnt.recurs_next(head::next(tx.conn)?);
    Ok(fired)
}

fn select(tx: &WriteTx<'_>, sql: &str, limit: usize) -> rusqlite::Result<Vec<Recurring>> {
    tx.conn
        .prepare_cached(sql)?
        .query_map(params![tx.now.micros(), limit as i64], Recurring::read)?
        .collect()
}

fn fire_one(tx: &mut WriteTx<'_>, mut recurring: Recurring) -> rusqlite::Result<()> {
    let now = tx.now;
    let Some((definition, payload)) = rows::definition(tx.conn, &recurring)? else {
        // It must not keep the others from their slots.
        recurring.pause(tx, PausedBy::Damage);
        return recurring.keep(tx);
    };
    let decision = match recurring.next_slot {
        Some(slot) => decide(&definition, slot, now),
        None => Decision {
            steps: Vec::new(),
            next: Upcoming::after(&definition.rule, recurring.decided_until),
        },
    };
    let mut maker = Maker {
        recurring: &mut recurring,
        definition: &definition,
        payload: &payload,
    };
    // Nothing, unless the end of a live task has gone unnoticed.
    maker.release(tx)?;
    let mut next = decision.next;
    for step in decision.steps {
        match step {
            Step::Pass {
                first,
                last,
                reason,
            } => {
                let fate = Fate::Skipped(reason);
                let slots = Run { first, last, fate };
                runs::record(tx, maker.recurring, &definition, slots)?;
                maker.recurring.decided_until = last;
            }
            Step::Place(slot) => {
                let id = Draw::new(mark(tx.conn)?, &maker.recurring.name, slot).id(slot);
                let placed = maker.place(tx, Some(slot), id)?;
                maker.recurring.decided_until = slot;
                if matches!(placed, Placed::Made | Placed::Buffered) {
                    maker.recurring.made += 1;
                }
                if definition
                    .max_count
                    .is_some_and(|max| maker.recurring.made >= max)
                {
                    next = Upcoming::Ended;
                    break;
                }
            }
        }
    }
    recurring.move_to(tx, next, &definition);
    recurring.keep(tx)
}
