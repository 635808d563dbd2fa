//! Where tasks are kept: the seam under which each engine lies. Nothing here, and nothing above but the public faces of the
//! engines, names one.
//!
//! # The contract
//!
//! - An [`Op`] happens whole or not at all, and is answered only after it is committed. Operations of one call share a
//!   transaction; those of several calls may.
//! - `now` is an argument of every call that needs it, told by the store's clock. An engine on another machine has that
//!   machine's time.
//! - Every call is bounded: it begins its work within [`Settings::busy_wait`], or answers `Busy`.
//! - A write by a runner is fenced: if the claim was taken over it changes nothing and answers `Stale`.
//! - Whatever a commit makes due, cancels or ends is told to the [`Signals`] after it.
//! - A claim sees what its transaction does: claims come last. A [standing claim](standing_claim) is made by the transaction that
//!   makes something due.
//! - A claim survives its process: [`Store::recover`] finds what dead instances held. How a store knows that one is dead
//!   is its own affair.
//! - An error says that nothing was stored, unless its kind is `Unknown`.

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
pub(crate) use transaction::{Body, Ending, Holder, Transaction};

/// How a store is opened.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) durability: Durability,
    /// How long a call waits for a lock or for its turn.
    pub(crate) busy_wait: Duration,
    /// How long a caller's transaction may take.
    pub(crate) transaction_timeout: Duration,
    /// Whether it will run tasks, and so is an instance that others can outlive.
    pub(crate) runs: bool,
    /// What a store on this machine tells the time by.
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

    /// By which time is told to it.
    fn clock(&self) -> &Arc<dyn Clock>;

    /// Where commits are told.
    fn signals(&self) -> &Signals;

    /// How the store is: what a [`Health`] says of one.
    fn health(&self) -> Health;

    /// Whether writes fail, as [`health`](Self::health) tells, at no cost.
    fn is_failing(&self) -> bool;

    /// Nothing is claimed any more, and nothing runs: nobody is told of events any more. A store that has stopped gives up
    /// what it holds, to whoever opens it next.
    fn close(&self, now: Timestamp);

    /// The store itself, for the face of its engine.
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
