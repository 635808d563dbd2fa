//! Where tasks are kept: the interface that every engine implements. Outside the engines' own folders, only their public
//! faces name an engine.
//!
//! # The contract
//!
//! - An [`Op`] is applied whole or not at all, and is answered only after its commit. Operations of one call share a
//!   transaction; those of several calls may share one.
//! - `now` is an argument of every call that needs the time, read from the store's clock. An engine on another machine uses
//!   that machine's time.
//! - Every call is bounded: it waits for its turn, and for another process's lock, at most for [`Settings::busy_wait`] each,
//!   or answers `Busy`.
//! - A write by a runner is fenced: if the claim was taken over it changes nothing and answers `Stale`.
//! - After a commit, the store reports to [`Signals`] what the commit made due, cancelled or ended.
//! - Claims come last in a transaction, so they see what it has written. The transaction that makes a task due also makes
//!   the [standing claim](standing_claim).
//! - A claim survives its process: [`Store::recover`] takes back what dead instances held. Each engine has its own way to
//!   find out which instances are dead.
//! - An error says that nothing was stored, unless its kind is `Unknown`.

pub(crate) mod done;
pub(crate) mod events;
#[cfg(all(test, feature = "testing"))]
pub(crate) mod faulty;
pub(crate) mod lanes;
pub(crate) mod pace;
pub(crate) mod signals;
pub(crate) mod sqlite;
pub(crate) mod standing_claim;
#[cfg(test)]
mod suite;
mod ticket;
pub(crate) mod transaction;
mod turn;
pub(crate) mod waiters;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::model::health::Health;
use crate::model::lane::KnownLanes;
use crate::model::op::{Op, Reply, Rescued};
use crate::model::query::{Answer, Query};
use crate::model::settle::Fence;
use crate::time::Timestamp;

use crate::model::durability::Durability;
pub(crate) use pace::Pace;
pub(crate) use signals::Signals;
pub(crate) use ticket::{PendingReply, Ticket};
pub(crate) use transaction::{Body, Holder, Transaction, TransactionEnd};

/// How a store is opened.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) durability: Durability,
    /// How long a call waits for a lock or for its turn.
    pub(crate) busy_wait: Duration,
    /// How long a caller's transaction may take.
    pub(crate) transaction_timeout: Duration,
    /// Whether the store runs tasks, and so is an instance that others may have to recover.
    pub(crate) runs: bool,
    /// The clock of a store on this machine.
    pub(crate) clock: Arc<dyn Clock>,
}

impl Settings {
    pub(crate) fn new(runs: bool) -> Self {
        Self {
            durability: Durability::default(),
            busy_wait: Duration::from_secs(5),
            transaction_timeout: Duration::from_secs(5),
            runs,
            clock: Arc::new(SystemClock),
        }
    }

    /// # Errors
    ///
    /// `Invalid` for a setting that is not in its range.
    pub(crate) fn check(&self) -> Result<()> {
        let timeout = self.transaction_timeout;
        if (Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&timeout) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a transaction timeout of {timeout:?} is not between 1 ms and 1 h"
        )))
    }
}

/// A place where tasks are kept.
pub(crate) trait Store: Send + Sync + fmt::Debug {
    /// Applies operations in one transaction and waits for its commit.
    ///
    /// # Errors
    ///
    /// One error for all of them: nothing was stored, unless its kind is `Unknown`.
    fn apply(&self, now: Timestamp, ops: Vec<Op>) -> Result<Vec<Reply>>;

    /// Like [`apply`](Self::apply), but does not wait: a thread of the store applies the operations.
    fn submit(&self, now: Timestamp, ops: Vec<Op>) -> Ticket;

    /// Like [`submit`](Self::submit), but does not wait for room either: if so many requests wait that the queue is full, the
    /// operations are given back.
    fn try_submit(&self, now: Timestamp, ops: Vec<Op>) -> std::result::Result<Ticket, Vec<Op>> {
        Ok(self.submit(now, ops))
    }

    /// Like [`apply`](Self::apply), but if a transaction is under way the operations join the next one, and the call does
    /// not wait. They are certain to be applied only once the ticket is waited for.
    fn defer(&self, now: Timestamp, ops: Vec<Op>) -> Ticket;

    /// Runs `body` once, on this thread, in a transaction of its own, and ends that as `body` returns. With a holder, `body`
    /// runs only if the holder's attempt still holds its task. If `body` panics, nothing is stored and the panic goes on.
    ///
    /// # Errors
    ///
    /// `State` if the attempt no longer holds its task: `body` was not run. Any other error says that nothing was stored,
    /// unless its kind is `Unknown`.
    fn transaction(
        &self,
        now: Timestamp,
        holder: Option<Holder>,
        body: &mut Body<'_>,
    ) -> Result<()>;

    /// Reads, without waiting for a writer.
    fn read(&self, query: Query) -> Result<Answer>;

    /// The lanes in use, as known in memory. A head may be earlier than the truth, never later, except for what other
    /// processes did since the last [`refresh`](Self::refresh).
    fn lanes(&self) -> KnownLanes;

    /// Checks whether another process wrote, and if so takes over its changes to the lanes. `false`: a write is under way,
    /// and nothing was checked.
    fn refresh(&self) -> Result<bool>;

    /// # Errors
    ///
    /// `Forked` in a child of the process that opened the store. Every other call that can fail fails with this error there.
    fn check(&self) -> Result<()>;

    /// From now on, until the store is dropped, wakes the runner when another process has committed.
    fn watch(&self) -> Result<()>;

    /// Notes that the handler of a claim is about to be called. Settling the claim removes the note.
    fn begin(&self, fence: Fence) -> Result<()>;

    /// Takes back a bounded part of what dead instances held.
    fn recover(&self, now: Timestamp) -> Result<Rescued>;

    /// Whether other instances were alive at the last [`recover`](Self::recover), or may have started since: they may die.
    fn has_others(&self) -> bool;

    /// The earliest start deadline, and when the oldest ended tasks ended: maintenance derives from them when to wake.
    fn next_maintenance(&self) -> Result<NextMaintenance>;

    /// How long the dispatcher waits and how far it claims ahead, given what a commit costs.
    fn pace(&self) -> Pace;

    /// The store's clock: the source of every `now`.
    fn clock(&self) -> &Arc<dyn Clock>;

    /// Where the store reports its commits.
    fn signals(&self) -> &Signals;

    /// The state of the store, as a [`Health`] shows it.
    fn health(&self) -> Health;

    /// Whether writes fail, as [`health`](Self::health) says, but at no cost.
    fn is_failing(&self) -> bool;

    /// Waits until what was submitted is written and all wakers are called, for at most ten seconds: a waker may wait for the
    /// calling thread.
    #[cfg(feature = "testing")]
    fn finish_submitted(&self);

    /// Ends all subscriptions. Call it once nothing is claimed and nothing runs any more. A store that has stopped also
    /// gives up what it holds, to the next process that opens it.
    fn close(&self, now: Timestamp);

    /// The store as its own type, for the public face of its engine.
    fn as_any(&self) -> &dyn Any;
}

/// When maintenance has something to do next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NextMaintenance {
    /// The earliest start deadline, perhaps of a task that has been started.
    pub(crate) expires_at: Option<Timestamp>,
    /// When the oldest ended task of each final state ended: completed, failed, cancelled.
    pub(crate) ended_at: [Option<Timestamp>; 3],
}
