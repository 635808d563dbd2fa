//! The one exit of every attempt: from the thread that ends it, a worker or any other, to the dispatcher, which settles it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::model::settle::Settlement;
use crate::runtime::attempts::Slot;
use crate::runtime::gather::may_wait;
use crate::sync::lock;
use crate::wake::Wake;

/// An attempt that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) slot: Slot,
    pub(crate) kind: Arc<str>,
    /// `None` if it is settled already, in a transaction of its own.
    pub(crate) settlement: Option<Arc<Settlement>>,
    /// How long the handler ran; `None` if it was not called.
    pub(crate) ran: Option<Duration>,
    /// Its start could not be noted.
    pub(crate) is_refused: bool,
}

impl Finished {
    /// Whether the task waits again although its handler was not called.
    pub(crate) fn waits_uncalled(&self) -> bool {
        self.settlement
            .as_ref()
            .is_some_and(|each| each.waits_uncalled())
    }
}

/// Attempts that have ended and are not settled yet.
#[derive(Debug)]
pub(crate) struct Finish {
    state: Mutex<State>,
    dispatcher: Wake,
}

#[derive(Debug)]
struct State {
    finished: Vec<Finished>,
    /// How many completions wake the dispatcher, as [`gather`](crate::runtime::gather) decides. Any other end wakes it at once.
    wakes: usize,
}

impl Finish {
    pub(crate) fn new(dispatcher: Wake) -> Self {
        Self {
            state: Mutex::new(State {
                finished: Vec::new(),
                wakes: 1,
            }),
            dispatcher,
        }
    }

    pub(crate) fn push(&self, finished: Finished) {
        let mut state = lock(&self.state);
        let can_wait = may_wait(finished.settlement.as_deref());
        state.finished.push(finished);
        let wakes = !can_wait || state.finished.len() >= state.wakes;
        drop(state);
        if wakes {
            self.dispatcher.notify();
        }
    }

    pub(crate) fn take(&self) -> Vec<Finished> {
        std::mem::take(&mut lock(&self.state).finished)
    }

    /// Sets how many completions wake the dispatcher. Returns whether that many are there already.
    pub(crate) fn wake_for(&self, count: usize) -> bool {
        let mut state = lock(&self.state);
        state.wakes = count;
        state.finished.len() >= count
    }
}
