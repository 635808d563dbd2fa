//! What a handler knows of the attempt it runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::handler::token::{StopReason, Token};
use crate::id::TaskId;
use crate::model::op::{Op, Settled};
use crate::model::payload::encode;
use crate::model::settle::Fence;
use crate::time::Timestamp;

/// The largest progress report, as encoded JSON: 16 KiB.
const MAX_PROGRESS_BYTES: usize = 16 << 10;

/// The attempt that a handler runs: which task it is, how long it may take, whether it should stop.
///
/// # Example
///
/// ```
/// use punctual::{Outcome, TaskContext, TaskResult};
///
/// fn import(rows: &[u64], cx: &TaskContext) -> TaskResult {
///     for (done, _row) in rows.iter().enumerate() {
///         if cx.cancelled() {
///             return Err("stopped half-way".into());
///         }
///         if done % 1000 == 0 {
///             cx.progress(&done)?;
///         }
///     }
///     Outcome::with(&rows.len())
/// }
/// ```
pub struct TaskContext {
    pub(crate) id: TaskId,
    pub(crate) kind: Arc<str>,
    pub(crate) queue: Arc<str>,
    pub(crate) attempt: u32,
    pub(crate) max_attempts: u32,
    pub(crate) scheduled_at: Timestamp,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) last_error: Option<String>,
    pub(crate) fence: Fence,
    pub(crate) token: Arc<Token>,
    pub(crate) client: Client,
}

impl TaskContext {
    /// The task's id: the same in every attempt, so it can serve as an idempotency key.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The task's kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The queue it was in.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// Which start of the task this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How many attempts the task has, crashed ones not counted.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// When the task was due.
    #[must_use]
    pub fn scheduled_at(&self) -> DateTime<Utc> {
        self.scheduled_at.to_utc()
    }

    /// When the attempt should have ended; `None`: it may take as long as it likes.
    #[must_use]
    pub fn deadline(&self) -> Option<DateTime<Utc>> {
        self.deadline.map(Timestamp::to_utc)
    }

    /// The text of the last attempt's error, if there was one.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Whether the handler should stop, soon and of its own accord: nobody can stop it otherwise.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.token.reason().is_some()
    }

    /// Why the handler should stop; `None`: it should not.
    #[must_use]
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.token.reason()
    }

    /// Sleeps for `span`, or until the handler should stop, and returns [`cancelled`](Self::cancelled).
    #[must_use]
    pub fn cancelled_within(&self, span: Duration) -> bool {
        self.token.wait(span).is_some()
    }

    /// Keeps what the handler reports, JSON of at most 16 KiB, to be read by
    /// [`Task::progress`](crate::Task::progress). It is committed when this returns, but not synced: a power cut may undo it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Payload`] if it cannot be encoded or is too large; [`ErrorKind::State`] if the task is not this
    /// attempt's any more; else an error of the storage, which a handler may well ignore.
    pub fn progress<T: Serialize + ?Sized>(&self, report: &T) -> Result<()> {
        let value = encode("progress", report)?;
        if value.len() > MAX_PROGRESS_BYTES {
            return Err(Error::new(
                ErrorKind::Payload,
                format!(
                    "the progress has {} bytes, more than {MAX_PROGRESS_BYTES}",
                    value.len()
                ),
            )
            .with_task(self.id));
        }
        let op = Op::Progress {
            fence: self.fence,
            value,
        };
        let mut replies = self
            .client
            .store
            .apply(self.client.now(), vec![op])
            .map_err(|error| error.with_task(self.id))?;
        match replies.remove(0).progressed() {
            Settled::Applied => Ok(()),
            Settled::Stale => {
                self.token.raise(StopReason::Lost);
                Err(Error::new(
                    ErrorKind::State,
                    format!("the task {} is not this attempt's any more", self.id),
                )
                .with_task(self.id))
            }
        }
    }

    /// The client of the scheduler that runs the handler, to schedule further tasks for instance.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("attempt", &self.attempt)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
