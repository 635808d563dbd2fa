//! Finds out when a store that failed can be written again: while writes fail, tries a small one about once a second.

use std::time::Duration;

use crate::client::Client;
use crate::model::op::Op;
use crate::runtime::service::{Next, Service};
use crate::store::Ticket;
use crate::time::Timestamp;

/// The mean time between two tries. Each time is drawn from half to one and a half of it, so that many processes on one
/// disk do not all try at once.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// The prober.
#[derive(Debug)]
pub(crate) struct Prober {
    client: Client,
    /// When to try again.
    next: Timestamp,
    /// The write under way. A thread of the store makes it: a write that hangs must not hold up other maintenance.
    tried: Option<Ticket>,
}

impl Prober {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            next: Timestamp::MIN,
            tried: None,
        }
    }
}

impl Service for Prober {
    fn run_once(&mut self, now: Timestamp) -> Next {
        if self
            .tried
            .as_mut()
            .is_some_and(|tried| tried.try_take().is_some())
        {
            self.tried = None;
        }
        if !self.client.store.is_failing() {
            // No notification is needed: the next call, within a second, sees a failure.
            return Next::Notified;
        }
        // The second condition: setting the clock back must not delay the next try.
        if now >= self.next || self.next > now + 2 * TRY_EVERY {
            self.next = now + TRY_EVERY.mul_f64(0.5 + fastrand::f64());
            if self.tried.is_none() {
                self.tried = Some(self.client.store.submit(now, vec![Op::Probe]));
            }
        }
        Next::At(self.next)
    }
}
