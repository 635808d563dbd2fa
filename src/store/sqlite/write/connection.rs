//! The connection that writes. An error that has made it useless has it opened again. It is never used on another file than
//! the one that the store was opened with.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::Connection;

use crate::error::{Error, ErrorKind, Result};
use crate::log::log;
use crate::store::sqlite::error;
use crate::store::sqlite::file::checkpoint::{self, Checkpoints};
use crate::store::sqlite::file::fairness::Streak;
use crate::store::sqlite::file::identity::{self, Identity};
use crate::store::sqlite::file::open::Opener;
use crate::store::sqlite::file::paths::log_of;
use crate::store::sqlite::write::failure::WriteFailure;
use crate::store::sqlite::write::peers::Peers;
use crate::store::sqlite::write::shared::Shared;
use crate::sync::lock;
use crate::time::{Stopwatch, Timestamp};

/// The connection keeps prepared statements by their text, and keeps them authorized. The suffix makes sure that a caller's
/// `prepare_cached("COMMIT")` inside a transaction does not find ours.
const BEGIN: &str = "BEGIN IMMEDIATE -- punctual";
const COMMIT: &str = "COMMIT -- punctual";
const ROLLBACK: &str = "ROLLBACK -- punctual";

/// How often the path is checked, to notice that the file was replaced: a check takes 2 µs, a hundredth of a synced commit.
const IDENTITY_CHECK: Duration = Duration::from_millis(10);

/// The write connection, and what it has seen of the others.
#[derive(Debug)]
pub(super) struct WriteConnection {
    conn: Option<Connection>,
    /// `None`: in memory.
    file: Option<File>,
    shared: Arc<Shared>,
    pub(super) peers: Peers,
    /// Whether it syncs at each commit now.
    syncs: bool,
    checked: Stopwatch,
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

impl WriteConnection {
    pub(super) fn new(
        conn: Connection,
        opener: Option<Opener>,
        shared: Arc<Shared>,
    ) -> Result<Self> {
        let mut connection = Self {
            conn: None,
            file: opener.map(File::new).transpose()?,
            shared,
            peers: Peers::default(),
            syncs: true,
            checked: Stopwatch::start(),
        };
        connection.adopt(conn)?;
        Ok(connection)
    }

    /// Takes a fresh connection into use.
    fn adopt(&mut self, mut conn: Connection) -> Result<()> {
        let pages = Arc::clone(&self.shared.wal_pages);
        conn.wal_hook(Some(move |_: &mut _, length| {
            pages.store(length, Ordering::Relaxed);
            Ok(())
        }))
        .and_then(|()| self.shared.authorizer.install(&mut conn))
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

    /// Checks that the store can be written, and opens the connection again if need be. `now`: the request time of the write
    /// to come.
    pub(super) fn check(&mut self, now: Timestamp) -> Result<()> {
        if let Some(error) = &*lock(&self.shared.stopped) {
            return Err(error.clone());
        }
        if self.checked.elapsed() >= IDENTITY_CHECK {
            self.check_path()?;
        }
        // A leader that panicked may have left a transaction open.
        self.roll_back();
        if self.conn.is_some() {
            return Ok(());
        }
        let file = self
            .file
            .as_ref()
            .expect("only a file's connection is given up");
        let opened = self.shared.wait(now, || file.opener.writer());
        let adopted = opened.and_then(|conn| self.adopt(conn));
        if let Err(error) = &adopted
            && error.is_retryable()
        {
            self.shared.note(now, error);
        }
        adopted
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
            self.shared.stop(error);
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

    /// Call it only after [`check`](Self::check).
    pub(super) fn get(&self) -> &Connection {
        self.conn.as_ref().expect("checked")
    }

    /// Likewise.
    pub(super) fn get_mut(&mut self) -> &mut Connection {
        self.conn.as_mut().expect("checked")
    }

    pub(super) fn is_to_a_file(&self) -> bool {
        self.file.is_some()
    }

    /// Whether the last transaction was synced.
    #[cfg(test)]
    pub(super) fn has_synced(&self) -> bool {
        self.syncs
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
        self.get()
            .prepare_cached(sql)
            .and_then(|mut statement| statement.raw_query().next().map(|_| ()))
            .map_err(|error| error::of("cannot set the durability", error))?;
        self.syncs = syncs;
        Ok(())
    }

    /// Begins a transaction, and reads what others have committed.
    pub(super) fn begin(
        &mut self,
        now: Timestamp,
        instance: i64,
    ) -> std::result::Result<(), WriteFailure> {
        let conn = self.conn.as_ref().expect("checked");
        if let Some(file) = &mut self.file {
            file.streak.leave_gap();
        }
        let begun = self.shared.wait(now, || run_sql(conn, BEGIN));
        if let Some(file) = &self.file {
            file.streak.stop_waiting();
        }
        begun.map_err(|error| WriteFailure::at("begin a transaction", error))?;
        if self.file.is_some() {
            // Taken over at once: others have committed it, whatever becomes of this transaction.
            self.peers.learn(conn, &self.shared, instance)?;
        }
        self.peers.delete_cancels(conn, &self.shared, instance)
    }

    /// Whether a standing claim may come along with the transaction that has just begun.
    pub(super) fn may_stand(
        &mut self,
        has_claims: bool,
    ) -> std::result::Result<bool, WriteFailure> {
        let conn = self.conn.as_ref().expect("checked");
        self.peers.may_stand(conn, &self.shared, has_claims)
    }

    /// Checks whether another connection has committed, and reads what. Returns whether the runner was woken for it.
    pub(super) fn refresh(&mut self, instance: i64) -> std::result::Result<bool, WriteFailure> {
        let conn = self.conn.as_ref().expect("checked");
        self.peers.refresh(conn, &self.shared, instance)?;
        Ok(self.peers.wake_runner(&self.shared))
    }

    pub(super) fn commit(&self, now: Timestamp) -> std::result::Result<(), WriteFailure> {
        self.shared
            .wait(now, || run_sql(self.get(), COMMIT))
            .map_err(WriteFailure::Commit)
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
            self.give_up();
        }
        error
    }

    /// Rolls back a transaction that the caller does not want, or that was refused.
    pub(super) fn leave(&mut self) {
        if self.get().is_autocommit() {
            // An error was so bad that SQLite itself rolled back: the connection's caches may be wrong.
            self.give_up();
        }
        self.roll_back();
        self.end_streak();
        self.leave_nothing_running();
    }

    /// Gives the connection up if a statement still runs. Rows that the caller has leaked would keep the connection at what
    /// it has read, and every later write busy.
    pub(super) fn leave_nothing_running(&mut self) {
        if self.conn.as_ref().is_some_and(Connection::is_busy) {
            log!(
                warn,
                "a statement was left running inside a transaction: the log cannot be shortened until this process ends"
            );
            self.give_up();
        }
    }

    /// Rolls the transaction back, unless SQLite has done so.
    fn roll_back(&mut self) {
        if let Some(conn) = &self.conn
            && !conn.is_autocommit()
            && let Err(error) = run_sql(conn, ROLLBACK)
        {
            log!(warn, %error, "cannot roll back");
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        // A database in memory would be gone with its connection.
        if self.file.is_some() {
            self.conn = None;
        }
    }

    /// In a forked child: leaves the connection as it is. Even a rollback would write where the parent does.
    pub(super) fn forget(&mut self) {
        std::mem::forget(self.conn.take());
    }

    /// Notes that the transaction is over: from now on the time counts as a gap.
    pub(super) fn end_streak(&mut self) {
        if let Some(file) = &mut self.file {
            file.streak.end();
        }
    }

    /// Moves the log into the file, if it is long enough. `now`: the request time of the write that has just been committed.
    pub(super) fn checkpoint(&mut self, checkpoints: &mut Checkpoints, now: Timestamp) {
        let Some(conn) = &mut self.conn else { return };
        let done = self.shared.wait(now, || checkpoints.after_commit(conn));
        match done {
            // It held SQLite's write lock: that was no gap for other processes.
            Ok(true) => self.end_streak(),
            Ok(false) => {}
            Err(error) => {
                log!(warn, %error, "cannot checkpoint");
                if error::poisons(&error) {
                    self.give_up();
                }
            }
        }
    }
}

fn run_sql(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(|_| ())
}
