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
//!    called by a thread that does nothing else. What a `tracing` subscriber or a SQL function asks of the store is refused at once, as `Reentrant`.
//!
//! The turn is the only lock held over I/O that writes wait for.

mod exclusive;
mod held;
mod lead;
mod line;
mod request;
mod wakers;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use self::held::{HeldWriter, this_thread};
use self::lead::{Lead, Step};
use self::line::{HelperThread, Line};
use self::request::{Cell, Sort, Stage};
use crate::error::{Error, ErrorKind, Result};
use crate::log::log;
use crate::model::op::{Op, Reply};
use crate::panics::survive;
use crate::store::PendingReply;
use crate::thread::Thread;
use crate::time::{Deadline, MAX_PARK, Timestamp};
use crate::wake::{Wake, lock};

pub(crate) use self::line::OnRefused;
pub(crate) use self::request::Request;
#[cfg(test)]
pub(crate) use self::{lead::MAX_LEAD_OPS, line::MAX_QUEUED};

/// What writes, one batch after the other.
pub(crate) trait Writes: Send + 'static {
    /// Runs the requests in one transaction and answers each.
    fn run(&mut self, batch: Vec<Request>);

    /// Where the turn notes how many requests wait for this one: an operation that can be short is, if there are any.
    fn waiting(&self) -> Arc<AtomicUsize>;

    /// What is told of a request that was not served, because it had waited for too long.
    fn on_refused(&self) -> OnRefused;
}

/// The queue before the writer, and the writer.
pub(crate) struct Turn<W> {
    line: Line,
    writer: Mutex<W>,
    patience: Duration,
    /// The thread that holds the writer; 0: none.
    holder: AtomicUsize,
}

impl<W: Writes> Turn<W> {
    /// `wait` bounds how long a call waits to be served. `patience`: how long what only settles waits for a caller's
    /// transaction to share.
    pub(crate) fn new(writer: W, wait: Duration, patience: Duration) -> Self {
        Self {
            line: Line::new(writer.waiting(), writer.on_refused(), wait),
            patience,
            writer: Mutex::new(writer),
            holder: AtomicUsize::new(0),
        }
    }

    /// Applies operations and waits for their commit.
    pub(crate) fn apply(&self, now: Timestamp, ops: Vec<Op>) -> Result<Vec<Reply>> {
        let sort = Sort::of(&ops);
        let (cell, leads) = self
            .line
            .enqueue(Some(now), ops, sort, Some(thread::current()))?;
        if leads {
            self.lead(Some(&cell));
        }
        self.wait_for(&cell)
    }

    /// Queues operations for the helper thread, or whoever leads before it.
    pub(crate) fn submit(self: &Arc<Self>, now: Timestamp, ops: Vec<Op>) -> Result<Submitted<W>> {
        let helper = self.helper()?;
        let sort = Sort::of(&ops);
        let (cell, leads) = self.line.enqueue(Some(now), ops, sort, None)?;
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
    pub(crate) fn defer(self: &Arc<Self>, now: Timestamp, ops: Vec<Op>) -> Result<Submitted<W>> {
        let sort = Sort::of(&ops);
        let (cell, leads) = self.line.enqueue(Some(now), ops, sort, None)?;
        if leads {
            self.lead(None);
        }
        Ok(Submitted {
            turn: Arc::clone(self),
            cell,
        })
    }

    /// Runs `look` on the writer while nobody leads.
    pub(crate) fn with_writer<T>(&self, look: impl FnOnce(&mut W) -> T) -> T {
        look(&mut self.writer())
    }

    /// Runs `look` on the writer, unless somebody leads just now.
    pub(crate) fn with_idle_writer<T>(&self, look: impl FnOnce(&mut W) -> T) -> Option<T> {
        let writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(writer)) => writer.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(look(&mut HeldWriter::enter(&self.holder, writer)))
    }

    /// Serves what is still queued, for a store that is dropped: the helper does not come for it any more. Nobody queues
    /// anything by then; whoever leads meanwhile, the writer's lock keeps them apart.
    pub(crate) fn finish(&self) {
        let deadline = Deadline::after(self.line.wait);
        while !lock(&self.line.queue).requests.is_empty() {
            self.lead(None);
            if deadline.is_over() {
                return;
            }
        }
    }

    /// Waits until the request of the calling thread is answered, and leads if it is its turn. Its cell knows the thread.
    fn wait_for(&self, cell: &Arc<Cell>) -> Result<Vec<Reply>> {
        let deadline = Deadline::after(self.line.wait);
        loop {
            match self.wait_for_turn(cell, deadline)? {
                Waited::Answered(answer) => return answer,
                Waited::Leads => self.lead(Some(cell)),
            }
        }
    }

    /// Parks until the request of the calling thread is answered, or it is its turn to lead.
    fn wait_for_turn(&self, cell: &Arc<Cell>, deadline: Deadline) -> Result<Waited> {
        let is_patient = cell.sort == Sort::Patient;
        let look_after = if is_patient { self.patience } else { MAX_PARK };
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
                    if !std::mem::replace(&mut lock(&self.line.queue).leading, true) {
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
                if self.line.give_up(cell) {
                    return Err(self
                        .line
                        .refuse(cell.asked_at, "the writes before this one took too long"));
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
            thread::park_timeout(remaining.min(look_after));
            state = lock(&cell.state);
            if is_patient && matches!(state.stage, Stage::Queued) {
                // No caller came whose transaction it could share.
                state.stage = Stage::Invited;
            }
        }
    }

    /// Serves the queue until it is empty or somebody else's turn has come; `own`: what the calling thread waits for. Only
    /// for whom `leading` was set.
    fn lead(&self, own: Option<&Arc<Cell>>) {
        // Dropped in the reverse order: the writer is free and the turn is handed on before a waker is called.
        let _wakers = WakeOnDrop(&self.line);
        let mut lead = Lead::new(&self.line, own);
        let mut writer = self.writer();
        while let Step::Batch(batch) = lead.next() {
            writer.run(batch);
        }
    }

    /// Takes the writer. Until it is given back the calling thread is refused at the store's door.
    fn writer(&self) -> HeldWriter<'_, W> {
        HeldWriter::enter(&self.holder, lock(&self.writer))
    }

    /// # Errors
    ///
    /// `Reentrant` on the thread that holds the writer: it would wait for itself.
    pub(crate) fn check_reentrant(&self) -> Result<()> {
        match self.holder.load(Ordering::Relaxed) {
            0 => Ok(()),
            inside if inside != this_thread() => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Reentrant,
                "this thread is writing to the same store: inside a transaction use the transaction's own methods",
            )),
        }
    }

    fn helper(self: &Arc<Self>) -> Result<Wake> {
        let mut helper = lock(&self.line.helper);
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
                    log!(error, "a write panicked; the others go on");
                }
            }
        })?;
        *helper = Some(HelperThread {
            wake: wake.clone(),
            _thread: thread,
        });
        Ok(wake)
    }
}

/// For tests: what a thread would have to do at just the right moment.
#[cfg(test)]
impl<W> Turn<W> {
    /// Takes or frees the right to lead, and returns whether it was taken.
    pub(crate) fn set_leading(&self, leading: bool) -> bool {
        std::mem::replace(&mut lock(&self.line.queue).leading, leading)
    }

    pub(crate) fn is_led(&self) -> bool {
        lock(&self.line.queue).leading
    }

    pub(crate) fn queued_count(&self) -> usize {
        lock(&self.line.queue).requests.len()
    }

    pub(crate) fn has_helper(&self) -> bool {
        lock(&self.line.helper).is_some()
    }
}

/// Has the wakers called when it is dropped, even by a panic; not in a forked child, whose parent does so.
struct WakeOnDrop<'a>(&'a Line);

impl Drop for WakeOnDrop<'_> {
    fn drop(&mut self) {
        let wakers = &self.0.wakers;
        if wakers.any() && self.0.owner.is_here() && !wakers.delegate() {
            wakers.call();
        }
    }
}

/// What a wait for the turn has come to.
enum Waited {
    Answered(Result<Vec<Reply>>),
    /// `leading` is set on behalf of who waited.
    Leads,
}

impl<W> fmt::Debug for Turn<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").finish_non_exhaustive()
    }
}

/// A request on its way to the helper thread.
pub(crate) struct Submitted<W> {
    turn: Arc<Turn<W>>,
    cell: Arc<Cell>,
}

impl<W: Writes> PendingReply for Submitted<W> {
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
        self.turn.line.give_up(&self.cell);
    }
}
