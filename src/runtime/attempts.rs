//! What runs here: every claimed task of this scheduler, the signal to stop it, and when it should have ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::handler::token::{StopReason, Token};
use crate::id::TaskId;
use crate::time::Timestamp;
use crate::wake::{Wake, lock};

/// How long after its deadline, or after it was cancelled, a handler counts as stuck.
pub(crate) const STUCK_AFTER: Duration = Duration::from_secs(10);

/// The claimed tasks of a scheduler.
#[derive(Debug)]
pub(crate) struct Attempts {
    state: Mutex<State>,
    /// The watch over deadlines, to be told of earlier ones.
    watch: Wake,
}

#[derive(Debug, Default)]
struct State {
    all: HashMap<TaskId, Attempt>,
    started: usize,
    stuck: usize,
}

#[derive(Debug)]
struct Attempt {
    token: Arc<Token>,
    started: bool,
    /// When its token is to be raised.
    deadline: Option<Timestamp>,
    /// When it counts as stuck.
    stuck_at: Option<Timestamp>,
    stuck: bool,
}

/// What a look at the deadlines found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Looked {
    pub(crate) next: Option<Timestamp>,
    /// Handlers that are stuck now and were not before.
    pub(crate) newly_stuck: usize,
}

impl Attempts {
    pub(crate) fn new(watch: Wake) -> Self {
        Self {
            state: Mutex::default(),
            watch,
        }
    }

    /// A task was claimed.
    pub(crate) fn add(&self, id: TaskId) -> Arc<Token> {
        let token = Arc::new(Token::default());
        let attempt = Attempt {
            token: Arc::clone(&token),
            started: false,
            deadline: None,
            stuck_at: None,
            stuck: false,
        };
        lock(&self.state).all.insert(id, attempt);
        token
    }

    /// Its handler is about to be called.
    pub(crate) fn start(&self, id: TaskId, deadline: Option<Timestamp>) {
        let mut state = lock(&self.state);
        state.started += 1;
        if let Some(attempt) = state.all.get_mut(&id) {
            attempt.started = true;
            attempt.deadline = deadline;
            attempt.stuck_at = deadline.map(|at| at + STUCK_AFTER);
        }
        drop(state);
        if let Some(at) = deadline {
            self.watch.notify_due(at);
        }
    }

    /// Its handler has returned. Returns whether it had been stuck, and so replaced.
    pub(crate) fn end(&self, id: TaskId) -> bool {
        let mut state = lock(&self.state);
        state.started -= 1;
        let Some(attempt) = state.all.get_mut(&id) else {
            return false;
        };
        attempt.deadline = None;
        attempt.stuck_at = None;
        let stuck = std::mem::take(&mut attempt.stuck);
        state.stuck -= usize::from(stuck);
        stuck
    }

    /// It was settled, or given back.
    pub(crate) fn remove(&self, id: TaskId) {
        lock(&self.state).all.remove(&id);
    }

    /// Asks a handler to stop.
    pub(crate) fn raise(&self, id: TaskId, reason: StopReason, now: Timestamp) {
        let mut state = lock(&self.state);
        if let Some(attempt) = state.all.get_mut(&id) {
            attempt.token.raise(reason);
            if attempt.started {
                attempt.stuck_at.get_or_insert(now + STUCK_AFTER);
            }
        }
        drop(state);
        self.watch.notify();
    }

    pub(crate) fn raise_all(&self, reason: StopReason) {
        for attempt in lock(&self.state).all.values() {
            attempt.token.raise(reason);
        }
    }

    /// Raises the tokens of those whose deadline has passed, and counts those that are stuck.
    pub(crate) fn look(&self, now: Timestamp) -> Looked {
        let mut state = lock(&self.state);
        let mut looked = Looked {
            next: None,
            newly_stuck: 0,
        };
        for attempt in state.all.values_mut() {
            if attempt.deadline.is_some_and(|at| at <= now) {
                attempt.token.raise(StopReason::DeadlinePassed);
                attempt.deadline = None;
            }
            if attempt.stuck_at.is_some_and(|at| at <= now) {
                attempt.stuck = true;
                attempt.stuck_at = None;
                looked.newly_stuck += 1;
            }
            let next = attempt.deadline.into_iter().chain(attempt.stuck_at).min();
            looked.next = looked.next.into_iter().chain(next).min();
        }
        state.stuck += looked.newly_stuck;
        looked
    }

    /// How many handlers run.
    pub(crate) fn started(&self) -> usize {
        lock(&self.state).started
    }

    /// How many of them are stuck.
    pub(crate) fn stuck(&self) -> usize {
        lock(&self.state).stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn attempts() -> (Attempts, TaskId, Arc<Token>) {
        let attempts = Attempts::new(Wake::new());
        let id = TaskId::new();
        let token = attempts.add(id);
        (attempts, id, token)
    }

    #[test]
    fn a_deadline_raises_the_token_and_a_while_later_the_handler_is_stuck() {
        let (attempts, id, token) = attempts();
        let due = Timestamp::MIN + S;
        attempts.start(id, Some(due));
        assert_eq!(attempts.look(Timestamp::MIN).next, Some(due));
        assert_eq!(token.reason(), None);
        assert_eq!(attempts.look(due).next, Some(due + STUCK_AFTER));
        assert_eq!(token.reason(), Some(StopReason::DeadlinePassed));
        let looked = attempts.look(due + STUCK_AFTER);
        assert_eq!((looked.next, looked.newly_stuck), (None, 1));
        assert_eq!(
            attempts.look(due + 2 * STUCK_AFTER).newly_stuck,
            0,
            "counted once"
        );
        assert_eq!((attempts.started(), attempts.stuck()), (1, 1));
        assert!(attempts.end(id), "it had been replaced");
        assert_eq!((attempts.started(), attempts.stuck()), (0, 0));
    }

    #[test]
    fn a_cancelled_handler_that_does_not_return_is_stuck_too() {
        let (attempts, id, token) = attempts();
        attempts.start(id, None);
        attempts.raise(id, StopReason::Cancelled, Timestamp::MIN);
        assert_eq!(token.reason(), Some(StopReason::Cancelled));
        assert_eq!(attempts.look(Timestamp::MIN + STUCK_AFTER).newly_stuck, 1);
    }

    #[test]
    fn what_has_ended_is_not_looked_at() {
        let (attempts, id, _token) = attempts();
        attempts.start(id, Some(Timestamp::MIN + S));
        assert!(!attempts.end(id));
        assert_eq!(attempts.look(Timestamp::MAX).next, None);
        attempts.remove(id);
        assert!(lock(&attempts.state).all.is_empty());
    }
}
