//! The scheduler: it puts the parts together, starts them and stops them, and decides nothing.

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::client::Client;
use crate::client::settings::{Location, StoreSettings, store_setters};
use crate::error::{Error, Result};
use crate::handler::context::TaskContext;
use crate::handler::token::StopReason;
use crate::handler::{FnHandler, Handlers, TaskHandler};
use crate::model::health::Health;
use crate::model::limits::{check_limit, check_name};
use crate::model::outcome::TaskResult;
use crate::model::payload::Payload;
use crate::model::retention::Retention;
use crate::model::retry::RetryPolicy;
use crate::runtime::attempts::Attempts;
use crate::runtime::dispatcher::Dispatcher;
use crate::runtime::executor::Executor;
use crate::runtime::finish::Finish;
use crate::runtime::link::Link;
use crate::runtime::maintenance::{
    Deadlines, Forgetter, Maintenance, Prober, Pruner, Rescuer, Retirer,
};
use crate::runtime::plan::Scope;
use crate::runtime::ready::Ready;
use crate::runtime::service::spawn;
use crate::runtime::shutdown::ShutdownState;
use crate::runtime::undecodable::Undecodable;
use crate::store::Store;
use crate::thread::Thread;
use crate::time::Deadline;
use crate::wake::{Wake, lock};

/// The most workers of a scheduler.
pub const MAX_WORKERS: usize = 1_024;
/// How long a scheduler that is dropped waits for its handlers.
const DROP_WAIT: Duration = Duration::from_secs(1);
/// How long a shutdown waits for handlers that were asked to stop at its deadline.
const STOP_WAIT: Duration = Duration::from_millis(100);

/// How a [`Scheduler`] is made: where its tasks are, what runs them and how.
///
/// Every mistake is reported by [`start`](Self::start), before anything is created.
///
/// # Example
///
/// ```
/// use punctual::{Retention, Scheduler};
/// use std::time::Duration;
///
/// let scheduler = Scheduler::in_memory()
///     .workers(8)
///     .queue("reports", 2)
///     .retention(Retention::default().completed(Duration::from_secs(3600)))
///     .start()?;
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Builder {
    /// The testing feature sets another clock.
    pub(crate) store: StoreSettings,
    handlers: Handlers,
    workers: usize,
    max_spares: Option<usize>,
    queues: Vec<(String, usize)>,
    limits: Vec<(String, usize)>,
    only_queues: bool,
    retention: Retention,
}

impl Builder {
    fn new(place: Location) -> Self {
        Self {
            store: StoreSettings::new(place, true),
            handlers: Handlers::default(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            max_spares: None,
            queues: Vec::new(),
            limits: Vec::new(),
            only_queues: false,
            retention: Retention::default(),
        }
    }

    /// Adds the handler of a kind. Two for one kind are refused.
    pub fn handler<H: TaskHandler>(mut self, handler: H) -> Self {
        self.handlers.add(handler);
        self
    }

    /// Adds a closure as the handler of a kind.
    pub fn handler_fn<P, F>(self, run: F) -> Self
    where
        P: Payload,
        F: Fn(P, &TaskContext) -> TaskResult + Send + Sync + 'static,
    {
        self.handler(FnHandler::new(run))
    }

    /// When to try a task of this kind again after a failure; wins over [`TaskHandler::retry_policy`].
    pub fn retry_policy(mut self, kind: impl Into<String>, policy: RetryPolicy) -> Self {
        self.handlers.retry_policy(kind.into(), policy);
        self
    }

    /// How long an attempt of a task of this kind may take; wins over [`TaskHandler::timeout`].
    pub fn timeout(mut self, kind: impl Into<String>, timeout: Duration) -> Self {
        self.handlers.timeout(kind.into(), timeout);
        self
    }

    /// How many handlers run at once, each on its thread. 1 to 1,024; default: one for each processor.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// How many further threads may take the place of handlers that are stuck: that have not returned 10 seconds after
    /// their deadline or their cancellation. Default: as many as there are workers.
    pub fn max_spare_threads(mut self, threads: usize) -> Self {
        self.max_spares = Some(threads);
        self
    }

    /// Runs at most `concurrency` tasks of a queue at once in this scheduler. At least 1. Other queues are run as well,
    /// bounded by the workers alone, unless [`only_queues`](Self::only_queues) is called.
    pub fn queue(mut self, name: impl Into<String>, concurrency: usize) -> Self {
        self.queues.push((name.into(), concurrency));
        self
    }

    /// Bounds how many tasks of a queue run at once in all processes of the file together, when the scheduler starts: 1 to
    /// 1,000,000. The last one to start decides. It stays in the file when this line is removed: it is lifted by
    /// [`Client::set_global_limit`].
    pub fn global_limit(mut self, queue: impl Into<String>, limit: usize) -> Self {
        self.limits.push((queue.into(), limit));
        self
    }

    /// Runs no other queues than those named by [`queue`](Self::queue).
    pub fn only_queues(mut self) -> Self {
        self.only_queues = true;
        self
    }

    store_setters!();

    /// How long ended tasks are kept. Default: [`Retention::default`], 1 day for completed ones, 14 days for others.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Opens the storage and starts the threads.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a setting that is not allowed, two handlers for a kind, or a
    /// path that is no place for a file; else as [`Client::open`].
    pub fn start(self) -> Result<Scheduler> {
        let workers = self.workers;
        let parts = self.build()?;
        parts.client.store.watch()?;
        let stop = StopOnDrop(Some(&parts));
        let executor = parts.executor();
        let mut threads = Vec::with_capacity(workers + 2);
        for number in 0..workers {
            let executor = executor.clone();
            if parts.ready.add_thread() {
                threads.push(Thread::spawn(format!("punctual-{number}"), move || {
                    executor.work()
                })?);
            }
        }
        let clock = || Arc::clone(&parts.client.clock);
        let maintenance = parts.maintenance(Some(executor));
        threads.push(spawn(
            "punctual-maint",
            maintenance,
            clock(),
            parts.maintenance_wake.clone(),
        )?);
        let dispatcher = parts.dispatcher();
        threads.push(spawn(
            "punctual-disp",
            dispatcher,
            clock(),
            parts.dispatcher_wake.clone(),
        )?);
        stop.disarm();
        Ok(Scheduler {
            parts,
            threads: Mutex::new(threads),
        })
    }

    /// Checks everything, opens the storage and makes the parts.
    pub(crate) fn build(self) -> Result<Parts> {
        self.build_on(StoreSettings::open)
    }

    /// Checks everything before `open` is called, so that nothing is created in vain.
    fn build_on(self, open: impl FnOnce(StoreSettings) -> Result<Arc<dyn Store>>) -> Result<Parts> {
        let scope = self.scope()?;
        check_limits(&self.limits)?;
        let max_spares = self.max_spares.unwrap_or(self.workers);
        if !(1..=MAX_WORKERS).contains(&self.workers) {
            return Err(Error::invalid(format!(
                "{} workers; 1 to {MAX_WORKERS} are allowed",
                self.workers
            )));
        }
        if max_spares > MAX_WORKERS {
            return Err(Error::invalid(format!(
                "{max_spares} spare threads; at most {MAX_WORKERS} are allowed"
            )));
        }
        self.retention.check()?;
        let registry = Arc::new(self.handlers.check()?);
        let client = Client::on(open(self.store)?);
        for (queue, limit) in &self.limits {
            client.set_global_limit(queue, Some(*limit))?;
        }
        // Before anything is claimed: what the dead held comes first if it is better than what waits.
        client.recover()?;
        let (dispatcher_wake, maintenance_wake) = (Wake::new(), Wake::new());
        let store = &client.store;
        store.signals().set_runner(dispatcher_wake.clone());
        store.signals().set_maintenance(maintenance_wake.clone());
        let attempts = Arc::new(Attempts::new(maintenance_wake.clone(), scope.caps.keys()));
        let shutdown = Arc::<ShutdownState>::default();
        let link = Arc::new(Link {
            client: client.clone(),
            pace: store.pace(),
            registry,
            attempts,
            finish: Finish::new(dispatcher_wake.clone()),
            undecodable: Undecodable::default(),
        });
        let ready = Ready::new(self.workers, Arc::clone(&link), Arc::clone(&shutdown));
        store.signals().standing_claim().set_workers(ready.bell());
        Ok(Parts {
            client,
            link,
            retention: self.retention,
            workers: self.workers,
            max_threads: self.workers + max_spares,
            ready: Arc::new(ready),
            scope,
            shutdown,
            dispatcher_wake,
            maintenance_wake,
        })
    }

    /// The parts on a store of the test's.
    #[cfg(all(test, feature = "testing"))]
    pub(crate) fn on_store(
        self,
        wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
    ) -> Result<Parts> {
        self.build_on(|store| store.open().map(wrap))
    }

    fn scope(&self) -> Result<Scope> {
        let mut scope = Scope {
            only_capped: self.only_queues,
            ..Scope::default()
        };
        for (name, concurrency) in &self.queues {
            check_name("queue", name)?;
            if *concurrency == 0 {
                return Err(Error::invalid(format!(
                    "the queue {name:?} has a concurrency of 0; to stop it, pause it"
                )));
            }
            if scope
                .caps
                .insert(name.as_str().into(), *concurrency)
                .is_some()
            {
                return Err(Error::invalid(format!("the queue {name:?} is given twice")));
            }
        }
        if self.only_queues && self.queues.is_empty() {
            return Err(Error::invalid(
                "only_queues without a queue: nothing would run",
            ));
        }
        Ok(scope)
    }
}

/// # Errors
///
/// `Invalid` for a limit that is not allowed, or two for one queue.
fn check_limits(limits: &[(String, usize)]) -> Result<()> {
    for (index, (queue, limit)) in limits.iter().enumerate() {
        check_name("queue", queue)?;
        check_limit(queue, *limit)?;
        if limits[..index].iter().any(|(other, _)| other == queue) {
            return Err(Error::invalid(format!(
                "the queue {queue:?} has two global limits"
            )));
        }
    }
    Ok(())
}

/// The parts of a scheduler, whether threads step them or a test does.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) client: Client,
    link: Arc<Link>,
    scope: Scope,
    retention: Retention,
    workers: usize,
    max_threads: usize,
    ready: Arc<Ready>,
    shutdown: Arc<ShutdownState>,
    dispatcher_wake: Wake,
    maintenance_wake: Wake,
}

impl Parts {
    pub(crate) fn executor(&self) -> Executor {
        Executor {
            registry: Arc::clone(&self.link.registry),
            ready: Arc::clone(&self.ready),
        }
    }

    pub(crate) fn dispatcher(&self) -> Dispatcher {
        Dispatcher::new(
            Arc::clone(&self.link),
            Arc::clone(&self.ready),
            Arc::clone(&self.shutdown),
            self.scope.clone(),
            self.retention,
        )
    }

    /// `executor`: what spare threads work with; `None` if there are no threads.
    pub(crate) fn maintenance(&self, executor: Option<Executor>) -> Maintenance {
        Maintenance::new(
            vec![
                Box::new(Rescuer::new(self.client.clone())),
                Box::new(Deadlines {
                    attempts: Arc::clone(&self.link.attempts),
                    ready: Arc::clone(&self.ready),
                    executor,
                    dispatcher: self.dispatcher_wake.clone(),
                    max_threads: self.max_threads,
                }),
                Box::new(Pruner::new(self.client.clone(), self.retention)),
                Box::new(Prober::new(self.client.clone())),
                Box::new(Retirer::new(self.client.clone())),
                Box::new(Forgetter::new(self.client.clone())),
            ],
            Arc::clone(&self.shutdown),
        )
    }

    pub(crate) fn health(&self) -> Health {
        if self.client.store.check().is_err() {
            // In a forked child a lock may be held by a thread that is not there.
            return self.client.health();
        }
        let mut unknown: Vec<String> = Vec::new();
        for lane in self.client.store.lanes().list.iter() {
            let known = self.link.registry.get(&lane.kind).is_some();
            if !known
                && lane.next_at().is_some()
                && !unknown.iter().any(|kind| **kind == *lane.kind)
            {
                unknown.push(lane.kind.to_string());
            }
        }
        let undecodable = self.link.undecodable.kinds(self.client.now());
        Health {
            workers: self.workers,
            busy: self.link.attempts.started(),
            stuck: self.link.attempts.stuck(),
            spare: self.ready.spares(),
            unknown_kinds: unknown,
            undecodable_kinds: undecodable.iter().map(ToString::to_string).collect(),
            ..self.client.health()
        }
    }

    /// Claims nothing any more; gives back what waits.
    pub(crate) fn stop(&self) {
        self.shutdown.stopping.store(true, Ordering::SeqCst);
        self.dispatcher_wake.notify();
        self.maintenance_wake.notify();
    }
}

/// Stops what was started if the rest cannot be.
struct StopOnDrop<'a>(Option<&'a Parts>);

impl StopOnDrop<'_> {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(parts) = self.0 {
            parts.stop();
            parts.ready.close();
        }
    }
}

/// Owns a file of tasks and the threads that run them.
///
/// Made by [`Scheduler::builder`]. It is a [`Client`] too, by `Deref`. Dropping it is a [`shutdown`](Self::shutdown) with
/// one second.
///
/// # Example
///
/// ```
/// use punctual::{NewTask, Outcome, Payload, Scheduler};
/// use serde::{Deserialize, Serialize};
/// use std::time::Duration;
///
/// #[derive(Serialize, Deserialize)]
/// struct Remind { user: u64 }
/// impl Payload for Remind { const KIND: &'static str = "remind"; }
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("app.db");
/// let scheduler = Scheduler::builder(&path)
///     .handler_fn(|remind: Remind, _cx| {
///         println!("reminding {}", remind.user);
///         Ok(Outcome::done())
///     })
///     .workers(4)
///     .start()?;
/// let task = scheduler.schedule(NewTask::new(Remind { user: 7 }).after(Duration::from_millis(10)))?;
/// scheduler.wait(task.id(), Duration::from_secs(10))?;
/// scheduler.shutdown(Duration::from_secs(30))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Scheduler {
    parts: Parts,
    threads: Mutex<Vec<Thread>>,
}

impl Scheduler {
    /// A scheduler whose tasks are in this file; it is created if there is none.
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(Location::File(path.as_ref().to_owned()))
    }

    /// A scheduler whose tasks are in memory, and gone with it.
    pub fn in_memory() -> Builder {
        Builder::new(Location::Memory)
    }

    /// A client of the same file, to be given to other parts of the program.
    #[must_use]
    pub fn client(&self) -> Client {
        self.parts.client.clone()
    }

    /// As [`Client::probe`], with the state of the workers.
    #[must_use]
    pub fn probe(&self, timeout: Duration) -> Health {
        let probed = self.parts.client.try_write(timeout);
        probed.told_in(self.health())
    }

    /// How the scheduler is, as far as is known without a write. To find out, [`probe`](Self::probe).
    #[must_use]
    pub fn health(&self) -> Health {
        self.parts.health()
    }

    /// Stops running tasks: claims nothing more, gives back what was claimed and not started, and waits until the handlers
    /// have returned, at most `timeout`. Those that have not by then are asked to stop, and have a tenth of a second more.
    ///
    /// What still runs then goes on, stays this process's, and is settled when it returns; nothing new starts. Clients of
    /// the file stay usable. A second call waits again.
    ///
    /// Inside a handler it waits for that very handler: for the whole `timeout`, after which it asks the handler to stop and counts
    /// it as still running. A handler that wants the scheduler to end should have another thread shut it down, and return.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forked`](crate::ErrorKind::Forked) in a child of the process that started the scheduler.
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::Scheduler;
    /// # use std::time::Duration;
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// let shutdown = scheduler.shutdown(Duration::from_secs(30))?;
    /// assert_eq!(shutdown.still_running(), 0);
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn shutdown(&self, timeout: Duration) -> Result<Shutdown> {
        self.parts.client.store.check()?;
        let shutdown = &self.parts.shutdown;
        self.parts.stop();
        if !self.wait_for_end(Deadline::after(timeout)) {
            self.parts.link.attempts.raise_all(StopReason::ShuttingDown);
            self.wait_for_end(Deadline::after(STOP_WAIT));
        }
        let ended = shutdown.is_ended();
        if ended {
            // It was woken when the stop began, may have seen no end yet, and would sleep on.
            self.parts.maintenance_wake.notify();
            let deadline = Deadline::after(DROP_WAIT);
            // Not under the lock: what ends on the threads may be handlers that call this.
            let threads = std::mem::take(&mut *lock(&self.threads));
            for thread in threads {
                thread.join(deadline);
            }
        }
        Ok(Shutdown {
            finished: shutdown.finished.load(Ordering::SeqCst),
            given_back: shutdown.given_back.load(Ordering::SeqCst),
            still_running: self.parts.link.attempts.count(),
        })
    }

    fn wait_for_end(&self, deadline: Deadline) -> bool {
        let shutdown = &self.parts.shutdown;
        while !shutdown.is_ended() && !deadline.is_over() {
            shutdown
                .ended
                .wait(deadline.remaining().min(Duration::from_millis(50)));
        }
        shutdown.is_ended()
    }
}

impl Deref for Scheduler {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.parts.client
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        if !self.parts.shutdown.is_ended() {
            let _ = self.shutdown(DROP_WAIT);
        }
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("workers", &self.parts.workers)
            .finish_non_exhaustive()
    }
}

/// What a [`Scheduler::shutdown`] found and left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    pub(crate) finished: usize,
    pub(crate) given_back: usize,
    pub(crate) still_running: usize,
}

impl Shutdown {
    /// Attempts that ended since the shutdown began.
    #[must_use]
    pub fn finished(self) -> usize {
        self.finished
    }

    /// Tasks that had been claimed and not started: they wait as before.
    #[must_use]
    pub fn given_back(self) -> usize {
        self.given_back
    }

    /// Handlers that had not returned. Their tasks stay this process's until they do.
    #[must_use]
    pub fn still_running(self) -> usize {
        self.still_running
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Stopwatch;

    #[test]
    fn a_shutdown_with_nothing_to_wait_for_does_not_wait() {
        let mut took = Duration::ZERO;
        for _ in 0..20 {
            let scheduler = Scheduler::in_memory().start().unwrap();
            let watch = Stopwatch::start();
            let shutdown = scheduler.shutdown(Duration::from_secs(5)).unwrap();
            took += watch.elapsed();
            assert_eq!(shutdown.still_running(), 0);
        }
        assert!(took < Duration::from_secs(2), "{took:?} for 20 shutdowns");
    }
}
