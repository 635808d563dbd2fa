//! P4: every acknowledged task runs, or is stored, until it has ended and its retention is over. A crash costs an attempt of a
//! started task only, and up to `max_crashes` none of its `max_attempts`; a graceful stop costs none.
//!
//! Killed processes: `process/crash` and `process/poison.rs`. Two versions of a program: `deploy.rs`. Faults of the store: the
//! tests of the runtime.

use punctual::{Client, Failure, Outcome, Scheduler, TaskState};

use crate::kit::{LONG, MS, Probe, S, clock, end_of, eventually, file, killed_inside, probe, task};

/// A task with one attempt was lost at every deploy, although `kill -9` would have spared it.
#[test]
fn a_graceful_stop_costs_no_attempt() {
    let (_dir, path) = file();
    let start = || {
        Scheduler::builder(&path)
            .workers(5)
            .handler_fn(|Probe(n), cx| {
                assert!(cx.cancelled_within(LONG));
                match n {
                    0 => Err("stopped".into()),
                    1 => Err(Failure::retry_after(3600 * S, "busy")),
                    2 => Err(Failure::fatal("hopeless")),
                    3 => panic!("on its way out"),
                    _ => Ok(Outcome::done()),
                }
            })
            .start()
            .unwrap()
    };
    let tasks = (0..5).map(|n| probe(n).max_attempts(1));
    let client = Client::open(&path).unwrap();
    let ids: Vec<_> = client
        .schedule_many(tasks)
        .unwrap()
        .iter()
        .map(|scheduled| scheduled.id())
        .collect();
    for round in 0..3 {
        let scheduler = start();
        let running = if round == 0 { 5 } else { 1 };
        eventually("they run", || scheduler.health().busy() == running);
        if round > 0 {
            scheduler.shutdown(20 * MS).unwrap();
        }
        drop(scheduler);
        // A panic may take longer than the drop waits: it is shown on the way.
        end_of(&client, ids[3]);
        let gone = |n: usize| {
            let task = task(&client, ids[n]);
            (task.state(), task.attempt())
        };
        assert_eq!(gone(0), (TaskState::Pending, 0), "round {round}");
        assert_eq!(gone(1), (TaskState::Pending, 0), "when it asked for");
        assert_eq!(gone(2), (TaskState::Failed, 1), "as it asked for");
        assert_eq!(gone(3), (TaskState::Failed, 1), "a panic is no answer");
        assert_eq!(gone(4), (TaskState::Completed, 1));
    }
}

/// Three processes in a row die while they run a task that has one attempt.
#[test]
fn a_crash_costs_none_of_the_attempts() {
    let clock = clock();
    let mut place = file();
    let client = Client::open(&place.1).unwrap();
    let due = probe(1).at(clock.now()).max_attempts(1);
    let id = client.schedule(due).unwrap().id();
    for _ in 0..3 {
        place = killed_inside(&place.1, &clock);
    }
    let mut scheduler = Scheduler::builder(&place.1)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .stepped(&clock)
        .unwrap();
    assert_eq!(scheduler.drain(), 1);
    let task = task(&scheduler, id);
    assert_eq!((task.state(), task.crashes()), (TaskState::Completed, 3));
}
