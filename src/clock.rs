//! The wall clock, as a trait: everything takes its clock as an argument, so tests move time by hand.

use std::fmt;

use chrono::Utc;

use crate::time::{MAX_PARK, Timestamp};
use crate::wake::Wake;

/// A source of time that can also be waited on.
pub(crate) trait Clock: Send + Sync + fmt::Debug {
    fn now(&self) -> Timestamp;

    /// Blocks until `wake` is notified, `until` has come, or [`MAX_PARK`] is over, whichever is first. If `wake` was
    /// notified before the call, returns at once.
    fn park(&self, wake: &Wake, until: Option<Timestamp>);
}

/// The system's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one door to the wall clock")]
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(Utc::now().timestamp_micros())
    }

    fn park(&self, wake: &Wake, until: Option<Timestamp>) {
        let span = match until {
            Some(until) => until.since(self.now()).min(MAX_PARK),
            None => MAX_PARK,
        };
        wake.wait(span);
    }
}
