//! What a transaction has done, to be published once it has committed.

use std::sync::Mutex;

use crate::model::settle::{Claim, Fence};
use crate::store::lanes::{Lanes, Learnt};
use crate::store::signals::{News, Signals};
use crate::store::standing_claim::Taken;
use crate::sync::lock;
use crate::time::Timestamp;

/// What a transaction has done. If it certainly does not commit, [`undo`](Self::undo) it; if that is not known, drop it.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) news: News,
    pub(crate) learnt: Learnt,
    /// Claims of this instance that are settled: their handlers are not running any more.
    pub(crate) settled: Vec<Fence>,
    /// The earliest start deadline that maintenance may not know of.
    pub(crate) expires: Option<Timestamp>,
    /// The standing claim, and what it claimed.
    pub(crate) standing_claim: Option<(Taken, Vec<Claim>)>,
}

impl Done {
    /// After COMMIT: first updates what is known of the store and sends the events, then answers the callers, then notifies
    /// everything else. So a caller that has its answer finds the events of its call, even if the store is closed at once.
    /// `settled` is called with the settled claims, if there are any.
    pub(crate) fn publish(
        mut self,
        lanes: &Mutex<Lanes>,
        signals: &Signals,
        settled: impl FnOnce(&[Fence]),
        answer: impl FnOnce(),
    ) {
        let recurrence_at = self.learnt.recurrence_at();
        lock(lanes).learn(self.learnt);
        if let Some((standing_claim, claims)) = self.standing_claim {
            standing_claim.end(claims);
        }
        if !self.settled.is_empty() {
            settled(&self.settled);
        }
        signals.cancel(&self.news.cancelled);
        signals.publish(&mut self.news);
        answer();
        if let Some(at) = self.expires {
            signals.expires(at);
        }
        if let Some(at) = recurrence_at {
            signals.recurs(at);
        }
        signals.notify(&self.news);
    }

    /// The transaction has certainly not committed: gives the standing claim back.
    pub(crate) fn undo(self) {
        if let Some((standing_claim, _)) = self.standing_claim {
            standing_claim.end(Vec::new());
        }
    }

    /// Whether the standing claim came along.
    pub(crate) fn has_standing_claim(&self) -> bool {
        self.standing_claim.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::lane::ClaimRequest;
    use crate::model::pool::PerPool;
    use crate::model::settle::tests::claim;
    use crate::store::events::Received;
    use crate::store::events::tests::event;
    use crate::wake::Wake;

    /// Signals with a standing claim that a transaction has taken, the transaction's claims, and the runner's wake.
    fn taken() -> (Signals, Done, Wake) {
        let (signals, wake) = (Signals::default(), Wake::new());
        signals.set_runner(wake.clone());
        let request = ClaimRequest {
            queues: Vec::new(),
            free: PerPool::threads(1),
            budget: Duration::ZERO,
            limit: 1,
            suspects: Default::default(),
            lanes_version: 0,
        };
        signals.standing_claim().leave(request, 0);
        let standing_claim = signals.standing_claim().take(0).unwrap();
        let done = Done {
            standing_claim: Some((standing_claim, vec![claim(1, 0, 3)])),
            ..Done::default()
        };
        (signals, done, wake)
    }

    #[test]
    fn claims_are_granted_cancellations_noted_and_events_sent_before_the_callers_are_answered() {
        let (signals, mut done, _wake) = taken();
        let events = signals.subscriptions().subscribe(1);
        done.news.events.push(event());
        let cancelled = claim(1, 0, 3).fence;
        done.news.cancelled.push(cancelled);
        done.settled.push(cancelled);
        let lanes = Mutex::default();
        let mut freed = Vec::new();
        done.publish(
            &lanes,
            &signals,
            |settled| freed.extend(settled.to_vec()),
            || {
                assert!(signals.standing_claim().has_granted());
                assert!(signals.is_cancelled(cancelled));
                assert!(matches!(events.try_next(), Received::Event(_)));
                assert!(lanes.try_lock().is_ok(), "callers may look at the lanes");
            },
        );
        assert_eq!(freed, [cancelled]);
    }

    #[test]
    fn p4_a_standing_claim_of_a_transaction_that_is_undone_stands_again() {
        let (signals, done, wake) = taken();
        done.undo();
        assert!(!signals.standing_claim().has_granted());
        assert!(signals.standing_claim().stands());
        assert!(!signals.standing_claim().withdraw().in_doubt);
        assert!(!wake.wait(Duration::ZERO));
    }

    #[test]
    fn p4_a_standing_claim_of_a_transaction_that_is_dropped_is_in_doubt() {
        let (signals, done, wake) = taken();
        drop(done);
        assert!(signals.standing_claim().withdraw().in_doubt);
        assert!(wake.wait(Duration::ZERO), "the runner finds out");
    }
}
