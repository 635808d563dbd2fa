//! When there is something to prune or to expire.

use rusqlite::{Connection, OptionalExtension, params_from_iter};

use crate::model::task::TaskState;
use crate::store::NextMaintenance;
use crate::time::Timestamp;

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
            .query_row(params_from_iter(params), |row| row.get(0))
            .optional()?;
        Ok(micros.map(Timestamp::from_micros))
    };
    Ok(NextMaintenance {
        expires_at: first(NEXT_EXPIRY, &[])?,
        ended_at: [
            first(OLDEST_ENDED, &[TaskState::Completed.code()])?,
            first(OLDEST_ENDED, &[TaskState::Failed.code()])?,
            first(OLDEST_ENDED, &[TaskState::Cancelled.code()])?,
        ],
    })
}
