//! Long runs that check the crate's bounds: `cargo bench --bench long -- [backlog | log] [--small]`.
//!
//! `backlog`: ten million tasks due at once. Measures the time of an open, and during the drain the memory and the times of a
//! page of a list and of a cancel. `log`: ten seconds of writing at full speed, without and with a long reader. Measures the
//! length of the write-ahead log. Each prints its figures and fails if a bound is broken. A small run checks only sizes,
//! because times mean nothing on a busy machine.

#![expect(
    clippy::disallowed_methods,
    reason = "what takes how long is the question here"
)]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use punctual::{Client, Filter, NewTask, Outcome, Payload, Scheduler};
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const MIB: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Work(u64);

impl Payload for Work {
    const KIND: &'static str = "work";
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test` and `cargo bench -- --test` run every bench once, at its smallest size.
    let is_small = arguments
        .iter()
        .any(|each| each == "--small" || each == "--test");
    let chosen = |name: &str| {
        let names = arguments.iter().any(|each| !each.starts_with("--"));
        !names || arguments.iter().any(|each| each == name)
    };
    let dir = tempfile::tempdir_in(
        std::env::var_os("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, Into::into),
    )?;
    if chosen("backlog") {
        backlog(
            dir.path(),
            if is_small { 20_000 } else { 10_000_000 },
            is_small,
        )?;
    }
    if chosen("log") {
        let span = Duration::from_secs(if is_small { 1 } else { 10 });
        log(&dir.path().join("log.db"), span, false)?;
        log(&dir.path().join("reader.db"), span, true)?;
    }
    Ok(())
}

fn bound(what: &str, value: f64, limit: f64, unit: &str) -> Result<()> {
    println!("{what:<44} {value:>10.2} {unit:<4} (at most {limit} {unit})");
    if value <= limit {
        Ok(())
    } else {
        Err(format!("{what} is {value:.2} {unit}, over {limit}").into())
    }
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times
        .get(times.len() / 2)
        .map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

fn backlog(dir: &Path, count: u64, is_small: bool) -> Result<()> {
    let path = dir.join("backlog.db");
    let filled = Instant::now();
    Client::open(&path)?.schedule_stream((0..count).map(|n| NewTask::new(Work(n))))?;
    println!(
        "{count} tasks scheduled in {:.0} s",
        filled.elapsed().as_secs_f64()
    );

    let ran = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&ran);
    let opened = Instant::now();
    let scheduler = Scheduler::builder(&path)
        .workers(2)
        .handler_fn(move |_: Work, _cx| {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(Outcome::done())
        })
        .start()?;
    let time = |what: &str, value: f64, limit: f64, unit: &str| {
        bound(what, value, limit, unit).or_else(|error| if is_small { Ok(()) } else { Err(error) })
    };
    time("open", opened.elapsed().as_secs_f64(), 1.0, "s")?;

    let (mut lists, mut cancels) = (Vec::new(), Vec::new());
    let mut filter = Filter::all().newest_first();
    let span = Duration::from_secs(if is_small { 1 } else { 10 });
    let drained = Instant::now();
    while drained.elapsed() < span {
        let started = Instant::now();
        let page = scheduler.list(&filter)?;
        lists.push(started.elapsed());
        if let Some(task) = page.tasks().last() {
            let started = Instant::now();
            scheduler.cancel(task.id())?;
            cancels.push(started.elapsed());
        }
        match page.next() {
            Some(next) => filter = filter.after(next),
            None => filter = Filter::all().newest_first(),
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let rate = ran.load(Ordering::Relaxed) as f64 / drained.elapsed().as_secs_f64();
    println!("drained {rate:.0} tasks a second meanwhile");
    time("list, a page of 100, median", median(&mut lists), 2.0, "ms")?;
    time("cancel, median", median(&mut cancels), 2.0, "ms")?;
    bound("resident memory, peak", peak_resident_mib(), 100.0, "MiB")?;
    let _ = scheduler.shutdown(Duration::from_secs(10))?;
    Ok(())
}

/// The peak of this process's resident memory; 0 if the system does not report it.
fn peak_resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|line| line.split_whitespace().next())
        .and_then(|kib| kib.parse::<f64>().ok())
        .map_or(0.0, |kib| kib / 1024.0)
}

/// Writes as fast as it can, and watches the length of the log. A long reader keeps SQLite from starting the log anew, so
/// the log grows by what is written meanwhile. That much is allowed on top of 64 MiB, and at the end only 64 MiB.
fn log(path: &Path, span: Duration, with_reader: bool) -> Result<()> {
    let client = Client::open(path)?;
    client.schedule(NewTask::new(Work(0)))?;
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let length = || std::fs::metadata(&wal).map_or(0, |metadata| metadata.len());
    let over = AtomicBool::new(false);
    let mut peak = 0;
    let mut share = 0;
    std::thread::scope(|scope| -> Result<()> {
        for thread in 0..4_u64 {
            let (client, over) = (client.clone(), &over);
            scope.spawn(move || {
                let mut n = thread << 32;
                while !over.load(Ordering::Relaxed) {
                    let tasks = (0..100).map(|i| NewTask::new(Work(n + i)));
                    client.schedule_many(tasks).expect("the disk has room");
                    n += 100;
                }
            });
        }
        let watched = || -> Result<()> {
            if with_reader {
                let reader = punctual::rusqlite::Connection::open(path)?;
                reader.execute_batch("BEGIN; SELECT count(*) FROM punctual_meta")?;
                watch(span / 5, length, &mut share);
                reader.execute_batch("COMMIT")?;
                // The log may still grow until the next commits can start it anew.
                watch(Duration::from_millis(200), length, &mut share);
            }
            watch(span, length, &mut peak);
            Ok(())
        };
        let mut watched = watched;
        let answer = watched();
        over.store(true, Ordering::Relaxed);
        answer
    })?;
    if with_reader {
        println!("the log while a reader held it: {} MiB", share / MIB);
        // The log's file keeps its length until the log is started anew; then it is cut to 16 MiB.
        bound(
            "the log after a long reader",
            (peak / MIB) as f64,
            (64 + share / MIB) as f64,
            "MiB",
        )?;
        bound("the log at the end", (length() / MIB) as f64, 64.0, "MiB")
    } else {
        bound("the log, peak", (peak / MIB) as f64, 64.0, "MiB")
    }
}

fn watch(span: Duration, length: impl Fn() -> u64, peak: &mut u64) {
    let started = Instant::now();
    while started.elapsed() < span {
        *peak = (*peak).max(length());
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
