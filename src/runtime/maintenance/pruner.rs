//! Deletes ended tasks whose retention is over, if settlements have not, and fails tasks whose start deadline has passed.

use std::time::Duration;

use crate::client::Client;
use crate::error::Result;
use crate::log::log;
use crate::model::op::{CHUNK, Op};
use crate::model::retention::Retention;
use crate::runtime::service::{Next, Service};
use crate::time::{MICRO, Timestamp};

/// How often ended tasks are looked for. Their deletion is not urgent.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// The pruner.
#[derive(Debug)]
pub(crate) struct Pruner {
    client: Client,
    retention: Retention,
    /// When to look again.
    next: Timestamp,
    /// The next known end of a retention or start deadline; `None` if none was seen.
    planned: Option<Timestamp>,
}

impl Pruner {
    pub(crate) fn new(client: Client, retention: Retention) -> Self {
        Self {
            client,
            retention,
            next: Timestamp::MIN,
            planned: None,
        }
    }

    /// Handles a chunk of what is over. Returns when the next is due.
    fn work(&mut self, now: Timestamp) -> Result<Option<Timestamp>> {
        let due = self.client.store.next_maintenance()?;
        // A start deadline has passed one microsecond after its instant.
        let expires = due.expires_at.map(|at| at + MICRO);
        let over = self.retention.over(due.ended_at);
        let mut ops = Vec::new();
        if expires.is_some_and(|at| at <= now) {
            ops.push(Op::Expire { limit: CHUNK });
        }
        if over.is_some_and(|at| at <= now) {
            ops.push(Op::Prune {
                cutoffs: self.retention.cutoffs(now),
                limit: CHUNK,
            });
        }
        if ops.is_empty() {
            return Ok(expires.into_iter().chain(over).min());
        }
        self.client.store.apply(now, ops)?;
        // The next call, after other writers have had their turn, handles the rest.
        Ok(Some(now))
    }
}

impl Service for Pruner {
    fn run_once(&mut self, now: Timestamp) -> Next {
        // Start deadlines that were added since the last call.
        if let Some(at) = self.client.store.signals().take_expiry() {
            let at = at + MICRO;
            self.next = self.next.min(at);
            self.planned = Some(self.planned.map_or(at, |planned| planned.min(at)));
        }
        // The upper bound: setting the clock back must not delay the next look.
        if now < self.next && self.next <= now + LOOK_EVERY {
            return Next::at(self.planned);
        }
        self.planned = self.work(now).unwrap_or_else(|error| {
            log!(warn, %error, "cannot prune; trying again");
            Some(now + AFTER_ERROR)
        });
        let look = now + LOOK_EVERY;
        self.next = self.planned.map_or(look, |planned| planned.min(look));
        Next::at(self.planned)
    }
}
