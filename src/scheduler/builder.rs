//! The builder of a scheduler: it checks everything before it creates anything.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::client::Client;
use crate::client::settings::{Location, StoreSettings, store_setters};
use crate::error::{Error, Result};
use crate::handler::async_context::AsyncContext;
use crate::handler::context::TaskContext;
use crate::handler::spawn::Spawn;
use crate::handler::{AsyncTaskHandler, FnHandler, Handlers, TaskHandler};
use crate::log::log;
use crate::model::limits::{check_limit, check_name};
use crate::model::outcome::TaskResult;
use crate::model::payload::Payload;
use crate::model::recurrence::set::RecurrenceSet;
use crate::model::retention::Retention;
use crate::model::retry::RetryPolicy;
use crate::panics::survive;
use crate::runtime::attempts::Attempts;
use crate::runtime::finish::Finish;
use crate::runtime::flight::Launcher;
use crate::runtime::link::Link;
use crate::runtime::maintenance::Ahead;
use crate::runtime::places::Places;
use crate::runtime::plan::Scope;
use crate::runtime::polls::Polls;
use crate::runtime::ready::Ready;
use crate::runtime::shutdown::ShutdownState;
use crate::runtime::undecodable::Undecodable;
use crate::scheduler::Scheduler;
use crate::scheduler::parts::Parts;
use crate::store::Store;
use crate::wake::Wake;

/// The most async handlers that a scheduler runs at once.
pub const MAX_IN_FLIGHT: usize = 100_000;

/// The most workers of a scheduler.
pub const MAX_WORKERS: usize = 1_024;

/// Builds a [`Scheduler`]: where its tasks are, what runs them and how.
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
    /// The `testing` feature replaces its clock.
    pub(crate) store: StoreSettings,
    handlers: Handlers,
    workers: usize,
    max_spares: Option<usize>,
    max_in_flight: usize,
    spawner: Spawner,
    queues: Vec<(String, usize)>,
    limits: Vec<(String, usize)>,
    only_queues: bool,
    retention: Retention,
    recurrences: Vec<RecurrenceSet>,
}

impl Builder {
    fn new(location: Location) -> Self {
        Self {
            store: StoreSettings::new(location, true),
            handlers: Handlers::default(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            max_spares: None,
            max_in_flight: 1_000,
            spawner: Spawner::Workers,
            queues: Vec::new(),
            limits: Vec::new(),
            only_queues: false,
            retention: Retention::default(),
            recurrences: Vec::new(),
        }
    }

    /// Adds the handler of a kind. Two handlers for one kind are an error of [`start`](Self::start).
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

    /// Adds the async handler of a kind. A second handler for one kind, async or not, is an error of [`start`](Self::start).
    pub fn async_handler<H: AsyncTaskHandler>(mut self, handler: H) -> Self {
        self.handlers.add_async(handler);
        self
    }

    /// Adds a closure as the async handler of a kind. It gets a context of its own, which its future can own.
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{NewTask, Outcome, Payload, Scheduler};
    /// # use serde::{Deserialize, Serialize};
    /// # use std::time::Duration;
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Remind { user: u64 }
    /// # impl Payload for Remind { const KIND: &'static str = "remind"; }
    /// let scheduler = Scheduler::in_memory()
    ///     .async_handler_fn(|remind: Remind, cx| async move {
    ///         println!("reminding {}, attempt {}", remind.user, cx.attempt());
    ///         Ok(Outcome::done())
    ///     })
    ///     .start()?;
    /// let task = scheduler.schedule(Remind { user: 7 })?.id();
    /// assert!(scheduler.wait(task, Duration::from_secs(10))?.is_some());
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn async_handler_fn<P, F, R>(mut self, run: F) -> Self
    where
        P: Payload,
        F: Fn(P, AsyncContext) -> R + Send + Sync + 'static,
        R: Future<Output = TaskResult> + Send + 'static,
    {
        self.handlers.add_async_fn(run);
        self
    }

    /// Runs async handlers on an executor of the program's. Default: on the scheduler's workers, which suits futures that need
    /// no timers or sockets of a runtime. There they take turns with blocking handlers: while all workers are busy with those,
    /// no future is polled, and none is started.
    pub fn spawner(mut self, spawner: impl Spawn) -> Self {
        self.spawner = Spawner::Given(Box::new(spawner));
        self
    }

    /// Runs async handlers on the tokio runtime in whose context [`start`](Self::start) is called. For another runtime give
    /// its `Handle` to [`spawner`](Self::spawner).
    #[cfg(feature = "tokio")]
    pub fn tokio(mut self) -> Self {
        self.spawner = Spawner::Tokio;
        self
    }

    /// Sets how many async handlers run at once. 1 to 100,000; default: 1,000.
    pub fn max_in_flight(mut self, futures: usize) -> Self {
        self.max_in_flight = futures;
        self
    }

    /// Sets how long after a request to stop the future of a task of this kind is dropped; wins over
    /// [`AsyncTaskHandler::stop_grace`].
    pub fn stop_grace(mut self, kind: impl Into<String>, grace: Duration) -> Self {
        self.handlers.stop_grace(kind.into(), grace);
        self
    }

    /// Sets when a failed task of this kind is tried again; wins over [`TaskHandler::retry_policy`].
    pub fn retry_policy(mut self, kind: impl Into<String>, policy: RetryPolicy) -> Self {
        self.handlers.retry_policy(kind.into(), policy);
        self
    }

    /// Sets how long an attempt of a task of this kind may take; wins over [`TaskHandler::timeout`].
    pub fn timeout(mut self, kind: impl Into<String>, timeout: Duration) -> Self {
        self.handlers.timeout(kind.into(), timeout);
        self
    }

    /// Sets how many handlers run at once, each on a thread. 1 to 1,024; default: one for each processor.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Sets how many extra threads may replace threads with a stuck handler: one that has not returned 10 seconds after its
    /// deadline or its cancellation. 0 to 1,024; default: as many as there are workers.
    pub fn max_spare_threads(mut self, threads: usize) -> Self {
        self.max_spares = Some(threads);
        self
    }

    /// Runs at most `concurrency` tasks of a queue at once in this scheduler. At least 1. Other queues run as well, limited by
    /// the workers alone, unless [`only_queues`](Self::only_queues) is called.
    pub fn queue(mut self, name: impl Into<String>, concurrency: usize) -> Self {
        self.queues.push((name.into(), concurrency));
        self
    }

    /// Limits how many tasks of a queue run at once in all processes of the file together: 1 to 1,000,000. Set when the
    /// scheduler starts; if several schedulers set one, the last to start decides. The limit is stored in the file and stays
    /// when this call is removed from the program; [`Client::set_global_limit`] removes it.
    pub fn global_limit(mut self, queue: impl Into<String>, limit: usize) -> Self {
        self.limits.push((queue.into(), limit));
        self
    }

    /// Runs only the queues named by [`queue`](Self::queue).
    pub fn only_queues(mut self) -> Self {
        self.only_queues = true;
        self
    }

    /// Declares a set of recurrences when the scheduler starts, before it makes any task. May be called for several sets.
    pub fn recurrences(mut self, set: RecurrenceSet) -> Self {
        self.recurrences.push(set);
        self
    }

    store_setters!();

    /// Sets how long ended tasks are kept. Default: [`Retention::default`], 1 day for completed ones, 14 days for others.
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
        Scheduler::run(self.build()?)
    }

    /// Checks everything, opens the storage and makes the parts.
    pub(crate) fn build(self) -> Result<Parts> {
        self.build_on(StoreSettings::open)
    }

    /// Checks everything before `open` is called, so that a mistake creates nothing.
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
        if !(1..=MAX_IN_FLIGHT).contains(&self.max_in_flight) {
            return Err(Error::invalid(format!(
                "{} futures in flight; 1 to {MAX_IN_FLIGHT} are allowed",
                self.max_in_flight
            )));
        }
        let has_async = self.handlers.has_async();
        let spawner = self.spawner.resolve(has_async)?;
        self.retention.check()?;
        let registry = Arc::new(self.handlers.check()?);
        let now = self.store.of_any.clock.now();
        for set in &self.recurrences {
            set.clone().prepare(now)?;
        }
        let client = Client::on(open(self.store)?);
        for (queue, limit) in &self.limits {
            client.set_global_limit(queue, Some(*limit))?;
        }
        for set in self.recurrences {
            if client.declare(set)?.is_outdated() {
                log!(
                    warn,
                    "a newer version of this program has declared its recurrences: they stay"
                );
            }
        }
        // Before anything is claimed: the tasks of dead processes may come before those that wait.
        client.recover()?;
        let (dispatcher_wake, maintenance_wake) = (Wake::new(), Wake::new());
        let store = &client.store;
        store.signals().set_runner(dispatcher_wake.clone());
        store.signals().set_maintenance(maintenance_wake.clone());
        let attempts = Arc::new(Attempts::new(
            maintenance_wake.clone(),
            scope.caps.keys(),
            self.max_in_flight,
        ));
        let shutdown = Arc::<ShutdownState>::default();
        let link = Arc::new(Link {
            client: client.clone(),
            pace: store.pace(),
            registry,
            attempts,
            finish: Finish::new(dispatcher_wake.clone()),
            undecodable: Undecodable::default(),
            places: Places::new(self.max_in_flight),
            polls: Polls::default(),
        });
        let links = vec![Arc::clone(&link)];
        let ready = Ready::new(self.workers, links, Arc::clone(&shutdown));
        let launcher = Launcher::new(spawner, ready.fibers(), Arc::clone(&shutdown));
        store.signals().standing_claim().set_workers(ready.bell());
        Ok(Parts {
            client,
            link,
            retention: self.retention,
            workers: self.workers,
            max_threads: self.workers + max_spares,
            max_in_flight: self.max_in_flight,
            ready: Arc::new(ready),
            launcher: Arc::new(launcher),
            scope,
            shutdown,
            ahead: Ahead::default(),
            dispatcher_wake,
            maintenance_wake,
        })
    }

    /// The parts on a store that the test provides.
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

/// Where async handlers run.
enum Spawner {
    Workers,
    #[cfg(feature = "tokio")]
    Tokio,
    Given(Box<dyn Spawn>),
}

impl Spawner {
    /// The executor; `None`: the workers.
    ///
    /// # Errors
    ///
    /// `Invalid` if there are async handlers and the executor is gone.
    fn resolve(self, has_async: bool) -> Result<Option<Box<dyn Spawn>>> {
        let spawner = match self {
            Self::Workers => return Ok(None),
            #[cfg(feature = "tokio")]
            Self::Tokio => match tokio::runtime::Handle::try_current() {
                Ok(handle) => Box::new(handle),
                Err(error) => {
                    let why = "there is no tokio runtime in the context of start()";
                    return Err(Error::invalid(why).with_source(error));
                }
            },
            Self::Given(spawner) => spawner,
        };
        if has_async && !probe(&*spawner) {
            return Err(Error::invalid(
                "the spawner drops what it is given: its runtime is gone",
            ));
        }
        Ok(Some(spawner))
    }
}

/// Whether an executor keeps a future that it is given.
fn probe(spawner: &dyn Spawn) -> bool {
    struct Probe {
        is_polled: bool,
        dropped: Arc<AtomicBool>,
    }

    impl Future for Probe {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            self.is_polled = true;
            Poll::Ready(())
        }
    }

    impl Drop for Probe {
        fn drop(&mut self) {
            self.dropped.fetch_or(!self.is_polled, Ordering::SeqCst);
        }
    }

    let dropped = Arc::new(AtomicBool::new(false));
    let future = Probe {
        is_polled: false,
        dropped: Arc::clone(&dropped),
    };
    let is_spawned = survive(|| spawner.spawn(Box::pin(future))).is_some();
    is_spawned && !dropped.load(Ordering::SeqCst)
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Workers => "Workers",
            #[cfg(feature = "tokio")]
            Self::Tokio => "Tokio",
            Self::Given(_) => "Given",
        })
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

impl Scheduler {
    /// Builds a scheduler whose tasks are in this file, which is created if there is none.
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(Location::File(path.as_ref().to_owned()))
    }

    /// Builds a scheduler whose tasks are in memory, and lost with the scheduler.
    pub fn in_memory() -> Builder {
        Builder::new(Location::Memory)
    }
}
