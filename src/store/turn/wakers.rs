//! The wakers of receipts whose answer has come. A waker is the program's code: it may block, panic, or write to the same
//! store. So a thread of their own calls them: a waker that blocks delays other wakers, but no write.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use crate::log::log;
use crate::panics::survive;
use crate::sync::lock;
use crate::thread::Thread;
use crate::wake::Wake;

thread_local! {
    /// The address of the wakers that this thread is calling; 0: none.
    static CALLING: Cell<usize> = const { Cell::new(0) };
}

/// Wakers that are still to be called.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    wakers: Mutex<Vec<Waker>>,
    /// Whether there are any, readable without the lock.
    any: AtomicBool,
    /// Wakes the thread that calls them. It is started when it is first needed.
    caller: Mutex<Option<Wake>>,
}

impl Wakers {
    pub(crate) fn push(&self, waker: Waker) {
        lock(&self.wakers).push(waker);
        // Relaxed: the same thread reads it, after it has answered.
        self.any.store(true, Ordering::Relaxed);
    }

    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Makes the wakers' own thread call them. `false`: the thread could not be started, and the caller must call them.
    pub(crate) fn delegate(self: &Arc<Self>) -> bool {
        let mut caller = lock(&self.caller);
        if caller.is_none() {
            let wake = Wake::new();
            let (woken, wakers) = (wake.clone(), Arc::downgrade(self));
            let started = Thread::spawn("punctual-wakers", move || {
                loop {
                    woken.wait(Duration::from_secs(1));
                    let Some(wakers) = wakers.upgrade() else {
                        return;
                    };
                    wakers.call();
                }
            });
            *caller = started.is_ok().then_some(wake);
        }
        match &*caller {
            Some(wake) => wake.notify(),
            None => return false,
        }
        true
    }

    /// Calls all of them, and those that are added meanwhile.
    pub(crate) fn call(&self) {
        let own = std::ptr::from_ref(self).addr();
        let outer = CALLING.replace(own);
        // A waker that writes to the store gets here again. It leaves the wakers of what it has answered to the loop that
        // called it, so the stack does not grow.
        if outer != own {
            while self.call_some() {}
        }
        CALLING.set(outer);
    }

    /// Calls those that are there; `false`: there were none.
    fn call_some(&self) -> bool {
        self.any.store(false, Ordering::Relaxed);
        let wakers = std::mem::take(&mut *lock(&self.wakers));
        let found = !wakers.is_empty();
        for waker in wakers {
            if survive(|| waker.wake()).is_none() {
                log!(error, "the waker of a receipt panicked");
            }
        }
        found
    }
}
