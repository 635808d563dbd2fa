//! What the tests share: payloads, a clock, a log of calls, a gate that handlers wait at.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use punctual::testing::TestClock;
use punctual::{
    Client, NewTask, Outcome, Payload, Scheduler, Task, TaskContext, TaskId, TaskResult, TaskState,
};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

pub const S: Duration = Duration::from_secs(1);
pub const MS: Duration = Duration::from_millis(1);
pub const MICRO: Duration = Duration::from_micros(1);
pub const DAY: Duration = Duration::from_secs(24 * 3600);
/// Longer than anything takes that works.
pub const LONG: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probe(pub u32);

impl Payload for Probe {
    const KIND: &'static str = "probe";
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Other(pub u32);

impl Payload for Other {
    const KIND: &'static str = "other";
}

pub fn clock() -> TestClock {
    TestClock::new("2026-03-01T09:00:00Z".parse().unwrap())
}

pub fn probe(n: u32) -> NewTask {
    NewTask::new(Probe(n))
}

/// What happened, in its order. Clones are the same log.
#[derive(Debug)]
pub struct Log<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Log<T> {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Vec::new())))
    }

    fn entries(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap()
    }

    pub fn push(&self, entry: T) {
        self.entries().push(entry);
    }

    pub fn len(&self) -> usize {
        self.entries().len()
    }

    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.entries())
    }
}

/// A place at which handlers wait until it is opened. Clones are the same gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Debug, Default)]
struct GateState {
    open: bool,
    waiting: usize,
    most: usize,
}

impl Gate {
    /// Waits while `holds`, and returns whether that came to an end. A test that failed elsewhere has not broken the gate.
    fn wait_while<'a>(
        &'a self,
        state: MutexGuard<'a, GateState>,
        holds: impl FnMut(&mut GateState) -> bool,
    ) -> (MutexGuard<'a, GateState>, bool) {
        let waited = self.0.1.wait_timeout_while(state, LONG, holds);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        (state, !timeout.timed_out())
    }

    fn state(&self) -> MutexGuard<'_, GateState> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the gate is open, deaf to everything else.
    pub fn pass(&self) {
        let mut state = self.state();
        state.waiting += 1;
        state.most = state.most.max(state.waiting);
        self.0.1.notify_all();
        let (mut state, opened) = self.wait_while(state, |state| !state.open);
        state.waiting -= 1;
        drop(state);
        assert!(opened, "the gate was never opened");
    }

    /// Waits until so many handlers are at the gate.
    pub fn await_waiting(&self, count: usize) {
        let (state, came) = self.wait_while(self.state(), |state| state.waiting < count);
        let waiting = state.waiting;
        drop(state);
        assert!(came, "{waiting} of {count} came");
    }

    /// A handler that waits here, and then completes its task.
    pub fn handler(&self) -> impl Fn(Probe, &TaskContext) -> TaskResult + Send + Sync + use<> {
        let gate = self.clone();
        move |_, _| {
            gate.pass();
            Ok(Outcome::done())
        }
    }

    pub fn open(&self) {
        self.state().open = true;
        self.0.1.notify_all();
    }

    /// How many waited at once, at most.
    pub fn most(&self) -> usize {
        self.state().most
    }
}

/// Opens the gate when it is dropped, so that a test that fails does not leave a handler behind.
pub struct OpenOnDrop(pub Gate);

impl Drop for OpenOnDrop {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// A gate that is open at the latest when the test is over.
pub fn gate() -> (Gate, OpenOnDrop) {
    let gate = Gate::default();
    (gate.clone(), OpenOnDrop(gate))
}

/// Waits until `is_so`, and says what was waited for if that never comes.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let watch = Watch::start();
    while !is_so() {
        assert!(watch.elapsed() < LONG, "never: {what}");
        std::thread::park_timeout(MS);
    }
}

/// Holds this thread up for a span. `park_timeout` alone ends at once if somebody has unparked the thread before.
pub fn hold_up(span: Duration) {
    let watch = Watch::start();
    while watch.elapsed() < span {
        std::thread::park_timeout(span - watch.elapsed().min(span));
    }
}

/// Measures a span on the wall clock, for bounds that are generous.
pub struct Watch(SystemTime);

impl Watch {
    pub fn start() -> Self {
        Self(SystemTime::UNIX_EPOCH + SystemTime::UNIX_EPOCH.elapsed().unwrap())
    }

    pub fn elapsed(&self) -> Duration {
        self.0.elapsed().unwrap_or_default()
    }
}

/// The number from which a random test can be run again: `SEED=… cargo test`.
pub fn seed() -> u64 {
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse().expect("SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("SEED={seed}");
    seed
}

/// Waits for the end of a task.
pub fn end_of(client: &Client, id: TaskId) -> Task {
    let ended = client.wait(id, LONG).unwrap();
    ended.expect("it ends").task().clone()
}

pub fn task(client: &Client, id: TaskId) -> Task {
    client.get(id).unwrap().expect("it is stored")
}

pub fn state(client: &Client, id: TaskId) -> TaskState {
    task(client, id).state()
}

/// A folder for a database, and the path of that.
pub fn file() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.db");
    (dir, path)
}

/// What would be left of a database if its process were killed now.
pub fn left_by_a_kill(path: &Path) -> (TempDir, PathBuf) {
    let (dir, left) = file();
    for suffix in ["", "-wal"] {
        let of = |path: &Path| format!("{}{suffix}", path.display());
        std::fs::copy(of(path), of(&left)).unwrap();
    }
    (dir, left)
}

/// Runs the one task that is due, and returns what would be left if the process were killed inside its handler.
pub fn killed_inside(path: &Path, clock: &TestClock) -> (TempDir, PathBuf) {
    let left = Log::new();
    let (log, own) = (left.clone(), path.to_owned());
    let mut scheduler = Scheduler::builder(path)
        .handler_fn(move |_: Probe, _cx| {
            log.push(left_by_a_kill(&own));
            Ok(Outcome::done())
        })
        .stepped(clock)
        .unwrap();
    assert_eq!(scheduler.drain(), 1);
    left.take().remove(0)
}
