//! A task that takes its process with it, every time: beside threads, and among thousands of futures.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use punctual::{
    AttemptEnd, Client, DEFAULT_MAX_CRASHES, NewTask, Outcome, Payload, Scheduler, TaskContext,
    TaskId, TaskState,
};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::kit::{Line, Part, Place, Process, part, runtime, until_nothing_is_left};

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
    until_nothing_is_left(&scheduler);
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

/// How many futures run when the process crashes first.
const MANY: u32 = 5_000;
/// The groups are at most 2,048, 1,024, … 2 and 1; then the cause is tried, and blamed.
const MAX_CRASHES: u32 = 13 + DEFAULT_MAX_CRASHES + 1;

/// Two of these crash their process if they run at the same time.
#[derive(Serialize, Deserialize)]
struct Half;

impl Payload for Half {
    const KIND: &'static str = "half";
}

#[test]
#[ignore = "a child process with thousands of futures, one of which aborts it"]
fn many() {
    let Some(part) = Part::played() else { return };
    let is_first: bool = part.argument(0);
    let runtime = runtime();
    let running = Arc::new(AtomicU32::new(0));
    let started = Arc::clone(&running);
    let all_run = move || {
        let running = Arc::clone(&started);
        async move {
            running.fetch_add(1, Ordering::SeqCst);
            while is_first && running.load(Ordering::SeqCst) < MANY {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    };
    let of_bomb = all_run.clone();
    let (of_half, halves) = (all_run.clone(), Arc::new(AtomicU32::new(0)));
    let scheduler = Scheduler::builder(&part.file)
        .max_in_flight(MANY as usize)
        .async_handler_fn(move |_: Bomb, _cx| {
            let all_run = of_bomb();
            async move {
                all_run.await;
                tokio::time::sleep(Duration::from_millis(5)).await;
                std::process::abort()
            }
        })
        .async_handler_fn(move |_: Half, _cx| {
            let (all_run, halves) = (of_half(), Arc::clone(&halves));
            async move {
                let both = halves.fetch_add(1, Ordering::SeqCst) == 1;
                all_run.await;
                tokio::time::sleep(Duration::from_millis(5)).await;
                if both {
                    std::process::abort();
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
                halves.fetch_sub(1, Ordering::SeqCst);
                Ok(Outcome::done())
            }
        })
        .async_handler_fn(move |_: Neighbour, _cx| {
            let all_run = all_run();
            async move {
                all_run.await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(Outcome::done())
            }
        })
        .spawner(runtime.handle().clone())
        .start()
        .expect("to open the file");
    until_nothing_is_left(&scheduler);
}

/// Runs processes until nothing is left. Returns how often one crashed.
fn crashes(place: &Place) -> u32 {
    for crashes in 0..=MAX_CRASHES {
        let process = Process::start(part!(many), &place.file(), &[&(crashes == 0)]);
        let (status, _) = process.end();
        if status.success() {
            return crashes;
        }
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");
    }
    panic!("after {MAX_CRASHES} crashes there are still more");
}

/// P4: of 5,000 futures that ran when their process crashed, the cause is found in few crashes, and nobody else is blamed.
#[test]
fn of_thousands_of_futures_the_one_that_kills_the_process_is_found() {
    let place = Place::new();
    let client = Client::open(place.file()).expect("to open the file");
    let neighbours = (1..MANY).map(|number| NewTask::new(Neighbour(number)));
    let ids = client.schedule_many(neighbours).expect("to schedule");
    let bomb = client.schedule(Bomb).expect("to schedule").id();
    let crashes = crashes(&place);
    eprintln!("poison: {crashes} crashes to find one of {MANY}");
    let bomb = client.get(bomb).expect("to read").expect("it is there");
    assert_eq!(bomb.state(), TaskState::Failed);
    assert_eq!((bomb.crashes(), bomb.blamed_crashes()), (crashes, 4));
    for id in ids {
        let task = client.get(id.id()).expect("to read").expect("it is there");
        let ended = (task.state(), task.blamed_crashes());
        assert_eq!(ended, (TaskState::Completed, 0), "{task:?}");
    }
}

/// P4: two that kill their process only together are separated, and complete.
#[test]
fn of_thousands_of_futures_two_that_kill_the_process_together_complete() {
    let place = Place::new();
    let client = Client::open(place.file()).expect("to open the file");
    let halves = [(); 2].map(|()| client.schedule(Half).expect("to schedule").id());
    let neighbours = (2..MANY).map(|number| NewTask::new(Neighbour(number)));
    let mut ids: Vec<TaskId> = halves.into();
    let neighbours = client.schedule_many(neighbours).expect("to schedule");
    ids.extend(neighbours.iter().map(|scheduled| scheduled.id()));
    let crashes = crashes(&place);
    eprintln!("poison: {crashes} crashes to separate two of {MANY}");
    assert!(crashes > 0, "they ran together");
    for id in ids {
        let task = client.get(id).expect("to read").expect("it is there");
        let ended = (task.state(), task.blamed_crashes());
        assert_eq!(ended, (TaskState::Completed, 0), "{task:?}");
    }
}
