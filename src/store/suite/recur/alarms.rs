//! Alarms around changes: a live task of a slot stays expected, a call never is, and no alarm is told twice.

use super::*;

on_every_backend![
    p10_the_live_task_of_a_slot_that_waited_stays_expected_after_a_change,
    p10_a_call_meets_the_slots_before_it,
    p10_a_call_meets_no_slot_after_it,
    p10_the_live_task_of_a_slot_that_was_decided_again_is_expected,
    p10_the_live_task_of_a_slot_stays_expected_after_a_clock_that_was_ahead,
    p10_a_task_from_a_clock_that_was_ahead_does_not_meet_the_live_slot,
    p10_a_live_call_raises_no_alarm_after_a_pause,
    p10_a_call_behind_a_slot_that_was_decided_again_raises_no_alarm,
    p10_a_call_beside_a_deleted_task_raises_no_alarm,
    p10_an_alarm_that_stands_is_not_told_again_after_another_rule,
    p10_an_alarm_follows_another_span,
];

/// The recurrences of these names that are overdue half an hour after a slot, after each was changed as its name says.
fn overdue_after_changes(
    kit: &mut Kit,
    names: &[&'static str],
    slot: u32,
    mut begin: impl FnMut(&mut Kit, &str),
) -> Vec<&'static str> {
    let mut overdue = Vec::new();
    for name in names {
        kit.now = NOW;
        begin(kit, name);
        match *name {
            "reset" => drop(kit.act(name, RecurrenceAction::Reset(NOW + 100 * HOUR))),
            "rule" => {
                let rule = Rule::every(100 * HOUR, NOW.to_utc()).unwrap();
                kit.edit(name, RecurrenceEdit::new().rule(rule));
            }
            "within" => drop(kit.edit(name, RecurrenceEdit::new().expect_within(HOUR / 3))),
            _ => {}
        }
        kit.now = NOW + slot * HOUR + HOUR / 2;
        kit.fire();
        if kit.recurrence(name).overdue_since().is_some() {
            overdue.push(*name);
        }
        kit.act(name, RecurrenceAction::Remove);
    }
    overdue
}

/// The slot at one runs long. That at two waits for it, is made five minutes after two, and hangs.
fn p10_the_live_task_of_a_slot_that_waited_stays_expected_after_a_change(kit: &mut Kit) {
    let names = ["as it was", "reset", "rule", "within"];
    let overdue = overdue_after_changes(kit, &names, 2, |kit, name| {
        let hourly = hourly(name).overlap(Overlap::BufferOne);
        kit.recur(hourly.expect_within(HOUR / 4));
        kit.fire_at(1);
        let claim = kit.claim_one();
        kit.fire_at(2);
        kit.later(HOUR / 12);
        kit.settle(&claim, done());
        kit.claim_one();
        kit.later(HOUR / 60);
    });
    assert_eq!(overdue, names);
}

/// The task of the slot at one hangs, and a call after it completes.
fn p10_a_call_meets_the_slots_before_it(kit: &mut Kit) {
    let names = ["as it was", "rule"];
    let overdue = overdue_after_changes(kit, &names, 1, |kit, name| {
        kit.recur(hourly(name).expect_within(HOUR / 4));
        kit.fire_at(1);
        kit.claim_one();
        kit.later(S);
        kit.trigger(name);
        kit.settle(&kit.claim_one(), done());
    });
    assert_eq!(overdue, [""; 0]);
}

/// The task of the slot at one hangs, and a call from before it completes.
fn p10_a_call_meets_no_slot_after_it(kit: &mut Kit) {
    let names = ["as it was", "rule"];
    let overdue = overdue_after_changes(kit, &names, 1, |kit, name| {
        kit.recur(hourly(name).expect_within(HOUR / 4));
        kit.trigger(name);
        let call = kit.claim_one();
        kit.fire_at(1);
        kit.claim_one();
        kit.later(S);
        kit.settle(&call, done());
    });
    assert_eq!(overdue, names);
}

fn p10_the_live_task_of_a_slot_that_was_decided_again_is_expected(kit: &mut Kit) {
    let names = ["as it was", "decided again"];
    let overdue = overdue_after_changes(kit, &names, 1, |kit, name| {
        kit.recur(hourly(name).overlap(Overlap::Skip));
        kit.fire_at(1);
        kit.claim_one();
        kit.later(S);
        if name == "decided again" {
            kit.act(name, RecurrenceAction::Reset(NOW + HOUR));
            kit.fire();
        }
        kit.edit(name, RecurrenceEdit::new().expect_within(HOUR / 4));
    });
    assert_eq!(overdue, names);
}

/// A task completed when the clock was far ahead. The clock came back, and the task of the slot at two hangs.
fn p10_the_live_task_of_a_slot_stays_expected_after_a_clock_that_was_ahead(kit: &mut Kit) {
    let names = ["as it was", "rule", "within", "reset"];
    let overdue = overdue_after_changes(kit, &names, 2, |kit, name| {
        kit.recur(hourly(name).expect_within(HOUR / 4));
        kit.fire_at(1_000);
        kit.settle(&kit.claim_one(), done());
        kit.now = NOW + HOUR + HOUR / 2;
        kit.act(name, RecurrenceAction::Reset(kit.now));
        kit.fire_at(2);
        kit.claim_one();
        kit.later(S);
    });
    assert_eq!(overdue, names);
}

fn p10_a_task_from_a_clock_that_was_ahead_does_not_meet_the_live_slot(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(HOUR / 4));
    kit.fire_at(1_000);
    let ahead = kit.claim_one();
    kit.now = NOW + HOUR + HOUR / 2;
    kit.act("a", RecurrenceAction::Reset(kit.now));
    kit.fire_at(2);
    kit.claim_one();
    kit.later(S);
    kit.settle(&ahead, done());
    // The task of the slot at two hangs.
    kit.now = NOW + 2 * HOUR + HOUR / 2;
    kit.fire();
    assert!(kit.recurrence("a").overdue_since().is_some());
}

fn p10_a_live_call_raises_no_alarm_after_a_pause(kit: &mut Kit) {
    for is_called_in_the_pause in [true, false] {
        kit.now = NOW;
        kit.recur(hourly("a").expect_within(HOUR / 4));
        kit.fire_at(1);
        kit.settle(&kit.claim_one(), done());
        kit.later(HOUR / 2);
        if is_called_in_the_pause {
            kit.act("a", RecurrenceAction::Pause);
            kit.trigger("a");
        } else {
            kit.trigger("a");
            kit.act("a", RecurrenceAction::Pause);
        }
        let call = kit.claim_one();
        kit.act("a", RecurrenceAction::Resume);
        kit.fire();
        assert_eq!(kit.recurrence("a").overdue_since(), None);
        kit.settle(&call, done());
        for task in kit.recurrences_tasks("a") {
            kit.change(task.id(), Action::Delete);
        }
        kit.act("a", RecurrenceAction::Remove);
    }
}

/// Slot 1 is decided again while its task is live; a call waits for its end. The task of slot 1 completes, and the call is met.
fn p10_a_call_behind_a_slot_that_was_decided_again_raises_no_alarm(kit: &mut Kit) {
    kit.recur(
        hourly("a")
            .overlap(Overlap::BufferOne)
            .expect_within(HOUR / 4),
    );
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.later(S);
    kit.act("a", RecurrenceAction::Reset(NOW + HOUR));
    kit.fire();
    kit.trigger("a");
    kit.settle(&claim, done());
    kit.later(HOUR / 2);
    kit.fire();
    assert_eq!(kit.recurrence("a").overdue_since(), None);
}

fn p10_a_call_beside_a_deleted_task_raises_no_alarm(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(HOUR / 4));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.later(S);
    kit.trigger("a");
    let settle = Op::Settle(vec![kit.ended(&claim, done()).into()]);
    let delete = Op::Change {
        id: claim.id,
        action: Action::Delete,
    };
    kit.store().apply(kit.now, vec![settle, delete]).unwrap();
    kit.later(HOUR / 2);
    kit.fire();
    assert_eq!(kit.recurrence("a").overdue_since(), None);
}

fn p10_an_alarm_that_stands_is_not_told_again_after_another_rule(kit: &mut Kit) {
    let alarms = Alarms::of(kit);
    let recurrence = hourly("a").overlap(Overlap::Skip);
    kit.recur(recurrence.expect_within(HOUR / 4));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.later(HOUR / 2);
    kit.fire();
    let rule = Rule::every(100 * HOUR, NOW.to_utc()).unwrap();
    kit.edit("a", RecurrenceEdit::new().rule(rule));
    kit.fire();
    kit.settle(&claim, done());
    let expected = [RecurrenceEventKind::Overdue, RecurrenceEventKind::Recovered];
    assert_eq!(alarms.take(), expected);
}

fn p10_an_alarm_follows_another_span(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::Skip).expect_within(HOUR / 4));
    kit.fire_at(1);
    kit.claim_one();
    kit.later(HOUR / 2);
    kit.fire();
    let overdue = |kit: &Kit| kit.recurrence("a").overdue_since();
    let by = |span| Some((NOW + HOUR + span).to_utc());
    assert_eq!(overdue(kit), by(HOUR / 4));
    kit.edit("a", RecurrenceEdit::new().expect_within(HOUR / 3));
    assert_eq!(overdue(kit), by(HOUR / 3), "by both");
    kit.edit("a", RecurrenceEdit::new().expect_within(3 * HOUR / 4));
    assert_eq!(overdue(kit), None);
    kit.later(HOUR / 4);
    kit.fire();
    assert_eq!(overdue(kit), by(3 * HOUR / 4));
}
