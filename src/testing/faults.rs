//! A stepped scheduler over a store that fails: it always tries again, and loses nothing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::ErrorKind;
use crate::id::TaskId;
use crate::model::filter::Filter;
use crate::model::new_task::NewTask;
use crate::model::outcome::Outcome;
use crate::model::payload::Payload;
use crate::model::task::TaskState;
use crate::scheduler::Scheduler;
use crate::store::faulty::{Fault, Faults, FaultyStore};
use crate::sync::lock;
use crate::testing::{Stepper, TestClock};

#[derive(serde::Serialize, serde::Deserialize)]
struct Probe(u32);

impl Payload for Probe {
    const KIND: &'static str = "probe";
}

struct Kit {
    scheduler: Stepper,
    faults: Arc<Faults>,
    runs: Arc<AtomicUsize>,
}

impl Kit {
    fn new() -> Self {
        let faults = Arc::new(Faults::default());
        let runs = Arc::new(AtomicUsize::new(0));
        let clock = TestClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let (shared, counter) = (Arc::clone(&faults), Arc::clone(&runs));
        let parts = Scheduler::in_memory()
            .workers(2)
            .clock(clock.clone())
            .handler_fn(move |_: Probe, _| {
                counter.fetch_add(1, Ordering::SeqCst);
                Ok(Outcome::done())
            })
            .on_store(|store| Arc::new(FaultyStore::new(store, shared)))
            .unwrap();
        Self {
            scheduler: Stepper::new(parts, &clock),
            faults,
            runs,
        }
    }

    fn schedule(&self, count: u32) -> Vec<TaskId> {
        (0..count)
            .map(|n| self.scheduler.schedule(Probe(n)).unwrap().id())
            .collect()
    }

    fn completed(&self) -> u64 {
        let completed = Filter::new().state(TaskState::Completed);
        self.scheduler.count(&completed).unwrap()
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

#[test]
fn p12_a_store_that_fails_for_a_while_is_asked_again() {
    for kind in [ErrorKind::Busy, ErrorKind::Full, ErrorKind::Storage] {
        let mut kit = Kit::new();
        kit.schedule(5);
        kit.faults.of_writes([Fault::Before(kind); 12]);
        kit.scheduler.advance(Duration::from_secs(30));
        assert_eq!((kit.completed(), kit.runs()), (5, 5), "{kind:?}");
    }
}

#[test]
fn p4_ends_that_could_not_be_settled_are_kept_and_settled_once() {
    let mut kit = Kit::new();
    kit.schedule(3);
    // The claim works, the settlement does not.
    kit.faults.of_writes([
        Fault::None,
        Fault::Before(ErrorKind::Busy),
        Fault::Before(ErrorKind::Busy),
    ]);
    kit.scheduler.advance(Duration::from_secs(5));
    assert_eq!(
        (kit.completed(), kit.runs()),
        (3, 3),
        "no handler was called twice for it"
    );
}

#[test]
fn p12_a_claim_whose_commit_is_in_doubt_is_not_forgotten() {
    let mut kit = Kit::new();
    kit.schedule(3);
    // The rows say that the tasks run, but this instance does not hold them.
    kit.faults.of_writes([Fault::After]);
    kit.scheduler.advance(Duration::from_secs(5));
    assert_eq!((kit.completed(), kit.runs()), (3, 3));
    let page = kit.scheduler.list(&Filter::all()).unwrap();
    assert!(
        page.tasks().iter().all(|task| task.attempt() == 1),
        "and no attempt was lost"
    );
}

#[test]
fn p7_a_settlement_whose_commit_is_in_doubt_is_settled_once() {
    let mut kit = Kit::new();
    kit.schedule(3);
    kit.faults.of_writes([Fault::None, Fault::After]);
    kit.scheduler.advance(Duration::from_secs(5));
    assert_eq!((kit.completed(), kit.runs()), (3, 3));
}

/// The handler returns the error that its completion may or may not be stored. If the completion was stored, it counts.
#[test]
fn p6_a_completion_whose_commit_is_in_doubt_happens_once() {
    for (fault, attempts) in [
        (Fault::After, 1),
        (Fault::Before(ErrorKind::Unknown), 2),
        (Fault::Before(ErrorKind::Busy), 2),
    ] {
        let faults = Arc::new(Faults::default());
        let clock = TestClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let (shared, inside) = (Arc::clone(&faults), Arc::clone(&faults));
        let parts = Scheduler::in_memory()
            .clock(clock.clone())
            .handler_fn(move |_: Probe, cx| {
                if cx.attempt() == 1 {
                    inside.of_writes([fault]);
                }
                cx.complete(|tx| {
                    tx.schedule(NewTask::with_kind("effect", &1))?;
                    Ok(Outcome::done())
                })
            })
            .on_store(|store| Arc::new(FaultyStore::new(store, shared)))
            .unwrap();
        let mut scheduler = Stepper::new(parts, &clock);
        let id = scheduler.schedule(Probe(1)).unwrap().id();
        scheduler.advance(Duration::from_secs(60));
        let task = scheduler.get(id).unwrap().unwrap();
        assert_eq!(
            (task.state(), task.attempt()),
            (TaskState::Completed, attempts),
            "{fault:?}"
        );
        let effects = scheduler.count(&Filter::new().kind("effect")).unwrap();
        assert_eq!(effects, 1, "{fault:?}");
    }
}

#[test]
fn p4_a_task_whose_start_cannot_be_noted_is_not_started_and_costs_nothing() {
    let mut kit = Kit::new();
    let ids = kit.schedule(1);
    kit.faults.of_begins([Fault::Before(ErrorKind::Full); 3]);
    assert_eq!(kit.scheduler.drain(), 1);
    assert_eq!(kit.runs(), 0);
    kit.scheduler.advance(Duration::from_secs(5));
    assert_eq!((kit.completed(), kit.runs()), (1, 1));
    assert_eq!(kit.scheduler.get(ids[0]).unwrap().unwrap().attempt(), 1);
}

#[test]
fn p4_random_faults_lose_nothing_and_run_nothing_twice() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..40 {
        let mut kit = Kit::new();
        let count = random.u32(1..60);
        kit.schedule(count);
        let faults: Vec<Fault> = (0..60)
            .map(|_| match random.u8(0..6) {
                0 => Fault::Before(ErrorKind::Busy),
                1 => Fault::Before(ErrorKind::Storage),
                2 => Fault::After,
                _ => Fault::None,
            })
            .collect();
        kit.faults.of_writes(faults);
        let begins: Vec<Fault> = (0..10)
            .map(|_| {
                if random.bool() {
                    Fault::None
                } else {
                    Fault::Before(ErrorKind::Full)
                }
            })
            .collect();
        kit.faults.of_begins(begins);
        kit.scheduler.advance(Duration::from_secs(120));
        assert_eq!(kit.completed(), u64::from(count));
        assert_eq!(kit.runs(), count as usize);
    }
}

#[test]
fn a_simulated_year_runs_each_day_s_task_once_and_at_its_time() {
    let day = Duration::from_secs(24 * 3600);
    let clock = TestClock::new("2026-01-01T00:00:00Z".parse().unwrap());
    let late = Arc::new(Mutex::new(Vec::new()));
    let (seen, times) = (Arc::clone(&late), clock.clone());
    let mut scheduler = Scheduler::in_memory()
        .handler_fn(move |_: Probe, cx| {
            lock(&seen).push(times.now() - cx.scheduled_at());
            Ok(Outcome::done())
        })
        .stepped(&clock)
        .unwrap();
    for n in 1..=365 {
        scheduler
            .schedule(NewTask::new(Probe(n)).after(day * n))
            .unwrap();
    }
    assert_eq!(scheduler.advance(day * 366), 365);
    assert!(
        lock(&late).iter().all(chrono::TimeDelta::is_zero),
        "each at its instant"
    );
    let left = scheduler.count(&Filter::all()).unwrap();
    assert!(
        left <= 2,
        "and those of more than a day ago are pruned: {left} are left"
    );
}
