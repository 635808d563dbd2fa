//! When a recurrence has to be looked at next, and what an operator should know.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};

use crate::model::recurrence::view::Trouble;
use crate::store::sqlite::ops::row;
use crate::store::sqlite::sql::{columns, sql};
use crate::time::Timestamp;

pub(crate) const NEXT_DUE: &str = "
    SELECT due_at FROM punctual_recurrence INDEXED BY punctual_recurrence_due
    WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1";

pub(crate) const NEXT_EXPECTED: &str = "
    SELECT expected_by FROM punctual_recurrence INDEXED BY punctual_recurrence_expected
    WHERE expected_by IS NOT NULL ORDER BY expected_by LIMIT 1";

/// When a recurrence has to be looked at next: two seeks.
pub(crate) fn next(conn: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let mut first = None;
    for sql in [NEXT_DUE, NEXT_EXPECTED] {
        let at: Option<i64> = conn
            .prepare_cached(sql)?
            .query_row([], |row| row.get(0))
            .optional()?;
        first = first.into_iter().chain(at).min();
    }
    Ok(first.map(Timestamp::from_micros))
}

pub(crate) const TROUBLED: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence INDEXED BY punctual_recurrence_troubled
    WHERE overdue_since IS NOT NULL OR paused_by > 0",
    columns = Troubled::COLUMNS
);

columns! {
    /// A recurrence that an operator should know of.
    struct Troubled {
        name: String = "name" by row::get,
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
