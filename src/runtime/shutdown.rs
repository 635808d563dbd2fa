//! The shutdown of a scheduler: whether it has begun, and whether it is complete.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::wake::Wake;

/// Shared by a scheduler and its dispatcher.
#[derive(Debug, Default)]
pub(crate) struct ShutdownState {
    /// Set when the shutdown begins: nothing more is claimed, and tasks that wait for a worker are given back.
    pub(crate) stopping: AtomicBool,
    /// Attempts that ended, and tasks that were given back, since the shutdown began.
    pub(crate) finished: AtomicUsize,
    pub(crate) given_back: AtomicUsize,
    /// The dispatcher has seen the shutdown, and holds no task any more.
    over: AtomicBool,
    /// Notified when the shutdown is complete.
    pub(crate) ended: Wake,
}

impl ShutdownState {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Whether the shutdown is complete: nothing runs any more, and nothing will.
    pub(crate) fn is_ended(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Marks the shutdown as complete.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.ended.notify();
    }
}
