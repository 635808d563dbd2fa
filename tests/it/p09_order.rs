//! P9: of the due tasks of a queue: lowest priority value, then `scheduled_at`, then insertion. With one worker and one
//! instance, starts are in exactly that order.

use std::time::Duration;

use punctual::testing::Stepper;
use punctual::{Builder, Edit, NewTask, Outcome, Scheduler};

use crate::kit::{DAY, LONG, Log, Other, Probe, S, clock, eventually, probe, seed};

/// One worker, with handlers of two kinds; and the order of the starts.
fn builder() -> (Builder, Log<u32>) {
    let starts = Log::new();
    let (log, others) = (starts.clone(), starts.clone());
    let builder = Scheduler::in_memory()
        .workers(1)
        .handler_fn(move |Probe(n), _cx| {
            log.push(n);
            Ok(Outcome::done())
        })
        .handler_fn(move |Other(n), _cx| {
            others.push(n);
            Ok(Outcome::done())
        });
    (builder, starts)
}

fn stepped() -> (Stepper, Log<u32>) {
    let (builder, starts) = builder();
    (builder.stepped(&clock()).unwrap(), starts)
}

/// Tasks of two kinds with random priorities and due times, and the order in which they should start.
fn shuffled(random: &mut fastrand::Rng, count: u32) -> (Vec<NewTask>, Vec<u32>) {
    let past = clock().now();
    let (mut tasks, mut keys) = (Vec::new(), Vec::new());
    for n in 0..count {
        let (priority, ago) = (random.u8(0..10), random.u64(0..4));
        let task = if random.bool() {
            NewTask::new(Probe(n))
        } else {
            NewTask::new(Other(n))
        };
        let at = past - Duration::from_secs(ago);
        tasks.push(task.priority(priority).at(at));
        keys.push((priority, at, n));
    }
    keys.sort_unstable();
    (tasks, keys.into_iter().map(|(.., n)| n).collect())
}

/// P9: exactly, whatever kind they are of.
#[test]
fn one_worker_starts_tasks_in_exactly_their_order() {
    let seed = seed();
    let (mut scheduler, starts) = stepped();
    let (tasks, expected) = shuffled(&mut fastrand::Rng::with_seed(seed), 400);
    scheduler.schedule_many(tasks).unwrap();
    assert_eq!(scheduler.drain(), 400);
    assert_eq!(starts.take(), expected, "seed {seed}");
}

/// P9: exactly, with real threads and claims ahead of the worker.
#[test]
fn one_worker_thread_starts_tasks_in_exactly_their_order() {
    let seed = seed();
    let (builder, starts) = builder();
    let scheduler = builder.start().unwrap();
    // Both kinds are known to be quick, so they are claimed by the hundred.
    for n in 0..20 {
        scheduler.schedule(Probe(n)).unwrap();
        let id = scheduler.schedule(Other(n)).unwrap().id();
        scheduler.wait(id, LONG).unwrap();
    }
    eventually("all have run", || starts.len() == 40);
    starts.take();
    let (tasks, expected) = shuffled(&mut fastrand::Rng::with_seed(seed), 2_000);
    scheduler.schedule_many(tasks).unwrap();
    eventually("all have run", || starts.len() == 2_000);
    assert_eq!(starts.take(), expected, "seed {seed}");
    let _ = scheduler.shutdown(LONG).unwrap();
}

/// P9: what comes later and is better starts before what was claimed ahead and is not started.
#[test]
fn a_better_task_overtakes_those_that_are_claimed_ahead() {
    let (mut scheduler, starts) = stepped();
    // Known to be quick.
    for n in 0..30 {
        scheduler.schedule(probe(n)).unwrap();
    }
    scheduler.drain();
    starts.take();
    let tasks = (0..50).map(probe);
    scheduler.schedule_many(tasks).unwrap();
    assert!(scheduler.step());
    let held = scheduler
        .stats()
        .unwrap()
        .count(punctual::TaskState::Running);
    assert!(held > 5, "{held} are claimed ahead");
    scheduler.schedule(probe(100).priority(4)).unwrap();
    scheduler
        .schedule(NewTask::new(Other(101)).priority(0))
        .unwrap();
    scheduler.drain();
    let expected: Vec<u32> = [0, 101, 100].into_iter().chain(1..50).collect();
    assert_eq!(starts.take(), expected);
    // Giving back cost nobody an attempt.
    let page = scheduler
        .list(&punctual::Filter::all().limit(1000))
        .unwrap();
    assert!(page.tasks().iter().all(|task| task.attempt() == 1));
}

/// P9: a task that is edited or run now has its new place.
#[test]
fn an_edit_changes_the_place_in_the_order() {
    let (mut scheduler, starts) = stepped();
    scheduler.pause("default").unwrap();
    let ids: Vec<_> = (0..4)
        .map(|n| scheduler.schedule(probe(n)).unwrap().id())
        .collect();
    let later = scheduler
        .schedule(probe(9).after(DAY).priority(5))
        .unwrap()
        .id();
    scheduler.edit(ids[2], Edit::new().priority(1)).unwrap();
    scheduler.edit(ids[0], Edit::new().priority(7)).unwrap();
    scheduler
        .reschedule(ids[3], scheduler.clock().now() - S)
        .unwrap();
    scheduler.run_now(later).unwrap();
    scheduler.resume("default").unwrap();
    scheduler.drain();
    // At one instant, insertion decides.
    assert_eq!(starts.take(), [2, 3, 1, 9, 0]);
}

/// P9: a worse task that is due does not wait for a better one that is not.
#[test]
fn a_better_task_that_is_not_due_holds_up_nobody() {
    let (mut scheduler, starts) = stepped();
    scheduler.schedule(probe(1).priority(0).after(S)).unwrap();
    scheduler.schedule(probe(2).priority(9)).unwrap();
    scheduler.advance(2 * S);
    assert_eq!(starts.take(), [2, 1]);
}
