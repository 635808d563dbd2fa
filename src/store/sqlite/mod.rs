//! The SQLite store: one write connection taken in turns, a pool of readers, and a lock file that proves this instance
//! alive.

mod error;
mod file;
#[cfg(test)]
mod file_tests;
mod instances;
#[cfg(test)]
pub(super) mod kit;
mod ops;
#[cfg(test)]
mod query_plans;
mod read;
pub(crate) mod settings;
mod sql;
#[cfg(test)]
mod turn_tests;
mod watch;
mod write;

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::model::health::Health;
use crate::model::lane::KnownLanes;
use crate::model::op::{CHUNK, Op, Reply, Rescued};
use crate::model::query::{Answer, Query};
use crate::model::settle::Fence;
use crate::process::Home;
use crate::store::sqlite::file::identity::{self, Identity};
use crate::store::sqlite::file::open::{self, Opener};
use crate::store::sqlite::file::readers::Readers;
use crate::store::sqlite::file::schema;
use crate::store::sqlite::instances::evidence::Evidence;
use crate::store::sqlite::instances::ledger;
use crate::store::sqlite::instances::roll::{self, Roll};
use crate::store::sqlite::ops::{lanes, rescue};
use crate::store::sqlite::read::{backup, maintenance};
use crate::store::sqlite::settings::SqliteSettings;
use crate::store::sqlite::watch::Watch;
use crate::store::sqlite::write::authorizer::Authorizer;
use crate::store::sqlite::write::borrowed;
use crate::store::sqlite::write::shared::Shared;
use crate::store::sqlite::write::writer::Writer;
use crate::store::turn::{Submitted, Turn};
use crate::store::{
    Body, Holder, NextMaintenance, Pace, Settings, Signals, Store, Ticket, Transaction,
};
use crate::time::Timestamp;
use crate::wake::lock;

/// Tasks in a SQLite file, or in memory.
#[derive(Debug)]
pub(crate) struct SqliteStore {
    shared: Arc<Shared>,
    turn: Arc<Turn<Writer>>,
    /// `None`: in memory, where reads use the write connection.
    readers: Option<Readers>,
    path: Option<PathBuf>,
    /// Which file the path named when the store was opened.
    identity: Option<Identity>,
    /// How long a call waits for a lock.
    busy_wait: Duration,
    clock: Arc<dyn Clock>,
    instance: i64,
    /// `None`: in memory, where there are no other instances.
    roll: Option<Roll>,
    watch: Mutex<Option<Watch>>,
    /// When the store was closed, or else opened: recorded as the end of an instance that ends.
    seen_at: AtomicI64,
    /// Last, so that it is dropped after the connections are closed.
    home: Home,
}

impl SqliteStore {
    /// Opens or creates a file.
    ///
    /// # Errors
    ///
    /// `Invalid` for settings out of their ranges, and as [`Opener::new`].
    pub(crate) fn open(
        path: &Path,
        settings: Settings,
        own: &SqliteSettings,
        now: Timestamp,
    ) -> Result<Self> {
        settings.check()?;
        own.check()?;
        let home = Home::new()?;
        let mut opener = Opener::new(path, &settings)?;
        opener.page_cache_bytes = own.page_cache_bytes;
        Self::open_file(home, &opener, settings, now).inspect_err(|_| opener.undo())
    }

    fn open_file(home: Home, opener: &Opener, settings: Settings, now: Timestamp) -> Result<Self> {
        let conn = opener.writer()?;
        let context = format!("cannot open {}", opener.path.display());
        schema::migrate(&conn).map_err(|error| error.in_context(&context))?;
        let path = opener.path.clone();
        let readers = Readers::new(opener.clone());
        Self::new(
            home,
            conn,
            Some(opener.clone()),
            Some(readers),
            settings,
            now,
        )
        .map_err(|error| error.in_context(&context))
        .map(|mut store| {
            store.path = Some(path);
            store.clear_up();
            store
        })
    }

    /// Opens a store in memory. Its tasks are gone with its last user.
    pub(crate) fn memory(settings: Settings, now: Timestamp) -> Result<Self> {
        settings.check()?;
        let home = Home::new()?;
        let conn = open::memory()?;
        schema::migrate(&conn)?;
        Self::new(home, conn, None, None, settings, now)
    }

    fn new(
        home: Home,
        conn: Connection,
        opener: Option<Opener>,
        readers: Option<Readers>,
        settings: Settings,
        now: Timestamp,
    ) -> Result<Self> {
        let lanes =
            lanes::load(&conn).map_err(|error| error::of("cannot read the lanes", error))?;
        let shared = Arc::new(Shared {
            lanes: Mutex::new(lanes),
            signals: Signals::default(),
            ledger: Mutex::new(None),
            stopped: Mutex::new(None),
            writes: Mutex::default(),
            fails: AtomicBool::new(false),
            waits: Mutex::new(None),
            wal_pages: Arc::new(AtomicI32::new(0)),
            page_bytes: open::page_bytes(&conn)?,
            others_writes: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            authorizer: Arc::new(Authorizer::new(settings.transaction_timeout)),
        });
        let path = opener.as_ref().map(|opener| opener.path.clone());
        let identity = path.as_deref().map(identity::at).transpose()?;
        if let Some(path) = &path
            && borrowed::has_moved(&conn)?
        {
            return Err(Error::new(
                ErrorKind::Replaced,
                format!("{} was replaced while it was opened", path.display()),
            ));
        }
        let instance = if settings.runs {
            let (instance, ledger) = roll::enrol(&conn, path.as_deref(), identity, now)?;
            *lock(&shared.ledger) = ledger.map(Arc::new);
            instance
        } else {
            0
        };
        let roll = path.clone().zip(identity);
        let roll = roll.map(|(path, file)| Roll::new(path, file));
        let mut writer = Writer::new(conn, opener, Arc::clone(&shared), &settings)?;
        writer.instance = instance;
        Ok(Self {
            shared,
            turn: Arc::new(Turn::new(writer, settings.busy_wait, Pace::LOCAL.patience)),
            readers,
            path,
            identity,
            busy_wait: settings.busy_wait,
            clock: settings.clock,
            instance,
            roll,
            watch: Mutex::default(),
            seen_at: AtomicI64::new(now.micros()),
            home,
        })
    }

    /// Removes lock files of processes that died while they opened or closed the file.
    fn clear_up(&self) {
        let Some(path) = &self.path else { return };
        ledger::clear_up(path, |name| {
            let expected = self.with_reader(|conn| roll::is_expected(conn, name));
            // If that cannot be read, the lock file is left to the next process.
            expected.unwrap_or(true)
        });
    }

    /// In a forked child: leaves everything as it is. Closing a connection would take away the parent's locks, or its log.
    fn forget(&mut self) {
        std::mem::forget((Arc::clone(&self.shared), Arc::clone(&self.turn)));
        std::mem::forget(self.readers.take());
        let watch = self.watch.get_mut().unwrap_or_else(PoisonError::into_inner);
        std::mem::forget(watch.take());
    }

    /// Checks that this process and this thread may use the store.
    fn check_caller(&self) -> Result<()> {
        self.home.check()?;
        self.turn.check_reentrant()
    }

    /// Takes back part of what a dead instance held.
    fn rescue(&self, now: Timestamp, instance: i64, evidence: &Evidence) -> Result<Rescued> {
        self.check_caller()?;
        self.turn.exclusive(Some(now), |writer| {
            writer.rescue(now, instance, evidence, CHUNK)
        })?
    }

    fn with_reader<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        self.check_caller()?;
        if let Some(error) = &*lock(&self.shared.stopped) {
            return Err(error.clone());
        }
        match &self.readers {
            Some(readers) => readers.with(read),
            // Queued with the writes: the wait for the writer's lock would have no bound, since one leader may follow
            // another.
            None => self.turn.exclusive(None, |writer| writer.look(read))?,
        }
    }
}

/// What only this engine can do.
impl SqliteStore {
    /// # Errors
    ///
    /// `Unsupported` for a store of another engine.
    pub(crate) fn of(store: &dyn Store) -> Result<&Self> {
        store.as_any().downcast_ref().ok_or_else(not_sqlite)
    }

    /// Applies an operation in a transaction that the caller has begun on the caller's own connection.
    ///
    /// # Errors
    ///
    /// `Invalid` if the connection is not to this file, or no transaction is open on it.
    pub(crate) fn apply_on(&self, now: Timestamp, conn: &Connection, op: &Op) -> Result<Reply> {
        self.check_caller()?;
        let file = self.path.as_deref().zip(self.identity);
        borrowed::apply(&self.shared, file, now, conn, op)
    }

    /// Sets a busy handler on the caller's own connection that tries the write lock often enough to get it beside processes
    /// that write all the time.
    pub(crate) fn set_busy_handler(&self, conn: &mut Connection) -> Result<()> {
        self.check_caller()?;
        open::set_busy_handler(conn, self.busy_wait)
    }

    /// Copies the store into a new file while the store is in use.
    pub(crate) fn backup(&self, to: &Path) -> Result<()> {
        backup::backup(to, |copy| self.with_reader(copy))
    }

    /// The length of the log after the last commit, in bytes.
    pub(crate) fn wal_bytes(&self) -> u64 {
        self.shared.wal_bytes()
    }
}

/// The connection of a transaction.
///
/// # Errors
///
/// `Unsupported` in a store of another engine.
pub(crate) fn connection(work: &dyn Transaction) -> Result<&Connection> {
    work.connection().downcast_ref().ok_or_else(not_sqlite)
}

fn not_sqlite() -> Error {
    Error::new(ErrorKind::Unsupported, "the tasks are not kept in SQLite")
}

fn ticket(submitted: Result<Submitted<Writer>>) -> Ticket {
    match submitted {
        Ok(submitted) => Ticket::Pending(Box::new(submitted)),
        Err(error) => Ticket::ready(Err(error)),
    }
}

impl Store for SqliteStore {
    fn apply(&self, now: Timestamp, ops: Vec<Op>) -> Result<Vec<Reply>> {
        self.check_caller()?;
        self.turn.apply(now, ops)
    }

    fn submit(&self, now: Timestamp, ops: Vec<Op>) -> Ticket {
        ticket(
            self.check_caller()
                .and_then(|()| self.turn.submit(now, ops)),
        )
    }

    fn defer(&self, now: Timestamp, ops: Vec<Op>) -> Ticket {
        ticket(self.check_caller().and_then(|()| self.turn.defer(now, ops)))
    }

    fn transaction(
        &self,
        now: Timestamp,
        holder: Option<Holder>,
        body: &mut Body<'_>,
    ) -> Result<()> {
        self.check_caller()?;
        self.turn
            .exclusive(Some(now), |writer| writer.transaction(now, holder, body))?
    }

    fn read(&self, query: Query) -> Result<Answer> {
        self.with_reader(|conn| read::read(conn, &self.shared.lanes, &query))
    }

    fn lanes(&self) -> KnownLanes {
        lock(&self.shared.lanes).snapshot()
    }

    fn refresh(&self) -> Result<bool> {
        // A wait for the turn would have no bound: one leader may follow another.
        let looked = self.turn.with_idle_writer(Writer::refresh);
        looked.map_or(Ok(false), |found| found.map(|_| true))
    }

    fn check(&self) -> Result<()> {
        self.home.check()
    }

    fn watch(&self) -> Result<()> {
        if let Some(path) = &self.path {
            *lock(&self.watch) = Some(Watch::start(&self.turn, path)?);
        }
        Ok(())
    }

    fn begin(&self, fence: Fence) -> Result<()> {
        match self.shared.ledger() {
            Some(ledger) => ledger.begin(fence),
            // The store was given up, and its claims with it.
            None if self.path.is_some() => {
                Err(Error::new(ErrorKind::Closed, "the store was given up"))
            }
            None => Ok(()),
        }
    }

    fn recover(&self, now: Timestamp) -> Result<Rescued> {
        let Some(roll) = &self.roll else {
            return Ok(Rescued::default());
        };
        if self.shared.has_stopped() {
            roll.give_up();
            return Ok(Rescued::default());
        }
        let writes = self.shared.others_writes.load(Ordering::SeqCst);
        roll.find_dead(
            writes,
            || self.with_reader(|conn| roll::others(conn, self.instance)),
            |instance| self.with_reader(|conn| rescue::count_held(conn, instance)),
        )?;
        let Some((instance, evidence)) = roll.next_dead() else {
            return Ok(Rescued::default());
        };
        let mut rescued = self.rescue(now, instance, &evidence)?;
        if !rescued.more {
            rescued.more = roll.forget_dead(instance);
        }
        Ok(rescued)
    }

    fn has_others(&self) -> bool {
        let writes = self.shared.others_writes.load(Ordering::SeqCst);
        let has_others = |roll: &Roll| roll.has_others(writes);
        !self.shared.has_stopped() && self.roll.as_ref().is_some_and(has_others)
    }

    fn next_maintenance(&self) -> Result<NextMaintenance> {
        self.with_reader(maintenance::next)
    }

    fn pace(&self) -> Pace {
        Pace::LOCAL
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    fn signals(&self) -> &Signals {
        &self.shared.signals
    }

    fn health(&self) -> Health {
        if let Err(error) = self.home.check() {
            return Health {
                stopped: Some(error),
                ..Health::default()
            };
        }
        Health {
            is_polling: lock(&self.watch).as_ref().is_some_and(Watch::is_polling),
            ..self.shared.health()
        }
    }

    fn is_failing(&self) -> bool {
        self.shared.fails.load(Ordering::Relaxed)
    }

    fn close(&self, now: Timestamp) {
        self.seen_at.store(now.micros(), Ordering::Relaxed);
        self.shared.signals.close();
        if self.shared.has_stopped() {
            // Nothing can be settled here any more: the next process that opens the file takes over.
            *lock(&self.shared.ledger) = None;
            if let Some(roll) = &self.roll {
                roll.give_up();
            }
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for SqliteStore {
    /// The last user is gone, so no handler runs any more. An instance that holds nothing ends here; otherwise another
    /// process rescues it.
    fn drop(&mut self) {
        if !self.home.is_here() {
            self.forget();
            return;
        }
        // First: the watch looks on the writer.
        *lock(&self.watch) = None;
        self.turn.finish();
        // A receipt that is still held keeps the signals alive.
        self.shared.signals.close();
        let Some(ledger) = self.shared.ledger() else {
            return;
        };
        let ended = self.turn.with_writer(|writer| {
            writer.look(|conn| {
                let now = self.seen_at.load(Ordering::Relaxed);
                let ended = roll::leave(conn, self.instance, now)?;
                conn.execute(rescue::FORGET_CANCELS, [self.instance])?;
                Ok(ended)
            })
        });
        if matches!(ended, Ok(true)) {
            ledger.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As another process does that could not open the file that it had just created.
    #[cfg(unix)]
    #[test]
    fn p1_a_file_that_is_removed_while_it_is_opened_is_not_taken_for_the_one_that_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let settings = Settings::new(true);
        let opener = Opener::new(&path, &settings).unwrap();
        let conn = opener.writer().unwrap();
        schema::migrate(&conn).unwrap();
        for name in ["a.db", "a.db-wal", "a.db-shm"] {
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
        std::fs::write(&path, "").unwrap();
        let now = Timestamp::from_micros(0);
        let home = Home::new().unwrap();
        let error = SqliteStore::new(home, conn, Some(opener), None, settings, now).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Replaced, "{error}");
        assert!(
            !file::paths::lock_folder(&path).exists(),
            "nothing was registered"
        );
    }
}
