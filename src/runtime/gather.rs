//! Decides how long the end of an attempt waits to be settled: before its settlement is passed to the store, and then in the
//! store. No other place does.
//!
//! A commit is expensive, so completions share one while the workers have enough to do, or callers keep the store busy. Any
//! other end is passed on at once, because more follows from it; so is every end while a caller waits for one. But all ends
//! wait while earlier settlements are unanswered. What is passed on may then wait for a caller's transaction, which a claim, a
//! doubt, a queue with a cap and a shutdown do not. The spans are in [`Pace`], which also has the store's own waits.

use std::time::Duration;

use crate::model::settle::Settlement;
use crate::store::Pace;

/// What the wait before the store depends on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Situation {
    /// A caller waits for the end of a task.
    pub(crate) has_waiters: bool,
    /// A queue has a cap: the end of one of its tasks makes room for the next.
    pub(crate) has_caps: bool,
    pub(crate) is_stopping: bool,
    /// Earlier settlements are with the store and not answered: the next ones wait for their answer.
    pub(crate) is_deferred: bool,
    /// Callers write continuously.
    pub(crate) is_crowded: bool,
    /// How many tasks wait for a worker.
    pub(crate) waiting: usize,
}

/// How completions wait before they are passed to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait {
    /// This many are passed on at once.
    pub(crate) enough: usize,
    /// How long fewer wait for more; `None`: there are none, since one is enough.
    pub(crate) at_most: Option<Duration>,
}

/// A transaction that settles, on its way to the store or waiting there.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Passing {
    /// It also claims.
    pub(crate) claims: bool,
    /// It also gives back claims that are not held here.
    pub(crate) disowns: bool,
    /// Earlier settlements are with the store and not answered.
    pub(crate) is_deferred: bool,
    /// A queue has a cap: the end of one of its tasks makes room for the next.
    pub(crate) has_caps: bool,
    pub(crate) is_stopping: bool,
}

/// How completions wait in this situation.
pub(crate) fn wait(situation: Situation, pace: Pace) -> Wait {
    let is_awaited = situation.has_waiters || situation.has_caps || situation.is_stopping;
    let enough = if situation.is_deferred {
        usize::MAX
    } else if is_awaited {
        1
    } else if situation.waiting >= pace.gather_from {
        situation.waiting / 2
    } else if situation.is_crowded {
        pace.gathered
    } else {
        1
    };
    Wait {
        enough,
        at_most: (enough > 1).then_some(pace.gather),
    }
}

/// How long a transaction may wait in the store to join a caller's; then the dispatcher waits for its answer. Zero: it does so
/// at once. Whether callers wait for the ends in it makes no difference.
pub(crate) fn joins_for(passing: Passing, pace: Pace) -> Duration {
    let may_join = !passing.claims
        && !passing.disowns
        && !passing.is_deferred
        && !passing.has_caps
        && !passing.is_stopping;
    if may_join {
        pace.gather
    } else {
        Duration::ZERO
    }
}

/// Whether an end may wait for others; `None`: an end that was settled in a transaction of its own, which may.
pub(crate) fn may_wait(settlement: Option<&Settlement>) -> bool {
    settlement.is_none_or(Settlement::is_completion)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::outcome::Outcome;
    use crate::model::retry::RetryPolicy;
    use crate::model::settle::tests::claim;
    use crate::model::settle::{Asked, End, settle};
    use crate::time::Timestamp;

    #[test]
    fn completions_are_gathered_while_nobody_waits_for_one() {
        let pace = Pace::LOCAL;
        let with = |change: fn(&mut Situation)| {
            let mut situation = Situation::default();
            change(&mut situation);
            situation
        };
        let busy = |each: Situation| Situation {
            waiting: 20,
            is_crowded: true,
            ..each
        };
        let deferred = |each: Situation| Situation {
            is_deferred: true,
            ..each
        };
        let mut table = vec![
            (with(|_| ()), 1),
            (with(|each| each.waiting = Pace::LOCAL.gather_from - 1), 1),
            (with(|each| each.waiting = 20), 10),
            (with(|each| each.is_crowded = true), pace.gathered),
            (busy(with(|_| ())), 10),
            (busy(with(|each| each.has_waiters = true)), 1),
            (busy(with(|each| each.has_caps = true)), 1),
            (busy(with(|each| each.is_stopping = true)), 1),
        ];
        let all_deferred = table.iter().map(|(each, _)| (deferred(*each), usize::MAX));
        table.extend(all_deferred.collect::<Vec<_>>());
        for (situation, enough) in table {
            let at_most = (enough > 1).then_some(pace.gather);
            let expected = Wait { enough, at_most };
            assert_eq!(wait(situation, pace), expected, "{situation:?}");
        }
    }

    #[test]
    fn some_transactions_join_no_other() {
        let pace = Pace::LOCAL;
        let table: [(fn(&mut Passing), Duration); 6] = [
            (|_| (), pace.gather),
            (|each| each.claims = true, Duration::ZERO),
            (|each| each.disowns = true, Duration::ZERO),
            (|each| each.is_deferred = true, Duration::ZERO),
            (|each| each.has_caps = true, Duration::ZERO),
            (|each| each.is_stopping = true, Duration::ZERO),
        ];
        for (change, expected) in table {
            let mut passing = Passing::default();
            change(&mut passing);
            assert_eq!(joins_for(passing, pace), expected, "{passing:?}");
        }
    }

    #[test]
    fn only_a_completion_may_wait() {
        let settled = |end| {
            let policy = RetryPolicy::default();
            settle(&claim(1, 0, 3), end, &policy, 0.5, Timestamp::MIN)
        };
        let returned = |result| End::Returned {
            result,
            asked: Asked::Not,
        };
        assert!(may_wait(None));
        assert!(may_wait(Some(&settled(returned(Ok(Outcome::done()))))));
        assert!(!may_wait(Some(&settled(returned(Err("no".into()))))));
        assert!(!may_wait(Some(&settled(End::Unstarted))));
    }
}
