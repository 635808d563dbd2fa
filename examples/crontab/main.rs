//! A small cron: the commands of a crontab as durable tasks, with their output kept.
//!
//! `cargo run --example crontab` runs the `@reboot` lines of `examples/data/crontab`, checks what they did, and ends by itself
//! within seconds. `cargo run --example crontab -- FILE` runs a crontab of your own until Ctrl-C. A crontab with a bad line is
//! refused as a whole, with each bad line and its column. It is read once: after an edit start the program again.
//!
//! The tasks are in DB, by default `FILE.db`, which belongs to one crontab. Its recurrences are named by the text of their
//! lines, so the same file again changes nothing, and a changed one adds and removes what has changed.
//!
//! As in cron:
//! - A command is never started twice for one time: each is delivered at most once. If this program is killed with
//!   `kill -9`, its commands run on, their output is lost, and the next start records them as failed, with the error
//!   `interrupted`.
//! - A command that fails is not tried again, and one that takes long runs beside its successor.
//! - Times at which the program did not run are skipped, except those of the last minute.
//! - Times are local, or those of `CRON_TZ`, and a command in the night on which clocks are changed runs once.
//! - `SHELL`, `PATH` and `HOME` can be set for the lines that follow, as any other variable.
//!
//! Unlike cron: `MAILTO` is ignored, and the output kept; at most [`WORKERS`] commands run at once, and one that waits for over
//! a minute does not start; and commands run in the current directory, unless `HOME` is set.

#![allow(
    clippy::disallowed_methods,
    reason = "the library's own rules for time and threads do not bind its users"
)]

mod agenda;
mod demo;
mod parse;
mod report;
mod run;
mod table;
mod words;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::Utc;
use punctual::{Client, EventKind, Filter, Payload, Received, Retention, Scheduler};

use parse::Crontab;
use run::{Job, Shell, TERMINATION};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "usage: crontab FILE [--db DB] [--once | --next N | --log]
       --once     run the @reboot lines and what is due, and end
       --next N   print the next N commands, and run none
       --log      print the last commands and their output";

/// How many commands run at once.
const WORKERS: usize = 64;
/// How many commands are announced at the start.
const ANNOUNCED: usize = 5;
/// How long commands may go on by themselves after Ctrl-C.
const PATIENCE: Duration = Duration::from_secs(3);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// Set by Ctrl-C and by SIGTERM.
static STOP: AtomicBool = AtomicBool::new(false);

#[derive(PartialEq)]
enum Mode {
    Run,
    Once,
    Next(usize),
    Log,
}

fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let Some(file) = args.next() else {
        demo::run()?;
        return Ok(ExitCode::SUCCESS);
    };
    if file.starts_with('-') {
        return Err(USAGE.into());
    }
    let (mut db, mut mode) = (PathBuf::from(format!("{file}.db")), Mode::Run);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--db" => db = args.next().ok_or(USAGE)?.into(),
            "--once" => mode = Mode::Once,
            "--next" => {
                let count = args.next().and_then(|count| count.parse().ok());
                mode = Mode::Next(count.ok_or(USAGE)?);
            }
            "--log" => mode = Mode::Log,
            _ => return Err(USAGE.into()),
        }
    }
    let Some(crontab) = read(&file)? else {
        return Ok(ExitCode::FAILURE);
    };
    match mode {
        Mode::Next(count) => agenda::print(&crontab.entries, Utc::now(), count),
        Mode::Log => report::log(&Client::open(db)?)?,
        Mode::Run | Mode::Once => {
            ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed))?;
            serve(&crontab, &db, &mode)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a crontab; `None` if it has bad lines, which are printed.
fn read(file: &str) -> Result<Option<Crontab>> {
    let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    // Bytes that are no UTF-8 become a character that is refused, but in comments.
    let text = String::from_utf8_lossy(&bytes);
    match parse::parse(&text, agenda::local_zone()) {
        Ok(crontab) => Ok(Some(crontab)),
        Err(faults) => {
            for fault in faults {
                eprintln!("{file}:{fault}");
            }
            Ok(None)
        }
    }
}

/// Runs a crontab until Ctrl-C, or until no command waits or runs.
fn serve(crontab: &Crontab, db: &Path, mode: &Mode) -> Result<()> {
    for notice in &crontab.notices {
        println!("{notice}");
    }
    // Before a scheduler has the file open: it would start commands of lines that are no longer there.
    let stored = table::store(&Client::open(db)?, &crontab.entries)?;
    println!("{stored}");
    agenda::print(&crontab.entries, Utc::now(), ANNOUNCED);

    let scheduler = Scheduler::builder(db)
        .handler(Shell)
        .workers(WORKERS)
        .retention(Retention::default().completed(WEEK))
        .start()?;
    let events = scheduler.events();
    table::reboot(&scheduler, &crontab.entries)?;
    let unfinished = Filter::new().kind(Job::KIND).unfinished();
    while !STOP.load(Ordering::Relaxed) {
        match events.next_within(Duration::from_millis(100)) {
            Received::Event(event) => show(&scheduler, &event)?,
            Received::Nothing if *mode == Mode::Once && scheduler.count(&unfinished)? == 0 => break,
            Received::Nothing => {}
            Received::Ended => return Err("the store has stopped".into()),
        }
    }
    // Commands are asked to end when the first call's time is over.
    scheduler.shutdown(PATIENCE)?;
    let stopped = scheduler.shutdown(TERMINATION + PATIENCE)?;
    for event in events {
        show(&scheduler, &event)?;
    }
    assert_eq!(stopped.still_running(), 0);
    Ok(())
}

/// Prints a command that has ended.
fn show(client: &Client, event: &punctual::Event) -> Result<()> {
    let is_end = matches!(event.kind(), EventKind::Completed | EventKind::Failed);
    if is_end && let Some(task) = client.get(event.task())? {
        report::print(&task)?;
    }
    Ok(())
}
