//! The one exit of every attempt: from the worker, or any other thread that ends one, to the dispatcher that settles it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::id::TaskId;
use crate::model::settle::Settlement;
use crate::wake::{Wake, lock};

/// An attempt that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) id: TaskId,
    pub(crate) kind: Arc<str>,
    pub(crate) settlement: Settlement,
    /// How long the handler ran; `None` if it was not called.
    pub(crate) ran: Option<Duration>,
}

/// Attempts that have ended and are not settled yet.
#[derive(Debug)]
pub(crate) struct Finish {
    finished: Mutex<Vec<Finished>>,
    dispatcher: Wake,
}

impl Finish {
    pub(crate) fn new(dispatcher: Wake) -> Self {
        Self {
            finished: Mutex::default(),
            dispatcher,
        }
    }

    pub(crate) fn push(&self, finished: Finished) {
        lock(&self.finished).push(finished);
        self.dispatcher.notify();
    }

    pub(crate) fn take(&self) -> Vec<Finished> {
        std::mem::take(&mut lock(&self.finished))
    }
}
