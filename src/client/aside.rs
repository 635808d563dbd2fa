//! Runs blocking calls for async code, on a few threads of the client's own.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::panics::{discard, survive};
use crate::sync::lock;
use crate::thread::Thread;

/// As many calls run at once. Reads of SQLite scale with the processors; writes take turns anyway.
const MAX_THREADS: usize = 4;

/// A thread without a call ends after this.
const IDLE: Duration = Duration::from_secs(10);

/// The threads that run calls beside those of a runtime. They start when there is something to run. A clone of the client
/// shares them; they end with the last.
#[derive(Debug, Default)]
pub(crate) struct Aside(Arc<Queue>);

type Call = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    called: Condvar,
    /// Notified when a thread has no call.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    calls: VecDeque<Call>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Aside {
    /// Queues a call. If its [`Answer`] is dropped before its turn has come, it is dropped and never runs.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Answer<T> {
        self.queue(|cell: &Cell<T>| !cell.is_left(), call)
    }

    /// Queues a call that has to wait for something itself, before it begins: then it may ask whether anybody still waits for
    /// its answer.
    pub(crate) fn run_wanted<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
    ) -> Answer<T> {
        self.queue_asking(|cell: &Cell<T>| !cell.is_left(), call)
    }

    /// Queues a call that runs whether or not anybody waits for its answer.
    pub(crate) fn run_surely<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Answer<T> {
        self.queue(|_: &Cell<T>| true, call)
    }

    /// Waits until no call waits or runs, for at most ten seconds: one may wait for the calling thread.
    #[cfg(feature = "testing")]
    pub(crate) fn finish(&self) {
        let mut state = lock(&self.0.state);
        let deadline = crate::time::Deadline::after(Duration::from_secs(10));
        while (!state.calls.is_empty() || state.idle < state.threads) && !deadline.is_over() {
            let waited = self.0.ended.wait_timeout(state, deadline.remaining());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn queue<T: Send + 'static>(
        &self,
        may_run: fn(&Cell<T>) -> bool,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Answer<T> {
        self.queue_asking(may_run, move |_| call())
    }

    fn queue_asking<T: Send + 'static>(
        &self,
        may_run: fn(&Cell<T>) -> bool,
        call: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
    ) -> Answer<T> {
        let cell = Arc::new(Cell(Mutex::new(Slot::Waits(None))));
        let answer = Answer(Ok(Arc::clone(&cell)));
        let pending = Pending(cell);
        let call = Box::new(move || {
            if may_run(&pending.0) {
                let is_wanted = || !pending.0.is_left();
                pending.0.answer(|| call(&is_wanted));
            }
        });
        match self.0.push(call) {
            Ok(()) => answer,
            Err(error) => Answer(Err(Some(error))),
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        lock(&self.0.state).closed = true;
        self.0.called.notify_all();
    }
}

impl Queue {
    fn push(self: &Arc<Self>, call: Call) -> Result<()> {
        let mut state = lock(&self.state);
        state.calls.push_back(call);
        if state.calls.len() > state.idle && state.threads < MAX_THREADS {
            state.threads += 1;
            drop(state);
            let queue = Arc::clone(self);
            if let Err(error) = Thread::spawn("punctual-aside", move || queue.work()) {
                let mut state = lock(&self.state);
                state.threads -= 1;
                if state.threads == 0 {
                    // Nobody would run them. Dropped outside the lock: they hold the user's values.
                    let calls = std::mem::take(&mut state.calls);
                    drop(state);
                    drop(calls);
                    return Err(error);
                }
            }
        } else {
            drop(state);
            self.called.notify_one();
        }
        Ok(())
    }

    fn work(&self) {
        while let Some(call) = self.next() {
            // A call that nobody waits for is dropped, and its drop may panic.
            let _ = survive(call);
        }
    }

    /// The next call. `None`: the calling thread must end.
    fn next(&self) -> Option<Call> {
        let mut state = lock(&self.state);
        loop {
            if let Some(call) = state.calls.pop_front() {
                return Some(call);
            }
            if state.closed {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            self.ended.notify_all();
            let waited = self.called.wait_timeout(state, IDLE);
            let timeout;
            (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            if timeout.timed_out() && state.calls.is_empty() {
                state.threads -= 1;
                return None;
            }
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

/// Where a call leaves its answer.
struct Cell<T>(Mutex<Slot<T>>);

enum Slot<T> {
    /// The call's turn has not come, or it runs.
    Waits(Option<Waker>),
    Answered(std::thread::Result<T>),
    /// The call was dropped, because there is no thread to run it.
    Dropped,
    /// Nobody waits for the answer, or it was taken.
    Left,
}

impl<T> Cell<T> {
    fn is_left(&self) -> bool {
        matches!(*lock(&self.0), Slot::Left)
    }

    fn answer(&self, call: impl FnOnce() -> T) {
        let answer = catch_unwind(AssertUnwindSafe(call));
        let mut slot = lock(&self.0);
        match std::mem::replace(&mut *slot, Slot::Left) {
            Slot::Waits(waker) => {
                *slot = Slot::Answered(answer);
                drop(slot);
                if let Some(waker) = waker {
                    let _ = survive(|| waker.wake());
                }
            }
            _ => {
                drop(slot);
                leave(answer);
            }
        }
    }
}

/// A call that is yet to be answered. If it is dropped before, whoever waits is told.
struct Pending<T>(Arc<Cell<T>>);

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        let mut slot = lock(&self.0.0);
        let Slot::Waits(waker) = &mut *slot else {
            return;
        };
        let waker = waker.take();
        *slot = Slot::Dropped;
        drop(slot);
        if let Some(waker) = waker {
            let _ = survive(|| waker.wake());
        }
    }
}

/// Drops an answer that nobody waits for.
fn leave<T>(answer: Result<T, Box<dyn Any + Send>>) {
    match answer {
        Ok(value) => drop(survive(|| drop(value))),
        Err(panic) => drop(discard(panic)),
    }
}

/// The answer to a call. If the call panicked, so does the poll.
pub(crate) struct Answer<T>(Result<Arc<Cell<T>>, Option<Error>>);

impl<T> Future for Answer<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let cell = match &mut self.0 {
            Ok(cell) => cell,
            Err(error) => {
                let error = error.take().expect("it is not polled after its end");
                return Poll::Ready(Err(error));
            }
        };
        let waker = cx.waker().clone();
        let mut slot = lock(&cell.0);
        let old = match &mut *slot {
            Slot::Waits(old) => old.replace(waker),
            _ => {
                let answered = std::mem::replace(&mut *slot, Slot::Left);
                drop(slot);
                return Poll::Ready(match answered {
                    Slot::Answered(Ok(answer)) => Ok(answer),
                    Slot::Answered(Err(panic)) => resume_unwind(panic),
                    Slot::Dropped => Err(Error::new(
                        ErrorKind::Storage,
                        "there is no thread to run the call",
                    )),
                    Slot::Waits(_) | Slot::Left => unreachable!("it is not polled after its end"),
                });
            }
        };
        drop(slot);
        drop(old);
        Poll::Pending
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Ok(cell) = &self.0 {
            let left = std::mem::replace(&mut *lock(&cell.0), Slot::Left);
            if let Slot::Answered(answer) = left {
                leave(answer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wake::Wake;

    const LONG: Duration = Duration::from_secs(60);

    struct Unpark(Wake);

    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.notify();
        }
    }

    fn block_on<T>(mut answer: Answer<T>) -> Result<T> {
        let wake = Wake::new();
        let waker = Waker::from(Arc::new(Unpark(wake.clone())));
        loop {
            let polled = Pin::new(&mut answer).poll(&mut Context::from_waker(&waker));
            if let Poll::Ready(answer) = polled {
                return answer;
            }
            assert!(wake.wait(LONG), "there is no answer");
        }
    }

    /// Keeps all threads busy until the wakes are notified.
    fn busy(aside: &Aside) -> (Vec<Wake>, Vec<Answer<bool>>) {
        let begun = Wake::new();
        let goes_on: Vec<Wake> = (0..MAX_THREADS).map(|_| Wake::new()).collect();
        let answers = goes_on.iter().map(|wake| {
            let (wake, told) = (wake.clone(), begun.clone());
            let answer = aside.run(move || {
                told.notify();
                wake.wait(LONG)
            });
            assert!(begun.wait(LONG));
            answer
        });
        let answers = answers.collect();
        (goes_on, answers)
    }

    #[test]
    fn a_call_is_answered_and_its_panic_goes_on() {
        let aside = Aside::default();
        assert_eq!(block_on(aside.run(|| 7)).unwrap(), 7);
        let panics = aside.run(|| std::panic::panic_any(7_u8));
        let panic = catch_unwind(AssertUnwindSafe(|| block_on::<()>(panics))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&7_u8));
        assert_eq!(block_on(aside.run(|| 8)).unwrap(), 8, "the thread goes on");
    }

    #[test]
    fn a_call_whose_future_is_dropped_before_its_turn_never_runs() {
        let aside = Aside::default();
        let (goes_on, answers) = busy(&aside);
        let (ran, surely) = (Wake::new(), Wake::new());
        let (never, always) = (ran.clone(), surely.clone());
        drop(aside.run(move || never.notify()));
        drop(aside.run_surely(move || always.notify()));
        goes_on.iter().for_each(Wake::notify);
        for answer in answers {
            assert!(block_on(answer).unwrap());
        }
        assert!(surely.wait(LONG));
        assert!(!ran.wait(Duration::ZERO));
    }

    #[test]
    fn p12_a_call_that_panics_when_it_is_dropped_ends_no_thread() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("as it should");
            }
        }
        let aside = Aside::default();
        let (goes_on, answers) = busy(&aside);
        for _ in 0..2 * MAX_THREADS {
            let bomb = Bomb;
            drop(aside.run(move || drop(bomb)));
        }
        goes_on.iter().for_each(Wake::notify);
        for answer in answers {
            assert!(block_on(answer).unwrap());
        }
        assert_eq!(block_on(aside.run(|| 7)).unwrap(), 7);
    }

    /// As when the system has no thread left.
    #[test]
    fn p12_a_call_that_is_dropped_by_its_queue_is_answered() {
        let aside = Aside::default();
        let (goes_on, _answers) = busy(&aside);
        let answer = aside.run(|| 7);
        let calls = std::mem::take(&mut lock(&aside.0.state).calls);
        drop(calls);
        assert_eq!(block_on(answer).unwrap_err().kind(), ErrorKind::Storage);
        goes_on.iter().for_each(Wake::notify);
    }

    #[test]
    fn what_is_queued_is_run_although_the_threads_are_to_end() {
        let aside = Aside::default();
        let (goes_on, _answers) = busy(&aside);
        let last = aside.run(|| 7);
        drop(aside);
        goes_on.iter().for_each(Wake::notify);
        assert_eq!(block_on(last).unwrap(), 7);
    }
}
