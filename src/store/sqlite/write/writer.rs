//! Batches of requests as transactions on the write connection.
//!
//! The unit of failure is the transaction. After any error SQLite is asked whether the transaction is still open: a full
//! disk, for one, rolls all of it back, and the next statement would commit alone. A batch that failed is rolled back whole,
//! and each of its requests is run again in a transaction of its own, so that a faulty one fails alone.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rusqlite::Connection;

use crate::error::{Error, ErrorKind, Result};
use crate::log::log;
use crate::model::durability::Durability;
use crate::model::op::{Op, Reply, Rescued};
use crate::store::sqlite::error;
use crate::store::sqlite::file::checkpoint::{self, Checkpoints};
use crate::store::sqlite::file::fairness::Streak;
use crate::store::sqlite::file::identity::{self, Identity};
use crate::store::sqlite::file::open::Opener;
use crate::store::sqlite::file::paths::log_of;
use crate::store::sqlite::instances::evidence::Evidence;
use crate::store::sqlite::ops::rescue;
use crate::store::sqlite::ops::write_tx::{Done, WriteTx};
use crate::store::sqlite::write::authorizer::Authorizer;
use crate::store::sqlite::write::batch::{checked, claim_due, operate};
use crate::store::sqlite::write::failure::WriteFailure;
use crate::store::sqlite::write::peers::Peers;
use crate::store::sqlite::write::shared::Shared;
use crate::store::turn::{OnRefused, Request, Writes};
use crate::store::{Settings, Signals};
use crate::time::{Stopwatch, Timestamp};
use crate::wake::lock;

/// The connection keeps prepared statements by their text, and keeps them authorized. The suffix makes sure that a caller's
/// `prepare_cached("COMMIT")` inside a transaction does not find ours.
const BEGIN: &str = "BEGIN IMMEDIATE -- punctual";
pub(super) const COMMIT: &str = "COMMIT -- punctual";
const ROLLBACK: &str = "ROLLBACK -- punctual";

/// How often the path is checked, to notice that the file was replaced: a check takes 2 µs, a hundredth of a synced commit.
const IDENTITY_CHECK: Duration = Duration::from_millis(10);

/// The write connection.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(super) conn: Option<Connection>,
    /// `None`: in memory.
    file: Option<File>,
    pub(super) shared: Arc<Shared>,
    pub(super) durability: Durability,
    pub(super) authorizer: Arc<Authorizer>,
    pub(crate) instance: i64,
    /// Whether the connection syncs at each commit now.
    syncs: bool,
    pub(super) peers: Peers,
    commits: u64,
    /// The number of this instance's last claim; gaps do not matter.
    pub(super) drawn: i64,
    /// How many requests wait for this writer.
    pub(super) waiting: Arc<AtomicUsize>,
    checked: Stopwatch,
    checkpoints: Checkpoints,
    /// The request time of the write that is under way, or of the last one.
    pub(super) now: Timestamp,
}

#[derive(Debug)]
struct File {
    opener: Opener,
    identity: Identity,
    log: PathBuf,
    /// Which file the log was when the connection was opened. It stays the same while a connection is open.
    log_identity: Option<Identity>,
    streak: Streak,
}

impl File {
    fn new(opener: Opener) -> Result<Self> {
        Ok(Self {
            identity: identity::at(&opener.path)?,
            log: log_of(&opener.path),
            log_identity: None,
            streak: Streak::new(Arc::clone(&opener.fairness)),
            opener,
        })
    }

    /// # Errors
    ///
    /// `Replaced` if the log was removed: no other process would see what is committed to it, nor would this one after a
    /// crash.
    fn check_log(&self) -> Result<()> {
        self.log_identity
            .map_or(Ok(()), |expected| identity::check(&self.log, expected))
    }
}

impl Writer {
    pub(crate) fn new(
        conn: Connection,
        opener: Option<Opener>,
        shared: Arc<Shared>,
        settings: &Settings,
    ) -> Result<Self> {
        let pages = Arc::clone(&shared.wal_pages);
        let checkpoints = Checkpoints::new(pages, shared.page_bytes, opener.clone());
        let file = opener.map(File::new).transpose()?;
        let mut writer = Self {
            conn: None,
            file,
            authorizer: Arc::clone(&shared.authorizer),
            shared,
            durability: settings.durability,
            instance: 0,
            syncs: true,
            peers: Peers::default(),
            commits: 0,
            drawn: 0,
            waiting: Arc::default(),
            checked: Stopwatch::start(),
            checkpoints,
            now: Timestamp::MIN,
        };
        writer.adopt(conn)?;
        Ok(writer)
    }

    /// Takes a fresh connection into use.
    fn adopt(&mut self, mut conn: Connection) -> Result<()> {
        let pages = Arc::clone(&self.shared.wal_pages);
        conn.wal_hook(Some(move |_: &mut _, length| {
            pages.store(length, Ordering::Relaxed);
            Ok(())
        }))
        .and_then(|()| self.authorizer.install(&mut conn))
        .map_err(|error| error::of("cannot watch the connection", error))?;
        if let Some(file) = &mut self.file {
            // The connection may have waited already, to make the tables or to enrol.
            file.streak.stop_waiting();
            file.log_identity = identity::at(&file.log).ok();
        }
        self.syncs = true;
        self.peers.look_anew();
        self.conn = Some(conn);
        Ok(())
    }

    /// The connection, opened again if an I/O error has made the last one useless.
    fn conn(&mut self) -> Result<()> {
        // A leader that panicked may have left a transaction open.
        self.roll_back();
        if self.conn.is_none() {
            let file = self
                .file
                .as_ref()
                .expect("only a file's connection is given up");
            let opened = self.shared.wait(self.now, || file.opener.writer());
            let adopted = opened.and_then(|conn| self.adopt(conn));
            if let Err(error) = &adopted
                && error.is_retryable()
            {
                self.note(self.now, error);
            }
            adopted?;
        }
        Ok(())
    }

    /// Runs a batch in one transaction, or its requests one by one if that fails. `stands`: whether the standing claim may
    /// come along.
    fn run_with(&mut self, batch: Vec<Request>, stands: bool) {
        let mut done = Done::default();
        match self.transact(&batch, stands, &mut done) {
            Ok(replies) => self.publish(done, || {
                for (mut request, replies) in batch.into_iter().zip(replies) {
                    request.answer(Ok(replies));
                }
            }),
            Err(error)
                if runs_again(error.kind())
                    && (batch.len() > 1 || done.standing_claim.is_some()) =>
            {
                // One request failed, or the storage did: run each alone to find out which.
                done.undo_standing_claim();
                for request in batch {
                    self.run_alone(request);
                }
            }
            Err(error) => {
                if error.kind() != ErrorKind::Unknown {
                    done.undo_standing_claim();
                }
                self.note(self.now, &error);
                for mut request in batch {
                    request.answer(Err(error.clone()));
                }
            }
        }
    }

    fn run_alone(&mut self, mut request: Request) {
        self.now = request.now;
        match self.check() {
            Ok(()) => self.run_with(vec![request], false),
            Err(error) => request.answer(Err(error)),
        }
    }

    /// Checks that the store can be written, and opens the connection again if need be.
    pub(super) fn check(&mut self) -> Result<()> {
        if let Some(error) = &*lock(&self.shared.stopped) {
            return Err(error.clone());
        }
        if self.checked.elapsed() >= IDENTITY_CHECK {
            self.check_path()?;
        }
        self.conn()
    }

    fn stop(&self, error: &Error) {
        log!(error, %error, "the store has stopped");
        lock(&self.shared.stopped).get_or_insert_with(|| error.clone());
    }

    pub(super) fn note(&mut self, now: Timestamp, error: &Error) {
        self.shared.note(now, error);
        if error::stops(error.kind()) {
            self.stop(error);
        }
    }

    /// One transaction with everything in it, or nothing.
    fn transact(
        &mut self,
        batch: &[Request],
        stands: bool,
        done: &mut Done,
    ) -> Result<Vec<Vec<Reply>>> {
        let syncs = batch.iter().any(Request::must_sync)
            || self.durability == Durability::PowerLoss && batch.iter().any(Request::is_durable);
        self.set_sync(syncs)?;
        let is_claim = |op: &Op| matches!(op, Op::Claim(_));
        let has_claims = batch.iter().any(|each| each.ops.iter().any(is_claim));
        self.attempt(has_claims, done, |tx, may_stand, signals| {
            operate(tx, batch, stands && may_stand, signals)
        })
        .map_err(|failure| self.clean_up(failure))
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
        self.check()?;
        let rescued = self.rescue_with(true, now, instance, evidence, limit);
        let rescued = match rescued {
            // The standing claim may have failed: the rescue does not depend on it.
            Err((error, true)) if runs_again(error.kind()) => {
                self.check()?;
                self.rescue_with(false, now, instance, evidence, limit)
            }
            rescued => rescued,
        };
        rescued.map_err(|(error, _)| {
            self.note(now, &error);
            error
        })
    }

    /// With an error: whether a standing claim came along.
    fn rescue_with(
        &mut self,
        stands: bool,
        now: Timestamp,
        instance: i64,
        evidence: &Evidence,
        limit: usize,
    ) -> std::result::Result<Rescued, (Error, bool)> {
        // Not synced: after a loss of power it is done again.
        self.set_sync(false).map_err(|error| (error, false))?;
        let mut done = Done::default();
        let rescued = self.attempt(false, &mut done, |tx, may_stand, signals| {
            tx.now = now;
            let rescued = checked(tx, "rescue", |tx| {
                rescue::rescue(tx, instance, evidence, limit)
            })?;
            claim_due(tx, stands && may_stand, signals)?;
            Ok(rescued)
        });
        match rescued {
            Ok(rescued) => {
                self.publish(done, || {});
                Ok(rescued)
            }
            Err(failure) => {
                let error = self.clean_up(failure);
                let stood = done.standing_claim.is_some();
                if error.kind() != ErrorKind::Unknown {
                    done.undo_standing_claim();
                }
                Err((error, stood))
            }
        }
    }

    /// Whether the path still names the file, and the file's log is where it was.
    fn check_path(&mut self) -> Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        self.checked = Stopwatch::start();
        let mut checked = identity::check(&file.opener.path, file.identity);
        if checked.is_ok() {
            checked = file.check_log();
            if checked.is_err() {
                self.save_log();
            }
        }
        if let Err(error) = &checked {
            self.stop(error);
        }
        checked
    }

    /// Saves a log that was removed but is still open here: moves its content into the file, unless another connection has
    /// committed since the last look. That commit may have been to a log of its own.
    fn save_log(&mut self) {
        if let Some(conn) = &self.conn
            && let Ok(false) = self.peers.have_written(conn)
            && let Err(error) = checkpoint::checkpoint(conn)
        {
            log!(error, %error, "cannot save what is in the log");
        }
    }

    /// Sets FULL only for what must be synced. It has to be set outside the transaction.
    pub(super) fn set_sync(&mut self, syncs: bool) -> Result<()> {
        if self.syncs == syncs || self.file.is_none() {
            return Ok(());
        }
        let sql = if syncs {
            "PRAGMA synchronous = FULL"
        } else {
            "PRAGMA synchronous = NORMAL"
        };
        let conn = self.conn.as_ref().expect("checked");
        conn.prepare_cached(sql)
            .and_then(|mut statement| statement.raw_query().next().map(|_| ()))
            .map_err(|error| error::of("cannot set the durability", error))?;
        self.syncs = syncs;
        Ok(())
    }

    /// One transaction: BEGIN, `run`, COMMIT. The flag given to `run` says whether a standing claim may come along.
    fn attempt<T>(
        &mut self,
        has_claims: bool,
        done: &mut Done,
        run: impl FnOnce(&mut WriteTx<'_>, bool, &Signals) -> std::result::Result<T, WriteFailure>,
    ) -> std::result::Result<T, WriteFailure> {
        self.begin(done)?;
        let conn = self.conn.as_ref().expect("checked");
        let may_stand = self.peers.may_stand(conn, &self.shared, has_claims)?;
        let signals = &self.shared.signals;
        let mut tx = WriteTx {
            conn,
            now: Timestamp::MIN,
            instance: self.instance,
            lanes: &self.shared.lanes,
            wants_events: signals.subscriptions().any(),
            drawn: &mut self.drawn,
            waiting: &self.waiting,
            done,
        };
        let answer = run(&mut tx, may_stand, signals)?;
        self.shared
            .wait(self.now, || run_sql(conn, COMMIT))
            .map_err(WriteFailure::Commit)?;
        Ok(answer)
    }

    /// Begins a transaction, and reads what others have committed.
    pub(super) fn begin(&mut self, done: &mut Done) -> std::result::Result<(), WriteFailure> {
        let conn = self.conn.as_ref().expect("checked");
        let failed = |error| WriteFailure::at("begin a transaction", error);
        if let Some(file) = &mut self.file {
            file.streak.leave_gap();
        }
        let begun = self.shared.wait(self.now, || run_sql(conn, BEGIN));
        if let Some(file) = &self.file {
            file.streak.stop_waiting();
        }
        begun.map_err(failed)?;
        if self.file.is_some() {
            // Taken over at once: others have committed it, whatever becomes of this transaction.
            self.peers.learn(conn, &self.shared, self.instance)?;
        }
        done.heard = self
            .peers
            .delete_cancels(conn, &self.shared, self.instance)?;
        Ok(())
    }

    /// Notes that the transaction is over: from now on the time counts as a gap.
    pub(super) fn end_streak(&mut self) {
        if let Some(file) = &mut self.file {
            file.streak.end();
        }
    }

    /// Leaves no transaction open, and no connection that cannot be trusted.
    pub(super) fn clean_up(&mut self, failure: WriteFailure) -> Error {
        self.roll_back();
        self.end_streak();
        let poisons = failure.poisons();
        let error = match &self.conn {
            Some(conn) => failure.into_error(conn),
            None => Error::new(ErrorKind::Storage, "the connection was lost"),
        };
        if error.kind() == ErrorKind::Unknown {
            // If the commit was stored after all, the lanes that it retired are read like those of another process.
            self.peers.look_anew();
        }
        if poisons {
            self.give_up_connection();
        }
        error
    }

    /// Rolls the transaction back, unless SQLite has done so.
    pub(super) fn roll_back(&mut self) {
        if let Some(conn) = &self.conn
            && !conn.is_autocommit()
            && let Err(error) = run_sql(conn, ROLLBACK)
        {
            log!(warn, %error, "cannot roll back");
            self.give_up_connection();
        }
    }

    pub(super) fn give_up_connection(&mut self) {
        // A database in memory would be gone with its connection.
        if self.file.is_some() {
            self.conn = None;
        }
    }

    /// After COMMIT: first updates the caches, then answers the callers, then notifies everything else.
    pub(super) fn publish(&mut self, done: Done, answer: impl FnOnce()) {
        self.commits += 1;
        if self.shared.fails.load(Ordering::Relaxed) {
            lock(&self.shared.writes).succeeded(self.now);
            self.shared.fails.store(false, Ordering::Relaxed);
        }
        self.end_streak();
        self.peers.deleted_cancels(done.heard);
        lock(&self.shared.lanes).learn(done.learnt);
        if let Some((standing_claim, claims)) = done.standing_claim {
            standing_claim.end(claims);
        }
        if !done.settled.is_empty()
            && let Some(ledger) = self.shared.ledger()
        {
            ledger.end(&done.settled);
        }
        self.shared.signals.cancel(&done.news.cancelled);
        answer();
        if let Some(at) = done.expires {
            self.shared.signals.expires(at);
        }
        self.shared.signals.publish(done.news);
        self.peers.wake_runner(&self.shared);
        self.checkpoint();
    }

    fn checkpoint(&mut self) {
        let Some(conn) = &mut self.conn else { return };
        let done = self
            .shared
            .wait(self.now, || self.checkpoints.after_commit(conn));
        match done {
            // It held SQLite's write lock: that was no gap for other processes.
            Ok(true) => self.end_streak(),
            Ok(false) => {}
            Err(error) => {
                log!(warn, %error, "cannot checkpoint");
                if error::poisons(&error) {
                    self.give_up_connection();
                }
            }
        }
    }

    /// Checks whether another connection wrote, and reads what. Returns whether the runner was woken for it.
    pub(crate) fn refresh(&mut self) -> Result<bool> {
        if self.file.is_none() {
            return Ok(false);
        }
        self.check()?;
        let conn = self.conn.as_ref().expect("checked");
        if let Err(failure) = self.peers.refresh(conn, &self.shared, self.instance) {
            let error = self.clean_up(failure);
            if error::stops(error.kind()) {
                self.stop(&error);
            }
            return Err(error);
        }
        Ok(self.peers.wake_runner(&self.shared))
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
        self.check()?;
        look(self.conn.as_ref().expect("checked")).map_err(|error| error::of("cannot read", error))
    }

    /// Whether the last transaction was synced.
    #[cfg(test)]
    pub(crate) fn has_synced(&self) -> bool {
        self.syncs
    }

    /// For a test of what an operation does when the disk is full.
    #[cfg(test)]
    pub(crate) fn connection(&mut self) -> &Connection {
        self.conn.as_ref().expect("a connection")
    }
}

impl Writes for Writer {
    fn run(&mut self, batch: Vec<Request>) {
        let last = batch.iter().map(|request| request.now).max();
        self.now = last.unwrap_or(self.now);
        if let Err(error) = self.check() {
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

pub(super) fn run_sql(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(|_| ())
}
