//! The turn and the writer under several threads, a full disk and a panic.

mod reentry;

use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use crate::error::{ErrorKind, Result};
use crate::model::op::{Op, Reply};
use crate::store::PendingReply;
use crate::store::sqlite::settings::SqliteSettings;
use crate::store::sqlite::write::writer::Writer;
use crate::store::turn::Submitted;
use crate::sync::lock;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake as TaskWake;

use crate::id::TaskId;
use crate::model::delivery::Delivery;
use crate::model::durability::Durability;
use crate::model::filter::Filter;
use crate::model::limits::MAX_PAYLOAD_BYTES;
use crate::model::new_task::Insert;
use crate::model::new_task::Scheduled;
use crate::model::op::Settled;
use crate::model::outcome::Outcome;
use crate::model::query::Query;
use crate::model::retry::RetryPolicy;
use crate::model::settle::{Asked, End, Fence, settle};
use crate::model::task::Options;
use crate::store::sqlite::SqliteStore;
use crate::store::suite::{self, NOW, S};
use crate::store::{Settings, Store};

struct Kit {
    store: SqliteStore,
    dir: tempfile::TempDir,
}

fn kit_with(busy_wait: Duration) -> Kit {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        durability: Durability::ProcessCrash,
        busy_wait,
        ..Settings::new(true)
    };
    let store = SqliteStore::open(
        &dir.path().join("turn.db"),
        settings,
        &SqliteSettings::default(),
        NOW,
    )
    .unwrap();
    Kit { store, dir }
}

fn kit() -> Kit {
    kit_with(60 * S)
}

fn task() -> Insert {
    Insert {
        max_attempts: 1,
        ..suite::task()
    }
}

fn huge() -> Insert {
    Insert {
        payload: vec![b'1'; MAX_PAYLOAD_BYTES],
        ..task()
    }
}

/// Makes the store panic inside its transaction: a task that was not checked, whose policy cannot be stored.
fn poison() -> Insert {
    let options = Options {
        retry: Some(RetryPolicy::custom(|_| Duration::ZERO)),
        ..Options::default()
    };
    Insert {
        options: Some(Box::new(options)),
        ..task()
    }
}

impl Kit {
    fn insert(&self, tasks: Vec<Insert>) -> Result<Vec<Reply>> {
        self.store.apply(NOW, vec![Op::Insert(tasks)])
    }

    fn has(&self, id: TaskId) -> bool {
        let answer = self.store.read(Query::State(id)).unwrap();
        answer.state().is_some()
    }

    fn rows(&self) -> i64 {
        let conn = rusqlite::Connection::open(self.dir.path().join("turn.db")).unwrap();
        conn.query_row("SELECT count(*) FROM punctual_task", [], |row| row.get(0))
            .unwrap()
    }

    fn queued(&self) -> usize {
        self.store.turn.queued_count()
    }

    /// Gives each request to a thread of its own, so that they are served as one batch, in this order.
    fn as_one_batch(&self, requests: Vec<Vec<Op>>) -> Vec<std::thread::Result<Result<Vec<Reply>>>> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = self.store.turn.with_writer(|_writer| {
                requests
                    .into_iter()
                    .enumerate()
                    .map(|(index, ops)| {
                        let thread = scope.spawn(|| self.store.apply(NOW, ops));
                        while self.queued() <= index {
                            std::thread::yield_now();
                        }
                        thread
                    })
                    .collect()
            });
            threads.into_iter().map(|thread| thread.join()).collect()
        })
    }

    fn refuse_priority_9(&self) {
        self.store.turn.with_writer(|writer| {
            let trigger =
                "CREATE TRIGGER refuse BEFORE INSERT ON punctual_task WHEN new.priority = 9
                BEGIN SELECT RAISE(ABORT, 'refused'); END";
            writer.connection().execute_batch(trigger).unwrap();
        });
    }

    /// Leaves room in the file for this many pages more.
    fn fill_the_disk(&self, pages: i64) {
        self.store.turn.with_writer(|writer| {
            let conn = writer.connection();
            let count: i64 = conn
                .pragma_query_value(None, "page_count", |row| row.get(0))
                .unwrap();
            conn.pragma_update_and_check(None, "max_page_count", count + pages, |_| Ok(()))
                .unwrap();
        });
    }
}

fn inserts(tasks: &[Vec<Insert>]) -> Vec<Vec<Op>> {
    tasks
        .iter()
        .map(|tasks| vec![Op::Insert(tasks.clone())])
        .collect()
}

/// The failure that this is about: the full disk makes SQLite roll back the whole transaction, the small tasks before
/// the large one with it, and whatever were executed next would commit alone, without an answer that says so.
#[test]
fn p1_a_full_disk_fails_its_culprit_and_nobody_else_in_the_batch() {
    let kit = kit();
    kit.insert(vec![task()]).unwrap();
    kit.fill_the_disk(40);
    let requests: Vec<Vec<Insert>> = vec![
        vec![task()],
        vec![task(), huge(), task()],
        vec![task()],
        vec![huge()],
        vec![task(), task()],
    ];
    let before = kit.rows();
    let answers = kit.as_one_batch(inserts(&requests));
    let mut stored = 0;
    for (index, (answer, tasks)) in answers.into_iter().zip(&requests).enumerate() {
        let answer = answer.expect("no panic");
        let fails = tasks.iter().any(|task| task.payload.len() > 4);
        match &answer {
            Ok(_) => stored += tasks.len(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Full, "request {index}: {error}"),
        }
        assert_eq!(answer.is_err(), fails, "request {index}");
        for task in tasks {
            assert_eq!(kit.has(task.id), answer.is_ok(), "of request {index}");
        }
    }
    assert_eq!(
        kit.rows(),
        before + stored as i64,
        "nothing without an answer"
    );
    // The same connection is still in use, and still full.
    assert_eq!(
        kit.insert(vec![huge()]).unwrap_err().kind(),
        ErrorKind::Full
    );
    let health = || kit.store.health();
    assert_eq!(
        health().failing_since(),
        Some(NOW.to_utc()),
        "health tells it"
    );
    kit.insert(vec![task()]).unwrap();
    let health = health();
    assert_eq!(
        (health.failing_since(), health.recovered_at()),
        (None, Some(NOW.to_utc()))
    );
    assert!(health.last_error().is_some());
    assert!(kit.store.health().stopped.is_none());
}

/// The other kind of error: SQLite undoes the statement and leaves the transaction open.
#[test]
fn p1_a_refused_statement_fails_its_culprit_and_nobody_else_in_the_batch() {
    let kit = kit();
    kit.refuse_priority_9();
    let refused = Insert {
        priority: 9,
        ..task()
    };
    let requests = vec![vec![task()], vec![task(), refused], vec![task()]];
    let answers = kit.as_one_batch(inserts(&requests));
    let good: Vec<bool> = answers
        .into_iter()
        .map(|answer| answer.unwrap().is_ok())
        .collect();
    assert_eq!(good, [true, false, true]);
    assert_eq!(kit.rows(), 2);
}

/// Tasks of many callers share a statement.
#[test]
fn each_of_many_callers_is_answered_for_himself() {
    let kit = kit();
    kit.refuse_priority_9();
    let stored = task();
    kit.insert(vec![stored.clone()]).unwrap();
    for refuses in [false, true] {
        let mut tasks: Vec<Insert> = (0..20).map(|_| task()).collect();
        tasks[2] = stored.clone();
        tasks[9] = tasks[8].clone();
        tasks[15].priority = if refuses { 9 } else { 5 };
        let requests: Vec<Vec<Insert>> = tasks.iter().map(|task| vec![task.clone()]).collect();
        let answers = kit.as_one_batch(inserts(&requests));
        for (index, (answer, task)) in answers.into_iter().zip(&tasks).enumerate() {
            let answer = answer.unwrap();
            match index {
                15 if refuses => assert!(answer.is_err()),
                2 | 9 => assert_eq!(scheduled(answer), Scheduled::Existing(task.id), "{index}"),
                _ => assert_eq!(scheduled(answer), Scheduled::New(task.id), "{index}"),
            }
        }
    }
    assert_eq!(kit.rows(), 1 + 18 + 17);
}

fn scheduled(answer: Result<Vec<Reply>>) -> Scheduled {
    answer.unwrap().remove(0).inserted().remove(0)
}

/// A rollback by SQLite while the batch settles and claims: what is answered is what is stored.
#[test]
fn p7_a_full_disk_does_not_settle_what_it_answered_as_failed() {
    let kit = kit();
    kit.insert((0..3).map(|_| task()).collect()).unwrap();
    kit.fill_the_disk(20);
    let fence = Fence {
        seq: 1,
        instance: 1,
        claim_no: 0,
    };
    let progress = |value: Vec<u8>| Op::Progress { fence, value };
    let requests = vec![
        vec![progress(b"1".to_vec())],
        vec![Op::Insert(vec![huge()]), progress(b"2".to_vec())],
        vec![progress(b"3".to_vec())],
    ];
    let answers = kit.as_one_batch(requests);
    for (index, answer) in answers.into_iter().enumerate() {
        match answer.unwrap() {
            Ok(mut replies) => {
                assert_ne!(index, 1);
                assert_eq!(replies.remove(0).progressed(), Settled::Stale);
            }
            Err(error) => assert_eq!((index, error.kind()), (1, ErrorKind::Full)),
        }
    }
}

#[test]
fn p1_many_callers_are_each_answered_once_and_all_is_stored() {
    const THREADS: usize = 16;
    const EACH: usize = 200;
    let kit = kit();
    let start = Barrier::new(THREADS);
    let new = AtomicUsize::new(0);
    let ids: Vec<TaskId> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let mut ids = Vec::new();
                    for _ in 0..EACH {
                        let task = task();
                        let id = task.id;
                        let scheduled = kit.insert(vec![task]).unwrap().remove(0).inserted();
                        assert_eq!(scheduled[0].id(), id, "its own answer");
                        assert!(kit.has(id), "what was answered is stored");
                        new.fetch_add(usize::from(scheduled[0].is_new()), Ordering::Relaxed);
                        ids.push(id);
                    }
                    ids
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(new.into_inner(), THREADS * EACH);
    assert_eq!(kit.rows(), (THREADS * EACH) as i64);
    assert!(ids.iter().all(|id| kit.has(*id)));
    assert!(!kit.store.turn.is_led(), "the turn is free");
}

#[test]
fn p12_a_panic_inside_a_transaction_costs_its_batch_and_nothing_after_it() {
    let kit = kit();
    let first = task();
    let requests = inserts(&[vec![first.clone()], vec![poison()], vec![task()]]);
    let answers = kit.as_one_batch(requests);
    for (index, answer) in answers.into_iter().enumerate() {
        match answer {
            // The leader is the first: the panic is its own.
            Err(_) => assert_eq!(index, 0),
            Ok(answer) => assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unknown),
        }
    }
    kit.insert(vec![task()]).unwrap();
    assert_eq!(
        kit.rows(),
        1,
        "the transaction of the panic was not committed"
    );
    assert!(kit.insert(vec![first]).unwrap().remove(0).inserted()[0].is_new());
}

#[test]
fn p12_a_call_gives_up_when_the_writes_before_it_take_too_long() {
    let kit = kit_with(Duration::from_millis(20));
    let late = task();
    let id = late.id;
    std::thread::scope(|scope| {
        kit.store
            .turn
            .with_writer(|_writer| {
                let leader = scope.spawn(|| kit.insert(vec![task()]));
                while kit.queued() < 1 {
                    std::thread::yield_now();
                }
                // The leader cannot begin, and a caller after it does not wait for ever.
                let refused = scope.spawn(|| kit.insert(vec![late])).join().unwrap();
                assert_eq!(refused.unwrap_err().kind(), ErrorKind::Busy);
                let health = kit.store.health();
                assert_eq!(health.failing_since(), Some(NOW.to_utc()), "health says so");
                leader
            })
            .join()
            .unwrap()
            .unwrap();
    });
    let health = kit.store.health();
    assert_eq!(
        (health.failing_since(), health.recovered_at()),
        (None, Some(NOW.to_utc()))
    );
    assert!(!kit.has(id), "it was told that nothing is stored");
    kit.insert(vec![task()]).unwrap();
}

/// It waited for the writer's lock, which goes from one leader to the next.
#[test]
fn p12_a_read_of_a_store_in_memory_gives_up_when_the_writes_before_it_take_too_long() {
    let settings = Settings {
        busy_wait: Duration::from_millis(20),
        ..Settings::new(true)
    };
    let store = Arc::new(SqliteStore::memory(settings, NOW).unwrap());
    let count = || {
        let (filter, after) = (Filter::all(), None);
        store.read(Query::Count { filter, after })
    };
    store.turn.set_leading(true);
    let refused = std::thread::scope(|scope| scope.spawn(count).join().unwrap());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Busy);
    let health = store.health();
    assert_eq!(health.failing_since(), None, "no write has failed");
    store.turn.set_leading(false);
    assert_eq!(count().unwrap().count().count, 0);
}

/// A thread that wrote back to back kept the dispatcher's look, and so its claims, waiting for as long as it wrote.
#[test]
fn p12_a_look_for_changes_does_not_wait_for_who_leads() {
    let kit = kit();
    kit.store.turn.with_writer(|_| {
        std::thread::scope(|scope| {
            let look = scope.spawn(|| kit.store.refresh());
            look.join().unwrap().unwrap();
        });
    });
}

/// P5: its claim is on disk before its handler is called, and its end before anybody is told, at any durability. What is
/// delivered at least once needs neither.
#[test]
fn p5_the_claim_and_the_end_of_a_task_delivered_at_most_once_are_synced() {
    for (delivery, synced) in [(Delivery::AtLeastOnce, false), (Delivery::AtMostOnce, true)] {
        let kit = kit();
        let has_synced = || kit.store.turn.with_writer(|writer| writer.has_synced());
        kit.insert(vec![Insert { delivery, ..task() }]).unwrap();
        assert!(!has_synced(), "a crash is all that this store survives");
        let claim = Op::Claim(suite::request(&kit.store, 1));
        let Reply::Claimed(claims) = kit.store.apply(NOW, vec![claim]).unwrap().remove(0) else {
            panic!("a claim is answered as one");
        };
        assert_eq!(has_synced(), synced, "the claim, {delivery:?}");
        let end = End::Returned {
            result: Ok(Outcome::done()),
            asked: Asked::Not,
        };
        let ended = settle(&claims[0], end, &RetryPolicy::default(), 0.5, NOW);
        kit.store
            .apply(NOW, vec![Op::Settle(vec![ended.into()])])
            .unwrap();
        assert_eq!(has_synced(), synced, "the end, {delivery:?}");
    }
}

/// P5: likewise of one that ends with its effects.
#[test]
fn p5_a_completion_of_a_task_delivered_at_most_once_is_synced() {
    for (delivery, synced) in [(Delivery::AtLeastOnce, false), (Delivery::AtMostOnce, true)] {
        let kit = kit();
        let fence = Fence {
            seq: 1,
            instance: 0,
            claim_no: 1,
        };
        let holder = crate::store::Holder {
            id: TaskId::new(),
            fence,
            delivery,
        };
        let ran = kit
            .store
            .transaction(NOW, Some(holder), &mut |_| unreachable!("it is stale"));
        assert_eq!(ran.unwrap_err().kind(), ErrorKind::State);
        let synced_then = kit.store.turn.with_writer(|writer| writer.has_synced());
        assert_eq!(synced_then, synced, "{delivery:?}");
    }
}
