//! Who calls the wakers of answered receipts, and what a waker can hold up.

use std::sync::mpsc::Sender;

use super::*;
use crate::store::turn::helpers::MAX_HELPERS;
use crate::time::Stopwatch;

/// Panics when it is woken.
struct Bomb;

impl TaskWake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("as it should");
    }
}

#[test]
fn p12_a_waker_that_panics_hurts_nobody_else() {
    let kit = kit();
    let bomb = Waker::from(Arc::new(Bomb));
    let [polled, other] = [task(), task()];
    let (mut first, second) = kit.turn.with_writer(|_writer| {
        let mut first = kit.submit(&polled);
        assert!(first.poll(&mut Context::from_waker(&bomb)).is_pending());
        (first, kit.submit(&other))
    });
    Box::new(second).wait().unwrap();
    kit.apply(&task()).unwrap();
    assert!(kit.has(polled.id) && kit.has(other.id));
    assert!(first.poll(&mut Context::from_waker(&bomb)).is_ready());
}

/// Sends when it is woken, and then waits for the end of the test.
struct Blocks {
    woken: Sender<()>,
    end: crossbeam_channel::Receiver<()>,
}

impl TaskWake for Blocks {
    fn wake(self: Arc<Self>) {
        let _ = self.woken.send(());
        let _ = self.end.recv();
    }
}

/// Sends when it is woken.
struct Tells(Sender<()>);

impl TaskWake for Tells {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

/// A turn whose next leader waits for two tasks, as good as for ever.
fn kit_that_has_woken_two_tasks() -> Kit {
    let pace = Pace {
        regroup: 1e9,
        max_lead: 60 * S,
        ..Pace::LOCAL
    };
    let kit = kit_with(600 * S, pace);
    let (woken, when_woken) = channel();
    let waker = Waker::from(Arc::new(Tells(woken)));
    let _answered = kit.while_led(|| [0, 1].map(|_| kit.submit_polled(&task(), &waker)));
    kit.turn.line.helpers.lead();
    for _ in 0..2 {
        when_woken.recv_timeout(60 * S).unwrap();
    }
    kit
}

#[test]
fn tasks_whose_receipts_were_answered_together_share_their_next_transaction() {
    let kit = kit_that_has_woken_two_tasks();
    let again = [task(), task()];
    drop(kit.submit(&again[0]));
    kit.wait_until("a helper leads", |kit| kit.turn.is_led());
    for _ in 0..1000 {
        thread::yield_now();
    }
    drop(kit.submit(&again[1]));
    kit.wait_until("they are written", |kit| kit.has(again[1].id));
    let log = lock(&kit.log);
    let sizes: Vec<usize> = log.iter().map(|batch| batch.ids.len()).collect();
    assert_eq!(sizes, [2, 2]);
}

/// It spun for the whole span, although nothing could share its transaction.
#[test]
fn a_caller_s_own_transaction_does_not_wait_for_woken_tasks() {
    let kit = kit_that_has_woken_two_tasks();
    let began = Stopwatch::start();
    kit.turn.exclusive(Some(NOW), |_writer| ()).unwrap();
    assert!(began.elapsed() < 30 * S);
}

/// A helper that calls wakers does not hold the turn.
#[test]
fn p12_a_caller_leads_while_a_waker_blocks() {
    let kit = kit();
    let (woken, when_woken) = channel();
    let (end, ended) = crossbeam_channel::bounded::<()>(0);
    let waker = Waker::from(Arc::new(Blocks { woken, end: ended }));
    let _submitted = kit.while_led(|| kit.submit_polled(&task(), &waker));
    kit.turn.line.helpers.lead();
    when_woken.recv_timeout(60 * S).unwrap();
    assert!(!kit.turn.is_led());
    kit.apply(&task()).unwrap();
    assert_eq!(
        lock(&kit.log).last().unwrap().leader,
        thread::current().id()
    );
    drop(end);
}

/// More of them than there are helpers.
#[test]
fn p12_wakers_that_block_stop_no_write_that_is_submitted() {
    const WAKERS: usize = MAX_HELPERS + 5;
    let kit = kit();
    let (woken, when_woken) = channel();
    let (end, ended) = crossbeam_channel::bounded::<()>(0);
    let mut polled = Vec::new();
    for _ in 0..WAKERS {
        let waker = Waker::from(Arc::new(Blocks {
            woken: woken.clone(),
            end: ended.clone(),
        }));
        let task = task();
        let submitted = kit
            .turn
            .with_writer(|_writer| kit.submit_polled(&task, &waker));
        // A thread that waited for it could lead.
        kit.wait_until("it is written", |kit| kit.has(task.id));
        polled.push(submitted);
    }
    let write = || {
        let task = task();
        drop(kit.submit(&task));
        kit.wait_until("it is written", |kit| kit.has(task.id));
    };
    for _ in 1..MAX_HELPERS {
        when_woken.recv_timeout(60 * S).unwrap();
    }
    write();
    assert_eq!(kit.turn.blocked_wakers(), MAX_HELPERS - 1);
    // One comes back, and then blocks in another waker.
    end.send(()).unwrap();
    when_woken.recv_timeout(60 * S).unwrap();
    write();
    drop(end);
    for _ in MAX_HELPERS..WAKERS {
        when_woken.recv_timeout(60 * S).expect("all are called");
    }
}

/// The task of the other receipt may be what the first one waits for.
#[test]
fn p12_a_waker_that_blocks_delays_no_waker_of_the_same_transaction() {
    let kit = kit();
    let ((woken, when_woken), (told, when_told)) = (channel(), channel());
    let (end, ended) = crossbeam_channel::bounded::<()>(0);
    let blocks = Waker::from(Arc::new(Blocks { woken, end: ended }));
    let tells = Waker::from(Arc::new(Tells(told)));
    let _pair = kit.while_led(|| [&blocks, &tells].map(|waker| kit.submit_polled(&task(), waker)));
    kit.turn.line.helpers.lead();
    when_woken.recv_timeout(60 * S).unwrap();
    when_told.recv_timeout(60 * S).unwrap();
    drop(end);
}
