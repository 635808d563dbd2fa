//! What happened to a task, told after it was committed.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::id::TaskId;
use crate::time::Timestamp;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// The task was stored.
    Scheduled,
    /// An instance took it and is about to run it.
    Claimed,
    /// It completed. Final.
    Completed,
    /// An attempt failed, or its payload could not be decoded; it will be tried again.
    Retrying,
    /// Its handler asked to be called again later.
    Snoozed,
    /// It failed for good. Final.
    Failed,
    /// It was cancelled. Final.
    Cancelled,
    /// A caller asked to cancel it while it runs.
    CancelRequested,
    /// It waits again and has lost no attempt: it was claimed and not started, or its handler gave up because the scheduler
    /// was shutting down.
    GivenBack,
    /// The process that ran it died; it waits again.
    Rescued,
    /// A caller changed when it is due.
    Rescheduled,
    /// A caller changed its payload or priority.
    Edited,
    /// A caller asked for it to be tried again after it had ended.
    Retried,
    /// A caller deleted it.
    Deleted,
    /// Its handler reported progress.
    Progressed,
}

/// Something that happened to a task.
///
/// Made by [`Client::events`](crate::Client::events). An event is told after its commit, so it never lies about what is
/// stored; it is told to subscribers in the process that made the change.
///
/// # Example
///
/// ```
/// use punctual::{Event, EventKind};
///
/// fn alarms(event: &Event) -> bool {
///     event.kind() == EventKind::Failed && event.queue() == "billing"
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Event {
    pub(crate) task: TaskId,
    pub(crate) task_kind: Arc<str>,
    pub(crate) queue: Arc<str>,
    pub(crate) kind: EventKind,
    pub(crate) at: Timestamp,
}

impl Event {
    /// The task that it happened to.
    #[must_use]
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// The kind of that task.
    #[must_use]
    pub fn task_kind(&self) -> &str {
        &self.task_kind
    }

    /// The queue of that task.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// When, by the scheduler's clock.
    #[must_use]
    pub fn at(&self) -> DateTime<Utc> {
        self.at.to_utc()
    }
}
