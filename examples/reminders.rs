//! Reminders: a small program to use, and to kill. A reminder that `add` has confirmed survives a kill.
//!
//! ```text
//! cargo run --example reminders -- add 10s put the kettle on
//! cargo run --example reminders -- run --once
//! ```
//!
//! The reminders are in the file that `REMINDERS_DB` names, by default `reminders.db`. Add some while `run` runs in another
//! terminal: it notices them within milliseconds. Kill it with `kill -9` and start it again: a reminder that became due
//! meanwhile is shown at once, and a reminder that was being shown may be shown again.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use punctual::{
    Cancel, Client, Filter, NewTask, Outcome, Payload, Received, Scheduler, TaskId, TaskState,
};
use serde::{Deserialize, Serialize};

const USAGE: &str =
    "usage: reminders add <when> <text>   when: 10s, 5m, 2h, 1d or 2027-01-31T09:00:00+01:00
       reminders list
       reminders cancel <id>
       reminders run [--once]       until Ctrl-C, or until nothing is pending";

#[derive(Serialize, Deserialize)]
struct Remind {
    text: String,
}

impl Payload for Remind {
    const KIND: &'static str = "remind";
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let db = std::env::var("REMINDERS_DB").unwrap_or_else(|_| "reminders.db".to_owned());
    let done = match args.as_slice() {
        ["add", when, text, more @ ..] => add(&db, when, &[&[*text], more].concat().join(" ")),
        ["list"] => list(&db),
        ["cancel", id] => cancel(&db, id),
        ["run"] => run(&db, false),
        ["run", "--once"] => run(&db, true),
        [] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn add(db: &str, when: &str, text: &str) -> Result<(), Box<dyn Error>> {
    let text = text.to_owned();
    let task = NewTask::new(Remind { text });
    let task = match DateTime::parse_from_rfc3339(when) {
        Ok(time) => task.at(time.to_utc()),
        Err(_) => task.after(delay(when).ok_or_else(|| format!("{when}: no time\n{USAGE}"))?),
    };
    println!("{}", Client::open(db)?.schedule(task)?.id());
    Ok(())
}

fn delay(text: &str) -> Option<Duration> {
    let unit_at = text.len().checked_sub(1)?;
    let (count, unit) = text.split_at_checked(unit_at)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    let count: u64 = count.parse().ok()?;
    Some(Duration::from_secs(count.checked_mul(seconds)?))
}

/// The reminders that have not been shown.
fn open() -> Filter {
    Filter::new()
        .kind(Remind::KIND)
        .state(TaskState::Pending)
        .state(TaskState::Running)
}

fn list(db: &str) -> Result<(), Box<dyn Error>> {
    let client = Client::open(db)?;
    let mut filter = open();
    loop {
        let page = client.list(&filter)?;
        for task in page.tasks() {
            let due = task
                .scheduled_at()
                .to_rfc3339_opts(SecondsFormat::Secs, true);
            println!("{}  {due}  {}", task.id(), task.payload::<Remind>()?.text);
        }
        match page.next() {
            Some(next) => filter = filter.after(next),
            None => return Ok(()),
        }
    }
}

fn cancel(db: &str, id: &str) -> Result<(), Box<dyn Error>> {
    let id: TaskId = id.parse()?;
    match Client::open(db)?.cancel(id)? {
        Cancel::Cancelled => println!("cancelled"),
        Cancel::Requested => println!("too late: it is being shown"),
        Cancel::Finished(state) => println!("too late: it is {state}"),
    }
    Ok(())
}

fn run(db: &str, once: bool) -> Result<(), Box<dyn Error>> {
    let scheduler = Scheduler::builder(db)
        .handler_fn(|remind: Remind, cx| {
            let due = cx.scheduled_at().to_rfc3339_opts(SecondsFormat::Secs, true);
            println!("{due}  {}", remind.text);
            Ok(Outcome::done())
        })
        .workers(1)
        .start()?;
    let events = scheduler.events();
    while !once || scheduler.count(&open())? > 0 {
        // Events are only of this process, and another may add or cancel a reminder: count every second.
        if matches!(events.next_within(Duration::from_secs(1)), Received::Ended) {
            break;
        }
    }
    let stopped = scheduler.shutdown(Duration::from_secs(5))?;
    assert_eq!(stopped.still_running(), 0);
    Ok(())
}
