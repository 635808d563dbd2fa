//! The dispatcher, a step at a time.

use std::time::Duration;

use super::*;
use crate::client::Client;
use crate::id::TaskId;
use crate::model::answer::Cancel;
use crate::model::new_task::NewTask;
use crate::model::op::Op;
use crate::model::task::TaskState;
use crate::runtime::executor::Executor;
use crate::runtime::link::tests::{NOW, link};
use crate::store::{Pace, Transaction, TransactionEnd};
use crate::wake::Wake;

/// The parts of a scheduler that a test steps by hand, and a client of its store.
struct Kit {
    dispatcher: Dispatcher,
    executor: Executor,
    client: Client,
}

impl Kit {
    fn new() -> Self {
        let (link, shutdown) = (link(), Arc::<ShutdownState>::default());
        let ready = Ready::new(2, vec![Arc::clone(&link)], Arc::clone(&shutdown));
        let ready = Arc::new(ready);
        let launcher = Launcher::new(None, ready.fibers(), Arc::clone(&shutdown));
        link.signals().set_runner(Wake::new());
        link.standing_claim().set_workers(ready.bell());
        Self {
            client: link.client.clone(),
            executor: Executor {
                registry: Arc::clone(&link.registry),
                ready: Arc::clone(&ready),
            },
            dispatcher: Dispatcher::new(
                link,
                ready,
                Arc::new(launcher),
                shutdown,
                Scope::default(),
                Retention::default(),
            ),
        }
    }

    fn schedule(&self) -> TaskId {
        self.client.schedule(task()).unwrap().id()
    }

    fn state(&self, id: TaskId) -> TaskState {
        self.client.get(id).unwrap().unwrap().state()
    }

    fn attempt(&self, id: TaskId) -> u32 {
        self.client.get(id).unwrap().unwrap().attempt()
    }

    fn step(&mut self) {
        self.dispatcher.run_once(NOW);
        self.executor.run_one();
    }

    /// Runs and settles a task. Then a claim stands for the next one.
    fn run_one(&mut self) {
        let id = self.schedule();
        (0..3).for_each(|_| self.step());
        assert_eq!(self.state(id), TaskState::Completed);
        self.dispatcher.run_once(NOW);
    }
}

/// A task that the link has a handler for.
fn task() -> NewTask {
    NewTask::with_kind("kind", &())
}

/// P8: it was stored as claimed, and neither it nor its cancellation had come to the dispatcher when the stop began.
#[test]
fn p8_what_came_along_is_not_started_after_its_cancellation_or_the_stop() {
    for stops in [false, true] {
        let mut kit = Kit::new();
        kit.run_one();
        if stops {
            kit.dispatcher.shutdown.begin();
        }
        let id = kit.schedule();
        assert_eq!(kit.state(id), TaskState::Running);
        assert_eq!(kit.client.cancel(id).unwrap(), Cancel::Requested);
        (0..3).for_each(|_| kit.step());
        assert_eq!(kit.state(id), TaskState::Cancelled, "{stops}");
        assert_eq!(kit.attempt(id), 0, "{stops}");
    }
}

/// P8: it is granted and cancelled after the dispatcher has looked for what was granted, and before it passes
/// cancellations on.
#[test]
fn p8_a_cancellation_that_overtakes_its_claim_is_passed_on() {
    let mut kit = Kit::new();
    kit.run_one();
    let id = kit.schedule();
    assert_eq!(kit.client.cancel(id).unwrap(), Cancel::Requested);
    kit.dispatcher.pass_on_cancellations(NOW);
    assert!(kit.executor.run_one().is_some());
    (0..3).for_each(|_| kit.step());
    assert_eq!(kit.state(id), TaskState::Cancelled);
    assert_eq!(kit.attempt(id), 0, "its handler was not called");
}

/// P9: a thread may be held up between the start of its step and its claim.
#[test]
fn p9_the_best_task_is_claimed_though_it_came_after_the_step_began() {
    let mut kit = Kit::new();
    let [began, came] = [2, 1].map(|seconds| NOW - Duration::from_secs(seconds));
    let due = |at: Timestamp, priority| task().at(at.to_utc()).priority(priority);
    for _ in 0..9 {
        kit.client.schedule(due(began, 5)).unwrap();
    }
    let best = kit.client.schedule(due(came, 0)).unwrap().id();
    kit.dispatcher.run_once(began);
    assert_eq!(kit.state(best), TaskState::Running);
}

/// P4: a job that a bug of ours loses is not claimed for ever.
#[test]
fn p4_a_claimed_task_that_is_lost_on_its_way_to_a_worker_runs_all_the_same() {
    let mut kit = Kit::new();
    let id = kit.schedule();
    let mut now = NOW;
    kit.dispatcher.run_once(now);
    drop(kit.dispatcher.ready.try_next().unwrap());
    for _ in 0..9 {
        if let Next::At(at) = kit.dispatcher.run_once(now) {
            now = now.max(at);
        }
        kit.executor.run_one();
    }
    assert_eq!(kit.state(id), TaskState::Completed);
}

/// P4: a standing claim's commit is not known to have been stored, and what was deferred before that is answered since.
#[test]
fn p4_an_answer_from_before_a_doubt_does_not_settle_it() {
    let mut kit = Kit::new();
    kit.run_one();
    let store = Arc::clone(&kit.client.store);
    let standing_claim = store.signals().standing_claim();
    let taken = standing_claim.take(store.lanes().version).unwrap();
    let id = kit.schedule();
    let claim = Op::Claim(taken.request().clone());
    store.apply(NOW, vec![claim]).unwrap();
    drop(taken);
    assert_eq!(kit.state(id), TaskState::Running);
    kit.dispatcher.settler.defer_nothing();
    (0..3).for_each(|_| kit.step());
    kit.dispatcher.run_once(NOW);
    assert_eq!(kit.state(id), TaskState::Completed);
}

#[test]
fn p3_a_look_for_changes_that_a_write_prevented_is_made_up_for() {
    let Kit {
        client,
        mut dispatcher,
        ..
    } = Kit::new();
    let mut look_inside = |_: &dyn Transaction| {
        dispatcher.refresh(NOW);
        TransactionEnd::RollBack
    };
    let store = &client.store;
    store.transaction(NOW, None, &mut look_inside).unwrap();
    assert_eq!(dispatcher.refreshed_at, None);
    dispatcher.refresh(NOW);
    assert_eq!(dispatcher.refreshed_at, Some(NOW));
}

/// A worker that is woken and does not get the processor is waited for, not looked at all the time.
#[test]
fn p14_it_sleeps_while_a_free_worker_is_on_its_way() {
    let mut kit = Kit::new();
    kit.schedule();
    kit.dispatcher.run_once(NOW);
    while kit.dispatcher.ready.waiting().unmoved < Pace::LOCAL.ahead {
        std::thread::yield_now();
    }
    assert_eq!(
        kit.dispatcher.run_once(NOW),
        Next::At(NOW + Pace::LOCAL.look_again)
    );
    assert!(
        kit.executor.run_one().is_some(),
        "it was left to the worker"
    );
}

/// It is asked once, like by its thread: nothing else will wake it before the instant that it names.
#[test]
fn p3_after_a_task_that_is_gone_it_wakes_for_the_next_one() {
    let mut kit = Kit::new();
    let ms = Duration::from_millis(1);
    let schedule = |delay| kit.client.schedule(task().after(delay)).unwrap().id();
    let (gone, moved) = (schedule(300 * ms), schedule(300 * ms));
    schedule(500 * ms);
    kit.client.cancel(gone).unwrap();
    let later = NOW + 400 * ms;
    kit.client.reschedule(moved, later.to_utc()).unwrap();
    let mut wakes = |now| kit.dispatcher.run_once(now);
    assert_eq!(wakes(NOW), Next::At(NOW + 300 * ms));
    assert_eq!(wakes(NOW + 300 * ms), Next::At(later));
}
