//! A client's writes before they are sent: the operation, and how to read its answer.

use chrono::{DateTime, Utc};

use crate::error::{Error, ErrorKind, Result};
use crate::id::TaskId;
use crate::model::answer::Cancel;
use crate::model::limits::{MAX_BATCH, check_limit, check_name};
use crate::model::new_task::{NewTask, Scheduled};
use crate::model::op::{Action, Changed, Op, Reply};
use crate::model::recurrence::request::Recurrence;
use crate::model::recurrence::set::{Declared, Declaring, RecurrenceSet};
use crate::model::recurrence::view::{Recurred, RecurrenceAction, RecurrenceChanged, Triggered};
use crate::time::Timestamp;

pub(super) fn not_found(id: TaskId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no task {id}")).with_task(id)
}

pub(super) fn no_recurrence() -> Error {
    Error::new(ErrorKind::NotFound, "there is none of that name")
}

pub(super) fn one(mut replies: Vec<Reply>) -> Reply {
    replies.pop().expect("one operation has one answer")
}

/// A write before it is sent: the operation, and how to read its answer.
pub(super) struct Write<T> {
    pub(super) op: Op,
    pub(super) now: Option<Timestamp>,
    pub(super) task: Option<TaskId>,
    pub(super) answer: fn(Reply, TaskId) -> Result<T>,
}

pub(super) fn answer<T>(
    replies: Result<Vec<Reply>>,
    task: Option<TaskId>,
    answer: fn(Reply, TaskId) -> Result<T>,
) -> Result<T> {
    match (replies, task) {
        (Ok(replies), task) => answer(
            one(replies),
            task.unwrap_or_else(|| TaskId::from_bytes([0; 16])),
        ),
        (Err(error), Some(task)) => Err(error.with_task(task)),
        (Err(error), None) => Err(error),
    }
}

pub(super) fn schedule(now: Timestamp, task: NewTask) -> Result<Write<Scheduled>> {
    let insert = task.prepare(now)?;
    Ok(Write {
        task: Some(insert.id),
        op: Op::Insert(vec![insert]),
        now: Some(now),
        answer: |reply, _| Ok(reply.inserted().remove(0)),
    })
}

/// `first`: the number of the first task in the caller's call. An error tells that of the task that it is about.
pub(super) fn schedule_many<T: Into<NewTask>>(
    now: Timestamp,
    first: u64,
    tasks: impl IntoIterator<Item = T>,
) -> Result<Write<Vec<Scheduled>>> {
    let mut inserts = Vec::new();
    for (number, task) in (first..).zip(tasks) {
        if inserts.len() == MAX_BATCH {
            return Err(Error::invalid(format!(
                "over {MAX_BATCH} tasks in one call: use schedule_stream"
            )));
        }
        let prepared = task.into().prepare(now);
        inserts.push(prepared.map_err(|error| error.in_context(&format!("task {number}")))?);
    }
    Ok(Write {
        op: Op::Insert(inserts),
        now: Some(now),
        task: None,
        answer: |reply, _| Ok(reply.inserted()),
    })
}

pub(super) fn cancel(id: TaskId) -> Result<Write<Cancel>> {
    Ok(Write {
        op: Op::Change {
            id,
            action: Action::Cancel,
        },
        now: None,
        task: Some(id),
        answer: |reply, id| match reply.changed() {
            Changed::Applied => Ok(Cancel::Cancelled),
            Changed::Requested => Ok(Cancel::Requested),
            Changed::Refused(state) => Ok(Cancel::Finished(state)),
            Changed::WrongKind | Changed::NotFound => Err(not_found(id)),
        },
    })
}

pub(super) fn reschedule(at: DateTime<Utc>) -> Result<Action> {
    Timestamp::rounded_up(at).map(Action::Reschedule)
}

pub(super) fn change(id: TaskId, action: Result<Action>) -> Result<Write<()>> {
    let action = action.map_err(|error| error.with_task(id))?;
    Ok(Write {
        op: Op::Change { id, action },
        now: None,
        task: Some(id),
        answer: |reply, id| match reply.changed() {
            Changed::Applied | Changed::Requested => Ok(()),
            Changed::Refused(state) => Err(Error::new(
                ErrorKind::State,
                format!("the task {id} is {state}, which does not allow this"),
            )
            .with_task(id)),
            Changed::WrongKind => Err(Error::new(
                ErrorKind::Payload,
                format!("the new payload is of another kind than the task {id}"),
            )
            .with_task(id)),
            Changed::NotFound => Err(not_found(id)),
        },
    })
}

pub(super) fn recur(now: Timestamp, recurrence: Recurrence) -> Result<Write<Recurred>> {
    let registration = recurrence.prepare(now)?;
    Ok(Write {
        op: Op::Recur(Box::new(registration)),
        now: Some(now),
        task: None,
        answer: |reply, _| Ok(reply.recurred()),
    })
}

pub(super) fn declare(now: Timestamp, set: RecurrenceSet) -> Result<Write<Declared>> {
    let declaration = set.prepare(now)?;
    Ok(Write {
        op: Op::Declare(Box::new(declaration)),
        now: Some(now),
        task: None,
        answer: |reply, _| match reply.declared() {
            Declaring::Done(declared) => Ok(declared),
            Declaring::Refused { recurrence, set } => Err(Error::invalid(format!(
                "the recurrence {recurrence:?} is declared by the set {set:?}"
            ))),
        },
    })
}

pub(super) fn change_recurrence<T>(
    name: &str,
    action: RecurrenceAction,
    answer: fn(Reply, TaskId) -> Result<T>,
) -> Result<Write<T>> {
    Ok(Write {
        op: Op::ChangeRecurrence {
            name: name.to_owned(),
            action,
        },
        now: None,
        task: None,
        answer,
    })
}

pub(super) fn trigger(name: &str) -> Result<Write<Triggered>> {
    let action = RecurrenceAction::Trigger(TaskId::new());
    change_recurrence(name, action, |reply, _| match recurrence_changed(reply)? {
        RecurrenceChanged::Triggered(triggered) => Ok(triggered),
        other => unreachable!("a call for a task was answered by {other:?}"),
    })
}

/// The answer to a change of a recurrence.
///
/// # Errors
///
/// `NotFound`, `Corrupt`, or why the change is refused.
pub(super) fn recurrence_changed(reply: Reply) -> Result<RecurrenceChanged> {
    match reply.recurrence_changed() {
        RecurrenceChanged::NotFound => Err(no_recurrence()),
        RecurrenceChanged::Refused(error) => Err(error),
        RecurrenceChanged::Damaged => Err(Error::new(
            ErrorKind::Corrupt,
            "its definition cannot be read",
        )),
        changed => Ok(changed),
    }
}

pub(super) fn pause(queue: &str, paused: bool) -> Result<Write<()>> {
    check_name("queue", queue)?;
    Ok(Write {
        op: Op::PauseQueue {
            queue: queue.to_owned(),
            paused,
        },
        now: None,
        task: None,
        answer: |reply, _| {
            reply.done();
            Ok(())
        },
    })
}

pub(super) fn limit(queue: &str, limit: Option<usize>) -> Result<Write<()>> {
    check_name("queue", queue)?;
    let limit = limit.map(|limit| check_limit(queue, limit)).transpose()?;
    Ok(Write {
        op: Op::LimitQueue {
            queue: queue.to_owned(),
            limit,
        },
        now: None,
        task: None,
        answer: |reply, _| {
            reply.done();
            Ok(())
        },
    })
}
