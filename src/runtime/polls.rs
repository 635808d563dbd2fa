//! Watches the polls of futures: an executor shares its threads among them, so a future that blocks one keeps others waiting.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::sync::lock;
use crate::time::Stopwatch;

/// A poll that takes longer is counted.
const SLOW: Duration = Duration::from_millis(10);
/// A poll that has taken longer is told while it goes on; so is a future that was not polled for as long.
const BLOCKED: Duration = Duration::from_secs(1);

/// How often polls were slow, by kind.
#[derive(Debug, Default)]
pub(crate) struct Polls(Mutex<BTreeMap<Arc<str>, u64>>);

impl Polls {
    /// Counts a poll if it was slow.
    pub(crate) fn took(&self, kind: &Arc<str>, span: Duration) {
        if span >= SLOW {
            *lock(&self.0).entry(Arc::clone(kind)).or_default() += 1;
        }
    }

    pub(crate) fn slow(&self) -> Vec<(String, u64)> {
        let slow = lock(&self.0);
        slow.iter()
            .map(|(kind, count)| (kind.to_string(), *count))
            .collect()
    }
}

/// The polls of one future, seen from the thread that polls it and from the watch on deadlines.
#[derive(Debug)]
pub(crate) struct PollWatch {
    kind: Arc<str>,
    /// Since it was handed to the executor.
    handed: Stopwatch,
    /// When its poll began, in nanoseconds since then; 0: it is not polled now.
    began: AtomicU64,
    was_polled: AtomicBool,
    /// The poll that goes on was told.
    is_told: AtomicBool,
}

impl PollWatch {
    pub(crate) fn new(kind: &Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            kind: Arc::clone(kind),
            handed: Stopwatch::start(),
            began: AtomicU64::new(0),
            was_polled: AtomicBool::new(false),
            is_told: AtomicBool::new(false),
        })
    }

    pub(crate) fn kind(&self) -> &Arc<str> {
        &self.kind
    }

    pub(crate) fn begin(&self) {
        self.began.store(self.now(), Ordering::Relaxed);
        self.was_polled.store(true, Ordering::Relaxed);
    }

    /// Ends a poll. Returns how long it took.
    pub(crate) fn end(&self) -> Duration {
        let began = self.began.swap(0, Ordering::Relaxed);
        self.is_told.store(false, Ordering::Relaxed);
        Duration::from_nanos(self.now().saturating_sub(began))
    }

    /// How long the poll that goes on has taken so far.
    pub(crate) fn takes(&self) -> Duration {
        match self.began.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            began => Duration::from_nanos(self.now().saturating_sub(began)),
        }
    }

    /// Whether a poll goes on that blocks its thread.
    pub(crate) fn is_blocked(&self) -> bool {
        self.takes() >= BLOCKED
    }

    /// Whether that poll is to be told; it is told once.
    pub(crate) fn tells(&self) -> bool {
        !self.is_told.swap(true, Ordering::Relaxed)
    }

    /// Whether its executor does not poll it.
    pub(crate) fn is_left(&self) -> bool {
        !self.was_polled.load(Ordering::Relaxed) && self.handed.elapsed() >= BLOCKED
    }

    fn now(&self) -> u64 {
        u64::try_from(self.handed.elapsed().as_nanos())
            .unwrap_or(u64::MAX)
            .max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_polls_are_counted_by_kind() {
        let polls = Polls::default();
        let (one, other) = ("one".into(), "other".into());
        polls.took(&one, SLOW);
        polls.took(&one, 2 * SLOW);
        polls.took(&other, SLOW - Duration::from_nanos(1));
        assert_eq!(polls.slow(), [("one".to_owned(), 2)]);
    }

    #[test]
    fn a_poll_is_watched_while_it_goes_on() {
        let watch = PollWatch::new(&"kind".into());
        assert!(!watch.is_blocked() && !watch.is_left());
        watch.begin();
        assert!(!watch.is_blocked(), "not for long");
        assert!(watch.tells() && !watch.tells(), "once");
        assert!(watch.end() < BLOCKED);
        assert!(watch.tells(), "the next one");
        assert!(!watch.is_left(), "it was polled");
    }
}
