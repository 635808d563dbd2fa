//! The standing claim: what the runner would claim if something became due now.
//!
//! The runner leaves it with the store. The transaction that makes a task due also makes this claim, so a task that finds a
//! free worker needs no second transaction and waits for none. Each standing claim is taken once, by the next transaction.
//!
//! The granted claims stay here until a worker or the runner takes them. The thread that committed rings for the workers, so
//! a task reaches a waiting worker with one thread switch.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crate::model::lane::{ClaimRequest, QueueClaim};
use crate::model::pool::{PerPool, Pool};
use crate::model::settle::Claim;
use crate::sync::lock;
use crate::wake::{Bell, Wake};

/// A claim left with the store, and what it was granted.
#[derive(Debug, Default)]
pub(crate) struct StandingClaim {
    state: Mutex<State>,
    /// Whether there is a request to take, readable without the lock.
    stands: AtomicBool,
    /// Wakes the runner that left the claim.
    runner: OnceLock<Wake>,
    /// Rung once for each granted claim.
    workers: OnceLock<Bell>,
    /// Whether there are granted claims to take, readable without the lock.
    has_granted: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    request: Option<ClaimRequest>,
    /// How many attempts had ended when the request was left.
    ended: u64,
    /// Whether a transaction has the request.
    in_flight: bool,
    /// How many workers and places became free since a transaction took it.
    freed: PerPool<usize>,
    /// Whether the runner waits for that transaction to end.
    awaited: bool,
    /// The granted claims that were not taken yet.
    granted: Vec<Claim>,
    /// Whether a transaction with such a claim may or may not have been stored.
    in_doubt: bool,
}

/// The state in which the runner finds the standing claim that it withdraws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Withdrawn {
    /// A transaction has the claim: what it is granted comes later, with a notification.
    pub(crate) in_flight: bool,
    /// Since the last withdrawal, a transaction with such a claim may or may not have been stored.
    pub(crate) in_doubt: bool,
}

impl State {
    /// A request for no worker is not offered, but kept until a worker becomes free.
    fn stand(&mut self, stands: &AtomicBool, request: Option<ClaimRequest>) {
        let is_for_some = request
            .as_ref()
            .is_some_and(|request| request.free.total() > 0);
        stands.store(is_for_some, Ordering::Release);
        self.request = request;
    }
}

/// The same request for more workers and places.
fn more(request: ClaimRequest, freed: PerPool<usize>) -> ClaimRequest {
    ClaimRequest {
        free: PerPool {
            threads: request.free.threads + freed.threads,
            futures: request.free.futures + freed.futures,
        },
        limit: request.limit + freed.total(),
        ..request
    }
}

impl StandingClaim {
    pub(super) fn set_runner(&self, wake: Wake) {
        // A store has one runner, for as long as it is open.
        let _ = self.runner.set(wake);
    }

    pub(crate) fn set_workers(&self, workers: Bell) {
        // Likewise.
        let _ = self.workers.set(workers);
    }

    /// Leaves a claim for the workers that were free when `ended` attempts had ended. Call it only after
    /// [`withdraw`](Self::withdraw), and only if no claim was in flight then.
    pub(crate) fn leave(&self, request: ClaimRequest, ended: u64) {
        let mut state = lock(&self.state);
        state.ended = ended;
        state.stand(&self.stands, Some(request));
    }

    /// Adds one free worker, or place, to the standing claim, if there is one: the `ended`th attempt has ended.
    pub(crate) fn freed(&self, pool: Pool, ended: u64) {
        let mut state = lock(&self.state);
        if ended <= state.ended {
            // The runner counted this worker when it left the claim.
            return;
        }
        if state.in_flight {
            state.freed[pool] += 1;
        } else if let Some(request) = state.request.take() {
            let mut freed = PerPool::default();
            freed[pool] = 1;
            let request = more(request, freed);
            state.stand(&self.stands, Some(request));
        }
    }

    /// Takes the standing claim back. Unless a transaction has it, everything that it will ever be granted is granted by
    /// now.
    pub(crate) fn withdraw(&self) -> Withdrawn {
        let mut state = lock(&self.state);
        state.stand(&self.stands, None);
        state.awaited = state.in_flight;
        Withdrawn {
            in_flight: state.in_flight,
            in_doubt: std::mem::take(&mut state.in_doubt),
        }
    }

    /// Whether there are granted claims to take.
    pub(crate) fn has_granted(&self) -> bool {
        self.has_granted.load(Ordering::Acquire)
    }

    /// Takes the granted claims. Until they count as held, the caller must keep the runner from looking at what is held.
    pub(crate) fn take_granted(&self) -> Vec<Claim> {
        let mut state = lock(&self.state);
        self.has_granted.store(false, Ordering::Release);
        std::mem::take(&mut state.granted)
    }

    /// Whether there is a claim to take.
    pub(crate) fn stands(&self) -> bool {
        self.stands.load(Ordering::Acquire)
    }

    /// Takes the claim for a transaction that knows this version of the lanes, if it was planned for that version. A taken
    /// claim that is dropped without [`end`](Taken::end) counts as in doubt.
    pub(crate) fn take(self: &Arc<Self>, lanes_version: u64) -> Option<Taken> {
        if !self.stands() {
            return None;
        }
        let mut state = lock(&self.state);
        self.stands.store(false, Ordering::Release);
        let fits = |request: &ClaimRequest| {
            request.free.total() > 0 && request.lanes_version == lanes_version
        };
        let request = state.request.take().filter(fits)?;
        state.in_flight = true;
        state.freed = PerPool::default();
        Some(Taken {
            standing_claim: Arc::clone(self),
            request,
            ended: false,
        })
    }
}

/// A standing claim that a transaction has taken.
#[derive(Debug)]
pub(crate) struct Taken {
    standing_claim: Arc<StandingClaim>,
    request: ClaimRequest,
    ended: bool,
}

impl Taken {
    /// What still stands after these claims. `None` if more than the free workers must be counted: a queue's limit, or a
    /// suspect.
    fn rest(&mut self, claims: &[Claim]) -> Option<ClaimRequest> {
        let counted = |queue: &QueueClaim| queue.limit != usize::MAX;
        let free = self
            .request
            .free
            .without(claims.iter().map(|claim| claim.pool))?;
        let is_suspect = |claim: &Claim| claim.class.level().is_some();
        if self.request.queues.iter().any(counted) || claims.iter().any(is_suspect) {
            return None;
        }
        Some(ClaimRequest {
            queues: std::mem::take(&mut self.request.queues),
            limit: free.total(),
            free,
            ..self.request
        })
    }

    pub(crate) fn request(&self) -> &ClaimRequest {
        &self.request
    }

    /// The transaction has committed with these claims, or has certainly not committed.
    pub(crate) fn end(mut self, claims: Vec<Claim>) {
        self.ended = true;
        self.answer(claims, false);
    }

    fn answer(&mut self, claims: Vec<Claim>, in_doubt: bool) {
        let rest = self.rest(&claims).filter(|_| !in_doubt);
        let count = claims.len();
        let is_future = |claim: &&Claim| claim.pool == Pool::Futures;
        // The runner starts those.
        let futures = claims.iter().filter(is_future).count();
        let tells = {
            let mut state = lock(&self.standing_claim.state);
            state.in_flight = false;
            if !state.awaited {
                let rest = rest.map(|rest| more(rest, state.freed));
                state.stand(&self.standing_claim.stands, rest);
            }
            if count > 0 {
                state.granted.extend(claims);
                self.standing_claim
                    .has_granted
                    .store(true, Ordering::Release);
            }
            state.in_doubt |= in_doubt;
            in_doubt || std::mem::take(&mut state.awaited)
        };
        if let Some(workers) = self.standing_claim.workers.get() {
            workers.ring(count - futures);
        }
        if (tells || futures > 0)
            && let Some(wake) = self.standing_claim.runner.get()
        {
            wake.notify();
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.ended {
            self.answer(Vec::new(), true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lane::Class;
    use crate::model::settle::tests::claim;
    use crate::model::suspects::{Level, Suspects};
    use std::time::Duration;

    fn standing_claim() -> (Arc<StandingClaim>, Wake) {
        let (standing_claim, wake) = (Arc::<StandingClaim>::default(), Wake::new());
        standing_claim.set_runner(wake.clone());
        (standing_claim, wake)
    }

    fn request() -> ClaimRequest {
        ClaimRequest {
            queues: Vec::new(),
            free: PerPool::threads(1),
            budget: Duration::ZERO,
            limit: 1,
            suspects: Suspects::default(),
            lanes_version: 0,
        }
    }

    #[test]
    fn a_standing_claim_is_taken_once_and_the_workers_are_woken_for_what_it_claims() {
        let (standing_claim, wake) = standing_claim();
        assert!(standing_claim.take(0).is_none());
        standing_claim.leave(request(), 0);
        let taken = standing_claim.take(0).unwrap();
        assert!(standing_claim.take(0).is_none());
        let workers = Bell::default();
        standing_claim.set_workers(workers.clone());
        assert!(!standing_claim.has_granted());
        taken.end(vec![claim(1, 0, 3)]);
        assert_eq!(workers.rings(), 1);
        assert!(standing_claim.has_granted());
        assert_eq!(standing_claim.take_granted().len(), 1);
        assert!(!standing_claim.has_granted() && standing_claim.take_granted().is_empty());
        assert!(
            !wake.wait(Duration::ZERO),
            "there is nothing for the runner to do"
        );
        let withdrawn = standing_claim.withdraw();
        assert!(!withdrawn.in_flight && !withdrawn.in_doubt);
    }

    #[test]
    fn a_standing_claim_goes_on_for_the_workers_that_got_no_task() {
        let (standing_claim, wake) = standing_claim();
        let leave = |free| {
            let limit = free;
            standing_claim.leave(
                ClaimRequest {
                    free: PerPool::threads(free),
                    limit,
                    ..request()
                },
                7,
            );
            standing_claim.take(0).unwrap()
        };
        leave(2).end(vec![claim(1, 0, 3)]);
        let taken = standing_claim.take(0).unwrap();
        assert_eq!(
            (taken.request().free.threads, taken.request().limit),
            (1, 1)
        );
        taken.end(vec![claim(1, 0, 3)]);
        assert!(standing_claim.take(0).is_none(), "no worker is free");
        standing_claim.freed(Pool::Threads, 7);
        assert!(
            standing_claim.take(0).is_none(),
            "that was known when it was left"
        );
        standing_claim.freed(Pool::Threads, 8);
        let taken = standing_claim.take(0).unwrap();
        standing_claim.freed(Pool::Threads, 9);
        assert_eq!(taken.request().free.threads, 1);
        taken.end(vec![claim(1, 0, 3)]);
        let taken = standing_claim.take(0).unwrap();
        assert_eq!(taken.request().free.threads, 1, "who became free meanwhile");
        drop(taken);
        assert!(wake.wait(Duration::ZERO));
        let suspect = Claim {
            class: Class::Suspect(Level::ALONE),
            ..claim(2, 1, 3)
        };
        leave(2).end(vec![suspect]);
        assert!(standing_claim.take(0).is_none(), "a suspect runs alone");
        leave(2).end(vec![claim(2, 1, 3)]);
        assert!(standing_claim.take(0).is_some(), "it was not to blame");
        standing_claim.take_granted();
        leave(9).end((0..3).map(|_| claim(1, 0, 3)).collect());
        assert_eq!(standing_claim.take_granted().len(), 3);
        assert_eq!(standing_claim.take(0).unwrap().request().free.threads, 6);
    }

    #[test]
    fn p3_the_runner_is_woken_for_what_is_to_run_as_a_future() {
        let (standing_claim, wake) = standing_claim();
        let workers = Bell::default();
        standing_claim.set_workers(workers.clone());
        let free = PerPool {
            threads: 1,
            futures: 2,
        };
        let both = ClaimRequest {
            free,
            limit: 3,
            ..request()
        };
        standing_claim.leave(both, 0);
        let future = Claim {
            pool: Pool::Futures,
            ..claim(1, 0, 3)
        };
        standing_claim.take(0).unwrap().end(vec![future]);
        assert_eq!((workers.rings(), wake.wait(Duration::ZERO)), (0, true));
        let rest = standing_claim.take(0).unwrap();
        let left = PerPool {
            threads: 1,
            futures: 1,
        };
        assert_eq!((rest.request().free, rest.request().limit), (left, 2));
        standing_claim.freed(Pool::Futures, 1);
        rest.end(Vec::new());
        let rest = standing_claim.take(0).unwrap();
        assert_eq!((rest.request().free, rest.request().limit), (free, 3));
    }

    #[test]
    fn one_that_was_withdrawn_is_not_taken() {
        let (standing_claim, _) = standing_claim();
        standing_claim.leave(request(), 0);
        assert!(!standing_claim.withdraw().in_flight);
        assert!(standing_claim.take(0).is_none());
    }

    #[test]
    fn whoever_withdraws_one_in_flight_is_told_when_it_is_over() {
        let (standing_claim, wake) = standing_claim();
        standing_claim.leave(request(), 0);
        let taken = standing_claim.take(0).unwrap();
        assert!(standing_claim.withdraw().in_flight);
        assert!(!wake.wait(Duration::ZERO));
        taken.end(Vec::new());
        assert!(wake.wait(Duration::ZERO), "although it claimed nothing");
        assert!(!standing_claim.withdraw().in_flight);
    }

    #[test]
    fn p4_one_whose_commit_is_not_known_is_in_doubt() {
        let (standing_claim, wake) = standing_claim();
        standing_claim.leave(request(), 0);
        drop(standing_claim.take(0));
        assert!(wake.wait(Duration::ZERO));
        assert!(standing_claim.withdraw().in_doubt);
        assert!(!standing_claim.withdraw().in_doubt);
    }
}
