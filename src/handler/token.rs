//! The signal that asks a running handler to stop.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
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

/// Raised once; the first reason is kept. Its wakers are the caller's to call: they are code of the user's.
#[derive(Debug, Default)]
pub(crate) struct Token {
    state: Mutex<State>,
    raised: Condvar,
}

#[derive(Debug, Default)]
struct State {
    reason: Option<StopReason>,
    /// The attempt's future must be dropped at its next poll.
    is_over: bool,
    /// The attempt's future, to be woken for that.
    attempt: Option<Waker>,
    /// Those that wait for the token to be raised.
    waiters: Vec<(u64, Waker)>,
    last_waiter: u64,
}

impl Token {
    /// Raises it. Returns the wakers of those that wait for that.
    #[must_use]
    pub(crate) fn raise(&self, reason: StopReason) -> Vec<Waker> {
        let mut state = lock(&self.state);
        state.reason.get_or_insert(reason);
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        self.raised.notify_all();
        waiters.into_iter().map(|(_, waiter)| waiter).collect()
    }

    /// Has the attempt's future dropped, if the attempt has one. Returns its waker.
    #[must_use]
    pub(crate) fn end(&self) -> Option<Waker> {
        let mut state = lock(&self.state);
        state.is_over = true;
        state.attempt.take()
    }

    /// Clears the token for another attempt.
    pub(crate) fn reset(&mut self) {
        let state = self.state.get_mut();
        *state.unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    pub(crate) fn reason(&self) -> Option<StopReason> {
        lock(&self.state).reason
    }

    /// Whether the attempt's future must be dropped; if not, the waker is called once it must.
    pub(crate) fn is_over(&self, waker: &Waker) -> bool {
        let state = lock(&self.state);
        let is_known = |old: &Waker| old.will_wake(waker);
        if state.is_over || state.attempt.as_ref().is_some_and(is_known) {
            return state.is_over;
        }
        drop(state);
        // A waker is code of the user's: it is neither cloned nor dropped under the lock.
        let waker = waker.clone();
        let mut state = lock(&self.state);
        let old = state.attempt.replace(waker);
        let is_over = state.is_over;
        drop(state);
        drop(old);
        is_over
    }

    /// Drops the waker of the attempt's future, which has ended.
    pub(crate) fn forget(&self) {
        let waker = lock(&self.state).attempt.take();
        drop(waker);
    }

    /// Waits until the token is raised, for at most `span`.
    pub(crate) fn wait(&self, span: Duration) -> Option<StopReason> {
        let deadline = Deadline::after(span);
        let mut state = lock(&self.state);
        while state.reason.is_none() {
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                return None;
            }
            state = self
                .raised
                .wait_timeout(state, remaining)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.reason
    }
}

/// Waits, without a thread, until a token is raised.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub(crate) struct Raised {
    token: Arc<Token>,
    /// Its number among the waiters; `None`: not polled yet.
    waiter: Option<u64>,
}

impl Raised {
    pub(crate) fn new(token: Arc<Token>) -> Self {
        Self {
            token,
            waiter: None,
        }
    }
}

impl Future for Raised {
    type Output = StopReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        let waker = cx.waker().clone();
        let this = &mut *self;
        let mut state = lock(&this.token.state);
        if let Some(reason) = state.reason {
            drop(state);
            return Poll::Ready(reason);
        }
        let number = *this.waiter.get_or_insert_with(|| {
            state.last_waiter += 1;
            state.last_waiter
        });
        let known = state.waiters.iter_mut().find(|(each, _)| *each == number);
        let old = match known {
            Some((_, old)) => Some(std::mem::replace(old, waker)),
            None => {
                state.waiters.push((number, waker));
                None
            }
        };
        drop(state);
        drop(old);
        Poll::Pending
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Some(number) = self.waiter {
            let mut state = lock(&self.token.state);
            let place = state.waiters.iter().position(|(each, _)| *each == number);
            let waiter = place.map(|place| state.waiters.swap_remove(place));
            // A waker is code of the user's.
            drop(state);
            drop(waiter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stays() {
        let token = Token::default();
        assert_eq!(token.wait(Duration::ZERO), None);
        drop(token.raise(StopReason::DeadlinePassed));
        drop(token.raise(StopReason::Cancelled));
        assert_eq!(token.reason(), Some(StopReason::DeadlinePassed));
        assert_eq!(
            token.wait(Duration::from_secs(60)),
            Some(StopReason::DeadlinePassed)
        );
    }
}
