//! W8: the time from the call that schedules an immediate task to the start of its handler, in files of several mixes, beside
//! a bare insert and claim in a file of the same mix. The two alternate, task by task.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use punctual::rusqlite::Connection;
use punctual::{Outcome, Retention, Scheduler, TaskState};

use crate::mix::{self, Mix};
use crate::quantile::{median, quantile};
use crate::report::Row;
use crate::work::Work;
use crate::{Result, Run, bare, ours};

const WORKERS: usize = 2;
/// How many tasks of each side are measured, and how many are run before them.
const TASKS: usize = 400;
const WARM_UP: usize = 50;
/// The pause between two tasks, so that the workers sleep.
const PAUSE: Duration = Duration::from_millis(1);
/// A task that has not started after this long counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// The most that ours may take beyond the limit, in milliseconds.
const MAX_BEYOND: f64 = 0.15;
/// The most that the time may grow with ten times the tasks, as a factor.
const MAX_GROWTH: f64 = 1.5;

pub(crate) fn run(run: &mut Run) -> Result<()> {
    let count = if run.is_small { 2_000 } else { 1_000_000 };
    measure(run, Mix::Empty, 0)?;
    for mix in Mix::FILLED {
        let (value, limit) = measure(run, mix, count)?;
        if run.is_large {
            let (large, large_limit) = measure(run, mix, 10 * count)?;
            let growth = large / value;
            run.report.row(&Row {
                workload: "W8",
                setting: format!("FULL, ten times {mix}"),
                value: growth,
                unit: "times",
                limit: large_limit / limit,
                target: Some(format!("at most {MAX_GROWTH}")),
                met: Some(growth <= MAX_GROWTH),
                ..Row::default()
            });
        }
    }
    Ok(())
}

/// Prints the row of one file, and returns the medians of ours and the limit in milliseconds.
fn measure(run: &mut Run, mix: Mix, count: u64) -> Result<(f64, f64)> {
    // Dropped on return: its files are removed before the next are made.
    let dir = tempfile::tempdir_in(&run.folder)?;
    let (path, bare_path) = (dir.path().join("ours.db"), dir.path().join("bare.db"));
    mix::fill(&path, mix, count)?;
    mix::fill_bare(&bare_path, mix, count)?;
    let ours = Ours::start(&path)?;
    let conn = bare::open(
        &bare_path,
        punctual::Durability::PowerLoss,
        bare::Ids::Unique,
    )?;
    let mut limit = Limit::new(&conn)?;

    let tasks = if run.is_small { 20 } else { TASKS };
    let (mut values, mut after, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..WARM_UP + tasks {
        std::thread::sleep(PAUSE);
        let (value, call) = ours.once(number as u64)?;
        std::thread::sleep(PAUSE);
        let bare = limit.once(number as u64)?;
        if number >= WARM_UP {
            values.push(value);
            after.push(value - call);
            limits.push(bare);
        }
    }
    ours.end(mix, count, WARM_UP + tasks)?;
    let neighbours = values.iter().zip(&limits);
    let beyond: Vec<f64> = neighbours.map(|(ours, bare)| ours - bare).collect();
    let (value, limit) = (median(&values), median(&limits));
    let setting = match mix {
        Mix::Empty => format!("FULL, {mix}"),
        _ => format!("FULL, {count} {mix}"),
    };
    run.report.row(&Row {
        workload: "W8",
        setting,
        value,
        unit: "ms",
        limit,
        target: Some(format!("at most bare + {MAX_BEYOND}")),
        met: Some(value <= limit + MAX_BEYOND),
        note: Some(format!(
            "beyond its neighbour {:+.3}; started after the call's return {:+.3}; p95 {:.3}, bare {:.3}",
            median(&beyond),
            median(&after),
            quantile(&values, 0.95),
            quantile(&limits, 0.95)
        )),
        ..Row::default()
    });
    Ok((value, limit))
}

/// A scheduler that reports when a handler starts.
struct Ours {
    scheduler: Scheduler,
    starts: Receiver<(u64, Instant)>,
}

impl Ours {
    fn start(path: &std::path::Path) -> Result<Self> {
        let (sender, starts) = channel();
        let scheduler = Scheduler::builder(path)
            .workers(WORKERS)
            .sqlite(punctual::SqliteSettings::default().page_cache_bytes(ours::CACHE_BYTES))
            .retention(Retention::forever())
            .handler_fn(move |work: Work, _cx| {
                let at = Instant::now();
                // After a failed measurement there is no receiver.
                let _ = sender.send((work.number, at));
                Ok(Outcome::done())
            })
            .start()?;
        Ok(Self { scheduler, starts })
    }

    /// Runs one task. Returns the milliseconds from the call to the start of the handler, and to the call's return.
    fn once(&self, number: u64) -> Result<(f64, f64)> {
        let called = Instant::now();
        self.scheduler.schedule(Work::numbered(number))?;
        let call = called.elapsed();
        let (started, at) = self.starts.recv_timeout(PATIENCE)?;
        if started != number {
            return Err(format!("{started} started, not {number}").into());
        }
        Ok((millis(at - called), millis(call)))
    }

    /// # Errors
    ///
    /// If a task was lost, or a task ran that must not run.
    fn end(self, mix: Mix, count: u64, ran: usize) -> Result<()> {
        let _ = self.scheduler.shutdown(PATIENCE)?;
        let stats = self.scheduler.stats()?;
        let completed = ran as u64 + if mix == Mix::Completed { count } else { 0 };
        let found = (stats.count(TaskState::Completed), stats.total());
        if found != (completed, ran as u64 + count) {
            return Err(format!("{mix}: {found:?} are completed and stored").into());
        }
        Ok(())
    }
}

/// Claims a stored task.
const CLAIM: &str = "
    UPDATE task SET state = 1, owner = 1, attempt = attempt + 1
    WHERE seq = (SELECT seq FROM task WHERE state = 0 AND due <= ?1 ORDER BY due, seq LIMIT 1)
    RETURNING seq, id, kind, payload, attempt";

const COMPLETE: &str = "UPDATE task SET state = 2 WHERE seq = ?1";

/// The bare insert, synced, and the bare claim, which need not be. Both use one connection: a write by another connection
/// would empty the page cache, which costs more than the pragma that changes the level.
struct Limit<'a> {
    conn: &'a Connection,
    insert: punctual::rusqlite::Statement<'a>,
    claim: punctual::rusqlite::Statement<'a>,
    complete: punctual::rusqlite::Statement<'a>,
}

impl<'a> Limit<'a> {
    fn new(conn: &'a Connection) -> Result<Self> {
        Ok(Self {
            conn,
            insert: conn.prepare(bare::INSERT)?,
            claim: conn.prepare(CLAIM)?,
            complete: conn.prepare(COMPLETE)?,
        })
    }

    /// Runs one task. Returns the milliseconds from the call to the end of the claim.
    fn once(&mut self, number: u64) -> Result<f64> {
        let called = Instant::now();
        let payload = serde_json::to_vec(&Work::numbered(number))?;
        bare::New::now(&payload).insert(&mut self.insert)?;
        self.conn.execute_batch("PRAGMA synchronous = NORMAL")?;
        let (seq, claimed): (i64, Vec<u8>) = self
            .claim
            .query_row([bare::now()], |row| Ok((row.get(0)?, row.get(3)?)))?;
        let work: Work = serde_json::from_slice(&claimed)?;
        let elapsed = called.elapsed();
        if work.number != number {
            return Err(format!("the limit claimed {}, not {number}", work.number).into());
        }
        self.complete.execute([seq])?;
        self.conn.execute_batch("PRAGMA synchronous = FULL")?;
        Ok(millis(elapsed))
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
