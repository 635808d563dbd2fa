//! Counters in the file, rows of `punctual_meta`: a number that was drawn is never drawn again.

use rusqlite::{Connection, OptionalExtension, params};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Counter {
    /// The number of the last instance: a stale fence must not fit a later one.
    Instances,
    /// The number of the last lane.
    Lanes,
    /// The number of the last retirement.
    Retirements,
    /// The greatest number of a retirement of which some or all lanes are deleted.
    Forgotten,
    /// The number of the last recurrence.
    Recurrences,
}

const READ: &str = "SELECT value FROM punctual_meta WHERE key = :key";

const DRAW: &str = "
    INSERT INTO punctual_meta (key, value) VALUES (:key, 1)
    ON CONFLICT (key) DO UPDATE SET value = value + 1
    RETURNING value";

const RAISE: &str = "
    INSERT INTO punctual_meta (key, value) VALUES (:key, :value)
    ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)";

impl Counter {
    fn key(self) -> &'static str {
        match self {
            Self::Instances => "instances",
            Self::Lanes => "lanes",
            Self::Retirements => "retirements",
            Self::Forgotten => "forgotten",
            Self::Recurrences => "recurrences",
        }
    }

    pub(crate) fn read(self, conn: &Connection) -> rusqlite::Result<i64> {
        let value: Option<i64> = conn
            .prepare_cached(READ)?
            .query_row([self.key()], |row| row.get(0))
            .optional()?;
        Ok(value.unwrap_or(0))
    }

    /// The next number.
    pub(crate) fn draw(self, conn: &Connection) -> rusqlite::Result<i64> {
        conn.prepare_cached(DRAW)?
            .query_row([self.key()], |row| row.get(0))
    }

    pub(crate) fn raise_to(self, conn: &Connection, value: i64) -> rusqlite::Result<()> {
        conn.prepare_cached(RAISE)?
            .execute(params![self.key(), value])
            .map(|_| ())
    }
}
