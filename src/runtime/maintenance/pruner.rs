//! Removes what is over while nothing else does: ended tasks after their retention, tasks whose start deadline has passed.

use std::time::Duration;

use crate::client::Client;
use crate::error::Result;
use crate::model::op::{CHUNK, Op};
use crate::model::retention::Retention;
use crate::runtime::service::{Next, Service};
use crate::time::Timestamp;

/// How often it looks for tasks whose retention is over: nobody waits for that.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// The pruner.
#[derive(Debug)]
pub(crate) struct Pruner {
    client: Client,
    retention: Retention,
    next: Timestamp,
    pruned_at: Option<Timestamp>,
}

impl Pruner {
    pub(crate) fn new(client: Client, retention: Retention) -> Self {
        Self {
            client,
            retention,
            next: Timestamp::MIN,
            pruned_at: None,
        }
    }

    fn work(&mut self, now: Timestamp) -> Result<Timestamp> {
        let due = self.client.store.next_maintenance()?;
        let mut ops = Vec::new();
        if due.expires_at.is_some_and(|at| at < now) {
            ops.push(Op::Expire { limit: CHUNK });
        }
        let cutoffs = self.retention.cutoffs(now);
        let over = [cutoffs.completed, cutoffs.failed, cutoffs.cancelled]
            .into_iter()
            .zip(due.ended_at)
            .any(|(cutoff, oldest)| {
                oldest
                    .zip(cutoff)
                    .is_some_and(|(oldest, cutoff)| oldest <= cutoff)
            });
        let may_prune = self
            .pruned_at
            .is_none_or(|at| now.since(at) >= PRUNE_EVERY || now < at);
        if over && may_prune {
            ops.push(Op::Prune {
                cutoffs,
                limit: CHUNK,
            });
        }
        if ops.is_empty() {
            // A deadline has passed one microsecond later.
            let expires = due.expires_at.map(|at| at + Duration::from_micros(1));
            let look = now + PRUNE_EVERY;
            return Ok(expires.map_or(look, |at| at.min(look)));
        }
        let replies = self.client.store.apply(now, ops)?;
        let done: usize = replies
            .into_iter()
            .map(|reply| reply.done())
            .max()
            .unwrap_or(0);
        if done < CHUNK {
            self.pruned_at = Some(now);
        }
        // Whatever is left is found by the next look, after others have had their turn.
        Ok(now)
    }
}

impl Service for Pruner {
    fn run_once(&mut self, now: Timestamp) -> Next {
        // Start deadlines that came since the last look; and a clock that was set back must not keep it from looking.
        let announced = self.client.store.hub().take_expiry();
        if let Some(at) = announced {
            self.next = self.next.min(at + Duration::from_micros(1));
        }
        if now < self.next && self.next <= now + PRUNE_EVERY {
            return Next::At(self.next);
        }
        self.next = self.work(now).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot prune; trying again");
            now + AFTER_ERROR
        });
        Next::At(self.next)
    }
}
