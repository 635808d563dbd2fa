//! Executors that are missing, gone, or not what they should be: no task is lost with one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use punctual::{
    Builder, Cancel, ErrorKind, Filter, MAX_IN_FLIGHT, Outcome, Scheduler, TaskFuture, TaskState,
};

use super::{Kept, OneThread};
use crate::kit::{LONG, MICRO, MS, Other, Probe, S, clock, end_of, eventually, file, probe, task};

fn done() -> Builder {
    Scheduler::in_memory().async_handler_fn(|_: Probe, _cx| async { Ok(Outcome::done()) })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap()
}

#[test]
fn what_cannot_run_is_refused_at_start() {
    let gone = runtime();
    let handle = gone.handle().clone();
    drop(gone);
    let refused = [
        ("no runtime", done().tokio()),
        ("a runtime that is gone", done().spawner(handle)),
        ("a spawner that panics", done().spawner(|_| panic!("no"))),
        ("no place", done().max_in_flight(0)),
        ("too many places", done().max_in_flight(MAX_IN_FLIGHT + 1)),
        ("an unknown kind", done().stop_grace("other", S)),
        ("a grace without end", done().stop_grace("probe", 3601 * S)),
        (
            "two handlers",
            done().handler_fn(|_: Probe, _cx| Ok(Outcome::done())),
        ),
        (
            "a grace for a thread",
            done()
                .handler_fn(|_: Other, _cx| Ok(Outcome::done()))
                .stop_grace("other", S),
        ),
    ];
    for (what, builder) in refused {
        let error = builder.start().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{what}: {error}");
    }
    let no_async = Scheduler::in_memory().spawner(|_: TaskFuture| panic!("it is not used"));
    assert!(no_async.start().is_ok());
}

#[test]
fn the_runtime_of_the_caller_is_taken() {
    let runtime = runtime();
    let entered = runtime.enter();
    let scheduler = Scheduler::in_memory()
        .async_handler_fn(|_: Probe, _cx| async {
            // It panics without a runtime's timers.
            tokio::time::sleep(MS).await;
            Ok(Outcome::done())
        })
        .tokio()
        .start()
        .unwrap();
    drop(entered);
    let id = scheduler.schedule(Probe(1)).unwrap().id();
    assert_eq!(end_of(&scheduler, id).state(), TaskState::Completed);
}

/// On the workers a runtime's types panic: the text says what to do.
#[test]
fn p12_a_future_that_needs_a_runtime_says_so() {
    let scheduler = Scheduler::in_memory()
        .async_handler_fn(|_: Probe, _cx| async {
            tokio::time::sleep(MS).await;
            Ok(Outcome::done())
        })
        .start()
        .unwrap();
    let id = scheduler.schedule(probe(1).max_attempts(1)).unwrap().id();
    let ended = end_of(&scheduler, id);
    let error = ended.error().unwrap();
    assert!(error.contains("Builder::spawner"), "{error}");
}

/// Two runtimes in one process, each with a scheduler on the same file.
#[test]
fn two_runtimes_share_one_file() {
    let (_dir, path) = file();
    let (one, other) = (OneThread::start(), runtime());
    let start = |handle: &tokio::runtime::Handle| {
        let name = std::thread::current().name().map(str::to_owned);
        Scheduler::builder(&path)
            .async_handler_fn(move |_: Probe, _cx| {
                let started_on = name.clone();
                async move {
                    tokio::time::sleep(MS).await;
                    Outcome::with(&started_on)
                }
            })
            .spawner(handle.clone())
            .start()
            .unwrap()
    };
    let schedulers = [start(&one.handle), start(other.handle())];
    let tasks = schedulers[0].schedule_many((0..200).map(probe)).unwrap();
    for scheduled in tasks {
        let ended = end_of(&schedulers[1], scheduled.id());
        assert_eq!(ended.state(), TaskState::Completed);
    }
}

/// P4: a runtime that is shut down under its futures gives their tasks back, at no cost of an attempt.
#[test]
fn p4_tasks_survive_the_end_of_their_runtime() {
    let (_dir, path) = file();
    let started = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&started);
    let runtime = runtime();
    let scheduler = Scheduler::builder(&path)
        .async_handler_fn(move |_: Probe, _cx| {
            count.fetch_add(1, Ordering::SeqCst);
            async {
                tokio::time::sleep(LONG).await;
                Ok(Outcome::done())
            }
        })
        .spawner(runtime.handle().clone())
        .start()
        .unwrap();
    let ids: Vec<_> = (0..5)
        .map(|n| scheduler.schedule(Probe(n)).unwrap().id())
        .collect();
    eventually("all run", || started.load(Ordering::SeqCst) == 5);
    runtime.shutdown_background();
    let pending = Filter::new().state(TaskState::Pending);
    eventually("all wait again", || scheduler.count(&pending).unwrap() == 5);
    assert_eq!(scheduler.shutdown(LONG).unwrap().still_running(), 0);
    for id in ids {
        assert_eq!(task(&scheduler, id).attempt(), 0);
    }
    drop(scheduler);
    let next = Scheduler::builder(&path)
        .async_handler_fn(|_: Probe, _cx| async { Ok(Outcome::done()) })
        .start()
        .unwrap();
    let completed = Filter::new().state(TaskState::Completed);
    eventually("the next one runs them", || {
        next.count(&completed).unwrap() == 5
    });
}

/// P12: no hot loop, and nothing that is lost.
#[test]
fn p12_an_executor_that_drops_everything_gets_less_and_less() {
    let clock = clock();
    let given = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&given);
    // The first is that of the start.
    let spawner = move |future: TaskFuture| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            smol::block_on(future);
        }
    };
    let mut scheduler = Scheduler::in_memory()
        .async_handler_fn(|_: Probe, _cx| async { Ok(Outcome::done()) })
        .spawner(spawner)
        .stepped(&clock)
        .unwrap();
    let id = scheduler.schedule(Probe(1)).unwrap().id();
    scheduler.advance(3600 * S);
    let tries = given.load(Ordering::SeqCst) - 1;
    assert!((60..75).contains(&tries), "{tries} in an hour");
    let task = task(&scheduler, id);
    assert_eq!((task.state(), task.attempt()), (TaskState::Pending, 0));
}

/// P4, P8: an executor that does not run keeps no task from being cancelled, given back, or run by others.
#[test]
fn p8_a_future_that_is_never_polled_can_be_taken_back() {
    let (_dir, path) = file();
    let kept = Kept::default();
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let scheduler = Scheduler::builder(&path)
        .async_handler_fn(move |_: Probe, _cx| {
            count.fetch_add(1, Ordering::SeqCst);
            async { Ok(Outcome::done()) }
        })
        .spawner(kept.clone())
        .start()
        .unwrap();
    assert_eq!(kept.take().len(), 1, "that of the start");
    let [cancelled, paused, stopped] = [("a", 1), ("b", 2), ("c", 3)]
        .map(|(queue, n)| scheduler.schedule(probe(n).queue(queue)).unwrap().id());
    let mut futures = Vec::new();
    let mut handed = |count: usize| {
        eventually("they are handed over", || {
            futures.extend(kept.take());
            futures.len() == count
        });
    };
    handed(3);
    assert_eq!(scheduler.cancel(cancelled).unwrap(), Cancel::Requested);
    assert_eq!(end_of(&scheduler, cancelled).state(), TaskState::Cancelled);
    let is_pending = |id| task(&scheduler, id).state() == TaskState::Pending;
    scheduler.pause("b").unwrap();
    eventually("it waits for the pause to end", || is_pending(paused));
    assert_eq!(task(&scheduler, stopped).state(), TaskState::Running);
    scheduler.resume("b").unwrap();
    handed(4);
    assert_eq!(scheduler.shutdown(LONG).unwrap().still_running(), 0);
    assert!(is_pending(paused) && is_pending(stopped));
    let kept = futures.split_off(2);
    futures.into_iter().for_each(smol::block_on);
    assert_eq!(calls.load(Ordering::SeqCst), 0, "they were taken back");
    assert_eq!(scheduler.health().futures_rest_until(), None);
    drop(scheduler);
    let mut locks = path.clone().into_os_string();
    locks.push(".punctual");
    let left = std::fs::read_dir(locks).unwrap().count();
    assert_eq!(left, 0, "the futures that are kept keep no store open");
    kept.into_iter().for_each(smol::block_on);
    let next = Scheduler::builder(&path)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .start()
        .unwrap();
    for id in [paused, stopped] {
        let ended = end_of(&next, id);
        assert_eq!((ended.state(), ended.attempt()), (TaskState::Completed, 1));
    }
}

/// Its start deadline holds although it was handed to an executor in time.
#[test]
fn a_future_that_is_never_polled_expires() {
    let kept = Kept::default();
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let clock = clock();
    let mut scheduler = Scheduler::in_memory()
        .async_handler_fn(move |_: Probe, _cx| {
            count.fetch_add(1, Ordering::SeqCst);
            async { Ok(Outcome::done()) }
        })
        .spawner(kept.clone())
        .stepped(&clock)
        .unwrap();
    let [late, polled] = [(1, S), (2, 10 * S)].map(|(n, span)| {
        let scheduled = scheduler.schedule(probe(n).start_within(span));
        scheduled.unwrap().id()
    });
    scheduler.drain();
    scheduler.advance(S);
    assert_eq!(task(&scheduler, late).state(), TaskState::Running);
    scheduler.advance(MICRO);
    let expired = task(&scheduler, late);
    assert_eq!(
        (expired.state(), expired.error(), expired.attempt()),
        (TaskState::Failed, Some("expired"), 0)
    );
    kept.take().into_iter().for_each(smol::block_on);
    scheduler.drain();
    assert_eq!(task(&scheduler, polled).state(), TaskState::Completed);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// P4: what was never polled was never started.
#[test]
fn p4_a_future_that_is_dropped_before_its_first_poll_is_given_back() {
    let kept = Kept::default();
    let scheduler = done().spawner(kept.clone()).start().unwrap();
    assert_eq!(kept.take().len(), 1, "that of the start");
    let id = scheduler.schedule(Probe(1)).unwrap().id();
    let mut futures = Vec::new();
    eventually("it is handed over", || {
        futures.extend(kept.take());
        futures.len() == 1
    });
    assert_eq!(task(&scheduler, id).state(), TaskState::Running);
    drop(futures);
    eventually("it waits again", || {
        task(&scheduler, id).state() == TaskState::Pending
    });
    assert_eq!(task(&scheduler, id).attempt(), 0);
    assert!(scheduler.history(id).unwrap().is_empty());
}

/// A scheduler that is dropped on the one thread that polls its futures does not wait for them.
#[test]
fn a_scheduler_may_be_dropped_inside_its_runtime() {
    let (_dir, path) = file();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let started = Arc::new(tokio::sync::Semaphore::new(0));
        let starts = Arc::clone(&started);
        let scheduler = Scheduler::builder(&path)
            .async_handler_fn(move |_: Probe, cx| {
                starts.add_permits(1);
                async move {
                    cx.stopped().await;
                    Err("to be continued".into())
                }
            })
            .tokio()
            .start()
            .unwrap();
        scheduler.submit().schedule(Probe(1)).await.unwrap();
        started.acquire().await.unwrap().forget();
        let client = scheduler.client();
        let watch = crate::kit::Watch::start();
        drop(scheduler);
        assert!(watch.elapsed() < S, "it waits for nothing");
        let pending = Filter::new().state(TaskState::Pending);
        while client.count(&pending).unwrap() == 0 {
            tokio::time::sleep(MS).await;
        }
        let page = client.list(&pending).unwrap();
        assert_eq!(page.tasks()[0].attempt(), 0, "it has lost no attempt");
    });
}

/// The stepper polls futures too, and the clock is that of the test.
#[test]
fn a_stepped_scheduler_polls_its_futures() {
    let clock = clock();
    let mut scheduler = Scheduler::in_memory()
        .timeout("probe", 10 * S)
        .async_handler_fn(|Probe(n), _cx| async move {
            super::everywhere::yield_once().await;
            if n == 0 {
                std::future::pending::<()>().await;
            }
            Ok(Outcome::done())
        })
        .stepped(&clock)
        .unwrap();
    let quick = scheduler.schedule(Probe(1)).unwrap().id();
    let slow = scheduler
        .schedule(probe(0).max_attempts(1).after(60 * S))
        .unwrap()
        .id();
    scheduler.drain();
    assert_eq!(task(&scheduler, quick).state(), TaskState::Completed);
    scheduler.advance(74 * S);
    assert_eq!(task(&scheduler, slow).state(), TaskState::Running);
    scheduler.advance(S);
    let ended = task(&scheduler, slow);
    assert_eq!(ended.state(), TaskState::Failed, "10 s, and 5 s of grace");
}
