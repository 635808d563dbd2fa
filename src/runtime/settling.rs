//! Attempts that have ended, on their way through the store: what is kept of each until its settlement is answered.

use std::sync::Arc;

use crate::model::settle::Settlement;
use crate::runtime::finish::Finished;
use crate::store::Ticket;
use crate::time::Stopwatch;

/// Settlements on their way.
#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) ticket: Ticket,
    pub(super) batch: Batch,
    pub(super) since: Stopwatch,
}

/// Attempts that have ended, each of them with a settlement, which the store shares meanwhile.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) finished: Vec<Finished>,
    /// They are counted for the shutdown.
    pub(super) while_stopping: bool,
    /// The same transaction gives back what is not held here.
    pub(super) disowns: bool,
}

impl Batch {
    pub(super) fn settlements(&self) -> Vec<Arc<Settlement>> {
        let settlements = self.finished.iter();
        settlements
            .filter_map(|each| each.settlement.clone())
            .collect()
    }
}
