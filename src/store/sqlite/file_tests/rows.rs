//! What the tables hold: nothing that belongs to no task, and no row of a task that does not say what it is.

use super::on_a_file;
use crate::id::TaskId;
use crate::model::edit::Patch;
use crate::model::limits::MAX_HISTORY;
use crate::model::new_task::Insert;
use crate::model::op::{Action, Op};
use crate::model::outcome::Outcome;
use crate::model::settle::End;
use crate::model::task::TaskState;
use crate::store::sqlite::kit::File;
use crate::store::suite::forget::{forget, of, prune_everything, retired_lane};
use crate::store::suite::prune::{FINAL, everything, prune, start_by};
use crate::store::suite::settle::ends;
use crate::store::suite::{Kit, S, done, error, json, returned, task};
use crate::time::Timestamp;

const TABLES: [&str; 8] = [
    "task", "payload", "result", "progress", "tag", "attempt", "expiry", "trouble",
];

on_a_file!(
    p14_a_pruned_task_leaves_nothing_behind,
    a_deleted_task_leaves_nothing_behind,
    an_edited_or_retried_task_leaves_no_row_that_nobody_owns,
    p14_the_lines_of_a_history_are_bounded,
    a_settled_task_leaves_no_row_that_is_running,
    a_queue_that_nothing_is_set_of_any_more_leaves_no_row,
);

/// A task with a row in every table that a task can have rows in, ended in this state.
fn with_everything(kit: &Kit, state: TaskState) -> TaskId {
    let id = kit.insert(Insert {
        payload: json(5000),
        tags: vec!["a".into(), "b".into()],
        max_attempts: 2,
        ..start_by(90)
    });
    kit.settle(
        &kit.claim_one(),
        End::Undecodable("an older process".into()),
    );
    kit.change(id, Action::RunNow);
    let first = kit.claim_one();
    kit.apply(Op::Progress {
        fence: first.fence,
        value: b"1".to_vec(),
    });
    kit.settle(&first, error());
    kit.change(id, Action::RunNow);
    let last = kit.claim_one();
    let end = match state {
        TaskState::Completed => returned(Ok(Outcome::with("result").unwrap())),
        TaskState::Cancelled => returned(Ok(Outcome::cancel("unwanted"))),
        _ => error(),
    };
    kit.settle(&last, end);
    assert_eq!(kit.state(id), state);
    id
}

fn p14_a_pruned_task_leaves_nothing_behind(kit: &mut Kit) {
    for state in FINAL {
        with_everything(kit, state);
    }
    // A start deadline that is still to come.
    let early = kit.insert(start_by(90));
    kit.settle(&kit.claim_one(), done());
    for table in TABLES {
        assert!(kit.rows(table) > 0, "{table}");
    }
    assert_eq!(prune(kit, everything(), 99), 4);
    assert!(kit.find(early).is_none());
    for table in TABLES {
        assert_eq!(kit.rows(table), 0, "{table}");
    }
}

fn a_deleted_task_leaves_nothing_behind(kit: &mut Kit) {
    for state in FINAL {
        let id = with_everything(kit, state);
        kit.change(id, Action::Delete);
        for table in TABLES {
            assert_eq!(kit.rows(table), 0, "{table} of a {state} task");
        }
    }
}

fn an_edited_or_retried_task_leaves_no_row_that_nobody_owns(kit: &mut Kit) {
    let id = with_everything(kit, TaskState::Completed);
    kit.change(id, Action::Retry(Patch::default()));
    for table in ["result", "progress", "trouble"] {
        assert_eq!(kit.rows(table), 0, "{table}");
    }
    let patch = Patch {
        payload: Some(("probe".to_owned(), json(10))),
        ..Default::default()
    };
    kit.change(id, Action::Edit(patch));
    assert_eq!(kit.rows("payload"), 0);
    kit.settle(&kit.claim_one(), done());
    kit.change(id, Action::Delete);
    for table in TABLES {
        assert_eq!(kit.rows(table), 0, "{table}");
    }
}

fn p14_the_lines_of_a_history_are_bounded(kit: &mut Kit) {
    kit.insert(task());
    for _ in 0..MAX_HISTORY + 10 {
        let claim = kit.claim_one();
        kit.settle(&claim, returned(Ok(Outcome::snooze(S))));
        kit.later(S);
    }
    assert_eq!(kit.rows("attempt"), MAX_HISTORY as i64);
}

fn a_settled_task_leaves_no_row_that_is_running(kit: &mut Kit) {
    for end in ends() {
        kit.insert(task());
        let claim = kit.claim_one();
        kit.settle(&claim, end);
        kit.change(claim.id, Action::Reschedule(Timestamp::MAX));
    }
    let held: i64 = kit.sql(|conn| {
        conn.query_row(
            "SELECT count(*) FROM punctual_task WHERE state = 10 OR (state = 0 AND instance IS NOT NULL)
             OR (state >= 20) <> (finished_at IS NOT NULL)",
            [],
            |row| row.get(0),
        )
        .unwrap()
    });
    assert_eq!(held, 0);
}

fn a_queue_that_nothing_is_set_of_any_more_leaves_no_row(kit: &mut Kit) {
    let rows = |kit: &Kit| -> Vec<String> {
        kit.sql(|conn| {
            let mut names = conn.prepare("SELECT name FROM punctual_queue").unwrap();
            let names = names.query_map([], |row| row.get(0)).unwrap();
            names.map(Result::unwrap).collect()
        })
    };
    let limit = |kit: &Kit, limit| {
        let queue = "mail".to_owned();
        kit.apply(Op::LimitQueue { queue, limit });
    };
    kit.pause("mail", true);
    limit(kit, Some(1));
    kit.pause("mail", false);
    assert_eq!(rows(kit), ["mail"], "it is limited");
    limit(kit, None);
    assert!(rows(kit).is_empty());
    let lane = retired_lane(kit, "mail");
    kit.pause("mail", true);
    prune_everything(kit);
    assert_eq!(forget(kit, &[lane]), 1);
    assert_eq!(rows(kit), ["mail"], "it is paused");
    let id = kit.insert(of("mail"));
    assert!(kit.claim(9).is_empty());
    kit.pause("mail", false);
    assert_eq!(kit.claim_one().id, id);
    assert_eq!(rows(kit), ["mail"], "it has a lane");
}
