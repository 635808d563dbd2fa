//! Handlers: the program's code that runs its tasks.

pub(crate) mod context;
pub(crate) mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::handler::context::TaskContext;
use crate::model::json::decode;
use crate::model::limits::check_name;
use crate::model::new_task::check_timeout;
use crate::model::outcome::TaskResult;
use crate::model::payload::Payload;
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

/// The handler of a kind, with its type erased.
pub(crate) struct Registered {
    run: Box<Run>,
    pub(crate) retry: RetryPolicy,
    pub(crate) timeout: Option<Duration>,
}

/// Decodes the payload and calls the handler. The outer result is an error if the handler was not called.
type Run = dyn Fn(&[u8], &TaskContext) -> Result<TaskResult> + Send + Sync;

impl Registered {
    pub(crate) fn run(&self, payload: &[u8], cx: &TaskContext) -> Result<TaskResult> {
        (self.run)(payload, cx)
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
}

impl Handlers {
    pub(crate) fn add<H: TaskHandler>(&mut self, handler: H) {
        let entry = Registered {
            retry: handler.retry_policy(),
            timeout: handler.timeout(),
            run: Box::new(move |bytes, cx| Ok(handler.run(decode("payload", bytes)?, cx))),
        };
        self.given.push((H::Payload::KIND, entry));
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
        for entry in entries.values() {
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
