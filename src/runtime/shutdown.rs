//! The stop of a scheduler: who wants it, and whether it is done.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::wake::Wake;

/// What a scheduler tells its dispatcher, and hears from it.
#[derive(Debug, Default)]
pub(crate) struct ShutdownState {
    /// Nothing is claimed any more; what waits is given back.
    pub(crate) stopping: AtomicBool,
    /// Attempts that ended, and tasks that were given back, since the stop began.
    pub(crate) finished: AtomicUsize,
    pub(crate) given_back: AtomicUsize,
    /// The dispatcher has seen the stop, and nothing is held any more.
    over: AtomicBool,
    /// Notified when it is over.
    pub(crate) ended: Wake,
}

impl ShutdownState {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Whether nothing runs any more, and nothing will.
    pub(crate) fn is_ended(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Nothing runs any more, and nothing will.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.ended.notify();
    }
}
