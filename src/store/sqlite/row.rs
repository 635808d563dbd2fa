//! Columns that one flipped bit can take out of their range. They are read as the nearest value that is in it: a damaged row
//! is its task's failure, and must not fail the transaction that comes upon it.

use rusqlite::Row;

use crate::id::TaskId;
use crate::model::limits::MAX_PRIORITY;

/// An id, cut or padded to its length: the checksum then says that the task is damaged.
pub(super) fn id(row: &Row<'_>, index: usize) -> rusqlite::Result<TaskId> {
    let stored = row.get_ref(index)?.as_blob()?;
    let mut bytes = [0; 16];
    let length = stored.len().min(bytes.len());
    bytes[..length].copy_from_slice(&stored[..length]);
    Ok(TaskId::from_bytes(bytes))
}

/// A number of attempts or crashes.
pub(super) fn count(row: &Row<'_>, index: usize) -> rusqlite::Result<u32> {
    let stored: i64 = row.get(index)?;
    Ok(u32::try_from(stored.max(0)).unwrap_or(u32::MAX))
}

/// A priority.
pub(super) fn priority(row: &Row<'_>, index: usize) -> rusqlite::Result<u8> {
    let stored: i64 = row.get(index)?;
    Ok(u8::try_from(stored.max(0)).map_or(MAX_PRIORITY, |stored| stored.min(MAX_PRIORITY)))
}
