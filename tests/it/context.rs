//! What a handler sees of its task.

use std::time::Duration;

use punctual::testing::TestClock;
use punctual::{NewTask, Outcome, Payload, Scheduler};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Probe;

impl Payload for Probe {
    const KIND: &'static str = "probe";
}

#[test]
fn a_handler_sees_the_metadata_of_its_task() {
    let clock = TestClock::new("2026-03-01T09:00:00Z".parse().unwrap());
    let mut scheduler = Scheduler::in_memory()
        .handler_fn(|_: Probe, cx| Outcome::with(cx.metadata()))
        .stepped(&clock)
        .unwrap();
    let plain = scheduler.schedule(Probe).unwrap().id();
    let marked = NewTask::new(Probe).metadata("request", "r-7");
    let marked = scheduler.schedule(marked).unwrap().id();
    scheduler.drain();
    for id in [plain, marked] {
        let task = scheduler.get(id).unwrap().unwrap();
        assert_eq!(task.result().unwrap().as_ref(), Some(task.metadata()));
        assert_eq!(task.metadata().is_empty(), id == plain);
    }
}

#[test]
fn an_attempt_can_go_on_where_the_one_before_has_stopped() {
    let clock = TestClock::new("2026-03-01T09:00:00Z".parse().unwrap());
    let mut scheduler = Scheduler::in_memory()
        .handler_fn(|_: Probe, cx| {
            let task = cx.client().get(cx.id())?.ok_or("it is there")?;
            let done: Option<u32> = task.progress()?;
            cx.progress(&(done.unwrap_or(0) + 10))?;
            if cx.attempt() < 3 {
                return Err("to be continued".into());
            }
            Outcome::with(&done)
        })
        .stepped(&clock)
        .unwrap();
    let id = scheduler.schedule(Probe).unwrap().id();
    scheduler.advance(Duration::from_secs(3600));
    let task = scheduler.get(id).unwrap().unwrap();
    assert_eq!(task.result().unwrap(), Some(Some(20)));
    assert_eq!(task.progress().unwrap(), Some(30));
}
