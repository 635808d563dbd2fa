//! W7: the cost of an idle scheduler, beside a bare process that wakes once a second.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use punctual::{NewTask, Outcome, Scheduler, TaskState};

use crate::child::{Running, Task};
use crate::pairs::processor_time;
use crate::quantile::{listed, median};
use crate::report::Row;
use crate::work::Work;
use crate::{Result, Run};

const TASKS: u64 = 1_000;
const WORKERS: usize = 2;
/// How long a process may take to become idle.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);

/// The most processor time beyond the bare process's, and the most memory.
const MAX_CPU_MS: f64 = 5.0;
const MAX_RESIDENT_MIB: f64 = 20.0;

pub(crate) fn run(run: &mut Run) -> Result<()> {
    let (rounds, seconds) = if run.is_small { (1, 2) } else { (3, 20) };
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let dir = tempfile::tempdir_in(&run.folder)?;
        let path = dir.path().join("idle.db");
        let task = |part| Task {
            part,
            file: &path,
            span: Duration::from_secs(seconds),
            count: TASKS,
        };
        // At the same time: both are idle.
        let children = (Running::start(task("idle"))?, Running::start(task("bare"))?);
        let (mut with, mut without) = children;
        ours.push(with.line()?.parse()?);
        bare.push(without.line()?.parse()?);
    }
    let beyond: Vec<f64> = ours
        .iter()
        .zip(&bare)
        .map(|(ours, bare): (&Cost, &Cost)| ours.cpu_ms - bare.cpu_ms)
        .collect();
    let over =
        |of: &[Cost], what: fn(&Cost) -> f64| median(&of.iter().map(what).collect::<Vec<_>>());
    let cpu_ms = median(&beyond);
    let resident_mib = over(&ours, |cost| cost.resident_mib);
    run.report.row(&Row {
        workload: "W7",
        setting: "cpu-ms".into(),
        value: cpu_ms,
        unit: "ms",
        limit: over(&bare, |cost| cost.cpu_ms),
        target: Some(format!("at most {MAX_CPU_MS} beyond bare")),
        met: Some(cpu_ms <= MAX_CPU_MS),
        note: Some(format!(
            "FULL, {TASKS} tasks due in an hour, {WORKERS} workers, {seconds} s; no read, no write; rounds {}",
            listed(&beyond)
        )),
        ..Row::default()
    });
    run.report.row(&Row {
        workload: "W7",
        setting: "resident-mib".into(),
        value: resident_mib,
        unit: "MiB",
        limit: over(&bare, |cost| cost.resident_mib),
        target: Some(format!("under {MAX_RESIDENT_MIB}")),
        met: Some(resident_mib < MAX_RESIDENT_MIB),
        ..Row::default()
    });
    Ok(())
}

/// What a process used while it was idle.
pub(crate) struct Cost {
    pub(crate) cpu_ms: f64,
    pub(crate) resident_mib: f64,
    /// How often its threads went to sleep again.
    pub(crate) wakes: f64,
}

impl std::str::FromStr for Cost {
    type Err = Box<dyn std::error::Error>;

    fn from_str(line: &str) -> Result<Self> {
        let numbers: Vec<f64> = line
            .split(' ')
            .map(str::parse)
            .collect::<std::result::Result<_, _>>()?;
        let [cpu_ms, resident_mib, wakes] = numbers[..] else {
            return Err(format!("a child says {line:?}").into());
        };
        Ok(Self {
            cpu_ms,
            resident_mib,
            wakes,
        })
    }
}

impl Cost {
    /// What this process uses while it is idle.
    pub(crate) fn of<T>(idle: impl FnOnce() -> Result<T>) -> Result<(Self, T)> {
        let cpu = || processor_time().ok_or("measured on Linux only");
        let (before, slept) = (cpu()?, sleeps()?);
        let seen = idle()?;
        let cost = Self {
            cpu_ms: (cpu()? - before).as_secs_f64() * 1e3,
            wakes: (sleeps()? - slept) as f64,
            resident_mib: resident_mib()?,
        };
        Ok((cost, seen))
    }

    /// What this process uses while it has a file open.
    ///
    /// # Errors
    ///
    /// If it reads or writes anything meanwhile.
    pub(crate) fn with_file(file: &Path, span: Duration) -> Result<Self> {
        let (cost, [first, before, after]) = Self::of(|| {
            // Looking is itself reading: two looks with nothing between them show how much.
            let (first, before) = (Traces::of(file)?, Traces::of(file)?);
            std::thread::sleep(span);
            Ok([first, before, Traces::of(file)?])
        })?;
        let (looking, idle) = (before.since(&first), after.since(&before));
        if idle != looking {
            return Err(
                format!("touched a file while idle: {idle:?}, by looking {looking:?}").into(),
            );
        }
        Ok(cost)
    }

    /// Reports to the parent process.
    pub(crate) fn tell(&self) {
        println!("{} {} {}", self.cpu_ms, self.resident_mib, self.wakes);
    }
}

/// The child that has a scheduler.
///
/// # Errors
///
/// If the scheduler read or wrote anything while it was idle, or lost a task.
pub(crate) fn scheduler(task: Task<'_>) -> Result<()> {
    let scheduler = Scheduler::builder(task.file)
        .workers(WORKERS)
        .handler_fn(|_: Work, _cx| Ok(Outcome::done()))
        .start()?;
    let hour = Duration::from_secs(3600);
    scheduler
        .schedule_stream((0..task.count).map(|n| NewTask::new(Work::numbered(n)).after(hour)))?;
    std::thread::sleep(SETTLE);
    let cost = Cost::with_file(task.file, task.span)?;
    let pending = scheduler.stats()?.count(TaskState::Pending);
    if pending != task.count {
        return Err(format!("{pending} of {} tasks are pending", task.count).into());
    }
    cost.tell();
    Ok(())
}

/// The child that only wakes, once a second.
pub(crate) fn bare(task: Task<'_>) -> Result<()> {
    std::thread::sleep(SETTLE);
    let (cost, ()) = Cost::of(|| {
        for _ in 0..task.span.as_secs() {
            std::thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    })?;
    cost.tell();
    Ok(())
}

fn resident_mib() -> Result<f64> {
    Ok(numbered(&fs::read_to_string("/proc/self/status")?, "VmRSS:")? as f64 / 1024.0)
}

/// The most memory that this process has had at once.
pub(crate) fn peak_mib() -> Result<f64> {
    Ok(numbered(&fs::read_to_string("/proc/self/status")?, "VmHWM:")? as f64 / 1024.0)
}

/// How many threads this process has.
pub(crate) fn threads() -> Result<u64> {
    numbered(&fs::read_to_string("/proc/self/status")?, "Threads:")
}

/// How often the threads of this process have gone to sleep so far.
fn sleeps() -> Result<u64> {
    let mut sleeps = 0;
    for thread in fs::read_dir("/proc/self/task")? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        sleeps += numbered(&status, "voluntary_ctxt_switches:")?;
    }
    Ok(sleeps)
}

/// The number after a name at the beginning of a line.
fn numbered(text: &str, name: &str) -> Result<u64> {
    let number = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .ok_or_else(|| format!("there is no {name}"))?;
    Ok(number.parse()?)
}

/// The reads and writes of this process and the file so far.
struct Traces {
    read_calls: u64,
    written: u64,
    sent_to_disk: u64,
    log_bytes: u64,
    log_changed_at: SystemTime,
}

/// The reads and writes between two looks.
#[derive(Debug, PartialEq, Eq)]
struct Traffic {
    read_calls: u64,
    written: u64,
    sent_to_disk: u64,
    log_changed: bool,
}

impl Traces {
    fn of(database: &Path) -> Result<Self> {
        let io = fs::read_to_string("/proc/self/io")?;
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        let log = fs::metadata(log)?;
        Ok(Self {
            read_calls: numbered(&io, "syscr:")?,
            written: numbered(&io, "wchar:")?,
            sent_to_disk: numbered(&io, "write_bytes:")?,
            log_bytes: log.len(),
            log_changed_at: log.modified()?,
        })
    }

    fn since(&self, before: &Self) -> Traffic {
        Traffic {
            read_calls: self.read_calls - before.read_calls,
            written: self.written - before.written,
            sent_to_disk: self.sent_to_disk - before.sent_to_disk,
            log_changed: self.log_bytes != before.log_bytes
                || self.log_changed_at != before.log_changed_at,
        }
    }
}
