//! Cancellations, drops and waiting calls that come at the wrong moment.

use std::future::{Future, pending};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;

use punctual::*;
use smol::block_on;

use crate::kit::*;

fn smol_spawner() -> impl Spawn {
    |future: TaskFuture| smol::spawn(future).detach()
}

/// A future that its waker polls at once.
struct InlineTask(Mutex<Option<TaskFuture>>);
impl std::task::Wake for InlineTask {
    fn wake(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        let Ok(mut future) = self.0.try_lock() else {
            return;
        };
        let ready = future
            .as_mut()
            .map(|f| f.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
        if ready == Some(true) {
            *future = None;
        }
    }
}

/// A deaf future with a timeout that is cancelled is dropped after its grace, not after its timeout.
#[test]
fn p8_a_cancelled_future_that_has_a_timeout_is_dropped_after_its_grace() {
    let started = Log::new();
    let log = started.clone();
    let scheduler = Scheduler::in_memory()
        .stop_grace("probe", 50 * MS)
        .timeout("probe", 20 * S)
        .spawner(smol_spawner())
        .async_handler_fn(move |_: Probe, _cx| {
            log.push(());
            async { pending::<TaskResult>().await }
        })
        .start()
        .unwrap();
    let id = scheduler.schedule(Probe(0)).unwrap().id();
    eventually("runs", || started.len() == 1);
    let watch = Watch::start();
    assert_eq!(scheduler.cancel(id).unwrap(), Cancel::Requested);
    let ended = scheduler.wait(id, 5 * S).unwrap();
    assert!(
        ended.is_some(),
        "still running {:?} after the cancellation",
        watch.elapsed()
    );
}

/// As above for the drop of the scheduler on an executor.
#[test]
fn a_dropped_scheduler_drops_futures_that_have_a_timeout_after_their_grace() {
    for timeout in [None, Some(20 * S)] {
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        let mut builder = Scheduler::in_memory()
            .stop_grace("probe", 50 * MS)
            .spawner(smol_spawner());
        if let Some(timeout) = timeout {
            builder = builder.timeout("probe", timeout);
        }
        let scheduler = builder
            .async_handler_fn(move |_: Probe, _cx| {
                let held = Arc::clone(&held);
                async move {
                    let _held = held;
                    pending::<TaskResult>().await
                }
            })
            .start()
            .unwrap();
        scheduler.schedule(Probe(0)).unwrap();
        eventually("runs", || Arc::strong_count(&alive) == 3);
        drop(scheduler);
        let watch = Watch::start();
        while Arc::strong_count(&alive) > 2 && watch.elapsed() < 5 * S {
            std::thread::park_timeout(MS);
        }
        assert!(
            watch.elapsed() < 5 * S,
            "timeout {timeout:?}: the future still lives"
        );
    }
}

/// Cancels right after the schedule: each deaf future ends.
#[test]
fn p8_a_cancellation_during_the_start_is_not_lost() {
    for executor in [0, 1] {
        let mut builder = Scheduler::in_memory()
            .max_in_flight(1000)
            .stop_grace("probe", Duration::ZERO);
        if executor == 1 {
            builder = builder.spawner(smol_spawner());
        }
        let scheduler = builder
            .async_handler_fn(|_: Probe, _cx| async { pending::<TaskResult>().await })
            .start()
            .unwrap();
        let mut counts = [0; 2];
        for round in 0..3000_u32 {
            let id = scheduler.schedule(Probe(0)).unwrap().id();
            let spins = fastrand::u32(0..3000) + round % 2;
            for _ in 0..spins {
                std::hint::spin_loop();
            }
            let how = scheduler.cancel(id).unwrap();
            counts[usize::from(how == Cancel::Requested)] += 1;
            let ended = scheduler.wait(id, 3 * S).unwrap();
            assert!(
                ended.is_some(),
                "round {round} of {executor}, {how:?}: it runs on, asked to stop; {counts:?}"
            );
        }
    }
}

/// A kind with a short grace may run until the end of the shutdown's timeout.
#[test]
fn a_shutdown_drops_no_future_before_its_end() {
    let started = Log::new();
    let log = started.clone();
    let scheduler = Scheduler::in_memory()
        .stop_grace("probe", 50 * MS)
        .stop_grace("other", 30 * S)
        .spawner(smol_spawner())
        .async_handler_fn(move |_: Probe, _cx| {
            log.push(());
            async {
                smol::Timer::after(S).await;
                Ok(Outcome::done())
            }
        })
        .async_handler_fn(|_: Other, _cx| async { Ok(Outcome::done()) })
        .start()
        .unwrap();
    let id = scheduler.schedule(Probe(0)).unwrap().id();
    eventually("runs", || started.len() == 1);
    let _ = scheduler.shutdown(10 * S).unwrap();
    assert_eq!(
        task(&scheduler, id).state(),
        TaskState::Completed,
        "a task of 1 s, in a shutdown of 10 s"
    );
}

/// A blocking handler is asked to stop when its scheduler is dropped, also if a future is in flight.
#[test]
fn a_dropped_scheduler_tells_its_blocking_handlers_too() {
    for with_future in [false, true] {
        let (started, told) = (Log::new(), Log::new());
        let (log, tells, starts) = (started.clone(), told.clone(), started.clone());
        let scheduler = Scheduler::in_memory()
            .workers(1)
            .stop_grace("other", 50 * MS)
            .spawner(smol_spawner())
            .handler_fn(move |_: Probe, cx: &TaskContext| {
                log.push(());
                let stopped = cx.cancelled_within(8 * S);
                tells.push(stopped);
                Ok(Outcome::done())
            })
            .async_handler_fn(move |_: Other, _cx| {
                starts.push(());
                async { pending::<TaskResult>().await }
            })
            .start()
            .unwrap();
        scheduler.schedule(Probe(0)).unwrap();
        if with_future {
            scheduler.schedule(Other(0)).unwrap();
        }
        eventually("run", || started.len() == 1 + usize::from(with_future));
        let watch = Watch::start();
        drop(scheduler);
        while told.len() == 0 && watch.elapsed() < 5 * S {
            std::thread::park_timeout(MS);
        }
        assert!(
            told.len() == 1,
            "with a future: {with_future}: the blocking handler was not asked to stop"
        );
    }
}

/// Drop of the scheduler while claims are on their way never blocks a current-thread runtime.
#[test]
fn a_drop_right_after_tasks_were_scheduled_waits_for_nothing() {
    let mut worst = Duration::ZERO;
    for round in 0..150 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let took = runtime.block_on(async {
            let scheduler = Scheduler::in_memory()
                .tokio()
                .async_handler_fn(|_: Probe, _cx| async {
                    tokio::task::yield_now().await;
                    Ok(Outcome::done())
                })
                .start()
                .unwrap();
            let client = scheduler.to_async();
            for _ in 0..3 {
                client.schedule(Probe(0)).await.unwrap();
            }
            for _ in 0..round * 50 {
                std::hint::spin_loop();
            }
            let watch = Watch::start();
            drop(scheduler);
            watch.elapsed()
        });
        worst = worst.max(took);
    }
    assert!(worst < 900 * MS, "{worst:?}");
}

/// A waker that polls at once, and a handler that cancels a further task when it is cancelled.
#[test]
fn p12_a_waker_may_call_the_store() {
    let (_dir, path) = file();
    let started = Log::new();
    let log = started.clone();
    let scheduler = Scheduler::builder(&path)
        .spawner(|future: TaskFuture| {
            std::task::Wake::wake(Arc::new(InlineTask(Mutex::new(Some(future)))));
        })
        .async_handler_fn(move |Probe(n), cx: AsyncContext| {
            log.push((n, cx.id()));
            async move {
                cx.stopped().await;
                if n == 1 {
                    let other = cx.last_error().map(|_| cx.id()).unwrap_or_else(|| {
                        let page = cx
                            .client()
                            .as_blocking()
                            .list(&Filter::new().kind("probe"))
                            .unwrap();
                        page.tasks()
                            .iter()
                            .map(|t| t.id())
                            .find(|id| *id != cx.id())
                            .unwrap()
                    });
                    cx.client().as_blocking().cancel(other)?;
                }
                Ok(Outcome::cancel("as asked"))
            }
        })
        .start()
        .unwrap();
    let other = scheduler.schedule(Probe(0)).unwrap().id();
    let id = scheduler.schedule(Probe(1)).unwrap().id();
    eventually("both run", || started.len() == 2);
    scheduler.cancel(id).unwrap();
    let first = scheduler.wait(id, 5 * S).unwrap().is_some();
    let second = scheduler.wait(other, 5 * S).unwrap().is_some();
    if !(first && second) {
        std::process::exit(7);
    }
}

/// Streams that wait for their items must not keep completions from running.
#[test]
fn p12_streams_that_wait_for_items_keep_no_completion_waiting() {
    let scheduler = Scheduler::in_memory()
        .spawner(smol_spawner())
        .async_handler_fn(|_: Probe, cx: AsyncContext| async move {
            cx.complete(|_| Ok::<_, Failure>(Outcome::done())).await
        })
        .start()
        .unwrap();
    let client = scheduler.to_async();
    let mut senders = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..4 {
        let (sender, receiver) = mpsc::channel::<NewTask>();
        senders.push(sender);
        let client = client.clone();
        streams.push(smol::spawn(async move {
            client.schedule_stream(receiver).await
        }));
    }
    hold_up(300 * MS);
    let id = scheduler.schedule(Probe(0)).unwrap().id();
    let ended = scheduler.wait(id, 5 * S).unwrap();
    let alone = ended.is_some();
    drop(senders);
    for stream in streams {
        block_on(stream).unwrap();
    }
    assert!(alone, "cx.complete() waited for four idle streams");
}

/// Workers that are busy with blocking handlers keep a claimed future from other instances.
#[test]
fn p3_futures_are_left_to_others_while_all_workers_are_busy() {
    let (_dir, path) = file();
    let (gate, _open) = gate();
    let busy = Scheduler::builder(&path)
        .workers(1)
        .handler_fn(gate.handler())
        .async_handler_fn(|_: Other, _cx| async { Ok(Outcome::done()) })
        .start()
        .unwrap();
    busy.schedule(Probe(0)).unwrap();
    gate.await_waiting(1);
    let id = busy.schedule(Other(1)).unwrap().id();
    hold_up(200 * MS);
    let idle = Scheduler::builder(&path)
        .workers(1)
        .async_handler_fn(|_: Other, _cx| async { Ok(Outcome::done()) })
        .start()
        .unwrap();
    let ended = idle.wait(id, 8 * S).unwrap();
    assert!(
        ended.is_some(),
        "an idle instance is there, and the task waits for the busy one"
    );
}

/// A schedule that was polled and dropped is made, also if the queue was full.
#[test]
fn a_write_that_was_polled_once_is_made() {
    let (_dir, path) = file();
    let client = punctual::Client::builder(&path)
        .transaction_timeout(LONG)
        .open()
        .unwrap()
        .to_async();
    let holds = {
        let client = client.clone();
        smol::spawn(async move {
            client
                .transaction(|_| {
                    hold_up(3 * S);
                    Ok::<_, punctual::Error>(())
                })
                .await
        })
    };
    hold_up(200 * MS);
    let mut cx = Context::from_waker(Waker::noop());
    for n in 0..4200 {
        let mut write = Box::pin(client.schedule(Probe(n)));
        assert!(write.as_mut().poll(&mut cx).is_pending());
    }
    block_on(holds).unwrap();
    eventually("4096", || {
        client
            .as_blocking()
            .count(&Filter::new().kind("probe"))
            .unwrap()
            >= 4096
    });
    hold_up(S);
    assert_eq!(
        client
            .as_blocking()
            .count(&Filter::new().kind("probe"))
            .unwrap(),
        4200
    );
}

/// A probe answers within its timeout, also if the writes are held up.
#[test]
fn a_probe_is_answered_in_time() {
    let (_dir, path) = file();
    let client = punctual::Client::builder(&path)
        .transaction_timeout(LONG)
        .open()
        .unwrap()
        .to_async();
    let mut held = Vec::new();
    for _ in 0..4 {
        let client = client.clone();
        held.push(smol::spawn(async move {
            client
                .transaction(|_| {
                    hold_up(2 * S);
                    Ok::<_, punctual::Error>(())
                })
                .await
        }));
    }
    hold_up(200 * MS);
    let watch = Watch::start();
    block_on(client.probe(100 * MS));
    let took = watch.elapsed();
    for each in held {
        let _ = block_on(each);
    }
    assert!(took < S, "{took:?} for a timeout of 0.1 s");
}

/// Never more than max_in_flight, never more than the queue's cap, of both kinds together.
#[test]
fn p14_caps_and_limits_count_both_kinds_of_handlers() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (all, all_most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    struct In(Arc<AtomicUsize>);
    impl In {
        fn new(n: &Arc<AtomicUsize>, most: &AtomicUsize) -> Self {
            most.fetch_max(n.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            In(n.clone())
        }
    }
    impl Drop for In {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let (n, m, a, am) = (now.clone(), most.clone(), all.clone(), all_most.clone());
    let (a2, am2) = (all.clone(), all_most.clone());
    let (_dir, path) = file();
    let scheduler = Scheduler::builder(&path)
        .workers(3)
        .max_in_flight(3)
        .queue("capped", 4)
        .spawner(runtime.handle().clone())
        .async_handler_fn(move |Probe(k), cx: AsyncContext| {
            let (n, m, a, am) = (n.clone(), m.clone(), a.clone(), am.clone());
            async move {
                let _in = In::new(&n, &m);
                let _c = (cx.queue() == "capped").then(|| In::new(&a, &am));
                if k % 3 == 0 {
                    tokio::time::sleep(MS).await
                }
                if k % 5 == 0 {
                    tokio::task::yield_now().await
                }
                if k % 7 == 0 {
                    return Ok(match fastrand::bool() {
                        true => Outcome::snooze(MS),
                        false => Outcome::done(),
                    });
                }
                Ok(Outcome::done())
            }
        })
        .handler_fn(move |_: Other, cx: &TaskContext| {
            let _c = (cx.queue() == "capped").then(|| In::new(&a2, &am2));
            std::thread::yield_now();
            Ok(Outcome::done())
        })
        .start()
        .unwrap();
    for k in 0..3000 {
        let queue = if k % 2 == 0 { "capped" } else { "default" };
        let task = if k % 3 == 1 {
            NewTask::new(Other(k))
        } else {
            probe(k)
        };
        scheduler
            .submit()
            .schedule(task.queue(queue))
            .wait()
            .unwrap();
    }
    let live = || {
        scheduler
            .count(
                &Filter::new()
                    .state(TaskState::Running)
                    .state(TaskState::Pending),
            )
            .unwrap()
    };
    eventually("all", || live() == 0);
    assert!(most.load(Ordering::SeqCst) <= 3 && all_most.load(Ordering::SeqCst) <= 4);
}

/// At most once, and the runtime ends.
#[test]
fn p5_a_future_delivered_at_most_once_ends_with_its_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let starts = Arc::new(AtomicUsize::new(0));
    let count = starts.clone();
    let (_dir, path) = file();
    let scheduler = Scheduler::builder(&path)
        .spawner(runtime.handle().clone())
        .async_handler_fn(move |_: Probe, _cx| {
            count.fetch_add(1, Ordering::SeqCst);
            async { pending::<TaskResult>().await }
        })
        .start()
        .unwrap();
    let ids: Vec<_> = (0..50)
        .map(|n| {
            scheduler
                .schedule(probe(n).delivery(Delivery::AtMostOnce))
                .unwrap()
                .id()
        })
        .collect();
    eventually("run", || starts.load(Ordering::SeqCst) == 50);
    runtime.shutdown_background();
    for id in ids {
        let end = end_of(&scheduler, id);
        assert_eq!(end.state(), TaskState::Failed, "{:?}", end.error());
    }
    assert_eq!(starts.load(Ordering::SeqCst), 50);
}
