//! The backends of the suite: a file that is deleted with its kit, and memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::model::durability::Durability;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::settings::SqliteSettings;
use crate::store::suite::{Backend, Kit};
use crate::store::{Settings, Store};
use crate::time::Timestamp;

fn settings(runs: bool) -> Settings {
    Settings {
        durability: Durability::ProcessCrash,
        busy_wait: Duration::from_secs(10),
        ..Settings::new(runs)
    }
}

/// A kit on a file.
pub(crate) fn on_file() -> Kit {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("suite.db");
    Kit::on(OnFile { path, _dir: dir })
}

/// A kit on a store in memory, which has no other instances.
pub(crate) fn in_memory() -> Kit {
    Kit::on(InMemory)
}

struct OnFile {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Backend for OnFile {
    fn open(&self, runs: bool, now: Timestamp) -> Arc<dyn Store> {
        let own = SqliteSettings::default();
        Arc::new(SqliteStore::open(&self.path, settings(runs), &own, now).unwrap())
    }

    fn open_impatient(&self, runs: bool, now: Timestamp) -> Arc<dyn Store> {
        let settings = Settings {
            busy_wait: Duration::from_millis(20),
            ..settings(runs)
        };
        let own = SqliteSettings::default();
        Arc::new(SqliteStore::open(&self.path, settings, &own, now).unwrap())
    }

    fn lose_power(&self) {
        let conn = Connection::open(&self.path).unwrap();
        let sql = "UPDATE punctual_instance SET boot_id = 'another' WHERE ended_at IS NULL";
        conn.execute(sql, []).unwrap();
    }
}

struct InMemory;

impl Backend for InMemory {
    fn open(&self, runs: bool, now: Timestamp) -> Arc<dyn Store> {
        Arc::new(SqliteStore::memory(settings(runs), now).unwrap())
    }

    fn open_impatient(&self, _runs: bool, _now: Timestamp) -> Arc<dyn Store> {
        unreachable!("it has no other instances")
    }

    fn lose_power(&self) {
        unreachable!("nothing would be left");
    }
}

/// What only a kit on a file can do.
pub(crate) trait File {
    fn path(&self) -> &PathBuf;

    /// Runs SQL on the file beside the store, to look into it or to damage it.
    fn sql<T>(&self, look: impl FnOnce(&Connection) -> T) -> T;

    /// How many rows a table has.
    fn rows(&self, table: &str) -> i64;
}

impl File for Kit {
    fn path(&self) -> &PathBuf {
        &self.backend::<OnFile>().path
    }

    fn sql<T>(&self, look: impl FnOnce(&Connection) -> T) -> T {
        look(&Connection::open(self.path()).unwrap())
    }

    fn rows(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM punctual_{table}");
        self.sql(|conn| conn.query_row(&sql, [], |row| row.get(0)).unwrap())
    }
}
