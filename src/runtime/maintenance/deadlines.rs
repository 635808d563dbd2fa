//! Watches over deadlines: it asks handlers to stop, and replaces those that do not.

use std::sync::Arc;

use crate::log::log;
use crate::runtime::attempts::Attempts;
use crate::runtime::executor::Executor;
use crate::runtime::ready::Ready;
use crate::runtime::service::{Next, Service};
use crate::thread::Thread;
use crate::time::Timestamp;
use crate::wake::Wake;

/// The watch over deadlines.
#[derive(Debug)]
pub(crate) struct Deadlines {
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) ready: Arc<Ready>,
    /// What a spare thread works with; `None` when stepped by hand.
    pub(crate) executor: Option<Executor>,
    /// There is a worker to claim for.
    pub(crate) dispatcher: Wake,
    /// Workers and spare threads together are never more than this.
    pub(crate) max_threads: usize,
}

impl Deadlines {
    /// Starts a thread in the place of each handler that is stuck, up to the cap.
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
        let looked = self.attempts.look(now);
        self.replace(looked.newly_stuck);
        Next::at(looked.next)
    }
}
