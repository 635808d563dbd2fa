//! Recording how attempts ended.

use std::sync::Arc;
use std::time::Duration;

use super::{Kit, NOW, S, done, error, json, on_every_backend, returned, settled, task};
use crate::model::attempt::AttemptEnd;
use crate::model::limits::MAX_HISTORY;
use crate::model::new_task::Insert;
use crate::model::op::{Action, Changed, Op, Settled};
use crate::model::outcome::{Failure, Outcome};
use crate::model::settle::{Asked, Claim, End, Fence, Settlement};
use crate::model::task::{Task, TaskState};
use crate::time::Stopwatch;
use crate::wake::Wake;

on_every_backend!(
    every_end_of_an_attempt_is_recorded,
    p7_a_stale_fence_changes_nothing,
    p7_a_settlement_counts_once,
    p7_a_row_number_that_comes_again_does_not_let_an_old_attempt_in,
    p7_an_attempt_whose_task_was_claimed_again_changes_nothing,
    p8_a_requested_cancel_wins_over_a_retry_but_not_over_a_completion,
    p8_a_task_that_was_cancelled_before_its_start_was_never_started,
    a_task_that_is_given_back_waits_as_before,
    a_snoozed_task_is_not_expired_by_its_start_deadline,
    a_task_that_is_given_back_still_has_its_start_deadline,
    a_result_is_kept_and_read,
    a_late_completion_is_told_by_the_history,
    the_history_keeps_the_newest_attempts,
    progress_is_kept_and_fenced,
    a_retry_wakes_the_runner_in_time,
    the_end_of_a_task_is_told_to_those_who_wait,
    ends_of_one_transaction_are_answered_in_order,
    p7_the_stale_among_many_completions_change_nothing,
);

fn late(result: crate::model::outcome::TaskResult) -> End {
    End::Returned {
        result,
        asked: Asked::TooLong,
    }
}

fn every_end_of_an_attempt_is_recorded(kit: &mut Kit) {
    use AttemptEnd as A;
    use TaskState as T;
    let fatal = || returned(Err(Failure::fatal("fatal")));
    // The end, the state, attempts behind it, when it is due again, the history, the error.
    type Row = (
        End,
        T,
        u32,
        Option<Duration>,
        Option<A>,
        Option<&'static str>,
    );
    let table: Vec<Row> = vec![
        (done(), T::Completed, 1, None, Some(A::Completed), None),
        (
            error(),
            T::Pending,
            1,
            Some(10 * S),
            Some(A::Failed),
            Some("no"),
        ),
        (fatal(), T::Failed, 1, None, Some(A::Failed), Some("fatal")),
        (
            late(Err("slow".into())),
            T::Pending,
            1,
            Some(10 * S),
            Some(A::TimedOut),
            Some("slow"),
        ),
        (
            End::Returned {
                result: Err("stopping".into()),
                asked: Asked::Interrupted,
            },
            T::Pending,
            0,
            Some(Duration::ZERO),
            Some(A::Interrupted),
            Some("stopping"),
        ),
        (
            returned(Ok(Outcome::snooze(3 * S))),
            T::Pending,
            0,
            Some(3 * S),
            Some(A::Snoozed),
            None,
        ),
        (
            returned(Ok(Outcome::cancel("unwanted"))),
            T::Cancelled,
            1,
            None,
            Some(A::Cancelled),
            Some("unwanted"),
        ),
        (
            End::Panicked("boom".into()),
            T::Pending,
            1,
            Some(10 * S),
            Some(A::Panicked),
            Some("boom"),
        ),
        (
            End::Undecodable("bad".into()),
            T::Pending,
            0,
            Some(S),
            Some(A::Undecodable),
            Some("bad"),
        ),
        (
            End::Damaged("crc"),
            T::Failed,
            0,
            None,
            Some(A::Undecodable),
            Some("crc"),
        ),
        (
            End::Unstarted,
            T::Pending,
            0,
            Some(Duration::ZERO),
            None,
            None,
        ),
        (End::CancelledUnstarted, T::Cancelled, 0, None, None, None),
    ];
    for (end, state, attempt, again, history, text) in table {
        let shown = format!("{end:?}");
        kit.now = NOW;
        let id = kit.insert(task());
        let claim = kit.claim_one();
        assert_eq!(kit.settle(&claim, end), Settled::Applied, "{shown}");
        let task = kit.task(id);
        assert_eq!((task.state(), task.attempt()), (state, attempt), "{shown}");
        assert_eq!(task.error(), text, "{shown}");
        assert_eq!(
            kit.ends(id),
            history.into_iter().collect::<Vec<_>>(),
            "{shown}"
        );
        assert_eq!(task.finished_at().is_some(), state.is_final(), "{shown}");
        match again {
            Some(delay) => {
                assert_eq!(task.scheduled_at(), (NOW + delay).to_utc(), "{shown}");
                kit.now = NOW + delay;
                assert_eq!(kit.claim_one().id, id, "{shown}: and is taken again");
            }
            None => {
                kit.later(3600 * S);
                assert!(kit.claim(9).is_empty(), "{shown}: never again");
            }
        }
    }
}

/// Everything about a task that a stale write could change.
fn whole(kit: &Kit, claim: &Claim) -> String {
    let Task {
        state,
        attempt,
        scheduled_at,
        finished_at,
        result,
        progress,
        error,
        ..
    } = kit.task(claim.id);
    let history = kit.history(claim.id);
    format!(
        "{state} {attempt} {scheduled_at:?} {finished_at:?} {result:?} {progress:?} {error:?} {history:?}"
    )
}

pub(in crate::store) fn ends() -> Vec<End> {
    vec![
        done(),
        returned(Ok(Outcome::with(&7).unwrap())),
        late(Ok(Outcome::done())),
        error(),
        returned(Err(Failure::fatal("no"))),
        returned(Ok(Outcome::snooze(S))),
        returned(Ok(Outcome::cancel("x"))),
        End::Unstarted,
        End::CancelledUnstarted,
    ]
}

fn p7_a_row_number_that_comes_again_does_not_let_an_old_attempt_in(kit: &mut Kit) {
    let old = kit.insert(task());
    let stale = kit.claim_one();
    kit.settle(&stale, done());
    kit.change(old, Action::Delete);
    let id = kit.insert(task());
    let fresh = kit.claim_one();
    assert_eq!(
        fresh.fence.seq, stale.fence.seq,
        "the newest row was deleted"
    );
    assert_ne!(fresh.fence.claim_no, stale.fence.claim_no);
    assert_eq!(kit.settle(&stale, error()), Settled::Stale);
    assert_eq!(kit.state(id), TaskState::Running);
}

fn p7_a_stale_fence_changes_nothing(kit: &mut Kit) {
    kit.insert(task());
    let claim = kit.claim_one();
    let before = whole(kit, &claim);
    let fence = claim.fence;
    let stale = [
        Fence {
            claim_no: fence.claim_no - 1,
            ..fence
        },
        Fence {
            claim_no: fence.claim_no + 1,
            ..fence
        },
        Fence {
            instance: fence.instance + 1,
            ..fence
        },
        Fence {
            seq: fence.seq + 1,
            ..fence
        },
    ];
    for fence in stale {
        for end in ends() {
            let shown = format!("{fence:?} {end:?}");
            let stale = Claim {
                fence,
                ..claim.clone()
            };
            assert_eq!(kit.settle(&stale, end), Settled::Stale, "{shown}");
            assert_eq!(whole(kit, &claim), before, "{shown}");
        }
    }
    assert_eq!(kit.settle(&claim, done()), Settled::Applied);
}

fn p7_a_settlement_counts_once(kit: &mut Kit) {
    for first in ends() {
        kit.insert(task());
        let claim = kit.claim_one();
        assert_eq!(kit.settle(&claim, first.clone()), Settled::Applied);
        let before = whole(kit, &claim);
        for second in ends() {
            let shown = format!("{first:?}, then {second:?}");
            assert_eq!(kit.settle(&claim, second), Settled::Stale, "{shown}");
            assert_eq!(whole(kit, &claim), before, "{shown}");
        }
        kit.change(claim.id, Action::Cancel);
    }
}

fn p7_an_attempt_whose_task_was_claimed_again_changes_nothing(kit: &mut Kit) {
    kit.insert(task());
    let stale = kit.claim_one();
    kit.settle(&stale, End::Unstarted);
    let fresh = kit.claim_one();
    let before = whole(kit, &fresh);
    assert_ne!(stale.fence, fresh.fence);
    for end in ends() {
        assert_eq!(kit.settle(&stale, end), Settled::Stale);
        assert_eq!(whole(kit, &fresh), before);
    }
    assert_eq!(kit.settle(&fresh, done()), Settled::Applied);
}

fn p8_a_requested_cancel_wins_over_a_retry_but_not_over_a_completion(kit: &mut Kit) {
    for end in ends() {
        let shown = format!("{end:?}");
        let completes = shown.contains("Outcome::done");
        let id = kit.insert(task());
        let claim = kit.claim_one();
        assert_eq!(kit.change(id, Action::Cancel), Changed::Requested);
        assert!(kit.task(id).cancel_requested());
        assert_eq!(kit.settle(&claim, end), Settled::Applied, "{shown}");
        let expected = if completes {
            TaskState::Completed
        } else {
            TaskState::Cancelled
        };
        assert_eq!(kit.state(id), expected, "{shown}");
        kit.later(3600 * S);
        assert!(kit.claim(9).is_empty(), "{shown}: never again");
        kit.now = NOW;
    }
}

fn p8_a_task_that_was_cancelled_before_its_start_was_never_started(kit: &mut Kit) {
    for end in [End::Unstarted, End::CancelledUnstarted] {
        let id = kit.insert(task());
        let claim = kit.claim_one();
        kit.change(id, Action::Cancel);
        kit.settle(&claim, end);
        let task = kit.task(id);
        assert_eq!((task.state(), task.attempt()), (TaskState::Cancelled, 0));
        assert!(kit.history(id).is_empty());
    }
}

fn a_task_that_is_given_back_waits_as_before(kit: &mut Kit) {
    let id = kit.insert(task());
    kit.later(S);
    let claim = kit.claim_one();
    kit.settle(&claim, End::Unstarted);
    let task = kit.task(id);
    assert_eq!((task.state(), task.attempt()), (TaskState::Pending, 0));
    assert_eq!(task.scheduled_at(), NOW.to_utc());
    let again = kit.claim_one();
    assert_eq!((again.id, again.attempt), (id, 1));
}

fn start_within_a_second() -> Insert {
    Insert {
        expires_at: Some(NOW + S),
        ..task()
    }
}

fn a_snoozed_task_is_not_expired_by_its_start_deadline(kit: &mut Kit) {
    let id = kit.insert(start_within_a_second());
    let claim = kit.claim_one();
    kit.settle(&claim, returned(Ok(Outcome::snooze(5 * S))));
    kit.later(5 * S);
    assert_eq!(
        kit.apply(Op::Expire { limit: 9 }).done(),
        0,
        "it was started in time"
    );
    assert_eq!(kit.claim_one().id, id);
}

fn a_task_that_is_given_back_still_has_its_start_deadline(kit: &mut Kit) {
    let id = kit.insert(start_within_a_second());
    let claim = kit.claim_one();
    let wake = Wake::new();
    kit.store().signals().take_expiry();
    kit.store().signals().set_maintenance(wake.clone());
    kit.settle(&claim, End::Unstarted);
    assert!(
        wake.wait(Duration::ZERO),
        "maintenance may have slept beyond it"
    );
    assert_eq!(kit.store().signals().take_expiry(), Some(NOW + S));
    kit.later(2 * S);
    assert_eq!(kit.apply(Op::Expire { limit: 9 }).done(), 1);
    assert_eq!(kit.state(id), TaskState::Failed);
}

fn a_result_is_kept_and_read(kit: &mut Kit) {
    for text in ["x".to_owned(), "x".repeat(100_000)] {
        let id = kit.insert(task());
        let claim = kit.claim_one();
        kit.settle(&claim, returned(Ok(Outcome::with(&text).unwrap())));
        assert_eq!(kit.task(id).result::<String>().unwrap(), Some(text));
    }
}

fn a_late_completion_is_told_by_the_history(kit: &mut Kit) {
    let id = kit.insert(task());
    let claim = kit.claim_one();
    kit.later(S);
    kit.settle(&claim, late(Ok(Outcome::done())));
    let history = kit.history(id);
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].end(), AttemptEnd::Completed);
    assert_eq!((history[0].number(), history[0].duration()), (1, Some(S)));
    assert!(history[0].error().is_some());
    assert!(history[0].instance().is_some());
}

fn the_history_keeps_the_newest_attempts(kit: &mut Kit) {
    let id = kit.insert(Insert {
        max_attempts: 1000,
        ..task()
    });
    let rounds = u32::try_from(MAX_HISTORY).unwrap() + 10;
    for _ in 0..rounds {
        let claim = kit.claim_one();
        kit.settle(&claim, error());
        kit.later(10 * S);
    }
    let numbers = |kit: &Kit| -> Vec<u32> {
        kit.history(id)
            .iter()
            .map(|attempt| attempt.number())
            .collect()
    };
    assert_eq!(numbers(kit), (11..=rounds).collect::<Vec<_>>());
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    assert_eq!(
        numbers(kit),
        (12..=rounds + 1).collect::<Vec<_>>(),
        "the one that completed it is among them"
    );
}

fn progress_is_kept_and_fenced(kit: &mut Kit) {
    let id = kit.insert(task());
    let claim = kit.claim_one();
    let report =
        |fence: Fence, value: Vec<u8>| kit.apply(Op::Progress { fence, value }).progressed();
    assert_eq!(report(claim.fence, b"1".to_vec()), Settled::Applied);
    assert_eq!(report(claim.fence, json(5000)), Settled::Applied);
    let stale = Fence {
        claim_no: 0,
        ..claim.fence
    };
    assert_eq!(report(stale, b"3".to_vec()), Settled::Stale);
    assert_eq!(
        kit.task(id).progress::<String>().unwrap().unwrap().len(),
        4998
    );
    kit.settle(&claim, error());
    assert_eq!(report(claim.fence, b"4".to_vec()), Settled::Stale);
    assert!(kit.task(id).progress::<String>().unwrap().is_some());
}

fn a_retry_wakes_the_runner_in_time(kit: &mut Kit) {
    let wake = Wake::new();
    kit.insert(task());
    let claim = kit.claim_one();
    kit.store().signals().set_runner(wake.clone());
    wake.sleep_until(Some(NOW + 60 * S));
    kit.settle(&claim, error());
    assert!(wake.wait(Duration::ZERO));
    assert_eq!(kit.next_at("default", "probe"), Some(NOW + 10 * S));
}

fn the_end_of_a_task_is_told_to_those_who_wait(kit: &mut Kit) {
    let id = kit.insert(task());
    let claim = kit.claim_one();
    let store = Arc::clone(kit.store());
    let waiter = store.signals().waiters().wait_for(id);
    kit.settle(&claim, done());
    let watch = Stopwatch::start();
    waiter.wait(20 * S);
    assert!(watch.elapsed() < 10 * S, "it was told");
    assert_eq!(kit.state(id), TaskState::Completed);
}

fn ends_of_one_transaction_are_answered_in_order(kit: &mut Kit) {
    kit.insert_all(vec![task(), task(), task()]);
    let claims = kit.claim(3);
    kit.settle(&claims[1], done());
    let ended = |claim| kit.ended(claim, done()).into();
    let all = claims.iter().map(ended).collect();
    assert_eq!(
        settled(kit.apply(Op::Settle(all))),
        [Settled::Applied, Settled::Stale, Settled::Applied]
    );
    for claim in claims {
        assert_eq!(kit.state(claim.id), TaskState::Completed);
    }
}

/// Completions of many are recorded by statements for many.
fn p7_the_stale_among_many_completions_change_nothing(kit: &mut Kit) {
    kit.insert_all((0..40).map(|_| task()).collect());
    let claims = kit.claim(40);
    let retried = &claims[3];
    kit.settle(retried, error());
    kit.later(60 * S);
    let again = kit.claim_one();
    assert_eq!(again.id, retried.id);
    kit.settle(&claims[20], done());
    let ended = |claim| kit.ended(claim, done()).into();
    let mut all: Vec<Arc<Settlement>> = claims.iter().map(ended).collect();
    // As it is told again after a commit whose outcome was not known.
    Arc::make_mut(&mut all[20]).finished_at = all[19].finished_at + S;
    let answers = settled(kit.apply(Op::Settle(all)));
    for (index, (claim, answer)) in claims.iter().zip(answers).enumerate() {
        let stale = [3, 20].contains(&index);
        assert_eq!(answer == Settled::Stale, stale, "{index}");
        let state = kit.state(claim.id);
        if index == 3 {
            assert_eq!(state, TaskState::Running, "it is the later attempt's");
        } else {
            assert_eq!(state, TaskState::Completed, "{index}");
        }
    }
    assert_eq!(kit.settle(&again, done()), Settled::Applied);
}
