//! Calls the user's code for an attempt: inside a span of the attempt's own, and so that a panic ends the attempt and nothing
//! else.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::handler::holding::Holding;
use crate::log::log;
use crate::model::settle::{Claim, End};
use crate::panics::{discard, survive};

/// The span of an attempt. A subscriber that panics as the span is made, entered, left or closed changes nothing in how the
/// attempt ends.
#[derive(Debug)]
pub(crate) struct AttemptSpan(Option<tracing::Span>);

impl AttemptSpan {
    pub(crate) fn new(claim: &Claim) -> Self {
        let (id, kind, attempt) = (claim.id, &claim.kind, claim.attempt);
        Self(survive(
            || tracing::info_span!("task", id = %id, kind = %kind, attempt = attempt),
        ))
    }

    /// Runs code, which must not panic, inside the span.
    pub(crate) fn inside<T>(&self, run: impl FnOnce() -> T) -> T {
        let entered = self.0.as_ref().and_then(|span| survive(|| span.enter()));
        let value = run();
        let _ = survive(|| drop(entered));
        value
    }
}

impl Drop for AttemptSpan {
    fn drop(&mut self) {
        let span = self.0.take();
        let _ = survive(|| drop(span));
    }
}

/// Runs code of the user's. If it panicked: the message of the panic.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(panic_text)
}

/// Tells how an attempt ended.
pub(crate) fn log_end(end: &End, holding: &Holding) {
    if holding.is_settled() && !end.is_settled() {
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
        } => log!(warn, error = failure.text(), reason = ?holding.token.reason(), "failed"),
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
        let told = |run: fn()| caught(run).unwrap_err();
        assert_eq!(told(|| panic!("plain")), "panicked: plain");
        assert_eq!(told(|| panic!("{} {}", 1, 2)), "panicked: 1 2");
        assert_eq!(told(|| std::panic::panic_any(7)), "panicked");
    }

    #[test]
    fn a_panic_that_panics_when_dropped_is_survived() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        let told = caught(|| std::panic::panic_any(Bomb)).unwrap_err();
        assert_eq!(told, "panicked");
    }
}
