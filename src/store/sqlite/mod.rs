//! The SQLite store: one write connection taken in turns, a pool of readers, and a lock file that proves this instance
//! alive.

mod error;
pub(crate) mod face;
mod file;
#[cfg(test)]
mod file_tests;
mod instances;
#[cfg(test)]
pub(super) mod kit;
mod opening;
mod ops;
#[cfg(test)]
mod query_plans;
mod read;
pub(crate) mod settings;
mod sql;
#[cfg(test)]
mod turn_tests;
mod watch;
mod write;

use std::any::Any;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::model::health::Health;
use crate::model::lane::KnownLanes;
use crate::model::op::{CHUNK, Op, Reply, Rescued};
use crate::model::query::{Answer, Query};
use crate::model::settle::Fence;
use crate::process::Home;
use crate::store::sqlite::file::identity::Identity;
use crate::store::sqlite::file::readers::Readers;
use crate::store::sqlite::instances::evidence::Evidence;
use crate::store::sqlite::instances::roll::{self, Roll};
use crate::store::sqlite::ops::cancels;
use crate::store::sqlite::read::maintenance;
use crate::store::sqlite::watch::Watch;
use crate::store::sqlite::write::shared::Shared;
use crate::store::sqlite::write::writer::Writer;
use crate::store::turn::{Submitted, Turn};
use crate::store::{Body, Holder, NextMaintenance, Pace, Signals, Store, Ticket};
use crate::sync::lock;
use crate::time::Timestamp;

/// Tasks in a SQLite file, or in memory.
#[derive(Debug)]
pub(crate) struct SqliteStore {
    shared: Arc<Shared>,
    turn: Arc<Turn<Writer>>,
    /// `None`: in memory, where reads use the write connection.
    readers: Option<Readers>,
    path: Option<PathBuf>,
    /// Which file the path named when the store was opened.
    identity: Option<Identity>,
    /// How long a call waits for a lock.
    busy_wait: Duration,
    clock: Arc<dyn Clock>,
    instance: i64,
    /// `None`: in memory, where there are no other instances.
    roll: Option<Roll>,
    watch: Mutex<Option<Watch>>,
    /// When the store was closed, or else opened: recorded as the end of an instance that ends.
    seen_at: AtomicI64,
    /// Last, so that it is dropped after the connections are closed.
    home: Home,
}

impl SqliteStore {
    /// In a forked child: leaves everything as it is. Closing a connection would take away the parent's locks, or its log.
    fn forget(&mut self) {
        std::mem::forget((Arc::clone(&self.shared), Arc::clone(&self.turn)));
        std::mem::forget(self.readers.take());
        let watch = self.watch.get_mut().unwrap_or_else(PoisonError::into_inner);
        std::mem::forget(watch.take());
    }

    /// Checks that this process and this thread may use the store.
    fn check_caller(&self) -> Result<()> {
        self.home.check()?;
        self.turn.check_reentrant()
    }

    /// Takes back part of what a dead instance held.
    fn rescue(&self, now: Timestamp, instance: i64, evidence: &Evidence) -> Result<Rescued> {
        self.check_caller()?;
        self.turn.exclusive(Some(now), |writer| {
            writer.rescue(now, instance, evidence, CHUNK)
        })?
    }

    fn with_reader<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        self.check_caller()?;
        if let Some(error) = &*lock(&self.shared.stopped) {
            return Err(error.clone());
        }
        match &self.readers {
            Some(readers) => readers.with(read),
            // Queued with the writes: the wait for the writer's lock would have no bound, since one leader may follow
            // another.
            None => self.turn.exclusive(None, |writer| writer.look(read))?,
        }
    }
}

fn ticket(submitted: Result<Submitted<Writer>>) -> Ticket {
    match submitted {
        Ok(submitted) => Ticket::Pending(Box::new(submitted)),
        Err(error) => Ticket::ready(Err(error)),
    }
}

impl Store for SqliteStore {
    fn apply(&self, now: Timestamp, ops: Vec<Op>) -> Result<Vec<Reply>> {
        self.check_caller()?;
        self.turn.apply(now, ops)
    }

    fn submit(&self, now: Timestamp, ops: Vec<Op>) -> Ticket {
        ticket(
            self.check_caller()
                .and_then(|()| self.turn.submit(now, ops)),
        )
    }

    fn try_submit(&self, now: Timestamp, ops: Vec<Op>) -> std::result::Result<Ticket, Vec<Op>> {
        match self.check_caller() {
            Ok(()) => Ok(ticket(self.turn.try_submit(now, ops)?)),
            Err(error) => Ok(ticket(Err(error))),
        }
    }

    fn defer(&self, now: Timestamp, ops: Vec<Op>) -> Ticket {
        ticket(self.check_caller().and_then(|()| self.turn.defer(now, ops)))
    }

    fn transaction(
        &self,
        now: Timestamp,
        holder: Option<Holder>,
        body: &mut Body<'_>,
    ) -> Result<()> {
        self.check_caller()?;
        self.turn
            .exclusive(Some(now), |writer| writer.transaction(now, holder, body))?
    }

    fn read(&self, query: Query) -> Result<Answer> {
        self.with_reader(|conn| read::read(conn, &self.shared.lanes, &query))
    }

    fn lanes(&self) -> KnownLanes {
        lock(&self.shared.lanes).snapshot()
    }

    fn refresh(&self) -> Result<bool> {
        // A wait for the turn would have no bound: one leader may follow another.
        let looked = self.turn.with_idle_writer(Writer::refresh);
        looked.map_or(Ok(false), |found| found.map(|_| true))
    }

    fn check(&self) -> Result<()> {
        self.home.check()
    }

    fn watch(&self) -> Result<()> {
        if let Some(path) = &self.path {
            *lock(&self.watch) = Some(Watch::start(&self.turn, path)?);
        }
        Ok(())
    }

    fn begin(&self, fence: Fence) -> Result<()> {
        match self.shared.ledger() {
            Some(ledger) => ledger.begin(fence),
            // The store was given up, and its claims with it.
            None if self.path.is_some() => {
                Err(Error::new(ErrorKind::Closed, "the store was given up"))
            }
            None => Ok(()),
        }
    }

    fn recover(&self, now: Timestamp) -> Result<Rescued> {
        let Some(roll) = &self.roll else {
            return Ok(Rescued::default());
        };
        if self.shared.has_stopped() {
            roll.give_up();
            return Ok(Rescued::default());
        }
        let writes = self.shared.others_writes.load(Ordering::SeqCst);
        roll.find_dead(writes, || {
            self.with_reader(|conn| roll::others(conn, self.instance))
        })?;
        let Some((instance, evidence)) = roll.next_dead() else {
            return Ok(Rescued::default());
        };
        let mut rescued = self.rescue(now, instance, &evidence)?;
        if !rescued.more {
            rescued.more = roll.forget_dead(instance);
        }
        Ok(rescued)
    }

    fn has_others(&self) -> bool {
        let writes = self.shared.others_writes.load(Ordering::SeqCst);
        let has_others = |roll: &Roll| roll.has_others(writes);
        !self.shared.has_stopped() && self.roll.as_ref().is_some_and(has_others)
    }

    fn next_maintenance(&self) -> Result<NextMaintenance> {
        self.with_reader(maintenance::next)
    }

    fn pace(&self) -> Pace {
        Pace::LOCAL
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    fn signals(&self) -> &Signals {
        &self.shared.signals
    }

    fn health(&self) -> Health {
        if let Err(error) = self.home.check() {
            return Health {
                stopped: Some(error),
                ..Health::default()
            };
        }
        Health {
            is_polling: lock(&self.watch).as_ref().is_some_and(Watch::is_polling),
            blocked_wakers: self.turn.blocked_wakers(),
            ..self.shared.health()
        }
    }

    fn is_failing(&self) -> bool {
        self.shared.fails.load(Ordering::Relaxed)
    }

    #[cfg(feature = "testing")]
    fn finish_submitted(&self) {
        self.turn.finish_submitted();
    }

    fn close(&self, now: Timestamp) {
        self.seen_at.store(now.micros(), Ordering::Relaxed);
        self.shared.signals.close();
        if self.shared.has_stopped() {
            // Nothing can be settled here any more: the next process that opens the file takes over.
            *lock(&self.shared.ledger) = None;
            if let Some(roll) = &self.roll {
                roll.give_up();
            }
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for SqliteStore {
    /// The last user is gone, so no handler runs any more. An instance that holds nothing ends here; otherwise another
    /// process rescues it.
    fn drop(&mut self) {
        if !self.home.is_here() {
            self.forget();
            return;
        }
        // First: the watch looks on the writer.
        *lock(&self.watch) = None;
        self.turn.finish();
        // A receipt that is still held keeps the signals alive.
        self.shared.signals.close();
        let Some(ledger) = self.shared.ledger() else {
            return;
        };
        let ended = self.turn.with_writer(|writer| {
            writer.look(|conn| {
                let now = self.seen_at.load(Ordering::Relaxed);
                let ended = roll::leave(conn, self.instance, now)?;
                cancels::forget(conn, self.instance)?;
                Ok(ended)
            })
        });
        if matches!(ended, Ok(true)) {
            ledger.remove();
        }
    }
}
