//! No call waits without a bound, whatever another instance does.

use super::{Kit, NOW, claimed, done, on_shared, task};
use crate::error::ErrorKind;
use crate::model::op::Op;
use crate::model::query::Query;
use crate::model::task::TaskState;
use crate::store::TransactionEnd;

on_shared!(
    p12_every_write_answers_busy_while_another_instance_writes,
    p12_no_read_waits_for_another_instance_that_writes,
);

/// Were one of them to wait, this would never end: the other instance goes on when they have answered.
fn p12_every_write_answers_busy_while_another_instance_writes(kit: &mut Kit) {
    let id = kit.insert(task());
    let claim = kit.claim_one();
    kit.insert(task());
    let dead = kit.another(true);
    let its_claim = Op::Claim(kit.request(1));
    assert_eq!(
        claimed(dead.apply(NOW, vec![its_claim]).unwrap().remove(0)).len(),
        1
    );
    drop(dead);
    let other = kit.impatient();
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
    let other = kit.impatient();
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
