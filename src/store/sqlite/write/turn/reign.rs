//! Who leads, what is served, and whom the turn goes to after that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Cell, Queue, Request, Sort, Stage, Turn};
use crate::time::Stopwatch;
use crate::wake::lock;

/// How much a leader serves before it hands the turn on.
pub(crate) const MAX_REIGN_OPS: usize = 256;
const MAX_REIGN: Duration = Duration::from_millis(5);
/// How often a leader lets others run who may come to share his next transaction.
const YIELDS: usize = 2;

/// One thread's time at the writer. Dropped, even by a panic, it leaves the turn free or in other hands.
pub(crate) struct Reign<'a> {
    turn: &'a Turn,
    /// What the thread itself waits for.
    own: Option<&'a Arc<Cell>>,
    since: Stopwatch,
    served: usize,
    over: bool,
}

impl<'a> Reign<'a> {
    pub(crate) fn new(turn: &'a Turn, own: Option<&'a Arc<Cell>>) -> Self {
        Self {
            turn,
            own,
            since: Stopwatch::start(),
            served: 0,
            over: false,
        }
    }

    /// What is to be served next.
    pub(crate) fn next(&mut self) -> Next {
        let mut queue = lock(&self.turn.queue);
        for _ in 0..YIELDS {
            if !(1..queue.last).contains(&callers(&queue.requests)) {
                break;
            }
            // Those who were just answered may be about to come again, and can share the next transaction.
            drop(queue);
            std::thread::yield_now();
            queue = lock(&self.turn.queue);
        }
        let front = queue.requests.front().map(|request| &request.cell);
        let is_exclusive = front.is_some_and(|cell| cell.sort == Sort::Exclusive);
        if is_exclusive
            && self
                .own
                .zip(front)
                .is_some_and(|(own, front)| Arc::ptr_eq(own, front))
            && let Some(mut request) = queue.requests.pop_front()
        {
            // Who asked is here.
            request.is_answered = true;
            self.served += 1;
            drop(queue);
            self.delegate_wakers();
            return Next::Own;
        }
        let is_over = self.served > 0
            && (self.served >= MAX_REIGN_OPS
                || self.since.elapsed() >= MAX_REIGN
                || !queue.requests.iter().any(Request::is_durable));
        if queue.requests.is_empty() || is_over || is_exclusive {
            self.over = true;
            self.turn.hand_on(&mut queue);
            return Next::Over;
        }
        let batch = take_batch(&mut queue.requests);
        queue.last = callers(&batch);
        self.turn
            .waiting
            .store(queue.requests.len(), Ordering::Relaxed);
        drop(queue);
        if self.turn.crowd.load(Ordering::SeqCst) > 0 {
            self.turn.space.notify_all();
        }
        self.served += batch.iter().map(|request| request.ops.len()).sum::<usize>();
        self.delegate_wakers();
        Next::Batch(batch)
    }

    /// The receipts that are answered do not wait for the transactions to come.
    fn delegate_wakers(&self) {
        if self.turn.wakers.any() {
            self.turn.wakers.delegate();
        }
    }
}

/// What a leader serves.
pub(crate) enum Next {
    Batch(Vec<Request>),
    /// The exclusive request of the leader's own thread.
    Own,
    /// Nothing: the turn is given up.
    Over,
}

impl Drop for Reign<'_> {
    fn drop(&mut self) {
        if self.over || !self.turn.owner.is_here() {
            // Nor does a forked child hand on what is its parent's.
            return;
        }
        let mut queue = lock(&self.turn.queue);
        // The thread unwinds: it does not come back for its answer, nor to lead.
        if let Some(index) = self.own.and_then(|own| queue.position(own)) {
            queue.remove(index);
        }
        self.turn.hand_on(&mut queue);
    }
}

/// How many of these are not the scheduler's own.
fn callers<'a>(requests: impl IntoIterator<Item = &'a Request>) -> usize {
    requests
        .into_iter()
        .filter(|each| each.is_durable())
        .count()
}

/// The requests that share the next transaction. Whether it is synced is decided when it closes, by what is in it.
fn take_batch(requests: &mut VecDeque<Request>) -> Vec<Request> {
    let mut batch = Vec::new();
    let mut ops = 0;
    while let Some(request) = requests.front() {
        if ops >= MAX_REIGN_OPS || request.cell.sort == Sort::Exclusive {
            break;
        }
        ops += request.ops.len();
        batch.extend(requests.pop_front());
    }
    batch
}

impl Turn {
    /// Gives the turn to the first caller who can take it, or sets it free.
    pub(super) fn hand_on(&self, queue: &mut Queue) {
        let waits = |request: &&Request| {
            let state = lock(&request.cell.state);
            state.thread.is_some() && matches!(state.stage, Stage::Queued | Stage::Invited)
        };
        let tell = |request: &Request, stage: Stage| {
            let mut state = lock(&request.cell.state);
            state.stage = stage;
            if let Some(thread) = &state.thread {
                thread.unpark();
            }
        };
        let mut durable = queue.requests.iter().filter(|each| each.is_durable());
        if let Some(next) = durable.find(waits) {
            return tell(next, Stage::Lead);
        }
        if callers(&queue.requests) > 0
            && let Some(helper) = &*lock(&self.helper)
        {
            // Only submitted ones.
            return helper.wake.notify();
        }
        // A caller who comes before the one who is invited wakes takes the turn, and his request along. The patient ones
        // look for themselves.
        queue.leading = false;
        let mut own = queue
            .requests
            .iter()
            .filter(|each| each.cell.sort != Sort::Patient);
        if let Some(next) = own.find(waits) {
            tell(next, Stage::Invited);
        }
    }
}
