//! Storing tasks.

use std::time::Duration;

use super::{Kit, NOW, S, due, json, on_every_backend, task};
use crate::id::TaskId;
use crate::model::new_task::Insert;
use crate::model::new_task::Scheduled;
use crate::model::retry::RetryPolicy;
use crate::model::settle::StoredPayload;
use crate::model::task::{Options, TaskState};
use crate::wake::Wake;

on_every_backend!(
    a_task_is_stored_with_all_it_was_given,
    an_id_that_is_stored_answers_existing_and_changes_nothing,
    a_kind_and_a_payload_that_read_the_same_together_are_another_task,
    the_same_id_twice_in_one_call_is_one_task,
    each_of_many_is_answered_for_itself,
    a_payload_of_any_size_comes_back_as_it_was,
    the_next_due_time_is_known_without_reading,
    a_task_that_is_due_wakes_the_runner,
);

fn a_task_is_stored_with_all_it_was_given(kit: &mut Kit) {
    let id = kit.insert(Insert {
        kind: "mail.send".into(),
        payload: b"{\"to\":7}".to_vec(),
        queue: "mail".into(),
        partition: Some("tenant-1".into()),
        priority: 2,
        scheduled_at: NOW + 7 * S,
        expires_at: Some(NOW + 9 * S),
        max_attempts: 3,
        tags: vec!["a".into(), "b".into()],
        options: Some(Box::new(Options {
            timeout: Some(S),
            retry: Some(RetryPolicy::fixed(S)),
            max_crashes: Some(1),
            metadata: [("k".to_owned(), "v".to_owned())].into(),
            slot: None,
        })),
        ..task()
    });
    let task = kit.task(id);
    assert_eq!((task.id(), task.state()), (id, TaskState::Pending));
    assert_eq!((task.kind(), task.queue()), ("mail.send", "mail"));
    assert_eq!((task.partition(), task.priority()), (Some("tenant-1"), 2));
    assert_eq!(task.payload_json(), b"{\"to\":7}");
    assert_eq!(task.created_at(), NOW.to_utc());
    assert_eq!(task.scheduled_at(), (NOW + 7 * S).to_utc());
    assert_eq!(task.start_by(), Some((NOW + 9 * S).to_utc()));
    assert_eq!((task.attempt(), task.max_attempts()), (0, 3));
    assert_eq!(task.tags(), ["a", "b"]);
    assert_eq!(task.timeout(), Some(S));
    assert_eq!(task.metadata()["k"], "v");
    assert_eq!((task.started_at(), task.finished_at()), (None, None));
    assert_eq!(task.error(), None);
    assert!(kit.history(id).is_empty());
}

fn an_id_that_is_stored_answers_existing_and_changes_nothing(kit: &mut Kit) {
    let first = task();
    let id = kit.insert(first.clone());
    let again = Insert {
        payload: json(2000),
        priority: 0,
        tags: vec!["other".into()],
        ..first
    };
    let same = Insert {
        id,
        priority: 9,
        ..task()
    };
    let other_kind = Insert {
        id,
        kind: "another".into(),
        ..task()
    };
    let scheduled = kit.insert_all(vec![again, task(), same, other_kind]);
    assert_eq!(scheduled[0], Scheduled::Different(id));
    assert!(scheduled[1].is_new(), "the others of the call are stored");
    assert_eq!(scheduled[2], Scheduled::Existing(id));
    assert_eq!(scheduled[3], Scheduled::Different(id));
    let task = kit.task(id);
    assert_eq!((task.payload_json(), task.priority()), (&b"null"[..], 5));
    assert!(task.tags().is_empty());
}

fn a_kind_and_a_payload_that_read_the_same_together_are_another_task(kit: &mut Kit) {
    let of = |kind: &str, payload: &str| Insert {
        kind: kind.to_owned().into(),
        payload: payload.into(),
        ..task()
    };
    let id = kit.insert(of("job1", "2"));
    let other = Insert {
        id,
        ..of("job", "12")
    };
    assert_eq!(kit.insert_all(vec![other]), [Scheduled::Different(id)]);
}

fn the_same_id_twice_in_one_call_is_one_task(kit: &mut Kit) {
    let one = task();
    let scheduled = kit.insert_all(vec![one.clone(), one.clone()]);
    assert_eq!(
        scheduled,
        [Scheduled::New(one.id), Scheduled::Existing(one.id)]
    );
    assert_eq!(kit.claim(9).len(), 1);
}

/// Several at once share a statement.
fn each_of_many_is_answered_for_itself(kit: &mut Kit) {
    let stored = due(NOW + 5 * S);
    kit.insert(stored.clone());
    let mut tasks: Vec<Insert> = (0..20).map(|_| due(NOW + 9 * S)).collect();
    tasks[3] = stored.clone();
    tasks[6] = tasks[5].clone();
    tasks[15] = tasks[1].clone();
    tasks[17].tags.push("a".into());
    tasks[18].kind = "other".into();
    tasks[19].scheduled_at = NOW + 7 * S;
    let answers = kit.insert_all(tasks.clone());
    for (index, (answer, task)) in answers.iter().zip(&tasks).enumerate() {
        let expected = match index {
            3 | 6 | 15 => Scheduled::Existing(task.id),
            _ => Scheduled::New(task.id),
        };
        assert_eq!(*answer, expected, "{index}");
    }
    assert_eq!(
        kit.insert_all(tasks.clone()),
        Vec::from_iter(tasks.iter().map(|task| Scheduled::Existing(task.id)))
    );
    kit.change(stored.id, crate::model::op::Action::Cancel);
    kit.later(8 * S);
    let due_first = kit.claim_one();
    assert_eq!(due_first.id, tasks[19].id);
    kit.later(S);
    let order: Vec<TaskId> = kit.claim(99).iter().map(|claim| claim.id).collect();
    let left = [3, 6, 15, 19];
    let expected: Vec<TaskId> = (0..20)
        .filter(|index| !left.contains(index))
        .map(|index| tasks[index].id)
        .collect();
    assert_eq!(order, expected, "in the order of their insertion");
}

fn a_payload_of_any_size_comes_back_as_it_was(kit: &mut Kit) {
    // Around the size up to which it is kept in the row.
    for bytes in [2, 1023, 1024, 1025, 5000, 1 << 20] {
        let payload = json(bytes);
        let id = kit.insert(Insert {
            payload: payload.clone(),
            ..task()
        });
        assert_eq!(kit.task(id).payload_json(), payload, "{bytes} bytes read");
        let claim = kit.claim_one();
        assert_eq!(claim.id, id);
        assert!(
            claim.payload == StoredPayload::Whole(payload),
            "{bytes} bytes claimed"
        );
    }
}

fn the_next_due_time_is_known_without_reading(kit: &mut Kit) {
    assert_eq!(kit.next_at("default", "probe"), None);
    kit.insert(due(NOW + 9 * S));
    assert_eq!(kit.next_at("default", "probe"), Some(NOW + 9 * S));
    kit.insert(due(NOW + 7 * S));
    kit.insert(due(NOW + 8 * S));
    assert_eq!(kit.next_at("default", "probe"), Some(NOW + 7 * S));
    assert_eq!(kit.next_at("default", "other"), None);
}

fn a_task_that_is_due_wakes_the_runner(kit: &mut Kit) {
    let wake = Wake::new();
    kit.store().signals().set_runner(wake.clone());
    kit.insert(task());
    assert!(wake.wait(Duration::ZERO));
    wake.sleep_until(Some(NOW + 5 * S));
    kit.insert(due(NOW + 6 * S));
    assert!(!wake.wait(Duration::ZERO), "it sleeps less long than that");
    wake.sleep_until(Some(NOW + 5 * S));
    kit.insert(due(NOW + 4 * S));
    assert!(wake.wait(Duration::ZERO));
}
