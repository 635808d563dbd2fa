//! Notices that the store can be written again. While writes fail it tries a small one now and then; else it does nothing.

use std::time::Duration;

use crate::client::Client;
use crate::model::op::Op;
use crate::runtime::service::{Next, Service};
use crate::store::Ticket;
use crate::time::Timestamp;

/// How long after a write that failed the next is tried. Half of it to one and a half: many processes that wait for one disk
/// do not try all at once.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// The prober.
#[derive(Debug)]
pub(crate) struct Prober {
    client: Client,
    /// When to try again. Written by a thread of the store: a write that hangs must not hold up the rest of maintenance.
    next: Timestamp,
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
            // It is seen within a second: nobody is notified.
            return Next::Notified;
        }
        // A clock that was set back must not keep it from trying.
        if now >= self.next || self.next > now + 2 * TRY_EVERY {
            self.next = now + TRY_EVERY.mul_f64(0.5 + fastrand::f64());
            if self.tried.is_none() {
                self.tried = Some(self.client.store.submit(now, vec![Op::Probe]));
            }
        }
        Next::At(self.next)
    }
}
