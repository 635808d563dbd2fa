//! Damage in the file: a flipped bit is one task's failure, and hides or stops no other.

use super::on_a_file;
use crate::error::ErrorKind;
use crate::id::TaskId;
use crate::model::filter::Filter;
use crate::model::new_task::Insert;
use crate::model::op::{Action, Settled};
use crate::model::query::Query;
use crate::model::settle::{End, StoredPayload};
use crate::model::task::TaskState;
use crate::store::sqlite::kit::{File, on_file};
use crate::store::sqlite::sql::sql;
use crate::store::suite::claim::ids;
use crate::store::suite::read::{count, pages};
use crate::store::suite::{Kit, S, error, json, task};

on_a_file!(
    a_damaged_payload_comes_as_such_and_hurts_nobody_else,
    a_claim_and_a_reader_find_the_same_payload,
    damaged_options_come_as_such,
    p12_a_damaged_row_stops_no_claim_but_its_own,
    a_damaged_task_does_not_hide_the_others,
);

fn damage(kit: &Kit, id: TaskId, sql: &str) {
    let changed = kit.sql(|conn| conn.execute(sql, [&id.as_bytes()[..]]).unwrap());
    assert_eq!(changed, 1);
}

fn a_damaged_payload_comes_as_such_and_hurts_nobody_else(kit: &mut Kit) {
    let long = |kit: &Kit| {
        kit.insert(Insert {
            payload: json(3000),
            ..task()
        })
    };
    let (inline, good, outlined, missing) =
        (kit.insert(task()), kit.insert(task()), long(kit), long(kit));
    damage(
        kit,
        inline,
        "UPDATE punctual_task SET payload = CAST('nulk' AS BLOB) WHERE id = ?",
    );
    damage(
        kit,
        outlined,
        "UPDATE punctual_payload SET payload = CAST(replace(CAST(payload AS TEXT), 'xxx\"', 'xyx\"') AS BLOB)
         WHERE seq = (SELECT seq FROM punctual_task WHERE id = ?)",
    );
    damage(
        kit,
        missing,
        "DELETE FROM punctual_payload WHERE seq = (SELECT seq FROM punctual_task WHERE id = ?)",
    );
    let claims = kit.claim(9);
    assert_eq!(ids(&claims), [inline, good, outlined, missing]);
    for claim in &claims {
        let damaged = matches!(claim.payload, StoredPayload::Damaged(_));
        assert_eq!(damaged, claim.id != good, "{claim:?}");
    }
    let read = kit.store().read(Query::Task(inline));
    assert_eq!(
        read.unwrap_err().kind(),
        ErrorKind::Corrupt,
        "a reader is told as well"
    );
    assert_eq!(
        kit.settle(&claims[0], End::Damaged("x")),
        Settled::Applied,
        "and it can be settled"
    );
    assert_eq!(kit.state(inline), TaskState::Failed);
}

/// The payload is in the row, though a flipped bit says that it is elsewhere.
fn a_claim_and_a_reader_find_the_same_payload(kit: &mut Kit) {
    let id = kit.insert(task());
    damage(
        kit,
        id,
        sql!("UPDATE punctual_task SET extras = extras | {payload} WHERE id = ?"),
    );
    let read = kit.task(id).payload;
    assert_eq!(kit.claim_one().payload, StoredPayload::Whole(read));
}

fn damaged_options_come_as_such(kit: &mut Kit) {
    let id = kit.insert(task());
    damage(
        kit,
        id,
        "UPDATE punctual_task SET options = CAST('{' AS BLOB) WHERE id = ?",
    );
    assert!(matches!(kit.claim_one().payload, StoredPayload::Damaged(_)));
}

fn p12_a_damaged_row_stops_no_claim_but_its_own(_: &mut Kit) {
    for damaged in [
        "id = x'0102'",
        "id = zeroblob(17)",
        "attempt = -7",
        "attempt = 1 << 40",
        "extras = extras | 32",
        "max_attempts = -1",
        "claim_no = 9223372036854775807",
        "priority = -1",
        "priority = 77",
        "state = 7",
        "expires_at = 5, id = x'0102'",
    ] {
        let kit = &mut on_file();
        let (bad, good) = (kit.insert(task()), kit.insert(task()));
        let sql = format!("UPDATE punctual_task SET {damaged} WHERE id = ?");
        damage(kit, bad, &sql);
        let claims = kit.claim(9);
        assert!(ids(&claims).contains(&good), "{damaged}");
        for claim in &claims {
            assert_eq!(kit.settle(claim, error()), Settled::Applied, "{damaged}");
        }
        kit.later(100 * S);
        kit.claim(9);
        kit.kill();
        while kit.store().recover(kit.now).unwrap().more {}
        assert_eq!(kit.state(good), TaskState::Pending, "{damaged}");
        let page = kit.list(&Filter::all());
        assert!(
            page.tasks().iter().any(|task| task.id() == good),
            "{damaged}"
        );
        kit.change_matching(&Filter::all(), &Action::Cancel, None);
        assert_eq!(kit.state(good), TaskState::Cancelled, "{damaged}");
    }
}

fn a_damaged_task_does_not_hide_the_others(kit: &mut Kit) {
    let all: Vec<TaskId> = (0..3).map(|_| kit.insert(task())).collect();
    kit.sql(|conn| {
        let sql = "UPDATE punctual_task SET payload = x'00' WHERE id = ?";
        assert_eq!(conn.execute(sql, [&all[1].as_bytes()[..]]).unwrap(), 1);
    });
    assert_eq!(pages(kit, &Filter::all()).0, [all[0], all[2]]);
    assert_eq!(pages(kit, &Filter::all().limit(1)).0, [all[0], all[2]]);
    assert_eq!(count(kit, &Filter::all()), 3);
}
