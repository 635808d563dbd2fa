//! Settings of queues: stopped or not, and how many of their tasks run at once.

use rusqlite::params;

use crate::store::lanes::QueueChange;
use crate::store::sqlite::ops::forget::forget_queue;
use crate::store::sqlite::ops::lanes::queue_id;
use crate::store::sqlite::ops::write_tx::WriteTx;

const PAUSE: &str = "UPDATE punctual_queue SET paused_at = :at WHERE id = :id";

/// Pauses or resumes a queue, even one that has no tasks yet.
pub(crate) fn pause(tx: &mut WriteTx<'_>, queue: &str, paused: bool) -> rusqlite::Result<()> {
    let at = paused.then_some(tx.now.micros());
    set(tx, queue, PAUSE, at, QueueChange::Paused(paused))
}

const LIMIT: &str = "UPDATE punctual_queue SET max_running = :limit WHERE id = :id";

/// Bounds how many tasks of a queue run at once in all processes.
pub(crate) fn limit(tx: &mut WriteTx<'_>, queue: &str, limit: Option<u32>) -> rusqlite::Result<()> {
    let value = limit.map(i64::from);
    set(tx, queue, LIMIT, value, QueueChange::Limit(limit))
}

/// Sets one column of a queue by `sql`; a queue that has neither a lane nor a setting then has no row.
fn set(
    tx: &mut WriteTx<'_>,
    queue: &str,
    sql: &str,
    value: Option<i64>,
    change: QueueChange,
) -> rusqlite::Result<()> {
    let (id, _) = queue_id(tx.conn, queue)?;
    tx.conn.prepare_cached(sql)?.execute(params![value, id])?;
    forget_queue(tx.conn, id)?;
    tx.done.learnt.changed(queue.to_owned(), change);
    tx.done.news.queues = true;
    Ok(())
}
