//! The one exit of a task: every change that ends a task, or makes it wait again, is made here.
//!
//! Each function writes the task's row and everything that follows: the line in the history, the lane's head, the start
//! deadline, the event, the callers that wait for the end. Whatever else a task holds until its end must be let go here, and
//! nowhere else.

use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, params, params_from_iter};

use crate::id::TaskId;
use crate::model::attempt::AttemptEnd;
use crate::model::event::EventKind;
use crate::model::lane::LaneId;
use crate::model::op::Settled;
use crate::model::settle::{Fence, Record, Settlement};
use crate::model::task::TaskState;
use crate::store::sqlite::ops::extras;
use crate::store::sqlite::ops::history::{self, AttemptRow};
use crate::store::sqlite::ops::room;
use crate::store::sqlite::ops::row;
use crate::store::sqlite::ops::trouble::Trouble;
use crate::store::sqlite::ops::write_tx::forget_expiry;
use crate::store::sqlite::ops::write_tx::{Turned, WriteTx};
use crate::store::sqlite::sql::{columns, extra, sql};
use crate::time::Timestamp;

/// A task that an attempt holds: read from its row, then changed to what the row will hold once the attempt has left it.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) fence: Fence,
    pub(crate) id: TaskId,
    pub(crate) lane: LaneId,
    pub(crate) priority: u8,
    pub(crate) attempt: i64,
    /// Which data the task has in other tables.
    pub(crate) extras: i64,
    pub(crate) trouble: Trouble,
    pub(crate) started_at: Option<i64>,
    pub(crate) scheduled_at: i64,
    pub(crate) expires_at: Option<i64>,
}

columns! {
    /// The columns that a [`Held`] is made of.
    struct HeldRow {
        seq: i64 = "seq" by row::get,
        claim_no: i64 = "claim_no" by row::get,
        id: TaskId = "id" by row::id,
        lane: LaneId = "lane" by row::lane,
        priority: u8 = "priority" by row::priority,
        attempt: i64 = "attempt" by row::get,
        started_at: Option<i64> = "started_at" by row::get,
        scheduled_at: i64 = "scheduled_at" by row::get,
        expires_at: Option<i64> = "expires_at" by row::get,
        cancel_requested: bool = "cancel_requested_at IS NOT NULL" by row::get,
        extras: i64 = "extras" by row::get,
    }
}

impl HeldRow {
    pub(crate) fn held_by(self, instance: i64, conn: &Connection) -> rusqlite::Result<Held> {
        Ok(Held {
            fence: Fence {
                seq: self.seq,
                instance,
                claim_no: self.claim_no,
            },
            id: self.id,
            lane: self.lane,
            priority: self.priority,
            attempt: self.attempt,
            extras: self.extras,
            trouble: Trouble::of(conn, self.seq, self.extras)?,
            started_at: self.started_at,
            scheduled_at: self.scheduled_at,
            expires_at: self.expires_at,
        })
    }
}

impl Held {
    /// Undoes the claim of an attempt that was not started: the task is as it was before.
    pub(crate) fn unclaim(&mut self) {
        self.attempt -= 1;
        self.started_at = self.started_at.filter(|_| self.attempt > 0);
    }

    /// Removes the start deadline: the task was started in time.
    pub(crate) fn drop_start_deadline(&mut self, tx: &WriteTx<'_>) -> rusqlite::Result<()> {
        match self.expires_at.take() {
            Some(at) => forget_expiry(tx.conn, self.fence.seq, at),
            None => Ok(()),
        }
    }

    /// Stores the trouble, and returns the bit of `extras` that says so.
    fn keep_trouble(&self, tx: &WriteTx<'_>) -> rusqlite::Result<i64> {
        self.trouble.keep(tx.conn, self.fence.seq, self.extras)
    }

    /// A line of the history about the attempt.
    pub(crate) fn line<'a>(&self, end: AttemptEnd, error: Option<&'a str>) -> AttemptRow<'a> {
        AttemptRow {
            seq: self.fence.seq,
            claim_no: self.fence.claim_no,
            attempt: self.attempt,
            instance: Some(self.fence.instance),
            started_at: self.started_at,
            ending: end,
            error,
        }
    }
}

pub(crate) const RELEASE: &str = sql!("
    UPDATE punctual_task
    SET state = {pending}, instance = NULL, lane = :lane, scheduled_at = :scheduled_at, expires_at = :expires_at,
        attempt = :attempt, started_at = :started_at, extras = extras | :extras
    WHERE seq = :seq AND claim_no = :claim_no AND state = {running}");

/// Ends the attempt; the task waits again, as `held` says.
pub(crate) fn release(
    tx: &mut WriteTx<'_>,
    held: &Held,
    line: Option<AttemptRow<'_>>,
    event: EventKind,
    at: Timestamp,
) -> rusqlite::Result<()> {
    let extras = add_line(tx, line, at)? | held.keep_trouble(tx)?;
    let Fence { seq, claim_no, .. } = held.fence;
    tx.conn.prepare_cached(RELEASE)?.execute(params![
        held.lane.0,
        held.scheduled_at,
        held.expires_at,
        held.attempt,
        held.started_at,
        extras,
        seq,
        claim_no,
    ])?;
    if let Some(at) = held.expires_at {
        tx.expires(seq, Timestamp::from_micros(at))?;
    }
    waits(
        tx,
        held.lane,
        held.priority,
        Timestamp::from_micros(held.scheduled_at),
    );
    tx.event(held.lane, held.id, event);
    Ok(())
}

pub(crate) const END: &str = sql!("
    UPDATE punctual_task
    SET state = :state, finished_at = :now, attempt = :attempt, started_at = :started_at, extras = extras | :extras
    WHERE seq = :seq AND claim_no = :claim_no AND state = {running}");

/// Ends the attempt and its task, in a final state other than completed.
pub(crate) fn end(
    tx: &mut WriteTx<'_>,
    held: &Held,
    state: TaskState,
    line: Option<AttemptRow<'_>>,
    at: Timestamp,
) -> rusqlite::Result<()> {
    let extras = add_line(tx, line, at)? | held.keep_trouble(tx)?;
    tx.conn.prepare_cached(END)?.execute(params![
        state.code(),
        at.micros(),
        held.attempt,
        held.started_at,
        extras,
        held.fence.seq,
        held.fence.claim_no,
    ])?;
    let task = Ended {
        seq: held.fence.seq,
        id: held.id,
        recurs: held.extras & extra::RECURRENCE != 0,
    };
    ended(tx, held.lane, task, state);
    Ok(())
}

/// A pending task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PendingTask {
    pub(crate) seq: i64,
    pub(crate) id: TaskId,
    pub(crate) lane: LaneId,
    /// Whether a recurrence made it.
    pub(crate) recurs: bool,
}

pub(crate) const END_PENDING: &str = sql!(
    "
    UPDATE punctual_task
    SET state = :state, finished_at = :now, extras = extras | :extras, claim_no = coalesce(:claim_no, claim_no),
        cancel_requested_at = iif(:state = {cancelled}, :now, cancel_requested_at)
    WHERE seq = :seq AND state = {pending}"
);

/// Ends a pending task without an attempt, in a final state other than completed. The number of its line, if there is one,
/// must be new: lines are kept by their numbers.
pub(crate) fn end_pending(
    tx: &mut WriteTx<'_>,
    task: PendingTask,
    state: TaskState,
    line: Option<AttemptRow<'_>>,
) -> rusqlite::Result<()> {
    let at = tx.now;
    let claim_no = line.as_ref().map(|line| line.claim_no);
    let extras = add_line(tx, line, at)?;
    tx.conn.prepare_cached(END_PENDING)?.execute(params![
        state.code(),
        at.micros(),
        extras,
        claim_no,
        task.seq
    ])?;
    let PendingTask {
        seq, id, recurs, ..
    } = task;
    ended(tx, task.lane, Ended { seq, id, recurs }, state);
    Ok(())
}

/// A task that has ended and is to wait again, due now.
#[derive(Debug)]
pub(crate) struct Revived {
    /// Its lane is the one in which it is to wait.
    pub(crate) task: PendingTask,
    pub(crate) priority: u8,
    pub(crate) expires_at: Option<i64>,
    /// Which data the task has in other tables.
    pub(crate) extras: i64,
}

pub(crate) const REVIVE: &str = sql!("
    UPDATE punctual_task
    SET state = {pending}, lane = :lane, attempt = 0, instance = NULL, scheduled_at = :now, started_at = NULL,
        finished_at = NULL, expires_at = NULL, cancel_requested_at = NULL, extras = extras & ~({result} | {progress} | {trouble})
    WHERE seq = :seq AND state IN ({completed}, {failed}, {cancelled})");

/// Makes an ended task wait again as if it had never been started, but with its history. Its result, progress and trouble
/// go.
pub(crate) fn revive(tx: &mut WriteTx<'_>, revived: Revived) -> rusqlite::Result<()> {
    let PendingTask {
        seq, lane, recurs, ..
    } = revived.task;
    let now = tx.now;
    tx.conn
        .prepare_cached(REVIVE)?
        .execute([lane.0, now.micros(), seq])?;
    if let Some(at) = revived.expires_at {
        forget_expiry(tx.conn, seq, at)?;
    }
    let gone = extra::RESULT | extra::PROGRESS | extra::TROUBLE;
    extras::delete(tx.conn, seq, revived.extras & gone)?;
    if recurs {
        tx.turned.push(Turned::Revived(seq));
    }
    waits(tx, lane, revived.priority, now);
    Ok(())
}

pub(crate) const RESCHEDULE: &str =
    sql!("UPDATE punctual_task SET scheduled_at = :at WHERE seq = :seq AND state = {pending}");

/// Makes a pending task due at another time.
pub(crate) fn reschedule(
    tx: &mut WriteTx<'_>,
    task: PendingTask,
    priority: u8,
    at: Timestamp,
) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached(RESCHEDULE)?
        .execute(params![at.micros(), task.seq])?;
    waits(tx, task.lane, priority, at);
    Ok(())
}

pub(crate) const COMPLETE: &str = sql!("
    UPDATE punctual_task SET state = {completed}, finished_at = :now, extras = extras | :extras, room = substr(room, :taken + 1)
    WHERE seq = :seq AND instance = :instance AND claim_no = :claim_no AND state = {running}");

/// How many tasks [`complete_handful`] takes.
pub(crate) const HANDFUL: usize = 16;

/// Completes [`HANDFUL`] tasks that leave nothing but their end: a sixth less work than one by one. OR FAIL: an error rolls
/// the transaction back, so the statement needs no journal of its own.
pub(crate) const COMPLETE_HANDFUL: &str = sql!("
    UPDATE OR FAIL punctual_task SET state = {completed}, finished_at = ended.column3, room = substr(room, ?2 + 1)
    FROM (VALUES (?3, ?4, ?5), (?6, ?7, ?8), (?9, ?10, ?11), (?12, ?13, ?14), (?15, ?16, ?17), (?18, ?19, ?20),
        (?21, ?22, ?23), (?24, ?25, ?26), (?27, ?28, ?29), (?30, ?31, ?32), (?33, ?34, ?35), (?36, ?37, ?38),
        (?39, ?40, ?41), (?42, ?43, ?44), (?45, ?46, ?47), (?48, ?49, ?50)) AS ended
    WHERE seq = ended.column1 AND instance = ?1 AND claim_no = ended.column2 AND state = {running}");

/// Whether a row is as the completion of this attempt left it.
const IS_COMPLETED: &str = sql!("
    SELECT 1 FROM punctual_task
    WHERE seq = :seq AND instance = :instance AND claim_no = :claim_no AND state = {completed} AND finished_at = :finished_at");

const KEEP_RESULT: &str =
    "INSERT OR REPLACE INTO punctual_result (seq, result) VALUES (:seq, :result)";

const COMPLETED: &str = sql!(
    "SELECT {columns} FROM punctual_task WHERE seq = :seq",
    columns = CompletedRow::COLUMNS
);

columns! {
    /// What the history and the event of a completion tell.
    struct CompletedRow {
        lane: LaneId = "lane" by row::lane,
        attempt: i64 = "attempt" by row::get,
        started_at: Option<i64> = "started_at" by row::get,
    }
}

/// Completes the tasks of attempts that leave nothing but their end. It makes no events: call it only without subscribers.
pub(crate) fn complete_handful(
    tx: &mut WriteTx<'_>,
    handful: &[Arc<Settlement>; HANDFUL],
    answers: &mut Vec<Settled>,
) -> rusqlite::Result<()> {
    let bytes = room::completion_bytes(false) as i64;
    let ends = handful.iter().flat_map(|each| {
        let Fence { seq, claim_no, .. } = each.fence;
        [seq, claim_no, each.finished_at.micros()]
    });
    let bound = [tx.instance, bytes].into_iter().chain(ends);
    let changed = tx
        .conn
        .prepare_cached(COMPLETE_HANDFUL)?
        .execute(params_from_iter(bound))?;
    for each in handful {
        // If not all were changed some are stale: their rows say which.
        let applied = changed == HANDFUL
            || tx.conn.prepare_cached(IS_COMPLETED)?.exists(params![
                each.fence.seq,
                each.fence.instance,
                each.fence.claim_no,
                each.finished_at.micros()
            ])?;
        if applied {
            let task = Ended {
                seq: each.fence.seq,
                id: each.id,
                recurs: each.recurs,
            };
            let_go(tx, task, TaskState::Completed);
        }
        answers.push(if applied {
            Settled::Applied
        } else {
            Settled::Stale
        });
    }
    Ok(())
}

/// Completes the task of an attempt; `completes` is [`COMPLETE`].
pub(crate) fn complete(
    tx: &mut WriteTx<'_>,
    completes: &mut CachedStatement<'_>,
    settlement: &Settlement,
    result: Option<&[u8]>,
) -> rusqlite::Result<Settled> {
    let Fence {
        seq,
        instance,
        claim_no,
    } = settlement.fence;
    let mut extras = 0;
    if result.is_some() {
        extras |= extra::RESULT;
    }
    if settlement.record.is_some() {
        extras |= extra::ATTEMPTS;
    }
    let at = settlement.finished_at;
    let changed = completes.execute(params![
        at.micros(),
        extras,
        room::completion_bytes(extras != 0) as i64,
        seq,
        instance,
        claim_no
    ])?;
    if changed == 0 {
        return Ok(Settled::Stale);
    }
    if let Some(result) = result {
        tx.conn
            .prepare_cached(KEEP_RESULT)?
            .execute(params![seq, result])?;
    }
    let task = Ended {
        seq,
        id: settlement.id,
        recurs: settlement.recurs,
    };
    let_go(tx, task, TaskState::Completed);
    if settlement.record.is_none() && !tx.wants_events {
        return Ok(Settled::Applied);
    }
    let completed = tx
        .conn
        .prepare_cached(COMPLETED)?
        .query_row([seq], CompletedRow::read)?;
    if let Some(Record { end, error }) = &settlement.record {
        let line = AttemptRow {
            seq,
            claim_no,
            attempt: completed.attempt,
            instance: Some(instance),
            started_at: completed.started_at,
            ending: *end,
            error: error.as_deref(),
        };
        history::add(tx.conn, line, at)?;
    }
    tx.event(completed.lane, settlement.id, EventKind::Completed);
    Ok(Settled::Applied)
}

/// A task that has ended.
#[derive(Debug, Clone, Copy)]
struct Ended {
    seq: i64,
    id: TaskId,
    /// Whether a recurrence made it.
    recurs: bool,
}

/// Notes that a task has ended in a final state other than completed.
fn ended(tx: &mut WriteTx<'_>, lane: LaneId, task: Ended, state: TaskState) {
    let event = match state {
        TaskState::Cancelled => EventKind::Cancelled,
        _ => EventKind::Failed,
    };
    tx.event(lane, task.id, event);
    let_go(tx, task, state);
}

/// A task is in a final state: what hangs on it is let go, and the callers who wait for its end are told after the commit. The
/// recurrence that made it is told at the end of the operation.
fn let_go(tx: &mut WriteTx<'_>, task: Ended, state: TaskState) {
    if task.recurs {
        tx.turned.push(Turned::Ended {
            seq: task.seq,
            state,
        });
    }
    tx.done.news.ended.push(task.id);
}

/// Notes that a task waits in a lane and is due at `at`: it is new, its attempt has left it, or its due time has changed.
pub(crate) fn waits(tx: &mut WriteTx<'_>, lane: LaneId, priority: u8, at: Timestamp) {
    tx.done.learnt.added(lane, priority, at);
    tx.done.news.due_at(at);
}

/// Adds a line to the task's history, if there is one, and returns the bit of `extras` that says so.
fn add_line(
    tx: &WriteTx<'_>,
    line: Option<AttemptRow<'_>>,
    at: Timestamp,
) -> rusqlite::Result<i64> {
    let Some(line) = line else { return Ok(0) };
    history::add(tx.conn, line, at)?;
    Ok(extra::ATTEMPTS)
}
