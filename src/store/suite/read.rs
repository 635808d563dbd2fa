//! Reading tasks.

use std::collections::BTreeSet;

use chrono::Duration as Days;

use super::{Kit, NOW, S, done, due, json, on_every_backend, on_shared, task};
use crate::id::TaskId;
use crate::model::filter::{Filter, Page};
use crate::model::new_task::Insert;
use crate::model::op::{Action, Op};
use crate::model::query::{Query, Stats};
use crate::model::task::{Task, TaskState};
use crate::store::TransactionEnd;

on_every_backend!(
    what_is_not_there_is_none,
    pages_in_either_direction_partition_the_tasks,
    a_cursor_stays_valid_when_its_task_is_gone,
    filters_find_exactly_what_they_say,
    a_page_by_ids_is_in_id_order_and_goes_on,
    a_page_carries_a_bounded_amount_of_payloads,
    stats_count_everything,
    the_oldest_due_task_is_told_by_its_wait,
);
on_shared!(
    a_sparse_filter_examines_a_bounded_number_of_rows_a_page,
    what_another_process_scheduled_is_listed_with_its_names,
    a_read_does_not_wait_for_a_writer,
);

fn what_is_not_there_is_none(kit: &mut Kit) {
    let id = TaskId::new();
    assert!(kit.find(id).is_none());
    let read = |query| kit.store().read(query).unwrap();
    assert!(read(Query::State(id)).state().is_none());
    assert!(read(Query::History(id)).history().is_none());
    let page = kit.list(&Filter::all());
    assert!(page.tasks().is_empty() && page.next().is_none());
    assert_eq!(count(kit, &Filter::all()), 0);
    assert_eq!(stats(kit).total(), 0);
}

pub(in crate::store) fn ids(page: &Page) -> Vec<TaskId> {
    page.tasks().iter().map(Task::id).collect()
}

/// All pages, and how many there were.
pub(in crate::store) fn pages(kit: &Kit, filter: &Filter) -> (Vec<TaskId>, usize) {
    let (mut all, mut count) = (Vec::new(), 0);
    let mut filter = filter.clone();
    loop {
        let page = kit.list(&filter);
        assert!(page.tasks().len() <= filter.page_size());
        all.extend(ids(&page));
        count += 1;
        match page.next() {
            Some(next) => filter = filter.after(next),
            None => return (all, count),
        }
    }
}

pub(in crate::store) fn count(kit: &Kit, filter: &Filter) -> u64 {
    let (mut total, mut after) = (0, None);
    loop {
        let query = Query::Count {
            filter: filter.clone(),
            after,
        };
        let counted = kit.store().read(query).unwrap().count();
        total += counted.count;
        match counted.next {
            Some(next) => after = Some(next),
            None => return total,
        }
    }
}

fn stats(kit: &Kit) -> Stats {
    let query = Query::Stats { now: kit.now };
    kit.store().read(query).unwrap().stats()
}

fn pages_in_either_direction_partition_the_tasks(kit: &mut Kit) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let tasks: Vec<Insert> = (0..103)
        .map(|_| Insert {
            id: TaskId::from(uuid::Uuid::from_u128(random.u128(1..))),
            ..task()
        })
        .chain([Insert {
            id: TaskId::from_bytes([0xff; 16]),
            ..task()
        }])
        .collect();
    let mut all: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
    kit.insert_all(tasks);
    all.sort_unstable();
    for size in [1, 7, 104, 1000] {
        let filter = Filter::all().limit(size);
        let (forward, _) = pages(kit, &filter);
        assert_eq!(forward, all, "pages of {size}, seed {seed}");
        let (mut backward, _) = pages(kit, &filter.newest_first());
        backward.reverse();
        assert_eq!(backward, all, "pages of {size} backward, seed {seed}");
    }
}

fn a_cursor_stays_valid_when_its_task_is_gone(kit: &mut Kit) {
    let all: Vec<TaskId> = (0..6).map(|_| kit.insert(task())).collect();
    let page = kit.list(&Filter::all().limit(3));
    kit.change(all[2], Action::Cancel);
    kit.change(all[2], Action::Delete);
    let next = page.next().unwrap();
    assert_eq!(ids(&kit.list(&Filter::all().after(next))), all[3..]);
    let back = kit.list(&Filter::all().after(next).newest_first());
    assert_eq!(ids(&back), [all[1], all[0]]);
}

fn filters_find_exactly_what_they_say(kit: &mut Kit) {
    // Every combination once; the state of each is made from its number.
    let mut all = Vec::new();
    for n in 0..40_u32 {
        let insert = Insert {
            kind: ["mail", "sms"][n as usize % 2].into(),
            queue: ["fast", "slow", "night"][n as usize % 3].into(),
            partition: (n % 4 == 0).then(|| "tenant".to_owned()),
            tags: ["a", "b", "c"]
                .into_iter()
                .enumerate()
                .filter(|(bit, _)| n >> bit & 1 == 1)
                .map(|(_, tag)| tag.to_owned())
                .collect(),
            scheduled_at: NOW + n * S,
            created_at: NOW - n * S,
            ..task()
        };
        let id = insert.id;
        kit.insert(insert);
        match n % 5 {
            1 => drop(kit.change(id, Action::Cancel)),
            2 => {
                kit.now = NOW + n * S;
                kit.change(id, Action::RunNow);
                let claims = kit.claim(99);
                for claim in claims {
                    kit.settle(&claim, done());
                }
            }
            _ => {}
        }
        all.push(id);
    }
    let tasks: Vec<Task> = all.iter().map(|id| kit.task(*id)).collect();
    let at = |n: i64| NOW.to_utc() + Days::seconds(n);
    let (from, to) = (at(5), at(20));
    type Check = Box<dyn Fn(&Task) -> bool>;
    let cases: Vec<(Filter, Check)> = vec![
        (Filter::all(), Box::new(|_| true)),
        (
            Filter::new().state(TaskState::Cancelled),
            Box::new(|task| task.state() == TaskState::Cancelled),
        ),
        (
            Filter::new()
                .state(TaskState::Pending)
                .state(TaskState::Completed),
            Box::new(|task| task.state() != TaskState::Cancelled),
        ),
        (
            Filter::new().kind("mail"),
            Box::new(|task| task.kind() == "mail"),
        ),
        (
            Filter::new().queue("fast").queue("night").kind("sms"),
            Box::new(|task| task.queue() != "slow" && task.kind() == "sms"),
        ),
        (Filter::new().kind("unheard-of"), Box::new(|_| false)),
        (
            Filter::new().partition("tenant"),
            Box::new(|task| task.partition() == Some("tenant")),
        ),
        (
            Filter::new().tag("a"),
            Box::new(|task| task.tags().contains(&"a".to_owned())),
        ),
        (
            Filter::new().tag("a").tag("c"),
            Box::new(|task| {
                task.tags().contains(&"a".to_owned()) && task.tags().contains(&"c".to_owned())
            }),
        ),
        (
            Filter::new().scheduled(from..to),
            Box::new(move |task| (from..to).contains(&task.scheduled_at())),
        ),
        (
            Filter::new().created(at(-9)..=at(-3)),
            Box::new(move |task| (at(-9)..=at(-3)).contains(&task.created_at())),
        ),
        (
            Filter::new().finished(from..),
            Box::new(move |task| task.finished_at().is_some_and(|at| at >= from)),
        ),
        (
            Filter::new()
                .state(TaskState::Completed)
                .tag("b")
                .queue("slow"),
            Box::new(|task| {
                task.state() == TaskState::Completed
                    && task.queue() == "slow"
                    && task.tags().contains(&"b".to_owned())
            }),
        ),
    ];
    let mut seen = BTreeSet::new();
    for (filter, check) in cases {
        let expected: Vec<TaskId> = tasks
            .iter()
            .filter(|task| check(task))
            .map(Task::id)
            .collect();
        seen.insert(expected.len());
        let (found, _) = pages(kit, &filter.clone().limit(6));
        assert_eq!(found, expected, "{filter:?}");
        assert_eq!(count(kit, &filter), expected.len() as u64, "{filter:?}");
    }
    assert!(seen.len() > 6, "the cases tell tasks apart: {seen:?}");
}

fn a_page_by_ids_is_in_id_order_and_goes_on(kit: &mut Kit) {
    let all: Vec<TaskId> = (0..9).map(|_| kit.insert(task())).collect();
    let mixed = [all[7], all[1], TaskId::new(), all[4], all[1]];
    let filter = Filter::new().ids(mixed);
    let (found, count) = pages(kit, &filter.clone().limit(2));
    assert_eq!(found, [all[1], all[4], all[7]]);
    assert_eq!(count, 2);
    let (backward, _) = pages(kit, &filter.clone().limit(2).newest_first());
    assert_eq!(backward, [all[7], all[4], all[1]]);
    let (some, _) = pages(kit, &filter.kind("other"));
    assert!(some.is_empty());
}

fn a_page_carries_a_bounded_amount_of_payloads(kit: &mut Kit) {
    for _ in 0..6 {
        kit.insert(Insert {
            payload: json(1 << 20),
            ..task()
        });
    }
    let page = kit.list(&Filter::all());
    assert!((4..=5).contains(&page.tasks().len()));
    assert_eq!(pages(kit, &Filter::all()).0.len(), 6);
}

fn stats_count_everything(kit: &mut Kit) {
    for state in TaskState::ALL.into_iter().rev() {
        kit.in_state(state);
    }
    for _ in 0..3 {
        kit.insert(Insert {
            queue: "other".into(),
            kind: "mail".into(),
            ..due(NOW + S)
        });
    }
    let stats = stats(kit);
    for state in TaskState::ALL {
        let expected = if state == TaskState::Pending { 4 } else { 1 };
        assert_eq!(stats.count(state), expected, "{state}");
    }
    assert_eq!(stats.total(), 8);
    let lane = stats
        .lanes()
        .iter()
        .find(|lane| lane.queue() == "other")
        .unwrap();
    assert_eq!((lane.kind(), lane.count(TaskState::Pending)), ("mail", 3));
    assert_eq!(stats.lanes().len(), 2);
}

fn the_oldest_due_task_is_told_by_its_wait(kit: &mut Kit) {
    kit.insert(due(NOW + S));
    assert_eq!(stats(kit).oldest_due(), None);
    kit.insert(Insert {
        priority: 9,
        kind: "other".into(),
        ..due(NOW)
    });
    kit.now = NOW + 5 * S;
    assert_eq!(stats(kit).oldest_due(), Some(5 * S));
}

fn a_sparse_filter_examines_a_bounded_number_of_rows_a_page(kit: &mut Kit) {
    for _ in 0..5 {
        kit.insert_all((0..5_000).map(|_| task()).collect());
    }
    let needle = kit.insert(Insert {
        tags: vec!["needle".into()],
        ..task()
    });
    let filter = Filter::new().tag("needle");
    let first = kit.list(&filter);
    assert!(first.tasks().is_empty() && first.next().is_some());
    assert_eq!(pages(kit, &filter), (vec![needle], 3));
    assert_eq!(
        pages(kit, &filter.clone().newest_first()),
        (vec![needle], 3)
    );
    assert_eq!(count(kit, &filter), 1);
    assert_eq!(count(kit, &Filter::all()), 25_001);
    let first = kit.change_matching(&filter, &Action::Cancel, None);
    assert_eq!(first.matched, 0, "a bulk call does the same");
    assert!(first.next.is_some());
}

fn what_another_process_scheduled_is_listed_with_its_names(kit: &mut Kit) {
    let insert = Insert {
        kind: "mail".into(),
        queue: "theirs".into(),
        ..task()
    };
    let id = insert.id;
    let other = kit.another(false);
    other.apply(NOW, vec![Op::Insert(vec![insert])]).unwrap();
    // Without a refresh: a reader that has no lanes of its own yet.
    let task = kit.task(id);
    assert_eq!((task.kind(), task.queue()), ("mail", "theirs"));
    assert_eq!(ids(&kit.list(&Filter::all())), [id]);
    assert_eq!(stats(kit).total(), 1);
    assert_eq!(
        pages(kit, &Filter::new().kind("mail")).0,
        [id],
        "and found by its name"
    );
}

fn a_read_does_not_wait_for_a_writer(kit: &mut Kit) {
    let id = kit.insert(task());
    let other = kit.another(false);
    let ran = other.transaction(kit.now, None, &mut |_| {
        assert_eq!(kit.state(id), TaskState::Pending);
        assert_eq!(ids(&kit.list(&Filter::all())), [id]);
        TransactionEnd::RollBack
    });
    ran.unwrap();
}
