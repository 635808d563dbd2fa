//! What only a store in SQLite can do, for the faces of the engine: [`Sqlite`](crate::Sqlite) and
//! [`Tx::sqlite`](crate::Tx::sqlite).

use std::path::Path;

use rusqlite::Connection;

use crate::error::{Error, ErrorKind, Result};
use crate::model::op::{Op, Reply};
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::file::open;
use crate::store::sqlite::read::backup;
use crate::store::sqlite::write::borrowed;
use crate::store::{Store, Transaction};
use crate::time::Timestamp;

/// What only this engine can do.
impl SqliteStore {
    /// # Errors
    ///
    /// `Unsupported` for a store of another engine.
    pub(crate) fn of(store: &dyn Store) -> Result<&Self> {
        store.as_any().downcast_ref().ok_or_else(not_sqlite)
    }

    /// Applies an operation in a transaction that the caller has begun on the caller's own connection.
    ///
    /// # Errors
    ///
    /// `Invalid` if the connection is not to this file, or no transaction is open on it.
    pub(crate) fn apply_on(&self, now: Timestamp, conn: &Connection, op: &Op) -> Result<Reply> {
        self.check_caller()?;
        let file = self.path.as_deref().zip(self.identity);
        borrowed::apply(&self.shared, file, now, conn, op)
    }

    /// Sets a busy handler on the caller's own connection that tries the write lock often enough to get it beside processes
    /// that write all the time.
    pub(crate) fn set_busy_handler(&self, conn: &mut Connection) -> Result<()> {
        self.check_caller()?;
        open::set_busy_handler(conn, self.busy_wait)
    }

    /// Copies the store into a new file while the store is in use.
    pub(crate) fn backup(&self, to: &Path) -> Result<()> {
        backup::backup(to, |copy| self.with_reader(copy))
    }

    /// The length of the log after the last commit, in bytes.
    pub(crate) fn wal_bytes(&self) -> u64 {
        self.shared.wal_bytes()
    }
}

/// The connection of a transaction.
///
/// # Errors
///
/// `Unsupported` in a store of another engine.
pub(crate) fn connection(inside: &dyn Transaction) -> Result<&Connection> {
    inside.connection().downcast_ref().ok_or_else(not_sqlite)
}

fn not_sqlite() -> Error {
    Error::new(ErrorKind::Unsupported, "the tasks are not kept in SQLite")
}

#[cfg(test)]
mod tests {
    use std::any::Any;

    use super::*;

    struct OfAnotherEngine;

    impl Transaction for OfAnotherEngine {
        fn apply(&self, op: Op) -> Result<Reply> {
            unreachable!("{op:?}")
        }

        fn connection(&self) -> &dyn Any {
            &()
        }
    }

    #[test]
    fn the_transaction_of_another_engine_has_no_connection_to_sqlite() {
        let error = connection(&OfAnotherEngine).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
}
