//! Runs tasks on a worker's thread: claimed tasks of blocking handlers, and futures that share the workers.

use std::sync::Arc;

use crate::handler::Registry;
use crate::log::log;
use crate::model::settle::{End, StoredPayload};
use crate::runtime::call::{AttemptSpan, caught, log_end};
use crate::runtime::job::{Job, Returned};
use crate::runtime::ready::{Ready, Work};

/// What every worker shares.
#[derive(Debug, Clone)]
pub(crate) struct Executor {
    pub(crate) registry: Arc<Registry>,
    pub(crate) ready: Arc<Ready>,
}

/// What was done for a stepped scheduler.
#[cfg(feature = "testing")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ran {
    Task,
    /// A poll of a future.
    Poll,
}

impl Executor {
    /// Runs tasks until this thread must end.
    pub(crate) fn work(&self) {
        while let Some(work) = self.ready.next() {
            if !self.perform(work) {
                return;
            }
        }
    }

    /// Runs a waiting task, or polls a future that was woken, if there is one.
    #[cfg(feature = "testing")]
    pub(crate) fn run_one(&self) -> Option<Ran> {
        let work = self.ready.try_next()?;
        let ran = match work {
            Work::Job(_) => Ran::Task,
            Work::Fiber(_) => Ran::Poll,
        };
        self.perform(work);
        Some(ran)
    }

    /// Returns `false` in a child process that a handler has forked: its thread must end.
    fn perform(&self, work: Work) -> bool {
        match work {
            Work::Job(job) => self.run(job),
            Work::Fiber(fiber) => {
                if !fiber.poll() {
                    return false;
                }
                for _ in 0..self.ready.fibers().take_late() {
                    self.ready.drop_spare();
                }
                true
            }
        }
    }

    fn run(&self, job: Job) -> bool {
        let Some(running) = job.start() else {
            return true;
        };
        let cx = running.context();
        let claim = &cx.holding.claim;
        let entry = self.registry.claimed(&claim.kind);
        let span = AttemptSpan::new(claim);
        let end = span.inside(|| {
            log!(debug, "started");
            let end = match &claim.payload {
                StoredPayload::Whole(payload) => match caught(|| entry.run(payload, cx)) {
                    Ok(Ok(result)) => End::returned(result),
                    Ok(Err(error)) => End::Undecodable(error.to_string()),
                    Err(panic) => End::Panicked(panic),
                },
                StoredPayload::Damaged(how) => End::Damaged(how),
            };
            log_end(&end, &cx.holding);
            end
        });
        drop(span);
        match running.end(end) {
            Returned::InTime => true,
            Returned::Late => {
                self.ready.drop_spare();
                true
            }
            Returned::InChild => false,
        }
    }
}
