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

/// How many queues come and go, and how long the scheduler is left alone then: it looks once a minute which are idle.
fn queues() -> (usize, Duration) {
    match tasks() {
        1_000 => (100, Duration::ZERO),
        _ => (50_000, Duration::from_secs(200)),
    }
}

/// A queue for each tenant, and no tenant is left: a start should cost what it does in an empty file.
fn after_many_queues(c: &mut Criterion) {
    let dir = folder();
    let path = dir.path().join("tasks.db");
    let (count, span) = queues();
    let start = || {
        let (sender, starts) = mpsc::channel();
        let scheduler = Scheduler::builder(&path)
            .workers(2)
            .handler_fn(move |_: Note, _cx| {
                // Nobody listens to the tenants' tasks.
                let _ = sender.send(Instant::now());
                Ok(Outcome::done())
            })
            .start()
            .expect("nothing else has the file");
        (scheduler, starts)
    };
    let client = Client::open(&path).expect("the disk has room");
    let tenant = |n| note().queue(format!("tenant.{n}")).priority(9);
    let all = (0..count).map(tenant).collect::<Vec<_>>();
    client.schedule_stream(all).expect("the disk has room");
    client
        .cancel_all(&Filter::all())
        .expect("the file can be read");
    let deleted = client.delete_all(&Filter::all());
    deleted.expect("the file can be read");
    drop(client);

    let mut group = c.benchmark_group("queues");
    let mut measure = |name: &str, scheduler: &Scheduler, starts: &mpsc::Receiver<Instant>| {
        group.bench_function(name, |b| {
            b.iter_custom(|tasks| {
                let one = |_| {
                    let called = Instant::now();
                    let task = scheduler.schedule(note()).expect("the disk has room");
                    let span = starts.recv().expect("every task runs") - called;
                    let ended = scheduler.wait(task.id(), Duration::from_secs(10));
                    assert!(ended.expect("the file can be read").is_some());
                    span
                };
                (0..tasks).map(one).sum()
            });
        });
    };
    let (scheduler, starts) = start();
    measure("start_at_once", &scheduler, &starts);
    std::thread::sleep(span);
    measure("start_after_a_while", &scheduler, &starts);
    drop(scheduler);
    let (scheduler, starts) = start();
    measure("start_after_a_reopen", &scheduler, &starts);
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = beside_many, after_many_queues
}
criterion_main!(benches);
