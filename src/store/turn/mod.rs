//! The one write connection, taken in turns by the threads that have something to write.
//!
//! A thread that finds the turn free leads: it takes what has queued, runs it in one transaction, commits, hands out the
//! replies, and goes on until the queue is empty. So a lone caller pays no thread switch, and many callers share one sync. A
//! follower sleeps until its reply or its turn: a leader that has served enough hands the turn on. The scheduler's own
//! writes join the next caller's transaction, or their thread is invited to lead, if that comes sooner.
//!
//! Invariants:
//! 1. While `leading` is set exactly one thread leads, or has been told to. Only [`finish`](Turn::finish) leads without it.
//!    For submitted writes alone it is not set until a helper comes: a caller may lead before.
//! 2. A request is answered exactly once, or taken out of the queue by the caller that gave up.
//! 3. A reply is given after its COMMIT.
//! 4. While a thread holds the writer, the only code of the program that it runs is the closure of its own transaction,
//!    `tracing` subscribers and SQL functions. Their calls to the same store are refused at once, as `Reentrant`. Wakers are
//!    called by helpers that do not lead.
//!
//! The turn is the only lock that is held over a commit. Other locks are held over shorter work: that of the lanes over the
//! statements that look one up or add it, that of the other instances while their locks are tried, some while a thread is
//! started.

mod exclusive;
mod held;
mod helpers;
mod lead;
mod line;
mod request;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError, Weak};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use self::held::{HeldWriter, this_thread};
use self::helpers::{Helpers, HelpersCall, Leads};
use self::lead::{Lead, Step};
use self::line::Line;
use self::request::{Cell, Sort, Stage};
use crate::error::{Error, ErrorKind, Result};
use crate::log::log;
use crate::model::op::{Op, Reply};
use crate::panics::survive;
use crate::store::signals::CallWakers;
use crate::store::{Pace, PendingReply};
use crate::sync::lock;
use crate::time::{Deadline, MAX_PARK, Timestamp};

#[cfg(test)]
pub(crate) use self::line::MAX_QUEUED;
pub(crate) use self::line::OnRefused;
pub(crate) use self::request::Request;

/// What writes, one batch after another.
pub(crate) trait Writes: Send + 'static {
    /// Runs the requests in one transaction and answers each.
    fn run(&mut self, batch: Vec<Request>);

    /// Where the turn notes how many requests wait. While there are any, long operations end early.
    fn waiting(&self) -> Arc<AtomicUsize>;

    /// Called for a write that was not served, because it had waited for too long.
    fn on_refused(&self) -> OnRefused;
}

/// The queue before the writer, and the writer.
pub(crate) struct Turn<W> {
    line: Line,
    writer: Mutex<W>,
    /// The thread that holds the writer; 0: none.
    holder: AtomicUsize,
}

impl<W: Writes> Turn<W> {
    /// `wait` bounds how long a call waits to be served.
    pub(crate) fn new(writer: W, wait: Duration, pace: Pace) -> Arc<Self> {
        Arc::new_cyclic(|turn| Self {
            line: Line::new(
                writer.waiting(),
                writer.on_refused(),
                wait,
                pace,
                Helpers::new(leads_for(turn)),
            ),
            writer: Mutex::new(writer),
            holder: AtomicUsize::new(0),
        })
    }

    /// How many threads are held up by a waker.
    pub(crate) fn blocked_wakers(&self) -> usize {
        self.line.helpers.blocked()
    }

    /// What calls the wakers of those that wait for something else than a receipt.
    pub(crate) fn wakers(&self) -> impl CallWakers + use<W> {
        HelpersCall(Arc::downgrade(&self.line.helpers))
    }

    /// Applies operations and waits for their commit.
    pub(crate) fn apply(&self, now: Timestamp, ops: Vec<Op>) -> Result<Vec<Reply>> {
        let (cell, leads) =
            self.line
                .enqueue(Some(now), ops, Sort::Shared, Some(thread::current()))?;
        if leads {
            self.lead(Some(&cell));
        }
        self.wait_for(&cell)
    }

    /// Queues operations for the helper thread, or a thread that leads before it.
    pub(crate) fn submit(self: &Arc<Self>, now: Timestamp, ops: Vec<Op>) -> Result<Submitted<W>> {
        self.line.helpers.start()?;
        let cell = self.line.leave(now, ops)?;
        Ok(Submitted {
            turn: Arc::clone(self),
            cell,
        })
    }

    /// Like [`submit`](Self::submit), but gives the operations back if the queue is full.
    pub(crate) fn try_submit(
        self: &Arc<Self>,
        now: Timestamp,
        ops: Vec<Op>,
    ) -> std::result::Result<Result<Submitted<W>>, Vec<Op>> {
        if let Err(error) = self.line.helpers.start() {
            return Ok(Err(error));
        }
        let cell = self.line.try_leave(now, ops)?;
        Ok(Ok(Submitted {
            turn: Arc::clone(self),
            cell,
        }))
    }

    /// Leads for operations if the turn is free; otherwise they wait for the next leader, and for a caller's transaction.
    pub(crate) fn defer(self: &Arc<Self>, now: Timestamp, ops: Vec<Op>) -> Result<Submitted<W>> {
        let (cell, leads) = self.line.enqueue(Some(now), ops, Sort::Patient, None)?;
        if leads {
            self.lead(None);
        }
        Ok(Submitted {
            turn: Arc::clone(self),
            cell,
        })
    }

    /// Waits until no thread holds the writer, and runs `look` on it.
    pub(crate) fn with_writer<T>(&self, look: impl FnOnce(&mut W) -> T) -> T {
        look(&mut self.writer())
    }

    /// Runs `look` on the writer, unless a thread holds it now.
    pub(crate) fn with_idle_writer<T>(&self, look: impl FnOnce(&mut W) -> T) -> Option<T> {
        let writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(writer)) => writer.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(look(&mut HeldWriter::enter(&self.holder, writer)))
    }

    /// Serves what is still queued, for a store that is dropped: the helper will not serve it any more. Nothing new is
    /// queued by then. If another thread leads at the same time, the writer's lock keeps the two apart.
    pub(crate) fn finish(&self) {
        let deadline = Deadline::after(self.line.wait);
        while !lock(&self.line.queue).requests.is_empty() {
            self.lead(None);
            if deadline.is_over() {
                return;
            }
        }
    }

    /// Waits until nothing is queued, no thread leads and all wakers are called, for at most ten seconds.
    #[cfg(feature = "testing")]
    pub(crate) fn finish_submitted(&self) {
        let deadline = Deadline::after(Duration::from_secs(10));
        let is_led = || {
            let queue = lock(&self.line.queue);
            !queue.requests.is_empty() || queue.leading
        };
        while (is_led() || self.line.helpers.are_busy()) && !deadline.is_over() {
            thread::park_timeout(Duration::from_micros(50));
        }
    }

    /// Waits until the request of the calling thread is answered, and leads if its turn comes. The cell must hold this
    /// thread.
    fn wait_for(&self, cell: &Arc<Cell>) -> Result<Vec<Reply>> {
        let deadline = Deadline::after(self.line.wait);
        loop {
            match self.wait_for_turn(cell, deadline)? {
                Waited::Answered(answer) => return answer,
                Waited::Leads => self.lead(Some(cell)),
            }
        }
    }

    /// Parks until the request of the calling thread is answered, or its turn to lead has come.
    fn wait_for_turn(&self, cell: &Arc<Cell>, deadline: Deadline) -> Result<Waited> {
        let is_patient = cell.sort == Sort::Patient;
        let look_after = if is_patient {
            self.line.pace.patience
        } else {
            MAX_PARK
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
                    // A thread that leads by now will serve our request.
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
                // The request is in a transaction, or the turn is coming to us: both are bounded.
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
                // No caller came whose transaction the request could share.
                state.stage = Stage::Invited;
            }
        }
    }

    /// Serves the queue until it is empty or another thread's turn has come. `own`: the request that the calling thread
    /// waits for. Call it only if `leading` was set for this thread, or from [`finish`](Self::finish).
    fn lead(&self, own: Option<&Arc<Cell>>) {
        // Dropped in the reverse order: the writer is free and the turn is handed on before a waker is called.
        let _wakers = WakeOnDrop(&self.line);
        self.serve(Lead::new(&self.line, own));
    }

    fn serve(&self, mut lead: Lead<'_>) {
        let mut writer = self.writer();
        while let Step::Batch(batch) = lead.next() {
            writer.run(batch);
        }
    }

    /// Takes the writer. Until it is given back, the store refuses other calls of this thread.
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
}

/// Makes what a helper of this turn leads with.
fn leads_for<W: Writes>(turn: &Weak<Turn<W>>) -> impl Fn() -> Leads + Send + Sync + use<W> {
    let turn = Weak::clone(turn);
    move || {
        let turn = Weak::clone(&turn);
        Box::new(move || {
            if let Some(turn) = turn.upgrade()
                && turn.line.take_turn()
                && survive(|| turn.serve(Lead::of_helper(&turn.line))).is_none()
            {
                log!(error, "a write panicked; the others go on");
            }
        })
    }
}

/// For tests: states that otherwise depend on exact timing.
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

    /// Whether a thread is parked for the answer to a queued request.
    pub(crate) fn is_waited_for(&self) -> bool {
        let queue = lock(&self.line.queue);
        let mut requests = queue.requests.iter();
        requests.any(|request| lock(&request.cell.state).thread.is_some())
    }

    pub(crate) fn has_helper(&self) -> bool {
        self.line.helpers.have_started()
    }
}

/// Its drop, even by a panic, leaves the wakers to a helper, or calls them if there is none; not in a forked child, whose
/// parent does so.
struct WakeOnDrop<'a>(&'a Line);

impl Drop for WakeOnDrop<'_> {
    fn drop(&mut self) {
        let helpers = &self.0.helpers;
        if helpers.have_new_wakers() && self.0.owner.is_here() && !helpers.wake() {
            helpers.call();
        }
    }
}

/// How a wait for the turn has ended.
enum Waited {
    Answered(Result<Vec<Reply>>),
    /// `leading` is set on behalf of the thread that waited.
    Leads,
}

impl<W> fmt::Debug for Turn<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").finish_non_exhaustive()
    }
}

/// A queued request whose caller goes on meanwhile.
pub(crate) struct Submitted<W> {
    turn: Arc<Turn<W>>,
    cell: Arc<Cell>,
}

impl<W: Writes> PendingReply for Submitted<W> {
    fn wait(self: Box<Self>) -> Result<Vec<Reply>> {
        {
            let mut state = lock(&self.cell.state);
            if !matches!(state.stage, Stage::Done(_)) {
                // It would wait for its own transaction. The request is served after that one, and its answer is lost.
                self.turn.check_reentrant()?;
            }
            state.thread = Some(thread::current());
            if self.cell.sort == Sort::Patient && matches!(state.stage, Stage::Queued) {
                // Its caller waits now, so it need not be patient any more.
                state.stage = Stage::Invited;
            }
        }
        self.turn.wait_for(&self.cell)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Reply>>> {
        if let Some(answer) = lock(&self.cell.state).take() {
            return Poll::Ready(answer);
        }
        // Cloning or dropping a waker runs the program's code: never under this lock, which a leader needs.
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
