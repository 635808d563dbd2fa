//! Processes that stand still, and processes that die while others have the file open.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use punctual::{
    Client, ErrorKind, Filter, NewTask, Outcome, Payload, Scheduler, TaskContext, TaskId, TaskState,
};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::kit::{Line, PATIENCE, Part, Place, Process, Since, eventually, part};

/// Ends at once.
#[derive(Serialize, Deserialize)]
struct Quick;

impl Payload for Quick {
    const KIND: &'static str = "quick";
}

/// Ends when its process is ordered to, and at its second attempt at once.
#[derive(Serialize, Deserialize)]
struct Held;

impl Payload for Held {
    const KIND: &'static str = "held";
}

/// The tasks of a commit that is to be caught in the middle, and how much of it is written by then.
const BATCH: u32 = 2_000;
const MIDST_BYTES: u64 = 50_000;

fn open(part: &Part, released: Receiver<()>) -> Scheduler {
    let (quick, held) = (part.clone(), part.clone());
    let released = Arc::new(Mutex::new(released));
    Scheduler::builder(&part.file)
        .workers(2)
        .handler_fn(move |_: Quick, cx: &TaskContext| {
            quick.started(cx);
            quick.ended(cx);
            Ok(Outcome::done())
        })
        .handler_fn(move |_: Held, cx: &TaskContext| {
            held.started(cx);
            if cx.attempt() == 1 {
                released
                    .lock()
                    .expect("nobody panics")
                    .recv()
                    .expect("an order");
            }
            held.ended(cx);
            Ok(Outcome::done())
        })
        .start()
        .expect("to open the file")
}

#[test]
#[ignore = "a child process that is stopped"]
fn child() {
    let Some(part) = Part::played() else { return };
    let (release, released): (Sender<()>, _) = channel();
    let scheduler = open(&part, released);
    part.say(&Line::Opened);
    loop {
        match &*part.next_order() {
            "release" => release.send(()).expect("a handler"),
            "batch" => {
                let pad = "a payload of some length ".repeat(20);
                let tasks = (0..BATCH).map(|_| NewTask::with_kind("later", &pad));
                part.note("batch");
                scheduler.schedule_many(tasks).expect("to schedule");
                part.note("stored");
            }
            other => panic!("no order: {other}"),
        }
    }
}

fn start(place: &Place) -> Process {
    let process = Process::start(part!(child), &place.file(), &[]);
    process.read_until(|line| *line == Line::Opened);
    process
}

fn is_start(line: &Line, wanted: TaskId) -> bool {
    matches!(line, Line::Started { id, .. } if *id == wanted)
}

fn is_end(line: &Line, wanted: TaskId) -> bool {
    matches!(line, Line::Ended { id, .. } if *id == wanted)
}

/// P11, P7: a process that stands still for longer than any recovery takes keeps its tasks, and completes them when it goes
/// on; others that have the file open, or open it, run the rest and start nothing twice.
#[test]
fn a_stopped_process_keeps_its_tasks() {
    let place = Place::new();
    let client = Client::open(place.file()).expect("to open the file");
    let held = [0, 1].map(|_| client.schedule(Held).expect("to schedule").id());
    let mut stopped = start(&place);
    let started = Mutex::new(0);
    stopped.read_until(|line| {
        let mut started = started.lock().expect("nobody panics");
        *started += usize::from(matches!(line, Line::Started { .. }));
        *started == held.len()
    });
    stopped.signal(Signal::STOP);

    let other = start(&place);
    let quick = client.schedule(Quick).expect("to schedule").id();
    other.read_until(|line| is_end(line, quick));
    let late = other.line_within(Duration::from_millis(2_500));
    assert_eq!(
        late, None,
        "the tasks of a process that stands still were taken"
    );
    let third = Client::open(place.file()).expect("to open the file once more");
    for id in held {
        let task = third.get(id).expect("to read").expect("it is there");
        assert_eq!(
            (task.state(), task.attempt(), task.crashes()),
            (TaskState::Running, 1, 0),
            "{task:?}"
        );
    }

    stopped.signal(Signal::CONT);
    for _ in held {
        stopped.order("release");
    }
    for id in held {
        let ended = client
            .wait(id, PATIENCE)
            .expect("to wait")
            .expect("it goes on and ends");
        assert_eq!(ended.state(), TaskState::Completed);
        assert_eq!((ended.task().attempt(), ended.task().crashes()), (1, 0));
        let attempts = client.history(id).expect("its history");
        assert_eq!(attempts.len(), 1, "{attempts:?}");
    }
    let told = other.kill();
    assert!(told.is_empty(), "{told:?}");
}

/// P11: what a killed process held is runnable again within a second if another process has the file open.
#[test]
fn a_killed_process_s_tasks_go_on_in_another_that_has_the_file_open() {
    let place = Place::new();
    let client = Client::open(place.file()).expect("to open the file");
    let mut took = Vec::new();
    let mut killed = start(&place);
    for _ in 0..4 {
        let held = client.schedule(Held).expect("to schedule").id();
        killed.read_until(|line| is_start(line, held));
        let other = start(&place);
        killed.kill();
        let since = Since::now();
        let lines = other.read_until(|line| is_start(line, held));
        took.push(since.elapsed());
        let again =
            |line: &Line| matches!(line, Line::Started { id, attempt: 2, .. } if *id == held);
        assert!(
            lines.iter().any(again),
            "the crash counts as an attempt: {lines:?}"
        );
        let ended = client
            .wait(held, PATIENCE)
            .expect("to wait")
            .expect("it ends");
        assert_eq!(
            (ended.state(), ended.task().crashes()),
            (TaskState::Completed, 1)
        );
        killed = other;
    }
    eprintln!("rescue: started again after {took:?}");
    took.sort_unstable();
    // Half a second is how often it looks. One in four may be late: the machine has other things to do.
    assert!(took[2] < Duration::from_secs(2), "{took:?}");
}

/// How a process that stands still inside a commit comes out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    GoesOn,
    Dies,
}

/// P12, P1: a process that stands still inside a commit holds the lock of the file. Others are told so in bounded time, can
/// read, and go on by themselves once it goes on or dies; its commit is there whole or not at all.
#[test]
fn a_process_that_stands_still_inside_a_commit_holds_nobody_up_for_longer() {
    for way in [Way::GoesOn, Way::Dies] {
        let place = Place::new();
        let scheduler = Scheduler::builder(place.file())
            .busy_timeout(Duration::from_millis(300))
            .handler_fn(|_: Quick, _| Ok(Outcome::done()))
            .start()
            .expect("to open the file");
        let known = scheduler.schedule(Quick).expect("to schedule").id();
        scheduler
            .wait(known, PATIENCE)
            .expect("to wait")
            .expect("it ends");

        let mut caught = None;
        for _ in 0..20 {
            let process = stop_inside_commit(&place);
            let since = Since::now();
            if let Err(error) = scheduler.schedule(Quick) {
                let took = since.elapsed();
                assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
                assert!(took < Duration::from_secs(5), "it took {took:?} to say so");
                caught = Some(process);
                break;
            }
        }
        let process = caught.expect("one of twenty stops is inside a commit");
        assert!(scheduler.get(known).expect("to read").is_some());
        let (_, error) = scheduler
            .health()
            .last_error()
            .map(|(at, error)| (at, error.clone()))
            .expect("an error");
        assert_eq!(error.kind(), ErrorKind::Busy, "health names it: {error}");

        let status = match way {
            Way::GoesOn => {
                process.signal(Signal::CONT);
                process.read_until(|line| *line == Line::Note("stored".to_owned()));
                None
            }
            Way::Dies => Some(process.kill()),
        };
        let next = eventually("the file can be written again", || {
            scheduler.schedule(Quick).ok()
        });
        let ended = scheduler.wait(next.id(), PATIENCE).expect("to wait");
        assert!(ended.is_some(), "{way:?}: it was scheduled, and is not run");
        let batches: u64 = scheduler
            .count(&Filter::new().kind("later"))
            .expect("to count");
        assert_eq!(
            batches % u64::from(BATCH),
            0,
            "{way:?}: a part of a commit is there"
        );
        if let Some(lines) = status {
            assert!(lines.is_empty(), "it was inside: {lines:?}");
        }
        assert!(
            scheduler
                .shutdown(PATIENCE)
                .expect("to shut down")
                .still_running()
                == 0
        );
    }
}

/// A process that was stopped while it wrote a batch, and has not said that it is done.
fn stop_inside_commit(place: &Place) -> Process {
    let mut process = start(place);
    loop {
        process.order("batch");
        process.read_until(|line| *line == Line::Note("batch".to_owned()));
        let before = process.bytes_written();
        eventually("the batch is being written", || {
            (process.bytes_written() - before >= MIDST_BYTES).then_some(())
        });
        process.signal(Signal::STOP);
        if process.line_within(Duration::from_millis(20)).is_none() {
            return process;
        }
        process.signal(Signal::CONT);
    }
}
