//! Instances by their lock files and their rows, and connections of the caller's own.

use super::on_a_file;
use crate::error::ErrorKind;
use crate::model::op::Op;
use crate::model::query::Query;
use crate::model::task::TaskState;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::kit::File;
use crate::store::suite::forget::{complete_all, lane_of, of, retire};
use crate::store::suite::rescue::rescued;
use crate::store::suite::{Kit, NOW, done, task};

on_a_file!(
    a_task_stored_on_a_connection_of_the_caller_s_own_in_a_retired_lane_runs,
    p11_a_client_that_ran_nothing_is_not_missed,
    p11_an_instance_that_ended_well_leaves_nothing_to_rescue,
    p11_a_large_rescue_goes_in_slices,
    p11_a_store_that_has_stopped_leaves_the_dead_to_others,
);

/// The names in the folder of the lock files.
fn locks(kit: &Kit) -> usize {
    let mut folder = kit.path().as_os_str().to_owned();
    folder.push(".punctual");
    std::fs::read_dir(folder).unwrap().count()
}

fn a_task_stored_on_a_connection_of_the_caller_s_own_in_a_retired_lane_runs(kit: &mut Kit) {
    let other = kit.another(false);
    kit.insert(of("mail"));
    complete_all(kit);
    other.refresh().unwrap();
    assert_eq!(retire(kit, &[lane_of(kit, "mail")]), 1);
    let task = of("mail");
    let id = task.id;
    kit.sql(|conn| {
        let tx = conn.unchecked_transaction().unwrap();
        let op = Op::Insert(vec![task]);
        // The store that it is asked of knows the lane as it was.
        SqliteStore::of(&*other)
            .unwrap()
            .apply_on(NOW, &tx, &op)
            .unwrap();
        tx.commit().unwrap();
    });
    kit.store().refresh().unwrap();
    assert_eq!(kit.claim_one().id, id);
}

fn p11_a_client_that_ran_nothing_is_not_missed(kit: &mut Kit) {
    let client = kit.another(false);
    client.apply(NOW, vec![Op::Insert(vec![task()])]).unwrap();
    drop(client);
    assert_eq!(kit.rows("instance"), 1, "a client is no instance");
    assert_eq!(kit.store().recover(NOW).unwrap(), rescued(0, 0));
}

fn p11_an_instance_that_ended_well_leaves_nothing_to_rescue(kit: &mut Kit) {
    kit.insert(task());
    let claim = kit.claim_one();
    kit.store().begin(claim.fence).unwrap();
    kit.settle(&claim, done());
    kit.kill();
    assert_eq!(locks(kit), 1, "the lock file of the living one");
    let ended: i64 = kit.sql(|conn| {
        let sql = "SELECT count(*) FROM punctual_instance WHERE ended_at IS NOT NULL";
        conn.query_row(sql, [], |row| row.get(0)).unwrap()
    });
    assert_eq!(ended, 1);
    assert_eq!(kit.store().recover(NOW).unwrap(), rescued(0, 0));
}

fn p11_a_large_rescue_goes_in_slices(kit: &mut Kit) {
    let count = 1_200;
    kit.insert_all((0..count).map(|_| task()).collect());
    let claims = kit.claim(count);
    for claim in &claims[..700] {
        kit.store().begin(claim.fence).unwrap();
    }
    kit.kill();
    let mut slices = Vec::new();
    loop {
        let slice = kit.store().recover(NOW).unwrap();
        slices.push(slice.crashed + slice.given_back);
        if !slice.more {
            break;
        }
        assert_eq!(locks(kit), 2, "the lock file stays until all is taken back");
    }
    assert_eq!(slices, [500, 500, 200]);
    assert_eq!(locks(kit), 1);
    let answer = kit.store().read(Query::Stats { now: NOW }).unwrap();
    assert_eq!(answer.stats().count(TaskState::Pending), count as u64);
    // 500 innocent ones, and of the 700 that were started as many as may run together.
    assert_eq!(kit.claim(usize::MAX).len(), 500 + 256);
}

/// An older version, after a migration: it took the lock of a dead instance and kept it, which proved to all others that
/// the instance lives.
fn p11_a_store_that_has_stopped_leaves_the_dead_to_others(kit: &mut Kit) {
    let id = kit.insert(task());
    kit.claim_one();
    let stopped = kit.another(true);
    stopped.recover(NOW).unwrap();
    assert!(stopped.has_others());
    let version = |by: &str| {
        let sql =
            format!("UPDATE punctual_meta SET value = value {by} WHERE key = 'schema_version'");
        kit.sql(|conn| conn.execute(&sql, []).unwrap());
    };
    version("+ 1");
    assert_eq!(stopped.refresh().unwrap_err().kind(), ErrorKind::Version);
    version("- 1");
    kit.kill();
    stopped.recover(NOW).unwrap();
    assert!(!stopped.has_others());
    while kit.store().recover(NOW).unwrap().more {}
    assert_eq!(kit.state(id), TaskState::Pending);
}
