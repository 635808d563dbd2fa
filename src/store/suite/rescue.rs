//! Taking back what a dead instance held.

use super::{Kit, NOW, S, claimed, done, error, on_shared, task};
use crate::id::TaskId;
use crate::model::attempt::AttemptEnd;
use crate::model::delivery::Delivery;
use crate::model::edit::Patch;
use crate::model::lane::{ClaimRequest, Class};
use crate::model::new_task::Insert;
use crate::model::op::{Action, Changed, Op, Rescued, Settled};
use crate::model::settle::Claim;
use crate::model::suspects::{Level, Suspects};
use crate::model::task::{Options, TaskState};

on_shared!(
    p11_what_a_dead_process_held_is_runnable_at_once,
    p11_a_living_process_s_tasks_are_never_taken,
    p11_what_was_started_and_settled_is_not_rescued,
    an_attempt_that_fails_in_the_next_process_is_counted_right,
    p4_a_crash_costs_no_attempt_and_too_many_end_the_task,
    p4_a_loss_of_power_is_blamed_on_nobody,
    p7_a_rescued_task_cannot_be_settled_by_its_last_attempt,
    a_task_that_had_not_been_started_is_given_back_whole,
    p5_what_is_delivered_at_most_once_is_not_started_again_after_a_crash,
    a_cancel_that_was_requested_is_honoured_by_the_rescue,
    a_task_that_is_taken_back_unstarted_still_has_its_start_deadline,
    only_the_dead_instance_s_tasks_are_taken_back,
    p4_of_many_tasks_the_one_that_crashes_is_found_in_few_crashes,
    p4_two_tasks_that_crash_only_together_are_separated,
    p4_processes_that_are_killed_under_many_tasks_blame_nobody,
    p4_a_suspect_that_returns_is_no_suspect_any_more,
    p4_beside_others_neither_a_suspect_nor_they_are_blamed,
    p4_the_best_suspect_that_has_to_wait_is_not_overtaken_by_others,
);

pub(in crate::store) fn rescued(crashed: usize, given_back: usize) -> Rescued {
    Rescued {
        crashed,
        given_back,
        more: false,
    }
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
        kit.crash(&[claim]);
        let task = kit.task(id);
        assert_eq!(
            (task.state(), task.crashes()),
            (TaskState::Pending, crashes)
        );
        assert_eq!(task.error(), Some("crashed"));
        assert_eq!(task.scheduled_at(), NOW.to_utc(), "due as before");
    }
    let claim = kit.claim_one();
    kit.crash(&[claim]);
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
    let fail_power = |kit: &mut Kit| {
        let claims = kit.claim(9);
        kit.lose_power();
        kit.recover();
        claims.len()
    };
    for times in 1..=3 {
        assert_eq!(fail_power(kit), 2, "together again: none is suspected");
        for id in ids {
            let task = kit.task(id);
            assert_eq!((task.state(), task.crashes()), (TaskState::Pending, times));
            assert_eq!((task.blamed_crashes(), task.max_crashes()), (0, 1));
            assert_eq!(task.error(), Some("crashed"));
        }
    }
    // One that was alone each time is another matter.
    kit.change(ids[1], Action::Cancel);
    assert_eq!(fail_power(kit), 1);
    let task = kit.task(ids[0]);
    assert_eq!(
        (task.state(), task.blamed_crashes()),
        (TaskState::Pending, 1)
    );
    let claim = kit.claim_one();
    kit.crash(&[claim]);
    let task = kit.task(ids[0]);
    assert_eq!((task.state(), task.crashes()), (TaskState::Failed, 5));
}

fn p7_a_rescued_task_cannot_be_settled_by_its_last_attempt(kit: &mut Kit) {
    let id = kit.insert(task());
    let stale = kit.claim_one();
    kit.crash(std::slice::from_ref(&stale));
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
    kit.claim_one();
    kit.kill();
    assert_eq!(kit.recover(), rescued(0, 1));
    assert_eq!(kit.state(id), TaskState::Pending, "it had not been started");
    let claim = kit.claim_one();
    kit.crash(&[claim]);
    let task = kit.task(id);
    assert_eq!((task.state(), task.attempt()), (TaskState::Failed, 1));
    assert_eq!(task.error(), Some("interrupted"));
    assert_eq!(kit.ends(id), [AttemptEnd::Crashed]);
    assert!(kit.claim(9).is_empty());
    // After a power cut nothing tells what was started.
    let id = kit.insert(once());
    kit.claim_one();
    kit.lose_power();
    assert_eq!(kit.recover(), rescued(1, 0));
    assert_eq!(kit.task(id).error(), Some("interrupted"));
    // An operator takes the responsibility.
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
    kit.claim_one();
    kit.kill();
    assert_eq!(kit.recover(), rescued(0, 1));
    let task = kit.task(id);
    assert_eq!((task.state(), task.attempt()), (TaskState::Pending, 0));
    assert_eq!((task.crashes(), task.error()), (0, None));
    assert!(kit.history(id).is_empty());
    assert_eq!(kit.claim_one().attempt, 1);
}

fn a_cancel_that_was_requested_is_honoured_by_the_rescue(kit: &mut Kit) {
    for end in [Kit::kill, Kit::lose_power] {
        let id = kit.insert(task());
        kit.claim_one();
        assert_eq!(kit.change(id, Action::Cancel), Changed::Requested);
        end(kit);
        kit.recover();
        assert_eq!(kit.state(id), TaskState::Cancelled);
        assert!(kit.claim(9).is_empty());
    }
}

fn a_task_that_is_taken_back_unstarted_still_has_its_start_deadline(kit: &mut Kit) {
    let id = kit.insert(Insert {
        expires_at: Some(NOW + S),
        ..task()
    });
    kit.claim_one();
    kit.kill();
    // What is known is looked at anew once, by the first write.
    kit.apply(Op::Probe);
    kit.store().signals().take_expiry();
    kit.recover();
    assert_eq!(kit.store().signals().take_expiry(), Some(NOW + S));
    kit.later(2 * S);
    assert_eq!(kit.apply(Op::Expire { limit: 9 }).done(), 1);
    assert_eq!(kit.state(id), TaskState::Failed);
}

fn only_the_dead_instance_s_tasks_are_taken_back(kit: &mut Kit) {
    let id = kit.insert(task());
    kit.claim_one();
    let theirs = kit.insert(task());
    let other = kit.another(true);
    other.refresh().unwrap();
    let claim = Op::Claim(kit.request(1));
    assert_eq!(
        claimed(other.apply(kit.now, vec![claim]).unwrap().remove(0)).len(),
        1
    );
    drop(other);
    assert_eq!(kit.recover(), rescued(0, 1));
    assert_eq!(kit.state(id), TaskState::Running);
    assert_eq!(kit.state(theirs), TaskState::Pending);
}

fn p11_what_a_dead_process_held_is_runnable_at_once(kit: &mut Kit) {
    let ids: Vec<TaskId> = (0..4).map(|_| kit.insert(task())).collect();
    let claims = kit.claim(4);
    for claim in &claims[..2] {
        kit.store().begin(claim.fence).unwrap();
    }
    kit.settle(&claims[0], done());
    kit.kill();
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

fn p11_what_was_started_and_settled_is_not_rescued(kit: &mut Kit) {
    let id = kit.insert(task());
    let claim = kit.claim_one();
    kit.store().begin(claim.fence).unwrap();
    kit.settle(&claim, error());
    kit.later(10 * S);
    // Claimed again and not started: its first start is still in the ledger's file.
    let again = kit.claim_one();
    assert_eq!(again.id, id);
    kit.kill();
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
    kit.kill();
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

impl Kit {
    /// Runs what may run together, until nothing is due: a process that runs all of `together` crashes. Returns the crashes.
    fn run_with_crashes(&mut self, together: &[TaskId]) -> usize {
        let mut crashes = 0;
        loop {
            let claims = self.claim(10_000);
            if claims.is_empty() {
                return crashes;
            }
            let runs = |id: &TaskId| claims.iter().any(|claim| claim.id == *id);
            if together.iter().all(runs) {
                self.crash(&claims);
                crashes += 1;
                assert!(crashes < 100, "the cause is not found");
            } else {
                for claim in &claims {
                    self.settle(claim, done());
                }
            }
        }
    }
}

fn p4_of_many_tasks_the_one_that_crashes_is_found_in_few_crashes(kit: &mut Kit) {
    for (count, max_crashes, bound) in [(1, 0, 1), (1, 3, 4), (2, 1, 3), (7, 3, 7), (600, 2, 13)] {
        let fragile = || Insert {
            options: Some(Box::new(Options {
                max_crashes: Some(max_crashes),
                ..Options::default()
            })),
            ..task()
        };
        let ids: Vec<TaskId> = (0..count).map(|_| kit.insert(fragile())).collect();
        let cause = ids[count / 2];
        let crashes = kit.run_with_crashes(&[cause]);
        assert!(crashes <= bound, "{crashes} of at most {bound} for {count}");
        for id in ids.into_iter().filter(|id| *id != cause) {
            let task = kit.task(id);
            assert_eq!(task.state(), TaskState::Completed);
            assert_eq!(task.blamed_crashes(), 0);
        }
        assert_eq!(kit.state(cause), TaskState::Failed);
        assert_eq!(kit.ends(cause), vec![AttemptEnd::Crashed; crashes]);
    }
}

fn p4_two_tasks_that_crash_only_together_are_separated(kit: &mut Kit) {
    let ids: Vec<TaskId> = (0..50).map(|_| kit.insert(task())).collect();
    let crashes = kit.run_with_crashes(&[ids[20], ids[30]]);
    assert!((1..=6).contains(&crashes), "{crashes}");
    for id in ids {
        assert_eq!(kit.state(id), TaskState::Completed);
    }
}

fn p4_processes_that_are_killed_under_many_tasks_blame_nobody(kit: &mut Kit) {
    let ids: Vec<TaskId> = (0..40).map(|_| kit.insert(task())).collect();
    let mut running = Vec::new();
    for _ in 0..4 {
        let claims = kit.claim(100);
        running.push(claims.len());
        kit.crash(&claims);
    }
    assert_eq!(running, [40, 16, 8, 4]);
    let crashes: Vec<u32> = ids.iter().map(|id| kit.task(*id).crashes()).collect();
    assert_eq!((crashes[0], crashes[39]), (4, 1));
    assert!(ids.iter().all(|id| kit.task(*id).blamed_crashes() == 0));
    assert_eq!(kit.run_with_crashes(&[TaskId::new()]), 0);
    assert!(ids.iter().all(|id| kit.state(*id) == TaskState::Completed));
}

fn p4_a_suspect_that_returns_is_no_suspect_any_more(kit: &mut Kit) {
    let id = kit.insert(task());
    kit.insert(task());
    let claims = kit.claim(9);
    kit.crash(&claims);
    for _ in 0..2 {
        let [claim] = &kit.claim(9)[..] else {
            panic!("one at a time");
        };
        assert_eq!(claim.class, Class::Suspect(Level::ALONE));
        kit.settle(claim, error());
    }
    kit.later(10 * S);
    let claims = kit.claim(9);
    assert_eq!(claims.len(), 2, "side by side");
    assert!(claims.iter().all(|claim| claim.class == Class::Plain));
    // A crash for which it was blamed stays on its account.
    for claim in &claims[1..] {
        kit.settle(claim, done());
    }
    kit.crash(&claims[..1]);
    kit.settle(&kit.claim_one(), error());
    assert_eq!(claims[0].id, id);
    assert_eq!(
        (kit.task(id).crashes(), kit.task(id).blamed_crashes()),
        (2, 1)
    );
}

fn p4_beside_others_neither_a_suspect_nor_they_are_blamed(kit: &mut Kit) {
    let suspect = kit.insert(task());
    let claims = kit.claim(9);
    kit.crash(&claims);
    assert_eq!(kit.task(suspect).blamed_crashes(), 1);
    let beside = kit.insert(task());
    let claims = kit.claim(9);
    assert_eq!(claims.len(), 2, "a plain task may run beside it");
    kit.crash(&claims);
    assert_eq!(kit.task(suspect).blamed_crashes(), 1);
    assert_eq!(kit.task(beside).blamed_crashes(), 0);
    assert_eq!(kit.claim(9).len(), 1, "now it is suspected as well");
}

fn p4_the_best_suspect_that_has_to_wait_is_not_overtaken_by_others(kit: &mut Kit) {
    for _ in 0..8 {
        kit.insert(task());
    }
    let claims = kit.claim(9);
    kit.crash(&claims);
    // Of the first two a process crashes alone, so they may run in pairs only.
    for _ in 0..2 {
        let claims = kit.claim(2);
        kit.crash(&claims);
    }
    let plain = kit.insert(task());
    let level = |code| Level::from_code(code).unwrap();
    let claim = |held: &[i8]| {
        let mut suspects = Suspects::default();
        for code in held {
            suspects.add(level(*code));
        }
        let request = ClaimRequest {
            suspects,
            ..kit.request(9)
        };
        kit.claim_by(request)
    };
    let classes = |claims: &[Claim]| claims.iter().map(|claim| claim.class).collect::<Vec<_>>();
    let claims = claim(&[2]);
    assert_eq!(
        classes(&claims),
        [Class::Plain],
        "the best ones may not run beside another"
    );
    assert_eq!(claims[0].id, plain);
    let claims = claim(&[]);
    assert_eq!(classes(&claims), [Class::Suspect(Level::ALONE)]);
}
