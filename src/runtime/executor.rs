//! Runs one claimed task: decodes its payload, calls the handler, catches its panic, reports how the attempt ended.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::error::Result;
use crate::handler::Registry;
use crate::handler::context::TaskContext;
use crate::log::log;
use crate::model::outcome::TaskResult;
use crate::model::settle::{Asked, End, StoredPayload};
use crate::panics::{discard, survive};
use crate::runtime::job::{Job, Returned};
use crate::runtime::ready::Ready;

/// What every worker shares.
#[derive(Debug, Clone)]
pub(crate) struct Executor {
    pub(crate) registry: Arc<Registry>,
    pub(crate) ready: Arc<Ready>,
}

impl Executor {
    /// Runs tasks until this thread must end.
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

    /// Runs a task. Returns `false` in a child process that the handler has forked: its thread must end.
    fn run(&self, job: Job) -> bool {
        let Some(running) = job.start() else {
            return true;
        };
        let cx = running.context();
        let entry = self.registry.claimed(cx.kind());
        let end = match &cx.claim.payload {
            StoredPayload::Whole(payload) => in_span(cx, || call(|| entry.run(payload, cx))),
            StoredPayload::Damaged(how) => End::Damaged(how),
        };
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

/// Runs an attempt inside a span of its own. A subscriber that panics as the span is made, entered, left or closed changes
/// nothing in how the attempt ends.
fn in_span(cx: &TaskContext, run: impl FnOnce() -> End) -> End {
    let claim = &cx.claim;
    let span = survive(
        || tracing::info_span!("task", id = %claim.id, kind = %claim.kind, attempt = claim.attempt),
    );
    let entered = span.as_ref().and_then(|span| survive(|| span.enter()));
    log!(debug, "started");
    let end = run();
    log_end(&end, cx);
    // One after the other: a panic as the span is closed while another unwinds would abort the process.
    let _ = survive(|| drop(entered));
    let _ = survive(|| drop(span));
    end
}

/// Calls the handler, and turns every result into an [`End`]. It never panics: a second panic, by a subscriber as the first
/// leaves the span, would abort the process.
fn call(run: impl FnOnce() -> Result<TaskResult>) -> End {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(result)) => End::Returned {
            result,
            asked: Asked::Not,
        },
        Ok(Err(error)) => End::Undecodable(error.to_string()),
        Err(panic) => End::Panicked(panic_text(panic)),
    }
}

fn log_end(end: &End, cx: &TaskContext) {
    if cx.is_settled() && !end.is_settled() {
        log!(
            warn,
            "its outcome was committed by complete(): what the handler returned is ignored"
        );
    }
    match end {
        End::Returned {
            result: Ok(outcome),
            ..
        } => log!(debug, ?outcome, "returned"),
        End::Returned {
            result: Err(failure),
            ..
        } => log!(warn, error = failure.text(), reason = ?cx.stop_reason(), "failed"),
        End::Undecodable(error) => log!(warn, error, "cannot decode the payload"),
        End::Panicked(text) => log!(error, panic = text, "panicked"),
        End::Damaged(_) | End::Unstarted | End::CancelledUnstarted => {}
    }
}

/// The message of a panic. Survives a panic while the value is dropped.
fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => format!("panicked: {text}"),
        (_, Some(text)) => format!("panicked: {text}"),
        _ => "panicked".to_owned(),
    };
    if !discard(panic) {
        log!(error, "the payload of a panic panicked when it was dropped");
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
