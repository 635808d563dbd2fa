//! Forgetting empty lanes and queues, so that the cost of a claim does not grow with the queues that ever existed.
//!
//! A lane goes in two steps, and never back. It is *retired* when it has been idle for a while: from then on it only names
//! its ended tasks, and the next task of its queue, kind and class gets a new lane. It is *deleted* once its last ended task
//! is. A retired lane without tasks never gets one again, so such lanes may be found in many short reads beforehand.
//!
//! A queue has a row as long as it has a lane, or is paused or limited.

use rusqlite::{Connection, OptionalExtension};

use crate::model::lane::LaneId;
use crate::store::sqlite::file::counter::Counter;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::sql::sql;

/// Whether a lane may be retired, for a query over `punctual_lane AS each`.
macro_rules! is_idle {
    () => {
        "
    EXISTS (
        SELECT 1 FROM punctual_queue WHERE id = each.queue AND paused_at IS NULL AND max_running IS NULL)
    AND NOT EXISTS (
        SELECT 1 FROM punctual_task INDEXED BY punctual_task_due WHERE state = {pending} AND lane = each.id)
    AND NOT EXISTS (
        SELECT 1 FROM punctual_task INDEXED BY punctual_task_running WHERE state = {running} AND lane = each.id)"
    };
}
pub(crate) use is_idle;

pub(crate) const RETIRE: &str = sql!(concat!(
    "UPDATE punctual_lane AS each SET retired = :number WHERE id = :id AND retired = {in_use} AND ",
    is_idle!()
));

/// Retires the idle ones of these lanes, and returns how many.
pub(crate) fn retire(tx: &mut WriteTx<'_>, lanes: &[LaneId]) -> rusqlite::Result<usize> {
    let number = Counter::Retirements.draw(tx.conn)?;
    let mut statement = tx.conn.prepare_cached(RETIRE)?;
    let mut retired = Vec::new();
    for lane in lanes {
        if statement.execute([number, lane.0])? == 1 {
            retired.push(*lane);
        }
    }
    let count = retired.len();
    tx.done.learnt.retired(number, retired);
    Ok(count)
}

pub(crate) const FORGET: &str = sql!(
    "DELETE FROM punctual_lane WHERE id = :id AND retired > {in_use} RETURNING queue, retired"
);

pub(crate) const FORGET_QUEUE: &str = "
    DELETE FROM punctual_queue WHERE id = :id AND paused_at IS NULL AND max_running IS NULL
    AND NOT EXISTS (SELECT 1 FROM punctual_lane WHERE queue = :id)";

/// Deletes the retired ones of these lanes, in which no task may be, and returns how many.
pub(crate) fn forget(tx: &WriteTx<'_>, lanes: &[LaneId]) -> rusqlite::Result<usize> {
    let mut statement = tx.conn.prepare_cached(FORGET)?;
    let (mut count, mut last) = (0, 0);
    for lane in lanes {
        let deleted: Option<(i64, i64)> = statement
            .query_row([lane.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if let Some((queue, retired)) = deleted {
            forget_queue(tx.conn, queue)?;
            last = last.max(retired);
            count += 1;
        }
    }
    if count > 0 {
        // A process that does not know of that retirement can no longer read which lanes it retired.
        Counter::Forgotten.raise_to(tx.conn, last)?;
    }
    Ok(count)
}

/// Deletes the row of a queue, unless it has a lane or a setting.
pub(crate) fn forget_queue(conn: &Connection, id: i64) -> rusqlite::Result<()> {
    conn.prepare_cached(FORGET_QUEUE)?.execute([id]).map(|_| ())
}
