//! A store that fails on demand, around one that works.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::model::health::Health;
use crate::model::lane::KnownLanes;
use crate::model::op::{Op, Reply, Rescued};
use crate::model::query::{Answer, Query};
use crate::model::settle::Fence;
use crate::store::{Body, Holder, NextMaintenance, Pace, Signals, Store, Ticket};
use crate::sync::lock;
use crate::time::Timestamp;

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The call does not fail.
    None,
    /// Nothing is stored.
    Before(ErrorKind),
    /// Everything is stored, but the caller is told that it may not be.
    After,
}

/// The faults of the next writes, and of the next notes of a start.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    writes: Mutex<VecDeque<Fault>>,
    begins: Mutex<VecDeque<Fault>>,
    /// How many calls still work, if the process is about to die.
    left: Mutex<Option<u64>>,
}

impl Faults {
    /// After this many calls all others fail: what is done until the store is dropped changes nothing, as if the process had
    /// been killed.
    pub(crate) fn die_after(&self, calls: u64) {
        *lock(&self.left) = Some(calls);
    }

    /// # Errors
    ///
    /// If the process is dead.
    fn live(&self) -> Result<()> {
        match &mut *lock(&self.left) {
            Some(0) => Err(injected(ErrorKind::Storage)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(crate) fn of_writes(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.writes).extend(faults);
    }

    pub(crate) fn of_begins(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.begins).extend(faults);
    }

    fn next(queue: &Mutex<VecDeque<Fault>>) -> Fault {
        lock(queue).pop_front().unwrap_or(Fault::None)
    }
}

#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn Store>,
    faults: Arc<Faults>,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn Store>, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }
}

fn injected(kind: ErrorKind) -> Error {
    Error::new(kind, "injected")
}

impl Store for FaultyStore {
    fn apply(&self, now: Timestamp, ops: Vec<Op>) -> Result<Vec<Reply>> {
        self.faults.live()?;
        match Faults::next(&self.faults.writes) {
            Fault::None => self.inner.apply(now, ops),
            Fault::Before(kind) => Err(injected(kind)),
            Fault::After => {
                self.inner.apply(now, ops)?;
                Err(injected(ErrorKind::Unknown))
            }
        }
    }

    fn submit(&self, now: Timestamp, ops: Vec<Op>) -> Ticket {
        Ticket::ready(self.apply(now, ops))
    }

    fn defer(&self, now: Timestamp, ops: Vec<Op>) -> Ticket {
        Ticket::ready(self.apply(now, ops))
    }

    fn transaction(
        &self,
        now: Timestamp,
        holder: Option<Holder>,
        body: &mut Body<'_>,
    ) -> Result<()> {
        self.faults.live()?;
        match Faults::next(&self.faults.writes) {
            Fault::None => self.inner.transaction(now, holder, body),
            Fault::Before(kind) => Err(injected(kind)),
            Fault::After => {
                self.inner.transaction(now, holder, body)?;
                Err(injected(ErrorKind::Unknown))
            }
        }
    }

    fn read(&self, query: Query) -> Result<Answer> {
        self.faults.live()?;
        self.inner.read(query)
    }

    fn lanes(&self) -> KnownLanes {
        self.inner.lanes()
    }

    fn refresh(&self) -> Result<bool> {
        self.inner.refresh()
    }

    fn check(&self) -> Result<()> {
        self.inner.check()
    }

    fn watch(&self) -> Result<()> {
        self.inner.watch()
    }

    fn begin(&self, fence: Fence) -> Result<()> {
        self.faults.live()?;
        match Faults::next(&self.faults.begins) {
            Fault::None => self.inner.begin(fence),
            Fault::Before(kind) => Err(injected(kind)),
            Fault::After => Err(injected(ErrorKind::Unknown)),
        }
    }

    fn recover(&self, now: Timestamp) -> Result<Rescued> {
        self.faults.live()?;
        self.inner.recover(now)
    }

    fn has_others(&self) -> bool {
        self.inner.has_others()
    }

    fn next_maintenance(&self) -> Result<NextMaintenance> {
        self.inner.next_maintenance()
    }

    fn pace(&self) -> Pace {
        self.inner.pace()
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        self.inner.clock()
    }

    fn signals(&self) -> &Signals {
        self.inner.signals()
    }

    fn health(&self) -> Health {
        self.inner.health()
    }

    fn is_failing(&self) -> bool {
        self.inner.is_failing()
    }

    #[cfg(feature = "testing")]
    fn finish_submitted(&self) {
        self.inner.finish_submitted();
    }

    fn close(&self, now: Timestamp) {
        self.inner.close(now);
    }

    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }
}
