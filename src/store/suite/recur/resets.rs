//! Resets: what is due is decided first, and what is decided again is neither made nor told twice.

use super::*;

on_every_backend![
    p10_a_reset_to_now_loses_no_slot_that_is_due,
    p10_a_reset_a_moment_from_now_is_as_one_to_now,
    p10_a_reset_to_a_moment_that_passes_while_chunks_are_decided_loses_nothing,
    p10_a_reset_of_one_that_has_made_all_its_tasks_leaves_its_record,
    p10_a_slot_that_is_decided_again_is_the_one_before_the_next,
    p10_a_slot_that_waits_is_not_made_twice_after_a_reset,
    p10_what_came_in_a_pause_after_the_end_is_told,
    p10_a_reset_in_a_pause_by_failures_leaves_the_record,
    p10_a_reset_after_a_long_outage_is_told_in_one_run,
    p10_a_reset_may_go_to_any_year,
];

/// The slot at one is due for a millisecond, and nobody has fired it. Somebody resets to now.
fn p10_a_reset_to_now_loses_no_slot_that_is_due(kit: &mut Kit) {
    kit.recur(hourly("a"));
    kit.now = NOW + HOUR + Duration::from_millis(2);
    kit.act(
        "a",
        RecurrenceAction::Reset(NOW + HOUR + Duration::from_millis(1)),
    );
    kit.fire();
    assert_eq!(explained(kit, "a", 2), ["1 made 1"]);
}

fn p10_a_reset_a_moment_from_now_is_as_one_to_now(kit: &mut Kit) {
    let mut told = Vec::new();
    for (name, from) in [("micro later", MICRO), ("now", Duration::ZERO)] {
        kit.now = NOW;
        kit.recur(hourly(name).missed(Missed::Latest));
        kit.now = NOW + 5 * HOUR + HOUR / 2;
        kit.act(name, RecurrenceAction::Reset(kit.now + from));
        kit.fire();
        told.push(kit.hours(name));
    }
    assert_eq!(told[0], told[1]);
}

/// Ten thousand slots are due. A reset to the next second: while what is due is decided in chunks, that second passes.
fn p10_a_reset_to_a_moment_that_passes_while_chunks_are_decided_loses_nothing(kit: &mut Kit) {
    kit.recur(
        hourly("a")
            .missed(Missed::All { max: 10_000 })
            .window(HOUR * 20_000),
    );
    kit.now = NOW + 10_100 * HOUR;
    let action = RecurrenceAction::Reset(kit.now + S);
    let reset = Op::ChangeRecurrence {
        name: "a".to_owned(),
        action: action.clone(),
    };
    while kit.apply(Op::DecideBefore(Box::new(reset.clone()))).done() > 0 {
        kit.later(S / 10);
    }
    kit.act("a", action);
    kit.fire();
    assert_eq!(kit.recurrence("a").made_count(), 10_001);
}

fn p10_a_reset_of_one_that_has_made_all_its_tasks_leaves_its_record(kit: &mut Kit) {
    kit.recur(hourly("a").max_count(2));
    kit.fire_at(1);
    kit.fire_at(2);
    let told = explained(kit, "a", 5);
    kit.act("a", RecurrenceAction::Reset(NOW + HOUR));
    kit.fire();
    assert_eq!(explained(kit, "a", 5), told);
    assert!(kit.recurrence("a").is_ended());
}

/// What a task is told as the slot before its own is the start of the span that it is about.
fn p10_a_slot_that_is_decided_again_is_the_one_before_the_next(kit: &mut Kit) {
    let overlaps = [
        Overlap::Allow,
        Overlap::Skip,
        Overlap::BufferOne,
        Overlap::CancelPrevious,
    ];
    for overlap in overlaps {
        kit.now = NOW;
        kit.recur(hourly("a").overlap(overlap));
        kit.fire_at(1);
        let claim = kit.claim_one();
        kit.later(S);
        kit.act("a", RecurrenceAction::Reset(NOW + HOUR));
        kit.fire();
        assert_eq!(explained(kit, "a", 2), ["1 made 1"], "{overlap:?}");
        let first = Some(NOW + HOUR);
        let previous = kit.recurrence("a").previous_slot();
        assert_eq!(previous, first.map(Timestamp::to_utc), "{overlap:?}");
        kit.settle(&claim, done());
        kit.fire_at(2);
        let next = kit.claim_one();
        let slot = next
            .options
            .as_ref()
            .and_then(|options| options.slot.as_ref());
        assert_eq!(slot.unwrap().previous, first, "{overlap:?}");
        kit.settle(&next, done());
        for task in kit.recurrences_tasks("a") {
            kit.change(task.id(), Action::Delete);
        }
        kit.act("a", RecurrenceAction::Remove);
    }
}

fn p10_a_slot_that_waits_is_not_made_twice_after_a_reset(kit: &mut Kit) {
    for overlap in [Overlap::BufferOne, Overlap::BufferAll { max: 9 }] {
        kit.now = NOW;
        kit.recur(hourly("a").overlap(overlap));
        kit.fire_at(1);
        let claim = kit.claim_one();
        kit.fire_at(2);
        kit.later(S);
        kit.act("a", RecurrenceAction::Reset(NOW + HOUR));
        kit.fire();
        kit.settle(&claim, done());
        kit.settle(&kit.claim_one(), done());
        assert_eq!(kit.hours("a"), [1, 2], "{overlap:?}");
        assert_eq!(
            explained(kit, "a", 4),
            ["1 made 1", "2 made 2", "3 upcoming"],
            "{overlap:?}"
        );
        assert_eq!(kit.recurrence("a").made_count(), 2);
        for task in kit.recurrences_tasks("a") {
            kit.change(task.id(), Action::Delete);
        }
        kit.act("a", RecurrenceAction::Remove);
    }
}

fn p10_what_came_in_a_pause_after_the_end_is_told(kit: &mut Kit) {
    kit.recur(hourly("a").max_count(1));
    kit.fire_at(1);
    kit.act("a", RecurrenceAction::Pause);
    kit.later(3 * HOUR);
    kit.edit("a", RecurrenceEdit::new().max_count(3));
    kit.later(3 * HOUR);
    kit.act("a", RecurrenceAction::Resume);
    kit.fire();
    assert_eq!(
        explained(kit, "a", 9),
        ["1 made 1", "5 Paused", "6 Paused", "7 Paused", "8 upcoming"]
    );
}

fn p10_a_reset_in_a_pause_by_failures_leaves_the_record(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(2 * HOUR).pause_after_failures(1));
    kit.fire_at(1);
    kit.settle(&kit.claim_one(), returned(Err(Failure::fatal("no"))));
    kit.fire_at(3);
    assert!(kit.recurrence("a").overdue_since().is_some());
    kit.later(HOUR / 2);
    kit.act("a", RecurrenceAction::Reset(NOW + 3 * HOUR));
    assert_eq!(
        explained(kit, "a", 5),
        ["1 made 1", "2 Paused", "3 Paused", "4 upcoming"]
    );
    kit.act("a", RecurrenceAction::Resume);
    assert_eq!(
        explained(kit, "a", 5),
        ["1 made 1", "2 Paused", "3 Paused", "4 upcoming"]
    );
}

fn p10_a_reset_after_a_long_outage_is_told_in_one_run(kit: &mut Kit) {
    kit.recur(hourly("a").every(S).unwrap());
    kit.now = NOW + 24 * 365 * HOUR;
    kit.act("a", RecurrenceAction::Reset(kit.now - 3 * S));
    kit.fire();
    let told = explain(kit, "a", kit.now - 6 * S, kit.now + S);
    assert_eq!(told.slots().len(), 7);
}

fn p10_a_reset_may_go_to_any_year(kit: &mut Kit) {
    for zone in ["Europe/Berlin", "Africa/Monrovia", "Pacific/Apia", "UTC"] {
        let rule = Rule::cron("0 5 * * *").unwrap().time_zone(zone).unwrap();
        kit.now = NOW;
        kit.recur(
            hourly("a")
                .rule(rule)
                .since(Timestamp::MIN.to_utc())
                .missed(Missed::Latest),
        );
        kit.fire();
        kit.act("a", RecurrenceAction::Reset(Timestamp::MIN));
        kit.fire();
        kit.act("a", RecurrenceAction::Reset(Timestamp::MAX));
        kit.fire();
        kit.act("a", RecurrenceAction::Reset(NOW));
        kit.fire();
        assert!(kit.recurrence("a").next_slot().is_some(), "{zone}");
        kit.act("a", RecurrenceAction::Remove);
    }
}
