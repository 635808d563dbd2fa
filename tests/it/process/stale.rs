//! An attempt that was taken over while it ran. It cannot be, as long as the system keeps its locks; these tests take a
//! living process, whose lock file they remove, for one of another boot.

use std::collections::HashMap;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use punctual::rusqlite::Connection;
use punctual::{
    AttemptEnd, Client, ErrorKind, Failure, Outcome, Payload, Scheduler, TaskContext, TaskResult,
    TaskState,
};
use serde::{Deserialize, Serialize};

use super::kit::{Line, PATIENCE, Part, Place, Process, part};

/// A task whose attempts return when, and as, they are ordered to.
#[derive(Serialize, Deserialize)]
struct Ordered;

impl Payload for Ordered {
    const KIND: &'static str = "ordered";
}

#[derive(Serialize, Deserialize)]
struct Quick;

impl Payload for Quick {
    const KIND: &'static str = "quick";
}

fn obey(order: &str, cx: &TaskContext) -> TaskResult {
    match order {
        "complete" => Outcome::with(&cx.attempt()),
        "fail" => Err(Failure::fatal("as ordered")),
        "retry" => Err(Failure::retry_after(
            Duration::from_secs(3600),
            "as ordered",
        )),
        "snooze" => Ok(Outcome::snooze(Duration::from_secs(3600))),
        "cancel" => Ok(Outcome::cancel("as ordered")),
        other => panic!("no order: {other}"),
    }
}

#[test]
#[ignore = "a child process that is taken for dead"]
fn child() {
    let Some(part) = Part::played() else { return };
    let handler = part.clone();
    let waiting: Arc<Mutex<HashMap<String, Sender<String>>>> = Arc::default();
    let attempts = Arc::clone(&waiting);
    let _scheduler = Scheduler::builder(&part.file)
        .workers(3)
        .handler_fn(move |_: Ordered, cx: &TaskContext| {
            let (sender, orders) = channel();
            let name = cx.attempt().to_string();
            attempts.lock().expect("nobody panics").insert(name, sender);
            handler.started(cx);
            let order = orders.recv().expect("an order");
            let progress = cx.progress(&cx.attempt()).map_err(|error| error.kind());
            handler.note(format!("progress {progress:?}"));
            handler.ended(cx);
            obey(&order, cx)
        })
        .handler_fn(|_: Quick, _| Ok(Outcome::done()))
        .start()
        .expect("to open the file");
    loop {
        let order = part.next_order();
        let (attempt, order) = order.split_once(' ').expect("an attempt and an order");
        let waiting = waiting.lock().expect("nobody panics");
        waiting[attempt]
            .send(order.to_owned())
            .expect("an attempt that waits");
    }
}

/// Makes every process that has the file open look like one of another boot. What it had open then proves nothing.
fn forget_the_boot(place: &Place) {
    place.lose_lock_files();
    let conn = Connection::open(place.file()).expect("to open the file");
    conn.busy_timeout(PATIENCE).expect("to wait for a lock");
    let changed = conn.execute("UPDATE punctual_instance SET boot_id = 'another'", []);
    assert_eq!(changed.expect("to change the file"), 1);
}

fn is_start_of(wanted: u32) -> impl Fn(&Line) -> bool {
    move |line| matches!(line, Line::Started { attempt, .. } if *attempt == wanted)
}

fn is_end_of(wanted: u32) -> impl Fn(&Line) -> bool {
    move |line| matches!(line, Line::Ended { attempt, .. } if *attempt == wanted)
}

/// P7: an attempt that was taken over can change nothing, even if the next one runs in the same process: however it ends,
/// and whatever it reports, the next attempt's end is the task's.
#[test]
fn a_stale_attempt_changes_nothing() {
    for order in ["complete", "fail", "retry", "snooze", "cancel"] {
        let place = Place::new();
        let client = Client::open(place.file()).expect("to open the file");
        let id = client.schedule(Ordered).expect("to schedule").id();
        let mut process = Process::start(part!(child), &place.file(), &[]);
        process.read_until(is_start_of(1));
        forget_the_boot(&place);
        // Whoever opens the file takes back what the dead held.
        drop(Client::open(place.file()).expect("to open the file"));
        process.read_until(is_start_of(2));

        process.order(&format!("1 {order}"));
        let lines = process.read_until(is_end_of(1));
        let refused = Err::<(), _>(ErrorKind::State);
        assert!(
            lines.contains(&Line::Note(format!("progress {refused:?}"))),
            "{lines:?}"
        );
        // Whatever the first did is settled by the time two further ones have come and gone.
        for _ in 0..2 {
            let quick = client.schedule(Quick).expect("to schedule").id();
            client
                .wait(quick, PATIENCE)
                .expect("to wait")
                .expect("it ends");
        }
        let task = client.get(id).expect("to read").expect("it is there");
        assert_eq!(
            (task.state(), task.attempt()),
            (TaskState::Running, 2),
            "after {order}: {task:?}"
        );
        assert_eq!(task.progress::<u32>().expect("a number"), None);

        process.order("2 complete");
        let ended = client
            .wait(id, PATIENCE)
            .expect("to wait")
            .expect("it ends");
        assert_eq!(ended.state(), TaskState::Completed, "after {order}");
        assert_eq!(
            ended.result::<u32>().expect("a number"),
            Some(2),
            "after {order}"
        );
        assert_eq!(ended.task().progress::<u32>().expect("a number"), Some(2));
        let ends: Vec<AttemptEnd> = client
            .history(id)
            .expect("its history")
            .iter()
            .map(|each| each.end())
            .collect();
        assert_eq!(
            ends,
            [AttemptEnd::Crashed, AttemptEnd::Completed],
            "after {order}"
        );
    }
}
