//! Opening a store: the file, its schema, the instance, and what dead processes left.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex};

use rusqlite::Connection;

use crate::error::{Error, ErrorKind, Result};
use crate::process::Home;
use crate::store::sqlite::file::identity;
use crate::store::sqlite::file::open::{self, Opener};
use crate::store::sqlite::file::readers::Readers;
use crate::store::sqlite::file::schema;
use crate::store::sqlite::instances::ledger;
use crate::store::sqlite::instances::roll::{self, Roll};
use crate::store::sqlite::ops::lanes;
use crate::store::sqlite::settings::SqliteSettings;
use crate::store::sqlite::write::authorizer::Authorizer;
use crate::store::sqlite::write::shared::Shared;
use crate::store::sqlite::write::writer::Writer;
use crate::store::turn::Turn;
use crate::store::{Pace, Settings, Signals};
use crate::sync::lock;
use crate::time::Timestamp;

use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::error;

impl SqliteStore {
    /// Opens or creates a file.
    ///
    /// # Errors
    ///
    /// `Invalid` for settings out of their ranges, and as [`Opener::new`].
    pub(crate) fn open(
        path: &Path,
        settings: Settings,
        own: &SqliteSettings,
        now: Timestamp,
    ) -> Result<Self> {
        settings.check()?;
        own.check()?;
        let home = Home::new()?;
        let mut opener = Opener::new(path, &settings)?;
        opener.page_cache_bytes = own.page_cache_bytes;
        Self::open_file(home, &opener, settings, now).inspect_err(|_| opener.undo())
    }

    fn open_file(home: Home, opener: &Opener, settings: Settings, now: Timestamp) -> Result<Self> {
        let conn = opener.writer()?;
        let context = format!("cannot open {}", opener.path.display());
        schema::migrate(&conn).map_err(|error| error.in_context(&context))?;
        Self::new(home, conn, Some(opener.clone()), settings, now)
            .map_err(|error| error.in_context(&context))
            .inspect(Self::clear_up)
    }

    /// Opens a store in memory. Its tasks are gone with its last user.
    pub(crate) fn memory(settings: Settings, now: Timestamp) -> Result<Self> {
        settings.check()?;
        let home = Home::new()?;
        let conn = open::memory()?;
        schema::migrate(&conn)?;
        Self::new(home, conn, None, settings, now)
    }

    /// `opener`: that of the file; `None`: the store is in memory.
    fn new(
        home: Home,
        conn: Connection,
        opener: Option<Opener>,
        settings: Settings,
        now: Timestamp,
    ) -> Result<Self> {
        let lanes =
            lanes::load(&conn).map_err(|error| error::of("cannot read the lanes", error))?;
        let shared = Arc::new(Shared {
            lanes: Mutex::new(lanes),
            signals: Signals::default(),
            ledger: Mutex::new(None),
            stopped: Mutex::new(None),
            writes: Mutex::default(),
            fails: AtomicBool::new(false),
            waits: Mutex::new(None),
            wal_pages: Arc::new(AtomicI32::new(0)),
            page_bytes: open::page_bytes(&conn)?,
            others_writes: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            authorizer: Arc::new(Authorizer::new(settings.transaction_timeout)),
        });
        let readers = opener.clone().map(Readers::new);
        let path = opener.as_ref().map(|opener| opener.path.clone());
        let identity = path.as_deref().map(identity::at).transpose()?;
        if let Some(path) = &path
            && identity::has_moved(&conn)?
        {
            return Err(Error::new(
                ErrorKind::Replaced,
                format!("{} was replaced while it was opened", path.display()),
            ));
        }
        let instance = if settings.runs {
            let (instance, ledger) = roll::enrol(&conn, path.as_deref(), identity, now)?;
            *lock(&shared.ledger) = ledger.map(Arc::new);
            instance
        } else {
            0
        };
        let roll = path.clone().zip(identity);
        let roll = roll.map(|(path, file)| Roll::new(path, file));
        let mut writer = Writer::new(conn, opener, Arc::clone(&shared), &settings)?;
        writer.instance = instance;
        let turn = Turn::new(writer, settings.busy_wait, Pace::LOCAL);
        shared.signals.set_wakers(turn.wakers());
        Ok(Self {
            shared,
            turn,
            readers,
            path,
            identity,
            busy_wait: settings.busy_wait,
            clock: settings.clock,
            instance,
            roll,
            watch: Mutex::default(),
            seen_at: AtomicI64::new(now.micros()),
            home,
        })
    }

    /// Removes lock files of processes that died while they opened or closed the file.
    fn clear_up(&self) {
        let Some(path) = &self.path else { return };
        ledger::clear_up(path, |name| {
            let expected = self.with_reader(|conn| roll::is_expected(conn, name));
            // If that cannot be read, the lock file is left to the next process.
            expected.unwrap_or(true)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another process has created the file, could not open it, and removed it.
    #[cfg(unix)]
    #[test]
    fn p1_a_file_that_is_removed_while_it_is_opened_is_not_taken_for_the_one_that_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let settings = Settings::new(true);
        let opener = Opener::new(&path, &settings).unwrap();
        let conn = opener.writer().unwrap();
        schema::migrate(&conn).unwrap();
        for name in ["a.db", "a.db-wal", "a.db-shm"] {
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
        std::fs::write(&path, "").unwrap();
        let now = Timestamp::from_micros(0);
        let home = Home::new().unwrap();
        let error = SqliteStore::new(home, conn, Some(opener), settings, now).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Replaced, "{error}");
        assert!(
            !crate::store::sqlite::file::paths::lock_folder(&path).exists(),
            "nothing was registered"
        );
    }
}
