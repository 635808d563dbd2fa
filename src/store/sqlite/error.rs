//! What SQLite's errors mean to a caller.

use rusqlite::ErrorCode;

use crate::error::{Error, ErrorKind};

/// The kind of a statement's error. A COMMIT, whose outcome may be unknown, has [`of_commit`].
pub(crate) fn kind(error: &rusqlite::Error) -> ErrorKind {
    let Some(code) = error.sqlite_error() else {
        return ErrorKind::Storage;
    };
    match code.code {
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed => ErrorKind::Busy,
        ErrorCode::DiskFull => ErrorKind::Full,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => ErrorKind::Corrupt,
        ErrorCode::ReadOnly if code.extended_code == rusqlite::ffi::SQLITE_READONLY_DBMOVED => {
            ErrorKind::Replaced
        }
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => ErrorKind::ReadOnly,
        ErrorCode::TooBig => ErrorKind::Payload,
        ErrorCode::OperationInterrupted => ErrorKind::Timeout,
        _ => ErrorKind::Storage,
    }
}

/// An error of a statement: nothing was stored.
pub(crate) fn of(context: &str, error: rusqlite::Error) -> Error {
    Error::new(kind(&error), context).with_source(error)
}

/// An error of the caller's own SQL inside a transaction, kept as the [`source`](std::error::Error::source). A fault of the
/// SQL, its values or a constraint is `Sql`; what a transaction does not allow is `Invalid`.
impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        let (kind, context) = match error.sqlite_error_code() {
            Some(ErrorCode::AuthorizationForStatementDenied) => (
                ErrorKind::Invalid,
                "the SQL of a transaction may not begin or end one, attach a file, set a pragma, or write to punctual's tables",
            ),
            Some(
                ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::ParameterOutOfRange
                | ErrorCode::Unknown,
            )
            | None => (ErrorKind::Sql, "the SQL failed"),
            Some(ErrorCode::OperationInterrupted) => (
                ErrorKind::Timeout,
                "the SQL was interrupted, because the transaction has taken too long",
            ),
            Some(_) => (kind(&error), "the SQL failed"),
        };
        Error::new(kind, context).with_source(error)
    }
}

/// An error of a COMMIT: after a failed write or sync the transaction may or may not be in the log.
pub(crate) fn of_commit(error: rusqlite::Error) -> Error {
    if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) {
        // A deferred foreign key of the caller's: the transaction is still open, and will be rolled back.
        return Error::from(error);
    }
    match kind(&error) {
        ErrorKind::Storage => Error::new(
            ErrorKind::Unknown,
            "the disk failed during a commit: it may or may not be stored",
        )
        .with_source(error),
        kind => Error::new(kind, "cannot commit").with_source(error),
    }
}

/// Whether the connection must not be used again: its caches may differ from the file.
pub(crate) fn poisons(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|code| {
        matches!(
            code.code,
            ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::CannotOpen
                | ErrorCode::ApiMisuse
        )
    })
}

/// Whether the store cannot go on with this file.
pub(crate) fn stops(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Corrupt | ErrorKind::Replaced | ErrorKind::ReadOnly | ErrorKind::Version
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    fn error(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn codes_as_a_table() {
        let table = [
            (ffi::SQLITE_BUSY, ErrorKind::Busy),
            (ffi::SQLITE_BUSY_SNAPSHOT, ErrorKind::Busy),
            (ffi::SQLITE_LOCKED, ErrorKind::Busy),
            (ffi::SQLITE_PROTOCOL, ErrorKind::Busy),
            (ffi::SQLITE_FULL, ErrorKind::Full),
            (ffi::SQLITE_CORRUPT_INDEX, ErrorKind::Corrupt),
            (ffi::SQLITE_NOTADB, ErrorKind::Corrupt),
            (ffi::SQLITE_READONLY_DBMOVED, ErrorKind::Replaced),
            (ffi::SQLITE_READONLY_DIRECTORY, ErrorKind::ReadOnly),
            (ffi::SQLITE_IOERR_WRITE, ErrorKind::Storage),
            (ffi::SQLITE_NOMEM, ErrorKind::Storage),
        ];
        for (code, expected) in table {
            assert_eq!(kind(&error(code)), expected, "{code}");
        }
    }

    #[test]
    fn a_failed_sync_at_commit_is_unknown_and_a_full_disk_is_not() {
        assert_eq!(
            of_commit(error(ffi::SQLITE_IOERR_FSYNC)).kind(),
            ErrorKind::Unknown
        );
        assert_eq!(of_commit(error(ffi::SQLITE_FULL)).kind(), ErrorKind::Full);
        assert!(poisons(&error(ffi::SQLITE_IOERR_FSYNC)));
        assert!(!poisons(&error(ffi::SQLITE_FULL)));
    }
}
