//! Work besides running tasks: several services, all on one thread.

mod deadlines;
mod firer;
mod forgetter;
mod prober;
mod pruner;
mod rescuer;
mod retirer;

pub(crate) use deadlines::Deadlines;
pub(crate) use firer::{Ahead, Firer};
pub(crate) use forgetter::Forgetter;
pub(crate) use prober::Prober;
pub(crate) use pruner::Pruner;
pub(crate) use rescuer::Rescuer;
pub(crate) use retirer::Retirer;

use std::sync::Arc;

use crate::log::log;
use crate::panics::survive;
use crate::runtime::service::{AFTER_PANIC, Next, Service};
use crate::runtime::shutdown::ShutdownState;
use crate::time::Timestamp;

/// Steps all of the services in turn. Each decides by itself whether anything is due.
pub(crate) struct Maintenance {
    services: Vec<Box<dyn Service>>,
    shutdown: Arc<ShutdownState>,
}

impl Maintenance {
    pub(crate) fn new(services: Vec<Box<dyn Service>>, shutdown: Arc<ShutdownState>) -> Self {
        Self { services, shutdown }
    }
}

impl Service for Maintenance {
    fn run_once(&mut self, now: Timestamp) -> Next {
        if self.shutdown.is_ended() {
            return Next::Ended;
        }
        self.services
            .iter_mut()
            .fold(Next::Notified, |next, service| {
                let own = survive(|| service.run_once(now));
                next.or(own.unwrap_or_else(|| {
                    log!(error, "maintenance panicked; it goes on");
                    Next::At(now + AFTER_PANIC)
                }))
            })
    }
}
