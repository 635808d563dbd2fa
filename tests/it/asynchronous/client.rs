//! The client for async code: it does what the blocking one does, and no call blocks the thread that polls it.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use punctual::{
    AsyncClient, AsyncContext, Cancel, Client, Edit, ErrorKind, EventKind, Filter, NewTask,
    Outcome, Recurrence, RecurrenceEdit, RecurrenceFilter, RecurrenceSet, Retention, Scheduler,
    TaskId, TaskState,
};
use smol::block_on;

use super::everywhere::yield_once;
use super::{Executor, OneThread};
use crate::kit::{
    Gate, LONG, Log, MS, OpenOnDrop, Probe, S, Watch, eventually, file, gate, probe, state,
};

fn hourly(name: &str) -> Recurrence {
    let recurrence = Recurrence::new(name, NewTask::with_kind("report", &1));
    recurrence.cron("0 * * * *").unwrap()
}

#[test]
fn it_does_what_the_blocking_client_does() {
    let (dir, path) = file();
    let scheduler = Scheduler::builder(&path)
        .handler_fn(|Probe(n), _cx| Outcome::with(&n))
        .start()
        .unwrap();
    let client = scheduler.to_async();
    block_on(async {
        client.pause("default").await.unwrap();
        let id = client.schedule(Probe(1)).await.unwrap().id();
        let many = client.schedule_many((2..5).map(probe)).await.unwrap();
        let streamed = client.schedule_stream((5..2_005).map(probe)).await.unwrap();
        assert_eq!((many.len(), streamed.new_count()), (3, 2_000));
        assert_eq!(client.get(id).await.unwrap().unwrap().id(), id);
        let pending = Filter::new().state(TaskState::Pending);
        assert_eq!(client.count(&pending).await.unwrap(), 2_004);
        assert_eq!(client.list(&pending).await.unwrap().tasks().len(), 100);
        assert_eq!(client.stats().await.unwrap().total(), 2_004);
        client.edit(id, Edit::new().priority(0)).await.unwrap();
        client
            .reschedule(id, chrono::DateTime::UNIX_EPOCH + S)
            .await
            .unwrap();
        client.run_now(id).await.unwrap();
        let [second, third, fourth] = [0, 1, 2].map(|index: usize| many[index].id());
        assert_eq!(client.cancel(second).await.unwrap(), Cancel::Cancelled);
        client
            .retry_with(second, Edit::new().payload(&Probe(7)))
            .await
            .unwrap();
        assert_eq!(client.cancel(third).await.unwrap(), Cancel::Cancelled);
        client.retry(third).await.unwrap();
        assert_eq!(client.cancel(fourth).await.unwrap(), Cancel::Cancelled);
        client.delete(fourth).await.unwrap();
        let error = client.delete(fourth).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.task_id()),
            (ErrorKind::NotFound, Some(fourth))
        );
        client.set_global_limit("default", Some(5)).await.unwrap();
        client.set_global_limit("default", None).await.unwrap();
        client.resume("default").await.unwrap();
        let ended = client.wait(second, LONG).await.unwrap().unwrap();
        assert_eq!(ended.result::<u32>().unwrap(), Some(7));
        assert_eq!(client.history(second).await.unwrap().len(), 1);
        eventually("all are done", || scheduler.count(&pending).unwrap() == 0);
        let completed = Filter::new().state(TaskState::Completed);
        eventually("and told", || scheduler.count(&completed).unwrap() == 2_003);
        client.pause("default").await.unwrap();
        let edit = Edit::new().priority(1);
        assert_eq!(client.retry_all(&completed).await.unwrap().changed(), 2_003);
        assert_eq!(
            client
                .edit_all(&pending, edit.clone())
                .await
                .unwrap()
                .changed(),
            2_003
        );
        let later = chrono::DateTime::UNIX_EPOCH + S;
        assert_eq!(
            client
                .reschedule_all(&pending, later)
                .await
                .unwrap()
                .changed(),
            2_003
        );
        assert_eq!(client.run_now_all(&pending).await.unwrap().changed(), 2_003);
        assert_eq!(client.cancel_all(&pending).await.unwrap().changed(), 2_003);
        let cancelled = Filter::new().state(TaskState::Cancelled);
        assert_eq!(
            client
                .retry_all_with(&cancelled, edit)
                .await
                .unwrap()
                .changed(),
            2_003
        );
        assert_eq!(client.cancel_all(&pending).await.unwrap().changed(), 2_003);
        assert_eq!(client.delete_all(&completed).await.unwrap().matched(), 0);
        let retention = Retention::forever().cancelled(Duration::ZERO);
        client.prune(&retention).await.unwrap();
        assert_eq!(client.count(&Filter::all()).await.unwrap(), 0);
        assert!(client.probe(LONG).await.is_ok() && client.health().is_ok());
        let copy = dir.path().join("copy.db");
        client.backup(&copy).await.unwrap();
        assert!(Client::open(&copy).is_ok());
        let value = client
            .transaction(|tx| {
                tx.schedule(NewTask::with_kind("inside", &1))?;
                Ok::<_, punctual::Error>(7)
            })
            .await;
        assert_eq!(value.unwrap(), 7);
        assert_eq!(
            client.count(&Filter::new().kind("inside")).await.unwrap(),
            1
        );
        assert_eq!(
            client
                .as_blocking()
                .count(&Filter::new().kind("inside"))
                .unwrap(),
            1
        );
    });
}

#[test]
fn recurrences_too() {
    let scheduler = Scheduler::in_memory().start().unwrap();
    let client = scheduler.to_async();
    block_on(async {
        let recurrences = client.recurrences();
        let mut events = recurrences.events();
        client.recur(hourly("nightly").max_count(2)).await.unwrap();
        let set = RecurrenceSet::new("mine").recurrence(hourly("declared"));
        client.declare(set).await.unwrap();
        let page = recurrences.list(&RecurrenceFilter::new()).await.unwrap();
        assert_eq!(page.recurrences().len(), 2);
        recurrences.pause("nightly").await.unwrap();
        assert!(
            recurrences
                .get("nightly")
                .await
                .unwrap()
                .unwrap()
                .is_paused()
        );
        recurrences.resume("nightly").await.unwrap();
        recurrences.trigger("nightly").await.unwrap();
        recurrences
            .edit("nightly", RecurrenceEdit::new().max_count(3))
            .await
            .unwrap();
        let day = "2026-01-01T00:00:00Z".parse().unwrap().."2026-01-02T00:00:00Z".parse().unwrap();
        assert_eq!(
            recurrences
                .backfill("nightly", day.clone())
                .await
                .unwrap()
                .made_count(),
            24
        );
        recurrences.explain("nightly", day.clone()).await.unwrap();
        recurrences.reset("nightly", day.end).await.unwrap();
        recurrences.remove("nightly").await.unwrap();
        assert!(recurrences.get("nightly").await.unwrap().is_none());
        let error = recurrences.pause("nightly").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(smol::stream::StreamExt::next(&mut events).await.is_some());
    });
}

/// Polls a future once.
fn poll_once<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// While a transaction of the program's holds the turn to write, and while so many writes wait that the queue is full.
#[test]
fn no_call_blocks_the_thread_that_polls_it() {
    let (dir, path) = file();
    let client = Client::builder(&path)
        .busy_timeout(LONG)
        .transaction_timeout(LONG)
        .open()
        .unwrap();
    let id = client.schedule(probe(1).after(LONG)).unwrap().id();
    client.recur(hourly("nightly")).unwrap();
    let (gate, open) = gate();
    let (inside, holder) = (gate.clone(), client.clone());
    let held = std::thread::Builder::new().spawn(move || {
        holder.transaction(|_| {
            inside.pass();
            Ok::<_, punctual::Error>(())
        })
    });
    gate.await_waiting(1);
    let watch = Watch::start();
    let asynchronous = client.to_async();
    poll_all(&asynchronous, id, dir.path());
    let mut receipts = Vec::new();
    // At some four thousand the queue is full.
    for n in 0..5_000 {
        let mut schedule = Box::pin(asynchronous.schedule(probe(n).after(LONG)));
        assert!(poll_once(schedule.as_mut()).is_pending());
        receipts.push(schedule);
    }
    poll_all(&asynchronous, id, dir.path());
    assert!(watch.elapsed() < LONG / 2, "it waited for the turn");
    drop::<OpenOnDrop>(open);
    held.unwrap().join().unwrap().unwrap();
    for receipt in receipts {
        assert!(block_on(receipt).unwrap().is_new());
    }
}

/// Polls each method once.
fn poll_all(client: &AsyncClient, id: TaskId, folder: &std::path::Path) {
    macro_rules! poll {
        ($($call:expr),+ $(,)?) => { $( drop(poll_once(pin!($call))); )+ };
    }
    let filter = Filter::new().kind("none");
    let recurrences = client.recurrences();
    let at = chrono::DateTime::UNIX_EPOCH + S;
    poll![
        client.schedule(probe(2).after(LONG)),
        client.schedule_many([probe(2).after(LONG)]),
        client.schedule_stream([probe(2).after(LONG)]),
        client.cancel(id),
        client.delete(id),
        client.reschedule(id, at),
        client.run_now(id),
        client.retry(id),
        client.retry_with(id, Edit::new()),
        client.edit(id, Edit::new()),
        client.cancel_all(&filter),
        client.delete_all(&filter),
        client.reschedule_all(&filter, at),
        client.run_now_all(&filter),
        client.retry_all(&filter),
        client.retry_all_with(&filter, Edit::new()),
        client.edit_all(&filter, Edit::new()),
        client.pause("other"),
        client.resume("other"),
        client.set_global_limit("other", None),
        client.recur(hourly("nightly")),
        client.declare(RecurrenceSet::new("mine")),
        client.get(id),
        client.list(&filter),
        client.count(&filter),
        client.stats(),
        client.history(id),
        client.prune(&Retention::forever()),
        client.backup(folder.join("copy.db")),
        client.probe(LONG),
        client.wait(id, LONG),
        client.transaction(|_| Ok::<_, punctual::Error>(())),
        recurrences.get("nightly"),
        recurrences.list(&RecurrenceFilter::new()),
        recurrences.explain("nightly", at..at + S),
        recurrences.pause("nightly"),
        recurrences.resume("nightly"),
        recurrences.trigger("nightly"),
        recurrences.edit("nightly", RecurrenceEdit::new()),
        recurrences.backfill("nightly", at..at + S),
        recurrences.reset("nightly", at),
        recurrences.remove("other"),
    ];
    drop((client.events(), recurrences.events()));
    let _ = client.health();
}

#[test]
fn a_transaction_is_whole_or_not_at_all() {
    let client = Scheduler::in_memory().start().unwrap().to_async();
    let refused = block_on(client.transaction(|tx| {
        tx.schedule(NewTask::with_kind("inside", &1))?;
        Err::<(), Box<dyn std::error::Error + Send + Sync>>("no".into())
    }));
    assert_eq!(refused.unwrap_err().to_string(), "no");
    let panics = client.transaction(|tx| {
        tx.schedule(NewTask::with_kind("inside", &1))?;
        assert!(tx.sqlite().is_err(), "as it should");
        Ok::<_, punctual::Error>(())
    });
    let panic = catch_unwind(AssertUnwindSafe(|| block_on(panics))).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"as it should"));
    let inside = Filter::new().kind("inside");
    assert_eq!(block_on(client.count(&inside)).unwrap(), 0);
}

/// A closure whose future is dropped before its turn never runs.
#[test]
fn a_transaction_that_is_dropped_in_time_is_not_made() {
    let (_dir, path) = file();
    let client = Client::builder(&path)
        .transaction_timeout(LONG)
        .open()
        .unwrap()
        .to_async();
    let (gate, _open) = gate();
    // As many as there are threads for them: the first holds the turn.
    let mut begun: Vec<_> = (0..4)
        .map(|_| {
            let gate = gate.clone();
            let transaction = client.transaction(move |_| {
                gate.pass();
                Ok::<_, punctual::Error>(())
            });
            let mut transaction = Box::pin(transaction);
            assert!(poll_once(transaction.as_mut()).is_pending());
            transaction
        })
        .collect();
    gate.await_waiting(1);
    let ran: Log<()> = Log::new();
    let log = ran.clone();
    let mut dropped = Box::pin(client.transaction(move |_| {
        log.push(());
        Ok::<_, punctual::Error>(())
    }));
    assert!(poll_once(dropped.as_mut()).is_pending());
    drop(dropped);
    // One that has begun goes on.
    let goes_on = begun.remove(0);
    drop(goes_on);
    gate.open();
    for transaction in begun {
        block_on(transaction).unwrap();
    }
    block_on(client.transaction(|_| Ok::<_, punctual::Error>(()))).unwrap();
    assert_eq!(ran.len(), 0);
}

#[test]
fn a_wait_tells_of_ends_here_and_elsewhere() {
    let (_dir, path) = file();
    let scheduler = Scheduler::builder(&path)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .start()
        .unwrap();
    // It has the file open on its own, as another process would.
    let elsewhere = Client::open(&path).unwrap().to_async();
    let here = scheduler.to_async();
    block_on(async {
        for client in [&here, &elsewhere] {
            let id = here.schedule(Probe(1)).await.unwrap().id();
            let ended = client.wait(id, LONG).await.unwrap().unwrap();
            assert_eq!(ended.state(), TaskState::Completed);
            let again = client.wait(id, Duration::ZERO).await.unwrap();
            assert!(again.is_some(), "it has ended long ago");
        }
        let later = here.schedule(probe(1).after(LONG)).await.unwrap().id();
        let watch = Watch::start();
        assert!(here.wait(later, 30 * MS).await.unwrap().is_none());
        assert!(watch.elapsed() >= 29 * MS);
        let error = here.wait(TaskId::new(), LONG).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let mut deleted = Box::pin(here.wait(later, LONG));
        assert!(poll_once(deleted.as_mut()).is_pending());
        here.cancel(later).await.unwrap();
        let ended = deleted.await.unwrap().unwrap();
        assert_eq!(ended.state(), TaskState::Cancelled);
    });
}

/// P14: one thread for all of them, and none once they are over.
#[cfg(target_os = "linux")]
#[test]
fn p14_thousands_of_waits_hold_no_thread_each() {
    let threads = || {
        let all = std::fs::read_dir("/proc/self/task").unwrap();
        let names =
            all.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok());
        names
            .filter(|name| name.starts_with("punctual-waits"))
            .count()
    };
    let scheduler = Scheduler::in_memory()
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .start()
        .unwrap();
    scheduler.pause("default").unwrap();
    let tasks = scheduler.schedule_many((0..2_000).map(probe)).unwrap();
    let client = scheduler.to_async();
    let mut waits: Vec<_> = tasks
        .iter()
        .map(|task| Box::pin(client.wait(task.id(), LONG)))
        .collect();
    for wait in &mut waits {
        assert!(poll_once(wait.as_mut()).is_pending());
    }
    // Other tests wait too.
    assert!((1..50).contains(&threads()), "{}", threads());
    waits.truncate(1_500);
    scheduler.resume("default").unwrap();
    for wait in waits {
        assert!(block_on(wait).unwrap().is_some());
    }
}

#[test]
fn events_are_a_stream_that_ends_with_the_scheduler() {
    use smol::stream::StreamExt;
    let scheduler = Scheduler::in_memory().start().unwrap();
    let client = scheduler.to_async();
    let mut events = client.events_with_capacity(2);
    let followed = std::thread::scope(|scope| {
        let follows = std::thread::Builder::new().spawn_scoped(scope, move || {
            block_on(async {
                let mut kinds = Vec::new();
                while let Some(event) = events.next().await {
                    kinds.push(event.kind());
                }
                assert_eq!(events.lost(), 0);
                kinds
            })
        });
        let id = scheduler.schedule(probe(1).after(LONG)).unwrap().id();
        scheduler.cancel(id).unwrap();
        scheduler.shutdown(LONG).unwrap();
        follows.unwrap().join().unwrap()
    });
    assert_eq!(followed, [EventKind::Scheduled, EventKind::Cancelled]);
}

/// The waker of who waits for an event: it writes to the store, and is held up.
struct Writes {
    client: Client,
    wrote: Log<bool>,
    gate: Gate,
}

impl std::task::Wake for Writes {
    fn wake(self: Arc<Self>) {
        self.wrote.push(self.client.schedule(Probe(2)).is_ok());
        self.gate.pass();
    }
}

#[test]
fn p12_a_waker_of_a_stream_may_write_and_keeps_no_call_waiting() {
    let (gate, _open) = gate();
    let scheduler = Scheduler::in_memory().start().unwrap();
    let client = scheduler.client();
    let wrote = Log::new();
    let mut events = client.to_async().events();
    let waker = Waker::from(Arc::new(Writes {
        client: client.clone(),
        wrote: wrote.clone(),
        gate: gate.clone(),
    }));
    let polled = Pin::new(&mut events).poll_next(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    client.schedule(Probe(1)).unwrap();
    gate.await_waiting(1);
    // The waker is held up, and neither blocking calls nor receipts are.
    client.schedule(Probe(3)).unwrap();
    block_on(client.to_async().schedule(Probe(4))).unwrap();
    assert_eq!(wrote.take(), [true]);
    gate.open();
    assert_eq!(client.count(&Filter::all()).unwrap(), 4);
}

/// On the one thread that also has to poll the handlers.
#[test]
fn a_shutdown_is_awaited_on_the_runtime_of_the_handlers() {
    let (_dir, path) = file();
    let thread = OneThread::start();
    let (told, done) = (Log::new(), Log::new());
    let log = told.clone();
    let scheduler = Scheduler::builder(&path)
        .stop_grace("probe", LONG)
        .async_handler_fn(move |_: Probe, cx: AsyncContext| {
            let log = log.clone();
            async move {
                log.push(());
                cx.stopped().await;
                yield_once().await;
                Ok(Outcome::done())
            }
        })
        .spawner(thread.handle.clone())
        .start()
        .unwrap();
    let client = scheduler.client();
    let id = client.schedule(Probe(1)).unwrap().id();
    eventually("it runs", || told.len() == 1);
    let ended = done.clone();
    thread.handle.spawn(async move {
        ended.push(scheduler.shutdown_async(LONG).await.unwrap());
    });
    eventually("the shutdown is over", || done.len() == 1);
    let shutdown = done.take()[0];
    assert_eq!((shutdown.finished(), shutdown.still_running()), (1, 0));
    assert_eq!(state(&client, id), TaskState::Completed);
}

/// It waits for itself, until it is dropped at the end of the timeout: its task waits for the next scheduler.
#[test]
fn a_handler_may_await_the_shutdown_of_its_scheduler() {
    for executor in Executor::all() {
        let (_dir, path) = file();
        let shared: Arc<std::sync::OnceLock<Scheduler>> = Arc::default();
        let own = Arc::clone(&shared);
        let started = Log::new();
        let log = started.clone();
        let builder = Scheduler::builder(&path)
            .stop_grace("probe", 10 * MS)
            .async_handler_fn(move |_: Probe, _cx| {
                let own = Arc::clone(&own);
                log.push(());
                async move {
                    while own.get().is_none() {
                        yield_once().await;
                    }
                    let shutdown = own.get().unwrap().shutdown_async(50 * MS);
                    shutdown.await?;
                    Ok(Outcome::done())
                }
            });
        let scheduler = executor.on(builder).start().unwrap();
        let client = scheduler.client();
        let id = client.schedule(Probe(1)).unwrap().id();
        eventually("it runs", || started.len() == 1);
        assert!(shared.set(scheduler).is_ok());
        eventually("it waits again", || {
            state(&client, id) == TaskState::Pending
        });
        assert_eq!(
            client.get(id).unwrap().unwrap().attempt(),
            0,
            "{}",
            executor.name()
        );
    }
}

/// Handlers wait for other tasks without a place being lost to it, as a client of their own.
#[test]
fn a_handler_uses_the_client_of_its_scheduler() {
    for executor in Executor::all() {
        let builder = Scheduler::in_memory().max_in_flight(2).async_handler_fn(
            |Probe(n), cx: AsyncContext| async move {
                if n == 0 {
                    return Outcome::with(&7);
                }
                let client = cx.client();
                let inner = client.schedule(Probe(0)).await?.id();
                let ended = client.wait(inner, LONG).await?.ok_or("it takes too long")?;
                Outcome::with(&ended.result::<u32>()?)
            },
        );
        let scheduler = executor.on(builder).start().unwrap();
        let id = scheduler.schedule(Probe(1)).unwrap().id();
        let ended = scheduler.wait(id, LONG).unwrap().unwrap();
        assert_eq!(
            ended.result::<u32>().unwrap(),
            Some(7),
            "{}",
            executor.name()
        );
    }
}
