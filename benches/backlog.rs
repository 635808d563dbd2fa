//! What a file with many tasks that wait costs the calls beside them: `cargo bench --bench backlog`.
//!
//! They are due in an hour and of a better priority, so whoever looks for work in the wrong order visits them all.

#![expect(
    clippy::disallowed_methods,
    reason = "what takes how long is the question here"
)]

use std::sync::mpsc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use punctual::{Client, DEFAULT_PAGE, Filter, NewTask, Outcome, Scheduler};

#[path = "support/mod.rs"]
mod support;

use support::{Note, folder, note};

/// A task for later, before all that are due now.
fn later() -> NewTask {
    note().priority(0).after(Duration::from_secs(3600))
}

/// Fewer where times mean nothing: `cargo bench -- --test` runs each bench once.
fn tasks() -> usize {
    let given = |name: &str| std::env::args().any(|each| each == name);
    // Cargo gives `--bench` when it measures.
    if given("--test") || !given("--bench") {
        1_000
    } else {
        100_000
    }
}

fn beside_many(c: &mut Criterion) {
    let dir = folder();
    let path = dir.path().join("tasks.db");
    Client::open(&path)
        .and_then(|client| client.schedule_stream((0..tasks()).map(|_| later())))
        .expect("the disk has room");
    let (sender, starts) = mpsc::channel();
    let scheduler = Scheduler::builder(&path)
        .workers(2)
        .handler_fn(move |_: Note, _cx| {
            sender.send(Instant::now()).expect("the bench waits for it");
            Ok(Outcome::done())
        })
        .start()
        .expect("nothing else has the file");

    let mut group = c.benchmark_group("backlog");
    // From the call of `schedule` to the call of the handler.
    group.bench_function("schedule_to_start", |b| {
        b.iter_custom(|tasks| {
            let one = |_| {
                let called = Instant::now();
                let task = scheduler.schedule(note()).expect("the disk has room");
                let span = starts.recv().expect("every task runs") - called;
                // The next must not meet the commit that completes this one.
                let ended = scheduler.wait(task.id(), Duration::from_secs(10));
                let ended = ended.expect("the file can be read");
                assert!(ended.is_some(), "a task that has started did not end");
                span
            };
            (0..tasks).map(one).sum()
        });
    });
    group.bench_function("cancel", |b| {
        b.iter_batched(
            || scheduler.schedule(later()).expect("the disk has room").id(),
            |task| scheduler.cancel(task).expect("it is stored"),
            BatchSize::SmallInput,
        );
    });
    group.throughput(Throughput::Elements(DEFAULT_PAGE as u64));
    group.bench_function("list", |b| {
        b.iter(|| {
            scheduler
                .list(&Filter::all())
                .expect("the file can be read")
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = beside_many
}
criterion_main!(benches);
