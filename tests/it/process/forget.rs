//! Queues that are forgotten by one process while another schedules into them.

use std::collections::HashSet;
use std::time::Duration;

use punctual::{Client, NewTask, Outcome, Payload, Retention, Scheduler, TaskContext, TaskId};
use serde::{Deserialize, Serialize};

use super::kit::{Line, Part, Place, Process, part, seed};
use crate::kit::{Log, S, clock};

const TASKS: usize = 1_500;
/// More than are kept, so that some are forgotten while others are used.
const QUEUES: usize = 60;

#[derive(Serialize, Deserialize)]
struct Note;

impl Payload for Note {
    const KIND: &'static str = "note";
}

#[test]
#[ignore = "a child process that schedules into many queues"]
fn child() {
    let Some(part) = Part::played() else { return };
    part.die_with_parent();
    let mut random = fastrand::Rng::with_seed(part.argument(0));
    let client = Client::open(&part.file).expect("to open the file");
    for _ in 0..TASKS {
        let queue = format!("queue.{}", random.usize(0..QUEUES));
        // Due by any clock.
        let at = punctual::chrono::DateTime::UNIX_EPOCH + Duration::from_secs(1);
        let task = NewTask::new(Note).queue(queue).at(at);
        let id = client.schedule(task).expect("to schedule").id();
        part.note(id.to_string());
    }
    part.note("done");
}

/// P1: the child remembers the queues that it has used. A task in one that was forgotten meanwhile was lost.
#[test]
fn p1_a_task_in_a_queue_that_another_process_forgets_just_now_runs() {
    let seed = seed("forget");
    let place = Place::new();
    let ran = Log::new();
    let log = ran.clone();
    let mut scheduler = Scheduler::builder(place.file())
        .handler_fn(move |_: Note, cx: &TaskContext| {
            log.push(cx.id());
            Ok(Outcome::done())
        })
        .retention(Retention::forever().completed(S))
        .stepped(&clock())
        .expect("to open the file");
    let process = Process::start(part!(child), &place.file(), &[&seed]);
    let mut stored: HashSet<TaskId> = HashSet::new();
    while let Line::Note(text) = process.line() {
        let Ok(id) = text.parse() else { break };
        assert!(stored.insert(id));
        scheduler.drain();
        if stored.len().is_multiple_of(7) {
            scheduler.advance(61 * S);
        }
        if stored.len().is_multiple_of(50) {
            scheduler.advance(3_601 * S);
        }
    }
    scheduler.advance(5 * S);
    let ran: HashSet<TaskId> = ran.take().into_iter().collect();
    let lost: Vec<_> = stored.difference(&ran).collect();
    assert!(lost.is_empty(), "PUNCTUAL_SEED={seed}: {lost:?} never ran");
    assert_eq!(stored.len(), TASKS);
    let value = |key: &str| -> i64 {
        let sql = "SELECT value FROM punctual_meta WHERE key = ?";
        let conn = place.look();
        conn.query_row(sql, [key], |row| row.get(0)).unwrap_or(0)
    };
    eprintln!(
        "forget: {} lanes, {} retirements, the last forgotten {}",
        value("lanes"),
        value("retirements"),
        value("forgotten")
    );
    assert!(
        value("forgotten") > 0,
        "some were forgotten while it scheduled"
    );
}
