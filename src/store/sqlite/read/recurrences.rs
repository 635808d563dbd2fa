//! Reading recurrences: one, a page of those that match a filter, or what became of the slots of one.

use rusqlite::{Connection, params};

use crate::model::recurrence::explain::{Explanation, SlotFate};
use crate::model::recurrence::filter::{RecurrenceFilter, RecurrencePage};
use crate::model::recurrence::view::{PausedBy, RecurrenceStatus};
use crate::store::sqlite::ops::recur::make::TASK;
use crate::store::sqlite::ops::recur::record;
use crate::store::sqlite::ops::recur::row::{self as rows, Recurring};
use crate::store::sqlite::ops::row;
use crate::store::sqlite::sql::{columns, sql};
use crate::time::Timestamp;

pub(crate) const PAGE: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence WHERE name > :after ORDER BY name LIMIT :limit",
    columns = Recurring::COLUMNS
);

/// How many rows one page examines.
const MAX_EXAMINED: usize = 2_000;

pub(super) fn recurrence(
    conn: &Connection,
    name: &str,
) -> rusqlite::Result<Option<RecurrenceStatus>> {
    let snapshot = conn.unchecked_transaction()?;
    let found = Recurring::by_name(conn, name)?;
    let status = match found {
        Some(recurring) => Some(status(conn, recurring)?.ok_or_else(damaged)?),
        None => None,
    };
    snapshot.finish()?;
    Ok(status)
}

pub(super) fn recurrences(
    conn: &Connection,
    filter: &RecurrenceFilter,
) -> rusqlite::Result<RecurrencePage> {
    let mut page = RecurrencePage::default();
    let snapshot = conn.unchecked_transaction()?;
    let mut statement = conn.prepare_cached(PAGE)?;
    let after = filter.after.as_deref().unwrap_or_default();
    let mut rows = statement.query(params![after, MAX_EXAMINED as i64])?;
    let mut examined = 0;
    while let Some(row) = rows.next()? {
        examined += 1;
        let recurring = Recurring::read(row)?;
        let name = recurring.name.clone();
        if let Some(status) = status(conn, recurring)?
            && filter.matches(&status)
        {
            page.recurrences.push(status);
        }
        if page.recurrences.len() == filter.limit || examined == MAX_EXAMINED {
            // A damaged name is not the one in the file: it must not lead back to itself.
            page.next = Some(name).filter(|name| filter.after.as_ref() != Some(name));
            break;
        }
    }
    drop(rows);
    drop(statement);
    snapshot.finish()?;
    Ok(page)
}

/// What callers see; `None`: its definition is damaged.
fn status(conn: &Connection, recurring: Recurring) -> rusqlite::Result<Option<RecurrenceStatus>> {
    let Some((definition, payload)) = rows::definition(conn, &recurring)? else {
        return Ok(None);
    };
    let paused_by = PausedBy::from_code(recurring.paused_by.unwrap_or_default());
    Ok(Some(RecurrenceStatus {
        is_searching: recurring.next_slot.is_none() && !recurring.has_ended(),
        name: recurring.name,
        definition,
        payload,
        next_slot: recurring.next_slot,
        previous_slot: recurring.previous_slot,
        made: recurring.made,
        waiting: recurring.buffered,
        failures: recurring.failures,
        paused: recurring.paused_at.map(|at| (at, paused_by)),
        overdue_since: recurring.overdue_since,
        completed_at: recurring.completed_at,
    }))
}

fn damaged() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some("the definition of the recurrence cannot be read".to_owned()),
    )
}

/// What became of the slots in a range; `None`: there is no recurrence of that name.
pub(super) fn explain(
    conn: &Connection,
    name: &str,
    from: Timestamp,
    to: Timestamp,
    now: Timestamp,
) -> rusqlite::Result<Option<Explanation>> {
    let snapshot = conn.unchecked_transaction()?;
    let Some(recurring) = Recurring::by_name(conn, name)? else {
        return Ok(None);
    };
    let (definition, _) = rows::definition(conn, &recurring)?.ok_or_else(damaged)?;
    let record = record::read(conn, &recurring, &definition, from, to, now)?;
    let mut explanation = record.explain(from, to);
    let mut task = conn.prepare_cached(TASK)?;
    for explained in &mut explanation.slots {
        // One that was decided again, or whose run was: its task is there all the same.
        if let SlotFate::Skipped(_) = explained.fate {
            let id = record.task(explained.slot);
            if task.exists([id.as_bytes()])? {
                explained.fate = SlotFate::Made(id);
            }
        }
    }
    drop(task);
    snapshot.finish()?;
    Ok(Some(explanation))
}

/// Passes over all recurrences: it is asked when the clock was set back, and at the start.
pub(crate) const DECIDED_AFTER: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence WHERE decided_until > :at ORDER BY id LIMIT 100",
    columns = Decided::COLUMNS
);

columns! {
    /// A recurrence, and the slot that was decided last.
    struct Decided {
        name: String = "name" by row::name,
        decided_until: Timestamp = "decided_until" by row::time,
    }
}

pub(super) fn decided_after(
    conn: &Connection,
    at: Timestamp,
) -> rusqlite::Result<Vec<(String, Timestamp)>> {
    conn.prepare_cached(DECIDED_AFTER)?
        .query_map([at.micros()], |row| {
            let decided = Decided::read(row)?;
            Ok((decided.name, decided.decided_until))
        })?
        .collect()
}
