//! How late a task starts that is due in five milliseconds; it must never start early: `cargo bench --bench lateness`.
//!
//! Measured by the wall clock, as due times are. Do not set the clock while it runs.

#![expect(
    clippy::disallowed_methods,
    reason = "what takes how long is the question here"
)]

use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use punctual::chrono::{TimeDelta, Utc};
use punctual::{Outcome, Scheduler};

#[path = "support/mod.rs"]
mod support;

use support::{Note, folder, note};

const AHEAD: Duration = Duration::from_millis(5);

/// The total lateness of `tasks` tasks, one after the other, so that each finds the scheduler asleep.
fn lateness(scheduler: &Scheduler, late: &Receiver<TimeDelta>, tasks: u64) -> Duration {
    let one = |_| {
        scheduler
            .schedule(note().after(AHEAD))
            .expect("the disk has room");
        let late = late.recv().expect("every task runs");
        assert!(late >= TimeDelta::zero(), "a task started early: {late}");
        late.to_std().expect("it is not negative")
    };
    (0..tasks).map(one).sum()
}

fn due_soon(c: &mut Criterion) {
    let dir = folder();
    let (sender, late) = mpsc::channel();
    let scheduler = Scheduler::builder(dir.path().join("tasks.db"))
        .workers(2)
        .handler_fn(move |_: Note, cx| {
            let late = Utc::now() - cx.scheduled_at();
            sender.send(late).expect("the bench waits for it");
            Ok(Outcome::done())
        })
        .start()
        .expect("a fresh folder has no file that could be refused");
    let mut group = c.benchmark_group("lateness");
    // Few, because each task waits five milliseconds until it is due.
    group.sample_size(30);
    group.bench_function("due_in_5_ms", |b| {
        b.iter_custom(|tasks| lateness(&scheduler, &late, tasks));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = due_soon
}
criterion_main!(benches);
