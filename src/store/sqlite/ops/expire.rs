//! Start deadlines that have passed.

use rusqlite::{OptionalExtension, params};

use crate::id::TaskId;
use crate::model::attempt::AttemptEnd;
use crate::model::lane::LaneId;
use crate::model::task::TaskState;
use crate::store::sqlite::ops::row;
use crate::store::sqlite::ops::transition::{self, PendingTask};
use crate::store::sqlite::ops::write_tx::{AttemptRow, WriteTx, forget_expiry};
use crate::store::sqlite::sql::sql;

/// The first start deadlines: whether each has passed, and whether its task has still to be started.
pub(crate) const EXPIRIES: &str = sql!("
    SELECT seq, expires_at, expires_at < :now, EXISTS (
        SELECT 1 FROM punctual_task
        WHERE seq = expiry.seq AND expires_at = expiry.expires_at AND state = {pending} AND attempt = 0)
    FROM punctual_expiry AS expiry ORDER BY expires_at, seq LIMIT :limit");

const EXPIRED: &str = sql!("
    SELECT id, lane, claim_no FROM punctual_task WHERE seq = :seq AND state = {pending} AND attempt = 0");

pub(crate) fn expire(tx: &mut WriteTx<'_>, limit: usize) -> rusqlite::Result<usize> {
    let first: Vec<(i64, i64, bool, bool)> = tx
        .conn
        .prepare_cached(EXPIRIES)?
        .query_map(params![tx.now.micros(), limit as i64], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut expired = 0;
    for (seq, expires_at, has_passed, counts) in first {
        // A void deadline is removed before its time; otherwise maintenance would wake for each.
        if !counts || has_passed {
            forget_expiry(tx.conn, seq, expires_at)?;
        }
        if counts && has_passed {
            expire_one(tx, seq)?;
            expired += 1;
        }
    }
    Ok(expired)
}

/// Ends a task as failed, `expired`: its start deadline passed.
pub(crate) fn expire_one(tx: &mut WriteTx<'_>, seq: i64) -> rusqlite::Result<()> {
    let found: Option<(TaskId, i64, i64)> = tx
        .conn
        .prepare_cached(EXPIRED)?
        .query_row([seq], |row| {
            Ok((row::id(row, 0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((id, lane, claim_no)) = found else {
        return Ok(());
    };
    let line = AttemptRow {
        seq,
        claim_no,
        attempt: 0,
        instance: None,
        started_at: None,
        ending: AttemptEnd::Expired,
        error: Some("expired"),
    };
    let lane = LaneId(lane);
    let task = PendingTask { seq, id, lane };
    transition::end_pending(tx, task, TaskState::Failed, Some(line))
}
