//! Rolling deploys: processes of two versions of a program run tasks of one file, and one cannot decode what the other schedules.

use punctual::testing::Stepper;
use punctual::{
    Attempt, AttemptEnd, Delivery, Edit, EventKind, NewTask, Outcome, Payload, Scheduler, TaskId,
    TaskState,
};
use serde::{Deserialize, Serialize};

use crate::kit::{Log, MICRO, MS, S, clock, file, state, task};

/// What the old version reads.
#[derive(Serialize, Deserialize)]
struct Old {
    user: u64,
}

impl Payload for Old {
    const KIND: &'static str = "greet";
}

/// What the new version reads and writes.
#[derive(Serialize, Deserialize)]
struct New {
    name: String,
}

impl Payload for New {
    const KIND: &'static str = "greet";
}

fn new() -> NewTask {
    let name = "hunter2".to_owned();
    NewTask::new(New { name })
}

/// A scheduler of the old version, which notes what its handler was called for.
fn old_version(
    path: &std::path::Path,
    clock: &punctual::testing::TestClock,
) -> (Stepper, Log<u64>) {
    let log = Log::new();
    let ran = log.clone();
    let scheduler = Scheduler::builder(path)
        .handler_fn(move |old: Old, _| {
            ran.push(old.user);
            Ok(Outcome::done())
        })
        .stepped(clock);
    (scheduler.unwrap(), log)
}

fn new_version(
    path: &std::path::Path,
    clock: &punctual::testing::TestClock,
) -> (Stepper, Log<TaskId>) {
    let log = Log::new();
    let ran = log.clone();
    let scheduler = Scheduler::builder(path)
        .handler_fn(move |_: New, cx| {
            ran.push(cx.id());
            Ok(Outcome::done())
        })
        .stepped(clock);
    (scheduler.unwrap(), log)
}

/// The old process ended the task as failed, although no handler had been called.
#[test]
fn p4_a_process_that_cannot_decode_a_payload_leaves_the_task_to_one_that_can() {
    let ((_dir, path), clock) = (file(), clock());
    let (mut old, old_ran) = old_version(&path, &clock);
    let client = punctual::Client::clone(&old);
    let ids = [
        client.schedule(new().max_attempts(1)).unwrap().id(),
        client
            .schedule(new().delivery(Delivery::AtMostOnce))
            .unwrap()
            .id(),
    ];
    assert_eq!(old.drain(), 2, "it tries each");
    assert_eq!(old.health().undecodable_kinds(), ["greet"]);
    for id in ids {
        let task = task(&client, id);
        assert_eq!((task.state(), task.attempt()), (TaskState::Pending, 0));
        let error = task.error().unwrap();
        assert!(error.contains("missing field `user`"), "{error}");
    }
    let (mut new, new_ran) = new_version(&path, &clock);
    clock.advance(S);
    assert_eq!(old.drain(), 0, "due again, and left to the other process");
    assert_eq!(new.drain(), 2);
    let mut ran = new_ran.take();
    ran.sort_unstable();
    assert_eq!(ran, ids);
    for id in ids {
        assert_eq!(task(&client, id).attempt(), 1);
        assert_eq!(state(&client, id), TaskState::Completed);
    }
    assert_eq!(old_ran.len(), 0);
}

#[test]
fn a_process_that_is_alone_or_whose_others_cannot_either_tries_again_by_itself() {
    let ((_dir, path), clock) = (file(), clock());
    let (mut old, old_ran) = old_version(&path, &clock);
    let bad = old.schedule(new()).unwrap().id();
    assert_eq!(old.drain(), 1);
    clock.advance(S);
    assert_eq!(old.drain(), 1, "at once: there is nobody else");
    // One that has no handler of that kind.
    let mut other = Scheduler::builder(&path).stepped(&clock).unwrap();
    clock.advance(10 * S);
    assert_eq!(other.drain(), 0);
    assert_eq!(old.drain(), 0);
    // What it can decode waits no longer than what it cannot.
    let good = old.schedule(Old { user: 7 }).unwrap().id();
    clock.advance(50 * MS);
    assert_eq!(old.drain(), 2);
    assert_eq!(old_ran.take(), [7]);
    assert_eq!(state(&old, good), TaskState::Completed);
    assert_eq!(state(&old, bad), TaskState::Pending);
}

#[test]
fn a_task_that_cannot_be_decoded_can_be_repaired_and_is_then_tried_anew() {
    let clock = clock();
    let mut scheduler = Scheduler::in_memory()
        .handler_fn(|old: Old, _| Outcome::with(&old.user))
        .stepped(&clock)
        .unwrap();
    let events = scheduler.events();
    let id = scheduler
        .schedule(new().delivery(Delivery::AtMostOnce))
        .unwrap()
        .id();
    assert_eq!(scheduler.advance(600 * S), 4);
    scheduler
        .edit(
            id,
            Edit::new().payload(&New {
                name: "again".into(),
            }),
        )
        .unwrap();
    assert_eq!(scheduler.advance(4_300 * S), 5, "all tries but the last");
    scheduler
        .edit(id, Edit::new().payload(&Old { user: 7 }))
        .unwrap();
    scheduler.run_now(id).unwrap();
    assert_eq!(scheduler.drain(), 1);
    let task = task(&scheduler, id);
    assert_eq!((task.state(), task.attempt()), (TaskState::Completed, 1));
    assert_eq!(task.result::<u64>().unwrap(), Some(7));
    drop(scheduler);
    let kinds: Vec<EventKind> = events.map(|event| event.kind()).collect();
    let retried = kinds.iter().filter(|kind| **kind == EventKind::Retrying);
    assert!(retried.count() >= 9, "{kinds:?}");
}

#[test]
fn a_task_that_was_never_given_to_a_handler_can_still_miss_its_start_deadline() {
    let clock = clock();
    let mut scheduler = Scheduler::in_memory()
        .handler_fn(|_: Old, _| Ok(Outcome::done()))
        .stepped(&clock)
        .unwrap();
    let id = scheduler.schedule(new().start_within(5 * S)).unwrap().id();
    scheduler.advance(6 * S);
    assert_eq!(state(&scheduler, id), TaskState::Failed);
    assert_eq!(task(&scheduler, id).error(), Some("expired"));
}

/// The next try is a second after the first, and the deadline in between.
#[test]
fn a_start_deadline_between_two_tries_to_decode_ends_the_task_in_time() {
    let ((_dir, path), clock) = (file(), clock());
    let (mut old, _) = old_version(&path, &clock);
    let within = 400 * MS;
    let id = old.schedule(new().start_within(within)).unwrap().id();
    let deadline = clock.now() + within;
    assert_eq!(old.advance(within), 1);
    assert_eq!(state(&old, id), TaskState::Pending, "not yet");
    assert_eq!(old.advance(2 * S), 0);
    let task = task(&old, id);
    assert_eq!(task.finished_at(), Some(deadline + MICRO));
    assert_eq!(task.error(), Some("expired"));
    let ends: Vec<AttemptEnd> = old.history(id).unwrap().iter().map(Attempt::end).collect();
    assert_eq!(ends, [AttemptEnd::Undecodable, AttemptEnd::Expired]);
}

/// The processes slept through the deadline, and one could run the task now.
#[test]
fn what_could_not_be_decoded_before_its_start_deadline_does_not_run_after_it() {
    let ((_dir, path), clock) = (file(), clock());
    let (mut old, _) = old_version(&path, &clock);
    let id = old.schedule(new().start_within(400 * MS)).unwrap().id();
    assert_eq!(old.drain(), 1);
    let (mut new, new_ran) = new_version(&path, &clock);
    clock.advance(2 * S);
    assert_eq!(new.drain(), 0);
    assert_eq!(state(&old, id), TaskState::Failed);
    assert_eq!(new_ran.len(), 0);
}
