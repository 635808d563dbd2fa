//! A process's proof of life, and its list of started attempts: one file beside the database.
//!
//! The kernel drops the lock when the process dies, so an instance is dead exactly when its lock can be taken; no time is
//! involved, and a process that is stopped or slow is alive. What the file lists was started: before a handler is called
//! its claim is written there, with a plain write that a crash of the process does not undo.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::error::{Error, ErrorKind, Result};
use crate::model::op::Started;
use crate::model::settle::Fence;
use crate::store::sqlite::open::identity;
use crate::wake::lock;

/// Bytes of a cell: the row and the claim number, little-endian.
const CELL: usize = 16;

/// The lock file of this instance.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    file: File,
    inode: u64,
    cells: Mutex<Cells>,
}

#[derive(Debug, Default)]
struct Cells {
    /// The cells of the started claims, by row and claim number.
    started: HashMap<(i64, i64), usize>,
    free: Vec<usize>,
    /// How many cells the file has.
    count: usize,
}

/// Where the lock files of a database are.
pub(super) fn folder(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".punctual");
    PathBuf::from(name)
}

fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        io::ErrorKind::StorageFull => ErrorKind::Full,
        io::ErrorKind::Unsupported => ErrorKind::Unsupported,
        _ => ErrorKind::Storage,
    };
    Error::new(kind, format!("cannot {what} {}", path.display())).with_source(error)
}

impl Ledger {
    /// Creates the file under a name that was never used, and locks it. `None`: it was taken for one that a dead process
    /// left, and has to have another name.
    pub(super) fn create(database: &Path, name: &str) -> Result<Option<Self>> {
        let folder = folder(database);
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&folder)
            .map_err(|error| failed("create", &folder, error))?;
        let path = folder.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options
            .open(&path)
            .map_err(|error| failed("create", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                let _ = fs::remove_file(&path);
                return Err(failed("lock", &path, error));
            }
        }
        // Somebody may have cleared up between the creation and the lock.
        match still_named(&file, &path) {
            Some(inode) => Ok(Some(Self {
                path,
                file,
                inode,
                cells: Mutex::default(),
            })),
            None => Ok(None),
        }
    }

    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    /// Writes that a claim is about to be started.
    pub(super) fn begin(&self, fence: Fence) -> Result<()> {
        let index = {
            let mut cells = lock(&self.cells);
            let index = cells.free.pop().unwrap_or(cells.count);
            cells.count = cells.count.max(index + 1);
            cells.started.insert((fence.seq, fence.claim_no), index);
            index
        };
        let mut cell = [0; CELL];
        cell[..8].copy_from_slice(&fence.seq.to_le_bytes());
        cell[8..].copy_from_slice(&fence.claim_no.to_le_bytes());
        self.write(&cell, (index * CELL) as u64).map_err(|error| {
            self.end(&[fence]);
            failed("write", &self.path, error)
        })
    }

    /// Frees the cells of settled claims. What they say need not be erased: it names claims that no row has any more.
    pub(super) fn end(&self, fences: &[Fence]) {
        let mut cells = lock(&self.cells);
        for fence in fences {
            if let Some(index) = cells.started.remove(&(fence.seq, fence.claim_no)) {
                cells.free.push(index);
            }
        }
    }

    #[cfg(unix)]
    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.file, bytes, at)
    }

    #[cfg(not(unix))]
    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        use std::io::{Seek, SeekFrom, Write};
        let _one_at_a_time = lock(&self.cells);
        let mut file = &self.file;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(bytes)
    }

    /// Removes the file of an instance that holds nothing any more.
    pub(super) fn remove(&self) {
        // A file that stays is found, and removed, by the next one to open the database.
        let _ = fs::remove_file(&self.path);
    }
}

/// The inode of a file, if the path still names it.
fn still_named(file: &File, path: &Path) -> Option<u64> {
    let inode = identity::of(&file.metadata().ok()?).inode();
    let named = identity::at(path).ok()?.inode();
    (named == inode).then_some(inode)
}

/// Removes lock files that no rescue will look at: of processes that died before they had a row in the database, or
/// after their row was ended. `expected` tells whether a name has a row; it is asked once nobody can be at the file.
pub(super) fn clear_up(database: &Path, expected: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(folder(database)) else {
        return;
    };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Some(name) = name.to_str().filter(|name| is_instance(name)) else {
            continue;
        };
        let Ok(file) = OpenOptions::new().read(true).write(true).open(&path) else {
            continue;
        };
        // Whoever creates a file locks it before it writes the row, and looks for another name if it cannot.
        if !expected(name)
            && file.try_lock().is_ok()
            && still_named(&file, &path).is_some()
            && !expected(name)
        {
            let _ = fs::remove_file(&path);
        }
    }
}

/// The name of an instance: its process, and something random.
pub(super) fn instance_name() -> String {
    let random = uuid::Uuid::now_v7().as_u128() as u32;
    format!("{}-{random:08x}", std::process::id())
}

fn is_instance(name: &str) -> bool {
    name.split_once('-').is_some_and(|(pid, random)| {
        pid.parse::<u32>().is_ok() && random.len() == 8 && u32::from_str_radix(random, 16).is_ok()
    })
}

/// The lock file of a dead instance, held until its tasks are taken back.
#[derive(Debug)]
pub(super) struct DeadLedger {
    path: PathBuf,
    /// Holds the lock, so that nobody else takes the same tasks back.
    _file: Option<File>,
    started: Started,
}

impl DeadLedger {
    /// Takes over from an instance if it is dead: its lock can be taken, or the machine was started anew since.
    ///
    /// `None` if it is alive, or nothing proves that it is not: a missing file is not death.
    pub(super) fn take(database: &Path, name: &str, inode: u64, same_boot: bool) -> Option<Self> {
        let path = folder(database).join(name);
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        if !same_boot {
            // Claims that were synced may have been started by what was not: all count as started.
            return Some(Self {
                path,
                _file: opened.ok(),
                started: Started::All,
            });
        }
        let mut file = opened.ok()?;
        let metadata = file.metadata().ok()?;
        if identity::of(&metadata).inode() != inode || file.try_lock().is_err() {
            return None;
        }
        let mut bytes = Vec::new();
        let started = match file.read_to_end(&mut bytes) {
            Ok(_) => Started::Listed(decode(&bytes)),
            Err(_) => Started::All,
        };
        Some(Self {
            path,
            _file: Some(file),
            started,
        })
    }

    pub(super) fn started(&self) -> Started {
        self.started.clone()
    }

    /// Removes the file, after the rescue has committed.
    pub(super) fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn decode(bytes: &[u8]) -> Arc<[(i64, i64)]> {
    let number = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let mut cells: Vec<(i64, i64)> = bytes
        .chunks_exact(CELL)
        .map(|cell| (number(&cell[..8]), number(&cell[8..])))
        .collect();
    cells.sort_unstable();
    cells.into()
}

/// The running system's name for this boot; empty where there is none.
pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// When this process started, in ticks since the boot; 0 where that is not told. With the pid it names the process to
/// a person who looks at the file.
pub(super) fn process_started_at() -> i64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command's name, in parentheses, may hold anything.
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(19))
        .and_then(|ticks| ticks.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(seq: i64) -> Fence {
        Fence {
            seq,
            instance: 1,
            claim_no: seq + 100,
        }
    }

    fn listed(started: Started) -> Vec<(i64, i64)> {
        match started {
            Started::Listed(cells) => cells.to_vec(),
            Started::All => panic!("the ledger was there"),
        }
    }

    #[test]
    fn p11_a_living_instance_is_never_taken_for_dead() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("x.db");
        let ledger = Ledger::create(&db, "one").unwrap().unwrap();
        let inode = ledger.inode();
        assert!(
            DeadLedger::take(&db, "one", inode, true).is_none(),
            "its lock is held"
        );
        assert!(
            DeadLedger::take(&db, "two", inode, true).is_none(),
            "a missing file is not death"
        );
        drop(ledger);
        assert!(
            DeadLedger::take(&db, "one", inode + 1, true).is_none(),
            "another file"
        );
        let dead = DeadLedger::take(&db, "one", inode, true).unwrap();
        assert!(
            DeadLedger::take(&db, "one", inode, true).is_none(),
            "somebody is at it"
        );
        dead.remove();
        assert!(
            DeadLedger::take(&db, "one", inode, false).is_some(),
            "another boot"
        );
    }

    #[test]
    fn the_ledger_lists_what_was_started_and_not_settled() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("x.db");
        let ledger = Ledger::create(&db, "one").unwrap().unwrap();
        for seq in 1..=3 {
            ledger.begin(fence(seq)).unwrap();
        }
        ledger.end(&[fence(2)]);
        ledger.begin(fence(4)).unwrap();
        let inode = ledger.inode();
        drop(ledger);
        let dead = DeadLedger::take(&db, "one", inode, true).unwrap();
        let cells = listed(dead.started());
        assert_eq!(
            cells,
            [(1, 101), (3, 103), (4, 104)],
            "the cell of 2 was used again"
        );
    }

    #[test]
    fn p14_a_file_is_cleared_up_only_if_nobody_holds_it_and_no_row_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("x.db");
        let names: Vec<String> = (0..3).map(|_| instance_name()).collect();
        let [alive, expected, left] = &names[..] else {
            unreachable!("three names")
        };
        let create = |name: &str| Ledger::create(&db, name).unwrap().unwrap();
        let held = create(alive);
        drop((create(expected), create(left), create("doorbell")));
        let there = |name: &str| folder(&db).join(name).exists();
        clear_up(&db, |name| name == expected);
        assert!(there(alive), "it is held");
        assert!(there(expected), "its tasks are still to be taken back");
        assert!(there("doorbell"), "it is of another sort");
        assert!(!there(left));
        drop(held);
    }

    #[test]
    fn a_torn_last_cell_is_no_cell() {
        assert_eq!(decode(&[0; 40]).len(), 2);
    }
}
