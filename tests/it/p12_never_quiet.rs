//! P12: no error, panic or slow handler ends a loop silently; what stops the store is named by every call and by `health()`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use punctual::testing::Stepper;
use punctual::{
    AttemptEnd, Client, Error, ErrorKind, Filter, NewTask, Outcome, Payload, RetryPolicy,
    Scheduler, StopReason, TaskState,
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::kit::{
    DAY, Gate, LONG, MS, OpenOnDrop, Other, Probe, S, Watch, clock, end_of, eventually, file,
    probe, state, task,
};

/// Panics wherever it is told to.
#[derive(Serialize)]
struct Bomb {
    on_decode: bool,
    on_drop: bool,
}

impl<'de> Deserialize<'de> for Bomb {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Plain {
            on_decode: bool,
            on_drop: bool,
        }
        let Plain { on_decode, on_drop } = Plain::deserialize(deserializer)?;
        assert!(!on_decode, "panics while it is decoded");
        Ok(Self { on_decode, on_drop })
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!self.on_drop || !std::thread::panicking(), "not twice");
        if self.on_drop && std::thread::current().name() != Some("test") {
            panic!("panics when it is dropped");
        }
    }
}

impl Payload for Bomb {
    const KIND: &'static str = "bomb";
}

fn bomb(on_decode: bool, on_drop: bool) -> NewTask {
    NewTask::with_kind(
        "bomb",
        &serde_json::json!({ "on_decode": on_decode, "on_drop": on_drop }),
    )
}

/// The value of a panic that panics when it is dropped.
struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("in a drop");
    }
}

/// P12: whatever of a handler panics, the attempt fails and the worker goes on.
#[test]
fn a_panic_costs_its_attempt_and_nothing_else() {
    let scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(|_: Bomb, _cx| Ok(Outcome::done()))
        .handler_fn(|Probe(n), _cx| match n {
            1 => panic!("with a text"),
            2 => std::panic::panic_any(7),
            3 => std::panic::panic_any(PanicsInDrop),
            _ => Ok(Outcome::done()),
        })
        .start()
        .unwrap();
    let bad = [
        bomb(true, false),
        bomb(false, true),
        probe(1),
        probe(2),
        probe(3),
    ];
    for task in bad {
        let id = scheduler.schedule(task.max_attempts(1)).unwrap().id();
        let ended = end_of(&scheduler, id);
        assert_eq!(ended.state(), TaskState::Failed);
        assert!(
            ended.error().unwrap().starts_with("panicked"),
            "{:?}",
            ended.error()
        );
        let history = scheduler.history(id).unwrap();
        assert_eq!(history[0].end(), AttemptEnd::Panicked);
        let next = scheduler.schedule(probe(9)).unwrap().id();
        assert_eq!(end_of(&scheduler, next).state(), TaskState::Completed);
    }
    assert!(scheduler.health().is_ok());
    assert_eq!(scheduler.shutdown(LONG).unwrap().still_running(), 0);
}

/// P12: a retry policy is the user's code as well, and so is the value of its panic: dropped, that ended the worker, and the
/// task stayed Running.
#[test]
fn a_retry_policy_that_panics_does_not_end_the_worker() {
    let scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(|Probe(n), _cx| match n {
            0 => Err("no".into()),
            _ => Ok(Outcome::done()),
        })
        .retry_policy(
            "probe",
            RetryPolicy::custom(|_| std::panic::panic_any(PanicsInDrop)),
        )
        .start()
        .unwrap();
    let bad = scheduler.schedule(probe(0)).unwrap().id();
    let good = scheduler.schedule(probe(1)).unwrap().id();
    assert_eq!(end_of(&scheduler, good).state(), TaskState::Completed);
    eventually("it waits for a retry by the default policy", || {
        state(&scheduler, bad) == TaskState::Pending
    });
    assert_eq!(task(&scheduler, bad).error(), Some("no"));
    assert_eq!(scheduler.shutdown(LONG).unwrap().still_running(), 0);
}

/// Panics at what a worker says, or as the span of an attempt is made, entered, left or closed. From the first panic on it
/// panics at everything: a lock of its own is poisoned.
struct Touchy {
    at: &'static str,
    lock: Mutex<()>,
}

impl Touchy {
    fn called(&self, at: &str) {
        let _locked = self.lock.lock().unwrap();
        assert_ne!(self.at, at, "as it should");
    }
}

impl tracing::Subscriber for Touchy {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().ends_with("executor")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        self.called("new span");
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.called("event");
    }

    fn enter(&self, _: &tracing::span::Id) {
        self.called("enter");
    }

    fn exit(&self, _: &tracing::span::Id) {
        self.called("exit");
    }

    fn try_close(&self, _: tracing::span::Id) -> bool {
        self.called("close");
        true
    }
}

/// P12: whoever listens to what is logged cannot end a worker, or keep a task from ending as it did.
#[test]
fn a_listener_that_panics_does_not_end_the_worker() {
    for at in ["event", "new span", "enter", "exit", "close"] {
        let mut scheduler = Scheduler::in_memory()
            .workers(1)
            .handler_fn(|Probe(n), _cx| match n {
                0 => Ok(Outcome::done()),
                1 => Err("no".into()),
                _ => panic!("never"),
            })
            .stepped(&clock())
            .unwrap();
        let [good, bad, ugly] = [0, 1, 2].map(|n| {
            let task = probe(n).max_attempts(1);
            scheduler.schedule(task).unwrap().id()
        });
        let lock = Mutex::default();
        tracing::subscriber::with_default(Touchy { at, lock }, || {
            assert_eq!(scheduler.drain(), 3);
        });
        assert_eq!(state(&scheduler, good), TaskState::Completed, "{at}");
        assert_eq!(task(&scheduler, bad).error(), Some("no"), "{at}");
        let error = Some("panicked: never");
        assert_eq!(task(&scheduler, ugly).error(), error, "{at}");
    }
}

/// P12: one task that cannot be decoded fails alone, says so without showing its payload, and is tried again.
#[test]
fn an_undecodable_payload_is_that_task_s_failure() {
    let mut scheduler = Scheduler::in_memory()
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .stepped(&clock())
        .unwrap();
    let bad = NewTask::with_kind("probe", "secret").max_attempts(1);
    let bad = scheduler.schedule(bad).unwrap().id();
    let good = scheduler.schedule(probe(1)).unwrap().id();
    scheduler.drain();
    assert_eq!(state(&scheduler, good), TaskState::Completed);
    assert_eq!(state(&scheduler, bad), TaskState::Pending);
    scheduler.advance(3_600 * S);
    assert_eq!(
        state(&scheduler, bad),
        TaskState::Pending,
        "for over an hour"
    );
    scheduler.advance(700 * S);
    let task = task(&scheduler, bad);
    assert_eq!((task.state(), task.attempt()), (TaskState::Failed, 0));
    let error = task.error().unwrap();
    assert!(error.contains("expected u32"), "{error}");
    assert!(!error.contains("secret"), "{error}");
    let history = scheduler.history(bad).unwrap();
    assert_eq!(history.len(), 6);
    for attempt in history {
        assert_eq!(attempt.end(), AttemptEnd::Undecodable);
        assert_eq!((attempt.number(), attempt.started_at()), (0, None));
    }
}

/// A scheduler on threads whose time is moved by hand, with one worker and a handler that is deaf at a gate.
fn with_stuck_handler(max_spares: usize) -> (Scheduler, punctual::testing::TestClock, Gate) {
    let (clock, gate) = (clock(), Gate::default());
    let at_gate = gate.clone();
    let scheduler = Scheduler::in_memory()
        .workers(1)
        .max_spare_threads(max_spares)
        .clock(clock.clone())
        .handler_fn(move |_: Probe, cx| {
            at_gate.pass();
            assert_eq!(cx.stop_reason(), Some(StopReason::DeadlinePassed));
            Ok(Outcome::done())
        })
        .handler_fn(|_: Other, _cx| Ok(Outcome::done()))
        .timeout("probe", S)
        .start()
        .unwrap();
    (scheduler, clock, gate)
}

/// P12: a handler that does not return keeps its task and costs a thread, not the scheduler.
#[test]
fn a_stuck_handler_does_not_stop_the_rest() {
    let (scheduler, clock, gate) = with_stuck_handler(1);
    let _open = OpenOnDrop(gate.clone());
    let stuck = scheduler.schedule(probe(1)).unwrap().id();
    gate.await_waiting(1);
    let other = scheduler.schedule(Other(2)).unwrap().id();
    clock.advance(S + 10 * S);
    eventually("its slot is replaced", || scheduler.health().spare() == 1);
    assert_eq!(end_of(&scheduler, other).state(), TaskState::Completed);
    let health = scheduler.health();
    assert_eq!((health.workers(), health.busy(), health.stuck()), (1, 1, 1));
    assert!(health.is_ok(), "the others run: {health:?}");
    assert_eq!(
        state(&scheduler, stuck),
        TaskState::Running,
        "it keeps its task"
    );
    gate.open();
    let task = end_of(&scheduler, stuck);
    assert_eq!(task.state(), TaskState::Completed, "late, but completed");
    assert_eq!(
        scheduler.history(stuck).unwrap()[0].end(),
        AttemptEnd::Completed
    );
    eventually("the spare thread goes", || {
        let health = scheduler.health();
        (health.stuck(), health.spare(), health.busy()) == (0, 0, 0)
    });
    let after = scheduler.schedule(Other(3)).unwrap().id();
    end_of(&scheduler, after);
}

/// P12: when there is no thread left for the others, `health()` says so.
#[test]
fn more_stuck_handlers_than_spare_threads_are_told() {
    let (scheduler, clock, gate) = with_stuck_handler(0);
    let _open = OpenOnDrop(gate.clone());
    scheduler.schedule(probe(1)).unwrap();
    gate.await_waiting(1);
    assert!(scheduler.health().is_ok());
    let other = scheduler.schedule(Other(2)).unwrap().id();
    clock.advance(11 * S);
    eventually("it is told", || !scheduler.health().is_ok());
    assert_eq!(state(&scheduler, other), TaskState::Pending);
    gate.open();
    end_of(&scheduler, other);
    assert!(scheduler.health().is_ok());
}

/// P12: a kind without a handler waits, costs nothing, and is visible; another release may know it.
#[test]
fn unknown_kinds_stay_pending_and_are_visible() {
    let (_dir, path) = file();
    let clock = clock();
    let mut scheduler: Stepper = Scheduler::builder(&path)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .stepped(&clock)
        .unwrap();
    let unknown = scheduler.schedule(Other(1).clone()).unwrap().id();
    let known = scheduler.schedule(probe(1)).unwrap().id();
    scheduler.advance(DAY / 2);
    assert_eq!(state(&scheduler, known), TaskState::Completed);
    let waiting = task(&scheduler, unknown);
    assert_eq!(
        (waiting.state(), waiting.attempt()),
        (TaskState::Pending, 0)
    );
    drop(scheduler);
    let started = Scheduler::builder(&path)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .start()
        .unwrap();
    assert_eq!(started.health().unknown_kinds(), ["other"]);
    assert!(started.health().is_ok());
    drop(started);
    let mut scheduler = Scheduler::builder(&path)
        .handler_fn(|_: Other, _cx| Ok(Outcome::done()))
        .stepped(&clock)
        .unwrap();
    scheduler.drain();
    assert_eq!(state(&scheduler, unknown), TaskState::Completed);
}

/// P12: a handler may use the client it is given without ever waiting for itself.
#[test]
fn a_handler_can_do_everything_a_client_can() {
    let scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(|Probe(n), cx| {
            let client = cx.client();
            if n > 0 {
                client.schedule(probe(n - 1))?;
                let later = client.schedule(probe(0).after(DAY))?.id();
                client.cancel(later)?;
                client.submit().schedule(probe(0).after(DAY)).wait()?;
                client.list(&Filter::all())?;
                client.stats()?;
                client.cancel_all(&Filter::new().kind("nothing"))?;
                cx.progress(&n)?;
            }
            Ok(Outcome::done())
        })
        .start()
        .unwrap();
    scheduler.schedule(probe(20)).unwrap();
    let completed = Filter::new().state(TaskState::Completed);
    eventually("all have run", || {
        scheduler.count(&completed).unwrap() == 21
    });
}

/// Waits until a write notices what has become of the file, and returns what it says.
fn noticed(client: &Client) -> Error {
    let watch = Watch::start();
    let mut n = 0;
    loop {
        n += 1;
        match client.schedule(probe(n).after(DAY)) {
            Err(error) => return error,
            Ok(_) => assert!(watch.elapsed() < LONG, "it never notices"),
        }
        std::thread::park_timeout(50 * MS);
    }
}

/// P12: a file that is replaced under us stops the store, and every call says why.
#[test]
fn a_replaced_file_stops_the_store_by_name() {
    type Harm = fn(&std::path::Path);
    let harms: [Harm; 2] = [
        |path| {
            let other = path.with_extension("other");
            drop(Client::open(&other).unwrap());
            std::fs::rename(&other, path).unwrap();
        },
        |path| std::fs::remove_file(path).unwrap(),
    ];
    for harm in harms {
        let (_dir, path) = file();
        let scheduler = Scheduler::builder(&path)
            .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
            .start()
            .unwrap();
        let id = scheduler.schedule(probe(1).after(DAY)).unwrap().id();
        assert!(scheduler.health().is_ok());
        harm(&path);
        assert_eq!(noticed(&scheduler).kind(), ErrorKind::Replaced);
        let health = scheduler.health();
        assert_eq!(health.stopped(), Some(ErrorKind::Replaced));
        assert!(!health.is_ok());
        let kind = |error: Error| error.kind();
        assert_eq!(kind(scheduler.get(id).unwrap_err()), ErrorKind::Replaced);
        assert_eq!(
            kind(scheduler.list(&Filter::all()).unwrap_err()),
            ErrorKind::Replaced
        );
        assert_eq!(kind(scheduler.cancel(id).unwrap_err()), ErrorKind::Replaced);
        assert_eq!(
            kind(scheduler.wait(id, LONG).unwrap_err()),
            ErrorKind::Replaced
        );
        let watch = Watch::start();
        assert_eq!(scheduler.shutdown(LONG).unwrap().still_running(), 0);
        assert!(watch.elapsed() < LONG / 2, "nothing is left to wait for");
    }
}

/// P12: a process that opened the new file beside the former one died by SIGBUS.
#[test]
fn a_replaced_file_is_opened_again_once_the_former_one_is_closed() {
    let (_dir, path) = file();
    let client = Client::open(&path).unwrap();
    client.schedule(probe(1)).unwrap();
    let other = path.with_extension("other");
    drop(Client::open(&other).unwrap());
    std::fs::rename(&other, &path).unwrap();
    let error = Client::open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Replaced);
    assert!(error.to_string().contains("close that first"), "{error}");
    drop(client);
    for name in ["-wal", "-shm"] {
        std::fs::remove_file(format!("{}{name}", path.display())).unwrap();
    }
    let client = Client::open(&path).unwrap();
    assert_eq!(client.count(&Filter::all()).unwrap(), 0);
}

/// P12: a process that only reads notices as well, at the latest when it needs another connection.
#[test]
fn a_reader_is_not_given_another_file_s_tasks() {
    let (_dir, path) = file();
    let client = Client::open(&path).unwrap();
    let other = path.with_extension("other");
    let theirs = {
        let client = Client::open(&other).unwrap();
        client.schedule(probe(1)).unwrap().id()
    };
    std::fs::rename(&other, &path).unwrap();
    // Many at once, so that there are not enough connections to the first file.
    let found = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..50 {
                    if let Ok(Some(_)) = client.get(theirs) {
                        found.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!(found.load(Ordering::SeqCst), 0);
}
