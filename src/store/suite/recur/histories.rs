//! Random histories of a recurrence: whatever happens to it, the rules hold after each step.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::model::settle::Claim;

on_every_backend![p10_the_rules_hold_in_every_history];

const HISTORIES: u64 = 8;
const STEPS: usize = 120;

fn p10_the_rules_hold_in_every_history(kit: &mut Kit) {
    for seed in seeds(HISTORIES) {
        kit.now = NOW;
        let mut history = History::begin(kit, seed);
        for _ in 0..STEPS {
            history.step(kit);
            history.check(kit);
        }
        kit.fire();
        let next = kit.store().lanes().recurrence_at;
        assert!(
            next.is_none_or(|at| at > kit.now),
            "seed {seed}: it is due for ever"
        );
        kit.act(&history.name, RecurrenceAction::Remove);
    }
}

struct History {
    seed: u64,
    random: fastrand::Rng,
    name: String,
    rule: Rule,
    overlap: Overlap,
    missed: Missed,
    max_count: Option<u64>,
    claims: Vec<Claim>,
    /// The tasks of backfills.
    beside: BTreeSet<TaskId>,
    log: Vec<String>,
}

impl History {
    fn begin(kit: &Kit, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let max_count = random.bool().then(|| random.u64(1..40));
        let mut history = Self {
            seed,
            random,
            name: format!("recurrence {seed}"),
            rule: Rule::every(HOUR, NOW.to_utc()).unwrap(),
            overlap: Overlap::Skip,
            missed: Missed::Latest,
            max_count,
            claims: Vec::new(),
            beside: BTreeSet::new(),
            log: Vec::new(),
        };
        history.choose_policies();
        kit.recur(history.recurrence());
        history
    }

    fn recurrence(&self) -> Recurrence {
        let task = NewTask::with_kind("probe", &1).queue(self.name.clone());
        let recurrence = Recurrence::new(self.name.clone(), task)
            .rule(self.rule.clone())
            .overlap(self.overlap)
            .missed(self.missed)
            .expect_within(2 * HOUR);
        match self.max_count {
            Some(count) => recurrence.max_count(count),
            None => recurrence,
        }
    }

    fn choose_policies(&mut self) {
        let overlaps = [
            Overlap::Skip,
            Overlap::BufferOne,
            Overlap::BufferAll { max: 3 },
            Overlap::CancelPrevious,
        ];
        let missed = [Missed::Skip, Missed::Latest, Missed::Earliest];
        self.overlap = overlaps[self.random.usize(..overlaps.len())];
        self.missed = missed[self.random.usize(..missed.len())];
    }

    fn step(&mut self, kit: &mut Kit) {
        let name = self.name.clone();
        let told = match self.random.u8(..21) {
            0..=5 => {
                kit.later(MINUTE * self.random.u32(1..150));
                format!("{} minutes", kit.now.since(NOW).as_secs() / 60)
            }
            6..=8 => format!("{} fired", kit.fire()),
            9 | 10 => {
                self.claims.extend(kit.claim(3));
                format!("{} run", self.claims.len())
            }
            11..=13 if !self.claims.is_empty() => {
                let claim = self
                    .claims
                    .swap_remove(self.random.usize(..self.claims.len()));
                let end = match self.random.u8(..3) {
                    0 => done(),
                    1 => returned(Err(Failure::fatal("no"))),
                    _ => returned(Ok(Outcome::cancel("no"))),
                };
                format!("settled {:?}", kit.settle(&claim, end))
            }
            14 => format!("pause {:?}", kit.act(&name, RecurrenceAction::Pause)),
            15 | 16 => format!("resume {:?}", kit.act(&name, RecurrenceAction::Resume)),
            17 => {
                let edit = RecurrenceEdit::new().priority(self.random.u8(..9));
                format!("edit {:?}", kit.edit(&name, edit))
            }
            18 => {
                self.choose_policies();
                let recurred = kit.recur(self.recurrence());
                format!("{:?} {:?} {recurred:?}", self.overlap, self.missed)
            }
            19 => {
                let minutes = [20, 30, 45, 60][self.random.usize(..4)];
                self.rule = Rule::every(MINUTE * minutes, NOW.to_utc()).unwrap();
                format!("each {minutes} minutes {:?}", kit.recur(self.recurrence()))
            }
            20 if self.random.bool() => format!("{:?}", kit.trigger(&name)),
            20 => {
                let minutes = self.random.u32(1..400);
                let from = match self.random.u8(..4) {
                    0 => kit.now + MINUTE * minutes,
                    1 => kit.now,
                    _ => (kit.now - MINUTE * minutes).max(NOW),
                };
                format!(
                    "reset {} {:?}",
                    from.since(NOW).as_secs() / 60,
                    kit.act(&name, RecurrenceAction::Reset(from))
                )
            }
            _ => {
                let of_its_own: BTreeSet<TaskId> = self.ids(kit);
                let from = (kit.now - HOUR * self.random.u32(1..10)).max(NOW);
                let to = kit.now + MICRO;
                let filled = kit.act(&name, RecurrenceAction::Backfill { from, to });
                let now = self.ids(kit);
                self.beside.extend(now.difference(&of_its_own));
                format!("{filled:?}")
            }
        };
        self.log.push(told);
    }

    fn ids(&self, kit: &Kit) -> BTreeSet<TaskId> {
        let tasks = kit.recurrences_tasks(&self.name);
        tasks.iter().map(Task::id).collect()
    }

    fn check(&self, kit: &Kit) {
        let broken = |what: String| -> ! {
            panic!("seed {}: {what}, after {}", self.seed, self.log.join("; "));
        };
        let status = kit.recurrence(&self.name);
        let tasks = kit.recurrences_tasks(&self.name);
        let is_its_own = |task: &&Task| !self.beside.contains(&task.id());
        let live = tasks.iter().filter(|task| !task.state().is_final());
        let live = live.filter(is_its_own).count();
        if live > 1 {
            broken(format!("{live} are live"));
        }
        if live == 0 && status.waiting_count() > 0 && !status.is_paused() {
            broken("a slot waits for nothing".to_owned());
        }
        let made = tasks.iter().filter(|task| task.slot().is_some());
        let made = made.filter(is_its_own).count() as u64;
        // A call that waits has no slot.
        if !(made..=made + status.waiting_count()).contains(&status.made_count()) {
            broken(format!("{} are counted of {made}", status.made_count()));
        }
        if let Some(max) = self.max_count {
            if made > max {
                broken(format!("{made} are made of {max}"));
            }
            if status.is_ended() && status.made_count() < max {
                broken(format!("it has ended at {} of {max}", status.made_count()));
            }
        }
        let end = kit.now + 24 * HOUR;
        let mut fates = BTreeMap::new();
        for each in explain(kit, &self.name, NOW, end).slots() {
            let (slot, fate) = (each.slot(), each.fate());
            let has_task = tasks.iter().any(|task| task.slot() == Some(slot));
            if fates.insert(slot, fate).is_some() {
                broken(format!("{slot} is told twice"));
            }
            // After a reset it is decided again.
            let is_again = has_task && matches!(fate, SlotFate::Upcoming);
            if matches!(fate, SlotFate::Made(_)) != has_task && !is_again {
                broken(format!(
                    "{slot} is told as {fate:?}, and has a task: {has_task}"
                ));
            }
        }
        let mut slots: Vec<_> = tasks.iter().filter_map(Task::slot).collect();
        slots.sort_unstable();
        if slots.windows(2).any(|pair| pair[0] == pair[1]) {
            broken("a slot has two tasks".to_owned());
        }
        // What a reset passed over is in no record.
        let is_reset = self.log.iter().any(|each| each.starts_with("reset"));
        let untold = slots.iter().find(|slot| !fates.contains_key(slot));
        if let Some(slot) = untold.filter(|_| !is_reset) {
            broken(format!("{slot} has a task, and is not told"));
        }
        let next = kit.store().lanes().recurrence_at;
        if let Some(slot) = status.next_slot()
            && !status.is_paused()
            && next.is_none_or(|at| at.to_utc() > slot)
        {
            broken(format!("it sleeps until {next:?}, beyond {slot}"));
        }
    }
}
