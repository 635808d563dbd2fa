//! Failures, retries, snoozes and timeouts.

use std::time::Duration;

use punctual::testing::{Stepper, TestClock};
use punctual::{
    AttemptEnd, Failure, NewTask, Outcome, RetryPolicy, Scheduler, StopReason, TaskContext,
    TaskHandler, TaskResult, TaskState,
};

use crate::kit::{DAY, LONG, Log, Probe, S, clock, end_of, eventually, gate, probe, state, task};

/// A scheduler whose handler is this closure, told its time and attempt.
fn stepped(
    clock: &TestClock,
    run: impl Fn(u32, &TaskContext) -> TaskResult + Send + Sync + 'static,
) -> Stepper {
    Scheduler::in_memory()
        .workers(1)
        .handler_fn(move |Probe(n), cx| run(n, cx))
        .retry_policy("probe", RetryPolicy::fixed(10 * S))
        .stepped(clock)
        .unwrap()
}

/// A scheduler whose handler completes its task at this call, and ends so before; and the attempts that it was called for.
fn completing_at(
    call: usize,
    clock: &TestClock,
    before: impl Fn() -> TaskResult + Send + Sync + 'static,
) -> (Stepper, Log<u32>) {
    let calls = Log::new();
    let log = calls.clone();
    let scheduler = stepped(clock, move |_, cx| {
        log.push(cx.attempt());
        if log.len() < call {
            return before();
        }
        Outcome::with("at last")
    });
    (scheduler, calls)
}

#[test]
fn a_task_fails_for_good_after_its_last_attempt() {
    let clock = clock();
    let mut scheduler = stepped(&clock, |_, cx| {
        Err(format!("attempt {} of {}", cx.attempt(), cx.max_attempts()).into())
    });
    let id = scheduler.schedule(probe(1).max_attempts(3)).unwrap().id();
    assert_eq!(scheduler.advance(DAY / 2), 3);
    let task = task(&scheduler, id);
    assert_eq!((task.state(), task.attempt()), (TaskState::Failed, 3));
    assert_eq!(task.error(), Some("attempt 3 of 3"));
    let history = scheduler.history(id).unwrap();
    let numbers: Vec<u32> = history.iter().map(|attempt| attempt.number()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    for pair in history.windows(2) {
        let wait = pair[1].started_at().unwrap() - pair[0].ended_at();
        assert_eq!(wait.to_std().unwrap(), 10 * S);
    }
}

#[test]
fn an_attempt_is_told_the_last_one_s_error() {
    let clock = clock();
    let seen = Log::new();
    let log = seen.clone();
    let mut scheduler = stepped(&clock, move |_, cx| {
        log.push(cx.last_error().map(str::to_owned));
        match cx.attempt() {
            3 => Ok(Outcome::done()),
            n => Err(format!("error {n}").into()),
        }
    });
    let id = scheduler.schedule(probe(1)).unwrap().id();
    scheduler.advance(DAY / 2);
    let expected = [None, Some("error 1".to_owned()), Some("error 2".to_owned())];
    assert_eq!(seen.take(), expected);
    assert_eq!(state(&scheduler, id), TaskState::Completed);
}

#[test]
fn a_fatal_failure_is_not_tried_again() {
    let mut scheduler = stepped(&clock(), |_, _| Err(Failure::fatal("gone for good")));
    let id = scheduler.schedule(probe(1)).unwrap().id();
    assert_eq!(scheduler.advance(DAY / 2), 1);
    assert_eq!(state(&scheduler, id), TaskState::Failed);
}

#[test]
fn a_snooze_costs_no_attempt() {
    let (mut scheduler, calls) = completing_at(30, &clock(), || Ok(Outcome::snooze(S)));
    let id = scheduler.schedule(probe(1).max_attempts(1)).unwrap().id();
    scheduler.advance(DAY / 2);
    assert_eq!(calls.take(), [1; 30]);
    let task = task(&scheduler, id);
    assert_eq!((task.state(), task.attempt()), (TaskState::Completed, 1));
    let history = scheduler.history(id).unwrap();
    assert_eq!(history.len(), 30);
    assert_eq!(history[0].end(), AttemptEnd::Snoozed);
}

struct Patient;

impl TaskHandler for Patient {
    type Payload = Probe;

    fn run(&self, _: Probe, _: &TaskContext) -> TaskResult {
        Err("no".into())
    }

    fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy::fixed(3 * S)
    }
}

/// The task's own policy wins over the builder's, that over the handler's, and the error's wish over all.
#[test]
fn the_nearest_policy_wins() {
    let delay_of = |set: bool, new: NewTask| {
        let clock = clock();
        let builder = Scheduler::in_memory().handler(Patient);
        let builder = if set {
            builder.retry_policy("probe", RetryPolicy::fixed(5 * S))
        } else {
            builder
        };
        let mut scheduler = builder.stepped(&clock).unwrap();
        let id = scheduler.schedule(new).unwrap().id();
        scheduler.drain();
        let task = task(&scheduler, id);
        (task.scheduled_at() - clock.now()).to_std().unwrap()
    };
    assert_eq!(delay_of(false, probe(1)), 3 * S);
    assert_eq!(delay_of(true, probe(1)), 5 * S);
    assert_eq!(
        delay_of(true, probe(1).retry(RetryPolicy::fixed(7 * S))),
        7 * S
    );
    let clock = clock();
    let mut scheduler = stepped(&clock, |_, _| Err(Failure::retry_after(S, "busy")));
    let id = scheduler
        .schedule(probe(1).retry(RetryPolicy::fixed(7 * S)))
        .unwrap()
        .id();
    scheduler.drain();
    assert_eq!(
        (task(&scheduler, id).scheduled_at() - clock.now())
            .to_std()
            .unwrap(),
        S
    );
}

#[test]
fn a_task_that_has_ended_can_be_tried_again_with_all_its_attempts() {
    let (mut scheduler, calls) = completing_at(4, &clock(), || Err("no".into()));
    let id = scheduler.schedule(probe(1).max_attempts(2)).unwrap().id();
    scheduler.advance(DAY / 2);
    assert_eq!(state(&scheduler, id), TaskState::Failed);
    scheduler.retry(id).unwrap();
    scheduler.advance(DAY / 2);
    assert_eq!(calls.take(), [1, 2, 1, 2]);
    let task = task(&scheduler, id);
    assert_eq!(task.result::<String>().unwrap().as_deref(), Some("at last"));
    assert_eq!(scheduler.history(id).unwrap().len(), 4);
}

/// An error after the deadline is a timeout; success after it is a success, and the history says that it was late.
#[test]
fn what_returns_after_its_deadline_is_told_apart() {
    let clock = clock();
    let time = clock.clone();
    let mut scheduler = stepped(&clock, move |n, cx| {
        assert_eq!(cx.deadline(), Some(time.now() + Duration::from_secs(2)));
        time.advance(if n == 0 { S } else { 2 * S });
        match n {
            2 => Ok(Outcome::done()),
            _ => Err("no".into()),
        }
    });
    let ends: Vec<AttemptEnd> = (0..3)
        .map(|n| {
            let task = probe(n).timeout(2 * S).max_attempts(1);
            let id = scheduler.schedule(task).unwrap().id();
            scheduler.drain();
            scheduler.history(id).unwrap()[0].end()
        })
        .collect();
    let expected = [
        AttemptEnd::Failed,
        AttemptEnd::TimedOut,
        AttemptEnd::Completed,
    ];
    assert_eq!(ends, expected);
}

/// At the deadline the handler is asked to stop, and the attempt is tried again.
#[test]
fn a_timeout_raises_the_token_and_is_recorded() {
    let (clock, (gate, _open)) = (clock(), gate());
    let at_gate = gate.clone();
    let scheduler = Scheduler::in_memory()
        .workers(1)
        .clock(clock.clone())
        .handler_fn(move |_: Probe, cx| {
            if cx.attempt() == 2 {
                return Ok(Outcome::done());
            }
            at_gate.pass();
            assert!(cx.cancelled_within(LONG), "it is told");
            assert_eq!(cx.stop_reason(), Some(StopReason::DeadlinePassed));
            Err("stopped".into())
        })
        .timeout("probe", 30 * S)
        .retry_policy("probe", RetryPolicy::fixed(S))
        .start()
        .unwrap();
    let id = scheduler.schedule(probe(1)).unwrap().id();
    gate.await_waiting(1);
    gate.open();
    clock.advance(30 * S);
    eventually("the attempt has ended", || {
        state(&scheduler, id) == TaskState::Pending
    });
    clock.advance(S);
    let task = end_of(&scheduler, id);
    assert_eq!((task.state(), task.attempt()), (TaskState::Completed, 2));
    let ends: Vec<AttemptEnd> = scheduler
        .history(id)
        .unwrap()
        .iter()
        .map(|a| a.end())
        .collect();
    assert_eq!(ends, [AttemptEnd::TimedOut, AttemptEnd::Completed]);
}

/// The task's own timeout wins over its handler's.
#[test]
fn a_task_can_bring_its_own_timeout() {
    let deadlines = Log::new();
    let log = deadlines.clone();
    let clock = clock();
    let mut scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(move |_: Probe, cx| {
            log.push(cx.deadline());
            Ok(Outcome::done())
        })
        .timeout("probe", 30 * S)
        .stepped(&clock)
        .unwrap();
    scheduler.schedule(probe(1)).unwrap();
    scheduler.schedule(probe(1).timeout(5 * S)).unwrap();
    scheduler.drain();
    let now = clock.now();
    assert_eq!(deadlines.take(), [Some(now + 30 * S), Some(now + 5 * S)]);
}
