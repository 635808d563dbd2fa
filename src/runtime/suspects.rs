//! Decides which suspects may start, and when all other tasks wait for one that is tried.

use std::time::Duration;

use crate::model::lane::{Class, Lane};
use crate::model::suspects::{Level, Suspects};
use crate::time::Timestamp;

/// Which tasks may start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// All except suspects that are tried.
    Groups,
    /// All except suspects: the best of those has to wait, and so have those behind it.
    Others,
    /// One suspect of this level, which is tried.
    Trial(Level),
    /// None: a suspect is tried, or soon will be.
    Nobody,
}

impl Turn {
    pub(crate) fn lets(self, class: Class) -> bool {
        match self {
            Self::Groups => class.level().is_none_or(|level| level.quiet().is_none()),
            Self::Others => class.level().is_none(),
            Self::Trial(tried) => class.level() == Some(tried),
            Self::Nobody => false,
        }
    }

    pub(crate) fn is_trial(self) -> bool {
        matches!(self, Self::Trial(_))
    }
}

/// The tasks beside which a suspect would start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Beside {
    pub(crate) suspects: Suspects,
    /// Tasks that have a worker, or wait for one.
    pub(crate) open: usize,
    /// Tasks that wait for a worker, or for the first poll of their future.
    pub(crate) waiting: usize,
    /// When the last of all tasks was claimed.
    pub(crate) claimed_at: Option<Timestamp>,
}

/// A suspect that is due may not be among the tasks that can be claimed: its queue may be at its global limit. The others do
/// not wait for it again soon.
const AFTER_NOTHING: Duration = Duration::from_secs(60);

/// The turns of suspects and other tasks. After a trial, the other tasks have as much time as the trial took from them.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Since when suspects are held or due.
    suspects_since: Option<Timestamp>,
    trial: Option<Trial>,
    /// Until when the other tasks wait for no further trial.
    rest_until: Option<Timestamp>,
}

#[derive(Debug)]
struct Trial {
    /// Since when the other tasks wait.
    since: Timestamp,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// What started before is still too young.
    Waits,
    Planned,
    Runs,
}

impl Turns {
    /// Since when suspects are held or due.
    pub(crate) fn suspects_since(&self) -> Option<Timestamp> {
        self.suspects_since
    }

    /// Whose turn it is, and when to ask again. `runs_here`: whether a lane's tasks may be claimed here. `has_place`: whether one
    /// could start now.
    pub(crate) fn next(
        &mut self,
        lanes: &[Lane],
        runs_here: impl Fn(&Lane) -> bool,
        has_place: impl Fn(&Lane) -> bool,
        beside: Beside,
        now: Timestamp,
    ) -> (Turn, Option<Timestamp>) {
        let held = beside.suspects;
        let best = best_due(lanes, &runs_here, now);
        let are_there = held.count > 0 || best.is_some();
        self.suspects_since = are_there.then(|| self.suspects_since.unwrap_or(now).min(now));
        if let Some(until) = held.quiet_until {
            self.enter(Phase::Runs, now);
            return (Turn::Nobody, Some(until));
        }
        if self
            .trial
            .as_ref()
            .is_some_and(|trial| trial.phase != Phase::Waits)
        {
            self.leave(now);
        }
        let Some((level, lane)) = best else {
            self.leave(now);
            return (Turn::Groups, None);
        };
        if !held.admit(level) {
            self.leave(now);
            return (Turn::Others, held.until);
        }
        let Some(quiet) = level.quiet() else {
            self.leave(now);
            return (Turn::Groups, None);
        };
        if !has_place(lane) {
            // The end of a task wakes the dispatcher.
            self.leave(now);
            return (Turn::Others, None);
        }
        let is_other_due = |lane: &Lane| {
            let is_due = lane.next_at().is_some_and(|at| at <= now);
            is_due && lane.class.level().is_none() && !lane.paused && runs_here(lane)
        };
        let rest = self.rest_until.filter(|until| *until > now);
        if rest.is_some() && lanes.iter().any(is_other_due) {
            return (Turn::Others, rest);
        }
        let quiet_at = beside.claimed_at.map(|at| at + quiet);
        let has_waiting = beside.waiting > 0;
        let is_quiet = !has_waiting && quiet_at.is_none_or(|at| at <= now);
        if beside.open == 0 || is_quiet {
            self.enter(Phase::Planned, now);
            return (Turn::Trial(level), None);
        }
        self.enter(Phase::Waits, now);
        (Turn::Nobody, quiet_at.filter(|_| !has_waiting))
    }

    fn enter(&mut self, phase: Phase, now: Timestamp) {
        let since = self.trial.as_ref().map_or(now, |trial| trial.since);
        self.trial = Some(Trial { since, phase });
    }

    fn leave(&mut self, now: Timestamp) {
        if let Some(Trial { since, phase }) = self.trial.take() {
            let took = now.since(since);
            let rest = match phase {
                Phase::Planned => took.max(AFTER_NOTHING),
                Phase::Waits | Phase::Runs => took,
            };
            self.rest_until = Some(now + rest);
        }
    }
}

/// The level and lane of the best due suspect that may be claimed here. Of those that are due at one instant any may be the best:
/// the lowest level counts.
fn best_due(
    lanes: &[Lane],
    runs_here: impl Fn(&Lane) -> bool,
    now: Timestamp,
) -> Option<(Level, &Lane)> {
    let due = lanes.iter().filter_map(|lane| {
        let level = lane.class.level().filter(|_| !lane.paused)?;
        let mut heads = (0_u8..).zip(&lane.heads);
        let best = heads.find(|(_, head)| head.is_some_and(|at| at <= now))?;
        runs_here(lane).then_some((best, level, lane))
    });
    let best = due.min_by_key(|(best, level, _)| (*best, *level));
    best.map(|(_, level, lane)| (level, lane))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lane::{Heads, LaneId};

    const S: Duration = Duration::from_secs(1);
    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

    fn lane(class: Class) -> Lane {
        let mut heads = Heads::default();
        heads[5] = Some(Timestamp::MIN);
        Lane {
            id: LaneId(1),
            queue: "queue".into(),
            kind: "kind".into(),
            class,
            paused: false,
            limit: None,
            heads,
        }
    }

    fn level(code: i8) -> Level {
        Level::from_code(code).unwrap()
    }

    fn suspect(code: i8) -> Lane {
        lane(Class::Suspect(level(code)))
    }

    /// A process that claimed a task at this second.
    fn busy_since(seconds: u32) -> Beside {
        Beside {
            open: 1,
            claimed_at: Some(NOW + seconds * S),
            ..Beside::default()
        }
    }

    fn tried_until(until: Timestamp) -> Beside {
        let mut suspects = Suspects::default();
        suspects.add(level(-1));
        suspects.quiet_until = Some(until);
        Beside {
            suspects,
            ..busy_since(0)
        }
    }

    struct Asked<'a> {
        turns: Turns,
        lanes: &'a [Lane],
        has_place: bool,
    }

    impl Asked<'_> {
        fn at(&mut self, beside: Beside, seconds: u32) -> (Turn, Option<u32>) {
            let now = NOW + seconds * S;
            let (turn, at) = self
                .turns
                .next(self.lanes, |_| true, |_| self.has_place, beside, now);
            let seconds = |at: Timestamp| u32::try_from(at.since(NOW).as_secs()).unwrap();
            (turn, at.map(seconds))
        }
    }

    fn ask(lanes: &[Lane]) -> Asked<'_> {
        Asked {
            turns: Turns::default(),
            lanes,
            has_place: true,
        }
    }

    const FREE: Beside = Beside {
        suspects: Suspects {
            count: 0,
            lowest: None,
            until: None,
            quiet_until: None,
        },
        open: 0,
        waiting: 0,
        claimed_at: None,
    };

    #[test]
    fn p4_a_suspect_is_tried_if_nothing_started_for_a_while() {
        let lanes = [suspect(-2), lane(Class::Plain)];
        let trial = Turn::Trial(level(-2));
        let mut turns = ask(&lanes);
        assert_eq!(turns.at(FREE, 0), (trial, None));
        let mut turns = ask(&lanes);
        assert_eq!(turns.at(busy_since(3), 4), (Turn::Nobody, Some(23)));
        let waits = Beside {
            waiting: 1,
            ..busy_since(3)
        };
        assert_eq!(turns.at(waits, 24), (Turn::Nobody, None), "until it starts");
        assert_eq!(turns.at(busy_since(3), 23), (trial, None));
        let mut turns = ask(&lanes);
        let ended = Beside {
            open: 0,
            ..busy_since(3)
        };
        assert_eq!(turns.at(ended, 4), (trial, None));
    }

    #[test]
    fn p12_after_a_trial_the_others_have_as_much_time() {
        let lanes = [suspect(-1), lane(Class::Plain)];
        let trial = (Turn::Trial(level(-1)), None);
        let mut turns = ask(&lanes);
        assert_eq!(turns.at(busy_since(0), 4), (Turn::Nobody, Some(10)));
        assert_eq!(turns.at(busy_since(0), 10), trial);
        let runs = tried_until(NOW + 20 * S);
        assert_eq!(turns.at(runs, 10), (Turn::Nobody, Some(20)));
        assert_eq!(turns.at(busy_since(10), 19), (Turn::Others, Some(34)));
        assert_eq!(turns.at(busy_since(19), 33), (Turn::Others, Some(34)));
        assert_eq!(turns.at(busy_since(19), 34), trial);
        let alone = [suspect(-1)];
        let mut turns = ask(&alone);
        turns.at(busy_since(0), 4);
        turns.at(tried_until(NOW + 20 * S), 10);
        assert_eq!(turns.at(FREE, 19), trial, "nothing else is due");
    }

    /// Its queue may be at its global limit, in another process too.
    #[test]
    fn p12_a_trial_for_which_nothing_is_found_holds_the_others_up_once_a_minute() {
        let lanes = [suspect(-1), lane(Class::Plain)];
        let mut turns = ask(&lanes);
        let trial = (Turn::Trial(level(-1)), None);
        assert_eq!(turns.at(FREE, 0), trial);
        assert_eq!(turns.at(FREE, 0), (Turn::Others, Some(60)));
        assert_eq!(turns.at(busy_since(0), 59), (Turn::Others, Some(60)));
        assert_eq!(turns.at(busy_since(0), 60), trial);
    }

    #[test]
    fn p12_a_trial_without_a_place_holds_nobody_up() {
        let lanes = [suspect(-4), lane(Class::Plain)];
        let mut turns = ask(&lanes);
        turns.has_place = false;
        for seconds in 0..200 {
            let turn = turns.at(busy_since(seconds), seconds);
            assert_eq!(turn, (Turn::Others, None), "{seconds}");
        }
    }

    #[test]
    fn p4_a_suspect_to_be_tried_waits_for_those_that_it_may_kill_together_with() {
        let lanes = [suspect(-1), lane(Class::Plain)];
        let mut turns = ask(&lanes);
        let mut beside = busy_since(0);
        beside.suspects.add(level(3));
        beside.suspects.until = Some(NOW + 7 * S);
        assert_eq!(turns.at(beside, 1), (Turn::Others, Some(7)));
    }
}
