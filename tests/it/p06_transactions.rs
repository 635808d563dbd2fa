//! P6: what commits with the user's own rows, and what is refused inside a transaction.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use punctual::rusqlite::{self, Connection};
use punctual::{
    Cancel, Client, Error, ErrorKind, Failure, Filter, NewTask, Outcome, Scheduler, TaskContext,
    TaskState, Tx,
};

use crate::kit::{
    Gate, LONG, MS, OpenOnDrop, Other, Probe, S, end_of, eventually, file, probe, state,
};

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

/// Whether the closure passes the refusal on or not: nothing of what it may not do is done.
#[test]
fn sql_that_would_end_the_transaction_or_write_to_our_tables_is_refused() {
    let (_dir, path) = file();
    let client = Client::open(&path).unwrap();
    with_table(&client);
    client.schedule(probe(1)).unwrap();
    let refused = [
        "BEGIN",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT a",
        "RELEASE a",
        "ROLLBACK TO a",
        "ATTACH ':memory:' AS other",
        "DETACH main",
        "PRAGMA synchronous = OFF",
        "PRAGMA user_version = 7",
        "PRAGMA wal_checkpoint",
        "PRAGMA writable_schema = 1",
        "UPDATE punctual_task SET state = 20",
        "UPDATE Punctual_Task SET state = 20",
        "DELETE FROM punctual_task",
        "INSERT INTO punctual_meta VALUES ('a', 1)",
        "DROP TABLE punctual_task",
        "ALTER TABLE punctual_task ADD COLUMN x",
        "CREATE TABLE punctual_mine (x)",
        "CREATE TEMP TABLE punctual_task AS SELECT * FROM main.punctual_task",
        "CREATE TEMP VIEW punctual_task AS SELECT 1",
        "CREATE VIEW punctual_mine AS SELECT 1",
        "CREATE VIRTUAL TABLE punctual_mine USING fts5 (x)",
        "PRAGMA page_size = 512",
        "CREATE INDEX mine ON punctual_task (state)",
        "DROP INDEX punctual_task_due",
        "CREATE TRIGGER mine AFTER INSERT ON punctual_task BEGIN SELECT 1; END",
        "CREATE TRIGGER mine AFTER INSERT ON own BEGIN DELETE FROM punctual_task; END; INSERT INTO own (x) VALUES (77)",
    ];
    for sql in refused {
        let error = client
            .transaction(|tx| {
                write(tx, 1)?;
                tx.sqlite()?.execute_batch(sql)?;
                Ok::<_, Error>(())
            })
            .expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{sql}: {error}");
        assert_eq!(rows(&client), 0, "{sql}");
    }
    for sql in ["COMMIT", "ROLLBACK", "BEGIN", "DELETE FROM punctual_task"] {
        let kept = client.transaction(|tx| {
            let before = rows_in(tx)?;
            assert!(tx.sqlite()?.execute_batch(sql).is_err());
            write(tx, before + 1)?;
            Ok::<_, Error>(before)
        });
        assert_eq!(kept.unwrap() + 1, rows(&client), "{sql} was not done");
    }
    let allowed = [
        "SELECT count(*) FROM punctual_task",
        "PRAGMA table_info(own)",
        "WITH RECURSIVE n(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n LIMIT 9) SELECT sum(x) FROM n",
    ];
    client
        .transaction(|tx| {
            for sql in allowed {
                let mut statement = tx.sqlite()?.prepare(sql)?;
                assert!(statement.exists([])?, "{sql}");
            }
            tx.sqlite()?.execute_batch(
                "CREATE VIRTUAL TABLE text USING fts5 (body); INSERT INTO text VALUES ('a b');
                CREATE TEMP TABLE t (x); CREATE INDEX own_y ON own (y); DROP TABLE text",
            )?;
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(client.count(&Filter::all()).unwrap(), 1);
    assert!(
        client.health().last_error().is_none(),
        "{:?}",
        client.health()
    );
}

fn rows_in(tx: &Tx<'_>) -> Result<i64, Error> {
    let sql = "SELECT count(*) FROM own";
    Ok(tx.sqlite()?.query_row(sql, [], |row| row.get(0))?)
}

/// SQLite ends the transaction by itself there: whatever comes after that would be one of its own.
#[test]
fn p6_a_transaction_that_sql_has_rolled_back_commits_nothing_of_what_comes_after() {
    let (_dir, path) = file();
    let client = Client::open(&path).unwrap();
    with_table(&client);
    client.transaction(|tx| write(tx, 1).map(|_| ())).unwrap();
    let error = client
        .transaction(|tx| {
            write(tx, 2)?;
            tx.schedule(probe(1))?;
            let twice = tx
                .sqlite()?
                .execute("INSERT OR ROLLBACK INTO own (x) VALUES (1)", []);
            assert!(twice.is_err());
            assert!(write(tx, 3).is_err(), "it would commit alone");
            assert!(tx.schedule(probe(2)).is_err());
            Ok::<_, Error>(())
        })
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("ROLLBACK"), "{error}");
    assert_eq!(rows(&client), 1);
    assert_eq!(client.count(&Filter::all()).unwrap(), 0);
    client.schedule(probe(3)).unwrap();
}

/// The crate's own statements are kept on the same connection by their text, and were permitted when they were made.
#[test]
fn p6_statements_that_are_kept_are_refused_too() {
    let (_dir, path) = file();
    let client = Client::open(&path).unwrap();
    with_table(&client);
    let _ = client.transaction(|_| Err::<(), _>(Error::from(rusqlite::Error::InvalidQuery)));
    let kept = [
        "ROLLBACK",
        "COMMIT",
        "BEGIN IMMEDIATE",
        "PRAGMA synchronous = NORMAL",
    ];
    client
        .transaction(|tx| {
            write(tx, 1)?;
            tx.schedule(probe(1).queue("new"))?;
            for sql in kept {
                let prepared = tx.sqlite()?.prepare_cached(sql);
                assert!(prepared.and_then(|mut it| it.execute([])).is_err(), "{sql}");
            }
            tx.schedule(probe(2).queue("new"))?;
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(rows(&client), 1);
    assert_eq!(client.count(&Filter::all()).unwrap(), 2);
}

#[test]
fn a_table_cannot_be_given_one_of_our_names() {
    let (_dir, path) = file();
    let client = Client::open(&path).unwrap();
    with_table(&client);
    let refused = [
        "CREATE TEMP TABLE t (id, state); ALTER TABLE t RENAME TO punctual_task",
        "CREATE TEMP TABLE t (id, state); ALTER TABLE t RENAME TO Punctual_Task",
        "ALTER TABLE other RENAME TO punctual_other",
    ];
    for sql in refused {
        let error = client
            .transaction(|tx| tx.sqlite()?.execute_batch(sql).map_err(Error::from))
            .expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{sql}: {error}");
        assert!(error.to_string().contains("names that begin"), "{error}");
        client.schedule(probe(1).after(LONG)).unwrap();
    }
    assert_eq!(client.count(&Filter::all()).unwrap(), 3);
    // A statement that is kept is not looked at when it is run.
    let kept = "ALTER TABLE other RENAME TO punctual_other";
    client
        .transaction(|tx| {
            tx.sqlite()?
                .prepare_cached(kept)
                .map(drop)
                .map_err(Error::from)
        })
        .unwrap();
    let error = client
        .transaction(|tx| Ok::<_, Error>(tx.sqlite()?.prepare_cached(kept)?.execute([])?))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    drop(client);
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("CREATE TABLE punctual_notes (x)")
        .unwrap();
    drop(conn);
    let client = Client::open(&path).unwrap();
    // As SQLite's manual has it done. What had such a name before is no concern.
    let made_anew = "CREATE TABLE new (x, z); INSERT INTO new SELECT x, 1 FROM other;
        DROP TABLE other; ALTER TABLE new RENAME TO other";
    client
        .transaction(|tx| tx.sqlite()?.execute_batch(made_anew).map_err(Error::from))
        .unwrap();
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

/// What a handler does with its transaction, by the number in its task.
fn started(builder: punctual::Builder) -> Scheduler {
    let scheduler = builder
        .retry_policy("probe", punctual::RetryPolicy::fixed(Duration::ZERO))
        .handler_fn(move |Probe(n), cx: &TaskContext| {
            let completed = cx.complete(|tx| {
                write(tx, i64::from(n))?;
                tx.schedule(NewTask::new(Other(n)).after(LONG))?;
                match (n, cx.attempt()) {
                    (1, 1) => Err("at first it fails".into()),
                    (2, 1) => panic!("at first it panics"),
                    (5, _) => Ok(Outcome::cancel("with its effects")),
                    _ => Outcome::with(&n),
                }
            });
            match n {
                3 => {
                    let _ = completed?;
                    assert_eq!(
                        cx.complete(|_| Ok::<_, Error>(Outcome::done()))
                            .unwrap_err()
                            .kind(),
                        ErrorKind::State
                    );
                    Err("what comes after changes nothing".into())
                }
                4 => {
                    let _ = completed?;
                    panic!("nor does this")
                }
                6 => {
                    let _ = completed?;
                    Outcome::with("nor does this")
                }
                _ => completed,
            }
        })
        .start()
        .unwrap();
    with_table(&scheduler);
    scheduler
}

fn follow_ups(client: &Client, n: u32) -> usize {
    let page = client
        .list(&Filter::new().kind("other").limit(100))
        .unwrap();
    let of = |task: &&punctual::Task| task.payload::<Other>().unwrap().0 == n;
    page.tasks().iter().filter(of).count()
}

#[test]
fn p6_effects_follow_ups_and_the_completion_are_one_commit() {
    let (_dir, path) = file();
    for builder in [Scheduler::builder(&path), Scheduler::in_memory()] {
        let scheduler = started(builder);
        let mut rows_before = 0;
        for (n, attempts) in [(0, 1), (1, 2), (2, 2), (3, 1), (4, 1), (6, 1)] {
            let id = scheduler.schedule(Probe(n)).unwrap().id();
            let task = end_of(&scheduler, id);
            assert_eq!(task.state(), TaskState::Completed, "{n}");
            assert_eq!(task.result::<u32>().unwrap(), Some(n));
            rows_before += 1;
            assert_eq!((task.attempt(), rows(&scheduler)), (attempts, rows_before));
            assert_eq!(follow_ups(&scheduler, n), 1, "{n}");
        }
        let cancelled = scheduler.schedule(Probe(5)).unwrap().id();
        let task = end_of(&scheduler, cancelled);
        assert_eq!(task.state(), TaskState::Cancelled);
        assert_eq!((rows(&scheduler), follow_ups(&scheduler, 5)), (7, 1));
        scheduler.shutdown(LONG).unwrap();
        let health = scheduler.health();
        assert_eq!((health.busy(), health.stuck()), (0, 0));
    }
}

/// A snooze commits what was done so far, and the next attempt goes on from there.
#[test]
fn p6_a_snooze_commits_with_its_effects() {
    let (_dir, path) = file();
    let scheduler = Scheduler::builder(&path)
        .handler_fn(|Probe(n), cx: &TaskContext| {
            cx.complete(|tx| {
                let done = rows_in(tx)?;
                write(tx, done)?;
                if done < i64::from(n) {
                    return Ok::<_, Failure>(Outcome::snooze(Duration::ZERO));
                }
                Outcome::with(&done)
            })
        })
        .start()
        .unwrap();
    with_table(&scheduler);
    let id = scheduler.schedule(Probe(5)).unwrap().id();
    let task = end_of(&scheduler, id);
    assert_eq!(
        (task.result::<u32>().unwrap(), task.attempt()),
        (Some(5), 1)
    );
    assert_eq!(rows(&scheduler), 6);
}

#[test]
fn p8_a_cancelled_task_that_completes_with_its_effects_is_completed() {
    let (_dir, path) = file();
    let gate = Gate::default();
    let at_gate = gate.clone();
    let scheduler = Scheduler::builder(&path)
        .handler_fn(move |_: Probe, cx: &TaskContext| {
            at_gate.pass();
            cx.complete(|tx| {
                write(tx, 1)?;
                Ok::<_, Failure>(Outcome::done())
            })
        })
        .start()
        .unwrap();
    let _open = OpenOnDrop(gate.clone());
    with_table(&scheduler);
    let id = scheduler.schedule(Probe(1)).unwrap().id();
    gate.await_waiting(1);
    assert_eq!(scheduler.cancel(id).unwrap(), Cancel::Requested);
    gate.open();
    assert_eq!(end_of(&scheduler, id).state(), TaskState::Completed);
    assert_eq!(rows(&scheduler), 1);
}

/// A connection of the user's own, in the process of the scheduler.
#[test]
fn p6_tasks_scheduled_in_the_user_s_own_transaction_run_when_it_commits() {
    let (_dir, path) = file();
    let gate = Gate::default();
    let at_gate = gate.clone();
    let scheduler = Scheduler::builder(&path)
        .handler_fn(|_: Probe, _| Ok(Outcome::done()))
        .handler_fn(move |_: Other, cx: &TaskContext| {
            at_gate.pass();
            let told = cx.cancelled_within(LONG);
            assert!(told, "nobody said so");
            Err("stopped".into())
        })
        .start()
        .unwrap();
    let _open = OpenOnDrop(gate.clone());
    let mut conn = Connection::open(&path).unwrap();
    let running = scheduler.schedule(Other(1)).unwrap().id();
    gate.await_waiting(1);
    let tx = conn.transaction().unwrap();
    tx.execute_batch("CREATE TABLE own (x)").unwrap();
    let undone = scheduler
        .sqlite()
        .unwrap()
        .schedule_in(&tx, probe(1).queue("new"))
        .unwrap()
        .id();
    assert_eq!(
        scheduler.sqlite().unwrap().cancel_in(&tx, running).unwrap(),
        Cancel::Requested
    );
    tx.rollback().unwrap();
    assert!(scheduler.get(undone).unwrap().is_none());
    let tx = conn.transaction().unwrap();
    let first = scheduler
        .sqlite()
        .unwrap()
        .schedule_in(&tx, probe(2).queue("new"))
        .unwrap();
    let again = scheduler
        .sqlite()
        .unwrap()
        .schedule_in(&tx, probe(3).queue("new").id(first.id()))
        .unwrap();
    assert!(first.is_new() && !again.is_new());
    let late = scheduler
        .sqlite()
        .unwrap()
        .schedule_many_in(&tx, (0..20).map(|n| probe(n).after(LONG)))
        .unwrap();
    assert_eq!(
        scheduler
            .sqlite()
            .unwrap()
            .cancel_in(&tx, late[0].id())
            .unwrap(),
        Cancel::Cancelled
    );
    assert_eq!(
        scheduler.sqlite().unwrap().cancel_in(&tx, running).unwrap(),
        Cancel::Requested
    );
    assert!(scheduler.get(first.id()).unwrap().is_none(), "not yet");
    tx.commit().unwrap();
    assert_eq!(end_of(&scheduler, first.id()).state(), TaskState::Completed);
    gate.open();
    assert_eq!(end_of(&scheduler, running).state(), TaskState::Cancelled);
    assert_eq!(state(&scheduler, late[1].id()), TaskState::Pending);
}

#[test]
fn p6_only_a_transaction_on_the_same_file_takes_tasks() {
    let (dir, path) = file();
    let client = Client::open(&path).unwrap();
    let stored = client.schedule(probe(0)).unwrap().id();
    let refused = |conn: &Connection, expected: ErrorKind, said: &str| {
        let error = client
            .sqlite()
            .unwrap()
            .schedule_in(conn, probe(1))
            .unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert!(error.task_id().is_some());
        let cancelled = client
            .sqlite()
            .unwrap()
            .cancel_in(conn, stored)
            .unwrap_err();
        assert_eq!(cancelled.kind(), expected);
    };
    let begun = |conn: Connection| {
        conn.execute_batch("BEGIN").unwrap();
        conn
    };
    let conn = Connection::open(&path).unwrap();
    refused(&conn, ErrorKind::Invalid, "no transaction is open");
    let other = dir.path().join("other.db");
    drop(Client::open(&other).unwrap());
    let conn = begun(Connection::open(&other).unwrap());
    refused(&conn, ErrorKind::Invalid, "other.db");
    let conn = begun(Connection::open_in_memory().unwrap());
    refused(&conn, ErrorKind::Invalid, "to no file");
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let conn = begun(Connection::open_with_flags(&path, flags).unwrap());
    refused(&conn, ErrorKind::ReadOnly, "cannot write");
    let conn = begun(Connection::open(&path).unwrap());
    conn.pragma_update(None, "query_only", true).unwrap();
    refused(&conn, ErrorKind::ReadOnly, "");
    let conn = begun(Connection::open(&path).unwrap());
    let hiding = "CREATE TEMP TABLE punctual_task AS SELECT * FROM main.punctual_task";
    conn.execute_batch(hiding).unwrap();
    refused(&conn, ErrorKind::Invalid, "temp.punctual_task");
    #[cfg(unix)]
    {
        let alias = dir.path().join("alias.db");
        std::os::unix::fs::symlink(&path, &alias).unwrap();
        let conn = begun(Connection::open(&alias).unwrap());
        client
            .sqlite()
            .unwrap()
            .schedule_in(&conn, probe(1))
            .expect("the same file");
    }
    let memory = Scheduler::in_memory().start().unwrap();
    let conn = begun(Connection::open_in_memory().unwrap());
    let error = memory
        .sqlite()
        .unwrap()
        .schedule_in(&conn, probe(1))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(client.count(&Filter::all()).unwrap(), 1);
}

/// The client was opened anew after the file was restored, the connection was not.
#[test]
fn p6_a_connection_to_a_file_that_was_replaced_takes_no_tasks() {
    let (dir, path) = file();
    drop(Client::open(&path).unwrap());
    let mut old = Connection::open(&path).unwrap();
    old.execute_batch("CREATE TABLE own (x)").unwrap();
    let restored = dir.path().join("restored.db");
    drop(Client::open(&restored).unwrap());
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
    std::fs::rename(&restored, &path).unwrap();
    let client = Client::open(&path).unwrap();
    let tx = old.transaction().unwrap();
    let error = client
        .sqlite()
        .unwrap()
        .schedule_in(&tx, probe(1))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Replaced, "{error}");
    drop(tx);
    let mut new = Connection::open(&path).unwrap();
    let tx = new.transaction().unwrap();
    client.sqlite().unwrap().schedule_in(&tx, probe(1)).unwrap();
    tx.commit().unwrap();
    assert_eq!(client.count(&Filter::all()).unwrap(), 1);
}

/// Somebody else writes, and a deferred transaction that has read cannot begin to write any more.
#[test]
fn the_user_s_own_transaction_that_cannot_write_is_told_so() {
    let (_dir, path) = file();
    let client = Client::open(&path).unwrap();
    let mut conn = Connection::open(&path).unwrap();
    conn.busy_timeout(Duration::ZERO).unwrap();
    let tx = conn.transaction().unwrap();
    let _: i64 = tx
        .query_row("SELECT count(*) FROM punctual_task", [], |row| row.get(0))
        .unwrap();
    client.schedule(probe(1)).unwrap();
    let error = client
        .sqlite()
        .unwrap()
        .schedule_in(&tx, probe(2))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(error.is_retryable());
    tx.rollback().unwrap();
    let tx = conn.transaction().unwrap();
    client.sqlite().unwrap().schedule_in(&tx, probe(2)).unwrap();
    tx.commit().unwrap();
    assert_eq!(client.count(&Filter::all()).unwrap(), 2);
}
