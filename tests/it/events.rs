//! Events: told after the commit, in order, lossy and counted; and waiting for the end of a task.

use std::collections::HashMap;
use std::time::Duration;

use punctual::{
    Client, Edit, ErrorKind, EventKind, Events, Failure, Outcome, Received, RetryPolicy, Scheduler,
    TaskId, TaskState,
};

use crate::kit::{DAY, LONG, MS, Probe, S, Watch, clock, eventually, file, probe, task};

/// The life of every task, as the events tell it.
#[test]
fn every_step_of_a_task_is_told_in_order() {
    use EventKind as E;
    let mut scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(|Probe(n), cx| match (n, cx.attempt()) {
            (1, 1) => Err("again".into()),
            (2, 1) if cx.last_error().is_none() && cx.scheduled_at() == clock().now() => {
                Ok(Outcome::snooze(S))
            }
            (3, _) => Err(Failure::fatal("no")),
            (4, _) => {
                cx.progress(&n)?;
                cx.client().cancel(cx.id())?;
                Err("stopped".into())
            }
            _ => Ok(Outcome::done()),
        })
        .retry_policy("probe", RetryPolicy::fixed(S))
        .stepped(&clock())
        .unwrap();
    let events = scheduler.events();
    let ids: Vec<TaskId> = (0..6)
        .map(|n| {
            let delay = if n == 5 { DAY } else { Duration::ZERO };
            scheduler.schedule(probe(n).after(delay)).unwrap().id()
        })
        .collect();
    scheduler.advance(10 * S);
    scheduler
        .reschedule(ids[5], clock().now() + 2 * DAY)
        .unwrap();
    scheduler.edit(ids[5], Edit::new().priority(1)).unwrap();
    scheduler.cancel(ids[5]).unwrap();
    scheduler.retry(ids[3]).unwrap();
    scheduler.drain();
    scheduler.delete(ids[0]).unwrap();
    let mut lives: HashMap<TaskId, Vec<EventKind>> = HashMap::new();
    while let Received::Event(event) = events.try_next() {
        assert_eq!((event.task_kind(), event.queue()), ("probe", "default"));
        lives.entry(event.task()).or_default().push(event.kind());
    }
    let expected: [&[EventKind]; 6] = [
        &[E::Scheduled, E::Claimed, E::Completed, E::Deleted],
        &[
            E::Scheduled,
            E::Claimed,
            E::Retrying,
            E::Claimed,
            E::Completed,
        ],
        &[
            E::Scheduled,
            E::Claimed,
            E::Snoozed,
            E::Claimed,
            E::Completed,
        ],
        &[
            E::Scheduled,
            E::Claimed,
            E::Failed,
            E::Retried,
            E::Claimed,
            E::Failed,
        ],
        &[
            E::Scheduled,
            E::Claimed,
            E::Progressed,
            E::CancelRequested,
            E::Cancelled,
        ],
        &[E::Scheduled, E::Rescheduled, E::Edited, E::Cancelled],
    ];
    for (n, (id, expected)) in ids.iter().zip(expected).enumerate() {
        assert_eq!(lives[id], expected, "of task {n}");
    }
    assert_eq!(events.lost(), 0);
}

/// P14: a slow subscriber loses events and is told how many; nobody waits for it.
#[test]
fn a_slow_subscriber_loses_events_and_counts_them() {
    let mut scheduler = Scheduler::in_memory()
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .stepped(&clock())
        .unwrap();
    let slow = scheduler.events_with_capacity(10);
    let fast = scheduler.events_with_capacity(1_000);
    scheduler.schedule_many((0..100).map(probe)).unwrap();
    assert_eq!(scheduler.drain(), 100);
    assert_eq!((slow.lost(), fast.lost()), (290, 0));
    assert_eq!(std::iter::from_fn(|| slow.try_next().event()).count(), 10);
    assert_eq!(std::iter::from_fn(|| fast.try_next().event()).count(), 300);
    scheduler.schedule(probe(1)).unwrap();
    assert!(
        slow.try_next().event().is_some(),
        "it goes on when there is room"
    );
}

/// An event is told after its commit, so whoever looks at the task sees it.
#[test]
fn an_event_never_tells_what_is_not_stored() {
    let (_dir, path) = file();
    let scheduler = Scheduler::builder(&path)
        .workers(2)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .start()
        .unwrap();
    let events = scheduler.events();
    scheduler.schedule_many((0..50).map(probe)).unwrap();
    let mut completed = 0;
    while completed < 50 {
        let event = events.next_within(LONG).event().expect("it comes");
        let state = task(&scheduler, event.task()).state();
        if event.kind() == EventKind::Completed {
            assert_eq!(state, TaskState::Completed);
            completed += 1;
        }
    }
    assert!(matches!(events.next_within(MS), Received::Nothing));
    let _ = scheduler.shutdown(LONG).unwrap();
    assert_eq!(events.count(), 0, "an iterator ends with its scheduler");
}

#[test]
fn a_wait_ends_with_its_task_or_its_time() {
    let scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(|Probe(n), _cx| Outcome::with(&(n * 2)))
        .start()
        .unwrap();
    let later = scheduler.schedule(probe(1).after(DAY)).unwrap().id();
    assert!(scheduler.wait(later, 10 * MS).unwrap().is_none());
    assert!(scheduler.wait(later, Duration::ZERO).unwrap().is_none());
    let results: Vec<u32> = std::thread::scope(|scope| {
        let waits: Vec<_> = (0..8)
            .map(|_| {
                let client = scheduler.client();
                scope.spawn(move || {
                    let ended = client.wait(later, LONG).unwrap().unwrap();
                    ended.result::<u32>().unwrap().unwrap()
                })
            })
            .collect();
        scheduler.run_now(later).unwrap();
        waits.into_iter().map(|wait| wait.join().unwrap()).collect()
    });
    assert_eq!(results, [2; 8]);
    assert!(
        scheduler.wait(later, Duration::ZERO).unwrap().is_some(),
        "it has ended"
    );
    let error = scheduler.wait(TaskId::new(), LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_wait_ends_by_a_cancel_a_deletion_and_another_process() {
    let (_dir, path) = file();
    let scheduler = Scheduler::builder(&path)
        .workers(1)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .start()
        .unwrap();
    let client = Client::open(&path).unwrap();
    let watch = Watch::start();
    std::thread::scope(|scope| {
        let id = scheduler.schedule(probe(1).after(DAY)).unwrap().id();
        let wait = scope.spawn(move || scheduler_wait(&path, id));
        scheduler.cancel(id).unwrap();
        assert_eq!(wait.join().unwrap(), TaskState::Cancelled);
    });
    // Another instance ends it: looked for, not told.
    let id = client.schedule(probe(2)).unwrap().id();
    let ended = client.wait(id, LONG).unwrap().unwrap();
    assert_eq!(ended.state(), TaskState::Completed);
    assert!(watch.elapsed() < 30 * S);
    let gone = scheduler.schedule(probe(3).after(DAY)).unwrap().id();
    scheduler.cancel(gone).unwrap();
    scheduler.delete(gone).unwrap();
    eventually("it is gone", || client.wait(gone, Duration::ZERO).is_err());
}

fn scheduler_wait(path: &std::path::Path, id: TaskId) -> TaskState {
    let client = Client::open(path).unwrap();
    client.wait(id, LONG).unwrap().unwrap().state()
}

/// P12: a subscription ends with the scheduler, also when a handler outlived its shutdown.
#[test]
fn a_subscription_ends_when_the_last_handler_has_returned() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let scheduler = Scheduler::in_memory()
        .handler_fn(move |_: Probe, _cx| {
            let _ = wait.lock().unwrap().recv();
            Ok(Outcome::done())
        })
        .start()
        .unwrap();
    let client = scheduler.client();
    let events = scheduler.events();
    let id = scheduler.schedule(Probe(1)).unwrap().id();
    eventually("it runs", || scheduler.health().busy() == 1);
    let shutdown = scheduler.shutdown(MS).unwrap();
    assert_eq!(shutdown.still_running(), 1);
    release.send(()).unwrap();
    assert_eq!(
        events.last().unwrap().task(),
        id,
        "and the iterator has ended"
    );
    drop(client);
}

/// What a loop is answered that waits for events, until it is told that they have ended. A loop that took the end for a
/// quiet moment span ten million times a second.
fn read_to_the_end(events: &Events) -> Vec<EventKind> {
    let (mut kinds, mut quiet) = (Vec::new(), 0);
    loop {
        match events.next_within(S) {
            Received::Event(event) => kinds.push(event.kind()),
            Received::Nothing => quiet += 1,
            Received::Ended => return kinds,
        }
        assert!(quiet < 60, "it never ends");
    }
}

/// P12: the scheduler has shut down, and a client of it lives on.
#[test]
fn a_subscription_says_that_its_scheduler_has_ended() {
    let scheduler = Scheduler::in_memory().start().unwrap();
    let client = scheduler.client();
    let events = client.events();
    client.schedule(probe(1)).unwrap();
    assert_eq!(scheduler.shutdown(LONG).unwrap().still_running(), 0);
    client.schedule(probe(2)).unwrap();
    assert_eq!(
        read_to_the_end(&events),
        [EventKind::Scheduled],
        "what came before it"
    );
    assert!(
        matches!(events.try_next(), Received::Ended),
        "and it stays so"
    );
    let late = client.events();
    assert!(matches!(late.try_next(), Received::Ended));
    assert!(matches!(late.next_within(LONG), Received::Ended));
}

/// P12: a client alone has no end but its own.
#[test]
fn a_subscription_of_a_client_says_that_the_client_is_gone() {
    let (_dir, path) = file();
    let client = Client::open(path).unwrap();
    let (events, clone) = (client.events(), client.clone());
    client.schedule(probe(1)).unwrap();
    drop(client);
    assert!(matches!(events.try_next(), Received::Event(_)));
    assert!(
        matches!(events.try_next(), Received::Nothing),
        "a clone is left"
    );
    let receipt = clone.submit().schedule(probe(2));
    assert!(matches!(events.next_within(LONG), Received::Event(_)));
    drop(clone);
    // A receipt that was not read keeps something of the store, and no subscription.
    assert_eq!(read_to_the_end(&events), []);
    assert!(receipt.wait().unwrap().is_new());
}
