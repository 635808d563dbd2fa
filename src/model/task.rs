//! A stored task, as callers see it, and its states.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::id::TaskId;
use crate::model::delivery::Delivery;
use crate::model::json::decode;
use crate::model::limits::DEFAULT_MAX_CRASHES;
use crate::model::retry::RetryPolicy;
use crate::time::Timestamp;

/// The state of a task.
///
/// ```text
/// Pending -> Running -> Completed | Failed | Cancelled
/// Running -> Pending    a retry, a snooze, a rescue, or given back unstarted
/// Pending -> Cancelled  before it started
/// Pending -> Failed     its start deadline passed
/// ```
///
/// "Scheduled", "due" and "retrying" are not states: such tasks are `Pending`, with a `scheduled_at` and an `attempt`.
///
/// # Example
///
/// ```
/// use punctual::TaskState;
///
/// assert!(!TaskState::Running.is_final());
/// assert!(TaskState::Failed.is_final());
/// assert_eq!(TaskState::Completed.to_string(), "completed");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskState {
    /// Waits for its due time, or for a worker.
    Pending,
    /// Held by a scheduler: its handler runs, or will within milliseconds.
    Running,
    /// Its handler returned `Ok`. Final, except for an explicit [`retry`](crate::Client::retry).
    Completed,
    /// It will not be tried again. Final, except for an explicit [`retry`](crate::Client::retry).
    Failed,
    /// It was cancelled before it completed. Final, except for an explicit [`retry`](crate::Client::retry).
    Cancelled,
}

impl TaskState {
    /// Every state, in the order of a task's life.
    pub(crate) const ALL: [Self; 5] = [
        Self::Pending,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Whether the task has ended.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The distance between the numbers in the store; the gaps are for later states.
    pub(crate) const STEP: i64 = 10;

    /// The number in the store.
    pub(crate) const fn code(self) -> i64 {
        match self {
            Self::Pending => 0,
            Self::Running => Self::STEP,
            Self::Completed => 2 * Self::STEP,
            Self::Failed => 3 * Self::STEP,
            Self::Cancelled => 4 * Self::STEP,
        }
    }

    pub(crate) fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.code() == code)
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        })
    }
}

/// Options that few tasks have, kept in one nullable column.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Options {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retry: Option<RetryPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_crashes: Option<u32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
    /// For which slot of a recurrence the task was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) slot: Option<SlotOf>,
}

/// The slot of a recurrence that a task was made for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotOf {
    /// The name.
    pub(crate) recurrence: String,
    /// Which of those that had the name: one that was removed differs from its successor.
    #[serde(default)]
    pub(crate) key: i64,
    /// `None`: a caller triggered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<Timestamp>,
    /// The slot of the task made before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) previous: Option<Timestamp>,
    /// Whether the slot was made up for later: the task is beside those of the recurrence, and is not counted as a live one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_beside: bool,
}

impl Options {
    pub(crate) fn is_default(&self) -> bool {
        self.timeout.is_none()
            && self.retry.is_none()
            && self.max_crashes.is_none()
            && self.metadata.is_empty()
            && self.slot.is_none()
    }
}

/// A stored task, as it was when it was read.
///
/// # Example
///
/// ```
/// # use punctual::{NewTask, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// let id = scheduler.schedule(NewTask::with_kind("remind", &7).queue("mail").tag("welcome"))?.id();
/// let task = scheduler.get(id)?.expect("it was stored");
/// assert_eq!((task.kind(), task.queue(), task.attempt()), ("remind", "mail", 0));
/// assert_eq!(task.payload::<u64>()?, 7);
/// assert_eq!(task.tags(), ["welcome"]);
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Clone)]
pub struct Task {
    pub(crate) id: TaskId,
    pub(crate) kind: Arc<str>,
    pub(crate) queue: Arc<str>,
    pub(crate) partition: Option<String>,
    pub(crate) priority: u8,
    pub(crate) state: TaskState,
    pub(crate) created_at: Timestamp,
    pub(crate) scheduled_at: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    pub(crate) attempt: u32,
    pub(crate) crashes: u32,
    pub(crate) blamed_crashes: u32,
    pub(crate) max_attempts: u32,
    pub(crate) delivery: Delivery,
    pub(crate) cancel_requested: bool,
    pub(crate) options: Options,
    pub(crate) tags: Vec<String>,
    pub(crate) payload: Vec<u8>,
    pub(crate) result: Option<Vec<u8>>,
    pub(crate) progress: Option<Vec<u8>>,
    pub(crate) error: Option<String>,
}

impl Task {
    /// The task's id.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The kind, which names the task's handler.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The queue that the task waits in.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// The tenant or customer that the task belongs to, if one was given.
    #[must_use]
    pub fn partition(&self) -> Option<&str> {
        self.partition.as_deref()
    }

    /// The priority, 0 to 9; lower runs first.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.priority
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> TaskState {
        self.state
    }

    /// When it was scheduled, by the scheduler's clock.
    #[must_use]
    pub fn created_at(&self) -> DateTime<Utc> {
        self.created_at.to_utc()
    }

    /// When the task is due. While it waits for a retry: when the retry is due.
    #[must_use]
    pub fn scheduled_at(&self) -> DateTime<Utc> {
        self.scheduled_at.to_utc()
    }

    /// The start deadline: the task fails as `expired` unless it has started by then. `None`: it has none, or an attempt has
    /// ended.
    #[must_use]
    pub fn start_by(&self) -> Option<DateTime<Utc>> {
        self.expires_at.map(Timestamp::to_utc)
    }

    /// When its newest attempt started.
    #[must_use]
    pub fn started_at(&self) -> Option<DateTime<Utc>> {
        self.started_at.map(Timestamp::to_utc)
    }

    /// When it ended.
    #[must_use]
    pub fn finished_at(&self) -> Option<DateTime<Utc>> {
        self.finished_at.map(Timestamp::to_utc)
    }

    /// How often the task was started, since its last [`retry`](crate::Client::retry). Snoozed and interrupted starts do not
    /// count.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How many of these attempts ended because the process died, or the power failed.
    #[must_use]
    pub fn crashes(&self) -> u32 {
        self.crashes
    }

    /// For how many of these crashes the task was blamed: [`max_crashes`](Self::max_crashes) bounds them. It is blamed if
    /// nothing else that the process ran is as likely to have caused the crash, so not for a loss of power.
    #[must_use]
    pub fn blamed_crashes(&self) -> u32 {
        self.blamed_crashes
    }

    /// How many crashes that it is blamed for the task survives.
    #[must_use]
    pub fn max_crashes(&self) -> u32 {
        self.options.max_crashes.unwrap_or(DEFAULT_MAX_CRASHES)
    }

    /// How many attempts the task has, the first included; crashed ones do not count.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// Whether the task may be started again after an attempt that did not complete it.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// How long an attempt may take, if the task has its own timeout; `None`: the handler's timeout holds.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.options.timeout
    }

    /// Whether a caller asked to cancel the task while it was running.
    #[must_use]
    pub fn cancel_requested(&self) -> bool {
        self.cancel_requested
    }

    /// Its tags, sorted.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// The name of the recurrence that made it; `None`: a caller scheduled it.
    #[must_use]
    pub fn recurrence(&self) -> Option<&str> {
        let slot = self.options.slot.as_ref();
        slot.map(|slot| slot.recurrence.as_str())
    }

    /// The slot of the recurrence that it was made for; `None`: it has none, or was [triggered](crate::Recurrences::trigger).
    #[must_use]
    pub fn slot(&self) -> Option<DateTime<Utc>> {
        let slot = self.options.slot.as_ref().and_then(|slot| slot.at);
        slot.map(Timestamp::to_utc)
    }

    /// Its metadata.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.options.metadata
    }

    /// The text of the newest error, also of a task that has completed or was retried since, cleaned and cut to
    /// [`MAX_ERROR_BYTES`](crate::MAX_ERROR_BYTES). For a task that missed its start deadline: `expired`. For a task whose
    /// process died: `crashed` or, if it is delivered at most once, `interrupted`.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Decodes the payload.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Payload`](crate::ErrorKind::Payload) if it is not a `T`.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T> {
        decode("payload", &self.payload).map_err(|error| error.with_task(self.id))
    }

    /// The payload as stored: JSON.
    #[must_use]
    pub fn payload_json(&self) -> &[u8] {
        &self.payload
    }

    /// The result that the handler returned by [`Outcome::with`](crate::Outcome::with); `None` if the task has not completed,
    /// or completed without a result.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Payload`](crate::ErrorKind::Payload) if it is not a `T`.
    pub fn result<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        self.result
            .as_deref()
            .map(|bytes| decode("result", bytes).map_err(|error| error.with_task(self.id)))
            .transpose()
    }

    /// The newest report of the handler by [`TaskContext::progress`](crate::TaskContext::progress).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Payload`](crate::ErrorKind::Payload) if it is not a `T`.
    pub fn progress<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        self.progress
            .as_deref()
            .map(|bytes| decode("progress", bytes).map_err(|error| error.with_task(self.id)))
            .transpose()
    }
}

/// Shows neither payload nor result.
impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("queue", &self.queue)
            .field("state", &self.state)
            .field("priority", &self.priority)
            .field("scheduled_at", &self.scheduled_at)
            .field("attempt", &self.attempt)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// How a task ended, as [`Client::wait`](crate::Client::wait) returns it.
///
/// # Example
///
/// ```
/// # use punctual::{Ended, NewTask, Scheduler, TaskState};
/// # use std::time::Duration;
/// # let scheduler = Scheduler::in_memory().start()?;
/// let task = scheduler.schedule(NewTask::with_kind("remind", &7))?.id();
/// scheduler.cancel(task)?;
/// let ended: Option<Ended> = scheduler.wait(task, Duration::from_secs(10))?;
/// assert_eq!(ended.map(|ended| ended.state()), Some(TaskState::Cancelled));
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Ended(pub(crate) Task);

impl Ended {
    /// `Completed`, `Failed` or `Cancelled`.
    #[must_use]
    pub fn state(&self) -> TaskState {
        self.0.state
    }

    /// The whole task, as it was when it ended.
    #[must_use]
    pub fn task(&self) -> &Task {
        &self.0
    }

    /// The result that the handler returned; `None` if the task did not complete, or completed without a result.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Payload`](crate::ErrorKind::Payload) if it is not a `T`.
    pub fn result<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        self.0.result()
    }

    /// The text of its last error, also of a task that has completed since: decide by [`state`](Self::state).
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.0.error()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_codes_survive_storage() {
        for state in TaskState::ALL {
            assert_eq!(TaskState::from_code(state.code()), Some(state));
        }
        assert_eq!(TaskState::from_code(5), None);
    }

    #[test]
    fn rare_options_survive_storage_and_no_options_are_nothing() {
        let options = Options {
            timeout: Some(Duration::from_millis(1_500)),
            retry: Some(RetryPolicy::fixed(Duration::from_secs(1))),
            max_crashes: Some(1),
            metadata: [("a".to_owned(), "b".to_owned())].into(),
            slot: Some(SlotOf {
                recurrence: "nightly".to_owned(),
                key: 3,
                at: Some(Timestamp::from_micros(7)),
                previous: None,
                is_beside: true,
            }),
        };
        let stored = serde_json::to_string(&options).unwrap();
        let back: Options = serde_json::from_str(&stored).unwrap();
        assert_eq!(format!("{back:?}"), format!("{options:?}"));
        assert!(!options.is_default());
        assert_eq!(serde_json::to_string(&Options::default()).unwrap(), "{}");
        assert!(Options::default().is_default());
    }
}
