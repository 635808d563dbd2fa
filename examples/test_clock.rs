//! Tests today what a program does tomorrow: the clock moves by hand, and handlers run on the test's own thread.
//!
//! `cargo run --example test_clock`; it ends by itself at once. A program's own tests need the feature `testing`:
//! `punctual = { version = "0.1", features = ["testing"] }` among the dev-dependencies.

use std::error::Error;
use std::time::Duration;

use punctual::testing::TestClock;
use punctual::{NewTask, Outcome, Payload, Scheduler, TaskContext, TaskHandler, TaskResult};
use serde::{Deserialize, Serialize};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Waters the plants, and schedules the next time.
#[derive(Clone, Serialize, Deserialize)]
struct Water {
    every: Duration,
}

impl Payload for Water {
    const KIND: &'static str = "water";
}

struct Gardener;

impl TaskHandler for Gardener {
    type Payload = Water;

    fn run(&self, water: Water, cx: &TaskContext) -> TaskResult {
        println!("watering at {}", cx.scheduled_at());
        // Counted from the due time, not from now: a late start must not delay all later ones.
        let next = cx.scheduled_at() + water.every;
        cx.client().schedule(NewTask::new(water).at(next))?;
        Ok(Outcome::done())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let clock = TestClock::new("2026-12-31T08:00:00Z".parse()?);
    let mut scheduler = Scheduler::in_memory().handler(Gardener).stepped(&clock)?;
    let every = DAY / 2;
    let first = NewTask::new(Water { every }).after(DAY);
    let first = scheduler.schedule(first)?.id();

    assert_eq!(scheduler.drain(), 0, "nothing is due today");
    assert_eq!(scheduler.advance(DAY), 1, "the first is due tomorrow");
    assert_eq!(scheduler.advance(2 * DAY), 4, "and then twice a day");
    assert_eq!(clock.now().to_rfc3339(), "2027-01-03T08:00:00+00:00");
    let first = scheduler.get(first)?;
    assert!(first.is_none(), "it ended over a day ago and was pruned");

    // The program does not run for two days: the missed waterings run late, one after the other.
    clock.advance(2 * DAY);
    assert_eq!(scheduler.drain(), 4);
    assert_eq!(scheduler.advance(DAY / 4), 0, "and now it is on time again");
    Ok(())
}
