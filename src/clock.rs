//! Where the time comes from, and how to wait for it: an argument everywhere, so that tests move it by hand.

use std::fmt;

use chrono::Utc;

use crate::time::{MAX_PARK, Timestamp};
use crate::wake::Wake;

/// Where the time comes from, and how to wait for it.
pub(crate) trait Clock: Send + Sync + fmt::Debug {
    fn now(&self) -> Timestamp;

    /// Blocks until `wake` is notified, `until` has come, or [`MAX_PARK`] is over, whichever is first. A
    /// notification from before the call ends it at once.
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
