//! A task that takes its process with it, every time.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use punctual::{
    AttemptEnd, Client, DEFAULT_MAX_CRASHES, Filter, NewTask, Outcome, Payload, Scheduler,
    TaskContext, TaskId, TaskState,
};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::kit::{Line, Part, Place, Process, eventually, part};

const WORKERS: u32 = 64;
const NEIGHBOURS: u32 = 600;
/// The cause runs in groups of at most 16, 8, 4, 2 and 1, then it is tried, and blamed.
const MAX_ABORTS: u32 = WORKERS.ilog2() + DEFAULT_MAX_CRASHES + 1;
/// Starts of the process after which the file is not quiet, but in a loop.
const MAX_STARTS: usize = 20;

#[derive(Serialize, Deserialize)]
struct Bomb;

impl Payload for Bomb {
    const KIND: &'static str = "bomb";
}

#[derive(Serialize, Deserialize)]
struct Neighbour(u32);

impl Payload for Neighbour {
    const KIND: &'static str = "neighbour";
}

#[test]
#[ignore = "a child process that a task aborts"]
fn child() {
    let Some(part) = Part::played() else { return };
    let (bomb, neighbour) = (part.clone(), part.clone());
    let scheduler = Scheduler::builder(&part.file)
        .workers(WORKERS as usize)
        .handler_fn(move |_: Bomb, cx: &TaskContext| {
            bomb.started(cx);
            // The neighbours are in the middle of their work by then.
            let _ = cx.cancelled_within(Duration::from_millis(4));
            std::process::abort()
        })
        .handler_fn(move |_: Neighbour, cx: &TaskContext| {
            neighbour.started(cx);
            let _ = cx.cancelled_within(Duration::from_millis(6));
            neighbour.ended(cx);
            Ok(Outcome::done())
        })
        .start()
        .expect("to open the file");
    let unfinished = Filter::new()
        .state(TaskState::Pending)
        .state(TaskState::Running);
    eventually("nothing is left", || {
        (scheduler.count(&unfinished).expect("to count") == 0).then_some(())
    });
}

/// P4: a task that kills its process at every attempt ends as failed once it has done so too often, and those that ran
/// beside it complete, and are blamed for nothing.
#[test]
fn a_task_that_always_kills_the_process_ends_and_its_neighbours_complete() {
    let place = Place::new();
    let client = Client::open(place.file()).expect("to open the file");
    let many =
        |from: u32| (from..from + NEIGHBOURS / 2).map(|number| NewTask::new(Neighbour(number)));
    let mut neighbours: Vec<TaskId> = Vec::new();
    let before = client.schedule_many(many(0)).expect("to schedule");
    let bomb = client.schedule(Bomb).expect("to schedule").id();
    let after = client
        .schedule_many(many(NEIGHBOURS / 2))
        .expect("to schedule");
    neighbours.extend(before.iter().chain(&after).map(|scheduled| scheduled.id()));

    let mut aborted = 0;
    let mut starts: HashMap<TaskId, u32> = HashMap::new();
    let mut beside = 0;
    for start in 0.. {
        assert!(
            start < MAX_STARTS,
            "after {MAX_STARTS} starts of the process it still dies"
        );
        let process = Process::start(part!(child), &place.file(), &[]);
        let (status, lines) = process.end();
        for line in &lines {
            if let Line::Started { id, .. } = line {
                *starts.entry(*id).or_default() += 1;
            }
        }
        if status.success() {
            break;
        }
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");
        aborted += 1;
        let ended = |id, attempt| lines.contains(&Line::Ended { id, attempt });
        let is_cut_short = |line: &&Line| matches!(line, Line::Started { id, attempt, .. } if !ended(*id, *attempt));
        beside += lines.iter().filter(is_cut_short).count() - 1;
    }

    let task = client.get(bomb).expect("to read").expect("it is there");
    assert_eq!(
        (task.state(), task.error()),
        (TaskState::Failed, Some("crashed"))
    );
    assert!(aborted <= MAX_ABORTS, "{aborted} of at most {MAX_ABORTS}");
    assert_eq!(starts[&bomb], aborted);
    assert_eq!((task.crashes(), task.attempt()), (aborted, aborted));
    assert_eq!(task.blamed_crashes(), DEFAULT_MAX_CRASHES + 1);
    let attempts = client.history(bomb).expect("its history");
    assert!(
        attempts
            .iter()
            .all(|attempt| attempt.end() == AttemptEnd::Crashed)
    );
    for id in neighbours {
        let task = client.get(id).expect("to read").expect("it is there");
        assert_eq!(task.state(), TaskState::Completed, "{task:?}");
        assert_eq!(task.blamed_crashes(), 0, "{task:?} ran beside it");
        // The process may end after a start is noted and before its handler says so.
        let untold = task.attempt() - starts[&id];
        assert!(untold <= task.crashes(), "{task:?}");
    }
    eprintln!("poison: {aborted} aborts, with {beside} neighbours cut short");
    assert!(beside > 0, "nothing ran beside it");
}
