//! P6: what a handler commits with its completion.

use std::time::Duration;

use punctual::{
    Cancel, Client, Error, ErrorKind, Failure, Filter, NewTask, Outcome, Scheduler, TaskContext,
    TaskState,
};

use super::{rows, rows_in, with_table, write};
use crate::kit::{Gate, LONG, OpenOnDrop, Other, Probe, end_of, file};

/// What a handler does with its transaction, by the number in its task.
fn started(builder: punctual::Builder) -> Scheduler {
    let scheduler = builder
        .retry_policy("probe", punctual::RetryPolicy::fixed(Duration::ZERO))
        .handler_fn(move |Probe(n), cx: &TaskContext| {
            let completed = cx.complete(|tx| {
                write(tx, i64::from(n))?;
                tx.schedule(NewTask::new(Other(n)).after(LONG))?;
                match (n, cx.attempt()) {
                    (1, 1) => Err("at first it fails".into()),
                    (2, 1) => panic!("at first it panics"),
                    (5, _) => Ok(Outcome::cancel("with its effects")),
                    _ => Outcome::with(&n),
                }
            });
            match n {
                3 => {
                    let _ = completed?;
                    assert_eq!(
                        cx.complete(|_| Ok::<_, Error>(Outcome::done()))
                            .unwrap_err()
                            .kind(),
                        ErrorKind::State
                    );
                    Err("what comes after changes nothing".into())
                }
                4 => {
                    let _ = completed?;
                    panic!("nor does this")
                }
                6 => {
                    let _ = completed?;
                    Outcome::with("nor does this")
                }
                _ => completed,
            }
        })
        .start()
        .unwrap();
    with_table(&scheduler);
    scheduler
}

fn follow_ups(client: &Client, n: u32) -> usize {
    let page = client
        .list(&Filter::new().kind("other").limit(100))
        .unwrap();
    let of = |task: &&punctual::Task| task.payload::<Other>().unwrap().0 == n;
    page.tasks().iter().filter(of).count()
}

#[test]
fn p6_effects_follow_ups_and_the_completion_are_one_commit() {
    let (_dir, path) = file();
    for builder in [Scheduler::builder(&path), Scheduler::in_memory()] {
        let scheduler = started(builder);
        let mut rows_before = 0;
        for (n, attempts) in [(0, 1), (1, 2), (2, 2), (3, 1), (4, 1), (6, 1)] {
            let id = scheduler.schedule(Probe(n)).unwrap().id();
            let task = end_of(&scheduler, id);
            assert_eq!(task.state(), TaskState::Completed, "{n}");
            assert_eq!(task.result::<u32>().unwrap(), Some(n));
            rows_before += 1;
            assert_eq!((task.attempt(), rows(&scheduler)), (attempts, rows_before));
            assert_eq!(follow_ups(&scheduler, n), 1, "{n}");
        }
        let cancelled = scheduler.schedule(Probe(5)).unwrap().id();
        let task = end_of(&scheduler, cancelled);
        assert_eq!(task.state(), TaskState::Cancelled);
        assert_eq!((rows(&scheduler), follow_ups(&scheduler, 5)), (7, 1));
        scheduler.shutdown(LONG).unwrap();
        let health = scheduler.health();
        assert_eq!((health.busy(), health.stuck()), (0, 0));
    }
}

/// A snooze commits what was done so far, and the next attempt goes on from there.
#[test]
fn p6_a_snooze_commits_with_its_effects() {
    let (_dir, path) = file();
    let scheduler = Scheduler::builder(&path)
        .handler_fn(|Probe(n), cx: &TaskContext| {
            cx.complete(|tx| {
                let done = rows_in(tx)?;
                write(tx, done)?;
                if done < i64::from(n) {
                    return Ok::<_, Failure>(Outcome::snooze(Duration::ZERO));
                }
                Outcome::with(&done)
            })
        })
        .start()
        .unwrap();
    with_table(&scheduler);
    let id = scheduler.schedule(Probe(5)).unwrap().id();
    let task = end_of(&scheduler, id);
    assert_eq!(
        (task.result::<u32>().unwrap(), task.attempt()),
        (Some(5), 1)
    );
    assert_eq!(rows(&scheduler), 6);
}

#[test]
fn p8_a_cancelled_task_that_completes_with_its_effects_is_completed() {
    let (_dir, path) = file();
    let gate = Gate::default();
    let at_gate = gate.clone();
    let scheduler = Scheduler::builder(&path)
        .handler_fn(move |_: Probe, cx: &TaskContext| {
            at_gate.pass();
            cx.complete(|tx| {
                write(tx, 1)?;
                Ok::<_, Failure>(Outcome::done())
            })
        })
        .start()
        .unwrap();
    let _open = OpenOnDrop(gate.clone());
    with_table(&scheduler);
    let id = scheduler.schedule(Probe(1)).unwrap().id();
    gate.await_waiting(1);
    assert_eq!(scheduler.cancel(id).unwrap(), Cancel::Requested);
    gate.open();
    assert_eq!(end_of(&scheduler, id).state(), TaskState::Completed);
    assert_eq!(rows(&scheduler), 1);
}
