//! The kinds of which this process could not decode a payload, because a newer or older version of the program made it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::sync::lock;
use crate::time::Timestamp;

/// How long a kind counts as undecodable after its last failure: longer than the longest wait until such a task is tried
/// again.
const REMEMBERED: Duration = Duration::from_secs(2 * 3600);

/// Kinds, each with the instant of its last failure to decode.
#[derive(Debug, Default)]
pub(crate) struct Undecodable(Mutex<HashMap<Arc<str>, Timestamp>>);

impl Undecodable {
    /// Notes that a payload of this kind could not be decoded.
    pub(crate) fn note(&self, kind: &Arc<str>, now: Timestamp) {
        lock(&self.0).insert(Arc::clone(kind), now);
    }

    /// The kinds that count as undecodable here, sorted.
    pub(crate) fn kinds(&self, now: Timestamp) -> Vec<Arc<str>> {
        let mut noted = lock(&self.0);
        // An instant in the future was noted before the clock was set back.
        noted.retain(|_, at| *at <= now && now.since(*at) <= REMEMBERED);
        let mut kinds: Vec<Arc<str>> = noted.keys().cloned().collect();
        kinds.sort_unstable();
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_forgotten_a_while_after_its_last_failure() {
        let (undecodable, at) = (Undecodable::default(), Timestamp::from_micros);
        undecodable.note(&"b".into(), at(1));
        undecodable.note(&"a".into(), at(2));
        let kinds = |now| {
            undecodable
                .kinds(now)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(kinds(at(2)), ["a", "b"]);
        assert_eq!(kinds(at(2) + REMEMBERED), ["a"]);
        assert!(kinds(at(3) + REMEMBERED).is_empty());
        undecodable.note(&"a".into(), at(9));
        assert!(kinds(at(8)).is_empty(), "the clock was set back");
    }
}
