//! What holds on every executor.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use punctual::{
    AsyncContext, AsyncTaskHandler, AttemptEnd, Client, Delivery, Failure, Filter, NewTask,
    Outcome, Payload, RetryPolicy, Scheduler, TaskResult, TaskState,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::Executor;
use crate::kit::{LONG, Log, MS, Other, Probe, end_of, eventually, file, probe, task};

/// P4: each task runs once, with what it was given.
#[test]
fn each_task_runs_and_its_result_is_stored() {
    struct Doubles {
        by: u32,
    }

    impl AsyncTaskHandler for Doubles {
        type Payload = Probe;

        async fn run(&self, Probe(n): Probe, cx: &AsyncContext) -> TaskResult {
            // It borrows itself and the context over an await.
            yield_once().await;
            assert_eq!((cx.kind(), cx.attempt()), ("probe", 1));
            Outcome::with(&(n * self.by))
        }
    }

    for executor in Executor::all() {
        let (_dir, path) = file();
        let builder = Scheduler::builder(&path).async_handler(Doubles { by: 2 });
        let scheduler = executor.on(builder).start().unwrap();
        let tasks = scheduler.schedule_many((0..300).map(probe)).unwrap();
        for (n, scheduled) in (0_u32..).zip(tasks) {
            let ended = end_of(&scheduler, scheduled.id());
            assert_eq!(ended.state(), TaskState::Completed, "{}", executor.name());
            assert_eq!(ended.result::<u32>().unwrap(), Some(2 * n));
        }
        assert_eq!(scheduler.shutdown(LONG).unwrap().still_running(), 0);
    }
}

/// A thousand tasks that wait need no thousand threads, and both kinds of handlers run side by side.
#[test]
fn many_wait_at_once_beside_blocking_handlers() {
    const MANY: usize = 1_000;
    for executor in Executor::all() {
        let gate = Arc::new(Semaphore::new(0));
        let (waits, came) = (Arc::clone(&gate), Arc::new(AtomicUsize::new(0)));
        let comes = Arc::clone(&came);
        let builder = Scheduler::in_memory()
            .workers(2)
            .max_in_flight(MANY)
            .async_handler_fn(move |_: Probe, _cx| {
                let (gate, came) = (Arc::clone(&waits), Arc::clone(&comes));
                async move {
                    came.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await?.forget();
                    Ok(Outcome::done())
                }
            })
            .handler_fn(|Other(n), _cx| Outcome::with(&n));
        let scheduler = executor.on(builder).start().unwrap();
        let tasks = scheduler
            .schedule_many((0..MANY as u32 + 5).map(probe))
            .unwrap();
        eventually("all places are taken", || {
            came.load(Ordering::SeqCst) == MANY
        });
        let blocking = scheduler.schedule(Other(7)).unwrap().id();
        let ended = end_of(&scheduler, blocking);
        assert_eq!(
            ended.result::<u32>().unwrap(),
            Some(7),
            "{}",
            executor.name()
        );
        assert_eq!(came.load(Ordering::SeqCst), MANY, "and no further one");
        gate.add_permits(MANY + 5);
        for scheduled in tasks {
            assert_eq!(
                end_of(&scheduler, scheduled.id()).state(),
                TaskState::Completed
            );
        }
    }
}

/// P7: several schedulers, each on an executor of its own, never run a task twice.
#[test]
fn p7_instances_on_one_file_share_the_work() {
    let (_dir, path) = file();
    let runs: Log<u32> = Log::new();
    let executors = Executor::all();
    let start = |executor: &Executor| {
        let log = runs.clone();
        let builder = Scheduler::builder(&path)
            .max_in_flight(20)
            .async_handler_fn(move |Probe(n), _cx| {
                log.push(n);
                async {
                    yield_once().await;
                    Ok(Outcome::done())
                }
            });
        executor.on(builder).start().unwrap()
    };
    let schedulers: Vec<Scheduler> = executors.iter().map(start).collect();
    let client = Client::open(&path).unwrap();
    let tasks = client.schedule_many((0..600).map(probe)).unwrap();
    for scheduled in tasks {
        assert_eq!(
            end_of(&client, scheduled.id()).state(),
            TaskState::Completed
        );
    }
    for scheduler in &schedulers {
        assert_eq!(scheduler.shutdown(LONG).unwrap().still_running(), 0);
    }
    let mut counts: HashMap<u32, usize> = HashMap::new();
    for n in runs.take() {
        *counts.entry(n).or_default() += 1;
    }
    assert_eq!(counts.len(), 600);
    assert!(counts.values().all(|count| *count == 1), "each once");
}

/// P12: errors, panics in every place and a payload that does not fit end the attempt and nothing else.
#[test]
fn p12_what_goes_wrong_in_a_future_ends_its_attempt_alone() {
    struct PanicsInDrop;

    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            panic!("in a drop");
        }
    }

    for executor in Executor::all() {
        let builder = Scheduler::in_memory().async_handler_fn(|Probe(n), _cx| {
            assert!(n != 0, "before the future is there");
            async move {
                yield_once().await;
                match n {
                    1 => panic!("in a poll"),
                    2 => Err(Failure::from("an error")),
                    3 => {
                        let _panics = PanicsInDrop;
                        yield_once().await;
                        Ok(Outcome::done())
                    }
                    _ => Ok(Outcome::done()),
                }
            }
        });
        let scheduler = executor.on(builder).start().unwrap();
        let expected = [
            "panicked: before the future is there",
            "panicked: in a poll",
            "an error",
            "panicked: in a drop",
        ];
        for (n, error) in (0..).zip(expected) {
            let id = scheduler.schedule(probe(n).max_attempts(1)).unwrap().id();
            let ended = end_of(&scheduler, id);
            assert_eq!(ended.state(), TaskState::Failed, "{}", executor.name());
            assert_eq!(ended.error(), Some(error), "{}", executor.name());
        }
        let unfit = NewTask::with_kind("probe", &"no number");
        let unfit = scheduler.schedule(unfit).unwrap().id();
        let fine = scheduler.schedule(Probe(9)).unwrap().id();
        assert_eq!(end_of(&scheduler, fine).state(), TaskState::Completed);
        eventually("it is tried", || {
            !scheduler.health().undecodable_kinds().is_empty()
        });
        assert_eq!(scheduler.shutdown(LONG).unwrap().still_running(), 0);
        assert_eq!(task(&scheduler, unfit).attempt(), 0);
    }
}

/// Retries, snoozes and delays are those of other handlers.
#[test]
fn an_attempt_that_fails_is_tried_again() {
    for executor in Executor::all() {
        let builder = Scheduler::in_memory()
            .retry_policy("probe", RetryPolicy::fixed(MS))
            .async_handler_fn(|_: Probe, cx| async move {
                match (cx.attempt(), cx.last_error()) {
                    (1, None) => Err("once more".into()),
                    (2, Some("once more")) => Ok(Outcome::done()),
                    other => Err(Failure::fatal(format!("{other:?}"))),
                }
            });
        let scheduler = executor.on(builder).start().unwrap();
        let id = scheduler.schedule(Probe(1)).unwrap().id();
        assert_eq!(end_of(&scheduler, id).state(), TaskState::Completed);
        let ends: Vec<AttemptEnd> = scheduler
            .history(id)
            .unwrap()
            .iter()
            .map(|attempt| attempt.end())
            .collect();
        assert_eq!(ends, [AttemptEnd::Failed, AttemptEnd::Completed]);
    }
}

#[derive(Serialize, Deserialize)]
struct Charge(u32);

impl Payload for Charge {
    const KIND: &'static str = "charge";
    const DELIVERY: Delivery = Delivery::AtMostOnce;
}

/// P5: not even an error starts it again.
#[test]
fn p5_a_task_delivered_at_most_once_starts_once() {
    for executor in Executor::all() {
        let starts = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&starts);
        let builder = Scheduler::in_memory().async_handler_fn(move |_: Charge, _cx| {
            count.fetch_add(1, Ordering::SeqCst);
            async {
                yield_once().await;
                Err("it may have been charged".into())
            }
        });
        let scheduler = executor.on(builder).start().unwrap();
        let id = scheduler.schedule(Charge(1)).unwrap().id();
        assert_eq!(end_of(&scheduler, id).state(), TaskState::Failed);
        assert_eq!(starts.load(Ordering::SeqCst), 1);
    }
}

/// P9: by priority, then by due time, whatever else of the queue waits for a thread.
#[test]
fn p9_the_best_task_has_the_next_place() {
    for executor in Executor::all() {
        let order: Log<u32> = Log::new();
        let log = order.clone();
        let builder =
            Scheduler::in_memory()
                .max_in_flight(1)
                .async_handler_fn(move |Probe(n), _cx| {
                    log.push(n);
                    async {
                        yield_once().await;
                        Ok(Outcome::done())
                    }
                });
        let scheduler = executor.on(builder).start().unwrap();
        scheduler.pause("default").unwrap();
        for (n, priority) in [(1, 5), (2, 9), (3, 0), (4, 5)] {
            scheduler.schedule(probe(n).priority(priority)).unwrap();
        }
        scheduler.resume("default").unwrap();
        let completed = Filter::new().state(TaskState::Completed);
        eventually("all are done", || scheduler.count(&completed).unwrap() == 4);
        assert_eq!(order.take(), [3, 1, 4, 2], "{}", executor.name());
    }
}

/// P6: the handler's rows and the completion are one.
#[test]
fn p6_a_completion_commits_with_the_rows_of_its_handler() {
    for executor in Executor::all() {
        let builder = Scheduler::in_memory().async_handler_fn(|Probe(n), cx| async move {
            cx.progress(&n).await?;
            cx.complete(move |tx| {
                tx.sqlite()?.execute("INSERT INTO seen VALUES (?1)", [n])?;
                tx.schedule(NewTask::with_kind("next", &n))?;
                if n == 2 {
                    return Err(Failure::from("not this one"));
                }
                Outcome::with(&n)
            })
            .await
        });
        let scheduler = executor.on(builder).start().unwrap();
        scheduler
            .transaction(|tx| {
                tx.sqlite()?
                    .execute_batch("CREATE TABLE seen (n)")
                    .map_err(Into::into)
            })
            .map_err(|error: punctual::Error| error)
            .unwrap();
        for n in 1..=3 {
            let id = scheduler.schedule(probe(n).max_attempts(1)).unwrap().id();
            let ended = end_of(&scheduler, id);
            let expected = if n == 2 {
                (TaskState::Failed, None)
            } else {
                (TaskState::Completed, Some(n))
            };
            assert_eq!((ended.state(), ended.result::<u32>().unwrap()), expected);
            assert_eq!(ended.progress::<u32>().unwrap(), Some(n));
        }
        let next = Filter::new().kind("next");
        assert_eq!(scheduler.count(&next).unwrap(), 2, "{}", executor.name());
        assert_eq!(scheduler.shutdown(LONG).unwrap().still_running(), 0);
    }
}

/// P2 and P3, roughly: not early, and not only when something else happens. The bench has the figures.
#[test]
fn p3_a_task_starts_when_it_is_due() {
    for executor in Executor::all() {
        let builder =
            Scheduler::in_memory().async_handler_fn(|_: Probe, _cx| async { Ok(Outcome::done()) });
        let scheduler = executor.on(builder).start().unwrap();
        let id = scheduler.schedule(probe(1).after(50 * MS)).unwrap().id();
        let due = task(&scheduler, id).scheduled_at();
        end_of(&scheduler, id);
        let late = scheduler.history(id).unwrap()[0].started_at().unwrap() - due;
        assert!(late >= chrono::TimeDelta::zero(), "{late}");
        assert!(late < chrono::TimeDelta::seconds(5), "{late}");
    }
}

/// Is pending once, and wakes its task at once.
pub async fn yield_once() {
    let mut polled = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut polled, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
