//! What only a store in SQLite can do: copies of its file, and tasks in transactions on the user's own connections.

use std::path::Path;

use rusqlite::Connection;

use crate::client::Client;
use crate::client::write::{self, Write};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::id::TaskId;
use crate::model::answer::Cancel;
use crate::model::new_task::{NewTask, Scheduled};
use crate::store::sqlite::SqliteStore;
use crate::time::Timestamp;

/// The SQLite side of a [`Client`], made by [`Client::sqlite`]: copies of the file, and tasks in transactions on the user's own
/// connections.
///
/// # Example
///
/// ```
/// # use punctual::{Client, NewTask, rusqlite::Connection};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("app.db");
/// let client = Client::open(&path)?;
/// let mut conn = Connection::open(&path)?;
/// client.sqlite()?.set_busy_handler(&mut conn)?;
/// let tx = conn.transaction()?;
/// tx.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)")?;
/// client.sqlite()?.schedule_in(&tx, NewTask::with_kind("ship", &1))?;
/// tx.commit()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Sqlite<'a> {
    client: &'a Client,
    store: &'a SqliteStore,
}

impl Client {
    /// Returns what only a store in SQLite can do.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if the tasks are not kept in SQLite.
    pub fn sqlite(&self) -> Result<Sqlite<'_>> {
        let store = SqliteStore::of(&*self.store)?;
        Ok(Sqlite {
            client: self,
            store,
        })
    }
}

impl Sqlite<'_> {
    /// Copies the file to `path` while it is in use, by SQLite's online backup. The copy shows one instant and can be opened
    /// like the original; tasks that were running are then rescued.
    ///
    /// To restore a copy, end every process that has the original open (in this one, drop its schedulers, clients and own
    /// connections), remove the original with its `-wal` and `-shm`, and move the copy to its place. A log that is left
    /// there would be read as the copy's own; the folder of lock files may stay.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if there is a file at `path` already, or if `path` is no place for a database, as for
    /// [`open`](Client::open); [`ErrorKind::ReadOnly`], [`ErrorKind::Full`] or [`ErrorKind::Storage`] if the copy cannot be
    /// written. After an error nothing is left at `path`.
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{Client, NewTask};
    /// # let dir = tempfile::tempdir()?;
    /// # let client = Client::open(dir.path().join("app.db"))?;
    /// let task = client.schedule(NewTask::with_kind("remind", &7))?.id();
    /// # let copy = dir.path().join("copy.db");
    /// client.sqlite()?.backup(&copy)?;
    /// assert!(Client::open(&copy)?.get(task)?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn backup(self, path: impl AsRef<Path>) -> Result<()> {
        self.store.backup(path.as_ref())
    }

    /// The length of the write-ahead log after the last commit, in bytes; 0 for a store in memory.
    #[must_use]
    pub fn wal_bytes(self) -> u64 {
        self.store.wal_bytes()
    }

    /// Stores a task in the user's own transaction, on the user's own connection to the same file, such as a
    /// [`rusqlite::Transaction`]. If the transaction commits, the task is stored, and its due time is noticed without a further
    /// call. The durability is that connection's. No [`Event`](crate::Event) is sent, because the store does not see whether
    /// the transaction commits.
    ///
    /// The connection must wait for other writers, best by [`set_busy_handler`](Self::set_busy_handler). A transaction that
    /// begins by reading should be an immediate one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the connection is to another file, to this one under another name (a hard link), has no
    /// open transaction, or has a temporary table with one of the crate's names; [`ErrorKind::ReadOnly`] if it cannot write;
    /// [`ErrorKind::Replaced`] if the file is gone, or if the connection is to an earlier file at its path;
    /// [`ErrorKind::Unsupported`] for a store in memory, and for a file whose path is not UTF-8; [`ErrorKind::Busy`] if
    /// another connection is writing; [`ErrorKind::Reentrant`] inside a transaction of the same store; else as
    /// [`schedule`](Client::schedule).
    ///
    /// After [`ErrorKind::Invalid`] and [`ErrorKind::Payload`] nothing was written, and the transaction can go on. After any
    /// other error roll it back: the task may be half written. A transaction that read before another connection wrote can only
    /// be started again.
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{Client, NewTask, rusqlite::Connection};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("app.db");
    /// let client = Client::open(&path)?;
    /// let mut conn = Connection::open(&path)?;
    /// let tx = conn.transaction()?;
    /// tx.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)")?;
    /// let task = client.sqlite()?.schedule_in(&tx, NewTask::with_kind("ship", &1))?.id();
    /// tx.rollback()?;
    /// assert!(client.get(task)?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn schedule_in(self, conn: &Connection, task: impl Into<NewTask>) -> Result<Scheduled> {
        let now = self.client.now();
        self.run_in(conn, now, write::schedule(now, task.into()))
    }

    /// Makes the user's own connection wait for SQLite's write lock as the crate's connections do, for at most the store's busy
    /// timeout: it retries about every 50 to 400 µs. SQLite's own busy timeout sleeps up to 100 ms between two tries, and
    /// beside processes that write all the time it may wait for seconds.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forked`] or [`ErrorKind::Reentrant`], as every call.
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{Client, rusqlite::Connection};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("app.db");
    /// let client = Client::open(&path)?;
    /// let mut conn = Connection::open(&path)?;
    /// client.sqlite()?.set_busy_handler(&mut conn)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_busy_handler(self, conn: &mut Connection) -> Result<()> {
        self.store.set_busy_handler(conn)
    }

    /// Stores tasks in the user's own transaction, and returns the answers in their order.
    ///
    /// # Errors
    ///
    /// As [`schedule_in`](Self::schedule_in).
    pub fn schedule_many_in<T: Into<NewTask>>(
        self,
        conn: &Connection,
        tasks: impl IntoIterator<Item = T>,
    ) -> Result<Vec<Scheduled>> {
        let now = self.client.now();
        self.run_in(conn, now, write::schedule_many(now, 0, tasks))
    }

    /// Cancels a task in the user's own transaction. A running handler is asked to stop after the commit.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is no such task; else as [`schedule_in`](Self::schedule_in).
    pub fn cancel_in(self, conn: &Connection, id: impl Into<TaskId>) -> Result<Cancel> {
        self.run_in(conn, self.client.now(), write::cancel(id.into()))
    }

    fn run_in<T>(self, conn: &Connection, now: Timestamp, write: Result<Write<T>>) -> Result<T> {
        let write = write?;
        let reply = self.store.apply_on(now, conn, &write.op);
        write.answer.of(reply.map(|reply| vec![reply]))
    }
}
