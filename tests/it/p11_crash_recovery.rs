//! P11: a dead process's tasks are runnable again within a second if another process has the file open, at once on the next
//! open otherwise; a live process's are never taken.
//!
//! Processes that are killed, stopped or lose their locks: `process/crash`, `process/stop.rs`, `process/version.rs`. Copies
//! by other tools: `process/copy.rs`. Who counts as dead: the tests of the store.

use punctual::{Client, NewTask, Outcome, Scheduler, TaskState};

use crate::kit::{Other, Probe, S, clock, end_of, file, gate, killed_inside, probe, state, task};

/// A copy made while tasks run is whole, and what ran is run again there.
#[test]
fn a_backup_can_be_opened_and_its_running_tasks_are_rescued() {
    let (dir, path) = file();
    let (gate, _open) = gate();
    let scheduler = Scheduler::builder(&path)
        .workers(1)
        .handler_fn(gate.handler())
        .start()
        .unwrap();
    let running = scheduler.schedule(probe(1)).unwrap().id();
    let pending = scheduler
        .schedule(NewTask::new(Other(2)).tag("t"))
        .unwrap()
        .id();
    gate.await_waiting(1);
    let copy = dir.path().join("copy.db");
    scheduler.sqlite().unwrap().backup(&copy).unwrap();
    let after = scheduler.schedule(NewTask::new(Other(3))).unwrap().id();
    let restored = Scheduler::builder(&copy)
        .workers(1)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .start()
        .unwrap();
    let rescued = end_of(&restored, running);
    assert_eq!(
        (rescued.state(), rescued.crashes()),
        (TaskState::Completed, 1)
    );
    assert_eq!(task(&restored, pending).tags(), ["t"]);
    assert!(
        restored.get(after).unwrap().is_none(),
        "it is the truth of one instant"
    );
    assert_eq!(
        state(&scheduler, running),
        TaskState::Running,
        "the original goes on"
    );
    gate.open();
    assert_eq!(end_of(&scheduler, running).crashes(), 0);
}

#[test]
fn what_a_killed_process_ran_runs_at_once_at_the_next_open() {
    let (clock, (_dir, path)) = (clock(), file());
    let client = Client::open(&path).unwrap();
    let id = client.schedule(probe(1).at(clock.now())).unwrap().id();
    let (_left, path) = killed_inside(&path, &clock);
    let client = Client::open(&path).unwrap();
    assert_eq!(state(&client, id), TaskState::Pending, "it is taken back");
    let mut scheduler = Scheduler::builder(&path)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .stepped(&clock)
        .unwrap();
    assert_eq!(scheduler.drain(), 1);
    assert_eq!(state(&client, id), TaskState::Completed);
}

/// However long its task waits there for a worker.
#[test]
fn what_a_living_instance_holds_is_left_to_it() {
    let (clock, (_dir, path)) = (clock(), file());
    let open = || {
        Scheduler::builder(&path)
            .workers(2)
            .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
            .stepped(&clock)
            .unwrap()
    };
    let (mut other, mut one) = (open(), open());
    one.schedule_many((0..2).map(probe)).unwrap();
    assert!(one.step(), "both are claimed, and one has run");
    assert_eq!(other.advance(60 * S), 0);
    assert_eq!(one.drain(), 1);
}
