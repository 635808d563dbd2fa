//! Two ways to follow tasks: wait for one, or subscribe to the events of all.
//!
//! `cargo run --example events`; it ends by itself within a second.

use std::error::Error;
use std::time::Duration;

use punctual::{
    Event, EventKind, NewTask, Outcome, Payload, Received, RetryPolicy, Scheduler, TaskState,
};
use serde::{Deserialize, Serialize};

const WAIT: Duration = Duration::from_secs(10);

#[derive(Serialize, Deserialize)]
struct Square {
    of: i64,
}

impl Payload for Square {
    const KIND: &'static str = "square";
}

fn main() -> Result<(), Box<dyn Error>> {
    let scheduler = Scheduler::in_memory()
        .handler_fn(|square: Square, cx| {
            if square.of == 13 && cx.attempt() == 1 {
                return Err("13 needs a second try".into());
            }
            Outcome::with(&(square.of * square.of))
        })
        .retry_policy(Square::KIND, RetryPolicy::fixed(Duration::from_millis(50)))
        .start()?;
    // Subscribe first: a subscription has no earlier events.
    let events = scheduler.events();

    // One task: wait for its end, with its result.
    let four = scheduler.schedule(Square { of: 4 })?.id();
    let ended = scheduler.wait(four, WAIT)?.ok_or("not within the time")?;
    assert_eq!(ended.state(), TaskState::Completed);
    assert_eq!(ended.result::<i64>()?, Some(16));
    // A wait is bounded: `None` says that the task has not ended yet.
    let tomorrow = NewTask::new(Square { of: 5 }).after(Duration::from_secs(24 * 3600));
    let tomorrow = scheduler.schedule(tomorrow)?.id();
    assert!(
        scheduler
            .wait(tomorrow, Duration::from_millis(10))?
            .is_none()
    );

    // All tasks: an event comes after the change that it reports is stored.
    let thirteen = scheduler.schedule(Square { of: 13 })?.id();
    let mut told: Vec<Event> = Vec::new();
    while let Received::Event(event) = events.next_within(WAIT) {
        println!("{} {:?} {}", event.at(), event.kind(), event.task());
        let last = event.task() == thirteen && event.kind() == EventKind::Completed;
        told.push(event);
        if last {
            break;
        }
    }
    let of = |id| -> Vec<EventKind> {
        let own = told.iter().filter(|event| event.task() == id);
        own.map(Event::kind).collect()
    };
    use EventKind::{Claimed, Completed, Retrying, Scheduled};
    assert_eq!(of(four), [Scheduled, Claimed, Completed]);
    assert_eq!(of(tomorrow), [Scheduled]);
    assert_eq!(
        of(thirteen),
        [Scheduled, Claimed, Retrying, Claimed, Completed]
    );
    // A subscription's buffer is bounded: a slow reader loses events, and `lost` counts them.
    assert_eq!(events.lost(), 0);
    Ok(())
}
