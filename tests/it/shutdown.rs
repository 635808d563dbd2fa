//! Shutting down: it gives back, waits, asks, reports; nothing is lost, and nothing waits for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use punctual::{AttemptEnd, Client, ErrorKind, Outcome, Scheduler, StopReason, TaskState};

use crate::kit::{
    DAY, LONG, MS, Probe, S, Watch, clock, end_of, eventually, file, gate, probe, state, task,
};

#[test]
fn an_idle_scheduler_ends_at_once() {
    let scheduler = Scheduler::in_memory()
        .workers(8)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .start()
        .unwrap();
    let pending = scheduler.schedule(probe(1).after(DAY)).unwrap().id();
    let watch = Watch::start();
    let ended = scheduler.shutdown(LONG).unwrap();
    assert_eq!(
        (ended.finished(), ended.given_back(), ended.still_running()),
        (0, 0, 0)
    );
    assert!(watch.elapsed() < 10 * S);
    // As a client it stays usable.
    assert_eq!(state(&scheduler, pending), TaskState::Pending);
    let later = scheduler.schedule(probe(2)).unwrap().id();
    assert_eq!(
        scheduler.wait(later, 20 * MS).unwrap().map(|_| ()),
        None,
        "nothing new starts"
    );
    let again = scheduler.shutdown(LONG).unwrap();
    assert_eq!(again.still_running(), 0);
}

#[test]
fn it_waits_for_what_runs_and_gives_back_what_waits() {
    let (_dir, path) = file();
    let (gate, _open) = gate();
    let at_gate = gate.clone();
    let scheduler = Scheduler::builder(&path)
        .workers(1)
        .handler_fn(move |Probe(n), _cx| {
            if n > 0 {
                at_gate.pass();
            }
            Ok(Outcome::done())
        })
        .start()
        .unwrap();
    // Known to be quick, so others are claimed ahead while the slow one runs.
    for _ in 0..30 {
        let id = scheduler.schedule(probe(0)).unwrap().id();
        end_of(&scheduler, id);
    }
    let ids: Vec<_> = scheduler
        .schedule_many((1..20).map(probe))
        .unwrap()
        .into_iter()
        .map(|scheduled| scheduled.id())
        .collect();
    gate.await_waiting(1);
    // The stop begins, and does not wait for the end.
    let begun = scheduler.shutdown(MS).unwrap();
    assert_eq!((begun.finished(), begun.still_running()), (0, 1));
    let running = punctual::Filter::new().state(TaskState::Running);
    assert_eq!(scheduler.count(&running).unwrap(), 1, "only what runs");
    gate.open();
    let ended = scheduler.shutdown(LONG).unwrap();
    assert_eq!((ended.finished(), ended.still_running()), (1, 0));
    assert_eq!(state(&scheduler, ids[0]), TaskState::Completed);
    for id in &ids[1..] {
        let task = task(&scheduler, *id);
        assert_eq!((task.state(), task.attempt()), (TaskState::Pending, 0));
    }
    assert!(scheduler.health().is_ok());
}

#[test]
fn what_runs_at_the_deadline_is_asked_to_stop() {
    let scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(|_: Probe, cx| {
            assert!(cx.cancelled_within(LONG));
            assert_eq!(cx.stop_reason(), Some(StopReason::ShuttingDown));
            Err("stopped half-way".into())
        })
        .start()
        .unwrap();
    let id = scheduler.schedule(probe(1)).unwrap().id();
    eventually("it runs", || scheduler.health().busy() == 1);
    let ended = scheduler.shutdown(20 * MS).unwrap();
    assert_eq!((ended.finished(), ended.still_running()), (1, 0));
    let task = task(&scheduler, id);
    assert_eq!(
        (task.state(), task.attempt()),
        (TaskState::Pending, 0),
        "it waits, and has lost no attempt"
    );
    assert_eq!(task.error(), Some("stopped half-way"));
    let history = scheduler.history(id).unwrap();
    assert_eq!(history[0].end(), AttemptEnd::Interrupted);
}

#[test]
fn what_does_not_stop_is_reported_and_its_late_result_is_kept() {
    let (_dir, path) = file();
    let (gate, _open) = gate();
    let at_gate = gate.clone();
    let scheduler = Scheduler::builder(&path)
        .workers(2)
        .handler_fn(move |Probe(n), _cx| {
            at_gate.pass();
            Outcome::with(&n)
        })
        .start()
        .unwrap();
    let ids = [7, 8].map(|n| scheduler.schedule(probe(n)).unwrap().id());
    gate.await_waiting(2);
    let waits = scheduler.schedule(probe(9)).unwrap().id();
    let watch = Watch::start();
    let ended = scheduler.shutdown(20 * MS).unwrap();
    assert_eq!((ended.finished(), ended.still_running()), (0, 2));
    assert!(watch.elapsed() < 10 * S);
    let client = scheduler.client();
    drop(scheduler);
    // Another instance comes: it runs what waits, and leaves alone what still runs here.
    let other = Scheduler::builder(&path)
        .workers(1)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .start()
        .unwrap();
    assert_eq!(end_of(&other, waits).state(), TaskState::Completed);
    for id in ids {
        assert_eq!(state(&other, id), TaskState::Running, "its owner lives");
    }
    gate.open();
    for (id, n) in ids.into_iter().zip([7, 8]) {
        let task = end_of(&client, id);
        assert_eq!((task.state(), task.attempt()), (TaskState::Completed, 1));
        assert_eq!(task.result::<u32>().unwrap(), Some(n));
    }
}

#[test]
fn a_drop_waits_a_second_at_most() {
    let (gate, _open) = gate();
    let scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(gate.handler())
        .start()
        .unwrap();
    scheduler.schedule(probe(1)).unwrap();
    gate.await_waiting(1);
    let watch = Watch::start();
    drop(scheduler);
    assert!(watch.elapsed() < 20 * S, "{:?}", watch.elapsed());
}

#[test]
fn a_scheduler_can_be_dropped_by_its_own_handler() {
    let slot: Arc<std::sync::Mutex<Option<Scheduler>>> = Arc::default();
    let dropped = Arc::new(AtomicUsize::new(0));
    let (inside, count) = (Arc::clone(&slot), Arc::clone(&dropped));
    let scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(move |_: Probe, _cx| {
            let own = inside.lock().unwrap().take();
            drop(own);
            count.fetch_add(1, Ordering::SeqCst);
            Ok(Outcome::done())
        })
        .start()
        .unwrap();
    let client = scheduler.client();
    let id = {
        let mut slot = slot.lock().unwrap();
        let id = scheduler.schedule(probe(1)).unwrap().id();
        *slot = Some(scheduler);
        id
    };
    assert_eq!(end_of(&client, id).state(), TaskState::Completed);
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

#[test]
fn the_file_can_be_opened_again_after_a_shutdown() {
    let (_dir, path) = file();
    for round in 0..3 {
        let scheduler = Scheduler::builder(&path)
            .workers(2)
            .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
            .start()
            .unwrap();
        let id = scheduler.schedule(probe(round)).unwrap().id();
        end_of(&scheduler, id);
        let _ = scheduler.shutdown(LONG).unwrap();
    }
    let client = Client::open(&path).unwrap();
    assert_eq!(client.stats().unwrap().count(TaskState::Completed), 3);
    let mut folder = path.into_os_string();
    folder.push(".punctual");
    let locks = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(locks, 0, "an instance that ended leaves no lock file");
}

#[test]
fn a_stepped_scheduler_gives_back_what_it_holds_when_it_is_dropped() {
    let (_dir, path) = file();
    let mut scheduler = Scheduler::builder(&path)
        .workers(4)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .stepped(&clock())
        .unwrap();
    let ids: Vec<_> = (0..4)
        .map(|n| scheduler.schedule(probe(n)).unwrap().id())
        .collect();
    assert!(scheduler.step());
    drop(scheduler);
    let client = Client::open(&path).unwrap();
    let states: Vec<TaskState> = ids.iter().map(|id| state(&client, *id)).collect();
    assert_eq!(states[0], TaskState::Completed);
    assert_eq!(states[1..], [TaskState::Pending; 3]);
    assert_eq!(
        client.delete(ids[1]).unwrap_err().kind(),
        ErrorKind::State,
        "they are there to be run"
    );
}

#[test]
fn a_wait_for_what_no_worker_is_left_to_run_ends_with_its_timeout_and_a_shutdown_inside_with_its_own()
 {
    let (told, heard) = std::sync::mpsc::channel();
    let own = Arc::new(std::sync::OnceLock::<Scheduler>::new());
    let inside = Arc::downgrade(&own);
    let scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(move |Probe(n), cx| {
            if n == 0 {
                let pending = cx.client().schedule(probe(1))?.id();
                let waited = cx.client().wait(pending, 20 * MS)?;
                let own = inside.upgrade().expect("the test waits");
                let scheduler = own.get().expect("it was started");
                let ended = scheduler.shutdown(20 * MS)?;
                let told_to = cx.stop_reason();
                told.send((waited.is_none(), ended.still_running(), told_to))?;
            }
            Ok(Outcome::done())
        })
        .start()
        .unwrap();
    own.set(scheduler).unwrap();
    own.get().unwrap().schedule(probe(0)).unwrap();
    let (timed_out, still_running, told_to) = heard.recv_timeout(LONG).unwrap();
    assert!(timed_out);
    assert_eq!(still_running, 1, "the handler itself");
    assert_eq!(told_to, Some(StopReason::ShuttingDown));
}
