//! Decides which slots of a past range still make a task, from the record of what became of them.

use super::decide::Upcoming;
use super::explain::{Record, RuledRun};
use super::policy::Fate;
use super::rule::Rule;
use super::view::Backfilled;
use crate::time::Timestamp;

/// The most slots that one plan decides about.
const MAX_SLOTS: usize = 500;

/// What to make, and how the record of decisions is to read then.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) slots: Vec<Timestamp>,
    /// The runs that are replaced, by their first instants.
    pub(crate) gone: Vec<Timestamp>,
    pub(crate) runs: Vec<RuledRun>,
    pub(crate) counts: Backfilled,
    /// Where the next plan begins.
    pub(crate) next: Option<Timestamp>,
}

/// Plans a range whose end is not included, up to what is decided: later slots make their tasks by themselves.
pub(crate) fn plan(record: &Record, from: Timestamp, to: Timestamp) -> Plan {
    let mut planner = Planner {
        record,
        plan: Plan::default(),
        left: MAX_SLOTS,
    };
    let end = to.min(after(record.decided_until));
    let forgotten = record
        .forgotten_until
        .map_or(Timestamp::MIN, after)
        .min(end);
    let mut at = from;
    if at < forgotten {
        at = planner.part(&record.rule, at, forgotten, Part::Forgotten);
    }
    // Whether slots that are in no run are those of the rule now. Between the runs of former rules there were none.
    let is_now = |run: &RuledRun| run.number == record.number;
    let mut is_ours = record.forgotten_until.is_none() || record.runs.first().is_some_and(is_now);
    let is_first = |run: &RuledRun| {
        record
            .runs
            .first()
            .is_some_and(|first| first.first == run.first)
    };
    for run in &record.runs {
        if at >= end || planner.left == 0 {
            break;
        }
        if at < run.first {
            at = if is_ours && (is_now(run) || is_first(run)) {
                planner.part(&record.rule, at, run.first.min(end), Part::Unrecorded)
            } else {
                run.first
            };
        }
        is_ours = is_now(run);
        if at < end && at <= run.last && at >= run.first {
            let part = match run.fate {
                Fate::Made => Part::Made,
                Fate::Skipped(_) => Part::Skipped(run),
            };
            at = planner.part(&run.rule, at, after(run.last).min(end), part);
        }
    }
    if at < end && planner.left > 0 {
        at = if is_ours {
            planner.part(&record.rule, at, end, Part::Unrecorded)
        } else {
            end
        };
    }
    planner.plan.next = (at < end).then_some(at);
    planner.plan
}

fn after(at: Timestamp) -> Timestamp {
    Timestamp::from_micros(at.micros() + 1)
}

fn before(at: Timestamp) -> Timestamp {
    Timestamp::from_micros(at.micros() - 1)
}

/// What is known of a part of the range.
#[derive(Clone, Copy)]
enum Part<'a> {
    Forgotten,
    /// Nothing was decided: it is from before the recurrence was stored.
    Unrecorded,
    Made,
    Skipped(&'a RuledRun),
}

struct Planner<'a> {
    record: &'a Record,
    plan: Plan,
    left: usize,
}

impl Planner<'_> {
    /// Plans a part, whose end is not included. Returns where it stopped.
    fn part(&mut self, rule: &Rule, from: Timestamp, to: Timestamp, part: Part<'_>) -> Timestamp {
        let (mut at, mut stop) = (before(from), to);
        let mut slots = Vec::new();
        loop {
            let slot = match Upcoming::after(rule, at) {
                Upcoming::Slot(slot) if slot < to => slot,
                Upcoming::Search(searched) if searched < to => {
                    self.left = 0;
                    stop = after(searched);
                    break;
                }
                _ => break,
            };
            if self.left == 0 {
                stop = slot;
                break;
            }
            self.left -= 1;
            slots.push(slot);
            at = slot;
        }
        let count = slots.len() as u64;
        match part {
            Part::Forgotten => self.plan.counts.forgotten += count,
            Part::Made => self.plan.counts.existing += count,
            Part::Unrecorded => self.make(slots, rule, self.record.number),
            Part::Skipped(run) => {
                self.replace(run, from, stop);
                self.make(slots, rule, run.number);
            }
        }
        stop
    }

    fn make(&mut self, slots: Vec<Timestamp>, rule: &Rule, number: i64) {
        let (Some(&first), Some(&last)) = (slots.first(), slots.last()) else {
            return;
        };
        self.plan.runs.push(RuledRun {
            first,
            last,
            fate: Fate::Made,
            rule: rule.clone(),
            number,
        });
        self.plan.counts.made += slots.len() as u64;
        self.plan.slots.extend(slots);
    }

    /// Cuts a part out of a run.
    fn replace(&mut self, run: &RuledRun, from: Timestamp, stop: Timestamp) {
        self.plan.gone.push(run.first);
        if run.first < from {
            self.plan.runs.push(RuledRun {
                last: before(from),
                ..run.clone()
            });
        }
        if stop <= run.last {
            self.plan.runs.push(RuledRun {
                first: stop,
                ..run.clone()
            });
        }
    }
}
