//! A part of the runtime that acts from time to time, and the loop that runs one on a thread.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::Result;
use crate::log::log;
use crate::panics::survive;
use crate::thread::Thread;
use crate::time::Timestamp;
use crate::wake::Wake;

/// How long a service rests after a panic.
pub(crate) const AFTER_PANIC: Duration = Duration::from_secs(1);

/// A part of the runtime that acts from time to time.
pub(crate) trait Service: Send {
    /// Does what is due, and returns when to call it again.
    fn run_once(&mut self, now: Timestamp) -> Next;
}

/// When to call a service again. Any call may come earlier; unless ended, a service is called at least once a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// At this instant, or when it is notified.
    At(Timestamp),
    /// When it is notified.
    Notified,
    /// Never: the service has ended.
    Ended,
}

impl Next {
    pub(crate) fn at(at: Option<Timestamp>) -> Self {
        at.map_or(Self::Notified, Self::At)
    }

    /// The earlier of both. `Ended` counts as later than the other.
    pub(crate) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Ended, next) | (next, Self::Ended) => next,
            (Self::At(one), Self::At(other)) => Self::At(one.min(other)),
            (Self::At(at), Self::Notified) | (Self::Notified, Self::At(at)) => Self::At(at),
            (Self::Notified, Self::Notified) => Self::Notified,
        }
    }
}

/// Runs a service on a thread of its own until it ends. A panic is a bug in this crate: it is logged, and the service goes
/// on after [`AFTER_PANIC`].
pub(crate) fn spawn(
    name: &str,
    mut service: impl Service + 'static,
    clock: Arc<dyn Clock>,
    wake: Wake,
) -> Result<Thread> {
    let shown = name.to_owned();
    Thread::spawn(name, move || {
        loop {
            let now = clock.now();
            let next = survive(|| service.run_once(now));
            let until = match next {
                Some(Next::Ended) => return,
                Some(Next::At(at)) => Some(at),
                Some(Next::Notified) => None,
                None => {
                    log!(error, service = %shown, "a service panicked; it goes on");
                    Some(now + AFTER_PANIC)
                }
            };
            wake.sleep_until(until);
            clock.park(&wake, until);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::time::Deadline;

    struct Panics(u32);

    impl Service for Panics {
        fn run_once(&mut self, now: Timestamp) -> Next {
            self.0 += 1;
            match self.0 {
                1 => panic!("as it should"),
                2 => Next::At(now),
                _ => Next::Ended,
            }
        }
    }

    #[test]
    fn p12_a_service_that_panics_goes_on() {
        let wake = Wake::new();
        let thread = spawn("panics", Panics(0), Arc::new(SystemClock), wake.clone()).unwrap();
        wake.notify();
        assert!(thread.join(Deadline::after(Duration::from_secs(60))));
    }

    #[test]
    fn the_earlier_of_two() {
        let at = |micros| Next::At(Timestamp::from_micros(micros));
        assert_eq!(at(1).or(at(2)), at(1));
        assert_eq!(Next::Notified.or(at(2)), at(2));
        assert_eq!(Next::Ended.or(at(2)), at(2));
    }
}
