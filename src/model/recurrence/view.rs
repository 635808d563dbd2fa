//! A stored recurrence, as callers see it, and the answers of the calls that change one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;

use super::definition::Definition;
use super::edit::RecurrencePatch;
use super::policy::{Missed, Overlap, SkipReason};
use super::rule::Rule;
use crate::error::{Error, Result};
use crate::id::TaskId;
use crate::model::delivery::Delivery;
use crate::model::json::decode;
use crate::time::Timestamp;

/// What [`Client::recur`](crate::Client::recur) answers.
///
/// # Example
///
/// ```
/// # use punctual::{NewTask, Recurred, Recurrence, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// let nightly = Recurrence::new("nightly", NewTask::with_kind("report", &7)).cron("0 2 * * *")?;
/// assert_eq!(scheduler.recur(nightly.clone())?, Recurred::Created);
/// assert_eq!(scheduler.recur(nightly)?, Recurred::Unchanged);
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recurred {
    /// There was no recurrence of that name.
    Created,
    /// It is another than the one that was given last. If its rule is, its slots begin anew.
    Changed,
    /// The same was given before: nothing was changed, also if it was edited since.
    Unchanged,
}

/// What [`Recurrences::trigger`](crate::Recurrences::trigger) answers.
///
/// # Example
///
/// ```
/// # use punctual::{NewTask, Recurrence, Scheduler, SkipReason, Triggered};
/// # let scheduler = Scheduler::in_memory().start()?;
/// let nightly = Recurrence::new("nightly", NewTask::with_kind("report", &7)).cron("0 2 * * *")?;
/// scheduler.recur(nightly)?;
/// assert!(matches!(scheduler.recurrences().trigger("nightly")?, Triggered::Made(_)));
/// // That task is live still.
/// let again = scheduler.recurrences().trigger("nightly")?;
/// assert_eq!(again, Triggered::Skipped(SkipReason::Overlap));
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Triggered {
    /// The task was made.
    Made(TaskId),
    /// The task of this id will be made once the live one has ended.
    Waiting(TaskId),
    /// No task is made: the overlap policy does not allow one.
    Skipped(SkipReason),
}

/// The counts of a [`Recurrences::backfill`](crate::Recurrences::backfill).
///
/// # Example
///
/// ```
/// # use punctual::{Backfilled, NewTask, Recurrence, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// let daily = Recurrence::new("daily", NewTask::with_kind("report", &7)).cron("@daily")?;
/// scheduler.recur(daily)?;
/// let january = || Ok::<_, Box<dyn std::error::Error>>("2026-01-01T00:00:00Z".parse()?.."2026-02-01T00:00:00Z".parse()?);
/// let filled: Backfilled = scheduler.recurrences().backfill("daily", january()?)?;
/// assert_eq!((filled.made_count(), filled.existing_count()), (31, 0));
/// let again = scheduler.recurrences().backfill("daily", january()?)?;
/// assert_eq!((again.made_count(), again.existing_count()), (0, 31));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backfilled {
    pub(crate) made: u64,
    pub(crate) existing: u64,
    pub(crate) forgotten: u64,
}

impl Backfilled {
    /// Slots that made a task.
    #[must_use]
    pub fn made_count(self) -> u64 {
        self.made
    }

    /// Slots that had made one before, or wait to make one.
    #[must_use]
    pub fn existing_count(self) -> u64 {
        self.existing
    }

    /// Slots that may have made a task before: their record is gone, so they made none now.
    #[must_use]
    pub fn forgotten_count(self) -> u64 {
        self.forgotten
    }
}

/// Who paused a recurrence.
///
/// # Example
///
/// ```
/// # use punctual::{NewTask, PausedBy, Recurrence, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// let nightly = Recurrence::new("nightly", NewTask::with_kind("report", &7)).cron("0 2 * * *")?;
/// scheduler.recur(nightly)?;
/// scheduler.recurrences().pause("nightly")?;
/// let nightly = scheduler.recurrences().get("nightly")?.unwrap();
/// assert_eq!(nightly.paused_by(), Some(PausedBy::Caller));
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PausedBy {
    /// A caller of [`Recurrences::pause`](crate::Recurrences::pause).
    Caller,
    /// As many of its tasks in a row have failed as
    /// [`pause_after_failures`](crate::Recurrence::pause_after_failures) says.
    Failures,
    /// A program that declared it does not any more: [`Undeclared::Pause`](crate::Undeclared::Pause).
    Undeclared,
}

impl PausedBy {
    /// The number in the store: above zero if an operator should know.
    pub(crate) const fn code(self) -> i64 {
        match self {
            Self::Undeclared => -1,
            Self::Caller => 0,
            Self::Failures => 1,
        }
    }

    pub(crate) fn from_code(code: i64) -> Self {
        match code {
            1 => Self::Failures,
            -1 => Self::Undeclared,
            _ => Self::Caller,
        }
    }
}

/// What an operator should know of a recurrence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// No task has completed in time.
    pub(crate) is_overdue: bool,
    /// It is paused, and no caller has paused it.
    pub(crate) is_stopped: bool,
}

/// A stored recurrence, as it was when it was read. Made by [`Recurrences::get`](crate::Recurrences::get).
///
/// # Example
///
/// ```
/// # use punctual::{NewTask, Recurrence, RecurrenceStatus, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// let nightly = Recurrence::new("nightly", NewTask::with_kind("report", &7)).cron("0 2 * * *")?;
/// scheduler.recur(nightly)?;
/// let nightly: RecurrenceStatus = scheduler.recurrences().get("nightly")?.unwrap();
/// println!("{}: next at {:?}", nightly.rule(), nightly.next_slot());
/// assert_eq!((nightly.made_count(), nightly.is_paused()), (0, false));
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Clone)]
pub struct RecurrenceStatus {
    pub(crate) name: String,
    pub(crate) definition: Arc<Definition>,
    pub(crate) payload: Vec<u8>,
    pub(crate) next_slot: Option<Timestamp>,
    pub(crate) is_searching: bool,
    pub(crate) previous_slot: Option<Timestamp>,
    pub(crate) made: u64,
    pub(crate) waiting: u64,
    pub(crate) failures: u32,
    pub(crate) paused: Option<(Timestamp, PausedBy)>,
    pub(crate) overdue_since: Option<Timestamp>,
    pub(crate) completed_at: Option<Timestamp>,
}

impl RecurrenceStatus {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rule.
    #[must_use]
    pub fn rule(&self) -> &Rule {
        &self.definition.rule
    }

    /// The kind of its tasks.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.definition.task.kind
    }

    /// The queue of its tasks.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.definition.task.queue
    }

    /// The priority of its tasks.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.definition.task.priority
    }

    /// How many attempts its tasks have.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.definition.task.max_attempts
    }

    /// How often its tasks may be started.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.definition.task.delivery
    }

    /// The payload of its tasks, decoded.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Payload`](crate::ErrorKind::Payload) if it is not a `T`.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T> {
        decode("payload", &self.payload)
    }

    /// What becomes of missed slots.
    #[must_use]
    pub fn missed(&self) -> Missed {
        self.definition.missed
    }

    /// What becomes of slots while a task is live.
    #[must_use]
    pub fn overlap(&self) -> Overlap {
        self.definition.overlap
    }

    /// How late a slot may be and still count as on time.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.definition.grace
    }

    /// How old a missed slot may be and still make a task.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.definition.window
    }

    /// The longest delay of its tasks.
    #[must_use]
    pub fn jitter(&self) -> Option<Duration> {
        self.definition.jitter
    }

    /// How many tasks it makes at most.
    #[must_use]
    pub fn max_count(&self) -> Option<u64> {
        self.definition.max_count
    }

    /// After how many failures in a row it is paused.
    #[must_use]
    pub fn pause_after_failures(&self) -> Option<u32> {
        self.definition.pause_after_failures
    }

    /// Within what span after each slot a task is expected to complete.
    #[must_use]
    pub fn expect_within(&self) -> Option<Duration> {
        self.definition.expect_within
    }

    /// The next slot that is to be decided, also while it is paused. `None`: there is no slot any more, or the search for it
    /// has not ended.
    #[must_use]
    pub fn next_slot(&self) -> Option<DateTime<Utc>> {
        self.next_slot.map(Timestamp::to_utc)
    }

    /// The slot of the newest task.
    #[must_use]
    pub fn previous_slot(&self) -> Option<DateTime<Utc>> {
        self.previous_slot.map(Timestamp::to_utc)
    }

    /// Whether no slot is left: its rule has ended, or it has made as many tasks as it may.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.next_slot.is_none() && !self.is_searching
    }

    /// Whether the next slot is still being searched, because its rule excludes very many: the search goes on by itself, and ends
    /// if there is no slot in the next hundred years. Until then `next_slot` is `None`.
    #[must_use]
    pub fn is_searching(&self) -> bool {
        self.is_searching
    }

    /// How many slots have made a task, or wait to make one.
    #[must_use]
    pub fn made_count(&self) -> u64 {
        self.made
    }

    /// How many slots wait for the end of a live task.
    #[must_use]
    pub fn waiting_count(&self) -> u64 {
        self.waiting
    }

    /// How many of its tasks have failed since one has completed.
    #[must_use]
    pub fn failure_count(&self) -> u32 {
        self.failures
    }

    /// Whether it is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Who paused it; `None`: it is not paused.
    #[must_use]
    pub fn paused_by(&self) -> Option<PausedBy> {
        self.paused.map(|(_, by)| by)
    }

    /// When it was paused.
    #[must_use]
    pub fn paused_at(&self) -> Option<DateTime<Utc>> {
        self.paused.map(|(at, _)| at.to_utc())
    }

    /// Since when a completion is overdue, if one was expected.
    #[must_use]
    pub fn overdue_since(&self) -> Option<DateTime<Utc>> {
        self.overdue_since.map(Timestamp::to_utc)
    }

    /// When one of its tasks has last completed.
    #[must_use]
    pub fn completed_at(&self) -> Option<DateTime<Utc>> {
        self.completed_at.map(Timestamp::to_utc)
    }
}

/// Shows no payload.
impl fmt::Debug for RecurrenceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecurrenceStatus")
            .field("name", &self.name)
            .field("rule", &self.definition.rule.to_string())
            .field("next_slot", &self.next_slot)
            .field("made", &self.made)
            .field("paused", &self.paused)
            .finish_non_exhaustive()
    }
}

/// A caller's change of a recurrence.
#[derive(Debug, Clone)]
pub(crate) enum RecurrenceAction {
    Pause,
    Resume,
    Remove,
    /// Makes a task now, of this id.
    Trigger(TaskId),
    /// The slots after this instant are still to be decided.
    Reset(Timestamp),
    Edit(Box<RecurrencePatch>),
    /// Makes the tasks of slots in a range, whose end is not included, that made none.
    Backfill {
        from: Timestamp,
        to: Timestamp,
    },
}

/// The answer to a [`RecurrenceAction`].
#[derive(Debug, Clone)]
pub(crate) enum RecurrenceChanged {
    Applied,
    Triggered(Triggered),
    /// What a chunk of a backfill did, and where the next begins.
    Backfilled(Backfilled, Option<Timestamp>),
    /// The change is not allowed for this recurrence.
    Refused(Error),
    NotFound,
    /// What is stored of it cannot be read.
    Damaged,
}
