//! Alarms after steps of the clock, retries, added spans, and ends that nobody has looked for.

use super::*;

on_every_backend![
    p10_a_reset_after_a_clock_that_was_ahead_ends_the_alarm_of_that_clock,
    p10_the_slot_that_hangs_after_such_a_reset_is_told,
    p10_another_rule_after_a_clock_that_was_set_back_a_little_keeps_the_live_slot,
    p10_a_completion_meets_no_live_slot_that_has_not_come,
    p10_a_span_that_is_added_counts_for_a_task_that_was_made_late,
    p10_a_span_that_is_added_counts_for_no_slot_that_is_to_come,
    p10_a_retried_task_stays_expected_through_a_pause,
    p10_a_retried_task_is_not_met_by_an_older_one,
    p10_a_completion_that_is_late_is_told_though_nobody_looked_before,
    p10_nor_is_it_lost_by_a_longer_span_or_a_pause,
    p10_a_slot_that_is_searched_in_a_pause_by_failures_is_expected,
    p10_a_retried_task_of_which_a_span_is_added,
];

/// The clock was ahead, and the task of slot 1000 hung there until it was overdue.
fn ahead_and_back(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(15 * MINUTE));
    kit.fire_at(999);
    kit.settle(&kit.claim_one(), done());
    kit.fire_at(1_000);
    kit.claim_one();
    kit.later(30 * MINUTE);
    assert!(is_overdue(kit, "a"));
    kit.now = NOW + HOUR + 30 * MINUTE;
    kit.act("a", RecurrenceAction::Reset(kit.now));
}

fn p10_a_reset_after_a_clock_that_was_ahead_ends_the_alarm_of_that_clock(kit: &mut Kit) {
    ahead_and_back(kit);
    kit.fire();
    let since = kit.recurrence("a").overdue_since();
    assert!(
        since.is_none_or(|since| since <= kit.now.to_utc()),
        "it is {}, overdue since {since:?}",
        kit.now.to_utc()
    );
}

fn p10_the_slot_that_hangs_after_such_a_reset_is_told(kit: &mut Kit) {
    ahead_and_back(kit);
    let alarms = Alarms::of(kit);
    kit.fire_at(2);
    kit.claim_one();
    kit.later(30 * MINUTE);
    kit.fire();
    assert_eq!(alarms.take(), [RecurrenceEventKind::Overdue]);
}

/// The clock is set back by a second just after the slot has made its task, which hangs.
fn p10_another_rule_after_a_clock_that_was_set_back_a_little_keeps_the_live_slot(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(15 * MINUTE));
    kit.fire_at(1);
    kit.claim_one();
    kit.now = NOW + HOUR - S;
    let rule = Rule::every(100 * HOUR, NOW.to_utc()).unwrap();
    kit.edit("a", RecurrenceEdit::new().rule(rule));
    kit.now = NOW + HOUR + 30 * MINUTE;
    assert!(is_overdue(kit, "a"));
}

fn p10_a_completion_meets_no_live_slot_that_has_not_come(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(15 * MINUTE));
    kit.fire_at(1_000);
    kit.now = NOW + HOUR + 30 * MINUTE;
    kit.trigger("a");
    kit.settle(&kit.claim_one(), done());
    kit.now = NOW + 1_000 * HOUR;
    kit.fire();
    kit.claim_one();
    kit.later(30 * MINUTE);
    assert!(is_overdue(kit, "a"));
}

/// The slot at two waits for that at one, and makes its task at 02:20. At 02:30 a span is added, and the task hangs.
fn p10_a_span_that_is_added_counts_for_a_task_that_was_made_late(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::BufferOne));
    kit.fire_at(1);
    let first = kit.claim_one();
    kit.fire_at(2);
    kit.later(20 * MINUTE);
    kit.settle(&first, done());
    kit.claim_one();
    kit.later(10 * MINUTE);
    kit.edit("a", RecurrenceEdit::new().expect_within(15 * MINUTE));
    kit.later(15 * MINUTE);
    assert!(is_overdue(kit, "a"));
}

fn p10_a_span_that_is_added_counts_for_no_slot_that_is_to_come(kit: &mut Kit) {
    kit.recur(hourly("a"));
    kit.fire_at(5);
    kit.now = NOW + HOUR;
    kit.edit("a", RecurrenceEdit::new().expect_within(15 * MINUTE));
    kit.now = NOW + 4 * HOUR;
    assert_eq!(kit.claim(9).len(), 0, "the task of five is not due");
    assert!(!is_overdue(kit, "a"), "no slot has come");
}

fn p10_a_retried_task_stays_expected_through_a_pause(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(15 * MINUTE));
    kit.fire_at(1);
    let task = kit.claim_one();
    fails(kit, &task);
    kit.change(task.id, Action::Retry(Default::default()));
    kit.claim_one();
    kit.act("a", RecurrenceAction::Pause);
    kit.act("a", RecurrenceAction::Resume);
    kit.later(30 * MINUTE);
    assert!(is_overdue(kit, "a"));
}

fn p10_a_retried_task_is_not_met_by_an_older_one(kit: &mut Kit) {
    kit.recur(hourly("a").expect_within(15 * MINUTE));
    kit.trigger("a");
    let before = kit.claim_one();
    kit.fire_at(1);
    let task = kit.claim_one();
    fails(kit, &task);
    kit.change(task.id, Action::Retry(Default::default()));
    kit.claim_one();
    kit.settle(&before, done());
    kit.later(30 * MINUTE);
    assert!(is_overdue(kit, "a"));
}

/// As with one process that is closed over the deadline, and another that completes the task at the open, before anything is fired.
fn p10_a_completion_that_is_late_is_told_though_nobody_looked_before(kit: &mut Kit) {
    let alarms = Alarms::of(kit);
    kit.recur(hourly("a").expect_within(15 * MINUTE));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.later(30 * MINUTE);
    kit.settle(&claim, done());
    kit.fire();
    let told = [RecurrenceEventKind::Overdue, RecurrenceEventKind::Recovered];
    assert_eq!(alarms.take(), told);
}

fn p10_nor_is_it_lost_by_a_longer_span_or_a_pause(kit: &mut Kit) {
    let alarms = Alarms::of(kit);
    kit.recur(hourly("a").expect_within(15 * MINUTE));
    kit.fire_at(1);
    kit.claim_one();
    kit.later(30 * MINUTE);
    kit.act("a", RecurrenceAction::Pause);
    assert_eq!(alarms.take(), [RecurrenceEventKind::Overdue]);
}

/// Each minute except those of the next years: the search for a slot goes on for several calls.
fn searched() -> (Rule, Timestamp) {
    let second = Rule::cron("* * * * * *").unwrap();
    let gap = Rule::cron("* * * * * *").unwrap();
    let until = NOW + 24 * HOUR;
    let gap = gap
        .not_before(NOW.to_utc())
        .unwrap()
        .not_after((until - S).to_utc())
        .unwrap();
    (second.except(gap).unwrap(), until)
}

fn p10_a_slot_that_is_searched_in_a_pause_by_failures_is_expected(kit: &mut Kit) {
    kit.recur(
        hourly("a")
            .expect_within(15 * MINUTE)
            .pause_after_failures(1),
    );
    kit.trigger("a");
    let call = kit.claim_one();
    let (rule, until) = searched();
    kit.edit("a", RecurrenceEdit::new().rule(rule));
    fails(kit, &call);
    // The search takes a few calls, in the pause.
    assert_eq!(kit.recurrence("a").next_slot(), None);
    while kit.recurrence("a").next_slot().is_none() && kit.now < until {
        kit.later(MINUTE);
        kit.fire();
    }
    kit.now = until + HOUR;
    assert!(is_overdue(kit, "a"));
}

/// A task completed before; that of two failed, and is retried.
fn p10_a_retried_task_of_which_a_span_is_added(kit: &mut Kit) {
    kit.recur(hourly("a"));
    kit.fire_at(2);
    let task = kit.claim_one();
    fails(kit, &task);
    kit.change(task.id, Action::Retry(Default::default()));
    kit.edit("a", RecurrenceEdit::new().expect_within(15 * MINUTE));
    kit.later(30 * MINUTE);
    assert!(is_overdue(kit, "a"));
}
