//! A scheduler's side of one store: the client that writes to it, the tasks that the scheduler holds, and the attempts that
//! have ended and are not settled yet.
//!
//! With several stores there will be one link for each; the workers and their queue are shared. A link does not refer to
//! them, so a job in the queue can own its link without a cycle.

use std::sync::Arc;

use crate::client::Client;
use crate::handler::Registry;
use crate::log::log;
use crate::model::retry::RetryPolicy;
use crate::model::settle::{Claim, End, Settlement, settle};
use crate::panics::survive;
use crate::runtime::attempts::Attempts;
use crate::runtime::finish::Finish;
use crate::runtime::places::Places;
use crate::runtime::polls::Polls;
use crate::runtime::undecodable::Undecodable;
use crate::store::standing_claim::StandingClaim;
use crate::store::{Pace, Signals};

/// The parts of a scheduler that belong to one store.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: Client,
    /// The pace of this store.
    pub(crate) pace: Pace,
    pub(crate) registry: Arc<Registry>,
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) finish: Finish,
    pub(crate) undecodable: Undecodable,
    pub(crate) places: Places,
    pub(crate) polls: Polls,
}

impl Link {
    /// Where the store reports its commits.
    pub(crate) fn signals(&self) -> &Signals {
        self.client.store.signals()
    }

    /// The claim that is left with the store.
    pub(crate) fn standing_claim(&self) -> &Arc<StandingClaim> {
        self.signals().standing_claim()
    }

    /// What the store must record for an ended attempt. A retry policy may be user code: if it panics, the default policy
    /// decides.
    pub(crate) fn settlement(&self, claim: &Claim, end: End) -> Settlement {
        let retry = &self.registry.claimed(&claim.kind).retry;
        let (draw, now) = (fastrand::f64(), self.client.now());
        let decide = |end, retry: &RetryPolicy| settle(claim, end, retry, draw, now);
        if !retry.is_custom() {
            return decide(end, retry);
        }
        let decided = survive(|| decide(end.clone(), retry));
        decided.unwrap_or_else(|| {
            log!(error, kind = %claim.kind, "the retry policy panicked");
            decide(end, &RetryPolicy::default())
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::client::settings::{Location, StoreSettings};
    use crate::clock::Clock;
    use crate::handler::context::TaskContext;
    use crate::handler::{FnHandler, Handlers};
    use crate::model::outcome::Outcome;
    use crate::model::payload::Payload;
    use crate::store::Store;
    use crate::store::faulty::{Faults, FaultyStore};
    use crate::time::Timestamp;
    use crate::wake::Wake;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Probe;

    impl Payload for Probe {
        const KIND: &'static str = "kind";
    }

    /// The time of every link that a test makes.
    pub(crate) const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

    /// A clock that stands still at [`NOW`].
    #[derive(Debug)]
    struct Still;

    impl Clock for Still {
        fn now(&self) -> Timestamp {
            NOW
        }

        fn park(&self, _: &Wake, _: Option<Timestamp>) {
            unreachable!("a link has no thread");
        }
    }

    /// A link to a store in memory, with a handler of the kind that test claims have.
    pub(crate) fn link() -> Arc<Link> {
        link_on(|store| store)
    }

    /// A link whose store fails as these faults say.
    pub(crate) fn faulty() -> (Arc<Faults>, Arc<Link>) {
        let faults = Arc::new(Faults::default());
        let link = link_on(|store| Arc::new(FaultyStore::new(store, Arc::clone(&faults))));
        (faults, link)
    }

    /// The same, with something around the store.
    fn link_on(wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Arc<Link> {
        let mut handlers = Handlers::default();
        handlers.add(FnHandler::new(|_: Probe, _: &TaskContext| {
            Ok(Outcome::done())
        }));
        let mut settings = StoreSettings::new(Location::Memory, true);
        settings.of_any.clock = Arc::new(Still);
        let store = settings.open().unwrap();
        Arc::new(Link {
            client: Client::on(wrap(store)),
            pace: Pace::LOCAL,
            registry: Arc::new(handlers.check().unwrap()),
            attempts: Arc::new(Attempts::new(Wake::new(), std::iter::empty(), 0)),
            finish: Finish::new(Wake::new()),
            undecodable: Undecodable::default(),
            places: Places::new(0),
            polls: Polls::default(),
        })
    }
}
