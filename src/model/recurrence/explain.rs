//! What became of a recurrence's slots, and what will, from the record of decisions.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::decide::Upcoming;
use super::definition::Draw;
use super::policy::{Fate, SkipReason};
use super::rule::Rule;
use crate::id::TaskId;
use crate::time::Timestamp;

/// The most slots of one explanation.
pub(crate) const MAX_EXPLAINED: usize = 1_000;

/// What became of the slots in a range, and what will. Made by [`Recurrences::explain`](crate::Recurrences::explain).
///
/// # Example
///
/// ```
/// # use punctual::{Explanation, NewTask, Recurrence, Scheduler, SlotFate};
/// # let scheduler = Scheduler::in_memory().start()?;
/// let nightly = Recurrence::new("nightly", NewTask::with_kind("report", &7)).cron("0 2 * * *")?;
/// scheduler.recur(nightly.since("2026-03-01T00:00:00Z".parse()?))?;
/// let range = "2026-03-01T00:00:00Z".parse()?.."2026-04-01T00:00:00Z".parse()?;
/// let march: Explanation = scheduler.recurrences().explain("nightly", range)?;
/// for explained in march.slots() {
///     match explained.fate() {
///         SlotFate::Made(task) => println!("{}: task {task}", explained.slot()),
///         SlotFate::Skipped(reason) => println!("{}: skipped, {reason}", explained.slot()),
///         _ => println!("{}: to come", explained.slot()),
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub(crate) slots: Vec<ExplainedSlot>,
    pub(crate) next: Option<Timestamp>,
    pub(crate) forgotten_until: Option<Timestamp>,
}

impl Explanation {
    /// The slots, in ascending order; at most 1,000.
    #[must_use]
    pub fn slots(&self) -> &[ExplainedSlot] {
        &self.slots
    }

    /// Where the explanation goes on, if the range has more slots: the start of the next range to ask for.
    #[must_use]
    pub fn next(&self) -> Option<DateTime<Utc>> {
        self.next.map(Timestamp::to_utc)
    }

    /// What became of slots up to this instant is not recorded any more: of each recurrence the newest 1,000 runs of like
    /// decisions are kept, and none from before a change of the time zones that moved its civil times.
    #[must_use]
    pub fn forgotten_until(&self) -> Option<DateTime<Utc>> {
        self.forgotten_until.map(Timestamp::to_utc)
    }
}

/// A slot, and what became of it. Part of an [`Explanation`].
///
/// # Example
///
/// ```
/// use punctual::{ExplainedSlot, SlotFate};
///
/// fn is_skipped(explained: &ExplainedSlot) -> bool {
///     matches!(explained.fate(), SlotFate::Skipped(_))
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExplainedSlot {
    pub(crate) slot: Timestamp,
    pub(crate) fate: SlotFate,
}

impl ExplainedSlot {
    /// The slot: its nominal instant.
    #[must_use]
    pub fn slot(&self) -> DateTime<Utc> {
        self.slot.to_utc()
    }

    /// What became of it, or will.
    #[must_use]
    pub fn fate(&self) -> SlotFate {
        self.fate
    }
}

/// What became of a slot, or will.
///
/// # Example
///
/// ```
/// use punctual::{SkipReason, SlotFate};
///
/// let fate = SlotFate::Skipped(SkipReason::Overlap);
/// assert_ne!(fate, SlotFate::Upcoming);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotFate {
    /// It made the task of this id, which may have been pruned since.
    Made(TaskId),
    /// It makes the task of this id once the live task has ended.
    Waiting(TaskId),
    /// It made no task, for this reason.
    Skipped(SkipReason),
    /// It is still to be decided. The number of tasks is bounded by
    /// [`max_count`](crate::Recurrence::max_count), so perhaps it does not come to that.
    Upcoming,
}

/// Decisions that were alike, about the slots of a rule.
#[derive(Debug, Clone)]
pub(crate) struct RuledRun {
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    pub(crate) fate: Fate,
    /// The rule that its slots are of.
    pub(crate) rule: Rule,
    /// The number of that.
    pub(crate) number: i64,
}

/// What is stored of a recurrence's slots.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) place: u32,
    /// The random mark of the file.
    pub(crate) mark: Uuid,
    /// In ascending order.
    pub(crate) runs: Vec<RuledRun>,
    /// The slots that wait.
    pub(crate) waiting: Vec<Timestamp>,
    /// The rule now, its number, and its next slot.
    pub(crate) rule: Rule,
    pub(crate) number: i64,
    /// The slots of the rule that are still to be decided, if the time zones have changed.
    pub(crate) undecided: Option<Rule>,
    pub(crate) next_slot: Option<Timestamp>,
    /// Up to where slots are decided.
    pub(crate) decided_until: Timestamp,
    pub(crate) forgotten_until: Option<Timestamp>,
    /// While it is paused: the present.
    pub(crate) paused_until: Option<Timestamp>,
}

impl Record {
    /// What became of the slots from `from` on, up to `to`, which is not included.
    pub(crate) fn explain(&self, from: Timestamp, to: Timestamp) -> Explanation {
        let mut walk = Walk {
            record: self,
            slots: Vec::new(),
            to,
        };
        let mut next = None;
        for run in &self.runs {
            let first = run.first.max(from);
            next = next.or_else(|| walk.walk(&run.rule, first, run.last, Some(run.fate)));
        }
        if let Some(slot) = self.next_slot {
            let first = slot.max(from);
            let rule = self.undecided.as_ref().unwrap_or(&self.rule);
            next = next.or_else(|| walk.walk(rule, first, Timestamp::MAX, None));
        }
        Explanation {
            slots: walk.slots,
            next,
            forgotten_until: self.forgotten_until,
        }
    }

    /// The id of the task that a slot makes.
    pub(crate) fn task(&self, slot: Timestamp) -> TaskId {
        Draw::new(self.mark, self.place, &self.name, slot).id(slot)
    }

    fn explained(&self, slot: Timestamp, fate: Option<Fate>) -> ExplainedSlot {
        let id = || self.task(slot);
        let fate = match fate {
            Some(Fate::Skipped(reason)) => SlotFate::Skipped(reason),
            _ if self.waiting.contains(&slot) => SlotFate::Waiting(id()),
            Some(Fate::Made) => SlotFate::Made(id()),
            None if self.paused_until.is_some_and(|now| slot <= now) => {
                SlotFate::Skipped(SkipReason::Paused)
            }
            None => SlotFate::Upcoming,
        };
        ExplainedSlot { slot, fate }
    }
}

struct Walk<'a> {
    record: &'a Record,
    slots: Vec<ExplainedSlot>,
    to: Timestamp,
}

impl Walk<'_> {
    /// Adds the slots of a rule from the first to the last. Returns where to go on, if there are too many.
    fn walk(
        &mut self,
        rule: &Rule,
        first: Timestamp,
        last: Timestamp,
        fate: Option<Fate>,
    ) -> Option<Timestamp> {
        let mut after = Timestamp::from_micros(first.micros() - 1);
        loop {
            let slot = match Upcoming::after(rule, after) {
                Upcoming::Slot(slot) => slot,
                Upcoming::Search(at) if at < last && at < self.to => return Some(at),
                Upcoming::Search(_) | Upcoming::Ended => return None,
            };
            if slot > last || slot >= self.to {
                return None;
            }
            if self.slots.len() == MAX_EXPLAINED {
                return Some(slot);
            }
            self.slots.push(self.record.explained(slot, fate));
            after = slot;
        }
    }
}
