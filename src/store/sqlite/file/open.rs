//! Opening a file: what is refused, and the settings of every connection, each read back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, ErrorKind, Result};
use crate::store::Settings;
use crate::store::sqlite::error;
use crate::store::sqlite::file::fairness::Fairness;
use crate::store::sqlite::file::identity;
use crate::store::sqlite::file::in_use::{self, InUse};
use crate::store::sqlite::file::paths;
use crate::store::sqlite::file::paths::{check_beside, check_file_system, create, resolve};
use crate::store::sqlite::settings::SqliteSettings;
use crate::time::{Deadline, Stopwatch, pause};

/// How connections to a file are made.
#[derive(Debug, Clone)]
pub(crate) struct Opener {
    pub(crate) path: PathBuf,
    /// The file that is open. It outlives every connection to it.
    in_use: Arc<InUse>,
    /// Whether the file was created by this opener.
    pub(crate) is_new: bool,
    /// How long to wait for a lock that another process holds.
    pub(crate) busy_wait: Duration,
    /// The page cache of the writer.
    pub(crate) page_cache_bytes: usize,
    /// How the writer takes turns with the writers of other processes.
    pub(crate) fairness: Arc<Fairness>,
}

const READER_CACHE_BYTES: usize = 2 << 20;

impl Opener {
    /// Checks the path, and creates an empty file if there is none.
    ///
    /// # Errors
    ///
    /// `Invalid` for a path that is no place for a database file, `ReadOnly` if it cannot be written, `Unsupported` on a
    /// network file system, `Version` if SQLite is one that can lose commits, `Replaced` if this process still has another file
    /// open that had that name.
    pub(crate) fn new(path: &Path, settings: &Settings) -> Result<Self> {
        check_version(rusqlite::version_number())?;
        let path = resolve(path)?;
        check_file_system(&path)?;
        in_use::check(&path)?;
        check_beside(&path)?;
        let is_new = create(&path)?;
        Ok(Self {
            is_new,
            in_use: Arc::new(InUse::new(&path, identity::at(&path)?)?),
            fairness: Fairness::new(&path),
            path,
            busy_wait: settings.busy_wait,
            page_cache_bytes: SqliteSettings::default().page_cache_bytes,
        })
    }

    pub(crate) fn writer(&self) -> Result<Connection> {
        let mut conn = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        self.wait_fairly(&mut conn)
            .map_err(|error| error::of("cannot configure the connection", error))?;
        let set = |name: &str, value: &str, expected: &str| set(&conn, name, value, expected);
        self.in_context(
            self.when_unlocked(|| set("journal_mode", "wal", "wal"))
                .and_then(|()| set("synchronous", "FULL", "2"))
                .and_then(|()| set("wal_autocheckpoint", "0", "0"))
                // For the user's own tables. Off by default in some builds of SQLite, and on in others.
                .and_then(|()| set("foreign_keys", "1", "1"))
                // After a burst the log keeps up to this length for the next one.
                .and_then(|()| set("journal_size_limit", "16777216", "16777216"))
                .and_then(|()| set_cache(&conn, self.page_cache_bytes)),
        )?;
        Ok(conn)
    }

    /// Makes a writer wait for the lock in turn with the writers of other processes.
    pub(crate) fn wait_fairly(&self, conn: &mut Connection) -> rusqlite::Result<()> {
        let fairness = Arc::clone(&self.fairness);
        let step = move |waited, count| fairness.wait(waited, count);
        conn.busy_handler(Some(patient(self.busy_wait, step)))
    }

    pub(crate) fn reader(&self) -> Result<Connection> {
        let conn = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        self.in_context(
            set(&conn, "query_only", "1", "1").and_then(|()| set_cache(&conn, READER_CACHE_BYTES)),
        )?;
        Ok(conn)
    }

    /// Removes the file after a failure, if this opener created it and it is still empty. The opener's connections must be
    /// closed.
    ///
    /// SQLite's lock is held meanwhile: a process that has opened the file in between cannot write before the file is gone,
    /// and notices that before its own call returns.
    pub(crate) fn undo(&self) {
        let is_empty = || fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() == 0);
        if !self.is_new || !is_empty() {
            return;
        }
        let Ok(conn) = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE) else {
            return;
        };
        // Without a wait: a file in use is left alone. With the journal in memory: taking the lock begins a database, and a
        // full disk must not prevent that.
        let lock = "PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE";
        if conn.busy_timeout(Duration::ZERO).is_ok()
            && conn.execute_batch(lock).is_ok()
            && is_empty()
            && fs::remove_file(&self.path).is_ok()
        {
            // Fails unless the folder is empty.
            let _ = fs::remove_dir(paths::lock_folder(&self.path));
        }
    }

    fn connect(&self, flags: OpenFlags) -> Result<Connection> {
        // Without the URI flag, so that the path is taken literally. NOFOLLOW: the path was resolved.
        let flags = flags
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let context = format!("cannot open {}", self.path.display());
        let mut conn = Connection::open_with_flags(&self.path, flags)
            .map_err(|error| not_writable(error::of(&context, error)))?;
        // Before anything is read from it.
        self.in_use.check()?;
        set_busy_handler(&mut conn, self.busy_wait)?;
        self.in_context(harden(&conn))?;
        Ok(conn)
    }

    /// Retries while another process holds the lock. SQLite itself does not wait for the lock that turns a new file to WAL
    /// mode: two processes could wait for each other for ever.
    fn when_unlocked(&self, set: impl Fn() -> Result<()>) -> Result<()> {
        let deadline = Deadline::after(self.busy_wait);
        loop {
            match set() {
                Err(error) if error.kind() == ErrorKind::Busy && !deadline.is_over() => {
                    pause(Duration::from_millis(1).mul_f64(0.5 + fastrand::f64()));
                }
                set => return set,
            }
        }
    }

    fn in_context<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| error.in_context(&format!("cannot open {}", self.path.display())))
    }
}

/// A connection to a database of its own in memory.
pub(crate) fn memory() -> Result<Connection> {
    check_version(rusqlite::version_number())?;
    let conn = Connection::open_in_memory()
        .map_err(|error| error::of("cannot open a database in memory", error))?;
    harden(&conn)?;
    set(&conn, "foreign_keys", "1", "1")?;
    Ok(conn)
}

/// SQLite before 3.51.3 can lose commits when two connections checkpoint and write at once (the WAL-reset bug,
/// <https://sqlite.org/wal.html#walresetbug>), except in two older series with a backported fix.
fn check_version(version: i32) -> Result<()> {
    let mended = [3_044_006..3_045_000, 3_050_007..3_051_000];
    if version >= 3_051_003 || mended.iter().any(|range| range.contains(&version)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Version,
        format!(
            "SQLite {}.{}.{} can lose commits in WAL mode (the WAL-reset bug); 3.51.3 or later is needed",
            version / 1_000_000,
            version / 1_000 % 1_000,
            version % 1_000
        ),
    ))
}

/// Makes a connection wait up to `busy_wait` for a lock, and try it about every 50 to 400 µs.
pub(crate) fn set_busy_handler(conn: &mut Connection, busy_wait: Duration) -> Result<()> {
    wait_for_locks(conn, busy_wait).map_err(|error| error::of("cannot set the busy handler", error))
}

pub(crate) fn wait_for_locks(conn: &mut Connection, limit: Duration) -> rusqlite::Result<()> {
    let step = |_, count: i32| Duration::from_micros(50 << count.clamp(0, 3));
    conn.busy_handler(Some(patient(limit, step)))
}

/// A busy handler that retries for up to `limit`. `step` maps the time waited and the number of tries to the next pause,
/// about 50 µs to 1 ms with its jitter. SQLite's own handler sleeps so long that a process that commits back to back starves
/// the others.
fn patient(
    limit: Duration,
    step: impl Fn(Duration, i32) -> Duration + Send + 'static,
) -> impl FnMut(i32) -> bool + Send + 'static {
    let mut watch = Stopwatch::start();
    move |count| {
        if count == 0 {
            watch = Stopwatch::start();
        }
        let waited = watch.elapsed();
        pause(step(waited, count).mul_f64(0.5 + fastrand::f64()));
        waited < limit
    }
}

/// The settings of every connection: a database is data, not code, and a damaged page is found before it is used.
fn harden(conn: &Connection) -> Result<()> {
    conn.set_prepared_statement_cache_capacity(128);
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)
        .and_then(|_| conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true))
        // A plan then depends on the statement alone. Without this, SQLite prepares a statement that might use a partial index
        // anew for each bound value.
        .and_then(|_| conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true))
        .map_err(|error| error::of("cannot configure the connection", error))?;
    set(conn, "trusted_schema", "0", "0")?;
    set(conn, "cell_size_check", "1", "1")?;
    set(conn, "temp_store", "MEMORY", "2")?;
    // With a memory mapping an I/O error would be a signal, not an error.
    set(conn, "mmap_size", "0", "0")
}

/// The page size of the file. In WAL mode it never changes.
pub(crate) fn page_bytes(conn: &Connection) -> Result<usize> {
    conn.pragma_query_value(None, "page_size", |row| row.get::<_, u32>(0))
        .map(|bytes| bytes as usize)
        .map_err(|error| error::of("cannot read the page size", error))
}

fn set_cache(conn: &Connection, bytes: usize) -> Result<()> {
    // Negative: in KiB, not in pages.
    let value = format!("-{}", bytes / 1024);
    set(conn, "cache_size", &value, &value)
}

/// Sets a pragma and reads it back: SQLite silently ignores a pragma that it does not know or cannot follow.
fn set(conn: &Connection, name: &str, value: &str, expected: &str) -> Result<()> {
    let context = || format!("cannot set {name}");
    conn.pragma_update_and_check(None, name, value, |_| Ok(()))
        .or_else(|error| match error {
            rusqlite::Error::QueryReturnedNoRows => Ok(()),
            error => Err(error),
        })
        .map_err(|error| not_writable(error::of(&context(), error)))?;
    let got = conn.pragma_query_value(None, name, |row| {
        Ok(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            other => other.as_str().unwrap_or("?").to_owned(),
        })
    });
    match got {
        Ok(got) if got == expected => Ok(()),
        // A build without mapping has no such pragma.
        Err(rusqlite::Error::QueryReturnedNoRows) if name == "mmap_size" => Ok(()),
        Ok(got) if name == "mmap_size" && got.is_empty() => Ok(()),
        Ok(got) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("{}: it is {got:?}, not {expected:?}", context()),
        )),
        Err(error) => Err(error::of(&context(), error)),
    }
}

/// Turns "cannot open" into `ReadOnly`, whatever SQLite calls it; into `Storage` if this process can open no file at all.
fn not_writable(error: Error) -> Error {
    let cannot_open = std::error::Error::source(&error)
        .and_then(|source| source.downcast_ref::<rusqlite::Error>())
        .and_then(rusqlite::Error::sqlite_error_code)
        == Some(rusqlite::ErrorCode::CannotOpen);
    if !cannot_open {
        return error;
    }
    match no_descriptors() {
        Some(why) => Error::new(ErrorKind::Storage, error.to_string()).with_source(why),
        None => Error::new(ErrorKind::ReadOnly, error.to_string()),
    }
}

/// The system's error if this process can open nothing more.
fn no_descriptors() -> Option<io::Error> {
    let error = fs::File::open("/").err()?;
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        let used_up = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
        used_up.contains(&error.raw_os_error()).then_some(error)
    }
    #[cfg(not(unix))]
    {
        let _ = error;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_with_the_wal_reset_bug_are_refused() {
        for (version, safe) in [
            (3_040_001, false),
            (3_044_005, false),
            (3_044_006, true),
            (3_046_000, false),
            (3_050_006, false),
            (3_050_007, true),
            (3_051_002, false),
            (3_051_003, true),
            (3_054_001, true),
        ] {
            assert_eq!(check_version(version).is_ok(), safe, "{version}");
        }
    }

    #[test]
    fn a_misspelt_or_refused_pragma_is_an_error() {
        let conn = memory().unwrap();
        assert!(set(&conn, "journal", "wal", "wal").is_err());
        // In memory there is no log.
        let error = set(&conn, "journal_mode", "wal", "wal").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn the_writer_has_the_page_cache_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut opener = Opener::new(&dir.path().join("app.db"), &Settings::new(true)).unwrap();
        opener.page_cache_bytes = 3 << 20;
        let kib = |conn: Connection| -> i64 {
            -conn
                .pragma_query_value(None, "cache_size", |row| row.get::<_, i64>(0))
                .unwrap()
        };
        assert_eq!(kib(opener.writer().unwrap()), 3 * 1024);
        assert_eq!(kib(opener.reader().unwrap()), 2 * 1024);
    }

    /// P12: SQLite would cut off the index of the log that the other connections have mapped.
    #[cfg(unix)]
    #[test]
    fn p12_no_connection_reads_from_a_file_that_has_taken_the_place_of_an_open_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let made = |name: &str| {
            let opener = Opener::new(&at(name), &Settings::new(false)).unwrap();
            let conn = opener.writer().unwrap();
            conn.execute_batch("CREATE TABLE t (x)").unwrap();
            (conn, opener)
        };
        let (conn, opener) = made("a.db");
        drop(made("b.db"));
        fs::rename(at("b.db"), at("a.db")).unwrap();
        assert_eq!(opener.reader().unwrap_err().kind(), ErrorKind::Replaced);
        assert_eq!(opener.writer().unwrap_err().kind(), ErrorKind::Replaced);
        let again = || Opener::new(&at("a.db"), &Settings::new(false));
        assert_eq!(again().unwrap_err().kind(), ErrorKind::Replaced);
        fs::remove_file(at("a.db")).unwrap();
        assert_eq!(again().unwrap_err().kind(), ErrorKind::Replaced);
        assert!(!at("a.db").exists(), "nothing was created");
        let reads = conn.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
        assert_eq!(reads.unwrap(), 0);
        drop(conn);
        drop(opener);
        fs::remove_file(at("a.db-wal")).unwrap();
        assert!(again().unwrap().reader().is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_is_its_owner_s_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let opener = Opener::new(&dir.path().join("a.db"), &Settings::new(false)).unwrap();
        let conn = opener.writer().unwrap();
        conn.execute_batch("CREATE TABLE t (x)").unwrap();
        for name in ["a.db", "a.db-wal", "a.db-shm"] {
            let mode = std::fs::metadata(dir.path().join(name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
}
