//! Taking due tasks.

use std::time::Duration;

use super::{
    Kit, MICRO, NOW, S, claimed, done, due, error, json, on_every_backend, on_shared, priorities,
    task,
};
use crate::id::TaskId;
use crate::model::attempt::AttemptEnd;
use crate::model::delivery::Delivery;
use crate::model::new_task::Insert;
use crate::model::op::{Action, CHUNK, Op, Settled};
use crate::model::pool::PerPool;
use crate::model::settle::{Claim, End, StoredPayload};
use crate::model::task::TaskState;
use crate::time::Timestamp;
use crate::wake::Wake;

on_every_backend!(
    p2_a_task_is_not_taken_a_microsecond_early,
    p2_a_task_is_not_taken_early_along_with_one_that_is_due,
    p9_the_best_are_taken_first,
    p9_a_better_priority_that_is_not_due_does_not_hide_a_worse_one_that_is,
    p9_what_was_given_back_is_taken_before_worse_ones,
    a_task_is_taken_once,
    no_more_are_taken_than_asked_for,
    a_queue_s_limit_holds_for_all_its_lanes_together,
    queues_take_turns,
    tasks_are_taken_ahead_while_their_time_fits_the_budget,
    a_kind_that_is_not_measured_is_never_taken_ahead,
    what_cannot_be_afforded_is_not_overtaken_by_what_is_worse,
    one_claim_carries_a_bounded_amount_of_payloads,
    a_queue_s_limit_holds_in_every_claim,
    p9_what_is_delivered_at_most_once_is_claimed_in_its_order,
    a_paused_queue_is_left_alone,
    a_pause_in_the_same_transaction_counts,
    an_expired_task_ends_and_is_not_taken,
    one_claim_ends_a_bounded_number_of_expired_tasks,
    a_task_is_taken_up_to_its_start_deadline,
    after_a_claim_the_next_due_time_is_known,
    a_stale_head_is_corrected_by_the_claim_that_finds_nothing,
    a_claim_tells_the_attempt_what_it_needs,
);
on_shared!(
    what_another_process_scheduled_is_taken,
    p3_what_another_process_scheduled_is_told_when_it_is_known,
    a_queue_that_another_process_paused_is_left_alone,
    a_queue_s_limit_counts_what_every_instance_holds,
    what_other_processes_made_due_is_seen_in_new_lanes_and_old_ones,
    at_most_one_suspect_is_taken,
);

pub(in crate::store) fn ids(claims: &[Claim]) -> Vec<TaskId> {
    claims.iter().map(|claim| claim.id).collect()
}

fn p2_a_task_is_not_taken_a_microsecond_early(kit: &mut Kit) {
    let id = kit.insert(due(NOW + S));
    kit.now = NOW + S - MICRO;
    assert!(kit.claim(9).is_empty());
    kit.later(MICRO);
    assert_eq!(ids(&kit.claim(9)), [id]);
}

fn p2_a_task_is_not_taken_early_along_with_one_that_is_due(kit: &mut Kit) {
    let (early, id) = (kit.insert(due(NOW + MICRO)), kit.insert(task()));
    assert_eq!(ids(&kit.claim(9)), [id]);
    kit.later(MICRO);
    assert_eq!(ids(&kit.claim(9)), [early]);
}

fn p9_the_best_are_taken_first(kit: &mut Kit) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut all = Vec::new();
    for _ in 0..300 {
        let task = Insert {
            // Not in the order of insertion: an id must not decide.
            id: TaskId::from(uuid::Uuid::from_u128(random.u128(1..))),
            kind: format!("kind{}", random.u8(0..4)).into(),
            priority: random.u8(priorities()),
            scheduled_at: NOW - random.u32(0..3) * S,
            ..task()
        };
        all.push((task.priority, task.scheduled_at, all.len(), task.id));
        kit.insert(task);
    }
    all.sort_unstable();
    let mut taken = Vec::new();
    while taken.len() < all.len() {
        let some = kit.claim(random.usize(1..30));
        assert!(!some.is_empty(), "{} are left", all.len() - taken.len());
        taken.extend(ids(&some));
    }
    let expected: Vec<TaskId> = all.into_iter().map(|(.., id)| id).collect();
    assert_eq!(taken, expected, "seed {seed}");
}

fn p9_a_better_priority_that_is_not_due_does_not_hide_a_worse_one_that_is(kit: &mut Kit) {
    for priority in 0..9 {
        kit.insert(Insert {
            priority,
            ..due(NOW + S)
        });
    }
    let id = kit.insert(Insert {
        priority: 9,
        ..task()
    });
    assert_eq!(ids(&kit.claim(9)), [id]);
}

fn p9_what_was_given_back_is_taken_before_worse_ones(kit: &mut Kit) {
    let worse = kit.insert(Insert {
        kind: "other".into(),
        priority: 6,
        ..task()
    });
    let better = kit.insert(task());
    let claim = kit.claim_one();
    // Given back and claimed again in one transaction.
    let ops = vec![
        Op::Settle(vec![kit.ended(&claim, End::Unstarted).into()]),
        Op::Claim(kit.request(1)),
    ];
    let mut replies = kit.store().apply(kit.now, ops).unwrap();
    assert_eq!(ids(&claimed(replies.remove(1))), [better]);
    assert_eq!(ids(&kit.claim(9)), [worse]);
}

fn a_task_is_taken_once(kit: &mut Kit) {
    let id = kit.insert(task());
    let claim = kit.claim_one();
    assert!(kit.claim(9).is_empty());
    assert_eq!(kit.state(id), TaskState::Running);
    kit.settle(&claim, done());
    assert!(kit.claim(9).is_empty());
}

fn no_more_are_taken_than_asked_for(kit: &mut Kit) {
    kit.insert_all((0..20).map(|_| task()).collect());
    let mut request = kit.request(9);
    request.limit = 3;
    assert_eq!(kit.claim_by(request.clone()).len(), 3);
    request.free = PerPool::threads(2);
    assert_eq!(kit.claim_by(request.clone()).len(), 2);
    request.free = PerPool::threads(0);
    assert_eq!(kit.claim_by(request).len(), 0);
    assert_eq!(kit.claim(usize::MAX).len(), 15);
}

fn a_queue_s_limit_holds_for_all_its_lanes_together(kit: &mut Kit) {
    for n in 0..12 {
        kit.insert(Insert {
            kind: format!("kind{}", n % 3).into(),
            ..task()
        });
    }
    let mut request = kit.request(99);
    request.queues[0].limit = 4;
    assert_eq!(kit.claim_by(request).len(), 4);
}

fn queues_take_turns(kit: &mut Kit) {
    for queue in ["a", "b", "c"] {
        for _ in 0..5 {
            kit.insert(Insert {
                queue: queue.into(),
                // In its own queue every one is better than all in the others.
                priority: queue.as_bytes()[0] - b'a',
                ..task()
            });
        }
    }
    let queues = |claims: &[Claim]| -> String {
        claims.iter().map(|claim| &*claim.queue).collect::<String>()
    };
    assert_eq!(queues(&kit.claim(7)), "abcabca");
    let mut request = kit.request(99);
    request.queues.rotate_left(1);
    assert_eq!(
        queues(&kit.claim_by(request)),
        "bcabcabc",
        "in the order asked for"
    );
}

fn with_cost(kit: &Kit, free: usize, cost: Option<Duration>, budget: Duration) -> usize {
    let mut request = kit.request(free);
    request.budget = budget;
    for lane in request.queues.iter_mut().flat_map(|queue| &mut queue.lanes) {
        lane.cost = cost;
    }
    kit.claim_by(request).len()
}

const MS: Duration = Duration::from_millis(1);

fn tasks_are_taken_ahead_while_their_time_fits_the_budget(kit: &mut Kit) {
    kit.insert_all((0..40).map(|_| task()).collect());
    assert_eq!(with_cost(kit, 2, Some(MS), 3 * MS), 5);
    assert_eq!(with_cost(kit, 0, Some(MS), 3 * MS - MICRO), 2);
    assert_eq!(with_cost(kit, 1, Some(4 * MS), 3 * MS), 1);
    assert_eq!(with_cost(kit, 0, Some(4 * MS), 3 * MS), 0);
}

fn a_kind_that_is_not_measured_is_never_taken_ahead(kit: &mut Kit) {
    kit.insert_all((0..40).map(|_| task()).collect());
    assert_eq!(with_cost(kit, 2, None, 3 * MS), 2);
    assert_eq!(with_cost(kit, 0, None, 3 * MS), 0);
}

fn what_cannot_be_afforded_is_not_overtaken_by_what_is_worse(kit: &mut Kit) {
    kit.insert(Insert {
        kind: "slow".into(),
        priority: 0,
        ..task()
    });
    kit.insert(task());
    let slow = kit
        .store()
        .lanes()
        .list
        .iter()
        .find(|lane| *lane.kind == *"slow")
        .unwrap()
        .id;
    let mut request = kit.request(0);
    request.budget = 5 * MS;
    for lane in &mut request.queues[0].lanes {
        lane.cost = (lane.lane != slow).then_some(MS);
    }
    assert!(kit.claim_by(request).is_empty());
}

fn one_claim_carries_a_bounded_amount_of_payloads(kit: &mut Kit) {
    for _ in 0..7 {
        kit.insert(Insert {
            payload: json(1 << 20),
            ..task()
        });
    }
    let first = kit.claim(99).len();
    assert!((4..=5).contains(&first), "{first} of 1 MiB each");
    assert_eq!(kit.claim(99).len(), 7 - first, "the rest comes next");
}

/// Tasks that have crashed a process.
fn suspects(kit: &mut Kit, count: usize) -> Vec<TaskId> {
    let scheduled = kit.insert_all((0..count).map(|_| task()).collect());
    let claims = kit.claim(count);
    assert_eq!(claims.len(), count);
    kit.crash(&claims);
    scheduled.into_iter().map(|each| each.id()).collect()
}

fn at_most_one_suspect_is_taken(kit: &mut Kit) {
    let suspects = suspects(kit, 2);
    let innocent = kit.insert(Insert {
        priority: 9,
        ..task()
    });
    let claims = kit.claim(9);
    assert_eq!(ids(&claims), [suspects[0], innocent]);
    assert_eq!((claims[0].crashes, claims[0].attempt), (1, 2));
    assert_eq!(
        ids(&kit.claim(9)),
        suspects[1..2],
        "and in the next claim another"
    );
}

fn a_paused_queue_is_left_alone(kit: &mut Kit) {
    kit.pause("default", true);
    let id = kit.insert(task());
    let other = kit.insert(Insert {
        queue: "other".into(),
        ..task()
    });
    assert_eq!(ids(&kit.claim(9)), [other]);
    kit.pause("default", false);
    assert_eq!(ids(&kit.claim(9)), [id]);
}

fn a_pause_in_the_same_transaction_counts(kit: &mut Kit) {
    let id = kit.insert(task());
    let pause = |paused| Op::PauseQueue {
        queue: "default".to_owned(),
        paused,
    };
    let claim = || Op::Claim(kit.request(9));
    let mut replies = kit.store().apply(NOW, vec![pause(true), claim()]).unwrap();
    assert!(claimed(replies.remove(1)).is_empty());
    let mut replies = kit.store().apply(NOW, vec![pause(false), claim()]).unwrap();
    assert_eq!(ids(&claimed(replies.remove(1))), [id]);
}

fn start_by(at: Timestamp) -> Insert {
    Insert {
        expires_at: Some(at),
        ..task()
    }
}

fn an_expired_task_ends_and_is_not_taken(kit: &mut Kit) {
    let late = kit.insert(start_by(NOW + S));
    let good = kit.insert(task());
    kit.now = NOW + S + MICRO;
    assert_eq!(ids(&kit.claim(1)), [good], "and costs no place");
    assert_eq!(kit.state(late), TaskState::Failed);
    assert_eq!(kit.task(late).error(), Some("expired"));
    assert_eq!(kit.task(late).attempt(), 0);
    assert_eq!(kit.ends(late), [AttemptEnd::Expired]);
    assert_eq!(kit.history(late)[0].started_at(), None);
}

fn one_claim_ends_a_bounded_number_of_expired_tasks(kit: &mut Kit) {
    kit.insert_all((0..CHUNK + 1).map(|_| start_by(NOW + S)).collect());
    let good = kit.insert(task());
    kit.now = NOW + S + MICRO;
    let runner = Wake::new();
    kit.store().signals().set_runner(runner.clone());
    assert!(kit.claim(1).is_empty(), "others may write in between");
    assert!(runner.wait(Duration::ZERO), "and it is asked again at once");
    assert_eq!(ids(&kit.claim(1)), [good]);
}

fn a_task_is_taken_up_to_its_start_deadline(kit: &mut Kit) {
    let id = kit.insert(start_by(NOW + S));
    kit.now = NOW + S;
    let claim = kit.claim_one();
    // Once started it is not bound by it any more.
    kit.settle(&claim, error());
    kit.later(100 * S);
    assert_eq!(ids(&kit.claim(9)), [id]);
}

fn after_a_claim_the_next_due_time_is_known(kit: &mut Kit) {
    kit.insert_all(vec![
        task(),
        due(NOW + 3 * S),
        due(NOW + 2 * S),
        Insert {
            priority: 0,
            ..due(NOW + 5 * S)
        },
    ]);
    kit.claim_one();
    // A claim may stop reading before it knows, but must not believe in a later time than the true one.
    assert!(kit.next_at("default", "probe") <= Some(NOW + 2 * S));
    assert!(kit.claim(9).is_empty());
    assert_eq!(kit.next_at("default", "probe"), Some(NOW + 2 * S));
    kit.now = NOW + 3 * S;
    assert_eq!(kit.claim(9).len(), 2);
    assert_eq!(kit.next_at("default", "probe"), Some(NOW + 5 * S));
    kit.now = NOW + 5 * S;
    assert_eq!(kit.claim(9).len(), 1);
    assert_eq!(kit.next_at("default", "probe"), None);
}

fn a_stale_head_is_corrected_by_the_claim_that_finds_nothing(kit: &mut Kit) {
    let first = kit.insert(task());
    kit.insert(due(NOW + 3 * S));
    kit.change(first, Action::Cancel);
    assert!(kit.claim(9).is_empty());
    assert_eq!(kit.next_at("default", "probe"), Some(NOW + 3 * S));
}

fn a_claim_tells_the_attempt_what_it_needs(kit: &mut Kit) {
    let id = kit.insert(Insert {
        kind: "mail.send".into(),
        queue: "mail".into(),
        priority: 3,
        max_attempts: 7,
        ..task()
    });
    let first = kit.claim_one();
    assert_eq!((&*first.kind, &*first.queue), ("mail.send", "mail"));
    assert_eq!((first.priority, first.scheduled_at), (3, NOW));
    assert_eq!((first.attempt, first.max_attempts), (1, 7));
    assert_eq!((first.crashes, &first.last_error), (0, &None));
    assert_eq!(first.payload, StoredPayload::Whole(b"null".to_vec()));
    assert_eq!(kit.settle(&first, error()), Settled::Applied);
    kit.later(10 * S);
    let second = kit.claim_one();
    assert_eq!((second.id, second.attempt), (id, 2));
    assert_eq!(second.scheduled_at, NOW + 10 * S);
    assert_eq!(second.last_error.as_deref(), Some("no"));
    assert!(second.fence.claim_no > first.fence.claim_no);
    assert_eq!(kit.task(id).started_at(), Some((NOW + 10 * S).to_utc()));
}

fn what_another_process_scheduled_is_taken(kit: &mut Kit) {
    let other = kit.another(false);
    let task = task();
    let id = task.id;
    let wake = Wake::new();
    kit.store().signals().set_runner(wake.clone());
    kit.store().refresh().unwrap();
    wake.wait(Duration::ZERO);
    other.apply(NOW, vec![Op::Insert(vec![task])]).unwrap();
    kit.store().refresh().unwrap();
    assert!(wake.wait(Duration::ZERO), "the runner is told");
    kit.store().refresh().unwrap();
    assert!(!wake.wait(Duration::ZERO), "once");
    assert_eq!(kit.next_at("default", "probe"), Some(NOW));
    assert_eq!(ids(&kit.claim(9)), [id]);
}

/// It was told of the write before it was known what is due, and not again: a task of another process started up to a second
/// late, while this one had something to write.
fn p3_what_another_process_scheduled_is_told_when_it_is_known(kit: &mut Kit) {
    let other = kit.another(false);
    let wake = Wake::new();
    kit.store().signals().set_runner(wake.clone());
    kit.insert(due(NOW + S));
    type Learn = fn(&mut Kit);
    let ways: [Learn; 2] = [
        |kit| assert!(kit.store().refresh().unwrap()),
        |kit| assert!(kit.claim(9).is_empty()),
    ];
    for (learn, earlier) in ways.into_iter().zip(1..) {
        let at = NOW + S - earlier * MICRO;
        other.apply(NOW, vec![Op::Insert(vec![due(at)])]).unwrap();
        kit.insert(due(NOW + S));
        assert_ne!(kit.next_at("default", "probe"), Some(at), "not read yet");
        wake.wait(Duration::ZERO);
        learn(kit);
        assert_eq!(kit.next_at("default", "probe"), Some(at));
        assert!(wake.wait(Duration::ZERO), "the runner is told");
    }
}

fn a_queue_that_another_process_paused_is_left_alone(kit: &mut Kit) {
    kit.insert(task());
    let request = kit.request(9);
    let pause = Op::PauseQueue {
        queue: "default".to_owned(),
        paused: true,
    };
    kit.another(false).apply(NOW, vec![pause]).unwrap();
    assert!(kit.claim_by(request).is_empty());
}

fn limit(kit: &Kit, limit: Option<u32>) {
    kit.apply(Op::LimitQueue {
        queue: "default".to_owned(),
        limit,
    });
}

fn a_queue_s_limit_holds_in_every_claim(kit: &mut Kit) {
    limit(kit, Some(2));
    kit.insert_all((0..9).map(|_| task()).collect());
    kit.insert(Insert {
        kind: "other".into(),
        delivery: Delivery::AtMostOnce,
        priority: 0,
        ..task()
    });
    assert_eq!(kit.claim(1).len(), 1);
    let first = kit.claim(5);
    assert_eq!(first.len(), 1, "in all its lanes together");
    assert!(kit.claim(5).is_empty());
    kit.settle(&first[0], done());
    assert_eq!(kit.claim(5).len(), 1);
    let elsewhere = kit.insert(Insert {
        queue: "elsewhere".into(),
        ..task()
    });
    assert_eq!(ids(&kit.claim(5)), [elsewhere], "other queues have none");
    limit(kit, Some(3));
    assert_eq!(kit.claim(5).len(), 1);
    limit(kit, None);
    assert_eq!(kit.claim(20).len(), 6);
}

fn a_queue_s_limit_counts_what_every_instance_holds(kit: &mut Kit) {
    let other = kit.another(true);
    limit(kit, Some(3));
    kit.insert_all((0..9).map(|_| task()).collect());
    other.refresh().unwrap();
    let here = kit.claim(2);
    assert_eq!(here.len(), 2);
    let (now, request) = (kit.now, kit.request(5));
    let claim = || {
        let claim = Op::Claim(request.clone());
        claimed(other.apply(now, vec![claim]).unwrap().remove(0))
    };
    assert_eq!(claim().len(), 1);
    assert!(kit.claim(5).is_empty() && claim().is_empty());
    // It dies: until its tasks are taken back nothing shows that they do not run.
    kit.kill();
    assert!(claim().is_empty());
    while other.recover(now).unwrap().more {}
    assert_eq!(claim().len(), 2);
}

/// A limit and a class change what may be claimed, never what comes first.
fn p9_what_is_delivered_at_most_once_is_claimed_in_its_order(kit: &mut Kit) {
    let once = |at| Insert {
        delivery: Delivery::AtMostOnce,
        ..due(at)
    };
    let ids: Vec<TaskId> = kit
        .insert_all(vec![
            once(NOW - 2 * MICRO),
            due(NOW - MICRO),
            once(NOW),
            due(NOW),
        ])
        .iter()
        .map(|scheduled| scheduled.id())
        .collect();
    limit(kit, Some(1));
    for id in ids {
        let claims = kit.claim(9);
        assert_eq!(claims.len(), 1, "one at a time");
        assert_eq!(claims[0].id, id);
        kit.settle(&claims[0], done());
    }
}

fn what_other_processes_made_due_is_seen_in_new_lanes_and_old_ones(kit: &mut Kit) {
    let known = kit.insert(due(NOW + S));
    let other = kit.another(false);
    let insert = |task: Insert| {
        let inserted = other.apply(kit.now, vec![Op::Insert(vec![task])]);
        inserted.unwrap().remove(0).inserted().remove(0).id()
    };
    let earlier = insert(due(NOW));
    let new = insert(Insert {
        kind: "new".into(),
        priority: 9,
        ..task()
    });
    assert_eq!(kit.next_at("default", "probe"), Some(NOW + S), "not yet");
    kit.store().refresh().unwrap();
    assert_eq!(kit.next_at("default", "probe"), Some(NOW));
    assert_eq!(kit.next_at("default", "new"), Some(NOW));
    assert_eq!(ids(&kit.claim(5)), [earlier, new]);
    assert_eq!(kit.next_at("default", "probe"), Some(NOW + S), "{known}");
}
