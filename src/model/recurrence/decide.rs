//! Decides what becomes of the slots that are due, before it is known whether a task is live.

use super::definition::Definition;
use super::policy::{Missed, SkipReason};
use super::rule::Rule;
use super::search::Found;
use crate::time::{MICRO, Timestamp};

/// The most slots that one decision gives a place. More are decided by the next one.
pub(crate) const MAX_PLACED: usize = 100;
/// How often a search for the next slot is repeated that finds only excluded ones. It goes on in the next transaction.
const MAX_SEARCHES: usize = 10;
/// The same of a search for a slot that is past: a day of seconds takes 43.
const MAX_SEARCHES_BACK: usize = 50;

/// What becomes of the slots that are due, in their order, and where the recurrence goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) steps: Vec<Step>,
    pub(crate) next: Upcoming,
}

impl Decision {
    /// None is due.
    pub(crate) fn nothing(next: Upcoming) -> Self {
        let steps = Vec::new();
        Self { steps, next }
    }

    /// All slots from `first`, which is due, up to `now` make no task.
    pub(crate) fn pass(rule: &Rule, first: Timestamp, now: Timestamp, reason: SkipReason) -> Self {
        let last = match rule.previous_slot(now + MICRO) {
            Found::Slot(last) => last.max(first),
            Found::Nothing | Found::Further(_) => now,
        };
        Self {
            steps: vec![Step::Pass {
                first,
                last,
                reason,
            }],
            next: Upcoming::after(rule, now),
        }
    }

    /// The same of slots among which others lie that are decided, up to `until`: those of `all` that are none of `rule`. A span of
    /// slots that make no task ends before each of them.
    pub(crate) fn between(self, rule: &Rule, all: &Rule, until: Timestamp) -> Self {
        let mut steps = Vec::new();
        for step in self.steps {
            match step {
                Step::Pass {
                    first,
                    last,
                    reason,
                } => {
                    let mut from = first;
                    let mut at = first;
                    while at <= until
                        && let Some(slot) = next(rule, at).filter(|slot| *slot <= last)
                    {
                        if next(all, at) != Some(slot) {
                            let (first, last) = (from, at);
                            steps.push(Step::Pass {
                                first,
                                last,
                                reason,
                            });
                            from = slot;
                        }
                        at = slot;
                    }
                    let first = from;
                    steps.push(Step::Pass {
                        first,
                        last,
                        reason,
                    });
                }
                place => steps.push(place),
            }
        }
        let next = self.next;
        Self { steps, next }
    }
}

/// One step of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The slots from the first to the last make no task.
    Pass {
        first: Timestamp,
        last: Timestamp,
        reason: SkipReason,
    },
    /// The slot makes a task, if the overlap policy lets it.
    Place(Timestamp),
}

/// Where a recurrence goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upcoming {
    /// At this slot.
    Slot(Timestamp),
    /// There is no slot up to this instant; the search goes on after it.
    Search(Timestamp),
    /// There is no slot any more.
    Ended,
}

impl Upcoming {
    /// The first slot after an instant.
    pub(crate) fn after(rule: &Rule, instant: Timestamp) -> Self {
        match near(rule, instant, MAX_SEARCHES, Rule::next_slot) {
            Found::Slot(slot) => Self::Slot(slot),
            Found::Further(at) => Self::Search(at),
            Found::Nothing => Self::Ended,
        }
    }
}

/// Decides about all slots from `next`, which is due, up to `now`.
pub(crate) fn decide(definition: &Definition, next: Timestamp, now: Timestamp) -> Decision {
    let rule = &definition.rule;
    let latest = match near(rule, now + MICRO, MAX_SEARCHES_BACK, Rule::previous_slot) {
        Found::Slot(latest) => latest.max(next),
        Found::Nothing => next,
        Found::Further(at) => {
            // Too many excluded slots to find the latest: all are passed over, and it is recorded.
            let pass = Step::Pass {
                first: next,
                last: at.max(next),
                reason: SkipReason::Missed,
            };
            return Decision {
                steps: vec![pass],
                next: Upcoming::after(rule, now),
            };
        }
    };
    let is_on_time = now.since(latest) <= definition.grace;
    let mut steps = Vec::new();
    // The last that is missed; `None`: none is.
    let missed = match (is_on_time, latest == next) {
        (true, true) => None,
        (true, false) => Some(previous(rule, latest).unwrap_or(next).max(next)),
        (false, _) => Some(latest),
    };
    let mut rest = None;
    if let Some(last) = missed {
        rest = missed_slots(definition, next..=last, is_on_time, now, &mut steps);
    }
    if let Some(next) = rest {
        let next = Upcoming::Slot(next);
        return Decision { steps, next };
    }
    if is_on_time {
        steps.push(Step::Place(latest));
    }
    let next = Upcoming::after(rule, now);
    Decision { steps, next }
}

/// Adds what becomes of the missed slots. Returns where the next decision goes on, if they are too many for this one.
fn missed_slots(
    definition: &Definition,
    slots: std::ops::RangeInclusive<Timestamp>,
    is_latest_on_time: bool,
    now: Timestamp,
    steps: &mut Vec<Step>,
) -> Option<Timestamp> {
    let (rule, first, last) = (&definition.rule, *slots.start(), *slots.end());
    let pass = |first, last, reason| Step::Pass {
        first,
        last,
        reason,
    };
    let oldest = now - definition.window;
    let skips_all = match definition.missed {
        Missed::Skip => true,
        Missed::Latest => is_latest_on_time,
        Missed::Earliest | Missed::All { .. } => false,
    };
    if skips_all {
        steps.push(pass(first, last, SkipReason::Missed));
        return None;
    }
    if last < oldest {
        steps.push(pass(first, last, SkipReason::TooOld));
        return None;
    }
    let chosen = match definition.missed {
        Missed::Earliest if first >= oldest => vec![first],
        Missed::Earliest => next(rule, oldest - MICRO)
            .filter(|slot| *slot <= last)
            .into_iter()
            .collect(),
        Missed::All { max } => {
            let mut chosen = vec![last];
            while chosen.len() < max as usize
                && let Some(before) = previous(rule, chosen[chosen.len() - 1])
                && before >= first.max(oldest)
            {
                chosen.push(before);
            }
            chosen.reverse();
            chosen
        }
        Missed::Skip | Missed::Latest => vec![last],
    };
    let (Some(&from), Some(&to)) = (chosen.first(), chosen.last()) else {
        steps.push(pass(first, last, SkipReason::TooOld));
        return None;
    };
    if first < from {
        let before = previous(rule, from).unwrap_or(first).max(first);
        let is_cut_by_window = match definition.missed {
            Missed::Earliest => true,
            Missed::All { max } => chosen.len() < max as usize,
            _ => false,
        };
        let reason = if is_cut_by_window {
            SkipReason::TooOld
        } else {
            SkipReason::Missed
        };
        steps.push(pass(first, before, reason));
    }
    let now_placed = chosen.iter().take(MAX_PLACED);
    steps.extend(now_placed.map(|slot| Step::Place(*slot)));
    if let Some(rest) = chosen.get(MAX_PLACED) {
        return Some(*rest);
    }
    if to < last {
        let after = next(rule, to).unwrap_or(last).min(last);
        steps.push(pass(after, last, SkipReason::Missed));
    }
    None
}

fn next(rule: &Rule, after: Timestamp) -> Option<Timestamp> {
    near(rule, after, MAX_SEARCHES_BACK, Rule::next_slot).slot()
}

fn previous(rule: &Rule, before: Timestamp) -> Option<Timestamp> {
    near(rule, before, MAX_SEARCHES_BACK, Rule::previous_slot).slot()
}

/// Searches a few times.
fn near(
    rule: &Rule,
    from: Timestamp,
    times: usize,
    search: fn(&Rule, Timestamp) -> Found,
) -> Found {
    let mut found = Found::Further(from);
    for _ in 0..times {
        match found {
            Found::Further(at) => found = search(rule, at),
            _ => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::new_task::NewTask;
    use crate::model::recurrence::policy::Overlap;
    use crate::model::recurrence::request::Recurrence;

    const HOUR: Duration = Duration::from_secs(3600);
    /// 2026-01-01T00:00:00Z.
    const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

    /// Slots on the hour.
    fn hourly(missed: Missed) -> Definition {
        let rule = Rule::every(HOUR, START.to_utc()).unwrap();
        let recurrence = Recurrence::new("hourly", NewTask::with_kind("kind", &()))
            .rule(rule)
            .missed(missed)
            .overlap(Overlap::Allow);
        recurrence.prepare(START).unwrap().definition
    }

    fn hour(count: u32) -> Timestamp {
        START + HOUR * count
    }

    /// What becomes of the slots from 00:00 on, as `-` and hours for those passed over and `+` and the hour for a place, and
    /// the hour of the next.
    fn decided(definition: &Definition, now: Timestamp) -> String {
        let hours = |at: Timestamp| (at.since(START).as_secs() / 3600).to_string();
        let decision = decide(definition, START, now);
        let mut shown: Vec<String> = decision
            .steps
            .iter()
            .map(|step| match step {
                Step::Pass {
                    first,
                    last,
                    reason,
                } => {
                    let old = if *reason == SkipReason::TooOld {
                        "!"
                    } else {
                        ""
                    };
                    format!("-{}..{}{old}", hours(*first), hours(*last))
                }
                Step::Place(slot) => format!("+{}", hours(*slot)),
            })
            .collect();
        if let Upcoming::Slot(next) = decision.next {
            shown.push(format!("next {}", hours(next)));
        }
        shown.join(" ")
    }

    #[test]
    fn p10_each_due_slot_is_decided_by_the_policy_for_missed_ones() {
        let minute = Duration::from_secs(60);
        let on_time = |hours| hour(hours) + minute;
        let late = |hours| hour(hours) + minute + MICRO;
        let all = Missed::All { max: 3 };
        let table = [
            // One slot.
            (Missed::Skip, on_time(0), "+0 next 1"),
            (Missed::Skip, late(0), "-0..0 next 1"),
            (Missed::Latest, late(0), "+0 next 1"),
            (Missed::Earliest, late(0), "+0 next 1"),
            (all, late(0), "+0 next 1"),
            // Six, of which the last is on time.
            (Missed::Skip, on_time(5), "-0..4 +5 next 6"),
            (Missed::Latest, on_time(5), "-0..4 +5 next 6"),
            (Missed::Earliest, on_time(5), "+0 -1..4 +5 next 6"),
            (all, on_time(5), "-0..1 +2 +3 +4 +5 next 6"),
            // Six, of which none is.
            (Missed::Skip, late(5), "-0..5 next 6"),
            (Missed::Latest, late(5), "-0..4 +5 next 6"),
            (Missed::Earliest, late(5), "+0 -1..5 next 6"),
            (all, late(5), "-0..2 +3 +4 +5 next 6"),
        ];
        for (missed, now, expected) in table {
            assert_eq!(
                decided(&hourly(missed), now),
                expected,
                "{missed:?} at {now:?}"
            );
        }
    }

    #[test]
    fn p10_a_missed_slot_that_is_older_than_the_window_makes_no_task() {
        let now = hour(5) + HOUR / 2;
        let table = [
            (Missed::Latest, 40, "-0..4 +5 next 6"),
            (Missed::Latest, 20, "-0..5! next 6"),
            (Missed::Earliest, 160, "-0..2! +3 -4..5 next 6"),
            (Missed::Earliest, 20, "-0..5! next 6"),
            (Missed::All { max: 9 }, 160, "-0..2! +3 +4 +5 next 6"),
            (Missed::All { max: 2 }, 160, "-0..3 +4 +5 next 6"),
        ];
        for (missed, minutes, expected) in table {
            let mut definition = hourly(missed);
            definition.window = Duration::from_secs(60 * minutes);
            assert_eq!(decided(&definition, now), expected, "{missed:?}, {minutes}");
        }
    }

    /// A chunk at a time, so that other writers have their turn: whatever the chunks, each slot is decided once.
    #[test]
    fn p10_many_missed_slots_are_decided_in_chunks() {
        let definition = hourly(Missed::All { max: 250 });
        let now = hour(299) + HOUR / 2;
        let (mut next, mut placed, mut passed, mut rounds) = (START, Vec::new(), 0, 0);
        while next <= now {
            let decision = decide(&definition, next, now);
            for step in decision.steps {
                match step {
                    Step::Place(slot) => placed.push(slot),
                    Step::Pass { first, last, .. } => {
                        passed += last.since(first).as_secs() / 3600 + 1;
                    }
                }
            }
            let Upcoming::Slot(slot) = decision.next else {
                panic!("it never ends");
            };
            next = slot;
            rounds += 1;
        }
        let expected: Vec<_> = (50..300).map(hour).collect();
        assert_eq!((placed, passed, rounds, next), (expected, 50, 3, hour(300)));
    }

    /// Enumerating a year of seconds would take seconds.
    #[test]
    fn p10_a_year_of_missed_seconds_takes_no_longer_than_one() {
        let mut definition = hourly(Missed::Latest);
        definition.rule = Rule::cron("* * * * * *").unwrap();
        let now = START + 8_760 * HOUR;
        let decision = decide(&definition, START, now);
        let passed = Step::Pass {
            first: START,
            last: now - Duration::from_secs(1),
            reason: SkipReason::Missed,
        };
        assert_eq!(decision.steps, [passed, Step::Place(now)]);
    }

    #[test]
    fn a_decision_goes_on_after_the_last_slot_of_a_rule() {
        let mut definition = hourly(Missed::Latest);
        definition.rule = Rule::at([START.to_utc()]).unwrap();
        let decision = decide(&definition, START, hour(1));
        assert_eq!(decision.steps, [Step::Place(START)]);
        assert_eq!(decision.next, Upcoming::Ended);
    }

    #[test]
    fn p10_no_slot_is_passed_over_in_silence_when_many_are_excluded() {
        let second = Rule::every(Duration::from_secs(1), START.to_utc()).unwrap();
        let (first, last) = (START + HOUR, START + 25 * HOUR);
        let closed = second.clone().not_before(first.to_utc()).unwrap();
        let closed = closed.not_after(last.to_utc()).unwrap();
        let mut definition = hourly(Missed::All { max: 10_000 });
        definition.rule = second.except(closed).unwrap();
        let mut seen = 0;
        let (mut next, now) = (START, START + 24 * HOUR);
        for _ in 0..1_000 {
            let decision = decide(&definition, next, now);
            for step in decision.steps {
                seen += match step {
                    Step::Pass { first, last, .. } => last.since(first).as_secs() + 1,
                    Step::Place(_) => 1,
                };
            }
            match decision.next {
                Upcoming::Slot(slot) if slot <= now => next = slot,
                _ => break,
            }
        }
        assert_eq!(seen, 3600);
    }
}
