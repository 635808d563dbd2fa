//! The threads that lead for callers that do not wait, and that call wakers: of answered receipts, of streams of events, and of
//! all that waits for the scheduler's threads.
//!
//! A waker is the program's code: it may block, panic, or write to the same store. So none is called on a caller's thread, or
//! while a thread leads. One helper at a time is on duty. It leads, gives up the turn, calls the wakers of what it has
//! answered, and leads for the writes that their tasks have submitted meanwhile: these share a transaction, and no thread is
//! woken for them.
//!
//! Another helper watches. If wakers take longer than [`MAX_CALLING`], it takes over the duty and the other wakers. So a
//! waker that blocks delays other wakers and submitted writes by twice that time at most, and a call not at all. If all
//! helpers but one are blocked, that one only leads: then no waker is called any more, and that is told.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use crate::error::Result;
use crate::log::log;
use crate::panics::survive;
use crate::store::signals::CallWakers;
use crate::sync::lock;
use crate::thread::Thread;
use crate::time::Stopwatch;

/// How many helpers there are at most. Usually two: another is started while a waker blocks.
pub(super) const MAX_HELPERS: usize = 32;
/// For how long a helper may call wakers before another one takes over.
const MAX_CALLING: Duration = Duration::from_millis(2);

thread_local! {
    /// The address of the helpers whose wakers this thread is calling; 0: none.
    static CALLING: Cell<usize> = const { Cell::new(0) };
}

/// How a helper leads: until the queue is empty or wakers are to be called, if the turn is free.
pub(super) type Leads = Box<dyn Fn() + Send>;

/// The helpers, and what they have to do.
pub(super) struct Helpers {
    state: Mutex<State>,
    /// Where the helper waits that is to take the next work: the one that had the duty last, as long as it does not block.
    work: Condvar,
    /// Where the others wait.
    relief: Condvar,
    /// Whether there are wakers that no helper knows of: of receipts, and of streams of events. Changed under the lock, read
    /// without it.
    are_new: AtomicBool,
    are_of_streams: AtomicBool,
    /// Makes what a new helper leads with.
    make: Box<dyn Fn() -> Leads + Send + Sync>,
}

#[derive(Default)]
struct State {
    /// Submitted writes may wait for a leader.
    told: bool,
    wakers: VecDeque<Waker>,
    started: usize,
    /// A helper waits at [`Helpers::work`].
    is_one_ready: bool,
    /// How many helpers were relieved of the duty while they called a waker, which has not returned since.
    blocked: usize,
    duty: Option<Duty>,
    /// How many times wakers were called.
    calls: u64,
    /// An idle helper looks again within [`MAX_CALLING`].
    is_watched: bool,
    /// The turn is gone: a helper ends once it has nothing to do.
    has_ended: bool,
}

/// The helper that does all the work, and since when it calls wakers.
#[derive(Clone, Copy)]
struct Duty {
    helper: usize,
    calling: Option<Stopwatch>,
}

impl State {
    fn is_calling(&self) -> bool {
        self.duty.is_some_and(|duty| duty.calling.is_some())
    }

    /// Takes the duty from a helper that has called wakers for too long. Returns whether that was the last that may.
    fn relieve(&mut self) -> bool {
        let calling = self.duty.and_then(|duty| duty.calling);
        let is_too_long = calling.is_some_and(|since| since.elapsed() >= MAX_CALLING);
        if is_too_long {
            self.duty = None;
            self.blocked += 1;
        }
        is_too_long && self.blocked + 1 == MAX_HELPERS
    }
}

enum Work {
    Lead,
    Call,
    End,
}

impl Helpers {
    pub(super) fn new(make: impl Fn() -> Leads + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            work: Condvar::new(),
            relief: Condvar::new(),
            are_new: AtomicBool::new(false),
            are_of_streams: AtomicBool::new(false),
            make: Box::new(make),
        })
    }

    /// How many of them are held up by a waker.
    pub(super) fn blocked(&self) -> usize {
        lock(&self.state).blocked
    }

    /// Whether one of them has something to do. One that a waker holds up has not.
    #[cfg(feature = "testing")]
    pub(super) fn are_busy(&self) -> bool {
        let state = lock(&self.state);
        state.told || !state.wakers.is_empty() || state.duty.is_some()
    }

    pub(super) fn have_started(&self) -> bool {
        lock(&self.state).started > 0
    }

    /// Starts a helper, if there is none that can lead.
    pub(super) fn start(self: &Arc<Self>) -> Result<()> {
        let mut state = lock(&self.state);
        let calling = state.blocked + usize::from(state.is_calling());
        if state.started == calling && calling < MAX_HELPERS {
            self.start_one(&mut state)?;
        }
        Ok(())
    }

    fn start_one(self: &Arc<Self>, state: &mut State) -> Result<()> {
        let lead = (self.make)();
        let helper = Helper {
            helpers: Arc::clone(self),
            number: state.started,
            calls: 0,
        };
        Thread::spawn("punctual-writer", move || helper.run(&*lead))?;
        state.started += 1;
        Ok(())
    }

    /// Makes a helper lead for the submitted writes, unless another thread does so before it. A helper must be started.
    pub(super) fn lead(&self) {
        let mut state = lock(&self.state);
        state.told = true;
        self.notify(state);
    }

    pub(super) fn push(&self, waker: Waker) {
        let mut state = lock(&self.state);
        state.wakers.push_back(waker);
        self.are_new.store(true, Ordering::Relaxed);
    }

    /// Adds the waker of a stream of events, which are published while a thread leads.
    pub(super) fn push_of_stream(&self, waker: Waker) {
        let mut state = lock(&self.state);
        state.wakers.push_back(waker);
        self.are_of_streams.store(true, Ordering::Relaxed);
    }

    /// Whether there are wakers that no helper was told of. A leader sees those of what it has answered and published.
    pub(super) fn have_new_wakers(&self) -> bool {
        self.have_new_receipts() || self.are_of_streams.load(Ordering::Relaxed)
    }

    /// Whether there are such of answered receipts.
    pub(super) fn have_new_receipts(&self) -> bool {
        self.are_new.load(Ordering::Relaxed)
    }

    /// Notes that a helper knows of all wakers, or the calling thread calls them.
    fn know_all(&self) {
        self.are_new.store(false, Ordering::Relaxed);
        self.are_of_streams.store(false, Ordering::Relaxed);
    }

    /// Makes a helper call the wakers. `false`: there is no helper, and the caller must call them.
    pub(super) fn wake(self: &Arc<Self>) -> bool {
        let mut state = lock(&self.state);
        if state.started == 0 && self.start_one(&mut state).is_err() {
            return false;
        }
        self.know_all();
        self.notify(state);
        true
    }

    /// Ends the helpers, each once it has nothing to do.
    pub(super) fn end(&self) {
        lock(&self.state).has_ended = true;
        self.work.notify_all();
        self.relief.notify_all();
    }

    /// Wakes a helper for new work. The one on duty looks for it by itself.
    fn notify(&self, state: MutexGuard<'_, State>) {
        let must_wake = state.duty.is_none() && state.is_one_ready;
        drop(state);
        if must_wake {
            self.work.notify_one();
        }
    }

    /// Calls all wakers, and those that are added meanwhile, on this thread.
    pub(super) fn call(&self) {
        let own = std::ptr::from_ref(self).addr();
        let outer = CALLING.replace(own);
        // A waker that writes to the store gets here again. It leaves the wakers of what it has answered to the loop that
        // called it, so the stack does not grow.
        if outer != own {
            self.know_all();
            while let Some(waker) = { lock(&self.state).wakers.pop_front() } {
                call_one(waker);
            }
        }
        CALLING.set(outer);
    }

    /// Whether a helper may call wakers: another one is free to watch, and to lead. Starts one if need be; if the system has
    /// no thread left, the wakers are called after the submitted writes.
    fn may_call(self: &Arc<Self>, state: &mut State) -> bool {
        let are_free = state.started - state.blocked;
        are_free > 1
            || state.started < MAX_HELPERS && (self.start_one(state).is_ok() || !state.told)
    }
}

/// The thread of one helper.
struct Helper {
    helpers: Arc<Helpers>,
    number: usize,
    /// [`State::calls`] when it last looked.
    calls: u64,
}

impl Helper {
    /// What it does until the turn is gone.
    fn run(mut self, lead: &(dyn Fn() + Send)) {
        loop {
            match self.next() {
                Work::Lead => lead(),
                Work::Call => {
                    while let Some(waker) = self.next_waker() {
                        call_one(waker);
                    }
                }
                Work::End => return,
            }
        }
    }

    /// Waits for work, and takes the duty with it.
    fn next(&mut self) -> Work {
        let helpers = Arc::clone(&self.helpers);
        let mut state = lock(&helpers.state);
        loop {
            if state.relieve() {
                drop(state);
                log!(
                    error,
                    "{} wakers block: no others are called",
                    MAX_HELPERS - 1
                );
                state = lock(&helpers.state);
            }
            if state.duty.is_none_or(|duty| duty.helper == self.number) {
                if let Some(work) = self.take_work(&mut state) {
                    return work;
                }
                state.duty = None;
            }
            if state.has_ended {
                // A helper that still calls wakers ends after them. No submitted write is left.
                return Work::End;
            }
            state = self.wait(&helpers, state);
        }
    }

    fn take_work(&self, state: &mut State) -> Option<Work> {
        let mut duty = Duty {
            helper: self.number,
            calling: None,
        };
        self.helpers.know_all();
        // First the wakers: what their tasks submit can share the next transaction.
        let work = if !state.wakers.is_empty() && self.helpers.may_call(state) {
            duty.calling = Some(Stopwatch::start());
            state.calls += 1;
            if !state.is_watched {
                let place = match state.is_one_ready {
                    true => &self.helpers.work,
                    false => &self.helpers.relief,
                };
                place.notify_one();
            }
            Work::Call
        } else if std::mem::take(&mut state.told) {
            Work::Lead
        } else {
            return None;
        };
        state.duty = Some(duty);
        Some(work)
    }

    /// The waker to call next. `None`: all are called, or this helper was relieved.
    fn next_waker(&self) -> Option<Waker> {
        let mut state = lock(&self.helpers.state);
        let State { duty, wakers, .. } = &mut *state;
        match duty {
            Some(duty) if duty.helper == self.number => {
                let waker = wakers.pop_front();
                if waker.is_none() {
                    duty.calling = None;
                }
                waker
            }
            _ => {
                state.blocked -= 1;
                None
            }
        }
    }

    /// Waits for a notice; for a limited time if wakers are called and no other helper watches. A helper that has watched goes
    /// on if wakers were called meanwhile: then they need not notify it each time.
    fn wait<'a>(
        &mut self,
        helpers: &'a Helpers,
        mut state: MutexGuard<'a, State>,
    ) -> MutexGuard<'a, State> {
        let calls = std::mem::replace(&mut self.calls, state.calls);
        if state.duty.is_none() && !state.is_one_ready {
            state.is_one_ready = true;
            state = wait_at(&helpers.work, state, None);
            state.is_one_ready = false;
        } else if !state.is_watched && (state.is_calling() || state.calls != calls) {
            state.is_watched = true;
            state = wait_at(&helpers.relief, state, Some(MAX_CALLING));
            state.is_watched = false;
        } else {
            state = wait_at(&helpers.relief, state, None);
        }
        state
    }
}

fn wait_at<'a>(
    place: &Condvar,
    state: MutexGuard<'a, State>,
    span: Option<Duration>,
) -> MutexGuard<'a, State> {
    let waited = match span {
        Some(span) => place
            .wait_timeout(state, span)
            .map(|(state, _)| state)
            .map_err(|error| error.into_inner().0),
        None => place.wait(state).map_err(PoisonError::into_inner),
    };
    waited.unwrap_or_else(|state| state)
}

/// Calls wakers on the helpers of a turn.
pub(super) struct HelpersCall(pub(super) Weak<Helpers>);

impl CallWakers for HelpersCall {
    fn after_write(&self, waker: Waker) {
        if let Some(helpers) = self.0.upgrade() {
            helpers.push_of_stream(waker);
        }
    }

    fn call(&self, wakers: Vec<Waker>) {
        let Some(helpers) = self.0.upgrade() else {
            // The store is gone, and with it all that it could hold up.
            return wakers.into_iter().for_each(call_one);
        };
        lock(&helpers.state).wakers.extend(wakers);
        if !helpers.wake() {
            helpers.call();
        }
    }
}

impl fmt::Debug for HelpersCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HelpersCall")
    }
}

fn call_one(waker: Waker) {
    if survive(|| waker.wake()).is_none() {
        log!(error, "a waker panicked");
    }
}
