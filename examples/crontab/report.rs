//! What became of commands, for people.

use chrono::SecondsFormat;
use punctual::{Client, Filter, Payload, Result, Task};

use crate::run::Job;

/// How many commands [`log`] prints.
const MAX_LOGGED: usize = 20;
/// How many lines of its output [`print`] shows of a command that has just ended: the last.
const MAX_LINES: usize = 10;

/// Prints the newest commands with all that is kept of their output, the newest last.
pub(crate) fn log(client: &Client) -> Result<()> {
    let newest = Filter::new().kind(Job::KIND).newest_first();
    let page = client.list(&newest.limit(MAX_LOGGED))?;
    let mut tasks = page.tasks().iter().rev();
    tasks.try_for_each(|task| show(task, usize::MAX))
}

/// Prints a command and the end of its output.
pub(crate) fn print(task: &Task) -> Result<()> {
    show(task, MAX_LINES)
}

fn show(task: &Task, max_lines: usize) -> Result<()> {
    let time = task.started_at().unwrap_or(task.scheduled_at());
    let time = time.to_rfc3339_opts(SecondsFormat::Secs, true);
    let job: Job = task.payload()?;
    println!("{time} {}: {}", task.state(), job.command);
    let result = task.result::<String>()?;
    let output = result.as_deref().or(task.error()).unwrap_or_default();
    let excess = output.lines().count().saturating_sub(max_lines);
    if excess > 0 {
        println!("  | [{excess} lines before]");
    }
    for line in output.lines().skip(excess) {
        println!("  | {line}");
    }
    Ok(())
}
