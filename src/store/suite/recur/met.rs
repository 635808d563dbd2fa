//! Slots that were met stay so, and those that were not stay expected, whatever is changed.

use super::*;

on_every_backend![
    p10_a_task_that_completed_in_time_and_is_retried_raises_no_alarm_after_a_pause,
    p10_nor_when_a_call_beside_it_completes,
    p10_nor_after_another_span_or_rule_or_a_reset,
    p10_an_alarm_is_not_told_again_by_each_call,
    p10_a_reset_to_slots_that_were_met_raises_no_alarm,
    p10_a_reset_to_the_slot_that_was_just_met_raises_no_alarm,
    p10_a_reset_to_a_slot_that_was_made_up_raises_no_alarm,
    p10_a_slot_that_failed_stays_expected_after_another_span,
    p10_a_slot_that_failed_stays_expected_after_another_rule,
    p10_a_slot_that_failed_stays_expected_after_a_reset,
    p10_a_slot_that_waits_stays_expected_after_another_span,
    p10_a_slot_that_waits_stays_expected_after_another_rule,
    p10_a_reset_to_the_past_keeps_the_slot_before_the_next,
    p10_a_reset_that_makes_the_earliest_keeps_the_slot_before_the_next,
    p10_a_reset_of_one_that_may_make_less_keeps_what_waits,
    p10_a_reset_to_what_waits_makes_it_once,
];

fn retry(kit: &Kit, id: TaskId) {
    let changed = kit.change(id, Action::Retry(Default::default()));
    assert_eq!(changed, Changed::Applied);
}

fn failed_slot(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::Skip).expect_within(HOUR / 4));
    kit.fire_at(1);
    kit.later(S);
    kit.settle(&kit.claim_one(), returned(Err(Failure::fatal("no"))));
    kit.later(S);
}

fn overdue_at_half_past_one(kit: &mut Kit) {
    kit.now = NOW + HOUR + HOUR / 2;
    kit.fire();
    assert!(kit.recurrence("a").overdue_since().is_some());
}

/// A call hangs; the slot at one waits for its end.
fn waiting_behind_call(kit: &mut Kit) {
    kit.recur(
        hourly("a")
            .overlap(Overlap::BufferOne)
            .expect_within(HOUR / 4),
    );
    kit.later(HOUR / 2);
    kit.trigger("a");
    kit.claim_one();
    kit.fire_at(1);
    assert_eq!(kit.recurrence("a").waiting_count(), 1);
    kit.later(S);
}

fn p10_a_task_that_completed_in_time_and_is_retried_raises_no_alarm_after_a_pause(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::Skip).expect_within(HOUR / 4));
    kit.fire_at(1);
    kit.later(S);
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.later(HOUR / 2);
    kit.fire();
    retry(kit, claim.id);
    kit.act("a", RecurrenceAction::Pause);
    kit.act("a", RecurrenceAction::Resume);
    kit.fire();
    assert_eq!(kit.recurrence("a").overdue_since(), None);
}

fn p10_nor_when_a_call_beside_it_completes(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(HOUR / 4));
    kit.fire_at(1);
    kit.later(S);
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.later(HOUR / 2);
    kit.fire();
    kit.trigger("a");
    let call = kit.claim_one();
    retry(kit, claim.id);
    kit.settle(&call, done());
    kit.fire();
    assert_eq!(kit.recurrence("a").overdue_since(), None);
}

fn p10_nor_after_another_span_or_rule_or_a_reset(kit: &mut Kit) {
    let mut bad = Vec::new();
    for name in ["span", "rule", "reset"] {
        kit.now = NOW;
        kit.recur(hourly(name).overlap(Overlap::Skip).expect_within(HOUR / 4));
        kit.fire_at(1);
        kit.later(S);
        let claim = kit.claim_one();
        kit.settle(&claim, done());
        kit.later(HOUR / 2);
        kit.fire();
        retry(kit, claim.id);
        match name {
            "span" => drop(kit.edit(name, RecurrenceEdit::new().expect_within(HOUR / 3))),
            "rule" => {
                let rule = Rule::every(2 * HOUR, NOW.to_utc()).unwrap();
                kit.edit(name, RecurrenceEdit::new().rule(rule));
            }
            _ => drop(kit.act(name, RecurrenceAction::Reset(kit.now))),
        }
        kit.fire();
        if kit.recurrence(name).overdue_since().is_some() {
            bad.push(name);
        }
        for claim in kit.claim(9) {
            kit.settle(&claim, done());
        }
        kit.act(name, RecurrenceAction::Remove);
    }
    assert!(bad.is_empty(), "{bad:?}");
}

fn p10_an_alarm_is_not_told_again_by_each_call(kit: &mut Kit) {
    let alarms = Alarms::of(kit);
    kit.recur(hourly("a").expect_within(HOUR / 4));
    kit.fire_at(1);
    kit.claim_one();
    kit.later(HOUR / 2);
    kit.fire();
    for _ in 0..3 {
        kit.later(S);
        kit.trigger("a");
        kit.settle(&kit.claim_one(), done());
        kit.fire();
    }
    let told = alarms.take();
    assert!(told.len() <= 2, "{told:?}");
}

fn p10_a_reset_to_slots_that_were_met_raises_no_alarm(kit: &mut Kit) {
    let mut bad = Vec::new();
    for missed in [Missed::Latest, Missed::Skip, Missed::Earliest] {
        for overlap in [Overlap::Skip, Overlap::Allow] {
            for from in [1, 2, 3, 4] {
                kit.now = NOW;
                kit.recur(
                    hourly("a")
                        .missed(missed)
                        .overlap(overlap)
                        .expect_within(HOUR / 4),
                );
                for hour in 1..=4 {
                    kit.fire_at(hour);
                    kit.later(S);
                    kit.settle(&kit.claim_one(), done());
                }
                kit.later(HOUR / 2);
                kit.fire();
                assert_eq!(kit.recurrence("a").overdue_since(), None);
                kit.act("a", RecurrenceAction::Reset(NOW + HOUR * from));
                kit.fire();
                if let Some(since) = kit.recurrence("a").overdue_since() {
                    bad.push(format!(
                        "{missed:?} {overlap:?} from {from}: since {since}, made {:?}",
                        kit.hours("a")
                    ));
                }
                for claim in kit.claim(9) {
                    kit.settle(&claim, done());
                }
                for task in kit.recurrences_tasks("a") {
                    kit.change(task.id(), Action::Delete);
                }
                kit.act("a", RecurrenceAction::Remove);
            }
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

/// Slot 1 has completed two seconds after one; a reset to one o'clock follows.
fn p10_a_reset_to_the_slot_that_was_just_met_raises_no_alarm(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::Skip).expect_within(HOUR / 4));
    kit.fire_at(1);
    kit.later(2 * S);
    kit.settle(&kit.claim_one(), done());
    kit.later(S);
    kit.act("a", RecurrenceAction::Reset(NOW + HOUR));
    kit.fire();
    kit.later(HOUR / 2);
    kit.fire();
    assert_eq!(kit.recurrence("a").overdue_since(), None);
}

/// Slot 2 was skipped and backfilled, its task is live. A reset to 2, then it completes in time.
fn p10_a_reset_to_a_slot_that_was_made_up_raises_no_alarm(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::Skip).expect_within(HOUR / 2));
    kit.fire_at(1);
    let first = kit.claim_one();
    kit.fire_at(2);
    kit.settle(&first, done());
    kit.later(S);
    assert_eq!(kit.backfill("a", 2..3), (1, 0, 0));
    kit.act("a", RecurrenceAction::Reset(NOW + 2 * HOUR));
    kit.fire();
    kit.settle(&kit.claim_one(), done());
    kit.now = NOW + 2 * HOUR + 3 * HOUR / 4;
    kit.fire();
    assert_eq!(kit.recurrence("a").overdue_since(), None);
}

fn p10_a_slot_that_failed_stays_expected_after_another_span(kit: &mut Kit) {
    failed_slot(kit);
    kit.edit("a", RecurrenceEdit::new().expect_within(HOUR / 3));
    overdue_at_half_past_one(kit);
}

fn p10_a_slot_that_failed_stays_expected_after_another_rule(kit: &mut Kit) {
    failed_slot(kit);
    let rule = Rule::every(100 * HOUR, NOW.to_utc()).unwrap();
    kit.edit("a", RecurrenceEdit::new().rule(rule));
    overdue_at_half_past_one(kit);
}

fn p10_a_slot_that_failed_stays_expected_after_a_reset(kit: &mut Kit) {
    failed_slot(kit);
    kit.act("a", RecurrenceAction::Reset(kit.now));
    overdue_at_half_past_one(kit);
}

fn p10_a_slot_that_waits_stays_expected_after_another_span(kit: &mut Kit) {
    waiting_behind_call(kit);
    kit.edit("a", RecurrenceEdit::new().expect_within(HOUR / 3));
    overdue_at_half_past_one(kit);
}

fn p10_a_slot_that_waits_stays_expected_after_another_rule(kit: &mut Kit) {
    waiting_behind_call(kit);
    let rule = Rule::every(100 * HOUR, NOW.to_utc()).unwrap();
    kit.edit("a", RecurrenceEdit::new().rule(rule));
    overdue_at_half_past_one(kit);
}

fn p10_a_reset_to_the_past_keeps_the_slot_before_the_next(kit: &mut Kit) {
    kit.recur(hourly("a").missed(Missed::Skip));
    for hour in 1..=3 {
        kit.fire_at(hour);
        kit.settle(&kit.claim_one(), done());
    }
    kit.later(HOUR / 2);
    kit.act("a", RecurrenceAction::Reset(NOW + 2 * HOUR));
    kit.fire();
    let told = explained(kit, "a", 4);
    kit.fire_at(4);
    let next = kit.claim_one();
    let slot = next
        .options
        .as_ref()
        .and_then(|options| options.slot.as_ref());
    let previous = slot.unwrap().previous.map(|at| hour_of(at.to_utc()));
    assert_eq!(previous, Some(3), "{told:?}");
}

fn p10_a_reset_that_makes_the_earliest_keeps_the_slot_before_the_next(kit: &mut Kit) {
    kit.recur(hourly("a").missed(Missed::Earliest));
    for hour in 1..=3 {
        kit.fire_at(hour);
        kit.settle(&kit.claim_one(), done());
    }
    kit.later(HOUR / 2);
    kit.act("a", RecurrenceAction::Reset(NOW + 2 * HOUR));
    kit.fire();
    assert_eq!(explained(kit, "a", 4), ["1 made 1", "2 made 2", "3 made 3"]);
    assert_eq!(kit.recurrence("a").previous_slot().map(hour_of), Some(3));
}

/// As b1, by a program that declares a smaller number; one has ended since.
fn p10_a_reset_of_one_that_may_make_less_keeps_what_waits(kit: &mut Kit) {
    let buffered = || hourly("a").overlap(Overlap::BufferOne);
    kit.recur(buffered().max_count(9));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.fire_at(2);
    kit.recur(buffered().max_count(1));
    kit.later(S);
    kit.act("a", RecurrenceAction::Reset(NOW + 2 * HOUR));
    kit.fire();
    kit.settle(&claim, done());
    kit.fire();
    let (hours, told) = (kit.hours("a"), explained(kit, "a", 4));
    let filled = kit.backfill("a", 2..3);
    assert!(
        hours == [1, 2] || told == ["1 made 1"],
        "tasks {hours:?}, told {told:?}, backfill {filled:?}"
    );
}

/// max_count 3: 1 live, 2 and 3 wait: ended. Reset from 3, then all end.
fn p10_a_reset_to_what_waits_makes_it_once(kit: &mut Kit) {
    kit.recur(
        hourly("a")
            .overlap(Overlap::BufferAll { max: 9 })
            .max_count(3),
    );
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.fire_at(2);
    kit.fire_at(3);
    kit.later(S);
    kit.act("a", RecurrenceAction::Reset(NOW + 3 * HOUR));
    kit.fire();
    kit.settle(&claim, done());
    kit.settle(&kit.claim_one(), done());
    kit.settle(&kit.claim_one(), done());
    kit.fire_at(6);
    assert_eq!(kit.hours("a"), [1, 2, 3]);
    assert_eq!(explained(kit, "a", 7), ["1 made 1", "2 made 2", "3 made 3"]);
}
