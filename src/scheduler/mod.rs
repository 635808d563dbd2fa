//! The scheduler: the threads that run the tasks of a store, and their end.

pub(crate) mod builder;
pub(crate) mod parts;

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::client::Client;
use crate::client::aside::Aside;
use crate::error::Result;
use crate::handler::token::StopReason;
use crate::model::health::Health;
use crate::runtime::service::spawn;
use crate::scheduler::parts::Parts;
use crate::sync::lock;
use crate::thread::Thread;
use crate::time::Deadline;

/// How long a dropped scheduler waits for its handlers.
const DROP_WAIT: Duration = Duration::from_secs(1);
/// How long a shutdown waits for handlers that were asked to stop at its deadline.
const STOP_WAIT: Duration = Duration::from_millis(100);

/// Owns a file of tasks and the threads that run them.
///
/// Made by [`Scheduler::builder`]. Derefs to a [`Client`]. Dropping it is a [`shutdown`](Self::shutdown) with a timeout of one
/// second; but if async handlers run on an executor of the program's, it asks them to stop and waits for nothing.
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
    running: Arc<Running>,
}

/// What a scheduler runs on, shared with a shutdown that waits on a thread of its own.
struct Running {
    parts: Parts,
    threads: Mutex<Vec<Thread>>,
}

impl Scheduler {
    /// Starts the threads.
    fn run(parts: Parts) -> Result<Self> {
        parts.client.store.watch()?;
        let stop = StopOnDrop(Some(&parts));
        let executor = parts.executor();
        let mut threads = Vec::with_capacity(parts.workers + 2);
        for number in 0..parts.workers {
            let executor = executor.clone();
            if parts.ready.add_thread() {
                threads.push(Thread::spawn(format!("punctual-{number}"), move || {
                    executor.work()
                })?);
            }
        }
        let clock = || Arc::clone(parts.client.store.clock());
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
        let running = Running {
            parts,
            threads: Mutex::new(threads),
        };
        Ok(Self {
            running: Arc::new(running),
        })
    }

    /// Returns a client of the same file, for other parts of the program.
    #[must_use]
    pub fn client(&self) -> Client {
        self.running.parts.client.clone()
    }

    /// As [`Client::probe`], with the state of the workers.
    #[must_use]
    pub fn probe(&self, timeout: Duration) -> Health {
        let probed = self.running.parts.client.try_write(timeout);
        probed.told_in(self.health())
    }

    /// Reports the health of the store and the workers, as known from earlier writes. To test a write, call
    /// [`probe`](Self::probe).
    #[must_use]
    pub fn health(&self) -> Health {
        self.running.parts.health()
    }

    /// Stops running tasks: claims nothing more, gives back tasks that were claimed but not started, and waits for at most
    /// `timeout` until the handlers have returned. Handlers still running then are asked to stop, and have another 0.1 seconds.
    ///
    /// A handler that still runs after that continues; its task stays with this process and is settled when the handler
    /// returns. Nothing new starts. Clients of the file stay usable. A second call waits again.
    ///
    /// Async handlers are asked to stop earlier: before the end of `timeout` by their longest
    /// [grace](crate::AsyncTaskHandler::stop_grace), or at once if that is longer. Those still running at the end of `timeout`
    /// are dropped, and their tasks wait for the next scheduler. The executor has to go on polling them: on a runtime use
    /// [`shutdown_async`](Self::shutdown_async).
    ///
    /// To ask handlers to stop first and then wait for them, call it twice: `shutdown(Duration::ZERO)`, then
    /// `shutdown(timeout)`. An error that a handler returns after it was asked costs its task no attempt; one that it returns
    /// before, while the first call waits, is an ordinary failure.
    ///
    /// Inside a handler the call waits for that handler itself: for the whole `timeout`, after which it asks the handler to
    /// stop and counts it as still running. To end the scheduler from a handler, let another thread shut it down, and return.
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
        self.running.shutdown(timeout)
    }

    /// As [`shutdown`](Self::shutdown), for async code: a thread of its own waits, so the runtime can go on polling what is to
    /// be waited for, also if it has one thread.
    ///
    /// The shutdown begins when the future is first polled, and goes on if that is dropped. An async handler may await it: it
    /// is asked to stop meanwhile, and is dropped at the end of `timeout`, as others are.
    ///
    /// # Errors
    ///
    /// As [`shutdown`](Self::shutdown).
    ///
    /// # Example
    ///
    /// ```
    /// use punctual::Scheduler;
    /// use std::time::Duration;
    ///
    /// async fn stop(scheduler: Scheduler) -> punctual::Result<()> {
    ///     let shutdown = scheduler.shutdown_async(Duration::from_secs(30)).await?;
    ///     println!("{} still run", shutdown.still_running());
    ///     Ok(())
    /// }
    /// ```
    pub fn shutdown_async(
        &self,
        timeout: Duration,
    ) -> impl Future<Output = Result<Shutdown>> + Send + use<> {
        let running = Arc::clone(&self.running);
        async move {
            running.parts.client.store.check()?;
            // At once, also if this future is dropped now.
            running.parts.stop();
            let waiter = Aside::default();
            waiter.run_surely(move || running.shutdown(timeout)).await?
        }
    }
}

impl Running {
    fn shutdown(&self, timeout: Duration) -> Result<Shutdown> {
        self.parts.client.store.check()?;
        let (shutdown, link) = (&self.parts.shutdown, &self.parts.link);
        let deadline = Deadline::after(timeout);
        self.parts.stop();
        if let Some(grace) = link.registry.longest_grace()
            && !shutdown.wait(Deadline::after(timeout.saturating_sub(grace)))
        {
            let wakers = link.attempts.raise_futures(StopReason::ShuttingDown);
            link.signals().call(wakers);
        }
        if !shutdown.wait(deadline) {
            let mut wakers = link.attempts.raise_all(StopReason::ShuttingDown);
            wakers.extend(link.attempts.drop_futures());
            link.signals().call(wakers);
            shutdown.wait(Deadline::after(STOP_WAIT));
        }
        let ended = shutdown.is_ended();
        if ended {
            // The maintenance thread was woken when the stop began, before this end, and would sleep on.
            self.parts.maintenance_wake.notify();
            let deadline = Deadline::after(DROP_WAIT);
            // Not under the lock: a handler that ends on one of these threads may itself call this.
            let threads = std::mem::take(&mut *lock(&self.threads));
            for thread in threads {
                thread.join(deadline);
            }
        }
        Ok(Shutdown {
            finished: shutdown.finished(),
            given_back: shutdown.given_back(),
            still_running: self.parts.link.attempts.count(),
        })
    }
}

impl Deref for Scheduler {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.running.parts.client
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        let parts = &self.running.parts;
        if parts.shutdown.is_ended() {
            return;
        }
        if parts.waits_for_executor() {
            // This thread may be the one that has to poll them. What they leave is settled when they end.
            parts.stop();
            let link = &parts.link;
            let wakers = link.attempts.raise_all(StopReason::ShuttingDown);
            link.signals().call(wakers);
            link.attempts.end_futures(link.client.now());
            return;
        }
        let _ = self.shutdown(DROP_WAIT);
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("workers", &self.running.parts.workers)
            .finish_non_exhaustive()
    }
}

/// Stops the threads that were started if the others cannot be.
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

/// The counts of a [`Scheduler::shutdown`].
///
/// # Example
///
/// ```
/// # use punctual::{Scheduler, Shutdown};
/// # use std::time::Duration;
/// # let scheduler = Scheduler::in_memory().start()?;
/// let shutdown: Shutdown = scheduler.shutdown(Duration::from_secs(30))?;
/// println!("{} finished, {} given back", shutdown.finished(), shutdown.given_back());
/// assert_eq!(shutdown.still_running(), 0);
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    pub(crate) finished: usize,
    pub(crate) given_back: usize,
    pub(crate) still_running: usize,
}

impl Shutdown {
    /// Attempts whose handler was called, and whose end was stored since the shutdown began.
    #[must_use]
    pub fn finished(self) -> usize {
        self.finished
    }

    /// Tasks that had been claimed, but whose handler was not called: they wait again.
    #[must_use]
    pub fn given_back(self) -> usize {
        self.given_back
    }

    /// Tasks that this process still holds: their handlers have not returned, or their ends could not be stored yet.
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
