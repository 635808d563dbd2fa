//! Statements that fail: all of a transaction is stored, or nothing, and the next one is none the worse for it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::ffi;

use super::on_a_file;
use crate::error::ErrorKind;
use crate::id::TaskId;
use crate::model::new_task::Insert;
use crate::model::op::{Op, Settled};
use crate::model::task::TaskState;
use crate::store::TransactionEnd;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::kit::File;
use crate::store::suite::forget::{complete_all, lane_of, of};
use crate::store::suite::transaction::insert;
use crate::store::suite::{Kit, NOW, done, json, settled, task};

on_a_file!(
    p11_a_rescue_does_not_depend_on_the_claim_that_comes_along,
    an_insert_that_fails_stores_none_of_its_tasks,
    a_lane_of_a_failed_insert_is_made_again,
    p6_an_operation_that_failed_cannot_be_committed,
    p12_after_a_panic_inside_others_can_write_at_once,
    p4_a_task_whose_commit_was_stored_and_not_known_runs,
    p4_a_task_in_a_lane_whose_retirement_was_not_known_is_not_lost,
);

/// Makes the file refuse tasks of priority 9.
fn refuse_priority_9(kit: &Kit) {
    kit.sql(|conn| {
        conn.execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON punctual_task WHEN new.priority = 9
             BEGIN SELECT RAISE(ABORT, 'refused'); END",
        )
        .unwrap();
    });
}

fn refused() -> Insert {
    Insert {
        kind: "refused".into(),
        priority: 9,
        ..task()
    }
}

fn an_insert_that_fails_stores_none_of_its_tasks(kit: &mut Kit) {
    refuse_priority_9(kit);
    let good: Vec<Insert> = vec![
        task(),
        Insert {
            payload: json(5000),
            tags: vec!["t".into()],
            ..task()
        },
    ];
    let ids: Vec<TaskId> = good.iter().map(|task| task.id).collect();
    let all = good.into_iter().chain([refused()]).collect();
    let error = kit
        .store()
        .apply(NOW, vec![Op::Insert(all)])
        .map(|_| ())
        .unwrap_err();
    assert!(error.is_retryable(), "{error}");
    for id in ids {
        assert!(kit.find(id).is_none());
    }
    assert_eq!(kit.claim(9).len(), 0);
    for table in ["task", "payload", "tag", "lane", "queue"] {
        assert_eq!(kit.rows(table), 0, "{table}");
    }
    kit.insert(task());
}

fn a_lane_of_a_failed_insert_is_made_again(kit: &mut Kit) {
    refuse_priority_9(kit);
    let op = Op::Insert(vec![refused()]);
    assert!(kit.store().apply(NOW, vec![op]).is_err());
    // The number that the rolled back transaction gave is free again: were it remembered, two kinds would share it.
    let other = kit.insert(Insert {
        kind: "other".into(),
        ..task()
    });
    let again = kit.insert(Insert {
        priority: 8,
        ..refused()
    });
    assert_eq!(kit.task(other).kind(), "other");
    assert_eq!(kit.task(again).kind(), "refused");
    assert_eq!(kit.next_at("default", "refused"), Some(NOW));
}

/// Whatever the caller makes of its error: it may be done by half.
fn p6_an_operation_that_failed_cannot_be_committed(kit: &mut Kit) {
    let first = kit.insert(task());
    kit.sql(|conn| {
        conn.execute_batch(
            "CREATE TRIGGER no BEFORE INSERT ON punctual_tag BEGIN SELECT RAISE(FAIL, 'no'); END",
        )
        .unwrap();
    });
    let mut id = None;
    let ran = kit.store().transaction(kit.now, None, &mut |work| {
        let tagged = Insert {
            tags: vec!["tag".into()],
            ..task()
        };
        id = Some(tagged.id);
        work.apply(Op::Insert(vec![tagged])).unwrap_err();
        work.apply(Op::Insert(vec![task()])).unwrap_err();
        TransactionEnd::Commit
    });
    assert!(ran.unwrap_err().to_string().contains("no"));
    assert!(kit.find(id.unwrap()).is_none());
    let claim = kit.claim_one();
    assert_eq!(claim.id, first, "the next one is none the worse for it");
    let ended = Op::Settle(vec![kit.ended(&claim, done()).into()]);
    assert_eq!(settled(kit.apply(ended)), [Settled::Applied]);
}

/// No further call to the store that it happened in is needed.
fn p12_after_a_panic_inside_others_can_write_at_once(kit: &mut Kit) {
    let other = kit.another(false);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        kit.store().transaction(kit.now, None, &mut |work| {
            insert(work, task());
            panic!("inside")
        })
    }));
    assert!(panicked.is_err());
    kit.sql(|conn| {
        conn.busy_timeout(std::time::Duration::ZERO).unwrap();
        conn.execute_batch("CREATE TABLE own (x)").unwrap();
    });
    let inserted = other.apply(kit.now, vec![Op::Insert(vec![task()])]);
    assert!(inserted.is_ok());
}

fn p11_a_rescue_does_not_depend_on_the_claim_that_comes_along(kit: &mut Kit) {
    let id = kit.insert(task());
    kit.claim_one();
    kit.kill();
    kit.sql(|conn| {
        conn.execute_batch(
            "CREATE TRIGGER no BEFORE UPDATE ON punctual_task WHEN new.state = 10 BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .unwrap();
    });
    kit.apply(Op::Probe);
    let request = kit.request(1);
    kit.store().signals().standing_claim().leave(request, 0);
    assert_eq!(kit.recover().given_back, 1);
    assert_eq!(kit.state(id), TaskState::Pending);
}

/// Errors of a commit after which nobody knows what was stored: with the first the connection goes on, with the second it is
/// opened again.
const UNKNOWN: [i32; 2] = [ffi::SQLITE_ERROR, ffi::SQLITE_IOERR_FSYNC];

/// Applies an operation whose commit is stored and reports this error all the same.
fn apply_unknown(kit: &Kit, op: Op, code: i32) {
    let store = SqliteStore::of(&**kit.store()).unwrap();
    store.turn.with_writer(|writer| {
        // SQLite calls it once the commit is in the log, and hands its error to the COMMIT.
        let mut error = Some(ffi::Error::new(code));
        let fails_once = move |_: &mut _, _| match error.take() {
            Some(error) => Err(rusqlite::Error::SqliteFailure(error, None)),
            None => Ok(()),
        };
        writer.connection().wal_hook(Some(fails_once)).unwrap();
    });
    let answer = kit.store().apply(kit.now, vec![op]);
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unknown, "{code}");
}

/// Its lane is not known here, and no other process writes, so nothing else would tell of it.
fn p4_a_task_whose_commit_was_stored_and_not_known_runs(kit: &mut Kit) {
    for (code, queue) in UNKNOWN.into_iter().zip(["one", "two"]) {
        let task = of(queue);
        let id = task.id;
        apply_unknown(kit, Op::Insert(vec![task]), code);
        kit.store().refresh().unwrap();
        assert_eq!(kit.claim_one().id, id, "{code}");
    }
}

fn p4_a_task_in_a_lane_whose_retirement_was_not_known_is_not_lost(kit: &mut Kit) {
    for code in UNKNOWN {
        kit.insert(of("mail"));
        complete_all(kit);
        let lanes = vec![lane_of(kit, "mail")];
        apply_unknown(kit, Op::RetireLanes { lanes }, code);
        let id = kit.insert(of("mail"));
        // The next process knows the lanes in use alone.
        kit.kill();
        assert_eq!(kit.claim_one().id, id, "{code}");
        kit.kill();
        kit.recover();
        complete_all(kit);
    }
}
