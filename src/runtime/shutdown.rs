//! The shutdown of a scheduler: whether it has begun, and whether it is complete.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::runtime::finish::Finished;
use crate::time::Deadline;
use crate::wake::Wake;

/// How often a thread that waits for the end checks whether it has come.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Shared by a scheduler and its dispatcher.
#[derive(Debug, Default)]
pub(crate) struct ShutdownState {
    /// Set when the shutdown begins: nothing more is claimed, and tasks that wait for a worker are given back.
    stopping: AtomicBool,
    /// Attempts that ended, and tasks that were given back, since the shutdown began.
    finished: AtomicUsize,
    given_back: AtomicUsize,
    /// The dispatcher has seen the shutdown, and holds no task any more.
    over: AtomicBool,
    /// Notified when the shutdown is complete.
    ended: Wake,
}

impl ShutdownState {
    pub(crate) fn begin(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Counts the end of a claimed task after the shutdown began. A task that ended without a call of its handler (it was
    /// cancelled, is damaged, or could not be decoded for the last time) is neither finished nor given back.
    pub(crate) fn count(&self, end: &Finished) {
        if end.ran.is_some() {
            self.finished.fetch_add(1, Ordering::Relaxed);
        } else if end.waits_uncalled() {
            self.given_back.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many attempts have ended since the shutdown began.
    pub(crate) fn finished(&self) -> usize {
        self.finished.load(Ordering::SeqCst)
    }

    /// How many tasks were given back since the shutdown began.
    pub(crate) fn given_back(&self) -> usize {
        self.given_back.load(Ordering::SeqCst)
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

    /// Waits until the shutdown is complete, at most until `deadline`. Returns whether it is.
    pub(crate) fn wait(&self, deadline: Deadline) -> bool {
        while !self.is_ended() && !deadline.is_over() {
            // The notification wakes one thread, and several may wait.
            self.ended.wait(deadline.remaining().min(LOOK_AGAIN));
        }
        self.is_ended()
    }
}
