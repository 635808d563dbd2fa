//! The dispatcher, a step at a time.

use std::time::Duration;

use super::*;
use crate::clock::Clock;
use crate::model::new_task::NewTask;
use crate::model::op::Op;
use crate::model::outcome::Outcome;
use crate::model::payload::Payload;
use crate::scheduler::Scheduler;
use crate::scheduler::parts::Parts;
use crate::store::Pace;
use crate::testing::TestClock;

#[derive(serde::Serialize, serde::Deserialize)]
struct Probe;

impl Payload for Probe {
    const KIND: &'static str = "probe";
}

/// A scheduler without threads that runs probes, and its clock.
fn parts() -> (Parts, TestClock) {
    let clock = TestClock::new("2026-03-01T09:00:00Z".parse().unwrap());
    let builder = Scheduler::in_memory().clock(clock.clone());
    let builder = builder.handler_fn(|_: Probe, _| Ok(Outcome::done()));
    (builder.build().unwrap(), clock)
}

/// P8: it was stored as claimed, and neither it nor its cancellation had come to the dispatcher when the stop began.
#[test]
fn p8_what_came_along_is_not_started_after_its_cancellation_or_the_stop() {
    for stops in [false, true] {
        let (parts, clock) = parts();
        let (mut dispatcher, executor) = (parts.dispatcher(), parts.executor());
        let now = Clock::now(&clock);
        parts.client.schedule(NewTask::new(Probe)).unwrap();
        while executor.run_one() || dispatcher.run_once(now) == Next::At(now) {}
        dispatcher.run_once(now);
        if stops {
            parts.stop();
        }
        let id = parts.client.schedule(NewTask::new(Probe)).unwrap().id();
        let state = || parts.client.get(id).unwrap().unwrap().state();
        assert_eq!(state(), crate::TaskState::Running);
        let answer = parts.client.cancel(id).unwrap();
        assert_eq!(answer, crate::Cancel::Requested);
        for _ in 0..3 {
            dispatcher.run_once(now);
            executor.run_one();
        }
        assert_eq!(state(), crate::TaskState::Cancelled, "{stops}");
        let task = parts.client.get(id).unwrap().unwrap();
        assert_eq!(task.attempt(), 0, "{stops}");
    }
}

/// P8: it is granted and cancelled after the dispatcher has looked for what was granted, and before it passes
/// cancellations on.
#[test]
fn p8_a_cancellation_that_overtakes_its_claim_is_passed_on() {
    let (parts, _clock) = parts();
    let (mut dispatcher, executor) = (parts.dispatcher(), parts.executor());
    let now = parts.client.now();
    parts.client.schedule(NewTask::new(Probe)).unwrap();
    for _ in 0..3 {
        dispatcher.run_once(now);
        executor.run_one();
    }
    dispatcher.run_once(now);
    let id = parts.client.schedule(NewTask::new(Probe)).unwrap().id();
    let answer = parts.client.cancel(id).unwrap();
    assert_eq!(answer, crate::Cancel::Requested);
    dispatcher.pass_on_cancellations(now);
    assert!(executor.run_one());
    for _ in 0..3 {
        dispatcher.run_once(now);
    }
    let task = parts.client.get(id).unwrap().unwrap();
    assert_eq!(task.state(), crate::TaskState::Cancelled);
    assert_eq!(task.attempt(), 0, "its handler was not called");
}

/// P4: a job that a bug of ours loses is not claimed for ever.
#[test]
fn p4_a_claimed_task_that_is_lost_on_its_way_to_a_worker_runs_all_the_same() {
    let (parts, _clock) = parts();
    let (mut dispatcher, executor) = (parts.dispatcher(), parts.executor());
    let mut now = parts.client.now();
    let id = parts.client.schedule(NewTask::new(Probe)).unwrap().id();
    dispatcher.run_once(now);
    drop(dispatcher.ready.try_next().unwrap());
    let state = || parts.client.get(id).unwrap().unwrap().state();
    for _ in 0..9 {
        if let Next::At(at) = dispatcher.run_once(now) {
            now = now.max(at);
        }
        executor.run_one();
    }
    assert_eq!(state(), crate::TaskState::Completed);
}

/// P4: a standing claim's commit is not known to have been stored, and what was deferred before that is answered since.
#[test]
fn p4_an_answer_from_before_a_doubt_does_not_settle_it() {
    let (parts, _clock) = parts();
    let (mut dispatcher, executor) = (parts.dispatcher(), parts.executor());
    let now = parts.client.now();
    let store = &parts.client.store;
    parts.client.schedule(NewTask::new(Probe)).unwrap();
    while executor.run_one() || dispatcher.run_once(now) == Next::At(now) {}
    dispatcher.run_once(now);
    let taken = store
        .signals()
        .standing_claim()
        .take(store.lanes().version)
        .unwrap();
    let id = parts.client.schedule(NewTask::new(Probe)).unwrap().id();
    let claim = Op::Claim(taken.request().clone());
    store.apply(now, vec![claim]).unwrap();
    drop(taken);
    let state = || parts.client.get(id).unwrap().unwrap().state();
    assert_eq!(state(), crate::TaskState::Running);
    dispatcher.settler.defer_nothing();
    for _ in 0..3 {
        dispatcher.run_once(now);
        executor.run_one();
    }
    dispatcher.run_once(now);
    assert_eq!(state(), crate::TaskState::Completed);
}

#[test]
fn p3_a_look_for_changes_that_a_write_prevented_is_made_up_for() {
    let parts = Scheduler::in_memory().build().unwrap();
    let (mut dispatcher, now) = (parts.dispatcher(), parts.client.now());
    let mut look_inside = |_: &dyn crate::store::Transaction| {
        dispatcher.refresh(now);
        crate::store::Ending::RollBack
    };
    let store = &parts.client.store;
    store.transaction(now, None, &mut look_inside).unwrap();
    assert_eq!(dispatcher.refreshed_at, None);
    dispatcher.refresh(now);
    assert_eq!(dispatcher.refreshed_at, Some(now));
}

/// A worker that is woken and does not get the processor is waited for, not looked at all the time.
#[test]
fn p14_it_sleeps_while_a_free_worker_is_on_its_way() {
    let (parts, _clock) = parts();
    let (mut dispatcher, executor) = (parts.dispatcher(), parts.executor());
    parts.client.schedule(NewTask::new(Probe)).unwrap();
    let now = parts.client.now();
    dispatcher.run_once(now);
    while dispatcher.ready.waiting().unmoved < Pace::LOCAL.ahead {
        std::thread::yield_now();
    }
    assert_eq!(
        dispatcher.run_once(now),
        Next::At(now + Pace::LOCAL.look_again)
    );
    assert!(executor.run_one(), "it was left to the worker");
}

/// It is asked once, like by its thread: nothing else will wake it before the instant that it names.
#[test]
fn p3_after_a_task_that_is_gone_it_wakes_for_the_next_one() {
    let (parts, clock) = parts();
    let mut dispatcher = parts.dispatcher();
    let ms = Duration::from_millis(1);
    let schedule = |delay| {
        let task = NewTask::new(Probe).after(delay);
        parts.client.schedule(task).unwrap().id()
    };
    let (gone, moved) = (schedule(300 * ms), schedule(300 * ms));
    schedule(500 * ms);
    parts.client.cancel(gone).unwrap();
    let later = clock.now() + 400 * ms;
    parts.client.reschedule(moved, later).unwrap();
    let start = Clock::now(&clock);
    assert_eq!(dispatcher.run_once(start), Next::At(start + 300 * ms));
    clock.advance(300 * ms);
    let now = Clock::now(&clock);
    assert_eq!(dispatcher.run_once(now), Next::At(start + 400 * ms));
}
