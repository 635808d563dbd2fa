//! P2: no attempt starts before its `scheduled_at`, by the scheduler's clock.

use std::time::Duration;

use chrono::{DateTime, Utc};
use punctual::testing::{Stepper, TestClock};
use punctual::{Failure, NewTask, Outcome, RetryPolicy, Scheduler, TaskResult};

use crate::kit::{Log, MICRO, Probe, S, clock, probe, seed};

/// A scheduler whose handler ends its first attempt so, and completes at the second; and when it was called.
fn scheduler(
    clock: &TestClock,
    first: impl Fn() -> TaskResult + Send + Sync + 'static,
) -> (Stepper, Log<DateTime<Utc>>) {
    let starts = Log::new();
    let (log, time) = (starts.clone(), clock.clone());
    let scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(move |_: Probe, _cx| {
            log.push(time.now());
            if log.len() == 1 {
                first()
            } else {
                Ok(Outcome::done())
            }
        })
        .retry_policy("probe", RetryPolicy::fixed(7 * S + 3 * MICRO))
        .stepped(clock)
        .unwrap();
    (scheduler, starts)
}

/// Nothing starts in the last microsecond of `delay`, and one attempt at its end.
fn starts_exactly_after(scheduler: &mut Stepper, delay: Duration) {
    let clock = scheduler.clock().clone();
    for early in [S, delay - S - MICRO] {
        clock.advance(early);
        assert_eq!(scheduler.drain(), 0, "early, at {}", clock.now());
    }
    clock.advance(MICRO);
    assert_eq!(scheduler.drain(), 1, "at {}", clock.now());
}

/// P2: at the microsecond, not before.
#[test]
fn a_task_starts_at_its_microsecond_and_not_before() {
    let clock = clock();
    let (mut scheduler, _) = scheduler(&clock, || Ok(Outcome::done()));
    let delay = 10 * S + 123_457 * MICRO;
    scheduler.schedule(probe(1).after(delay)).unwrap();
    starts_exactly_after(&mut scheduler, delay);
}

/// P2: a time between two microseconds is rounded up, never down.
#[test]
fn a_time_between_two_microseconds_is_not_rounded_into_the_past() {
    let clock = clock();
    let (mut scheduler, starts) = scheduler(&clock, || Ok(Outcome::done()));
    let at = clock.now() + Duration::from_nanos(1_000_001);
    scheduler.schedule(probe(1).at(at)).unwrap();
    clock.advance(1_000 * MICRO);
    assert_eq!(scheduler.drain(), 0);
    clock.advance(MICRO);
    assert_eq!(scheduler.drain(), 1);
    assert!(starts.take()[0] >= at);
}

/// P2: a retry waits as long as its policy says.
#[test]
fn a_retry_does_not_start_early() {
    let (mut scheduler, _) = scheduler(&clock(), || Err("no".into()));
    scheduler.schedule(probe(1)).unwrap();
    assert_eq!(scheduler.drain(), 1);
    starts_exactly_after(&mut scheduler, 7 * S + 3 * MICRO);
}

/// P2: nor does one whose delay the error asked for.
#[test]
fn a_retry_after_does_not_start_early() {
    let delay = 3 * S + MICRO;
    let (mut scheduler, _) = scheduler(&clock(), move || Err(Failure::retry_after(delay, "busy")));
    scheduler.schedule(probe(1)).unwrap();
    assert_eq!(scheduler.drain(), 1);
    starts_exactly_after(&mut scheduler, delay);
}

/// P2: nor does a task that asked to be called again later.
#[test]
fn a_snoozed_task_does_not_start_early() {
    let delay = 5 * S + 7 * MICRO;
    let (mut scheduler, _) = scheduler(&clock(), move || Ok(Outcome::snooze(delay)));
    scheduler.schedule(probe(1)).unwrap();
    assert_eq!(scheduler.drain(), 1);
    starts_exactly_after(&mut scheduler, delay);
}

/// P2: nor does one that was made due later after all.
#[test]
fn a_rescheduled_task_does_not_start_early() {
    let clock = clock();
    let (mut scheduler, _) = scheduler(&clock, || Ok(Outcome::done()));
    let id = scheduler.schedule(probe(1).after(S)).unwrap().id();
    let delay = 4 * S + 9 * MICRO;
    scheduler.reschedule(id, clock.now() + delay).unwrap();
    starts_exactly_after(&mut scheduler, delay);
}

/// P2: a clock that is set back makes what was nearly due wait again.
#[test]
fn a_clock_that_is_set_back_starts_nothing_early() {
    let clock = clock();
    let (mut scheduler, _) = scheduler(&clock, || Ok(Outcome::done()));
    let start = clock.now();
    scheduler.schedule(probe(1).after(10 * S)).unwrap();
    clock.advance(9 * S);
    assert_eq!(scheduler.drain(), 0);
    clock.set(start - S);
    assert_eq!(scheduler.drain(), 0);
    starts_exactly_after(&mut scheduler, 11 * S);
}

/// P2: whatever the due times, and however the time moves.
#[test]
fn no_task_of_many_starts_early() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let clock = clock();
    let starts: Log<(DateTime<Utc>, DateTime<Utc>)> = Log::new();
    let (log, time) = (starts.clone(), clock.clone());
    let mut scheduler = Scheduler::in_memory()
        .workers(3)
        .handler_fn(move |_: Probe, cx| {
            log.push((cx.scheduled_at(), time.now()));
            Ok(Outcome::done())
        })
        .stepped(&clock)
        .unwrap();
    let tasks = (0..300).map(|n| {
        NewTask::new(Probe(n))
            .after(random.u32(0..5_000_000) * MICRO)
            .priority(random.u8(0..10))
    });
    scheduler.schedule_many(tasks.collect::<Vec<_>>()).unwrap();
    let mut ran = 0;
    while ran < 300 {
        clock.advance(random.u32(1..40_000) * MICRO);
        ran += scheduler.drain();
        for (due, started) in starts.take() {
            assert!(started >= due, "{started} is before {due}, seed {seed}");
        }
    }
    assert_eq!(scheduler.advance(100 * S), 0, "each once");
}
