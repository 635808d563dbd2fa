//! The time to store tasks durably: one, a thousand, and from many threads: `cargo bench --bench schedule`.

#![expect(
    clippy::disallowed_methods,
    reason = "what takes how long is the question here"
)]

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use punctual::{Client, Durability};

#[path = "support/mod.rs"]
mod support;

use support::{folder, note};

const BATCH: usize = 1_000;
const THREADS: usize = 16;

fn client(folder: &Path, durability: Durability) -> Client {
    Client::builder(folder.join("tasks.db"))
        .durability(durability)
        .open()
        .expect("a fresh folder has no file that could be refused")
}

fn one(c: &mut Criterion) {
    let mut group = c.benchmark_group("schedule/one");
    group.throughput(Throughput::Elements(1));
    for (name, durability) in [
        ("power_loss", Durability::PowerLoss),
        ("process_crash", Durability::ProcessCrash),
    ] {
        let dir = folder();
        let client = client(dir.path(), durability);
        group.bench_function(name, |b| {
            b.iter(|| client.schedule(note()).expect("the disk has room"));
        });
    }
}

fn many(c: &mut Criterion) {
    let dir = folder();
    let client = client(dir.path(), Durability::PowerLoss);
    let mut group = c.benchmark_group("schedule/many");
    group.throughput(Throughput::Elements(BATCH as u64));
    // Few samples, because the file keeps all tasks.
    group.sample_size(20);
    group.measurement_time(Duration::from_secs(2));
    group.bench_function("1000", |b| {
        b.iter(|| {
            let tasks = (0..BATCH).map(|_| note());
            client.schedule_many(tasks).expect("the disk has room")
        });
    });
}

/// A round is one task from each thread. The threads share commits: while one waits for its commit, the others queue.
fn together(c: &mut Criterion) {
    let dir = folder();
    let client = client(dir.path(), Durability::PowerLoss);
    let mut group = c.benchmark_group("schedule/threads");
    group.throughput(Throughput::Elements(THREADS as u64));
    group.bench_function("16", |b| b.iter_custom(|rounds| race(&client, rounds)));
}

/// The time from when all threads are ready until the last has stored its last task.
fn race(client: &Client, rounds: u64) -> Duration {
    let ready = Barrier::new(THREADS + 1);
    let started = std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                ready.wait();
                for _ in 0..rounds {
                    client.schedule(note()).expect("the disk has room");
                }
            });
        }
        ready.wait();
        Instant::now()
    });
    started.elapsed()
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = one, many, together
}
criterion_main!(benches);
