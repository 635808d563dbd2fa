//! Firing: the slots that are due make their tasks, and their recurrences move on.

use rusqlite::{Params, params};
use uuid::Uuid;

use crate::model::recurrence::decide::{Decision, Step, Upcoming, decide};
use crate::model::recurrence::definition::Definition;
use crate::model::recurrence::policy::Fate;
use crate::model::recurrence::zone::TZDB;
use crate::store::sqlite::ops::recur::head;
use crate::store::sqlite::ops::recur::make::{MAX_RELEASED, Maker};
use crate::store::sqlite::ops::recur::row::{self as rows, Recurring, Run, mark};
use crate::store::sqlite::ops::recur::runs;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::sql::sql;
use crate::sync::lock;
use crate::time::Timestamp;

pub(crate) const DUE: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence INDEXED BY punctual_recurrence_due
    WHERE due_at <= :now AND (tzdb IS NULL OR tzdb <= :tzdb) AND id NOT IN (SELECT value FROM json_each(:unreadable))
    ORDER BY due_at, id LIMIT :limit",
    columns = Recurring::COLUMNS
);

/// Those whose next slot was found by an older version of the time zone database.
pub(crate) const OUTDATED: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence INDEXED BY punctual_recurrence_tzdb
    WHERE tzdb < :tzdb AND id NOT IN (SELECT value FROM json_each(:unreadable)) LIMIT :limit",
    columns = Recurring::COLUMNS
);

pub(crate) const OVERDUE: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence INDEXED BY punctual_recurrence_expected
    WHERE expected_by <= :now ORDER BY expected_by LIMIT :limit",
    columns = Recurring::COLUMNS
);

/// After so many slots a call ends.
const MAX_SLOTS: usize = 500;
/// After so many slots a call ends if other requests wait.
const ENOUGH: usize = 50;

/// Fires up to `limit` recurrences, and notes up to `limit` whose completion is overdue. Returns how many there were.
pub(crate) fn fire(tx: &mut WriteTx<'_>, limit: usize) -> rusqlite::Result<usize> {
    let outdated = update_zones(tx, limit)?;
    if outdated > 0 {
        // Before anything with a time zone is fired. The next call goes on.
        tx.done.learnt.recurs_next(Some(Timestamp::MIN));
        return Ok(outdated);
    }
    let (now, limited) = (tx.now.micros(), limit as i64);
    let due = select(tx, DUE, params![now, TZDB, unreadable(tx), limited])?;
    let (mut fired, mut placed) = (0, 0);
    if !due.is_empty() {
        let mark = mark(tx.conn)?;
        for recurring in due {
            placed += fire_one(tx, recurring, mark)?;
            fired += 1;
            if placed >= MAX_SLOTS || placed >= ENOUGH && tx.is_waited_for() {
                // The next call goes on, after the requests that wait.
                break;
            }
        }
    }
    for mut recurring in select(tx, OVERDUE, params![now, limited])? {
        fired += 1;
        recurring.tell_overdue(tx);
        recurring.keep(tx)?;
    }
    let next = head::next(tx.conn, &unreadable(tx))?;
    tx.done.learnt.recurs_next(next);
    Ok(fired)
}

/// The recurrences that this process cannot read, as JSON.
fn unreadable(tx: &WriteTx<'_>) -> String {
    let lanes = lock(tx.lanes);
    let known = lanes.unreadable().keys();
    let ids: Vec<i64> = known
        .chain(tx.done.learnt.all_unreadable())
        .copied()
        .collect();
    serde_json::to_string(&ids).expect("numbers can be encoded")
}

fn select(tx: &WriteTx<'_>, sql: &str, params: impl Params) -> rusqlite::Result<Vec<Recurring>> {
    tx.conn
        .prepare_cached(sql)?
        .query_map(params, Recurring::read)?
        .collect()
}

/// Finds the next slots anew that an older version of the time zone database has found. Returns how many there were.
fn update_zones(tx: &mut WriteTx<'_>, limit: usize) -> rusqlite::Result<usize> {
    let outdated = select(tx, OUTDATED, params![TZDB, unreadable(tx), limit as i64])?;
    let count = outdated.len();
    for mut recurring in outdated {
        update_zone(tx, &mut recurring)?;
        recurring.keep(tx)?;
    }
    Ok(count)
}

/// Finds the next slot anew, if an older version of the time zone database has found it.
pub(crate) fn update_zone(tx: &mut WriteTx<'_>, recurring: &mut Recurring) -> rusqlite::Result<()> {
    if !recurring.is_outdated() {
        return Ok(());
    }
    match rows::definition(tx.conn, recurring)? {
        Some((definition, _)) => {
            if let Some(until) = recurring.decided().moved_until(&definition.rule)
                && runs::has_civil_times(tx.conn, recurring)?
            {
                // The record has the instants of the former database.
                runs::forget(tx.conn, recurring, until)?;
            }
            let next = recurring.upcoming(&definition.rule);
            // A search goes on by itself.
            if recurring.next_slot.is_some() || matches!(next, Upcoming::Slot(_)) {
                recurring.move_to(tx, next, &definition);
            }
            recurring.tzdb = definition.rule.has_zones().then(|| TZDB.to_owned());
        }
        None => tx
            .done
            .learnt
            .unreadable(recurring.id, recurring.name.clone()),
    }
    Ok(())
}

/// Fires a recurrence. Returns how many of its slots were given a place, or left the one where they waited.
fn fire_one(tx: &mut WriteTx<'_>, mut recurring: Recurring, mark: Uuid) -> rusqlite::Result<usize> {
    let Some((definition, payload)) = rows::definition(tx.conn, &recurring)? else {
        // It is damaged, or a newer program has stored it: it is left alone, and keeps no other from its slots.
        tx.done.learnt.unreadable(recurring.id, recurring.name);
        return Ok(0);
    };
    let mut maker = Maker {
        recurring: &mut recurring,
        definition: &definition,
        payload: &payload,
        mark,
    };
    // What waits comes before the next slot: the policy may be another now, or the end of a live task has gone unnoticed.
    let mut placed = maker.release(tx)?;
    if placed < MAX_RELEASED {
        placed += maker.decide(tx)?;
    }
    recurring.keep(tx)?;
    Ok(placed)
}

impl Maker<'_> {
    /// Decides a chunk of the slots that are due, and moves on. Returns how many were given a place.
    pub(super) fn decide(&mut self, tx: &mut WriteTx<'_>) -> rusqlite::Result<usize> {
        let now = tx.now;
        let decision = match self.recurring.next_slot {
            Some(slot) if slot <= now => self.undecided(|definition| decide(definition, slot, now)),
            Some(slot) => Decision::nothing(Upcoming::Slot(slot)),
            None => Decision::nothing(self.recurring.upcoming(&self.definition.rule)),
        };
        self.take(tx, decision)
    }

    /// What `decide` says of the slots that are still to be decided.
    pub(super) fn undecided(&self, decide: impl Fn(&Definition) -> Decision) -> Decision {
        let (decided, definition) = (self.recurring.decided(), self.definition);
        let Some(rule) = decided.undecided(&definition.rule) else {
            return decide(definition);
        };
        let moved = Definition {
            rule,
            ..definition.clone()
        };
        let until = decided.moved_until(&definition.rule);
        let until = until.unwrap_or(decided.until);
        decide(&moved).between(&moved.rule, &definition.rule, until)
    }

    /// Does what was decided, and moves on. Returns how many slots were given a place.
    pub(super) fn take(
        &mut self,
        tx: &mut WriteTx<'_>,
        decision: Decision,
    ) -> rusqlite::Result<usize> {
        let definition = self.definition;
        let (mut next, mut placed) = (decision.next, 0);
        let moved_until = self.recurring.decided().moved_until(&definition.rule);
        for step in decision.steps {
            if moved_until.is_some() {
                // Between two decided slots may lie one that is decided otherwise.
                runs::close(tx.conn, self.recurring)?;
            }
            match step {
                Step::Pass {
                    first,
                    last,
                    reason,
                } => {
                    let fate = Fate::Skipped(reason);
                    let slots = Run { first, last, fate };
                    runs::record(tx, self.recurring, slots)?;
                    self.recurring.advance(&definition.rule, last);
                }
                Step::Place(slot) => {
                    let id = self.draw(slot).id(slot);
                    self.place(tx, Some(slot), id)?;
                    self.recurring.advance(&definition.rule, slot);
                    placed += 1;
                    if definition
                        .max_count
                        .is_some_and(|max| self.recurring.made >= max)
                    {
                        next = Upcoming::Ended;
                        break;
                    }
                }
            }
        }
        self.recurring.move_to(tx, next, definition);
        Ok(placed)
    }
}
