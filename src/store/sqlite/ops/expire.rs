//! Start deadlines that have passed.

use rusqlite::{OptionalExtension, params};

use crate::id::TaskId;
use crate::model::attempt::AttemptEnd;
use crate::model::lane::LaneId;
use crate::model::task::TaskState;
use crate::store::sqlite::ops::history::AttemptRow;
use crate::store::sqlite::ops::row;
use crate::store::sqlite::ops::transition::{self, PendingTask};
use crate::store::sqlite::ops::write_tx::{WriteTx, forget_expiry};
use crate::store::sqlite::sql::{columns, extra, sql};

/// The first start deadlines.
pub(crate) const EXPIRIES: &str = sql!(
    "SELECT {columns} FROM punctual_expiry AS expiry ORDER BY expires_at, seq LIMIT :limit",
    columns = StartDeadline::COLUMNS
);

columns! {
    /// A start deadline.
    struct StartDeadline {
        seq: i64 = "seq" by row::get,
        expires_at: i64 = "expires_at" by row::get,
        has_passed: bool = "expires_at < :now" by row::get,
        /// Whether its task has still to be started.
        counts: bool = "EXISTS (
            SELECT 1 FROM punctual_task
            WHERE seq = expiry.seq AND expires_at = expiry.expires_at AND state = {pending} AND attempt = 0)"
            by row::get,
    }
}

const EXPIRED: &str = sql!(
    "SELECT {columns} FROM punctual_task WHERE seq = :seq AND state = {pending} AND attempt = 0",
    columns = Expired::COLUMNS
);

columns! {
    /// A task that was never started.
    struct Expired {
        id: TaskId = "id" by row::id,
        lane: LaneId = "lane" by row::lane,
        claim_no: i64 = "claim_no" by row::get,
        extras: i64 = "extras" by row::get,
    }
}

pub(crate) fn expire(tx: &mut WriteTx<'_>, limit: usize) -> rusqlite::Result<usize> {
    let first: Vec<StartDeadline> = tx
        .conn
        .prepare_cached(EXPIRIES)?
        .query_map(params![tx.now.micros(), limit as i64], StartDeadline::read)?
        .collect::<rusqlite::Result<_>>()?;
    let mut expired = 0;
    for deadline in first {
        // A void deadline is removed before its time; otherwise maintenance would wake for each.
        if !deadline.counts || deadline.has_passed {
            forget_expiry(tx.conn, deadline.seq, deadline.expires_at)?;
        }
        if deadline.counts && deadline.has_passed {
            expire_one(tx, deadline.seq)?;
            expired += 1;
        }
    }
    Ok(expired)
}

/// Ends a task as failed, `expired`: its start deadline passed.
pub(crate) fn expire_one(tx: &mut WriteTx<'_>, seq: i64) -> rusqlite::Result<()> {
    let found = tx
        .conn
        .prepare_cached(EXPIRED)?
        .query_row([seq], Expired::read)
        .optional()?;
    let Some(expired) = found else {
        return Ok(());
    };
    let line = AttemptRow {
        seq,
        claim_no: tx.draw(expired.claim_no),
        attempt: 0,
        instance: None,
        started_at: None,
        ending: AttemptEnd::Expired,
        error: Some("expired"),
    };
    let task = PendingTask {
        seq,
        id: expired.id,
        lane: expired.lane,
        recurs: expired.extras & extra::RECURRENCE != 0,
    };
    transition::end_pending(tx, task, TaskState::Failed, Some(line))
}
