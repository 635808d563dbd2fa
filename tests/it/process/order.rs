//! The order of starts, across the deaths of processes.

use std::collections::HashSet;
use std::time::Duration;

use punctual::chrono::DateTime;
use punctual::{Client, NewTask, Outcome, Payload, Scheduler, TaskContext, TaskId};
use serde::{Deserialize, Serialize};

use super::kit::{Line, Part, Place, Process, part, seed, wall_clock};

const TASKS: usize = 300;
const KILLS: usize = 6;

#[derive(Serialize, Deserialize)]
struct Numbered(usize);

impl Payload for Numbered {
    const KIND: &'static str = "numbered";
}

#[test]
#[ignore = "a child process with one worker"]
fn child() {
    let Some(part) = Part::played() else { return };
    part.die_with_parent();
    let handler = part.clone();
    let _scheduler = Scheduler::builder(&part.file)
        .workers(1)
        .handler_fn(move |_: Numbered, cx: &TaskContext| {
            handler.started(cx);
            let _ = cx.cancelled_within(Duration::from_micros(100));
            Ok(Outcome::done())
        })
        .start()
        .expect("to open the file");
    loop {
        std::thread::park();
    }
}

/// P9: with one worker, tasks start by priority, then due time, then insertion, and the death of the process in between
/// changes nothing about that: what was claimed and not started takes its place again.
#[test]
fn the_order_of_starts_survives_the_death_of_the_process() {
    let seed = seed("order");
    let mut random = fastrand::Rng::with_seed(seed);
    let place = Place::new();
    let client = Client::open(place.file()).expect("to open the file");
    let past = wall_clock() - 3_600_000_000;
    let mut due = Vec::new();
    let tasks: Vec<NewTask> = (0..TASKS)
        .map(|number| {
            let (priority, at) = (random.u8(0..=9), past + random.i64(0..20));
            let id = TaskId::new();
            let task = NewTask::new(Numbered(number)).id(id);
            due.push(((priority, at, number), id));
            let at = DateTime::from_timestamp_micros(at).expect("a time");
            task.priority(priority).at(at)
        })
        .collect();
    client.schedule_many(tasks).expect("to schedule");
    due.sort_unstable();

    let mut seen = HashSet::new();
    let mut started: Vec<TaskId> = Vec::new();
    let mut learn = |lines: &[Line]| {
        for line in lines {
            if let Line::Started { id, attempt, .. } = *line {
                seen.insert(id);
                // A second attempt is out of turn: it runs when no other does that was in a crash.
                started.extend((attempt == 1).then_some(id));
            }
        }
        seen.len()
    };
    for kill in 1..=KILLS {
        let process = Process::start(part!(child), &place.file(), &[]);
        while learn(&[process.line()]) < kill * TASKS / (KILLS + 2) {}
        learn(&process.kill());
    }
    let process = Process::start(part!(child), &place.file(), &[]);
    while learn(&[process.line()]) < TASKS {}
    drop(process);
    // A process can die between a start and the line that tells it.
    assert!(
        started.len() >= TASKS - KILLS,
        "{} first attempts",
        started.len()
    );
    let told: HashSet<TaskId> = started.iter().copied().collect();
    let expected: Vec<TaskId> = due
        .iter()
        .map(|&(_, id)| id)
        .filter(|id| told.contains(id))
        .collect();
    assert!(
        started == expected,
        "PUNCTUAL_SEED={seed}: the starts are out of order"
    );
}
