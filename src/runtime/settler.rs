//! Settles ended attempts: keeps each end until the store has answered.
//!
//! Invariant: an end is kept until its settlement is known to be stored, or known to be stale. No error of the store loses
//! one. If the answer to a claim is lost, the transaction that makes the next claim first gives back what is not held here.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{ErrorKind, Result};
use crate::log::log;
use crate::model::lane::ClaimRequest;
use crate::model::op::{Op, Reply, Settled};
use crate::model::retention::Retention;
use crate::model::settle::{Claim, Settlement};
use crate::runtime::finish::Finished;
use crate::runtime::gather::{Passing, Situation, joins_for, wait};
use crate::runtime::link::Link;
use crate::runtime::shutdown::ShutdownState;
use crate::store::Ticket;
use crate::time::{Stopwatch, Timestamp};

/// Settles ended attempts.
#[derive(Debug)]
pub(crate) struct Settler {
    link: Arc<Link>,
    shutdown: Arc<ShutdownState>,
    retention: Retention,
    /// Ends whose settlement failed, for the next transaction.
    unsettled: Vec<Finished>,
    /// Settlements that wait in the store for a caller's transaction to share.
    deferred: Option<Deferred>,
    /// Callers write continuously: settlements find the write turn taken.
    is_crowded: bool,
    /// How many tasks were settled since the last pruning.
    unpruned: usize,
    /// The outcome of a commit is unknown: it may have claimed tasks that are not held here.
    in_doubt: bool,
}

/// Settlements that are with the store and not answered.
#[derive(Debug)]
struct Deferred {
    ticket: Ticket,
    batch: Batch,
    since: Stopwatch,
}

/// Ended attempts, each with its settlement, which is shared with the store until the answer.
#[derive(Debug)]
struct Batch {
    finished: Vec<Finished>,
    passing: Passing,
}

impl Settler {
    pub(crate) fn new(link: Arc<Link>, shutdown: Arc<ShutdownState>, retention: Retention) -> Self {
        Self {
            link,
            shutdown,
            retention,
            unsettled: Vec::new(),
            deferred: None,
            is_crowded: false,
            unpruned: 0,
            in_doubt: false,
        }
    }

    /// Takes the answer to deferred settlements if it has come. Waits for it once they were deferred for as long as they may
    /// be.
    pub(crate) fn collect(&mut self) -> Result<()> {
        if let Some(deferred) = self.deferred.take() {
            self.collect_from(deferred)?;
        }
        Ok(())
    }

    /// Takes the ends to settle next. `saw` is called, once for each new end, with how long its handler ran.
    pub(crate) fn take(&mut self, mut saw: impl FnMut(&Arc<str>, Duration)) -> Vec<Finished> {
        let mut finished = std::mem::take(&mut self.unsettled);
        if self.deferred.is_none() {
            let before = finished.len();
            finished.extend(self.link.finish.take());
            for each in &finished[before..] {
                if let Some(took) = each.ran {
                    saw(&each.kind, took);
                }
            }
        }
        finished
    }

    /// Keeps ends for the next transaction.
    pub(crate) fn keep(&mut self, finished: impl IntoIterator<Item = Finished>) {
        self.unsettled.extend(finished);
    }

    /// Settles and claims in one transaction, and returns the claims. `has_caps`: a queue has a cap, so the end of one of its
    /// tasks makes room for the next.
    ///
    /// # Errors
    ///
    /// Those of the store. The ends are kept for the next transaction.
    pub(crate) fn transact(
        &mut self,
        finished: Vec<Finished>,
        claim: Option<ClaimRequest>,
        has_caps: bool,
        now: Timestamp,
    ) -> Result<Vec<Claim>> {
        // Over once a call has nothing to settle.
        self.is_crowded &= !finished.is_empty() || self.deferred.is_some();
        let passing = Passing {
            claims: claim.is_some(),
            disowns: self.in_doubt,
            is_deferred: self.deferred.is_some(),
            has_caps,
            is_stopping: self.shutdown.is_stopping(),
        };
        self.unpruned += finished.len();
        let batch = Batch {
            finished: self.settled_already(finished),
            passing,
        };
        let ops = self.operations(&batch, claim, now);
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        if joins_for(passing, self.link.pace).is_zero() {
            let answer = self.link.client.store.apply(now, ops);
            return self.answered(batch, answer);
        }
        let deferred = Deferred {
            ticket: self.link.client.store.defer(now, ops),
            batch,
            since: Stopwatch::start(),
        };
        self.collect_from(deferred)
    }

    /// When to settle next: now, if enough ends are there. Workers notify the dispatcher once there are enough. `waiting`:
    /// how many tasks wait for a worker.
    pub(crate) fn next(&self, waiting: usize, has_caps: bool, now: Timestamp) -> Option<Timestamp> {
        let situation = Situation {
            has_waiters: self.link.signals().waiters().any(),
            has_caps,
            is_stopping: self.shutdown.is_stopping(),
            is_deferred: self.deferred.is_some(),
            is_crowded: self.is_crowded,
            waiting,
        };
        let wait = wait(situation, self.link.pace);
        if self.link.finish.wake_for(wait.enough) || !self.unsettled.is_empty() {
            return Some(now);
        }
        wait.at_most.map(|span| now + span)
    }

    /// Notes that a commit may have claimed tasks that are not held here.
    pub(crate) fn doubt(&mut self) {
        self.in_doubt = true;
    }

    pub(crate) fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Drops all ends: the store has stopped, so nothing can be settled any more.
    pub(crate) fn forget(&mut self) {
        self.unsettled.clear();
        self.deferred = None;
        self.link.finish.take();
    }

    fn operations(
        &mut self,
        batch: &Batch,
        claim: Option<ClaimRequest>,
        now: Timestamp,
    ) -> Vec<Op> {
        let mut ops = Vec::with_capacity(4);
        if batch.passing.disowns {
            let held = self.link.attempts.fences();
            ops.push(Op::Disown { held });
        }
        if !batch.finished.is_empty() {
            ops.push(Op::Settle(batch.settlements()));
        }
        if self.unpruned >= self.link.pace.prune_from {
            let limit = (2 * std::mem::take(&mut self.unpruned)).min(self.link.pace.max_prune);
            let cutoffs = self.retention.cutoffs(now);
            ops.push(Op::Prune { cutoffs, limit });
        }
        ops.extend(claim.map(Op::Claim));
        ops
    }

    /// Frees the slots of attempts that were settled in a transaction of their own, and returns the other ends.
    fn settled_already(&self, finished: Vec<Finished>) -> Vec<Finished> {
        if finished.iter().all(|each| each.settlement.is_some()) {
            return finished;
        }
        let (unsettled, settled): (Vec<_>, Vec<_>) = finished
            .into_iter()
            .partition(|each| each.settlement.is_some());
        if self.shutdown.is_stopping() {
            settled.iter().for_each(|each| self.shutdown.count(each));
        }
        let slots = settled.into_iter().map(|each| each.slot);
        self.link.attempts.free(slots);
        unsettled
    }

    fn collect_from(&mut self, mut deferred: Deferred) -> Result<Vec<Claim>> {
        let passing = Passing {
            is_stopping: self.shutdown.is_stopping(),
            ..deferred.batch.passing
        };
        let at_most = joins_for(passing, self.link.pace);
        let answer = match deferred.ticket.try_take() {
            Some(answer) => answer,
            None if deferred.since.elapsed() >= at_most => deferred.ticket.wait(),
            None => {
                self.is_crowded = true;
                self.deferred = Some(deferred);
                return Ok(Vec::new());
            }
        };
        self.answered(deferred.batch, answer)
    }

    fn answered(&mut self, batch: Batch, answer: Result<Vec<Reply>>) -> Result<Vec<Claim>> {
        let replies = match answer {
            Ok(replies) => replies,
            Err(error) => {
                self.unsettled.extend(batch.finished);
                self.in_doubt |= error.kind() == ErrorKind::Unknown;
                return Err(error);
            }
        };
        // Only an answer to a transaction that gave back what is not held ends the doubt.
        self.in_doubt &= !batch.passing.disowns;
        let mut claimed = Vec::new();
        for reply in replies {
            match reply {
                Reply::Settled(answers) => self.count(&batch, &answers),
                Reply::Claimed(claims) => claimed = claims,
                _ => {}
            }
        }
        let slots = batch.finished.into_iter().map(|each| each.slot);
        self.link.attempts.free(slots);
        Ok(claimed)
    }

    fn count(&self, batch: &Batch, answers: &[Settled]) {
        for (each, answer) in batch.finished.iter().zip(answers) {
            if let (Settled::Stale, Some(settlement)) = (answer, &each.settlement) {
                log!(warn, task = %settlement.id, "the result of a stale attempt was dropped");
            }
            if batch.passing.is_stopping {
                self.shutdown.count(each);
            }
        }
    }
}

impl Batch {
    fn settlements(&self) -> Vec<Arc<Settlement>> {
        let settlements = self.finished.iter();
        settlements
            .filter_map(|each| each.settlement.clone())
            .collect()
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::model::outcome::Outcome;
    use crate::model::settle::tests::claim;
    use crate::model::settle::{Asked, End};
    use crate::runtime::job::Job;
    use crate::runtime::link::tests::{NOW, faulty, link};
    use crate::store::faulty::Fault;

    impl Settler {
        /// As if a transaction without ends had been deferred and answered.
        pub(crate) fn defer_nothing(&mut self) {
            self.deferred = Some(Deferred {
                ticket: Ticket::ready(Ok(Vec::new())),
                batch: Batch {
                    finished: Vec::new(),
                    passing: Passing::default(),
                },
                since: Stopwatch::start(),
            });
        }
    }

    fn settler(link: &Arc<Link>) -> Settler {
        Settler::new(Arc::clone(link), Arc::default(), Retention::default())
    }

    /// A task whose handler has returned. The store does not know it, so it answers that the attempt is stale.
    fn completed(link: &Arc<Link>) {
        for job in Job::hold(link, vec![claim(1, 0, 3)], |_| Duration::ZERO) {
            job.start().unwrap().end(End::Returned {
                result: Ok(Outcome::done()),
                asked: Asked::Not,
            });
        }
    }

    fn settle(settler: &mut Settler) -> Result<Vec<Claim>> {
        let finished = settler.take(|_, _| ());
        settler.transact(finished, None, false, NOW)
    }

    #[test]
    fn p4_ends_that_the_store_did_not_take_are_kept_with_their_places() {
        let (faults, link) = faulty();
        let mut settler = settler(&link);
        completed(&link);
        faults.of_writes([Fault::Before(ErrorKind::Busy)]);
        assert!(settle(&mut settler).is_err());
        assert_eq!(link.attempts.count(), 1, "it is held still");
        assert_eq!(settler.next(0, false, NOW), Some(NOW), "and settled soon");
        settle(&mut settler).unwrap();
        assert_eq!(link.attempts.count(), 0);
        assert_eq!(settler.next(0, false, NOW), None);
    }

    #[test]
    fn p7_a_doubt_lasts_until_what_is_not_held_was_given_back() {
        let (faults, link) = faulty();
        let mut settler = settler(&link);
        completed(&link);
        faults.of_writes([Fault::After, Fault::Before(ErrorKind::Busy)]);
        assert!(settle(&mut settler).is_err() && settler.is_in_doubt());
        assert!(settle(&mut settler).is_err() && settler.is_in_doubt());
        settler.defer_nothing();
        settler.collect().unwrap();
        assert!(settler.is_in_doubt(), "that was asked before the doubt");
        settle(&mut settler).unwrap();
        assert!(!settler.is_in_doubt());
    }

    #[test]
    fn what_a_handler_took_is_learned_once() {
        let (faults, link) = faulty();
        let mut settler = settler(&link);
        completed(&link);
        faults.of_writes([Fault::Before(ErrorKind::Busy)]);
        let mut learned = 0;
        for _ in 0..3 {
            let finished = settler.take(|_, _| learned += 1);
            let _ = settler.transact(finished, None, false, NOW);
        }
        assert_eq!(learned, 1);
    }

    /// A kind whose payloads could not be decoded passed for a quick one, and its slow tasks were claimed ahead.
    #[test]
    fn nothing_is_learned_from_a_task_whose_handler_was_not_called() {
        let link = link();
        let mut settler = settler(&link);
        let ends = [
            End::Undecodable("another version".into()),
            End::Damaged("crc"),
        ];
        for end in ends {
            for job in Job::hold(&link, vec![claim(1, 0, 3)], |_| Duration::ZERO) {
                job.start().unwrap().end(end.clone());
            }
        }
        let finished = settler.take(|_, _| panic!("it has no duration"));
        assert_eq!(finished.len(), 2);
        assert!(finished[0].waits_uncalled(), "so a shutdown counts it");
        assert!(!finished[0].is_refused, "its start was noted");
    }

    #[test]
    fn completions_are_gathered_while_many_tasks_wait_and_no_caller_does() {
        let link = link();
        let settler = settler(&link);
        let pace = link.pace;
        assert_eq!(settler.next(20, false, NOW), Some(NOW + pace.gather));
        (0..9).for_each(|_| completed(&link));
        assert_eq!(settler.next(20, false, NOW), Some(NOW + pace.gather));
        assert_eq!(settler.next(20, true, NOW), Some(NOW), "a queue has a cap");
        completed(&link);
        assert_eq!(settler.next(20, false, NOW), Some(NOW), "that is enough");
    }

    #[test]
    fn p14_many_settled_tasks_pay_for_pruning() {
        let link = link();
        let mut settler = settler(&link);
        for _ in 0..link.pace.prune_from - 1 {
            completed(&link);
        }
        settle(&mut settler).unwrap();
        assert_eq!(settler.unpruned, link.pace.prune_from - 1);
        completed(&link);
        settle(&mut settler).unwrap();
        assert_eq!(settler.unpruned, 0);
    }
}
