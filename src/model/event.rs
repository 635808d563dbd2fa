//! What happened to a task, reported after its commit.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::id::TaskId;
use crate::time::Timestamp;

/// What happened to a task.
///
/// # Example
///
/// ```
/// use punctual::EventKind;
///
/// fn is_end(kind: EventKind) -> bool {
///     matches!(kind, EventKind::Completed | EventKind::Failed | EventKind::Cancelled)
/// }
/// assert!(!is_end(EventKind::Retrying));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// The task was stored.
    Scheduled,
    /// A scheduler took the task and is about to run it.
    Claimed,
    /// The task completed. Final.
    Completed,
    /// An attempt failed, or its payload could not be decoded; it will be tried again.
    Retrying,
    /// The handler asked to be called again later.
    Snoozed,
    /// The task failed for good. Final.
    Failed,
    /// The task was cancelled. Final.
    Cancelled,
    /// A caller asked to cancel the task while it was running.
    CancelRequested,
    /// The task waits again and lost no attempt: it was claimed and not started, or its handler gave up because the scheduler
    /// was shutting down.
    GivenBack,
    /// The process that held the task died; the task waits again.
    Rescued,
    /// A caller changed when the task is due, also by [`run_now`](crate::Client::run_now).
    Rescheduled,
    /// A caller changed the task's payload, priority or number of attempts. [`retry_with`](crate::Client::retry_with) sends
    /// this after `Retried`.
    Edited,
    /// A caller made the task pending again after it had ended.
    Retried,
    /// A caller deleted the task. Pruning by retention sends no event.
    Deleted,
    /// The handler reported progress.
    Progressed,
}

/// Something that happened to a task.
///
/// Made by [`Client::events`](crate::Client::events). An event is sent after its commit, so it always agrees with what is
/// stored. Only subscribers of the scheduler or client that made the change receive it.
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
    /// The task.
    #[must_use]
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// The kind of the task.
    #[must_use]
    pub fn task_kind(&self) -> &str {
        &self.task_kind
    }

    /// The queue of the task.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// When it happened, by the scheduler's clock.
    #[must_use]
    pub fn at(&self) -> DateTime<Utc> {
        self.at.to_utc()
    }
}
