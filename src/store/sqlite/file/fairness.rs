//! Turns between processes: SQLite's write lock has no queue and is not handed over, so a process that writes back to back
//! could keep it for ever.
//!
//! A process that has waited for a while holds a shared lock on a file made for this. A process that has written for a while
//! checks for such locks, and leaves a gap only if there is one. A lock ends with its process, so nothing has to be cleared
//! up, and without another writer all this costs one check every few milliseconds.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::store::sqlite::file::paths;
use crate::sync::lock;
use crate::time::{Stopwatch, pause};

/// How long a process writes back to back before it checks whether another waits.
const MAX_STREAK: Duration = Duration::from_millis(5);
/// The gap that it then leaves: longer than the pause of a process that waits, whatever its jitter.
const GAP: Duration = Duration::from_micros(1000);
/// After this wait a process announces that it waits, and tries the lock every [`STEP`]. Each try costs some 10 µs.
const ANNOUNCE_AFTER: Duration = Duration::from_millis(2);
const STEP: Duration = Duration::from_micros(500);
/// A process that has waited for longer than this tries more often, so that the oldest comes first. One that has waited in
/// vain, perhaps for a process that is stopped, tries less often.
const OLD: Duration = Duration::from_millis(50);
const OLD_STEP: Duration = Duration::from_micros(250);
const IN_VAIN: Duration = Duration::from_millis(500);
const LONGEST_STEP: Duration = Duration::from_micros(600);

/// How long to sleep before the lock is tried again, after `waited`, for the `count`-th time.
fn retry_delay(waited: Duration, count: i32) -> Duration {
    if waited < ANNOUNCE_AFTER {
        Duration::from_micros(50 << count.clamp(0, 3)).min(STEP)
    } else if waited < OLD {
        STEP
    } else if waited < IN_VAIN {
        OLD_STEP
    } else {
        LONGEST_STEP
    }
}

/// What a process announces to others that write the same file.
#[derive(Debug)]
pub(crate) struct Fairness {
    path: PathBuf,
    waiting: Mutex<Announcement>,
}

#[derive(Debug, Default)]
struct Announcement {
    /// Opened when it is first needed.
    file: Option<File>,
    /// Whether this process announces that it waits.
    is_waiting: bool,
}

impl Fairness {
    pub(crate) fn new(database: &Path) -> Arc<Self> {
        Arc::new(Self {
            path: paths::lock_folder(database).join("waiting"),
            waiting: Mutex::default(),
        })
    }

    /// Announces a long wait, and returns how long to sleep before the lock is tried again.
    pub(crate) fn wait(&self, waited: Duration, count: i32) -> Duration {
        if waited >= ANNOUNCE_AFTER {
            let mut waiting = lock(&self.waiting);
            if !waiting.is_waiting {
                // If the announcement fails, the wait may be longer.
                let file = waiting.file.take().or_else(|| open(&self.path));
                waiting.is_waiting = file
                    .as_ref()
                    .is_some_and(|file| file.try_lock_shared().is_ok());
                waiting.file = file;
            }
        }
        retry_delay(waited, count)
    }

    #[cfg(test)]
    pub(crate) fn is_announced(&self) -> bool {
        lock(&self.waiting).is_waiting
    }

    /// Ends the announcement: this process has the lock, or has given up.
    fn stop_waiting(&self) {
        let mut waiting = lock(&self.waiting);
        if std::mem::take(&mut waiting.is_waiting)
            && let Some(file) = &waiting.file
            && file.unlock().is_err()
        {
            // Closing the file unlocks it.
            waiting.file = None;
        }
    }
}

/// Opens the file, and creates it if need be.
fn open(path: &Path) -> Option<File> {
    paths::create_folder(path.parent()?).ok()?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).ok()
}

/// How long this process has been writing back to back.
#[derive(Debug)]
pub(crate) struct Streak {
    fairness: Arc<Fairness>,
    /// To check whether others wait. It is not the file of this process's own announcement.
    file: Option<File>,
    since: Stopwatch,
    ended: Stopwatch,
}

impl Streak {
    pub(crate) fn new(fairness: Arc<Fairness>) -> Self {
        Self {
            fairness,
            file: None,
            since: Stopwatch::start(),
            ended: Stopwatch::start(),
        }
    }

    /// Call it before a transaction: leaves a gap, if there was none for long and another process waits.
    pub(crate) fn leave_gap(&mut self) {
        if self.ended.elapsed() >= GAP {
            self.since = Stopwatch::start();
            return;
        }
        if self.since.elapsed() < MAX_STREAK {
            return;
        }
        if self.somebody_waits() {
            pause(GAP);
        }
        self.since = Stopwatch::start();
    }

    /// Ends the announcement: this process has the lock, or has given up.
    pub(crate) fn stop_waiting(&self) {
        self.fairness.stop_waiting();
    }

    /// Notes that the transaction is over.
    pub(crate) fn end(&mut self) {
        self.ended = Stopwatch::start();
    }

    fn somebody_waits(&mut self) -> bool {
        if self.file.is_none() {
            // The file exists only if a process has ever waited.
            self.file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(&self.fairness.path)
                .ok();
        }
        let Some(file) = &self.file else { return false };
        match file.try_lock() {
            Ok(()) => {
                if file.unlock().is_err() {
                    self.file = None;
                }
                false
            }
            Err(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_noticed_until_it_has_come_to_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("x.db");
        let (ours, theirs) = (Fairness::new(&db), Fairness::new(&db));
        let mut streak = Streak::new(ours);
        assert!(!streak.somebody_waits(), "nobody ever has");
        theirs.wait(Duration::ZERO, 0);
        assert!(!streak.somebody_waits(), "not for long");
        theirs.wait(ANNOUNCE_AFTER, 5);
        theirs.wait(OLD, 6);
        assert!(streak.somebody_waits());
        assert!(streak.somebody_waits(), "still");
        theirs.stop_waiting();
        assert!(!streak.somebody_waits());
        theirs.wait(ANNOUNCE_AFTER, 5);
        assert!(streak.somebody_waits(), "again");
        drop(theirs);
        assert!(!streak.somebody_waits(), "it is gone");
    }

    /// A process that says that it waits is one of those who wait, not one that is waited for.
    #[test]
    fn nobody_waits_for_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("x.db");
        let (first, second) = (Fairness::new(&db), Fairness::new(&db));
        first.wait(OLD, 9);
        second.wait(OLD, 9);
        first.stop_waiting();
        assert!(Streak::new(Arc::clone(&first)).somebody_waits());
        second.stop_waiting();
        assert!(!Streak::new(first).somebody_waits());
    }

    #[test]
    fn a_gap_is_long_enough_for_whoever_waits_to_see_it() {
        for waited in [ANNOUNCE_AFTER, OLD, IN_VAIN, 2 * IN_VAIN] {
            assert!(retry_delay(waited, 100).mul_f64(1.5) < GAP, "{waited:?}");
        }
        assert_eq!(retry_delay(Duration::ZERO, 0), Duration::from_micros(50));
        assert!(retry_delay(IN_VAIN, 1_000) <= LONGEST_STEP);
    }
}
