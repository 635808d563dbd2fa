//! Takes back the tasks that dead processes held.

use std::time::Duration;

use crate::client::Client;
use crate::log::log;
use crate::runtime::service::{Next, Service};
use crate::time::Timestamp;

/// How often dead processes are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The rescuer.
#[derive(Debug)]
pub(crate) struct Rescuer {
    client: Client,
    next: Timestamp,
    /// Whether there are other instances, which could die.
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

    /// When to look again. Alone on the file there is nothing to look for: when another process comes, it is notified.
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
        // The upper bound: setting the clock back must not delay the next look.
        if now < self.next && self.next <= now + LOOK_EVERY {
            self.others |= self.client.store.has_others();
            return self.planned();
        }
        self.next = now + LOOK_EVERY;
        match self.client.store.recover(now) {
            Ok(rescued) => {
                if rescued.crashed + rescued.given_back > 0 {
                    log!(
                        info,
                        crashed = rescued.crashed,
                        given_back = rescued.given_back,
                        "took back tasks of a dead process"
                    );
                }
                self.others = self.client.store.has_others();
                if rescued.more {
                    // A slice at a time, so that others can write in between.
                    self.next = now;
                    return Next::At(now);
                }
            }
            Err(error) => {
                log!(warn, %error, "cannot take back tasks of dead processes; trying again")
            }
        }
        self.planned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::settings::{Location, StoreSettings};

    /// Another process had come, begun a task and died between two looks: it was found up to a second late.
    #[test]
    fn p11_what_is_committed_between_two_looks_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db");
        let settings = StoreSettings::new(Location::File(path.clone()), true);
        let client = Client::on(settings.open().unwrap());
        let mut rescuer = Rescuer::new(client.clone());
        let now = client.now();
        client.store.refresh().unwrap();
        assert_eq!(rescuer.run_once(now), Next::Notified, "it is alone");
        let soon = now + LOOK_EVERY / 5;
        assert_eq!(rescuer.run_once(soon), Next::Notified, "it still is");
        Client::open(&path).unwrap().pause("mail").unwrap();
        client.store.refresh().unwrap();
        assert_eq!(rescuer.run_once(soon), Next::At(now + LOOK_EVERY));
        assert_eq!(rescuer.run_once(now + LOOK_EVERY), Next::Notified);
    }
}
