//! The kinds of which this process could not decode a payload, because a newer or older version of the program made it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::sync::lock;
use crate::time::Timestamp;

/// How long a kind counts as undecodable after its last failure: longer than the longest wait until such a task is tried
/// again.
const REMEMBERED: Duration = Duration::from_secs(2 * 3600);

/// Kinds with a failure to decode.
#[derive(Debug, Default)]
pub(crate) struct Undecodable {
    kinds: Mutex<HashMap<Arc<str>, Noted>>,
    /// Whether a kind is left to others, readable without the lock.
    any_left: AtomicBool,
}

#[derive(Debug)]
struct Noted {
    /// The last failure.
    failed_at: Timestamp,
    /// Whether no payload of the kind was decoded since.
    is_left: bool,
}

impl Undecodable {
    /// Notes that a payload of this kind could not be decoded.
    pub(crate) fn note(&self, kind: &Arc<str>, now: Timestamp) {
        let noted = Noted {
            failed_at: now,
            is_left: true,
        };
        lock(&self.kinds).insert(Arc::clone(kind), noted);
        self.any_left.store(true, Ordering::Relaxed);
    }

    /// Notes that a payload of this kind was decoded: the next task of the kind may be one as well.
    pub(crate) fn note_decoded(&self, kind: &str) {
        if !self.any_left.load(Ordering::Relaxed) {
            return;
        }
        let mut kinds = lock(&self.kinds);
        if let Some(noted) = kinds.get_mut(kind) {
            noted.is_left = false;
        }
        let any_left = kinds.values().any(|noted| noted.is_left);
        self.any_left.store(any_left, Ordering::Relaxed);
    }

    /// The kinds that count as undecodable here, sorted.
    pub(crate) fn kinds(&self, now: Timestamp) -> Vec<Arc<str>> {
        let mut noted = lock(&self.kinds);
        // A failure may be a little later than `now`, which was read before. One that is much later was noted before the
        // clock was set back.
        noted.retain(|_, noted| {
            let (earlier, later) = (noted.failed_at.min(now), noted.failed_at.max(now));
            later.since(earlier) <= REMEMBERED
        });
        let mut kinds: Vec<Arc<str>> = noted.keys().cloned().collect();
        kinds.sort_unstable();
        kinds
    }

    /// The kinds of which the last payload could not be decoded.
    pub(crate) fn left(&self) -> Vec<Arc<str>> {
        if !self.any_left.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let kinds = lock(&self.kinds);
        let left = kinds.iter().filter(|(_, noted)| noted.is_left);
        left.map(|(kind, _)| Arc::clone(kind)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(kinds: &[Arc<str>]) -> Vec<&str> {
        kinds.iter().map(|kind| &**kind).collect()
    }

    #[test]
    fn a_kind_is_forgotten_a_while_after_its_last_failure() {
        let (undecodable, at) = (Undecodable::default(), Timestamp::from_micros);
        undecodable.note(&"b".into(), at(1));
        undecodable.note(&"a".into(), at(2));
        assert_eq!(names(&undecodable.kinds(at(2))), ["a", "b"]);
        assert_eq!(names(&undecodable.kinds(at(2) + REMEMBERED)), ["a"]);
        assert!(undecodable.kinds(at(3) + REMEMBERED).is_empty());
        undecodable.note(&"a".into(), at(9) + REMEMBERED);
        let kinds = undecodable.kinds(at(8));
        assert!(kinds.is_empty(), "the clock was set back");
    }

    /// It was taken for one from before the clock was set back, and forgotten: no health named the kind.
    #[test]
    fn a_failure_during_a_look_is_not_forgotten() {
        let (undecodable, at) = (Undecodable::default(), Timestamp::from_micros);
        undecodable.note(&"a".into(), at(5));
        undecodable.kinds(at(4));
        assert_eq!(names(&undecodable.kinds(at(6))), ["a"]);
    }

    /// One damaged payload made every task of its kind late for two hours.
    #[test]
    fn a_kind_is_left_to_others_until_one_of_its_payloads_is_decoded() {
        let (undecodable, now) = (Undecodable::default(), Timestamp::MIN);
        assert!(undecodable.left().is_empty());
        undecodable.note(&"a".into(), now);
        undecodable.note(&"b".into(), now);
        undecodable.note_decoded("a");
        undecodable.note_decoded("c");
        assert_eq!(names(&undecodable.left()), ["b"]);
        assert_eq!(
            names(&undecodable.kinds(now)),
            ["a", "b"],
            "health names both"
        );
        undecodable.note_decoded("b");
        assert!(undecodable.left().is_empty());
        undecodable.note(&"a".into(), now);
        assert_eq!(names(&undecodable.left()), ["a"]);
    }
}
