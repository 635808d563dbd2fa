//! P1: when `schedule` returns `Ok`, the task survives `kill -9` and, at the default durability, loss of power.
//!
//! Killed processes: `process/crash`. A full disk: `process/full.rs`. What is synced: the tests of the store.

use std::path::Path;

use punctual::{
    AttemptEnd, Client, Durability, Edit, Filter, Outcome, Scheduler, TaskId, TaskState,
};
use tempfile::TempDir;

use crate::kit::{DAY, Probe, end_of, eventually, file, left_by_a_kill, probe};

/// A client of what would be left if the process were killed now.
fn after_a_kill(path: &Path) -> (TempDir, Client) {
    let (dir, left) = left_by_a_kill(path);
    (dir, Client::open(left).unwrap())
}

#[test]
fn whatever_was_answered_is_in_the_files() {
    for durability in [Durability::PowerLoss, Durability::ProcessCrash] {
        let (_dir, path) = file();
        let client = Client::builder(&path)
            .durability(durability)
            .open()
            .unwrap();
        let later = |n| probe(n).after(DAY);
        let id = client.schedule(later(1)).unwrap().id();
        let stored = |id: TaskId| {
            after_a_kill(&path)
                .1
                .get(id)
                .unwrap()
                .expect("it is stored")
        };
        assert_eq!(stored(id).payload::<Probe>().unwrap().0, 1);
        client.schedule_many((2..9).map(later)).unwrap();
        client.submit().schedule(later(9)).wait().unwrap();
        client
            .transaction(|tx| tx.schedule(later(10)).map(drop))
            .unwrap();
        let count = |client: &Client| client.count(&Filter::all()).unwrap();
        assert_eq!(count(&after_a_kill(&path).1), 10, "{durability:?}");
        let at = client.get(id).unwrap().unwrap().scheduled_at() + DAY;
        client.reschedule(id, at).unwrap();
        assert_eq!(stored(id).scheduled_at(), at);
        client.edit(id, Edit::new().payload(&Probe(77))).unwrap();
        assert_eq!(stored(id).payload::<Probe>().unwrap().0, 77);
        client.cancel(id).unwrap();
        assert_eq!(stored(id).state(), TaskState::Cancelled);
        client.retry(id).unwrap();
        assert_eq!(stored(id).state(), TaskState::Pending);
        client.cancel(id).unwrap();
        client.delete(id).unwrap();
        client.pause("default").unwrap();
        let (_dir, left) = after_a_kill(&path);
        assert_eq!((left.get(id).unwrap().map(drop), count(&left)), (None, 9));
        assert_eq!(left.health().paused_queues(), ["default"]);
    }
}

/// Dropping a receipt does not call the write back, nor does dropping the last client right after it.
#[test]
fn what_was_submitted_is_stored_though_nobody_waits_for_it() {
    let (_dir, path) = file();
    for n in 0..20 {
        let client = Client::open(&path).unwrap();
        drop(client.submit().schedule(probe(n)));
    }
    let client = Client::open(&path).unwrap();
    eventually("all are stored", || {
        client.count(&Filter::all()).unwrap() == 20
    });
}

/// P4: what one process schedules, another finds and runs.
#[test]
fn a_task_outlives_the_client_that_scheduled_it() {
    let (_dir, path) = file();
    let id = Client::open(&path)
        .unwrap()
        .schedule(probe(7))
        .unwrap()
        .id();
    let scheduler = Scheduler::builder(&path)
        .workers(1)
        .handler_fn(|Probe(n), cx| {
            cx.progress(&"half")?;
            Outcome::with(&(n * 6))
        })
        .start()
        .unwrap();
    let task = end_of(&scheduler, id);
    assert_eq!(task.state(), TaskState::Completed);
    assert_eq!(task.result::<u32>().unwrap(), Some(42));
    assert_eq!(task.progress::<String>().unwrap().as_deref(), Some("half"));
    assert_eq!(task.payload::<Probe>().unwrap().0, 7);
    assert!(task.started_at().unwrap() <= task.finished_at().unwrap());
    let history = scheduler.history(id).unwrap();
    assert_eq!(
        (history.len(), history[0].end()),
        (1, AttemptEnd::Completed)
    );
    assert!(history[0].instance().is_some() && history[0].duration().is_some());
}
