//! A simulated year of recurrences: three instances on one file, restarts, kills between any two calls of the store, and a clock
//! that is set both ways.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::error::Result;
use crate::model::filter::Filter;
use crate::model::outcome::Outcome;
use crate::model::payload::Payload;
use crate::model::recurrence::edit::RecurrenceEdit;
use crate::model::recurrence::explain::SlotFate;
use crate::model::recurrence::policy::{Missed, Overlap};
use crate::model::recurrence::request::Recurrence;
use crate::model::recurrence::rule::Rule;
use crate::model::retention::Retention;
use crate::scheduler::Scheduler;
use crate::store::faulty::{Faults, FaultyStore};
use crate::sync::lock;
use crate::testing::{Stepper, TestClock};

const HOUR: Duration = Duration::from_secs(3600);
const ZONES: [&str; 4] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
];
const COUNT: u32 = 1_000;
const INSTANCES: usize = 3;

#[derive(serde::Serialize, serde::Deserialize)]
struct Probe;

impl Payload for Probe {
    const KIND: &'static str = "probe";
}

/// How often the first attempt of the task of each slot has run.
type Runs = Arc<Mutex<HashMap<(String, DateTime<Utc>), u32>>>;

struct Year {
    path: PathBuf,
    clock: TestClock,
    runs: Runs,
    instances: [Option<(Stepper, Arc<Faults>)>; INSTANCES],
    random: fastrand::Rng,
    rules: Vec<(String, Rule, bool)>,
}

impl Year {
    fn new(path: &Path, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let rules = (0..COUNT).map(|number| rule(number, &mut random)).collect();
        Self {
            path: path.to_owned(),
            clock: TestClock::new(start()),
            runs: Runs::default(),
            instances: [const { None }; INSTANCES],
            random,
            rules,
        }
    }

    fn open(&self) -> Result<(Stepper, Arc<Faults>)> {
        let (runs, faults) = (Arc::clone(&self.runs), Arc::new(Faults::default()));
        let shared = Arc::clone(&faults);
        let retention = Retention::default().completed(24 * HOUR);
        let parts = Scheduler::builder(&self.path)
            .workers(4)
            .clock(self.clock.clone())
            .durability(crate::model::durability::Durability::ProcessCrash)
            .retention(retention)
            .handler_fn(move |_: Probe, cx| {
                if cx.attempt() == 1 {
                    let name = cx.recurrence().unwrap_or_default().to_owned();
                    let slot = cx.slot().expect("it is made for a slot");
                    *lock(&runs).entry((name, slot)).or_default() += 1;
                }
                Ok(Outcome::done())
            })
            .on_store(|store| Arc::new(FaultyStore::new(store, shared)))?;
        Ok((Stepper::new(parts, &self.clock), faults))
    }

    /// As a program does at each start.
    fn register(&self, stepper: &Stepper) {
        for (index, (name, rule, makes_all)) in self.rules.iter().enumerate() {
            let mut recurrence = Recurrence::new(name, Probe).rule(rule.clone());
            if *makes_all {
                recurrence = recurrence
                    .missed(Missed::All { max: 10_000 })
                    .overlap(Overlap::Allow);
            } else {
                let missed = [Missed::Skip, Missed::Latest, Missed::Earliest];
                let overlap = [
                    Overlap::Allow,
                    Overlap::Skip,
                    Overlap::BufferOne,
                    Overlap::BufferAll { max: 3 },
                    Overlap::CancelPrevious,
                ];
                recurrence = recurrence
                    .missed(missed[index % 3])
                    .overlap(overlap[index % 5]);
            }
            if index % 7 < 3 {
                recurrence = recurrence.jitter(HOUR / 4);
            }
            stepper.recur(recurrence).expect("the store works still");
        }
    }

    /// Something happens to an instance, or it works.
    fn step(&mut self) {
        let index = self.random.usize(..INSTANCES);
        match (&mut self.instances[index], self.random.u8(..12)) {
            (None, _) => {
                let opened = self.open().expect("the file can be opened");
                self.instances[index] = Some(opened);
            }
            (instance @ Some(_), 0) => *instance = None,
            (instance @ Some(_), 1) => {
                let (mut stepper, faults) = instance.take().expect("it is open");
                faults.die_after(self.random.u64(..40));
                stepper.drain();
            }
            (Some((stepper, _)), 2) => operate(stepper, &self.rules, &mut self.random),
            (Some((stepper, _)), _) => {
                stepper.drain();
            }
        }
    }

    /// The clock goes on for a while; now and then it is set.
    fn move_clock(&mut self) {
        let now = self.clock.now();
        let minutes = |minutes: i64| TimeDelta::minutes(minutes);
        let by = match self.random.u8(..40) {
            0 => -minutes(self.random.i64(1..180)),
            1 => minutes(self.random.i64(1..5 * 24 * 60)),
            _ => minutes(self.random.i64(1..12 * 60)),
        };
        self.clock.set((now + by).max(start()));
    }
}

/// What an operator does: edits a recurrence, or pauses or resumes one that need not make all its tasks.
fn operate(stepper: &Stepper, rules: &[(String, Rule, bool)], random: &mut fastrand::Rng) {
    let (name, _, makes_all) = &rules[random.usize(..rules.len())];
    let recurrences = stepper.recurrences();
    let status = recurrences.get(name).expect("to read");
    let is_paused = status.expect("it is stored").is_paused();
    let done = match (makes_all, is_paused) {
        (true, _) => recurrences.edit(name, RecurrenceEdit::new().priority(random.u8(..10))),
        (false, true) => recurrences.resume(name),
        (false, false) => recurrences.pause(name),
    };
    done.expect("the store works");
}

fn start() -> DateTime<Utc> {
    "2026-01-01T00:00:00Z".parse().expect("it is an instant")
}

/// A rule of one to four hundred slots a year, most of few.
fn rule(number: u32, random: &mut fastrand::Rng) -> (String, Rule, bool) {
    let (minute, hour, day) = (random.u8(..60), random.u8(..24), random.u8(1..29));
    let cron = match random.u8(..40) {
        0 => format!("{minute} {hour} * * *"),
        1..12 => format!("{minute} {hour} * * {}", day % 7),
        12..34 => format!("{minute} {hour} {day} * *"),
        34 | 35 => format!("30 2 * {} SUN", 1 + day % 12),
        36 | 37 => format!("*/30 */12 {day} * *"),
        _ => String::new(),
    };
    let zone = ZONES[number as usize % 4];
    let rule = if cron.is_empty() {
        let interval = HOUR * random.u32(20..400) + Duration::from_millis(1);
        Rule::every(interval, start())
    } else {
        Rule::cron(&cron).and_then(|rule| rule.time_zone(zone))
    };
    let name = format!("recurrence {number}");
    (name, rule.expect("it is allowed"), number.is_multiple_of(2))
}

#[test]
fn p10_a_simulated_year_loses_and_doubles_no_slot() {
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse().expect("SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut year = Year::new(&dir.path().join("year.db"), seed);
    let first = year.open().unwrap();
    year.register(&first.0);
    year.instances[0] = Some(first);
    let mut latest = start();
    while latest < start() + TimeDelta::days(365) {
        year.move_clock();
        latest = latest.max(year.clock.now());
        for _ in 0..3 {
            year.step();
        }
    }
    year.clock.set(latest);
    year.instances = [const { None }; INSTANCES];
    let (mut last, _) = year.open().unwrap();
    last.drain();
    year.register(&last);
    for (name, ..) in &year.rules {
        last.recurrences().resume(name).unwrap();
    }
    last.drain();
    for (name, ..) in &year.rules {
        last.recurrences().pause(name).unwrap();
    }
    // What the jitter has delayed.
    last.advance(HOUR);
    let unfinished = last.count(&Filter::new().unfinished()).unwrap();
    assert_eq!(unfinished, 0);
    let runs = std::mem::take(&mut *lock(&year.runs));
    let mut expected = 0;
    for (index, (name, rule, makes_all)) in year.rules.iter().enumerate() {
        // A task that the next slot cancels may not have run.
        let may_cancel = !makes_all && index % 5 == 4;
        let slots: Vec<_> = rule
            .after(start())
            .take_while(|slot| *slot <= latest)
            .collect();
        let range = start()..latest + TimeDelta::microseconds(1);
        let explained = last.recurrences().explain(name, range).unwrap();
        let decided: Vec<_> = explained.slots().iter().map(|each| each.slot()).collect();
        assert_eq!(
            decided, slots,
            "{name}: each slot is decided once, seed {seed}"
        );
        for each in explained.slots() {
            let ran = runs.get(&(name.clone(), each.slot())).copied();
            let made = matches!(each.fate(), SlotFate::Made(_));
            assert!(made || !makes_all, "{name}: {each:?}, seed {seed}");
            let is_right = ran == made.then_some(1) || may_cancel && ran.is_none();
            assert!(is_right, "{name}: {each:?} ran {ran:?}, seed {seed}");
            expected += usize::from(ran.is_some());
        }
    }
    assert_eq!(runs.len(), expected, "no slot of no rule, seed {seed}");
    println!("{expected} tasks have run");
}
