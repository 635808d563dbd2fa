//! The record of what became of slots: as runs of decisions that were alike. The newest is in the recurrence's row.

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::recurrence::decide::Upcoming;
use crate::model::recurrence::event::RecurrenceEventKind;
use crate::model::recurrence::explain::RuledRun;
use crate::model::recurrence::policy::{Fate, SkipReason};
use crate::model::recurrence::rule::Rule;
use crate::store::sqlite::ops::recur::row::{Recurring, Run};
use crate::store::sqlite::ops::row;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::sql::{columns, sql};
use crate::time::Timestamp;

/// How many runs are kept, beside the newest.
pub(crate) const MAX_RUNS: u64 = 1_000;
/// How many more there may be before the oldest are deleted.
const SLACK: u64 = 50;

/// A run that begins at the same slot is about that slot already.
pub(crate) const ADD: &str = "
    INSERT OR IGNORE INTO punctual_recurrence_run (recurrence, first, last, fate, rule)
    VALUES (:recurrence, :first, :last, :fate, :rule)";

pub(crate) const LAST_OF_OLDEST: &str = "
    SELECT last FROM punctual_recurrence_run WHERE recurrence = :recurrence ORDER BY first LIMIT 1 OFFSET :count";

pub(crate) const FORGET: &str =
    "DELETE FROM punctual_recurrence_run WHERE recurrence = :recurrence AND first <= :until";

pub(crate) const DELETE: &str =
    "DELETE FROM punctual_recurrence_run WHERE recurrence = :recurrence AND first = :first";

pub(crate) const DELETE_FROM: &str =
    "DELETE FROM punctual_recurrence_run WHERE recurrence = :recurrence AND first >= :from";

/// The newest run that is left may reach beyond the instant: it is the only one.
pub(crate) const CUT: &str = "
    UPDATE punctual_recurrence_run SET last = ?2 - 1
    WHERE recurrence = ?1 AND last >= ?2 AND first =
        (SELECT first FROM punctual_recurrence_run WHERE recurrence = ?1 ORDER BY first DESC LIMIT 1)";

pub(crate) const KEEP_RULE: &str = "
    INSERT OR IGNORE INTO punctual_recurrence_rule (recurrence, number, rule) VALUES (:recurrence, :number, :rule)";

/// Those that no run is of any more.
pub(crate) const FORGET_RULES: &str = "
    DELETE FROM punctual_recurrence_rule WHERE recurrence = ?1 AND number NOT IN
        (SELECT rule FROM punctual_recurrence_run WHERE recurrence = ?1)";

/// Records what became of the slots from the first to the last.
pub(crate) fn record(
    tx: &mut WriteTx<'_>,
    recurring: &mut Recurring,
    slots: Run,
) -> rusqlite::Result<()> {
    if let Fate::Skipped(reason) = slots.fate {
        let skipped = RecurrenceEventKind::Skipped {
            first: slots.first.to_utc(),
            last: slots.last.to_utc(),
            reason,
        };
        tx.recurrence_event(&recurring.name, skipped);
    }
    if slots.first <= recurring.decided_until {
        // Civil times that were moved to before others that are decided.
        return among(tx.conn, recurring, slots);
    }
    match recurring.run() {
        Some(run) if run.fate == slots.fate => {
            let last = slots.last;
            recurring.set_run(Some(Run { last, ..run }));
        }
        _ => {
            close(tx.conn, recurring)?;
            recurring.set_run(Some(slots));
        }
    }
    Ok(())
}

/// Records what became of one slot.
pub(crate) fn record_one(
    tx: &mut WriteTx<'_>,
    recurring: &mut Recurring,
    slot: Timestamp,
    fate: Fate,
) -> rusqlite::Result<()> {
    let slots = Run {
        first: slot,
        last: slot,
        fate,
    };
    record(tx, recurring, slots)
}

/// Records what became of slots that lie among others. Runs that reach into theirs are cut.
fn among(conn: &Connection, recurring: &mut Recurring, slots: Run) -> rusqlite::Result<()> {
    close(conn, recurring)?;
    while let Some(run) = older(conn, recurring.id, slots.last)?
        && run.last >= slots.first
    {
        delete(conn, recurring, run.first)?;
        let (first, last, fate) = (run.first, run.last, Fate::from_code(run.fate));
        if last > slots.last {
            let first = Timestamp::from_micros(slots.last.micros() + 1);
            add(conn, recurring, Run { first, last, fate }, run.rule)?;
        }
        if first < slots.first {
            let last = Timestamp::from_micros(slots.first.micros() - 1);
            add(conn, recurring, Run { first, last, fate }, run.rule)?;
        }
    }
    add(conn, recurring, slots, recurring.rule)
}

columns! {
    /// A run beside the newest: decisions that were alike.
    struct RunRow {
        first: Timestamp = "first" by row::time,
        last: Timestamp = "last" by row::time,
        fate: i64 = "fate" by row::get,
        rule: i64 = "rule" by row::get,
    }
}

/// The last run that begins at an instant or before it.
pub(crate) const AT: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence_run
    WHERE recurrence = :recurrence AND first <= :at ORDER BY first DESC LIMIT 1",
    columns = RunRow::COLUMNS
);

fn older(conn: &Connection, id: i64, at: Timestamp) -> rusqlite::Result<Option<RunRow>> {
    conn.prepare_cached(AT)?
        .query_row([id, at.micros()], RunRow::read)
        .optional()
}

fn delete(conn: &Connection, recurring: &mut Recurring, first: Timestamp) -> rusqlite::Result<()> {
    let deleted = conn
        .prepare_cached(DELETE)?
        .execute([recurring.id, first.micros()])?;
    recurring.runs = recurring.runs.saturating_sub(deleted as u64);
    Ok(())
}

/// Records that a slot which has waited makes no task: a newer one has taken its place. It is in a run of slots that have made
/// theirs, which is split.
pub(crate) fn supersede(
    tx: &mut WriteTx<'_>,
    recurring: &mut Recurring,
    rule: &Rule,
    slot: Timestamp,
) -> rusqlite::Result<()> {
    let reason = SkipReason::Superseded;
    let skipped = RecurrenceEventKind::Skipped {
        first: slot.to_utc(),
        last: slot.to_utc(),
        reason,
    };
    tx.recurrence_event(&recurring.name, skipped);
    let one = Run {
        first: slot,
        last: slot,
        fate: Fate::Skipped(reason),
    };
    let (run, number, is_newest) = match recurring.run() {
        Some(run) if (run.first..=run.last).contains(&slot) => {
            recurring.set_run(None);
            (run, recurring.rule, true)
        }
        _ => match older(tx.conn, recurring.id, slot)? {
            Some(run) if slot <= run.last => {
                delete(tx.conn, recurring, run.first)?;
                let (first, last, fate) = (run.first, run.last, Fate::from_code(run.fate));
                (Run { first, last, fate }, run.rule, false)
            }
            // Its run is forgotten.
            _ => return Ok(()),
        },
    };
    let is_now = number == recurring.rule;
    let before_run = Timestamp::from_micros(run.first.micros() - 1);
    let begins_there = is_now && Upcoming::after(rule, before_run) == Upcoming::Slot(slot);
    if run.first < slot && !begins_there {
        let last = Timestamp::from_micros(slot.micros() - 1);
        add(tx.conn, recurring, Run { last, ..run }, number)?;
    }
    let after = (slot < run.last).then(|| Run {
        first: Timestamp::from_micros(slot.micros() + 1),
        ..run
    });
    let one = match is_now {
        true => join(tx.conn, recurring, rule, one)?,
        false => one,
    };
    match after {
        Some(after) if is_newest => {
            add(tx.conn, recurring, one, number)?;
            recurring.set_run(Some(after));
        }
        None if is_newest => recurring.set_run(Some(one)),
        after => {
            add(tx.conn, recurring, one, number)?;
            if let Some(after) = after {
                add(tx.conn, recurring, after, number)?;
            }
        }
    }
    Ok(())
}

/// The run of a slot, joined with the one before it if that is alike and ends at the slot before.
fn join(
    conn: &Connection,
    recurring: &mut Recurring,
    rule: &Rule,
    one: Run,
) -> rusqlite::Result<Run> {
    match older(conn, recurring.id, one.first)? {
        Some(run)
            if run.fate == one.fate.code()
                && run.rule == recurring.rule
                && Upcoming::after(rule, run.last) == Upcoming::Slot(one.first) =>
        {
            delete(conn, recurring, run.first)?;
            let first = run.first;
            Ok(Run { first, ..one })
        }
        _ => Ok(one),
    }
}

/// Moves the newest run to the others.
pub(crate) fn close(conn: &Connection, recurring: &mut Recurring) -> rusqlite::Result<()> {
    let Some(run) = recurring.run() else {
        return Ok(());
    };
    recurring.set_run(None);
    add(conn, recurring, run, recurring.rule)
}

fn add(conn: &Connection, recurring: &mut Recurring, run: Run, rule: i64) -> rusqlite::Result<()> {
    let added = conn.prepare_cached(ADD)?.execute(params![
        recurring.id,
        run.first.micros(),
        run.last.micros(),
        run.fate.code(),
        rule
    ])?;
    recurring.runs += added as u64;
    if recurring.runs > MAX_RUNS + SLACK {
        forget_oldest(conn, recurring)?;
    }
    Ok(())
}

/// Begins a record of slots of another rule. `former`: the rule until now, if it can be read.
pub(crate) fn change_rule(
    conn: &Connection,
    recurring: &mut Recurring,
    former: Option<&Rule>,
) -> rusqlite::Result<()> {
    close(conn, recurring)?;
    if let Some(former) = former {
        let rule = serde_json::to_vec(former).expect("a rule can be encoded");
        conn.prepare_cached(KEEP_RULE)?
            .execute(params![recurring.id, recurring.rule, rule])?;
    }
    recurring.rule += 1;
    Ok(())
}

/// Replaces runs by others.
pub(crate) fn replace(
    conn: &Connection,
    recurring: &mut Recurring,
    gone: &[Timestamp],
    runs: &[RuledRun],
) -> rusqlite::Result<()> {
    for first in gone {
        delete(conn, recurring, *first)?;
    }
    for run in runs {
        let (first, last, fate) = (run.first, run.last, run.fate);
        add(conn, recurring, Run { first, last, fate }, run.number)?;
    }
    Ok(())
}

/// Deletes the record of the slots from an instant on.
pub(crate) fn cut(
    conn: &Connection,
    recurring: &mut Recurring,
    from: Timestamp,
) -> rusqlite::Result<()> {
    close(conn, recurring)?;
    let id = recurring.id;
    let deleted = conn
        .prepare_cached(DELETE_FROM)?
        .execute([id, from.micros()])?;
    recurring.runs = recurring.runs.saturating_sub(deleted as u64);
    conn.prepare_cached(CUT)?.execute([id, from.micros()])?;
    Ok(())
}

pub(crate) const RULES: &str = "
    SELECT run.rule, former.rule FROM punctual_recurrence_run AS run
    LEFT JOIN punctual_recurrence_rule AS former
        ON former.recurrence = run.recurrence AND former.number = run.rule
    WHERE run.recurrence = :recurrence";

/// Whether a recorded decision, or one that is forgotten, may be about a civil time. The rule of a recurrence whose civil times
/// were moved has some.
pub(crate) fn has_civil_times(conn: &Connection, recurring: &Recurring) -> rusqlite::Result<bool> {
    if recurring.run().is_some() || recurring.forgotten_until.is_some() {
        return Ok(true);
    }
    let mut statement = conn.prepare_cached(RULES)?;
    let mut rows = statement.query([recurring.id])?;
    while let Some(row) = rows.next()? {
        let (number, former): (i64, Option<Vec<u8>>) = (row.get(0)?, row.get(1)?);
        let former = former.and_then(|former| serde_json::from_slice::<Rule>(&former).ok());
        if number == recurring.rule || former.is_none_or(|former| former.has_zones()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Deletes the record of the slots up to an instant, which is not before any of them.
pub(crate) fn forget(
    conn: &Connection,
    recurring: &mut Recurring,
    until: Timestamp,
) -> rusqlite::Result<()> {
    conn.prepare_cached(DELETE_FROM)?
        .execute([recurring.id, Timestamp::MIN.micros()])?;
    conn.prepare_cached(FORGET_RULES)?.execute([recurring.id])?;
    recurring.set_run(None);
    recurring.runs = 0;
    recurring.forgotten_until = recurring.forgotten_until.max(Some(until));
    Ok(())
}

fn forget_oldest(conn: &Connection, recurring: &mut Recurring) -> rusqlite::Result<()> {
    let until: i64 = conn
        .prepare_cached(LAST_OF_OLDEST)?
        .query_row([recurring.id, SLACK as i64 - 1], |row| row.get(0))?;
    let deleted = conn
        .prepare_cached(FORGET)?
        .execute([recurring.id, until])?;
    recurring.runs = recurring.runs.saturating_sub(deleted as u64);
    conn.prepare_cached(FORGET_RULES)?.execute([recurring.id])?;
    let until = Timestamp::from_micros(until);
    recurring.forgotten_until = recurring.forgotten_until.max(Some(until));
    Ok(())
}
