//! The line before the writer: the requests that wait, and the right to lead.
//!
//! The invariants of `leading` stand in the parent module.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::helpers::Helpers;
use super::request::{Cell, Request, Sort, Stage};
use crate::error::{Error, ErrorKind, Result};
use crate::model::op::Op;
use crate::process::Owner;
use crate::store::Pace;
use crate::sync::lock;
use crate::time::{Deadline, Timestamp};

/// How many requests may wait, at most.
pub(crate) const MAX_QUEUED: usize = 4096;

/// Called for a write that was not served, with its request time and the error.
pub(crate) type OnRefused = Box<dyn Fn(Timestamp, &Error) + Send + Sync>;

#[derive(Default)]
pub(super) struct Queue {
    pub(super) requests: VecDeque<Request>,
    /// A thread leads, or has been told to.
    pub(super) leading: bool,
    /// How many callers the last batch had.
    pub(super) last: usize,
    /// Until then a leader waits for as many callers as the last batch had: the wakers of some are being called.
    pub(super) regroups_until: Option<Deadline>,
}

impl Queue {
    pub(super) fn position(&self, cell: &Arc<Cell>) -> Option<usize> {
        let mut requests = self.requests.iter();
        requests.position(|each| Arc::ptr_eq(&each.cell, cell))
    }

    /// Takes out a request whose answer is not waited for.
    pub(super) fn remove(&mut self, index: usize) {
        if let Some(request) = self.requests.remove(index) {
            request.forget();
        }
    }
}

/// The requests that wait for the writer, and the right to lead.
pub(super) struct Line {
    pub(super) owner: Owner,
    pub(super) queue: Mutex<Queue>,
    /// How many requests wait: read by operations that can be cut short.
    pub(super) waiting: Arc<AtomicUsize>,
    pub(super) space: Condvar,
    /// How many callers wait for room in the queue.
    pub(super) crowd: AtomicUsize,
    pub(super) helpers: Arc<Helpers>,
    /// How long a call waits to be served.
    pub(super) wait: Duration,
    pub(super) pace: Pace,
    on_refused: OnRefused,
}

impl Line {
    pub(super) fn new(
        waiting: Arc<AtomicUsize>,
        on_refused: OnRefused,
        wait: Duration,
        pace: Pace,
        helpers: Arc<Helpers>,
    ) -> Self {
        Self {
            owner: Owner::this(),
            queue: Mutex::default(),
            waiting,
            space: Condvar::new(),
            crowd: AtomicUsize::new(0),
            helpers,
            wait,
            pace,
            on_refused,
        }
    }

    /// Reports a request that is not served, and returns its error. `asked_at`: the request time of a write; `None`: it is a
    /// read.
    pub(super) fn refuse(&self, asked_at: Option<Timestamp>, why: &str) -> Error {
        let error = Error::new(ErrorKind::Busy, why);
        if let Some(asked_at) = asked_at {
            (self.on_refused)(asked_at, &error);
        }
        error
    }

    /// Queues a request; `now` is `None` for a read. `true`: the turn was free, and the caller must lead.
    pub(super) fn enqueue(
        &self,
        now: Option<Timestamp>,
        ops: Vec<Op>,
        sort: Sort,
        thread: Option<thread::Thread>,
    ) -> Result<(Arc<Cell>, bool)> {
        let (cell, mut queue) = self.push(now, ops, sort, thread)?;
        let leads = !std::mem::replace(&mut queue.leading, true);
        drop(queue);
        Ok((cell, leads))
    }

    /// Queues a durable write for the next leader, a helper if no caller comes before it.
    pub(super) fn leave(&self, now: Timestamp, ops: Vec<Op>) -> Result<Arc<Cell>> {
        debug_assert!(ops.iter().any(Op::is_durable), "no helper would come");
        let (cell, queue) = self.push(Some(now), ops, Sort::Shared, None)?;
        self.ask_helper(queue);
        Ok(cell)
    }

    /// As [`leave`](Self::leave), but gives the operations back if the queue is full.
    pub(super) fn try_leave(
        &self,
        now: Timestamp,
        ops: Vec<Op>,
    ) -> std::result::Result<Arc<Cell>, Vec<Op>> {
        debug_assert!(ops.iter().any(Op::is_durable), "no helper would come");
        let mut queue = lock(&self.queue);
        if queue.requests.len() >= MAX_QUEUED {
            return Err(ops);
        }
        let cell = Arc::new(Cell::new(Some(now), Sort::Shared, None));
        self.add(&mut queue, Some(now), ops, &cell);
        self.ask_helper(queue);
        Ok(cell)
    }

    /// Has a helper lead for what was queued, unless a thread leads.
    fn ask_helper(&self, queue: MutexGuard<'_, Queue>) {
        let is_led = queue.leading;
        drop(queue);
        if !is_led {
            self.helpers.lead();
        }
    }

    /// Takes the turn for a helper, if it is free and a durable request waits.
    pub(super) fn take_turn(&self) -> bool {
        let mut queue = lock(&self.queue);
        let takes = !queue.leading && callers(&queue.requests) > 0;
        queue.leading |= takes;
        takes
    }

    fn push(
        &self,
        now: Option<Timestamp>,
        ops: Vec<Op>,
        sort: Sort,
        thread: Option<thread::Thread>,
    ) -> Result<(Arc<Cell>, MutexGuard<'_, Queue>)> {
        let cell = Arc::new(Cell::new(now, sort, thread));
        // A probe asks whether a write succeeds now.
        let wait = match ops.as_slice() {
            [Op::Probe] => Duration::ZERO,
            _ => self.wait,
        };
        let mut queue = self.room(now, wait)?;
        self.add(&mut queue, now, ops, &cell);
        Ok((cell, queue))
    }

    fn add(&self, queue: &mut Queue, now: Option<Timestamp>, ops: Vec<Op>, cell: &Arc<Cell>) {
        let (now, helpers) = (now.unwrap_or(Timestamp::MIN), Arc::clone(&self.helpers));
        let request = Request::new(now, ops, Arc::clone(cell), helpers);
        queue.requests.push_back(request);
        self.count(queue);
    }

    /// Notes how many requests wait: those being served are not in the queue any more.
    pub(super) fn count(&self, queue: &Queue) {
        self.waiting.store(queue.requests.len(), Ordering::Relaxed);
    }

    /// Waits until the queue has room for a request of `asked_at`.
    fn room(&self, asked_at: Option<Timestamp>, wait: Duration) -> Result<MutexGuard<'_, Queue>> {
        let mut queue = lock(&self.queue);
        let mut deadline = None;
        while queue.requests.len() >= MAX_QUEUED {
            let deadline = deadline.get_or_insert_with(|| Deadline::after(wait));
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                drop(queue);
                return Err(self.refuse(asked_at, "the queue of writes is full"));
            }
            self.crowd.fetch_add(1, Ordering::SeqCst);
            queue = self
                .space
                .wait_timeout(queue, remaining)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            self.crowd.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(queue)
    }

    /// Takes a request out of the queue, unless a leader has begun to serve it or the turn was handed to it.
    pub(super) fn give_up(&self, cell: &Arc<Cell>) -> bool {
        let mut queue = lock(&self.queue);
        let Some(index) = queue.position(cell) else {
            return false;
        };
        let mut state = lock(&cell.state);
        if !matches!(state.stage, Stage::Queued | Stage::Invited) {
            return false;
        }
        state.stage = Stage::Taken;
        drop(state);
        queue.remove(index);
        if !queue.leading {
            // It may have been the invited request: another must be.
            queue.leading = true;
            self.hand_on(&mut queue);
        }
        true
    }

    /// Hands the turn to the first waiting thread that can lead, or frees it.
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
        // A new caller may lead before the helper or the invited thread wakes; it then serves these requests, too.
        queue.leading = false;
        if callers(&queue.requests) > 0 && self.helpers.have_started() {
            // All callers have submitted, and none of them can lead.
            return self.helpers.lead();
        }
        // Patient requests look by themselves.
        let mut own = queue
            .requests
            .iter()
            .filter(|each| each.cell.sort != Sort::Patient);
        if let Some(next) = own.find(waits) {
            tell(next, Stage::Invited);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // The helpers of a forked child's line are threads of its parent.
        if self.owner.is_here() {
            self.helpers.end();
        }
    }
}

/// How many of these come from callers, not from the scheduler.
pub(super) fn callers<'a>(requests: impl IntoIterator<Item = &'a Request>) -> usize {
    requests
        .into_iter()
        .filter(|each| each.is_durable())
        .count()
}
