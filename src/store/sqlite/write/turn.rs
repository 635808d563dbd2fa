//! The one write connection, taken in turns by the threads that have something to write.
//!
//! Whoever finds the turn free leads: on its own thread it takes what has queued, runs it in one transaction, commits,
//! hands out the replies, and goes on until the queue is empty. So a lone caller pays no thread switch, and many share one
//! sync. A follower sleeps until its reply or its turn: a leader that has served enough hands the turn on. What the
//! scheduler writes of its own accord nobody serves in a transaction of its own: it shares the next caller's, or its thread
//! is invited to lead, if that comes sooner.
//!
//! Invariants:
//! 1. While `leading` is set exactly one thread leads, or has been told to; nobody else touches the writer.
//! 2. A request is answered exactly once, or taken out of the queue by the caller who gave up.
//! 3. A reply is given after its COMMIT.
//! 4. Nothing of the program's runs while a thread holds the writer, except the closure of its own transaction. Wakers are
//!    called after that. What a `tracing` subscriber or a SQL function asks of the store is refused at once, as `Reentrant`.
//!
//! The turn is the only lock that callers wait for and that is held over I/O.

mod exclusive;
mod reign;
#[cfg(test)]
mod tests;
mod wakers;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::model::op::{Op, Reply};
use crate::panics::survive;
use crate::process::Owner;
use crate::store::Pending;
use crate::store::sqlite::write::turn::exclusive::Inside;
use crate::store::sqlite::write::turn::reign::{Next, Reign};
use crate::store::sqlite::write::turn::wakers::Wakers;
use crate::store::sqlite::write::writer::Writer;
use crate::tell::tell;
use crate::thread::Thread;
use crate::time::{Deadline, MAX_PARK, Timestamp};
use crate::wake::{Wake, lock};

/// How many requests may wait.
const MAX_QUEUED: usize = 4096;
/// How long what only settles waits for a caller's transaction to share.
const PATIENCE: Duration = Duration::from_micros(500);

/// Operations of one call: one transaction, with what else is there.
pub(crate) struct Request {
    pub(crate) now: Timestamp,
    pub(crate) ops: Vec<Op>,
    cell: Arc<Cell>,
    wakers: Arc<Wakers>,
    is_answered: bool,
}

impl Request {
    /// Answers it; the first answer counts. What was asked goes back with the answer: to free it is not a leader's work.
    pub(crate) fn answer(&mut self, answer: Result<Vec<Reply>>) {
        if std::mem::replace(&mut self.is_answered, true) {
            return;
        }
        let (thread, waker) = {
            let mut state = lock(&self.cell.state);
            state.stage = Stage::Done(answer);
            state.spent = std::mem::take(&mut self.ops);
            (state.thread.take(), state.waker.take())
        };
        if let Some(thread) = thread {
            thread.unpark();
        }
        if let Some(waker) = waker {
            self.wakers.push(waker);
        }
    }

    /// Whether somebody was promised that it is on disk, or stands in line to write.
    pub(crate) fn is_durable(&self) -> bool {
        self.cell.sort == Sort::Exclusive || self.ops.iter().any(Op::is_durable)
    }

    pub(crate) fn must_sync(&self) -> bool {
        self.ops.iter().any(Op::must_sync)
    }
}

/// A request that is dropped without an answer was in the hands of a leader that panicked.
impl Drop for Request {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        self.answer(Err(Error::new(
            ErrorKind::Unknown,
            "the write was interrupted by a panic: it may or may not be stored",
        )));
    }
}

/// Where a request and its caller meet.
#[derive(Debug)]
struct Cell {
    state: Mutex<CellState>,
    sort: Sort,
}

/// How a request is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// By whoever leads.
    Shared,
    /// Likewise, and its thread looks by itself whether the turn is free, after [`PATIENCE`].
    Patient,
    /// By its own thread alone.
    Exclusive,
}

impl Sort {
    fn of(ops: &[Op]) -> Self {
        // Nobody minds if it waits a little: nothing starts with it.
        let is_patient = |op: &Op| matches!(op, Op::Settle(_) | Op::Prune { .. });
        if ops.iter().all(is_patient) {
            Self::Patient
        } else {
            Self::Shared
        }
    }
}

#[derive(Debug)]
struct CellState {
    stage: Stage,
    /// What was asked, once it is answered.
    spent: Vec<Op>,
    waker: Option<Waker>,
    /// Who is parked for it, and can lead.
    thread: Option<thread::Thread>,
}

impl CellState {
    /// The answer, if it has come.
    fn take(&mut self) -> Option<Result<Vec<Reply>>> {
        match std::mem::replace(&mut self.stage, Stage::Taken) {
            Stage::Done(answer) => Some(answer),
            other => {
                self.stage = other;
                None
            }
        }
    }
}

#[derive(Debug)]
enum Stage {
    Queued,
    /// The turn was handed to the thread that waits.
    Lead,
    /// The turn was free, and may be still.
    Invited,
    Done(Result<Vec<Reply>>),
    /// The answer was taken, or nobody waits for it.
    Taken,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    leading: bool,
    /// How many callers the last batch had.
    last: usize,
}

impl Queue {
    fn position(&self, cell: &Arc<Cell>) -> Option<usize> {
        let mut requests = self.requests.iter();
        requests.position(|each| Arc::ptr_eq(&each.cell, cell))
    }

    /// Takes out a request for whose answer nobody waits.
    fn remove(&mut self, index: usize) {
        if let Some(mut request) = self.requests.remove(index) {
            request.is_answered = true;
        }
    }
}

/// The queue before the writer, and the writer.
pub(crate) struct Turn {
    owner: Owner,
    queue: Mutex<Queue>,
    /// How many requests wait, for an operation that can be short.
    waiting: Arc<AtomicUsize>,
    space: Condvar,
    /// How many callers wait for room in the queue.
    crowd: AtomicUsize,
    writer: Mutex<Writer>,
    /// The thread that holds the writer; 0: none.
    inside: AtomicUsize,
    /// The wakers of those that were answered.
    wakers: Arc<Wakers>,
    wait: Duration,
    helper: Mutex<Option<Helper>>,
}

/// The thread that leads for callers that do not wait.
struct Helper {
    wake: Wake,
    _thread: Thread,
}

impl Turn {
    /// `wait` bounds how long a call waits to be served.
    pub(crate) fn new(writer: Writer, wait: Duration) -> Self {
        Self {
            owner: Owner::this(),
            queue: Mutex::default(),
            waiting: writer.waiting(),
            space: Condvar::new(),
            crowd: AtomicUsize::new(0),
            writer: Mutex::new(writer),
            inside: AtomicUsize::new(0),
            wakers: Arc::default(),
            wait,
            helper: Mutex::new(None),
        }
    }

    /// Applies operations and waits for their commit.
    pub(crate) fn apply(&self, now: Timestamp, ops: Vec<Op>) -> Result<Vec<Reply>> {
        let sort = Sort::of(&ops);
        let (cell, leads) = self.enqueue(now, ops, sort, Some(thread::current()))?;
        if leads {
            self.lead(Some(&cell));
        }
        self.wait_for(&cell)
    }

    /// Queues operations for the helper thread, or whoever leads before it.
    pub(crate) fn submit(self: &Arc<Self>, now: Timestamp, ops: Vec<Op>) -> Result<Submitted> {
        let helper = self.helper()?;
        let sort = Sort::of(&ops);
        let (cell, leads) = self.enqueue(now, ops, sort, None)?;
        if leads {
            // `leading` is set on its behalf.
            helper.notify();
        }
        Ok(Submitted {
            turn: Arc::clone(self),
            cell,
        })
    }

    /// Leads for operations if the turn is free; else they wait for whoever leads next.
    pub(crate) fn defer(self: &Arc<Self>, now: Timestamp, ops: Vec<Op>) -> Result<Submitted> {
        let sort = Sort::of(&ops);
        let (cell, leads) = self.enqueue(now, ops, sort, None)?;
        if leads {
            self.lead(None);
        }
        Ok(Submitted {
            turn: Arc::clone(self),
            cell,
        })
    }

    /// Runs `look` on the writer while nobody leads.
    pub(crate) fn with_writer<T>(&self, look: impl FnOnce(&mut Writer) -> T) -> T {
        look(&mut self.writer())
    }

    /// Runs `look` on the writer, unless somebody leads just now.
    pub(crate) fn with_idle_writer<T>(&self, look: impl FnOnce(&mut Writer) -> T) -> Option<T> {
        let writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(writer)) => writer.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(look(&mut Inside::enter(&self.inside, writer)))
    }

    /// Serves what is still queued, for a store that is dropped: the helper does not come for it any more. Nobody queues
    /// anything by then; whoever leads meanwhile, the writer's lock keeps them apart.
    pub(crate) fn finish(&self) {
        let deadline = Deadline::after(self.wait);
        while !lock(&self.queue).requests.is_empty() {
            self.lead(None);
            if deadline.is_over() {
                return;
            }
        }
    }

    /// Queues a request. `true`: the turn was free and is the caller's to lead.
    fn enqueue(
        &self,
        now: Timestamp,
        ops: Vec<Op>,
        sort: Sort,
        thread: Option<thread::Thread>,
    ) -> Result<(Arc<Cell>, bool)> {
        let cell = Arc::new(Cell {
            state: Mutex::new(CellState {
                stage: Stage::Queued,
                spent: Vec::new(),
                waker: None,
                thread,
            }),
            sort,
        });
        let mut queue = self.room()?;
        queue.requests.push_back(Request {
            now,
            ops,
            cell: Arc::clone(&cell),
            wakers: Arc::clone(&self.wakers),
            is_answered: false,
        });
        self.waiting.store(queue.requests.len(), Ordering::Relaxed);
        let leads = !std::mem::replace(&mut queue.leading, true);
        Ok((cell, leads))
    }

    /// The queue, once it has room for another request.
    fn room(&self) -> Result<MutexGuard<'_, Queue>> {
        let mut queue = lock(&self.queue);
        let mut deadline = None;
        while queue.requests.len() >= MAX_QUEUED {
            let deadline = deadline.get_or_insert_with(|| Deadline::after(self.wait));
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                return Err(busy("the queue of writes is full"));
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

    /// Waits until the request of the calling thread is answered, and leads if it is its turn. Its cell knows the thread.
    fn wait_for(&self, cell: &Arc<Cell>) -> Result<Vec<Reply>> {
        let deadline = Deadline::after(self.wait);
        loop {
            match self.wait_for_turn(cell, deadline)? {
                Waited::Answered(answer) => return answer,
                Waited::Leads => self.lead(Some(cell)),
            }
        }
    }

    /// Parks until the request of the calling thread is answered, or it is its turn to lead.
    fn wait_for_turn(&self, cell: &Arc<Cell>, deadline: Deadline) -> Result<Waited> {
        let patience = match cell.sort {
            Sort::Patient => PATIENCE,
            Sort::Shared | Sort::Exclusive => MAX_PARK,
        };
        let mut state = lock(&cell.state);
        loop {
            match std::mem::replace(&mut state.stage, Stage::Taken) {
                Stage::Done(answer) => return Ok(Waited::Answered(answer)),
                Stage::Lead => {
                    state.stage = Stage::Queued;
                    return Ok(Waited::Leads);
                }
                Stage::Invited => {
                    state.stage = Stage::Queued;
                    drop(state);
                    // Whoever leads by now will come upon our request.
                    if !std::mem::replace(&mut lock(&self.queue).leading, true) {
                        return Ok(Waited::Leads);
                    }
                    state = lock(&cell.state);
                    continue;
                }
                other => state.stage = other,
            }
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                drop(state);
                if self.give_up(cell) {
                    return Err(busy("the writes before this one took too long"));
                }
                // It is in a transaction, or the turn is coming to us: both are bounded.
                state = lock(&cell.state);
                if matches!(state.stage, Stage::Queued) {
                    drop(state);
                    thread::park_timeout(MAX_PARK);
                    state = lock(&cell.state);
                }
                continue;
            }
            drop(state);
            thread::park_timeout(remaining.min(patience));
            state = lock(&cell.state);
            if patience == PATIENCE && matches!(state.stage, Stage::Queued) {
                // No caller came whose transaction it could share.
                state.stage = Stage::Invited;
            }
        }
    }

    /// Takes a request out of the queue, if nobody has begun with it and the turn was not handed to it.
    fn give_up(&self, cell: &Arc<Cell>) -> bool {
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
            // It may have been the one that was invited.
            queue.leading = true;
            self.hand_on(&mut queue);
        }
        true
    }

    /// Serves the queue until it is empty or somebody else's turn has come; `own`: what the calling thread waits for. Only
    /// for whom `leading` was set.
    fn lead(&self, own: Option<&Arc<Cell>>) {
        // Dropped in the reverse order: the writer is free and the turn is handed on before a waker is called.
        let _wakers = CallOnDrop(self);
        let mut reign = Reign::new(self, own);
        let mut writer = self.writer();
        while let Next::Batch(batch) = reign.next() {
            writer.run(batch);
        }
    }

    /// Takes the writer. Until it is given back the calling thread is refused at the store's door.
    fn writer(&self) -> Inside<'_> {
        Inside::enter(&self.inside, lock(&self.writer))
    }

    fn helper(self: &Arc<Self>) -> Result<Wake> {
        let mut helper = lock(&self.helper);
        if let Some(helper) = &*helper {
            return Ok(helper.wake.clone());
        }
        let wake = Wake::new();
        let (woken, turn) = (wake.clone(), Arc::downgrade(self));
        let thread = Thread::spawn("punctual-writer", move || {
            loop {
                let notified = woken.wait(Duration::from_secs(1));
                let Some(turn) = turn.upgrade() else { return };
                if notified && survive(|| turn.lead(None)).is_none() {
                    tell!(error, "a write panicked; the others go on");
                }
            }
        })?;
        *helper = Some(Helper {
            wake: wake.clone(),
            _thread: thread,
        });
        Ok(wake)
    }
}

/// Calls the wakers when it is dropped, even by a panic; not in a forked child, whose parent does so.
struct CallOnDrop<'a>(&'a Turn);

impl Drop for CallOnDrop<'_> {
    fn drop(&mut self) {
        if self.0.wakers.any() && self.0.owner.is_here() {
            self.0.wakers.call();
        }
    }
}

/// What a wait for the turn has come to.
enum Waited {
    Answered(Result<Vec<Reply>>),
    /// `leading` is set on behalf of who waited.
    Leads,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").finish_non_exhaustive()
    }
}

fn busy(why: &str) -> Error {
    Error::new(ErrorKind::Busy, why)
}

/// A request on its way to the helper thread.
pub(crate) struct Submitted {
    turn: Arc<Turn>,
    cell: Arc<Cell>,
}

impl Pending for Submitted {
    fn wait(self: Box<Self>) -> Result<Vec<Reply>> {
        {
            let mut state = lock(&self.cell.state);
            if !matches!(state.stage, Stage::Done(_)) {
                // It would wait for its own transaction. What was asked is done after that, and nobody hears of it.
                self.turn.check_reentrant()?;
            }
            state.thread = Some(thread::current());
            if self.cell.sort == Sort::Patient && matches!(state.stage, Stage::Queued) {
                // It has been patient for long enough.
                state.stage = Stage::Invited;
            }
        }
        self.turn.wait_for(&self.cell)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Reply>>> {
        if let Some(answer) = lock(&self.cell.state).take() {
            return Poll::Ready(answer);
        }
        // To clone and to drop a waker is to call the program's code: not under the lock, which whoever leads waits for.
        let mut waker = Some(cx.waker().clone());
        let answer = {
            let mut state = lock(&self.cell.state);
            let answer = state.take();
            if answer.is_none() {
                std::mem::swap(&mut state.waker, &mut waker);
            }
            answer
        };
        drop(waker);
        answer.map_or(Poll::Pending, Poll::Ready)
    }

    fn withdraw(self: Box<Self>) {
        self.turn.give_up(&self.cell);
    }
}
