//! Removing what is over.

use super::{Kit, MICRO, NOW, S, done, error, on_every_backend, task};
use crate::id::TaskId;
use crate::model::attempt::AttemptEnd;
use crate::model::edit::Patch;
use crate::model::new_task::Insert;
use crate::model::op::{Action, Changed, Op};
use crate::model::retention::{Cutoffs, Retention};
use crate::model::settle::End;
use crate::model::task::TaskState;
use crate::store::NextMaintenance;

on_every_backend!(
    p14_each_final_state_has_its_own_retention,
    what_has_not_ended_is_never_pruned,
    a_prune_is_bounded_and_takes_the_oldest_first,
    a_prune_at_the_cutoff_s_very_instant,
    a_start_deadline_that_passed_keeps_what_was_tried_before,
    start_deadlines_that_passed_end_their_tasks,
    an_expiry_is_bounded_and_takes_the_earliest_first,
    a_start_deadline_means_nothing_once_it_was_met,
    a_start_deadline_that_passed_while_it_was_held_still_counts,
    p14_deadlines_that_were_met_are_looked_at_once,
    a_start_deadline_is_of_its_task_and_no_later_one,
    when_there_is_something_to_do_is_known,
);

pub(in crate::store) const FINAL: [TaskState; 3] = [
    TaskState::Completed,
    TaskState::Failed,
    TaskState::Cancelled,
];

pub(in crate::store) fn prune(kit: &Kit, cutoffs: Cutoffs, limit: usize) -> usize {
    kit.apply(Op::Prune { cutoffs, limit }).done()
}

fn nothing() -> Cutoffs {
    Retention::forever().cutoffs(NOW)
}

pub(in crate::store) fn everything() -> Cutoffs {
    Cutoffs {
        completed: Some(NOW + 9_999 * S),
        failed: Some(NOW + 9_999 * S),
        cancelled: Some(NOW + 9_999 * S),
    }
}

fn p14_each_final_state_has_its_own_retention(kit: &mut Kit) {
    let all = FINAL.map(|state| kit.in_state(state));
    assert_eq!(prune(kit, nothing(), 99), 0);
    let cutoffs = [
        Cutoffs {
            completed: Some(NOW),
            ..nothing()
        },
        Cutoffs {
            failed: Some(NOW),
            ..nothing()
        },
        Cutoffs {
            cancelled: Some(NOW),
            ..nothing()
        },
    ];
    for (index, cutoffs) in cutoffs.into_iter().enumerate() {
        assert_eq!(prune(kit, cutoffs, 99), 1);
        for (other, id) in all.iter().enumerate() {
            assert_eq!(kit.find(*id).is_none(), other <= index);
        }
    }
}

fn what_has_not_ended_is_never_pruned(kit: &mut Kit) {
    let running = kit.in_state(TaskState::Running);
    let pending = kit.in_state(TaskState::Pending);
    assert_eq!(prune(kit, everything(), 99), 0);
    // One that ended once and was tried again is as alive as any other.
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.change(pending, Action::Retry(Patch::default()));
    assert_eq!(prune(kit, everything(), 99), 0);
    assert_eq!(kit.state(running), TaskState::Running);
    assert_eq!(kit.state(pending), TaskState::Pending);
}

fn a_prune_is_bounded_and_takes_the_oldest_first(kit: &mut Kit) {
    let mut all = Vec::new();
    for _ in 0..10 {
        all.push(kit.in_state(TaskState::Completed));
        kit.later(S);
    }
    assert_eq!(prune(kit, everything(), 4), 4);
    for (index, id) in all.iter().enumerate() {
        assert_eq!(kit.find(*id).is_none(), index < 4);
    }
    let failed = kit.in_state(TaskState::Failed);
    assert_eq!(
        prune(kit, everything(), 7),
        7,
        "the limit is for all states"
    );
    assert!(kit.find(failed).is_none());
    assert_eq!(prune(kit, everything(), 7), 0);
}

fn a_prune_at_the_cutoff_s_very_instant(kit: &mut Kit) {
    let id = kit.in_state(TaskState::Completed);
    let until = |at| Cutoffs {
        completed: Some(at),
        ..nothing()
    };
    assert_eq!(prune(kit, until(NOW - MICRO), 9), 0);
    assert_eq!(prune(kit, until(NOW), 9), 1);
    assert!(kit.find(id).is_none());
}

pub(in crate::store) fn start_by(seconds: u32) -> Insert {
    Insert {
        expires_at: Some(NOW + seconds * S),
        ..task()
    }
}

fn expire(kit: &Kit, limit: usize) -> usize {
    kit.apply(Op::Expire { limit }).done()
}

/// The line of the try was replaced, and with it the reason why the task was never started.
fn a_start_deadline_that_passed_keeps_what_was_tried_before(kit: &mut Kit) {
    let id = kit.insert(start_by(60));
    let claim = kit.claim_one();
    kit.settle(&claim, End::Undecodable("another version".into()));
    kit.now = NOW + 60 * S + MICRO;
    assert_eq!(expire(kit, 9), 1);
    let ends = [AttemptEnd::Undecodable, AttemptEnd::Expired];
    assert_eq!(kit.ends(id), ends);
    // A later attempt replaces neither.
    kit.change(id, Action::Retry(Patch::default()));
    let claim = kit.claim_one();
    kit.settle(&claim, error());
    assert_eq!(kit.ends(id)[..2], ends);
    assert_eq!(kit.ends(id).len(), 3);
}

fn start_deadlines_that_passed_end_their_tasks(kit: &mut Kit) {
    kit.pause("default", true);
    let id = kit.insert(start_by(1));
    let later = kit.insert(start_by(2));
    let never = kit.insert(task());
    kit.now = NOW + S;
    assert_eq!(expire(kit, 9), 0, "at that instant it may still be started");
    kit.later(MICRO);
    assert_eq!(expire(kit, 9), 1);
    let task = kit.task(id);
    assert_eq!(
        (task.state(), task.error()),
        (TaskState::Failed, Some("expired"))
    );
    assert_eq!(task.finished_at(), Some(kit.now.to_utc()));
    assert_eq!(kit.ends(id), [AttemptEnd::Expired]);
    for id in [later, never] {
        assert_eq!(kit.state(id), TaskState::Pending);
    }
}

fn an_expiry_is_bounded_and_takes_the_earliest_first(kit: &mut Kit) {
    let all: Vec<TaskId> = [3, 1, 2]
        .into_iter()
        .map(|n| kit.insert(start_by(n)))
        .collect();
    kit.later(60 * S);
    assert_eq!(expire(kit, 2), 2);
    assert_eq!(kit.state(all[0]), TaskState::Pending);
    assert_eq!(expire(kit, 2), 1);
    assert_eq!(expire(kit, 2), 0);
}

fn a_start_deadline_means_nothing_once_it_was_met(kit: &mut Kit) {
    let running = kit.insert(start_by(1));
    let held = kit.claim_one();
    let completed = kit.insert(start_by(1));
    kit.settle(&kit.claim_one(), done());
    let retrying = kit.insert(start_by(1));
    kit.settle(&kit.claim_one(), error());
    kit.later(2 * S);
    assert_eq!(expire(kit, 9), 0);
    assert_eq!(kit.state(running), TaskState::Running);
    assert_eq!(kit.state(completed), TaskState::Completed);
    assert_eq!(kit.state(retrying), TaskState::Pending);
    let next = kit.store().next_maintenance().unwrap();
    assert_eq!(next.expires_at, None, "there is no need to look again");
    kit.settle(&held, done());
}

fn a_start_deadline_that_passed_while_it_was_held_still_counts(kit: &mut Kit) {
    let id = kit.insert(start_by(1));
    let held = kit.claim_one();
    kit.pause("default", true);
    kit.later(2 * S);
    assert_eq!(expire(kit, 9), 0);
    kit.settle(&held, End::Unstarted);
    assert_eq!(expire(kit, 9), 1);
    assert_eq!(kit.state(id), TaskState::Failed);
}

/// Each look would be a transaction else, for each task that once had a deadline.
fn p14_deadlines_that_were_met_are_looked_at_once(kit: &mut Kit) {
    for seconds in 1..=9 {
        kit.insert(start_by(seconds));
        kit.settle(&kit.claim_one(), done());
    }
    let waits = kit.insert(start_by(7));
    kit.later(S + MICRO);
    assert_eq!(expire(kit, 99), 0);
    let next = |kit: &Kit| kit.store().next_maintenance().unwrap().expires_at;
    assert_eq!(next(kit), Some(NOW + 7 * S));
    kit.now = NOW + 8 * S;
    assert_eq!(expire(kit, 99), 1);
    assert_eq!(kit.state(waits), TaskState::Failed);
    assert_eq!(next(kit), None);
}

/// The number of the newest row comes again once it is deleted.
fn a_start_deadline_is_of_its_task_and_no_later_one(kit: &mut Kit) {
    let first = kit.insert(start_by(1));
    kit.change(first, Action::Cancel);
    assert_eq!(kit.change(first, Action::Delete), Changed::Applied);
    let second = kit.insert(start_by(9));
    kit.later(5 * S);
    assert_eq!(expire(kit, 9), 0);
    assert_eq!(kit.state(second), TaskState::Pending);
    kit.later(5 * S);
    assert_eq!(expire(kit, 9), 1);
}

fn when_there_is_something_to_do_is_known(kit: &mut Kit) {
    let next = |kit: &Kit| kit.store().next_maintenance().unwrap();
    assert_eq!(next(kit), NextMaintenance::default());
    for (index, state) in FINAL.into_iter().enumerate() {
        let ended_at = kit.now;
        kit.in_state(state);
        kit.later(S);
        kit.in_state(state);
        assert_eq!(next(kit).ended_at[index], Some(ended_at), "the oldest one");
    }
    kit.store().signals().take_expiry();
    kit.insert(start_by(70));
    kit.insert(start_by(60));
    assert_eq!(next(kit).expires_at, Some(NOW + 60 * S));
    assert_eq!(
        kit.store().signals().take_expiry(),
        Some(NOW + 60 * S),
        "maintenance is told of it"
    );
}
