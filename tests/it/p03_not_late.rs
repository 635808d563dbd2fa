//! P3: a due task starts as soon as the timer wakes the process. How soon is measured by the benches; here: at the right
//! instant of a clock that is moved by hand, and by a notification instead of a poll.

use chrono::{DateTime, Utc};
use punctual::testing::{Stepper, TestClock};
use punctual::{Outcome, Scheduler, TaskId, TaskState};

use crate::kit::{DAY, LONG, Log, MS, Probe, S, Watch, clock, file, probe, seed, state, task};

fn stepped(clock: &TestClock) -> Stepper {
    Scheduler::in_memory()
        .workers(1)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .stepped(clock)
        .unwrap()
}

fn started(scheduler: &Stepper, id: TaskId) -> Option<DateTime<Utc>> {
    task(scheduler, id).started_at()
}

/// P3: each at its very instant, if nothing else is in the way.
#[test]
fn every_task_starts_at_its_instant() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let clock = clock();
    let mut scheduler = stepped(&clock);
    let ids: Vec<TaskId> = (0..200)
        .map(|n| {
            let delay = random.u32(0..3_000_000) * crate::kit::MICRO;
            let task = probe(n).after(delay).priority(random.u8(0..10));
            scheduler.schedule(task).unwrap().id()
        })
        .collect();
    assert_eq!(scheduler.advance(10 * S), 200);
    for id in ids {
        let task = task(&scheduler, id);
        assert_eq!(task.started_at(), Some(task.scheduled_at()), "seed {seed}");
    }
}

/// P3: the one after a task that was cancelled is not forgotten with it.
#[test]
fn a_task_is_not_late_because_the_one_before_it_was_cancelled() {
    let clock = clock();
    let mut scheduler = stepped(&clock);
    let first = scheduler.schedule(probe(1).after(10 * S)).unwrap().id();
    let second = scheduler
        .schedule(probe(2).after(10 * S + 300 * MS))
        .unwrap()
        .id();
    let due = clock.now() + 10 * S + 300 * MS;
    scheduler.cancel(first).unwrap();
    assert_eq!(scheduler.advance(20 * S), 1);
    assert_eq!(started(&scheduler, second), Some(due));
}

/// P3: a task that was made due later starts then, not at the next look at the clock.
#[test]
fn a_task_that_was_rescheduled_starts_at_its_new_instant() {
    let clock = clock();
    let mut scheduler = stepped(&clock);
    let id = scheduler.schedule(probe(1).after(10 * S)).unwrap().id();
    let due = clock.now() + 10 * S + 123 * MS;
    scheduler.reschedule(id, due).unwrap();
    assert_eq!(scheduler.advance(20 * S), 1);
    assert_eq!(started(&scheduler, id), Some(due));
}

/// P3: what became due while nobody ran is due now, never skipped.
#[test]
fn an_overdue_task_runs_at_the_next_start() {
    let clock = clock();
    let (_dir, path) = file();
    let open = || {
        Scheduler::builder(&path)
            .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
            .stepped(&clock)
            .unwrap()
    };
    let scheduler = open();
    let id = scheduler.schedule(probe(1).after(S)).unwrap().id();
    drop(scheduler);
    clock.advance(100 * DAY);
    let mut scheduler = open();
    assert_eq!(scheduler.drain(), 1);
    assert_eq!(state(&scheduler, id), TaskState::Completed);
}

/// P3: a clock that jumps ahead makes what it passed due.
#[test]
fn a_jump_of_the_clock_starts_what_it_passed() {
    let clock = clock();
    let mut scheduler = stepped(&clock);
    for n in 1..=5 {
        scheduler.schedule(probe(n).after(n * S)).unwrap();
    }
    clock.set(clock.now() + 365 * DAY);
    assert_eq!(scheduler.drain(), 5);
}

/// P3: no polling. Were one of these notifications lost, each round would take the second until the next look.
#[test]
fn a_sleeping_scheduler_is_woken_by_what_is_due() {
    let scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .start()
        .unwrap();
    let watch = Watch::start();
    for n in 0..40 {
        let id = scheduler.schedule(probe(n)).unwrap().id();
        assert!(scheduler.wait(id, LONG).unwrap().is_some());
    }
    for n in 0..10 {
        scheduler.pause("default").unwrap();
        let id = scheduler.schedule(probe(n)).unwrap().id();
        scheduler.resume("default").unwrap();
        assert!(scheduler.wait(id, LONG).unwrap().is_some());
        let later = scheduler.schedule(probe(n).after(DAY)).unwrap().id();
        scheduler.run_now(later).unwrap();
        assert!(scheduler.wait(later, LONG).unwrap().is_some());
    }
    assert!(
        watch.elapsed() < 15 * S,
        "60 rounds took {:?}",
        watch.elapsed()
    );
}

/// P3: the same under a clock that is moved while threads sleep on it.
#[test]
fn a_clock_that_is_moved_wakes_those_who_wait_for_it() {
    let clock = clock();
    let starts = Log::new();
    let log = starts.clone();
    let scheduler = Scheduler::in_memory()
        .workers(2)
        .clock(clock.clone())
        .handler_fn(move |Probe(n), _cx| {
            log.push(n);
            Ok(Outcome::done())
        })
        .start()
        .unwrap();
    let watch = Watch::start();
    for n in 0..40 {
        let id = scheduler.schedule(probe(n).after(DAY)).unwrap().id();
        clock.advance(DAY);
        assert!(scheduler.wait(id, LONG).unwrap().is_some());
    }
    assert_eq!(starts.take(), (0..40).collect::<Vec<_>>());
    assert!(
        watch.elapsed() < 15 * S,
        "40 rounds took {:?}",
        watch.elapsed()
    );
}
