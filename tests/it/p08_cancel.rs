//! P8: cancel tells the truth. `Cancelled`: it will never start (again). `Requested`: an instance holds it and will be told;
//! it ends cancelled unless it completes first. `Finished`: too late.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use punctual::testing::Stepper;
use punctual::{
    Cancel, ErrorKind, Failure, Filter, Outcome, RetryPolicy, Scheduler, StopReason, TaskId,
    TaskResult, TaskState,
};

use crate::kit::{DAY, LONG, Log, Probe, S, clock, end_of, gate, probe, seed, state, task};

fn stepped(
    workers: usize,
    run: impl Fn() -> TaskResult + Send + Sync + 'static,
) -> (Stepper, Log<u32>) {
    let calls = Log::new();
    let log = calls.clone();
    let scheduler = Scheduler::in_memory()
        .workers(workers)
        .handler_fn(move |Probe(n), _cx| {
            log.push(n);
            run()
        })
        .retry_policy("probe", RetryPolicy::fixed(S))
        .stepped(&clock())
        .unwrap();
    (scheduler, calls)
}

/// P8: a pending task is cancelled, and never starts.
#[test]
fn a_pending_task_is_cancelled_and_never_starts() {
    let (mut scheduler, calls) = stepped(1, || Ok(Outcome::done()));
    for delay in [Duration::ZERO, 10 * S] {
        let id = scheduler.schedule(probe(1).after(delay)).unwrap().id();
        assert_eq!(scheduler.cancel(id).unwrap(), Cancel::Cancelled);
        assert_eq!(
            scheduler.cancel(id).unwrap(),
            Cancel::Finished(TaskState::Cancelled)
        );
        let task = task(&scheduler, id);
        assert_eq!((task.state(), task.attempt()), (TaskState::Cancelled, 0));
    }
    scheduler.advance(DAY);
    assert_eq!(calls.len(), 0);
}

/// P8: one that waits for its retry will not start again.
#[test]
fn a_task_that_waits_for_its_retry_is_cancelled() {
    let (mut scheduler, calls) = stepped(1, || Err("no".into()));
    let id = scheduler.schedule(probe(1)).unwrap().id();
    scheduler.drain();
    assert_eq!(scheduler.cancel(id).unwrap(), Cancel::Cancelled);
    scheduler.advance(DAY);
    assert_eq!(calls.len(), 1);
    assert_eq!(scheduler.history(id).unwrap().len(), 1);
}

/// P8: too late is too late, and nothing changes.
#[test]
fn a_task_that_has_ended_says_how() {
    let ends: [(fn() -> TaskResult, TaskState); 3] = [
        (|| Ok(Outcome::done()), TaskState::Completed),
        (|| Err(Failure::fatal("no")), TaskState::Failed),
        (|| Ok(Outcome::cancel("unwanted")), TaskState::Cancelled),
    ];
    for (run, expected) in ends {
        let (mut scheduler, _) = stepped(1, run);
        let id = scheduler.schedule(probe(1)).unwrap().id();
        scheduler.drain();
        assert_eq!(scheduler.cancel(id).unwrap(), Cancel::Finished(expected));
        assert_eq!(state(&scheduler, id), expected);
        assert!(!task(&scheduler, id).cancel_requested());
    }
}

/// P8: there is nothing to be said about a task that is not there.
#[test]
fn a_task_that_is_not_there_is_not_found() {
    let (scheduler, _) = stepped(1, || Ok(Outcome::done()));
    let id = TaskId::new();
    let error = scheduler.cancel(id).unwrap_err();
    assert_eq!(
        (error.kind(), error.task_id()),
        (ErrorKind::NotFound, Some(id))
    );
}

/// P8: claimed but not started: it ends cancelled, and its handler is never called.
#[test]
fn a_task_that_waits_for_a_worker_is_never_started() {
    let (mut scheduler, calls) = stepped(2, || Ok(Outcome::done()));
    scheduler.schedule(probe(1)).unwrap();
    let id = scheduler.schedule(probe(2)).unwrap().id();
    assert!(scheduler.step());
    assert_eq!(state(&scheduler, id), TaskState::Running, "it is held");
    assert_eq!(scheduler.cancel(id).unwrap(), Cancel::Requested);
    scheduler.drain();
    assert_eq!(calls.take(), [1]);
    let task = task(&scheduler, id);
    assert_eq!((task.state(), task.attempt()), (TaskState::Cancelled, 0));
    assert!(scheduler.history(id).unwrap().is_empty());
}

/// P8: however soon the worker comes after the answer.
#[test]
fn a_task_that_waits_for_a_worker_is_not_started_right_after_its_cancel() {
    let (mut scheduler, calls) = stepped(2, || Ok(Outcome::done()));
    scheduler.schedule(probe(1)).unwrap();
    let id = scheduler.schedule(probe(2)).unwrap().id();
    // Both are claimed, and one of them is run; the next step begins with the other.
    assert!(scheduler.step());
    assert_eq!(scheduler.cancel(id).unwrap(), Cancel::Requested);
    assert!(scheduler.step());
    assert_eq!(calls.take(), [1]);
    assert_eq!(state(&scheduler, id), TaskState::Cancelled);
}

/// P8: a requested cancel wins over everything but completion.
#[test]
fn a_running_task_ends_cancelled_unless_it_completes() {
    type Run = fn() -> TaskResult;
    let ends: [(Run, TaskState); 6] = [
        (|| Ok(Outcome::done()), TaskState::Completed),
        (|| Err("no".into()), TaskState::Cancelled),
        (|| Err(Failure::fatal("no")), TaskState::Cancelled),
        (|| Ok(Outcome::snooze(S)), TaskState::Cancelled),
        (|| Ok(Outcome::cancel("own")), TaskState::Cancelled),
        (|| panic!("as it should"), TaskState::Cancelled),
    ];
    for (index, (run, expected)) in ends.into_iter().enumerate() {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let mut scheduler = Scheduler::in_memory()
            .handler_fn(move |_: Probe, cx| {
                count.fetch_add(1, Ordering::SeqCst);
                // Somebody cancels it while it runs.
                assert_eq!(cx.client().cancel(cx.id()).unwrap(), Cancel::Requested);
                run()
            })
            .stepped(&clock())
            .unwrap();
        let id = scheduler.schedule(probe(1)).unwrap().id();
        scheduler.advance(DAY / 2);
        assert_eq!(state(&scheduler, id), expected, "end {index}");
        assert!(task(&scheduler, id).cancel_requested());
        assert_eq!(calls.load(Ordering::SeqCst), 1, "end {index}: never again");
    }
}

/// P8: the handler that holds it is told, and may stop of its own accord.
#[test]
fn a_running_handler_is_told_and_stops() {
    let (gate, _open) = gate();
    let at_gate = gate.clone();
    let scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(move |_: Probe, cx| {
            assert!(!cx.cancelled());
            at_gate.pass();
            assert!(cx.cancelled_within(LONG), "it is told");
            assert_eq!(cx.stop_reason(), Some(StopReason::Cancelled));
            Err("stopped half-way".into())
        })
        .start()
        .unwrap();
    let id = scheduler.schedule(probe(1)).unwrap().id();
    gate.await_waiting(1);
    assert_eq!(scheduler.cancel(id).unwrap(), Cancel::Requested);
    assert_eq!(scheduler.cancel(id).unwrap(), Cancel::Requested, "still");
    gate.open();
    let task = end_of(&scheduler, id);
    assert_eq!(task.state(), TaskState::Cancelled);
    assert_eq!(task.error(), Some("stopped half-way"));
}

/// P8: a bulk cancel does to each what cancel does to one.
#[test]
fn a_bulk_cancel_reaches_pending_and_running_tasks() {
    let (mut scheduler, calls) = stepped(2, || Ok(Outcome::done()));
    let ids: Vec<TaskId> = (0..1_200)
        .map(|n| scheduler.schedule(probe(n)).unwrap().id())
        .collect();
    assert!(scheduler.step(), "one has completed, others are held");
    let bulk = scheduler.cancel_all(&Filter::new().kind("probe")).unwrap();
    assert_eq!((bulk.matched(), bulk.changed()), (1_200, 1_199));
    scheduler.drain();
    assert_eq!(calls.len(), 1);
    for id in &ids[1..] {
        assert_eq!(state(&scheduler, *id), TaskState::Cancelled);
    }
}

/// P8: under fire from all sides, every answer is kept.
#[test]
fn every_answer_to_a_race_is_true() {
    let seed = seed();
    let started: Arc<Mutex<Vec<TaskId>>> = Arc::default();
    let log = Arc::clone(&started);
    let scheduler = Scheduler::in_memory()
        .workers(4)
        .handler_fn(move |Probe(n), cx| {
            log.lock().unwrap().push(cx.id());
            match n % 3 {
                0 => Err("again".into()),
                1 if cx.cancelled() => Err("stopped".into()),
                _ => Ok(Outcome::done()),
            }
        })
        .retry_policy("probe", RetryPolicy::fixed(crate::kit::MS))
        .start()
        .unwrap();
    let answers: Vec<(TaskId, Cancel, usize)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (scheduler, started) = (&scheduler, &started);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed + thread);
                    let mut answers = Vec::new();
                    for n in 0..100 {
                        let id = scheduler.schedule(probe(n).max_attempts(3)).unwrap().id();
                        for _ in 0..random.usize(0..200) {
                            std::thread::yield_now();
                        }
                        let answer = scheduler.cancel(id).unwrap();
                        let starts = started
                            .lock()
                            .unwrap()
                            .iter()
                            .filter(|each| **each == id)
                            .count();
                        answers.push((id, answer, starts));
                    }
                    answers
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    for (id, answer, starts_then) in answers {
        let end = end_of(&scheduler, id).state();
        let starts = started
            .lock()
            .unwrap()
            .iter()
            .filter(|each| **each == id)
            .count();
        match answer {
            Cancel::Cancelled => {
                assert_eq!(end, TaskState::Cancelled, "seed {seed}");
                assert_eq!(starts, starts_then, "it never started again, seed {seed}");
            }
            Cancel::Requested => assert_ne!(end, TaskState::Failed, "seed {seed}"),
            Cancel::Finished(told) => {
                assert_eq!(end, told, "seed {seed}");
                assert_eq!(starts, starts_then, "seed {seed}");
            }
        }
    }
    let _ = scheduler.shutdown(LONG).unwrap();
}
