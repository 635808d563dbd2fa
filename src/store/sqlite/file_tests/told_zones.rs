//! After a change of the time zone database: what is told of slots that were decided before, and what it is no change for.

use std::time::Duration;

use super::on_a_file;
use super::updated_zones::{cron, replace, store, update};
use super::zones::{at, decided_by_newer, explain, fire};
use crate::model::filter::Filter;
use crate::model::new_task::NewTask;
use crate::model::op::{Action, Op};
use crate::model::recurrence::explain::SlotFate;
use crate::model::recurrence::policy::{Missed, Overlap};
use crate::model::recurrence::request::Recurrence;
use crate::model::recurrence::rule::Rule;
use crate::model::recurrence::view::{RecurrenceAction, RecurrenceChanged};
use crate::store::sqlite::kit::File;
use crate::store::suite::{Kit, done};

on_a_file!(
    p10_a_waiting_slot_does_not_meet_itself_after_a_move,
    p10_a_civil_time_that_comes_again_before_the_first_slot_is_not_lost,
    p10_a_civil_time_that_was_made_before_a_reset_does_not_come_again,
    p10_an_update_before_the_first_slot_forgets_nothing,
    p10_an_update_leaves_the_record_of_a_rule_without_zones,
    p10_a_missed_slot_that_has_a_task_is_told_as_made,
    p10_a_reset_after_a_move_tells_a_slot_that_has_a_task_as_made,
    p10_an_older_program_decides_in_chunks_before_its_reset,
    p10_a_backfill_after_a_move_makes_nothing_twice,
);

fn act(kit: &Kit, action: RecurrenceAction) -> RecurrenceChanged {
    let name = "a".to_owned();
    kit.apply(Op::ChangeRecurrence { name, action })
        .recurrence_changed()
}

/// How many tasks of it are stored.
fn made(kit: &Kit) -> usize {
    let page = kit.list(&Filter::new().recurrence("a").limit(100));
    page.tasks().len()
}

/// Deletes its tasks and itself.
fn remove(kit: &Kit) {
    for claim in kit.claim(99) {
        kit.settle(&claim, done());
    }
    for task in kit.list(&Filter::new().recurrence("a").limit(100)).tasks() {
        kit.change(task.id(), Action::Delete);
    }
    act(kit, RecurrenceAction::Remove);
}

/// 13:00 was 11:00Z, its task runs. 14:00 was 12:00Z, and waits. Now 15:00 is 12:00Z.
fn p10_a_waiting_slot_does_not_meet_itself_after_a_move(kit: &mut Kit) {
    let overlaps = [
        Overlap::BufferOne,
        Overlap::BufferAll { max: 9 },
        Overlap::CancelPrevious,
    ];
    for overlap in overlaps {
        kit.now = at("2026-07-01T10:30:00Z");
        store(kit, cron("0 0-23 * * *").overlap(overlap));
        kit.now = at("2026-07-01T11:00:00Z");
        fire(kit);
        let claim = kit.claim_one();
        kit.now = at("2026-07-01T12:00:00Z");
        fire(kit);
        update(kit, "Etc/GMT-2", "Etc/GMT-3");
        let told = || explain(kit, at("2026-07-01T12:00:00Z"), at("2026-07-01T12:30:00Z"));
        let waits = told();
        assert!(
            matches!(waits[..], [(_, SlotFate::Waiting(_))]),
            "{overlap:?}: {waits:?}"
        );
        kit.settle(&claim, done());
        fire(kit);
        let is_made = told();
        assert!(
            matches!(is_made[..], [(_, SlotFate::Made(_))]),
            "{overlap:?}: {is_made:?}"
        );
        remove(kit);
    }
}

/// It was stored at 11:10Z, when it was thought to be ten past one. It is ten past twelve: one o'clock is to come, and was never
/// made.
fn p10_a_civil_time_that_comes_again_before_the_first_slot_is_not_lost(kit: &mut Kit) {
    kit.now = at("2026-07-01T11:10:00Z");
    store(kit, cron("0 13 * * *"));
    update(kit, "Etc/GMT-2", "Etc/GMT-1");
    kit.now = at("2026-07-01T12:00:00Z");
    fire(kit);
    let told = explain(kit, at("2026-07-01T11:00:00Z"), at("2026-07-01T13:00:00Z"));
    assert_eq!((made(kit), told.len()), (1, 1));
}

/// 13:00 was 11:00Z, and was made. A reset to ten past; then one o'clock is to come again.
fn p10_a_civil_time_that_was_made_before_a_reset_does_not_come_again(kit: &mut Kit) {
    kit.now = at("2026-07-01T10:00:00Z");
    store(kit, cron("0 13 * * *"));
    kit.now = at("2026-07-01T11:10:00Z");
    act(kit, RecurrenceAction::Reset(kit.now));
    assert_eq!(made(kit), 1);
    update(kit, "Etc/GMT-2", "Etc/GMT-1");
    kit.now = at("2026-07-01T12:00:00Z");
    fire(kit);
    assert_eq!(made(kit), 1, "no local time twice");
}

/// Nothing is decided yet. The caller fills the days before.
fn p10_an_update_before_the_first_slot_forgets_nothing(kit: &mut Kit) {
    kit.now = at("2026-07-05T11:10:00Z");
    store(kit, cron("0 13 * * *"));
    update(kit, "Etc/GMT-2", "Etc/GMT-3");
    let action = RecurrenceAction::Backfill {
        from: at("2026-07-01T00:00:00Z"),
        to: at("2026-07-05T00:00:00Z"),
    };
    let RecurrenceChanged::Backfilled(filled, _) = act(kit, action) else {
        panic!("it is stored")
    };
    assert_eq!((filled.made_count(), filled.forgotten_count()), (4, 0));
}

/// Each hour without a zone; then another rule, of which nothing is decided. The update cannot have moved what was before.
fn p10_an_update_leaves_the_record_of_a_rule_without_zones(kit: &mut Kit) {
    kit.now = at("2026-07-01T10:30:00Z");
    let hourly = Recurrence::new("a", NewTask::with_kind("probe", &1));
    store(
        kit,
        hourly.cron("0 * * * *").unwrap().overlap(Overlap::Allow),
    );
    for hour in 11..16 {
        kit.now = at(&format!("2026-07-01T{hour}:00:00Z"));
        fire(kit);
    }
    kit.now = at("2026-07-01T15:10:00Z");
    store(kit, cron("0 13 * * *").overlap(Overlap::Allow));
    update(kit, "Etc/GMT-2", "Etc/GMT-1");
    let told = explain(kit, at("2026-07-01T10:00:00Z"), at("2026-07-01T16:00:00Z"));
    assert_eq!(told.len(), 5, "{told:?}");
}

/// 13:00 was 11:00Z, and was made. The program was down; now 14:00 is 11:00Z, and 15:00 12:00Z.
fn p10_a_missed_slot_that_has_a_task_is_told_as_made(kit: &mut Kit) {
    kit.now = at("2026-07-01T10:30:00Z");
    store(kit, cron("0 0-23 * * *").overlap(Overlap::Allow));
    kit.now = at("2026-07-01T11:00:00Z");
    fire(kit);
    kit.now = at("2026-07-01T12:30:00Z");
    update(kit, "Etc/GMT-2", "Etc/GMT-3");
    let told = explain(kit, at("2026-07-01T11:00:00Z"), at("2026-07-01T11:30:00Z"));
    assert!(matches!(told[..], [(_, SlotFate::Made(_))]), "{told:?}");
}

/// 13:00 was 11:00Z, and was made. Now 14:00 is 11:00Z.
fn p10_a_reset_after_a_move_tells_a_slot_that_has_a_task_as_made(kit: &mut Kit) {
    kit.now = at("2026-07-01T10:30:00Z");
    store(kit, cron("0 0-23 * * *").overlap(Overlap::Allow));
    kit.now = at("2026-07-01T11:00:00Z");
    fire(kit);
    replace(kit, "Etc/GMT-2", "Etc/GMT-3");
    kit.now = at("2026-07-01T11:00:30Z");
    act(kit, RecurrenceAction::Reset(kit.now));
    fire(kit);
    let told = explain(kit, at("2026-07-01T11:00:00Z"), at("2026-07-01T11:30:00Z"));
    assert!(!matches!(told[..], [(_, SlotFate::Skipped(_))]), "{told:?}");
}

fn p10_an_older_program_decides_in_chunks_before_its_reset(kit: &mut Kit) {
    kit.now = at("2026-07-01T10:30:00Z");
    let all = cron("* * * * *").missed(Missed::All { max: 10_000 });
    store(
        kit,
        all.overlap(Overlap::Allow)
            .window(Duration::from_secs(40 * 86_400)),
    );
    decided_by_newer(kit);
    kit.now = at("2026-07-11T10:30:00Z");
    let action = RecurrenceAction::Reset(at("2026-07-12T10:30:00Z"));
    let reset = Op::ChangeRecurrence {
        name: "a".to_owned(),
        action: action.clone(),
    };
    while kit.apply(Op::DecideBefore(Box::new(reset.clone()))).done() > 0 {}
    let before = kit.rows("task");
    act(kit, action);
    let made = kit.rows("task") - before;
    assert!(made <= 501, "{made} in one transaction");
}

/// 13:00 was 11:00Z, and is 12:00Z. Beside it there are slots each 20 minutes. A backfill of all makes none of them again.
fn p10_a_backfill_after_a_move_makes_nothing_twice(kit: &mut Kit) {
    for (to, label) in [("Etc/GMT-1", "back"), ("Etc/GMT-3", "ahead")] {
        kit.now = at("2026-07-01T10:55:00Z");
        let every = Rule::every(
            Duration::from_secs(1_200),
            at("2026-07-01T00:05:00Z").to_utc(),
        )
        .unwrap();
        let nightly = Rule::cron("0,30 0-23 * * *")
            .unwrap()
            .time_zone("Etc/GMT-2")
            .unwrap();
        let recurrence = Recurrence::new("a", NewTask::with_kind("probe", &1));
        let recurrence = recurrence.rule(Rule::any_of([every, nightly]).unwrap());
        store(kit, recurrence.overlap(Overlap::Allow));
        kit.now = at("2026-07-01T11:00:00Z");
        fire(kit);
        update(kit, "Etc/GMT-2", to);
        for minute in 1..=240 {
            kit.now = at("2026-07-01T11:00:00Z") + Duration::from_secs(60 * minute);
            fire(kit);
        }
        let before = made(kit);
        let action = RecurrenceAction::Backfill {
            from: at("2026-07-01T11:00:00Z"),
            to: at("2026-07-01T15:30:00Z"),
        };
        let RecurrenceChanged::Backfilled(filled, _) = act(kit, action) else {
            panic!("it is stored")
        };
        assert_eq!(made(kit), before, "{label}");
        assert_eq!(filled.made_count(), 0, "{label}");
        remove(kit);
    }
}
