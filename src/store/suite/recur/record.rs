//! The record of what became of slots: explained, made up for, bounded.

use super::*;

on_every_backend![
    p10_every_slot_is_explained,
    p10_a_slot_is_explained_by_the_rule_that_it_is_of,
    p14_the_record_of_decisions_is_bounded,
    p10_what_was_skipped_can_be_made_up_for_once,
    p10_slots_of_before_the_recurrence_can_be_made_up_for_once,
    p10_a_backfill_makes_no_task_where_the_record_is_gone,
    p10_a_backfill_is_beside_the_recurrence_s_own_tasks,
    p10_a_reset_leaves_no_slot_in_the_record_twice,
    p10_slots_that_a_pause_skipped_are_not_taken_for_made,
    p10_a_retried_backfill_is_beside_the_recurrence,
    p10_a_clock_that_was_ahead_is_noticed_after_a_backfill,
    p10_a_backfill_makes_no_task_of_a_slot_to_come,
    p10_a_made_event_is_for_a_task_that_was_made,
    p10_slots_between_an_end_and_its_revival_are_not_taken_for_made,
    p10_a_waiting_slot_of_a_former_rule_is_explained,
    p10_slots_of_a_rule_from_before_it_are_not_taken_for_made,
    p10_a_backfill_does_not_decide_a_slot_that_waits,
    p10_a_successor_of_the_same_name_backfills_no_slot_twice,
    p10_a_reset_decides_a_slot_that_waits_again,
    p10_a_backfill_makes_no_slot_between_the_runs_of_a_former_rule,
];

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

fn p10_a_reset_leaves_no_slot_in_the_record_twice(kit: &mut Kit) {
    kit.recur(hourly("a"));
    kit.fire_at(3);
    kit.fire_at(9);
    kit.now = NOW + 4 * HOUR;
    kit.act("a", RecurrenceAction::Reset(NOW + 2 * HOUR));
    kit.fire();
    let expected = ["1 Missed", "2 Missed", "3 made 3", "4 made 4", "5 upcoming"];
    assert_eq!(explained(kit, "a", 6), expected, "the third has a task");
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

fn p10_a_backfill_makes_no_task_of_a_slot_to_come(kit: &mut Kit) {
    kit.recur(hourly("a").since((NOW + 1_000 * HOUR).to_utc()));
    assert_eq!(kit.backfill("a", 1..10), (0, 0, 0));
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

fn p10_slots_between_an_end_and_its_revival_are_not_taken_for_made(kit: &mut Kit) {
    kit.recur(hourly("a").max_count(2));
    for hour in 1..=4 {
        kit.fire_at(hour);
    }
    kit.edit("a", RecurrenceEdit::new().max_count(9));
    kit.fire_at(5);
    assert_eq!(kit.hours("a"), [1, 2, 5]);
    let told = explained(kit, "a", 6);
    assert!(!told.iter().any(|line| line.contains("gone")), "{told:?}");
    assert_eq!(kit.backfill("a", 3..5), (2, 0, 0));
}

fn p10_a_waiting_slot_of_a_former_rule_is_explained(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::CancelPrevious));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.fire_at(2);
    kit.later(HOUR / 4);
    let rule = Rule::every(HOUR, (NOW + HOUR / 2).to_utc()).unwrap();
    kit.edit("a", RecurrenceEdit::new().rule(rule));
    kit.settle(&claim, done());
    assert_eq!(kit.hours("a"), [1, 2]);
    let told = explained(kit, "a", 3);
    assert_eq!(told[..2], ["1 made 1", "2 made 2"]);
}

fn p10_slots_of_a_rule_from_before_it_are_not_taken_for_made(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::CancelPrevious));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.fire_at(2);
    kit.later(HOUR / 2 + S);
    let rule = Rule::every(HOUR / 12, NOW.to_utc()).unwrap();
    kit.edit("a", RecurrenceEdit::new().rule(rule));
    kit.settle(&claim, done());
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.now = NOW + 2 * HOUR + HOUR / 12 * 7;
    kit.fire();
    assert_eq!(kit.recurrences_tasks("a").len(), 3);
    let told = explained(kit, "a", 4);
    assert!(!told.iter().any(|line| line.contains("gone")), "{told:?}");
}

fn p10_a_backfill_does_not_decide_a_slot_that_waits(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::CancelPrevious));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.fire_at(2);
    assert_eq!(kit.backfill("a", 1..3), (0, 2, 0));
    kit.fire_at(3);
    kit.settle(&claim, done());
    assert_eq!(kit.hours("a"), [1, 3]);
    let expected = ["1 made 1", "2 Superseded", "3 made 3", "4 upcoming"];
    assert_eq!(explained(kit, "a", 5), expected);
}

fn p10_a_successor_of_the_same_name_backfills_no_slot_twice(kit: &mut Kit) {
    let rule = || Rule::every(HOUR, NOW.to_utc()).unwrap();
    kit.recur(hourly("a").rule(rule()));
    for hour in 1..=3 {
        kit.fire_at(hour);
    }
    kit.act("a", RecurrenceAction::Remove);
    kit.recur(hourly("a").rule(rule()));
    kit.backfill("a", 1..4);
    assert_eq!(kit.hours("a"), [1, 2, 3]);
}

fn p10_a_reset_decides_a_slot_that_waits_again(kit: &mut Kit) {
    for (name, overlap) in [("a", Overlap::CancelPrevious), ("b", Overlap::BufferOne)] {
        kit.now = NOW;
        kit.recur(hourly(name).overlap(overlap));
        kit.fire_at(1);
        let claim = kit.claim_one();
        kit.fire_at(2);
        kit.act(name, RecurrenceAction::Reset(NOW + 2 * HOUR));
        kit.fire();
        kit.settle(&claim, done());
        assert_eq!(kit.hours(name), [1, 2], "{overlap:?}");
        let expected = ["1 made 1", "2 made 2", "3 upcoming"];
        assert_eq!(explained(kit, name, 4), expected, "{overlap:?}");
        kit.settle(&kit.claim_one(), done());
        kit.act(name, RecurrenceAction::Remove);
    }
}

fn p10_a_backfill_makes_no_slot_between_the_runs_of_a_former_rule(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::Skip));
    kit.fire_at(1);
    kit.fire_at(2);
    kit.settle(&kit.claim_one(), done());
    kit.fire_at(3);
    let often = Rule::every(HOUR / 6, NOW.to_utc()).unwrap();
    kit.edit("a", RecurrenceEdit::new().rule(often));
    assert_eq!(kit.backfill("a", 1..4), (1, 2, 0), "only 2 was skipped");
}
