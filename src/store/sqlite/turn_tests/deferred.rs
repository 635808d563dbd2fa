//! Writes that wait for another caller's transaction to share.

use super::*;

impl Kit {
    /// Does something while another thread seems to lead.
    pub(super) fn while_led<T>(&self, act: impl FnOnce() -> T) -> T {
        let lead = |leading| {
            self.store.turn.set_leading(leading);
        };
        lead(true);
        let done = act();
        lead(false);
        done
    }
}

#[test]
fn a_deferred_write_is_made_at_once_if_nobody_leads() {
    let kit = kit();
    let task = task();
    let mut ticket = kit.store.defer(NOW, vec![Op::Insert(vec![task.clone()])]);
    assert!(ticket.try_take().unwrap().is_ok());
    assert!(kit.has(task.id));
}

#[test]
fn a_deferred_write_shares_the_next_caller_s_transaction() {
    let kit = kit();
    let (deferred, callers) = (task(), task());
    let defer = || {
        kit.store
            .defer(NOW, vec![Op::Insert(vec![deferred.clone()])])
    };
    let mut ticket = kit.while_led(defer);
    assert!(ticket.try_take().is_none() && !kit.has(deferred.id));
    kit.insert(vec![callers]).unwrap();
    assert!(ticket.try_take().unwrap().is_ok());
    assert!(kit.has(deferred.id));
}

#[test]
fn p12_a_deferred_write_that_nobody_shares_is_made_for_who_waits() {
    let kit = kit();
    let settle = || {
        let ops = vec![Op::Settle(Vec::new())];
        kit.store.defer(NOW, ops)
    };
    let ticket = kit.while_led(settle);
    assert_eq!(kit.queued(), 1);
    ticket.wait().unwrap();
    assert_eq!(kit.queued(), 0);
}

#[test]
fn p1_a_deferred_write_is_made_before_the_store_is_gone() {
    let kit = kit();
    let task = task();
    let defer = || kit.store.defer(NOW, vec![Op::Insert(vec![task.clone()])]);
    drop(kit.while_led(defer));
    let Kit { store, dir } = kit;
    drop(store);
    let conn = rusqlite::Connection::open(dir.path().join("turn.db")).unwrap();
    let count = "SELECT count(*) FROM punctual_task";
    let rows: i64 = conn.query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
}

/// The scheduler's own write is not served by a caller once he has his answer: its thread is told that the turn is free.
#[test]
fn p12_what_the_scheduler_writes_is_made_though_no_caller_comes() {
    let kit = kit();
    let own = || kit.store.apply(NOW, vec![Op::Expire { limit: 1 }]);
    std::thread::scope(|scope| {
        let caller = kit.store.turn.with_writer(|_| {
            let caller = scope.spawn(|| kit.insert(vec![task()]));
            while kit.queued() < 1 {
                std::thread::yield_now();
            }
            caller
        });
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(own)).collect();
        caller.join().unwrap().unwrap();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    });
    assert_eq!(kit.queued(), 0);
    assert!(!kit.store.turn.is_led());
}
