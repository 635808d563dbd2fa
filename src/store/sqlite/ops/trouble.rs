//! What went wrong with a task besides its handler's own errors. Few tasks have any of it, so it has a table of its own.

use rusqlite::{Connection, OptionalExtension, params};

use crate::store::sqlite::ops::row;
use crate::store::sqlite::sql::{columns, extra, sql};

columns! {
    /// The counts of a task.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    struct Trouble {
        /// How many attempts ended with their process.
        crashes: u32 = "crashes" by row::count,
        /// For how many of these ends the task was blamed.
        blamed: u32 = "blamed" by row::count,
        /// How often in a row its payload could not be decoded.
        undecoded: u32 = "undecoded" by row::count,
    }
}

const READ: &str = sql!(
    "SELECT {columns} FROM punctual_trouble WHERE seq = :seq",
    columns = Trouble::COLUMNS
);

const KEEP: &str = "
    INSERT OR REPLACE INTO punctual_trouble (seq, crashes, blamed, undecoded)
    VALUES (:seq, :crashes, :blamed, :undecoded)";

pub(crate) const DELETE: &str = "DELETE FROM punctual_trouble WHERE seq = :seq";

impl Trouble {
    /// Reads the counts of a task with these `extras`.
    pub(crate) fn of(conn: &Connection, seq: i64, extras: i64) -> rusqlite::Result<Self> {
        if extras & extra::TROUBLE == 0 {
            return Ok(Self::default());
        }
        let row = conn
            .prepare_cached(READ)?
            .query_row([seq], Self::read)
            .optional()?;
        Ok(row.unwrap_or_default())
    }

    /// Stores the counts if any is or was set, and returns the bit of `extras` that says so.
    pub(crate) fn keep(&self, conn: &Connection, seq: i64, extras: i64) -> rusqlite::Result<i64> {
        if *self == Self::default() && extras & extra::TROUBLE == 0 {
            return Ok(0);
        }
        conn.prepare_cached(KEEP)?.execute(params![
            seq,
            self.crashes,
            self.blamed,
            self.undecoded
        ])?;
        Ok(extra::TROUBLE)
    }
}

const FORGET_UNDECODED: &str = "UPDATE punctual_trouble SET undecoded = 0 WHERE seq = :seq";

/// Resets the count of decoding failures: the task has another payload.
pub(crate) fn forget_undecoded(conn: &Connection, seq: i64) -> rusqlite::Result<()> {
    conn.prepare_cached(FORGET_UNDECODED)?.execute([seq])?;
    Ok(())
}
