//! Where async handlers run: any executor that takes a future.

use std::future::Future;
use std::pin::Pin;

/// A task on its way through an executor.
pub type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An executor of the program's, to run async handlers on. Closures are spawners, and with the feature `tokio` a
/// `tokio::runtime::Handle` is one.
///
/// The scheduler calls it once for each task that it starts. The executor polls the future until it is ready, on any thread.
/// If it drops the future before, the attempt is interrupted: its task waits again and has lost no attempt, unless it is
/// delivered [at most once](crate::Delivery::AtMostOnce). So no task is lost with its runtime. What it has not polled yet can be
/// cancelled and paused, and is given back by a shutdown: its future then ends at its first poll. How much was not polled is told
/// by [`Health::unpolled`](crate::Health::unpolled).
///
/// Wakers are called by threads of the store that do nothing else then. One that blocks delays the others by milliseconds; see
/// [`Health::blocked_wakers`](crate::Health::blocked_wakers).
///
/// # Example
///
/// An executor of one thread, by hand; with `smol` the closure is `|future| smol::spawn(future).detach()`:
///
/// ```
/// use punctual::{NewTask, Outcome, Payload, Scheduler, TaskFuture};
/// use serde::{Deserialize, Serialize};
/// use std::sync::mpsc;
/// use std::time::Duration;
///
/// #[derive(Serialize, Deserialize)]
/// struct Ping;
/// impl Payload for Ping { const KIND: &'static str = "ping"; }
///
/// # struct Unpark(std::thread::Thread);
/// # impl std::task::Wake for Unpark {
/// #     fn wake(self: std::sync::Arc<Self>) { self.0.unpark() }
/// # }
/// # fn block_on(mut future: TaskFuture) {
/// #     let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
/// #     let mut cx = std::task::Context::from_waker(&waker);
/// #     while future.as_mut().poll(&mut cx).is_pending() { std::thread::park() }
/// # }
/// let (sender, receiver) = mpsc::channel::<TaskFuture>();
/// std::thread::spawn(move || receiver.into_iter().for_each(block_on));
/// let scheduler = Scheduler::in_memory()
///     .async_handler_fn(|_: Ping, _cx| async { Ok(Outcome::done()) })
///     .spawner(move |future| sender.send(future).expect("its thread runs"))
///     .start()?;
/// let task = scheduler.schedule(Ping)?.id();
/// assert!(scheduler.wait(task, Duration::from_secs(10))?.is_some());
/// # Ok::<(), punctual::Error>(())
/// ```
pub trait Spawn: Send + Sync + 'static {
    /// Runs a future on the executor, without waiting for it.
    fn spawn(&self, future: TaskFuture);
}

impl<F: Fn(TaskFuture) + Send + Sync + 'static> Spawn for F {
    fn spawn(&self, future: TaskFuture) {
        self(future);
    }
}

#[cfg(feature = "tokio")]
impl Spawn for tokio::runtime::Handle {
    fn spawn(&self, future: TaskFuture) {
        // Its end is told by the future itself.
        drop(self.spawn(future));
    }
}
