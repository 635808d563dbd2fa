//! The claim that stands, and comes along with what becomes due.

use super::{
    Kit, NOW, S, claimed, done, due, error, json, on_every_backend, on_shared, priorities, task,
};
use crate::model::new_task::Insert;
use crate::model::op::{Action, Op, Settled};
use crate::model::settle::{Claim, End, StoredPayload};
use crate::model::task::TaskState;

on_every_backend!(
    what_becomes_due_is_claimed_in_its_transaction,
    what_is_claimed_at_once_is_what_a_claim_of_it_would_be,
    p2_what_is_not_due_is_not_claimed_along,
    p9_what_is_due_and_better_is_claimed_first,
    p9_of_many_in_one_transaction_the_best_are_claimed,
    p9_nothing_is_claimed_along_beside_a_lane_that_was_not_known,
    p8_what_a_paused_queue_gets_is_not_claimed_along,
    what_cannot_be_run_here_is_not_claimed_along,
    an_id_that_is_stored_is_not_claimed_again,
    p1_a_call_that_fails_takes_no_claim_with_it,
    claims_come_last_in_a_transaction,
    p7_a_task_that_was_claimed_at_once_is_settled_once,
    a_task_that_was_claimed_at_once_and_given_back_has_its_start_deadline,
);
on_shared!(what_is_taken_back_from_the_dead_is_claimed_along);

/// Leaves a claim of all lanes that are known, for so many workers.
fn leave(kit: &Kit, free: usize) {
    let request = kit.request(free);
    kit.store().signals().standing_claim().leave(request, 0);
}

/// What was claimed along since the claim was left.
fn granted(kit: &Kit) -> Vec<Claim> {
    let standing_claim = kit.store().signals().standing_claim();
    standing_claim.withdraw();
    standing_claim.take_granted()
}

/// A store that knows the lane of [`task`].
fn known(kit: &Kit) {
    kit.insert(task());
    let claim = kit.claim_one();
    kit.settle(&claim, done());
}

fn what_becomes_due_is_claimed_in_its_transaction(kit: &mut Kit) {
    known(kit);
    leave(kit, 1);
    let id = kit.insert(task());
    assert_eq!(kit.state(id), TaskState::Running);
    let later = kit.insert(task());
    assert_eq!(kit.state(later), TaskState::Pending, "no claim stands");
    let claims = granted(kit);
    assert_eq!((claims.len(), claims[0].id), (1, id));
    // What another call makes due.
    let id = kit.insert(due(NOW + 60 * S));
    leave(kit, 1);
    kit.change(later, Action::Cancel);
    kit.change(id, Action::RunNow);
    assert_eq!(granted(kit)[0].id, id);
}

fn what_is_taken_back_from_the_dead_is_claimed_along(kit: &mut Kit) {
    known(kit);
    let id = kit.insert(task());
    let dead = kit.another(true);
    let claim = Op::Claim(kit.request(1));
    assert_eq!(
        claimed(dead.apply(NOW, vec![claim]).unwrap().remove(0)).len(),
        1
    );
    drop(dead);
    // Its commits are learnt first: a claim does not stand beside what is not known.
    kit.store().refresh().unwrap();
    leave(kit, 1);
    assert_eq!(kit.recover().given_back, 1);
    assert_eq!(granted(kit)[0].id, id);
}

fn what_is_claimed_at_once_is_what_a_claim_of_it_would_be(kit: &mut Kit) {
    known(kit);
    let tasks: [fn() -> Insert; 3] = [
        task,
        || Insert {
            payload: json(5_000),
            tags: vec!["tag".into()],
            ..task()
        },
        || Insert {
            priority: 2,
            max_attempts: 7,
            expires_at: Some(NOW),
            ..task()
        },
    ];
    for make in tasks {
        leave(kit, 1);
        let id = kit.insert(make());
        let at_once = granted(kit).remove(0);
        let read = kit.task(id);
        assert_eq!((read.state(), read.attempt()), (TaskState::Running, 1));
        kit.settle(&at_once, done());
        kit.insert(make());
        let claim = kit.claim_one();
        let shown = |claim: &Claim| {
            let mut claim = claim.clone();
            (claim.fence, claim.id) = (at_once.fence, at_once.id);
            format!("{claim:?}")
        };
        assert_eq!(shown(&at_once), shown(&claim));
        assert!(
            matches!(&at_once.payload, StoredPayload::Whole(bytes) if *bytes == make().payload)
        );
        assert!(claim.fence.claim_no > at_once.fence.claim_no);
        kit.settle(&claim, done());
    }
}

fn p2_what_is_not_due_is_not_claimed_along(kit: &mut Kit) {
    known(kit);
    leave(kit, 2);
    let id = kit.insert(due(NOW + S));
    assert!(granted(kit).is_empty());
    assert_eq!(kit.state(id), TaskState::Pending);
}

fn p9_what_is_due_and_better_is_claimed_first(kit: &mut Kit) {
    known(kit);
    for priority in priorities() {
        let better = kit.insert(Insert { priority, ..task() });
        leave(kit, 1);
        let id = kit.insert(Insert {
            priority: *priorities().end(),
            ..task()
        });
        let claims = granted(kit);
        assert_eq!(claims.len(), 1);
        assert_eq!(claims[0].id, better, "{priority}");
        kit.settle(&claims[0], done());
        kit.change(id, Action::Cancel);
    }
}

fn p9_of_many_in_one_transaction_the_best_are_claimed(kit: &mut Kit) {
    known(kit);
    leave(kit, 2);
    let tasks: Vec<_> = priorities()
        .rev()
        .map(|priority| Insert { priority, ..task() })
        .collect();
    kit.insert_all(tasks);
    let taken: Vec<_> = granted(kit).iter().map(|claim| claim.priority).collect();
    assert_eq!(taken, [0, 1]);
}

fn p9_nothing_is_claimed_along_beside_a_lane_that_was_not_known(kit: &mut Kit) {
    known(kit);
    let better = || Insert {
        kind: "another".into(),
        priority: 0,
        ..task()
    };
    leave(kit, 1);
    kit.insert_all(vec![better(), task()]);
    assert!(granted(kit).is_empty(), "in the transaction that makes it");
    for claim in kit.claim(9) {
        kit.settle(&claim, done());
    }
    leave(kit, 1);
    let third = Insert {
        kind: "third".into(),
        ..better()
    };
    kit.insert(third);
    kit.insert(task());
    assert!(granted(kit).is_empty(), "and after it");
}

fn p8_what_a_paused_queue_gets_is_not_claimed_along(kit: &mut Kit) {
    known(kit);
    leave(kit, 1);
    kit.pause("default", true);
    let id = kit.insert(task());
    assert!(granted(kit).is_empty());
    assert_eq!(kit.state(id), TaskState::Pending);
}

fn what_cannot_be_run_here_is_not_claimed_along(kit: &mut Kit) {
    known(kit);
    leave(kit, 1);
    let expired = kit.insert(Insert {
        scheduled_at: NOW - S,
        expires_at: Some(NOW - S),
        ..task()
    });
    assert!(granted(kit).is_empty());
    assert_ne!(kit.state(expired), TaskState::Running);
    leave(kit, 1);
    kit.insert(Insert {
        kind: "unknown".into(),
        ..task()
    });
    assert!(granted(kit).is_empty(), "its lane was not known");
}

fn an_id_that_is_stored_is_not_claimed_again(kit: &mut Kit) {
    known(kit);
    let first = task();
    kit.insert(Insert {
        scheduled_at: NOW + S,
        ..first.clone()
    });
    leave(kit, 1);
    let again = kit.insert_all(vec![first]).remove(0);
    assert!(!again.is_new());
    assert!(granted(kit).is_empty());
}

fn p1_a_call_that_fails_takes_no_claim_with_it(kit: &mut Kit) {
    known(kit);
    leave(kit, 1);
    // A task has a tag once; it was checked before it came here.
    let refused = Insert {
        tags: vec!["twice".into(), "twice".into()],
        ..task()
    };
    let id = refused.id;
    let answer = kit.store().apply(kit.now, vec![Op::Insert(vec![refused])]);
    assert!(answer.is_err());
    assert!(kit.find(id).is_none());
    let standing_claim = kit.store().signals().standing_claim();
    let withdrawn = standing_claim.withdraw();
    assert!(!standing_claim.has_granted() && !withdrawn.in_doubt && !withdrawn.in_flight);
}

fn claims_come_last_in_a_transaction(kit: &mut Kit) {
    known(kit);
    let request = kit.request(5);
    let late = task();
    let id = late.id;
    let ops = vec![Op::Claim(request), Op::Insert(vec![late])];
    let mut replies = kit.store().apply(kit.now, ops).unwrap();
    assert!(replies.remove(1).inserted()[0].is_new());
    let claims = claimed(replies.remove(0));
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].id, id);
}

fn p7_a_task_that_was_claimed_at_once_is_settled_once(kit: &mut Kit) {
    known(kit);
    leave(kit, 1);
    let id = kit.insert(task());
    let claim = granted(kit).remove(0);
    assert_eq!(kit.settle(&claim, error()), Settled::Applied);
    kit.later(60 * S);
    let again = kit.claim_one();
    assert_eq!((again.id, again.attempt), (id, 2));
    assert_eq!(kit.settle(&claim, done()), Settled::Stale);
    assert_eq!(kit.settle(&again, done()), Settled::Applied);
}

fn a_task_that_was_claimed_at_once_and_given_back_has_its_start_deadline(kit: &mut Kit) {
    known(kit);
    leave(kit, 1);
    let id = kit.insert(Insert {
        expires_at: Some(NOW + S),
        ..task()
    });
    kit.settle(&granted(kit)[0], End::Unstarted);
    kit.later(2 * S);
    assert_eq!(kit.apply(Op::Expire { limit: 9 }).done(), 1);
    assert_eq!(kit.state(id), TaskState::Failed);
}
