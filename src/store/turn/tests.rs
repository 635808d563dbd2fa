//! The turn before a writer that only notes what it is given.

mod deferred;
mod wakers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::sync::mpsc::channel;
use std::task::{Wake as TaskWake, Waker};
use std::thread::{Scope, ScopedJoinHandle, ThreadId};

use super::*;
use crate::id::TaskId;
use crate::model::new_task::{Insert, Scheduled};
use crate::store::Ticket;
use crate::store::suite::{NOW, S, task};
use crate::thread::Thread;

/// Of a task with this priority the writer panics.
const POISON: u8 = 9;

/// One transaction.
struct Written {
    leader: ThreadId,
    /// How many requests waited meanwhile.
    waiting: usize,
    ids: Vec<TaskId>,
}

type Log = Arc<Mutex<Vec<Written>>>;

/// Notes what it is given.
#[derive(Default)]
struct Recorder {
    log: Log,
    waiting: Arc<AtomicUsize>,
    refused: Arc<Mutex<Vec<Timestamp>>>,
}

impl Writes for Recorder {
    fn run(&mut self, batch: Vec<Request>) {
        let mut written = Written {
            leader: thread::current().id(),
            waiting: self.waiting.load(Ordering::Relaxed),
            ids: Vec::new(),
        };
        let mut answers = Vec::new();
        for request in &batch {
            let replies = request.ops.iter().map(|op| match op {
                Op::Insert(tasks) => {
                    assert!(tasks.iter().all(|task| task.priority != POISON), "poison");
                    written.ids.extend(tasks.iter().map(|task| task.id));
                    Reply::Inserted(tasks.iter().map(|task| Scheduled::New(task.id)).collect())
                }
                _ => Reply::Done(0),
            });
            answers.push(replies.collect());
        }
        lock(&self.log).push(written);
        for (mut request, replies) in batch.into_iter().zip(answers) {
            request.answer(Ok(replies));
        }
    }

    fn waiting(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.waiting)
    }

    fn on_refused(&self) -> OnRefused {
        let refused = Arc::clone(&self.refused);
        Box::new(move |now, error| {
            assert_eq!(error.kind(), ErrorKind::Busy);
            lock(&refused).push(now);
        })
    }
}

struct Kit {
    turn: Arc<Turn<Recorder>>,
    log: Log,
    refused: Arc<Mutex<Vec<Timestamp>>>,
}

fn kit_with(wait: Duration, pace: Pace) -> Kit {
    let recorder = Recorder::default();
    let (log, refused) = (Arc::clone(&recorder.log), Arc::clone(&recorder.refused));
    Kit {
        turn: Turn::new(recorder, wait, pace),
        log,
        refused,
    }
}

fn kit() -> Kit {
    kit_with(60 * S, Pace::LOCAL)
}

fn insert(task: &Insert) -> Vec<Op> {
    vec![Op::Insert(vec![task.clone()])]
}

fn poison() -> Insert {
    Insert {
        priority: POISON,
        ..task()
    }
}

impl Kit {
    fn apply(&self, task: &Insert) -> Result<Vec<Reply>> {
        self.turn.apply(NOW, insert(task))
    }

    fn submit(&self, task: &Insert) -> Submitted<Recorder> {
        self.turn.submit(NOW, insert(task)).unwrap()
    }

    /// A submitted write whose answer calls the waker.
    fn submit_polled(&self, task: &Insert, waker: &Waker) -> Submitted<Recorder> {
        let mut submitted = self.submit(task);
        let poll = submitted.poll(&mut Context::from_waker(waker));
        assert!(poll.is_pending(), "hold the writer, or take the turn");
        submitted
    }

    fn has(&self, id: TaskId) -> bool {
        self.ids().contains(&id)
    }

    /// The written tasks, in order.
    fn ids(&self) -> Vec<TaskId> {
        let log = lock(&self.log);
        log.iter().flat_map(|batch| batch.ids.clone()).collect()
    }

    fn wait_until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let deadline = Deadline::after(60 * S);
        while !is_so(self) {
            assert!(!deadline.is_over(), "{what}");
            thread::yield_now();
        }
    }

    /// Queues a call of a thread of its own. The writer must be held, or the turn be taken.
    fn queue<'scope, T: Send + 'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        call: impl FnOnce() -> T + Send + 'scope,
    ) -> ScopedJoinHandle<'scope, T> {
        let before = self.turn.queued_count();
        let thread = scope.spawn(call);
        self.wait_until("it is queued", |kit| kit.turn.queued_count() > before);
        thread
    }
}

#[test]
fn a_lone_caller_leads_on_its_own_thread() {
    let kit = kit();
    for _ in 0..10 {
        kit.apply(&task()).unwrap();
    }
    let here = thread::current().id();
    assert!(lock(&kit.log).iter().all(|batch| batch.leader == here));
    assert!(!kit.turn.has_helper(), "no thread was needed");
    assert!(!kit.turn.is_led());
}

#[test]
fn callers_that_wait_together_share_a_transaction_in_the_order_in_which_they_came() {
    let kit = kit();
    let tasks: Vec<Insert> = (0..5).map(|_| task()).collect();
    thread::scope(|scope| {
        kit.turn.with_writer(|_writer| {
            for task in &tasks {
                kit.queue(scope, || kit.apply(task).unwrap());
            }
        });
    });
    let log = lock(&kit.log);
    assert_eq!(log.len(), 1);
    let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
    assert_eq!(log[0].ids, ids);
}

#[test]
fn many_callers_each_get_their_own_answer() {
    const THREADS: usize = 8;
    const EACH: usize = 200;
    let kit = kit();
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                for _ in 0..EACH {
                    let task = task();
                    let scheduled = kit.apply(&task).unwrap().remove(0).inserted();
                    assert_eq!(scheduled, [Scheduled::New(task.id)]);
                }
            });
        }
    });
    assert_eq!(kit.ids().len(), THREADS * EACH);
    assert!(!kit.turn.is_led(), "the turn is free");
    assert_eq!(kit.turn.queued_count(), 0);
}

/// A thread that writes once must not serve the others for ever.
#[test]
fn p12_a_leader_hands_the_turn_on_when_it_has_served_enough() {
    let pace = Pace {
        max_lead_ops: 4,
        yields: 0,
        ..Pace::LOCAL
    };
    let kit = kit_with(60 * S, pace);
    thread::scope(|scope| {
        kit.turn.with_writer(|_writer| {
            for _ in 0..12 {
                kit.queue(scope, || kit.apply(&task()).unwrap());
            }
        });
    });
    let log = lock(&kit.log);
    let sizes: Vec<usize> = log.iter().map(|batch| batch.ids.len()).collect();
    assert_eq!(sizes, [4, 4, 4]);
    assert_ne!(log[0].leader, log[1].leader);
    assert_ne!(log[1].leader, log[2].leader);
}

#[test]
fn a_caller_s_own_transaction_is_run_alone_on_its_thread_and_in_its_order() {
    let kit = kit();
    let [before, after] = [task(), task()];
    let alone = || {
        kit.turn.exclusive(Some(NOW), |_writer| {
            let log = lock(&kit.log);
            let ids = log.iter().map(|batch| batch.ids.clone()).collect();
            (thread::current().id(), ids)
        })
    };
    let (own, (ran_on, seen)): (ThreadId, (ThreadId, Vec<Vec<TaskId>>)) = thread::scope(|scope| {
        let threads = kit.turn.with_writer(|_writer| {
            kit.queue(scope, || kit.apply(&before).unwrap());
            let alone = kit.queue(scope, || (thread::current().id(), alone().unwrap()));
            kit.queue(scope, || kit.apply(&after).unwrap());
            alone
        });
        threads.join().unwrap()
    });
    assert_eq!(ran_on, own);
    assert_eq!(seen, [vec![before.id]]);
    assert_eq!(kit.ids(), [before.id, after.id]);
}

/// Unparks the thread that waits.
struct Unpark(thread::Thread);

impl TaskWake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls until it is ready: the smallest of all runtimes.
fn block_on(mut pending: Submitted<Recorder>) -> Result<Vec<Reply>> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    let deadline = Deadline::after(60 * S);
    loop {
        if let Poll::Ready(answer) = pending.poll(&mut cx) {
            return answer;
        }
        assert!(!deadline.is_over(), "it is never ready");
        thread::park_timeout(deadline.remaining());
    }
}

#[test]
fn a_submitted_write_is_answered_whether_it_is_waited_for_or_polled() {
    let kit = &kit();
    thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let submit = || {
                    let task = task();
                    (task.id, kit.submit(&task))
                };
                let all: Vec<_> = (0..50).map(|_| submit()).collect();
                for (index, (id, submitted)) in all.into_iter().enumerate() {
                    let answer = if (index + thread) % 2 == 0 {
                        Box::new(submitted).wait()
                    } else {
                        block_on(submitted)
                    };
                    let scheduled = answer.unwrap().remove(0).inserted();
                    assert_eq!(scheduled, [Scheduled::New(id)]);
                    assert!(kit.has(id));
                }
            });
        }
    });
    assert_eq!(kit.ids().len(), 200);
}

/// A wait for an answer that a poll had taken never ended.
#[test]
fn an_answer_is_given_once_and_whoever_asks_again_is_told() {
    let kit = kit();
    let mut ticket = Ticket::Pending(Box::new(kit.submit(&task())));
    kit.apply(&task()).unwrap();
    kit.wait_until("it is answered", |_| {
        ticket.try_take().is_some_and(|answer| answer.is_ok())
    });
    let again = ticket.try_take().unwrap().unwrap_err();
    assert_eq!(again.kind(), ErrorKind::State);
    assert_eq!(ticket.wait().unwrap_err().kind(), ErrorKind::State);
}

#[test]
fn a_submitted_write_is_made_though_nobody_waits_for_it() {
    let kit = kit();
    let task = task();
    drop(kit.submit(&task));
    kit.wait_until("it is written", |kit| kit.has(task.id));
}

#[test]
fn a_submitted_write_that_is_withdrawn_in_the_queue_is_not_made() {
    let kit = kit();
    let [withdrawn, other] = [task(), task()];
    kit.turn.with_writer(|_writer| {
        // The helper leads for the first one, and waits for the writer.
        let first = kit.submit(&other);
        kit.wait_until("the helper leads", |kit| kit.turn.is_led());
        Box::new(kit.submit(&withdrawn)).withdraw();
        first
    });
    kit.wait_until("the other is written", |kit| kit.has(other.id));
    kit.apply(&task()).unwrap();
    assert!(!kit.has(withdrawn.id));
}

#[test]
fn p12_a_panic_of_the_writer_costs_its_batch_and_nothing_after_it() {
    let kit = kit();
    let tasks = [task(), poison(), task()];
    let answers: Vec<_> = thread::scope(|scope| {
        let threads = kit.turn.with_writer(|_writer| {
            let mut threads = Vec::new();
            for task in &tasks {
                threads.push(kit.queue(scope, || kit.apply(task)));
            }
            threads
        });
        threads.into_iter().map(ScopedJoinHandle::join).collect()
    });
    for (index, answer) in answers.into_iter().enumerate() {
        match answer {
            // The leader is the first: the panic is its own.
            Err(_) => assert_eq!(index, 0),
            Ok(answer) => assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unknown),
        }
    }
    kit.apply(&task()).unwrap();
    assert_eq!(kit.ids().len(), 1);
}

#[test]
fn p12_a_panic_on_the_helper_s_thread_does_not_silence_it() {
    let kit = kit();
    let wait = |task| Box::new(kit.submit(&task)).wait();
    for _ in 0..3 {
        assert_eq!(wait(poison()).unwrap_err().kind(), ErrorKind::Unknown);
        wait(task()).unwrap();
        kit.apply(&task()).unwrap();
    }
    assert_eq!(kit.ids().len(), 6);
}

/// A thread that panicked while it led for others was handed the turn again, for its own queued request, and did not come:
/// the turn was lost.
#[test]
fn p12_a_leader_s_panic_before_its_own_request_leaves_the_turn_to_others() {
    type Call = fn(&Kit);
    let calls: [Call; 2] = [
        |kit| drop(kit.apply(&task())),
        |kit| drop(kit.turn.exclusive(Some(NOW), |_writer| ())),
    ];
    for call in calls {
        let kit = kit_with(S, Pace::LOCAL);
        // As many as a transaction takes: what comes next is served after it.
        let others = (1..Pace::LOCAL.max_lead_ops).map(|_| task());
        let tasks = std::iter::once(poison()).chain(others);
        let ops = tasks.map(|task| Op::Insert(vec![task])).collect();
        let poisoned = kit.while_led(|| kit.turn.defer(NOW, ops).unwrap());
        assert!(catch_unwind(AssertUnwindSafe(|| call(&kit))).is_err());
        let answer = Box::new(poisoned).wait();
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unknown);
        assert_eq!(kit.turn.queued_count(), 0);
        kit.apply(&task()).unwrap();
        assert_eq!(kit.ids().len(), 1);
    }
}

/// It waited for its own transaction, until its time was up.
#[test]
fn a_submitted_write_cannot_be_waited_for_inside_a_transaction_of_the_same_thread() {
    let kit = kit_with(S, Pace::LOCAL);
    let [early, late] = [task(), task()];
    let done = Box::new(kit.submit(&early));
    kit.wait_until("it is written", |kit| kit.has(early.id));
    let waited = kit.turn.exclusive(Some(NOW), |_writer| {
        (done.wait(), Box::new(kit.submit(&late)).wait())
    });
    let (done, not_yet) = waited.unwrap();
    done.unwrap();
    assert_eq!(not_yet.unwrap_err().kind(), ErrorKind::Reentrant);
    kit.apply(&task()).unwrap();
    assert!(kit.has(late.id));
}

#[test]
fn p12_a_call_gives_up_when_the_writes_before_it_take_too_long() {
    let kit = kit_with(Duration::from_millis(20), Pace::LOCAL);
    let [early, late] = [task(), task()];
    thread::scope(|scope| {
        let leader = kit.turn.with_writer(|_writer| {
            let leader = kit.queue(scope, || kit.apply(&early));
            // The leader cannot begin, and a caller after it does not wait for ever.
            let refused = scope.spawn(|| kit.apply(&late)).join().unwrap();
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Busy);
            leader
        });
        leader.join().unwrap().unwrap();
    });
    assert_eq!(*lock(&kit.refused), [NOW], "the store notes it");
    kit.apply(&task()).unwrap();
    assert!(!kit.has(late.id), "it was told that nothing is stored");
}

#[test]
fn p12_a_read_that_gives_up_is_no_failed_write() {
    let kit = kit_with(Duration::from_millis(20), Pace::LOCAL);
    kit.turn.set_leading(true);
    let read = || kit.turn.exclusive(None, |_writer| ());
    assert_eq!(read().unwrap_err().kind(), ErrorKind::Busy);
    assert!(lock(&kit.refused).is_empty());
    kit.turn.set_leading(false);
    read().unwrap();
}

#[test]
fn p14_the_queue_of_writes_is_bounded_and_a_probe_does_not_wait_for_room() {
    let kit = kit_with(Duration::from_millis(20), Pace::LOCAL);
    let queued = kit.turn.with_writer(|_writer| {
        let queued: Vec<_> = (0..MAX_QUEUED).map(|_| kit.submit(&task())).collect();
        let refused = kit.turn.submit(NOW, insert(&task())).err();
        assert_eq!(refused.map(|error| error.kind()), Some(ErrorKind::Busy));
        queued
    });
    for submitted in queued {
        block_on(submitted).unwrap();
    }
    assert_eq!(kit.ids().len(), MAX_QUEUED);
}

/// It held up maintenance for the busy timeout, and a readiness check for longer than its own.
#[test]
fn p12_a_probe_does_not_wait_for_room_in_the_queue() {
    let kit = kit_with(Duration::from_hours(1), Pace::LOCAL);
    let (sender, receiver) = channel();
    let (queued, refused) = kit.turn.with_writer(|_writer| {
        let queued: Vec<_> = (0..MAX_QUEUED).map(|_| kit.submit(&task())).collect();
        let asks = Arc::clone(&kit.turn);
        let probe = Thread::spawn("probe", move || {
            let answer = asks.submit(NOW, vec![Op::Probe]);
            sender.send(answer.err().map(|error| error.kind())).unwrap();
        });
        (queued, (receiver.recv_timeout(10 * S), probe))
    });
    assert_eq!(refused.0, Ok(Some(ErrorKind::Busy)));
    for submitted in queued {
        block_on(submitted).unwrap();
    }
}

/// Long operations end early while others wait.
#[test]
fn what_runs_sees_how_many_requests_wait_for_it() {
    let pace = Pace {
        max_lead_ops: 1,
        ..Pace::LOCAL
    };
    let kit = kit_with(60 * S, pace);
    thread::scope(|scope| {
        kit.turn.with_writer(|_writer| {
            for _ in 0..3 {
                kit.queue(scope, || kit.apply(&task()).unwrap());
            }
        });
    });
    let log = lock(&kit.log);
    let waiting: Vec<usize> = log.iter().map(|batch| batch.waiting).collect();
    assert_eq!(waiting, [2, 1, 0]);
}
