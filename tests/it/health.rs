//! P12: `health()` says since when nothing can be written, and that it can be again.

use std::path::Path;

use punctual::rusqlite::Connection;
use punctual::{Client, ErrorKind, Outcome, Scheduler};

use crate::kit::{DAY, LONG, MS, Probe, S, clock, eventually, file, probe};

/// Another program that holds the lock of the file until it is dropped.
fn locked(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(LONG).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    conn
}

/// It said that all was well while no task could be stored, and afterwards not that the trouble was over.
#[test]
fn while_nothing_can_be_written_health_says_since_when_and_then_that_it_is_over() {
    let (_dir, path) = file();
    let clock = clock();
    let mut scheduler = Scheduler::builder(&path)
        .busy_timeout(20 * MS)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .stepped(&clock)
        .unwrap();
    let lock = locked(&path);
    let began = clock.now();
    for _ in 0..3 {
        let refused = scheduler.schedule(probe(1).after(DAY)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Busy);
        let health = scheduler.health();
        assert!(!health.is_ok(), "{health:?}");
        assert_eq!(health.failing_since(), Some(began), "since the first");
        assert_eq!(health.recovered_at(), None);
        clock.advance(S);
    }
    drop(lock);
    // No caller writes: the scheduler does.
    eventually("it notices that it can write again", || {
        scheduler.advance(S);
        scheduler.health().is_ok()
    });
    let health = scheduler.health();
    assert_eq!(health.failing_since(), None);
    assert!(health.recovered_at().unwrap() >= began + 3 * S);
    assert_eq!(health.last_error().unwrap().1.kind(), ErrorKind::Busy);
}

/// How often the file was written, as seen from outside.
fn data_version(conn: &Connection) -> i64 {
    let version = |row: &punctual::rusqlite::Row<'_>| row.get(0);
    conn.query_row("PRAGMA data_version", [], version).unwrap()
}

/// The tries are for a store that fails.
#[test]
fn a_scheduler_that_is_well_writes_nothing_to_find_that_out() {
    let (_dir, path) = file();
    let mut scheduler = Scheduler::builder(&path).stepped(&clock()).unwrap();
    scheduler.drain();
    let look = Connection::open(&path).unwrap();
    let before = data_version(&look);
    scheduler.advance(DAY / 24);
    assert_eq!(data_version(&look), before);
    assert!(scheduler.probe(LONG).is_ok());
    assert_ne!(data_version(&look), before, "a probe does");
}

/// The call had not come back yet, and until then all was well.
#[test]
fn a_write_that_waits_for_over_a_second_counts_as_failing() {
    let (_dir, path) = file();
    let client = Client::builder(&path).busy_timeout(LONG).open().unwrap();
    let lock = locked(&path);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| client.schedule(probe(1)));
        eventually("it is told", || !client.health().is_ok());
        assert!(client.health().failing_since().is_some());
        assert!(
            client.health().last_error().is_none(),
            "it may still succeed"
        );
        drop(lock);
        assert!(waits.join().unwrap().unwrap().is_new());
    });
    assert!(client.health().is_ok());
}

/// An idle store cannot know; a probe finds out, and comes back in its time.
#[test]
fn a_probe_finds_out_whether_the_file_can_be_written() {
    let (_dir, path) = file();
    let scheduler = Scheduler::builder(&path)
        .busy_timeout(LONG)
        .workers(3)
        .start()
        .unwrap();
    let client = scheduler.client();
    assert!(client.probe(LONG).is_ok() && scheduler.probe(LONG).is_ok());
    let lock = locked(&path);
    assert!(client.health().is_ok(), "nothing was tried");
    for _ in 0..3 {
        let health = scheduler.probe(20 * MS);
        assert!(!health.is_ok(), "{health:?}");
        assert_eq!(health.workers(), 3);
        assert!(health.failing_since().is_some());
        assert_eq!(health.last_error().unwrap().1.kind(), ErrorKind::Busy);
    }
    drop(lock);
    let health = scheduler.probe(LONG);
    assert!(health.is_ok(), "{health:?}");
}

/// A caller's own mistakes, and its long transactions, are no failure of the store's.
#[test]
fn what_a_caller_does_is_not_taken_for_a_failure() {
    let scheduler = Scheduler::in_memory()
        .transaction_timeout(MS)
        .start()
        .unwrap();
    let slow = scheduler.transaction(|tx| {
        let again = tx.sqlite()?.query_row(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
            [],
            |row| row.get::<_, i64>(0),
        );
        again.map_err(punctual::Error::from)
    });
    let slow = slow.unwrap_err();
    assert_eq!(slow.kind(), ErrorKind::Timeout);
    assert!(slow.to_string().contains("too long"), "{slow}");
    let health = scheduler.health();
    assert!(health.is_ok(), "{health:?}");
    let scheduler = Scheduler::in_memory().start().unwrap();
    let inside = scheduler.transaction(|_| Ok::<_, punctual::Error>(scheduler.probe(LONG)));
    let inside = inside.unwrap();
    assert!(!inside.is_ok());
    assert_eq!(inside.last_error().unwrap().1.kind(), ErrorKind::Reentrant);
    assert!(
        scheduler.health().is_ok(),
        "it was asked at the wrong place"
    );
}
