//! Suspects: who runs beside whom after a death, and who is blamed for it.

use super::{Kit, NOW, S, due, on_shared, request, task};
use crate::id::TaskId;
use crate::model::delivery::Delivery;
use crate::model::lane::{ClaimRequest, QueueClaim};
use crate::model::new_task::Insert;
use crate::model::op::Action;
use crate::model::suspects::{Level, Suspects};
use crate::model::task::{Options, TaskState};
use crate::store::suite::done;

on_shared!(
    p11_how_many_ran_is_known_to_the_process_that_goes_on_with_a_rescue,
    p4_a_task_that_takes_the_machine_down_is_found,
    p4_a_task_that_allows_no_crash_is_not_blamed_beside_others,
    p4_tasks_that_crash_one_by_one_beside_a_suspect_do_not_end_it,
    p4_processes_that_are_killed_again_and_again_under_long_tasks_blame_nobody,
    p4_the_best_suspect_is_the_best_of_all_queues,
    p5_a_task_delivered_at_most_once_waits_beside_suspects_unless_it_would_expire,
);

fn blamed(kit: &Kit, ids: &[TaskId]) -> u32 {
    ids.iter().map(|id| kit.task(*id).blamed_crashes()).sum()
}

/// The next process would find the last task alone, and blame it.
fn p11_how_many_ran_is_known_to_the_process_that_goes_on_with_a_rescue(kit: &mut Kit) {
    for power_is_lost in [true, false] {
        let ids: Vec<TaskId> = (0..501).map(|_| kit.insert(task())).collect();
        let claims = kit.claim(10_000);
        assert_eq!(claims.len(), 501);
        for claim in &claims {
            kit.store().begin(claim.fence).unwrap();
        }
        if power_is_lost {
            kit.lose_power();
        } else {
            kit.kill();
        }
        let slice = kit.store().recover(kit.now).unwrap();
        assert_eq!((slice.crashed, slice.more), (500, true));
        kit.kill();
        assert_eq!(kit.recover().crashed, 1);
        assert_eq!(blamed(kit, &ids), 0, "{power_is_lost}: 501 were claimed");
        for claim in kit.claim(10_000) {
            kit.settle(&claim, done());
        }
        for id in ids {
            kit.change(id, Action::Cancel);
        }
    }
}

/// As on a system that does not tell a reset from a crash.
fn p4_a_task_that_takes_the_machine_down_is_found(kit: &mut Kit) {
    let (cause, neighbour) = (kit.insert(task()), kit.insert(task()));
    let mut deaths = 0;
    loop {
        let claims = kit.claim(10);
        if claims.is_empty() {
            break;
        }
        if claims.iter().any(|claim| claim.id == cause) {
            kit.lose_power();
            kit.recover();
            deaths += 1;
            assert!(deaths < 20, "{:?}", kit.task(cause));
        } else {
            for claim in claims {
                kit.settle(&claim, done());
            }
        }
    }
    assert_eq!(kit.state(cause), TaskState::Failed);
    assert_eq!(kit.state(neighbour), TaskState::Completed);
    assert_eq!(blamed(kit, &[neighbour]), 0);
}

fn p4_a_task_that_allows_no_crash_is_not_blamed_beside_others(kit: &mut Kit) {
    let options = Options {
        max_crashes: Some(0),
        ..Options::default()
    };
    let id = kit.insert(Insert {
        options: Some(Box::new(options)),
        ..task()
    });
    kit.insert(task());
    let claims = kit.claim(9);
    kit.crash(&claims);
    assert_eq!(kit.state(id), TaskState::Failed);
    assert_eq!(blamed(kit, &[id]), 0);
}

/// A kind is broken, and one of its tasks comes now and then.
fn p4_tasks_that_crash_one_by_one_beside_a_suspect_do_not_end_it(kit: &mut Kit) {
    for delivery in [Delivery::AtLeastOnce, Delivery::AtMostOnce] {
        let long = kit.insert(task());
        for _ in 0..10 {
            kit.later(60 * S);
            let broken = kit.insert(Insert {
                delivery,
                ..due(kit.now)
            });
            let claims = kit.claim(9);
            assert_eq!(claims.len(), 2);
            kit.crash(&claims);
            kit.change(broken, Action::Cancel);
        }
        assert_eq!(blamed(kit, &[long]), 0);
        kit.settle(&kit.claim_one(), done());
    }
}

/// Each time, new tasks run beside those that ran before.
fn p4_processes_that_are_killed_again_and_again_under_long_tasks_blame_nobody(kit: &mut Kit) {
    let long: Vec<TaskId> = (0..64).map(|_| kit.insert(task())).collect();
    for _ in 0..12 {
        for _ in 0..64 {
            kit.insert(due(kit.now));
        }
        kit.later(60 * S);
        let claims = kit.claim(64);
        kit.crash(&claims);
    }
    assert_eq!(blamed(kit, &long), 0);
}

/// The tasks of a queue.
fn of(kit: &Kit, queue: &str) -> Vec<QueueClaim> {
    let lanes = kit.store().lanes().list;
    let is_of = |claim: &QueueClaim| {
        let lane = lanes.iter().find(|lane| lane.id == claim.lanes[0].lane);
        lane.is_some_and(|lane| *lane.queue == *queue)
    };
    let mut queues = request(&**kit.store(), 99).queues;
    queues.retain(is_of);
    queues
}

/// It is the turn of a queue whose suspect runs alone. Those of another are better, and three more of them may run.
fn p4_the_best_suspect_is_the_best_of_all_queues(kit: &mut Kit) {
    let in_queue = |queue: &'static str, at| Insert {
        queue: queue.into(),
        ..due(at)
    };
    kit.later(S);
    kit.insert(in_queue("alone", NOW + S));
    let claims = kit.claim(9);
    kit.crash(&claims);
    for _ in 0..16 {
        kit.insert(in_queue("by fours", NOW));
    }
    let claims = kit.claim_by(ClaimRequest {
        queues: of(kit, "by fours"),
        ..kit.request(99)
    });
    assert_eq!(claims.len(), 16);
    kit.crash(&claims);
    let mut suspects = Suspects::default();
    suspects.add(Level::from_code(2).unwrap());
    let mut queues = of(kit, "alone");
    queues.extend(of(kit, "by fours"));
    let claims = kit.claim_by(ClaimRequest {
        queues,
        suspects,
        ..kit.request(99)
    });
    assert_eq!(claims.len(), 3, "beside the one that runs");
}

fn p5_a_task_delivered_at_most_once_waits_beside_suspects_unless_it_would_expire(kit: &mut Kit) {
    let once = |at, expires_at| {
        kit.insert(Insert {
            delivery: Delivery::AtMostOnce,
            expires_at,
            ..due(at)
        })
    };
    let (long_due, expires) = (once(NOW - 60 * S, None), once(NOW, Some(NOW + 5 * S)));
    let claim = |kit: &Kit| -> Vec<TaskId> {
        let mut request = kit.request(9);
        let lanes = request.queues.iter_mut().flat_map(|queue| &mut queue.lanes);
        lanes.for_each(|lane| lane.beside_suspects = Some(NOW));
        let claims = kit.claim_by(request);
        claims.iter().map(|claim| claim.id).collect()
    };
    assert_eq!(claim(kit), []);
    let next = kit.store().lanes().list[0].next_at();
    assert_eq!(next, Some(NOW + 10 * S), "it is looked for then");
    kit.now = NOW + 10 * S;
    assert_eq!(claim(kit), [long_due]);
    assert_eq!(
        kit.state(expires),
        TaskState::Failed,
        "it was behind the other"
    );
    let expires = kit.insert(Insert {
        delivery: Delivery::AtMostOnce,
        expires_at: Some(kit.now + 5 * S),
        ..due(kit.now)
    });
    assert_eq!(claim(kit), [expires]);
}
