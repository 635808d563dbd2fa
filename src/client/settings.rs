//! The store settings of the builders of a client and of a scheduler: where the store is, and how it is opened.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::settings::SqliteSettings;
use crate::store::{Settings, Store};

/// Where the store is, and how it is opened.
#[derive(Debug, Clone)]
pub(crate) struct StoreSettings {
    pub(crate) location: Location,
    pub(crate) of_any: Settings,
    pub(crate) of_sqlite: SqliteSettings,
}

#[derive(Debug, Clone)]
pub(crate) enum Location {
    File(PathBuf),
    Memory,
}

impl StoreSettings {
    /// The defaults. `runs`: for a scheduler.
    pub(crate) fn new(location: Location, runs: bool) -> Self {
        Self {
            location,
            of_any: Settings::new(runs),
            of_sqlite: SqliteSettings::default(),
        }
    }

    pub(crate) fn open(self) -> Result<Arc<dyn Store>> {
        self.of_sqlite.check()?;
        let now = self.of_any.clock.now();
        Ok(Arc::new(match self.location {
            Location::File(path) => SqliteStore::open(&path, self.of_any, &self.of_sqlite, now)?,
            Location::Memory => SqliteStore::memory(self.of_any, now)?,
        }))
    }
}

/// The setters of a builder with a field `store: StoreSettings`.
macro_rules! store_setters {
    () => {
        /// What an acknowledged call survives. Default: [`Durability::PowerLoss`](crate::Durability::PowerLoss).
        pub fn durability(mut self, durability: crate::model::durability::Durability) -> Self {
            self.store.of_any.durability = durability;
            self
        }

        /// How long a call waits for earlier writes of this process, and then once more for another process's lock. If so many
        /// writes wait that the queue is full, it waits as long for room before. Default: 5 seconds.
        pub fn busy_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.store.of_any.busy_wait = timeout;
            self
        }

        /// How long a [`transaction`](crate::Client::transaction) or a [`complete`](crate::TaskContext::complete) may take.
        /// After that a running SQL statement is interrupted. Code between two statements cannot be, and
        /// [`Health::slow_transaction`](crate::Health::slow_transaction) names it. Either way nothing of the transaction is
        /// stored. 1 ms to 1 hour; default: 5 seconds.
        pub fn transaction_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.store.of_any.transaction_timeout = timeout;
            self
        }

        /// Settings of a store in SQLite alone.
        pub fn sqlite(mut self, settings: crate::store::sqlite::settings::SqliteSettings) -> Self {
            self.store.of_sqlite = settings;
            self
        }
    };
}
pub(crate) use store_setters;
