//! How long the end of an attempt waits until its settlement is passed to the store: the one place that decides it.
//!
//! A commit has its price, so completions share one while the workers have enough to do, or callers keep the store busy. Any
//! other end is passed on at once, for something follows from it; so is every end while somebody waits for one. The spans
//! are the store's [`Pace`], which says how they relate to the store's own.

use crate::model::settle::Settlement;
use crate::store::Pace;

/// What the wait depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation {
    /// A caller waits for the end of a task, the next task of a limited queue waits for it, or the scheduler stops.
    pub(crate) is_awaited: bool,
    /// Settlements of before are with the store and not answered: the next ones come after those.
    pub(crate) is_deferred: bool,
    /// Callers write all the time.
    pub(crate) is_crowded: bool,
    /// Tasks that wait for a worker.
    pub(crate) waiting: usize,
}

/// How many completions have to come together before they are passed on, unless [`Pace::gather`] is over first. 1: each is
/// passed on at once.
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

/// Whether an end may wait for others at all; `None`: it was settled in a transaction of its own.
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
