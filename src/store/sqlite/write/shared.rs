//! What the write connection shares with the rest of the store: what is known of the file, and whether writes succeed.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::Error;
use crate::log::log;
use crate::model::health::{Health, WriteResults};
use crate::model::recurrence::view::Trouble;
use crate::store::Signals;
use crate::store::lanes::Lanes;
use crate::store::sqlite::error;
use crate::store::sqlite::instances::ledger::Ledger;
use crate::store::sqlite::write::authorizer::Authorizer;
use crate::sync::lock;
use crate::time::{Stopwatch, Timestamp};

/// A write that waits this long for the disk or for a lock counts as failing.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// What the writer shares with the rest of the store.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) lanes: Mutex<Lanes>,
    pub(crate) signals: Signals,
    pub(crate) ledger: Mutex<Option<Arc<Ledger>>>,
    pub(crate) stopped: Mutex<Option<Error>>,
    pub(crate) writes: Mutex<WriteResults>,
    /// Whether writes fail, readable without the lock.
    pub(crate) fails: AtomicBool,
    /// The write that waits for the disk or for a lock just now: its request time, and how long it has waited.
    pub(crate) waits: Mutex<Option<(Timestamp, Stopwatch)>>,
    pub(crate) wal_pages: Arc<AtomicI32>,
    pub(crate) page_bytes: usize,
    /// How often another connection was seen to have written.
    pub(crate) others_writes: AtomicU64,
    /// How often cancellations by other processes were read.
    pub(crate) heard: AtomicU64,
    pub(crate) authorizer: Arc<Authorizer>,
}

fn sorted<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<String> = names.cloned().collect();
    names.sort_unstable();
    names
}

impl Shared {
    pub(crate) fn health(&self) -> Health {
        let writes = self.writes();
        let lanes = lock(&self.lanes);
        let limits = lanes.limits();
        let recurrences = |is: fn(&Trouble) -> bool| -> Vec<String> {
            let troubled = lanes.troubled().iter();
            let found = troubled.filter(|(_, trouble)| is(trouble));
            found.map(|(name, _)| name.clone()).collect()
        };
        Health {
            stopped: lock(&self.stopped).clone(),
            last_error: writes.last_error.map(|(at, error)| (at.to_utc(), error)),
            failing_since: writes.failing_since.map(Timestamp::to_utc),
            recovered_at: writes.recovered_at.map(Timestamp::to_utc),
            paused_queues: lanes.paused().cloned().collect(),
            slow_transaction: self.authorizer.slow(),
            global_limits: limits
                .map(|(queue, limit)| (queue.clone(), limit as usize))
                .collect(),
            newer_time_zones: lanes.newer_tzdb().cloned(),
            overdue_recurrences: recurrences(|trouble| trouble.is_overdue),
            stopped_recurrences: recurrences(|trouble| trouble.is_stopped),
            unreadable_recurrences: sorted(lanes.unreadable().values()),
            ..Health::default()
        }
    }

    /// The length of the log after the last commit.
    pub(crate) fn wal_bytes(&self) -> u64 {
        let pages = u64::try_from(self.wal_pages.load(Ordering::Relaxed)).unwrap_or(0);
        // Each page of the log has a header of 24 bytes.
        pages * (self.page_bytes as u64 + 24)
    }

    /// Notes that a write that was asked for at `now` has failed, and stops the store if it cannot go on.
    pub(crate) fn note(&self, now: Timestamp, error: &Error) {
        let forgotten = {
            let mut writes = lock(&self.writes);
            let forgotten = writes.failed(now, error);
            let fails = writes.failing_since.is_some();
            self.fails.store(fails, Ordering::Relaxed);
            forgotten
        };
        drop(forgotten);
        log!(warn, %error, "a write failed");
        if error::stops(error.kind()) {
            self.stop(error);
        }
    }

    /// Notes that a write that was asked for at `now` has succeeded.
    pub(crate) fn succeeded(&self, now: Timestamp) {
        if self.fails.load(Ordering::Relaxed) {
            lock(&self.writes).succeeded(now);
            self.fails.store(false, Ordering::Relaxed);
        }
    }

    /// Stops the store: it cannot go on with its file.
    pub(crate) fn stop(&self, error: &Error) {
        log!(error, %error, "the store has stopped");
        lock(&self.stopped).get_or_insert_with(|| error.clone());
    }

    /// The state of writes, including the one that waits now.
    fn writes(&self) -> WriteResults {
        let mut writes = lock(&self.writes).clone();
        let waits = *lock(&self.waits);
        if let Some((since, wait)) = waits
            && wait.elapsed() >= LONG_WAIT
        {
            writes.failing_since.get_or_insert(since);
        }
        writes
    }

    /// Runs `run`, which may wait for the disk or for another process's lock, for a write that was asked for at `now`.
    pub(crate) fn wait<T>(&self, now: Timestamp, run: impl FnOnce() -> T) -> T {
        struct Waits<'a>(&'a Shared);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                *lock(&self.0.waits) = None;
            }
        }
        *lock(&self.waits) = Some((now, Stopwatch::start()));
        let _waits = Waits(self);
        run()
    }

    /// Whether the store cannot go on with its file.
    pub(crate) fn has_stopped(&self) -> bool {
        lock(&self.stopped).is_some()
    }

    pub(crate) fn ledger(&self) -> Option<Arc<Ledger>> {
        lock(&self.ledger).clone()
    }
}
