//! How long the dispatcher leaves the store alone after an error.
//!
//! Invariant: the rest is bounded, also if the clock is set back meanwhile.

use std::time::Duration;

use crate::store::Pace;
use crate::time::Timestamp;

/// The rest after an error: twice as long after each further error, up to a maximum, and reset by a success.
#[derive(Debug)]
pub(crate) struct Backoff {
    pace: Pace,
    until: Option<Timestamp>,
    /// The rest after the next error, before jitter.
    span: Duration,
}

impl Backoff {
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            pace,
            until: None,
            span: pace.first_backoff,
        }
    }

    /// Until when the store is left alone; `None` if it may be called.
    pub(crate) fn rests(&self, now: Timestamp) -> Option<Timestamp> {
        still_to_come(self.until, now, self.pace)
    }

    /// Records an error. Returns when to try again. `draw`, uniform in 0 ..= 1, is the jitter: half to one and a half times
    /// the rest.
    pub(crate) fn failed(&mut self, draw: f64, now: Timestamp) -> Timestamp {
        let until = now + self.span.mul_f64(0.5 + draw);
        self.until = Some(until);
        self.span = (self.span * 2).min(self.pace.max_backoff);
        until
    }

    /// Records a success.
    pub(crate) fn worked(&mut self) {
        self.until = None;
        self.span = self.pace.first_backoff;
    }
}

/// `until`, if it lies ahead. An instant more than twice the longest rest ahead was set before the clock was set back, and
/// does not count.
pub(crate) fn still_to_come(
    until: Option<Timestamp>,
    now: Timestamp,
    pace: Pace,
) -> Option<Timestamp> {
    until.filter(|&until| now < until && until <= now + 2 * pace.max_backoff)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace::LOCAL;
    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

    #[test]
    fn p12_a_store_that_goes_on_failing_is_asked_again_ever_later_up_to_a_bound() {
        let mut backoff = Backoff::new(PACE);
        assert_eq!(backoff.rests(NOW), None);
        let mut span = PACE.first_backoff;
        for _ in 0..20 {
            let until = backoff.failed(0.5, NOW);
            assert_eq!(until, NOW + span);
            assert_eq!(backoff.rests(NOW), Some(until));
            assert_eq!(backoff.rests(until), None, "it is asked again");
            span = (span * 2).min(PACE.max_backoff);
        }
        assert_eq!(span, PACE.max_backoff);
    }

    #[test]
    fn a_store_that_has_answered_is_asked_soon_after_its_next_error() {
        let mut backoff = Backoff::new(PACE);
        for _ in 0..9 {
            backoff.failed(0.5, NOW);
        }
        backoff.worked();
        assert_eq!(backoff.rests(NOW), None);
        assert_eq!(backoff.failed(0.0, NOW), NOW + PACE.first_backoff / 2);
    }

    #[test]
    fn p12_a_rest_does_not_outlast_a_clock_that_is_set_back() {
        let mut backoff = Backoff::new(PACE);
        backoff.failed(1.0, NOW);
        assert_eq!(backoff.rests(NOW - Duration::from_secs(3600)), None);
    }
}
