//! P12: what keeps futures from running is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use punctual::{Outcome, Scheduler, TaskFuture, TaskState};
use smol::block_on;

use super::{Executor, Kept};
use crate::kit::{MS, Other, Probe, clock, end_of, eventually, gate, hold_up, state};

#[test]
fn p12_polls_that_block_their_thread_are_counted_and_told() {
    for executor in Executor::all() {
        let (gate, _open) = gate();
        let at_gate = gate.clone();
        let builder = Scheduler::in_memory().async_handler_fn(move |Probe(n), _cx| {
            let gate = at_gate.clone();
            async move {
                match n {
                    0 => hold_up(30 * MS),
                    1 => gate.pass(),
                    _ => {}
                }
                Ok(Outcome::done())
            }
        });
        let scheduler = executor.on(builder.workers(2)).start().unwrap();
        let [slow, quick] = [0, 2].map(|n| scheduler.schedule(Probe(n)).unwrap().id());
        end_of(&scheduler, slow);
        end_of(&scheduler, quick);
        let counted = scheduler.health().slow_polls().to_vec();
        assert_eq!(counted[0].0, "probe", "{}", executor.name());
        let blocks = scheduler.schedule(Probe(1)).unwrap().id();
        gate.await_waiting(1);
        assert_eq!(scheduler.health().in_flight(), 1);
        eventually("it is told", || {
            scheduler.health().blocking_kinds() == ["probe"]
        });
        gate.open();
        end_of(&scheduler, blocks);
        eventually("it is over", || {
            scheduler.health().blocking_kinds().is_empty()
        });
        let health = scheduler.health();
        assert!(health.is_ok() && health.in_flight() == 0);
        assert!(health.slow_polls()[0].1 > counted[0].1);
    }
}

#[test]
fn p12_an_executor_that_does_not_run_is_told() {
    let kept = Kept::default();
    let scheduler = Scheduler::in_memory()
        .async_handler_fn(|_: Probe, _cx| async { Ok(Outcome::done()) })
        .max_in_flight(7)
        .spawner(kept.clone())
        .start()
        .unwrap();
    drop(kept.take());
    let ids = [1, 2].map(|n| scheduler.schedule(Probe(n)).unwrap().id());
    eventually("it is told", || scheduler.health().unpolled() == 2);
    assert_eq!(scheduler.health().max_in_flight(), 7);
    kept.take().into_iter().for_each(block_on);
    for id in ids {
        assert_eq!(end_of(&scheduler, id).state(), TaskState::Completed);
    }
    eventually("it runs", || scheduler.health().unpolled() == 0);
}

#[test]
fn p12_a_rest_after_futures_that_were_dropped_is_told() {
    let drops = Arc::new(AtomicBool::new(false));
    let dropped = Arc::clone(&drops);
    let scheduler = Scheduler::in_memory()
        .async_handler_fn(|_: Probe, _cx| async { Ok(Outcome::done()) })
        .spawner(move |future: TaskFuture| {
            if !dropped.load(Ordering::SeqCst) {
                smol::spawn(future).detach();
            }
        })
        .start()
        .unwrap();
    drops.store(true, Ordering::SeqCst);
    let id = scheduler.schedule(Probe(1)).unwrap().id();
    eventually("it rests", || {
        scheduler.health().futures_rest_until().is_some()
    });
    drops.store(false, Ordering::SeqCst);
    assert_eq!(end_of(&scheduler, id).state(), TaskState::Completed);
    assert_eq!(scheduler.health().futures_rest_until(), None);
}

/// A future that was never polled is no start that could not be noted: handlers on threads go on.
#[test]
fn p3_a_future_that_is_dropped_unpolled_holds_up_no_blocking_handler() {
    let kept = Kept::default();
    let clock = clock();
    let mut scheduler = Scheduler::in_memory()
        .async_handler_fn(|_: Probe, _cx| async { Ok(Outcome::done()) })
        .handler_fn(|_: Other, _cx| Ok(Outcome::done()))
        .spawner(kept.clone())
        .stepped(&clock)
        .unwrap();
    scheduler.schedule(Probe(1)).unwrap();
    assert_eq!(scheduler.drain(), 0);
    assert_eq!(
        kept.take().len(),
        2,
        "that of the start, and that of the task"
    );
    let id = scheduler.schedule(Other(1)).unwrap().id();
    assert_eq!(scheduler.drain(), 1);
    assert_eq!(state(&scheduler, id), TaskState::Completed);
}

/// P14: more than there are places wait their turn in the file.
#[test]
fn p14_as_many_as_there_are_places_are_claimed() {
    let kept = Kept::default();
    let scheduler = Scheduler::in_memory()
        .async_handler_fn(|_: Probe, _cx| async { Ok(Outcome::done()) })
        .max_in_flight(3)
        .spawner(kept.clone())
        .start()
        .unwrap();
    drop(kept.take());
    let ids: Vec<_> = (0..10)
        .map(|n| scheduler.schedule(Probe(n)).unwrap().id())
        .collect();
    let running = || {
        let states = ids.iter().map(|id| state(&scheduler, *id));
        states.filter(|state| *state == TaskState::Running).count()
    };
    eventually("three are claimed", || running() == 3);
    hold_up(20 * MS);
    assert_eq!(running(), 3);
    let mut ran = 0;
    eventually("all run in the end", || {
        for future in kept.take() {
            block_on(future);
            ran += 1;
        }
        ran == 10
    });
}
