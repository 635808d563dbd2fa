//! No call waits without a bound, whatever another instance does.

use std::sync::Arc;

use super::{Kit, NOW, claimed, done, on_shared, request, task};
use crate::error::ErrorKind;
use crate::model::op::Op;
use crate::model::query::Query;
use crate::model::settle::Claim;
use crate::model::task::TaskState;
use crate::store::events::Received;
use crate::store::{Store, TransactionEnd};

on_shared!(
    p12_every_write_answers_busy_while_another_instance_writes,
    p12_no_read_waits_for_another_instance_that_writes,
    p12_what_a_scheduler_does_beside_its_transactions_waits_for_no_writer,
    p12_an_instance_that_ends_while_another_writes_is_taken_back,
);

fn claim_one(store: &dyn Store) -> Claim {
    let claim = Op::Claim(request(store, 1));
    let mut claims = claimed(store.apply(NOW, vec![claim]).unwrap().remove(0));
    assert_eq!(claims.len(), 1, "one task is due");
    claims.remove(0)
}

/// Were one of them to wait, this would never end: the other instance goes on when they have answered.
fn p12_every_write_answers_busy_while_another_instance_writes(kit: &mut Kit) {
    let id = kit.insert(task());
    let claim = kit.claim_one();
    kit.insert(task());
    let dead = kit.another(true);
    claim_one(&*dead);
    drop(dead);
    let other = kit.impatient(false);
    let mut errors = Vec::new();
    let ran = kit.store().transaction(kit.now, None, &mut |_| {
        let insert = || vec![Op::Insert(vec![task()])];
        let settle = vec![Op::Settle(vec![kit.ended(&claim, done()).into()])];
        errors.push(other.apply(NOW, insert()).map(drop));
        errors.push(other.apply(NOW, settle).map(drop));
        errors.push(other.submit(NOW, insert()).wait().map(drop));
        errors.push(other.defer(NOW, insert()).wait().map(drop));
        let mut inside = |_: &dyn crate::store::Transaction| TransactionEnd::Commit;
        errors.push(other.transaction(NOW, None, &mut inside));
        errors.push(other.recover(NOW).map(drop));
        TransactionEnd::RollBack
    });
    ran.unwrap();
    for error in errors {
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Busy);
    }
    assert_eq!(kit.state(id), TaskState::Running);
    let inserted = other.apply(NOW, vec![Op::Insert(vec![task()])]);
    assert!(inserted.is_ok(), "it is free again");
}

fn p12_no_read_waits_for_another_instance_that_writes(kit: &mut Kit) {
    let id = kit.insert(task());
    let other = kit.impatient(false);
    let ran = kit.store().transaction(kit.now, None, &mut |_| {
        let state = other.read(Query::State(id)).unwrap().state();
        assert_eq!(state, Some(TaskState::Pending));
        other.refresh().unwrap();
        assert_eq!(other.lanes().list.len(), 1);
        other.next_maintenance().unwrap();
        assert!(other.health().is_ok());
        assert_eq!(other.recover(NOW).unwrap().crashed, 0, "nobody has died");
        TransactionEnd::RollBack
    });
    ran.unwrap();
}

/// A handler starts while another one is inside its transaction, and while another process writes.
fn p12_what_a_scheduler_does_beside_its_transactions_waits_for_no_writer(kit: &mut Kit) {
    kit.insert_all(vec![task(), task()]);
    let other = kit.another(true);
    let its_claim = claim_one(&*other);
    let instances = [
        (Arc::clone(kit.store()), kit.claim_one().fence),
        (other, its_claim.fence),
    ];
    let ran = kit.store().transaction(kit.now, None, &mut |_| {
        let beside = || {
            for (store, fence) in &instances {
                let events = store.signals().subscriptions().subscribe(1);
                store.begin(*fence).unwrap();
                store.watch().unwrap();
                store.close(NOW);
                assert!(matches!(events.try_next(), Received::Ended));
            }
        };
        std::thread::scope(|scope| scope.spawn(beside).join()).unwrap();
        TransactionEnd::RollBack
    });
    ran.unwrap();
    drop(instances);
    kit.kill();
    assert_eq!(kit.recover().crashed, 2, "both starts were noted");
}

/// It cannot note its end then, so it is taken for dead.
fn p12_an_instance_that_ends_while_another_writes_is_taken_back(kit: &mut Kit) {
    let id = kit.insert(task());
    let other = kit.impatient(true);
    claim_one(&*other);
    let mut other = Some(other);
    let ran = kit.store().transaction(kit.now, None, &mut |_| {
        drop(other.take());
        TransactionEnd::RollBack
    });
    ran.unwrap();
    assert_eq!(kit.recover().given_back, 1);
    assert_eq!(kit.claim_one().id, id);
}
