//! What counts as an attempt.

use punctual::testing::TestClock;
use punctual::{Cancel, Outcome, Payload, Scheduler, TaskState};
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
