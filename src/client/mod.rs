//! Everything that can be done with tasks except running them: a file for each concern.

pub(crate) mod aside;
pub(crate) mod async_recurrences;
pub(crate) mod asynchronous;
pub(crate) mod builder;
mod care;
mod change;
mod queues;
mod read;
pub(crate) mod recurrences;
mod schedule;
pub(crate) mod settings;
pub(crate) mod sqlite;
pub(crate) mod submit;
pub(crate) mod transaction;
mod wait;
mod waits;
mod write;

use std::fmt;
use std::sync::Arc;

use crate::client::aside::Aside;
use crate::client::waits::Waits;
use crate::client::write::Write;
use crate::error::Result;
use crate::model::op::Op;
use crate::store::Store;
use crate::time::Timestamp;

/// Schedules tasks and manages them: everything except running them.
///
/// A clone is cheap and means the same file. A [`Scheduler`](crate::Scheduler) derefs to a client; a program that runs no tasks
/// opens one by [`Client::open`]. Every method may be called from any thread at any time.
///
/// A write is on disk when its method returns `Ok`, at the durability that the file was opened with. For the same writes
/// without waiting see [`submit`](Self::submit).
///
/// # Example
///
/// ```
/// # use punctual::{Client, NewTask, Payload, TaskState};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)]
/// # struct Remind { user: u64 }
/// # impl Payload for Remind { const KIND: &'static str = "remind"; }
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("app.db");
/// let client = Client::open(&path)?;
/// let task = client.schedule(Remind { user: 7 })?.id();
/// assert_eq!(client.get(task)?.unwrap().state(), TaskState::Pending);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) store: Arc<dyn Store>,
    /// What async code waits beside, instead of on its runtime's threads.
    pub(crate) beside: Arc<Beside>,
}

/// The threads that async code waits for. They start when they are needed, and end with the last clone of the client.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    pub(crate) reads: Aside,
    /// Apart from the reads, which wait for no writer.
    pub(crate) writes: Aside,
    pub(crate) waits: Waits,
}

impl Client {
    pub(crate) fn on(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            beside: Arc::default(),
        }
    }

    /// Takes back the tasks that dead processes held.
    pub(crate) fn recover(&self) -> Result<()> {
        while self.store.recover(self.now())?.more {}
        Ok(())
    }

    /// The time by the store's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.store.clock().now()
    }

    /// Writes what changes recurrences. What is due of them is decided before, in bounded transactions.
    fn change_recurrences<T>(&self, write: Result<Write<T>>) -> Result<T> {
        let write = write?;
        let is_due = |at| at <= self.now();
        // What is due by a newer time zone database is left to other programs, but not before a reset.
        let is_reset = write.op.is_reset();
        while is_reset || self.store.lanes().recurrence_at.is_some_and(is_due) {
            let op = Op::DecideBefore(Box::new(write.op.clone()));
            let decided = self.store.apply(self.now(), vec![op])?;
            if write::one(decided).done() == 0 {
                break;
            }
        }
        self.write(Ok(write))
    }

    fn write<T>(&self, write: Result<Write<T>>) -> Result<T> {
        let write = write?;
        let replies = self
            .store
            .apply(write.now.unwrap_or_else(|| self.now()), vec![write.op]);
        write.answer.of(replies)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
