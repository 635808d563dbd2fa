//! Removing ended tasks whose retention is over.

use rusqlite::{Connection, params};

use crate::model::retention::Cutoffs;
use crate::model::task::TaskState;
use crate::store::sqlite::ops::extras;
use crate::store::sqlite::ops::write_tx::{WriteTx, forget_expiry};

/// The oldest ended tasks of a final state, oldest first.
pub(crate) const EXPIRED_RETENTION: &str = "
    SELECT seq FROM punctual_task INDEXED BY punctual_task_ended
    WHERE state = :state AND finished_at IS NOT NULL AND finished_at <= :cutoff
    ORDER BY finished_at LIMIT :limit";

const DELETE: &str =
    "DELETE FROM punctual_task WHERE seq = :seq RETURNING extras, CAST(expires_at AS INTEGER)";

pub(crate) fn prune(tx: &WriteTx<'_>, cutoffs: &Cutoffs, limit: usize) -> rusqlite::Result<usize> {
    let mut pruned = 0;
    for (state, cutoff) in [
        (TaskState::Completed, cutoffs.completed),
        (TaskState::Failed, cutoffs.failed),
        (TaskState::Cancelled, cutoffs.cancelled),
    ] {
        let (Some(cutoff), true) = (cutoff, pruned < limit) else {
            continue;
        };
        let seqs: Vec<i64> = tx
            .conn
            .prepare_cached(EXPIRED_RETENTION)?
            .query_map(
                params![state.code(), cutoff.micros(), (limit - pruned) as i64],
                |row| row.get(0),
            )?
            .collect::<rusqlite::Result<_>>()?;
        for seq in &seqs {
            delete(tx.conn, *seq)?;
        }
        pruned += seqs.len();
    }
    Ok(pruned)
}

/// Deletes a task and everything that belongs to it.
pub(crate) fn delete(conn: &Connection, seq: i64) -> rusqlite::Result<()> {
    let (extras, expires_at): (i64, Option<i64>) = conn
        .prepare_cached(DELETE)?
        .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if let Some(at) = expires_at {
        forget_expiry(conn, seq, at)?;
    }
    extras::delete(conn, seq, extras)
}
