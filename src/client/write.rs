//! A client's writes before they are sent: the operation, and how to read its answer.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::error::{Error, ErrorKind, Result};
use crate::id::TaskId;
use crate::model::answer::Cancel;
use crate::model::limits::{MAX_BATCH, check_limit, check_name};
use crate::model::new_task::{NewTask, Scheduled};
use crate::model::op::{Action, Changed, Op, Reply};
use crate::model::recurrence::edit::RecurrenceEdit;
use crate::model::recurrence::request::Recurrence;
use crate::model::recurrence::set::{Declared, Declaring, RecurrenceSet};
use crate::model::recurrence::view::{
    Backfilled, Recurred, RecurrenceAction, RecurrenceChanged, Triggered,
};
use crate::time::Timestamp;

pub(super) fn not_found(id: TaskId) -> Error {
    none(&About::Task(id)).with_task(id)
}

fn none(about: &About) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no {about}"))
}

pub(super) fn no_recurrence() -> Error {
    Error::new(ErrorKind::NotFound, "there is none of that name")
}

pub(super) fn of_recurrence(name: &str, error: Error) -> Error {
    error.in_context(&format!("the recurrence {name:?}"))
}

pub(super) fn one(mut replies: Vec<Reply>) -> Reply {
    replies.pop().expect("one operation has one answer")
}

/// A write before it is sent: the operation, and how to read its answer.
pub(super) struct Write<T> {
    pub(super) op: Op,
    pub(super) now: Option<Timestamp>,
    pub(super) answer: Answer<T>,
}

impl<T> Write<T> {
    fn new(op: Op, about: About, read: fn(Reply, &About) -> Result<T>) -> Self {
        let answer = Answer { about, read };
        Self {
            op,
            now: None,
            answer,
        }
    }

    fn at(mut self, now: Timestamp) -> Self {
        self.now = Some(now);
        self
    }
}

/// How to read the answer to a write.
#[derive(Debug)]
pub(super) struct Answer<T> {
    about: About,
    read: fn(Reply, &About) -> Result<T>,
}

impl<T> Answer<T> {
    /// The answer to a write that was refused before it was sent.
    pub(super) fn refused() -> Self {
        Self {
            about: About::Store,
            read: |_, _| unreachable!("an error has no answer"),
        }
    }

    pub(super) fn of(&self, replies: Result<Vec<Reply>>) -> Result<T> {
        let answer = replies.and_then(|replies| (self.read)(one(replies), &self.about));
        answer.map_err(|error| self.about.tell(error))
    }
}

/// What a write is about.
#[derive(Debug, Clone)]
pub(super) enum About {
    Task(TaskId),
    Recurrence(String),
    Store,
}

impl About {
    /// The error, which tells what it is about.
    fn tell(&self, error: Error) -> Error {
        match self {
            Self::Task(id) => error.with_task(*id),
            Self::Recurrence(name) => of_recurrence(name, error),
            Self::Store => error,
        }
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(id) => write!(f, "task {id}"),
            Self::Recurrence(name) => write!(f, "recurrence {name:?}"),
            Self::Store => f.write_str("store"),
        }
    }
}

pub(super) fn schedule(now: Timestamp, task: NewTask) -> Result<Write<Scheduled>> {
    let insert = task.prepare(now)?;
    let about = About::Task(insert.id);
    let read = |reply: Reply, _: &About| Ok(reply.inserted().remove(0));
    Ok(Write::new(Op::Insert(vec![insert]), about, read).at(now))
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
    let read = |reply: Reply, _: &About| Ok(reply.inserted());
    Ok(Write::new(Op::Insert(inserts), About::Store, read).at(now))
}

pub(super) fn cancel(id: TaskId) -> Result<Write<Cancel>> {
    let action = Action::Cancel;
    Ok(Write::new(
        Op::Change { id, action },
        About::Task(id),
        |reply, about| match reply.changed() {
            Changed::Applied => Ok(Cancel::Cancelled),
            Changed::Requested => Ok(Cancel::Requested),
            Changed::Refused(state) => Ok(Cancel::Finished(state)),
            Changed::WrongKind | Changed::NotFound => Err(none(about)),
        },
    ))
}

pub(super) fn reschedule(at: DateTime<Utc>) -> Result<Action> {
    Timestamp::rounded_up(at).map(Action::Reschedule)
}

pub(super) fn change(id: TaskId, action: Result<Action>) -> Result<Write<()>> {
    let action = action.map_err(|error| error.with_task(id))?;
    Ok(Write::new(
        Op::Change { id, action },
        About::Task(id),
        |reply, about| match reply.changed() {
            Changed::Applied | Changed::Requested => Ok(()),
            Changed::Refused(state) => Err(Error::new(
                ErrorKind::State,
                format!("the {about} is {state}, which does not allow this"),
            )),
            Changed::WrongKind => Err(Error::new(
                ErrorKind::Payload,
                format!("the new payload is of another kind than the {about}"),
            )),
            Changed::NotFound => Err(none(about)),
        },
    ))
}

pub(super) fn recur(now: Timestamp, recurrence: Recurrence) -> Result<Write<Recurred>> {
    let registration = recurrence.prepare(now)?;
    let about = About::Recurrence(registration.name.clone());
    let read = |reply: Reply, _: &About| Ok(reply.recurred());
    Ok(Write::new(Op::Recur(Box::new(registration)), about, read).at(now))
}

pub(super) fn declare(now: Timestamp, set: RecurrenceSet) -> Result<Write<Declared>> {
    let declaration = Box::new(set.prepare(now)?);
    let read = |reply: Reply, _: &About| match reply.declared() {
        Declaring::Done(declared) => Ok(declared),
        Declaring::Refused { recurrence, set } => Err(Error::invalid(format!(
            "the recurrence {recurrence:?} is declared by the set {set:?}"
        ))),
    };
    Ok(Write::new(Op::Declare(declaration), About::Store, read).at(now))
}

pub(super) fn change_recurrence(name: &str, action: RecurrenceAction) -> Result<Write<()>> {
    write_recurrence(name, action, |reply, _| {
        changed_recurrence(reply).map(|_| ())
    })
}

pub(super) fn edit_recurrence(name: &str, edit: RecurrenceEdit) -> Result<Write<()>> {
    let patch = edit.prepare().map_err(|error| of_recurrence(name, error))?;
    change_recurrence(name, RecurrenceAction::Edit(Box::new(patch)))
}

pub(super) fn reset(name: &str, from: DateTime<Utc>) -> Result<Write<()>> {
    let from = Timestamp::rounded_up(from).map_err(|error| of_recurrence(name, error))?;
    change_recurrence(name, RecurrenceAction::Reset(from))
}

pub(super) fn trigger(name: &str) -> Result<Write<Triggered>> {
    let action = RecurrenceAction::Trigger(TaskId::new());
    write_recurrence(name, action, |reply, _| match changed_recurrence(reply)? {
        RecurrenceChanged::Triggered(triggered) => Ok(triggered),
        other => unreachable!("a call for a task was answered by {other:?}"),
    })
}

/// A chunk of a backfill; answered by what it did, and where the next begins.
pub(super) fn backfill(
    name: &str,
    from: Timestamp,
    to: Timestamp,
) -> Result<Write<(Backfilled, Option<Timestamp>)>> {
    let action = RecurrenceAction::Backfill { from, to };
    write_recurrence(name, action, |reply, _| match changed_recurrence(reply)? {
        RecurrenceChanged::Backfilled(filled, next) => Ok((filled, next)),
        other => unreachable!("a backfill was answered by {other:?}"),
    })
}

fn write_recurrence<T>(
    name: &str,
    action: RecurrenceAction,
    read: fn(Reply, &About) -> Result<T>,
) -> Result<Write<T>> {
    let about = About::Recurrence(name.to_owned());
    let name = name.to_owned();
    Ok(Write::new(
        Op::ChangeRecurrence { name, action },
        about,
        read,
    ))
}

/// # Errors
///
/// `NotFound`, `Corrupt`, or why the change is refused.
fn changed_recurrence(reply: Reply) -> Result<RecurrenceChanged> {
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
    let queue = queue.to_owned();
    Ok(Write::new(
        Op::PauseQueue { queue, paused },
        About::Store,
        done,
    ))
}

pub(super) fn limit(queue: &str, limit: Option<usize>) -> Result<Write<()>> {
    check_name("queue", queue)?;
    let limit = limit.map(|limit| check_limit(queue, limit)).transpose()?;
    let queue = queue.to_owned();
    Ok(Write::new(
        Op::LimitQueue { queue, limit },
        About::Store,
        done,
    ))
}

fn done(reply: Reply, _: &About) -> Result<()> {
    reply.done();
    Ok(())
}
