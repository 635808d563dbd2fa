//! W6 and W6b: how late a handler starts, beside a bare timed wait. The two alternate, task by task.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use punctual::chrono::DateTime;
use punctual::{NewTask, Outcome, Scheduler, TaskState};

use crate::bare::now;
use crate::quantile::{listed, median, quantile};
use crate::report::Row;
use crate::work::Work;
use crate::{Result, Run};

const WORKERS: usize = 2;
/// How long before the first task is due all are scheduled.
const LEAD: Duration = Duration::from_secs(1);
/// How long after the last task is due all must have run.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most that a handler may start later than the bare wait beside it ends, in milliseconds.
const MAX_P50: f64 = 0.25;
const MAX_P95: f64 = 1.0;
const MAX_BUSY_P50: f64 = 0.5;

/// W6: 1,000 tasks, 20 ms apart.
pub(crate) fn spaced(run: &mut Run) -> Result<()> {
    let (rounds, count) = if run.is_small { (1, 50) } else { (5, 1_000) };
    let rounds = Round::several(run, rounds, count, Duration::from_millis(20))?;
    for (setting, share, most) in [("paired-p50", 0.5, MAX_P50), ("paired-p95", 0.95, MAX_P95)] {
        let over = |of: fn(&Round) -> Vec<f64>| -> Vec<f64> {
            rounds
                .iter()
                .map(|each| quantile(&of(each), share))
                .collect()
        };
        let paired = over(Round::paired);
        let value = median(&paired);
        run.report.row(&Row {
            workload: "W6",
            setting: setting.into(),
            value,
            unit: "ms",
            limit: median(&over(|round| round.bare.clone())),
            target: Some(format!("at most {most}")),
            met: Some(value <= most),
            note: Some(format!(
                "FULL; rounds {}; ours alone {:.3}",
                listed(&paired),
                median(&over(|round| round.ours.clone()))
            )),
            ..Row::default()
        });
    }
    Ok(())
}

/// W6b: 1,000 tasks per second, for ten seconds.
pub(crate) fn busy(run: &mut Run) -> Result<()> {
    let (rounds, count) = if run.is_small { (1, 300) } else { (3, 10_000) };
    let rounds = Round::several(run, rounds, count, Duration::from_millis(1))?;
    let over = |of: fn(&Round) -> &[f64], share| -> Vec<f64> {
        rounds
            .iter()
            .map(|each| quantile(of(each), share))
            .collect()
    };
    let ours = over(|round| &round.ours, 0.5);
    let (value, limit) = (median(&ours), median(&over(|round| &round.bare, 0.5)));
    run.report.row(&Row {
        workload: "W6b",
        setting: "FULL, 1000 a second, p50".into(),
        value,
        unit: "ms",
        limit,
        target: Some(format!("at most bare + {MAX_BUSY_P50}")),
        met: Some(value <= limit + MAX_BUSY_P50),
        note: Some(format!(
            "rounds {}; p95 {:.3}, bare {:.3}",
            listed(&ours),
            median(&over(|round| &round.ours, 0.95)),
            median(&over(|round| &round.bare, 0.95))
        )),
        ..Row::default()
    });
    Ok(())
}

/// How late each task started, and how late each wait between them ended, in milliseconds.
struct Round {
    ours: Vec<f64>,
    bare: Vec<f64>,
}

impl Round {
    fn several(run: &Run, rounds: usize, count: u64, gap: Duration) -> Result<Vec<Self>> {
        (0..rounds).map(|_| Self::run(run, count, gap)).collect()
    }

    /// Runs tasks that are due a `gap` apart, with a bare wait half-way between each and the next.
    ///
    /// # Errors
    ///
    /// If a task starts early, twice or not at all.
    fn run(run: &Run, count: u64, gap: Duration) -> Result<Self> {
        let dir = tempfile::tempdir_in(&run.folder)?;
        let starts: Arc<[AtomicI64]> = (0..count).map(|_| AtomicI64::new(0)).collect();
        let ran = Arc::new(AtomicU64::new(0));
        let scheduler = Scheduler::builder(dir.path().join("lateness.db"))
            .workers(WORKERS)
            .handler_fn({
                let (starts, ran) = (Arc::clone(&starts), Arc::clone(&ran));
                move |work: Work, _cx| {
                    // Decoding the payload is part of the start.
                    starts[work.number as usize].store(now(), Ordering::Relaxed);
                    ran.fetch_add(1, Ordering::Release);
                    Ok(Outcome::done())
                }
            })
            .start()?;
        let (first, gap) = (now() + micros(LEAD), micros(gap));
        let due = move |number: u64| first + number as i64 * gap;
        scheduler.schedule_stream((0..count).map(|number| {
            let at = DateTime::from_timestamp_micros(due(number)).expect("it is this year");
            NewTask::new(Work::numbered(number)).at(at)
        }))?;
        let bare = std::thread::Builder::new().name("bare".into());
        let bare = bare.spawn(move || {
            let wait = BareWait::default();
            let dues = (0..count).map(|number| due(number) + gap / 2);
            dues.map(|at| wait.until(at) - at).collect::<Vec<i64>>()
        })?;
        let bare = bare.join().map_err(|_| "the bare waiter panicked")?;
        let patience = Instant::now();
        while ran.load(Ordering::Acquire) < count && patience.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = scheduler.shutdown(PATIENCE)?;
        let (ran, completed) = (
            ran.load(Ordering::Acquire),
            scheduler.stats()?.count(TaskState::Completed),
        );
        if (ran, completed) != (count, count) {
            return Err(format!("of {count} tasks {ran} ran and {completed} are completed").into());
        }
        let mut ours = Vec::with_capacity(starts.len());
        for (number, start) in (0..).zip(&*starts) {
            let late = start.load(Ordering::Relaxed) - due(number);
            if late < 0 {
                return Err(format!("task {number} started {} µs early", -late).into());
            }
            ours.push(late);
        }
        let millis = |late: Vec<i64>| late.iter().map(|&late| late as f64 / 1e3).collect();
        Ok(Self {
            ours: millis(ours),
            bare: millis(bare),
        })
    }

    /// How much later each task was than the bare wait after it.
    fn paired(&self) -> Vec<f64> {
        let pairs = self.ours.iter().zip(&self.bare);
        pairs.map(|(ours, bare)| ours - bare).collect()
    }
}

fn micros(span: Duration) -> i64 {
    span.as_micros() as i64
}

/// A timed wait for an instant of the wall clock, and nothing else.
#[derive(Default)]
struct BareWait {
    lock: Mutex<()>,
    never: Condvar,
}

impl BareWait {
    /// Waits until `at`. Returns the time at which the wait ended.
    fn until(&self, at: i64) -> i64 {
        let mut guard = self.lock.lock().expect("nobody else has it");
        loop {
            let time = now();
            let Some(left) = u64::try_from(at - time).ok().filter(|&left| left > 0) else {
                return time;
            };
            let span = Duration::from_micros(left);
            let waited = self.never.wait_timeout(guard, span);
            guard = waited.expect("nobody else has it").0;
        }
    }
}
