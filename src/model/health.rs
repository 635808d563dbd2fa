//! Whether everything is well, for a readiness probe or an operator.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::error::{Error, ErrorKind};
use crate::id::TaskId;

/// The state of a scheduler or client, as it is now. Made without a write, and without a read of the file.
///
/// # Example
///
/// ```
/// # use punctual::Scheduler;
/// let scheduler = Scheduler::in_memory().start().unwrap();
/// let health = scheduler.health();
/// assert!(health.is_ok(), "{health:?}");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Health {
    pub(crate) stopped: Option<Error>,
    pub(crate) last_error: Option<(DateTime<Utc>, Error)>,
    pub(crate) wal_bytes: u64,
    pub(crate) workers: usize,
    pub(crate) busy: usize,
    pub(crate) stuck: usize,
    pub(crate) spare: usize,
    pub(crate) unknown_kinds: Vec<String>,
    pub(crate) undecodable_kinds: Vec<String>,
    pub(crate) paused_queues: Vec<String>,
    pub(crate) global_limits: Vec<(String, usize)>,
    pub(crate) is_polling: bool,
    pub(crate) slow_transaction: Option<SlowTransaction>,
}

impl Health {
    /// Whether the store works, and no more handlers are stuck than there are spare threads for.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.stopped.is_none() && self.stuck <= self.spare
    }

    /// Why the store stopped for good, if it did: the file is damaged, was replaced, cannot be written or has a newer
    /// schema. Every call then fails with this.
    #[must_use]
    pub fn stopped(&self) -> Option<ErrorKind> {
        self.stopped.as_ref().map(Error::kind)
    }

    /// The last error of the storage, or of a transaction that took too long, and when it came, whether or not a retry has helped since.
    #[must_use]
    pub fn last_error(&self) -> Option<(DateTime<Utc>, &Error)> {
        self.last_error.as_ref().map(|(at, error)| (*at, error))
    }

    /// A transaction of the program's that has taken longer than
    /// [`transaction_timeout`](crate::Builder::transaction_timeout) and goes on. Every write to the file waits for it.
    #[must_use]
    pub fn slow_transaction(&self) -> Option<&SlowTransaction> {
        self.slow_transaction.as_ref()
    }

    /// The length of the write-ahead log after the last commit, in bytes.
    #[must_use]
    pub fn wal_bytes(&self) -> u64 {
        self.wal_bytes
    }

    /// The configured workers; 0 for a client.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Handlers that are running.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.busy
    }

    /// Handlers that have not returned although their deadline passed a while ago.
    #[must_use]
    pub fn stuck(&self) -> usize {
        self.stuck
    }

    /// Threads started in the place of stuck ones.
    #[must_use]
    pub fn spare(&self) -> usize {
        self.spare
    }

    /// Kinds that have pending tasks in the file and no handler here. They wait for a process that has one. A kind whose
    /// last task was cancelled a while ago may still be named.
    #[must_use]
    pub fn unknown_kinds(&self) -> &[String] {
        &self.unknown_kinds
    }

    /// Kinds of which this scheduler could not decode a payload within the last two hours, sorted: another version of the
    /// program has scheduled them. See [`Payload`](crate::Payload) for what happens to such tasks.
    #[must_use]
    pub fn undecodable_kinds(&self) -> &[String] {
        &self.undecodable_kinds
    }

    /// Whether other processes' commits are found by looking at the file often, because the system does not tell of them: on
    /// Linux only if the user has no more inotify watches or instances. They are then noticed within 50 ms.
    #[must_use]
    pub fn is_polling(&self) -> bool {
        self.is_polling
    }

    /// Queues that are paused.
    #[must_use]
    pub fn paused_queues(&self) -> &[String] {
        &self.paused_queues
    }

    /// Queues with a limit for all processes together, by [`set_global_limit`](crate::Client::set_global_limit), and how many of
    /// their tasks may run at once. A client without a scheduler knows them as of its last write.
    #[must_use]
    pub fn global_limits(&self) -> &[(String, usize)] {
        &self.global_limits
    }
}

/// A transaction of the program's that takes longer than it may, as [`Health::slow_transaction`] names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowTransaction {
    pub(crate) thread: String,
    pub(crate) task: Option<TaskId>,
    pub(crate) running_for: Duration,
}

impl SlowTransaction {
    /// The name of the thread that is inside; empty if it has none.
    #[must_use]
    pub fn thread(&self) -> &str {
        &self.thread
    }

    /// The task whose handler it is that completes it; `None` for a [`transaction`](crate::Client::transaction).
    #[must_use]
    pub fn task(&self) -> Option<TaskId> {
        self.task
    }

    /// How long it has been running.
    #[must_use]
    pub fn running_for(&self) -> Duration {
        self.running_for
    }
}
