//! W13c: how late the handler of a recurrence's task starts after its slot, beside a task that was stored for its instant. The
//! two alternate in one scheduler.

use std::sync::mpsc::channel;
use std::time::Duration;

use punctual::chrono::{DateTime, Utc};
use punctual::{NewTask, Outcome, Overlap, Recurrence, Scheduler};

use crate::bare::now;
use crate::quantile::{listed, median, quantile};
use crate::report::Row;
use crate::work::Work;
use crate::{Result, Run};

const WORKERS: usize = 2;
const GAP: Duration = Duration::from_millis(50);
/// How long before the first slot all is stored.
const LEAD: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(60);

/// The most that a slot's handler may start later than that of a due task at the median, in milliseconds.
const MAX_BEYOND_P50: f64 = 0.3;

pub(crate) fn run(run: &mut Run) -> Result<()> {
    let (rounds, count) = if run.is_small { (1, 10) } else { (5, 400) };
    let rounds: Vec<Round> = (0..rounds)
        .map(|_| Round::run(run, count))
        .collect::<Result<_>>()?;
    for (setting, share) in [("p50", 0.5), ("p95", 0.95)] {
        let over = |of: fn(&Round) -> &[f64]| -> Vec<f64> {
            rounds
                .iter()
                .map(|round| quantile(of(round), share))
                .collect()
        };
        let ours = over(|round| &round.slots);
        let (value, limit) = (median(&ours), median(&over(|round| &round.tasks)));
        let is_held = setting == "p50";
        run.report.row(&Row {
            workload: "W13c",
            setting: format!("every {GAP:?}, {setting}"),
            value,
            unit: "ms",
            limit,
            target: is_held.then(|| format!("at most a due task + {MAX_BEYOND_P50}")),
            met: is_held.then_some(value <= limit + MAX_BEYOND_P50),
            note: Some(format!(
                "the limit: a task that was stored for its instant; rounds {}",
                listed(&ours)
            )),
            ..Row::default()
        });
    }
    Ok(())
}

/// How late the handlers of slots and of due tasks started, in milliseconds.
struct Round {
    slots: Vec<f64>,
    tasks: Vec<f64>,
}

impl Round {
    /// Runs the tasks of slots that are [`GAP`] apart, with a due task half-way between each and the next.
    ///
    /// # Errors
    ///
    /// If a handler starts early, or not at all.
    fn run(run: &Run, count: u64) -> Result<Self> {
        let dir = tempfile::tempdir_in(&run.folder)?;
        let (sender, starts) = channel();
        let scheduler = Scheduler::builder(dir.path().join("slots.db"))
            .workers(WORKERS)
            .handler_fn(move |work: Work, cx| {
                // After a failed measurement there is no receiver.
                let _ = sender.send((cx.slot(), work.number, now()));
                Ok(Outcome::done())
            })
            .start()?;
        let (first, gap) = (now() + LEAD.as_micros() as i64, GAP.as_micros() as i64);
        let due = |number: u64| first + gap / 2 + number as i64 * gap;
        scheduler.schedule_stream(
            (0..count).map(|number| NewTask::new(Work::numbered(number)).at(instant(due(number)))),
        )?;
        let often = Recurrence::new("often", Work::numbered(0))
            .every(GAP)?
            .since(instant(first))
            .overlap(Overlap::Allow)
            .max_count(count);
        scheduler.recur(often)?;
        let (mut slots, mut tasks) = (Vec::new(), Vec::new());
        for _ in 0..2 * count {
            let (slot, number, at) = starts.recv_timeout(PATIENCE)?;
            let (due, late) = match slot {
                Some(slot) => (slot.timestamp_micros(), &mut slots),
                None => (due(number), &mut tasks),
            };
            if at < due {
                return Err(format!("a task of {slot:?} started {} µs early", due - at).into());
            }
            late.push((at - due) as f64 / 1e3);
        }
        if slots.len() != tasks.len() {
            return Err(format!("{} slots and {} tasks ran", slots.len(), tasks.len()).into());
        }
        let _ = scheduler.shutdown(PATIENCE)?;
        Ok(Self { slots, tasks })
    }
}

fn instant(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).expect("it is this year")
}
