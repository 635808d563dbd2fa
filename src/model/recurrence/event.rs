//! What happened to a recurrence, reported after its commit.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::policy::SkipReason;
use super::view::PausedBy;
use crate::id::TaskId;
use crate::time::Timestamp;

/// What happened to a recurrence.
///
/// # Example
///
/// ```
/// use punctual::RecurrenceEventKind;
///
/// fn is_alarm(kind: RecurrenceEventKind) -> bool {
///     matches!(kind, RecurrenceEventKind::Overdue | RecurrenceEventKind::Skipped { .. })
/// }
/// assert!(is_alarm(RecurrenceEventKind::Overdue));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecurrenceEventKind {
    /// It was stored, and there was none of its name.
    Created,
    /// It was stored or edited, and is another than before.
    Changed,
    /// A caller removed it.
    Removed,
    /// It makes no tasks until a caller resumes it.
    Paused(PausedBy),
    /// A caller resumed it.
    Resumed,
    /// It made a task.
    Made {
        /// The slot; `None`: a caller triggered it.
        slot: Option<DateTime<Utc>>,
        /// The task.
        task: TaskId,
    },
    /// A slot, or a call, waits for the end of the live task.
    Waiting {
        /// The slot; `None`: a caller triggered it.
        slot: Option<DateTime<Utc>>,
        /// The task that it will make.
        task: TaskId,
    },
    /// A call that waited makes no task: a newer slot took its place.
    Dropped {
        /// The task that it would have made.
        task: TaskId,
    },
    /// The slots from the first to the last made no task.
    Skipped {
        /// The first of them.
        first: DateTime<Utc>,
        /// The last of them.
        last: DateTime<Utc>,
        /// Why.
        reason: SkipReason,
    },
    /// No task has completed in time.
    Overdue,
    /// A task has completed after that, and no other is overdue.
    Recovered,
    /// Slots up to this one are decided, though by the clock it is still to come: the clock was ahead and was set back. No task is
    /// made until the clock comes there, or [`reset`](crate::Recurrences::reset) is called.
    ClockBehind {
        /// The slot that was decided last.
        decided: DateTime<Utc>,
    },
    /// There is no slot any more: its rule has ended, or it has made as many tasks as it may.
    Ended,
}

/// Something that happened to a recurrence.
///
/// Made by [`Recurrences::events`](crate::Recurrences::events). An event is sent after its commit, so it always agrees with what
/// is stored. Only subscribers of the scheduler or client that made the change receive it; what others did, or what
/// happened before there was a subscriber, is told by [`Recurrences::explain`](crate::Recurrences::explain) and [`Health`](crate::Health).
///
/// # Example
///
/// ```
/// # use punctual::{NewTask, Recurrence, RecurrenceEvent, RecurrenceEventKind, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// let events = scheduler.recurrences().events();
/// let nightly = Recurrence::new("nightly", NewTask::with_kind("report", &7)).cron("0 2 * * *")?;
/// scheduler.recur(nightly)?;
/// let event: RecurrenceEvent = events.try_next().event().expect("it is stored");
/// assert_eq!((event.recurrence(), event.kind()), ("nightly", RecurrenceEventKind::Created));
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RecurrenceEvent {
    pub(crate) recurrence: Arc<str>,
    pub(crate) kind: RecurrenceEventKind,
    pub(crate) at: Timestamp,
}

impl RecurrenceEvent {
    /// The name of the recurrence.
    #[must_use]
    pub fn recurrence(&self) -> &str {
        &self.recurrence
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> RecurrenceEventKind {
        self.kind
    }

    /// When it happened, by the scheduler's clock.
    #[must_use]
    pub fn at(&self) -> DateTime<Utc> {
        self.at.to_utc()
    }
}
