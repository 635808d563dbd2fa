//! Recurrences: what each slot makes, and what follows from the end of a task.

use std::time::Duration;

use super::*;
use crate::model::delivery::Delivery;
use crate::model::new_task::NewTask;
use crate::model::recurrence::edit::RecurrenceEdit;
use crate::model::recurrence::explain::{Explanation, SlotFate};
use crate::model::recurrence::policy::{Missed, Overlap, SkipReason};
use crate::model::recurrence::request::Recurrence;
use crate::model::recurrence::rule::Rule;
use crate::model::recurrence::set::{Declaring, RecurrenceSet, Undeclared};
use crate::model::recurrence::view::{
    PausedBy, Recurred, RecurrenceAction, RecurrenceChanged, RecurrenceStatus, Triggered,
};

const HOUR: Duration = Duration::from_secs(3600);

on_every_backend![
    p10_a_slot_makes_one_task_however_often_it_is_fired,
    p10_a_recurrence_that_is_stored_again_loses_and_doubles_no_slot,
    p10_another_rule_begins_anew_and_another_payload_holds_for_the_slots_to_come,
    p10_an_interval_without_an_anchor_is_counted_from_when_it_was_first_stored,
    p10_a_slot_from_before_the_write_counts_if_the_caller_says_so,
    p10_slots_are_made_once_when_the_clock_is_set_back,
    p10_a_slot_is_skipped_while_a_task_is_live,
    p10_a_retried_task_is_live_again,
    p10_slots_wait_for_the_end_of_the_live_task,
    p10_a_slot_that_cancels_waits_until_the_task_has_ended,
    p10_a_pending_task_that_is_cancelled_makes_room_at_once,
    p10_every_end_of_a_live_task_makes_room,
    p10_a_paused_recurrence_makes_no_task_and_goes_on_after_the_pause,
    p10_failures_in_a_row_pause_a_recurrence,
    p10_a_recurrence_ends_after_its_last_task,
    p10_a_call_makes_a_task_without_a_slot,
    p10_the_task_is_delayed_by_less_than_the_jitter_and_always_the_same,
    p10_a_completion_that_does_not_come_is_overdue,
    p10_a_removed_recurrence_makes_nothing_and_leaves_its_tasks,
    p10_what_is_missed_comes_in_chunks,
    p10_a_recurrence_s_tasks_have_everything_that_a_task_can_have,
    p10_every_slot_is_explained,
    p10_a_slot_is_explained_by_the_rule_that_it_is_of,
    p14_the_record_of_decisions_is_bounded,
    p10_an_edit_holds_for_the_slots_to_come_and_survives_the_next_start,
    an_edit_that_is_not_allowed_changes_nothing,
    p10_what_was_skipped_can_be_made_up_for_once,
    p10_slots_of_before_the_recurrence_can_be_made_up_for_once,
    p10_a_backfill_makes_no_task_where_the_record_is_gone,
    p10_a_backfill_is_beside_the_recurrence_s_own_tasks,
    p10_a_declared_set_is_brought_in_line_and_nothing_else,
    p10_an_older_revision_of_a_set_changes_nothing,
    p10_what_a_set_declares_no_more_is_paused_until_it_is_declared_again,
    p10_a_reset_leaves_no_slot_in_the_record_twice,
    p10_what_waits_waits_on_in_a_pause_and_is_made_after_it,
    p10_a_change_in_a_pause_makes_nothing_due,
    p10_a_rule_that_is_given_again_decides_no_slot_again,
    p10_nothing_of_a_removed_recurrence_is_left_for_its_successor,
    the_store_knows_when_a_completion_is_overdue_next,
    the_store_knows_when_a_recurrence_is_due_next,
    a_recurrence_that_is_rolled_back_is_not_there,
    p10_slots_that_a_pause_skipped_are_not_taken_for_made,
    p10_no_slot_is_explained_twice_when_one_waited_through_missed_ones,
    p10_a_superseded_slot_does_not_count_for_max_count,
    p10_what_waits_drains_although_a_task_is_there_already,
    p10_another_rule_makes_no_task_beyond_max_count,
    p10_a_reset_makes_no_task_beyond_max_count,
    p10_a_slot_whose_task_is_there_does_not_count_again,
    p10_another_rule_begins_after_the_call_though_a_search_was_far_ahead,
    p10_another_rule_begins_after_the_call_though_the_first_was_to_begin_later,
    p10_an_expectation_that_is_added_holds_for_the_next_slot,
    p10_an_expectation_that_is_shortened_holds_for_the_next_slot,
    p10_a_call_for_a_paused_recurrence_with_waiting_slots_makes_a_task,
    p10_a_slot_that_waited_is_expected_to_complete_too,
    p10_the_previous_slot_is_before_the_slot_after_a_reset,
    p10_a_retried_backfill_is_beside_the_recurrence,
    p10_an_old_task_s_retry_is_not_live_for_another_recurrence_of_its_name,
    p10_a_clock_that_was_ahead_is_noticed_after_a_backfill,
    p10_what_waits_drains_when_the_policy_is_allow,
    p10_another_rule_passes_over_no_due_slot_in_silence,
    p10_a_pause_takes_no_slot_that_was_due_before,
    p10_a_rule_whose_slots_are_over_is_not_searched_for_ever,
    p10_a_backfill_makes_no_task_of_a_slot_to_come,
    p10_a_call_that_waits_is_told_when_a_slot_takes_its_place,
    p10_a_made_event_is_for_a_task_that_was_made,
    p10_an_edit_in_a_search_loses_no_slot,
];

on_shared![
    p10_a_slot_makes_one_task_in_whichever_process,
    p10_a_crash_between_two_calls_loses_no_slot,
    p10_a_crashed_task_makes_room,
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

fn p10_another_rule_begins_anew_and_another_payload_holds_for_the_slots_to_come(kit: &mut Kit) {
    kit.recur(hourly("a"));
    kit.fire_at(1);
    let other = Recurrence::new("a", NewTask::with_kind("probe", &2)).every(HOUR);
    let other = other.unwrap().overlap(Overlap::Allow);
    kit.later(HOUR / 2);
    assert_eq!(kit.recur(other.clone()), Recurred::Changed);
    assert_eq!(kit.recur(other), Recurred::Unchanged);
    kit.fire_at(2);
    let tasks = kit.recurrences_tasks("a");
    let payloads = tasks.iter().map(|task| task.payload::<u8>().unwrap());
    assert_eq!(payloads.collect::<Vec<_>>(), [1, 2]);
    let seldom = Recurrence::new("a", NewTask::with_kind("probe", &2)).every(3 * HOUR);
    assert_eq!(kit.recur(seldom.unwrap()), Recurred::Changed);
    let next = kit.recurrence("a").next_slot();
    assert_eq!(next, Some((NOW + 5 * HOUR).to_utc()), "counted from now");
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

fn p10_slots_are_made_once_when_the_clock_is_set_back(kit: &mut Kit) {
    kit.recur(hourly("a"));
    kit.fire_at(3);
    kit.fire_at(1);
    kit.fire_at(2);
    kit.fire_at(3);
    assert_eq!(kit.hours("a"), [3], "of three that are due the latest");
    kit.fire_at(4);
    assert_eq!(kit.hours("a"), [3, 4]);
    // The clock was years ahead, and came back: only an explicit call goes back, too.
    kit.fire_at(100_000);
    kit.fire_at(5);
    assert_eq!(kit.hours("a"), [3, 4, 100_000]);
    kit.act("a", RecurrenceAction::Reset(NOW + 4 * HOUR));
    kit.fire();
    assert_eq!(
        kit.hours("a"),
        [3, 4, 5, 100_000],
        "the fourth is not made again"
    );
}

fn p10_a_slot_is_skipped_while_a_task_is_live(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::Skip));
    kit.fire_at(1);
    kit.fire_at(2);
    let claim = kit.claim_one();
    kit.fire_at(3);
    kit.settle(&claim, error());
    kit.fire_at(4);
    assert_eq!(
        kit.hours("a"),
        [1],
        "pending, running, and before its retry"
    );
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.fire_at(5);
    assert_eq!(kit.hours("a"), [1, 5]);
}

fn p10_a_retried_task_is_live_again(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::Skip));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.change(claim.id, Action::Retry(Default::default()));
    kit.fire_at(2);
    assert_eq!(kit.hours("a"), [1]);
    kit.change(claim.id, Action::Cancel);
    kit.fire_at(3);
    assert_eq!(kit.hours("a"), [1, 3]);
}

fn p10_slots_wait_for_the_end_of_the_live_task(kit: &mut Kit) {
    kit.recur(hourly("one").overlap(Overlap::BufferOne));
    kit.recur(hourly("all").overlap(Overlap::BufferAll { max: 2 }));
    for hour in 1..=5 {
        kit.fire_at(hour);
    }
    assert_eq!((kit.hours("one"), kit.hours("all")), (vec![1], vec![1]));
    assert_eq!(kit.recurrence("one").waiting_count(), 1);
    assert_eq!(kit.recurrence("all").waiting_count(), 2);
    for _ in 0..3 {
        for claim in kit.claim(9) {
            kit.settle(&claim, done());
        }
    }
    assert_eq!(kit.hours("one"), [1, 2], "the first that waited");
    assert_eq!(kit.hours("all"), [1, 2, 3]);
    kit.fire_at(6);
    assert_eq!(kit.hours("all"), [1, 2, 3, 6]);
    assert_eq!(kit.recurrence("all").made_count(), 4);
}

fn p10_a_slot_that_cancels_waits_until_the_task_has_ended(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::CancelPrevious));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.fire_at(2);
    kit.fire_at(3);
    assert_eq!(kit.hours("a"), [1], "its handler runs still");
    assert!(kit.task(claim.id).cancel_requested());
    kit.settle(&claim, error());
    assert_eq!(kit.state(claim.id), TaskState::Cancelled);
    assert_eq!(kit.hours("a"), [1, 3], "the newest");
}

fn p10_a_pending_task_that_is_cancelled_makes_room_at_once(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::CancelPrevious));
    kit.fire_at(1);
    kit.fire_at(2);
    let states = kit.recurrences_tasks("a").into_iter();
    let states: Vec<_> = states.map(|task| task.state()).collect();
    assert_eq!(states, [TaskState::Cancelled, TaskState::Pending]);
    assert_eq!(kit.hours("a"), [1, 2]);
    assert_eq!(kit.recurrence("a").waiting_count(), 0);
}

/// Whatever ends a task, the slot that waits for its end makes its task in the same transaction.
fn p10_every_end_of_a_live_task_makes_room(kit: &mut Kit) {
    type End = fn(&mut Kit, TaskId);
    let ends: [(&str, End); 6] = [
        ("completed", |kit, _| {
            let claim = kit.claim_one();
            kit.settle(&claim, done());
        }),
        ("failed", |kit, _| {
            let claim = kit.claim_one();
            kit.settle(&claim, returned(Err(Failure::fatal("no"))));
        }),
        ("cancelled by its handler", |kit, _| {
            let claim = kit.claim_one();
            kit.settle(&claim, returned(Ok(Outcome::cancel("no"))));
        }),
        ("cancelled before it ran", |kit, id| {
            kit.change(id, Action::Cancel);
        }),
        ("cancelled with others", |kit, _| {
            kit.change_matching(&Filter::all(), &Action::Cancel, None);
        }),
        ("expired", |kit, _| {
            kit.later(10 * S + MICRO);
            kit.apply(Op::Expire { limit: 10 });
        }),
    ];
    for (name, end) in ends {
        let task = NewTask::with_kind("probe", &1).start_within(2 * HOUR + 10 * S);
        let recurrence = Recurrence::new(name, task).every(HOUR).unwrap();
        kit.now = NOW;
        kit.recur(recurrence.overlap(Overlap::BufferOne));
        kit.fire_at(1);
        kit.fire_at(2);
        kit.now = NOW + 3 * HOUR;
        let id = kit.recurrences_tasks(name)[0].id();
        end(kit, id);
        assert!(kit.state(id).is_final(), "{name}");
        assert_eq!(kit.hours(name), [1, 2], "{name}");
        kit.act(name, RecurrenceAction::Remove);
        kit.change_matching(&Filter::all(), &Action::Cancel, None);
    }
}

fn p10_a_paused_recurrence_makes_no_task_and_goes_on_after_the_pause(kit: &mut Kit) {
    kit.recur(hourly("a").missed(Missed::All { max: 9 }));
    kit.fire_at(1);
    kit.act("a", RecurrenceAction::Pause);
    kit.fire_at(2);
    assert_eq!(
        kit.recur(hourly("a").missed(Missed::All { max: 9 })),
        Recurred::Unchanged
    );
    kit.fire_at(3);
    assert_eq!(kit.hours("a"), [1]);
    assert_eq!(kit.recurrence("a").paused_by(), Some(PausedBy::Caller));
    kit.act("a", RecurrenceAction::Resume);
    kit.fire();
    assert_eq!(kit.hours("a"), [1], "those of the pause are skipped");
    kit.fire_at(4);
    assert_eq!(kit.hours("a"), [1, 4]);
    assert!(kit.is_unknown("b"));
}

fn p10_failures_in_a_row_pause_a_recurrence(kit: &mut Kit) {
    kit.recur(hourly("a").pause_after_failures(2));
    let run = |kit: &mut Kit, hour, end| {
        kit.fire_at(hour);
        let claim = kit.claim_one();
        kit.settle(&claim, end);
    };
    let failed = || returned(Err(Failure::fatal("no")));
    run(kit, 1, failed());
    run(kit, 2, done());
    run(kit, 3, failed());
    assert!(!kit.recurrence("a").is_paused(), "one of them completed");
    run(kit, 4, failed());
    let status = kit.recurrence("a");
    assert_eq!(status.paused_by(), Some(PausedBy::Failures));
    assert_eq!(status.failure_count(), 2);
    assert_eq!(kit.store().health().stopped_recurrences(), ["a"]);
    kit.fire_at(5);
    assert_eq!(kit.hours("a"), [1, 2, 3, 4]);
    kit.act("a", RecurrenceAction::Resume);
    assert_eq!(kit.recurrence("a").failure_count(), 0);
    assert!(kit.store().health().stopped_recurrences().is_empty());
    run(kit, 6, failed());
    assert!(!kit.recurrence("a").is_paused());
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

fn p10_a_removed_recurrence_makes_nothing_and_leaves_its_tasks(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::BufferOne));
    kit.fire_at(1);
    kit.fire_at(2);
    kit.act("a", RecurrenceAction::Remove);
    kit.recur(hourly("a").overlap(Overlap::BufferOne));
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    assert_eq!(kit.hours("a"), [1], "what waited is gone");
    assert_eq!(kit.recurrence("a").completed_at(), None, "it is another");
    kit.act("a", RecurrenceAction::Remove);
    kit.fire_at(4);
    assert_eq!(kit.hours("a"), [1]);
    assert!(kit.is_unknown("a"));
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
    let answer = kit.store().read(Query::Explain { name, from, to });
    answer.unwrap().explained().expect("it is stored")
}

fn p10_every_slot_is_explained(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::BufferOne));
    for hour in 1..=3 {
        kit.fire_at(hour);
    }
    let expected = [
        "1 made 1",
        "2 waits",
        "3 BufferFull",
        "4 upcoming",
        "5 upcoming",
    ];
    assert_eq!(explained(kit, "a", 6), expected);
    for _ in 0..2 {
        let claim = kit.claim_one();
        kit.settle(&claim, done());
    }
    kit.fire_at(4);
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.change(claim.id, Action::Delete);
    kit.act("a", RecurrenceAction::Pause);
    kit.later(2 * HOUR);
    kit.act("a", RecurrenceAction::Resume);
    kit.now = NOW + 9 * HOUR;
    kit.fire();
    let expected = [
        "1 made 1",
        "2 made 2",
        "3 BufferFull",
        "4 made and gone",
        "5 Paused",
        "6 Paused",
        "7 Missed",
        "8 Missed",
        "9 made 9",
        "10 upcoming",
    ];
    assert_eq!(explained(kit, "a", 11), expected);
    let part = explain(kit, "a", NOW + 3 * HOUR, NOW + 6 * HOUR);
    let hours: Vec<u64> = part
        .slots()
        .iter()
        .map(|each| hour_of(each.slot()))
        .collect();
    assert_eq!(hours, [3, 4, 5], "the end is not included");
}

fn p10_a_slot_is_explained_by_the_rule_that_it_is_of(kit: &mut Kit) {
    kit.recur(hourly("a"));
    kit.fire_at(2);
    let even = Recurrence::new("a", NewTask::with_kind("probe", &1));
    let even = even
        .every(2 * HOUR)
        .unwrap()
        .overlap(Overlap::CancelPrevious);
    kit.recur(even);
    let claims = kit.claim(9);
    kit.fire_at(4);
    for claim in claims {
        kit.settle(&claim, error());
    }
    let claim = kit.claim_one();
    kit.fire_at(6);
    assert!(kit.task(claim.id).cancel_requested());
    let expected = ["1 Missed", "2 made 2", "4 made 4", "6 waits", "8 upcoming"];
    assert_eq!(explained(kit, "a", 10), expected);
}

fn p14_the_record_of_decisions_is_bounded(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::Skip));
    // Every second slot is skipped, so no two decisions are alike.
    for hour in 1..=1_400 {
        kit.fire_at(hour);
        if hour % 2 == 0 {
            let claim = kit.claim_one();
            kit.settle(&claim, done());
        }
    }
    let all = explain(kit, "a", NOW, NOW + 1_401 * HOUR);
    let forgotten = all.forgotten_until().expect("some are forgotten");
    let first = all.slots()[0].slot();
    assert_eq!(first, forgotten + chrono::TimeDelta::hours(1));
    assert!((1_000..1_100).contains(&(1_400 - hour_of(forgotten))));
    let next = all.next().expect("there are more than a thousand");
    let next = Timestamp::rounded_up(next).unwrap();
    let rest = explain(kit, "a", next, NOW + 1_401 * HOUR);
    let count = all.slots().len() + rest.slots().len();
    assert_eq!(count as u64, 1_400 - hour_of(forgotten));
}

fn p10_an_edit_holds_for_the_slots_to_come_and_survives_the_next_start(kit: &mut Kit) {
    kit.recur(hourly("a"));
    kit.fire_at(1);
    let edit = RecurrenceEdit::new()
        .priority(1)
        .queue("mail")
        .overlap(Overlap::Skip);
    kit.edit("a", edit);
    assert_eq!(kit.recur(hourly("a")), Recurred::Unchanged);
    kit.fire_at(2);
    kit.settle(&kit.claim_one(), done());
    kit.fire_at(3);
    let tasks = kit.recurrences_tasks("a");
    let places: Vec<_> = tasks
        .iter()
        .map(|task| (task.priority(), task.queue()))
        .collect();
    assert_eq!(places, [(5, "default"), (1, "mail")]);
    let seldom = Rule::every(5 * HOUR, NOW.to_utc()).unwrap();
    kit.edit("a", RecurrenceEdit::new().rule(seldom));
    assert_eq!(kit.recur(hourly("a")), Recurred::Unchanged);
    let next = kit.recurrence("a").next_slot();
    assert_eq!(next, Some((NOW + 5 * HOUR).to_utc()));
    assert_eq!(kit.recur(hourly("a").grace(S)), Recurred::Changed);
    assert_eq!(
        kit.recurrence("a").priority(),
        5,
        "what the program gives anew"
    );
    assert_eq!(
        kit.recurrence("a").next_slot(),
        Some((NOW + 4 * HOUR).to_utc())
    );
}

fn an_edit_that_is_not_allowed_changes_nothing(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::Skip));
    let edits = [
        RecurrenceEdit::new().missed(Missed::All { max: 5 }),
        RecurrenceEdit::new().priority(1).jitter(2 * HOUR),
        RecurrenceEdit::new().max_count(0),
        RecurrenceEdit::new().payload(&Unlike),
    ];
    for edit in edits {
        let changed = kit.edit("a", edit.clone());
        assert!(matches!(changed, RecurrenceChanged::Refused(_)), "{edit:?}");
    }
    let status = kit.recurrence("a");
    assert_eq!((status.priority(), status.missed()), (5, Missed::Latest));
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Unlike;

impl crate::model::payload::Payload for Unlike {
    const KIND: &'static str = "unlike";
}

fn p10_what_was_skipped_can_be_made_up_for_once(kit: &mut Kit) {
    kit.recur(hourly("a"));
    kit.fire_at(10);
    assert_eq!(kit.hours("a"), [10]);
    assert_eq!(kit.backfill("a", 3..6), (3, 0, 0));
    assert_eq!(kit.hours("a"), [3, 4, 5, 10]);
    assert_eq!(
        kit.backfill("a", 2..12),
        (5, 4, 0),
        "the eleventh is to come"
    );
    assert_eq!(kit.backfill("a", 1..12), (1, 9, 0));
    for id in kit.recurrences_tasks("a").iter().map(Task::id) {
        kit.change(id, Action::Cancel);
        kit.change(id, Action::Delete);
    }
    assert_eq!(
        kit.backfill("a", 1..12),
        (0, 10, 0),
        "although they are pruned"
    );
    let previous = kit.recurrence("a").previous_slot();
    assert_eq!(previous, Some((NOW + 10 * HOUR).to_utc()));
    kit.fire_at(11);
    assert_eq!(kit.hours("a"), [11]);
    let all: Vec<String> = (1..=11).map(|hour| format!("{hour} made")).collect();
    for (line, expected) in explained(kit, "a", 12).iter().zip(&all) {
        assert!(line.starts_with(expected), "{line}");
    }
}

fn p10_slots_of_before_the_recurrence_can_be_made_up_for_once(kit: &mut Kit) {
    let rule = Rule::every(HOUR, NOW.to_utc()).unwrap();
    let task = NewTask::with_kind("probe", &1);
    kit.now = NOW + 2_000 * HOUR + HOUR / 2;
    kit.recur(Recurrence::new("a", task).rule(rule));
    assert_eq!(kit.backfill("a", 100..700), (600, 0, 0));
    assert_eq!(kit.backfill("a", 50..701), (51, 600, 0));
    assert_eq!(kit.backfill("a", 50..701), (0, 651, 0));
    assert_eq!(kit.hours("a"), (50..=700).collect::<Vec<_>>());
    let task = kit.recurrences_tasks("a").remove(0);
    assert_eq!(task.scheduled_at(), (NOW + 50 * HOUR).to_utc());
}

fn p10_a_backfill_makes_no_task_where_the_record_is_gone(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::Skip));
    for hour in 1..=1_400 {
        kit.fire_at(hour);
        if hour % 2 == 0 {
            kit.settle(&kit.claim_one(), done());
        }
    }
    let forgotten = kit.recurrence("a");
    let forgotten = explain(kit, forgotten.name(), NOW, NOW + HOUR).forgotten_until();
    let forgotten = hour_of(forgotten.expect("some are forgotten"));
    let (made, existing, gone) = kit.backfill("a", 1..1_401);
    assert_eq!(gone, forgotten);
    assert_eq!(made + existing + gone, 1_400);
    assert_eq!(made, existing, "every second one was skipped");
}

fn p10_a_backfill_is_beside_the_recurrence_s_own_tasks(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::Skip).max_count(2));
    kit.fire_at(4);
    kit.settle(&kit.claim_one(), done());
    kit.backfill("a", 1..4);
    kit.fire_at(5);
    assert_eq!(kit.hours("a"), [1, 2, 3, 4, 5]);
    assert!(kit.recurrence("a").is_ended(), "of two tasks of its own");
}

impl Kit {
    fn try_declare(&self, set: RecurrenceSet) -> Declaring {
        let declaration = set.prepare(self.now).unwrap();
        self.apply(Op::Declare(Box::new(declaration))).declared()
    }

    /// Created, changed, unchanged, undeclared; `None`: it is outdated.
    fn declare(&self, set: RecurrenceSet) -> Option<[usize; 4]> {
        match self.try_declare(set) {
            Declaring::Done(declared) if declared.is_outdated() => None,
            Declaring::Done(declared) => Some([
                declared.created_count(),
                declared.changed_count(),
                declared.unchanged_count(),
                declared.undeclared_count(),
            ]),
            refused @ Declaring::Refused { .. } => panic!("{refused:?}"),
        }
    }
}

fn set(names: &[&str]) -> RecurrenceSet {
    let empty = RecurrenceSet::new("set").undeclared(Undeclared::Remove);
    names
        .iter()
        .fold(empty, |set, name| set.recurrence(hourly(name)))
}

fn p10_a_declared_set_is_brought_in_line_and_nothing_else(kit: &mut Kit) {
    kit.recur(hourly("by hand"));
    kit.recur(hourly("joins"));
    assert_eq!(kit.declare(set(&["a", "b", "joins"])), Some([2, 0, 1, 0]));
    assert_eq!(kit.declare(set(&["a", "b", "joins"])), Some([0, 0, 3, 0]));
    kit.edit("a", RecurrenceEdit::new().priority(0));
    kit.act("b", RecurrenceAction::Pause);
    assert_eq!(kit.declare(set(&["a", "b"])), Some([0, 0, 2, 1]));
    assert_eq!(kit.recurrence("a").priority(), 0, "what was edited stays");
    assert!(kit.recurrence("b").is_paused(), "what was paused stays");
    assert!(kit.is_unknown("joins"));
    assert!(!kit.recurrence("by hand").is_paused());
    let other = RecurrenceSet::new("other")
        .recurrence(hourly("c"))
        .recurrence(hourly("a"));
    let refused = kit.try_declare(other);
    assert!(matches!(refused, Declaring::Refused { .. }), "{refused:?}");
    assert!(kit.is_unknown("c"), "nothing of it is stored");
    let changed = set(&["b"]).recurrence(hourly("a").grace(S));
    assert_eq!(kit.declare(changed), Some([0, 1, 1, 0]));
    assert_eq!(kit.recurrence("a").priority(), 5);
}

fn p10_an_older_revision_of_a_set_changes_nothing(kit: &mut Kit) {
    assert_eq!(
        kit.declare(set(&["a", "b"]).revision(2)),
        Some([2, 0, 0, 0])
    );
    assert_eq!(kit.declare(set(&["c"]).revision(1)), None);
    assert!(kit.is_unknown("c"));
    assert!(!kit.recurrence("a").is_paused());
    assert_eq!(kit.declare(set(&["a"]).revision(2)), Some([0, 0, 1, 1]));
    assert_eq!(kit.declare(set(&["c"]).revision(3)), Some([1, 0, 0, 1]));
}

fn p10_what_a_set_declares_no_more_is_paused_until_it_is_declared_again(kit: &mut Kit) {
    let set = |names| set(names).undeclared(Undeclared::Pause);
    kit.declare(set(&["a", "b"]));
    kit.fire_at(1);
    assert_eq!(kit.declare(set(&["b"])), Some([0, 0, 1, 1]));
    assert_eq!(kit.recurrence("a").paused_by(), Some(PausedBy::Undeclared));
    assert!(
        kit.store().health().stopped_recurrences().is_empty(),
        "it is meant"
    );
    kit.fire_at(2);
    assert_eq!(kit.declare(set(&["b"])), Some([0, 0, 1, 0]));
    assert_eq!(kit.declare(set(&["a", "b"])), Some([0, 1, 1, 0]));
    kit.fire_at(3);
    assert_eq!(
        (kit.hours("a"), kit.hours("b")),
        (vec![1, 3], vec![1, 2, 3])
    );
}

fn p10_a_reset_leaves_no_slot_in_the_record_twice(kit: &mut Kit) {
    kit.recur(hourly("a"));
    kit.fire_at(3);
    kit.fire_at(9);
    kit.now = NOW + 4 * HOUR;
    kit.act("a", RecurrenceAction::Reset(NOW + 2 * HOUR));
    kit.fire();
    let expected = ["1 Missed", "2 Missed", "3 Missed", "4 made 4", "5 upcoming"];
    assert_eq!(explained(kit, "a", 6), expected);
}

fn p10_what_waits_waits_on_in_a_pause_and_is_made_after_it(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::BufferOne));
    kit.fire_at(1);
    kit.fire_at(2);
    kit.act("a", RecurrenceAction::Pause);
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.fire_at(3);
    assert_eq!(kit.hours("a"), [1]);
    kit.act("a", RecurrenceAction::Resume);
    assert_eq!(kit.hours("a"), [1, 2], "at once");
}

fn p10_a_change_in_a_pause_makes_nothing_due(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(HOUR / 4));
    kit.act("a", RecurrenceAction::Pause);
    kit.edit("a", RecurrenceEdit::new().priority(1));
    let often = Rule::every(HOUR / 2, NOW.to_utc()).unwrap();
    kit.edit("a", RecurrenceEdit::new().rule(often));
    kit.recur(hourly("a").expect_within(HOUR / 2));
    kit.act("a", RecurrenceAction::Reset(NOW));
    kit.fire_at(9);
    assert!(kit.hours("a").is_empty());
    assert_eq!(kit.recurrence("a").overdue_since(), None);
}

fn p10_a_rule_that_is_given_again_decides_no_slot_again(kit: &mut Kit) {
    let since = NOW.to_utc();
    let hourly = || hourly("a").since(since).missed(Missed::All { max: 9 });
    kit.recur(hourly());
    kit.fire_at(3);
    let claims = kit.claim(9);
    for claim in claims {
        kit.settle(&claim, done());
        kit.change(claim.id, Action::Delete);
    }
    kit.recur(hourly().every(2 * HOUR).unwrap());
    kit.recur(hourly());
    kit.fire();
    assert!(kit.hours("a").is_empty(), "they were made, and are pruned");
}

fn p10_nothing_of_a_removed_recurrence_is_left_for_its_successor(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::BufferOne).expect_within(S));
    kit.fire_at(1);
    kit.fire_at(2);
    kit.later(S);
    kit.fire();
    assert_eq!(kit.store().health().overdue_recurrences(), ["a"]);
    kit.act("a", RecurrenceAction::Remove);
    assert!(kit.store().health().overdue_recurrences().is_empty());
    kit.recur(hourly("a").overlap(Overlap::Skip));
    let status = kit.recurrence("a");
    assert_eq!((status.waiting_count(), status.made_count()), (0, 0));
    assert_eq!(explained(kit, "a", 3), ["3 upcoming"; 0]);
    kit.later(HOUR);
    kit.fire();
    assert_eq!(
        kit.recurrence("a").made_count(),
        1,
        "the live one is another's"
    );
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

fn p10_a_crashed_task_makes_room(kit: &mut Kit) {
    let task = NewTask::with_kind("probe", &1).max_crashes(0);
    let recurrence = Recurrence::new("a", task).every(HOUR).unwrap();
    kit.recur(recurrence.overlap(Overlap::BufferOne));
    kit.fire_at(1);
    kit.fire_at(2);
    let claim = kit.claim_one();
    kit.crash(&[claim]);
    assert_eq!(kit.hours("a"), [1, 2]);
}

fn p10_slots_that_a_pause_skipped_are_not_taken_for_made(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::CancelPrevious));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.fire_at(2);
    kit.act("a", RecurrenceAction::Pause);
    kit.settle(&claim, done());
    kit.now = NOW + 5 * HOUR + HOUR / 2;
    kit.act("a", RecurrenceAction::Resume);
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.fire_at(6);
    assert_eq!(kit.hours("a"), [1, 2, 6]);
    let expected = [
        "1 made 1", "2 made 2", "3 Paused", "4 Paused", "5 Paused", "6 made 6",
    ];
    assert_eq!(explained(kit, "a", 7), expected);
    assert_eq!(kit.backfill("a", 3..6), (3, 0, 0));
}

fn p10_no_slot_is_explained_twice_when_one_waited_through_missed_ones(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::CancelPrevious));
    kit.fire_at(1);
    let _claim = kit.claim_one();
    kit.fire_at(2);
    kit.fire_at(6);
    kit.fire_at(7);
    let expected = [
        "1 made 1",
        "2 Superseded",
        "3 Missed",
        "4 Missed",
        "5 Missed",
        "6 Superseded",
        "7 waits",
    ];
    assert_eq!(explained(kit, "a", 8), expected);
}

fn p10_a_superseded_slot_does_not_count_for_max_count(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::CancelPrevious).max_count(3));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.fire_at(2);
    kit.fire_at(3);
    kit.settle(&claim, done());
    kit.fire_at(4);
    kit.fire_at(5);
    assert_eq!(kit.hours("a"), [1, 3, 4]);
}

fn p10_what_waits_drains_although_a_task_is_there_already(kit: &mut Kit) {
    let rule = Rule::at((1..=3).map(|hour| (NOW + HOUR * hour).to_utc())).unwrap();
    let all = Overlap::BufferAll { max: 9 };
    kit.recur(
        hourly("a")
            .rule(rule)
            .overlap(all)
            .missed(Missed::All { max: 9 }),
    );
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.trigger("a");
    kit.now = NOW + 4 * HOUR;
    kit.act("a", RecurrenceAction::Reset(NOW + HOUR));
    kit.fire();
    for _ in 0..9 {
        for claim in kit.claim(9) {
            kit.settle(&claim, done());
        }
    }
    assert_eq!(
        (kit.hours("a"), kit.recurrence("a").waiting_count()),
        (vec![1, 2, 3], 0)
    );
}

fn p10_another_rule_makes_no_task_beyond_max_count(kit: &mut Kit) {
    kit.recur(hourly("a").max_count(2));
    for hour in 1..=3 {
        kit.fire_at(hour);
    }
    assert_eq!(kit.hours("a"), [1, 2]);
    kit.recur(hourly("a").every(2 * HOUR).unwrap().max_count(2));
    for hour in 4..=9 {
        kit.fire_at(hour);
    }
    let count = kit.recurrences_tasks("a").len();
    assert!(
        count == 2 || count == 4,
        "{count} tasks: neither an end after 2 nor a new count"
    );
}

fn p10_a_reset_makes_no_task_beyond_max_count(kit: &mut Kit) {
    kit.recur(hourly("a").max_count(2));
    for hour in 1..=3 {
        kit.fire_at(hour);
    }
    kit.act("a", RecurrenceAction::Reset(NOW + 4 * HOUR));
    for hour in 4..=9 {
        kit.fire_at(hour);
    }
    assert_eq!(kit.hours("a"), [1, 2]);
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

fn p10_another_rule_begins_after_the_call_though_a_search_was_far_ahead(kit: &mut Kit) {
    let second = Rule::every(S, NOW.to_utc()).unwrap();
    let until = (NOW + 24 * HOUR).to_utc();
    let closed = second
        .clone()
        .not_before(NOW.to_utc())
        .unwrap()
        .not_after(until)
        .unwrap();
    kit.recur(hourly("a").rule(second.except(closed).unwrap()));
    kit.fire();
    kit.recur(hourly("a"));
    assert_eq!(kit.recurrence("a").next_slot(), Some((NOW + HOUR).to_utc()));
}

fn p10_another_rule_begins_after_the_call_though_the_first_was_to_begin_later(kit: &mut Kit) {
    kit.recur(hourly("a").since((NOW + 1_000 * HOUR).to_utc()));
    kit.recur(hourly("a").every(2 * HOUR).unwrap());
    assert_eq!(
        kit.recurrence("a").next_slot(),
        Some((NOW + 2 * HOUR).to_utc())
    );
}

fn p10_an_expectation_that_is_added_holds_for_the_next_slot(kit: &mut Kit) {
    kit.recur(hourly("a"));
    kit.edit("a", RecurrenceEdit::new().expect_within(HOUR / 4));
    kit.fire_at(1);
    kit.later(HOUR / 2);
    kit.fire();
    let since = Some((NOW + HOUR + HOUR / 4).to_utc());
    assert_eq!(kit.recurrence("a").overdue_since(), since);
}

fn p10_an_expectation_that_is_shortened_holds_for_the_next_slot(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(100 * HOUR));
    kit.recur(hourly("a").expect_within(HOUR / 4));
    kit.fire_at(1);
    kit.later(HOUR / 2);
    kit.fire();
    let since = Some((NOW + HOUR + HOUR / 4).to_utc());
    assert_eq!(kit.recurrence("a").overdue_since(), since);
}

fn p10_a_call_for_a_paused_recurrence_with_waiting_slots_makes_a_task(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::BufferOne));
    kit.fire_at(1);
    kit.fire_at(2);
    kit.act("a", RecurrenceAction::Pause);
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    let triggered = kit.trigger("a");
    assert!(
        matches!(triggered, Triggered::Made(_)),
        "{triggered:?}, though nothing is live"
    );
}

fn p10_a_slot_that_waited_is_expected_to_complete_too(kit: &mut Kit) {
    let rule = Rule::at((1..=2).map(|hour| (NOW + HOUR * hour).to_utc())).unwrap();
    kit.recur(
        hourly("a")
            .rule(rule)
            .overlap(Overlap::BufferOne)
            .expect_within(2 * HOUR),
    );
    kit.fire_at(1);
    kit.fire_at(2);
    kit.later(HOUR / 4);
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    assert_eq!(kit.hours("a"), [1, 2]);
    kit.fire_at(9);
    assert!(
        kit.recurrence("a").overdue_since().is_some(),
        "the second never completes"
    );
}

fn p10_the_previous_slot_is_before_the_slot_after_a_reset(kit: &mut Kit) {
    kit.recur(hourly("a"));
    kit.fire_at(1);
    kit.fire_at(1_000);
    kit.now = NOW + HOUR + HOUR / 2;
    kit.act("a", RecurrenceAction::Reset(kit.now));
    kit.fire_at(2);
    let tasks = kit.recurrences_tasks("a");
    let second = tasks
        .iter()
        .find(|task| task.slot() == Some((NOW + 2 * HOUR).to_utc()));
    let claimed = kit.recurrence("a").previous_slot();
    assert!(second.is_some());
    assert_eq!(claimed, Some((NOW + 2 * HOUR).to_utc()));
}

fn p10_a_retried_backfill_is_beside_the_recurrence(kit: &mut Kit) {
    kit.now = NOW + 5 * HOUR;
    let rule = Rule::every(HOUR, NOW.to_utc()).unwrap();
    kit.recur(hourly("a").rule(rule).overlap(Overlap::Skip));
    assert_eq!(kit.backfill("a", 2..3), (1, 0, 0));
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.change(claim.id, Action::Retry(Default::default()));
    kit.fire_at(6);
    assert_eq!(kit.hours("a"), [2, 6]);
}

fn p10_an_old_task_s_retry_is_not_live_for_another_recurrence_of_its_name(kit: &mut Kit) {
    kit.recur(hourly("a"));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.act("a", RecurrenceAction::Remove);
    kit.recur(hourly("a").overlap(Overlap::Skip));
    kit.change(claim.id, Action::Retry(Default::default()));
    kit.fire_at(2);
    assert_eq!(kit.hours("a"), [1, 2]);
}

fn p10_a_clock_that_was_ahead_is_noticed_after_a_backfill(kit: &mut Kit) {
    kit.recur(hourly("a"));
    kit.fire_at(1_000);
    kit.now = NOW + 2 * HOUR;
    kit.backfill("a", 1..2);
    let found = kit
        .store()
        .read(Query::DecidedAfter(kit.now))
        .unwrap()
        .decided_after();
    assert_eq!(found.len(), 1);
}

fn p10_what_waits_drains_when_the_policy_is_allow(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::BufferAll { max: 9 }));
    kit.fire_at(1);
    kit.fire_at(2);
    kit.edit("a", RecurrenceEdit::new().overlap(Overlap::Allow));
    let mut running = kit.claim_one();
    for hour in 3..=20 {
        kit.fire_at(hour);
        let next = kit.claim_one();
        kit.settle(&running, done());
        running = next;
    }
    assert_eq!(kit.recurrence("a").waiting_count(), 0);
}

fn p10_an_edit_in_a_search_loses_no_slot(kit: &mut Kit) {
    let second = Rule::every(S, NOW.to_utc()).unwrap();
    let until = (NOW + 24 * HOUR).to_utc();
    let closed = second
        .clone()
        .not_before(NOW.to_utc())
        .unwrap()
        .not_after(until)
        .unwrap();
    kit.recur(
        hourly("a")
            .rule(second.except(closed).unwrap())
            .missed(Missed::All { max: 99 }),
    );
    // Nobody has fired: the search is under way. Time passes beyond its end.
    kit.now = NOW + 24 * HOUR + 5 * S;
    kit.edit("a", RecurrenceEdit::new().priority(1));
    for _ in 0..10 {
        // A search rests for a second.
        kit.later(S);
        kit.fire();
    }
    let tasks = kit.recurrences_tasks("a");
    let first = Some((NOW + 24 * HOUR + S).to_utc());
    assert_eq!((tasks[0].slot(), tasks.len()), (first, 15));
}

/// A program was down over slots, and comes back with another rule.
fn p10_another_rule_passes_over_no_due_slot_in_silence(kit: &mut Kit) {
    kit.recur(hourly("a").missed(Missed::All { max: 9 }));
    kit.now = NOW + 3 * HOUR + HOUR / 2;
    kit.recur(
        hourly("a")
            .every(2 * HOUR)
            .unwrap()
            .missed(Missed::All { max: 9 }),
    );
    kit.fire();
    let explained = explain(kit, "a", NOW, kit.now);
    let told: Vec<_> = explained
        .slots()
        .iter()
        .map(|each| hour_of(each.slot()))
        .collect();
    assert_eq!(told, [1, 2, 3], "made or skipped, but told");
}

fn p10_a_pause_takes_no_slot_that_was_due_before(kit: &mut Kit) {
    kit.recur(hourly("a").missed(Missed::All { max: 9 }));
    kit.now = NOW + 3 * HOUR + HOUR / 2;
    kit.act("a", RecurrenceAction::Pause);
    kit.later(HOUR);
    kit.act("a", RecurrenceAction::Resume);
    kit.fire();
    assert_eq!(kit.hours("a"), [1, 2, 3]);
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

fn p10_a_backfill_makes_no_task_of_a_slot_to_come(kit: &mut Kit) {
    kit.recur(hourly("a").since((NOW + 1_000 * HOUR).to_utc()));
    assert_eq!(kit.backfill("a", 1..10), (0, 0, 0));
}

fn p10_a_call_that_waits_is_told_when_a_slot_takes_its_place(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::CancelPrevious));
    kit.fire_at(1);
    let claim = kit.claim_one();
    let Triggered::Waiting(id) = kit.trigger("a") else {
        panic!("it may wait");
    };
    let events = kit
        .store()
        .signals()
        .recurrence_subscriptions()
        .subscribe(99);
    kit.fire_at(2);
    kit.settle(&claim, done());
    let mut told = 0;
    while let Some(event) = events.try_next().event() {
        println!("{event:?}");
        told += usize::from(format!("{event:?}").contains(&id.to_string()));
    }
    assert!(told > 0 || kit.find(id).is_some(), "the call has vanished");
}

fn p10_a_made_event_is_for_a_task_that_was_made(kit: &mut Kit) {
    kit.recur(hourly("a"));
    kit.fire_at(1);
    kit.act("a", RecurrenceAction::Reset(NOW + HOUR));
    let events = kit
        .store()
        .signals()
        .recurrence_subscriptions()
        .subscribe(99);
    kit.fire();
    let event = events.try_next().event();
    assert!(event.is_none(), "{event:?}");
}
