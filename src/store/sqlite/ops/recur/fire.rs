//! Firing: the slots that are due make their tasks, and their recurrences move on.

use rusqlite::{Params, params};

use crate::log::log;
use crate::model::recurrence::decide::{Decision, Step, Upcoming, decide};
use crate::model::recurrence::definition::Draw;
use crate::model::recurrence::event::RecurrenceEventKind;
use crate::model::recurrence::policy::Fate;
use crate::model::recurrence::view::PausedBy;
use crate::model::recurrence::zone::TZDB;
use crate::store::sqlite::ops::recur::head;
use crate::store::sqlite::ops::recur::make::{Maker, Placed};
use crate::store::sqlite::ops::recur::row::{self as rows, Recurring, Run, mark};
use crate::store::sqlite::ops::recur::runs;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::sql::sql;
use crate::time::Timestamp;

pub(crate) const DUE: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence INDEXED BY punctual_recurrence_due
    WHERE due_at <= :now AND (tzdb IS NULL OR tzdb <= :tzdb) ORDER BY due_at LIMIT :limit",
    columns = Recurring::COLUMNS
);

/// Those whose next slot was found by an older version of the time zone database.
pub(crate) const OUTDATED: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence INDEXED BY punctual_recurrence_tzdb
    WHERE tzdb < :tzdb LIMIT :limit",
    columns = Recurring::COLUMNS
);

pub(crate) const OVERDUE: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence INDEXED BY punctual_recurrence_expected
    WHERE expected_by <= :now ORDER BY expected_by LIMIT :limit",
    columns = Recurring::COLUMNS
);

/// Fires up to `limit` recurrences, and notes up to `limit` whose completion is overdue. Returns how many there were.
pub(crate) fn fire(tx: &mut WriteTx<'_>, limit: usize) -> rusqlite::Result<usize> {
    let outdated = update_zones(tx, limit)?;
    if outdated > 0 {
        // Before anything with a time zone is fired. The next call goes on.
        tx.done.learnt.recurs_next(Some(Timestamp::MIN));
        return Ok(outdated);
    }
    let (now, limited) = (tx.now.micros(), limit as i64);
    let due = select(tx, DUE, params![now, TZDB, limited])?;
    let mut fired = due.len();
    for recurring in due {
        fire_one(tx, recurring)?;
    }
    for mut recurring in select(tx, OVERDUE, params![now, limited])? {
        fired += 1;
        log!(warn, recurrence = %recurring.name, "a recurrence has not completed in time");
        recurring.overdue_since = recurring.expected_by.take();
        tx.recurrence_event(&recurring.name, RecurrenceEventKind::Overdue);
        recurring.keep(tx)?;
    }
    tx.done.learnt.recurs_next(head::next(tx.conn)?);
    Ok(fired)
}

fn select(tx: &WriteTx<'_>, sql: &str, params: impl Params) -> rusqlite::Result<Vec<Recurring>> {
    tx.conn
        .prepare_cached(sql)?
        .query_map(params, Recurring::read)?
        .collect()
}

/// Finds the next slots anew that an older version of the time zone database has found. Returns how many there were.
fn update_zones(tx: &mut WriteTx<'_>, limit: usize) -> rusqlite::Result<usize> {
    let outdated = select(tx, OUTDATED, params![TZDB, limit as i64])?;
    let count = outdated.len();
    for mut recurring in outdated {
        match rows::definition(tx.conn, &recurring)? {
            // It has no slot any more: no version gives it one.
            Some((definition, _)) if recurring.next_slot.is_none() => {
                recurring.tzdb = definition.rule.has_zones().then(|| TZDB.to_owned());
            }
            Some((definition, _)) => {
                let (until, civil) = (recurring.decided_until, recurring.decided_civil);
                let next = Upcoming::after_update(&definition.rule, until, civil);
                recurring.move_to(tx, next, &definition);
            }
            None => recurring.tzdb = None,
        }
        recurring.keep(tx)?;
    }
    Ok(count)
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
