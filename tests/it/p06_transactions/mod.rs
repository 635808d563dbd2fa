//! P6: what a caller's transaction commits with its own rows, or undoes with them.
//!
//! Across processes: `process/transaction.rs`.

mod complete;
mod own_connection;
mod refused;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use punctual::rusqlite::{self, Connection};
use punctual::{Cancel, Client, Error, ErrorKind, Filter, Outcome, Scheduler, TaskState, Tx};

use crate::kit::{Gate, LONG, MS, OpenOnDrop, Other, Probe, S, end_of, eventually, file, probe};

fn with_table(client: &Client) {
    let made = client.transaction(|tx| {
        tx.sqlite()?.execute_batch(
            "CREATE TABLE own (x INTEGER PRIMARY KEY, y UNIQUE); CREATE TABLE other (x REFERENCES own (x))",
        )?;
        Ok::<_, Error>(())
    });
    made.unwrap();
}

fn write(tx: &Tx<'_>, x: i64) -> Result<usize, Error> {
    Ok(tx
        .sqlite()?
        .execute("INSERT INTO own (x) VALUES (?1)", [x])?)
}

fn rows(client: &Client) -> i64 {
    let counted = client.transaction(|tx| {
        let count = tx
            .sqlite()?
            .query_row("SELECT count(*) FROM own", [], |row| row.get(0))?;
        Ok::<i64, Error>(count)
    });
    counted.unwrap()
}

#[test]
fn rows_and_tasks_commit_together_and_the_answer_is_handed_back() {
    let (_dir, path) = file();
    let scheduler = Scheduler::builder(&path)
        .handler_fn(|Probe(n), _| Outcome::with(&n))
        .start()
        .unwrap();
    with_table(&scheduler);
    let id = scheduler
        .transaction(|tx| {
            write(tx, 1)?;
            // Tasks may be stored while rows are read.
            let mut own = tx.sqlite()?.prepare("SELECT x FROM own")?;
            let mut rows = own.query([])?;
            let mut id = None;
            while let Some(row) = rows.next()? {
                id = Some(tx.schedule(Probe(row.get(0)?))?.id());
            }
            let late = tx.schedule_many((0..3).map(|n| probe(n).after(LONG)))?;
            assert_eq!(tx.cancel(late[0].id())?, Cancel::Cancelled);
            Ok::<_, Error>(id)
        })
        .unwrap()
        .unwrap();
    assert_eq!(end_of(&scheduler, id).result::<u32>().unwrap(), Some(1));
    let pending = Filter::new().state(TaskState::Pending);
    assert_eq!(scheduler.count(&pending).unwrap(), 2);
}

/// An error of the closure's own, a panic, and everything that goes on beside them.
#[test]
fn p6_a_closure_that_fails_is_undone_alone() {
    let (_dir, path) = file();
    let client = Client::open(&path).unwrap();
    with_table(&client);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut scheduled = 0_u64;
                    while !over.load(Ordering::Relaxed) || scheduled < 20 {
                        assert!(client.schedule(probe(1)).unwrap().is_new());
                        scheduled += 1;
                    }
                    scheduled
                })
            })
            .collect();
        for round in 0..20 {
            let failed: Result<(), String> = client
                .transaction(|tx| {
                    write(tx, round).map_err(Failed::of)?;
                    tx.schedule(Other(1))?;
                    Err(Failed("no".to_owned()))
                })
                .map_err(|Failed(text)| text);
            assert_eq!(failed, Err("no".to_owned()));
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                client.transaction(|tx| {
                    write(tx, round)?;
                    tx.schedule(Other(2))?;
                    if round >= 0 {
                        panic!("inside");
                    }
                    Ok::<_, Error>(())
                })
            }));
            assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"inside"));
            let violated = client.transaction(|tx| {
                tx.schedule(Other(3))?;
                write(tx, 5_000)?;
                write(tx, 5_000)?;
                Ok::<_, Error>(())
            });
            assert_eq!(violated.unwrap_err().kind(), ErrorKind::Sql);
        }
        over.store(true, Ordering::Relaxed);
        let scheduled: u64 = writers.into_iter().map(|each| each.join().unwrap()).sum();
        let stored = client.count(&Filter::new().kind("probe")).unwrap();
        assert_eq!(stored, scheduled);
    });
    assert_eq!(rows(&client), 0);
    assert_eq!(client.count(&Filter::new().kind("other")).unwrap(), 0);
    assert!(client.health().is_ok() && client.health().last_error().is_none());
}

/// An error type of the caller's.
struct Failed(String);

impl Failed {
    fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::of(error)
    }
}

fn rows_in(tx: &Tx<'_>) -> Result<i64, Error> {
    let sql = "SELECT count(*) FROM own";
    Ok(tx.sqlite()?.query_row(sql, [], |row| row.get(0))?)
}

/// It would keep the connection at what it has read, and every later write busy.
#[test]
fn p12_a_statement_that_was_left_running_inside_holds_up_nobody() {
    let (_dir, path) = file();
    let client = Client::open(&path).unwrap();
    with_table(&client);
    client.transaction(|tx| write(tx, 1).map(|_| ())).unwrap();
    let leak = |tx: &Tx<'_>| {
        let read = Box::leak(Box::new(tx.sqlite()?.prepare("SELECT x FROM own")?));
        let mut rows = read.query([])?;
        rows.next()?;
        std::mem::forget(rows);
        Ok::<_, Error>(())
    };
    client
        .transaction(|tx| {
            write(tx, 2)?;
            leak(tx)
        })
        .unwrap();
    client
        .transaction(|tx| leak(tx).and(Err::<(), _>(Error::from(rusqlite::Error::InvalidQuery))))
        .unwrap_err();
    let other = Connection::open(&path).unwrap();
    other.execute("INSERT INTO own (x) VALUES (3)", []).unwrap();
    client.schedule(probe(1)).unwrap();
    assert_eq!(rows(&client), 3);
}

/// An R-tree keeps a statement of its own until the transaction ends.
#[test]
fn virtual_tables_are_written_inside() {
    let (_dir, path) = file();
    let client = Client::open(&path).unwrap();
    let sql =
        "CREATE VIRTUAL TABLE place USING rtree (id, x0, x1); INSERT INTO place VALUES (1, 2, 3);
        CREATE VIRTUAL TABLE text USING fts5 (body); INSERT INTO text VALUES ('a b')";
    for sql in [
        sql,
        "INSERT INTO place VALUES (2, 3, 4)",
        "DELETE FROM place",
    ] {
        client
            .transaction(|tx| {
                tx.sqlite()?.execute_batch(sql)?;
                tx.schedule(probe(1).after(LONG))?;
                Ok::<_, Error>(())
            })
            .expect(sql);
    }
    assert_eq!(client.count(&Filter::all()).unwrap(), 3);
}

/// A deferred one fails the COMMIT, and is no fault of the disk.
#[test]
fn foreign_keys_are_enforced_inside() {
    let (_dir, path) = file();
    let client = Client::open(&path).unwrap();
    with_table(&client);
    let made = client.transaction(|tx| {
        tx.sqlite()?.execute_batch(
            "CREATE TABLE deferred (x REFERENCES own (x) DEFERRABLE INITIALLY DEFERRED)",
        )?;
        Ok::<_, Error>(())
    });
    made.unwrap();
    for table in ["other", "deferred"] {
        let error = client
            .transaction(|tx| {
                tx.schedule(probe(1))?;
                let sql = format!("INSERT INTO {table} VALUES (9)");
                tx.sqlite()?.execute(&sql, [])?;
                Ok::<_, Error>(())
            })
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Sql, "{table}");
        assert!(!error.is_retryable());
        let source = std::error::Error::source(&error).unwrap();
        assert!(source.is::<rusqlite::Error>());
    }
    assert_eq!(client.count(&Filter::all()).unwrap(), 0);
    assert!(client.health().last_error().is_none());
}

#[test]
fn a_call_from_inside_is_refused_and_does_not_wait_for_itself() {
    let (_dir, path) = file();
    for scheduler in [Scheduler::builder(&path), Scheduler::in_memory()] {
        let scheduler = scheduler.start().unwrap();
        let id = scheduler.schedule(probe(1).after(LONG)).unwrap().id();
        scheduler
            .transaction(|tx| {
                let kinds = [
                    scheduler.schedule(probe(2)).unwrap_err().kind(),
                    scheduler.get(id).unwrap_err().kind(),
                    scheduler.cancel(id).unwrap_err().kind(),
                    scheduler.wait(id, S).unwrap_err().kind(),
                    scheduler.submit().cancel(id).wait().unwrap_err().kind(),
                    scheduler
                        .sqlite()
                        .unwrap()
                        .schedule_in(tx.sqlite()?, probe(3))
                        .unwrap_err()
                        .kind(),
                    scheduler
                        .transaction(|_| Ok::<_, Error>(()))
                        .unwrap_err()
                        .kind(),
                ];
                assert_eq!(kinds, [ErrorKind::Reentrant; 7]);
                assert!(scheduler.health().is_ok());
                tx.schedule(probe(4).after(LONG))?;
                Ok::<_, Error>(())
            })
            .unwrap();
        assert_eq!(scheduler.count(&Filter::all()).unwrap(), 2);
        // It is over, also after a panic.
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            scheduler.transaction(|_| -> Result<(), Error> { panic!("inside") })
        }));
        assert!(panicked.is_err());
        scheduler.schedule(probe(5).after(LONG)).unwrap();
    }
}

const ENDLESS: &str = "
    WITH RECURSIVE n(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n) SELECT sum(x) FROM n";

/// P12: every wait is bounded, that for somebody else's transaction too.
#[test]
fn p12_sql_that_takes_too_long_is_interrupted_and_named() {
    let (_dir, path) = file();
    let client = Client::builder(&path)
        .transaction_timeout(20 * MS)
        .open()
        .unwrap();
    with_table(&client);
    for swallows in [false, true] {
        let error = client
            .transaction(|tx| {
                write(tx, 1)?;
                let endless = tx
                    .sqlite()?
                    .query_row(ENDLESS, [], |row| row.get::<_, i64>(0));
                match endless {
                    Err(_) if swallows => Ok(()),
                    Err(error) => Err(Error::from(error)),
                    Ok(_) => unreachable!("it has no end"),
                }
            })
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{swallows}: {error}");
        assert_eq!(rows(&client), 0);
        let health = client.health();
        let (_, last) = health.last_error().expect("it is named");
        assert_eq!(last.kind(), ErrorKind::Timeout);
    }
    assert!(client.schedule(probe(1)).unwrap().is_new());
}

#[test]
fn p12_health_names_a_transaction_that_does_not_end() {
    let (_dir, path) = file();
    let client = Client::builder(&path)
        .transaction_timeout(MS)
        .open()
        .unwrap();
    let gate = Gate::default();
    std::thread::scope(|scope| {
        let _open = OpenOnDrop(gate.clone());
        let thread = std::thread::Builder::new().name("the slow one".to_owned());
        let slow = thread.spawn_scoped(scope, || {
            client.transaction(|_| {
                gate.pass();
                Ok::<_, Error>(())
            })
        });
        eventually("it is named", || {
            let health = client.health();
            let slow = health.slow_transaction();
            slow.is_some_and(|slow| slow.thread() == "the slow one" && slow.running_for() > MS)
        });
        gate.open();
        // It had no SQL that could be interrupted.
        let error = slow.unwrap().join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(client.health().slow_transaction(), None);
    });
}
