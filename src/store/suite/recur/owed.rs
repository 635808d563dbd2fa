//! Completions that several live tasks owe, tasks that are made late, and alarms in random histories.

use super::*;
use crate::model::settle::Claim;

on_every_backend![
    p10_a_task_that_was_made_late_keeps_its_span_after_a_pause_or_another_span,
    p10_a_span_that_is_added_counts_from_then_on_for_live_tasks,
    p10_an_older_live_task_is_expected_beside_a_newer,
    p10_each_task_of_what_was_missed_is_expected,
    p10_a_slot_after_a_completion_in_a_pause_by_failures_is_expected,
    p10_a_completion_that_meets_nothing_overdue_ends_no_alarm,
    p10_a_live_task_stays_expected_through_a_pause,
    p10_a_slot_whose_task_failed_and_is_tried_again_stays_expected,
    p10_a_task_that_was_made_late_and_is_tried_again_stays_expected,
    p10_a_span_that_is_added_counts_for_a_task_that_was_made_late_and_is_tried_again,
    p10_a_task_that_is_tried_again_in_a_pause_is_expected_after_it,
    p10_a_task_that_is_met_and_tried_again_is_not_expected,
    p10_slots_after_one_that_was_met_before_it_was_made_are_expected,
    p10_a_search_in_a_pause_by_failures_rests_though_a_slot_waits,
    p10_alarms_are_right_in_every_history,
];

/// The slot at two waits for that at one, which completes 20 minutes after two: it has its span from then on.
fn p10_a_task_that_was_made_late_keeps_its_span_after_a_pause_or_another_span(kit: &mut Kit) {
    for name in ["pause", "span"] {
        kit.now = NOW;
        let hourly = hourly(name).overlap(Overlap::BufferOne);
        kit.recur(hourly.expect_within(90 * MINUTE));
        kit.fire_at(1);
        let first = kit.claim_one();
        kit.fire_at(2);
        kit.later(20 * MINUTE);
        kit.settle(&first, done());
        let span = if name == "span" { 80 } else { 90 };
        if name == "span" {
            kit.edit(name, RecurrenceEdit::new().expect_within(span * MINUTE));
        } else {
            kit.act(name, RecurrenceAction::Pause);
            kit.act(name, RecurrenceAction::Resume);
        }
        kit.later(span * MINUTE - MICRO);
        assert!(!is_overdue(kit, name), "{name}");
        kit.later(MICRO);
        assert!(is_overdue(kit, name), "{name}");
        kit.settle(&kit.claim_one(), done());
        kit.act(name, RecurrenceAction::Remove);
        kit.settle(&kit.claim_one(), done());
    }
}

fn p10_a_span_that_is_added_counts_from_then_on_for_live_tasks(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::Skip));
    kit.fire_at(1);
    kit.claim_one();
    kit.later(30 * MINUTE);
    kit.edit("a", RecurrenceEdit::new().expect_within(15 * MINUTE));
    assert!(!is_overdue(kit, "a"));
    kit.later(15 * MINUTE);
    assert!(is_overdue(kit, "a"));
    kit.edit("a", RecurrenceEdit::new().expect_within(None));
    assert!(!is_overdue(kit, "a"));
    kit.later(5 * HOUR);
    assert!(!is_overdue(kit, "a"));
}

/// The tasks of one and two hang. One that was made after the first completes, then one after the second fails.
fn p10_an_older_live_task_is_expected_beside_a_newer(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(90 * MINUTE));
    kit.fire_at(1);
    let first = kit.claim_one();
    kit.fire_at(2);
    let second = kit.claim_one();
    fails(kit, &second);
    kit.later(29 * MINUTE);
    assert!(!is_overdue(kit, "a"));
    kit.later(MINUTE);
    assert!(is_overdue(kit, "a"), "that of one");
    kit.settle(&first, done());
    assert!(!is_overdue(kit, "a"), "the other is not live any more");
    kit.fire_at(3);
    let third = kit.claim_one();
    kit.fire_at(4);
    let fourth = kit.claim_one();
    kit.settle(&third, done());
    kit.later(89 * MINUTE);
    assert!(!is_overdue(kit, "a"));
    kit.later(MINUTE);
    assert!(is_overdue(kit, "a"), "that of four is live");
    kit.settle(&fourth, done());
    assert!(!is_overdue(kit, "a"));
}

fn p10_each_task_of_what_was_missed_is_expected(kit: &mut Kit) {
    kit.recur(
        hourly("a")
            .missed(Missed::All { max: 9 })
            .expect_within(5 * HOUR),
    );
    kit.fire_at(4);
    let claims = kit.claim(9);
    assert_eq!(claims.len(), 4);
    let third = claims.iter().find(|claim| {
        let slot = claim
            .options
            .as_ref()
            .and_then(|options| options.slot.as_ref());
        slot.and_then(|slot| slot.at) == Some(NOW + 3 * HOUR)
    });
    kit.act("a", RecurrenceAction::Reset(NOW + 1_000 * HOUR));
    kit.settle(third.unwrap(), done());
    kit.now = NOW + 9 * HOUR - MICRO;
    assert!(!is_overdue(kit, "a"));
    kit.later(MICRO);
    assert!(is_overdue(kit, "a"), "that of four was made after it");
}

/// It is paused by its failures, and a call after that completes: the next slot is expected all the same.
fn p10_a_slot_after_a_completion_in_a_pause_by_failures_is_expected(kit: &mut Kit) {
    kit.recur(
        hourly("a")
            .expect_within(15 * MINUTE)
            .pause_after_failures(1),
    );
    kit.fire_at(1);
    fails(kit, &kit.claim_one());
    kit.now = NOW + 2 * HOUR + 30 * MINUTE;
    assert!(is_overdue(kit, "a"));
    kit.trigger("a");
    kit.settle(&kit.claim_one(), done());
    assert!(!is_overdue(kit, "a"), "the slots that have come are met");
    kit.now = NOW + 3 * HOUR + 14 * MINUTE;
    assert!(!is_overdue(kit, "a"));
    kit.later(MINUTE);
    assert!(is_overdue(kit, "a"), "it is still paused");
}

fn p10_a_completion_that_meets_nothing_overdue_ends_no_alarm(kit: &mut Kit) {
    let alarms = Alarms::of(kit);
    kit.recur(hourly("a").expect_within(15 * MINUTE));
    kit.trigger("a");
    let before = kit.claim_one();
    kit.fire_at(1);
    let hangs = kit.claim_one();
    kit.later(30 * MINUTE);
    assert!(is_overdue(kit, "a"));
    kit.settle(&before, done());
    assert!(is_overdue(kit, "a"), "the call was from before");
    kit.settle(&hangs, done());
    assert!(!is_overdue(kit, "a"));
    let told = [RecurrenceEventKind::Overdue, RecurrenceEventKind::Recovered];
    assert_eq!(alarms.take(), told);
}

fn p10_a_live_task_stays_expected_through_a_pause(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(90 * MINUTE));
    kit.trigger("a");
    let before = kit.claim_one();
    kit.fire_at(1);
    let hangs = kit.claim_one();
    kit.later(MINUTE);
    kit.settle(&before, done());
    kit.act("a", RecurrenceAction::Pause);
    kit.later(2 * HOUR);
    assert!(!is_overdue(kit, "a"), "it is paused");
    kit.act("a", RecurrenceAction::Resume);
    assert!(is_overdue(kit, "a"));
    kit.settle(&hangs, done());
    assert!(!is_overdue(kit, "a"));
}

fn p10_a_slot_whose_task_failed_and_is_tried_again_stays_expected(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(15 * MINUTE));
    kit.fire_at(1);
    let task = kit.claim_one();
    fails(kit, &task);
    kit.change(task.id, Action::Retry(Default::default()));
    kit.later(15 * MINUTE);
    assert!(is_overdue(kit, "a"));
    kit.settle(&kit.claim_one(), done());
    assert!(!is_overdue(kit, "a"));
}

/// The slot of two waits for the task of one, is made at half past two, fails and is tried again.
fn made_late_and_tried_again(kit: &mut Kit, within: Option<Duration>) {
    let recurrence = hourly("a").overlap(Overlap::BufferOne);
    kit.recur(match within {
        Some(within) => recurrence.expect_within(within),
        None => recurrence,
    });
    kit.fire_at(1);
    let first = kit.claim_one();
    kit.fire_at(2);
    kit.later(30 * MINUTE);
    kit.settle(&first, done());
    let late = kit.claim_one();
    fails(kit, &late);
    kit.change(late.id, Action::Retry(Default::default()));
}

fn p10_a_task_that_was_made_late_and_is_tried_again_stays_expected(kit: &mut Kit) {
    made_late_and_tried_again(kit, Some(90 * MINUTE));
    kit.act("a", RecurrenceAction::Pause);
    kit.act("a", RecurrenceAction::Resume);
    kit.later(89 * MINUTE);
    assert!(!is_overdue(kit, "a"));
    kit.later(MINUTE);
    assert!(is_overdue(kit, "a"));
}

fn p10_a_span_that_is_added_counts_for_a_task_that_was_made_late_and_is_tried_again(kit: &mut Kit) {
    made_late_and_tried_again(kit, None);
    kit.edit("a", RecurrenceEdit::new().expect_within(15 * MINUTE));
    kit.later(15 * MINUTE);
    assert!(is_overdue(kit, "a"));
}

fn p10_a_task_that_is_tried_again_in_a_pause_is_expected_after_it(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(15 * MINUTE));
    kit.fire_at(1);
    let task = kit.claim_one();
    fails(kit, &task);
    kit.act("a", RecurrenceAction::Pause);
    kit.change(task.id, Action::Retry(Default::default()));
    assert!(!is_overdue(kit, "a"));
    kit.act("a", RecurrenceAction::Resume);
    kit.later(15 * MINUTE);
    assert!(is_overdue(kit, "a"));
    kit.settle(&kit.claim_one(), done());
    assert!(!is_overdue(kit, "a"));
}

fn p10_a_task_that_is_met_and_tried_again_is_not_expected(kit: &mut Kit) {
    let all = hourly("a").missed(Missed::All { max: 9 });
    kit.recur(all.overlap(Overlap::Allow).expect_within(10 * MINUTE));
    kit.later(2 * HOUR);
    kit.fire();
    let [first, second] = [kit.claim_one(), kit.claim_one()];
    fails(kit, &first);
    kit.later(MINUTE);
    kit.settle(&second, done());
    for is_paused in [false, true] {
        if is_paused {
            kit.act("a", RecurrenceAction::Pause);
        }
        kit.change(first.id, Action::Retry(Default::default()));
        kit.act("a", RecurrenceAction::Resume);
        kit.later(20 * MINUTE);
        assert!(!is_overdue(kit, "a"), "{is_paused}");
        fails(kit, &kit.claim_one());
    }
}

/// The process ends between the completion and the slot's task.
fn p10_slots_after_one_that_was_met_before_it_was_made_are_expected(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(90 * MINUTE));
    kit.fire_at(1);
    let task = kit.claim_one();
    kit.later(HOUR);
    kit.settle(&task, done());
    kit.now = NOW + 10 * HOUR + 5 * MINUTE;
    assert!(is_overdue(kit, "a"));
}

fn p10_a_search_in_a_pause_by_failures_rests_though_a_slot_waits(kit: &mut Kit) {
    let buffers = hourly("a").overlap(Overlap::BufferOne);
    kit.recur(buffers.pause_after_failures(1));
    kit.fire_at(1);
    let task = kit.claim_one();
    kit.fire_at(2);
    fails(kit, &task);
    assert_eq!(kit.recurrence("a").waiting_count(), 1);
    let each_second = Rule::cron("* * * * * *").unwrap();
    let never = each_second.clone().not_before(NOW.to_utc()).unwrap();
    let never = each_second.except(never).unwrap();
    kit.edit(
        "a",
        RecurrenceEdit::new().rule(never).overlap(Overlap::Allow),
    );
    let mut rounds = 0..9;
    assert!(
        rounds.any(|_| kit.apply(Op::Fire { limit: 100 }).done() == 0),
        "it is due again at once"
    );
}

const HISTORIES: u64 = 6;
const STEPS: usize = 80;

fn p10_alarms_are_right_in_every_history(kit: &mut Kit) {
    let mut raised = 0;
    for seed in seeds(HISTORIES) {
        kit.now = NOW;
        let alarms = Alarms::of(kit);
        let mut history = History::begin(kit, seed);
        for _ in 0..STEPS {
            history.step(kit);
            history.check(kit);
        }
        raised += alarms.take().len();
        kit.act(&history.name, RecurrenceAction::Remove);
        history.claims.extend(kit.claim(99));
        for claim in &history.claims {
            kit.settle(claim, done());
        }
    }
    assert!(raised > 0, "no history has raised an alarm");
}

/// A slot, or a call.
struct Owed {
    slot: Option<Timestamp>,
    /// From when on its completion is expected, unless it is met.
    since: Option<Timestamp>,
    task: Option<TaskId>,
    /// The slot, or when its task was made, if that was later.
    from: Option<Timestamp>,
    /// How many tasks were made before its own.
    number: usize,
    /// Whether its task has not ended yet.
    is_live: bool,
}

/// What is expected, by the words of the documentation: slot by slot, completion by completion.
struct History {
    seed: u64,
    random: fastrand::Rng,
    name: String,
    within: Duration,
    slots: Vec<Owed>,
    completed_at: Option<Timestamp>,
    made: usize,
    claims: Vec<Claim>,
    log: Vec<String>,
}

impl History {
    fn begin(kit: &Kit, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let overlaps = [
            Overlap::Allow,
            Overlap::Allow,
            Overlap::Skip,
            Overlap::BufferOne,
            Overlap::BufferAll { max: 3 },
            Overlap::CancelPrevious,
        ];
        let missed = [
            Missed::Skip,
            Missed::Latest,
            Missed::Earliest,
            Missed::All { max: 9 },
        ];
        let overlap = overlaps[random.usize(..overlaps.len())];
        let may_make_all = matches!(overlap, Overlap::Allow | Overlap::BufferAll { .. });
        let missed = missed[random.usize(..missed.len() - usize::from(!may_make_all))];
        let within = MINUTE * [10, 45, 90, 200][random.usize(..4)];
        let name = format!("alarms {seed}");
        let task = NewTask::with_kind("probe", &1).max_attempts(1);
        let recurrence = Recurrence::new(name.clone(), task).every(HOUR).unwrap();
        let recurrence = recurrence.overlap(overlap).missed(missed);
        let recurrence = recurrence.expect_within(within);
        kit.recur(match random.bool() {
            true => recurrence.pause_after_failures(2),
            false => recurrence,
        });
        Self {
            seed,
            random,
            log: vec![format!("{overlap:?} {missed:?} {within:?}")],
            name,
            within,
            slots: Vec::new(),
            completed_at: None,
            made: 0,
            claims: Vec::new(),
        }
    }

    fn is_at_rest(&self, kit: &Kit) -> bool {
        kit.recurrence(&self.name).paused_by() == Some(PausedBy::Caller)
    }

    fn step(&mut self, kit: &mut Kit) {
        let name = self.name.clone();
        let told = match self.random.u8(..16) {
            0..=4 => {
                let before = kit.now;
                kit.later(MINUTE * self.random.u32(1..100));
                if !self.is_at_rest(kit) {
                    self.come(before, kit.now);
                }
                format!("{} minutes", kit.now.since(NOW).as_secs() / 60)
            }
            5 | 6 => {
                self.claims.extend(kit.claim(2));
                format!("{} run", self.claims.len())
            }
            7..=10 if !self.claims.is_empty() => {
                let index = self.random.usize(..self.claims.len());
                let claim = self.claims.swap_remove(index);
                self.end(kit, &claim)
            }
            11 | 12 => format!("{:?}", kit.trigger(&name)),
            13 => match self.failed(kit) {
                Some(id) => {
                    self.retry(kit, id);
                    format!("{:?}", kit.change(id, Action::Retry(Default::default())))
                }
                None => "nothing".to_owned(),
            },
            14 if self.random.bool() => {
                format!("pause {:?}", kit.act(&name, RecurrenceAction::Pause))
            }
            15 => {
                if self.is_at_rest(kit) {
                    // What came before the pause and has no live task is not expected any more.
                    self.keep(|owed| owed.is_live);
                }
                format!("resume {:?}", kit.act(&name, RecurrenceAction::Resume))
            }
            _ => "nothing".to_owned(),
        };
        self.log.push(told);
        kit.fire();
        self.note_tasks(kit);
    }

    /// The slots after one instant up to another are expected.
    fn come(&mut self, before: Timestamp, now: Timestamp) {
        let slots = (1..).map(|hour| NOW + HOUR * hour);
        let slots = slots.skip_while(|slot| *slot <= before);
        for slot in slots.take_while(|slot| *slot <= now) {
            self.slots.push(Owed {
                slot: Some(slot),
                since: Some(slot),
                task: None,
                from: None,
                number: 0,
                is_live: false,
            });
        }
    }

    /// Only what some slots owe stays expected.
    fn keep(&mut self, stays: impl Fn(&Owed) -> bool) {
        for owed in &mut self.slots {
            owed.since = owed.since.filter(|_| stays(owed));
        }
    }

    fn end(&mut self, kit: &Kit, claim: &Claim) -> String {
        let end = match self.random.u8(..5) {
            0..=2 => done(),
            3 => returned(Err(Failure::fatal("no"))),
            _ => returned(Ok(Outcome::cancel("no"))),
        };
        kit.settle(claim, end);
        let state = kit.state(claim.id);
        if state == TaskState::Completed {
            self.completed_at = Some(kit.now);
            let of = |owed: &&Owed| owed.task == Some(claim.id);
            let number = self.slots.iter().find(of).unwrap().number;
            self.keep(|owed| owed.is_live && owed.number > number);
        }
        format!("{} {state:?}", claim.id)
    }

    /// Notes what was made, and what has ended. What is made after its slot was met has its span from now on.
    fn note_tasks(&mut self, kit: &Kit) {
        let mut tasks = kit.recurrences_tasks(&self.name);
        tasks.sort_unstable_by_key(Task::slot);
        for task in tasks {
            if let Some(owed) = self
                .slots
                .iter_mut()
                .find(|owed| owed.task == Some(task.id()))
            {
                owed.is_live &= !task.state().is_final();
                continue;
            }
            let slot = task.slot().map(|slot| Timestamp::rounded_up(slot).unwrap());
            let is_of_slot = |owed: &Owed| slot.is_some() && owed.slot == slot;
            let known = self.slots.iter().position(is_of_slot);
            let former = known.map(|index| self.slots.remove(index));
            let unmet = self.unmet();
            let late = slot.filter(|slot| unmet.is_some_and(|unmet| unmet <= *slot));
            let since = former.and_then(|former| former.since);
            self.slots.push(Owed {
                slot,
                since: since.or(late).or(slot.map(|_| kit.now)),
                task: Some(task.id()),
                from: slot.map(|slot| slot.max(kit.now)),
                number: self.made,
                is_live: true,
            });
            self.made += 1;
        }
    }

    /// A task that has failed is tried again: if its slot is not met, or one before it, it is expected again. Else it is from when
    /// it was made, if nothing has completed since and something is expected from before; also in a pause.
    fn retry(&mut self, kit: &Kit, id: TaskId) {
        let is_at_rest = self.is_at_rest(kit);
        let (unmet, completed_at) = (self.unmet(), self.completed_at);
        let mut slots = self.slots.iter_mut();
        if let Some(owed) = slots.find(|owed| owed.task == Some(id)) {
            owed.is_live = true;
            let is_unmet = |at: &Timestamp| unmet.is_some_and(|unmet| unmet <= *at);
            let again = owed.from.filter(|from| {
                (is_at_rest || is_unmet(from)) && completed_at.is_none_or(|at| at <= *from)
            });
            owed.since = match is_at_rest {
                true => again,
                false => owed.since.or(owed.slot.filter(is_unmet)).or(again),
            };
        }
    }

    /// The first instant from which a completion is expected.
    fn unmet(&self) -> Option<Timestamp> {
        self.slots.iter().filter_map(|owed| owed.since).min()
    }

    fn failed(&self, kit: &Kit) -> Option<TaskId> {
        let mut ids = self.slots.iter().filter_map(|owed| owed.task);
        ids.find(|id| kit.state(*id) == TaskState::Failed)
    }

    fn check(&mut self, kit: &Kit) {
        let by = self.unmet().map(|since| since + self.within);
        let by = by.filter(|by| *by <= kit.now && !self.is_at_rest(kit));
        let told = kit.recurrence(&self.name).overdue_since();
        let log = self.log.join("; ");
        assert_eq!(told, by.map(Timestamp::to_utc), "seed {}: {log}", self.seed);
    }
}
