//! Transactions of the caller's: the caller's code inside, the fence before it, all or nothing after it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Kit, NOW, S, done, due, on_every_backend, on_shared, task};
use crate::error::ErrorKind;
use crate::id::TaskId;
use crate::model::filter::Filter;
use crate::model::new_task::Insert;
use crate::model::op::{Action, Op, Reply, Settled};
use crate::model::settle::{Claim, End};
use crate::model::task::TaskState;
use crate::store::{Holder, Transaction, TransactionEnd};

on_every_backend!(
    p6_what_is_done_inside_commits_together_or_not_at_all,
    p6_a_panic_inside_undoes_everything_and_goes_on,
    p6_a_completion_commits_with_its_effects,
    p9_what_is_made_due_inside_is_claimed_in_order,
    what_is_undone_is_not_remembered,
    an_operation_inside_sees_those_before_it,
    what_is_cancelled_inside_is_told_after_the_commit,
);
on_shared!(
    a_transaction_is_seen_by_others_when_it_has_committed,
    p7_a_stale_attempt_s_code_is_not_run,
);

pub(in crate::store) fn insert(work: &dyn Transaction, task: Insert) -> TaskId {
    let reply = work.apply(Op::Insert(vec![task])).unwrap();
    reply.inserted().remove(0).id()
}

fn holder(claim: &Claim) -> Option<Holder> {
    Some(Holder {
        id: claim.id,
        fence: claim.fence,
        delivery: claim.class.delivery(),
    })
}

/// A further task, in a queue of its own: what else the transaction does.
fn write(work: &dyn Transaction) {
    let own = Insert {
        queue: "own".into(),
        ..due(NOW + 99 * S)
    };
    insert(work, own);
}

/// How many tasks of this queue there are.
fn count(kit: &Kit, queue: &str) -> usize {
    kit.list(&Filter::new().queue(queue)).tasks().len()
}

fn p6_what_is_done_inside_commits_together_or_not_at_all(kit: &mut Kit) {
    for (wanted, rows) in [(false, 0), (true, 1)] {
        let mut id = None;
        let ran = kit.store().transaction(kit.now, None, &mut |work| {
            write(work);
            id = Some(insert(work, task()));
            if wanted {
                TransactionEnd::Commit
            } else {
                TransactionEnd::RollBack
            }
        });
        ran.unwrap();
        assert_eq!(count(kit, "own"), rows);
        assert_eq!(kit.find(id.unwrap()).is_some(), wanted);
    }
}

fn p6_a_panic_inside_undoes_everything_and_goes_on(kit: &mut Kit) {
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        kit.store().transaction(kit.now, None, &mut |work| {
            write(work);
            insert(work, task());
            panic!("inside")
        })
    }));
    let panic = panicked.unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"inside"));
    assert_eq!((count(kit, "own"), count(kit, "default")), (0, 0));
    kit.insert(task());
}

fn p6_a_completion_commits_with_its_effects(kit: &mut Kit) {
    let id = kit.insert(task());
    let claim = kit.claim_one();
    let mut next = None;
    let ran = kit
        .store()
        .transaction(kit.now, holder(&claim), &mut |work| {
            write(work);
            next = Some(insert(work, due(NOW + S)));
            TransactionEnd::Settle(Arc::new(kit.ended(&claim, done())))
        });
    ran.unwrap();
    assert_eq!(kit.state(id), TaskState::Completed);
    assert_eq!(kit.state(next.unwrap()), TaskState::Pending);
    assert_eq!(count(kit, "own"), 1);
    assert_eq!(kit.settle(&claim, done()), Settled::Stale, "once");
}

fn p7_a_stale_attempt_s_code_is_not_run(kit: &mut Kit) {
    let id = kit.insert(task());
    let stale = kit.claim_one();
    kit.crash(std::slice::from_ref(&stale));
    let mut fresh = None;
    // Before it is claimed again, while another attempt has it, and after that has ended.
    for step in 0..3 {
        let ran = kit
            .store()
            .transaction(kit.now, holder(&stale), &mut |_| panic!("it was run"));
        let error = ran.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::State);
        assert_eq!(error.task_id(), Some(id));
        match step {
            0 => fresh = Some(kit.claim_one()),
            1 => {
                let fresh = fresh.take().expect("it was claimed");
                assert_eq!(kit.settle(&fresh, done()), Settled::Applied);
            }
            _ => assert_eq!(kit.state(id), TaskState::Completed),
        }
    }
}

fn p9_what_is_made_due_inside_is_claimed_in_order(kit: &mut Kit) {
    let first = kit.insert(due(NOW - S));
    let mut ids = Vec::new();
    let ran = kit.store().transaction(kit.now, None, &mut |work| {
        for at in [NOW, NOW - 2 * S] {
            ids.push(insert(work, due(at)));
        }
        TransactionEnd::Commit
    });
    ran.unwrap();
    for id in [ids[1], first, ids[0]] {
        assert_eq!(kit.claim_one().id, id);
    }
}

fn what_is_undone_is_not_remembered(kit: &mut Kit) {
    kit.insert(due(NOW + 9 * S));
    let ran = kit.store().transaction(kit.now, None, &mut |work| {
        insert(work, due(NOW + S));
        let other = Insert {
            queue: "other".into(),
            ..task()
        };
        insert(work, other);
        TransactionEnd::RollBack
    });
    ran.unwrap();
    assert_eq!(kit.next_at("default", "probe"), Some(NOW + 9 * S));
    assert_eq!(kit.store().lanes().list.len(), 1);
    // The lane's number may be another's now: it is made anew.
    kit.insert(Insert {
        queue: "third".into(),
        ..task()
    });
    let id = kit.insert(Insert {
        queue: "other".into(),
        ..task()
    });
    assert_eq!(kit.task(id).queue(), "other");
}

fn an_operation_inside_sees_those_before_it(kit: &mut Kit) {
    let mut answers = Vec::new();
    let ran = kit.store().transaction(kit.now, None, &mut |work| {
        let id = insert(work, task());
        for action in [Action::Cancel, Action::Cancel] {
            let reply = work.apply(Op::Change { id, action }).unwrap();
            answers.push(reply.changed());
        }
        TransactionEnd::Commit
    });
    ran.unwrap();
    use crate::model::op::Changed;
    assert_eq!(
        answers,
        [Changed::Applied, Changed::Refused(TaskState::Cancelled)]
    );
}

fn what_is_cancelled_inside_is_told_after_the_commit(kit: &mut Kit) {
    let id = kit.insert(task());
    let claim = kit.claim_one();
    for wanted in [false, true] {
        let ran = kit.store().transaction(kit.now, None, &mut |work| {
            let action = Action::Cancel;
            work.apply(Op::Change { id, action }).unwrap();
            assert!(!kit.store().signals().is_cancelled(claim.fence));
            if wanted {
                TransactionEnd::Commit
            } else {
                TransactionEnd::RollBack
            }
        });
        ran.unwrap();
        assert_eq!(kit.store().signals().is_cancelled(claim.fence), wanted);
    }
    assert_eq!(kit.settle(&claim, End::Unstarted), Settled::Applied);
    assert_eq!(kit.state(id), TaskState::Cancelled);
}

fn a_transaction_is_seen_by_others_when_it_has_committed(kit: &mut Kit) {
    let other = kit.another(true);
    let mut id = None;
    let ran = kit.store().transaction(kit.now, None, &mut |work| {
        id = Some(insert(work, task()));
        other.refresh().unwrap();
        assert!(other.lanes().list.is_empty(), "not yet");
        TransactionEnd::Commit
    });
    ran.unwrap();
    other.refresh().unwrap();
    assert_eq!(other.lanes().list.len(), 1);
    let claim = Op::Claim(kit.request(1));
    let replies = other.apply(kit.now, vec![claim]).unwrap();
    let claimed = match &replies[..] {
        [Reply::Claimed(claims)] => claims[0].id,
        other => panic!("{other:?}"),
    };
    assert_eq!(Some(claimed), id);
}
