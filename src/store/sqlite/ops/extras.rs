//! What a task has in other tables: the bits of its `extras` say in which.

use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension};

use crate::store::sqlite::ops::trouble;
use crate::store::sqlite::sql::extra;

/// Reads the first column of what a task has in the table of this bit; `None`: it has nothing there.
pub(crate) fn read<T: FromSql>(
    conn: &Connection,
    seq: i64,
    extras: i64,
    bit: i64,
    sql: &str,
) -> rusqlite::Result<Option<T>> {
    if extras & bit == 0 {
        return Ok(None);
    }
    conn.prepare_cached(sql)?
        .query_row([seq], |row| row.get(0))
        .optional()
}

const LAST_ERROR: &str = "
    SELECT error FROM punctual_attempt WHERE seq = :seq AND error IS NOT NULL
    ORDER BY claim_no DESC LIMIT 1";

/// The error of the last attempt that ended with one.
pub(crate) fn last_error(
    conn: &Connection,
    seq: i64,
    extras: i64,
) -> rusqlite::Result<Option<String>> {
    read(conn, seq, extras, extra::ATTEMPTS, LAST_ERROR)
}

const DELETE: [(i64, &str); 6] = [
    (
        extra::PAYLOAD,
        "DELETE FROM punctual_payload WHERE seq = :seq",
    ),
    (extra::TAGS, "DELETE FROM punctual_tag WHERE seq = :seq"),
    (
        extra::RESULT,
        "DELETE FROM punctual_result WHERE seq = :seq",
    ),
    (
        extra::ATTEMPTS,
        "DELETE FROM punctual_attempt WHERE seq = :seq",
    ),
    (
        extra::PROGRESS,
        "DELETE FROM punctual_progress WHERE seq = :seq",
    ),
    (extra::TROUBLE, trouble::DELETE),
];

/// Deletes what a task has in those other tables whose bits are set.
pub(crate) fn delete(conn: &Connection, seq: i64, extras: i64) -> rusqlite::Result<()> {
    for (bit, sql) in DELETE {
        if extras & bit != 0 {
            conn.prepare_cached(sql)?.execute([seq])?;
        }
    }
    Ok(())
}
