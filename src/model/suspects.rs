//! Suspects: tasks that ran while their process crashed. One of them may have caused it, so they run in groups that halve with
//! each further crash, until the cause is alone.
//!
//! A suspect's level says how many suspects may run together in one process: two to the power of the level. Each crash lowers
//! it, so of `n` tasks that were running the cause is alone after `ceil(log2 n)` crashes. Whatever a handler returns clears its
//! task: it is no suspect any more.

/// The level of a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Level(u8);

impl Level {
    /// Of suspects that run alone.
    pub(crate) const ALONE: Self = Self(0);
    /// More tasks than two to its power never run in one process.
    const HIGHEST: u8 = 31;

    /// The level of a task that was one of `started` when their process crashed. `former`: its level at that time, if it was a
    /// suspect already.
    pub(crate) fn after_crash(started: u64, former: Option<Self>) -> Self {
        let halves = started.max(1).next_power_of_two().trailing_zeros();
        let half = u8::try_from(halves.saturating_sub(1)).unwrap_or(Self::HIGHEST);
        let lower = former.map_or(Self::HIGHEST, |former| former.0.saturating_sub(1));
        Self(half.min(lower))
    }

    /// The number in the store.
    pub(crate) const fn code(self) -> u8 {
        self.0
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        (code <= Self::HIGHEST).then_some(Self(code))
    }

    /// How many suspects may run together.
    fn group(self) -> usize {
        1 << self.0
    }
}

/// The suspects that one process holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Suspects {
    pub(crate) count: usize,
    pub(crate) lowest: Option<Level>,
}

impl Suspects {
    /// Whether another may run beside them.
    pub(crate) fn admit(self, level: Level) -> bool {
        let lowest = self.lowest.map_or(level, |lowest| lowest.min(level));
        self.count < lowest.group()
    }

    pub(crate) fn add(&mut self, level: Level) {
        self.count += 1;
        self.lowest = Some(self.lowest.map_or(level, |lowest| lowest.min(level)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(started: u64, former: Option<u8>) -> u8 {
        Level::after_crash(started, former.map(Level)).0
    }

    #[test]
    fn p4_groups_halve_with_each_crash() {
        let fresh = [0, 1, 2, 3, 4, 5, 8, 9, 5_000, 100_000].map(|started| after(started, None));
        assert_eq!(fresh, [0, 0, 0, 1, 1, 2, 2, 3, 12, 16]);
        assert_eq!(after(u64::MAX >> 1, None), Level::HIGHEST);
        assert_eq!(after(5_000, Some(12)), 11, "with plain tasks beside them");
        assert_eq!(after(4, Some(12)), 1);
        assert_eq!(after(9, Some(0)), 0);
    }

    /// Whatever else runs: the cause is alone after `ceil(log2 n)` crashes.
    #[test]
    fn p4_a_cause_is_alone_soon() {
        for started in [1_u64, 2, 3, 7, 64, 5_000, 100_000] {
            let mut level = Level::after_crash(started, None);
            let mut crashes = 1;
            while level != Level::ALONE {
                level = Level::after_crash(100_000, Some(level));
                crashes += 1;
            }
            let bound = started.next_power_of_two().trailing_zeros().max(1);
            assert_eq!(crashes, bound, "{started}");
        }
    }

    #[test]
    fn p4_the_lowest_level_bounds_the_group() {
        let mut held = Suspects::default();
        assert!(held.admit(Level::ALONE));
        for _ in 0..4 {
            assert!(held.admit(Level(2)));
            held.add(Level(2));
        }
        assert!(!held.admit(Level(2)));
        assert!(!held.admit(Level(3)), "the lowest counts");
        let mut held = Suspects::default();
        held.add(Level(1));
        assert!(held.admit(Level(5)), "two");
        assert!(!held.admit(Level::ALONE));
        held.add(Level(5));
        assert!(!held.admit(Level(5)));
    }

    #[test]
    fn levels_survive_storage() {
        for code in 0..=Level::HIGHEST {
            assert_eq!(Level::from_code(code).map(Level::code), Some(code));
        }
        assert_eq!(Level::from_code(Level::HIGHEST + 1), None);
    }
}
