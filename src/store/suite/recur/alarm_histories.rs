//! Random histories of alarms, with all that can be changed about a recurrence: an alarm is told once and ends once, none is
//! raised while everything completes, and none is missing once nothing does.

use super::*;

on_every_backend![p10_each_alarm_is_told_once_and_none_is_false_or_missing];

const HISTORIES: u64 = 6;
const STEPS: usize = 100;
const SPANS: [u32; 5] = [1, 10, 45, 90, 200];
const OVERLAPS: [Overlap; 5] = [
    Overlap::Allow,
    Overlap::Skip,
    Overlap::BufferOne,
    Overlap::BufferAll { max: 3 },
    Overlap::CancelPrevious,
];

fn p10_each_alarm_is_told_once_and_none_is_false_or_missing(kit: &mut Kit) {
    for seed in seeds(HISTORIES) {
        kit.now = NOW;
        let mut history = History::begin(kit, seed);
        for _ in 0..STEPS {
            let may_end = history.step(kit);
            history.check(kit, may_end);
        }
        history.everything_completes(kit);
        history.nothing_completes(kit);
    }
}

struct History {
    seed: u64,
    random: fastrand::Rng,
    name: String,
    alarms: Alarms,
    is_raised: bool,
    claims: Vec<Claim>,
    log: Vec<String>,
}

impl History {
    fn begin(kit: &Kit, seed: u64) -> Self {
        let mut history = Self {
            seed,
            random: fastrand::Rng::with_seed(seed),
            name: format!("alarms of {seed}"),
            alarms: Alarms::of(kit),
            is_raised: false,
            claims: Vec::new(),
            log: Vec::new(),
        };
        kit.recur(history.recurrence());
        history
    }

    fn broken(&self, what: &str) -> ! {
        panic!("seed {}: {what}, after {}", self.seed, self.log.join("; "));
    }

    fn span(&mut self) -> Duration {
        MINUTE * SPANS[self.random.usize(..SPANS.len())]
    }

    fn overlap(&mut self) -> Overlap {
        OVERLAPS[self.random.usize(..OVERLAPS.len())]
    }

    fn recurrence(&mut self) -> Recurrence {
        let task = NewTask::with_kind("probe", &1).max_attempts(1);
        let missed = [Missed::Skip, Missed::Latest, Missed::Earliest];
        let mut recurrence = Recurrence::new(self.name.clone(), task.queue(self.name.clone()))
            .every(MINUTE * self.random.choice([30, 60]).unwrap())
            .unwrap()
            .overlap(self.overlap())
            .missed(missed[self.random.usize(..missed.len())])
            .expect_within(self.span());
        if self.random.bool() {
            recurrence = recurrence.max_count(self.random.u64(1..20));
        }
        match self.random.bool() {
            true => recurrence.pause_after_failures(2),
            false => recurrence,
        }
    }

    /// A task of the recurrence, ended or not.
    fn any_task(&mut self, kit: &Kit, is_ended: bool) -> Option<TaskId> {
        let mut tasks = kit.recurrences_tasks(&self.name);
        tasks.retain(|task| !is_ended || task.state().is_final());
        self.random.choice(&tasks).map(Task::id)
    }

    /// Does something, and fires most times. Returns whether that may end an alarm in silence.
    fn step(&mut self, kit: &mut Kit) -> bool {
        let name = self.name.clone();
        let (told, may_end) = match self.random.u8(..26) {
            0..=5 => {
                kit.later(MINUTE * self.random.u32(1..100));
                let minutes = kit.now.since(NOW).as_secs() / 60;
                (format!("{minutes} minutes"), false)
            }
            6 => {
                self.claims.extend(kit.claim(2));
                (format!("{} run", self.claims.len()), false)
            }
            7..=11 if !self.claims.is_empty() => {
                let index = self.random.usize(..self.claims.len());
                let claim = self.claims.swap_remove(index);
                let end = match self.random.u8(..5) {
                    0..=2 => done(),
                    3 => returned(Err(Failure::fatal("no"))),
                    _ => returned(Ok(Outcome::cancel("no"))),
                };
                kit.settle(&claim, end);
                (format!("{} {:?}", claim.id, kit.state(claim.id)), false)
            }
            12 => (format!("{:?}", kit.trigger(&name)), false),
            13 | 14 => match self.any_task(kit, true) {
                Some(id) => {
                    let retried = kit.change(id, Action::Retry(Default::default()));
                    (format!("retry {id} {retried:?}"), false)
                }
                None => ("nothing".into(), false),
            },
            15 => match self.any_task(kit, false) {
                Some(id) => {
                    let actions = [Action::Cancel, Action::Delete];
                    let action = self.random.choice(&actions).unwrap();
                    kit.change(id, action.clone());
                    (format!("{action:?} {id}"), false)
                }
                None => ("nothing".into(), false),
            },
            16 => (self.act(kit, RecurrenceAction::Pause), true),
            17 | 18 => (self.act(kit, RecurrenceAction::Resume), false),
            19 => {
                let span = self.random.bool().then(|| self.span());
                kit.edit(&name, RecurrenceEdit::new().expect_within(span));
                (format!("within {span:?}"), true)
            }
            20 => {
                let minutes = self.random.choice([20, 30, 45, 60]).unwrap();
                let rule = Rule::every(MINUTE * minutes, NOW.to_utc()).unwrap();
                kit.edit(&name, RecurrenceEdit::new().rule(rule));
                (format!("each {minutes} minutes"), false)
            }
            21 => {
                let overlap = self.overlap();
                kit.edit(&name, RecurrenceEdit::new().overlap(overlap));
                (format!("{overlap:?}"), false)
            }
            22 => {
                let span = MINUTE * self.random.u32(..300);
                let from = match self.random.bool() {
                    true => kit.now + span,
                    false => (kit.now - span).max(NOW),
                };
                (self.act(kit, RecurrenceAction::Reset(from)), false)
            }
            23 => {
                let from = (kit.now - HOUR * self.random.u32(1..10)).max(NOW);
                let to = kit.now + MICRO;
                (
                    self.act(kit, RecurrenceAction::Backfill { from, to }),
                    false,
                )
            }
            24 => {
                let recurrence = self.recurrence();
                (format!("{:?}", kit.recur(recurrence)), true)
            }
            _ => ("nothing".into(), false),
        };
        self.log.push(told);
        if self.random.u8(..4) > 0 {
            kit.fire();
            self.log.push("fired".into());
        }
        may_end
    }

    fn act(&self, kit: &Kit, action: RecurrenceAction) -> String {
        format!("{action:?} {:?}", kit.act(&self.name, action.clone()))
    }

    fn is_overdue(&self, kit: &Kit) -> bool {
        kit.recurrence(&self.name).overdue_since().is_some()
    }

    fn check(&mut self, kit: &Kit, may_end: bool) {
        for told in self.alarms.take() {
            let is_raised = told == RecurrenceEventKind::Overdue;
            if is_raised == self.is_raised && !may_end {
                self.broken(&format!("{told:?} is told twice"));
            }
            self.is_raised = is_raised;
        }
        match (self.is_raised, self.is_overdue(kit)) {
            (false, true) => self.broken("an alarm was not told"),
            (true, false) if !may_end => self.broken("an alarm has ended in silence"),
            (_, is_overdue) => self.is_raised = is_overdue,
        }
        let since = kit.recurrence(&self.name).overdue_since();
        if since.is_some_and(|since| since > kit.now.to_utc()) {
            self.broken("it is overdue since an instant to come");
        }
    }

    /// Runs all that is there, and what follows from it.
    fn complete_all(&mut self, kit: &Kit) {
        kit.fire();
        loop {
            self.claims.extend(kit.claim(50));
            if self.claims.is_empty() {
                return;
            }
            for claim in self.claims.drain(..) {
                kit.settle(&claim, done());
            }
            kit.fire();
        }
    }

    fn everything_completes(&mut self, kit: &mut Kit) {
        kit.act(&self.name, RecurrenceAction::Resume);
        let edit = RecurrenceEdit::new().expect_within(20 * MINUTE);
        let edit = edit.pause_after_failures(None).max_count(None);
        kit.edit(&self.name, edit.missed(Missed::Latest));
        self.complete_all(kit);
        kit.trigger(&self.name);
        self.complete_all(kit);
        if self.is_overdue(kit) {
            self.broken("an alarm never ends");
        }
        for _ in 0..20 {
            kit.later(15 * MINUTE);
            kit.fire();
            let is_overdue = self.is_overdue(kit);
            self.complete_all(kit);
            if is_overdue || self.is_overdue(kit) {
                self.broken("an alarm is false");
            }
        }
    }

    fn nothing_completes(&mut self, kit: &mut Kit) {
        let name = &self.name;
        if let Some(next) = kit.recurrence(name).next_slot() {
            kit.now = kit.now.max(Timestamp::rounded_up(next).unwrap());
            kit.later(20 * MINUTE);
            let rule = Rule::every(50 * HOUR, NOW.to_utc()).unwrap();
            match self.random.u8(..4) {
                0 => drop(kit.act(name, RecurrenceAction::Reset(kit.now + HOUR))),
                1 => drop(kit.edit(name, RecurrenceEdit::new().rule(rule))),
                2 => drop(kit.edit(name, RecurrenceEdit::new().expect_within(19 * MINUTE))),
                _ => {}
            }
            kit.fire();
            if !self.is_overdue(kit) {
                self.broken("an alarm is missing");
            }
        }
        kit.act(&self.name, RecurrenceAction::Remove);
        for claim in kit.claim(500) {
            kit.settle(&claim, done());
        }
    }
}
