//! Batches of requests as transactions on the write connection.
//!
//! The unit of failure is the transaction. After any error SQLite is asked whether the transaction is still open: a full
//! disk, for one, rolls all of it back, and the next statement would commit alone. A batch that failed is rolled back whole,
//! and each of its requests is run again in a transaction of its own, so that a faulty one fails alone.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use rusqlite::Connection;

use crate::error::{Error, ErrorKind, Result};
use crate::model::durability::Durability;
use crate::model::op::{Op, Rescued};
use crate::model::settle::Fence;
use crate::store::done::Done;
use crate::store::sqlite::error;
use crate::store::sqlite::file::checkpoint::Checkpoints;
use crate::store::sqlite::file::open::Opener;
use crate::store::sqlite::instances::evidence::Evidence;
use crate::store::sqlite::ops::rescue;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::write::batch::{checked, claim_due, operate};
use crate::store::sqlite::write::connection::WriteConnection;
use crate::store::sqlite::write::failure::WriteFailure;
use crate::store::sqlite::write::shared::Shared;
use crate::store::turn::{OnRefused, Request, Writes};
use crate::store::{Settings, Signals};
use crate::time::Timestamp;

/// What writes to the store.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(super) connection: WriteConnection,
    pub(super) shared: Arc<Shared>,
    pub(super) durability: Durability,
    pub(crate) instance: i64,
    commits: u64,
    /// The number of this instance's last claim; gaps do not matter.
    drawn: i64,
    /// How many requests wait for this writer.
    waiting: Arc<AtomicUsize>,
    checkpoints: Checkpoints,
    /// The request time of the write that is under way, or of the last one.
    pub(super) now: Timestamp,
}

/// A transaction that was not committed, or of which that is not known.
struct Failed {
    error: Error,
    /// Whether the standing claim came along. It may be what has failed.
    had_standing_claim: bool,
}

impl Writer {
    pub(crate) fn new(
        conn: Connection,
        opener: Option<Opener>,
        shared: Arc<Shared>,
        settings: &Settings,
    ) -> Result<Self> {
        let pages = Arc::clone(&shared.wal_pages);
        Ok(Self {
            checkpoints: Checkpoints::new(pages, shared.page_bytes, opener.clone()),
            connection: WriteConnection::new(conn, opener, Arc::clone(&shared))?,
            shared,
            durability: settings.durability,
            instance: 0,
            commits: 0,
            drawn: 0,
            waiting: Arc::default(),
            now: Timestamp::MIN,
        })
    }

    /// Runs a batch in one transaction, or its requests one by one if that fails. `stands`: whether the standing claim may
    /// come along.
    fn run_with(&mut self, batch: Vec<Request>, stands: bool) {
        let syncs = batch.iter().any(Request::must_sync)
            || self.durability == Durability::PowerLoss && batch.iter().any(Request::is_durable);
        let is_claim = |op: &Op| matches!(op, Op::Claim(_));
        let has_claims = batch.iter().any(|each| each.ops.iter().any(is_claim));
        let written = self.write(syncs, has_claims, |tx, may_stand, signals| {
            operate(tx, &batch, stands && may_stand, signals)
        });
        match written {
            Ok((replies, done)) => self.publish(done, || {
                for (mut request, replies) in batch.into_iter().zip(replies) {
                    request.answer(Ok(replies));
                }
            }),
            Err(failed)
                if runs_again(failed.error.kind())
                    && (batch.len() > 1 || failed.had_standing_claim) =>
            {
                // One request failed, or the storage did: run each alone to find out which.
                for request in batch {
                    self.run_alone(request);
                }
            }
            Err(Failed { error, .. }) => {
                self.shared.note(self.now, &error);
                for mut request in batch {
                    request.answer(Err(error.clone()));
                }
            }
        }
    }

    fn run_alone(&mut self, mut request: Request) {
        self.now = request.now;
        match self.connection.check(self.now) {
            Ok(()) => self.run_with(vec![request], false),
            Err(error) => request.answer(Err(error)),
        }
    }

    /// Takes back up to `limit` of the tasks that a dead instance held.
    pub(crate) fn rescue(
        &mut self,
        now: Timestamp,
        instance: i64,
        evidence: &Evidence,
        limit: usize,
    ) -> Result<Rescued> {
        self.now = now;
        self.connection.check(now)?;
        let rescued = match self.rescue_with(true, instance, evidence, limit) {
            // The rescue does not depend on the standing claim.
            Err(failed) if failed.had_standing_claim && runs_again(failed.error.kind()) => {
                self.connection.check(now)?;
                self.rescue_with(false, instance, evidence, limit)
            }
            rescued => rescued,
        };
        rescued.map_err(|Failed { error, .. }| {
            self.shared.note(now, &error);
            error
        })
    }

    fn rescue_with(
        &mut self,
        stands: bool,
        instance: i64,
        evidence: &Evidence,
        limit: usize,
    ) -> std::result::Result<Rescued, Failed> {
        // Not synced: after a loss of power it is done again.
        let (rescued, done) = self.write(false, false, |tx, may_stand, signals| {
            let rescued = checked(tx, "rescue", |tx| {
                rescue::rescue(tx, instance, evidence, limit)
            })?;
            claim_due(tx, stands && may_stand, signals)?;
            Ok(rescued)
        })?;
        self.publish(done, || {});
        Ok(rescued)
    }

    /// One transaction with everything in it, or nothing.
    fn write<T>(
        &mut self,
        syncs: bool,
        has_claims: bool,
        run: impl FnOnce(&mut WriteTx<'_>, bool, &Signals) -> std::result::Result<T, WriteFailure>,
    ) -> std::result::Result<(T, Done), Failed> {
        self.connection.set_sync(syncs).map_err(|error| Failed {
            error,
            had_standing_claim: false,
        })?;
        let mut done = Done::default();
        match self.transact(has_claims, &mut done, run) {
            Ok(answer) => Ok((answer, done)),
            Err(failure) => Err(Failed {
                had_standing_claim: done.has_standing_claim(),
                error: self.clean_up(failure, done),
            }),
        }
    }

    /// BEGIN, `run`, COMMIT. The flag given to `run` says whether a standing claim may come along. After an error the
    /// transaction may be open still: [`clean_up`](Self::clean_up).
    pub(super) fn transact<T, E: From<WriteFailure>>(
        &mut self,
        has_claims: bool,
        done: &mut Done,
        run: impl FnOnce(&mut WriteTx<'_>, bool, &Signals) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        self.connection.begin(self.now, self.instance)?;
        let may_stand = self.connection.may_stand(has_claims)?;
        let signals = &self.shared.signals;
        let mut tx = WriteTx {
            conn: self.connection.get(),
            now: self.now,
            instance: self.instance,
            lanes: &self.shared.lanes,
            wants_events: signals.subscriptions().any(),
            wants_recurrence_events: signals.recurrence_subscriptions().any(),
            drawn: &mut self.drawn,
            waiting: &self.waiting,
            turned: Vec::new(),
            done,
        };
        let answer = run(&mut tx, may_stand, signals)?;
        self.connection.commit(self.now)?;
        Ok(answer)
    }

    /// Ends a transaction that has failed, and undoes what it has done unless it may be stored.
    pub(super) fn clean_up(&mut self, failure: WriteFailure, done: Done) -> Error {
        let error = self.connection.clean_up(failure);
        if error.kind() != ErrorKind::Unknown {
            done.undo();
        }
        error
    }

    /// After COMMIT.
    pub(super) fn publish(&mut self, done: Done, answer: impl FnOnce()) {
        self.commits += 1;
        self.shared.succeeded(self.now);
        self.connection.end_streak();
        self.connection.peers.deleted_cancels();
        let shared = &self.shared;
        let settled = |settled: &[Fence]| {
            if let Some(ledger) = shared.ledger() {
                ledger.end(settled);
            }
        };
        done.publish(&shared.lanes, &shared.signals, settled, answer);
        self.connection.peers.wake_runner(shared);
        self.connection.checkpoint(&mut self.checkpoints, self.now);
    }

    /// Checks whether another connection wrote, and reads what. Returns whether the runner was woken for it.
    pub(crate) fn refresh(&mut self) -> Result<bool> {
        if !self.connection.is_to_a_file() {
            return Ok(false);
        }
        self.connection.check(self.now)?;
        self.connection.refresh(self.instance).map_err(|failure| {
            let error = self.connection.clean_up(failure);
            if error::stops(error.kind()) {
                self.shared.stop(&error);
            }
            error
        })
    }

    /// How many transactions this writer has committed.
    pub(crate) fn commits(&self) -> u64 {
        self.commits
    }

    /// Runs `look` on the write connection, between two transactions.
    pub(crate) fn look<T>(
        &mut self,
        look: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.connection.check(self.now)?;
        look(self.connection.get()).map_err(|error| error::of("cannot read", error))
    }

    /// Whether the last transaction was synced.
    #[cfg(test)]
    pub(crate) fn has_synced(&self) -> bool {
        self.connection.has_synced()
    }

    /// For tests of what becomes of an operation when the disk fails.
    #[cfg(test)]
    pub(crate) fn connection(&mut self) -> &mut Connection {
        self.connection.get_mut()
    }
}

impl Writes for Writer {
    fn run(&mut self, batch: Vec<Request>) {
        let last = batch.iter().map(|request| request.now).max();
        self.now = last.unwrap_or(self.now);
        if let Err(error) = self.connection.check(self.now) {
            for mut request in batch {
                request.answer(Err(error.clone()));
            }
            return;
        }
        self.run_with(batch, true);
    }

    fn waiting(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.waiting)
    }

    fn on_refused(&self) -> OnRefused {
        let shared = Arc::clone(&self.shared);
        Box::new(move |now, error| shared.note(now, error))
    }
}

/// Whether the requests of a failed batch may be run again: not if they may be stored already.
fn runs_again(kind: ErrorKind) -> bool {
    !error::stops(kind) && !matches!(kind, ErrorKind::Unknown | ErrorKind::Busy)
}
