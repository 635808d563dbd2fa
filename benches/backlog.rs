//! What many waiting tasks in a file cost the other calls: `cargo bench --bench backlog`.
//!
//! The waiting tasks are due in an hour and have a better priority, so a search for work in the wrong order visits them all.

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

/// A task for later, with a better priority than all that are due now.
fn later() -> NewTask {
    note().priority(0).after(Duration::from_secs(3600))
}

/// How many tasks wait. Fewer if nothing is measured: `cargo bench -- --test` runs each bench once.
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
                // The next task must not compete with the commit that completes this one.
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

/// How many queues come and go, and how long the scheduler then rests: it looks for idle queues once a minute.
fn queues() -> (usize, Duration) {
    match tasks() {
        1_000 => (100, Duration::ZERO),
        _ => (50_000, Duration::from_secs(200)),
    }
}

/// A queue for each tenant, and all tenants are gone: a start should cost as much as in an empty file.
fn after_many_queues(c: &mut Criterion) {
    let dir = folder();
    let path = dir.path().join("tasks.db");
    let (count, span) = queues();
    let start = || {
        let (sender, starts) = mpsc::channel();
        let scheduler = Scheduler::builder(&path)
            .workers(2)
            .handler_fn(move |_: Note, _cx| {
                // The starts of the tenants' tasks are not received.
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
