//! Instants and spans, and the one door to the monotonic clock and to sleeping.
//!
//! The one door to the wall clock is [`Clock`](crate::clock::Clock). All other code takes `now` as an argument and parks
//! through [`Clock::park`](crate::clock::Clock::park), so a test moves time by hand.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The longest wait before the wall clock is read again: setting the clock, or suspending the machine, delays a due task
/// by no more than this.
pub(crate) const MAX_PARK: Duration = Duration::from_secs(1);

/// An instant: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Timestamp(i64);

/// The resolution of a timestamp.
pub(crate) const MICRO: Duration = Duration::from_micros(1);

impl Timestamp {
    pub(crate) const MIN: Self = Self(0);
    /// 9999-12-31T23:59:59.999999Z, the last instant that RFC 3339 can write.
    pub(crate) const MAX: Self = Self(253_402_300_799_999_999);

    pub(crate) const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    pub(crate) const fn micros(self) -> i64 {
        self.0
    }

    /// `time`, rounded up to a microsecond: rounding down would start a task early.
    ///
    /// # Errors
    ///
    /// `Invalid` outside 1970 ..= 9999.
    pub(crate) fn rounded_up(time: DateTime<Utc>) -> Result<Self> {
        let below = time.timestamp_micros();
        let micros = below + i64::from(!time.timestamp_subsec_nanos().is_multiple_of(1_000));
        let at = Self(micros);
        if (Self::MIN..=Self::MAX).contains(&at) {
            Ok(at)
        } else {
            Err(Error::invalid(format!(
                "the time {time} is outside the years 1970 to 9999"
            )))
        }
    }

    pub(crate) fn to_utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Saturates at [`Timestamp::MAX`] and rounds the span up to a microsecond.
impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        let micros = i64::try_from(span.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros)).min(Self::MAX)
    }
}

/// Saturates at [`Timestamp::MIN`].
impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros)).max(Self::MIN)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_utc().fmt(f)
    }
}

/// A bound on a wait, on the monotonic clock: a step of the wall clock neither shortens nor lengthens it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

#[expect(
    clippy::disallowed_methods,
    reason = "the one door to the monotonic clock"
)]
impl Deadline {
    pub(crate) fn after(span: Duration) -> Self {
        Self(Instant::now().checked_add(span))
    }

    /// The time left; zero once the deadline has passed.
    pub(crate) fn remaining(self) -> Duration {
        match self.0 {
            Some(at) => at.saturating_duration_since(Instant::now()),
            // A span that overflows the clock never ends.
            None => Duration::MAX,
        }
    }

    pub(crate) fn is_over(self) -> bool {
        self.remaining().is_zero()
    }
}

/// Measures a span on the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

#[expect(
    clippy::disallowed_methods,
    reason = "the one door to the monotonic clock"
)]
impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Sleeps, so that another process can finish with a lock that this process needs.
#[expect(clippy::disallowed_methods, reason = "the one door to sleeping")]
pub(crate) fn pause(span: Duration) {
    std::thread::sleep(span);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_between_two_microseconds_is_the_later_one() {
        let time = DateTime::from_timestamp(10, 1_001).unwrap();
        assert_eq!(Timestamp::rounded_up(time).unwrap().micros(), 10_000_002);
        let exact = DateTime::from_timestamp(10, 2_000).unwrap();
        assert_eq!(Timestamp::rounded_up(exact).unwrap().micros(), 10_000_002);
    }

    #[test]
    fn times_outside_the_calendar_are_refused() {
        for seconds in [-1, 253_402_300_800] {
            let time = DateTime::from_timestamp(seconds, 0).unwrap();
            assert!(Timestamp::rounded_up(time).is_err(), "{time}");
        }
        assert!(Timestamp::rounded_up(DateTime::<Utc>::MIN_UTC).is_err());
        assert!(Timestamp::rounded_up(DateTime::<Utc>::MAX_UTC).is_err());
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::MIN + Duration::MAX, Timestamp::MAX);
        assert_eq!(Timestamp::MAX - Duration::MAX, Timestamp::MIN);
        assert_eq!(Timestamp::MIN.since(Timestamp::MAX), Duration::ZERO);
        assert_eq!(
            (Timestamp::MIN + Duration::from_nanos(1)).micros(),
            1,
            "a span is rounded up"
        );
    }
}
