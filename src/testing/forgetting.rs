//! A stepped scheduler forgets queues that are not used any more.

use std::time::Duration;

use crate::client::Client;
use crate::model::filter::Filter;
use crate::model::idle::KEPT;
use crate::model::new_task::NewTask;
use crate::model::outcome::{Failure, Outcome};
use crate::model::payload::Payload;
use crate::model::query::Query;
use crate::model::retention::Retention;
use crate::scheduler::Scheduler;
use crate::testing::TestClock;

const HOUR: Duration = Duration::from_secs(3600);

#[derive(serde::Serialize, serde::Deserialize)]
struct Probe(u32);

impl Payload for Probe {
    const KIND: &'static str = "probe";
}

/// P14: a queue is out of memory as soon as it is idle, but its tasks keep its name as long as they are there.
#[test]
fn p14_an_idle_queue_is_forgotten_with_its_last_task_and_no_sooner() {
    let clock = TestClock::new("2026-03-01T09:00:00Z".parse().unwrap());
    let mut scheduler = Scheduler::in_memory()
        .handler_fn(|Probe(n), _cx| match n % 3 {
            0 => Ok(Outcome::done()),
            1 => Err(Failure::fatal("no")),
            _ => Ok(Outcome::cancel("unwanted")),
        })
        .retention(Retention::forever())
        .stepped(&clock)
        .unwrap();
    let queue = |n| format!("tenant.{n}");
    for n in 0..120_u32 {
        let task = NewTask::new(Probe(n)).queue(queue(n));
        scheduler.schedule(task).unwrap();
    }
    assert_eq!(scheduler.drain(), 120);
    for _ in 0..4 {
        scheduler.advance(HOUR);
    }
    assert_eq!(scheduler.store.lanes().list.len(), KEPT);
    let retired = |scheduler: &Client| {
        let answer = scheduler.store.read(Query::RetiredLanes).unwrap();
        answer.retired_lanes().len()
    };
    assert_eq!(retired(&scheduler), 120 - KEPT, "each has a task");
    for n in 0..120 {
        let found = scheduler.list(&Filter::new().queue(queue(n))).unwrap();
        assert_eq!(found.tasks().len(), 1, "{n}");
    }
    for n in 0..50 {
        let filter = Filter::new().queue(queue(n));
        assert_eq!(scheduler.delete_all(&filter).unwrap().changed(), 1);
    }
    for _ in 0..2 {
        scheduler.advance(HOUR);
    }
    assert_eq!(retired(&scheduler), 120 - KEPT - 50);
    assert_eq!(scheduler.stats().unwrap().lanes().len(), 70);
}
