//! When a recurrence has to be looked at next, and what an operator should know.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Params};

use crate::model::recurrence::view::Trouble;
use crate::model::recurrence::zone::TZDB;
use crate::store::sqlite::ops::row;
use crate::store::sqlite::sql::{columns, sql};
use crate::time::Timestamp;

pub(crate) const NEXT_DUE: &str = "
    SELECT due_at FROM punctual_recurrence INDEXED BY punctual_recurrence_due
    WHERE due_at IS NOT NULL AND (tzdb IS NULL OR tzdb <= :tzdb) AND id NOT IN (SELECT value FROM json_each(:unreadable))
    ORDER BY due_at LIMIT 1";

pub(crate) const OLDEST_TZDB: &str = "
    SELECT tzdb FROM punctual_recurrence INDEXED BY punctual_recurrence_tzdb
    WHERE tzdb IS NOT NULL AND id NOT IN (SELECT value FROM json_each(:unreadable)) ORDER BY tzdb LIMIT 1";

pub(crate) const NEWEST_TZDB: &str = "
    SELECT tzdb FROM punctual_recurrence INDEXED BY punctual_recurrence_tzdb
    WHERE tzdb IS NOT NULL ORDER BY tzdb DESC LIMIT 1";

pub(crate) const NEXT_EXPECTED: &str = "
    SELECT expected_by FROM punctual_recurrence INDEXED BY punctual_recurrence_expected
    WHERE expected_by IS NOT NULL ORDER BY expected_by LIMIT 1";

/// None of which it is known that it cannot be read.
pub(crate) const ALL_READABLE: &str = "[]";

/// When a recurrence has to be looked at next, except for some, whose numbers are given as JSON: three seeks. At once, if the
/// time zone database is newer than one by which a next slot was found.
pub(crate) fn next(conn: &Connection, unreadable: &str) -> rusqlite::Result<Option<Timestamp>> {
    if tzdb(conn, OLDEST_TZDB, [unreadable])?.is_some_and(|oldest| *oldest < *TZDB) {
        return Ok(Some(Timestamp::MIN));
    }
    let due: Option<i64> = conn
        .prepare_cached(NEXT_DUE)?
        .query_row([TZDB, unreadable], |row| row.get(0))
        .optional()?;
    let expected: Option<i64> = conn
        .prepare_cached(NEXT_EXPECTED)?
        .query_row([], |row| row.get(0))
        .optional()?;
    let first = due.into_iter().chain(expected).min();
    Ok(first.map(Timestamp::from_micros))
}

/// The version of the time zone database by which a next slot was found, if it is newer than that of this program.
pub(crate) fn newer_tzdb(conn: &Connection) -> rusqlite::Result<Option<String>> {
    let newest = tzdb(conn, NEWEST_TZDB, [])?;
    Ok(newest.filter(|newest| **newest > *TZDB))
}

fn tzdb(conn: &Connection, sql: &str, params: impl Params) -> rusqlite::Result<Option<String>> {
    conn.prepare_cached(sql)?
        .query_row(params, |row| row.get(0))
        .optional()
}

pub(crate) const TROUBLED: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence INDEXED BY punctual_recurrence_troubled
    WHERE overdue_since IS NOT NULL OR paused_by > 0",
    columns = Troubled::COLUMNS
);

columns! {
    /// A recurrence that an operator should know of.
    struct Troubled {
        name: String = "name" by row::name,
        is_overdue: bool = "overdue_since IS NOT NULL" by row::get,
        is_stopped: bool = "ifnull(paused_by, 0) > 0" by row::get,
    }
}

/// The recurrences that an operator should know of.
pub(crate) fn troubled(conn: &Connection) -> rusqlite::Result<BTreeMap<String, Trouble>> {
    conn.prepare_cached(TROUBLED)?
        .query_map([], |row| {
            let troubled = Troubled::read(row)?;
            let trouble = Trouble {
                is_overdue: troubled.is_overdue,
                is_stopped: troubled.is_stopped,
            };
            Ok((troubled.name, trouble))
        })?
        .collect()
}
