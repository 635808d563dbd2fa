//! Retiring lanes that nothing is in, and forgetting them.

use std::sync::Arc;

use super::prune::{everything, prune};
use super::{
    Kit, NOW, S, claimed, done, due, error, on_every_backend, on_shared, returned, settled, task,
};
use crate::model::edit::Patch;
use crate::model::filter::Filter;
use crate::model::lane::LaneId;
use crate::model::new_task::Insert;
use crate::model::op::{Action, Changed, Op, Settled};
use crate::model::outcome::Failure;
use crate::model::query::{Query, Stats};
use crate::model::settle::End;
use crate::model::task::TaskState;
use crate::store::Store;

on_every_backend!(
    a_lane_is_retired_once_nothing_is_pending_or_running_in_it,
    a_paused_or_limited_queue_is_not_retired,
    a_task_in_a_queue_whose_lane_was_retired_is_stored_and_runs,
    a_task_that_is_stored_with_the_retirement_of_its_lane_runs,
    a_retried_task_of_a_retired_lane_runs_again,
    an_ended_task_of_a_retired_lane_is_found_by_its_queue,
    a_retired_lane_is_forgotten_with_its_last_ended_task,
    a_lane_in_use_is_not_forgotten,
    a_claim_planned_before_a_retirement_leaves_the_lane_out,
    a_claim_that_stands_is_not_made_once_as_many_lanes_are_others,
);
on_shared!(
    a_task_stored_by_another_process_in_a_retired_lane_runs,
    a_task_stored_by_another_process_in_a_forgotten_lane_runs,
    a_task_retried_by_another_process_in_a_retired_lane_runs,
    a_task_rescued_after_a_retirement_by_its_rescuer_runs,
    what_was_retired_is_not_known_after_a_restart,
    the_number_of_a_lane_is_never_used_again,
    p14_thousands_of_lanes_are_forgotten_by_every_process,
);

pub(in crate::store) fn of(queue: &'static str) -> Insert {
    Insert {
        queue: queue.into(),
        ..task()
    }
}

fn lanes_of(store: &dyn Store, queue: &str) -> Vec<LaneId> {
    let lanes = store.lanes().list;
    lanes
        .iter()
        .filter(|lane| *lane.queue == *queue)
        .map(|lane| lane.id)
        .collect()
}

pub(in crate::store) fn lane_of(kit: &Kit, queue: &str) -> LaneId {
    let lanes = lanes_of(&**kit.store(), queue);
    assert_eq!(lanes.len(), 1, "{queue}");
    lanes[0]
}

fn idle(kit: &Kit) -> Vec<LaneId> {
    let query = Query::IdleLanes { after: LaneId(0) };
    let seen = kit.store().read(query).unwrap().idle_lanes();
    assert!(seen.next.is_none());
    seen.lanes
}

/// Retires these lanes if they are idle, and returns how many were.
pub(in crate::store) fn retire(kit: &Kit, lanes: &[LaneId]) -> usize {
    let lanes = lanes.to_vec();
    kit.apply(Op::RetireLanes { lanes }).done()
}

fn retired(kit: &Kit) -> Vec<LaneId> {
    let answer = kit.store().read(Query::RetiredLanes).unwrap();
    answer.retired_lanes()
}

pub(in crate::store) fn forget(kit: &Kit, lanes: &[LaneId]) -> usize {
    let lanes = lanes.to_vec();
    kit.apply(Op::ForgetLanes { lanes }).done()
}

/// The lanes of ended tasks.
fn ended(kit: &Kit, state: TaskState) -> Vec<LaneId> {
    let query = Query::EndedLanes { state, after: None };
    let seen = kit.store().read(query).unwrap().ended_lanes();
    assert!(seen.next.is_none());
    seen.lanes
}

pub(in crate::store) fn complete_all(kit: &Kit) -> usize {
    let claims = kit.claim(99);
    for claim in &claims {
        assert_eq!(kit.settle(claim, done()), Settled::Applied);
    }
    claims.len()
}

/// A lane of the queue that has one completed task and is retired.
pub(in crate::store) fn retired_lane(kit: &Kit, queue: &'static str) -> LaneId {
    kit.insert(of(queue));
    let lane = lane_of(kit, queue);
    assert_eq!(complete_all(kit), 1);
    assert_eq!(retire(kit, &[lane]), 1);
    lane
}

pub(in crate::store) fn prune_everything(kit: &Kit) {
    prune(kit, everything(), 99);
}

fn a_lane_is_retired_once_nothing_is_pending_or_running_in_it(kit: &mut Kit) {
    let id = kit.insert(due(NOW + 10 * S));
    let lane = lane_of(kit, "default");
    assert!(idle(kit).is_empty());
    assert_eq!(retire(kit, &[lane]), 0, "a task is pending");
    kit.later(10 * S);
    let claim = kit.claim_one();
    assert!(idle(kit).is_empty());
    assert_eq!(retire(kit, &[lane]), 0, "a task runs");
    assert_eq!(kit.settle(&claim, error()), Settled::Applied);
    assert_eq!(retire(kit, &[lane]), 0, "it is tried again");
    assert_eq!(kit.change(id, Action::Cancel), Changed::Applied);
    assert_eq!(idle(kit), [lane]);
    assert_eq!(retire(kit, &[lane]), 1);
    assert!(idle(kit).is_empty() && lanes_of(&**kit.store(), "default").is_empty());
    assert_eq!(retired(kit), [lane]);
    assert_eq!(retire(kit, &[lane]), 0, "once");
}

fn a_paused_or_limited_queue_is_not_retired(kit: &mut Kit) {
    for queue in ["paused", "limited"] {
        kit.insert(of(queue));
    }
    complete_all(kit);
    let lanes = [lane_of(kit, "paused"), lane_of(kit, "limited")];
    kit.pause("paused", true);
    let limit = |limit| {
        kit.apply(Op::LimitQueue {
            queue: "limited".to_owned(),
            limit,
        })
    };
    limit(Some(3));
    assert!(idle(kit).is_empty());
    assert_eq!(retire(kit, &lanes), 0);
    kit.pause("paused", false);
    limit(None);
    assert_eq!(idle(kit), lanes);
    assert_eq!(retire(kit, &lanes), 2);
}

fn a_task_in_a_queue_whose_lane_was_retired_is_stored_and_runs(kit: &mut Kit) {
    let old = retired_lane(kit, "mail");
    assert!(kit.claim(9).is_empty());
    let id = kit.insert(of("mail"));
    assert!(lane_of(kit, "mail") > old);
    assert_eq!(kit.claim_one().id, id);
}

/// Many calls share a transaction.
fn a_task_that_is_stored_with_the_retirement_of_its_lane_runs(kit: &mut Kit) {
    kit.insert(of("mail"));
    complete_all(kit);
    let old = lane_of(kit, "mail");
    let lanes = vec![old];
    let ops = vec![Op::RetireLanes { lanes }, Op::Insert(vec![of("mail")])];
    kit.store().apply(kit.now, ops).unwrap();
    let lane = lane_of(kit, "mail");
    assert!(lane > old);
    assert_eq!(complete_all(kit), 1);
    // And if the task comes first the lane is in use.
    let lanes = vec![lane];
    let ops = vec![Op::Insert(vec![of("mail")]), Op::RetireLanes { lanes }];
    kit.store().apply(kit.now, ops).unwrap();
    assert_eq!(lane_of(kit, "mail"), lane);
    assert_eq!(complete_all(kit), 1);
}

fn a_retried_task_of_a_retired_lane_runs_again(kit: &mut Kit) {
    for state in [
        TaskState::Completed,
        TaskState::Failed,
        TaskState::Cancelled,
    ] {
        let id = kit.in_state(state);
        let old = lane_of(kit, "default");
        assert_eq!(retire(kit, &[old]), 1);
        assert_eq!(
            kit.change(id, Action::Retry(Patch::default())),
            Changed::Applied
        );
        assert!(lane_of(kit, "default") > old);
        let claim = kit.claim_one();
        assert_eq!(claim.id, id, "{state}");
        assert_eq!(kit.settle(&claim, done()), Settled::Applied);
    }
}

fn stats(kit: &Kit) -> Stats {
    let query = Query::Stats { now: kit.now };
    kit.store().read(query).unwrap().stats()
}

fn an_ended_task_of_a_retired_lane_is_found_by_its_queue(kit: &mut Kit) {
    let old = kit.insert(of("mail"));
    let lane = lane_of(kit, "mail");
    complete_all(kit);
    let failed = kit.insert(of("mail"));
    let fatal = returned(Err(Failure::fatal("no")));
    kit.settle(&kit.claim_one(), fatal);
    assert_eq!(retire(kit, &[lane]), 1);
    let new = kit.insert(of("mail"));
    complete_all(kit);
    kit.insert(of("other"));
    let found = kit.list(&Filter::new().queue("mail"));
    let mut ids: Vec<_> = found.tasks().iter().map(|task| task.id()).collect();
    ids.sort_unstable();
    let mut expected = vec![old, failed, new];
    expected.sort_unstable();
    assert_eq!(ids, expected);
    let task = kit.task(old);
    assert_eq!((task.queue(), task.kind()), ("mail", "probe"));
    assert_eq!(kit.ends(failed).len(), 1);
    let stats = stats(kit);
    let mail: Vec<_> = stats
        .lanes()
        .iter()
        .filter(|lane| lane.queue() == "mail")
        .collect();
    assert_eq!(mail.len(), 1, "one line for both lanes");
    assert_eq!(mail[0].count(TaskState::Completed), 2);
    assert_eq!(mail[0].count(TaskState::Failed), 1);
    assert_eq!(stats.total(), 4);
    let filter = Filter::new().queue("mail");
    let deleted = kit.change_matching(&filter, &Action::Delete, None);
    assert_eq!((deleted.matched, deleted.changed), (3, 3));
}

fn a_retired_lane_is_forgotten_with_its_last_ended_task(kit: &mut Kit) {
    let lanes = ["one", "two"].map(|queue| retired_lane(kit, queue));
    assert_eq!(retired(kit), lanes);
    assert_eq!(ended(kit, TaskState::Completed), lanes);
    assert!(ended(kit, TaskState::Failed).is_empty());
    prune_everything(kit);
    assert!(ended(kit, TaskState::Completed).is_empty());
    assert_eq!(forget(kit, &lanes), 2);
    assert!(retired(kit).is_empty());
    let id = kit.insert(of("one"));
    assert_eq!(kit.claim_one().id, id);
}

fn a_lane_in_use_is_not_forgotten(kit: &mut Kit) {
    let id = kit.insert(of("mail"));
    assert_eq!(forget(kit, &[lane_of(kit, "mail")]), 0);
    assert_eq!(kit.claim_one().id, id);
}

fn a_claim_planned_before_a_retirement_leaves_the_lane_out(kit: &mut Kit) {
    kit.insert(of("old"));
    let id = kit.insert(of("new"));
    let request = kit.request(9);
    complete_all(kit);
    assert_eq!(
        kit.change(id, Action::Retry(Patch::default())),
        Changed::Applied
    );
    assert_eq!(retire(kit, &[lane_of(kit, "old")]), 1);
    let claims = kit.claim_by(request);
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].id, id);
}

/// The tasks of the new lane may be better than what the claim was planned for.
fn a_claim_that_stands_is_not_made_once_as_many_lanes_are_others(kit: &mut Kit) {
    kit.insert(of("old"));
    kit.insert(of("kept"));
    complete_all(kit);
    kit.store()
        .signals()
        .standing_claim()
        .leave(kit.request(1), 0);
    let count = kit.store().lanes().list.len();
    assert_eq!(retire(kit, &[lane_of(kit, "old")]), 1);
    let later = |at| Insert {
        scheduled_at: at,
        ..of("new")
    };
    // Nothing is due, so nothing is claimed yet.
    kit.insert_all(vec![later(NOW + S), later(NOW + 2 * S)]);
    assert_eq!(kit.store().lanes().list.len(), count);
    kit.insert(of("kept"));
    assert!(!kit.store().signals().standing_claim().has_granted());
    assert_eq!(kit.claim(9).len(), 1);
}

fn a_task_stored_by_another_process_in_a_retired_lane_runs(kit: &mut Kit) {
    let other = kit.another(false);
    kit.insert(of("mail"));
    complete_all(kit);
    other.refresh().unwrap();
    let lane = lane_of(kit, "mail");
    assert_eq!(lanes_of(&*other, "mail"), [lane], "it is known there");
    assert_eq!(retire(kit, &[lane]), 1);
    let task = of("mail");
    let id = task.id;
    other.apply(kit.now, vec![Op::Insert(vec![task])]).unwrap();
    assert_ne!(lanes_of(&*other, "mail"), [lane]);
    kit.store().refresh().unwrap();
    assert_eq!(kit.claim_one().id, id);
}

/// By the time that the other process writes, there is no row left that names the lane as retired.
fn a_task_stored_by_another_process_in_a_forgotten_lane_runs(kit: &mut Kit) {
    let other = kit.another(false);
    kit.insert(of("kept"));
    kit.insert(of("mail"));
    complete_all(kit);
    other.refresh().unwrap();
    let lane = lane_of(kit, "mail");
    assert_eq!(retire(kit, &[lane]), 1);
    prune_everything(kit);
    assert_eq!(forget(kit, &[lane]), 1);
    let tasks = [of("mail"), of("kept")];
    let mut ids = tasks.each_ref().map(|task| task.id);
    let op = Op::Insert(tasks.into());
    other.apply(kit.now, vec![op]).unwrap();
    kit.store().refresh().unwrap();
    assert_eq!(lanes_of(&*other, "mail"), lanes_of(&**kit.store(), "mail"));
    assert_eq!(lanes_of(&*other, "kept"), lanes_of(&**kit.store(), "kept"));
    let mut claimed: Vec<_> = kit.claim(9).iter().map(|claim| claim.id).collect();
    claimed.sort_unstable();
    ids.sort_unstable();
    assert_eq!(claimed, ids);
}

fn a_task_retried_by_another_process_in_a_retired_lane_runs(kit: &mut Kit) {
    let other = kit.another(false);
    let id = kit.insert(of("mail"));
    complete_all(kit);
    other.refresh().unwrap();
    assert_eq!(retire(kit, &[lane_of(kit, "mail")]), 1);
    let action = Action::Retry(Patch::default());
    let retry = Op::Change { id, action };
    other.apply(kit.now, vec![retry]).unwrap();
    kit.store().refresh().unwrap();
    assert_eq!(kit.claim_one().id, id);
}

/// A lane of suspects is like any other: the next suspect has to find one in use.
fn a_task_rescued_after_a_retirement_by_its_rescuer_runs(kit: &mut Kit) {
    let crash = |kit: &Kit, other: Arc<dyn Store>| {
        let claim = Op::Claim(kit.request(1));
        let claims = claimed(other.apply(kit.now, vec![claim]).unwrap().remove(0));
        other.begin(claims[0].fence).unwrap();
        drop(other);
        assert_eq!(kit.recover().crashed, 1);
    };
    let (one, two) = (kit.another(true), kit.another(true));
    kit.insert(of("mail"));
    crash(kit, one);
    let plain = lane_of_first(kit);
    let lanes = lanes_of(&**kit.store(), "mail");
    assert_eq!(lanes.len(), 2, "and one of suspects");
    complete_all(kit);
    assert_eq!(retire(kit, &lanes), 2);
    let id = kit.insert(of("mail"));
    assert_ne!(lane_of_first(kit), plain);
    crash(kit, two);
    let claim = kit.claim_one();
    assert_eq!((claim.id, claim.crashes), (id, 1));
    let ended = kit.ended(&claim, End::Unstarted);
    let replies = kit.apply(Op::Settle(vec![ended.into()]));
    assert_eq!(settled(replies), [Settled::Applied]);
    assert_eq!(retire(kit, &lanes_of(&**kit.store(), "mail")), 1);
    assert_eq!(kit.claim_one().id, id, "what is given back is in use");
}

fn lane_of_first(kit: &Kit) -> LaneId {
    lanes_of(&**kit.store(), "mail")[0]
}

fn what_was_retired_is_not_known_after_a_restart(kit: &mut Kit) {
    retired_lane(kit, "old");
    kit.insert(of("new"));
    kit.kill();
    let lanes = kit.store().lanes().list;
    assert_eq!(lanes.len(), 1);
    assert_eq!(*lanes[0].queue, *"new");
    kit.insert(of("old"));
    assert_eq!(kit.claim(9).len(), 2);
}

/// An old claim, or a process that sleeps, may still name it.
fn the_number_of_a_lane_is_never_used_again(kit: &mut Kit) {
    let mut last = LaneId(0);
    for _ in 0..3 {
        let lane = retired_lane(kit, "mail");
        assert!(lane > last);
        last = lane;
        prune_everything(kit);
        assert_eq!(forget(kit, &[lane]), 1);
        kit.kill();
    }
}

/// A process that does not write itself learns of the lanes, of their retirement and of their deletion from the file alone.
fn p14_thousands_of_lanes_are_forgotten_by_every_process(kit: &mut Kit) {
    const QUEUES: usize = 2_000;
    let queue = |number| Insert {
        queue: format!("queue {number}").into(),
        ..task()
    };
    let [retired, forgotten] = [kit.another(true), kit.another(true)];
    let known = |store: &dyn Store| {
        store.refresh().unwrap();
        store.lanes().list.len()
    };
    kit.insert(of("kept"));
    kit.insert_all((0..QUEUES).map(queue).collect());
    assert_eq!(known(&*retired), QUEUES + 1);
    assert_eq!(known(&*forgotten), QUEUES + 1);
    let claims = kit.claim(QUEUES + 1);
    assert_eq!(claims.len(), QUEUES + 1);
    let ended = claims.iter().map(|claim| kit.ended(claim, done()).into());
    kit.apply(Op::Settle(ended.collect()));
    let kept = lane_of(kit, "kept");
    let lanes = kit.store().lanes().list;
    let mut lanes: Vec<LaneId> = lanes.iter().map(|lane| lane.id).collect();
    lanes.retain(|lane| *lane != kept);
    assert_eq!(retire(kit, &lanes), QUEUES);
    assert_eq!(known(&*retired), 1, "they are retired");
    assert_eq!(prune(kit, everything(), QUEUES + 9), QUEUES + 1);
    assert_eq!(forget(kit, &lanes), QUEUES);
    assert_eq!(known(&*forgotten), 1, "there is no row of them left");
    assert_eq!(known(&*retired), 1);
    assert_eq!(known(&**kit.store()), 1);
    assert_eq!(
        known(&*kit.another(true)),
        1,
        "of one that opens the file now"
    );
    // What comes to such a queue again runs, whoever stores it and whoever runs it.
    let stores = [&forgotten, &retired, &retired, &forgotten];
    let again = [3, 3, QUEUES - 1, QUEUES].map(queue);
    let mut ids = again.each_ref().map(|task| task.id);
    for (task, store) in again.into_iter().zip(stores) {
        store.apply(NOW, vec![Op::Insert(vec![task])]).unwrap();
    }
    assert_eq!(known(&**kit.store()), 4);
    let mut claimed: Vec<_> = kit.claim(9).iter().map(|claim| claim.id).collect();
    ids.sort_unstable();
    claimed.sort_unstable();
    assert_eq!(claimed, ids);
}
