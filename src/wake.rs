//! Two ways to wake threads: [`Wake`] for one thread, [`Bell`] for many. A notification before the wait is never lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::sync::lock;
use crate::time::{Deadline, Timestamp};

/// Wakes one waiting thread. Clones share the same notification.
#[derive(Debug, Clone)]
pub(crate) struct Wake(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    notified: Condvar,
}

#[derive(Debug)]
struct State {
    notified: bool,
    /// When the waiter wakes by itself: what is due no earlier need not wake it. `Timestamp::MAX` while the waiter is
    /// awake, or waits without a known instant.
    until: Timestamp,
}

impl Default for Wake {
    fn default() -> Self {
        Self::new()
    }
}

impl Wake {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                notified: false,
                until: Timestamp::MAX,
            }),
            notified: Condvar::new(),
        }))
    }

    pub(crate) fn notify(&self) {
        self.notify_due(Timestamp::MIN);
    }

    /// Notifies, unless the waiter wakes by itself at or before `at`.
    pub(crate) fn notify_due(&self, at: Timestamp) {
        let mut state = lock(&self.0.state);
        if at < state.until && !state.notified {
            state.notified = true;
            drop(state);
            self.0.notified.notify_one();
        }
    }

    /// Whether both share the same notification.
    #[cfg(feature = "testing")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Sets when the next wait ends by itself, so that [`notify_due`](Self::notify_due) skips what is due later. Call this
    /// after looking for work and before [`wait`](Self::wait).
    pub(crate) fn sleep_until(&self, until: Option<Timestamp>) {
        lock(&self.0.state).until = until.unwrap_or(Timestamp::MAX);
    }

    /// Blocks until notified, at most for `span`, and clears the notification. Returns whether there was one.
    pub(crate) fn wait(&self, span: Duration) -> bool {
        let deadline = Deadline::after(span);
        let mut state = lock(&self.0.state);
        while !state.notified {
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                break;
            }
            state = self
                .0
                .notified
                .wait_timeout(state, remaining)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.until = Timestamp::MAX;
        std::mem::take(&mut state.notified)
    }
}

/// To wake more threads than this, all are woken by one call.
const MANY: usize = 8;

/// Wakes threads that look for work in the same places. Clones share the count of rings.
///
/// A thread reads [`rings`](Self::rings), looks for work, and if there is none [waits](Self::wait) for the next ring. A ring
/// during the look ends that wait at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bell(Arc<Rings>);

#[derive(Debug, Default)]
struct Rings {
    count: AtomicU64,
    gate: Mutex<()>,
    rung: Condvar,
}

impl Bell {
    /// How often the bell has been rung.
    pub(crate) fn rings(&self) -> u64 {
        self.0.count.load(Ordering::Acquire)
    }

    /// Wakes up to `threads` waiting threads.
    pub(crate) fn ring(&self, threads: usize) {
        if threads == 0 {
            return;
        }
        // Under the lock: a thread between comparing the count and sleeping would miss the ring.
        let gate = lock(&self.0.gate);
        self.0.count.fetch_add(1, Ordering::Release);
        drop(gate);
        if threads > MANY {
            self.0.rung.notify_all();
        } else {
            (0..threads).for_each(|_| self.0.rung.notify_one());
        }
    }

    /// Wakes every waiting thread.
    pub(crate) fn ring_all(&self) {
        self.ring(usize::MAX);
    }

    /// Blocks until the count of rings is no longer `heard`, at most for `span`.
    pub(crate) fn wait(&self, heard: u64, span: Duration) {
        let gate = lock(&self.0.gate);
        let is_quiet = |_: &mut ()| self.0.count.load(Ordering::Relaxed) == heard;
        drop(self.0.rung.wait_timeout_while(gate, span, is_quiet));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_before_the_wait_is_not_lost() {
        let wake = Wake::new();
        wake.notify();
        assert!(wake.wait(Duration::from_secs(60)));
        assert!(!wake.wait(Duration::ZERO), "and it is taken once");
    }

    #[test]
    fn what_is_due_after_the_sleep_does_not_wake() {
        let wake = Wake::new();
        wake.sleep_until(Some(Timestamp::from_micros(100)));
        wake.notify_due(Timestamp::from_micros(100));
        assert!(!wake.wait(Duration::ZERO));
        wake.sleep_until(Some(Timestamp::from_micros(100)));
        wake.notify_due(Timestamp::from_micros(99));
        assert!(wake.wait(Duration::ZERO));
    }

    #[test]
    fn a_waiter_that_has_not_said_until_when_is_woken_by_anything() {
        let wake = Wake::new();
        wake.notify_due(
            Timestamp::from_micros(i64::MAX - 1).min(Timestamp::MAX - Duration::from_secs(1)),
        );
        assert!(wake.wait(Duration::ZERO));
    }

    #[test]
    fn a_bell_that_was_rung_during_the_look_ends_the_wait() {
        let bell = Bell::default();
        let heard = bell.rings();
        bell.ring(1);
        let deadline = Deadline::after(Duration::from_secs(5));
        bell.wait(heard, Duration::from_secs(10));
        assert!(!deadline.is_over());
        bell.ring(0);
        assert_eq!(bell.rings(), heard + 1, "there was nobody to wake");
        bell.wait(bell.rings(), Duration::ZERO);
    }
}
