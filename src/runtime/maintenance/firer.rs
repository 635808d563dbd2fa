//! Fires recurrences: their slots that are due make tasks. Whichever process comes first does it; there is no leader.

use std::time::Duration;

use crate::client::Client;
use crate::error::Result;
use crate::log::log;
use crate::model::op::Op;
use crate::runtime::service::{Next, Service};
use crate::time::Timestamp;

/// The most recurrences that one transaction fires. Other writers have their turn before the next.
const CHUNK: usize = 200;
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// The firer.
#[derive(Debug)]
pub(crate) struct Firer {
    client: Client,
    /// Until when it rests after an error.
    rests_until: Option<Timestamp>,
}

impl Firer {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            rests_until: None,
        }
    }

    /// Fires a chunk of what is due.
    fn fire(&self, now: Timestamp) -> Result<()> {
        let op = Op::Fire { limit: CHUNK };
        self.client.store.apply(now, vec![op]).map(|_| ())
    }
}

impl Service for Firer {
    fn run_once(&mut self, now: Timestamp) -> Next {
        let due = |client: &Client| client.store.lanes().recurrence_at;
        let Some(at) = due(&self.client) else {
            return Next::Notified;
        };
        // The second condition: setting the clock back must not delay the next try.
        let rests = |until: &Timestamp| now < *until && *until <= now + AFTER_ERROR;
        if let Some(until) = self.rests_until.filter(rests) {
            return Next::At(until);
        }
        self.rests_until = None;
        if at > now {
            return Next::At(at);
        }
        if let Err(error) = self.fire(now) {
            log!(warn, %error, "cannot make the tasks of recurrences; trying again");
            self.rests_until = Some(now + AFTER_ERROR);
            return Next::At(now + AFTER_ERROR);
        }
        Next::at(due(&self.client))
    }
}
