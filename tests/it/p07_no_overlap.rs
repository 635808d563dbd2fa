//! P7: two attempts of one task never run at the same time, also across processes; a stale attempt can change nothing.
//!
//! Processes that stop, fork or are taken for dead: `process/stop.rs`, `process/fork.rs` and `process/stale.rs`. Stale
//! attempts: the conformance suite of the store.

use std::collections::HashMap;

use punctual::{Client, Edit, ErrorKind, Filter, NewTask, Outcome, Scheduler, TaskState};

use crate::kit::{DAY, LONG, Log, MS, Probe, clock, end_of, eventually, file, probe};

/// Several instances on one file share the work and never run a task twice.
#[test]
fn instances_on_one_file_share_the_work() {
    let (_dir, path) = file();
    let runs: Log<(usize, u32)> = Log::new();
    let start = |instance: usize| {
        let log = runs.clone();
        Scheduler::builder(&path)
            .workers(2)
            .handler_fn(move |Probe(n), _cx| {
                log.push((instance, n));
                std::thread::park_timeout(MS);
                Ok(Outcome::done())
            })
            .start()
            .unwrap()
    };
    let schedulers: Vec<Scheduler> = (0..3).map(start).collect();
    let client = Client::open(&path).unwrap();
    let ids: Vec<_> = client
        .schedule_many((0..600).map(|n| NewTask::new(Probe(n))))
        .unwrap();
    for scheduled in ids {
        assert_eq!(
            end_of(&client, scheduled.id()).state(),
            TaskState::Completed
        );
    }
    eventually("every run is noted", || runs.len() >= 600);
    for scheduler in &schedulers {
        assert_eq!(scheduler.shutdown(LONG).unwrap().still_running(), 0);
    }
    let mut counts: HashMap<u32, usize> = HashMap::new();
    for (_, n) in runs.take() {
        *counts.entry(n).or_default() += 1;
    }
    assert_eq!(counts.len(), 600);
    assert!(counts.values().all(|count| *count == 1), "each once");
}

#[test]
fn a_task_that_runs_cannot_be_started_again_by_any_call() {
    let clock = clock();
    let answers = Log::new();
    let log = answers.clone();
    let mut scheduler = Scheduler::in_memory()
        .workers(2)
        .handler_fn(move |_: Probe, cx| {
            let (client, id) = (cx.client(), cx.id());
            log.push([
                client.run_now(id).unwrap_err().kind(),
                client.reschedule(id, cx.scheduled_at()).unwrap_err().kind(),
                client.retry(id).unwrap_err().kind(),
                client.edit(id, Edit::new().priority(0)).unwrap_err().kind(),
                client.delete(id).unwrap_err().kind(),
            ]);
            let all = client.run_now_all(&Filter::all())?;
            assert_eq!(all.changed(), 0);
            let again = client.schedule(probe(1).id(id))?;
            assert!(!again.is_new());
            Ok(Outcome::done())
        })
        .stepped(&clock)
        .unwrap();
    scheduler.schedule(probe(1)).unwrap();
    scheduler.advance(DAY);
    assert_eq!(answers.take(), [[ErrorKind::State; 5]], "it ran once");
}
