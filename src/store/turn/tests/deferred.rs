//! Writes that wait for another caller's transaction to share.

use super::*;

impl Kit {
    /// Does something while another thread seems to lead.
    pub(super) fn while_led<T>(&self, act: impl FnOnce() -> T) -> T {
        self.turn.set_leading(true);
        let done = act();
        self.turn.set_leading(false);
        done
    }

    fn defer(&self, task: &Insert) -> Submitted<Recorder> {
        self.turn.defer(NOW, insert(task)).unwrap()
    }
}

fn answer(submitted: &mut Submitted<Recorder>) -> Option<Result<Vec<Reply>>> {
    match submitted.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

#[test]
fn a_deferred_write_is_made_at_once_if_nobody_leads() {
    let kit = kit();
    let task = task();
    let mut deferred = kit.defer(&task);
    assert!(answer(&mut deferred).unwrap().is_ok());
    assert!(kit.has(task.id));
}

#[test]
fn a_deferred_write_shares_the_next_caller_s_transaction() {
    let kit = kit();
    let [first, caller] = [task(), task()];
    let mut deferred = kit.while_led(|| kit.defer(&first));
    assert!(answer(&mut deferred).is_none() && !kit.has(first.id));
    kit.apply(&caller).unwrap();
    assert!(answer(&mut deferred).unwrap().is_ok());
    let log = lock(&kit.log);
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].ids, [first.id, caller.id]);
}

#[test]
fn p12_a_deferred_write_that_nobody_shares_is_made_for_who_waits() {
    let kit = kit();
    let settle = || kit.turn.defer(NOW, vec![Op::Settle(Vec::new())]).unwrap();
    let deferred = kit.while_led(settle);
    assert_eq!(kit.turn.queued_count(), 1);
    Box::new(deferred).wait().unwrap();
    assert_eq!(kit.turn.queued_count(), 0);
}

#[test]
fn p1_what_is_queued_is_written_before_the_turn_is_gone() {
    let kit = kit();
    let task = task();
    drop(kit.while_led(|| kit.defer(&task)));
    kit.turn.finish();
    assert!(kit.has(task.id));
}

/// The scheduler's own write is not served by a caller once the caller has its answer: its thread is told that the turn is
/// free.
#[test]
fn p12_what_the_scheduler_writes_is_made_though_no_caller_comes() {
    let kit = kit();
    let own = || kit.turn.apply(NOW, vec![Op::Expire { limit: 1 }]).unwrap();
    thread::scope(|scope| {
        kit.turn.with_writer(|_writer| {
            kit.queue(scope, || kit.apply(&task()).unwrap());
        });
        (0..4).for_each(|_| drop(scope.spawn(own)));
    });
    assert_eq!(kit.turn.queued_count(), 0);
    assert!(!kit.turn.is_led());
}

/// A leader does not wake a thread that waits for a caller's transaction.
#[test]
fn p12_who_waits_for_a_deferred_write_looks_whether_the_turn_is_free() {
    let kit = kit_with(S, Pace::LOCAL);
    let deferred = kit.while_led(|| kit.defer(&task()));
    kit.turn.set_leading(true);
    thread::scope(|scope| {
        let waits = scope.spawn(|| Box::new(deferred).wait());
        kit.wait_until("it waits", |kit| kit.turn.is_waited_for());
        kit.turn.set_leading(false);
        waits.join().unwrap().unwrap();
    });
}
