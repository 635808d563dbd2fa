//! Where tasks are kept: the seam under which SQLite lies, and later others.
//!
//! # The contract
//!
//! - An [`Op`] happens whole or not at all, and is answered only after it is committed. Operations of one call share a
//!   transaction; those of several calls may.
//! - `now` is always an argument; a store has no clock.
//! - A write by a runner is fenced: if the claim was taken over it changes nothing and answers `Stale`.
//! - Whatever a commit makes due, cancels or ends is told to the [`Hub`] after it.
//! - A claim sees what its transaction does: claims come last. A [standing claim](standing) is made by the transaction that
//!   makes something due.
//! - A claim survives its process: [`Store::recover`] finds what dead instances held. How a store knows that one is dead
//!   is its own affair.
//! - An error says that nothing was stored, unless its kind is `Unknown`.

#[cfg(all(test, feature = "testing"))]
pub(crate) mod faulty;
pub(crate) mod hub;
pub(crate) mod lanes;
pub(crate) mod pace;
mod sqlite;
pub(crate) mod standing;
#[cfg(test)]
mod suite;
mod ticket;
mod turn;
pub(crate) mod work;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::model::health::{SlowTransaction, Writes};
use crate::model::lane::KnownLanes;
use crate::model::op::{Op, Reply, Rescued};
use crate::model::query::{Answer, Query};
use crate::model::settle::Fence;
use crate::time::Timestamp;

use crate::model::durability::Durability;
pub(crate) use hub::Hub;
pub(crate) use pace::Pace;
pub(crate) use ticket::{Pending, Ticket};
pub(crate) use work::{Body, Ending, Holder, Work};

/// How a store is opened.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) durability: Durability,
    /// How long a call waits for a lock or for its turn.
    pub(crate) busy_wait: Duration,
    /// Of the connection that writes.
    pub(crate) page_cache_bytes: usize,
    /// How long a caller's transaction may take.
    pub(crate) transaction_timeout: Duration,
    /// Whether it will run tasks, and so is an instance that others can outlive.
    pub(crate) runs: bool,
}

impl Settings {
    pub(crate) fn new(runs: bool) -> Self {
        Self {
            durability: Durability::default(),
            busy_wait: Duration::from_secs(5),
            page_cache_bytes: 16 << 20,
            transaction_timeout: Duration::from_secs(5),
            runs,
        }
    }

    fn check(&self) -> Result<()> {
        let timeout = self.transaction_timeout;
        if !(Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&timeout) {
            return Err(Error::invalid(format!(
                "a transaction timeout of {timeout:?} is not between 1 ms and 1 h"
            )));
        }
        let bytes = self.page_cache_bytes as u64;
        if (1 << 20..=1 << 36).contains(&bytes) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a page cache of {bytes} bytes is not between 1 MiB and 64 GiB"
        )))
    }
}

/// Opens or creates a file.
pub(crate) fn open_file(path: &Path, settings: Settings, now: Timestamp) -> Result<Arc<dyn Store>> {
    settings.check()?;
    Ok(Arc::new(sqlite::SqliteStore::open(path, settings, now)?))
}

/// Makes a store in memory, gone with its last user.
pub(crate) fn open_memory(settings: Settings, now: Timestamp) -> Result<Arc<dyn Store>> {
    settings.check()?;
    Ok(Arc::new(sqlite::SqliteStore::memory(settings, now)?))
}

/// A place where tasks are kept.
pub(crate) trait Store: Send + Sync + fmt::Debug {
    /// Applies operations in one transaction and waits for its commit.
    ///
    /// # Errors
    ///
    /// One error for all of them: nothing was stored, unless its kind is `Unknown`.
    fn apply(&self, now: Timestamp, ops: Vec<Op>) -> Result<Vec<Reply>>;

    /// Like [`apply`](Self::apply), on a thread of the store.
    fn submit(&self, now: Timestamp, ops: Vec<Op>) -> Ticket;

    /// Like [`apply`](Self::apply), but if another transaction is going on it shares the next one and nobody waits for that:
    /// not before somebody waits for the ticket is it certain to be applied.
    fn defer(&self, now: Timestamp, ops: Vec<Op>) -> Ticket;

    /// Runs `body` in a transaction of its own, on this thread, once, and then ends that as it says. With a holder only if
    /// its attempt still holds its task. If `body` panics, nothing of it is stored and the panic goes on.
    ///
    /// # Errors
    ///
    /// `State` if the attempt does not hold its task any more, before `body` is run. Any other says that nothing was stored,
    /// unless its kind is `Unknown`.
    fn transaction(
        &self,
        now: Timestamp,
        holder: Option<Holder>,
        body: &mut Body<'_>,
    ) -> Result<()>;

    /// Applies an operation in a transaction that the caller has begun on a connection of their own.
    ///
    /// # Errors
    ///
    /// `Invalid` if the connection is not to this file, or no transaction is open on it.
    fn apply_on(&self, now: Timestamp, conn: &rusqlite::Connection, op: Op) -> Result<Reply>;

    /// Has a connection of the caller's own look for the write lock often enough to get it beside processes that write all the
    /// time.
    fn set_busy_handler(&self, conn: &mut rusqlite::Connection) -> Result<()>;

    /// Reads, without waiting for a writer.
    fn read(&self, query: Query) -> Result<Answer>;

    /// What is known of the lanes in use, without reading. A head may be earlier than the truth, never later, but for what
    /// other processes did since [`refresh`](Self::refresh).
    fn lanes(&self) -> KnownLanes;

    /// Looks whether another process wrote, and if so learns what it did to the lanes; `false`: a write is under way, and it
    /// was not looked.
    fn refresh(&self) -> Result<bool>;

    /// # Errors
    ///
    /// `Forked` in a child of the process that opened it. All the others fail with that as well.
    fn check(&self) -> Result<()>;

    /// Wakes the runner when another process has committed something, from now on, until the store is dropped.
    fn watch(&self) -> Result<()>;

    /// Notes that the handler of a claim is about to be called. Once the claim is settled the note is gone.
    fn begin(&self, fence: Fence) -> Result<()>;

    /// Takes back a slice of what dead instances held.
    fn recover(&self, now: Timestamp) -> Result<Rescued>;

    /// Whether other instances are alive, as of the last [`recover`](Self::recover), or may have come since: they may die.
    fn has_others(&self) -> bool;

    /// The earliest instant at which a task's start deadline or retention is over; for maintenance to wake at.
    fn next_maintenance(&self) -> Result<NextMaintenance>;

    /// How long to wait and how far to claim ahead, as befits its commits.
    fn pace(&self) -> Pace;

    /// Where commits are told.
    fn hub(&self) -> &Hub;

    /// Copies the store into a new file while it is used.
    fn backup(&self, to: &Path) -> Result<()>;

    /// How the store is.
    fn condition(&self) -> Condition;

    /// Whether writes fail, as [`condition`](Self::condition) tells, at no cost.
    fn is_failing(&self) -> bool;

    /// Nothing is claimed any more, and nothing runs: nobody is told of events any more. A store that has stopped gives up
    /// what it holds, to whoever opens it next.
    fn close(&self, now: Timestamp);
}

/// When maintenance has something to do next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NextMaintenance {
    /// The earliest start deadline, perhaps of a task that has been started.
    pub(crate) expires_at: Option<Timestamp>,
    /// When the oldest ended task of each final state ended: completed, failed, cancelled.
    pub(crate) ended_at: [Option<Timestamp>; 3],
}

/// How a store is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
    pub(crate) stopped: Option<Error>,
    /// `failing_since` also for a write that waits for the disk or a lock for long.
    pub(crate) writes: Writes,
    pub(crate) wal_bytes: u64,
    /// Queues that are paused, whether or not they have tasks.
    pub(crate) paused_queues: Vec<String>,
    /// Queues with a limit for all processes.
    pub(crate) global_limits: Vec<(String, usize)>,
    /// Other processes' commits are found by looking often.
    pub(crate) is_polling: bool,
    /// A caller's transaction that takes too long.
    pub(crate) slow_transaction: Option<SlowTransaction>,
}
