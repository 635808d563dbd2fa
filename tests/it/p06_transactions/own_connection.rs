//! P6: tasks that are scheduled on a connection of the user's own.

use std::time::Duration;

use punctual::rusqlite::{self, Connection};
use punctual::{Cancel, Client, ErrorKind, Filter, Outcome, Scheduler, TaskContext, TaskState};

use crate::kit::{Gate, LONG, OpenOnDrop, Other, Probe, end_of, file, probe, state};

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
