//! Suspects: tasks that ran while their process crashed. One of them may have caused it, so they run in groups that get smaller
//! with each further crash, until the cause is alone.
//!
//! A suspect's [`Level`] says how many suspects start together in one process: two to the power of the level, beside any number
//! of other tasks. A suspect that was the only one at a crash is not the cause for certain, since others ran too. So it is
//! tried: it starts when nothing has started for a while, and for as long nothing starts after it. Only a task that was the
//! last to start, as far from all others, is blamed for a crash, or one that ran alone. A hard kill while many tasks run blames
//! nobody.
//!
//! Of `n` tasks that ran at a crash, one that causes it each time fails after at most `ceil(log2 n) + max_crashes + 1` crashes,
//! plus one for `n` below three. Whatever a handler returns clears its task: it is no suspect any more.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Timestamp;

/// The level of a suspect. Below zero it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Level(i8);

/// How long nothing starts before and after a suspect at its first trial. It doubles with each trial that has shown nothing:
/// the task may need longer to crash its process.
const FIRST_QUIET: Duration = Duration::from_secs(10);

/// How long a suspect of a group keeps others waiting that do not fit into the group.
const GROUP_STAYS: Duration = FIRST_QUIET;

/// How long a suspect that is tried keeps all others waiting: two of them may crash a process only together.
const TRIED_STAYS: Duration = Duration::from_secs(3600);

impl Level {
    /// Of suspects of which one starts at a time.
    pub(crate) const ALONE: Self = Self(0);
    /// More tasks than two to its power never run in one process.
    const HIGHEST: i8 = 31;
    const LOWEST: i8 = -4;

    /// The level of a task that was one of `ran` when their process crashed. `former`: its level at that time, if it was a
    /// suspect already.
    pub(crate) fn after_crash(ran: u64, former: Option<Self>) -> Self {
        let halves = ran.max(1).next_power_of_two().trailing_zeros();
        let group = |steps| i8::try_from(halves.saturating_sub(steps)).unwrap_or(Self::HIGHEST);
        Self(match former {
            // A quarter of them: the last of the `log2 n` steps is the one from alone to tried.
            None => group(2),
            Some(former) => group(1).min(former.0 - 1).max(Self::LOWEST),
        })
    }

    /// The number in the store.
    pub(crate) const fn code(self) -> i8 {
        self.0
    }

    pub(crate) fn from_code(code: i8) -> Option<Self> {
        (Self::LOWEST..=Self::HIGHEST)
            .contains(&code)
            .then_some(Self(code))
    }

    /// How many suspects may start together.
    fn group(self) -> usize {
        1 << self.0.max(0)
    }

    /// How long nothing starts before it and after it, if it is tried.
    pub(crate) fn quiet(self) -> Option<Duration> {
        let before = u32::try_from(-1 - i32::from(self.0)).ok()?;
        Some(FIRST_QUIET * 2_u32.pow(before))
    }

    fn stays(self) -> Duration {
        match self.quiet() {
            Some(_) => TRIED_STAYS,
            None => GROUP_STAYS,
        }
    }
}

/// A task that a process ran when it crashed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ran {
    pub(crate) seq: i64,
    pub(crate) started_at: Timestamp,
    pub(crate) level: Option<Level>,
}

/// The task that alone can have caused the crash of the process that ran these, if there is one: by its row.
pub(crate) fn only_cause(ran: &[Ran]) -> Option<i64> {
    let last = ran.iter().max_by_key(|each| each.started_at)?;
    if ran.len() == 1 {
        return Some(last.seq);
    }
    let quiet = last.level?.quiet()?;
    let is_cleared = |other: &Ran| {
        let enough = other.level.map_or(quiet, |_| TRIED_STAYS);
        other.started_at + enough <= last.started_at
    };
    let mut others = ran.iter().filter(|other| other.seq != last.seq);
    others.all(is_cleared).then_some(last.seq)
}

/// The suspects in a process that keep others waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Suspects {
    pub(crate) count: usize,
    pub(crate) lowest: Option<Level>,
    /// When the next of them keeps no other waiting any more.
    pub(crate) until: Option<Timestamp>,
    /// Until when nothing starts beside the one that is tried.
    pub(crate) quiet_until: Option<Timestamp>,
}

impl Suspects {
    /// Whether another may start beside them.
    pub(crate) fn admit(self, level: Level) -> bool {
        let lowest = self.lowest.map_or(level, |lowest| lowest.min(level));
        self.count < lowest.group()
    }

    pub(crate) fn add(&mut self, level: Level) {
        self.count += 1;
        self.lowest = Some(self.lowest.map_or(level, |lowest| lowest.min(level)));
    }
}

/// The suspects that a process holds, by a number of each.
#[derive(Debug, Default)]
pub(crate) struct HeldSuspects {
    /// Those that keep others waiting, by the end of that.
    until: BTreeMap<(Timestamp, usize), Level>,
    /// How many these are, by level.
    levels: BTreeMap<Level, usize>,
    /// The one that is tried, and until when nothing else starts.
    tried: Option<(usize, Timestamp)>,
}

/// A suspect is held until this is given back to [`HeldSuspects::remove`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeldSuspect {
    until: (Timestamp, usize),
}

impl HeldSuspects {
    pub(crate) fn add(&mut self, number: usize, level: Level, now: Timestamp) -> HeldSuspect {
        let until = (now + level.stays(), number);
        self.until.insert(until, level);
        *self.levels.entry(level).or_default() += 1;
        if let Some(quiet) = level.quiet() {
            self.tried = Some((number, now + quiet));
        }
        HeldSuspect { until }
    }

    /// It has ended, or may never do so: no other waits for it.
    pub(crate) fn remove(&mut self, suspect: HeldSuspect) {
        self.let_go(suspect.until);
        if self
            .tried
            .is_some_and(|(tried, _)| tried == suspect.until.1)
        {
            self.tried = None;
        }
    }

    /// Those that keep others waiting at an instant. Asked for instants in order: the others are forgotten.
    pub(crate) fn at(&mut self, now: Timestamp) -> Suspects {
        while let Some((&until, _)) = self.until.first_key_value()
            && until.0 <= now
        {
            self.let_go(until);
        }
        self.tried = self.tried.filter(|(_, until)| *until > now);
        Suspects {
            count: self.until.len(),
            lowest: self.levels.keys().next().copied(),
            until: self.until.keys().next().map(|(until, _)| *until),
            quiet_until: self.tried.map(|(_, until)| until),
        }
    }

    fn let_go(&mut self, until: (Timestamp, usize)) {
        if let Some(level) = self.until.remove(&until)
            && let Some(count) = self.levels.get_mut(&level)
        {
            *count -= 1;
            if *count == 0 {
                self.levels.remove(&level);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

    fn after(ran: u64, former: Option<i8>) -> i8 {
        Level::after_crash(ran, former.map(Level)).0
    }

    #[test]
    fn p4_groups_get_smaller_with_each_crash() {
        let fresh = [0, 1, 2, 3, 4, 5, 8, 9, 5_000, 100_000].map(|ran| after(ran, None));
        assert_eq!(fresh, [0, 0, 0, 0, 0, 1, 1, 2, 11, 15]);
        assert_eq!(after(5_000, Some(11)), 10, "with other tasks beside them");
        assert_eq!(after(4, Some(12)), 1);
        assert_eq!(after(9, Some(0)), -1, "it is tried");
        assert_eq!(after(1, Some(-4)), -4);
    }

    /// Whatever else runs: the cause is tried, and so blamed, after `ceil(log2 n)` crashes.
    #[test]
    fn p4_a_cause_is_tried_soon() {
        for ran in [1_u64, 2, 3, 4, 5, 7, 8, 64, 5_000, 100_000] {
            let mut level = Level::after_crash(ran, None);
            let mut crashes = 1;
            while level.quiet().is_none() {
                level = Level::after_crash(100_000, Some(level));
                crashes += 1;
            }
            let bound = ran.next_power_of_two().trailing_zeros().max(2);
            assert_eq!(crashes, bound, "{ran}");
        }
    }

    #[test]
    fn p4_each_trial_is_twice_as_long() {
        let quiet = [0, -1, -2, -3, -4].map(|level| Level(level).quiet());
        assert_eq!(quiet[0], None);
        assert_eq!(quiet[1..], [10, 20, 40, 80].map(|s| Some(s * S)));
    }

    #[test]
    fn p4_only_one_that_ran_alone_or_was_tried_is_blamed() {
        let ran = |list: &[(u64, Option<i8>)]| {
            let each = |(&(at, level), seq): (&(u64, Option<i8>), i64)| Ran {
                seq,
                started_at: NOW + S * u32::try_from(at).unwrap(),
                level: level.map(Level),
            };
            let list: Vec<Ran> = list.iter().zip(0..).map(each).collect();
            only_cause(&list)
        };
        assert_eq!(ran(&[]), None);
        assert_eq!(ran(&[(0, None)]), Some(0), "alone");
        assert_eq!(ran(&[(0, Some(3))]), Some(0));
        assert_eq!(ran(&[(0, None), (9_999, None)]), None, "they are fresh");
        assert_eq!(ran(&[(0, None), (9_999, Some(0))]), None, "it is not tried");
        assert_eq!(ran(&[(0, None), (9, Some(-1))]), None);
        assert_eq!(ran(&[(0, None), (10, Some(-1))]), Some(1));
        assert_eq!(ran(&[(0, None), (10, Some(-2))]), None);
        assert_eq!(ran(&[(0, None), (1, Some(-2)), (21, Some(-2))]), None);
        assert_eq!(ran(&[(0, None), (10, Some(-1)), (20, None)]), None, "later");
        assert_eq!(
            ran(&[(0, None), (10, Some(-1)), (10, None)]),
            None,
            "beside"
        );
        assert_eq!(ran(&[(0, Some(3)), (3_600, Some(-1))]), Some(1));
        assert_eq!(ran(&[(0, Some(3)), (3_599, Some(-1))]), None, "together");
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
        assert!(!held.admit(Level(-2)));
        held.add(Level(5));
        assert!(!held.admit(Level(5)));
    }

    #[test]
    fn p12_a_suspect_keeps_others_waiting_for_a_while_only() {
        let mut held = HeldSuspects::default();
        let group = held.add(1, Level(3), NOW);
        held.add(2, Level(3), NOW + S);
        held.add(3, Level(-1), NOW + S);
        let at = |held: &mut HeldSuspects, seconds: u32| held.at(NOW + seconds * S);
        let all = Suspects {
            count: 3,
            lowest: Some(Level(-1)),
            until: Some(NOW + 10 * S),
            quiet_until: Some(NOW + 11 * S),
        };
        assert_eq!(at(&mut held, 2), all);
        assert_eq!(at(&mut held, 10).count, 2);
        let tried = Suspects {
            count: 1,
            lowest: Some(Level(-1)),
            until: Some(NOW + 3_601 * S),
            quiet_until: None,
        };
        assert_eq!(at(&mut held, 11), tried);
        held.remove(group);
        assert_eq!(at(&mut held, 12), tried, "it was let go before");
        assert_eq!(at(&mut held, 3_601), Suspects::default());
    }

    #[test]
    fn p4_the_end_of_a_trial_ends_the_quiet() {
        let mut held = HeldSuspects::default();
        let other = held.add(1, Level(3), NOW);
        let tried = held.add(2, Level(-1), NOW);
        held.remove(other);
        assert_eq!(held.at(NOW).quiet_until, Some(NOW + 10 * S));
        held.remove(tried);
        assert_eq!(held.at(NOW), Suspects::default());
    }

    #[test]
    fn levels_survive_storage() {
        for code in Level::LOWEST..=Level::HIGHEST {
            assert_eq!(Level::from_code(code).map(Level::code), Some(code));
        }
        for unknown in [Level::LOWEST - 1, Level::HIGHEST + 1] {
            assert_eq!(Level::from_code(unknown), None);
        }
    }
}
