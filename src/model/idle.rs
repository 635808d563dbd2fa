//! Which lanes have been idle long enough to be retired.

use std::collections::HashSet;

use crate::model::lane::LaneId;

/// This many idle lanes are never retired: a program with a few queues should not pay for retiring and restoring them.
pub(crate) const KEPT: usize = 32;

/// The lanes that were idle at the last look.
#[derive(Debug, Default)]
pub(crate) struct Idle {
    before: HashSet<LaneId>,
}

impl Idle {
    /// Takes the lanes that are idle now. Returns those to retire: lanes that were idle at the look before as well, except the
    /// [`KEPT`] newest. A lane that is needed again after its retirement is a new one, so the newest lanes are those in use.
    pub(crate) fn look(&mut self, mut now: Vec<LaneId>) -> Vec<LaneId> {
        now.sort_unstable();
        let old = now.len().saturating_sub(KEPT);
        let is_old = |lane: &&LaneId| self.before.contains(lane);
        let retired = now[..old].iter().filter(is_old).copied().collect();
        self.before = now.into_iter().collect();
        retired
    }

    /// Records a look at which there were too few lanes to retire any.
    pub(crate) fn skip(&mut self) {
        self.before = HashSet::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(numbers: std::ops::Range<i64>) -> Vec<LaneId> {
        numbers.map(LaneId).collect()
    }

    #[test]
    fn a_lane_is_retired_that_was_idle_at_two_looks() {
        let mut idle = Idle::default();
        assert!(idle.look(lanes(0..40)).is_empty(), "seen once");
        let mut now = lanes(1..50);
        now.reverse();
        assert_eq!(idle.look(now), lanes(1..18), "the newest 32 stay");
        assert_eq!(idle.look(lanes(17..50)), lanes(17..18));
        assert!(idle.look(lanes(18..50)).is_empty());
    }

    #[test]
    fn a_lane_that_was_used_between_two_looks_stays() {
        let mut idle = Idle::default();
        idle.look(lanes(0..100));
        idle.look(lanes(50..100));
        assert_eq!(idle.look(lanes(0..100)), lanes(50..68));
        idle.skip();
        assert!(idle.look(lanes(0..100)).is_empty());
    }
}
