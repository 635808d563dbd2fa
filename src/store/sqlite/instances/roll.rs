//! The roll of instances: how this process is entered in it, and which of the others have died.
//!
//! Invariant: the lock file is made before the row that names it, and removed after the row has ended.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::error::{Error, ErrorKind, Result};
use crate::log::log;
use crate::store::sqlite::error;
use crate::store::sqlite::file::counter::Counter;
use crate::store::sqlite::file::identity::Identity;
use crate::store::sqlite::file::paths;
use crate::store::sqlite::instances::evidence::Evidence;
use crate::store::sqlite::instances::ledger::{self, DeadLedger, Ledger, Other};
use crate::store::sqlite::instances::process::{self, Process};
use crate::store::sqlite::sql::{columns, get, sql};
use crate::sync::lock;
use crate::time::Timestamp;

const ADD_INSTANCE: &str = "
    INSERT INTO punctual_instance
        (id, name, boot_id, pid_namespace, pid, pid_started_at, lock_inode, file_device, file_inode, started_at)
    VALUES
        (:id, :name, :boot_id, :pid_namespace, :pid, :pid_started_at, :lock_inode, :file_device, :file_inode, :started_at)";

const END_INSTANCE: &str = "UPDATE punctual_instance SET ended_at = :now WHERE id = :id";

const LEAVE: &str = sql!(
    "{end} AND NOT EXISTS (SELECT 1 FROM punctual_task WHERE state = {running} AND instance = :id)",
    end = END_INSTANCE
);

/// Ended instances are kept for the histories of their tasks.
const FORGET_INSTANCES: &str = "DELETE FROM punctual_instance WHERE ended_at < :before";

const KEEP_INSTANCES: Duration = Duration::from_secs(30 * 24 * 3600);

const OTHER_INSTANCES: &str = sql!(
    "SELECT {columns} FROM punctual_instance WHERE ended_at IS NULL AND id <> :own",
    columns = InstanceRow::COLUMNS
);

columns! {
    /// An instance, as it has entered itself.
    struct InstanceRow {
        id: i64 = "id" by get,
        name: String = "name" by get,
        boot_id: String = "boot_id" by get,
        pid_namespace: String = "pid_namespace" by get,
        pid: u32 = "pid" by get,
        lock_inode: i64 = "lock_inode" by get,
        file_device: i64 = "file_device" by get,
        file_inode: i64 = "file_inode" by get,
    }
}

const IS_EXPECTED: &str = "SELECT 1 FROM punctual_instance WHERE name = :name AND ended_at IS NULL";

/// Enters an instance: first its lock, then the row that shows others where the lock is.
pub(crate) fn enrol(
    conn: &Connection,
    path: Option<&Path>,
    file: Option<Identity>,
    now: Timestamp,
) -> Result<(i64, Option<Ledger>)> {
    let process = Process::own();
    let (device, file_inode) = file.map_or((0, 0), Identity::columns);
    let (name, ledger) = proof_of_life(path)?;
    let inode = ledger.as_ref().map_or(0, Ledger::inode);
    let enrolled = || -> rusqlite::Result<i64> {
        conn.execute_batch("BEGIN IMMEDIATE")?;
        let id = Counter::Instances.draw(conn)?;
        conn.execute(
            ADD_INSTANCE,
            params![
                id,
                name,
                process.boot_id,
                process.pid_namespace,
                process.pid,
                process::started_at(),
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
            Err(error::of("cannot register the instance", error))
        }
    }
}

/// A name that was never used and, for a file, the lock under that name.
fn proof_of_life(path: Option<&Path>) -> Result<(String, Option<Ledger>)> {
    let Some(path) = path else {
        return Ok((ledger::instance_name(), None));
    };
    // A new lock file may once be taken for a dead process's; a hundred times is no accident.
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
            paths::lock_folder(path).display()
        ),
    ))
}

/// Ends the row of an instance, unless it still holds a task; `true`: it has ended and needs no rescue.
pub(crate) fn leave(conn: &Connection, instance: i64, now: i64) -> rusqlite::Result<bool> {
    Ok(conn.execute(LEAVE, params![now, instance])? == 1)
}

/// Ends the row of a dead instance, all of whose tasks are taken back. It does not look for more: one that no rescue finds,
/// in a damaged file, must not have the instance rescued for ever.
pub(crate) fn end(conn: &Connection, instance: i64, now: Timestamp) -> rusqlite::Result<()> {
    conn.prepare_cached(END_INSTANCE)?
        .execute([now.micros(), instance])
        .map(|_| ())
}

/// Whether the roll has an instance of that name that has not ended.
pub(crate) fn is_expected(conn: &Connection, name: &str) -> rusqlite::Result<bool> {
    let found = conn
        .prepare_cached(IS_EXPECTED)?
        .query_row([name], |_| Ok(()))
        .optional()?;
    Ok(found.is_some())
}

/// The instances that have not ended, except `own`.
pub(crate) fn others(conn: &Connection, own: i64) -> rusqlite::Result<Vec<Other>> {
    conn.prepare_cached(OTHER_INSTANCES)?
        .query_map([own], |row| {
            let row = InstanceRow::read(row)?;
            Ok(Other {
                id: row.id,
                name: row.name,
                process: Process {
                    boot_id: row.boot_id,
                    pid_namespace: row.pid_namespace,
                    pid: row.pid,
                },
                inode: row.lock_inode,
                file: Identity::stored(row.file_device, row.file_inode),
            })
        })?
        .collect()
}

/// The other instances of a file, as they were last seen.
#[derive(Debug)]
pub(crate) struct Roll {
    path: PathBuf,
    file: Identity,
    process: Process,
    others: Mutex<Others>,
}

#[derive(Debug, Default)]
struct Others {
    /// How often others had written when the list was read.
    read_at: Option<u64>,
    alive: Vec<Other>,
    /// Dead ones whose tasks are being taken back.
    dead: HashMap<i64, DeadLedger>,
}

impl Roll {
    pub(crate) fn new(path: PathBuf, file: Identity) -> Self {
        Self {
            path,
            file,
            process: Process::own(),
            others: Mutex::default(),
        }
    }

    /// Finds instances that have died since the last look. `writes`: how often others have written; if that has not changed,
    /// the list is not read again to look for them. `read` lists the other instances.
    pub(crate) fn find_dead(
        &self,
        writes: u64,
        read: impl Fn() -> Result<Vec<Other>>,
    ) -> Result<()> {
        let mut others = lock(&self.others);
        if others.read_at != Some(writes) {
            others.alive = read()?;
            others.read_at = Some(writes);
        }
        let Others { alive, dead, .. } = &mut *others;
        let found: Vec<(i64, DeadLedger)> = alive
            .iter()
            .filter_map(|other| {
                DeadLedger::take(&self.path, self.file, other, &self.process)
                    .map(|ledger| (other.id, ledger))
            })
            .collect();
        if found.is_empty() {
            return Ok(());
        }
        // Instances that ended their rows before they were gone need no rescue.
        *alive = read()?;
        let mut died = Vec::new();
        for (id, ledger) in found {
            if let Some(index) = alive.iter().position(|other| other.id == id) {
                died.push(alive.swap_remove(index).name);
                dead.entry(id).or_insert(ledger);
            }
        }
        alive.retain(|other| !dead.contains_key(&other.id));
        drop(others);
        // Without the lock: a `tracing` subscriber may call the store.
        for instance in died {
            log!(info, %instance, "an instance has died");
        }
        Ok(())
    }

    /// A dead instance whose tasks are to be taken back, and what is known of their starts.
    pub(crate) fn next_dead(&self) -> Option<(i64, Evidence)> {
        let others = lock(&self.others);
        let next = others.dead.iter().next();
        next.map(|(&id, dead)| (id, dead.evidence()))
    }

    /// Forgets a dead instance, once all that it held is taken back and committed. Returns whether another dead one is left.
    pub(crate) fn forget_dead(&self, instance: i64) -> bool {
        let mut others = lock(&self.others);
        if let Some(ledger) = others.dead.remove(&instance) {
            ledger.remove();
        }
        !others.dead.is_empty()
    }

    /// Gives up the locks of dead instances: others can take back what this one cannot.
    pub(crate) fn give_up(&self) {
        *lock(&self.others) = Others::default();
    }

    /// Whether other instances are alive, as of the last look, or may have come since.
    pub(crate) fn has_others(&self, writes: u64) -> bool {
        let others = lock(&self.others);
        !others.alive.is_empty() || others.read_at != Some(writes)
    }
}
