//! Removing what is over: ended tasks after their retention, and start deadlines that have passed.

use rusqlite::{Connection, OptionalExtension, params};

use crate::id::TaskId;
use crate::model::attempt::AttemptEnd;
use crate::model::op::LaneId;
use crate::model::retention::Cutoffs;
use crate::model::task::TaskState;
use crate::store::NextMaintenance;
use crate::store::sqlite::ops::row;
use crate::store::sqlite::ops::transition::{self, Waiting};
use crate::store::sqlite::ops::write_tx::{AttemptRow, Tx, extra};
use crate::time::Timestamp;

/// The oldest ended tasks of a final state, oldest first.
pub(crate) const EXPIRED_RETENTION: &str = "
    SELECT seq FROM punctual_task INDEXED BY punctual_task_ended
    WHERE state = :state AND finished_at IS NOT NULL AND finished_at <= :cutoff
    ORDER BY finished_at LIMIT :limit";

const DELETE: &str =
    "DELETE FROM punctual_task WHERE seq = :seq RETURNING extras, CAST(expires_at AS INTEGER)";

const DELETE_EXTRAS: [(i64, &str); 5] = [
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
];

pub(crate) fn prune(tx: &Tx<'_>, cutoffs: &Cutoffs, limit: usize) -> rusqlite::Result<usize> {
    let mut pruned = 0;
    for (state, cutoff) in [
        (20, cutoffs.completed),
        (30, cutoffs.failed),
        (40, cutoffs.cancelled),
    ] {
        let (Some(cutoff), true) = (cutoff, pruned < limit) else {
            continue;
        };
        let seqs: Vec<i64> = tx
            .conn
            .prepare_cached(EXPIRED_RETENTION)?
            .query_map(
                params![state, cutoff.micros(), (limit - pruned) as i64],
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
    for (bit, sql) in DELETE_EXTRAS {
        if extras & bit != 0 {
            conn.prepare_cached(sql)?.execute([seq])?;
        }
    }
    Ok(())
}

/// The first start deadlines: whether they have passed, and whether their tasks have still to be started.
pub(crate) const EXPIRIES: &str = "
    SELECT seq, expires_at, expires_at < :now, EXISTS (
        SELECT 1 FROM punctual_task
        WHERE seq = expiry.seq AND expires_at = expiry.expires_at AND state = 0 AND attempt = 0)
    FROM punctual_expiry AS expiry ORDER BY expires_at, seq LIMIT :limit";

pub(crate) const FORGET_EXPIRY: &str =
    "DELETE FROM punctual_expiry WHERE seq = :seq AND expires_at = :expires_at";

const EXPIRED: &str = "
    SELECT id, lane, claim_no FROM punctual_task WHERE seq = :seq AND state = 0 AND attempt = 0";

pub(crate) fn expire(tx: &mut Tx<'_>, limit: usize) -> rusqlite::Result<usize> {
    let first: Vec<(i64, i64, bool, bool)> = tx
        .conn
        .prepare_cached(EXPIRIES)?
        .query_map(params![tx.now.micros(), limit as i64], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut expired = 0;
    for (seq, expires_at, has_passed, counts) in first {
        // What is void goes before its time: else there would be a look at each.
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

/// A task has no start deadline any more.
pub(crate) fn forget_expiry(conn: &Connection, seq: i64, expires_at: i64) -> rusqlite::Result<()> {
    conn.prepare_cached(FORGET_EXPIRY)?
        .execute([seq, expires_at])
        .map(|_| ())
}

/// Ends a task as failed, `expired`: its start deadline passed.
pub(crate) fn expire_one(tx: &mut Tx<'_>, seq: i64) -> rusqlite::Result<()> {
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
    let task = Waiting { seq, id, lane };
    transition::end_pending(tx, task, TaskState::Failed, Some(line))
}

pub(crate) const NEXT_EXPIRY: &str =
    "SELECT expires_at FROM punctual_expiry ORDER BY expires_at LIMIT 1";

pub(crate) const OLDEST_ENDED: &str = "
    SELECT finished_at FROM punctual_task INDEXED BY punctual_task_ended
    WHERE state = :state AND finished_at IS NOT NULL ORDER BY finished_at LIMIT 1";

/// When there is something to prune or to expire: four seeks.
pub(crate) fn next(conn: &Connection) -> rusqlite::Result<NextMaintenance> {
    let first = |sql, params: &[i64]| -> rusqlite::Result<Option<Timestamp>> {
        let micros: Option<i64> = conn
            .prepare_cached(sql)?
            .query_row(rusqlite::params_from_iter(params), |row| row.get(0))
            .optional()?;
        Ok(micros.map(Timestamp::from_micros))
    };
    Ok(NextMaintenance {
        expires_at: first(NEXT_EXPIRY, &[])?,
        ended_at: [
            first(OLDEST_ENDED, &[20])?,
            first(OLDEST_ENDED, &[30])?,
            first(OLDEST_ENDED, &[40])?,
        ],
    })
}
