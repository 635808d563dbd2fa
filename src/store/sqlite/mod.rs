//! The SQLite store: one write connection taken in turns, a pool of readers, a lock file that is the proof of life.

mod batch;
mod change;
mod checkpoint;
mod claim;
mod courtesy;
mod fault;
mod filter;
mod forget;
mod guard;
mod guest;
mod identity;
mod insert;
mod lanes;
mod ledger;
mod mounts;
mod open;
mod paths;
#[cfg(test)]
mod plans;
mod prune;
mod read;
mod rescue;
mod row;
mod schema;
mod settle;
mod stats;
mod transition;
mod turn;
mod tx;
mod watch;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{OpenFlags, OptionalExtension, params};

use crate::error::{Error, ErrorKind, Result};
use crate::model::op::{CHUNK, KnownLanes, Op, Reply, Rescued};
use crate::model::query::{Answer, Query};
use crate::model::settle::Fence;
use crate::process::Home;
use crate::store::sqlite::guard::Guard;
use crate::store::sqlite::identity::Identity;
use crate::store::sqlite::lanes::Lanes;
use crate::store::sqlite::ledger::process::Process;
use crate::store::sqlite::ledger::{DeadLedger, Ledger, Other};
use crate::store::sqlite::open::Opener;
use crate::store::sqlite::read::Readers;
use crate::store::sqlite::turn::{Submitted, Turn};
use crate::store::sqlite::watch::Watch;
use crate::store::sqlite::writer::{Shared, Writer};
use crate::store::{Body, Condition, Holder, Hub, NextMaintenance, Settings, Store, Ticket};
use crate::tell::tell;
use crate::time::Timestamp;
use crate::wake::lock;

pub use open::Durability;

/// Tasks in a SQLite file, or in memory.
#[derive(Debug)]
pub(crate) struct SqliteStore {
    shared: Arc<Shared>,
    turn: Arc<Turn>,
    /// `None`: in memory, where reads take the writer.
    readers: Option<Readers>,
    path: Option<PathBuf>,
    /// Which file that was when it was opened.
    identity: Option<Identity>,
    /// How long a lock is waited for.
    busy_wait: Duration,
    instance: i64,
    process: Process,
    others: Mutex<Others>,
    watch: Mutex<Option<Watch>>,
    /// When it was closed, or else opened: an instance that ends says when, and a store has no clock.
    seen_at: AtomicI64,
    /// Last: it is dropped once the connections are closed.
    home: Home,
}

/// What is known of the other instances.
#[derive(Debug, Default)]
struct Others {
    /// How often others had written when the list was read.
    read_at: Option<u64>,
    alive: Vec<Other>,
    /// Dead ones whose tasks are being taken back.
    dead: HashMap<i64, DeadLedger>,
}

const ADD_INSTANCE: &str = "
    INSERT INTO punctual_instance
        (id, name, boot_id, pid_namespace, pid, pid_started_at, lock_inode, file_device, file_inode, started_at)
    VALUES
        (:id, :name, :boot_id, :pid_namespace, :pid, :pid_started_at, :lock_inode, :file_device, :file_inode, :started_at)";

/// Numbers are never used again: a stale fence must not fit a later instance.
const NEXT_INSTANCE: &str = "
    INSERT INTO punctual_meta (key, value) VALUES ('instances', 1)
    ON CONFLICT (key) DO UPDATE SET value = value + 1
    RETURNING value";

const END_INSTANCE: &str = "
    UPDATE punctual_instance SET ended_at = :now WHERE id = :id
    AND NOT EXISTS (SELECT 1 FROM punctual_task WHERE state = 10 AND instance = :id)";

/// Ended instances are kept for the histories of their tasks.
const FORGET_INSTANCES: &str = "DELETE FROM punctual_instance WHERE ended_at < :before";

const OTHER_INSTANCES: &str = "
    SELECT id, name, boot_id, pid_namespace, pid, lock_inode, file_device, file_inode FROM punctual_instance
    WHERE ended_at IS NULL AND id <> :own";

const IS_EXPECTED: &str = "SELECT 1 FROM punctual_instance WHERE name = :name AND ended_at IS NULL";

const KEEP_INSTANCES: Duration = Duration::from_secs(30 * 24 * 3600);

impl SqliteStore {
    /// Opens or creates a file.
    pub(crate) fn open(path: &Path, settings: Settings, now: Timestamp) -> Result<Self> {
        let home = Home::new()?;
        let opener = Opener::new(path, &settings)?;
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

    /// A store in memory, gone with its last user.
    pub(crate) fn memory(settings: Settings, now: Timestamp) -> Result<Self> {
        let home = Home::new()?;
        let conn = open::memory()?;
        schema::migrate(&conn)?;
        Self::new(home, conn, None, None, settings, now)
    }

    fn new(
        home: Home,
        conn: rusqlite::Connection,
        opener: Option<Opener>,
        readers: Option<Readers>,
        settings: Settings,
        now: Timestamp,
    ) -> Result<Self> {
        let lanes =
            Lanes::load(&conn).map_err(|error| fault::of("cannot read the lanes", error))?;
        let shared = Arc::new(Shared {
            lanes: Mutex::new(lanes),
            hub: Hub::default(),
            ledger: Mutex::new(None),
            stopped: Mutex::new(None),
            writes: Mutex::default(),
            fails: AtomicBool::new(false),
            waits: Mutex::new(None),
            wal_pages: Arc::new(AtomicI32::new(0)),
            page_bytes: open::page_bytes(&conn)?,
            foreign_writes: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            guard: Arc::new(Guard::new(settings.transaction_timeout)),
        });
        let path = opener.as_ref().map(|opener| opener.path.clone());
        let identity = path.as_deref().map(identity::at).transpose()?;
        if let Some(path) = &path
            && guest::has_moved(&conn)?
        {
            return Err(Error::new(
                ErrorKind::Replaced,
                format!("{} was replaced while it was opened", path.display()),
            ));
        }
        let process = Process::own();
        let instance = if settings.runs {
            let (instance, ledger) = enrol(&conn, path.as_deref(), identity, &process, now)?;
            *lock(&shared.ledger) = ledger.map(Arc::new);
            instance
        } else {
            0
        };
        let mut writer = Writer::new(conn, opener, Arc::clone(&shared), &settings)?;
        writer.instance = instance;
        Ok(Self {
            shared,
            turn: Arc::new(Turn::new(writer, settings.busy_wait)),
            readers,
            path,
            identity,
            busy_wait: settings.busy_wait,
            instance,
            process,
            others: Mutex::default(),
            watch: Mutex::default(),
            seen_at: AtomicI64::new(now.micros()),
            home,
        })
    }

    /// Removes what processes left that died while they opened or closed the file.
    fn clear_up(&self) {
        let Some(path) = &self.path else { return };
        ledger::clear_up(path, |name| {
            let expected = self.with_reader(|conn| {
                conn.prepare_cached(IS_EXPECTED)?
                    .query_row([name], |_| Ok(()))
                    .optional()
            });
            // Whoever cannot ask leaves it to the next.
            !matches!(expected, Ok(None))
        });
    }

    /// Finds instances that have died since the last look. Without another instance that is no query.
    fn find_dead(&self) -> Result<()> {
        let (Some(path), Some(file)) = (&self.path, self.identity) else {
            return Ok(());
        };
        let writes = self.shared.foreign_writes.load(Ordering::SeqCst);
        let mut others = lock(&self.others);
        if others.read_at != Some(writes) {
            others.alive = self.others()?;
            others.read_at = Some(writes);
        }
        let Others { alive, dead, .. } = &mut *others;
        let found: Vec<(i64, DeadLedger)> = alive
            .iter()
            .filter_map(|other| {
                DeadLedger::take(path, file, other, &self.process).map(|ledger| (other.id, ledger))
            })
            .collect();
        if found.is_empty() {
            return Ok(());
        }
        // Those that took leave before they were gone have nothing to be taken back.
        *alive = self.others()?;
        let mut died = Vec::new();
        for (id, mut ledger) in found {
            if ledger.is_unknown() && self.count_held(id)? == 1 {
                ledger.held_one();
            }
            if let Some(index) = alive.iter().position(|other| other.id == id) {
                died.push(alive.swap_remove(index).name);
                dead.entry(id).or_insert(ledger);
            }
        }
        alive.retain(|other| !dead.contains_key(&other.id));
        drop(others);
        // Without the lock: a subscriber may call the store.
        for instance in died {
            tell!(info, %instance, "an instance has died");
        }
        Ok(())
    }

    /// The instances that have not ended, but for this one.
    fn others(&self) -> Result<Vec<Other>> {
        self.with_reader(|conn| {
            conn.prepare_cached(OTHER_INSTANCES)?
                .query_map([self.instance], |row| {
                    Ok(Other {
                        id: row.get(0)?,
                        name: row.get(1)?,
                        process: Process {
                            boot_id: row.get(2)?,
                            pid_namespace: row.get(3)?,
                            pid: row.get(4)?,
                        },
                        inode: row.get(5)?,
                        file: Identity::stored(row.get(6)?, row.get(7)?),
                    })
                })?
                .collect()
        })
    }

    /// How many claims an instance holds, up to two.
    fn count_held(&self, instance: i64) -> Result<u32> {
        self.with_reader(|conn| {
            conn.prepare_cached(rescue::COUNT_HELD)?
                .query_row([instance], |row| row.get(0))
        })
    }

    /// In a forked child: leaves everything as it is. To close a connection would take away the parent's locks, or its log.
    fn forget(&mut self) {
        std::mem::forget((Arc::clone(&self.shared), Arc::clone(&self.turn)));
        std::mem::forget(self.readers.take());
        let watch = self.watch.get_mut().unwrap_or_else(PoisonError::into_inner);
        std::mem::forget(watch.take());
    }

    /// Whether this thread may use the store.
    fn check_caller(&self) -> Result<()> {
        self.home.check()?;
        self.turn.check_reentrant()
    }

    fn with_reader<T>(
        &self,
        read: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.check_caller()?;
        if let Some(error) = &*lock(&self.shared.stopped) {
            return Err(error.clone());
        }
        match &self.readers {
            Some(readers) => readers.with(read),
            None => self.turn.with_writer(|writer| writer.look(read)),
        }
    }
}

/// Makes this an instance: first the lock, then the row that tells others where it is.
fn enrol(
    conn: &rusqlite::Connection,
    path: Option<&Path>,
    file: Option<Identity>,
    process: &Process,
    now: Timestamp,
) -> Result<(i64, Option<Ledger>)> {
    let (device, file_inode) = file.map_or((0, 0), Identity::columns);
    let (name, ledger) = proof_of_life(path)?;
    let inode = ledger.as_ref().map_or(0, Ledger::inode);
    let enrolled = || -> rusqlite::Result<i64> {
        conn.execute_batch("BEGIN IMMEDIATE")?;
        let id: i64 = conn.query_row(NEXT_INSTANCE, [], |row| row.get(0))?;
        conn.execute(
            ADD_INSTANCE,
            params![
                id,
                name,
                process.boot_id,
                process.pid_namespace,
                process.pid,
                ledger::process::started_at(),
                i64::try_from(inode).unwrap_or(0),
                device,
                file_inode,
                now.micros()
            ],
        )?;
        conn.execute(FORGET_INSTANCES, [(now - KEEP_INSTANCES).micros()])?;
        conn.execute_batch("COMMIT")?;
        Ok(id)
    };
    match enrolled() {
        Ok(id) => Ok((id, ledger)),
        Err(error) => {
            if !conn.is_autocommit() {
                // The error that counts is the first.
                let _ = conn.execute_batch("ROLLBACK");
            }
            if let Some(ledger) = &ledger {
                ledger.remove();
            }
            Err(fault::of("cannot register the instance", error))
        }
    }
}

/// A name that was never used, and for a file the lock under that name.
fn proof_of_life(path: Option<&Path>) -> Result<(String, Option<Ledger>)> {
    let Some(path) = path else {
        return Ok((ledger::instance_name(), None));
    };
    // To be taken for dead once is bad luck; more than that is no accident.
    for _ in 0..100 {
        let name = ledger::instance_name();
        if let Some(ledger) = Ledger::create(path, &name)? {
            return Ok((name, Some(ledger)));
        }
    }
    Err(Error::new(
        ErrorKind::Storage,
        format!(
            "the lock files in {} are removed as soon as they are made",
            ledger::folder(path).display()
        ),
    ))
}

fn ticket(submitted: Result<Submitted>) -> Ticket {
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
            .exclusive(now, |writer| writer.transaction(now, holder, body))?
    }

    fn apply_on(&self, now: Timestamp, conn: &rusqlite::Connection, op: Op) -> Result<Reply> {
        self.check_caller()?;
        guest::apply(self, now, conn, &op)
    }

    fn set_busy_handler(&self, conn: &mut rusqlite::Connection) -> Result<()> {
        self.check_caller()?;
        open::set_busy_handler(conn, self.busy_wait)
    }

    fn read(&self, query: Query) -> Result<Answer> {
        self.with_reader(|conn| read::read(conn, &self.shared.lanes, &query))
    }

    fn lanes(&self) -> KnownLanes {
        lock(&self.shared.lanes).snapshot()
    }

    fn refresh(&self) -> Result<bool> {
        // A wait for who leads would have no bound: a leader comes after the other.
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
            // Given up, and with it whatever was claimed.
            None if self.path.is_some() => {
                Err(Error::new(ErrorKind::Closed, "the store was given up"))
            }
            None => Ok(()),
        }
    }

    fn recover(&self, now: Timestamp) -> Result<Rescued> {
        if lock(&self.shared.stopped).is_some() {
            // Others can take back what this one cannot: it holds no dead one's lock.
            *lock(&self.others) = Others::default();
            return Ok(Rescued::default());
        }
        self.find_dead()?;
        let next = lock(&self.others)
            .dead
            .iter()
            .next()
            .map(|(&id, dead)| (id, dead.started()));
        let Some((instance, started)) = next else {
            return Ok(Rescued::default());
        };
        let op = Op::Rescue {
            instance,
            started,
            limit: CHUNK,
        };
        let mut replies = self.apply(now, vec![op])?;
        let mut rescued = replies.remove(0).rescued();
        let mut others = lock(&self.others);
        if !rescued.more
            && let Some(ledger) = others.dead.remove(&instance)
        {
            ledger.remove();
        }
        rescued.more |= !others.dead.is_empty();
        Ok(rescued)
    }

    fn has_others(&self) -> bool {
        if lock(&self.shared.stopped).is_some() {
            return false;
        }
        let writes = self.shared.foreign_writes.load(Ordering::SeqCst);
        let others = lock(&self.others);
        !others.alive.is_empty() || self.path.is_some() && others.read_at != Some(writes)
    }

    fn next_maintenance(&self) -> Result<NextMaintenance> {
        self.with_reader(prune::next)
    }

    fn hub(&self) -> &Hub {
        &self.shared.hub
    }

    fn backup(&self, to: &Path) -> Result<()> {
        backup(self, to)
    }

    fn condition(&self) -> Condition {
        if let Err(error) = self.home.check() {
            return Condition {
                stopped: Some(error),
                ..Condition::default()
            };
        }
        Condition {
            is_polling: lock(&self.watch).as_ref().is_some_and(Watch::is_polling),
            ..self.shared.condition()
        }
    }

    fn is_failing(&self) -> bool {
        self.shared.fails.load(Ordering::Relaxed)
    }

    fn close(&self, now: Timestamp) {
        self.seen_at.store(now.micros(), Ordering::Relaxed);
        self.shared.hub.close();
        if lock(&self.shared.stopped).is_some() {
            // Nothing can be settled here any more: whoever opens the file next takes over.
            *lock(&self.shared.ledger) = None;
            *lock(&self.others) = Others::default();
        }
    }
}

impl Drop for SqliteStore {
    /// The last user is gone: no handler runs any more. If nothing is held, nobody has to look after this instance.
    fn drop(&mut self) {
        if !self.home.is_here() {
            self.forget();
            return;
        }
        // First: it looks on the writer.
        *lock(&self.watch) = None;
        self.turn.finish();
        // A receipt keeps the hub alive.
        self.shared.hub.close();
        let Some(ledger) = self.shared.ledger() else {
            return;
        };
        let ended = self.turn.with_writer(|writer| {
            writer.look(|conn| {
                let now = self.seen_at.load(Ordering::Relaxed);
                let ended = conn.execute(END_INSTANCE, params![now, self.instance])?;
                conn.execute(rescue::FORGET_CANCELS, [self.instance])?;
                Ok(ended)
            })
        });
        if matches!(ended, Ok(1)) {
            ledger.remove();
        }
    }
}

fn backup(store: &SqliteStore, to: &Path) -> Result<()> {
    if to.exists() {
        return Err(Error::invalid(format!("{} exists already", to.display())));
    }
    let context = format!("cannot back up to {}", to.display());
    let opener =
        Opener::new(to, &Settings::new(false)).map_err(|error| error.in_context(&context))?;
    if !opener.is_new {
        return Err(Error::invalid(format!("{} exists already", to.display())));
    }
    let copied = store.with_reader(|conn| {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let mut target = rusqlite::Connection::open_with_flags(&opener.path, flags)?;
        let backup = rusqlite::backup::Backup::new(conn, &mut target)?;
        // In one step: between two, a write would make it begin anew.
        backup.step(-1)?;
        drop(backup);
        // The instances of the original hold nothing in the copy. Their rows name the original's file, and so tell that,
        // unless the copy is put in the original's place: so they become of another boot, which is dead wherever it lies.
        target.execute(
            "UPDATE punctual_instance SET boot_id = 'copied' WHERE ended_at IS NULL",
            [],
        )?;
        Ok(())
    });
    copied.map_err(|error| {
        // A copy that is not whole is worse than none.
        let _ = std::fs::remove_file(&opener.path);
        let _ = std::fs::remove_file(paths::beside(&opener.path, "-journal"));
        error.in_context(&context)
    })
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
        assert!(!ledger::folder(&path).exists(), "nothing was registered");
    }
}
