//! Handlers: the program's code that runs its tasks.

mod about;
pub(crate) mod async_context;
pub(crate) mod context;
pub(crate) mod holding;
pub(crate) mod spawn;
pub(crate) mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::handler::async_context::AsyncContext;
use crate::handler::context::TaskContext;
use crate::model::json::decode;
use crate::model::limits::check_name;
use crate::model::new_task::check_timeout;
use crate::model::outcome::TaskResult;
use crate::model::payload::Payload;
use crate::model::pool::Pool;
use crate::model::retry::RetryPolicy;

/// Runs the tasks of one kind.
///
/// A handler is shared by all workers. Unless it is delivered [at most once](crate::Delivery::AtMostOnce), a task may be
/// started more than once, so effects outside the file should tolerate repetition; [`TaskContext::id`] is the same in every
/// attempt. A panic is caught and counts as a failure.
///
/// # Example
///
/// ```
/// use punctual::{Outcome, Payload, TaskContext, TaskHandler, TaskResult};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Remind { user: u64, text: String }
/// impl Payload for Remind { const KIND: &'static str = "remind"; }
///
/// struct Reminder { sender: String }
///
/// impl TaskHandler for Reminder {
///     type Payload = Remind;
///
///     fn run(&self, remind: Remind, cx: &TaskContext) -> TaskResult {
///         println!("{} to {}: {} (attempt {})", self.sender, remind.user, remind.text, cx.attempt());
///         Ok(Outcome::done())
///     }
/// }
/// ```
pub trait TaskHandler: Send + Sync + 'static {
    /// The argument, whose [`KIND`](Payload::KIND) names the handler.
    type Payload: Payload;

    /// Runs a task. An error means: try again as the retry policy says.
    ///
    /// # Errors
    ///
    /// A [`Failure`](crate::Failure), made from any error by `?`.
    fn run(&self, payload: Self::Payload, cx: &TaskContext) -> TaskResult;

    /// When to try again after a failure, for tasks without a policy of their own. Called once, when the handler is added to
    /// the builder. Default: [`RetryPolicy::default`].
    fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy::default()
    }

    /// How long an attempt may take, for tasks without a timeout of their own. Called once, when the handler is added to the
    /// builder. Default: no limit.
    fn timeout(&self) -> Option<Duration> {
        None
    }
}

/// How long after a request to stop an async handler's future is dropped, by default.
const STOP_GRACE: Duration = Duration::from_secs(5);
const MAX_STOP_GRACE: Duration = Duration::from_secs(3600);

/// Runs the tasks of one kind as futures, which share threads: thousands that wait for something need no thread each.
///
/// `run` is written as an `async fn`. All else is as for a [`TaskHandler`]: outcomes, failures, retries, timeouts, delivery and
/// history. Where the futures run is said by [`Builder::spawner`](crate::Builder::spawner); without a spawner they share the
/// scheduler's workers, which suits futures that need no runtime of their own. How many run at once is said by
/// [`Builder::max_in_flight`](crate::Builder::max_in_flight).
///
/// Unlike a thread, a future can be stopped: see [`AsyncContext`]. It is dropped at an `.await`, so what it had begun may be
/// half done; what it has spawned elsewhere goes on.
///
/// A future must not block its thread: others that share it wait. [`Health`](crate::Health) names kinds that do.
///
/// # Example
///
/// ```
/// use punctual::{AsyncContext, AsyncTaskHandler, Outcome, Payload, TaskResult};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Remind { user: u64, text: String }
/// impl Payload for Remind { const KIND: &'static str = "remind"; }
///
/// struct Reminder { sender: String }
/// # impl Reminder { async fn send(&self, _: u64, _: &str) -> Result<(), std::fmt::Error> { Ok(()) } }
///
/// impl AsyncTaskHandler for Reminder {
///     type Payload = Remind;
///
///     async fn run(&self, remind: Remind, cx: &AsyncContext) -> TaskResult {
///         println!("{}: attempt {}", self.sender, cx.attempt());
///         self.send(remind.user, &remind.text).await?;
///         Ok(Outcome::done())
///     }
/// }
/// ```
pub trait AsyncTaskHandler: Send + Sync + 'static {
    /// The argument, whose [`KIND`](Payload::KIND) names the handler.
    type Payload: Payload + Send;

    /// Runs a task. An error means: try again as the retry policy says.
    ///
    /// # Errors
    ///
    /// A [`Failure`](crate::Failure), made from any error by `?`.
    fn run(
        &self,
        payload: Self::Payload,
        cx: &AsyncContext,
    ) -> impl Future<Output = TaskResult> + Send;

    /// As [`TaskHandler::retry_policy`].
    fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy::default()
    }

    /// As [`TaskHandler::timeout`].
    fn timeout(&self) -> Option<Duration> {
        None
    }

    /// How long after it was asked to stop a future is dropped. Called once, when the handler is added to the builder. At most
    /// 1 hour; default: 5 seconds.
    fn stop_grace(&self) -> Duration {
        STOP_GRACE
    }
}

/// A closure as a handler.
pub(crate) struct FnHandler<P, F> {
    run: F,
    payload: PhantomData<fn(P)>,
}

impl<P, F> FnHandler<P, F> {
    pub(crate) fn new(run: F) -> Self {
        Self {
            run,
            payload: PhantomData,
        }
    }
}

impl<P, F> TaskHandler for FnHandler<P, F>
where
    P: Payload,
    F: Fn(P, &TaskContext) -> TaskResult + Send + Sync + 'static,
{
    type Payload = P;

    fn run(&self, payload: P, cx: &TaskContext) -> TaskResult {
        (self.run)(payload, cx)
    }
}

/// The future of an async handler.
pub(crate) type HandlerFuture = Pin<Box<dyn Future<Output = TaskResult> + Send>>;

/// The handler of a kind, with its type erased.
pub(crate) struct Registered {
    run: Run,
    pub(crate) retry: RetryPolicy,
    pub(crate) timeout: Option<Duration>,
    /// How long after a request to stop its future is dropped.
    grace: Duration,
}

/// Decodes the payload and calls the handler. An error: the handler was not called.
enum Run {
    Blocking(Box<Blocking>),
    Async(Box<Async>),
}

type Blocking = dyn Fn(&[u8], &TaskContext) -> Result<TaskResult> + Send + Sync;
type Async = dyn Fn(&[u8], AsyncContext) -> Result<HandlerFuture> + Send + Sync;

impl Registered {
    /// What its tasks need to run.
    pub(crate) fn pool(&self) -> Pool {
        match self.run {
            Run::Blocking(_) => Pool::Threads,
            Run::Async(_) => Pool::Futures,
        }
    }

    /// How long after a request to stop its future is dropped; `None`: it has none.
    pub(crate) fn grace(&self) -> Option<Duration> {
        (self.pool() == Pool::Futures).then_some(self.grace)
    }

    pub(crate) fn run(&self, payload: &[u8], cx: &TaskContext) -> Result<TaskResult> {
        match &self.run {
            Run::Blocking(run) => run(payload, cx),
            Run::Async(_) => unreachable!("it was claimed for a thread"),
        }
    }

    /// The future that runs a task.
    pub(crate) fn future(&self, payload: &[u8], cx: AsyncContext) -> Result<HandlerFuture> {
        match &self.run {
            Run::Async(run) => run(payload, cx),
            Run::Blocking(_) => unreachable!("it was claimed for a future"),
        }
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered")
            .field("retry", &self.retry)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// All handlers of a scheduler, by kind.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: BTreeMap<&'static str, Registered>,
}

/// Handlers as the program gave them, checked when the scheduler starts.
#[derive(Debug, Default)]
pub(crate) struct Handlers {
    given: Vec<(&'static str, Registered)>,
    policies: Vec<(String, RetryPolicy)>,
    timeouts: Vec<(String, Duration)>,
    graces: Vec<(String, Duration)>,
}

impl Handlers {
    pub(crate) fn add<H: TaskHandler>(&mut self, handler: H) {
        let entry = Registered {
            retry: handler.retry_policy(),
            timeout: handler.timeout(),
            grace: Duration::ZERO,
            run: Run::Blocking(Box::new(move |bytes, cx| {
                Ok(handler.run(decode("payload", bytes)?, cx))
            })),
        };
        self.given.push((H::Payload::KIND, entry));
    }

    pub(crate) fn add_async<H: AsyncTaskHandler>(&mut self, handler: H) {
        let (retry, timeout) = (handler.retry_policy(), handler.timeout());
        let grace = handler.stop_grace();
        let handler = Arc::new(handler);
        let run = move |bytes: &[u8], cx| {
            let (handler, payload) = (Arc::clone(&handler), decode("payload", bytes)?);
            let future = async move { handler.run(payload, &cx).await };
            Ok::<HandlerFuture, _>(Box::pin(future))
        };
        self.push_async(H::Payload::KIND, retry, timeout, grace, Box::new(run));
    }

    pub(crate) fn add_async_fn<P, F, R>(&mut self, run: F)
    where
        P: Payload,
        F: Fn(P, AsyncContext) -> R + Send + Sync + 'static,
        R: Future<Output = TaskResult> + Send + 'static,
    {
        let run = move |bytes: &[u8], cx| {
            let future = run(decode("payload", bytes)?, cx);
            Ok::<HandlerFuture, _>(Box::pin(future))
        };
        let retry = RetryPolicy::default();
        self.push_async(P::KIND, retry, None, STOP_GRACE, Box::new(run));
    }

    fn push_async(
        &mut self,
        kind: &'static str,
        retry: RetryPolicy,
        timeout: Option<Duration>,
        grace: Duration,
        run: Box<Async>,
    ) {
        let entry = Registered {
            retry,
            timeout,
            grace,
            run: Run::Async(run),
        };
        self.given.push((kind, entry));
    }

    /// Whether there is an async handler.
    pub(crate) fn has_async(&self) -> bool {
        let mut given = self.given.iter();
        given.any(|(_, entry)| entry.pool() == Pool::Futures)
    }

    pub(crate) fn stop_grace(&mut self, kind: String, grace: Duration) {
        self.graces.push((kind, grace));
    }

    pub(crate) fn retry_policy(&mut self, kind: String, policy: RetryPolicy) {
        self.policies.push((kind, policy));
    }

    pub(crate) fn timeout(&mut self, kind: String, timeout: Duration) {
        self.timeouts.push((kind, timeout));
    }

    /// # Errors
    ///
    /// `Invalid` for a kind with two handlers, or with a bad name, policy or timeout, or a setting for a kind that has no
    /// handler.
    pub(crate) fn check(self) -> Result<Registry> {
        let mut entries: BTreeMap<&'static str, Registered> = BTreeMap::new();
        for (kind, entry) in self.given {
            check_name("kind", kind)?;
            if entries.insert(kind, entry).is_some() {
                return Err(Error::invalid(format!(
                    "two handlers for the kind {kind:?}"
                )));
            }
        }
        let missing = |kind: &str| {
            Error::invalid(format!(
                "a setting for the kind {kind:?}, which has no handler"
            ))
        };
        for (kind, policy) in self.policies {
            entries
                .get_mut(kind.as_str())
                .ok_or_else(|| missing(&kind))?
                .retry = policy;
        }
        for (kind, timeout) in self.timeouts {
            entries
                .get_mut(kind.as_str())
                .ok_or_else(|| missing(&kind))?
                .timeout = Some(timeout);
        }
        for (kind, grace) in self.graces {
            let entry = entries
                .get_mut(kind.as_str())
                .ok_or_else(|| missing(&kind))?;
            if entry.grace().is_none() {
                return Err(Error::invalid(format!(
                    "a stop grace for the kind {kind:?}, whose handler is not async"
                )));
            }
            entry.grace = grace;
        }
        for entry in entries.values() {
            if entry.grace > MAX_STOP_GRACE {
                return Err(Error::invalid(format!(
                    "a stop grace of {:?}; at most {MAX_STOP_GRACE:?} is allowed",
                    entry.grace
                )));
            }
            entry.retry.check()?;
            entry.timeout.map_or(Ok(()), check_timeout)?;
        }
        Ok(Registry { entries })
    }
}

impl Registry {
    pub(crate) fn get(&self, kind: &str) -> Option<&Registered> {
        self.entries.get(kind)
    }

    /// The longest time that a future has after a request to stop; `None`: there is no async handler.
    pub(crate) fn longest_grace(&self) -> Option<Duration> {
        self.entries.values().filter_map(Registered::grace).max()
    }

    /// The handler of a claimed task.
    pub(crate) fn claimed(&self, kind: &str) -> &Registered {
        self.get(kind)
            .expect("only kinds with a handler are claimed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::model::outcome::Outcome;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Probe;
    impl Payload for Probe {
        const KIND: &'static str = "probe";
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Nameless;
    impl Payload for Nameless {
        const KIND: &'static str = "";
    }

    fn probe(handlers: &mut Handlers) {
        handlers.add(FnHandler::new(|_: Probe, _: &TaskContext| {
            Ok(Outcome::done())
        }));
    }

    #[test]
    fn handlers_are_checked_at_start() {
        let refused = |give: &dyn Fn(&mut Handlers)| {
            let mut handlers = Handlers::default();
            give(&mut handlers);
            handlers.check().map(|_| ()).unwrap_err().kind() == ErrorKind::Invalid
        };
        assert!(refused(&|handlers| {
            probe(handlers);
            probe(handlers);
        }));
        assert!(refused(&|handlers| handlers.add(FnHandler::new(
            |_: Nameless, _: &TaskContext| Ok(Outcome::done())
        ))));
        assert!(refused(
            &|handlers| handlers.timeout("probe".into(), Duration::from_secs(1))
        ));
        assert!(refused(&|handlers| {
            probe(handlers);
            handlers.timeout("probe".into(), Duration::ZERO);
        }));
        assert!(refused(&|handlers| {
            probe(handlers);
            handlers.retry_policy("probe".into(), RetryPolicy::fixed(Duration::MAX));
        }));
        let mut good = Handlers::default();
        probe(&mut good);
        assert!(good.check().unwrap().get("probe").is_some());
    }
}
