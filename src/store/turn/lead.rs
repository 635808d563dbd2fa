//! One thread's time as the leader: what it serves, and when it hands the turn on.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::line::{Line, Queue, callers};
use super::request::{Cell, Request, Sort};
use crate::sync::lock;
use crate::time::{Deadline, Stopwatch};

/// One thread's time as the leader. Dropping it, even by a panic, frees the turn or hands it on.
pub(crate) struct Lead<'a> {
    line: &'a Line,
    /// The request that the thread itself waits for.
    own: Option<&'a Arc<Cell>>,
    /// The thread is a helper, which calls wakers itself once it has led.
    is_helper: bool,
    since: Stopwatch,
    /// When the last transaction began.
    began: Stopwatch,
    served: usize,
    over: bool,
}

impl<'a> Lead<'a> {
    pub(crate) fn new(line: &'a Line, own: Option<&'a Arc<Cell>>) -> Self {
        Self {
            line,
            own,
            is_helper: false,
            since: Stopwatch::start(),
            began: Stopwatch::start(),
            served: 0,
            over: false,
        }
    }

    /// The time of a helper.
    pub(crate) fn of_helper(line: &'a Line) -> Self {
        let mut lead = Self::new(line, None);
        lead.is_helper = true;
        lead
    }

    /// What is to be served next.
    pub(crate) fn next(&mut self) -> Step {
        let line = self.line;
        let mut queue = lock(&line.queue);
        if self.served > 0 && self.line.helpers.have_new_wakers() {
            // Before the next transaction is made up: the tasks of receipts may come to share it.
            if self.line.helpers.have_new_receipts() {
                queue.regroups_until = Some(Deadline::after(self.regroup()));
            }
            if self.is_helper {
                return self.end(&mut queue);
            }
            // If there is no helper, they wait until this thread has led.
            drop(queue);
            line.helpers.wake();
            queue = lock(&line.queue);
        }
        queue = self.gather(queue);
        let front = queue.requests.front().map(|request| &request.cell);
        let is_exclusive = front.is_some_and(|cell| cell.sort == Sort::Exclusive);
        if is_exclusive
            && self
                .own
                .zip(front)
                .is_some_and(|(own, front)| Arc::ptr_eq(own, front))
            && let Some(request) = queue.requests.pop_front()
        {
            // The thread that asked is this one: it needs no answer.
            request.forget();
            self.served += 1;
            self.line.count(&queue);
            return Step::Own;
        }
        let is_over = self.has_served_enough()
            || self.served > 0 && !queue.requests.iter().any(Request::is_durable);
        if queue.requests.is_empty() || is_over || is_exclusive {
            return self.end(&mut queue);
        }
        let batch = take_batch(&mut queue.requests, self.line.pace.max_lead_ops);
        queue.last = callers(&batch);
        queue.regroups_until = None;
        self.line.count(&queue);
        drop(queue);
        if self.line.crowd.load(Ordering::SeqCst) > 0 {
            self.line.space.notify_all();
        }
        self.served += batch.iter().map(|request| request.ops.len()).sum::<usize>();
        self.began = Stopwatch::start();
        Step::Batch(batch)
    }

    fn has_served_enough(&self) -> bool {
        let pace = &self.line.pace;
        self.served > 0
            && (self.served >= pace.max_lead_ops || self.since.elapsed() >= pace.max_lead)
    }

    /// Waits for callers that were just answered: they may be about to come again, and can share the next transaction.
    fn gather(&self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        let line = self.line;
        let mut yields = 0;
        while (1..queue.last).contains(&callers(&queue.requests))
            && (yields < line.pace.yields || self.regroups(&queue))
        {
            drop(queue);
            std::thread::yield_now();
            yields += 1;
            queue = lock(&line.queue);
        }
        queue
    }

    /// Whether to wait for tasks whose receipts the last transaction has answered: a runtime has to start them first.
    fn regroups(&self, queue: &Queue) -> bool {
        let front = queue.requests.front();
        let is_shared = front.is_some_and(|request| request.cell.sort != Sort::Exclusive);
        let until = queue.regroups_until;
        is_shared && !self.has_served_enough() && until.is_some_and(|until| !until.is_over())
    }

    /// How long the next leader may wait for tasks whose receipts the last transaction has answered.
    fn regroup(&self) -> Duration {
        let pace = &self.line.pace;
        let span = self.began.elapsed().mul_f64(pace.regroup);
        span.min(pace.max_lead)
    }

    fn end(&mut self, queue: &mut Queue) -> Step {
        self.over = true;
        self.line.hand_on(queue);
        Step::Over
    }
}

/// What a leader serves.
pub(crate) enum Step {
    Batch(Vec<Request>),
    /// The exclusive request of the leader's own thread.
    Own,
    /// Nothing: the turn is given up.
    Over,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if self.over || !self.line.owner.is_here() {
            // A forked child does not hand the turn on: it is its parent's.
            return;
        }
        let mut queue = lock(&self.line.queue);
        // The thread unwinds: it will neither take its answer nor lead.
        if let Some(index) = self.own.and_then(|own| queue.position(own)) {
            queue.remove(index);
        }
        self.line.hand_on(&mut queue);
    }
}

/// Takes the requests that share the next transaction. Their contents decide whether it is synced.
fn take_batch(requests: &mut VecDeque<Request>, max_ops: usize) -> Vec<Request> {
    let mut batch = Vec::new();
    let mut ops = 0;
    while let Some(request) = requests.front() {
        if ops >= max_ops || request.cell.sort == Sort::Exclusive {
            break;
        }
        ops += request.ops.len();
        batch.extend(requests.pop_front());
    }
    batch
}
