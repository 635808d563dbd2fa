//! Operations in a transaction of the user's own, on a connection of the user's own to the same file.
//!
//! Nothing is published here, since the transaction may not commit. Its commit is noticed in the file, like that of any
//! other connection. So operations on a connection whose commits cannot be noticed there are refused.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use rusqlite::{Connection, MAIN_DB, OptionalExtension};

use crate::error::{Error, ErrorKind, Result};
use crate::model::op::{Op, Reply};
use crate::store::done::Done;
use crate::store::lanes::Lanes;
use crate::store::sqlite::error;
use crate::store::sqlite::file::identity::{self, Identity};
use crate::store::sqlite::file::schema;
use crate::store::sqlite::ops::lanes::has_all_retirements;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::write::batch::apply_checked;
use crate::store::sqlite::write::shared::Shared;
use crate::sync::lock;
use crate::time::Timestamp;

/// Changes nothing, but takes SQLite's write lock.
const TAKE_LOCK: &str = "UPDATE punctual_meta SET value = value WHERE key = ''";

const HIDDEN: &str =
    "SELECT name FROM sqlite_temp_schema WHERE name LIKE 'punctual^_%' ESCAPE '^' LIMIT 1";

pub(crate) fn apply(
    shared: &Shared,
    file: Option<(&Path, Identity)>,
    now: Timestamp,
    conn: &Connection,
    op: &Op,
) -> Result<Reply> {
    check(shared, file, conn)?;
    check_tables(conn)?;
    // A transaction that has only read cannot write once another connection has written.
    conn.prepare_cached(TAKE_LOCK)
        .and_then(|mut statement| statement.execute([]))
        .map_err(|error| schema::diagnose(conn, "cannot write", error))?;
    // Checked under the lock: the file may have been migrated since the store looked.
    schema::check_version(conn)?;
    let known = lock(&shared.lanes).known();
    let is_current = has_all_retirements(conn, known)
        .map_err(|error| schema::diagnose(conn, "cannot read the lanes", error))?;
    // A task added to a lane that was retired meanwhile would never run, so the lanes are then looked up in the file.
    let none = Mutex::new(Lanes::default());
    let mut done = Done::default();
    let mut tx = WriteTx {
        conn,
        now,
        // So a cancellation is left in the file for the process that runs the task, even if it is this one.
        instance: 0,
        lanes: if is_current { &shared.lanes } else { &none },
        wants_events: false,
        wants_recurrence_events: false,
        drawn: &mut 0,
        waiting: &AtomicUsize::new(0),
        turned: Vec::new(),
        done: &mut done,
    };
    apply_checked(&mut tx, op).map_err(|failure| failure.into_error(conn))
}

/// # Errors
///
/// `Invalid` if temporary tables of the user's hide ours: what is written to them would be gone with the connection.
fn check_tables(conn: &Connection) -> Result<()> {
    let hidden: Option<String> = conn
        .prepare_cached(HIDDEN)
        .and_then(|mut hidden| hidden.query_row([], |row| row.get(0)).optional())
        .map_err(|error| error::of("cannot ask the connection", error))?;
    match hidden {
        Some(name) => Err(Error::invalid(format!(
            "temp.{name} hides the crate's on the connection"
        ))),
        None => Ok(()),
    }
}

/// # Errors
///
/// The error that the store has stopped with. `Unsupported` in memory, and if the file's path is not UTF-8. `Invalid` for a
/// connection to another file, or to this one under another name, or without a transaction; `ReadOnly` for one that cannot
/// write; `Replaced` if the file is not there any more, or the connection is to an earlier file of that name.
fn check(shared: &Shared, file: Option<(&Path, Identity)>, conn: &Connection) -> Result<()> {
    if let Some(error) = &*lock(&shared.stopped) {
        return Err(error.clone());
    }
    let Some((path, identity)) = file else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "a store in memory has no other connections: use transaction()",
        ));
    };
    if path.to_str().is_none() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the path {} is not UTF-8, so a connection's path cannot be compared with it: use transaction()",
                path.display()
            ),
        ));
    }
    let theirs = conn.path().unwrap_or_default();
    if Path::new(theirs) != path {
        return Err(Error::invalid(match theirs {
            "" => format!("the connection is to no file, not to {}", path.display()),
            theirs => format!("the connection is to {theirs}, not to {}", path.display()),
        }));
    }
    identity::check(path, identity)?;
    if identity::has_moved(conn)? {
        return Err(Error::new(
            ErrorKind::Replaced,
            format!("the connection is to a file that was {theirs} once: open it anew"),
        ));
    }
    let readonly = conn
        .is_readonly(MAIN_DB)
        .map_err(|error| error::of("cannot ask the connection", error))?;
    if readonly {
        return Err(Error::new(
            ErrorKind::ReadOnly,
            format!("the connection to {theirs} cannot write"),
        ));
    }
    if conn.is_autocommit() {
        return Err(Error::invalid(
            "no transaction is open on the connection: begin one first",
        ));
    }
    Ok(())
}
