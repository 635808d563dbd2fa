//! Taking back what a dead instance held.

use std::sync::Arc;

use super::insert::rows;
use super::{Kit, NOW, S, done, error, on_every_backend, on_files, task};
use crate::error::ErrorKind;
use crate::id::TaskId;
use crate::model::attempt::AttemptEnd;
use crate::model::delivery::Delivery;
use crate::model::edit::Patch;
use crate::model::new_task::Insert;
use crate::model::op::{Action, Changed, Op, Rescued, Settled, Started};
use crate::model::query::Query;
use crate::model::settle::Claim;
use crate::model::task::{Options, TaskState};

on_every_backend!(
    p4_a_crash_costs_no_attempt_and_too_many_end_the_task,
    p4_a_loss_of_power_is_blamed_on_nobody,
    p7_a_rescued_task_cannot_be_settled_by_its_last_attempt,
    a_task_that_had_not_been_started_is_given_back_whole,
    p5_what_is_delivered_at_most_once_is_not_started_again_after_a_crash,
    a_cancel_that_was_requested_is_honoured_by_the_rescue,
    a_task_that_is_taken_back_unstarted_still_has_its_start_deadline,
    only_the_dead_instance_s_tasks_are_taken_back,
);
on_files!(
    p11_what_a_dead_process_held_is_runnable_at_once,
    p11_a_living_process_s_tasks_are_never_taken,
    p11_a_client_that_ran_nothing_is_not_missed,
    p11_an_instance_that_ended_well_leaves_nothing_to_rescue,
    p11_a_large_rescue_goes_in_slices,
    p11_what_was_started_and_settled_is_not_rescued,
    p11_a_store_that_has_stopped_leaves_the_dead_to_others,
    an_attempt_that_fails_in_the_next_process_is_counted_right,
);

fn rescued(crashed: usize, given_back: usize) -> Rescued {
    Rescued {
        crashed,
        given_back,
        more: false,
    }
}

fn crash(kit: &Kit, claim: &Claim) {
    let cell = (claim.fence.seq, claim.fence.claim_no);
    let started = Started::Listed(Arc::new([cell]));
    assert_eq!(
        kit.rescue(claim.fence.instance, started),
        rescued(1, 0),
        "it was started"
    );
}

fn p4_a_crash_costs_no_attempt_and_too_many_end_the_task(kit: &mut Kit) {
    let id = kit.insert(Insert {
        max_attempts: 1,
        options: Some(Box::new(Options {
            max_crashes: Some(2),
            ..Options::default()
        })),
        ..task()
    });
    for crashes in 1..=2 {
        let claim = kit.claim_one();
        assert_eq!((claim.attempt, claim.crashes), (crashes, crashes - 1));
        crash(kit, &claim);
        let task = kit.task(id);
        assert_eq!(
            (task.state(), task.crashes()),
            (TaskState::Pending, crashes)
        );
        assert_eq!(task.error(), Some("crashed"));
        assert_eq!(task.scheduled_at(), NOW.to_utc(), "due as before");
    }
    crash(kit, &kit.claim_one());
    let task = kit.task(id);
    assert_eq!((task.state(), task.crashes()), (TaskState::Failed, 3));
    assert_eq!(task.error(), Some("crashed"));
    assert_eq!(kit.ends(id), [AttemptEnd::Crashed; 3]);
    assert!(kit.claim(9).is_empty());
}

/// Tasks failed as crashed that had run while the power failed a few times.
fn p4_a_loss_of_power_is_blamed_on_nobody(kit: &mut Kit) {
    let fragile = || Insert {
        options: Some(Box::new(Options {
            max_crashes: Some(1),
            ..Options::default()
        })),
        ..task()
    };
    let ids = [kit.insert(fragile()), kit.insert(fragile())];
    let fail_power = |claims: usize| {
        let claims = kit.claim(claims);
        let instance = claims[0].fence.instance;
        let alone = claims.len() == 1;
        kit.rescue(instance, Started::All { alone });
        claims.len()
    };
    for times in 1..=3 {
        assert_eq!(fail_power(9), 2, "together again: none is suspected");
        for id in ids {
            let task = kit.task(id);
            assert_eq!((task.state(), task.crashes()), (TaskState::Pending, times));
            assert_eq!(task.error(), Some("crashed"));
        }
    }
    // One that was alone each time is another matter.
    kit.change(ids[1], Action::Cancel);
    assert_eq!(fail_power(1), 1);
    assert_eq!(kit.state(ids[0]), TaskState::Pending, "blamed once");
    crash(kit, &kit.claim_one());
    let task = kit.task(ids[0]);
    assert_eq!((task.state(), task.crashes()), (TaskState::Failed, 5));
}

fn p7_a_rescued_task_cannot_be_settled_by_its_last_attempt(kit: &mut Kit) {
    let id = kit.insert(task());
    let stale = kit.claim_one();
    crash(kit, &stale);
    assert_eq!(kit.settle(&stale, done()), Settled::Stale);
    let fresh = kit.claim_one();
    assert_eq!(kit.settle(&stale, done()), Settled::Stale);
    assert_eq!(kit.settle(&stale, error()), Settled::Stale);
    assert_eq!(kit.settle(&fresh, done()), Settled::Applied);
    assert_eq!(kit.ends(id), [AttemptEnd::Crashed, AttemptEnd::Completed]);
}

fn p5_what_is_delivered_at_most_once_is_not_started_again_after_a_crash(kit: &mut Kit) {
    let once = || Insert {
        delivery: Delivery::AtMostOnce,
        ..task()
    };
    let id = kit.insert(once());
    assert_eq!(kit.task(id).delivery(), Delivery::AtMostOnce);
    let claim = kit.claim_one();
    let none = Started::Listed(Arc::new([]));
    assert_eq!(kit.rescue(claim.fence.instance, none), rescued(0, 1));
    assert_eq!(kit.state(id), TaskState::Pending, "it had not been started");
    crash(kit, &kit.claim_one());
    let task = kit.task(id);
    assert_eq!((task.state(), task.attempt()), (TaskState::Failed, 1));
    assert_eq!(task.error(), Some("interrupted"));
    assert_eq!(kit.ends(id), [AttemptEnd::Crashed]);
    assert!(kit.claim(9).is_empty());
    // After a power cut nothing tells what was started.
    let id = kit.insert(once());
    let claim = kit.claim_one();
    kit.rescue(claim.fence.instance, Started::All { alone: true });
    assert_eq!(kit.task(id).error(), Some("interrupted"));
    // Somebody takes the responsibility.
    assert_eq!(
        kit.change(id, Action::Retry(Patch::default())),
        Changed::Applied
    );
    let claim = kit.claim_one();
    assert_eq!(kit.settle(&claim, error()), Settled::Applied);
    assert_eq!(kit.state(id), TaskState::Failed, "once more, and no more");
}

fn a_task_that_had_not_been_started_is_given_back_whole(kit: &mut Kit) {
    let id = kit.insert(task());
    let claim = kit.claim_one();
    let none = Started::Listed(Arc::new([]));
    assert_eq!(kit.rescue(claim.fence.instance, none), rescued(0, 1));
    let task = kit.task(id);
    assert_eq!((task.state(), task.attempt()), (TaskState::Pending, 0));
    assert_eq!((task.crashes(), task.error()), (0, None));
    assert!(kit.history(id).is_empty());
    assert_eq!(kit.claim_one().attempt, 1);
}

fn a_cancel_that_was_requested_is_honoured_by_the_rescue(kit: &mut Kit) {
    for started in [Started::All { alone: true }, Started::Listed(Arc::new([]))] {
        let id = kit.insert(task());
        let claim = kit.claim_one();
        assert_eq!(kit.change(id, Action::Cancel), Changed::Requested);
        kit.rescue(claim.fence.instance, started);
        assert_eq!(kit.state(id), TaskState::Cancelled);
        assert!(kit.claim(9).is_empty());
    }
}

fn a_task_that_is_taken_back_unstarted_still_has_its_start_deadline(kit: &mut Kit) {
    let id = kit.insert(Insert {
        expires_at: Some(NOW + S),
        ..task()
    });
    let claim = kit.claim_one();
    kit.store().hub().take_expiry();
    kit.rescue(claim.fence.instance, Started::Listed(Arc::new([])));
    assert_eq!(kit.store().hub().take_expiry(), Some(NOW + S));
    kit.later(2 * S);
    assert_eq!(kit.apply(Op::Expire { limit: 9 }).done(), 1);
    assert_eq!(kit.state(id), TaskState::Failed);
}

fn only_the_dead_instance_s_tasks_are_taken_back(kit: &mut Kit) {
    let id = kit.insert(task());
    let claim = kit.claim_one();
    let other = claim.fence.instance + 1;
    assert_eq!(
        kit.rescue(other, Started::All { alone: true }),
        rescued(0, 0)
    );
    assert_eq!(kit.state(id), TaskState::Running);
}

fn p11_what_a_dead_process_held_is_runnable_at_once(kit: &mut Kit) {
    let ids: Vec<TaskId> = (0..4).map(|_| kit.insert(task())).collect();
    let claims = kit.claim(4);
    for claim in &claims[..2] {
        kit.store().begin(claim.fence).unwrap();
    }
    kit.settle(&claims[0], done());
    kit.die();
    assert_eq!(kit.store().recover(NOW).unwrap(), rescued(1, 2));
    assert_eq!(kit.state(ids[0]), TaskState::Completed);
    assert_eq!(kit.ends(ids[1]), [AttemptEnd::Crashed]);
    let left = kit.claim(9);
    let attempts: Vec<(TaskId, u32, u32)> = left
        .iter()
        .map(|claim| (claim.id, claim.attempt, claim.crashes))
        .collect();
    assert_eq!(attempts.len(), 3);
    for expected in [(ids[1], 2, 1), (ids[2], 1, 0), (ids[3], 1, 0)] {
        assert!(attempts.contains(&expected), "{expected:?} of {attempts:?}");
    }
    assert_eq!(
        kit.store().recover(NOW).unwrap(),
        rescued(0, 0),
        "once is enough"
    );
    for claim in &claims {
        assert_eq!(kit.settle(claim, done()), Settled::Stale);
    }
}

fn p11_a_living_process_s_tasks_are_never_taken(kit: &mut Kit) {
    let id = kit.insert(task());
    let claim = kit.claim_one();
    let other = kit.another(true);
    // However long it takes, and whatever the clock says.
    for now in [NOW, NOW + 1_000_000 * S] {
        assert_eq!(other.recover(now).unwrap(), rescued(0, 0));
    }
    assert_eq!(kit.state(id), TaskState::Running);
    assert_eq!(kit.settle(&claim, done()), Settled::Applied);
}

fn p11_a_client_that_ran_nothing_is_not_missed(kit: &mut Kit) {
    let client = kit.another(false);
    client.apply(NOW, vec![Op::Insert(vec![task()])]).unwrap();
    drop(client);
    assert_eq!(rows(kit, "instance"), 1, "a client is no instance");
    assert_eq!(kit.store().recover(NOW).unwrap(), rescued(0, 0));
}

/// The names in the folder of the lock files.
fn locks(kit: &Kit) -> usize {
    let mut folder = kit.path().as_os_str().to_owned();
    folder.push(".punctual");
    std::fs::read_dir(folder).unwrap().count()
}

fn p11_an_instance_that_ended_well_leaves_nothing_to_rescue(kit: &mut Kit) {
    kit.insert(task());
    let claim = kit.claim_one();
    kit.store().begin(claim.fence).unwrap();
    kit.settle(&claim, done());
    kit.die();
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
    kit.die();
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
    // 500 innocent ones, and of the 700 that were started one at a time.
    assert_eq!(kit.claim(usize::MAX).len(), 501);
}

fn p11_what_was_started_and_settled_is_not_rescued(kit: &mut Kit) {
    let id = kit.insert(task());
    let claim = kit.claim_one();
    kit.store().begin(claim.fence).unwrap();
    kit.settle(&claim, error());
    kit.later(10 * S);
    // Claimed again and not started: its first start is still in the ledger's file.
    let again = kit.claim_one();
    assert_eq!(again.id, id);
    kit.die();
    assert_eq!(kit.store().recover(NOW).unwrap(), rescued(0, 1));
    let task = kit.task(id);
    assert_eq!((task.attempt(), task.crashes()), (1, 0));
}

fn an_attempt_that_fails_in_the_next_process_is_counted_right(kit: &mut Kit) {
    let id = kit.insert(Insert {
        max_attempts: 2,
        ..task()
    });
    let claim = kit.claim_one();
    kit.store().begin(claim.fence).unwrap();
    kit.die();
    kit.store().recover(NOW).unwrap();
    kit.settle(&kit.claim_one(), error());
    assert_eq!(
        kit.state(id),
        TaskState::Pending,
        "the first of two failures"
    );
    kit.later(10 * S);
    kit.settle(&kit.claim_one(), error());
    assert_eq!(kit.state(id), TaskState::Failed);
    assert_eq!(
        kit.ends(id),
        [AttemptEnd::Crashed, AttemptEnd::Failed, AttemptEnd::Failed]
    );
}

/// An older version, after a migration: it took the lock of whoever died and kept it, and to all others that proved a life.
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
    kit.die();
    stopped.recover(NOW).unwrap();
    assert!(!stopped.has_others());
    while kit.store().recover(NOW).unwrap().more {}
    assert_eq!(kit.state(id), TaskState::Pending);
}
