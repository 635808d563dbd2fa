//! Decides how long the end of an attempt waits until its settlement is passed to the store. No other place does.
//!
//! A commit is expensive, so completions share one while the workers have enough to do, or callers keep the store busy. Any
//! other end is passed on at once, because more follows from it; so is every end while a caller waits for one. But all ends
//! wait while earlier settlements are unanswered. The spans are in [`Pace`], which also has the store's own waits.

use crate::model::settle::Settlement;
use crate::store::Pace;

/// What the wait depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation {
    /// A caller waits for the end of a task, a queue has a cap, or the scheduler stops.
    pub(crate) is_awaited: bool,
    /// Earlier settlements are with the store and not answered: the next ones wait for their answer.
    pub(crate) is_deferred: bool,
    /// Callers write continuously.
    pub(crate) is_crowded: bool,
    /// How many tasks wait for a worker.
    pub(crate) waiting: usize,
}

/// How many completions are collected before they are passed on, unless [`Pace::gather`] is over first. 1: each is passed
/// on at once.
pub(crate) fn enough(situation: Situation, pace: Pace) -> usize {
    if situation.is_deferred {
        usize::MAX
    } else if situation.is_awaited {
        1
    } else if situation.waiting >= pace.gather_from {
        situation.waiting / 2
    } else if situation.is_crowded {
        pace.gathered
    } else {
        1
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
        let quiet = Situation {
            is_awaited: false,
            is_deferred: false,
            is_crowded: false,
            waiting: 0,
        };
        let busy = Situation {
            waiting: 20,
            ..quiet
        };
        let crowded = Situation {
            is_crowded: true,
            ..quiet
        };
        let table = [
            (quiet, 1),
            (busy, 10),
            (
                Situation {
                    waiting: pace.gather_from - 1,
                    ..quiet
                },
                1,
            ),
            (crowded, pace.gathered),
            (
                Situation {
                    is_awaited: true,
                    ..busy
                },
                1,
            ),
            (
                Situation {
                    is_awaited: true,
                    ..crowded
                },
                1,
            ),
            (
                Situation {
                    is_deferred: true,
                    ..quiet
                },
                usize::MAX,
            ),
        ];
        for (situation, expected) in table {
            assert_eq!(enough(situation, pace), expected, "{situation:?}");
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
