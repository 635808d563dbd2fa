//! What a change of a recurrence passes over is told.

use super::*;

on_every_backend![
    p10_another_rule_in_a_pause_leaves_the_record_of_the_pause,
    p10_a_reset_in_a_pause_leaves_the_record_of_the_pause,
    p10_a_reset_passes_over_no_due_slot_in_silence,
    p10_a_slot_that_is_decided_again_does_not_meet_its_own_task,
    p10_what_comes_after_the_end_is_no_slot_of_a_pause,
    p10_many_superseded_slots_are_one_run,
];

/// Paused after half an hour; now three and a half hours have passed.
fn paused(kit: &mut Kit) {
    kit.recur(hourly("a"));
    kit.later(HOUR / 2);
    kit.act("a", RecurrenceAction::Pause);
    kit.later(3 * HOUR);
}

fn p10_another_rule_in_a_pause_leaves_the_record_of_the_pause(kit: &mut Kit) {
    paused(kit);
    let rule = Rule::every(2 * HOUR, NOW.to_utc()).unwrap();
    kit.edit("a", RecurrenceEdit::new().rule(rule));
    kit.act("a", RecurrenceAction::Resume);
    assert_eq!(
        explained(kit, "a", 5),
        ["1 Paused", "2 Paused", "3 Paused", "4 upcoming"]
    );
}

fn p10_a_reset_in_a_pause_leaves_the_record_of_the_pause(kit: &mut Kit) {
    paused(kit);
    kit.act("a", RecurrenceAction::Reset(NOW + 5 * HOUR));
    kit.act("a", RecurrenceAction::Resume);
    assert_eq!(explained(kit, "a", 4), ["1 Paused", "2 Paused", "3 Paused"]);
    assert!(kit.recurrences_tasks("a").is_empty());
}

fn p10_a_reset_passes_over_no_due_slot_in_silence(kit: &mut Kit) {
    let overlaps = [
        Overlap::Allow,
        Overlap::Skip,
        Overlap::BufferOne,
        Overlap::CancelPrevious,
    ];
    for (max_count, overlap) in [(1, Overlap::Allow)]
        .into_iter()
        .chain(overlaps.map(|each| (9, each)))
    {
        kit.now = NOW;
        kit.recur(hourly("a").overlap(overlap).max_count(max_count));
        kit.later(5 * HOUR + HOUR / 2);
        kit.act("a", RecurrenceAction::Reset(NOW + 4 * HOUR));
        kit.fire();
        let tasks = kit.recurrences_tasks("a");
        let states: Vec<TaskState> = tasks.iter().map(Task::state).collect();
        assert_eq!(states, [TaskState::Pending], "{overlap:?}");
        assert_eq!(
            explained(kit, "a", 6),
            ["1 Missed", "2 Missed", "3 Missed", "4 Missed", "5 made 5"],
            "{overlap:?}"
        );
        kit.change(tasks[0].id(), Action::Cancel);
        kit.change(tasks[0].id(), Action::Delete);
        kit.act("a", RecurrenceAction::Remove);
    }
}

fn p10_a_slot_that_is_decided_again_does_not_meet_its_own_task(kit: &mut Kit) {
    for overlap in [Overlap::CancelPrevious, Overlap::Skip, Overlap::BufferOne] {
        let name = format!("{overlap:?}");
        kit.now = NOW;
        kit.recur(hourly(&name).overlap(overlap));
        kit.fire_at(1);
        kit.act(&name, RecurrenceAction::Reset(NOW + HOUR));
        kit.fire();
        let tasks = kit.recurrences_tasks(&name);
        let states: Vec<TaskState> = tasks.iter().map(Task::state).collect();
        assert_eq!(states, [TaskState::Pending], "{name}");
        assert_eq!(explained(kit, &name, 2), ["1 made 1"], "{name}");
        assert_eq!(kit.recurrence(&name).made_count(), 1, "{name}");
    }
}

fn p10_what_comes_after_the_end_is_no_slot_of_a_pause(kit: &mut Kit) {
    kit.recur(hourly("a").max_count(1));
    kit.fire_at(1);
    kit.fire_at(4);
    kit.act("a", RecurrenceAction::Pause);
    kit.later(3 * HOUR);
    kit.act("a", RecurrenceAction::Resume);
    assert_eq!(explained(kit, "a", 6), ["1 made 1"]);
}

fn p10_many_superseded_slots_are_one_run(kit: &mut Kit) {
    const SLOTS: u32 = 1_200;
    kit.recur(hourly("a").overlap(Overlap::BufferAll { max: 5_000 }));
    for hour in 1..=SLOTS {
        kit.fire_at(hour);
    }
    kit.claim_one();
    kit.edit("a", RecurrenceEdit::new().overlap(Overlap::CancelPrevious));
    kit.fire_at(SLOTS + 1);
    let all = explain(kit, "a", NOW, NOW + HOUR * (SLOTS + 2));
    assert_eq!(all.forgotten_until(), None, "the record is full of them");
    let superseded = SlotFate::Skipped(SkipReason::Superseded);
    let count = all.slots().iter().filter(|each| each.fate() == superseded);
    assert_eq!(
        count.count(),
        999,
        "of a thousand that are told the first made its task"
    );
}
