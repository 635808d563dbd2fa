//! Reading the record of what became of slots.

use rusqlite::{Connection, OptionalExtension};

use crate::model::recurrence::definition::Definition;
use crate::model::recurrence::explain::{Record, RuledRun};
use crate::model::recurrence::policy::Fate;
use crate::model::recurrence::rule::Rule;
use crate::store::sqlite::ops::recur::row::{Recurring, mark};
use crate::store::sqlite::ops::recur::runs::RunRow;
use crate::store::sqlite::ops::row;
use crate::store::sqlite::sql::sql;
use crate::time::Timestamp;

/// The runs that reach into a range, newest first: they do not overlap, so the first that ends before it is the end.
pub(crate) const RUNS: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence_run
    WHERE recurrence = :recurrence AND first < :to ORDER BY first DESC",
    columns = RunRow::COLUMNS
);

pub(crate) const WAITING: &str = "
    SELECT slot FROM punctual_recurrence_buffer WHERE recurrence = :recurrence AND slot IS NOT NULL";

/// What is stored of the slots in a range, whose end is not included.
pub(crate) fn read(
    conn: &Connection,
    recurring: &Recurring,
    definition: &Definition,
    from: Timestamp,
    to: Timestamp,
    now: Timestamp,
) -> rusqlite::Result<Record> {
    let mut runs = Vec::new();
    let mut statement = conn.prepare_cached(RUNS)?;
    let mut found = statement.query([recurring.id, to.micros()])?;
    while let Some(row) = found.next()? {
        let run = RunRow::read(row)?;
        if run.last < from {
            break;
        }
        let (mut fate, mut rule) = (Fate::from_code(run.fate), None);
        if run.rule != recurring.rule {
            rule = former_rule(conn, recurring.id, run.rule)?;
            if rule.is_none() {
                // A rule that cannot be read: its slots must not make tasks again.
                fate = Fate::Made;
            }
        }
        runs.push(RuledRun {
            first: run.first,
            last: run.last,
            fate,
            rule: rule.unwrap_or_else(|| definition.rule.clone()),
            number: run.rule,
        });
    }
    runs.reverse();
    runs.extend(recurring.run().map(|run| RuledRun {
        first: run.first,
        last: run.last,
        fate: run.fate,
        rule: definition.rule.clone(),
        number: recurring.rule,
    }));
    let waiting = conn
        .prepare_cached(WAITING)?
        .query_map([recurring.id], |row| row::time(row, 0))?
        .collect::<rusqlite::Result<_>>()?;
    let rule = &definition.rule;
    let undecided = recurring.decided().undecided(rule);
    Ok(Record {
        mark: mark(conn)?,
        name: recurring.name.clone(),
        place: recurring.place(),
        runs,
        waiting,
        rule: rule.clone(),
        number: recurring.rule,
        undecided,
        next_slot: recurring.next_slot,
        decided_until: recurring.decided_until,
        forgotten_until: recurring.forgotten_until,
        paused_until: recurring.paused_at.map(|_| now),
    })
}

pub(crate) const FORMER_RULE: &str = "
    SELECT rule FROM punctual_recurrence_rule WHERE recurrence = :recurrence AND number = :number";

/// A former rule of a recurrence; `None`: it cannot be read.
fn former_rule(conn: &Connection, recurrence: i64, number: i64) -> rusqlite::Result<Option<Rule>> {
    let stored: Option<Vec<u8>> = conn
        .prepare_cached(FORMER_RULE)?
        .query_row([recurrence, number], |row| row.get(0))
        .optional()?;
    Ok(stored.and_then(|stored| serde_json::from_slice(&stored).ok()))
}
