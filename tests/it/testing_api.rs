//! What `punctual::testing` promises to the tests of others.

use punctual::{Filter, Outcome, RetryPolicy, Scheduler, TaskState};

use crate::kit::{DAY, Log, Probe, S, clock, probe, state};

#[test]
fn a_step_runs_one_task_and_settles_it() {
    let mut scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .stepped(&clock())
        .unwrap();
    let ids: Vec<_> = (0..3)
        .map(|n| scheduler.schedule(probe(n)).unwrap().id())
        .collect();
    for id in &ids {
        assert!(scheduler.step());
        assert_eq!(state(&scheduler, *id), TaskState::Completed);
    }
    assert!(!scheduler.step());
}

#[test]
fn a_drain_runs_what_becomes_due_by_it_and_not_what_is_later() {
    let mut scheduler = Scheduler::in_memory()
        .handler_fn(|Probe(n), cx| {
            match n {
                0 => drop(cx.client().schedule(probe(9).after(S))?),
                n => drop(cx.client().schedule(probe(n - 1))?),
            }
            Ok(Outcome::done())
        })
        .stepped(&clock())
        .unwrap();
    scheduler.schedule(probe(5)).unwrap();
    assert_eq!(scheduler.drain(), 6);
    assert_eq!(
        scheduler
            .count(&Filter::new().state(TaskState::Pending))
            .unwrap(),
        1
    );
}

/// The production loop through a year, without a second of it.
#[test]
fn a_year_passes_while_every_due_task_runs_at_its_time() {
    let clock = clock();
    let runs = Log::new();
    let (log, time) = (runs.clone(), clock.clone());
    let mut scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(move |_: Probe, cx| {
            assert_eq!(cx.scheduled_at(), time.now());
            log.push(time.now());
            Ok(Outcome::snooze(DAY))
        })
        .stepped(&clock)
        .unwrap();
    let start = clock.now();
    scheduler.schedule(probe(1).after(DAY)).unwrap();
    assert_eq!(scheduler.advance(365 * DAY), 365);
    assert_eq!(clock.now(), start + 365 * DAY);
    let runs = runs.take();
    assert!(
        runs.windows(2)
            .all(|pair| pair[1] - pair[0] == chrono::TimeDelta::days(1))
    );
}

#[test]
fn retries_are_stepped_through_too() {
    let mut scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(|_: Probe, _cx| Err("no".into()))
        .retry_policy("probe", RetryPolicy::exponential(S, 3600 * S).jitter(0.0))
        .stepped(&clock())
        .unwrap();
    let id = scheduler.schedule(probe(1).max_attempts(10)).unwrap().id();
    let start = scheduler.clock().now();
    assert_eq!(scheduler.advance(DAY / 2), 10);
    let ended = scheduler.get(id).unwrap().unwrap().finished_at().unwrap();
    // 1 + 2 + 4 … + 256 seconds.
    assert_eq!((ended - start).to_std().unwrap(), 511 * S);
}

#[test]
fn a_clock_is_shared_by_its_clones() {
    let clock = clock();
    let other = clock.clone();
    clock.advance(S);
    assert_eq!(clock.now(), other.now());
    other.set(clock.now() - DAY);
    assert_eq!(clock.now(), other.now());
}
