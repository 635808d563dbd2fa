//! When a failed task is tried again: by its handler's policy, by its own policy, or after the delay that the error asks for.
//!
//! `cargo run --example retry`; it ends by itself within two seconds.

use std::error::Error;
use std::time::Duration;

use punctual::{
    Failure, NewTask, Outcome, Payload, RetryPolicy, Scheduler, TaskContext, TaskHandler,
    TaskResult, TaskState,
};
use serde::{Deserialize, Serialize};

const MS: Duration = Duration::from_millis(1);

/// Calls a number that is busy for the first `engaged` attempts.
#[derive(Serialize, Deserialize)]
struct Call {
    number: String,
    engaged: u32,
}

impl Payload for Call {
    const KIND: &'static str = "call";
}

struct Caller;

impl TaskHandler for Caller {
    type Payload = Call;

    fn run(&self, call: Call, cx: &TaskContext) -> TaskResult {
        if call.number.is_empty() {
            return Err(Failure::fatal("there is no number to call"));
        }
        if cx.attempt() > call.engaged {
            return Ok(Outcome::done());
        }
        match call.number.as_str() {
            "busy line" => Err(Failure::retry_after(400 * MS, "call back in a moment")),
            // `?` and `into` leave the delay to the policy.
            _ => Err(format!("attempt {}: engaged", cx.attempt()).into()),
        }
    }

    /// 50, 100, 200 ms …, each up to a tenth longer or shorter, so that tasks that failed together do not return together.
    fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy::exponential(50 * MS, 1_000 * MS).jitter(0.1)
    }
}

fn call(number: &str, engaged: u32) -> NewTask {
    let number = number.to_owned();
    NewTask::new(Call { number, engaged })
}

fn main() -> Result<(), Box<dyn Error>> {
    let scheduler = Scheduler::in_memory().handler(Caller).workers(2).start()?;
    let own = call("own policy", 2).retry(RetryPolicy::delays([20 * MS, 300 * MS]));
    let calls = [
        (call("handler's policy", 3), TaskState::Completed, 4),
        (own, TaskState::Completed, 3),
        (call("busy line", 1), TaskState::Completed, 2),
        (call("nobody", 99).max_attempts(3), TaskState::Failed, 3),
        (call("", 1), TaskState::Failed, 1),
    ];
    for (call, state, attempts) in calls {
        let id = scheduler.schedule(call)?.id();
        let ended = scheduler.wait(id, 10_000 * MS)?.ok_or("not ended")?;
        println!("{}: {} {}", id, ended.state(), ended.error().unwrap_or(""));
        for attempt in scheduler.history(id)? {
            println!("  {:?} at {}", attempt.end(), attempt.ended_at());
        }
        assert_eq!((ended.state(), ended.task().attempt()), (state, attempts));
    }
    Ok(())
}
