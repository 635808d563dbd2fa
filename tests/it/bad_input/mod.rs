//! Bad input: each mistake is a clear typed error at the call that got it; nothing is lost, and nothing half done.

mod paths;

use std::time::Duration;

use chrono::{DateTime, Utc};
use punctual::{
    Edit, Error, ErrorKind, Filter, MAX_BATCH, MAX_NAME_BYTES, MAX_PAYLOAD_BYTES, NewTask, Outcome,
    Payload, Retention, RetryPolicy, Scheduler, TaskId,
};
use serde::{Deserialize, Serialize};

use crate::kit::{DAY, Probe, S, file, probe};

use punctual::chrono;

fn long_name() -> String {
    "x".repeat(MAX_NAME_BYTES + 1)
}

#[derive(Serialize, Deserialize)]
struct Nameless;

impl Payload for Nameless {
    const KIND: &'static str = "";
}

/// Tasks that `schedule` refuses, and how.
fn bad_tasks() -> Vec<(&'static str, NewTask, ErrorKind)> {
    use ErrorKind::{Invalid, Payload};
    let unencodable = std::collections::HashMap::from([((1, 2), 3)]);
    vec![
        ("an empty kind", NewTask::new(Nameless), Invalid),
        ("a long kind", NewTask::with_kind(long_name(), &1), Invalid),
        ("a kind with a tab", NewTask::with_kind("a\tb", &1), Invalid),
        ("an empty queue", probe(1).queue(""), Invalid),
        ("a long queue", probe(1).queue(long_name()), Invalid),
        ("a queue with a NUL", probe(1).queue("a\0b"), Invalid),
        (
            "a queue with a space at its end",
            probe(1).queue("a "),
            Invalid,
        ),
        (
            "a queue that turns the text",
            probe(1).queue("a\u{202e}b"),
            Invalid,
        ),
        ("an empty partition", probe(1).partition(""), Invalid),
        ("an empty tag", probe(1).tag(""), Invalid),
        ("a priority of 10", probe(1).priority(10), Invalid),
        ("no attempts", probe(1).max_attempts(0), Invalid),
        ("too many attempts", probe(1).max_attempts(10_001), Invalid),
        ("a nil id", probe(1).id(uuid_nil()), Invalid),
        (
            "before 1970",
            probe(1).at(DateTime::from_timestamp(-1, 0).unwrap()),
            Invalid,
        ),
        (
            "the first instant",
            probe(1).at(DateTime::<Utc>::MIN_UTC),
            Invalid,
        ),
        (
            "the last instant",
            probe(1).at(DateTime::<Utc>::MAX_UTC),
            Invalid,
        ),
        ("an absurd delay", probe(1).after(Duration::MAX), Invalid),
        (
            "an absurd start deadline",
            probe(1).start_within(Duration::MAX),
            Invalid,
        ),
        ("no time at all", probe(1).timeout(Duration::ZERO), Invalid),
        (
            "an absurd timeout",
            probe(1).timeout(Duration::MAX),
            Invalid,
        ),
        (
            "an absurd retry",
            probe(1).retry(RetryPolicy::fixed(Duration::MAX)),
            Invalid,
        ),
        (
            "code as a policy",
            probe(1).retry(RetryPolicy::custom(|_| S)),
            Invalid,
        ),
        (
            "much metadata",
            probe(1).metadata("k", "v".repeat(5_000)),
            Invalid,
        ),
        (
            "a payload over the limit",
            NewTask::with_kind("probe", &"x".repeat(MAX_PAYLOAD_BYTES)),
            Payload,
        ),
        (
            "what is no JSON",
            NewTask::with_kind("probe", &unencodable),
            Payload,
        ),
    ]
}

fn uuid_nil() -> TaskId {
    "00000000-0000-0000-0000-000000000000".parse().unwrap()
}

#[test]
fn a_bad_task_is_refused_by_name_and_nothing_is_stored() {
    let scheduler = Scheduler::in_memory().start().unwrap();
    for (name, task, kind) in bad_tasks() {
        let mut ids = Vec::new();
        let mut refused = |error: Error| {
            assert_eq!(error.kind(), kind, "{name}: {error}");
            ids.push(error.task_id().expect("it names the task"));
            assert!(!error.is_retryable(), "{name}");
            assert!(
                !error.to_string().contains("xxxxxxxxxx\""),
                "{name}: {error}"
            );
        };
        refused(scheduler.schedule(task.clone()).unwrap_err());
        refused(
            scheduler
                .submit()
                .schedule(task.clone())
                .wait()
                .unwrap_err(),
        );
        // One bad task among good ones: none is stored.
        let many = [probe(1), task, probe(2)];
        refused(scheduler.schedule_many(many).unwrap_err());
        ids.dedup();
        assert_eq!(ids.len(), 1, "{name}: always the same");
    }
    assert_eq!(scheduler.count(&Filter::all()).unwrap(), 0);
    let error = scheduler
        .schedule_many((0..=MAX_BATCH as u32).map(probe))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(scheduler.count(&Filter::all()).unwrap(), 0);
    // The largest of everything that is allowed.
    let limit = NewTask::with_kind(
        "x".repeat(MAX_NAME_BYTES),
        &"x".repeat(MAX_PAYLOAD_BYTES - 2),
    )
    .queue("q".repeat(MAX_NAME_BYTES))
    .at("9999-12-31T23:59:59.999999Z".parse().unwrap())
    .priority(9)
    .max_attempts(10_000);
    let id = scheduler.schedule(limit).unwrap().id();
    assert_eq!(
        scheduler.get(id).unwrap().unwrap().payload_json().len(),
        MAX_PAYLOAD_BYTES
    );
}

#[test]
fn a_stream_stores_what_came_before_a_bad_task() {
    let scheduler = Scheduler::in_memory().start().unwrap();
    let tasks = |bad: u32| {
        (0..2_500).map(move |n| {
            let id = TaskId::from(punctual_uuid(n));
            probe(n).id(id).priority(if n == bad { 10 } else { 5 })
        })
    };
    let error = scheduler.schedule_stream(tasks(2_100)).unwrap_err();
    assert_eq!(error.task_id(), Some(TaskId::from(punctual_uuid(2_100))));
    assert!(error.to_string().contains("task 2100: "), "{error}");
    assert_eq!(scheduler.count(&Filter::all()).unwrap(), 2_000);
    let streamed = scheduler.schedule_stream(tasks(u32::MAX)).unwrap();
    assert_eq!(
        (streamed.new_count(), streamed.existing_count()),
        (500, 2_000)
    );
}

fn punctual_uuid(n: u32) -> uuid::Uuid {
    uuid::Uuid::from_u128(u128::from(n) + 1)
}

#[test]
fn bad_changes_and_filters_are_refused() {
    let scheduler = Scheduler::in_memory().start().unwrap();
    let id = scheduler.schedule(probe(1).after(DAY)).unwrap().id();
    let invalid = |result: punctual::Result<()>, what: &str| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Invalid, "{what}");
    };
    invalid(
        scheduler.reschedule(id, DateTime::<Utc>::MAX_UTC),
        "the last instant",
    );
    invalid(
        scheduler.edit(id, Edit::new().priority(10)),
        "a priority of 10",
    );
    invalid(
        scheduler.edit(id, Edit::new().max_attempts(0)),
        "no attempts",
    );
    invalid(scheduler.pause(""), "an empty queue");
    invalid(scheduler.resume(&long_name()), "a long queue");
    let filters = [
        Filter::new(),
        Filter::new().limit(5),
        Filter::new().kind(""),
        Filter::new().queue("a\tb"),
        Filter::new().tag(long_name()),
        Filter::all().limit(0),
        Filter::all().limit(1_001),
        Filter::new().ids((0..1_001).map(|_| TaskId::new())),
    ];
    for filter in filters {
        let shown = format!("{filter:?}");
        let kinds = [
            scheduler.list(&filter).map(|_| ()),
            scheduler.count(&filter).map(|_| ()),
            scheduler.cancel_all(&filter).map(|_| ()),
            scheduler.delete_all(&filter).map(|_| ()),
            scheduler.run_now_all(&filter).map(|_| ()),
            scheduler.retry_all(&filter).map(|_| ()),
        ];
        for result in kinds {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Invalid, "{shown}");
        }
    }
    let absurd = Retention::default().completed(Duration::MAX);
    invalid(scheduler.prune(&absurd).map(|_| ()), "an absurd retention");
    let task = scheduler.get(id).unwrap().unwrap();
    assert_eq!((task.priority(), task.max_attempts()), (5, 20));
    for text in ["", "nonsense", "0000"] {
        assert_eq!(
            text.parse::<TaskId>().unwrap_err().kind(),
            ErrorKind::Invalid
        );
        assert_eq!(
            text.parse::<punctual::Cursor>().unwrap_err().kind(),
            ErrorKind::Invalid
        );
    }
}

#[test]
fn calls_on_a_task_that_is_not_there_or_not_so_say_which() {
    let scheduler = Scheduler::in_memory().start().unwrap();
    let pending = scheduler.schedule(probe(1).after(DAY)).unwrap().id();
    let missing = TaskId::new();
    let calls = |id: TaskId| {
        vec![
            scheduler.delete(id).unwrap_err(),
            scheduler.retry(id).unwrap_err(),
        ]
    };
    for error in calls(pending) {
        assert_eq!(
            (error.kind(), error.task_id()),
            (ErrorKind::State, Some(pending))
        );
        assert!(error.to_string().contains("pending"), "{error}");
    }
    for error in calls(missing) {
        assert_eq!(
            (error.kind(), error.task_id()),
            (ErrorKind::NotFound, Some(missing))
        );
    }
    let errors = [
        scheduler.run_now(missing).unwrap_err(),
        scheduler
            .reschedule(missing, Utc::now_for_tests())
            .unwrap_err(),
        scheduler
            .edit(missing, Edit::new().priority(1))
            .unwrap_err(),
        scheduler.history(missing).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(
            (error.kind(), error.task_id()),
            (ErrorKind::NotFound, Some(missing))
        );
    }
    let other = scheduler.edit(pending, Edit::new().payload(&crate::kit::Other(1)));
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Payload);
    assert!(scheduler.get(missing).unwrap().is_none());
}

trait Fixed {
    fn now_for_tests() -> DateTime<Utc>;
}

impl Fixed for Utc {
    fn now_for_tests() -> DateTime<Utc> {
        "2030-01-01T00:00:00Z".parse().unwrap()
    }
}

fn cache(bytes: usize) -> punctual::SqliteSettings {
    punctual::SqliteSettings::default().page_cache_bytes(bytes)
}

type Setup = fn(punctual::Builder) -> punctual::Builder;

#[test]
fn a_bad_scheduler_is_refused_before_anything_is_created() {
    let bad: [(&str, Setup); 21] = [
        ("zero workers", |b| b.workers(0)),
        ("a page cache of nothing", |b| b.sqlite(cache(0))),
        ("a page cache without bounds", |b| {
            b.sqlite(cache(usize::MAX))
        }),
        ("too many workers", |b| b.workers(1_025)),
        ("too many spare threads", |b| b.max_spare_threads(1_025)),
        ("a handler registered twice", |b| {
            b.handler_fn(|_: Probe, _| Ok(Outcome::done()))
                .handler_fn(|_: Probe, _| Ok(Outcome::done()))
        }),
        ("a handler without a kind", |b| {
            b.handler_fn(|_: Nameless, _| Ok(Outcome::done()))
        }),
        ("a policy without a handler", |b| {
            b.retry_policy("probe", RetryPolicy::fixed(S))
        }),
        ("a timeout without a handler", |b| b.timeout("probe", S)),
        ("no time at all", |b| {
            b.handler_fn(|_: Probe, _| Ok(Outcome::done()))
                .timeout("probe", Duration::ZERO)
        }),
        ("a queue without a name", |b| b.queue("", 1)),
        ("a queue that runs nothing", |b| b.queue("a", 0)),
        ("a queue given twice", |b| b.queue("a", 1).queue("a", 2)),
        ("only queues, and none", |b| b.only_queues()),
        ("a global limit of nothing", |b| b.global_limit("a", 0)),
        ("a global limit without bounds", |b| {
            b.global_limit("a", usize::MAX)
        }),
        ("a global limit of no queue", |b| b.global_limit("", 1)),
        ("a global limit given twice", |b| {
            b.global_limit("a", 1).global_limit("a", 2)
        }),
        ("no time for a transaction", |b| {
            b.transaction_timeout(Duration::ZERO)
        }),
        ("all the time for a transaction", |b| {
            b.transaction_timeout(Duration::MAX)
        }),
        ("an absurd retention", |b| {
            b.retention(Retention::default().failed(Duration::MAX))
        }),
    ];
    for (name, setup) in bad {
        let (dir, path) = file();
        let error = setup(Scheduler::builder(&path)).start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{name}: {error}");
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 0, "{name}: nothing was created");
    }
}

/// What a program shows of an error, and writes to its log, has no payload in it.
#[test]
fn no_text_shows_a_payload() {
    let scheduler = Scheduler::in_memory().start().unwrap();
    let task = NewTask::with_kind("probe", "secret");
    assert!(!format!("{task:?}").contains("secret"));
    let id = scheduler.schedule(task).unwrap().id();
    let task = scheduler.get(id).unwrap().unwrap();
    assert!(!format!("{task:?}").contains("secret"));
    let error = task.payload::<u32>().unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"));
    let edit = Edit::new().payload(&Probe(1));
    assert!(!format!("{edit:?}").contains("payload: Some"));
}
