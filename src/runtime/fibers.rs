//! Futures that share the workers, if the program gives no executor of its own: those that were woken wait here for a worker.
//!
//! Only the standard library's wakers: a future that needs a runtime's timers or sockets must run on that runtime.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use crate::handler::spawn::{Spawn, TaskFuture};
use crate::panics::survive;
use crate::process::Owner;
use crate::runtime::job::QUICKEST_FORK;
use crate::sync::lock;
use crate::time::Stopwatch;
use crate::wake::Bell;

/// The futures that were woken, in that order.
#[derive(Debug)]
pub(crate) struct Fibers {
    owner: Owner,
    woken: Mutex<VecDeque<Arc<Fiber>>>,
    /// How many these are, readable without the lock.
    count: AtomicUsize,
    /// Wakes a worker for each.
    bell: Bell,
    /// How many futures have ended that had been counted as stuck, since this was last asked.
    late: AtomicUsize,
}

/// A future, and whether it waits for a worker.
pub(crate) struct Fiber {
    /// `None` once it is ready.
    future: Mutex<Option<TaskFuture>>,
    state: AtomicU8,
    fibers: Arc<Fibers>,
}

/// It waits to be woken.
const IDLE: u8 = 0;
/// It waits for a worker.
const WOKEN: u8 = 1;
/// A worker polls it.
const POLLED: u8 = 2;
/// A worker polls it, and it was woken since that began.
const POLLED_AND_WOKEN: u8 = 3;

impl Fibers {
    /// `bell`: that of the workers.
    pub(crate) fn new(bell: Bell) -> Self {
        Self {
            owner: Owner::this(),
            woken: Mutex::default(),
            count: AtomicUsize::new(0),
            bell,
            late: AtomicUsize::new(0),
        }
    }

    /// Takes the next future to be polled.
    pub(crate) fn next(&self) -> Option<Arc<Fiber>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut woken = lock(&self.woken);
        let next = woken.pop_front();
        self.count.store(woken.len(), Ordering::Release);
        next
    }

    /// Counts the end of a future that had been counted as stuck.
    pub(crate) fn note_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    /// How many such ends there were since the last call.
    pub(crate) fn take_late(&self) -> usize {
        match self.late.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.late.swap(0, Ordering::Relaxed),
        }
    }

    fn push(&self, fiber: Arc<Fiber>) {
        let mut woken = lock(&self.woken);
        woken.push_back(fiber);
        self.count.store(woken.len(), Ordering::Release);
        drop(woken);
        self.bell.ring(1);
    }
}

impl Spawn for Arc<Fibers> {
    fn spawn(&self, future: TaskFuture) {
        self.push(Arc::new(Fiber {
            future: Mutex::new(Some(future)),
            state: AtomicU8::new(WOKEN),
            fibers: Arc::clone(self),
        }));
    }
}

impl Fiber {
    /// Polls the future once. Returns `false` in a child process that it has forked: nothing there is to be polled, and no lock
    /// to be taken that a thread of the parent may have held.
    pub(crate) fn poll(self: Arc<Self>) -> bool {
        let began = Stopwatch::start();
        self.state.swap(POLLED, Ordering::AcqRel);
        let waker = Waker::from(Arc::clone(&self));
        let mut future = lock(&self.future);
        let polled = future.as_mut().map(|future| {
            let mut cx = Context::from_waker(&waker);
            // It is this crate's own, and catches what the user's code panics with.
            survive(|| future.as_mut().poll(&mut cx).is_ready()).unwrap_or(true)
        });
        if began.elapsed() >= QUICKEST_FORK && !self.fibers.owner.is_here() {
            return false;
        }
        if polled != Some(false) {
            let ended = future.take();
            drop(future);
            let _ = survive(|| drop(ended));
            return true;
        }
        drop(future);
        let was = self
            .state
            .compare_exchange(POLLED, IDLE, Ordering::AcqRel, Ordering::Acquire);
        if was.is_err() {
            self.state.store(WOKEN, Ordering::Release);
            let fibers = Arc::clone(&self.fibers);
            fibers.push(self);
        }
        true
    }
}

impl Wake for Fiber {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let woken = |state| match state {
            IDLE => Some(WOKEN),
            POLLED => Some(POLLED_AND_WOKEN),
            // Written all the same: the poll to come must see what was done before this.
            state => Some(state),
        };
        let was = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, woken);
        if was == Ok(IDLE) {
            self.fibers.push(Arc::clone(self));
        }
    }
}

impl fmt::Debug for Fiber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fiber").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Poll;

    fn fibers() -> Arc<Fibers> {
        Arc::new(Fibers::new(Bell::default()))
    }

    /// Polls what was woken, until nothing is. Returns how many polls that took.
    fn run(fibers: &Fibers) -> usize {
        let mut polls = 0;
        while let Some(fiber) = fibers.next() {
            fiber.poll();
            polls += 1;
        }
        polls
    }

    #[test]
    fn a_future_is_polled_once_for_each_time_that_it_is_woken() {
        let fibers = fibers();
        let waker = Arc::new(Mutex::new(None::<Waker>));
        let (kept, mut left) = (Arc::clone(&waker), 3);
        fibers.spawn(Box::pin(poll_fn(move |cx| {
            *lock(&kept) = Some(cx.waker().clone());
            left -= 1;
            match left {
                0 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })));
        assert_eq!((run(&fibers), run(&fibers)), (1, 0));
        let woken = lock(&waker).clone().unwrap();
        woken.wake_by_ref();
        woken.wake_by_ref();
        assert_eq!(run(&fibers), 1);
        woken.wake_by_ref();
        assert_eq!(run(&fibers), 1);
        woken.wake();
        assert_eq!(run(&fibers), 0, "it is ready");
    }

    #[test]
    fn a_future_that_wakes_itself_is_behind_those_that_wait() {
        let fibers = fibers();
        let order = Arc::new(Mutex::new(Vec::new()));
        for name in ["one", "other"] {
            let (order, mut polls) = (Arc::clone(&order), 0);
            fibers.spawn(Box::pin(poll_fn(move |cx| {
                lock(&order).push(name);
                polls += 1;
                if polls == 2 {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            })));
        }
        assert_eq!(run(&fibers), 4);
        assert_eq!(*lock(&order), ["one", "other", "one", "other"]);
    }

    #[test]
    fn a_future_that_nobody_can_wake_is_dropped() {
        let fibers = fibers();
        let held = Arc::new(());
        let inside = Arc::clone(&held);
        fibers.spawn(Box::pin(async move {
            let _inside = inside;
            std::future::pending::<()>().await;
        }));
        run(&fibers);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    /// Each wake is in time for one more poll, from whatever thread it comes.
    #[test]
    fn no_wake_is_lost_between_threads() {
        const WAKES: usize = 20_000;
        let fibers = fibers();
        let (asked, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let waker = Arc::new(Mutex::new(None::<Waker>));
        let (asks, sees, kept) = (Arc::clone(&asked), Arc::clone(&seen), Arc::clone(&waker));
        fibers.spawn(Box::pin(poll_fn(move |cx| {
            lock(&kept).get_or_insert_with(|| cx.waker().clone());
            let asked = asks.load(Ordering::Relaxed);
            sees.store(asked, Ordering::SeqCst);
            if asked == WAKES {
                return Poll::Ready(());
            }
            Poll::Pending
        })));
        run(&fibers);
        let woken = lock(&waker).clone().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while seen.load(Ordering::SeqCst) < WAKES {
                        run(&fibers);
                    }
                });
            }
            for asks in 1..=WAKES {
                // Only the wake orders this before the poll that follows.
                asked.store(asks, Ordering::Relaxed);
                woken.wake_by_ref();
            }
        });
        assert_eq!(seen.load(Ordering::SeqCst), WAKES);
    }
}
