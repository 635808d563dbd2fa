//! P5: a task scheduled with that delivery is never started twice, and an interrupted attempt is final.
//!
//! Killed processes: `process/once.rs`. A loss of power, and what is synced: the tests of the store.

use std::time::Duration;

use punctual::{Delivery, ErrorKind, Outcome, RetryPolicy, Scheduler, TaskState};

use crate::kit::{LONG, Log, MS, Probe, end_of, eventually, file, probe, state};

#[test]
fn a_task_delivered_at_most_once_that_was_interrupted_has_failed() {
    let scheduler = Scheduler::in_memory()
        .handler_fn(|_: Probe, cx| {
            assert!(cx.cancelled_within(LONG));
            Err("stopped".into())
        })
        .start()
        .unwrap();
    let once = probe(0).delivery(Delivery::AtMostOnce);
    let id = scheduler.schedule(once).unwrap().id();
    eventually("it runs", || scheduler.health().busy() == 1);
    scheduler.shutdown(20 * MS).unwrap();
    assert_eq!(state(&scheduler, id), TaskState::Failed);
}

#[test]
fn what_is_delivered_at_most_once_and_fails_is_not_started_again() {
    let (_dir, path) = file();
    let log: Log<u32> = Log::new();
    let calls = log.clone();
    let scheduler = Scheduler::builder(&path)
        .retry_policy("probe", RetryPolicy::fixed(Duration::ZERO))
        .handler_fn(move |Probe(n), _| {
            calls.push(n);
            match n {
                0 => Ok(Outcome::done()),
                1 => Err("no".into()),
                2 => Ok(Outcome::snooze(Duration::ZERO)),
                _ => panic!("boom"),
            }
        })
        .start()
        .unwrap();
    let once = |n| probe(n).delivery(Delivery::AtMostOnce);
    let error = scheduler.schedule(once(1).max_attempts(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    for n in 0..4 {
        let id = scheduler.schedule(once(n)).unwrap().id();
        let task = end_of(&scheduler, id);
        let expected = match n {
            0 => TaskState::Completed,
            _ => TaskState::Failed,
        };
        assert_eq!(
            (task.state(), task.attempt(), task.max_attempts()),
            (expected, 1, 1)
        );
    }
    assert_eq!(log.take(), [0, 1, 2, 3]);
}
