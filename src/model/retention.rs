//! How long ended tasks are kept.

use std::time::Duration;

use crate::error::Result;
use crate::model::limits::check_span;
use crate::time::Timestamp;

/// How long ended tasks stay readable before they are pruned, per final state.
///
/// The default keeps completed tasks for 1 day, failed and cancelled ones for 14 days. [`Duration::ZERO`] prunes at the next
/// opportunity, perhaps before a [`wait`](crate::Client::wait) for the task has seen its end. Pruning removes the payload,
/// result, tags and history with the task.
///
/// # Example
///
/// ```
/// use punctual::Retention;
/// use std::time::Duration;
///
/// let week = Duration::from_secs(7 * 24 * 3600);
/// let retention = Retention::default().completed(week).forever_failed();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    completed: Option<Duration>,
    failed: Option<Duration>,
    cancelled: Option<Duration>,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Default for Retention {
    fn default() -> Self {
        Self {
            completed: Some(DAY),
            failed: Some(14 * DAY),
            cancelled: Some(14 * DAY),
        }
    }
}

impl Retention {
    /// Keeps all ended tasks until they are deleted. The file then grows with every task.
    #[must_use]
    pub fn forever() -> Self {
        Self {
            completed: None,
            failed: None,
            cancelled: None,
        }
    }

    /// How long completed tasks are kept.
    #[must_use]
    pub fn completed(mut self, span: Duration) -> Self {
        self.completed = Some(span);
        self
    }

    /// How long failed tasks are kept.
    #[must_use]
    pub fn failed(mut self, span: Duration) -> Self {
        self.failed = Some(span);
        self
    }

    /// How long cancelled tasks are kept.
    #[must_use]
    pub fn cancelled(mut self, span: Duration) -> Self {
        self.cancelled = Some(span);
        self
    }

    /// Keeps failed tasks until they are deleted or retried.
    #[must_use]
    pub fn forever_failed(mut self) -> Self {
        self.failed = None;
        self
    }

    /// # Errors
    ///
    /// `Invalid` if a span is over 1,000 years.
    pub(crate) fn check(&self) -> Result<()> {
        for span in [self.completed, self.failed, self.cancelled]
            .into_iter()
            .flatten()
        {
            check_span("retention", span)?;
        }
        Ok(())
    }

    /// When the first task's retention is over, given when the oldest completed, failed and cancelled tasks ended.
    pub(crate) fn over(&self, ended_at: [Option<Timestamp>; 3]) -> Option<Timestamp> {
        [self.completed, self.failed, self.cancelled]
            .into_iter()
            .zip(ended_at)
            .filter_map(|(span, at)| Some(at? + span?))
            .min()
    }

    pub(crate) fn cutoffs(&self, now: Timestamp) -> Cutoffs {
        let cutoff = |span: Option<Duration>| span.map(|span| now - span);
        Cutoffs {
            completed: cutoff(self.completed),
            failed: cutoff(self.failed),
            cancelled: cutoff(self.cancelled),
        }
    }
}

/// A task of each state that ended at or before its cutoff is pruned; `None`: no task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cutoffs {
    pub(crate) completed: Option<Timestamp>,
    pub(crate) failed: Option<Timestamp>,
    pub(crate) cancelled: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_finite() {
        let now = Timestamp::MIN + 100 * DAY;
        let cutoffs = Retention::default().cutoffs(now);
        assert_eq!(cutoffs.completed, Some(now - DAY));
        assert_eq!(cutoffs.failed, Some(now - 14 * DAY));
        assert_eq!(cutoffs.cancelled, Some(now - 14 * DAY));
        assert_eq!(Retention::forever().cutoffs(now).completed, None);
        assert_eq!(
            Retention::default().over([None, Some(now), None]),
            Some(now + 14 * DAY)
        );
        assert_eq!(Retention::forever().over([Some(now); 3]), None);
    }

    #[test]
    fn absurd_spans_are_refused() {
        assert!(
            Retention::default()
                .completed(Duration::MAX)
                .check()
                .is_err()
        );
        assert!(Retention::default().failed(Duration::ZERO).check().is_ok());
    }
}
