//! Takes back what dead processes held.

use std::time::Duration;

use crate::client::Client;
use crate::runtime::service::{Next, Service};
use crate::tell::tell;
use crate::time::Timestamp;

/// How often it looks whether another process has died.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The rescuer.
#[derive(Debug)]
pub(crate) struct Rescuer {
    client: Client,
    next: Timestamp,
    /// Whether there is anybody who could die.
    others: bool,
}

impl Rescuer {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            next: Timestamp::MIN,
            others: true,
        }
    }

    /// Alone on the file it waits for nothing: that another process has come is learnt within a second.
    fn planned(&self) -> Next {
        if self.others {
            Next::At(self.next)
        } else {
            Next::Notified
        }
    }
}

impl Service for Rescuer {
    fn run_once(&mut self, now: Timestamp) -> Next {
        // A clock that was set back must not keep it from looking.
        if now < self.next && self.next <= now + LOOK_EVERY {
            return self.planned();
        }
        self.next = now + LOOK_EVERY;
        match self.client.store.recover(now) {
            Ok(rescued) => {
                if rescued.crashed + rescued.given_back > 0 {
                    tell!(
                        info,
                        crashed = rescued.crashed,
                        given_back = rescued.given_back,
                        "took back tasks of a dead process"
                    );
                }
                self.others = self.client.store.has_others();
                if rescued.more {
                    // A slice at a time: others write in between.
                    self.next = now;
                    return Next::At(now);
                }
            }
            Err(error) => {
                tell!(warn, %error, "cannot take back tasks of dead processes; trying again")
            }
        }
        self.planned()
    }
}
