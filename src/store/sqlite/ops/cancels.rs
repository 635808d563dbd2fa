//! Cancellations that are left in the file for the process that runs the task, which reads them when it notices the commit.

use rusqlite::Connection;

use crate::model::settle::Fence;

const ASK: &str = "
    INSERT OR IGNORE INTO punctual_cancel (instance, seq, claim_no) VALUES (:instance, :seq, :claim_no)";

pub(crate) const READ: &str =
    "SELECT seq, claim_no FROM punctual_cancel WHERE instance = :instance";

const FORGET: &str = "DELETE FROM punctual_cancel WHERE instance = :instance";

/// Asks the attempt's instance to cancel it.
pub(crate) fn ask(conn: &Connection, attempt: Fence) -> rusqlite::Result<()> {
    conn.prepare_cached(ASK)?
        .execute([attempt.instance, attempt.seq, attempt.claim_no])
        .map(|_| ())
}

/// The attempts of an instance that other processes want cancelled.
pub(crate) fn read(conn: &Connection, instance: i64) -> rusqlite::Result<Vec<Fence>> {
    conn.prepare_cached(READ)?
        .query_map([instance], |row| {
            Ok(Fence {
                seq: row.get(0)?,
                instance,
                claim_no: row.get(1)?,
            })
        })?
        .collect()
}

/// Deletes what is left for an instance: it has read that, or has ended.
pub(crate) fn forget(conn: &Connection, instance: i64) -> rusqlite::Result<()> {
    conn.prepare_cached(FORGET)?.execute([instance]).map(|_| ())
}
