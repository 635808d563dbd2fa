//! P12: a waker is the program's code and may block. That holds up none of the scheduler's threads.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Waker};

use futures_core::Stream;
use punctual::{
    AsyncContext, EventStream, NewTask, Outcome, Recurrence, Scheduler, TaskFuture, TaskState,
};
use smol::block_on;

use super::Kept;
use crate::kit::{Gate, LONG, Log, MS, Other, Probe, S, clock, end_of, eventually, gate, probe};

/// A waker that is held up at a gate.
struct Blocks(Gate);

impl std::task::Wake for Blocks {
    fn wake(self: Arc<Self>) {
        self.0.pass();
    }
}

fn blocks(gate: &Gate) -> Waker {
    Waker::from(Arc::new(Blocks(gate.clone())))
}

/// A waker that tells.
struct Tells(Log<()>);

impl std::task::Wake for Tells {
    fn wake(self: Arc<Self>) {
        self.0.push(());
    }
}

fn poll(future: &mut (impl Future + Unpin), waker: &Waker) -> bool {
    let polled = Pin::new(future).poll(&mut Context::from_waker(waker));
    polled.is_ready()
}

fn await_item(stream: &mut (impl Stream + Unpin), waker: &Waker) {
    let polled = Pin::new(stream).poll_next(&mut Context::from_waker(waker));
    assert!(polled.is_pending());
}

/// A scheduler whose futures wait to be stopped, and are polled by hand.
fn waits_to_stop(kept: &Kept) -> Scheduler {
    let scheduler = Scheduler::in_memory()
        .async_handler_fn(|_: Probe, cx: AsyncContext| async move {
            cx.stopped().await;
            Ok(Outcome::cancel("as asked"))
        })
        .handler_fn(|_: Other, _cx| Ok(Outcome::done()))
        .spawner(kept.clone())
        .start()
        .unwrap();
    assert_eq!(kept.take().len(), 1, "that of the start");
    scheduler
}

fn handed(kept: &Kept, count: usize) -> Vec<TaskFuture> {
    let mut futures = Vec::new();
    eventually("it is handed over", || {
        futures.extend(kept.take());
        futures.len() == count
    });
    futures
}

#[test]
fn p12_a_waker_of_a_cancelled_future_keeps_no_task_waiting() {
    let (gate, _open) = gate();
    let kept = Kept::default();
    let scheduler = waits_to_stop(&kept);
    let id = scheduler.schedule(Probe(1)).unwrap().id();
    let mut future = handed(&kept, 1).remove(0);
    assert!(!poll(&mut future, &blocks(&gate)));
    scheduler.cancel(id).unwrap();
    gate.await_waiting(1);
    let other = scheduler.schedule(Other(1)).unwrap().id();
    assert_eq!(end_of(&scheduler, other).state(), TaskState::Completed);
    gate.await_waiting(1);
    assert!(poll(&mut future, Waker::noop()));
    assert_eq!(end_of(&scheduler, id).state(), TaskState::Cancelled);
}

#[test]
fn p12_a_waker_of_a_future_that_takes_too_long_keeps_no_deadline_waiting() {
    let (gate, _open) = gate();
    let kept = Kept::default();
    let scheduler = waits_to_stop(&kept);
    for n in 1..=2 {
        scheduler.schedule(probe(n).timeout(100 * MS)).unwrap();
    }
    let told = Log::new();
    let wakers = [blocks(&gate), Waker::from(Arc::new(Tells(told.clone())))];
    let mut futures = handed(&kept, 2);
    for (future, waker) in futures.iter_mut().zip(&wakers) {
        assert!(!poll(future, waker));
    }
    eventually("the other is asked to stop", || told.len() > 0);
    gate.await_waiting(1);
}

#[test]
fn p12_a_waker_of_a_future_keeps_no_shutdown_waiting() {
    let (gate, _open) = gate();
    let kept = Kept::default();
    let scheduler = waits_to_stop(&kept);
    scheduler.schedule(Probe(1)).unwrap();
    let mut future = handed(&kept, 1).remove(0);
    assert!(!poll(&mut future, &blocks(&gate)));
    assert_eq!(scheduler.shutdown(MS).unwrap().still_running(), 1);
    gate.await_waiting(1);
}

#[test]
fn p12_a_waker_of_a_wait_keeps_no_other_wait_waiting() {
    let (gate, _open) = gate();
    let scheduler = waits_to_stop(&Kept::default());
    let client = scheduler.to_async();
    scheduler.pause("default").unwrap();
    let ids = [0, 1].map(|_| scheduler.schedule(Other(1)).unwrap().id());
    let mut first = pin!(client.wait(ids[0], LONG));
    assert!(!poll(&mut first, &blocks(&gate)));
    scheduler.resume("default").unwrap();
    gate.await_waiting(1);
    assert!(block_on(client.wait(ids[1], LONG)).unwrap().is_some());
    gate.await_waiting(1);
}

#[test]
fn p12_a_waker_of_a_stream_that_ends_keeps_no_shutdown_waiting() {
    let (gate, _open) = gate();
    let scheduler = waits_to_stop(&Kept::default());
    let mut events = EventStream::from(scheduler.events());
    await_item(&mut events, &blocks(&gate));
    assert_eq!(scheduler.shutdown(LONG).unwrap().still_running(), 0);
    gate.await_waiting(1);
}

#[test]
fn p12_a_waker_of_a_stream_that_tells_of_the_clock_keeps_no_recurrence_waiting() {
    let (gate, _open) = gate();
    let clock = clock();
    let scheduler = Scheduler::in_memory().clock(clock.clone()).start().unwrap();
    let hourly = |name| {
        let recurrence = Recurrence::new(name, NewTask::with_kind("report", &1));
        recurrence.cron("0 * * * *").unwrap()
    };
    let came = |name: &str, clock_moves: &dyn Fn()| {
        let slots = punctual::Filter::new().recurrence(name);
        let before = scheduler.count(&slots).unwrap();
        clock_moves();
        eventually("a slot has its task", || {
            scheduler.count(&slots).unwrap() > before
        });
    };
    scheduler.recur(hourly("old")).unwrap();
    let start = clock.now();
    came("old", &|| clock.set(start + 1_000 * 3_600 * S));
    let mut events = EventStream::from(scheduler.recurrences().events());
    await_item(&mut events, &blocks(&gate));
    clock.set(start);
    gate.await_waiting(1);
    scheduler.recur(hourly("new")).unwrap();
    came("new", &|| clock.advance(3_600 * S));
    gate.await_waiting(1);
}
