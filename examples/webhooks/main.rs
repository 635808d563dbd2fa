//! Webhooks: signed deliveries to a receiver that refuses, stalls and hangs up, until each has been accepted.
//!
//! `cargo run --example webhooks` sends `examples/data/deliveries.jsonl` and ends by itself in about ten seconds.
//! `cargo run --example webhooks -- --db FILE [DELIVERIES]` keeps the tasks in FILE: kill it half-way, also with `kill -9`,
//! run the same command again, and it goes on where it was. DELIVERIES is a file of JSON lines `{"id": UUID, "body": ..}`;
//! `-` reads them from stdin.
//! `cargo run --example webhooks -- --in-flight 2000` sends 2,000 at once by an async handler, to a receiver that takes a second
//! for each: they wait without a thread each. The guarantees, and the counts that show them, are the same.
//!
//! The id of a delivery is the id of its task, so giving the same deliveries again adds nothing. It is also the `webhook-id`
//! by which the receiver recognises repetitions: each is delivered at least once, and accepted once. Deliveries are signed
//! as the [Standard Webhooks](https://www.standardwebhooks.com) specification says. The receiver is this program again, as
//! another process.

#![allow(
    clippy::disallowed_methods,
    reason = "the library's own rules for time and threads do not bind its users"
)]

mod receiver;
mod sender;

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use punctual::uuid::Uuid;
use punctual::{
    EventKind, Events, Filter, NewTask, Payload, Retention, Scheduler, TaskId, TaskState,
};
use serde::Deserialize;

use receiver::{Receiver, Report};
use sender::{AsyncSender, Deliver, InFlight, Sender};

const DELIVERIES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/examples/data/deliveries.jsonl"
);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// One line of the input.
#[derive(Deserialize)]
struct Delivery {
    id: TaskId,
    body: serde_json::Value,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (mut db, mut input) = (None, PathBuf::from(DELIVERIES));
    let mut in_flight = None;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "receiver" | "slow-receiver" => {
                let file = args.next().ok_or("which file?")?;
                return receiver::run(Path::new(&file), arg == "slow-receiver");
            }
            "--in-flight" => {
                let count = args.next().ok_or("--in-flight needs a number")?;
                in_flight = Some(count.parse()?);
            }
            "--db" => db = Some(PathBuf::from(args.next().ok_or("--db needs a file")?)),
            _ => input = PathBuf::from(arg),
        }
    }
    let fresh = tempfile::tempdir()?;
    let db = db.unwrap_or_else(|| fresh.path().join("webhooks.db"));
    let deliveries = read(&input)?;
    match in_flight {
        Some(count) => send_at_once(&db, &repeated(&deliveries, count), count),
        None => send(&db, &deliveries),
    }
}

/// As many deliveries, with ids of their own.
fn repeated(deliveries: &[Delivery], count: usize) -> Vec<Delivery> {
    let numbered = |(number, delivery): (u128, &Delivery)| Delivery {
        id: Uuid::from_u128((7 << 76) + number).into(),
        body: delivery.body.clone(),
    };
    (0..)
        .zip(deliveries.iter().cycle().take(count))
        .map(numbered)
        .collect()
}

fn send_at_once(db: &Path, deliveries: &[Delivery], count: usize) -> Result<(), Box<dyn Error>> {
    let receiver = Receiver::start(&db.with_extension("accepted"), true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let in_flight = Arc::<InFlight>::default();
    let scheduler = Scheduler::builder(db)
        .async_handler(AsyncSender::new(receiver.url(), Arc::clone(&in_flight))?)
        .max_in_flight(count)
        .spawner(runtime.handle().clone())
        .retention(Retention::default().completed(30 * DAY))
        .start()?;
    deliver(&scheduler, receiver, deliveries)?;
    println!("at most {} were in flight at once", in_flight.most());
    Ok(())
}

fn read(input: &Path) -> Result<Vec<Delivery>, Box<dyn Error>> {
    let lines: Box<dyn BufRead> = match input.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(BufReader::new(File::open(input)?)),
    };
    lines
        .lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect()
}

fn send(db: &Path, deliveries: &[Delivery]) -> Result<(), Box<dyn Error>> {
    let receiver = Receiver::start(&db.with_extension("accepted"), false)?;
    let scheduler = Scheduler::builder(db)
        .handler(Sender::new(receiver.url())?)
        .workers(4)
        // A repeated delivery is recognised for as long as its task is kept.
        .retention(Retention::default().completed(30 * DAY))
        .start()?;
    deliver(&scheduler, receiver, deliveries)
}

/// Stores the deliveries, and returns when each has been accepted.
fn deliver(
    scheduler: &Scheduler,
    receiver: Receiver,
    deliveries: &[Delivery],
) -> Result<(), Box<dyn Error>> {
    let events = scheduler.events();
    let stored = scheduler.schedule_stream(deliveries.iter().map(|delivery| {
        let body = delivery.body.to_string();
        NewTask::new(Deliver { body }).id(delivery.id)
    }))?;
    println!(
        "{} deliveries: {} new, {} stored before",
        deliveries.len(),
        stored.new_count(),
        stored.existing_count()
    );

    show_progress(scheduler, &events)?;
    let stopped = scheduler.shutdown(Duration::from_secs(5))?;
    assert_eq!(stopped.still_running(), 0);
    let (sent, attempts, most) = attempts(scheduler)?;
    let report = receiver.stop()?;
    println!("{sent} were sent in {attempts} attempts, at most {most} for one");
    println!("{report}");
    check(scheduler, sent, &report)
}

/// Returns when every delivery has ended.
fn show_progress(scheduler: &Scheduler, events: &Events) -> Result<(), Box<dyn Error>> {
    let bar = ProgressBar::no_length().with_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} {elapsed} {msg}",
    )?);
    let mut failed_attempts = 0;
    loop {
        let stats = scheduler.stats()?;
        let open = stats.count(TaskState::Pending) + stats.count(TaskState::Running);
        bar.set_length(stats.total());
        bar.set_position(stats.total() - open);
        if open == 0 {
            bar.finish();
            return Ok(());
        }
        // The scheduler keeps running: no event for now and the end of all events mean the same here.
        let first = events.next_within(Duration::from_millis(50)).event();
        let news = first
            .into_iter()
            .chain(std::iter::from_fn(|| events.try_next().event()));
        failed_attempts += news
            .filter(|event| event.kind() == EventKind::Retrying)
            .count();
        bar.set_message(format!("{failed_attempts} attempts failed"));
    }
}

/// The number of deliveries, of all their attempts, and of the attempts of the one tried most often.
fn attempts(scheduler: &Scheduler) -> punctual::Result<(u64, u64, u32)> {
    let mut filter = Filter::new().kind(Deliver::KIND);
    let (mut sent, mut attempts, mut most) = (0, 0, 0);
    loop {
        let page = scheduler.list(&filter)?;
        for task in page.tasks() {
            sent += 1;
            attempts += u64::from(task.attempt());
            most = most.max(task.attempt());
        }
        match page.next() {
            Some(next) => filter = filter.after(next),
            None => return Ok((sent, attempts, most)),
        }
    }
}

fn check(scheduler: &Scheduler, sent: u64, report: &Report) -> Result<(), Box<dyn Error>> {
    let completed = Filter::new()
        .kind(Deliver::KIND)
        .state(TaskState::Completed);
    assert_eq!(scheduler.count(&completed)?, sent, "all are completed");
    assert_eq!(report.accepted, sent, "each was accepted, once");
    assert_eq!(report.forged, 0, "every signature was right");
    Ok(())
}
