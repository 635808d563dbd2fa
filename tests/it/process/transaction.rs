//! P6 and P7 across processes: what dies inside a transaction leaves nothing of it, and an attempt that was taken over does
//! not get inside.

use std::time::Duration;

use punctual::rusqlite::Connection;
use punctual::{
    Client, Error, ErrorKind, NewTask, Outcome, Payload, Scheduler, TaskContext, TaskState, Tx,
};
use serde::{Deserialize, Serialize};

use super::kit::{Line, PATIENCE, Part, Place, Process, eventually, part};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Serialize, Deserialize)]
struct Effect;

impl Payload for Effect {
    const KIND: &'static str = "effect";
}

fn write(tx: &Tx<'_>) -> Result<usize, Error> {
    Ok(tx.sqlite()?.execute("INSERT INTO own VALUES (1)", [])?)
}

fn later() -> NewTask {
    NewTask::with_kind("later", &()).after(DAY)
}

/// Says that it is inside, and stays there until it is ordered to leave.
fn inside(part: &Part) {
    part.note("inside");
    assert_eq!(part.next_order(), "leave");
}

#[test]
#[ignore = "a child process that is killed inside a transaction"]
fn child() {
    let Some(part) = Part::played() else { return };
    let role: String = part.argument(0);
    let (handler, how) = (part.clone(), role.clone());
    let scheduler = Scheduler::builder(&part.file)
        .workers(1)
        .transaction_timeout(Duration::from_secs(3600))
        .handler_fn(move |_: Effect, cx: &TaskContext| {
            handler.started(cx);
            if how == "stale" {
                inside(&handler);
            }
            let ran = cx.complete(|tx| {
                write(tx)?;
                tx.schedule(later())?;
                match how.as_str() {
                    "complete" => inside(&handler),
                    "stale" => handler.note("the closure ran"),
                    _ => {}
                }
                Outcome::with("completed")
            });
            let stale = cx.cancelled();
            if let Err(failure) = &ran {
                handler.note(format!("{stale} {}", failure.text()));
            }
            ran
        })
        .start()
        .expect("to open the file");
    let takes_orders = matches!(role.as_str(), "transaction" | "own");
    match role.as_str() {
        "transaction" => {
            let ran = scheduler.transaction(|tx| {
                write(tx)?;
                tx.schedule(Effect)?;
                inside(&part);
                Ok::<_, Error>(())
            });
            part.note(format!("{ran:?}"));
        }
        "own" => {
            let mut conn = Connection::open(&part.file).expect("to open the file");
            let tx = conn.transaction().expect("a transaction");
            tx.execute("INSERT INTO own VALUES (1)", [])
                .expect("to write");
            scheduler
                .sqlite()
                .expect("SQLite")
                .schedule_in(&tx, Effect)
                .expect("to schedule");
            inside(&part);
            tx.commit().expect("to commit");
            part.note("committed");
        }
        _ => {}
    }
    if takes_orders {
        loop {
            part.next_order();
        }
    }
    loop {
        std::thread::park();
    }
}

fn place() -> (Place, Client) {
    let place = Place::new();
    let client = Client::builder(place.file())
        .busy_timeout(Duration::from_millis(100))
        .open()
        .expect("to open the file");
    let made = client.transaction(|tx| {
        tx.sqlite()?.execute_batch("CREATE TABLE own (x)")?;
        Ok::<_, Error>(())
    });
    made.expect("to make a table");
    (place, client)
}

fn start(place: &Place, how: &str) -> Process {
    Process::start(part!(child), &place.file(), &[&how])
}

fn until(process: &Process, text: &str) {
    process.read_until(|line| *line == Line::Note(text.to_owned()));
}

fn rows(place: &Place, table: &str) -> i64 {
    place.number(&format!("SELECT count(*) FROM {table}"))
}

/// Inside the crate's transaction, and inside one of the user's own.
#[test]
fn p6_a_process_that_is_killed_inside_a_transaction_leaves_nothing_of_it() {
    for how in ["transaction", "own"] {
        let (place, client) = place();
        let process = start(&place, how);
        until(&process, "inside");
        // It holds SQLite's lock as long as it lives; every wait for it is bounded.
        let error = client.schedule(later()).expect_err("it holds the lock");
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        process.kill();
        assert_eq!((rows(&place, "own"), rows(&place, "punctual_task")), (0, 0));
        client.schedule(later()).expect("the lock is free");

        let mut process = start(&place, how);
        until(&process, "inside");
        process.order("leave");
        until(&process, if how == "own" { "committed" } else { "Ok(())" });
        eventually("its task completes", || {
            (place.number("SELECT count(*) FROM punctual_task WHERE state = 20") == 1).then_some(())
        });
        // Its own row and the handler's; the task and its follow-up beside the one from before.
        assert_eq!((rows(&place, "own"), rows(&place, "punctual_task")), (2, 3));
    }
}

#[test]
fn p6_a_process_that_is_killed_inside_a_completion_leaves_the_task_to_the_next() {
    let (place, client) = place();
    let id = client.schedule(Effect).expect("to schedule").id();
    for _ in 0..3 {
        let process = start(&place, "complete");
        until(&process, "inside");
        process.kill();
        assert_eq!((rows(&place, "own"), rows(&place, "punctual_task")), (0, 1));
    }
    let mut process = start(&place, "complete");
    until(&process, "inside");
    process.order("leave");
    let ended = client.wait(id, PATIENCE).expect("to read").expect("an end");
    assert_eq!(ended.state(), TaskState::Completed);
    assert_eq!(
        ended.result().expect("its result"),
        Some("completed".to_owned())
    );
    assert_eq!((ended.task().attempt(), ended.task().crashes()), (4, 3));
    assert_eq!((rows(&place, "own"), rows(&place, "punctual_task")), (1, 2));
}

/// A living process, whose lock file is lost, is taken for one of another boot.
#[test]
fn p7_an_attempt_that_another_process_took_over_does_not_get_inside() {
    let (place, client) = place();
    let id = client.schedule(Effect).expect("to schedule").id();
    let mut stale = start(&place, "stale");
    until(&stale, "inside");
    place.lose_lock_files();
    let conn = Connection::open(place.file()).expect("to open the file");
    conn.busy_timeout(PATIENCE).expect("to wait for a lock");
    conn.execute("UPDATE punctual_instance SET boot_id = 'another'", [])
        .expect("to change the file");
    let fresh = Scheduler::builder(place.file())
        .workers(1)
        .handler_fn(|_: Effect, cx: &TaskContext| {
            cx.complete(|tx| {
                write(tx)?;
                Outcome::with("by the next")
            })
        })
        .start()
        .expect("to open the file");
    let ended = fresh.wait(id, PATIENCE).expect("to read").expect("an end");
    assert_eq!(
        ended.result().expect("its result"),
        Some("by the next".to_owned())
    );
    stale.order("leave");
    let lines = stale.read_until(|line| matches!(line, Line::Note(_)));
    let Some(Line::Note(told)) = lines.last() else {
        panic!("{lines:?}");
    };
    assert!(told.starts_with("true "), "its token is raised: {told}");
    assert!(told.contains("not this attempt's any more"), "{told}");
    let task = client.get(id).expect("to read").expect("it is there");
    assert_eq!(
        task.result().expect("its result"),
        Some("by the next".to_owned())
    );
    assert_eq!((rows(&place, "own"), rows(&place, "punctual_task")), (1, 1));
}
