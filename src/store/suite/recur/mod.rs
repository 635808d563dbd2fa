//! Recurrences: what each slot makes.

mod alarm_histories;
mod alarms;
mod changes;
mod deadlines;
mod expected;
mod histories;
mod met;
mod overlap;
mod owed;
mod record;
mod resets;
mod sets;
mod told;

use std::time::Duration;

use super::*;
use crate::model::delivery::Delivery;
use crate::model::new_task::NewTask;
use crate::model::recurrence::edit::RecurrenceEdit;
use crate::model::recurrence::event::{RecurrenceEvent, RecurrenceEventKind};
use crate::model::recurrence::explain::{Explanation, SlotFate};
use crate::model::recurrence::policy::{Missed, Overlap, SkipReason};
use crate::model::recurrence::request::Recurrence;
use crate::model::recurrence::rule::Rule;
use crate::model::recurrence::set::{Declaring, RecurrenceSet, Undeclared};
use crate::model::recurrence::view::{
    PausedBy, Recurred, RecurrenceAction, RecurrenceChanged, RecurrenceStatus, Triggered,
};
use crate::model::settle::Claim;
use crate::store::events::Events;

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

on_every_backend![
    p10_a_slot_makes_one_task_however_often_it_is_fired,
    p10_a_recurrence_that_is_stored_again_loses_and_doubles_no_slot,
    p10_an_interval_without_an_anchor_is_counted_from_when_it_was_first_stored,
    p10_a_slot_from_before_the_write_counts_if_the_caller_says_so,
    p10_a_recurrence_ends_after_its_last_task,
    p10_a_call_makes_a_task_without_a_slot,
    p10_the_task_is_delayed_by_less_than_the_jitter_and_always_the_same,
    p10_a_completion_that_does_not_come_is_overdue,
    p10_what_is_missed_comes_in_chunks,
    p10_a_recurrence_s_tasks_have_everything_that_a_task_can_have,
    the_store_knows_when_a_completion_is_overdue_next,
    the_store_knows_when_a_recurrence_is_due_next,
    a_recurrence_that_is_rolled_back_is_not_there,
    p10_a_slot_whose_task_is_there_does_not_count_again,
    p10_a_rule_whose_slots_are_over_is_not_searched_for_ever,
];

on_shared![
    p10_a_slot_makes_one_task_in_whichever_process,
    p10_a_crash_between_two_calls_loses_no_slot,
];

/// A slot at each full hour after [`NOW`].
fn hourly(name: &str) -> Recurrence {
    let task = NewTask::with_kind("probe", &1);
    let recurrence = Recurrence::new(name, task).every(HOUR).unwrap();
    recurrence.overlap(Overlap::Allow)
}

impl Kit {
    fn recur(&self, recurrence: Recurrence) -> Recurred {
        let registration = recurrence.prepare(self.now).unwrap();
        self.apply(Op::Recur(Box::new(registration))).recurred()
    }

    /// Fires until nothing is due. Returns how many rounds it took.
    fn fire(&self) -> usize {
        let mut rounds = 0;
        while self.apply(Op::Fire { limit: 100 }).done() > 0 {
            rounds += 1;
        }
        rounds
    }

    /// Moves to the next hour and fires.
    fn fire_at(&mut self, hour: u32) {
        self.now = NOW + HOUR * hour;
        self.fire();
    }

    fn act(&self, name: &str, action: RecurrenceAction) -> RecurrenceChanged {
        let op = Op::ChangeRecurrence {
            name: name.to_owned(),
            action,
        };
        self.apply(op).recurrence_changed()
    }

    fn is_unknown(&self, name: &str) -> bool {
        let pause = self.act(name, RecurrenceAction::Pause);
        matches!(pause, RecurrenceChanged::NotFound)
    }

    fn edit(&self, name: &str, edit: RecurrenceEdit) -> RecurrenceChanged {
        let patch = edit.prepare().unwrap();
        self.act(name, RecurrenceAction::Edit(Box::new(patch)))
    }

    /// Fills the hours from one up to another: made, existing and forgotten.
    fn backfill(&self, name: &str, hours: std::ops::Range<u32>) -> (u64, u64, u64) {
        let (mut from, to) = (NOW + HOUR * hours.start, NOW + HOUR * hours.end);
        let mut all = (0, 0, 0);
        loop {
            let action = RecurrenceAction::Backfill { from, to };
            let RecurrenceChanged::Backfilled(filled, next) = self.act(name, action) else {
                panic!("it is stored");
            };
            all.0 += filled.made_count();
            all.1 += filled.existing_count();
            all.2 += filled.forgotten_count();
            match next {
                Some(next) => from = next,
                None => return all,
            }
        }
    }

    fn trigger(&self, name: &str) -> Triggered {
        match self.act(name, RecurrenceAction::Trigger(TaskId::new())) {
            RecurrenceChanged::Triggered(triggered) => triggered,
            other => panic!("{other:?}"),
        }
    }

    fn recurrence(&self, name: &str) -> RecurrenceStatus {
        let answer = self.store().read(Query::Recurrence(name.to_owned()));
        *answer.unwrap().recurrence().expect("it is stored")
    }

    fn recurrences_tasks(&self, name: &str) -> Vec<Task> {
        let page = self.list(&Filter::new().recurrence(name).limit(1_000));
        page.tasks().to_vec()
    }

    /// The hours after [`NOW`] of the slots that have made tasks.
    fn hours(&self, name: &str) -> Vec<u64> {
        let slots = self.recurrences_tasks(name).into_iter();
        let mut hours: Vec<u64> = slots.filter_map(|task| task.slot()).map(hour_of).collect();
        hours.sort_unstable();
        hours
    }
}

fn hour_of(slot: chrono::DateTime<chrono::Utc>) -> u64 {
    Timestamp::rounded_up(slot).unwrap().since(NOW).as_secs() / 3600
}

fn p10_a_slot_makes_one_task_however_often_it_is_fired(kit: &mut Kit) {
    assert_eq!(kit.recur(hourly("a")), Recurred::Created);
    assert_eq!(kit.fire(), 0, "not yet");
    kit.later(HOUR - MICRO);
    assert_eq!(kit.fire(), 0, "a microsecond early");
    kit.later(MICRO);
    kit.fire();
    kit.fire();
    assert_eq!(kit.hours("a"), [1]);
    let task = kit.recurrences_tasks("a").remove(0);
    assert_eq!(task.scheduled_at(), (NOW + HOUR).to_utc());
    assert_eq!((task.kind(), task.state()), ("probe", TaskState::Pending));
    let claim = kit.claim_one();
    assert_eq!(claim.id, task.id());
    let status = kit.recurrence("a");
    assert_eq!(status.previous_slot(), Some((NOW + HOUR).to_utc()));
    assert_eq!(status.next_slot(), Some((NOW + 2 * HOUR).to_utc()));
    assert_eq!(status.made_count(), 1);
}

fn p10_a_recurrence_that_is_stored_again_loses_and_doubles_no_slot(kit: &mut Kit) {
    kit.recur(hourly("a"));
    for hour in 1..=3 {
        kit.later(HOUR / 2);
        assert_eq!(kit.recur(hourly("a")), Recurred::Unchanged);
        kit.later(HOUR / 2);
        assert_eq!(
            kit.recur(hourly("a")),
            Recurred::Unchanged,
            "when it is due"
        );
        kit.fire();
        assert_eq!(kit.hours("a").len(), hour);
    }
    assert_eq!(kit.hours("a"), [1, 2, 3]);
}

fn p10_an_interval_without_an_anchor_is_counted_from_when_it_was_first_stored(kit: &mut Kit) {
    kit.later(HOUR / 3);
    kit.recur(hourly("a"));
    kit.later(HOUR / 3);
    kit.recur(hourly("a").grace(S));
    let next = kit.recurrence("a").next_slot();
    assert_eq!(next, Some((NOW + HOUR / 3 + HOUR).to_utc()));
}

fn p10_a_slot_from_before_the_write_counts_if_the_caller_says_so(kit: &mut Kit) {
    let since = (NOW - 3 * HOUR).to_utc();
    kit.recur(hourly("a").since(since).missed(Missed::All { max: 9 }));
    kit.fire();
    assert_eq!(kit.recurrences_tasks("a").len(), 4, "both ends are slots");
    kit.recur(hourly("a").since(since).missed(Missed::Latest));
    kit.fire();
    assert_eq!(kit.recurrences_tasks("a").len(), 4, "they are decided");
}

fn p10_a_recurrence_ends_after_its_last_task(kit: &mut Kit) {
    kit.recur(hourly("a").max_count(2));
    kit.recur(hourly("b").max_count(2).overlap(Overlap::Skip));
    for hour in 1..=3 {
        kit.fire_at(hour);
    }
    assert_eq!(kit.hours("a"), [1, 2]);
    assert!(kit.recurrence("a").is_ended());
    assert_eq!(
        kit.recurrence("b").made_count(),
        1,
        "a skipped slot does not count"
    );
    assert!(!kit.recurrence("b").is_ended());
    kit.recur(hourly("a").max_count(3));
    kit.fire_at(4);
    assert_eq!(kit.hours("a"), [1, 2, 4]);
}

fn p10_a_call_makes_a_task_without_a_slot(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::Skip).max_count(1));
    let Triggered::Made(id) = kit.trigger("a") else {
        panic!("nothing is live");
    };
    let task = kit.task(id);
    assert_eq!((task.recurrence(), task.slot()), (Some("a"), None));
    assert_eq!(task.scheduled_at(), NOW.to_utc());
    assert_eq!(kit.trigger("a"), Triggered::Skipped(SkipReason::Overlap));
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.fire_at(1);
    assert_eq!(kit.hours("a"), [1], "a call does not count");
    kit.recur(hourly("b").overlap(Overlap::BufferOne));
    assert!(matches!(kit.trigger("b"), Triggered::Made(_)));
    let Triggered::Waiting(second) = kit.trigger("b") else {
        panic!("it may wait");
    };
    assert!(kit.find(second).is_none());
    for claim in kit.claim(9) {
        kit.settle(&claim, done());
    }
    assert_eq!(kit.state(second), TaskState::Pending);
}

fn p10_the_task_is_delayed_by_less_than_the_jitter_and_always_the_same(kit: &mut Kit) {
    for name in ["a", "b", "c", "d"] {
        kit.recur(hourly(name).jitter(HOUR / 2));
    }
    kit.fire_at(1);
    let delay = |task: &Task| {
        let due = Timestamp::rounded_up(task.scheduled_at()).unwrap();
        due.since(NOW + HOUR)
    };
    let names = ["a", "b", "c", "d"];
    let delays = names.map(|name| delay(&kit.recurrences_tasks(name)[0]));
    assert!(delays.iter().all(|delay| *delay < HOUR / 2), "{delays:?}");
    assert!(
        delays.windows(2).all(|pair| pair[0] != pair[1]),
        "{delays:?}"
    );
    assert_eq!(kit.hours("a"), [1], "the slot is the nominal one");
    let ids = names.map(|name| kit.recurrences_tasks(name)[0].id());
    for (name, id) in names.into_iter().zip(ids) {
        kit.change(id, Action::Cancel);
        kit.change(id, Action::Delete);
        kit.act(name, RecurrenceAction::Reset(NOW + HOUR));
    }
    kit.fire();
    let again = names.map(|name| kit.recurrences_tasks(name)[0].clone());
    assert_eq!(again.each_ref().map(Task::id), ids);
    assert_eq!(again.each_ref().map(delay), delays);
}

fn p10_a_completion_that_does_not_come_is_overdue(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(HOUR / 4));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.fire_at(2);
    kit.later(HOUR / 4 - MICRO);
    kit.fire();
    assert_eq!(kit.recurrence("a").overdue_since(), None);
    kit.later(MICRO);
    kit.fire();
    let since = Some((NOW + 2 * HOUR + HOUR / 4).to_utc());
    assert_eq!(kit.recurrence("a").overdue_since(), since);
    assert_eq!(kit.store().health().overdue_recurrences(), ["a"]);
    kit.fire_at(3);
    assert_eq!(
        kit.recurrence("a").overdue_since(),
        since,
        "since the first"
    );
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    assert_eq!(kit.recurrence("a").overdue_since(), None);
    assert!(kit.store().health().overdue_recurrences().is_empty());
    assert!(kit.recurrence("a").completed_at().is_some());
    // Nobody had the file open for a day.
    kit.fire_at(27);
    let since = Some((NOW + 3 * HOUR + HOUR / 4).to_utc());
    assert_eq!(kit.recurrence("a").overdue_since(), since, "of the third");
}

fn p10_what_is_missed_comes_in_chunks(kit: &mut Kit) {
    kit.recur(hourly("a").missed(Missed::All { max: 250 }));
    kit.now = NOW + 300 * HOUR + HOUR / 2;
    assert_eq!(kit.fire(), 3, "a hundred a transaction");
    assert_eq!(kit.hours("a"), (51..=300).collect::<Vec<_>>());
    assert_eq!(kit.recurrence("a").made_count(), 250);
}

fn p10_a_recurrence_s_tasks_have_everything_that_a_task_can_have(kit: &mut Kit) {
    let task = NewTask::with_kind("probe", &json(5_000))
        .queue("mail")
        .partition("tenant-1")
        .priority(2)
        .max_attempts(3)
        .timeout(7 * S)
        .start_within(HOUR)
        .retry(RetryPolicy::fixed(S))
        .max_crashes(1)
        .tag("b")
        .tag("a")
        .metadata("k", "v");
    kit.recur(Recurrence::new("a", task).every(HOUR).unwrap());
    let once = NewTask::with_kind("once", &1).delivery(Delivery::AtMostOnce);
    kit.recur(Recurrence::new("once", once).every(HOUR).unwrap());
    kit.fire_at(1);
    let task = kit.recurrences_tasks("a").remove(0);
    assert_eq!((task.queue(), task.partition()), ("mail", Some("tenant-1")));
    assert_eq!((task.priority(), task.max_attempts()), (2, 3));
    assert_eq!((task.timeout(), task.max_crashes()), (Some(7 * S), 1));
    assert_eq!(
        (task.tags(), &task.metadata()["k"][..]),
        (&["a".to_owned(), "b".to_owned()][..], "v")
    );
    assert_eq!(task.start_by(), Some((NOW + 2 * HOUR).to_utc()));
    assert_eq!(task.payload::<Vec<u8>>().unwrap(), json(5_000));
    let once = kit.recurrences_tasks("once").remove(0);
    assert_eq!(
        (once.delivery(), once.max_attempts()),
        (Delivery::AtMostOnce, 1)
    );
}

/// What became of the slots up to so many hours after [`NOW`], as the hours and their fates.
fn explained(kit: &Kit, name: &str, hours: u32) -> Vec<String> {
    let explanation = explain(kit, name, NOW, NOW + HOUR * hours);
    let slots = explanation.slots().iter();
    slots
        .map(|each| {
            let fate = match each.fate() {
                SlotFate::Made(id) => match kit.find(id) {
                    Some(task) => format!("made {}", hour_of(task.slot().unwrap())),
                    None => "made and gone".to_owned(),
                },
                SlotFate::Waiting(id) => {
                    assert!(kit.find(id).is_none());
                    "waits".to_owned()
                }
                SlotFate::Skipped(reason) => format!("{reason:?}"),
                SlotFate::Upcoming => "upcoming".to_owned(),
            };
            format!("{} {fate}", hour_of(each.slot()))
        })
        .collect()
}

fn explain(kit: &Kit, name: &str, from: Timestamp, to: Timestamp) -> Explanation {
    let name = name.to_owned();
    let answer = kit.store().read(Query::Explain {
        name,
        from,
        to,
        now: kit.now,
    });
    answer.unwrap().explained().expect("it is stored")
}

fn the_store_knows_when_a_completion_is_overdue_next(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(HOUR / 4));
    kit.fire_at(1);
    let next = kit.store().lanes().recurrence_at;
    assert_eq!(next, Some(NOW + HOUR + HOUR / 4));
}

fn the_store_knows_when_a_recurrence_is_due_next(kit: &mut Kit) {
    let next = |kit: &Kit| kit.store().lanes().recurrence_at;
    assert_eq!(next(kit), None);
    kit.recur(hourly("a"));
    assert_eq!(next(kit), Some(NOW + HOUR));
    kit.recur(
        Recurrence::new("b", NewTask::with_kind("probe", &1))
            .every(S)
            .unwrap(),
    );
    assert_eq!(next(kit), Some(NOW + S));
    kit.later(S);
    kit.fire();
    assert_eq!(next(kit), Some(NOW + 2 * S));
    kit.act("b", RecurrenceAction::Remove);
    assert_eq!(next(kit), Some(NOW + 2 * S), "too early does no harm");
    kit.later(S);
    kit.fire();
    assert_eq!(kit.apply(Op::Fire { limit: 100 }).done(), 0);
    assert_eq!(next(kit), Some(NOW + HOUR));
}

fn a_recurrence_that_is_rolled_back_is_not_there(kit: &mut Kit) {
    let registration = hourly("a").prepare(kit.now).unwrap();
    let op = Op::Recur(Box::new(registration));
    let mut stored = None;
    let rolled_back = kit.store().transaction(kit.now, None, &mut |work| {
        stored = Some(work.apply(op.clone()).unwrap().recurred());
        crate::store::TransactionEnd::RollBack
    });
    rolled_back.unwrap();
    assert_eq!(stored, Some(Recurred::Created));
    assert_eq!(kit.store().lanes().recurrence_at, None);
    assert!(kit.is_unknown("a"));
}

fn p10_a_slot_makes_one_task_in_whichever_process(kit: &mut Kit) {
    kit.recur(hourly("a"));
    let other = kit.another(true);
    assert_eq!(
        other.lanes().recurrence_at,
        Some(NOW + HOUR),
        "read at its start"
    );
    for hour in 1..=4 {
        kit.now = NOW + HOUR * hour;
        let fire = || vec![Op::Fire { limit: 100 }];
        let (first, second) = match hour % 2 {
            0 => (kit.store(), &other),
            _ => (&other, kit.store()),
        };
        first.apply(kit.now, fire()).unwrap();
        second.apply(kit.now, fire()).unwrap();
    }
    assert_eq!(kit.hours("a"), [1, 2, 3, 4]);
    let overdue = hourly("late").expect_within(S).since(NOW.to_utc());
    kit.recur(overdue);
    kit.fire();
    kit.later(2 * S);
    kit.fire();
    other.refresh().unwrap();
    assert_eq!(other.health().overdue_recurrences(), ["late"]);
    let registration = Recurrence::new("b", NewTask::with_kind("probe", &1)).every(S);
    let registration = registration.unwrap().prepare(kit.now).unwrap();
    kit.apply(Op::Recur(Box::new(registration)));
    other.refresh().unwrap();
    assert_eq!(
        other.lanes().recurrence_at,
        Some(kit.now + S),
        "of another process"
    );
}

fn p10_a_crash_between_two_calls_loses_no_slot(kit: &mut Kit) {
    kit.recur(hourly("a").missed(Missed::All { max: 1_000 }));
    kit.now = NOW + 250 * HOUR + HOUR / 2;
    loop {
        kit.kill();
        if kit.apply(Op::Fire { limit: 100 }).done() == 0 {
            break;
        }
    }
    assert_eq!(kit.hours("a"), (1..=250).collect::<Vec<_>>());
}

fn p10_a_slot_whose_task_is_there_does_not_count_again(kit: &mut Kit) {
    kit.recur(hourly("a").max_count(4).missed(Missed::All { max: 9 }));
    kit.fire_at(1);
    kit.fire_at(2);
    kit.act("a", RecurrenceAction::Reset(NOW + HOUR));
    for hour in 2..=9 {
        kit.fire_at(hour);
    }
    assert_eq!(kit.hours("a"), [1, 2, 3, 4]);
}

fn p10_a_rule_whose_slots_are_over_is_not_searched_for_ever(kit: &mut Kit) {
    let second = Rule::cron("* * * * *").unwrap();
    let over = second.clone().not_before(NOW.to_utc()).unwrap();
    kit.recur(hourly("a").rule(second.except(over).unwrap()));
    let mut rounds = 0;
    while rounds < 100 && kit.apply(Op::Fire { limit: 100 }).done() > 0 {
        rounds += 1;
    }
    assert!(rounds < 100);
}

fn is_overdue(kit: &Kit, name: &str) -> bool {
    kit.fire();
    kit.recurrence(name).overdue_since().is_some()
}

fn fails(kit: &Kit, claim: &Claim) {
    kit.settle(claim, returned(Err(Failure::fatal("no"))));
}

/// What was told of alarms.
struct Alarms(Events<RecurrenceEvent>);

impl Alarms {
    fn of(kit: &Kit) -> Self {
        let signals = kit.store().signals();
        Self(signals.recurrence_subscriptions().subscribe(9_999))
    }

    fn take(&self) -> Vec<RecurrenceEventKind> {
        let events = std::iter::from_fn(|| self.0.try_next().event());
        let kinds = events.map(|event| event.kind());
        let is_alarm = |kind: &RecurrenceEventKind| {
            matches!(
                kind,
                RecurrenceEventKind::Overdue | RecurrenceEventKind::Recovered
            )
        };
        kinds.filter(is_alarm).collect()
    }
}
