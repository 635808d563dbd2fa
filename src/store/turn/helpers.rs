//! The threads that lead for callers that do not wait, and that call the wakers of answered receipts.
//!
//! A waker is the program's code: it may block, panic, or write to the same store. So none is called on a caller's thread, or
//! while a thread leads. A helper that has led calls the wakers of what it has answered once the turn is given up, so they
//! wait for no other thread. One helper is always kept free of wakers: one that blocks delays other wakers, but no write.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use crate::error::Result;
use crate::log::log;
use crate::panics::survive;
use crate::sync::lock;
use crate::thread::Thread;

/// How many helpers there are at most. Usually two: a third is started while a waker blocks.
const MAX_HELPERS: usize = 4;
/// How often an idle helper checks whether the turn still exists.
const IDLE_CHECK: Duration = Duration::from_secs(1);

thread_local! {
    /// The address of the helpers whose wakers this thread is calling; 0: none.
    static CALLING: Cell<usize> = const { Cell::new(0) };
}

/// What a helper does: leads once, or only checks whether the turn exists. `false`: it is gone.
pub(super) type Leads = Box<dyn Fn(bool) -> bool + Send>;

/// The helpers, and what they have to do.
pub(super) struct Helpers {
    state: Mutex<State>,
    work: Condvar,
    /// Whether there are wakers to call, readable without the lock.
    any: AtomicBool,
    /// Makes what a new helper does.
    make: Box<dyn Fn() -> Leads + Send + Sync>,
}

#[derive(Default)]
struct State {
    /// The turn is taken on behalf of a helper, which is to lead.
    told: bool,
    wakers: Vec<Waker>,
    started: usize,
    /// How many helpers wait for work.
    idle: usize,
    /// How many helpers call wakers.
    calling: usize,
}

impl State {
    /// Whether one helper is left to lead if another one calls wakers.
    fn is_one_left(&self) -> bool {
        self.calling + 1 < self.started
    }
}

enum Work {
    Lead,
    Wakers(Vec<Waker>),
    Nothing,
}

impl Helpers {
    pub(super) fn new(make: impl Fn() -> Leads + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            work: Condvar::new(),
            any: AtomicBool::new(false),
            make: Box::new(make),
        })
    }

    pub(super) fn have_started(&self) -> bool {
        lock(&self.state).started > 0
    }

    /// Starts a helper, if there is none.
    pub(super) fn start(self: &Arc<Self>) -> Result<()> {
        let mut state = lock(&self.state);
        if state.started == 0 {
            self.start_one(&mut state)?;
        }
        Ok(())
    }

    fn start_one(self: &Arc<Self>, state: &mut State) -> Result<()> {
        let (helpers, leads) = (Arc::clone(self), (self.make)());
        Thread::spawn("punctual-writer", move || helpers.run(&*leads))?;
        state.started += 1;
        Ok(())
    }

    /// Makes a helper lead. The turn must be taken on its behalf, and a helper be started.
    pub(super) fn lead(&self) {
        let mut state = lock(&self.state);
        state.told = true;
        let is_idle = state.idle > 0;
        drop(state);
        // If none is idle, the one that does not call wakers looks again before it waits.
        if is_idle {
            self.work.notify_one();
        }
    }

    pub(super) fn push(&self, waker: Waker) {
        lock(&self.state).wakers.push(waker);
        // Relaxed: the same thread reads it, after it has answered.
        self.any.store(true, Ordering::Relaxed);
    }

    /// Whether there are wakers to call.
    pub(super) fn have_wakers(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Makes a helper call the wakers. `false`: none can be started, and the caller must call them.
    pub(super) fn wake(self: &Arc<Self>) -> bool {
        let mut state = lock(&self.state);
        while !state.is_one_left() && state.started < MAX_HELPERS {
            if self.start_one(&mut state).is_err() {
                break;
            }
        }
        let can = state.started > 1;
        let is_idle = state.idle > 0;
        drop(state);
        if can && is_idle {
            self.work.notify_one();
        }
        can
    }

    /// Calls all wakers, and those that are added meanwhile, on this thread.
    pub(super) fn call(&self) {
        let own = std::ptr::from_ref(self).addr();
        let outer = CALLING.replace(own);
        // A waker that writes to the store gets here again. It leaves the wakers of what it has answered to the loop that
        // called it, so the stack does not grow.
        if outer != own {
            loop {
                let wakers = self.take(&mut lock(&self.state));
                if wakers.is_empty() {
                    break;
                }
                call_each(wakers);
            }
        }
        CALLING.set(outer);
    }

    fn take(&self, state: &mut State) -> Vec<Waker> {
        self.any.store(false, Ordering::Relaxed);
        std::mem::take(&mut state.wakers)
    }

    /// What a helper does until the turn is gone.
    fn run(self: Arc<Self>, leads: &(dyn Fn(bool) -> bool + Send)) {
        loop {
            match self.next() {
                Work::Wakers(wakers) => self.call_and_return(wakers),
                work => {
                    if !leads(matches!(work, Work::Lead)) {
                        return;
                    }
                }
            }
        }
    }

    /// Waits for work.
    fn next(self: &Arc<Self>) -> Work {
        let mut state = lock(&self.state);
        let mut has_waited = false;
        loop {
            if std::mem::take(&mut state.told) {
                if state.idle > 0 && !state.wakers.is_empty() {
                    self.work.notify_one();
                }
                return Work::Lead;
            }
            if !state.wakers.is_empty() && self.may_call(&mut state) {
                state.calling += 1;
                return Work::Wakers(self.take(&mut state));
            }
            if has_waited {
                return Work::Nothing;
            }
            state.idle += 1;
            let waited = self.work.wait_timeout(state, IDLE_CHECK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.idle -= 1;
            has_waited = true;
        }
    }

    /// Whether the calling helper may call wakers: another one is left to lead. Starts one if need be; if the system has no
    /// thread left, the wakers are called all the same.
    fn may_call(self: &Arc<Self>, state: &mut State) -> bool {
        state.is_one_left()
            || state.started < MAX_HELPERS && {
                let _ = self.start_one(state);
                true
            }
    }

    fn call_and_return(&self, wakers: Vec<Waker>) {
        call_each(wakers);
        lock(&self.state).calling -= 1;
    }
}

fn call_each(wakers: Vec<Waker>) {
    for waker in wakers {
        if survive(|| waker.wake()).is_none() {
            log!(error, "the waker of a receipt panicked");
        }
    }
}
