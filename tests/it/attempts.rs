//! What counts as an attempt, and what its handler sees of the task.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use punctual::testing::TestClock;
use punctual::{Cancel, NewTask, Outcome, Payload, Scheduler, TaskState};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Probe;

impl Payload for Probe {
    const KIND: &'static str = "probe";
}

/// P8: a task that was cancelled while it waited for a worker does not say that it was started.
#[test]
fn a_task_that_is_cancelled_before_it_starts_has_no_attempt() {
    let clock = TestClock::new("2026-03-01T09:00:00Z".parse().unwrap());
    let mut scheduler = Scheduler::in_memory()
        .workers(2)
        .handler_fn(|_: Probe, _| Ok(Outcome::done()))
        .stepped(&clock)
        .unwrap();
    let first = scheduler.schedule(Probe).unwrap().id();
    let second = scheduler.schedule(Probe).unwrap().id();
    // Both are claimed, and one of them is run.
    assert!(scheduler.step());
    assert_eq!(scheduler.cancel(second).unwrap(), Cancel::Requested);
    scheduler.drain();
    let task = |id| scheduler.get(id).unwrap().unwrap();
    assert_eq!(task(first).attempt(), 1);
    assert_eq!(
        (task(second).state(), task(second).attempt()),
        (TaskState::Cancelled, 0)
    );
}

/// P8: a task that waits for a worker when its cancel is answered is not started any more, however soon the worker comes.
#[test]
fn a_task_that_waits_for_a_worker_is_not_started_after_its_cancel_was_answered() {
    let clock = TestClock::new("2026-03-01T09:00:00Z".parse().unwrap());
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let mut scheduler = Scheduler::in_memory()
        .workers(2)
        .handler_fn(move |_: Probe, _| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(Outcome::done())
        })
        .stepped(&clock)
        .unwrap();
    scheduler.schedule(Probe).unwrap();
    let second = scheduler.schedule(Probe).unwrap().id();
    // Both are claimed, and one of them is run; the next step begins with the other.
    assert!(scheduler.step());
    assert_eq!(scheduler.cancel(second).unwrap(), Cancel::Requested);
    assert!(scheduler.step());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let state = scheduler.get(second).unwrap().unwrap().state();
    assert_eq!(state, TaskState::Cancelled);
}

#[test]
fn a_handler_sees_the_metadata_of_its_task() {
    let clock = TestClock::new("2026-03-01T09:00:00Z".parse().unwrap());
    let mut scheduler = Scheduler::in_memory()
        .handler_fn(|_: Probe, cx| Outcome::with(cx.metadata()))
        .stepped(&clock)
        .unwrap();
    let plain = scheduler.schedule(Probe).unwrap().id();
    let marked = NewTask::new(Probe).metadata("request", "r-7");
    let marked = scheduler.schedule(marked).unwrap().id();
    scheduler.drain();
    for id in [plain, marked] {
        let task = scheduler.get(id).unwrap().unwrap();
        assert_eq!(task.result().unwrap().as_ref(), Some(task.metadata()));
        assert_eq!(task.metadata().is_empty(), id == plain);
    }
}

#[test]
fn an_attempt_can_go_on_where_the_one_before_has_stopped() {
    let clock = TestClock::new("2026-03-01T09:00:00Z".parse().unwrap());
    let mut scheduler = Scheduler::in_memory()
        .handler_fn(|_: Probe, cx| {
            let task = cx.client().get(cx.id())?.ok_or("it is there")?;
            let done: Option<u32> = task.progress()?;
            cx.progress(&(done.unwrap_or(0) + 10))?;
            if cx.attempt() < 3 {
                return Err("to be continued".into());
            }
            Outcome::with(&done)
        })
        .stepped(&clock)
        .unwrap();
    let id = scheduler.schedule(Probe).unwrap().id();
    scheduler.advance(Duration::from_secs(3600));
    let task = scheduler.get(id).unwrap().unwrap();
    assert_eq!(task.result().unwrap(), Some(Some(20)));
    assert_eq!(task.progress().unwrap(), Some(30));
}
