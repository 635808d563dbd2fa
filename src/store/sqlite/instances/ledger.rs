//! A process's proof of life, and its list of started attempts: one file beside the database.
//!
//! The kernel drops the lock when the process dies, so an instance whose lock can be taken is dead; no time is involved, and
//! a process that is stopped or slow is alive. Where the file is lost, or a forked child still holds the lock, the kernel is
//! asked about the process itself. What the file lists was started: before a handler is called, its claim is written there,
//! with a plain write that a crash of the process does not undo.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::model::settle::Fence;
use crate::store::sqlite::file::identity::{self, Identity};
use crate::store::sqlite::file::paths::{create_folder, lock_folder};
use crate::store::sqlite::instances::evidence::Evidence;
use crate::store::sqlite::instances::process::{Boot, Process};
use crate::sync::lock;

/// Bytes of a cell: the row and the claim number, little-endian.
const CELL: usize = 16;

/// The lock file of this instance.
#[derive(Debug)]
pub(crate) struct Ledger {
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
    /// Creates the file under a name that was never used, and locks it. `None`: another process took it for a dead process's
    /// file, and another name is needed.
    pub(crate) fn create(database: &Path, name: &str) -> Result<Option<Self>> {
        let folder = lock_folder(database);
        create_folder(&folder).map_err(|error| failed("create", &folder, error))?;
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
        // Another process may have cleared it up between the creation and the lock.
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

    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// Writes that a claim is about to be started.
    pub(crate) fn begin(&self, fence: Fence) -> Result<()> {
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

    /// Frees the cells of settled claims. Their content need not be erased: it names claims that no row has any more.
    pub(crate) fn end(&self, fences: &[Fence]) {
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
        let _one_at_a_time = lock(&self.cells);
        let mut file = &self.file;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(bytes)
    }

    /// Removes the file of an instance that holds nothing any more.
    pub(crate) fn remove(&self) {
        // A file that remains is found and removed by the next process that opens the database.
        let _ = fs::remove_file(&self.path);
    }
}

/// The inode of a file, if the path still names it.
fn still_named(file: &File, path: &Path) -> Option<u64> {
    let inode = identity::of(&file.metadata().ok()?).inode();
    let named = identity::at(path).ok()?.inode();
    (named == inode).then_some(inode)
}

/// Removes lock files that no rescue will look at: of processes that died before they had a row in the database, or after
/// their row was ended. `expected` says whether a name has a row; it is asked again once the file is locked.
pub(crate) fn clear_up(database: &Path, expected: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(lock_folder(database)) else {
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
        // A process locks its new file before it writes the row, and takes another name if it cannot.
        if !expected(name)
            && file.try_lock().is_ok()
            && still_named(&file, &path).is_some()
            && !expected(name)
        {
            let _ = fs::remove_file(&path);
        }
    }
}

/// The name of an instance: its pid, and a random number.
pub(crate) fn instance_name() -> String {
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
pub(crate) struct DeadLedger {
    path: PathBuf,
    /// The instance's own file. It holds the lock if that was free, so that others do not take the same tasks back.
    file: Option<File>,
    evidence: Evidence,
}

/// An instance that may be dead.
#[derive(Debug)]
pub(crate) struct Other {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) process: Process,
    pub(crate) inode: i64,
    /// The database file that it has opened.
    pub(crate) file: Identity,
}

impl DeadLedger {
    /// Takes over from an instance if it is dead. With its lock file: the lock can be taken, or the kernel says that the
    /// process is gone. Without: the kernel says so, the boot is another, or `database`, the file `here`, is a copy of the
    /// file it had open.
    ///
    /// `None` if it is alive, or nothing proves that it is not. A missing lock file is no such proof, nor is an unknown
    /// boot, nor another device number while the lock is held in this database's folder: a file system can change its number
    /// when it is mounted anew. A copied folder of lock files is no proof of life: the copies have other inodes, or, in a
    /// snapshot of the file system, no locks.
    pub(crate) fn take(
        database: &Path,
        here: Identity,
        other: &Other,
        own: &Process,
    ) -> Option<Self> {
        let path = lock_folder(database).join(&other.name);
        let file = OpenOptions::new().read(true).write(true).open(&path).ok();
        let is_its_own = |file: &File| {
            let metadata = file.metadata().ok();
            metadata.is_some_and(|found| {
                i64::try_from(identity::of(&found).inode()).is_ok_and(|inode| inode == other.inode)
            })
        };
        let file = file.filter(is_its_own);
        let boot = other.process.boot(own);
        let is_of_original = other.file.is_another(here);
        let is_dead = match &file {
            // A held lock is of this boot, whatever the boot's id; but a forked child may hold it.
            Some(file) => file.try_lock().is_ok() || other.process.has_exited(own),
            None => is_of_original || boot == Boot::Another || other.process.has_exited(own),
        };
        if !is_dead {
            return None;
        }
        let evidence = match &file {
            Some(file) if boot == Boot::This && !is_of_original => listed(file),
            _ => None,
        };
        // After a power cut the ledger may lack starts of claims that were synced, and a copied ledger may be older than the
        // copied claims: all count as started.
        let is_copied = is_of_original || other.process.is_of_backup();
        let evidence = evidence.unwrap_or(Evidence::None { is_copied });
        Some(Self {
            path,
            file,
            evidence,
        })
    }

    pub(crate) fn evidence(&self) -> Evidence {
        self.evidence.clone()
    }

    /// Removes the lock file, after the rescue has committed. A file of that name which is not the instance's own, as in a
    /// folder that was copied, is left to [`clear_up`].
    pub(crate) fn remove(self) {
        if self.file.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn listed(mut file: &File) -> Option<Evidence> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    Some(decode(&bytes))
}

fn decode(bytes: &[u8]) -> Evidence {
    let number = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let cells = bytes.chunks_exact(CELL);
    let mut started: Vec<(i64, i64)> = cells
        .map(|cell| (number(&cell[..8]), number(&cell[8..])))
        .collect();
    started.sort_unstable();
    Evidence::Ledger(started.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::instances::process;

    fn fence(seq: i64) -> Fence {
        Fence {
            seq,
            instance: 1,
            claim_no: seq + 100,
        }
    }

    fn cells(evidence: Evidence) -> Vec<(i64, i64)> {
        match evidence {
            Evidence::Ledger(started) => started.to_vec(),
            Evidence::None { .. } => panic!("the ledger was there"),
        }
    }

    fn booted(boot_id: &str) -> Process {
        Process {
            boot_id: boot_id.to_owned(),
            ..Process::own()
        }
    }

    const HERE: (i64, i64) = (1, 20);

    fn here() -> Identity {
        Identity::stored(HERE.0, HERE.1)
    }

    fn other(name: &str, inode: u64, process: Process) -> Other {
        Other {
            id: 1,
            name: name.to_owned(),
            process,
            inode: inode as i64,
            file: here(),
        }
    }

    #[test]
    fn p11_a_living_instance_is_never_taken_for_dead() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("x.db");
        let ledger = Ledger::create(&db, "one").unwrap().unwrap();
        let (inode, own) = (ledger.inode(), booted("this"));
        let take = |name, inode, boot| {
            let other = other(name, inode, booted(boot));
            DeadLedger::take(&db, here(), &other, &own)
        };
        for boot in ["this", "another", ""] {
            assert!(take("one", inode, boot).is_none(), "its lock is held");
        }
        assert!(
            take("two", inode, "this").is_none(),
            "a missing file is not death"
        );
        assert!(take("two", inode, "").is_none(), "nor a hidden boot");
        assert!(take("two", inode, "another").is_some(), "another boot is");
        drop(ledger);
        assert!(take("one", inode + 1, "this").is_none(), "another file");
        let dead = take("one", inode, "this").unwrap();
        assert!(take("one", inode, "this").is_none(), "somebody is at it");
        drop(dead);
        for boot in ["another", ""] {
            let dead = take("one", inode, boot).unwrap();
            let evidence = dead.evidence();
            assert!(
                matches!(evidence, Evidence::None { is_copied: false }),
                "{boot}"
            );
        }
        let dead = take("two", inode, process::OF_BACKUP).unwrap();
        let evidence = dead.evidence();
        assert!(
            matches!(evidence, Evidence::None { is_copied: true }),
            "it went on after the backup"
        );
        take("one", inode, "this").unwrap().remove();
        assert!(take("one", inode, "another").is_some());
    }

    /// A claim is of one file: in a copy, an instance of the original holds nothing, however alive it is.
    #[test]
    fn p11_an_instance_of_another_file_is_dead_unless_its_lock_is_held_beside_this_one() {
        let dir = tempfile::tempdir().unwrap();
        let (db, copy) = (dir.path().join("x.db"), dir.path().join("copy.db"));
        let ledger = Ledger::create(&db, "one").unwrap().unwrap();
        ledger.begin(fence(7)).unwrap();
        let own = booted("this");
        let take = |database: &Path, inode, file: (i64, i64)| {
            let other = Other {
                file: Identity::stored(file.0, file.1),
                ..other("one", inode, own.clone())
            };
            DeadLedger::take(database, here(), &other, &own)
        };
        let inode = ledger.inode();
        let (another_file, another_device, unknown) = ((1, 21), (2, 20), (0, 0));
        for file in [HERE, another_file, another_device, unknown] {
            assert!(
                take(&db, inode, file).is_none(),
                "{file:?}: its lock is held"
            );
        }
        for file in [HERE, unknown] {
            assert!(take(&copy, inode, file).is_none(), "{file:?}: not a copy");
        }
        for file in [another_file, another_device] {
            let dead = take(&copy, inode, file).unwrap();
            let evidence = dead.evidence();
            let is_copy = matches!(evidence, Evidence::None { is_copied: true });
            assert!(is_copy, "{file:?}: it may be alive elsewhere");
        }
        // The folder was copied along: another inode, or in a snapshot the same one, without the lock.
        fs::create_dir(lock_folder(&copy)).unwrap();
        let lock_file = lock_folder(&copy).join("one");
        fs::copy(lock_folder(&db).join("one"), &lock_file).unwrap();
        let dead = take(&copy, inode, another_file).unwrap();
        assert!(matches!(dead.evidence(), Evidence::None { .. }));
        dead.remove();
        assert!(lock_file.exists(), "it is not the instance's own");
        let copied = identity::at(&lock_file).unwrap().inode();
        let dead = take(&copy, copied, another_device).unwrap();
        assert!(
            matches!(dead.evidence(), Evidence::None { .. }),
            "it may be too old"
        );
        dead.remove();
        assert!(!lock_file.exists());
        assert!(
            lock_folder(&db).join("one").exists(),
            "the original's is left"
        );
    }

    /// As a forked child holds it, or where the file was lost.
    #[cfg(target_os = "linux")]
    #[test]
    fn p11_of_a_process_that_is_gone_no_lock_proves_that_it_lives() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("x.db");
        let gone = Process {
            pid: i32::MAX as u32,
            ..Process::own()
        };
        let held = Ledger::create(&db, "one").unwrap().unwrap();
        held.begin(fence(7)).unwrap();
        let take = |name: &str| {
            let other = other(name, held.inode(), gone.clone());
            DeadLedger::take(&db, here(), &other, &Process::own()).unwrap()
        };
        assert_eq!(cells(take("one").evidence()), [(7, 107)]);
        assert!(matches!(take("lost").evidence(), Evidence::None { .. }));
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
        let own = Process::own();
        let other = other("one", inode, own.clone());
        let dead = DeadLedger::take(&db, here(), &other, &own).unwrap();
        assert_eq!(
            cells(dead.evidence()),
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
        let there = |name: &str| lock_folder(&db).join(name).exists();
        clear_up(&db, |name| name == expected);
        assert!(there(alive), "it is held");
        assert!(there(expected), "its tasks are still to be taken back");
        assert!(there("doorbell"), "it is of another sort");
        assert!(!there(left));
        drop(held);
    }

    #[test]
    fn a_torn_last_cell_is_no_cell() {
        assert_eq!(cells(decode(&[0; 40])).len(), 2);
    }
}
