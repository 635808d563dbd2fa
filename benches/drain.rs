//! The time to run tasks that do nothing, a file full of them and a single one: `cargo bench --bench drain`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use punctual::{Builder, Client, Outcome, Scheduler, TaskState};
use tempfile::TempDir;

#[path = "support/mod.rs"]
mod support;

use support::{Note, folder, note};

const TASKS: u64 = 2_000;
const WORKERS: usize = 2;

/// A file of due tasks, a scheduler that is not started yet, and the channel on which it reports that all handlers ran.
struct Backlog {
    builder: Builder,
    finished: Receiver<()>,
    /// The last field, so that it is dropped last.
    dir: TempDir,
}

impl Backlog {
    fn new() -> Self {
        let dir = folder();
        let path = dir.path().join("tasks.db");
        let client = Client::open(&path).expect("a fresh folder has no file that could be refused");
        client
            .schedule_many((0..TASKS).map(|_| note()))
            .expect("the disk has room");
        let (last, finished) = mpsc::channel();
        let left = AtomicU64::new(TASKS);
        let builder = Scheduler::builder(&path)
            .workers(WORKERS)
            .handler_fn(move |_: Note, _cx| {
                if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    last.send(()).expect("the bench waits for it");
                }
                Ok(Outcome::done())
            });
        Self {
            builder,
            finished,
            dir,
        }
    }

    /// Runs from the start of the scheduler until the file shows all tasks completed.
    fn drain(self) -> (Scheduler, TempDir) {
        let scheduler = self.builder.start().expect("nothing else has the file");
        self.finished.recv().expect("every task runs");
        // Only now: asking while tasks run would slow them down.
        while completed(&scheduler) < TASKS {
            std::thread::park_timeout(Duration::from_micros(100));
        }
        // The returned values are dropped outside the measured time.
        (scheduler, self.dir)
    }
}

fn completed(client: &Client) -> u64 {
    let stats = client.stats().expect("the file can be read");
    stats.count(TaskState::Completed)
}

fn many(c: &mut Criterion) {
    let mut group = c.benchmark_group("drain/many");
    group.throughput(Throughput::Elements(TASKS));
    group.sample_size(20);
    group.bench_function("2000", |b| {
        b.iter_batched(Backlog::new, Backlog::drain, BatchSize::PerIteration);
    });
}

/// One task: from the call that schedules it until its end is known.
fn one(c: &mut Criterion) {
    let dir = folder();
    let scheduler = Scheduler::builder(dir.path().join("tasks.db"))
        .workers(WORKERS)
        .handler_fn(|_: Note, _cx| Ok(Outcome::done()))
        .start()
        .expect("a fresh folder has no file that could be refused");
    c.bench_function("drain/one", |b| {
        b.iter(|| {
            let task = scheduler.schedule(note()).expect("the disk has room");
            let ended = scheduler.wait(task.id(), Duration::from_secs(10));
            let ended = ended.expect("the file can be read");
            assert!(ended.is_some(), "a task waited for ten seconds");
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = many, one
}
criterion_main!(benches);
