//! Attempts that have ended, on their way through the store: what is kept of each until its settlement is answered.

use std::sync::Arc;
use std::time::Duration;

use crate::model::settle::Settlement;
use crate::runtime::attempts::Place;
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

/// Attempts that have ended, and their settlements, which the store has meanwhile.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) ended: Vec<Ended>,
    pub(super) settlements: Arc<Vec<Settlement>>,
    /// They are counted for the shutdown.
    pub(super) while_stopping: bool,
    /// The same transaction gives back what is not held here.
    pub(super) disowns: bool,
}

impl Batch {
    /// Those that were settled already are left out.
    pub(super) fn new(finished: Vec<Finished>, while_stopping: bool, disowns: bool) -> Self {
        let (ended, settlements): (_, Vec<_>) =
            finished.into_iter().filter_map(Ended::split).unzip();
        Self {
            ended,
            settlements: Arc::new(settlements),
            while_stopping,
            disowns,
        }
    }

    pub(super) fn into_finished(self) -> impl Iterator<Item = Finished> {
        let settlements = Arc::unwrap_or_clone(self.settlements);
        self.ended.into_iter().zip(settlements).map(Ended::join)
    }
}

/// What is kept of an attempt beside its settlement.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) place: Place,
    pub(super) kind: Arc<str>,
    pub(super) ran: Option<Duration>,
}

impl Ended {
    fn split(finished: Finished) -> Option<(Self, Settlement)> {
        let Finished {
            place,
            kind,
            settlement,
            ran,
        } = finished;
        settlement.map(|settlement| (Self { place, kind, ran }, settlement))
    }

    fn join((ended, settlement): (Self, Settlement)) -> Finished {
        let Self { place, kind, ran } = ended;
        Finished {
            place,
            kind,
            settlement: Some(settlement),
            ran,
        }
    }
}
