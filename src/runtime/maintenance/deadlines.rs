//! Watches deadlines: asks handlers to stop, and replaces the threads of those that do not return.

use std::sync::Arc;

use crate::log::log;
use crate::runtime::executor::Executor;
use crate::runtime::link::Link;
use crate::runtime::ready::Ready;
use crate::runtime::service::{Next, Service};
use crate::thread::Thread;
use crate::time::Timestamp;
use crate::wake::Wake;

/// The watch on deadlines.
#[derive(Debug)]
pub(crate) struct Deadlines {
    pub(crate) link: Arc<Link>,
    pub(crate) ready: Arc<Ready>,
    /// Run by spare threads; `None` when stepped by hand.
    pub(crate) executor: Option<Executor>,
    /// Notified when a spare thread is added, because there is one more worker to claim for.
    pub(crate) dispatcher: Wake,
    /// Whether the workers run futures too.
    pub(crate) runs_futures: bool,
    /// The most threads, workers and spares together.
    pub(crate) max_threads: usize,
}

impl Deadlines {
    /// Starts a spare thread for each newly stuck handler, up to `max_threads` in all.
    fn replace(&self, stuck: usize) {
        for _ in 0..stuck {
            if !self.ready.add_spare(self.max_threads) {
                log!(
                    error,
                    "a handler is stuck, and there is no thread to replace it"
                );
                return;
            }
            log!(warn, "a handler is stuck: a spare thread takes its place");
            self.dispatcher.notify();
            let Some(executor) = self.executor.clone() else {
                continue;
            };
            if self.ready.add_thread()
                && let Err(error) = Thread::spawn("punctual-spare", move || executor.work())
            {
                self.ready.remove_thread();
                self.ready.drop_spare();
                log!(error, %error, "cannot replace a stuck handler");
            }
        }
    }
}

impl Service for Deadlines {
    fn run_once(&mut self, now: Timestamp) -> Next {
        let looked = self.link.attempts.look(now);
        self.link.signals().call(looked.wakers);
        if looked.newly_stuck.total() > 0 {
            // Other suspects may run now, also if there is no thread to replace it.
            self.dispatcher.notify();
        }
        for kind in &looked.newly_blocked {
            log!(
                warn,
                %kind,
                "the future of a task blocks its thread for over a second: others may wait for it"
            );
        }
        if looked.is_newly_left {
            log!(
                warn,
                "the executor of the async handlers does not run: what it was given is not polled"
            );
        }
        let on_workers = match self.runs_futures {
            true => looked.newly_stuck.total(),
            false => looked.newly_stuck.threads,
        };
        self.replace(on_workers);
        Next::at(looked.next)
    }
}
