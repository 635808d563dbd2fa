//! The order of tasks: priorities within a queue, a cap on a queue, a paused queue.
//!
//! `cargo run --example priorities`; it ends by itself within a second.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use punctual::{Filter, NewTask, Outcome, Payload, Scheduler, TaskState};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Print {
    page: String,
}

impl Payload for Print {
    const KIND: &'static str = "print";
}

fn print(page: &str) -> NewTask {
    let page = page.to_owned();
    NewTask::new(Print { page }).queue("printer")
}

fn main() -> Result<(), Box<dyn Error>> {
    let printed = Arc::new(Mutex::new(Vec::new()));
    let paper = Arc::clone(&printed);
    let scheduler = Scheduler::in_memory()
        .workers(4)
        // One printer: at most one page at a time, however many workers are free.
        .queue("printer", 1)
        .handler_fn(move |print: Print, _cx| {
            println!("{}", print.page);
            let mut paper = paper.lock().unwrap_or_else(PoisonError::into_inner);
            paper.push(print.page);
            Ok(Outcome::done())
        })
        .start()?;

    // While the queue is paused, tasks are stored and wait. Then all are there, and run in order.
    scheduler.pause("printer")?;
    let tasks = [
        print("3 a page like any other"),
        print("4 another one, scheduled later"),
        print("5 the archive, whenever there is time").priority(9),
        print("2 a letter").priority(1),
        print("1 the fire alarm plan").priority(0),
    ];
    scheduler.schedule_many(tasks)?;
    let waiting = Filter::new().queue("printer").state(TaskState::Pending);
    assert_eq!(scheduler.count(&waiting)?, 5);
    assert_eq!(scheduler.health().paused_queues(), ["printer"]);

    scheduler.resume("printer")?;
    for task in scheduler.list(&Filter::new().queue("printer"))? {
        let ended = scheduler.wait(task.id(), Duration::from_secs(10))?;
        assert!(ended.is_some(), "it should have ended by now");
    }
    let printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(printed.is_sorted() && printed.len() == 5, "{printed:?}");
    Ok(())
}
