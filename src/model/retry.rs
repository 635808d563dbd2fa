//! When to try again after a failure.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::limits::check_span;

/// How long to wait before the next attempt of a task that failed.
///
/// A policy only says when; the task's `max_attempts` says how often. A delay that the error itself asks for
/// ([`Failure::retry_after`](crate::Failure::retry_after)) wins over every policy.
///
/// The default is [`exponential`](Self::exponential) from 1 second to 6 hours with a jitter of 10%, which spreads the default
/// 20 attempts over about 33 hours.
///
/// # Example
///
/// ```
/// use punctual::RetryPolicy;
/// use std::time::Duration;
///
/// let policy = RetryPolicy::exponential(Duration::from_secs(2), Duration::from_secs(60)).jitter(0.0);
/// assert_eq!(policy.delay(1), Duration::from_secs(2));
/// assert_eq!(policy.delay(3), Duration::from_secs(8));
/// assert_eq!(policy.delay(30), Duration::from_secs(60));
/// ```
#[derive(Clone, Serialize, Deserialize)]
pub struct RetryPolicy {
    rule: Rule,
    jitter: f64,
}

#[derive(Clone, Serialize, Deserialize)]
enum Rule {
    Exponential {
        first: Duration,
        cap: Duration,
    },
    Fixed(Duration),
    Delays(Vec<Duration>),
    #[serde(skip)]
    Custom(Custom),
}

type Custom = Arc<dyn Fn(u32) -> Duration + Send + Sync>;

impl RetryPolicy {
    /// Waits `first` after the first failure and twice as long after each further one, at most `cap`; with a
    /// jitter of 10%.
    #[must_use]
    pub fn exponential(first: Duration, cap: Duration) -> Self {
        Self {
            rule: Rule::Exponential { first, cap },
            jitter: 0.1,
        }
    }

    /// Waits the same time after every failure.
    #[must_use]
    pub fn fixed(delay: Duration) -> Self {
        Self {
            rule: Rule::Fixed(delay),
            jitter: 0.0,
        }
    }

    /// Waits the first delay after the first failure, the second after the second, and the last after every further
    /// one. An empty list means no wait.
    #[must_use]
    pub fn delays(delays: impl IntoIterator<Item = Duration>) -> Self {
        Self {
            rule: Rule::Delays(delays.into_iter().collect()),
            jitter: 0.0,
        }
    }

    /// Calls `rule` for the delay after the n-th failed attempt, n from 1.
    ///
    /// Code cannot be stored, so such a policy belongs to a handler; a task with a custom policy is refused.
    #[must_use]
    pub fn custom(rule: impl Fn(u32) -> Duration + Send + Sync + 'static) -> Self {
        Self {
            rule: Rule::Custom(Arc::new(rule)),
            jitter: 0.0,
        }
    }

    /// Spreads each delay evenly over ± this share of it, so that tasks that failed together are not tried again together. 0 to
    /// 1; default: 0.1 for an exponential policy, 0 for the others.
    #[must_use]
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// The delay after the `failed`-th failed attempt (from 1), before jitter.
    #[must_use]
    pub fn delay(&self, failed: u32) -> Duration {
        let step = failed.max(1) - 1;
        match &self.rule {
            Rule::Exponential { first, cap } => 2_u32
                .checked_pow(step)
                .and_then(|factor| first.checked_mul(factor))
                .map_or(*cap, |delay| delay.min(*cap)),
            Rule::Fixed(delay) => *delay,
            Rule::Delays(delays) => delays
                .get(step as usize)
                .or(delays.last())
                .copied()
                .unwrap_or_default(),
            Rule::Custom(rule) => rule(failed.max(1)),
        }
    }

    /// The delay with its jitter; `draw` is uniform in 0 ..= 1.
    pub(crate) fn jittered(&self, failed: u32, draw: f64) -> Duration {
        let delay = self.delay(failed);
        let factor = 1.0 + self.jitter * (2.0 * draw - 1.0);
        Duration::try_from_secs_f64(delay.as_secs_f64() * factor).unwrap_or(delay)
    }

    /// # Errors
    ///
    /// `Invalid` if a delay is over 1,000 years, there are over 1,000 delays, or the jitter is not between 0 and 1.
    pub(crate) fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(Error::invalid(format!(
                "the jitter {} is not between 0 and 1",
                self.jitter
            )));
        }
        match &self.rule {
            Rule::Exponential { first, cap } => {
                check_span("retry delay", *first)?;
                check_span("cap of the retry delay", *cap)?;
            }
            Rule::Fixed(delay) => {
                check_span("retry delay", *delay)?;
            }
            Rule::Delays(delays) => {
                if delays.len() > 1_000 {
                    return Err(Error::invalid("the retry policy lists over 1,000 delays"));
                }
                for delay in delays {
                    check_span("retry delay", *delay)?;
                }
            }
            Rule::Custom(_) => {}
        }
        Ok(())
    }

    pub(crate) fn is_custom(&self) -> bool {
        matches!(self.rule, Rule::Custom(_))
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::exponential(Duration::from_secs(1), Duration::from_secs(6 * 3600))
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Rule::Exponential { first, cap } => write!(f, "exponential({first:?}, {cap:?})")?,
            Rule::Fixed(delay) => write!(f, "fixed({delay:?})")?,
            Rule::Delays(delays) => write!(f, "delays({delays:?})")?,
            Rule::Custom(_) => write!(f, "custom(..)")?,
        }
        write!(f, ".jitter({})", self.jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn delays_as_a_table() {
        let exponential = RetryPolicy::exponential(S, 100 * S);
        let list = RetryPolicy::delays([S, 5 * S]);
        let custom = RetryPolicy::custom(|n| n * n * S);
        let table = [
            (&exponential, 0, 1),
            (&exponential, 1, 1),
            (&exponential, 2, 2),
            (&exponential, 7, 64),
            (&exponential, 8, 100),
            (&exponential, u32::MAX, 100),
            (&list, 1, 1),
            (&list, 2, 5),
            (&list, 9, 5),
            (&custom, 3, 9),
        ];
        for (policy, failed, seconds) in table {
            assert_eq!(
                policy.delay(failed),
                seconds * S,
                "{policy:?} after {failed}"
            );
        }
        assert_eq!(RetryPolicy::delays([]).delay(1), Duration::ZERO);
        assert_eq!(RetryPolicy::fixed(S).delay(400), S);
    }

    #[test]
    fn jitter_stays_within_its_share() {
        let policy = RetryPolicy::fixed(10 * S).jitter(0.5);
        assert_eq!(policy.jittered(1, 0.0), 5 * S);
        assert_eq!(policy.jittered(1, 0.5), 10 * S);
        assert_eq!(policy.jittered(1, 1.0), 15 * S);
        let forever = RetryPolicy::fixed(Duration::MAX).jitter(1.0);
        assert_eq!(forever.jittered(1, 1.0), Duration::MAX);
    }

    #[test]
    fn a_policy_survives_storage_and_a_custom_one_says_it_cannot() {
        let policy = RetryPolicy::exponential(S, 9 * S).jitter(0.25);
        let stored = serde_json::to_string(&policy).unwrap();
        let back: RetryPolicy = serde_json::from_str(&stored).unwrap();
        assert_eq!(format!("{back:?}"), format!("{policy:?}"));
        assert!(serde_json::to_string(&RetryPolicy::custom(|_| S)).is_err());
    }

    #[test]
    fn absurd_policies_are_refused() {
        assert!(RetryPolicy::fixed(Duration::MAX).check().is_err());
        assert!(RetryPolicy::fixed(S).jitter(f64::NAN).check().is_err());
        assert!(RetryPolicy::fixed(S).jitter(1.5).check().is_err());
        assert!(RetryPolicy::delays(vec![S; 1_001]).check().is_err());
        assert!(RetryPolicy::default().check().is_ok());
    }
}
