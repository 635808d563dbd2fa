//! P14: finished tasks are pruned by default; the file and its log stop growing when the load does.

use std::path::Path;

use punctual::rusqlite::Connection;
use punctual::{Durability, Failure, Filter, Outcome, Retention, Scheduler, TaskState};

use crate::kit::{DAY, LONG, Probe, S, clock, file, probe, state};

/// P14: after the default retention, and not before.
#[test]
fn finished_tasks_are_pruned_by_default() {
    let clock = clock();
    let mut scheduler = Scheduler::in_memory()
        .handler_fn(|Probe(n), _cx| match n % 3 {
            0 => Ok(Outcome::done()),
            1 => Err(Failure::fatal("no")),
            _ => Ok(Outcome::cancel("unwanted")),
        })
        .stepped(&clock)
        .unwrap();
    scheduler.schedule_many((0..3_000).map(probe)).unwrap();
    let pending = scheduler.schedule(probe(0).after(100 * DAY)).unwrap().id();
    assert_eq!(scheduler.drain(), 3_000);
    let count = |state| scheduler.count(&Filter::new().state(state)).unwrap();
    let counts = || {
        [
            TaskState::Completed,
            TaskState::Failed,
            TaskState::Cancelled,
        ]
        .map(count)
    };
    assert_eq!(counts(), [1_000; 3]);
    scheduler.advance(DAY - S);
    assert_eq!(scheduler.count(&Filter::all()).unwrap(), 3_001);
    scheduler.advance(300 * S);
    let count = |state| scheduler.count(&Filter::new().state(state)).unwrap();
    assert_eq!(count(TaskState::Completed), 0, "after a day");
    assert_eq!(count(TaskState::Failed), 1_000);
    scheduler.advance(13 * DAY - 400 * S);
    assert_eq!(scheduler.count(&Filter::all()).unwrap(), 2_001);
    scheduler.advance(500 * S);
    assert_eq!(
        scheduler.count(&Filter::all()).unwrap(),
        1,
        "after fourteen"
    );
    assert_eq!(state(&scheduler, pending), TaskState::Pending);
}

/// P14: a retention of its own, and a prune by hand for another.
#[test]
fn retention_is_a_choice() {
    let clock = clock();
    let mut scheduler = Scheduler::in_memory()
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .retention(Retention::forever())
        .stepped(&clock)
        .unwrap();
    scheduler.schedule_many((0..1_100).map(probe)).unwrap();
    scheduler.drain();
    scheduler.advance(400 * DAY);
    assert_eq!(scheduler.count(&Filter::all()).unwrap(), 1_100);
    let year = Retention::forever().completed(401 * DAY);
    assert_eq!(scheduler.prune(&year).unwrap(), 0);
    let month = Retention::forever().completed(30 * DAY);
    assert_eq!(scheduler.prune(&month).unwrap(), 1_100);
    assert_eq!(scheduler.count(&Filter::all()).unwrap(), 0);
}

/// P14: whoever finishes tasks pays for pruning: under load, without any idle time, nothing piles up.
#[test]
fn under_load_what_is_over_does_not_pile_up() {
    let clock = clock();
    let mut scheduler = Scheduler::in_memory()
        .workers(4)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .retention(Retention::default().completed(S))
        .stepped(&clock)
        .unwrap();
    for round in 0..50 {
        scheduler.schedule_many((0..100).map(probe)).unwrap();
        // Maintenance has no part in this: it looks once a minute.
        scheduler.drain();
        clock.advance(S);
        let stored = scheduler.count(&Filter::all()).unwrap();
        assert!(stored <= 300, "{stored} in round {round}");
    }
}

fn bytes(path: &Path, suffix: &str) -> u64 {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    std::fs::metadata(name).map_or(0, |metadata| metadata.len())
}

/// P14: the same load again and again does not make the file longer.
#[test]
fn the_file_stops_growing_when_the_load_does() {
    let (_dir, path) = file();
    let clock = clock();
    let mut scheduler = Scheduler::builder(&path)
        .workers(4)
        .durability(Durability::ProcessCrash)
        .handler_fn(|_: Big, _cx| Ok(Outcome::done()))
        .retention(Retention::default().completed(S))
        .stepped(&clock)
        .unwrap();
    // What is in the log counts as far as it makes the file longer.
    let conn = Connection::open(&path).unwrap();
    let mut sizes = Vec::new();
    for _ in 0..12 {
        scheduler
            .schedule_many((0..300).map(|_| Big("x".repeat(4_000))))
            .unwrap();
        scheduler.drain();
        clock.advance(61 * S);
        scheduler.drain();
        let pages = conn.query_row("PRAGMA page_count", [], |row| row.get(0));
        sizes.push(pages.unwrap());
    }
    let (early, late): (i64, i64) = (sizes[5], sizes[11]);
    assert!(late <= early + early / 10, "{sizes:?}");
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Big(String);

impl punctual::Payload for Big {
    const KIND: &'static str = "big";
}

/// P14: the log is checkpointed as it grows.
#[test]
fn the_log_does_not_grow_with_what_is_written() {
    let (_dir, path) = file();
    write_thirty_megabytes(&path);
}

/// P14: whatever the size of its pages.
#[test]
fn the_log_of_a_file_with_large_pages_does_not_grow_either() {
    let (_dir, path) = file();
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA page_size = 65536; CREATE TABLE own (x)")
        .unwrap();
    drop(conn);
    write_thirty_megabytes(&path);
}

fn write_thirty_megabytes(path: &Path) {
    let scheduler = Scheduler::builder(path)
        .durability(Durability::ProcessCrash)
        .start()
        .unwrap();
    let mut peak = 0;
    for _ in 0..300 {
        scheduler
            .schedule_many((0..20).map(|_| Big("x".repeat(5_000))))
            .unwrap();
        let told = scheduler.sqlite().unwrap().wal_bytes();
        peak = peak.max(told).max(bytes(path, "-wal"));
    }
    assert!(bytes(path, "") > 20 << 20, "30 MB were written");
    // It is moved at 4 MiB, beside the writer, who waits at 16.
    assert!(peak < 18 << 20, "the log was {peak} bytes long");
    let _ = scheduler.shutdown(LONG).unwrap();
}

/// P14: a queue per tenant. After 50,000 of them, each start took fifty times as long, also after the file was opened again.
#[test]
fn queues_that_come_and_go_for_a_year_are_forgotten() {
    const A_DAY: u32 = 50;
    let (_dir, path) = file();
    let clock = clock();
    let mut scheduler = Scheduler::builder(&path)
        .durability(Durability::ProcessCrash)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .stepped(&clock)
        .unwrap();
    let conn = Connection::open(&path).unwrap();
    let rows = |table: &str| -> u32 {
        let sql = format!("SELECT count(*) FROM {table}");
        conn.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    scheduler.set_global_limit("limited", Some(2)).unwrap();
    scheduler.pause("paused").unwrap();
    let kept = probe(0).queue("kept").after(400 * DAY);
    let kept = scheduler.schedule(kept).unwrap().id();
    let mut most = 0;
    for day in 0..365 {
        let tenant = |n| probe(n).queue(format!("tenant.{day}.{n}"));
        scheduler.schedule_many((0..A_DAY).map(tenant)).unwrap();
        scheduler.drain();
        scheduler.advance(DAY);
        most = most.max(rows("punctual_lane")).max(rows("punctual_queue"));
    }
    assert!(most <= 4 * A_DAY, "{most} queues of {}", 365 * A_DAY);
    for _ in 0..3 {
        scheduler.advance(DAY);
    }
    // So many idle ones stay, and those that something is set of or something is in.
    let left = (rows("punctual_lane"), rows("punctual_queue"));
    assert_eq!(left, (32 + 1, 32 + 3));
    assert_eq!(state(&scheduler, kept), TaskState::Pending);
    assert_eq!(scheduler.advance(40 * DAY), 1);
    assert_eq!(scheduler.health().paused_queues(), ["paused"]);
}
