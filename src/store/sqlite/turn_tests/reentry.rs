//! Code of the program's that calls the store which calls it: wakers, and subscribers to what is logged.

use std::sync::mpsc::channel;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::*;

/// A call that is not stopped at the store's door waits as long for its turn.
const BUSY_WAIT: Duration = Duration::from_secs(20);
/// Longer than any call takes that is answered, and shorter than one that is not.
const BOUND: Duration = Duration::from_secs(10);

/// A store of each sort. The folder is that of the file.
fn stores() -> Vec<(Arc<SqliteStore>, Option<tempfile::TempDir>)> {
    let settings = || Settings {
        durability: Durability::ProcessCrash,
        busy_wait: BUSY_WAIT,
        ..Settings::new(true)
    };
    let dir = tempfile::tempdir().unwrap();
    let file = SqliteStore::open(
        &dir.path().join("turn.db"),
        settings(),
        &SqliteSettings::default(),
        NOW,
    )
    .unwrap();
    let memory = SqliteStore::memory(settings(), NOW).unwrap();
    vec![(Arc::new(memory), None), (Arc::new(file), Some(dir))]
}

/// Runs something on a thread of its own, which is left behind if it does not come to an end.
fn within_bound<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    let thread = crate::thread::Thread::spawn("bounded", move || {
        // No call waits any more if the time is over.
        let _ = sender.send(run());
    });
    let done = receiver.recv_timeout(BOUND);
    drop(thread);
    done.unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn insert(store: &SqliteStore, task: Insert) -> Result<Vec<Reply>> {
    store.apply(NOW, vec![Op::Insert(vec![task])])
}

fn count(store: &SqliteStore) -> Result<u64> {
    let (filter, after) = (Filter::all(), None);
    Ok(store.read(Query::Count { filter, after })?.count().count)
}

/// A waker that does something when it is called, and when it is dropped.
struct Calls<W: Fn(), D: Fn()> {
    when_woken: W,
    when_dropped: D,
}

impl<W: Fn() + Send + Sync + 'static, D: Fn() + Send + Sync + 'static> TaskWake for Calls<W, D> {
    fn wake(self: Arc<Self>) {
        (self.when_woken)();
    }
}

impl<W: Fn(), D: Fn()> Drop for Calls<W, D> {
    fn drop(&mut self) {
        (self.when_dropped)();
    }
}

fn waker(
    when_woken: impl Fn() + Send + Sync + 'static,
    when_dropped: impl Fn() + Send + Sync + 'static,
) -> Waker {
    Waker::from(Arc::new(Calls {
        when_woken,
        when_dropped,
    }))
}

/// A write that was polled before it could be made. It is made by the next caller's leader, or the helper's.
fn polled(store: &SqliteStore, waker: &Waker) -> Submitted<Writer> {
    let turn = &store.turn;
    turn.with_writer(|_writer| {
        let mut submitted = turn.submit(NOW, vec![Op::Insert(vec![task()])]).unwrap();
        assert!(submitted.poll(&mut Context::from_waker(waker)).is_pending());
        submitted
    })
}

/// A count in a waker blocked every write to a store in memory for ever, a write in it stalled all others for 5 seconds.
#[test]
fn p12_a_waker_that_calls_the_store_stops_no_write() {
    for (store, _dir) in stores() {
        let (sender, receiver) = channel();
        let calls = Arc::clone(&store);
        let waker = waker(
            move || {
                let answers = (insert(&calls, task()).map(drop), count(&calls));
                let _ = sender.send(answers);
            },
            || (),
        );
        let mut submitted = polled(&store, &waker);
        let (written, counted) = receiver.recv_timeout(BOUND).expect("the waker returns");
        written.unwrap();
        assert_eq!(counted.unwrap(), 2);
        let store = within_bound("a write after it", move || {
            insert(&store, task()).unwrap();
            store
        });
        assert!(submitted.poll(&mut Context::from_waker(&waker)).is_ready());
        assert_eq!(count(&store).unwrap(), 3);
    }
}

/// Likewise if a caller's own thread has led for the receipt.
#[test]
fn p12_a_waker_that_is_called_by_a_caller_s_thread_may_write() {
    for (store, _dir) in stores() {
        let (sender, receiver) = channel();
        let calls = Arc::clone(&store);
        let waker = waker(
            move || drop(sender.send(insert(&calls, task()).map(drop))),
            || (),
        );
        let turn = Arc::clone(&store.turn);
        turn.set_leading(true);
        let mut submitted = turn.submit(NOW, vec![Op::Insert(vec![task()])]).unwrap();
        assert!(
            submitted
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        turn.set_leading(false);
        within_bound("the call that leads", move || {
            insert(&store, task()).unwrap();
        });
        receiver.recv_timeout(BOUND).unwrap().unwrap();
    }
}

/// A waker that does not return. Once the helper thread has led for its receipt, once a caller's own thread.
#[test]
fn p12_a_waker_that_blocks_stops_no_write() {
    for by_helper in [true, false] {
        for (store, _dir) in stores() {
            let (woken, when_woken) = channel();
            let (end, test_ends) = channel::<()>();
            let test_ends = Mutex::new(test_ends);
            let blocks = waker(
                move || {
                    let _ = woken.send(());
                    let _ = lock(&test_ends).recv();
                },
                || (),
            );
            let turn = Arc::clone(&store.turn);
            turn.set_leading(true);
            let mut submitted = turn.submit(NOW, vec![Op::Insert(vec![task()])]).unwrap();
            let poll = submitted.poll(&mut Context::from_waker(&blocks));
            assert!(poll.is_pending());
            turn.set_leading(false);
            within_bound("a submitted and a deferred write", move || {
                let other = vec![Op::Insert(vec![task()])];
                if by_helper {
                    let pending = turn.submit(NOW, other).unwrap();
                    Box::new(pending).wait().unwrap();
                } else {
                    drop(turn.defer(NOW, other).unwrap());
                }
            });
            when_woken.recv_timeout(BOUND).expect("it is called");
            within_bound("a write of each sort", {
                let store = Arc::clone(&store);
                move || {
                    insert(&store, task()).unwrap();
                    let other = || vec![Op::Insert(vec![task()])];
                    Box::new(store.turn.submit(NOW, other()).unwrap())
                        .wait()
                        .unwrap();
                    let mut polled = store.turn.submit(NOW, other()).unwrap();
                    while polled
                        .poll(&mut Context::from_waker(Waker::noop()))
                        .is_pending()
                    {
                        std::thread::yield_now();
                    }
                }
            });
            drop(end);
        }
    }
}

/// A thousand receipts whose wakers write, each of which leads for the next: on one stack they would not fit.
#[test]
fn p12_wakers_that_write_do_not_pile_up_on_the_stack() {
    const WAKERS: usize = 1_000;
    let (store, _dir) = stores().remove(0);
    let woken = Arc::new(AtomicUsize::new(0));
    let deepest = Arc::new(AtomicUsize::new(0));
    thread_local! {
        static DEPTH: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }
    fn submit(
        store: &Arc<SqliteStore>,
        woken: &Arc<AtomicUsize>,
        deepest: &Arc<AtomicUsize>,
        left: usize,
    ) {
        let (calls, count, deep) = (Arc::clone(store), Arc::clone(woken), Arc::clone(deepest));
        let waker = waker(
            move || {
                count.fetch_add(1, Ordering::SeqCst);
                DEPTH.set(DEPTH.get() + 1);
                deep.fetch_max(DEPTH.get(), Ordering::SeqCst);
                if left > 0 {
                    submit(&calls, &count, &deep, left - 1);
                    insert(&calls, task()).unwrap();
                }
                DEPTH.set(DEPTH.get() - 1);
            },
            || (),
        );
        // It is not answered before it is polled.
        store.turn.with_writer(|_writer| {
            let ops = vec![Op::Insert(vec![task()])];
            let mut submitted = store.turn.submit(NOW, ops).unwrap();
            let poll = submitted.poll(&mut Context::from_waker(&waker));
            assert!(poll.is_pending());
        });
    }
    submit(&store, &woken, &deepest, WAKERS - 1);
    within_bound("all are woken", {
        let woken = Arc::clone(&woken);
        move || {
            insert(&store, task()).unwrap();
            while woken.load(Ordering::SeqCst) < WAKERS {
                std::thread::yield_now();
            }
        }
    });
    assert_eq!(deepest.load(Ordering::SeqCst), 1);
}

/// The waker that a poll replaces was dropped under the lock that the leader takes to answer.
#[test]
fn p12_a_waker_that_calls_the_store_when_it_is_dropped_stops_no_write() {
    for (store, _dir) in stores() {
        within_bound("a poll with another waker", move || {
            let turn = Arc::clone(&store.turn);
            turn.set_leading(true);
            let mut submitted = turn.submit(NOW, vec![Op::Insert(vec![task()])]).unwrap();
            let calls = Arc::clone(&store);
            let first = waker(|| (), move || insert(&calls, task()).map(drop).unwrap());
            assert!(
                submitted
                    .poll(&mut Context::from_waker(&first))
                    .is_pending()
            );
            drop(first);
            turn.set_leading(false);
            // Drops the first waker, whose write leads for what was submitted.
            let _ = submitted.poll(&mut Context::from_waker(Waker::noop()));
            assert!(
                submitted
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_ready()
            );
            assert_eq!(count(&store).unwrap(), 2);
        });
    }
}

/// Calls the store for each thing that is logged at a level, and keeps what it is answered.
struct Listener<C> {
    level: tracing::Level,
    call: C,
    answers: Arc<Mutex<Vec<Option<ErrorKind>>>>,
}

impl<C: Fn() -> Result<()> + 'static> Subscriber for Listener<C> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == self.level && metadata.target().starts_with("punctual")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {
        let answer = (self.call)().err().map(|error| error.kind());
        lock(&self.answers).push(answer);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// What a subscriber is answered that makes a call whenever something is logged while `act` runs.
fn heard(
    level: tracing::Level,
    call: impl Fn() -> Result<()> + Send + Sync + 'static,
    act: impl FnOnce() + Send + 'static,
) -> Vec<Option<ErrorKind>> {
    within_bound("a call of the subscriber", move || {
        let answers = Arc::new(Mutex::new(Vec::new()));
        let listener = Listener {
            level,
            call,
            answers: Arc::clone(&answers),
        };
        tracing::subscriber::with_default(listener, act);
        std::mem::take(&mut *lock(&answers))
    })
}

/// A subscriber that keeps its log in the store stalled every write for as long as a call waits.
#[test]
fn p12_a_subscriber_that_writes_to_the_store_during_a_write_is_refused_at_once() {
    for (store, dir) in stores() {
        let kit = store.turn.with_writer(|writer| {
            let conn = writer.connection();
            let count: i64 = conn
                .pragma_query_value(None, "page_count", |row| row.get(0))
                .unwrap();
            conn.pragma_update_and_check(None, "max_page_count", count + 9, |_| Ok(()))
                .unwrap();
            Arc::clone(&store)
        });
        let calls = Arc::clone(&store);
        let log = move || insert(&calls, task()).map(drop);
        let answers = heard(tracing::Level::WARN, log, move || {
            let error = insert(&kit, huge()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Full);
        });
        assert_eq!(answers, [Some(ErrorKind::Reentrant)], "{dir:?}");
        insert(&store, task()).unwrap();
    }
}

/// A read in memory takes the writer: a subscriber that read as well waited for itself for ever.
#[test]
fn p12_a_subscriber_that_reads_a_store_in_memory_during_a_read_is_refused_at_once() {
    let (store, _dir) = stores().remove(0);
    insert(&store, task()).unwrap();
    store.turn.with_writer(|writer| {
        let damage = "UPDATE punctual_task SET payload = CAST('nulk' AS BLOB)";
        writer.connection().execute_batch(damage).unwrap();
    });
    let (calls, lists) = (Arc::clone(&store), Arc::clone(&store));
    let read = move || count(&calls).map(drop);
    let answers = heard(tracing::Level::WARN, read, move || {
        lists.read(Query::List(Filter::all())).unwrap();
    });
    assert_eq!(answers, [Some(ErrorKind::Reentrant)]);
    assert_eq!(count(&store).unwrap(), 1);
}

/// The list of the other instances was locked while the death of one was logged.
#[test]
fn p12_a_subscriber_may_ask_about_other_instances_when_one_has_died() {
    let (dead, dir) = stores().remove(1);
    insert(&dead, task()).unwrap();
    let claim = Op::Claim(suite::request(&*dead, 1));
    dead.apply(NOW, vec![claim]).unwrap();
    drop(dead);
    let path = dir.as_ref().unwrap().path().join("turn.db");
    let store = Arc::new(
        SqliteStore::open(&path, Settings::new(true), &SqliteSettings::default(), NOW).unwrap(),
    );
    let (asks, recovers) = (Arc::clone(&store), Arc::clone(&store));
    let ask = move || {
        asks.has_others();
        insert(&asks, task()).map(drop)
    };
    let answers = heard(tracing::Level::INFO, ask, move || {
        assert_eq!(recovers.recover(NOW).unwrap().given_back, 1);
    });
    assert_eq!(answers, [None]);
}
