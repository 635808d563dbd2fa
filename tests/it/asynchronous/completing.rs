//! What an attempt writes from async code: dropped before its turn it is not made, begun it counts.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use punctual::{
    AsyncContext, Client, ErrorKind, Failure, Filter, NewTask, Outcome, Scheduler, TaskState,
};
use smol::block_on;
use smol::channel;

use super::Executor;
use super::everywhere::yield_once;
use crate::kit::{
    LONG, Log, MICRO, MS, Probe, S, clock, end_of, eventually, file, gate, probe, state,
};

/// Polls a future once, and drops it.
async fn begin<T>(future: impl Future<Output = T>) {
    let mut future = pin!(future);
    poll_fn(|task| {
        let polled = future.as_mut().poll(task);
        assert!(polled.is_pending(), "it never blocks");
        Poll::Ready(())
    })
    .await;
}

/// So many transactions. The first holds the turn to write until `gate` opens.
fn hold(client: &Client, count: usize, gate: &crate::kit::Gate) -> Vec<smol::Task<()>> {
    let client = client.to_async();
    let held = (0..count).map(|_| {
        let (client, gate) = (client.clone(), gate.clone());
        smol::spawn(async move {
            let transaction = client.transaction(move |_| {
                gate.pass();
                Ok::<_, punctual::Error>(())
            });
            transaction.await.unwrap();
        })
    });
    held.collect()
}

/// Nobody is left who would be told of it.
#[test]
fn p6_what_is_dropped_before_its_turn_is_not_made() {
    for executor in Executor::all() {
        let (_dir, path) = file();
        let (gate, _open) = gate();
        let (go, gone) = channel::bounded::<()>(1);
        let (started, dropped, ran) = (Log::new(), Log::new(), Log::new());
        let logs = (started.clone(), dropped.clone(), ran.clone());
        let builder = Scheduler::builder(&path)
            .transaction_timeout(LONG)
            .async_handler_fn(move |_: Probe, cx: AsyncContext| {
                let (gone, (started, dropped, ran)) = (gone.clone(), logs.clone());
                async move {
                    started.push(());
                    gone.recv().await.unwrap();
                    begin(cx.progress("half")).await;
                    let log = ran.clone();
                    begin(cx.complete(move |_| {
                        log.push(());
                        Ok::<_, Failure>(Outcome::cancel("it ran"))
                    }))
                    .await;
                    let client = cx.client();
                    begin(client.cancel_all(&Filter::all())).await;
                    dropped.push(());
                    Outcome::with("not by that")
                }
            });
        let scheduler = executor.on(builder).start().unwrap();
        let id = scheduler.schedule(Probe(1)).unwrap().id();
        eventually("it runs", || started.len() == 1);
        // As many as there are threads for such calls.
        let held = hold(&scheduler, 4, &gate);
        gate.await_waiting(1);
        go.send_blocking(()).unwrap();
        eventually("all are dropped", || dropped.len() == 1);
        gate.open();
        held.into_iter().for_each(block_on);
        let ended = end_of(&scheduler, id);
        let name = executor.name();
        assert_eq!(
            (ended.state(), ran.len()),
            (TaskState::Completed, 0),
            "{name}"
        );
        assert_eq!(ended.result::<String>().unwrap().unwrap(), "not by that");
        assert_eq!(ended.progress::<String>().unwrap(), None, "{name}");
    }
}

/// The first to run is refused by its closure while the second waits for its turn, and a third comes too late.
#[test]
fn p6_of_completions_at_once_the_first_that_succeeds_counts() {
    for executor in Executor::all() {
        let (gate, _open) = gate();
        let at_gate = gate.clone();
        let told: Log<ErrorKind> = Log::new();
        let (log, both) = (told.clone(), Log::new());
        let asked = both.clone();
        let builder = Scheduler::in_memory()
            .transaction_timeout(LONG)
            .async_handler_fn(move |_: Probe, cx: AsyncContext| {
                let (gate, log, asked) = (at_gate.clone(), log.clone(), asked.clone());
                async move {
                    let (run, running) = channel::bounded::<()>(1);
                    let again = cx.clone();
                    let refused = smol::spawn(async move {
                        again
                            .complete(move |tx| {
                                run.send_blocking(()).unwrap();
                                gate.pass();
                                tx.schedule(NewTask::with_kind("refused", &()))?;
                                Err::<Outcome, _>(Failure::from("not this one"))
                            })
                            .await
                    });
                    // One that has begun is not the last word.
                    running.recv().await.unwrap();
                    let counts = cx.complete(|tx| {
                        tx.schedule(NewTask::with_kind("effect", &()))?;
                        Ok::<_, Failure>(Outcome::done())
                    });
                    let mut counts = pin!(counts);
                    poll_fn(|task| {
                        assert!(counts.as_mut().poll(task).is_pending());
                        Poll::Ready(())
                    })
                    .await;
                    asked.push(());
                    let counts = counts.await?;
                    assert!(refused.await.is_err());
                    let late = cx.complete(|_| Ok::<_, punctual::Error>(Outcome::done()));
                    log.push(late.await.unwrap_err().kind());
                    Ok(counts)
                }
            });
        let scheduler = executor.on(builder).start().unwrap();
        let id = scheduler.schedule(probe(1).max_attempts(1)).unwrap().id();
        eventually("both are asked for", || both.len() == 1);
        gate.open();
        let name = executor.name();
        assert_eq!(
            end_of(&scheduler, id).state(),
            TaskState::Completed,
            "{name}"
        );
        let count = |kind| scheduler.count(&Filter::new().kind(kind)).unwrap();
        assert_eq!((count("refused"), count("effect")), (0, 1), "{name}");
        eventually("the third is told", || told.len() == 1);
        assert_eq!(told.take(), [ErrorKind::State], "{name}");
    }
}

/// P2: at the microsecond, not before, on whichever executor.
#[test]
fn p2_a_future_begins_at_its_time_and_not_before() {
    for executor in Executor::all() {
        let (time, begun) = (clock(), Log::new());
        let log = begun.clone();
        let builder = Scheduler::in_memory().clock(time.clone());
        let builder = builder.async_handler_fn(move |Probe(n), _cx| {
            log.push(n);
            async { Ok(Outcome::done()) }
        });
        let scheduler = executor.on(builder).start().unwrap();
        for n in 1..=20 {
            let delay = S + n * MICRO;
            let id = scheduler.schedule(probe(n).after(delay)).unwrap().id();
            time.advance(delay - MICRO);
            // What comes after it is run before.
            let next = scheduler.schedule(Probe(0)).unwrap().id();
            end_of(&scheduler, next);
            assert_eq!(begun.take(), [0], "{}", executor.name());
            time.advance(MICRO);
            end_of(&scheduler, id);
            assert_eq!(begun.take(), [n], "{}", executor.name());
        }
    }
}

/// It has a thread, but not its turn to write, when `select!` or a timeout drops it.
#[test]
fn p6_what_waits_for_its_turn_to_write_and_is_dropped_is_not_made() {
    let (_dir, path) = file();
    let (gate, _open) = gate();
    let (go, gone) = channel::bounded::<()>(1);
    let (started, dropped, ran) = (Log::new(), Log::new(), Log::new());
    let logs = (started.clone(), dropped.clone(), ran.clone());
    let scheduler = Scheduler::builder(&path)
        .transaction_timeout(LONG)
        .spawner(|future| smol::spawn(future).detach())
        .async_handler_fn(move |_: Probe, cx: AsyncContext| {
            let (gone, (started, dropped, ran)) = (gone.clone(), logs.clone());
            async move {
                started.push(());
                gone.recv().await.unwrap();
                let (log, client) = (ran.clone(), cx.client());
                let completes = cx.complete(move |_| {
                    log.push("completion");
                    Ok::<_, Failure>(Outcome::cancel("it ran"))
                });
                let writes = client.transaction(move |_| {
                    ran.push("transaction");
                    Ok::<_, Failure>(())
                });
                let timeout = async {
                    smol::Timer::after(200 * MS).await;
                };
                let both = async {
                    let _ = smol::future::zip(completes, writes).await;
                };
                smol::future::or(both, timeout).await;
                dropped.push(());
                Ok(Outcome::done())
            }
        })
        .start()
        .unwrap();
    let id = scheduler.schedule(Probe(1)).unwrap().id();
    eventually("it runs", || started.len() == 1);
    let held = hold(&scheduler, 1, &gate);
    gate.await_waiting(1);
    go.send_blocking(()).unwrap();
    eventually("both are dropped", || dropped.len() == 1);
    gate.open();
    held.into_iter().for_each(block_on);
    assert_eq!(end_of(&scheduler, id).state(), TaskState::Completed);
    assert!(ran.take().is_empty());
}

/// They come one by one, and each knows whether one before it has counted.
#[test]
fn p6_no_completion_of_several_says_that_the_attempt_is_lost() {
    let told = Log::new();
    let log = told.clone();
    let scheduler = Scheduler::in_memory()
        .spawner(|future| smol::spawn(future).detach())
        .async_handler_fn(move |_: Probe, cx: AsyncContext| {
            let log = log.clone();
            async move {
                let all: Vec<_> = (0..4)
                    .map(|_| {
                        let cx = cx.clone();
                        smol::spawn(async move {
                            let done = |_: &punctual::Tx<'_>| Ok::<_, Failure>(Outcome::done());
                            cx.complete(done).await.is_ok()
                        })
                    })
                    .collect();
                let mut counted = 0;
                for each in all {
                    counted += usize::from(each.await);
                }
                log.push((counted, cx.stop_reason()));
                Ok(Outcome::done())
            }
        })
        .start()
        .unwrap();
    let ids = scheduler.schedule_many((0..1_000).map(Probe)).unwrap();
    for id in ids {
        end_of(&scheduler, id.id());
    }
    eventually("all are told", || told.len() == 1_000);
    assert!(told.take().iter().all(|each| *each == (1, None)));
}

/// Attempts are counted, not polls; and what futures have asked the store for is awaited.
#[test]
fn a_stepped_scheduler_runs_futures_to_the_end_of_their_attempts() {
    use smol::stream::StreamExt;
    let mut scheduler = Scheduler::in_memory()
        .async_handler_fn(|Probe(n), cx: AsyncContext| async move {
            let mut events = cx.client().events();
            yield_once().await;
            cx.progress(&n).await?;
            let other = NewTask::with_kind("of nobody", &n);
            let other = cx.client().schedule(other.after(LONG)).await?.id();
            events.next().await.ok_or("it is scheduled")?;
            cx.client().get(other).await?.ok_or("it is there")?;
            cx.client().cancel(other).await?;
            cx.complete(|_| Ok::<_, Failure>(Outcome::done())).await
        })
        .stepped(&clock())
        .unwrap();
    for round in 0..20 {
        let ids = [0, 1, 2].map(|n| scheduler.schedule(Probe(n)).unwrap().id());
        let states = |scheduler: &Client| ids.map(|id| state(scheduler, id));
        assert!(scheduler.step());
        assert!(
            states(&scheduler).contains(&TaskState::Completed),
            "{round}"
        );
        assert_eq!(scheduler.drain(), 2, "{round}");
        assert_eq!(states(&scheduler), [TaskState::Completed; 3], "{round}");
        assert!(!scheduler.step());
    }
}
