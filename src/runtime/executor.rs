//! Running one claimed task: decode, call the handler, catch its panic, say how it ended.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::client::Client;
use crate::handler::Registry;
use crate::handler::context::TaskContext;
use crate::handler::token::StopReason;
use crate::model::retry::RetryPolicy;
use crate::model::settle::{Asked, Claim, End, Payload, Settlement, deadline, settle};
use crate::panics::{discard, survive};
use crate::runtime::attempts::Attempts;
use crate::runtime::finish::{Finish, Finished};
use crate::runtime::ready::{Job, Ready};
use crate::runtime::undecodable::Undecodable;
use crate::tell::tell;
use crate::time::Stopwatch;

/// No handler forks in less: the kernel has the process's memory to copy. To ask which process this is takes 0.1 µs.
const QUICKEST_FORK: Duration = Duration::from_micros(10);

/// What every worker shares.
#[derive(Debug, Clone)]
pub(crate) struct Executor {
    pub(crate) client: Client,
    pub(crate) registry: Arc<Registry>,
    pub(crate) ready: Arc<Ready>,
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) finish: Arc<Finish>,
    pub(crate) undecodable: Arc<Undecodable>,
}

impl Executor {
    /// Runs tasks until the thread is not needed any more.
    pub(crate) fn work(&self) {
        while let Some(job) = self.ready.next() {
            if !self.run(job) {
                return;
            }
        }
    }

    /// Runs a waiting task, if there is one.
    #[cfg(feature = "testing")]
    pub(crate) fn run_one(&self) -> bool {
        let job = self.ready.try_next();
        let found = job.is_some();
        if let Some(job) = job {
            self.run(job);
        }
        found
    }

    /// Runs a task, and says whether the thread may go on: not in a child that the handler has forked.
    fn run(&self, job: Job) -> bool {
        let Job {
            claim,
            place,
            token,
            ..
        } = job;
        let entry = self.registry.claimed(&claim.kind);
        let cancelled =
            token.reason().is_some() || self.client.store.hub().is_cancelled(claim.fence);
        let unstarted = if cancelled {
            Some(End::CancelledUnstarted)
        } else {
            // Without this note a crash would look as if the task had not been started.
            self.client.store.begin(claim.fence).err().map(|error| {
                tell!(warn, task = %claim.id, %error, "cannot note the start");
                End::Unstarted
            })
        };
        if let Some(end) = unstarted {
            self.attempts.skip(place);
            let settlement = self.settlement(&claim, end, &entry.retry);
            self.finish.push(Finished {
                place,
                kind: claim.kind,
                settlement: Some(settlement),
                ran: None,
            });
            return true;
        }
        let deadline = deadline(&claim, entry.timeout, self.client.now());
        self.attempts.start(place, deadline);
        let watch = Stopwatch::start();
        let cx = TaskContext {
            claim,
            deadline,
            token,
            client: self.client.clone(),
            settled: AtomicBool::new(false),
        };
        let run = || call(&cx, |payload| entry.run(payload, &cx));
        let end = catch_unwind(AssertUnwindSafe(run))
            .unwrap_or_else(|panic| End::Panicked(panic_text(panic)));
        let took = watch.elapsed();
        if took >= QUICKEST_FORK && self.client.store.check().is_err() {
            // What else waits is its parent's, and a lock may be held by a thread that is not there.
            return false;
        }
        let end = match end {
            End::Returned { result, .. } => End::Returned {
                result,
                asked: asked(&cx),
            },
            end => end,
        };
        if matches!(end, End::Undecodable(_)) {
            self.undecodable.note(&cx.claim.kind, self.client.now());
        }
        let (ended, was_stuck) = self.attempts.end(place);
        if was_stuck {
            // It was taken for stuck, and perhaps replaced.
            self.ready.drop_spare();
        }
        let settlement = (!cx.is_settled()).then(|| self.settlement(&cx.claim, end, &entry.retry));
        self.finish.push(Finished {
            place,
            kind: cx.claim.kind.clone(),
            settlement,
            ran: Some(took),
        });
        if !was_stuck {
            self.client.store.hub().standing().freed(ended);
        }
        true
    }

    /// What to record. A retry policy may be the user's code: if it panics, the default one decides.
    fn settlement(&self, claim: &Claim, end: End, retry: &RetryPolicy) -> Settlement {
        let (draw, now) = (fastrand::f64(), self.client.now());
        let decide = |end, retry: &RetryPolicy| settle(claim, end, retry, draw, now);
        if !retry.is_custom() {
            return decide(end, retry);
        }
        let decided = survive(|| decide(end.clone(), retry));
        decided.unwrap_or_else(|| {
            tell!(error, kind = %claim.kind, "the retry policy panicked");
            decide(end, &RetryPolicy::default())
        })
    }
}

/// Whether the handler had been asked to stop when it returned.
fn asked(cx: &TaskContext) -> Asked {
    match cx.token.reason() {
        Some(StopReason::ShuttingDown | StopReason::Lost) => Asked::Interrupted,
        _ if cx.is_late() => Asked::TooLong,
        _ => Asked::Not,
    }
}

/// Calls the handler, and takes every way in which it can end.
fn call(
    cx: &TaskContext,
    run: impl FnOnce(&[u8]) -> crate::error::Result<crate::model::outcome::TaskResult>,
) -> End {
    let claim = &cx.claim;
    let payload = match &claim.payload {
        Payload::Whole(payload) => payload,
        Payload::Damaged(how) => return End::Damaged(how),
    };
    let span =
        tracing::info_span!("task", id = %claim.id, kind = %claim.kind, attempt = claim.attempt);
    let _entered = span.enter();
    tell!(debug, "started");
    let end = match catch_unwind(AssertUnwindSafe(|| run(payload))) {
        Ok(Ok(result)) => End::Returned {
            result,
            asked: Asked::Not,
        },
        Ok(Err(error)) => End::Undecodable(error.to_string()),
        Err(panic) => End::Panicked(panic_text(panic)),
    };
    tell(&end, cx);
    end
}

fn tell(end: &End, cx: &TaskContext) {
    if cx.is_settled() && !end.is_settled() {
        tell!(
            warn,
            "its outcome was committed by complete(): what the handler returned is ignored"
        );
    }
    match end {
        End::Returned {
            result: Ok(outcome),
            ..
        } => tell!(debug, ?outcome, "returned"),
        End::Returned {
            result: Err(failure),
            ..
        } => tell!(warn, error = failure.text(), reason = ?cx.stop_reason(), "failed"),
        End::Undecodable(error) => tell!(warn, error, "cannot decode the payload"),
        End::Panicked(text) => tell!(error, panic = text, "panicked"),
        End::Damaged(_) | End::Unstarted | End::CancelledUnstarted => {}
    }
}

/// The message of a panic. Dropping what it carries may panic again.
fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => format!("panicked: {text}"),
        (_, Some(text)) => format!("panicked: {text}"),
        _ => "panicked".to_owned(),
    };
    if !discard(panic) {
        tell!(error, "the payload of a panic panicked when it was dropped");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_by_its_message() {
        let caught = |run: fn()| panic_text(catch_unwind(run).unwrap_err());
        assert_eq!(caught(|| panic!("plain")), "panicked: plain");
        assert_eq!(caught(|| panic!("{} {}", 1, 2)), "panicked: 1 2");
        assert_eq!(caught(|| std::panic::panic_any(7)), "panicked");
    }

    #[test]
    fn a_panic_that_panics_when_dropped_is_survived() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        let panic = catch_unwind(|| std::panic::panic_any(Bomb)).unwrap_err();
        assert_eq!(panic_text(panic), "panicked");
    }
}
