//! A newer time zone database beside overlap, ends, resets and the record.

use std::time::Duration;

use super::on_a_file;
use super::zones::{at, decided_by_newer, explain, fire, recur};
use crate::model::filter::Filter;
use crate::model::new_task::NewTask;
use crate::model::op::Op;
use crate::model::recurrence::edit::RecurrenceEdit;
use crate::model::recurrence::explain::SlotFate;
use crate::model::recurrence::policy::Overlap;
use crate::model::recurrence::request::Recurrence;
use crate::model::recurrence::rule::Rule;
use crate::model::recurrence::view::RecurrenceAction;
use crate::model::task::TaskState;
use crate::store::sqlite::kit::File;
use crate::store::suite::Kit;

on_a_file!(
    p10_a_civil_time_that_has_moved_to_a_decided_instant_does_not_meet_its_task,
    p10_a_revived_recurrence_repeats_no_civil_time,
    p10_a_civil_time_is_not_lost_before_the_first_slot,
    p10_an_old_program_s_reset_passes_over_no_due_slot_in_silence,
    p10_a_civil_time_that_was_decided_is_not_told_as_made_again,
);

/// As by a program with another time zone database, by which the zone is another.
pub(super) fn replace(kit: &Kit, from: &str, to: &str) {
    kit.sql(|conn| {
        let sql = "UPDATE punctual_recurrence_definition
            SET definition = CAST(replace(CAST(definition AS TEXT), ?, ?) AS BLOB)";
        conn.execute(sql, [from, to]).unwrap();
        let sql = "UPDATE punctual_recurrence
            SET tzdb = '1999a', decided_civil = replace(decided_civil, ?, ?)";
        conn.execute(sql, [from, to]).unwrap();
    });
}

pub(super) fn update(kit: &Kit, from: &str, to: &str) {
    replace(kit, from, to);
    fire(kit);
}

pub(super) fn cron(expression: &str) -> Recurrence {
    let recurrence = Recurrence::new("a", NewTask::with_kind("probe", &1));
    let recurrence = recurrence.cron(expression).unwrap();
    recurrence.time_zone("Etc/GMT-2").unwrap()
}

pub(super) fn store(kit: &Kit, recurrence: Recurrence) {
    let registration = recurrence.prepare(kit.now).unwrap();
    kit.apply(Op::Recur(Box::new(registration)));
}

fn act(kit: &Kit, action: RecurrenceAction) {
    let name = "a".to_owned();
    kit.apply(Op::ChangeRecurrence { name, action });
}

/// The slots that have tasks, and the states of these.
fn tasks(kit: &Kit) -> Vec<(String, TaskState)> {
    let page = kit.list(&Filter::new().recurrence("a").limit(100));
    let tasks = page.tasks().iter();
    tasks
        .map(|task| {
            let slot = task.slot().unwrap().format("%d %H:%M");
            (slot.to_string(), task.state())
        })
        .collect()
}

/// 13:00 was 11:00Z, and its task is live. Now 14:00 is 11:00Z.
fn p10_a_civil_time_that_has_moved_to_a_decided_instant_does_not_meet_its_task(kit: &mut Kit) {
    for overlap in [Overlap::Skip, Overlap::CancelPrevious, Overlap::BufferOne] {
        kit.now = at("2026-07-01T10:30:00Z");
        store(kit, cron("0 0-23 * * *").overlap(overlap));
        kit.now = at("2026-07-01T11:00:00Z");
        fire(kit);
        update(kit, "Etc/GMT-2", "Etc/GMT-3");
        let made = [("01 11:00".to_owned(), TaskState::Pending)];
        assert_eq!(tasks(kit), made, "{overlap:?}");
        let told = explain(kit, at("2026-07-01T11:00:00Z"), at("2026-07-01T11:30:00Z"));
        assert!(matches!(told[..], [(_, SlotFate::Made(_))]), "{told:?}");
        for claim in kit.claim(9) {
            kit.settle(&claim, crate::store::suite::done());
            kit.change(claim.id, crate::model::op::Action::Delete);
        }
        act(kit, RecurrenceAction::Remove);
    }
}

/// Half past two was 00:30Z, and made the last task. It is 01:30Z now, and more tasks are allowed.
fn p10_a_revived_recurrence_repeats_no_civil_time(kit: &mut Kit) {
    kit.now = at("2026-07-01T12:00:00Z");
    store(kit, cron("30 2 * * *").overlap(Overlap::Allow).max_count(1));
    kit.now = at("2026-07-02T00:30:00Z");
    fire(kit);
    update(kit, "Etc/GMT-2", "Etc/GMT-1");
    kit.now = at("2026-07-02T00:40:00Z");
    let patch = RecurrenceEdit::new().max_count(9).prepare().unwrap();
    act(kit, RecurrenceAction::Edit(Box::new(patch)));
    kit.now = at("2026-07-02T01:30:00Z");
    fire(kit);
    assert_eq!(tasks(kit).len(), 1);
    kit.now = at("2026-07-03T01:30:00Z");
    fire(kit);
    assert_eq!(tasks(kit).len(), 2);
}

/// It was stored at 11:10Z, at ten past one. Two o'clock is 11:00Z now.
fn p10_a_civil_time_is_not_lost_before_the_first_slot(kit: &mut Kit) {
    kit.now = at("2026-07-01T11:10:00Z");
    store(kit, cron("0 14 * * *"));
    update(kit, "Etc/GMT-2", "Etc/GMT-3");
    assert_eq!(tasks(kit).len(), 1);
}

fn p10_an_old_program_s_reset_passes_over_no_due_slot_in_silence(kit: &mut Kit) {
    kit.now = at("2026-07-01T12:00:00Z");
    recur(kit, "a", "Europe/Berlin");
    decided_by_newer(kit);
    kit.now = at("2026-07-02T00:30:01Z");
    act(kit, RecurrenceAction::Reset(at("2026-07-02T12:00:00Z")));
    fire(kit);
    let told = explain(kit, at("2026-07-02T00:00:00Z"), at("2026-07-02T01:00:00Z"));
    assert_eq!((told.len(), kit.rows("task")), (1, 1), "{told:?}");
}

/// Half past two was 00:30Z, and is 01:30Z now. Each twenty minutes there are other slots.
fn p10_a_civil_time_that_was_decided_is_not_told_as_made_again(kit: &mut Kit) {
    kit.now = at("2026-07-02T00:25:00Z");
    let start = at("2026-07-02T00:00:00Z");
    let every = Rule::every(Duration::from_secs(1_200), start.to_utc()).unwrap();
    let nightly = Rule::cron("30 2 * * *").unwrap();
    let nightly = nightly.time_zone("Etc/GMT-2").unwrap();
    let recurrence = Recurrence::new("a", NewTask::with_kind("probe", &1));
    let recurrence = recurrence.rule(Rule::any_of([every, nightly]).unwrap());
    store(kit, recurrence.overlap(Overlap::Allow));
    kit.now = at("2026-07-02T00:30:00Z");
    fire(kit);
    update(kit, "Etc/GMT-2", "Etc/GMT-1");
    for minute in 31..=100 {
        kit.now = start + Duration::from_secs(60 * minute);
        fire(kit);
    }
    let made: Vec<String> = tasks(kit).into_iter().map(|(slot, _)| slot).collect();
    for (slot, fate) in explain(kit, at("2026-07-02T00:31:00Z"), at("2026-07-02T01:41:00Z")) {
        let slot = slot.format("%d %H:%M").to_string();
        assert!(made.contains(&slot), "{slot} is told as {fate:?}");
    }
}
