//! What went wrong in a transaction, before it is an error for a caller: for that the connection has to be examined.

use rusqlite::Connection;

use crate::error::{Error, ErrorKind};
use crate::store::sqlite::error;
use crate::store::sqlite::file::schema;

/// What went wrong in a transaction.
pub(crate) enum WriteFailure {
    Sql(&'static str, rusqlite::Error),
    Commit(rusqlite::Error),
    /// The schema of the file is not one that this version works on.
    Refused(Error),
    /// An operation went on although SQLite had rolled the transaction back.
    Void,
}

impl WriteFailure {
    pub(crate) fn at(what: &'static str, error: rusqlite::Error) -> Self {
        Self::Sql(what, error)
    }

    /// The error for a caller; `conn` is the connection where it happened.
    pub(crate) fn into_error(self, conn: &Connection) -> Error {
        match self {
            Self::Sql(what, error) => schema::diagnose(conn, &format!("cannot {what}"), error),
            Self::Refused(error) => error,
            Self::Commit(error) => error::of_commit(error),
            Self::Void => Error::new(ErrorKind::Storage, "the transaction was rolled back"),
        }
    }

    /// Whether the connection must not be used again.
    pub(crate) fn poisons(&self) -> bool {
        match self {
            Self::Sql(_, error) | Self::Commit(error) => error::poisons(error),
            Self::Refused(_) | Self::Void => false,
        }
    }
}
