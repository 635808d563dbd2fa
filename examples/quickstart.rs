//! A first look: a task for now, a task for later, one that fails and is tried again, and one that is cancelled.
//!
//! `cargo run --example quickstart`; it ends by itself within two seconds.

use std::error::Error;
use std::time::Duration;

use punctual::{
    Cancel, Filter, NewTask, Outcome, Payload, RetryPolicy, Scheduler, TaskContext, TaskHandler,
    TaskResult, TaskState,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Remind {
    user: u64,
    text: String,
}

impl Payload for Remind {
    const KIND: &'static str = "remind";
}

struct Reminder;

impl TaskHandler for Reminder {
    type Payload = Remind;

    fn run(&self, remind: Remind, cx: &TaskContext) -> TaskResult {
        if remind.text == "tea" && cx.attempt() == 1 {
            println!("  tea: the kettle is cold, so this attempt fails");
            return Err("the kettle is cold".into());
        }
        println!("  user {}: {}", remind.user, remind.text);
        Ok(Outcome::done())
    }

    fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy::fixed(Duration::from_millis(300))
    }
}

fn remind(text: &str) -> Remind {
    let text = text.to_owned();
    Remind { user: 7, text }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let scheduler = Scheduler::builder(dir.path().join("app.db"))
        .handler(Reminder)
        .workers(2)
        .start()?;

    let soon = Duration::from_millis(500);
    let next_week = Duration::from_secs(7 * 24 * 3600);
    let lunch = scheduler.schedule(NewTask::new(remind("lunch")).after(soon))?;
    let review = scheduler.schedule(NewTask::new(remind("review")).after(next_week))?;

    println!("pending:");
    let pending = Filter::new().kind("remind").state(TaskState::Pending);
    for task in scheduler.list(&pending)? {
        let remind: Remind = task.payload()?;
        println!("  {} at {}", remind.text, task.scheduled_at());
    }
    assert_eq!(scheduler.cancel(review.id())?, Cancel::Cancelled);

    println!("running:");
    let now = scheduler.schedule(remind("stand up"))?.id();
    let tea = scheduler.schedule(remind("tea"))?.id();
    for id in [now, tea, lunch.id()] {
        let ended = scheduler.wait(id, Duration::from_secs(10))?;
        assert_eq!(ended.ok_or("not ended")?.state(), TaskState::Completed);
    }
    assert_eq!(scheduler.history(tea)?.len(), 2);
    assert_eq!(scheduler.count(&pending)?, 0);
    let stopped = scheduler.shutdown(Duration::from_secs(5))?;
    assert_eq!(stopped.still_running(), 0);
    Ok(())
}
