//! Our side of the workloads.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use punctual::rusqlite::Connection;
use punctual::{Client, Durability, NewTask, Outcome, Payload, Scheduler, SqliteSettings};
use serde::{Deserialize, Serialize};

use crate::Result;

/// How many threads store at once.
pub(crate) const THREADS: usize = 16;
const WORKERS: usize = 2;
/// The writer's page cache, the same size as the limit's.
pub(crate) const CACHE_BYTES: usize = 64 << 20;

/// A payload of about 100 bytes.
#[derive(Serialize, Deserialize)]
pub(crate) struct Note {
    user: u64,
    text: String,
}

impl Payload for Note {
    const KIND: &'static str = "note";
}

impl Note {
    pub(crate) fn new() -> Self {
        Self {
            user: 4_711,
            text: "the parcel is at the neighbour's, third floor on the left, until eight".into(),
        }
    }
}

/// Makes the tasks that are stored.
pub(crate) type Make<'a> = &'a (dyn Fn() -> NewTask + Sync);

pub(crate) fn note() -> NewTask {
    NewTask::new(Note::new())
}

pub(crate) fn client(path: &Path, durability: Durability) -> Result<Client> {
    Ok(Client::builder(path)
        .durability(durability)
        .sqlite(SqliteSettings::default().page_cache_bytes(CACHE_BYTES))
        .open()?)
}

/// A scheduler whose handler only counts its calls.
pub(crate) fn scheduler<P: Payload>(path: &Path, line: &Arc<FinishLine>) -> Result<Scheduler> {
    let line = Arc::clone(line);
    Ok(Scheduler::builder(path)
        .workers(WORKERS)
        .sqlite(SqliteSettings::default().page_cache_bytes(CACHE_BYTES))
        .handler_fn(move |_: P, _cx| {
            line.pass();
            Ok(Outcome::done())
        })
        .start()?)
}

/// Stores `tasks` tasks from [`THREADS`] threads, each of which waits until its task is durable.
pub(crate) fn by_threads(client: &Client, tasks: u64, make: Make<'_>) {
    shared(tasks, || {
        client.schedule(make()).expect("the disk has room");
    });
}

/// Calls `work` `times` times in all, shared by [`THREADS`] threads.
pub(crate) fn shared(times: u64, work: impl Fn() + Sync) {
    let left = AtomicU64::new(times);
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while take().is_ok() {
                    work();
                }
            });
        }
    });
}

/// Makes a file of due tasks, and closes it.
pub(crate) fn fill(path: &Path, tasks: u64, make: Make<'_>) -> Result<()> {
    let client = Client::open(path)?;
    client.schedule_stream((0..tasks).map(|_| make()))?;
    Ok(())
}

/// Runs all tasks of a file until the file shows them completed.
pub(crate) fn drain<P: Payload>(path: &Path, tasks: u64, view: &View) -> Result<Scheduler> {
    let line = FinishLine::new();
    line.expect(tasks);
    let scheduler = scheduler::<P>(path, &line)?;
    line.wait(view)?;
    Ok(scheduler)
}

/// Lets the thread that created it wait until tasks have run.
pub(crate) struct FinishLine {
    ran: AtomicU64,
    expected: AtomicU64,
    waiter: Thread,
}

impl FinishLine {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            ran: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            waiter: std::thread::current(),
        })
    }

    /// Adds tasks to wait for. Call this before they can run.
    pub(crate) fn expect(&self, tasks: u64) {
        self.expected.fetch_add(tasks, Ordering::SeqCst);
    }

    pub(crate) fn pass(&self) {
        let ran = self.ran.fetch_add(1, Ordering::SeqCst) + 1;
        if ran == self.expected.load(Ordering::SeqCst) {
            self.waiter.unpark();
        }
    }

    /// Waits until all handlers have been called. Only then reads the file, until it shows that all tasks have ended.
    pub(crate) fn wait(&self, view: &View) -> Result<()> {
        while self.ran.load(Ordering::SeqCst) < self.expected.load(Ordering::SeqCst) {
            std::thread::park_timeout(Duration::from_millis(100));
        }
        while !view.is_over()? {
            std::thread::park_timeout(Duration::from_micros(100));
        }
        Ok(())
    }
}

/// A separate connection that reads what the file holds.
pub(crate) struct View(Connection);

impl View {
    pub(crate) fn new(path: &Path) -> Result<Self> {
        Ok(Self(Connection::open(path)?))
    }

    /// Whether no task waits or runs.
    pub(crate) fn is_over(&self) -> Result<bool> {
        // Each index holds only tasks of that state, so both are empty in the end and cost nothing.
        let mut query = self.0.prepare_cached(
            "SELECT NOT EXISTS (SELECT 1 FROM punctual_task INDEXED BY punctual_task_due WHERE state = 0)
                AND NOT EXISTS (SELECT 1 FROM punctual_task INDEXED BY punctual_task_running WHERE state = 10)",
        )?;
        Ok(query.query_row([], |row| row.get(0))?)
    }

    /// # Errors
    ///
    /// If the number of tasks in this state is not `tasks`.
    pub(crate) fn check(&self, state: u8, tasks: u64) -> Result<()> {
        let found: i64 = self.0.query_row(
            "SELECT count(*) FROM punctual_task WHERE state = ?1",
            [state],
            |row| row.get(0),
        )?;
        let all: i64 = self
            .0
            .query_row("SELECT count(*) FROM punctual_task", [], |row| row.get(0))?;
        if (found, all) == (tasks as i64, tasks as i64) {
            return Ok(());
        }
        Err(format!("{found} of {all} tasks are in state {state}, not all of {tasks}").into())
    }
}

/// The numbers of the states in the file.
pub(crate) const PENDING: u8 = 0;
pub(crate) const COMPLETED: u8 = 20;

/// Copies a file that is not open, and syncs the copy: later commits then pay only for their own syncs.
pub(crate) fn copy(from: &Path, folder: &Path) -> Result<std::path::PathBuf> {
    let path = folder.join("tasks.db");
    fs::copy(from, &path)?;
    fs::File::open(&path)?.sync_all()?;
    Ok(path)
}
