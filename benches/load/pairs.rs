//! Measures ours and the limit in alternating slices of one process. A change of the machine's speed affects both, and the
//! result is the ratio of neighbouring slices.

use std::time::{Duration, Instant};

use crate::report::Row;
use crate::{Result, Run};

/// How many pairs make a result.
const PAIRS: usize = 40;
/// How long a slice should take.
const SLICE: Duration = Duration::from_millis(250);
/// A result counts when its quartiles are no further apart than this, as a share of its median.
const SPREAD: f64 = 0.15;
/// How often a measurement is made at most, if its spread stays too large.
const REPEATS: usize = 3;

/// Some tasks, and the time they took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slice {
    tasks: u64,
    elapsed: Duration,
    cpu: Option<Duration>,
}

impl Slice {
    /// Does the work of `tasks` tasks, and measures it.
    ///
    /// # Errors
    ///
    /// Those of the work.
    pub(crate) fn of<T>(tasks: u64, work: impl FnOnce() -> Result<T>) -> Result<Self> {
        let (started, before) = (Instant::now(), processor_time());
        work()?;
        let elapsed = started.elapsed();
        Ok(Self {
            tasks,
            elapsed,
            cpu: before.zip(processor_time()).map(|(from, to)| to - from),
        })
    }

    fn rate(self) -> f64 {
        self.tasks as f64 / self.elapsed.as_secs_f64()
    }

    fn cpu_us(self) -> Option<f64> {
        self.cpu
            .map(|cpu| cpu.as_secs_f64() * 1e6 / self.tasks as f64)
    }
}

/// The processor time of all threads of this process; `None` if the system does not report it.
pub(crate) fn processor_time() -> Option<Duration> {
    #[cfg(target_os = "linux")]
    {
        use rustix::time::{ClockId, clock_gettime};
        Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).ok()
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// One of the sides that take turns: does the given number of tasks, and returns what they took.
pub(crate) type Side<'a> = &'a mut (dyn FnMut(u64) -> Result<Slice> + 'a);

/// The results of two sides.
#[derive(Debug, Clone, Copy)]
struct Pairing {
    /// Median rates, ours and the limit's.
    rates: (f64, f64),
    ratio: f64,
    quartiles: (f64, f64),
    cpu_us: Option<(f64, f64)>,
}

impl Pairing {
    fn of(ours: &[Slice], limit: &[Slice]) -> Self {
        let ratios = ours.iter().zip(limit).map(|(a, b)| a.rate() / b.rate());
        let [low, ratio, high] = quartiles(ratios.collect());
        let rate = |slices: &[Slice]| median(slices.iter().map(|slice| slice.rate()).collect());
        let cpu = |slices: &[Slice]| {
            let all: Option<Vec<f64>> = slices.iter().map(|slice| slice.cpu_us()).collect();
            all.map(median)
        };
        Self {
            rates: (rate(ours), rate(limit)),
            ratio,
            quartiles: (low, high),
            cpu_us: cpu(ours).zip(cpu(limit)),
        }
    }

    fn spread(&self) -> f64 {
        (self.quartiles.1 - self.quartiles.0) / self.ratio
    }
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_unstable_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| {
        // Interpolated between the two nearest values.
        let place = (values.len() - 1) as f64 * f64::from(quarter) / 4.0;
        let below = values[place.floor() as usize];
        let above = values[place.ceil() as usize];
        below + (above - below) * place.fract()
    })
}

fn median(values: Vec<f64>) -> f64 {
    quartiles(values)[1]
}

/// Compares the first side with each of the others. Their order alternates, A B C C B A, which cancels a drift.
fn pairs(count: usize, tasks: u64, sides: &mut [Side<'_>]) -> Result<Vec<Pairing>> {
    let mut slices = vec![Vec::with_capacity(count); sides.len()];
    for round in 0..count {
        for step in 0..sides.len() {
            let turn = if round % 2 == 0 {
                step
            } else {
                sides.len() - 1 - step
            };
            slices[turn].push(sides[turn](tasks)?);
        }
    }
    let (ours, limits) = slices.split_first().expect("there are sides");
    Ok(limits
        .iter()
        .map(|limit| Pairing::of(ours, limit))
        .collect())
}

/// What is measured, and its target.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subject {
    pub(crate) workload: &'static str,
    pub(crate) setting: String,
    /// Tasks per slice; `None`: as many as the limit does in the time of a slice.
    pub(crate) tasks: Option<u64>,
    /// The least number of tasks in all slices together.
    pub(crate) min_tasks: u64,
    /// The size of a task's payload, if the figure is in MB/s instead of tasks.
    pub(crate) payload_bytes: Option<usize>,
    pub(crate) at_least: Option<f64>,
    pub(crate) note: Option<String>,
}

impl Run {
    /// Measures ours beside the limit, and beside a lean limit if there is one, and prints a row for each.
    ///
    /// # Errors
    ///
    /// Those of the sides.
    pub(crate) fn paired<'a>(
        &mut self,
        subject: &Subject,
        ours: Side<'a>,
        limit: Side<'a>,
        lean: Option<Side<'a>>,
    ) -> Result<()> {
        let tasks = match subject.tasks {
            Some(tasks) => tasks,
            None if self.is_small => 64,
            None => calibrate(limit)?.max(subject.min_tasks.div_ceil(PAIRS as u64)),
        };
        let mut sides = vec![ours, limit];
        sides.extend(lean);
        let (count, repeats) = if self.is_small {
            (1, 1)
        } else {
            (PAIRS, REPEATS)
        };
        let mut best: Option<Vec<Pairing>> = None;
        for _ in 0..repeats {
            let result = pairs(count, tasks, &mut sides)?;
            if best
                .as_ref()
                .is_none_or(|best| result[0].spread() < best[0].spread())
            {
                best = Some(result);
            }
            if best.as_ref().is_some_and(|best| best[0].spread() <= SPREAD) {
                break;
            }
        }
        let best = best.expect("it was measured at least once");
        for (pairing, is_lean) in best.iter().zip([false, true]) {
            let mut row = row(subject, pairing, is_lean);
            if self.is_small {
                row.met = None;
            }
            self.report.row(&row);
        }
        Ok(())
    }
}

/// How many tasks the limit does in the time of a slice.
fn calibrate(limit: &mut dyn FnMut(u64) -> Result<Slice>) -> Result<u64> {
    let mut tasks = 16;
    loop {
        let slice = limit(tasks)?;
        if slice.elapsed >= SLICE / 4 {
            return Ok(((slice.rate() * SLICE.as_secs_f64()) as u64).max(16));
        }
        tasks *= 2;
    }
}

fn row(subject: &Subject, pairing: &Pairing, is_lean: bool) -> Row {
    let (unit, each) = match subject.payload_bytes {
        Some(bytes) => ("MB/s", bytes as f64 / 1e6),
        None => ("tasks/s", 1.0),
    };
    let held_to = subject.at_least.filter(|_| !is_lean);
    let unsettled = (pairing.spread() > SPREAD).then(|| {
        format!(
            "did not settle: the quartiles are {:.0}% apart",
            pairing.spread() * 100.0
        )
    });
    let note: Vec<String> = subject
        .note
        .clone()
        .filter(|_| !is_lean)
        .into_iter()
        .chain(unsettled)
        .collect();
    Row {
        workload: subject.workload,
        setting: if is_lean {
            format!("{}, lean limit", subject.setting)
        } else {
            subject.setting.clone()
        },
        value: pairing.rates.0 * each,
        unit,
        limit: pairing.rates.1 * each,
        ratio: Some(pairing.ratio),
        quartiles: Some(pairing.quartiles),
        cpu_us: pairing.cpu_us,
        target: held_to.map(|target| format!("at least {target}")),
        met: held_to.map(|target| pairing.ratio >= target),
        note: (!note.is_empty()).then(|| note.join("; ")),
    }
}
