//! Changes of stored recurrences: another rule, edits, pauses, resets.

use super::*;
use crate::model::recurrence::event::RecurrenceEventKind;

on_every_backend![
    p10_another_rule_begins_anew_and_another_payload_holds_for_the_slots_to_come,
    p10_slots_are_made_once_when_the_clock_is_set_back,
    p10_a_paused_recurrence_makes_no_task_and_goes_on_after_the_pause,
    p10_failures_in_a_row_pause_a_recurrence,
    p10_a_removed_recurrence_makes_nothing_and_leaves_its_tasks,
    p10_an_edit_holds_for_the_slots_to_come_and_survives_the_next_start,
    an_edit_that_is_not_allowed_changes_nothing,
    p10_a_change_in_a_pause_makes_nothing_due,
    p10_a_rule_that_is_given_again_decides_no_slot_again,
    p10_nothing_of_a_removed_recurrence_is_left_for_its_successor,
    p10_another_rule_makes_no_task_beyond_max_count,
    p10_a_reset_makes_no_task_beyond_max_count,
    p10_another_rule_begins_after_the_call_though_a_search_was_far_ahead,
    p10_another_rule_begins_after_the_call_though_the_first_was_to_begin_later,
    p10_the_previous_slot_is_before_the_slot_after_a_reset,
    p10_an_edit_in_a_search_loses_no_slot,
    p10_another_rule_passes_over_no_due_slot_in_silence,
    p10_a_pause_takes_no_slot_that_was_due_before,
    p10_a_rule_that_is_over_is_told,
    p10_a_reset_into_the_future_is_no_clock_that_is_ahead,
    p10_what_is_due_before_a_change_is_decided_in_chunks,
    p10_a_pause_by_failures_takes_no_slot_that_was_due_before,
    p10_a_call_that_waits_is_told_when_its_recurrence_is_removed,
];

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

/// Each second, but none of the first day: more excluded slots than one search passes over.
fn closed_for_a_day() -> Rule {
    let second = || Rule::every(S, NOW.to_utc()).unwrap();
    let day = second().not_before(NOW.to_utc()).unwrap();
    let day = day.not_after((NOW + 24 * HOUR).to_utc()).unwrap();
    second().except(day).unwrap()
}

fn p10_another_rule_begins_after_the_call_though_a_search_was_far_ahead(kit: &mut Kit) {
    kit.recur(hourly("a").rule(closed_for_a_day()));
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

fn p10_an_edit_in_a_search_loses_no_slot(kit: &mut Kit) {
    kit.recur(
        hourly("a")
            .rule(closed_for_a_day())
            .missed(Missed::All { max: 99 }),
    );
    assert!(kit.recurrence("a").is_searching());
    assert!(!kit.recurrence("a").is_ended());
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
    let told = ["1 made 1", "2 made 2", "3 made 3", "4 Paused", "5 upcoming"];
    assert_eq!(explained(kit, "a", 6), told, "still paused");
    kit.act("a", RecurrenceAction::Resume);
    kit.fire();
    assert_eq!(explained(kit, "a", 6), told);
    assert_eq!(kit.hours("a"), [1, 2, 3]);
}

fn p10_a_rule_that_is_over_is_told(kit: &mut Kit) {
    let events = kit
        .store()
        .signals()
        .recurrence_subscriptions()
        .subscribe(99);
    let past = Rule::at([(NOW - HOUR).to_utc()]).unwrap();
    kit.recur(hourly("a").rule(past));
    let mut told = Vec::new();
    while let Some(event) = events.try_next().event() {
        told.push(event.kind());
    }
    assert_eq!(
        told,
        [RecurrenceEventKind::Created, RecurrenceEventKind::Ended]
    );
    assert!(kit.recurrence("a").is_ended());
}

fn p10_a_reset_into_the_future_is_no_clock_that_is_ahead(kit: &mut Kit) {
    kit.recur(hourly("a"));
    kit.act("a", RecurrenceAction::Reset(NOW + 100 * HOUR));
    let found = kit.store().read(Query::DecidedAfter(kit.now)).unwrap();
    assert!(found.decided_after().is_empty());
}

fn p10_what_is_due_before_a_change_is_decided_in_chunks(kit: &mut Kit) {
    kit.recur(
        hourly("a")
            .missed(Missed::All { max: 10_000 })
            .window(HOUR * 20_000),
    );
    kit.now = NOW + 10_100 * HOUR;
    let pause = Op::ChangeRecurrence {
        name: "a".to_owned(),
        action: RecurrenceAction::Pause,
    };
    let mut counts = vec![0];
    while kit.apply(Op::DecideBefore(Box::new(pause.clone()))).done() > 0 {
        counts.push(kit.recurrence("a").made_count());
    }
    assert!(
        counts.len() >= 20 && counts.windows(2).all(|pair| pair[1] - pair[0] <= 501),
        "{counts:?}"
    );
    kit.act("a", RecurrenceAction::Pause);
    assert_eq!(kit.recurrence("a").made_count(), 10_001);
}

fn p10_a_pause_by_failures_takes_no_slot_that_was_due_before(kit: &mut Kit) {
    kit.recur(hourly("a").pause_after_failures(1));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.now = NOW + 2 * HOUR;
    // The slot at two is due; the failure comes before the firer.
    kit.settle(&claim, returned(Err(Failure::fatal("no"))));
    kit.act("a", RecurrenceAction::Resume);
    assert_eq!(kit.hours("a"), [1, 2], "{:?}", explained(kit, "a", 4));
}

fn p10_a_call_that_waits_is_told_when_its_recurrence_is_removed(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::BufferOne));
    kit.trigger("a");
    let Triggered::Waiting(id) = kit.trigger("a") else {
        panic!()
    };
    let events = kit
        .store()
        .signals()
        .recurrence_subscriptions()
        .subscribe(99);
    kit.act("a", RecurrenceAction::Remove);
    let mut told = false;
    while let Some(event) = events.try_next().event() {
        told |= format!("{event:?}").contains(&id.to_string());
    }
    assert!(
        told,
        "a call that was answered by Waiting vanishes without a word"
    );
}
