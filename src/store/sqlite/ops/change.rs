//! What callers ask of stored tasks: cancel, delete, reschedule, run now, retry, edit; one by one, or by filter.

use rusqlite::{OptionalExtension, params};

use crate::id::TaskId;
use crate::log::log;
use crate::model::edit::Patch;
use crate::model::event::EventKind;
use crate::model::filter::Filter;
use crate::model::lane::{Class, LaneId};
use crate::model::op::{Action, CHUNK, Changed, ChangedMany};
use crate::model::settle::Fence;
use crate::model::task::TaskState;
use crate::store::sqlite::ops::cancels;
use crate::store::sqlite::ops::extras;
use crate::store::sqlite::ops::matching::{Examine, Matching, Terms, over_tasks};
use crate::store::sqlite::ops::payload::{self, MAX_INLINE_BYTES, checksum};
use crate::store::sqlite::ops::prune::delete;
use crate::store::sqlite::ops::row;
use crate::store::sqlite::ops::transition::{self, PendingTask, Revived};
use crate::store::sqlite::ops::trouble;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::sql::{columns, extra, sql};
use crate::time::Timestamp;

pub(crate) const FIND: &str = sql!(
    "SELECT {columns} FROM punctual_task WHERE id = :id",
    columns = Found::COLUMNS
);

pub(crate) const FIND_MATCHING: Matching = over_tasks!(Found::COLUMNS, " ORDER BY id LIMIT :limit");

columns! {
    /// The columns that an action needs of its task.
    struct Found {
        id: TaskId = "id" by row::id,
        seq: i64 = "seq" by row::get,
        lane: LaneId = "lane" by row::lane,
        state: TaskState = "state" by row::state,
        priority: u8 = "priority" by row::priority,
        instance: Option<i64> = "instance" by row::get,
        claim_no: i64 = "claim_no" by row::get,
        scheduled_at: i64 = "scheduled_at" by row::get,
        extras: i64 = "extras" by row::get,
        expires_at: Option<i64> = "expires_at" by row::get,
    }
}

impl Found {
    fn waiting(&self) -> PendingTask {
        PendingTask {
            seq: self.seq,
            id: self.id,
            lane: self.lane,
            recurs: self.extras & extra::RECURRENCE != 0,
        }
    }
}

pub(crate) fn change(
    tx: &mut WriteTx<'_>,
    id: TaskId,
    action: &Action,
) -> rusqlite::Result<Changed> {
    let task = tx
        .conn
        .prepare_cached(FIND)?
        .query_row([&id.as_bytes()[..]], Found::read)
        .optional()?;
    match task {
        Some(task) => apply(tx, &task, action),
        None => Ok(Changed::NotFound),
    }
}

pub(crate) fn change_matching(
    tx: &mut WriteTx<'_>,
    filter: &Filter,
    action: &Action,
    after: Option<TaskId>,
) -> rusqlite::Result<ChangedMany> {
    let limit = CHUNK as i64;
    let mut changed = ChangedMany {
        matched: 0,
        changed: 0,
        next: None,
    };
    let Some(examine) = Examine::after(tx.conn, after, false, limit, filter)? else {
        return Ok(changed);
    };
    let terms = Terms::new(tx.conn, filter)?;
    let mut statement = tx.conn.prepare_cached(FIND_MATCHING.sql(filter))?;
    let mut rows = terms.query(&mut statement, examine.window)?;
    let (mut tasks, mut count, mut last) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        count += 1;
        let id = row::id(row, 0)?;
        last = Some(id);
        match Found::read(row) {
            Ok(task) => tasks.push(task),
            // A damaged task must not keep the others from being changed.
            Err(error) => log!(warn, task = %id, %error, "left out of a bulk call"),
        }
    }
    for task in &tasks {
        changed.matched += 1;
        let answer = apply(tx, task, action)?;
        changed.changed += usize::from(matches!(answer, Changed::Applied | Changed::Requested));
    }
    changed.next = if count == CHUNK { last } else { examine.last };
    Ok(changed)
}

fn apply(tx: &mut WriteTx<'_>, task: &Found, action: &Action) -> rusqlite::Result<Changed> {
    if !action.allows(task.state) {
        return Ok(Changed::Refused(task.state));
    }
    match action {
        Action::Cancel if task.state == TaskState::Running => request_cancel(tx, task),
        Action::Cancel => cancel(tx, task),
        Action::Delete => {
            delete(tx.conn, task.seq)?;
            tx.event(task.lane, task.id, EventKind::Deleted);
            Ok(Changed::Applied)
        }
        Action::Reschedule(at) => reschedule(tx, task, *at),
        Action::RunNow => reschedule(tx, task, tx.now),
        Action::Retry(edit) | Action::Edit(edit) if !is_of_kind(tx, task, edit)? => {
            Ok(Changed::WrongKind)
        }
        Action::Retry(edit) => retry(tx, task, edit),
        Action::Edit(edit) => edit_pending(tx, task, edit),
    }
}

fn cancel(tx: &mut WriteTx<'_>, task: &Found) -> rusqlite::Result<Changed> {
    transition::end_pending(tx, task.waiting(), TaskState::Cancelled, None)?;
    Ok(Changed::Applied)
}

const REQUEST_CANCEL: &str = sql!(
    "
    UPDATE punctual_task SET cancel_requested_at = ifnull(cancel_requested_at, :now)
    WHERE seq = :seq AND state = {running}"
);

fn request_cancel(tx: &mut WriteTx<'_>, task: &Found) -> rusqlite::Result<Changed> {
    tx.conn
        .prepare_cached(REQUEST_CANCEL)?
        .execute(params![tx.now.micros(), task.seq])?;
    tx.event(task.lane, task.id, EventKind::CancelRequested);
    let Some(instance) = task.instance else {
        return Ok(Changed::Requested);
    };
    let attempt = Fence {
        seq: task.seq,
        instance,
        claim_no: task.claim_no,
    };
    if instance == tx.instance {
        tx.done.news.cancelled.push(attempt);
    } else {
        cancels::ask(tx.conn, attempt)?;
    }
    Ok(Changed::Requested)
}

fn reschedule(tx: &mut WriteTx<'_>, task: &Found, at: Timestamp) -> rusqlite::Result<Changed> {
    transition::reschedule(tx, task.waiting(), task.priority, at)?;
    tx.event(task.lane, task.id, EventKind::Rescheduled);
    Ok(Changed::Applied)
}

fn retry(tx: &mut WriteTx<'_>, task: &Found, edit: &Patch) -> rusqlite::Result<Changed> {
    let lane = match tx.any_lane(task.lane)? {
        // A suspect gets another chance as a plain task.
        Some(lane) if lane.class.level().is_some() => {
            tx.lane_id(&lane.queue, &lane.kind, Class::Plain)?
        }
        // The task's lane may have been retired since the task ended: it goes into the lane in use now.
        Some(lane) => tx.lane_id(&lane.queue, &lane.kind, lane.class)?,
        None => task.lane,
    };
    let revived = Revived {
        task: PendingTask {
            lane,
            ..task.waiting()
        },
        priority: task.priority,
        expires_at: task.expires_at,
        extras: task.extras,
    };
    transition::revive(tx, revived)?;
    tx.event(lane, task.id, EventKind::Retried);
    if !edit.is_empty() {
        let retried = Found {
            lane,
            scheduled_at: tx.now.micros(),
            ..*task
        };
        return edit_pending(tx, &retried, edit);
    }
    Ok(Changed::Applied)
}

/// Whether the task is of the kind of the new payload, if there is one.
fn is_of_kind(tx: &WriteTx<'_>, task: &Found, edit: &Patch) -> rusqlite::Result<bool> {
    let Some((kind, _)) = &edit.payload else {
        return Ok(true);
    };
    let lane = tx.any_lane(task.lane)?;
    Ok(lane.is_none_or(|lane| *lane.kind == **kind))
}

const EDIT: &str = sql!(
    "
    UPDATE punctual_task
    SET priority = ifnull(:priority, priority), max_attempts = ifnull(:max_attempts, max_attempts)
    WHERE seq = :seq AND state = {pending}"
);

const EDIT_PAYLOAD: &str = sql!(
    "
    UPDATE punctual_task
    SET payload = :payload, checksum = :checksum, extras = (extras & ~{payload}) | :extras
    WHERE seq = :seq AND state = {pending}"
);

fn edit_pending(tx: &mut WriteTx<'_>, task: &Found, edit: &Patch) -> rusqlite::Result<Changed> {
    if let Some((kind, payload)) = &edit.payload {
        let inline = payload.len() <= MAX_INLINE_BYTES;
        tx.conn.prepare_cached(EDIT_PAYLOAD)?.execute(params![
            inline.then_some(payload),
            checksum(task.id, kind, payload),
            if inline { 0 } else { extra::PAYLOAD },
            task.seq
        ])?;
        if !inline {
            payload::keep(tx.conn, task.seq, payload)?;
        } else if task.extras & extra::PAYLOAD != 0 {
            extras::delete(tx.conn, task.seq, extra::PAYLOAD)?;
        }
    }
    if edit.payload.is_some() && task.extras & extra::TROUBLE != 0 {
        trouble::forget_undecoded(tx.conn, task.seq)?;
    }
    let lane = tx.any_lane(task.lane)?;
    let has_one_attempt = lane.is_some_and(|lane| lane.class == Class::Once);
    let max_attempts = edit.max_attempts.filter(|_| !has_one_attempt);
    tx.conn
        .prepare_cached(EDIT)?
        .execute(params![edit.priority, max_attempts, task.seq])?;
    let priority = edit.priority.unwrap_or(task.priority);
    transition::waits(
        tx,
        task.lane,
        priority,
        Timestamp::from_micros(task.scheduled_at),
    );
    tx.event(task.lane, task.id, EventKind::Edited);
    Ok(Changed::Applied)
}
