//! Payloads: where they are kept, and the checksum that shows damage.

use rusqlite::{Connection, params};

use crate::id::TaskId;
use crate::store::sqlite::ops::extras;
use crate::store::sqlite::sql::extra;

/// The largest payload that is kept in the task's row. A larger one would be rewritten with every change of state.
pub(crate) const MAX_INLINE_BYTES: usize = 1024;

/// The checksum over what must not change unseen: the task's id, kind and payload.
pub(crate) fn checksum(id: TaskId, kind: &str, payload: &[u8]) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(id.as_bytes());
    // A boundary that is in no kind: else "job1" with 2 would be "job" with 12.
    hasher.update(kind.as_bytes());
    hasher.update(&[0]);
    hasher.update(payload);
    i64::from(hasher.finalize())
}

const KEEP: &str = "INSERT OR REPLACE INTO punctual_payload (seq, payload) VALUES (:seq, :payload)";

/// Stores a payload that is too large for the task's row.
pub(crate) fn keep(conn: &Connection, seq: i64, payload: &[u8]) -> rusqlite::Result<()> {
    conn.prepare_cached(KEEP)?.execute(params![seq, payload])?;
    Ok(())
}

const READ: &str = "SELECT payload FROM punctual_payload WHERE seq = :seq";

/// Reads the payload of a task, of which the row has `inline`; `None`: it is missing.
pub(crate) fn read(
    conn: &Connection,
    seq: i64,
    extras: i64,
    inline: Option<Vec<u8>>,
) -> rusqlite::Result<Option<Vec<u8>>> {
    match inline {
        Some(payload) => Ok(Some(payload)),
        None => extras::read(conn, seq, extras, extra::PAYLOAD, READ),
    }
}

/// Checks the payload that was read.
///
/// # Errors
///
/// What is wrong with the task, if its payload is missing or damaged.
pub(crate) fn verify(
    payload: Option<Vec<u8>>,
    sum: i64,
    id: TaskId,
    kind: &str,
) -> Result<Vec<u8>, &'static str> {
    match payload {
        Some(payload) if checksum(id, kind, &payload) == sum => Ok(payload),
        Some(_) => Err("its payload does not match its checksum"),
        None => Err("its payload is missing"),
    }
}
