//! Retires lanes that have been idle for a while, so that a claim does not look at every queue that ever existed.

use std::time::Duration;

use crate::client::Client;
use crate::error::Result;
use crate::log::log;
use crate::model::idle::{Idle, KEPT};
use crate::model::lane::LaneId;
use crate::model::op::{CHUNK, Op};
use crate::model::query::Query;
use crate::runtime::service::{Next, Service};
use crate::time::Timestamp;

/// How often idle lanes are looked for. A lane that is idle at two looks in a row is retired, unless it is
/// among the [`KEPT`] newest idle ones.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The retirer of lanes.
#[derive(Debug)]
pub(crate) struct Retirer {
    client: Client,
    next: Timestamp,
    idle: Idle,
    search: Search,
}

/// The progress of a search for idle lanes. Each step is short, so that other services have their turn.
#[derive(Debug)]
enum Search {
    /// No search is under way.
    Ended,
    /// The idle lanes found so far, and the last lane that was looked at.
    Scanning(Vec<LaneId>, LaneId),
    /// The lanes that are still to be retired.
    Retiring(Vec<LaneId>),
}

impl Retirer {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            next: Timestamp::MIN,
            idle: Idle::default(),
            search: Search::Ended,
        }
    }

    /// Makes one step of the search. Returns the progress after it.
    fn step(&mut self, now: Timestamp) -> Result<Search> {
        let store = &self.client.store;
        Ok(match std::mem::replace(&mut self.search, Search::Ended) {
            Search::Ended if store.lanes().list.len() <= KEPT => {
                self.idle.skip();
                Search::Ended
            }
            Search::Ended => Search::Scanning(Vec::new(), LaneId(0)),
            Search::Scanning(mut idle, after) => {
                let seen = store.read(Query::IdleLanes { after })?.idle_lanes();
                idle.extend(seen.lanes);
                match seen.next {
                    Some(after) => Search::Scanning(idle, after),
                    None => Search::Retiring(self.idle.look(idle)),
                }
            }
            Search::Retiring(mut lanes) => {
                let rest = lanes.split_off(lanes.len().min(CHUNK));
                if !lanes.is_empty() {
                    store.apply(now, vec![Op::RetireLanes { lanes }])?;
                }
                match rest.is_empty() {
                    true => Search::Ended,
                    false => Search::Retiring(rest),
                }
            }
        })
    }
}

impl Service for Retirer {
    fn run_once(&mut self, now: Timestamp) -> Next {
        if matches!(self.search, Search::Ended) {
            // The upper bound: setting the clock back must not delay the next look.
            if now < self.next && self.next <= now + LOOK_EVERY {
                return Next::Notified;
            }
            self.next = now + LOOK_EVERY;
        }
        self.search = self.step(now).unwrap_or_else(|error| {
            log!(warn, %error, "cannot retire idle queues; trying again");
            Search::Ended
        });
        match self.search {
            // The next look is not urgent: the service is called at least once a second.
            Search::Ended => Next::Notified,
            Search::Scanning(..) | Search::Retiring(_) => Next::At(now),
        }
    }
}
