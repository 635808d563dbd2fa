//! Recurrences whose next slots were found by another version of the time zone database.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::on_a_file;
use crate::model::new_task::NewTask;
use crate::model::op::{Action, Op};
use crate::model::query::Query;
use crate::model::recurrence::edit::RecurrenceEdit;
use crate::model::recurrence::explain::SlotFate;
use crate::model::recurrence::filter::RecurrenceFilter;
use crate::model::recurrence::policy::{Missed, Overlap};
use crate::model::recurrence::request::Recurrence;
use crate::model::recurrence::rule::Rule;
use crate::model::recurrence::view::RecurrenceAction;
use crate::model::recurrence::zone::TZDB;
use crate::store::Store;
use crate::store::sqlite::kit::File;
use crate::store::suite::{Kit, done};
use crate::time::Timestamp;

on_a_file!(
    p10_a_newer_database_finds_the_next_slot_anew,
    p10_a_change_by_an_updated_program_finds_the_next_slot_anew,
    p10_what_a_newer_database_has_found_is_left_to_those_who_have_it,
    p10_a_rule_without_a_zone_is_not_touched,
    p10_a_damaged_recurrence_keeps_no_other_from_its_slot,
    p10_a_damaged_name_keeps_no_other_from_its_slot,
    p10_a_task_ends_though_the_name_of_its_recurrence_is_damaged,
    p10_a_run_that_cannot_be_read_is_not_made_again,
    p10_a_damaged_recurrence_that_is_stored_again_goes_on,
    p10_a_definition_of_a_newer_program_is_left_to_it,
    pages_of_recurrences_end_though_a_name_is_damaged,
    p10_a_slot_of_a_newer_database_is_not_fired_by_an_old_program_that_edits,
    p10_an_interval_beside_a_zone_is_neither_doubled_nor_lost,
    p10_a_completion_is_expected_after_the_slot_that_is_found_anew,
    p10_a_slot_that_came_while_no_process_had_the_file_open_is_overdue_after_an_update,
    two_processes_that_cannot_read_a_recurrence_do_not_wake_each_other_for_ever,
    p10_a_change_by_an_old_program_keeps_what_a_newer_database_has_found,
    p10_an_unreadable_definition_keeps_its_time_zones,
    p10_what_came_between_an_end_and_a_revival_stays_undone_after_an_update,
    p10_after_an_update_no_slot_is_made_up_for_or_told_by_the_new_instants,
    p10_an_old_program_s_rule_passes_over_no_due_slot_in_silence,
    p10_a_damaged_civil_time_keeps_no_recurrence_from_its_slots,
    p10_a_slot_that_an_update_brings_back_before_the_end_is_made,
);

pub(super) fn at(text: &str) -> Timestamp {
    Timestamp::rounded_up(text.parse().unwrap()).unwrap()
}

pub(super) fn recur(kit: &Kit, name: &str, zone: &str) {
    let recurrence = Recurrence::new(name, NewTask::with_kind("probe", &1));
    let recurrence = recurrence
        .cron("30 2 * * *")
        .unwrap()
        .time_zone(zone)
        .unwrap();
    let registration = recurrence.overlap(Overlap::Allow).prepare(kit.now).unwrap();
    kit.apply(Op::Recur(Box::new(registration)));
}

/// The database that found the slots took clocks in Berlin to be so many hours further ahead.
fn move_berlin(conn: &rusqlite::Connection, hours: i64) {
    let sql = "UPDATE punctual_recurrence
        SET decided_civil = json_object('Europe/Berlin', json_object('civil',
            json_extract(decided_civil, '$.\"Europe/Berlin\".civil') + ? * 3600000000))
        WHERE decided_civil IS NOT NULL";
    assert!(conn.execute(sql, [hours]).unwrap() > 0);
}

fn next_slot(store: &dyn Store, name: &str) -> Option<DateTime<Utc>> {
    let answer = store.read(Query::Recurrence(name.to_owned())).unwrap();
    answer.recurrence().expect("it is stored").next_slot()
}

/// As by a program with a newer time zone database, which has decided all recurrences.
pub(super) fn decided_by_newer(kit: &Kit) {
    kit.sql(|conn| {
        let sql = "UPDATE punctual_recurrence SET tzdb = '9999a'";
        assert!(conn.execute(sql, []).unwrap() > 0);
    });
}

pub(super) fn fire(kit: &Kit) {
    while kit.apply(Op::Fire { limit: 10 }).done() > 0 {}
}

/// The first thing that an updated program does may be to store a recurrence otherwise, or to resume one.
fn p10_a_change_by_an_updated_program_finds_the_next_slot_anew(kit: &mut Kit) {
    kit.now = at("2026-07-01T12:00:00Z");
    for name in ["stored", "resumed"] {
        recur(kit, name, "Europe/Berlin");
    }
    let found = next_slot(&**kit.store(), "stored");
    let act = |kit: &Kit, action| {
        let name = "resumed".to_owned();
        kit.apply(Op::ChangeRecurrence { name, action });
    };
    act(kit, RecurrenceAction::Pause);
    kit.sql(|conn| {
        let sql =
            "UPDATE punctual_recurrence SET tzdb = '1999a', next_slot = next_slot + 3600000000,
            due_at = due_at + 3600000000";
        assert_eq!(conn.execute(sql, []).unwrap(), 2);
    });
    let recurrence = Recurrence::new("stored", NewTask::with_kind("probe", &2));
    let recurrence = recurrence.cron("30 2 * * *").unwrap();
    let recurrence = recurrence.time_zone("Europe/Berlin").unwrap();
    let registration = recurrence.prepare(kit.now).unwrap();
    kit.apply(Op::Recur(Box::new(registration)));
    act(kit, RecurrenceAction::Resume);
    for name in ["stored", "resumed"] {
        assert_eq!(next_slot(&**kit.store(), name), found, "{name}");
    }
}

/// By the older version Berlin had no summer time, so the next slot was an hour later.
fn p10_a_newer_database_finds_the_next_slot_anew(kit: &mut Kit) {
    kit.now = at("2026-07-01T12:00:00Z");
    for name in ["a", "b", "c"] {
        recur(kit, name, "Europe/Berlin");
    }
    let found = next_slot(&**kit.store(), "a");
    kit.sql(|conn| {
        let sql =
            "UPDATE punctual_recurrence SET tzdb = '1999a', next_slot = next_slot + 3600000000,
            due_at = due_at + 3600000000";
        assert_eq!(conn.execute(sql, []).unwrap(), 3);
    });
    let other = kit.another(true);
    assert_eq!(other.lanes().recurrence_at, Some(Timestamp::MIN), "at once");
    let mut rounds = 0;
    while other
        .apply(kit.now, vec![Op::Fire { limit: 2 }])
        .unwrap()
        .remove(0)
        .done()
        > 0
    {
        rounds += 1;
    }
    assert_eq!(rounds, 2, "in chunks");
    assert_eq!(next_slot(&*other, "a"), found);
    assert_eq!(
        other.lanes().recurrence_at,
        found.map(|at| Timestamp::rounded_up(at).unwrap())
    );
}

fn p10_what_a_newer_database_has_found_is_left_to_those_who_have_it(kit: &mut Kit) {
    kit.now = at("2026-07-01T12:00:00Z");
    recur(kit, "a", "Europe/Berlin");
    decided_by_newer(kit);
    recur(kit, "b", "UTC");
    kit.store().refresh().unwrap();
    assert_eq!(kit.store().health().newer_time_zones(), Some("9999a"));
    kit.now = at("2026-07-02T12:00:00Z");
    fire(kit);
    let of = |name| next_slot(&**kit.store(), name).unwrap();
    assert!(
        of("a") < kit.now.to_utc(),
        "it is due, and waits for the others"
    );
    assert!(of("b") > kit.now.to_utc());
    assert_eq!(
        kit.store().lanes().recurrence_at,
        Timestamp::rounded_up(of("b")).ok()
    );
    // The program was updated.
    kit.sql(|conn| {
        let sql = "UPDATE punctual_recurrence SET tzdb = ? WHERE name = 'a'";
        conn.execute(sql, [TZDB]).unwrap();
    });
    kit.kill();
    assert_eq!(kit.store().health().newer_time_zones(), None);
    fire(kit);
    assert!(next_slot(&**kit.store(), "a").unwrap() > kit.now.to_utc());
}

fn p10_a_rule_without_a_zone_is_not_touched(kit: &mut Kit) {
    recur(kit, "a", "UTC");
    let zones: i64 = kit.sql(|conn| {
        let sql = "SELECT count(tzdb) FROM punctual_recurrence";
        conn.query_row(sql, [], |row| row.get(0)).unwrap()
    });
    assert_eq!(zones, 0);
}

fn p10_a_damaged_recurrence_keeps_no_other_from_its_slot(kit: &mut Kit) {
    kit.now = at("2026-07-01T12:00:00Z");
    recur(kit, "a", "UTC");
    recur(kit, "b", "UTC");
    kit.sql(|conn| {
        let sql = "UPDATE punctual_recurrence_definition SET definition = x'7b'
            WHERE id = (SELECT id FROM punctual_recurrence WHERE name = 'a')";
        conn.execute(sql, []).unwrap();
    });
    kit.now = at("2026-07-02T12:00:00Z");
    fire(kit);
    assert_eq!(kit.rows("task"), 1);
    assert_eq!(kit.store().health().unreadable_recurrences(), ["a"]);
    let error = kit
        .store()
        .read(Query::Recurrence("a".to_owned()))
        .unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
}

fn p10_a_damaged_name_keeps_no_other_from_its_slot(kit: &mut Kit) {
    kit.now = at("2026-07-01T12:00:00Z");
    recur(kit, "a", "UTC");
    recur(kit, "b", "UTC");
    kit.sql(|conn| {
        let sql = "UPDATE punctual_recurrence SET name = CAST(x'ff' AS TEXT) WHERE name = 'a'";
        conn.execute(sql, []).unwrap();
    });
    kit.now = at("2026-07-02T12:00:00Z");
    let fired = kit.store().apply(kit.now, vec![Op::Fire { limit: 10 }]);
    assert!(fired.is_ok(), "{fired:?}");
    assert!(kit.rows("task") >= 1);
}

fn p10_a_damaged_recurrence_that_is_stored_again_goes_on(kit: &mut Kit) {
    kit.now = at("2026-07-01T12:00:00Z");
    recur(kit, "a", "UTC");
    kit.sql(|conn| {
        let sql = "UPDATE punctual_recurrence_definition SET definition = x'7b'
            WHERE id = (SELECT id FROM punctual_recurrence WHERE name = 'a')";
        conn.execute(sql, []).unwrap();
    });
    kit.now = at("2026-07-02T12:00:00Z");
    fire(kit);
    // The program starts again.
    recur(kit, "a", "UTC");
    kit.now = at("2026-07-03T12:00:00Z");
    fire(kit);
    assert_eq!(kit.rows("task"), 1);
}

/// A rolling deploy: the old program meets what the new one has stored.
fn p10_a_definition_of_a_newer_program_is_left_to_it(kit: &mut Kit) {
    kit.now = at("2026-07-01T12:00:00Z");
    recur(kit, "a", "UTC");
    let newer = |conn: &rusqlite::Connection, from: &str, to: &str| {
        let sql = "UPDATE punctual_recurrence_definition
            SET definition = CAST(replace(CAST(definition AS TEXT), ?, ?) AS BLOB)";
        conn.execute(sql, [from, to]).unwrap();
    };
    kit.sql(|conn| newer(conn, "\"allow\"", "\"of_tomorrow\""));
    kit.now = at("2026-07-02T02:30:00Z");
    fire(kit);
    // The new program reads it.
    kit.sql(|conn| newer(conn, "\"of_tomorrow\"", "\"allow\""));
    fire(kit);
    assert_eq!(kit.rows("task"), 1);
}

fn p10_a_task_ends_though_the_name_of_its_recurrence_is_damaged(kit: &mut Kit) {
    kit.now = at("2026-07-01T12:00:00Z");
    recur(kit, "a", "UTC");
    kit.now = at("2026-07-02T12:00:00Z");
    fire(kit);
    let claim = kit.claim_one();
    kit.sql(|conn| {
        let sql = "UPDATE punctual_recurrence SET name = CAST(x'ff' AS TEXT) WHERE name = 'a'";
        conn.execute(sql, []).unwrap();
    });
    kit.settle(&claim, crate::store::suite::done());
    assert_eq!(
        kit.state(claim.id),
        crate::model::task::TaskState::Completed
    );
}

fn p10_a_run_that_cannot_be_read_is_not_made_again(kit: &mut Kit) {
    kit.now = at("2026-07-01T12:00:00Z");
    recur(kit, "a", "UTC");
    kit.now = at("2026-07-02T02:30:00Z");
    fire(kit);
    let claim = kit.claim_one();
    kit.settle(&claim, crate::store::suite::done());
    kit.change(claim.id, crate::model::op::Action::Delete);
    let again = |kit: &Kit| {
        let action = RecurrenceAction::Backfill {
            from: at("2026-07-02T00:00:00Z"),
            to: at("2026-07-02T12:00:00Z"),
        };
        let name = "a".to_owned();
        kit.apply(Op::ChangeRecurrence { name, action });
        kit.rows("task")
    };
    assert_eq!(again(kit), 0, "it was made");
    // By a program that knows a kind of rule more.
    kit.sql(|conn| {
        let sql = "UPDATE punctual_recurrence_run SET rule = 7";
        assert_eq!(conn.execute(sql, []).unwrap(), 1);
    });
    assert_eq!(again(kit), 0, "it was made");
}

fn pages_of_recurrences_end_though_a_name_is_damaged(kit: &mut Kit) {
    recur(kit, "a", "UTC");
    recur(kit, "b", "UTC");
    kit.sql(|conn| {
        let sql = "UPDATE punctual_recurrence SET name = CAST(x'ff' AS TEXT) WHERE name = 'b'";
        conn.execute(sql, []).unwrap();
    });
    let mut filter = RecurrenceFilter::new().limit(1);
    for _ in 0..9 {
        let page = kit
            .store()
            .read(Query::Recurrences(filter.clone()))
            .unwrap()
            .recurrences();
        match page.next() {
            Some(next) => filter = filter.after(next),
            None => return,
        }
    }
    panic!("the pages never end");
}

fn p10_a_slot_of_a_newer_database_is_not_fired_by_an_old_program_that_edits(kit: &mut Kit) {
    kit.now = at("2026-07-01T12:00:00Z");
    recur(kit, "a", "Europe/Berlin");
    decided_by_newer(kit);
    kit.now = at("2026-07-02T00:30:00Z");
    fire(kit);
    assert_eq!(kit.rows("task"), 0, "it is left to the others");
    let patch = RecurrenceEdit::new().priority(1).prepare().unwrap();
    kit.apply(Op::ChangeRecurrence {
        name: "a".to_owned(),
        action: RecurrenceAction::Edit(Box::new(patch)),
    });
    fire(kit);
    assert_eq!(kit.rows("task"), 0, "it is left to the others still");
}

/// An interval united with civil times: its instants do not move with the time zones.
fn p10_an_interval_beside_a_zone_is_neither_doubled_nor_lost(kit: &mut Kit) {
    let (hour, quarter) = (Duration::from_secs(3600), Duration::from_secs(900));
    for (name, hours) in [("twice", -1), ("lost", 1)] {
        kit.now = at("2026-07-01T10:00:00Z");
        let every = Rule::every(quarter, DateTime::UNIX_EPOCH).unwrap();
        let nightly = Rule::cron("30 2 * * *")
            .unwrap()
            .time_zone("Europe/Berlin")
            .unwrap();
        let union = Rule::any_of([every, nightly]).unwrap();
        let recurrence = Recurrence::new(name, NewTask::with_kind("probe", &1)).rule(union);
        let recurrence = recurrence
            .overlap(Overlap::Allow)
            .missed(Missed::All { max: 99 });
        kit.apply(Op::Recur(Box::new(recurrence.prepare(kit.now).unwrap())));
        kit.now = at("2026-07-01T12:00:00Z");
        fire(kit);
        // They run, and are pruned.
        for claim in kit.claim(99) {
            kit.settle(&claim, done());
            kit.change(claim.id, Action::Delete);
        }
        assert_eq!(kit.rows("task"), 0);
        kit.sql(|conn| {
            move_berlin(conn, hours);
            let sql = "UPDATE punctual_recurrence SET tzdb = '1999a' WHERE name = ?";
            assert_eq!(conn.execute(sql, [name]).unwrap(), 1);
        });
        fire(kit);
        kit.now = kit.now + hour;
        fire(kit);
        let tasks = kit.rows("task");
        kit.apply(Op::ChangeRecurrence {
            name: name.to_owned(),
            action: RecurrenceAction::Remove,
        });
        for claim in kit.claim(99) {
            kit.settle(&claim, done());
            kit.change(claim.id, Action::Delete);
        }
        assert_eq!(tasks, 4, "{name}: 12:15, 12:30, 12:45 and 13:00");
    }
}

/// By the older database the next slot was an hour earlier.
fn expects_by_an_older_database(kit: &mut Kit) {
    kit.now = at("2026-07-01T12:00:00Z");
    let recurrence = Recurrence::new("a", NewTask::with_kind("probe", &1))
        .cron("30 2 * * *")
        .unwrap();
    let recurrence = recurrence
        .time_zone("Europe/Berlin")
        .unwrap()
        .expect_within(Duration::from_secs(600));
    kit.apply(Op::Recur(Box::new(recurrence.prepare(kit.now).unwrap())));
    kit.sql(|conn| {
        let sql =
            "UPDATE punctual_recurrence SET tzdb = '1999a', next_slot = next_slot - 3600000000,
            due_at = due_at - 3600000000, expected_since = expected_since - 3600000000,
            expected_by = expected_by - 3600000000";
        assert_eq!(conn.execute(sql, []).unwrap(), 1);
    });
}

fn p10_a_completion_is_expected_after_the_slot_that_is_found_anew(kit: &mut Kit) {
    expects_by_an_older_database(kit);
    fire(kit);
    assert_eq!(
        next_slot(&**kit.store(), "a"),
        Some(at("2026-07-02T00:30:00Z").to_utc())
    );
    // A second before the slot.
    kit.now = at("2026-07-02T00:29:59Z");
    fire(kit);
    let overdue = |kit: &Kit| kit.store().health().overdue_recurrences().to_vec();
    assert!(overdue(kit).is_empty(), "before the slot is due");
    kit.now = at("2026-07-02T00:40:00Z");
    fire(kit);
    assert_eq!(overdue(kit), ["a"]);
}

/// The slot that is found anew has come as well when the file is opened.
fn p10_a_slot_that_came_while_no_process_had_the_file_open_is_overdue_after_an_update(
    kit: &mut Kit,
) {
    expects_by_an_older_database(kit);
    kit.now = at("2026-07-02T12:00:00Z");
    fire(kit);
    assert_eq!(kit.store().health().overdue_recurrences(), ["a"]);
}

fn two_processes_that_cannot_read_a_recurrence_do_not_wake_each_other_for_ever(kit: &mut Kit) {
    kit.now = at("2026-07-01T12:00:00Z");
    recur(kit, "a", "UTC");
    kit.sql(|conn| {
        let sql = "UPDATE punctual_recurrence_definition SET definition = x'7b'
            WHERE id = (SELECT id FROM punctual_recurrence WHERE name = 'a')";
        conn.execute(sql, []).unwrap();
    });
    let other = kit.another(true);
    kit.now = at("2026-07-02T12:00:00Z");
    let mut fired = 0;
    for _ in 0..50 {
        for store in [&**kit.store(), &*other] {
            store.refresh().unwrap();
            if store.lanes().recurrence_at.is_some_and(|at| at <= kit.now) {
                store.apply(kit.now, vec![Op::Fire { limit: 10 }]).unwrap();
                fired += 1;
            }
        }
    }
    assert!(fired < 10, "{fired}");
}

/// An old program edits something else than the rule of what a program with a newer database has stored.
fn p10_a_change_by_an_old_program_keeps_what_a_newer_database_has_found(kit: &mut Kit) {
    kit.now = at("2026-07-01T12:00:00Z");
    for name in ["edited", "resumed"] {
        recur(kit, name, "Europe/Berlin");
    }
    kit.now = at("2026-07-02T00:30:00Z");
    fire(kit);
    // By the newer database clocks are an hour ahead: the slot at 00:30Z was half past three.
    kit.sql(|conn| move_berlin(conn, 1));
    decided_by_newer(kit);
    let act = |kit: &Kit, name: &str, action| {
        let name = name.to_owned();
        kit.apply(Op::ChangeRecurrence { name, action });
    };
    let patch = RecurrenceEdit::new().priority(1).prepare().unwrap();
    act(kit, "edited", RecurrenceAction::Edit(Box::new(patch)));
    act(kit, "resumed", RecurrenceAction::Pause);
    act(kit, "resumed", RecurrenceAction::Resume);
    for name in ["edited", "resumed"] {
        let (tzdb, civil): (String, i64) = kit.sql(|conn| {
            let sql = "SELECT tzdb, json_extract(decided_civil, '$.\"Europe/Berlin\".civil') FROM punctual_recurrence WHERE name = ?";
            conn.query_row(sql, [name], |row| Ok((row.get(0)?, row.get(1)?)))
                .unwrap()
        });
        assert_eq!(civil, at("2026-07-02T03:30:00Z").micros(), "{name}: {tzdb}");
        assert_eq!(tzdb, "9999a", "{name}");
    }
}

/// A rolling deploy with a new database and a rule that the old program does not know.
fn p10_an_unreadable_definition_keeps_its_time_zones(kit: &mut Kit) {
    kit.now = at("2026-07-01T12:00:00Z");
    recur(kit, "a", "Europe/Berlin");
    let found = next_slot(&**kit.store(), "a");
    let replace = |conn: &rusqlite::Connection, from: &str, to: &str| {
        let sql = "UPDATE punctual_recurrence_definition
            SET definition = CAST(replace(CAST(definition AS TEXT), ?, ?) AS BLOB)";
        conn.execute(sql, [from, to]).unwrap();
    };
    kit.sql(|conn| {
        replace(conn, "\"allow\"", "\"of_tomorrow\"");
        let sql =
            "UPDATE punctual_recurrence SET tzdb = '1999a', next_slot = next_slot + 3600000000,
            due_at = due_at + 3600000000";
        assert_eq!(conn.execute(sql, []).unwrap(), 1);
    });
    fire(kit);
    // A program that can read it, with a database that is newer than that of the stored slot.
    kit.sql(|conn| replace(conn, "\"of_tomorrow\"", "\"allow\""));
    fire(kit);
    assert_eq!(next_slot(&**kit.store(), "a"), found);
}

fn p10_what_came_between_an_end_and_a_revival_stays_undone_after_an_update(kit: &mut Kit) {
    kit.now = at("2026-07-01T12:00:00Z");
    let nightly = |count| {
        let recurrence = Recurrence::new("a", NewTask::with_kind("probe", &1));
        let recurrence = recurrence.cron("30 2 * * *").unwrap();
        let recurrence = recurrence.time_zone("Europe/Berlin").unwrap();
        let recurrence = recurrence.missed(Missed::All { max: 9 });
        let recurrence = recurrence.overlap(Overlap::Allow).max_count(count);
        Op::Recur(Box::new(recurrence.prepare(kit.now).unwrap()))
    };
    let (once, often) = (nightly(1), nightly(9));
    kit.apply(once);
    kit.now = at("2026-07-02T00:30:00Z");
    fire(kit);
    kit.now = at("2026-07-05T12:00:00Z");
    kit.apply(often);
    kit.sql(|conn| {
        let sql = "UPDATE punctual_recurrence SET tzdb = '1999a'";
        assert_eq!(conn.execute(sql, []).unwrap(), 1);
    });
    fire(kit);
    assert_eq!(kit.rows("task"), 1);
    let next = at("2026-07-06T00:30:00Z").to_utc();
    assert_eq!(next_slot(&**kit.store(), "a"), Some(next));
}

/// Half past two was 00:30Z, and is 01:30Z now. Slots were made and skipped in turn.
fn p10_after_an_update_no_slot_is_made_up_for_or_told_by_the_new_instants(kit: &mut Kit) {
    let recurrence = Recurrence::new("a", NewTask::with_kind("probe", &1));
    let recurrence = recurrence.cron("30 2 * * *").unwrap();
    let recurrence = recurrence.time_zone("Etc/GMT-2").unwrap();
    kit.now = at("2026-07-01T12:00:00Z");
    kit.apply(Op::Recur(Box::new(recurrence.prepare(kit.now).unwrap())));
    for day in 2..=5 {
        kit.now = at(&format!("2026-07-0{day}T00:30:00Z"));
        fire(kit);
        if day > 3 {
            for claim in kit.claim(9) {
                kit.settle(&claim, done());
            }
        }
    }
    assert_eq!(kit.rows("task"), 2, "on the second and the fifth");
    kit.now = at("2026-07-05T12:00:00Z");
    kit.sql(|conn| {
        let sql = "UPDATE punctual_recurrence_definition
            SET definition = CAST(replace(CAST(definition AS TEXT), 'Etc/GMT-2', 'Etc/GMT-1') AS BLOB)";
        conn.execute(sql, []).unwrap();
        let sql = "UPDATE punctual_recurrence
            SET tzdb = '1999a', decided_civil = replace(decided_civil, 'Etc/GMT-2', 'Etc/GMT-1')";
        conn.execute(sql, []).unwrap();
    });
    fire(kit);
    let (from, to) = (at("2026-07-02T00:00:00Z"), at("2026-07-06T12:00:00Z"));
    let name = "a".to_owned();
    let action = RecurrenceAction::Backfill { from, to };
    kit.apply(Op::ChangeRecurrence { name, action });
    assert_eq!(kit.rows("task"), 2);
    let told = explain(kit, from, to);
    assert_eq!(told.len(), 1, "what is to come: {told:?}");
}

pub(super) fn explain(kit: &Kit, from: Timestamp, to: Timestamp) -> Vec<(DateTime<Utc>, SlotFate)> {
    let (name, now) = ("a".to_owned(), kit.now);
    let answer = kit.store().read(Query::Explain {
        name,
        from,
        to,
        now,
    });
    let told = answer.unwrap().explained().unwrap();
    let told = told.slots().iter();
    told.map(|each| (each.slot(), each.fate())).collect()
}

fn p10_an_old_program_s_rule_passes_over_no_due_slot_in_silence(kit: &mut Kit) {
    kit.now = at("2026-07-01T12:00:00Z");
    recur(kit, "a", "Europe/Berlin");
    decided_by_newer(kit);
    kit.now = at("2026-07-02T00:30:01Z");
    fire(kit);
    let other = Recurrence::new("a", NewTask::with_kind("probe", &1));
    let other = other.cron("31 2 * * *").unwrap();
    let other = other.time_zone("Europe/Berlin").unwrap();
    let other = other.overlap(Overlap::Allow).prepare(kit.now).unwrap();
    kit.apply(Op::Recur(Box::new(other)));
    kit.now = at("2026-07-02T00:31:01Z");
    fire(kit);
    let told = explain(kit, at("2026-07-02T00:00:00Z"), at("2026-07-02T01:00:00Z"));
    assert_eq!((told.len(), kit.rows("task")), (2, 2), "{told:?}");
}

fn p10_a_damaged_civil_time_keeps_no_recurrence_from_its_slots(kit: &mut Kit) {
    let damaged = [
        "'{\"Europe/Berlin\":{\"civil\":9223372036854775807}}'",
        "'{\"Europe/Berlin\":{\"civil\":0,\"since\":[0,9223372036854775807]}}'",
        "'{\"Europe/Berlin\":1}'",
        "'rubbish'",
    ];
    kit.now = at("2026-07-01T12:00:00Z");
    recur(kit, "a", "Europe/Berlin");
    for (count, damaged) in damaged.into_iter().enumerate() {
        kit.now = kit.now + Duration::from_secs(86_400);
        fire(kit);
        assert_eq!(kit.rows("task"), count as i64 + 1, "before {damaged}");
        kit.sql(|conn| {
            let sql =
                format!("UPDATE punctual_recurrence SET tzdb = '1999a', decided_civil = {damaged}");
            conn.execute(&sql, []).unwrap();
        });
    }
    kit.now = kit.now + Duration::from_secs(86_400);
    fire(kit);
    assert_eq!(kit.rows("task"), damaged.len() as i64 + 1);
}

/// The rule ends at 01:00Z. Half past two was after that, and is 00:30Z now.
fn p10_a_slot_that_an_update_brings_back_before_the_end_is_made(kit: &mut Kit) {
    let rule = Rule::cron("30 2 * * *").unwrap();
    let rule = rule.time_zone("Etc/GMT-1").unwrap();
    let rule = rule.not_after(at("2026-07-03T01:00:00Z").to_utc()).unwrap();
    let recurrence = Recurrence::new("a", NewTask::with_kind("probe", &1)).rule(rule);
    let recurrence = recurrence.overlap(Overlap::Allow);
    kit.now = at("2026-07-01T12:00:00Z");
    kit.apply(Op::Recur(Box::new(recurrence.prepare(kit.now).unwrap())));
    kit.now = at("2026-07-02T01:30:00Z");
    fire(kit);
    assert_eq!(
        (kit.rows("task"), next_slot(&**kit.store(), "a")),
        (1, None)
    );
    kit.sql(|conn| {
        let sql = "UPDATE punctual_recurrence_definition
            SET definition = CAST(replace(CAST(definition AS TEXT), 'Etc/GMT-1', 'Etc/GMT-2') AS BLOB)";
        conn.execute(sql, []).unwrap();
        let sql = "UPDATE punctual_recurrence
            SET tzdb = '1999a', decided_civil = replace(decided_civil, 'Etc/GMT-1', 'Etc/GMT-2')";
        conn.execute(sql, []).unwrap();
    });
    kit.now = at("2026-07-03T00:30:00Z");
    fire(kit);
    assert_eq!(kit.rows("task"), 2);
}
