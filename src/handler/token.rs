//! The signal that asks a running handler to stop.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::sync::lock;
use crate::time::Deadline;

/// Why a handler is asked to stop.
///
/// # Example
///
/// ```
/// use punctual::{Outcome, StopReason, TaskContext, TaskResult};
///
/// fn stop(cx: &TaskContext) -> TaskResult {
///     match cx.stop_reason() {
///         // Not tried again: a caller cancelled the task.
///         Some(StopReason::Cancelled) => Ok(Outcome::cancel("as asked")),
///         Some(_) => Err("to be continued".into()),
///         None => Ok(Outcome::done()),
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopReason {
    /// A caller cancelled the task. Unless the handler completes, the task ends as cancelled.
    Cancelled,
    /// The attempt's deadline has passed.
    DeadlinePassed,
    /// The scheduler is shutting down, and the shutdown's deadline has passed. If the handler now returns an error, the task
    /// waits for the next scheduler and loses no attempt, unless it is delivered at most once or the error is
    /// [fatal](crate::Failure::fatal).
    ShuttingDown,
    /// The attempt no longer holds its task: what the handler returns is dropped.
    Lost,
}

/// Raised once; the first reason is kept.
#[derive(Debug, Default)]
pub(crate) struct Token {
    reason: Mutex<Option<StopReason>>,
    raised: Condvar,
}

impl Token {
    pub(crate) fn raise(&self, reason: StopReason) {
        lock(&self.reason).get_or_insert(reason);
        self.raised.notify_all();
    }

    /// Clears the token for another attempt.
    pub(crate) fn reset(&mut self) {
        let reason = self.reason.get_mut();
        *reason.unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn reason(&self) -> Option<StopReason> {
        *lock(&self.reason)
    }

    /// Waits until the token is raised, for at most `span`.
    pub(crate) fn wait(&self, span: Duration) -> Option<StopReason> {
        let deadline = Deadline::after(span);
        let mut reason = lock(&self.reason);
        while reason.is_none() {
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                return None;
            }
            reason = self
                .raised
                .wait_timeout(reason, remaining)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        *reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stays() {
        let token = Token::default();
        assert_eq!(token.wait(Duration::ZERO), None);
        token.raise(StopReason::DeadlinePassed);
        token.raise(StopReason::Cancelled);
        assert_eq!(token.reason(), Some(StopReason::DeadlinePassed));
        assert_eq!(
            token.wait(Duration::from_secs(60)),
            Some(StopReason::DeadlinePassed)
        );
    }
}
