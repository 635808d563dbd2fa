//! The standing claim: what the runner would claim if something became due now.
//!
//! It is left with the store, which makes it in the very transaction that makes something due: a task that finds a free
//! worker costs no transaction of its own, and its start no wait for one. Each is taken once, by whoever commits next.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crate::model::op::{ClaimRequest, QueueClaim};
use crate::model::settle::Claim;
use crate::wake::{Wake, lock};

/// A claim left with the store, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    state: Mutex<State>,
    /// Whether there is one to take, without the lock.
    stands: AtomicBool,
    /// Whose it is, to be told what came of it.
    runner: OnceLock<Wake>,
    /// Where the claims go.
    workers: OnceLock<Arc<dyn Workers>>,
}

/// Those who wait for what a standing claim takes.
pub(crate) trait Workers: Send + Sync + fmt::Debug {
    /// Takes claims for workers that are free; what it returns is left to the runner.
    fn take(&self, claims: Vec<Claim>) -> Vec<Claim>;
}

#[derive(Debug, Default)]
struct State {
    request: Option<ClaimRequest>,
    /// How many attempts had ended when it was left.
    ended: u64,
    /// A transaction is at it.
    in_flight: bool,
    /// Workers that became free meanwhile.
    freed: usize,
    /// The runner waits for the end of that.
    awaited: bool,
    came: Came,
}

/// What the runner has to know of standing claims since the runner last asked.
#[derive(Debug, Default)]
pub(crate) struct Came {
    pub(crate) claims: Vec<Claim>,
    /// A transaction is at one: what it claims comes later, with a notification.
    pub(crate) in_flight: bool,
    /// A commit with one is not known to have been stored.
    pub(crate) in_doubt: bool,
}

impl State {
    /// One for no worker is kept for the next that becomes free, and not taken.
    fn stand(&mut self, stands: &AtomicBool, request: Option<ClaimRequest>) {
        let is_for_some = request.as_ref().is_some_and(|request| request.free > 0);
        stands.store(is_for_some, Ordering::Release);
        self.request = request;
    }
}

/// The same claim for more workers.
fn more(request: ClaimRequest, freed: usize) -> ClaimRequest {
    ClaimRequest {
        free: request.free + freed,
        limit: request.limit + freed,
        ..request
    }
}

impl Standing {
    pub(super) fn set_runner(&self, wake: Wake) {
        // A store has one runner, for as long as it is open.
        let _ = self.runner.set(wake);
    }

    pub(crate) fn set_workers(&self, workers: Arc<dyn Workers>) {
        // Likewise.
        let _ = self.workers.set(workers);
    }

    /// Leaves a claim for the workers that were free when `ended` attempts had ended. Only after
    /// [`withdraw`](Self::withdraw), and if none was in flight then.
    pub(crate) fn leave(&self, request: ClaimRequest, ended: u64) {
        let mut state = lock(&self.state);
        state.ended = ended;
        state.stand(&self.stands, Some(request));
    }

    /// The attempt has ended that is the `ended`th to do so: there is one more free worker, if there is a claim at all.
    pub(crate) fn freed(&self, ended: u64) {
        let mut state = lock(&self.state);
        if ended <= state.ended {
            // Whoever left it knew.
            return;
        }
        if state.in_flight {
            state.freed += 1;
        } else if let Some(request) = state.request.take() {
            let request = more(request, 1);
            state.stand(&self.stands, Some(request));
        }
    }

    /// Takes it back, and what came of it.
    pub(crate) fn withdraw(&self) -> Came {
        let mut state = lock(&self.state);
        state.stand(&self.stands, None);
        state.awaited = state.in_flight;
        Came {
            in_flight: state.in_flight,
            ..std::mem::take(&mut state.came)
        }
    }

    /// Whether there is one to be taken.
    pub(crate) fn stands(&self) -> bool {
        self.stands.load(Ordering::Acquire)
    }

    /// Takes it for a transaction that knows this version of the lanes, if it was planned for the same. What is not
    /// [ended](Taken::end) counts as in doubt.
    pub(crate) fn take(self: &Arc<Self>, lanes_version: u64) -> Option<Taken> {
        if !self.stands() {
            return None;
        }
        let mut state = lock(&self.state);
        self.stands.store(false, Ordering::Release);
        let fits =
            |request: &ClaimRequest| request.free > 0 && request.lanes_version == lanes_version;
        let request = state.request.take().filter(fits)?;
        state.in_flight = true;
        state.freed = 0;
        Some(Taken {
            standing: Arc::clone(self),
            request,
            ended: false,
        })
    }
}

/// A standing claim in the hands of a transaction.
#[derive(Debug)]
pub(crate) struct Taken {
    standing: Arc<Standing>,
    request: ClaimRequest,
    ended: bool,
}

impl Taken {
    /// What still stands after these claims; nothing where more than the free workers is to be counted.
    fn rest(&mut self, claims: &[Claim]) -> Option<ClaimRequest> {
        let counted = |queue: &QueueClaim| queue.limit != usize::MAX;
        let free = self.request.free.checked_sub(claims.len())?;
        if self.request.queues.iter().any(counted) || claims.iter().any(|claim| claim.crashes > 0) {
            return None;
        }
        Some(ClaimRequest {
            queues: std::mem::take(&mut self.request.queues),
            limit: free,
            free,
            ..self.request
        })
    }

    pub(crate) fn request(&self) -> &ClaimRequest {
        &self.request
    }

    /// The transaction has committed, with these claims, or certainly has not.
    pub(crate) fn end(mut self, claims: Vec<Claim>) {
        self.ended = true;
        self.tell(claims, false);
    }

    fn tell(&mut self, claims: Vec<Claim>, in_doubt: bool) {
        let rest = self.rest(&claims).filter(|_| !in_doubt);
        // Before it counts as over: by then the workers have them.
        let claims = match self.standing.workers.get() {
            Some(workers) if !claims.is_empty() => workers.take(claims),
            _ => claims,
        };
        let tells = {
            let mut state = lock(&self.standing.state);
            state.in_flight = false;
            if !state.awaited && claims.is_empty() {
                let rest = rest.map(|rest| more(rest, state.freed));
                state.stand(&self.standing.stands, rest);
            }
            let tells = in_doubt || state.awaited || !claims.is_empty();
            state.awaited = false;
            state.came.in_doubt |= in_doubt;
            state.came.claims.extend(claims);
            tells
        };
        if tells && let Some(wake) = self.standing.runner.get() {
            wake.notify();
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.ended {
            self.tell(Vec::new(), true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settle::tests::claim;
    use std::time::Duration;

    fn standing() -> (Arc<Standing>, Wake) {
        let (standing, wake) = (Arc::<Standing>::default(), Wake::new());
        standing.set_runner(wake.clone());
        (standing, wake)
    }

    fn request() -> ClaimRequest {
        ClaimRequest {
            queues: Vec::new(),
            free: 1,
            budget: Duration::ZERO,
            limit: 1,
            lanes_version: 0,
        }
    }

    #[test]
    fn a_standing_claim_is_taken_once_and_what_it_claims_is_told() {
        let (standing, wake) = standing();
        assert!(standing.take(0).is_none());
        standing.leave(request(), 0);
        let taken = standing.take(0).unwrap();
        assert!(standing.take(0).is_none());
        taken.end(vec![claim(1, 0, 3)]);
        assert!(wake.wait(Duration::ZERO));
        let came = standing.withdraw();
        assert_eq!(came.claims.len(), 1);
        assert!(!came.in_flight && !came.in_doubt);
        assert!(standing.withdraw().claims.is_empty(), "it is told once");
    }

    #[derive(Debug)]
    struct Taker;

    impl Workers for Taker {
        fn take(&self, mut claims: Vec<Claim>) -> Vec<Claim> {
            claims.split_off(claims.len().min(2))
        }
    }

    #[test]
    fn free_workers_take_claims_and_the_rest_goes_on_standing() {
        let (standing, wake) = standing();
        standing.set_workers(Arc::new(Taker));
        let leave = |free| {
            let limit = free;
            standing.leave(
                ClaimRequest {
                    free,
                    limit,
                    ..request()
                },
                7,
            );
            standing.take(0).unwrap()
        };
        leave(2).end(vec![claim(1, 0, 3)]);
        assert!(!wake.wait(Duration::ZERO), "nothing to do for the runner");
        let taken = standing.take(0).unwrap();
        assert_eq!((taken.request().free, taken.request().limit), (1, 1));
        taken.end(vec![claim(1, 0, 3)]);
        assert!(standing.take(0).is_none(), "no worker is free");
        standing.freed(7);
        assert!(
            standing.take(0).is_none(),
            "that was known when it was left"
        );
        standing.freed(8);
        let taken = standing.take(0).unwrap();
        standing.freed(9);
        assert_eq!(taken.request().free, 1);
        taken.end(vec![claim(1, 0, 3)]);
        let taken = standing.take(0).unwrap();
        assert_eq!(taken.request().free, 1, "who became free meanwhile");
        drop(taken);
        assert!(wake.wait(Duration::ZERO));
        leave(2).end(vec![claim(1, 1, 3)]);
        assert!(standing.take(0).is_none(), "a suspect runs alone");
        leave(9).end((0..3).map(|_| claim(1, 0, 3)).collect());
        assert!(wake.wait(Duration::ZERO), "one was not taken");
        assert_eq!(standing.withdraw().claims.len(), 1);
    }

    #[test]
    fn one_that_was_withdrawn_is_not_taken() {
        let (standing, _) = standing();
        standing.leave(request(), 0);
        assert!(!standing.withdraw().in_flight);
        assert!(standing.take(0).is_none());
    }

    #[test]
    fn whoever_withdraws_one_in_flight_is_told_when_it_is_over() {
        let (standing, wake) = standing();
        standing.leave(request(), 0);
        let taken = standing.take(0).unwrap();
        assert!(standing.withdraw().in_flight);
        assert!(!wake.wait(Duration::ZERO));
        taken.end(Vec::new());
        assert!(wake.wait(Duration::ZERO), "although it claimed nothing");
        assert!(!standing.withdraw().in_flight);
    }

    #[test]
    fn p4_one_whose_commit_is_not_known_is_in_doubt() {
        let (standing, wake) = standing();
        standing.leave(request(), 0);
        drop(standing.take(0));
        assert!(wake.wait(Duration::ZERO));
        assert!(standing.withdraw().in_doubt);
        assert!(!standing.withdraw().in_doubt);
    }
}
