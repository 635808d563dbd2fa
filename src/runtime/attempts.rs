//! The tasks that this scheduler holds: each from its claim until it is settled, with its stop signal and its deadline.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use crate::handler::token::{StopReason, Token};
use crate::model::pool::{PerPool, Pool};
use crate::model::settle::{Claim, Fence};
use crate::model::suspects::{HeldSuspect, HeldSuspects, Suspects};
use crate::process::Owner;
use crate::runtime::polls::PollWatch;
use crate::runtime::timers::Timers;
use crate::sync::lock;
use crate::time::{Stopwatch, Timestamp};
use crate::wake::Wake;

/// A handler counts as stuck this long after its deadline, or after its cancellation.
pub(crate) const STUCK_AFTER: Duration = Duration::from_secs(10);
/// The polls of all futures are looked at no more often.
const LOOK_AT_POLLS: Duration = Duration::from_millis(100);

/// The claimed tasks of a scheduler.
#[derive(Debug)]
pub(crate) struct Attempts {
    state: Mutex<State>,
    /// The watch on deadlines, notified when an earlier deadline is added.
    watch: Wake,
    owner: Owner,
}

/// Where a claimed task is held until it is settled. Dropping the slot frees it: the task no longer counts as held.
#[derive(Debug)]
pub(crate) struct Slot {
    attempts: Arc<Attempts>,
    /// The index in [`State::slots`]; `None` once the slot is free.
    index: Option<usize>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        // In a forked child the lock may be held by a thread that exists only in the parent.
        if let Some(index) = self.index.take()
            && self.attempts.owner.is_here()
        {
            lock(&self.attempts.state).remove(index);
        }
    }
}

#[derive(Debug, Default)]
struct State {
    slots: Vec<Option<Held>>,
    /// The free slots, each with a token to use again. A token made by one thread and freed by another costs as much as all
    /// else that is done here.
    free: Vec<(usize, Arc<Token>)>,
    timers: Timers,
    /// How many tasks are held of each queue that has a cap.
    capped: HashMap<Arc<str>, usize>,
    /// The suspects that are held. Those whose handlers are stuck do not count.
    suspects: HeldSuspects,
    /// When a task was last claimed.
    claimed_at: Option<Timestamp>,
    /// How many tasks have a worker or a place, or wait for a worker.
    open: PerPool<usize>,
    /// The queues from which tasks were claimed since the last [`Attempts::take_claimed_queues`], in the order of the claims.
    took: Vec<Arc<str>>,
    started: PerPool<usize>,
    /// How many handlers have returned so far.
    ended: u64,
    stuck: PerPool<usize>,
    /// As many stuck futures leave their place to others.
    max_stuck_futures: usize,
    /// As of the last look at the polls: the kinds of futures whose poll blocks its thread, and how many futures their
    /// executor does not poll.
    blocked: BTreeSet<Arc<str>>,
    left: usize,
    looked_at_polls: Option<Stopwatch>,
}

#[derive(Debug)]
struct Held {
    fence: Fence,
    queue: Arc<str>,
    suspect: Option<HeldSuspect>,
    pool: Pool,
    token: Arc<Token>,
    /// The handler runs, or is yet to be called.
    open: bool,
    started: bool,
    /// How long after a request to stop its future is dropped; `None`: it runs on a thread.
    grace: Option<Duration>,
    /// When its handler was asked to stop, other than by its deadline.
    asked_at: Option<Timestamp>,
    /// When the token must be raised.
    stop_at: Option<Timestamp>,
    /// When its future is dropped.
    drop_at: Option<Timestamp>,
    /// When the attempt counts as stuck.
    stuck_at: Option<Timestamp>,
    /// The earliest of these, as [`State::timers`] has it.
    timer: Option<Timestamp>,
    stuck: bool,
    /// The polls of its future, if it has one.
    polls: Option<Arc<PollWatch>>,
}

/// The result of a look at the deadlines.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    pub(crate) next: Option<Timestamp>,
    /// How many handlers have become stuck since the last look.
    pub(crate) newly_stuck: PerPool<usize>,
    /// The kinds of the futures whose poll blocks its thread, and was not told before.
    pub(crate) newly_blocked: Vec<Arc<str>>,
    /// Whether there are futures that their executor does not poll, and there were none at the last look.
    pub(crate) is_newly_left: bool,
    /// The wakers to call: what waits for a request to stop, and futures that are to be dropped.
    pub(crate) wakers: Vec<Waker>,
}

impl Attempts {
    /// `capped`: the queues whose tasks are counted. `max_stuck_futures`: as many stuck futures leave their place to others.
    pub(crate) fn new<'a>(
        watch: Wake,
        capped: impl Iterator<Item = &'a Arc<str>>,
        max_stuck_futures: usize,
    ) -> Self {
        let state = State {
            capped: capped.map(|queue| (Arc::clone(queue), 0)).collect(),
            max_stuck_futures,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            watch,
            owner: Owner::this(),
        }
    }

    /// Holds claimed tasks, and calls `each` with the slot and the token of each.
    pub(crate) fn add(
        self: &Arc<Self>,
        claims: Vec<Claim>,
        now: Timestamp,
        mut each: impl FnMut(Claim, Slot, Arc<Token>),
    ) {
        let mut state = lock(&self.state);
        state.claimed_at = Some(now);
        for claim in claims {
            let (index, token) = state.add(&claim, now);
            let slot = Slot {
                attempts: Arc::clone(self),
                index: Some(index),
            };
            each(claim, slot, token);
        }
    }

    /// Watches the polls of this slot's future.
    pub(crate) fn watch(&self, slot: &Slot, polls: Arc<PollWatch>) {
        if let Some(attempt) = lock(&self.state).attempt(slot) {
            attempt.polls = Some(polls);
        }
    }

    /// As of the last look: the kinds of futures whose poll blocks its thread, and how many futures their executor does not
    /// poll.
    pub(crate) fn unpolled(&self) -> (Vec<String>, usize) {
        let state = lock(&self.state);
        let blocked = state.blocked.iter().map(|kind| kind.to_string());
        (blocked.collect(), state.left)
    }

    /// Notes that the handler of this slot is about to be called. `grace`: how long after a request to stop its future is
    /// dropped, if it has one.
    pub(crate) fn start(&self, slot: &Slot, deadline: Option<Timestamp>, grace: Option<Duration>) {
        let mut state = lock(&self.state);
        let mut is_asked = false;
        if let Some(attempt) = state.attempt(slot) {
            attempt.started = true;
            attempt.stop_at = deadline;
            attempt.grace = grace;
            // It may have been asked to stop while it was starting.
            is_asked = attempt.asked_at.is_some();
            for at in deadline.into_iter().chain(attempt.asked_at) {
                attempt.must_end_by(at);
            }
            let pool = attempt.pool;
            state.started[pool] += 1;
            if deadline.is_some() || is_asked {
                state.set_timer(slot.index);
            }
        }
        drop(state);
        if is_asked {
            self.watch.notify();
        } else if let Some(at) = deadline {
            self.watch.notify_due(at);
        }
    }

    /// Notes that the handler of this slot will not be called.
    pub(crate) fn skip(&self, slot: &Slot) {
        lock(&self.state).close(slot.index);
    }

    /// Notes that the handler of this slot has returned. Returns how many have returned by now, and whether this one had
    /// been stuck.
    pub(crate) fn end(&self, slot: &Slot) -> (u64, bool) {
        let mut state = lock(&self.state);
        state.ended += 1;
        state.close(slot.index);
        let mut was_stuck = false;
        if let Some(attempt) = state.attempt(slot) {
            // A later cancellation must not count a handler that has returned as stuck.
            attempt.started = false;
            attempt.stop_at = None;
            attempt.drop_at = None;
            attempt.stuck_at = None;
            was_stuck = std::mem::take(&mut attempt.stuck);
            let pool = attempt.pool;
            state.started[pool] -= 1;
            state.stuck[pool] -= usize::from(was_stuck);
            state.set_timer(slot.index);
        }
        (state.ended, was_stuck)
    }

    /// Frees the slots of settled tasks, under one lock.
    pub(crate) fn free(&self, slots: impl IntoIterator<Item = Slot>) {
        let mut state = lock(&self.state);
        for mut slot in slots {
            if let Some(index) = slot.index.take() {
                state.remove(index);
            }
        }
    }

    /// Asks the handlers of these attempts to stop. Returns the wakers to call.
    #[must_use]
    pub(crate) fn raise(
        &self,
        fences: &HashSet<Fence>,
        reason: StopReason,
        now: Timestamp,
    ) -> Vec<Waker> {
        let mut state = lock(&self.state);
        let mut raised = Vec::new();
        for index in 0..state.slots.len() {
            let held = state.slots[index].as_mut();
            if let Some(attempt) = held.filter(|attempt| fences.contains(&attempt.fence)) {
                raised.push(Arc::clone(&attempt.token));
                attempt.ask(now);
                state.set_timer(Some(index));
            }
        }
        drop(state);
        self.watch.notify();
        let wakers = raised.iter().flat_map(|token| token.raise(reason));
        wakers.collect()
    }

    /// Asks all handlers to stop. Returns the wakers to call.
    #[must_use]
    pub(crate) fn raise_all(&self, reason: StopReason) -> Vec<Waker> {
        let tokens = self.tokens(|_| true);
        tokens
            .iter()
            .flat_map(|token| token.raise(reason))
            .collect()
    }

    /// Asks all handlers that are futures to stop. Returns the wakers to call.
    #[must_use]
    pub(crate) fn raise_futures(&self, reason: StopReason) -> Vec<Waker> {
        let tokens = self.tokens(|pool| pool == Pool::Futures);
        tokens
            .iter()
            .flat_map(|token| token.raise(reason))
            .collect()
    }

    /// Has each future dropped after its grace.
    pub(crate) fn end_futures(&self, now: Timestamp) {
        let mut state = lock(&self.state);
        for index in 0..state.slots.len() {
            let held = state.slots[index].as_mut();
            if let Some(attempt) = held.filter(|attempt| attempt.pool == Pool::Futures) {
                attempt.ask(now);
                state.set_timer(Some(index));
            }
        }
        drop(state);
        self.watch.notify();
    }

    /// Has all futures dropped. Returns the wakers to call.
    #[must_use]
    pub(crate) fn drop_futures(&self) -> Vec<Waker> {
        let tokens = self.tokens(|pool| pool == Pool::Futures);
        tokens.iter().filter_map(|token| token.end()).collect()
    }

    fn tokens(&self, of: impl Fn(Pool) -> bool) -> Vec<Arc<Token>> {
        let state = lock(&self.state);
        let held = state.slots.iter().flatten();
        let held = held.filter(|attempt| of(attempt.pool));
        held.map(|attempt| Arc::clone(&attempt.token)).collect()
    }

    /// Raises the token of each attempt whose deadline has passed, has its future dropped a while later, and counts the newly
    /// stuck handlers.
    pub(crate) fn look(&self, now: Timestamp) -> Looked {
        let mut looked = Looked::default();
        let (mut late, mut over, mut stuck) = (Vec::new(), Vec::new(), Vec::new());
        let mut state = lock(&self.state);
        while let Some(index) = state.timers.pop_due(now) {
            let Some(attempt) = state.slots[index].as_mut() else {
                continue;
            };
            attempt.timer = None;
            if attempt.stop_at.take_if(|at| *at <= now).is_some() {
                late.push(Arc::clone(&attempt.token));
            }
            if attempt.drop_at.take_if(|at| *at <= now).is_some() {
                over.push(Arc::clone(&attempt.token));
            }
            if attempt.stuck_at.take_if(|at| *at <= now).is_some() {
                attempt.stuck = true;
                looked.newly_stuck[attempt.pool] += 1;
                stuck.push(index);
            }
            state.set_timer(Some(index));
        }
        for index in stuck {
            state.give_up(index);
        }
        looked.next = state.timers.next();
        let last = state.looked_at_polls;
        if last.is_none_or(|last| last.elapsed() >= LOOK_AT_POLLS) {
            state.look_at_polls(&mut looked);
        }
        drop(state);
        let late = late
            .iter()
            .flat_map(|token| token.raise(StopReason::DeadlinePassed));
        let over = over.iter().filter_map(|token| token.end());
        looked.wakers = late.chain(over).collect();
        looked
    }

    /// Counts the tasks that are claimed and not settled.
    pub(crate) fn held(&self, now: Timestamp) -> HeldCounts {
        let mut state = lock(&self.state);
        HeldCounts {
            open: state.open,
            capped: state.capped.clone(),
            suspects: state.suspects.at(now),
            claimed_at: state.claimed_at,
            started: state.started,
            ended: state.ended,
        }
    }

    /// How many tasks are claimed and not settled.
    pub(crate) fn count(&self) -> usize {
        let state = lock(&self.state);
        state.slots.len() - state.free.len()
    }

    /// The fences of the claims that are not settled.
    pub(crate) fn fences(&self) -> Vec<Fence> {
        let state = lock(&self.state);
        let held = state.slots.iter().flatten();
        held.map(|attempt| attempt.fence).collect()
    }

    /// The queues from which tasks were claimed since the last call, in the order of the claims.
    pub(crate) fn take_claimed_queues(&self) -> Vec<Arc<str>> {
        std::mem::take(&mut lock(&self.state).took)
    }

    /// How many handlers run.
    pub(crate) fn started(&self) -> PerPool<usize> {
        lock(&self.state).started
    }

    /// How many of them are stuck.
    pub(crate) fn stuck(&self) -> PerPool<usize> {
        lock(&self.state).stuck
    }
}

/// Counts of the held tasks.
#[derive(Debug)]
pub(crate) struct HeldCounts {
    /// How many tasks are held per queue with a cap.
    pub(crate) capped: HashMap<Arc<str>, usize>,
    pub(crate) suspects: Suspects,
    /// When a task was last claimed.
    pub(crate) claimed_at: Option<Timestamp>,
    /// How many tasks have a worker or a place, or wait for a worker.
    pub(crate) open: PerPool<usize>,
    /// How many handlers run.
    pub(crate) started: PerPool<usize>,
    /// How many handlers have returned so far.
    pub(crate) ended: u64,
}

impl Held {
    /// Its handler is asked to stop now.
    fn ask(&mut self, now: Timestamp) {
        self.asked_at.get_or_insert(now);
        // A stuck handler has been counted already.
        if self.started && !self.stuck {
            self.must_end_by(now);
        }
    }

    /// Its handler is asked to stop at this instant, and counts as stuck if it then does not return. The earliest counts.
    fn must_end_by(&mut self, at: Timestamp) {
        let drop_at = self.grace.map(|grace| at + grace);
        let stuck_at = drop_at.unwrap_or(at) + STUCK_AFTER;
        let sooner = |known: Option<Timestamp>, at| known.map_or(at, |known| known.min(at));
        self.drop_at = drop_at.map(|at| sooner(self.drop_at, at));
        self.stuck_at = Some(sooner(self.stuck_at, stuck_at));
    }
}

impl State {
    fn add(&mut self, claim: &Claim, now: Timestamp) -> (usize, Arc<Token>) {
        let (index, mut token) = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1, Arc::default())
        });
        match Arc::get_mut(&mut token) {
            Some(unused) => unused.reset(),
            // The handler's thread still has this token.
            None => token = Arc::default(),
        }
        let attempt = Held {
            fence: claim.fence,
            queue: Arc::clone(&claim.queue),
            suspect: (claim.class.level()).map(|level| self.suspects.add(index, level, now)),
            token: Arc::clone(&token),
            pool: claim.pool,
            open: true,
            started: false,
            grace: None,
            asked_at: None,
            stop_at: None,
            drop_at: None,
            stuck_at: None,
            timer: None,
            stuck: false,
            polls: None,
        };
        self.open[attempt.pool] += 1;
        self.count(&attempt.queue, |count| count + 1);
        if self.took.last() != Some(&attempt.queue) {
            self.took.push(Arc::clone(&attempt.queue));
        }
        self.slots[index] = Some(attempt);
        (index, token)
    }

    fn attempt(&mut self, slot: &Slot) -> Option<&mut Held> {
        self.slots.get_mut(slot.index?)?.as_mut()
    }

    fn close(&mut self, index: Option<usize>) {
        if let Some(attempt) = index.and_then(|index| self.slots[index].as_mut()) {
            self.open[attempt.pool] -= usize::from(std::mem::take(&mut attempt.open));
        }
    }

    /// Notes when an attempt has to be looked at next.
    fn set_timer(&mut self, index: Option<usize>) {
        if let Some(index) = index
            && let Some(attempt) = self.slots[index].as_mut()
        {
            let next = [attempt.stop_at, attempt.drop_at, attempt.stuck_at];
            let next = next.into_iter().flatten().min();
            let former = std::mem::replace(&mut attempt.timer, next);
            self.timers.set(index, former, next);
        }
    }

    /// Finds the polls that block their threads, and the futures that are not polled.
    fn look_at_polls(&mut self, looked: &mut Looked) {
        let (mut blocked, mut left) = (BTreeSet::new(), 0);
        let held = self.slots.iter().flatten();
        for polls in held.filter_map(|attempt| attempt.polls.as_ref()) {
            left += usize::from(polls.is_left());
            if polls.is_blocked() {
                blocked.insert(Arc::clone(polls.kind()));
                if polls.tells() {
                    looked.newly_blocked.push(Arc::clone(polls.kind()));
                }
            }
        }
        looked.is_newly_left = left > 0 && self.left == 0;
        (self.blocked, self.left) = (blocked, left);
        self.looked_at_polls = Some(Stopwatch::start());
    }

    /// Counts an attempt as stuck: it may never return, and no other task waits for it. Its place, if it has one, is free
    /// unless too many are stuck.
    fn give_up(&mut self, index: usize) {
        let Some(attempt) = self.slots[index].as_mut() else {
            return;
        };
        let (pool, suspect) = (attempt.pool, attempt.suspect.take());
        self.stuck[pool] += 1;
        if let Some(suspect) = suspect {
            self.suspects.remove(suspect);
        }
        if pool == Pool::Futures && self.stuck.futures <= self.max_stuck_futures {
            self.close(Some(index));
        }
    }

    fn remove(&mut self, index: usize) {
        self.close(Some(index));
        if let Some(attempt) = self.slots[index].take() {
            if let Some(suspect) = attempt.suspect {
                self.suspects.remove(suspect);
            }
            self.count(&attempt.queue, |count| count - 1);
            self.timers.set(index, attempt.timer, None);
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
    use crate::model::lane::Class;
    use crate::model::settle::tests::claim;
    use crate::model::suspects::Level;

    const S: Duration = Duration::from_secs(1);

    fn add(attempts: &Arc<Attempts>, claim: Claim) -> (Slot, Arc<Token>) {
        let mut added = None;
        attempts.add(vec![claim], Timestamp::MIN, |_, slot, token| {
            added = Some((slot, token))
        });
        added.unwrap()
    }

    fn attempts() -> (Arc<Attempts>, Slot, Arc<Token>) {
        let attempts = Arc::new(Attempts::new(Wake::new(), std::iter::empty(), 0));
        let (slot, token) = add(&attempts, claim(1, 0, 3));
        (attempts, slot, token)
    }

    #[test]
    fn a_deadline_raises_the_token_and_a_while_later_the_handler_is_stuck() {
        let (attempts, slot, token) = attempts();
        let due = Timestamp::MIN + S;
        attempts.start(&slot, Some(due), None);
        assert_eq!(attempts.look(Timestamp::MIN).next, Some(due));
        assert_eq!(token.reason(), None);
        assert_eq!(attempts.look(due).next, Some(due + STUCK_AFTER));
        assert_eq!(token.reason(), Some(StopReason::DeadlinePassed));
        let looked = attempts.look(due + STUCK_AFTER);
        assert_eq!((looked.next, looked.newly_stuck.threads), (None, 1));
        assert_eq!(
            attempts.look(due + 2 * STUCK_AFTER).newly_stuck.threads,
            0,
            "counted once"
        );
        assert_eq!(
            (attempts.started().threads, attempts.stuck().threads),
            (1, 1)
        );
        assert_eq!(attempts.end(&slot), (1, true), "it had been replaced");
        assert_eq!(
            (attempts.started().threads, attempts.stuck().threads),
            (0, 0)
        );
    }

    #[test]
    fn a_cancelled_handler_that_does_not_return_is_stuck_too() {
        let (attempts, _, _) = attempts();
        let claim = claim(1, 0, 3);
        let fence = claim.fence;
        let (slot, token) = add(&attempts, claim);
        attempts.start(&slot, None, None);
        drop(attempts.raise(
            &HashSet::from([fence]),
            StopReason::Cancelled,
            Timestamp::MIN,
        ));
        assert_eq!(token.reason(), Some(StopReason::Cancelled));
        assert_eq!(
            attempts
                .look(Timestamp::MIN + STUCK_AFTER)
                .newly_stuck
                .threads,
            1
        );
    }

    #[test]
    fn p12_a_stuck_suspect_keeps_no_other_waiting() {
        let (attempts, _, _) = attempts();
        let suspect = Claim {
            class: Class::Suspect(Level::ALONE),
            ..claim(1, 0, 3)
        };
        let (slot, _) = add(&attempts, suspect);
        let due = Timestamp::MIN + S;
        attempts.start(&slot, Some(due), None);
        assert!(!attempts.held(Timestamp::MIN).suspects.admit(Level::ALONE));
        attempts.look(due + STUCK_AFTER);
        assert!(attempts.held(Timestamp::MIN).suspects.admit(Level::ALONE));
        attempts.end(&slot);
        attempts.free([slot]);
        assert_eq!(attempts.held(Timestamp::MIN).suspects, Suspects::default());
    }

    #[test]
    fn a_claim_takes_a_worker_until_its_handler_has_returned_or_is_skipped() {
        let (attempts, slot, _token) = attempts();
        let (skipped, _) = add(&attempts, claim(1, 0, 3));
        let (given_back, _) = add(&attempts, claim(1, 0, 3));
        assert_eq!(attempts.held(Timestamp::MIN).open.threads, 3);
        attempts.start(&slot, None, None);
        assert_eq!(
            attempts.held(Timestamp::MIN).open.threads,
            3,
            "it has one, or waits for one"
        );
        attempts.end(&slot);
        attempts.skip(&skipped);
        assert_eq!(
            attempts.held(Timestamp::MIN).open.threads,
            1,
            "although none is settled"
        );
        attempts.free([slot, skipped, given_back]);
        assert_eq!(attempts.held(Timestamp::MIN).open.threads, 0);
    }

    /// P9: also those that came along with a caller's commit.
    #[test]
    fn every_claim_is_a_turn_of_its_queue() {
        let (attempts, _, _) = attempts();
        attempts.take_claimed_queues();
        for queue in ["a", "b", "b", "a"] {
            let claim = Claim {
                queue: Arc::from(queue),
                ..claim(1, 0, 3)
            };
            let _ = add(&attempts, claim);
        }
        let took = attempts.take_claimed_queues();
        assert_eq!(
            took.iter().map(|q| &**q).collect::<Vec<_>>(),
            ["a", "b", "a"]
        );
        assert!(attempts.take_claimed_queues().is_empty());
    }

    /// Each time would take a spare thread.
    #[test]
    fn a_handler_that_is_stuck_is_counted_once_however_often_it_is_cancelled() {
        let (attempts, slot, _token) = attempts();
        let fence = claim(1, 0, 3).fence;
        attempts.start(&slot, None, None);
        let mut counted = 0;
        for round in 0..3 {
            let now = Timestamp::MIN + round * 2 * STUCK_AFTER;
            drop(attempts.raise(&HashSet::from([fence]), StopReason::Cancelled, now));
            counted += attempts.look(now + STUCK_AFTER).newly_stuck.threads;
        }
        assert_eq!((counted, attempts.stuck().threads), (1, 1));
        assert_eq!(attempts.end(&slot), (1, true));
        assert_eq!(attempts.stuck().threads, 0);
    }

    #[test]
    fn what_has_ended_is_not_looked_at() {
        let (attempts, slot, _token) = attempts();
        attempts.start(&slot, Some(Timestamp::MIN + S), None);
        assert_eq!(attempts.end(&slot), (1, false));
        drop(attempts.raise(
            &HashSet::from([claim(1, 0, 3).fence]),
            StopReason::Cancelled,
            Timestamp::MIN,
        ));
        assert_eq!(attempts.look(Timestamp::MAX).newly_stuck.threads, 0);
        drop(slot);
        assert_eq!(attempts.count(), 0);
    }

    #[test]
    fn a_slot_is_used_again_and_what_is_held_is_counted() {
        let capped: Arc<str> = "capped".into();
        let attempts = Arc::new(Attempts::new(Wake::new(), [&capped].into_iter(), 0));
        let suspect = Claim {
            class: Class::Suspect(Level::ALONE),
            queue: Arc::clone(&capped),
            ..claim(2, 1, 3)
        };
        let (first, _) = add(&attempts, suspect);
        let (second, _) = add(&attempts, claim(1, 0, 3));
        let held = attempts.held(Timestamp::MIN);
        assert_eq!((attempts.count(), held.capped["capped"]), (2, 1));
        assert_eq!(held.suspects.lowest, Some(Level::ALONE));
        assert_eq!(held.suspects.count, 1);
        let index = first.index;
        drop(first);
        let held = attempts.held(Timestamp::MIN);
        assert_eq!((attempts.count(), held.capped["capped"]), (1, 0));
        assert_eq!(held.suspects, Suspects::default());
        let (third, _) = add(&attempts, claim(1, 0, 3));
        assert_eq!(third.index, index);
        attempts.free([second]);
        assert_eq!(
            (attempts.count(), attempts.held(Timestamp::MIN).open.threads),
            (1, 1)
        );
        drop(third);
        assert_eq!(
            (attempts.count(), attempts.held(Timestamp::MIN).open.threads),
            (0, 0)
        );
    }

    /// It held back all suspects for as long as it ran.
    #[test]
    fn a_task_that_was_in_a_process_which_lost_its_power_is_no_suspect() {
        let attempts = Arc::new(Attempts::new(Wake::new(), std::iter::empty(), 0));
        let _held = add(&attempts, claim(2, 1, 3));
        assert_eq!(attempts.held(Timestamp::MIN).suspects, Suspects::default());
    }

    /// P8: the request to stop is not handed on to the next task.
    #[test]
    fn a_token_that_is_used_again_is_not_raised() {
        let (attempts, slot, token) = attempts();
        drop(attempts.raise_all(StopReason::Cancelled));
        drop(slot);
        let (slot, kept) = add(&attempts, claim(1, 0, 3));
        assert_eq!(kept.reason(), None, "the old one was still in use");
        assert_eq!(token.reason(), Some(StopReason::Cancelled));
        drop(attempts.raise_all(StopReason::ShuttingDown));
        drop((slot, kept));
        let (_place, again) = add(&attempts, claim(1, 0, 3));
        assert_eq!(again.reason(), None);
    }
}
