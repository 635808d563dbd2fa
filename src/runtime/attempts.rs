//! What this scheduler holds: every claimed task until it is settled, the signal to stop it, and when it should have ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::handler::token::{StopReason, Token};
use crate::model::settle::{Claim, Fence};
use crate::process::Owner;
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
    owner: Owner,
}

/// Where a claimed task is kept until it is settled. Dropping it frees the place: the task counts as held no longer.
#[derive(Debug)]
pub(crate) struct Place {
    attempts: Arc<Attempts>,
    /// Found by number, without a search; `None` once it is free.
    index: Option<usize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        // In a forked child the lock may be held by a thread that is not there.
        if let Some(index) = self.index.take()
            && self.attempts.owner.is_here()
        {
            lock(&self.attempts.state).remove(index);
        }
    }
}

#[derive(Debug, Default)]
struct State {
    places: Vec<Option<Entry>>,
    /// The free ones, each with a token to use again: it was made by one thread and would be freed by another, which costs as
    /// much as all else that is done here.
    free: Vec<(usize, Arc<Token>)>,
    /// How many are held of each queue that has a cap.
    capped: HashMap<Arc<str>, usize>,
    suspects: usize,
    /// How many have a worker, or wait for one.
    open: usize,
    /// The queues that got tasks since the last look, in the order of the claims.
    took: Vec<Arc<str>>,
    started: usize,
    /// How many handlers have returned so far.
    ended: u64,
    stuck: usize,
}

#[derive(Debug)]
struct Entry {
    fence: Fence,
    queue: Arc<str>,
    suspect: bool,
    token: Arc<Token>,
    /// Its handler runs, or is to be called.
    open: bool,
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
    /// `capped`: the queues whose tasks are counted.
    pub(crate) fn new<'a>(watch: Wake, capped: impl Iterator<Item = &'a Arc<str>>) -> Self {
        let state = State {
            capped: capped.map(|queue| (Arc::clone(queue), 0)).collect(),
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            watch,
            owner: Owner::this(),
        }
    }

    /// Holds claimed tasks: calls `each` with the place and the token of each.
    pub(crate) fn add(
        self: &Arc<Self>,
        claims: Vec<Claim>,
        mut each: impl FnMut(Claim, Place, Arc<Token>),
    ) {
        let mut state = lock(&self.state);
        for claim in claims {
            let (index, token) = state.add(&claim);
            let place = Place {
                attempts: Arc::clone(self),
                index: Some(index),
            };
            each(claim, place, token);
        }
    }

    /// Its handler is about to be called.
    pub(crate) fn start(&self, place: &Place, deadline: Option<Timestamp>) {
        let mut state = lock(&self.state);
        state.started += 1;
        if let Some(attempt) = state.attempt(place) {
            attempt.started = true;
            attempt.deadline = deadline;
            attempt.stuck_at = deadline.map(|at| at + STUCK_AFTER);
        }
        drop(state);
        if let Some(at) = deadline {
            self.watch.notify_due(at);
        }
    }

    /// Its handler is not called.
    pub(crate) fn skip(&self, place: &Place) {
        lock(&self.state).close(place.index);
    }

    /// Its handler has returned: which one that is, in the order of their ends, and whether it had been stuck, and so
    /// replaced.
    pub(crate) fn end(&self, place: &Place) -> (u64, bool) {
        let mut state = lock(&self.state);
        state.started -= 1;
        state.ended += 1;
        state.close(place.index);
        let stuck = state.attempt(place).is_some_and(|attempt| {
            // A cancellation that comes from now on finds no handler that could be stuck.
            attempt.started = false;
            attempt.deadline = None;
            attempt.stuck_at = None;
            std::mem::take(&mut attempt.stuck)
        });
        state.stuck -= usize::from(stuck);
        (state.ended, stuck)
    }

    /// Frees the places of tasks that were settled, or given back, under one lock.
    pub(crate) fn free(&self, places: impl IntoIterator<Item = Place>) {
        let mut state = lock(&self.state);
        for mut place in places {
            if let Some(index) = place.index.take() {
                state.remove(index);
            }
        }
    }

    /// Asks the handler of one attempt to stop.
    pub(crate) fn raise(&self, fence: Fence, reason: StopReason, now: Timestamp) {
        let mut state = lock(&self.state);
        for attempt in state.places.iter_mut().flatten() {
            if attempt.fence == fence {
                attempt.token.raise(reason);
                // One that is stuck already has been counted, and replaced.
                if attempt.started && !attempt.stuck {
                    attempt.stuck_at.get_or_insert(now + STUCK_AFTER);
                }
            }
        }
        drop(state);
        self.watch.notify();
    }

    pub(crate) fn raise_all(&self, reason: StopReason) {
        for attempt in lock(&self.state).places.iter().flatten() {
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
        for attempt in state.places.iter_mut().flatten() {
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

    /// What is claimed and not settled.
    pub(crate) fn held(&self) -> Counts {
        let state = lock(&self.state);
        Counts {
            open: state.open,
            capped: state.capped.clone(),
            has_suspect: state.suspects > 0,
            started: state.started,
            ended: state.ended,
        }
    }

    /// How many tasks are claimed and not settled.
    pub(crate) fn count(&self) -> usize {
        let state = lock(&self.state);
        state.places.len() - state.free.len()
    }

    /// The claims that are not settled.
    pub(crate) fn fences(&self) -> Vec<Fence> {
        let state = lock(&self.state);
        let held = state.places.iter().flatten();
        held.map(|attempt| attempt.fence).collect()
    }

    /// The queues that got tasks since the last call, in the order of the claims.
    pub(crate) fn take_turns(&self) -> Vec<Arc<str>> {
        std::mem::take(&mut lock(&self.state).took)
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

/// What a scheduler holds.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Per queue that has a cap.
    pub(crate) capped: HashMap<Arc<str>, usize>,
    /// Whether one of them has crashed a process before.
    pub(crate) has_suspect: bool,
    /// How many have a worker, or wait for one.
    pub(crate) open: usize,
    /// How many handlers run.
    pub(crate) started: usize,
    /// How many have returned so far.
    pub(crate) ended: u64,
}

impl State {
    fn add(&mut self, claim: &Claim) -> (usize, Arc<Token>) {
        let (index, mut token) = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            (self.places.len() - 1, Arc::default())
        });
        match Arc::get_mut(&mut token) {
            Some(unused) => unused.reset(),
            // The handler's thread has not let go of it yet.
            None => token = Arc::default(),
        }
        let attempt = Entry {
            fence: claim.fence,
            queue: Arc::clone(&claim.queue),
            suspect: claim.crashes > 0,
            token: Arc::clone(&token),
            open: true,
            started: false,
            deadline: None,
            stuck_at: None,
            stuck: false,
        };
        self.suspects += usize::from(attempt.suspect);
        self.open += 1;
        self.count(&attempt.queue, |count| count + 1);
        if self.took.last() != Some(&attempt.queue) {
            self.took.push(Arc::clone(&attempt.queue));
        }
        self.places[index] = Some(attempt);
        (index, token)
    }

    fn attempt(&mut self, place: &Place) -> Option<&mut Entry> {
        self.places.get_mut(place.index?)?.as_mut()
    }

    fn close(&mut self, index: Option<usize>) {
        if let Some(attempt) = index.and_then(|index| self.places[index].as_mut()) {
            self.open -= usize::from(std::mem::take(&mut attempt.open));
        }
    }

    fn remove(&mut self, index: usize) {
        self.close(Some(index));
        if let Some(attempt) = self.places[index].take() {
            self.suspects -= usize::from(attempt.suspect);
            self.count(&attempt.queue, |count| count - 1);
            self.free.push((index, attempt.token));
        }
    }

    fn count(&mut self, queue: &Arc<str>, change: impl FnOnce(usize) -> usize) {
        if !self.capped.is_empty()
            && let Some(count) = self.capped.get_mut(queue)
        {
            *count = change(*count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settle::tests::claim;

    const S: Duration = Duration::from_secs(1);

    fn add(attempts: &Arc<Attempts>, claim: Claim) -> (Place, Arc<Token>) {
        let mut added = None;
        attempts.add(vec![claim], |_, place, token| added = Some((place, token)));
        added.unwrap()
    }

    fn attempts() -> (Arc<Attempts>, Place, Arc<Token>) {
        let attempts = Arc::new(Attempts::new(Wake::new(), std::iter::empty()));
        let (place, token) = add(&attempts, claim(1, 0, 3));
        (attempts, place, token)
    }

    #[test]
    fn a_deadline_raises_the_token_and_a_while_later_the_handler_is_stuck() {
        let (attempts, place, token) = attempts();
        let due = Timestamp::MIN + S;
        attempts.start(&place, Some(due));
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
        assert_eq!(attempts.end(&place), (1, true), "it had been replaced");
        assert_eq!((attempts.started(), attempts.stuck()), (0, 0));
    }

    #[test]
    fn a_cancelled_handler_that_does_not_return_is_stuck_too() {
        let (attempts, _, _) = attempts();
        let claim = claim(1, 0, 3);
        let fence = claim.fence;
        let (place, token) = add(&attempts, claim);
        attempts.start(&place, None);
        attempts.raise(fence, StopReason::Cancelled, Timestamp::MIN);
        assert_eq!(token.reason(), Some(StopReason::Cancelled));
        assert_eq!(attempts.look(Timestamp::MIN + STUCK_AFTER).newly_stuck, 1);
    }

    #[test]
    fn a_claim_takes_a_worker_until_its_handler_has_returned_or_is_skipped() {
        let (attempts, place, _token) = attempts();
        let (skipped, _) = add(&attempts, claim(1, 0, 3));
        let (given_back, _) = add(&attempts, claim(1, 0, 3));
        assert_eq!(attempts.held().open, 3);
        attempts.start(&place, None);
        assert_eq!(attempts.held().open, 3, "it has one, or waits for one");
        attempts.end(&place);
        attempts.skip(&skipped);
        assert_eq!(attempts.held().open, 1, "although none is settled");
        attempts.free([place, skipped, given_back]);
        assert_eq!(attempts.held().open, 0);
    }

    /// P9: also those that came along with a caller's commit.
    #[test]
    fn every_claim_is_a_turn_of_its_queue() {
        let (attempts, _, _) = attempts();
        attempts.take_turns();
        for queue in ["a", "b", "b", "a"] {
            let claim = Claim {
                queue: Arc::from(queue),
                ..claim(1, 0, 3)
            };
            let _ = add(&attempts, claim);
        }
        let took = attempts.take_turns();
        assert_eq!(
            took.iter().map(|q| &**q).collect::<Vec<_>>(),
            ["a", "b", "a"]
        );
        assert!(attempts.take_turns().is_empty());
    }

    /// Each time would take a spare thread.
    #[test]
    fn a_handler_that_is_stuck_is_counted_once_however_often_it_is_cancelled() {
        let (attempts, place, _token) = attempts();
        let fence = claim(1, 0, 3).fence;
        attempts.start(&place, None);
        let mut counted = 0;
        for round in 0..3 {
            let now = Timestamp::MIN + round * 2 * STUCK_AFTER;
            attempts.raise(fence, StopReason::Cancelled, now);
            counted += attempts.look(now + STUCK_AFTER).newly_stuck;
        }
        assert_eq!((counted, attempts.stuck()), (1, 1));
        assert_eq!(attempts.end(&place), (1, true));
        assert_eq!(attempts.stuck(), 0);
    }

    #[test]
    fn what_has_ended_is_not_looked_at() {
        let (attempts, place, _token) = attempts();
        attempts.start(&place, Some(Timestamp::MIN + S));
        assert_eq!(attempts.end(&place), (1, false));
        attempts.raise(claim(1, 0, 3).fence, StopReason::Cancelled, Timestamp::MIN);
        assert_eq!(attempts.look(Timestamp::MAX).newly_stuck, 0);
        drop(place);
        assert_eq!(attempts.count(), 0);
    }

    #[test]
    fn a_place_is_used_again_and_what_is_held_is_counted() {
        let capped: Arc<str> = "capped".into();
        let attempts = Arc::new(Attempts::new(Wake::new(), [&capped].into_iter()));
        let mut suspect = claim(1, 1, 3);
        suspect.queue = Arc::clone(&capped);
        let (first, _) = add(&attempts, suspect);
        let (second, _) = add(&attempts, claim(1, 0, 3));
        let held = attempts.held();
        assert_eq!((attempts.count(), held.capped["capped"]), (2, 1));
        assert!(held.has_suspect);
        let index = first.index;
        drop(first);
        let held = attempts.held();
        assert_eq!((attempts.count(), held.capped["capped"]), (1, 0));
        assert!(!held.has_suspect);
        let (third, _) = add(&attempts, claim(1, 0, 3));
        assert_eq!(third.index, index);
        attempts.free([second]);
        assert_eq!((attempts.count(), attempts.held().open), (1, 1));
        drop(third);
        assert_eq!((attempts.count(), attempts.held().open), (0, 0));
    }

    /// P8: the request to stop is not handed on to the next task.
    #[test]
    fn a_token_that_is_used_again_is_not_raised() {
        let (attempts, place, token) = attempts();
        attempts.raise_all(StopReason::Cancelled);
        drop(place);
        let (place, kept) = add(&attempts, claim(1, 0, 3));
        assert_eq!(kept.reason(), None, "the old one was still in use");
        assert_eq!(token.reason(), Some(StopReason::Cancelled));
        attempts.raise_all(StopReason::ShuttingDown);
        drop((place, kept));
        let (_place, again) = add(&attempts, claim(1, 0, 3));
        assert_eq!(again.reason(), None);
    }
}
