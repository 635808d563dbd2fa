//! One file, three processes: one that only schedules tasks, as a web server would, and two that only run them.
//!
//! `cargo run --example workers`

#![allow(
    clippy::disallowed_methods,
    reason = "the library's own rules for time and threads do not bind its users"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use punctual::{Client, Filter, NewTask, Outcome, Payload, Scheduler};
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize)]
struct Resize {
    picture: u32,
}

impl Payload for Resize {
    const KIND: &'static str = "resize";
}

/// The worker process. All workers together run at most three pictures at once.
fn work(file: &Path) -> Result<()> {
    let _scheduler = Scheduler::builder(file)
        .workers(2)
        .global_limit("pictures", 3)
        .handler_fn(|resize: Resize, _cx| {
            std::thread::sleep(Duration::from_millis(5));
            println!(
                "picture {} by process {}",
                resize.picture,
                std::process::id()
            );
            Outcome::with(&std::process::id())
        })
        .start()?;
    loop {
        std::thread::park();
    }
}

/// A running worker process. Killed when dropped.
struct Worker(Child);

impl Worker {
    fn start(file: &Path) -> Result<Self> {
        let this = std::env::current_exe()?;
        Ok(Self(Command::new(this).arg("work").arg(file).spawn()?))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [part, file] = &arguments[..]
        && part == "work"
    {
        return work(Path::new(file));
    }
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("pictures.db");
    // A client runs no tasks, and needs neither handlers nor threads.
    let client = Client::open(&file)?;
    let (first, second) = (Worker::start(&file)?, Worker::start(&file)?);
    let tasks = (0..100).map(|picture| NewTask::new(Resize { picture }).queue("pictures"));
    let tasks = client.schedule_many(tasks)?;
    client.wait(tasks[20].id(), PATIENCE)?;
    // The first worker is killed. The other also runs the tasks that the first one held.
    drop(first);
    let mut by = BTreeSet::new();
    for task in &tasks {
        let ended = client.wait(task.id(), PATIENCE)?.ok_or("it does not end")?;
        by.extend(ended.result::<u32>()?);
    }
    assert!(by.contains(&second.0.id()), "{by:?}");
    assert_eq!(client.count(&Filter::new().kind("resize").unfinished())?, 0);
    Ok(())
}
