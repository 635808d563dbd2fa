//! Async handlers: the promises in the forms that they have there, on each kind of executor.

mod client;
mod completing;
pub mod everywhere;
mod executors;
mod health;
mod races;
mod stopping;
mod wakers;

use std::sync::Arc;
use std::thread::JoinHandle;

use punctual::{Builder, Spawn, TaskFuture};
use tokio::sync::Semaphore;

/// Where the futures of a test run.
pub enum Executor {
    /// On the scheduler's workers.
    Workers,
    /// On a tokio runtime of several threads.
    Tokio(tokio::runtime::Runtime),
    /// On a tokio runtime that one thread of the test's drives.
    TokioCurrentThread(OneThread),
    Smol,
}

impl Executor {
    pub fn all() -> [Self; 4] {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build();
        [
            Self::Workers,
            Self::Tokio(tokio.unwrap()),
            Self::TokioCurrentThread(OneThread::start()),
            Self::Smol,
        ]
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Workers => "workers",
            Self::Tokio(_) => "tokio",
            Self::TokioCurrentThread(_) => "tokio, one thread",
            Self::Smol => "smol",
        }
    }

    /// Has async handlers run here.
    pub fn on(&self, builder: Builder) -> Builder {
        match self {
            Self::Workers => builder,
            Self::Tokio(runtime) => builder.spawner(runtime.handle().clone()),
            Self::TokioCurrentThread(thread) => builder.spawner(thread.handle.clone()),
            Self::Smol => builder.spawner(|future| smol::spawn(future).detach()),
        }
    }
}

/// A tokio runtime on a thread of its own, until it is dropped.
pub struct OneThread {
    pub handle: tokio::runtime::Handle,
    ends: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

impl OneThread {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let handle = runtime.handle().clone();
        let ends = Arc::new(Semaphore::new(0));
        let end = Arc::clone(&ends);
        let thread = std::thread::Builder::new()
            .spawn(move || drop(runtime.block_on(end.acquire())))
            .unwrap();
        Self {
            handle,
            ends,
            thread: Some(thread),
        }
    }
}

impl Drop for OneThread {
    fn drop(&mut self) {
        self.ends.add_permits(1);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// An executor that a test replaces: what it is given is kept until it is taken.
#[derive(Clone, Default)]
pub struct Kept(Arc<std::sync::Mutex<Vec<TaskFuture>>>);

impl Spawn for Kept {
    fn spawn(&self, future: TaskFuture) {
        self.0.lock().unwrap().push(future);
    }
}

impl Kept {
    pub fn take(&self) -> Vec<TaskFuture> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}
