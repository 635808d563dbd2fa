//! What callers ask of stored tasks.

use super::{Kit, NOW, S, done, due, error, json, on_every_backend, on_shared, task};
use crate::id::TaskId;
use crate::model::delivery::Delivery;
use crate::model::edit::Patch;
use crate::model::filter::Filter;
use crate::model::new_task::Insert;
use crate::model::op::{Action, CHUNK, Changed, Op, Settled};
use crate::model::settle::{End, Fence, StoredPayload};
use crate::model::task::TaskState;

on_every_backend!(
    every_action_in_every_state,
    p8_a_cancelled_task_is_never_taken,
    p8_a_cancel_of_a_running_task_is_told_to_the_runner,
    a_second_cancel_is_answered_like_the_first,
    a_deleted_task_is_gone,
    a_rescheduled_task_is_due_at_its_new_time,
    a_task_to_be_run_now_is_due_at_once,
    a_retried_task_has_all_its_attempts_before_it_and_its_history_behind_it,
    an_edited_payload_is_what_the_handler_gets,
    an_edited_payload_has_all_tries_to_be_decoded_before_it,
    an_edited_priority_and_number_of_attempts_count,
    p5_an_edit_gives_an_at_most_once_task_no_further_attempt,
    an_edit_of_another_kind_is_refused_and_changes_nothing,
    a_bulk_call_goes_in_chunks_and_reaches_everything_once,
    a_bulk_call_counts_what_matched_and_what_was_changed,
    a_bulk_call_by_ids_touches_no_others,
    a_queue_can_be_paused_before_it_has_tasks,
);
on_shared!(a_retried_task_is_no_suspect,);

const STATES: [TaskState; 5] = TaskState::ALL;

fn every_action_in_every_state(kit: &mut Kit) {
    use Changed::{Applied, Refused, Requested};
    use TaskState::{Cancelled, Completed, Failed, Pending, Running};
    let at = || Action::Reschedule(NOW + S);
    let edit = || {
        Action::Edit(Patch {
            priority: Some(1),
            ..Patch::default()
        })
    };
    let refused = [Pending, Running, Completed, Failed, Cancelled].map(Refused);
    let [pending, running, completed, failed, cancelled] = refused;
    // For pending, running, completed, failed, cancelled tasks.
    let table: [(&str, &dyn Fn() -> Action, [Changed; 5]); 6] = [
        (
            "cancel",
            &|| Action::Cancel,
            [Applied, Requested, completed, failed, cancelled],
        ),
        (
            "delete",
            &|| Action::Delete,
            [pending, running, Applied, Applied, Applied],
        ),
        (
            "reschedule",
            &at,
            [Applied, running, completed, failed, cancelled],
        ),
        (
            "run now",
            &|| Action::RunNow,
            [Applied, running, completed, failed, cancelled],
        ),
        (
            "retry",
            &|| Action::Retry(Patch::default()),
            [pending, running, Applied, Applied, Applied],
        ),
        (
            "edit",
            &edit,
            [Applied, running, completed, failed, cancelled],
        ),
    ];
    for (name, action, answers) in table {
        for (state, expected) in STATES.into_iter().zip(answers) {
            let id = kit.in_state(state);
            let before = format!("{:?}", kit.task(id));
            assert_eq!(
                kit.change(id, action()),
                expected,
                "{name} of a {state} task"
            );
            if expected == Refused(state) {
                assert_eq!(
                    format!("{:?}", kit.task(id)),
                    before,
                    "{name}: nothing changed"
                );
            }
            // Nothing is left that the next round could take.
            kit.change(id, Action::Cancel);
        }
        assert_eq!(
            kit.change(TaskId::new(), action()),
            Changed::NotFound,
            "{name}"
        );
    }
}

fn p8_a_cancelled_task_is_never_taken(kit: &mut Kit) {
    let id = kit.insert(task());
    assert_eq!(kit.change(id, Action::Cancel), Changed::Applied);
    assert!(kit.claim(9).is_empty());
    let task = kit.task(id);
    assert_eq!(task.state(), TaskState::Cancelled);
    assert_eq!(task.finished_at(), Some(NOW.to_utc()));
    assert_eq!(task.attempt(), 0);
}

fn passed_on(kit: &Kit) -> Vec<Fence> {
    let mut attempts = Vec::new();
    let signals = kit.store().signals();
    signals.pass_on_cancelled(|cancelled| attempts.extend(cancelled));
    attempts
}

fn p8_a_cancel_of_a_running_task_is_told_to_the_runner(kit: &mut Kit) {
    let id = kit.insert(task());
    let claim = kit.claim_one();
    assert_eq!(kit.change(id, Action::Cancel), Changed::Requested);
    assert_eq!(passed_on(kit), [claim.fence], "that attempt, and no other");
    let pending = kit.insert(task());
    kit.change(pending, Action::Cancel);
    assert!(passed_on(kit).is_empty(), "nobody runs it");
}

fn a_second_cancel_is_answered_like_the_first(kit: &mut Kit) {
    let running = kit.in_state(TaskState::Running);
    kit.change(running, Action::Cancel);
    assert_eq!(kit.change(running, Action::Cancel), Changed::Requested);
    let pending = kit.insert(task());
    kit.change(pending, Action::Cancel);
    assert_eq!(
        kit.change(pending, Action::Cancel),
        Changed::Refused(TaskState::Cancelled)
    );
}

fn a_deleted_task_is_gone(kit: &mut Kit) {
    let id = kit.in_state(TaskState::Completed);
    kit.change(id, Action::Delete);
    assert!(kit.find(id).is_none());
    assert_eq!(
        kit.change(id, Action::Retry(Patch::default())),
        Changed::NotFound
    );
    assert!(kit.insert_all(vec![Insert { id, ..task() }])[0].is_new());
}

fn a_rescheduled_task_is_due_at_its_new_time(kit: &mut Kit) {
    let id = kit.insert(due(NOW + 9 * S));
    kit.change(id, Action::Reschedule(NOW + 3 * S));
    assert_eq!(kit.next_at("default", "probe"), Some(NOW + 3 * S));
    kit.change(id, Action::Reschedule(NOW + 5 * S));
    kit.later(3 * S);
    assert!(kit.claim(9).is_empty());
    kit.later(2 * S);
    assert_eq!(kit.claim_one().id, id);
}

fn a_task_to_be_run_now_is_due_at_once(kit: &mut Kit) {
    let id = kit.insert(due(NOW + 9 * S));
    kit.later(S);
    kit.change(id, Action::RunNow);
    let claim = kit.claim_one();
    assert_eq!((claim.id, claim.scheduled_at), (id, NOW + S));
}

fn a_retried_task_has_all_its_attempts_before_it_and_its_history_behind_it(kit: &mut Kit) {
    let id = kit.insert(Insert {
        max_attempts: 1,
        expires_at: Some(NOW + S),
        ..task()
    });
    let claim = kit.claim_one();
    let value = b"1".to_vec();
    kit.apply(Op::Progress {
        fence: claim.fence,
        value,
    });
    kit.settle(&claim, error());
    assert_eq!(kit.state(id), TaskState::Failed);
    kit.later(100 * S);
    kit.change(id, Action::Retry(Patch::default()));
    let task = kit.task(id);
    assert_eq!((task.state(), task.attempt()), (TaskState::Pending, 0));
    assert_eq!((task.start_by(), task.finished_at()), (None, None));
    assert_eq!(task.progress::<u8>().unwrap(), None);
    assert_eq!(kit.history(id).len(), 1);
    let again = kit.claim_one();
    assert_eq!((again.id, again.attempt), (id, 1));
    assert!(again.fence.claim_no > claim.fence.claim_no);
    kit.settle(&again, done());
    assert_eq!(kit.history(id).len(), 2);
}

fn a_retried_task_is_no_suspect(kit: &mut Kit) {
    let id = kit.insert(task());
    let claim = kit.claim_one();
    kit.crash(&[claim]);
    let claim = kit.claim_one();
    assert_eq!((claim.id, claim.crashes), (id, 1));
    kit.settle(&claim, done());
    kit.change(id, Action::Retry(Patch::default()));
    kit.insert(task());
    let claims = kit.claim(9);
    assert_eq!((claims[0].id, claims[0].crashes), (id, 0));
    assert_eq!(claims.len(), 2);
}

fn edit(kind: &str, payload: Vec<u8>) -> Action {
    Action::Edit(Patch {
        payload: Some((kind.to_owned(), payload)),
        ..Patch::default()
    })
}

fn an_edited_payload_has_all_tries_to_be_decoded_before_it(kit: &mut Kit) {
    let id = kit.insert(task());
    for undecoded in 0..2 {
        let claim = kit.claim_one();
        assert_eq!(claim.undecoded, undecoded);
        kit.settle(&claim, End::Undecodable("another version".into()));
        kit.change(id, Action::RunNow);
    }
    assert_eq!(kit.change(id, edit("probe", json(10))), Changed::Applied);
    assert_eq!(kit.claim_one().undecoded, 0);
}

fn an_edited_payload_is_what_the_handler_gets(kit: &mut Kit) {
    // From the row to a place of its own, and back.
    for (before, after) in [(10, 20), (10, 5000), (5000, 6000), (5000, 10)] {
        let id = kit.insert(Insert {
            payload: json(before),
            ..task()
        });
        assert_eq!(kit.change(id, edit("probe", json(after))), Changed::Applied);
        assert_eq!(kit.task(id).payload_json(), json(after));
        let claim = kit.claim_one();
        assert_eq!(
            claim.payload,
            StoredPayload::Whole(json(after)),
            "{before} to {after}"
        );
        assert_eq!(kit.settle(&claim, done()), Settled::Applied);
    }
}

fn p5_an_edit_gives_an_at_most_once_task_no_further_attempt(kit: &mut Kit) {
    let id = kit.insert(Insert {
        delivery: Delivery::AtMostOnce,
        max_attempts: 1,
        ..task()
    });
    let patch = || Patch {
        max_attempts: Some(4),
        ..Patch::default()
    };
    kit.change(id, Action::Edit(patch()));
    assert_eq!(kit.task(id).max_attempts(), 1);
    kit.settle(&kit.claim_one(), error());
    kit.change(id, Action::Retry(patch()));
    assert_eq!(kit.task(id).max_attempts(), 1);
}

fn an_edited_priority_and_number_of_attempts_count(kit: &mut Kit) {
    let other = kit.insert(task());
    let id = kit.insert(task());
    let patch = Patch {
        priority: Some(1),
        max_attempts: Some(1),
        ..Patch::default()
    };
    kit.change(id, Action::Edit(patch));
    let claims = kit.claim(2);
    assert_eq!([claims[0].id, claims[1].id], [id, other]);
    assert_eq!((claims[0].priority, claims[0].max_attempts), (1, 1));
    kit.settle(&claims[0], error());
    assert_eq!(kit.state(id), TaskState::Failed);
}

fn an_edit_of_another_kind_is_refused_and_changes_nothing(kit: &mut Kit) {
    let id = kit.insert(task());
    let action = Action::Edit(Patch {
        payload: Some(("other".to_owned(), json(10))),
        priority: Some(0),
        max_attempts: Some(1),
    });
    assert_eq!(kit.change(id, action), Changed::WrongKind);
    let task = kit.task(id);
    assert_eq!((task.payload_json(), task.priority()), (&b"null"[..], 5));
    assert_eq!(task.max_attempts(), 20);
}

fn a_bulk_call_goes_in_chunks_and_reaches_everything_once(kit: &mut Kit) {
    let count = 2 * CHUNK + 7;
    kit.insert_all((0..count).map(|_| task()).collect());
    let (mut after, mut matched, mut calls) = (None, 0, 0);
    loop {
        let changed = kit.change_matching(&Filter::all(), &Action::Cancel, after);
        assert!(changed.matched <= CHUNK);
        assert_eq!(changed.changed, changed.matched, "no task is met twice");
        matched += changed.matched;
        calls += 1;
        after = changed.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((matched, calls), (count, 3));
    assert!(kit.claim(9).is_empty());
    let deleted = kit.change_matching(&Filter::all(), &Action::Delete, None);
    assert_eq!(deleted.changed, CHUNK);
}

fn a_bulk_call_counts_what_matched_and_what_was_changed(kit: &mut Kit) {
    for state in STATES.into_iter().rev() {
        kit.in_state(state);
    }
    let count = |action: &Action| {
        let changed = kit.change_matching(&Filter::all(), action, None);
        assert!(changed.next.is_none());
        (changed.matched, changed.changed)
    };
    assert_eq!(count(&Action::Reschedule(NOW + S)), (5, 1));
    assert_eq!(count(&Action::Delete), (5, 3));
    assert_eq!(count(&Action::Cancel), (2, 2), "one at once, one requested");
    assert_eq!(count(&edit("other", json(9))), (2, 0));
}

fn a_bulk_call_by_ids_touches_no_others(kit: &mut Kit) {
    let ids: Vec<TaskId> = (0..10).map(|_| kit.insert(task())).collect();
    let chosen = [ids[1], ids[4], TaskId::new(), ids[8]];
    let filter = Filter::new().ids(chosen);
    let changed = kit.change_matching(&filter, &Action::Cancel, None);
    assert_eq!((changed.matched, changed.changed), (3, 3));
    for id in ids {
        let cancelled = kit.state(id) == TaskState::Cancelled;
        assert_eq!(cancelled, chosen.contains(&id));
    }
    let none = Filter::new().ids::<TaskId>([]);
    assert_eq!(kit.change_matching(&none, &Action::Cancel, None).matched, 0);
}

fn a_queue_can_be_paused_before_it_has_tasks(kit: &mut Kit) {
    kit.pause("later", true);
    let id = kit.insert(Insert {
        queue: "later".into(),
        ..task()
    });
    assert!(kit.claim(9).is_empty());
    kit.pause("later", false);
    assert_eq!(kit.claim_one().id, id);
}
