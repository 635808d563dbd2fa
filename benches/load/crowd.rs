//! W13: a file with many recurrences, none of which is due: the time to open it, and what it costs to have it open, beside a
//! file without any.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use punctual::chrono::{DateTime, Utc};
use punctual::{Client, Filter, Outcome, Recurrence, Scheduler};

use crate::bare::now;
use crate::child::{Running, Task};
use crate::idle::{Cost, SETTLE};
use crate::quantile::{listed, median};
use crate::report::Row;
use crate::work::Work;
use crate::{Result, Run, ours};

const WORKERS: usize = 2;
/// How many recurrences are stored in one transaction.
const BATCH: u64 = 1_000;
const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Asia/Kolkata",
    "Asia/Tokyo",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
];

const MAX_OPEN_MS: f64 = 1_000.0;
const MAX_BEYOND_MIB: f64 = 20.0;

pub(crate) fn run(run: &mut Run) -> Result<()> {
    let (rounds, count, span) = if run.is_small {
        (1, 100, Duration::from_millis(200))
    } else {
        (3, 100_000, Duration::from_secs(20))
    };
    let dir = tempfile::tempdir_in(&run.folder)?;
    let files = [("many.db", count), ("none.db", 0)].map(|(name, count)| -> Result<File> {
        let path = dir.path().join(name);
        fill(&path, count)?;
        Ok(File { path, count })
    });
    let [many, none] = files;
    let (many, none) = (many?, none?);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        // One opens after the other; both are idle at the same time.
        let (mut first, mut second) = (many.open(run, span)?, none.open(run, span)?);
        with.push(first.cost()?);
        without.push(second.cost()?);
    }
    report(run, count, span, &with, &without);
    Ok(())
}

fn report(run: &mut Run, count: u64, span: Duration, with: &[Kept], without: &[Kept]) {
    let each = |what: fn(&Kept) -> f64, of: &[Kept]| of.iter().map(what).collect::<Vec<f64>>();
    let mut row = |setting: &str, unit, what: fn(&Kept) -> f64, target: Target, note: &str| {
        let (ours, limit) = (each(what, with), each(what, without));
        let (value, met) = match target {
            Target::Under(most) => (median(&ours), Some(median(&ours) < most)),
            Target::Beyond(most) => {
                let beyond = median(&ours) - median(&limit);
                (beyond, most.map(|most| beyond < most))
            }
        };
        run.report.row(&Row {
            workload: "W13",
            setting: format!("{count} stored, {setting}"),
            value,
            unit,
            limit: median(&limit),
            target: target.text(),
            met,
            note: Some(format!("{note}; rounds {}", listed(&ours))),
            ..Row::default()
        });
    };
    let idle = format!("beyond a file without any, {span:?} idle; no read, no write");
    let open = Target::Under(MAX_OPEN_MS);
    let memory = Target::Beyond(Some(MAX_BEYOND_MIB));
    row("open", "ms", |kept| kept.open_ms, open, "warm");
    let mib = |kept: &Kept| kept.idle.resident_mib;
    row(
        "resident-mib",
        "MiB",
        mib,
        memory,
        "beyond a file without any",
    );
    row(
        "cpu-ms",
        "ms",
        |kept| kept.idle.cpu_ms,
        Target::Beyond(None),
        &idle,
    );
    row(
        "wakes",
        "wakes",
        |kept| kept.idle.wakes,
        Target::Beyond(None),
        &idle,
    );
}

/// What is required of a figure.
#[derive(Clone, Copy)]
enum Target {
    Under(f64),
    /// Less than this beyond the figure of a file without recurrences, if anything.
    Beyond(Option<f64>),
}

impl Target {
    fn text(self) -> Option<String> {
        match self {
            Self::Under(most) => Some(format!("under {most}")),
            Self::Beyond(most) => most.map(|most| format!("under {most} beyond")),
        }
    }
}

/// A file that is not open. Each round opens a copy.
struct File {
    path: PathBuf,
    count: u64,
}

impl File {
    /// Starts a child that has a copy open, and returns once it has opened it.
    fn open(&self, run: &Run, span: Duration) -> Result<Keeper> {
        let dir = tempfile::tempdir_in(&run.folder)?;
        let file = ours::copy(&self.path, dir.path())?;
        let mut child = Running::start(Task {
            part: "crowd",
            file: &file,
            span,
            count: self.count,
        })?;
        let open_ms = child.line()?.parse()?;
        Ok(Keeper {
            child,
            open_ms,
            _dir: dir,
        })
    }
}

struct Keeper {
    child: Running,
    open_ms: f64,
    _dir: tempfile::TempDir,
}

impl Keeper {
    fn cost(&mut self) -> Result<Kept> {
        Ok(Kept {
            open_ms: self.open_ms,
            idle: self.child.line()?.parse()?,
        })
    }
}

/// What it took to open a file, and to have it open.
struct Kept {
    open_ms: f64,
    idle: Cost,
}

/// Stores recurrences whose first slots are a day or more ahead: minutes and hours of all kinds, in several zones, and
/// intervals.
fn fill(path: &Path, count: u64) -> Result<()> {
    let client = Client::open(path)?;
    let tomorrow = now() + 24 * 3_600 * 1_000_000;
    let since = DateTime::from_timestamp_micros(tomorrow).expect("it is this year");
    for first in (0..count).step_by(BATCH as usize) {
        client.transaction(|tx| {
            for number in first..(first + BATCH).min(count) {
                tx.recur(recurrence(number, since)?)?;
            }
            Ok::<_, punctual::Error>(())
        })?;
    }
    Ok(())
}

fn recurrence(number: u64, since: DateTime<Utc>) -> punctual::Result<Recurrence> {
    let recurrence = Recurrence::new(format!("job-{number:06}"), Work::numbered(number));
    let (minute, hour) = (number % 60, number / 60 % 24);
    let zone = ZONES[(number / 7) as usize % ZONES.len()];
    let recurrence = match number % 10 {
        0 => recurrence.every(Duration::from_secs(60 + number))?,
        1 => recurrence.cron(&format!("*/{} * * * *", 1 + minute / 2))?,
        2 => recurrence
            .cron(&format!("{minute} {hour} * * MON-FRI"))?
            .time_zone(zone)?,
        _ => recurrence
            .cron(&format!("{minute} {hour} * * *"))?
            .time_zone(zone)?,
    };
    Ok(recurrence.since(since))
}

/// The child that has the file open.
///
/// # Errors
///
/// If it touched the file while it was idle, or if the file does not have the recurrences, or has a task.
pub(crate) fn keeper(task: Task<'_>) -> Result<()> {
    let opened = Instant::now();
    let scheduler = Scheduler::builder(task.file)
        .workers(WORKERS)
        .handler_fn(|_: Work, _cx| Ok(Outcome::done()))
        .start()?;
    println!("{}", opened.elapsed().as_secs_f64() * 1e3);
    // The smallest size has no time to settle.
    let cost = if task.span < SETTLE {
        let sleep = || {
            std::thread::sleep(task.span);
            Ok(())
        };
        Cost::of(sleep)?.0
    } else {
        std::thread::sleep(SETTLE);
        Cost::with_file(task.file, task.span)?
    };
    let last = format!("job-{:06}", task.count.saturating_sub(1));
    let is_stored = scheduler.recurrences().get(&last)?.is_some();
    if is_stored != (task.count > 0) || scheduler.count(&Filter::all())? != 0 {
        return Err("a recurrence is lost, or has made a task too soon".into());
    }
    cost.tell();
    Ok(())
}
