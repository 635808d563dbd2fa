//! W14: tasks that are futures: ten thousand that wait at once, the drain of a backlog, and how late they start.

use std::future::Future as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use punctual::chrono::DateTime;
use punctual::{NewTask, Outcome, Payload, Scheduler, SqliteSettings};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::bare::now;
use crate::child::{Running, Task};
use crate::drain::Backlog;
use crate::ours::{self, Note, View};
use crate::pairs::Subject;
use crate::quantile::{listed, median, quantile};
use crate::report::Row;
use crate::work::Work;
use crate::{Result, Run, idle, insert};

/// How long each task sleeps.
const SLEEP: Duration = Duration::from_millis(100);
/// The most that all may take, beside the drain of as many that do not sleep and one sleep.
const MAX_TIMES: f64 = 1.3;
const MAX_RESIDENT_MIB: f64 = 60.0;
/// The least share of the rate of blocking handlers.
const MIN_DRAIN: f64 = 0.8;
/// The most that a future may start later than a blocking handler at the median, in milliseconds.
const MAX_BEYOND_P50: f64 = 0.1;
const GAP: Duration = Duration::from_millis(20);
const LEAD: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()?)
}

/// W14: 10,000 tasks that each sleep 100 ms, all at once.
pub(crate) fn sleepers(run: &mut Run) -> Result<()> {
    let (rounds, count) = if run.is_small { (1, 500) } else { (7, 10_000) };
    let dir = tempfile::tempdir_in(&run.folder)?;
    ours::fill(&dir.path().join("ours.db"), count, &ours::note)?;
    let measured = |span| -> Result<(f64, f64)> {
        let copy = tempfile::tempdir_in(dir.path())?;
        let file = ours::copy(&dir.path().join("ours.db"), copy.path())?;
        let task = Task {
            part: "sleepers",
            file: &file,
            span,
            count,
        };
        let line = Running::start(task)?.line()?;
        let (millis, mib) = line.split_once(' ').ok_or("a child says something else")?;
        Ok((millis.parse()?, mib.parse()?))
    };
    let (mut ours, mut ideal, mut resident) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (millis, mib) = measured(SLEEP)?;
        ours.push(millis);
        resident.push(mib);
        ideal.push(measured(Duration::ZERO)?.0 + SLEEP.as_secs_f64() * 1e3);
    }
    let ratios: Vec<f64> = ours.iter().zip(&ideal).map(|(a, b)| a / b).collect();
    let ratio = median(&ratios);
    run.report.row(&Row {
        workload: "W14",
        setting: format!("{count} that sleep {SLEEP:?}"),
        value: median(&ours),
        unit: "ms",
        limit: median(&ideal),
        ratio: Some(ratio),
        target: Some(format!("at most {MAX_TIMES}")),
        met: Some(ratio <= MAX_TIMES),
        note: Some(format!(
            "the limit: a drain and one sleep; {}",
            listed(&ratios)
        )),
        ..Row::default()
    });
    let mib = median(&resident);
    run.report.row(&Row {
        workload: "W14",
        setting: "resident-mib, at most".into(),
        value: mib,
        unit: "MiB",
        target: Some(format!("under {MAX_RESIDENT_MIB}")),
        met: Some(mib < MAX_RESIDENT_MIB),
        ..Row::default()
    });
    Ok(())
}

/// The child that runs a file of tasks, each of which sleeps for the span.
pub(crate) fn sleeper(task: Task<'_>) -> Result<()> {
    let (runtime, span) = (runtime()?, task.span);
    let view = View::new(task.file)?;
    let started = Instant::now();
    let scheduler = Scheduler::builder(task.file)
        .workers(2)
        .max_in_flight(usize::try_from(task.count)?)
        .async_handler_fn(move |_: Note, _cx| async move {
            if !span.is_zero() {
                tokio::time::sleep(span).await;
            }
            Ok(Outcome::done())
        })
        .spawner(runtime.handle().clone())
        .start()?;
    while !view.is_over()? {
        std::thread::sleep(Duration::from_millis(1));
    }
    let elapsed = started.elapsed();
    view.check(ours::COMPLETED, task.count)?;
    println!("{} {}", elapsed.as_secs_f64() * 1e3, idle::peak_mib()?);
    drop(scheduler);
    Ok(())
}

/// W14b: the drain of a backlog by futures on tokio, beside blocking handlers.
pub(crate) fn drain(run: &mut Run) -> Result<()> {
    let tasks = if run.is_small { 1_000 } else { 50_000 };
    let dir = tempfile::tempdir_in(&run.folder)?;
    let backlog = Backlog::new(dir.path(), tasks, &ours::note, &insert::payload()?)?;
    let runtime = runtime()?;
    let places: [(&str, Option<&Handle>); 2] =
        [("tokio", Some(runtime.handle())), ("on the workers", None)];
    for (place, handle) in places {
        run.paired(
            &Subject {
                workload: "W14b",
                setting: format!("FULL, {tasks}, {place}"),
                tasks: Some(tasks),
                at_least: Some(MIN_DRAIN),
                note: Some("the limit: the same with blocking handlers".into()),
                ..Subject::default()
            },
            &mut |_| backlog.futures(handle),
            &mut |_| backlog.ours::<Note>(),
            None,
        )?;
    }
    Ok(())
}

/// Runs all tasks of a file as futures, on a runtime or on the workers, until the file shows them completed.
pub(crate) fn drain_file(
    path: &Path,
    tasks: u64,
    view: &View,
    handle: Option<&Handle>,
) -> Result<Scheduler> {
    let line = ours::FinishLine::new();
    line.expect(tasks);
    let passed = Arc::clone(&line);
    let mut builder = Scheduler::builder(path)
        .workers(2)
        .sqlite(SqliteSettings::default().page_cache_bytes(ours::CACHE_BYTES))
        .async_handler_fn(move |_: Note, _cx| {
            passed.pass();
            async { Ok(Outcome::done()) }
        });
    if let Some(handle) = handle {
        builder = builder.spawner(handle.clone());
    }
    let scheduler = builder.start()?;
    line.wait(view)?;
    Ok(scheduler)
}

/// The same payload, of another kind.
#[derive(Serialize, Deserialize)]
struct Future(Work);

impl Payload for Future {
    const KIND: &'static str = "future";
}

/// W14c: how late a future starts, beside a blocking handler. The two alternate, task by task, in one scheduler.
pub(crate) fn lateness(run: &mut Run) -> Result<()> {
    let (rounds, count) = if run.is_small { (1, 20) } else { (5, 500) };
    let runtime = runtime()?;
    for (place, handle) in [("tokio", Some(runtime.handle())), ("on the workers", None)] {
        let mut each = Vec::new();
        let (mut futures, mut blocking) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (ours, limit) = late(&run.folder, count, handle)?;
            let (ours, limit) = (quantile(&ours, 0.5), quantile(&limit, 0.5));
            each.push(ours - limit);
            futures.push(ours);
            blocking.push(limit);
        }
        let beyond = median(&each);
        run.report.row(&Row {
            workload: "W14c",
            setting: format!("FULL, every {GAP:?}, p50, {place}"),
            value: median(&futures),
            unit: "ms",
            limit: median(&blocking),
            target: Some(format!("at most a blocking one + {MAX_BEYOND_P50}")),
            met: Some(beyond <= MAX_BEYOND_P50),
            note: Some(format!("rounds {}", listed(&each))),
            ..Row::default()
        });
    }
    Ok(())
}

/// How late futures and blocking handlers started, in milliseconds.
fn late(folder: &Path, count: u64, handle: Option<&Handle>) -> Result<(Vec<f64>, Vec<f64>)> {
    let dir = tempfile::tempdir_in(folder)?;
    let (sender, starts) = channel();
    let (of_future, of_blocking) = (sender.clone(), sender);
    let mut builder = Scheduler::builder(dir.path().join("futures.db"))
        .workers(2)
        .async_handler_fn(move |Future(work), _cx| {
            // After a failed measurement there is no receiver.
            let _ = of_future.send((true, work.number, now()));
            async { Ok(Outcome::done()) }
        })
        .handler_fn(move |work: Work, _cx| {
            let _ = of_blocking.send((false, work.number, now()));
            Ok(Outcome::done())
        });
    if let Some(handle) = handle {
        builder = builder.spawner(handle.clone());
    }
    let scheduler = builder.start()?;
    let (first, gap) = (now() + LEAD.as_micros() as i64, GAP.as_micros() as i64);
    let due = |number: u64| first + number as i64 * gap;
    scheduler.schedule_stream((0..2 * count).map(|number| {
        let work = Work::numbered(number);
        let task = match number % 2 {
            0 => NewTask::new(Future(work)),
            _ => NewTask::new(work),
        };
        task.at(DateTime::from_timestamp_micros(due(number)).expect("it is this year"))
    }))?;
    let (mut futures, mut blocking) = (Vec::new(), Vec::new());
    for _ in 0..2 * count {
        let (is_future, number, at) = starts.recv_timeout(PATIENCE)?;
        if at < due(number) {
            return Err(format!("task {number} started early").into());
        }
        let late = (at - due(number)) as f64 / 1e3;
        if is_future {
            futures.push(late);
        } else {
            blocking.push(late);
        }
    }
    let _ = scheduler.shutdown(PATIENCE)?;
    Ok((futures, blocking))
}

/// W14d: 1,000 waits at once for tasks that are not due: processor time, and threads.
pub(crate) fn waits(run: &mut Run) -> Result<()> {
    let (rounds, count, span) = if run.is_small {
        (1, 100, Duration::from_secs(1))
    } else {
        (3, 1_000, Duration::from_secs(20))
    };
    let mut shares = Vec::new();
    let mut threads = Vec::new();
    for _ in 0..rounds {
        let dir = tempfile::tempdir_in(&run.folder)?;
        let scheduler = Scheduler::builder(dir.path().join("waits.db"))
            .workers(2)
            .start()?;
        let later = (0..count).map(|_| ours::note().after(PATIENCE * 60));
        let tasks = scheduler.schedule_many(later)?;
        let (client, before) = (scheduler.to_async(), idle::threads()?);
        let waits = tasks
            .iter()
            .map(|task| client.wait(task.id(), PATIENCE * 10));
        let mut waits: Vec<_> = waits.map(Box::pin).collect();
        for wait in &mut waits {
            let polled = wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            if polled.is_ready() {
                return Err("a task has ended".into());
            }
        }
        std::thread::sleep(idle::SETTLE);
        let (cost, ()) = idle::Cost::of(|| {
            std::thread::sleep(span);
            Ok(())
        })?;
        shares.push(cost.cpu_ms / span.as_secs_f64() / 10.0);
        threads.push((idle::threads()? - before) as f64);
        drop(waits);
    }
    let share = median(&shares);
    run.report.row(&Row {
        workload: "W14d",
        setting: format!("{count} waits, {span:?}"),
        value: share,
        unit: "% of a core",
        target: Some("under 1".into()),
        met: Some(share < 1.0),
        note: Some(format!("rounds {}", listed(&shares))),
        ..Row::default()
    });
    let more = median(&threads);
    run.report.row(&Row {
        workload: "W14d",
        setting: "threads for all of them".into(),
        value: more,
        unit: "threads",
        target: Some("at most 1".into()),
        met: Some(more <= 1.0),
        ..Row::default()
    });
    Ok(())
}
