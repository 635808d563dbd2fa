//! One file, three processes: one that only schedules, as a web server would, and two that only run.
//!
//! `cargo run --example workers`

#![allow(
    clippy::disallowed_methods,
    reason = "the library's own rules for time and threads do not bind its users"
)]

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use punctual::{Client, Filter, NewTask, Outcome, Payload, Scheduler, TaskState};
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Serialize, Deserialize)]
struct Resize {
    picture: u32,
}

impl Payload for Resize {
    const KIND: &'static str = "resize";
}

/// A worker: it has the handler, and no more than two pictures are in hand at once in all processes together.
fn work(file: &Path) -> Result<()> {
    let _scheduler = Scheduler::builder(file)
        .workers(2)
        .global_limit("pictures", 2)
        .handler_fn(|resize: Resize, _cx| {
            std::thread::sleep(Duration::from_millis(5));
            Outcome::with(&format!(
                "picture {} by process {}",
                resize.picture,
                std::process::id()
            ))
        })
        .start()?;
    loop {
        std::thread::park();
    }
}

fn start_worker(file: &Path) -> Result<Child> {
    let this = std::env::current_exe()?;
    Ok(Command::new(this).arg("work").arg(file).spawn()?)
}

fn main() -> Result<()> {
    if let [_, _, file] = &std::env::args().collect::<Vec<_>>()[..] {
        return work(Path::new(file));
    }
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("pictures.db");
    // It runs nothing: a client needs neither handlers nor threads.
    let client = Client::open(&file)?;
    let mut workers = [start_worker(&file)?, start_worker(&file)?];
    for picture in 0..100 {
        client.schedule(NewTask::new(Resize { picture }).queue("pictures"))?;
    }
    // One of them dies: the other goes on with what it had in hand.
    let first = client.list(&Filter::new().kind("resize").limit(1))?;
    client.wait(first.tasks()[0].id(), Duration::from_secs(30))?;
    workers[0].kill()?;
    let mut makers = std::collections::BTreeSet::new();
    for task in client
        .list(&Filter::new().kind("resize").limit(100))?
        .tasks()
    {
        let ended = client
            .wait(task.id(), Duration::from_secs(30))?
            .ok_or("it does not end")?;
        assert_eq!(ended.state(), TaskState::Completed);
        let made: String = ended.result()?.ok_or("it has no result")?;
        println!("{made}");
        makers.extend(made.rsplit_once(' ').map(|(_, process)| process.to_owned()));
    }
    assert!(
        makers.contains(&workers[1].id().to_string()),
        "the other worked on"
    );
    workers[1].kill()?;
    workers
        .iter_mut()
        .try_for_each(|worker| worker.wait().map(drop))?;
    Ok(())
}
