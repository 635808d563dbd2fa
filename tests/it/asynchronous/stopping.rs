//! A future can be stopped: it is asked, and after a grace it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use punctual::{
    AsyncContext, AttemptEnd, Cancel, ErrorKind, Failure, NewTask, Outcome, RetryPolicy, Scheduler,
    StopReason, TaskState,
};

use super::Executor;
use crate::kit::{
    LONG, Log, MS, Probe, S, Watch, end_of, eventually, file, hold_up, probe, state, task,
};

/// Counts the futures that hold one, from the first poll to the drop.
#[derive(Clone, Default)]
struct Alive(Arc<AtomicUsize>);

struct Held(Arc<AtomicUsize>);

impl Alive {
    fn hold(&self) -> Held {
        self.0.fetch_add(1, Ordering::SeqCst);
        Held(Arc::clone(&self.0))
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// P8: a handler that listens decides how it ends.
#[test]
fn p8_a_handler_that_is_cancelled_is_told() {
    for executor in Executor::all() {
        let started = Log::new();
        let log = started.clone();
        let builder = Scheduler::in_memory().async_handler_fn(move |Probe(n), cx: AsyncContext| {
            log.push(());
            async move {
                match (cx.stopped().await, n) {
                    (StopReason::Cancelled, 0) => Err("stopped".into()),
                    (StopReason::Cancelled, _) => Ok(Outcome::done()),
                    (other, _) => Err(Failure::fatal(format!("{other:?}"))),
                }
            }
        });
        let scheduler = executor.on(builder).start().unwrap();
        for (n, expected) in [(0, TaskState::Cancelled), (1, TaskState::Completed)] {
            let id = scheduler.schedule(Probe(n)).unwrap().id();
            eventually("it runs", || !started.take().is_empty());
            assert_eq!(scheduler.cancel(id).unwrap(), Cancel::Requested);
            assert_eq!(
                end_of(&scheduler, id).state(),
                expected,
                "{}",
                executor.name()
            );
        }
    }
}

/// One that does not listen is dropped where it waits, and its place is free.
#[test]
fn p8_a_future_that_does_not_stop_is_dropped_after_its_grace() {
    for executor in Executor::all() {
        let alive = Alive::default();
        let holds = alive.clone();
        let builder = Scheduler::in_memory()
            .max_in_flight(1)
            .stop_grace("probe", 50 * MS)
            .async_handler_fn(move |Probe(n), _cx| {
                let alive = holds.clone();
                async move {
                    let _held = alive.hold();
                    if n == 0 {
                        std::future::pending::<()>().await;
                    }
                    Ok(Outcome::done())
                }
            });
        let scheduler = executor.on(builder).start().unwrap();
        let deaf = scheduler.schedule(Probe(0)).unwrap().id();
        eventually("it runs", || alive.count() == 1);
        let next = scheduler.schedule(Probe(1)).unwrap().id();
        let watch = Watch::start();
        assert_eq!(scheduler.cancel(deaf).unwrap(), Cancel::Requested);
        assert_eq!(end_of(&scheduler, deaf).state(), TaskState::Cancelled);
        assert!(watch.elapsed() >= 49 * MS, "it had its grace");
        assert_eq!(end_of(&scheduler, next).state(), TaskState::Completed);
        assert_eq!(alive.count(), 0, "{}", executor.name());
        assert_eq!(scheduler.health().stuck(), 0);
    }
}

#[test]
fn an_attempt_that_takes_too_long_is_asked_then_dropped_and_tried_again() {
    for executor in Executor::all() {
        let reasons: Log<StopReason> = Log::new();
        let log = reasons.clone();
        let builder = Scheduler::in_memory()
            .timeout("probe", 20 * MS)
            .stop_grace("probe", 20 * MS)
            .retry_policy("probe", RetryPolicy::fixed(MS))
            .async_handler_fn(move |_: Probe, cx: AsyncContext| {
                let log = log.clone();
                async move {
                    if cx.attempt() < 3 {
                        log.push(cx.stopped().await);
                        if cx.attempt() == 1 {
                            return Err("too slow".into());
                        }
                        std::future::pending::<()>().await;
                    }
                    Ok(Outcome::done())
                }
            });
        let scheduler = executor.on(builder).start().unwrap();
        let id = scheduler.schedule(Probe(1)).unwrap().id();
        assert_eq!(end_of(&scheduler, id).state(), TaskState::Completed);
        assert_eq!(reasons.take(), [StopReason::DeadlinePassed; 2]);
        let history = scheduler.history(id).unwrap();
        let ends: Vec<AttemptEnd> = history.iter().map(|attempt| attempt.end()).collect();
        let expected = [
            AttemptEnd::TimedOut,
            AttemptEnd::TimedOut,
            AttemptEnd::Completed,
        ];
        assert_eq!(ends, expected, "{}", executor.name());
        let dropped = history[1].error().unwrap();
        assert!(dropped.contains("its future was dropped"), "{dropped}");
    }
}

/// What a shutdown drops waits for the next scheduler, and has lost no attempt.
#[test]
fn p4_a_shutdown_asks_in_time_and_drops_at_its_end() {
    for executor in Executor::all() {
        let (_dir, path) = file();
        let (alive, told) = (Alive::default(), Log::new());
        let (holds, log) = (alive.clone(), told.clone());
        let builder = Scheduler::builder(&path)
            .stop_grace("probe", 200 * MS)
            .async_handler_fn(move |Probe(n), cx: AsyncContext| {
                let (alive, log) = (holds.clone(), log.clone());
                async move {
                    let _held = alive.hold();
                    log.push(cx.stopped().await);
                    if n == 0 {
                        std::future::pending::<()>().await;
                    }
                    Ok(Outcome::done())
                }
            });
        let scheduler = executor.on(builder).start().unwrap();
        let deaf = scheduler.schedule(Probe(0)).unwrap().id();
        let listens = scheduler.schedule(Probe(1)).unwrap().id();
        eventually("both run", || alive.count() == 2);
        let watch = Watch::start();
        let shutdown = scheduler.shutdown(250 * MS).unwrap();
        assert!(watch.elapsed() >= 249 * MS, "one used its grace");
        assert_eq!((shutdown.finished(), shutdown.still_running()), (2, 0));
        assert_eq!(told.take(), [StopReason::ShuttingDown; 2]);
        assert_eq!(alive.count(), 0, "{}", executor.name());
        assert_eq!(task(&scheduler, listens).state(), TaskState::Completed);
        let deaf = task(&scheduler, deaf);
        assert_eq!((deaf.state(), deaf.attempt()), (TaskState::Pending, 0));
    }
}

/// A completion that has begun when its future is dropped is the attempt's end, and the attempt is not over before.
#[test]
fn p6_a_completion_that_has_begun_outlives_its_future() {
    for executor in Executor::all() {
        // In memory, a read would wait for the transaction.
        let (_dir, path) = file();
        let (begun, goes_on) = (Log::new(), crate::kit::gate());
        let (log, gate) = (begun.clone(), goes_on.0.clone());
        let builder = Scheduler::builder(&path)
            .max_in_flight(1)
            .transaction_timeout(LONG)
            .stop_grace("probe", Duration::ZERO)
            .async_handler_fn(move |Probe(n), cx: AsyncContext| {
                let (log, gate) = (log.clone(), gate.clone());
                async move {
                    if n == 1 {
                        return Ok(Outcome::done());
                    }
                    cx.complete(move |tx| {
                        log.push(());
                        gate.pass();
                        tx.schedule(NewTask::with_kind("effect", &n))?;
                        Ok::<_, Failure>(Outcome::done())
                    })
                    .await
                }
            });
        let scheduler = executor.on(builder).start().unwrap();
        let id = scheduler.schedule(probe(0).timeout(30 * MS)).unwrap().id();
        eventually("the completion has begun", || begun.len() == 1);
        // Its deadline passes, and its future is dropped. Nothing can be written meanwhile.
        hold_up(100 * MS);
        assert_eq!(state(&scheduler, id), TaskState::Running);
        goes_on.0.open();
        assert_eq!(
            end_of(&scheduler, id).state(),
            TaskState::Completed,
            "{}",
            executor.name()
        );
        let effects = punctual::Filter::new().kind("effect");
        assert_eq!(scheduler.count(&effects).unwrap(), 1);
        let next = scheduler.schedule(Probe(1)).unwrap().id();
        assert_eq!(end_of(&scheduler, next).state(), TaskState::Completed);
    }
}

/// A context that is kept longer than its attempt writes nothing.
#[test]
fn p7_a_context_that_outlives_its_attempt_can_change_nothing() {
    for executor in Executor::all() {
        let contexts: Log<AsyncContext> = Log::new();
        let log = contexts.clone();
        let builder = Scheduler::in_memory().async_handler_fn(move |_: Probe, cx: AsyncContext| {
            log.push(cx);
            async { Ok(Outcome::done()) }
        });
        let scheduler = executor.on(builder).start().unwrap();
        let id = scheduler.schedule(Probe(1)).unwrap().id();
        end_of(&scheduler, id);
        let cx = contexts.take().remove(0);
        assert_eq!(cx.id(), id);
        let error = smol::block_on(cx.progress(&1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::State);
        assert_eq!(cx.stop_reason(), Some(StopReason::Lost));
        let completed = cx.complete(|_| Ok::<_, punctual::Error>(Outcome::done()));
        let error = smol::block_on(completed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::State, "{}", executor.name());
        // The next attempt has a token of its own.
        let next = scheduler.schedule(Probe(2)).unwrap().id();
        assert_eq!(end_of(&scheduler, next).state(), TaskState::Completed);
        assert_eq!(contexts.take()[0].stop_reason(), None);
    }
}

/// P12: a poll that does not return is a stuck handler, and does not stop the others.
#[test]
fn p12_a_poll_that_does_not_return_is_replaced_if_it_keeps_a_worker() {
    // Stuck is what has not stopped 10 seconds after it was dropped.
    let (gate, _open) = crate::kit::gate();
    let at_gate = gate.clone();
    let scheduler = Scheduler::in_memory()
        .workers(1)
        .max_in_flight(1)
        .stop_grace("probe", Duration::ZERO)
        .async_handler_fn(move |Probe(n), _cx| {
            let gate = at_gate.clone();
            async move {
                if n == 0 {
                    gate.pass();
                }
                Ok(Outcome::done())
            }
        })
        .start()
        .unwrap();
    let stuck = scheduler.schedule(probe(0).timeout(MS)).unwrap().id();
    gate.await_waiting(1);
    let next = scheduler.schedule(Probe(1)).unwrap().id();
    let watch = Watch::start();
    assert_eq!(end_of(&scheduler, next).state(), TaskState::Completed);
    assert!(watch.elapsed() >= 8 * S, "only then does it count as stuck");
    assert_eq!(scheduler.health().spare(), 1);
    gate.open();
    end_of(&scheduler, stuck);
    eventually("the spare thread ends", || scheduler.health().spare() == 0);
}
