//! Completions that are expected: when one is overdue, and when none is expected any more.

use super::*;

on_every_backend![
    p10_an_expectation_that_is_added_holds_for_the_next_slot,
    p10_an_expectation_that_is_shortened_holds_for_the_next_slot,
    p10_a_completion_is_expected_though_failures_have_paused_the_recurrence,
    p10_a_slot_that_waited_through_a_pause_is_expected_to_complete,
    p10_nothing_is_expected_of_what_has_ended,
    p10_a_live_task_is_expected_to_complete_after_a_reset_or_by_another_rule,
    p10_a_slot_that_was_met_is_expected_no_more_though_a_call_is_live,
    p10_a_reset_does_not_raise_an_alarm_again,
];

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

/// Nobody has asked for it to stop.
fn p10_a_completion_is_expected_though_failures_have_paused_the_recurrence(kit: &mut Kit) {
    let fails_at = |kit: &mut Kit, hour| {
        kit.fire_at(hour);
        kit.settle(&kit.claim_one(), returned(Err(Failure::fatal("no"))));
        assert_eq!(kit.recurrence("a").paused_by(), Some(PausedBy::Failures));
    };
    kit.recur(hourly("a").expect_within(2 * HOUR).pause_after_failures(1));
    fails_at(kit, 1);
    kit.fire_at(3);
    let since = Some((NOW + 3 * HOUR).to_utc());
    assert_eq!(kit.recurrence("a").overdue_since(), since);
    kit.act("a", RecurrenceAction::Resume);
    assert_eq!(kit.recurrence("a").overdue_since(), since);
    kit.fire_at(4);
    kit.settle(&kit.claim_one(), done());
    assert_eq!(kit.recurrence("a").overdue_since(), None);
    fails_at(kit, 5);
    kit.fire_at(9);
    assert_eq!(kit.store().health().overdue_recurrences(), ["a"]);
    kit.act("a", RecurrenceAction::Pause);
    assert_eq!(
        kit.recurrence("a").overdue_since(),
        None,
        "a caller pauses it"
    );
    kit.fire_at(99);
    assert!(kit.store().health().overdue_recurrences().is_empty());
    kit.act("a", RecurrenceAction::Resume);
    kit.fire_at(103);
    assert_eq!(kit.store().health().overdue_recurrences(), ["a"]);
}

fn p10_a_slot_that_waited_through_a_pause_is_expected_to_complete(kit: &mut Kit) {
    kit.recur(
        hourly("a")
            .overlap(Overlap::BufferOne)
            .expect_within(HOUR / 4),
    );
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.fire_at(2);
    kit.act("a", RecurrenceAction::Pause);
    kit.settle(&claim, done());
    kit.later(HOUR / 2);
    kit.act("a", RecurrenceAction::Resume);
    assert_eq!(kit.hours("a"), [1, 2]);
    kit.now = NOW + 3 * HOUR - S;
    kit.fire();
    assert!(kit.recurrence("a").overdue_since().is_some());
}

fn p10_nothing_is_expected_of_what_has_ended(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(HOUR / 4));
    kit.fire_at(1);
    kit.settle(&kit.claim_one(), done());
    // It has made as many as it may: there is no slot at two.
    kit.edit("a", RecurrenceEdit::new().max_count(1));
    assert!(kit.recurrence("a").is_ended());
    kit.fire_at(3);
    assert_eq!(kit.recurrence("a").overdue_since(), None);
}

fn p10_a_live_task_is_expected_to_complete_after_a_reset_or_by_another_rule(kit: &mut Kit) {
    let names = ["reset", "other rule"];
    for name in names {
        let hourly = hourly(name).overlap(Overlap::Skip);
        kit.recur(hourly.expect_within(HOUR / 4));
    }
    kit.fire_at(1);
    assert_eq!(kit.claim(2).len(), 2);
    kit.later(S);
    kit.act("reset", RecurrenceAction::Reset(NOW + 100 * HOUR));
    let rule = Rule::every(100 * HOUR, NOW.to_utc()).unwrap();
    kit.edit("other rule", RecurrenceEdit::new().rule(rule));
    kit.later(HOUR / 2);
    kit.fire();
    let mut overdue = kit.store().health().overdue_recurrences().to_vec();
    overdue.sort_unstable();
    assert_eq!(overdue, ["other rule", "reset"]);
}

fn p10_a_slot_that_was_met_is_expected_no_more_though_a_call_is_live(kit: &mut Kit) {
    for name in ["edit", "rule", "reset", "call before the end"] {
        kit.now = NOW;
        let hourly = hourly(name).overlap(Overlap::Allow);
        kit.recur(hourly.expect_within(HOUR / 4));
        kit.fire_at(1);
        kit.later(S);
        let claim = kit.claim_one();
        if name == "call before the end" {
            kit.trigger(name);
        }
        kit.settle(&claim, done());
        kit.later(HOUR / 2);
        kit.fire();
        kit.trigger(name);
        match name {
            "edit" => drop(kit.edit(name, RecurrenceEdit::new().priority(1))),
            "rule" => {
                let rule = Rule::every(2 * HOUR, NOW.to_utc()).unwrap();
                kit.edit(name, RecurrenceEdit::new().rule(rule));
            }
            "reset" => drop(kit.act(name, RecurrenceAction::Reset(NOW + 2 * HOUR))),
            _ => {}
        }
        kit.fire();
        assert_eq!(kit.recurrence(name).overdue_since(), None, "{name}");
        for claim in kit.claim(9) {
            kit.settle(&claim, done());
        }
        kit.act(name, RecurrenceAction::Remove);
    }
}

fn p10_a_reset_does_not_raise_an_alarm_again(kit: &mut Kit) {
    let alarms = Alarms::of(kit);
    let hourly = hourly("a").overlap(Overlap::Skip);
    kit.recur(hourly.expect_within(HOUR / 4));
    kit.fire_at(1);
    kit.claim_one();
    kit.later(HOUR / 2);
    kit.fire();
    kit.act("a", RecurrenceAction::Reset(NOW + 100 * HOUR));
    kit.fire();
    assert_eq!(alarms.take(), [RecurrenceEventKind::Overdue]);
}
