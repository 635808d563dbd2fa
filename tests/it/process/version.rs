//! Files that are not this version's any more, while processes have them open: migrated by a newer one, altered by hand,
//! moved, replaced, deleted, or opened by another name.

use std::fs;
use std::time::Duration;

use punctual::rusqlite::Connection;
use punctual::{Client, ErrorKind, NewTask, Outcome, Payload, Scheduler, TaskContext, TaskState};
use serde::{Deserialize, Serialize};

use super::kit::{Line, PATIENCE, Part, Place, Process, Since, eventually, part};

#[derive(Serialize, Deserialize)]
struct Quick;

impl Payload for Quick {
    const KIND: &'static str = "quick";
}

/// It returns when it is ordered to.
#[derive(Serialize, Deserialize)]
struct Ordered;

impl Payload for Ordered {
    const KIND: &'static str = "ordered";
}

#[test]
#[ignore = "a child process whose file is changed under it"]
fn child() {
    let Some(part) = Part::played() else { return };
    let (quick, ordered) = (part.clone(), part.clone());
    let (sender, orders) = std::sync::mpsc::channel::<String>();
    let orders = std::sync::Mutex::new(orders);
    let scheduler = Scheduler::builder(&part.file)
        .workers(2)
        .handler_fn(move |_: Quick, cx: &TaskContext| {
            quick.started(cx);
            Ok(Outcome::done())
        })
        .handler_fn(move |_: Ordered, cx: &TaskContext| {
            ordered.started(cx);
            let order = orders.lock().expect("nobody panics").recv();
            ordered.ended(cx);
            order.map(|_| Outcome::done()).map_err(Into::into)
        })
        .start()
        .expect("to open the file");
    part.say(&Line::Opened);
    loop {
        match part.next_order().as_str() {
            "return" => sender.send(String::new()).expect("a handler that waits"),
            "schedule" => {
                let scheduled = scheduler.schedule(Quick);
                let kind = scheduled.map(|_| ()).map_err(|error| error.kind());
                part.note(format!("{kind:?}"));
            }
            "health" => part.note(format!("{:?}", scheduler.health().stopped())),
            "read" => {
                let read = scheduler.get(punctual::TaskId::new());
                part.note(format!("{:?}", read.map(|_| ()).map_err(|e| e.kind())));
            }
            other => panic!("no order: {other}"),
        }
    }
}

fn start(place: &Place) -> Process {
    let process = Process::start(part!(child), &place.file(), &[]);
    assert_eq!(process.line(), Line::Opened);
    process
}

/// What it answers; its handlers talk, too.
fn ask(process: &mut Process, order: &str) -> String {
    process.order(order);
    let lines = process.read_until(|line| matches!(line, Line::Note(_)));
    match lines.last() {
        Some(Line::Note(text)) => text.clone(),
        other => panic!("{other:?}"),
    }
}

/// What a process says of its store once it has noticed.
fn stopped(process: &mut Process) -> String {
    eventually("it stops", || {
        Some(ask(process, "health")).filter(|health| health != "None")
    })
}

/// A newer version of the crate, as far as this one can tell.
fn migrate(place: &Place) {
    let conn = Connection::open(place.file()).expect("to open the file");
    conn.busy_timeout(PATIENCE).expect("to wait for a lock");
    conn.execute_batch(
        "BEGIN IMMEDIATE;
        CREATE TABLE punctual_newer (x);
        ALTER TABLE punctual_task ADD COLUMN newer INTEGER;
        UPDATE punctual_meta SET value = value + 1 WHERE key = 'schema_version';
        COMMIT",
    )
    .expect("to migrate");
}

#[test]
fn p12_a_file_that_is_migrated_by_a_newer_version_is_left_to_it() {
    let place = Place::new();
    let client = Client::open(place.file()).expect("to open the file");
    let mut process = start(&place);
    let held = client.schedule(Ordered).expect("to schedule").id();
    process.read_until(|line| matches!(line, Line::Started { .. }));
    // Due as soon as the file is migrated: by then this version may not claim it.
    let soon = NewTask::new(Quick).after(Duration::from_millis(300));
    let late = client.schedule(soon).expect("to schedule").id();
    migrate(&place);
    assert_eq!(stopped(&mut process), "Some(Version)");
    assert_eq!(ask(&mut process, "schedule"), "Err(Version)");
    assert_eq!(ask(&mut process, "read"), "Err(Version)");
    let error = client.schedule(Quick).expect_err("it is newer");
    assert_eq!(error.kind(), ErrorKind::Version, "{error}");
    let error = Client::open(place.file()).expect_err("it is newer");
    assert_eq!(error.kind(), ErrorKind::Version, "{error}");
    // What it held it holds until the handler has returned; then the next one may take it back.
    let state = |id: punctual::TaskId| {
        let id = id.to_string().replace('-', "");
        place.number(&format!(
            "SELECT state FROM punctual_task WHERE hex(id) = upper('{id}')"
        ))
    };
    let locked = |place: &Place| {
        let folder = place.file().with_file_name("tasks.db.punctual");
        place.lock_files().iter().any(|name| {
            let file = fs::File::options().write(true).open(folder.join(name));
            file.is_ok_and(|file| file.try_lock().is_err())
        })
    };
    assert!(locked(&place), "its handler runs");
    process.order("return");
    process.read_until(|line| matches!(line, Line::Ended { .. }));
    eventually("it gives up what it held", || {
        (!locked(&place)).then_some(())
    });
    assert_eq!((state(held), state(late)), (10, 0));
}

/// The lock files were taken for rubbish, or left behind when the file was moved: then the kernel is asked for the process.
#[test]
fn p11_tasks_of_a_process_whose_lock_file_is_lost_are_taken_back_when_it_is_gone() {
    let place = Place::new();
    let client = Client::open(place.file()).expect("to open the file");
    let process = start(&place);
    let id = client.schedule(Ordered).expect("to schedule").id();
    process.read_until(|line| matches!(line, Line::Started { .. }));
    place.lose_lock_files();
    let scheduler = Scheduler::builder(place.file())
        .workers(1)
        .handler_fn(|_: Ordered, _: &TaskContext| Ok(Outcome::done()))
        .handler_fn(|_: Quick, _: &TaskContext| Ok(Outcome::done()))
        .start()
        .expect("to open the file");
    let quick = scheduler.schedule(Quick).expect("to schedule").id();
    scheduler.wait(quick, PATIENCE).expect("to read");
    let task = scheduler.get(id).expect("to read").expect("it is there");
    assert_eq!(
        task.state(),
        TaskState::Running,
        "a missing file is not death"
    );
    process.kill();
    let ended = scheduler.wait(id, PATIENCE).expect("to read");
    let ended = ended.expect("an end");
    assert_eq!(ended.state(), TaskState::Completed);
    assert_eq!(ended.task().crashes(), 1);
}

/// Nobody need have looked: what comes on a connection of the user's own is not stored in a form that is out of date.
#[test]
fn p12_a_transaction_on_another_connection_is_refused_in_a_newer_file() {
    let place = Place::new();
    let client = Client::open(place.file()).expect("to open the file");
    client.schedule(Quick).expect("to schedule");
    let mut conn = Connection::open(place.file()).expect("to open the file");
    let newer = "UPDATE punctual_meta SET value = value + 1 WHERE key = 'schema_version'";
    conn.execute(newer, []).expect("to migrate");
    let tx = conn.transaction().expect("to begin");
    let refused = |tx: &Connection| {
        client
            .sqlite()
            .expect("SQLite")
            .schedule_in(tx, Quick)
            .expect_err("it is newer")
    };
    assert_eq!(refused(&tx).kind(), ErrorKind::Version);
    drop(tx);
    // No table was changed.
    let error = client.schedule(Quick).expect_err("it is newer");
    assert_eq!(error.kind(), ErrorKind::Version);
    let older = "UPDATE punctual_meta SET value = value - 1 WHERE key = 'schema_version'";
    conn.execute(older, []).expect("to migrate back");
    let tx = conn.transaction().expect("to begin");
    assert_eq!(refused(&tx).kind(), ErrorKind::Version, "it has stopped");
}

#[test]
fn p12_tables_that_are_altered_by_hand_stop_the_store_by_name() {
    for (harm, said) in [
        ("DROP TABLE punctual_tag", "punctual_tag is missing"),
        (
            "DROP INDEX punctual_task_due",
            "punctual_task_due is missing",
        ),
        (
            "ALTER TABLE punctual_task DROP COLUMN partition",
            "punctual_task was altered",
        ),
    ] {
        let place = Place::new();
        let client = Client::open(place.file()).expect("to open the file");
        let mut process = start(&place);
        let conn = Connection::open(place.file()).expect("to open the file");
        conn.busy_timeout(PATIENCE).expect("to wait for a lock");
        conn.execute_batch(harm).expect("to do harm");
        assert_eq!(stopped(&mut process), "Some(Corrupt)", "{harm}");
        let error = client.schedule(Quick).expect_err(harm);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(said), "{error}");
        let error = Client::open(place.file()).expect_err(harm);
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn p12_a_file_that_is_moved_replaced_or_deleted_takes_no_task_any_more() {
    for harm in ["move", "replace", "delete"] {
        let place = Place::new();
        let mut process = start(&place);
        assert_eq!(ask(&mut process, "schedule"), "Ok(())");
        let (file, aside) = (place.file(), place.file().with_extension("aside"));
        match harm {
            "move" => fs::rename(&file, &aside).expect("to move it"),
            "delete" => fs::remove_file(&file).expect("to delete it"),
            _ => {
                drop(Client::open(&aside).expect("another file"));
                fs::rename(&aside, &file).expect("to replace it");
            }
        }
        // It looks at the path every ten milliseconds, before it writes.
        let since = Since::now();
        let mut taken = 0;
        while ask(&mut process, "schedule") != "Err(Replaced)" {
            taken += 1;
            assert!(since.elapsed() < PATIENCE, "{harm}: {taken} were taken");
        }
        assert_eq!(stopped(&mut process), "Some(Replaced)", "{harm}");
        assert_eq!(ask(&mut process, "read"), "Err(Replaced)", "{harm}");
    }
}

/// What was acknowledged is in the log that was removed: it is saved while it is still open.
#[test]
fn p1_a_log_that_is_removed_stops_the_store_and_loses_nothing() {
    for harm in ["delete", "replace"] {
        let place = Place::new();
        let mut process = start(&place);
        let since = Since::now();
        let mut taken = 0;
        let mut answer = ask(&mut process, "schedule");
        while answer == "Ok(())" && since.elapsed() < PATIENCE {
            taken += 1;
            if taken == 5 {
                let log = place.file().with_file_name("tasks.db-wal");
                fs::remove_file(&log).expect("to remove the log");
                if harm == "replace" {
                    fs::write(&log, "").expect("to replace the log");
                }
            }
            answer = ask(&mut process, "schedule");
        }
        assert_eq!(answer, "Err(Replaced)", "{harm}: {taken} were taken");
        assert_eq!(stopped(&mut process), "Some(Replaced)", "{harm}");
        process.kill();
        let client = Client::open(place.file()).expect("to open the file");
        let stored = client.count(&punctual::Filter::all()).expect("to count");
        assert_eq!(stored, taken, "{harm}");
    }
}

/// Through two hard links SQLite has two logs, and loses what is in one of them. A symbolic link is the file itself.
#[test]
fn a_second_name_of_the_file_is_refused_and_a_symbolic_link_is_the_same_file() {
    let place = Place::new();
    let mut process = start(&place);
    let link = place.file().with_file_name("symbolic.db");
    std::os::unix::fs::symlink(place.file(), &link).expect("a link");
    let client = Client::open(&link).expect("the same file");
    let id = client.schedule(Quick).expect("to schedule").id();
    process.read_until(|line| matches!(line, Line::Started { .. }));
    let ended = client.wait(id, PATIENCE).expect("to read").expect("an end");
    assert_eq!(ended.state(), TaskState::Completed);
    let hard = place.file().with_file_name("hard.db");
    fs::hard_link(place.file(), &hard).expect("a link");
    let error = Client::open(&hard).expect_err("it has two names");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("hard.db has 2 names"), "{error}");
    let mut conn = Connection::open(&hard).expect("SQLite does not mind");
    conn.execute_batch("PRAGMA query_only = 1")
        .expect("to look only");
    let tx = conn.transaction().expect("a transaction");
    let error = client
        .sqlite()
        .expect("SQLite")
        .schedule_in(&tx, Quick)
        .expect_err("another name");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("hard.db"), "{error}");
    drop(tx);
    drop(conn);
    fs::remove_file(&hard).expect("to remove it");
    assert_eq!(ask(&mut process, "schedule"), "Ok(())");
    Client::open(place.file()).expect("it has one name again");
}
