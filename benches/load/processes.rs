//! W11 and W12: several processes on one file. How much they commit together and how evenly, and how soon one process runs
//! what another has scheduled.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread::sleep;
use std::time::{Duration, Instant};

use punctual::rusqlite::Connection;
use punctual::{Client, Durability, Outcome, Scheduler};

use crate::bare::{self, now};
use crate::child::{Running, Task};
use crate::quantile::{median, quantile};
use crate::report::Row;
use crate::work::Work;
use crate::{Result, Run};

/// The time until the common start, in microseconds, in which all open the file.
const LEAD: i64 = 300_000;
const PATIENCE: Duration = Duration::from_secs(60);

const LEAST_TOTAL: f64 = 0.5;
const LEAST_SHARE: f64 = 0.5;
const LONGEST_WAIT_MS: f64 = 250.0;
const MAX_WAKE_MS: f64 = 5.0;

/// W11: each process commits as fast as it can, one task per commit, FULL.
pub(crate) fn flat_out(run: &mut Run) -> Result<()> {
    let span = Duration::from_secs(if run.is_small { 1 } else { 10 });
    let mut alone = None;
    for processes in [1, 2, 4] {
        let ours = Together::run(run, "commit", processes, span)?;
        let limit = Together::run(run, "commit-bare", processes, span)?;
        let first = *alone.get_or_insert(ours.rate);
        run.report.row(&Row {
            workload: "W11",
            setting: format!("FULL, {processes} at once"),
            value: ours.rate,
            unit: "tasks/s",
            limit: limit.rate,
            ratio: Some(ours.rate / first),
            target: (processes > 1).then(|| format!("at least {LEAST_TOTAL} of one")),
            met: (processes > 1).then_some(ours.rate / first >= LEAST_TOTAL),
            note: Some(format!(
                "the ratio is to one process; the limit has SQLite's own busy timeout: least share {:.2}, longest wait {:.0} ms",
                limit.least_share, limit.longest_ms
            )),
            ..Row::default()
        });
        if processes == 1 {
            continue;
        }
        run.report.row(&Row {
            workload: "W11",
            setting: format!("{processes} at once, least share"),
            value: ours.least_share,
            unit: "of fair",
            limit: limit.least_share,
            target: Some(format!("at least {LEAST_SHARE}")),
            met: Some(ours.least_share >= LEAST_SHARE),
            ..Row::default()
        });
        run.report.row(&Row {
            workload: "W11",
            setting: format!("{processes} at once, longest wait"),
            value: ours.longest_ms,
            unit: "ms",
            limit: limit.longest_ms,
            target: Some(format!("at most {LONGEST_WAIT_MS}")),
            met: Some(ours.longest_ms <= LONGEST_WAIT_MS),
            ..Row::default()
        });
    }
    Ok(())
}

/// The results of processes that wrote at the same time.
struct Together {
    /// Commits per second of all processes together.
    rate: f64,
    /// The slowest process's commits, divided by an equal share of all.
    least_share: f64,
    longest_ms: f64,
}

impl Together {
    fn run(run: &Run, part: &str, processes: u32, span: Duration) -> Result<Self> {
        let dir = tempfile::tempdir_in(&run.folder)?;
        let file = dir.path().join("tasks.db");
        match part {
            "commit" => drop(Client::open(&file)?),
            _ => drop(bare::open(&file, Durability::PowerLoss, bare::Ids::Unique)?),
        }
        let start = now() + LEAD + i64::from(processes) * LEAD / 4;
        let task = Task {
            part,
            file: &file,
            span,
            count: start as u64,
        };
        let mut children = (0..processes)
            .map(|_| Running::start(task))
            .collect::<Result<Vec<_>>>()?;
        let (mut counts, mut longest_ms) = (Vec::new(), 0.0_f64);
        for child in &mut children {
            let line = child.line()?;
            let (count, longest) = line.split_once(' ').ok_or("a child says something else")?;
            counts.push(count.parse::<f64>()?);
            longest_ms = longest_ms.max(longest.parse::<f64>()? / 1e3);
        }
        let total: f64 = counts.iter().sum();
        let stored: f64 = match part {
            "commit" => Client::open(&file)?.stats()?.total() as f64,
            _ => Connection::open(&file)?
                .query_row("SELECT count(*) FROM task", [], |row| row.get(0))?,
        };
        if stored != total {
            return Err(format!("{stored} of {total} tasks are stored").into());
        }
        let fair = total / f64::from(processes);
        let least = counts.iter().copied().fold(f64::INFINITY, f64::min);
        Ok(Self {
            rate: total / span.as_secs_f64(),
            least_share: least / fair,
            longest_ms,
        })
    }
}

/// The child that commits until its time is over, and reports its number of commits and its longest wait in microseconds.
pub(crate) fn committer(task: Task<'_>) -> Result<()> {
    let mut store: Box<dyn FnMut(u64) -> Result<()>> = match task.part {
        "commit" => {
            let client = Client::open(task.file)?;
            Box::new(move |number| {
                client.schedule(Work::numbered(number))?;
                Ok(())
            })
        }
        _ => {
            let conn = bare::open(task.file, Durability::PowerLoss, bare::Ids::Unique)?;
            conn.busy_timeout(PATIENCE)?;
            Box::new(move |number| {
                let payload = serde_json::to_vec(&Work::numbered(number))?;
                let id = uuid::Uuid::now_v7();
                conn.prepare_cached(bare::INSERT)?
                    .execute((id.as_bytes(), payload, now()))?;
                Ok(())
            })
        }
    };
    let start = task.count as i64;
    while now() < start {
        sleep(Duration::from_millis(1));
    }
    let end = start + task.span.as_micros() as i64;
    let (mut count, mut longest, mut last) = (0, 0, now());
    while last < end {
        store(count)?;
        count += 1;
        let time = now();
        longest = longest.max(time - last);
        last = time;
    }
    println!("{count} {longest}");
    Ok(())
}

/// W12: one process schedules from time to time, another has the workers.
pub(crate) fn wake_up(run: &mut Run) -> Result<()> {
    let count = if run.is_small { 50 } else { 2_000 };
    for (part, setting) in [
        ("wake", "by another process"),
        ("wake-own", "by a bare connection"),
    ] {
        let mut waits = waits(run, part, count)?;
        // Quantiles of each separately. The target is for the time since the return.
        let since_return: Vec<f64> = waits.iter().map(|(_, returned)| *returned).collect();
        waits.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let since_call: Vec<f64> = waits.iter().map(|(called, _)| *called).collect();
        let value = quantile(&since_return, 0.99);
        run.report.row(&Row {
            workload: "W12",
            setting: format!("FULL, {setting}, p99"),
            value,
            unit: "ms",
            limit: median(&since_return),
            target: Some(format!("at most {MAX_WAKE_MS}")),
            met: Some(value <= MAX_WAKE_MS),
            note: Some(format!(
                "from the commit's return to the handler; the limit column is its p50; longest {:.2}; from the call p50 {:.2}, p99 {:.2}",
                quantile(&since_return, 1.0),
                median(&since_call),
                quantile(&since_call, 0.99)
            )),
            ..Row::default()
        });
    }
    Ok(())
}

/// For each task, the milliseconds from the call, and from the call's return, to the start of its handler in this process.
fn waits(run: &Run, part: &str, count: u64) -> Result<Vec<(f64, f64)>> {
    let dir = tempfile::tempdir_in(&run.folder)?;
    let file = dir.path().join("tasks.db");
    let (sender, starts) = channel();
    let _scheduler = Scheduler::builder(&file)
        .workers(2)
        .handler_fn(move |work: Work, _cx| {
            // After a failed measurement there is no receiver.
            let _ = sender.send((work.number, now()));
            Ok(Outcome::done())
        })
        .start()?;
    let mut child = Running::start(Task {
        part,
        file: &file,
        span: Duration::ZERO,
        count,
    })?;
    let mut told = HashMap::new();
    for _ in 0..count {
        let line = child.line()?;
        let numbers: Vec<i64> = line
            .split(' ')
            .map(str::parse)
            .collect::<std::result::Result<_, _>>()?;
        let [number, called, returned] = numbers[..] else {
            return Err(format!("a child says {line:?}").into());
        };
        told.insert(number as u64, (called, returned));
    }
    let since = |from: i64, at: i64| (at - from).max(0) as f64 / 1e3;
    let mut waits = Vec::new();
    for _ in 0..count {
        let (number, at) = starts.recv_timeout(PATIENCE)?;
        let (called, returned) = told.remove(&number).ok_or("a task ran twice")?;
        waits.push((since(called, at), since(returned, at)));
    }
    Ok(waits)
}

/// The child that schedules tasks for another process, at random moments.
pub(crate) fn caller(task: Task<'_>) -> Result<()> {
    let client = Client::open(task.file)?;
    let mut conn = bare_connection(task.file)?;
    let mut told = Vec::new();
    for number in 0..task.count {
        let due = Instant::now() + Duration::from_micros(fastrand::u64(1_000..11_000));
        sleep(due.saturating_duration_since(Instant::now()));
        let called = now();
        if task.part == "wake" {
            client.schedule(Work::numbered(number))?;
        } else {
            let tx = conn.transaction()?;
            client.sqlite()?.schedule_in(&tx, Work::numbered(number))?;
            tx.commit()?;
        }
        told.push((number, called, now()));
    }
    for (number, called, returned) in told {
        println!("{number} {called} {returned}");
    }
    Ok(())
}

fn bare_connection(file: &Path) -> Result<Connection> {
    let conn = Connection::open(file)?;
    conn.busy_timeout(PATIENCE)?;
    conn.execute_batch("PRAGMA synchronous = FULL")?;
    Ok(conn)
}
