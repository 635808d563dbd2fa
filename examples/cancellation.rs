//! A long task that reports its progress, and stops half-way when asked.
//!
//! `cargo run --example cancellation`; it ends by itself within two seconds.

use std::error::Error;
use std::time::Duration;

use punctual::{
    Cancel, EventKind, NewTask, Outcome, Payload, Received, Scheduler, TaskContext, TaskHandler,
    TaskResult, TaskState,
};
use serde::{Deserialize, Serialize};

const WAIT: Duration = Duration::from_secs(10);

#[derive(Serialize, Deserialize)]
struct Import {
    rows: u64,
}

impl Payload for Import {
    const KIND: &'static str = "import";
}

struct Importer;

impl TaskHandler for Importer {
    type Payload = Import;

    fn run(&self, import: Import, cx: &TaskContext) -> TaskResult {
        for row in 0..import.rows {
            cx.progress(&row)?;
            // The work. A handler that never checks for cancellation cannot be stopped: its thread is never killed.
            if cx.cancelled_within(Duration::from_millis(20)) {
                let reason = cx.stop_reason();
                println!("stopped at row {row}: {reason:?}");
                return Err("stopped half-way".into());
            }
        }
        Outcome::with(&import.rows)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let scheduler = Scheduler::in_memory().handler(Importer).start()?;

    // Cancelled before its start: the task will never start.
    let later = NewTask::new(Import { rows: 10 }).after(Duration::from_secs(3600));
    let later = scheduler.schedule(later)?.id();
    assert_eq!(scheduler.cancel(later)?, Cancel::Cancelled);
    assert_eq!(
        scheduler.cancel(later)?,
        Cancel::Finished(TaskState::Cancelled)
    );

    // Cancelled while it runs: the handler is asked to stop.
    let events = scheduler.events();
    let long = scheduler.schedule(Import { rows: 100_000 })?.id();
    while let Received::Event(event) = events.next_within(WAIT) {
        if event.task() == long && event.kind() == EventKind::Progressed {
            let task = scheduler.get(long)?.ok_or("it is stored")?;
            let row = task.progress::<u64>()?.unwrap_or(0);
            println!("at row {row}");
            if row >= 5 {
                break;
            }
        }
    }
    assert_eq!(scheduler.cancel(long)?, Cancel::Requested);
    let ended = scheduler.wait(long, WAIT)?.ok_or("it should have ended")?;
    assert_eq!(ended.state(), TaskState::Cancelled);

    // A task that is not cancelled completes, and its result is kept.
    let short = scheduler.schedule(Import { rows: 3 })?.id();
    let ended = scheduler.wait(short, WAIT)?.ok_or("it should have ended")?;
    assert_eq!(ended.result::<u64>()?, Some(3));
    Ok(())
}
