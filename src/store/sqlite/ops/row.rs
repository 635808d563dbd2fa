//! Columns that may be damaged.
//!
//! One flipped bit can take a column out of its range. Such a column is read as the nearest value in range, where there is
//! one: a damaged row is its task's failure, and must not fail the transaction that reads it.

use std::time::Duration;

use rusqlite::Row;

use crate::id::TaskId;
use crate::model::attempt::AttemptEnd;
use crate::model::lane::{Class, LaneId};
use crate::model::limits::MAX_PRIORITY;
use crate::model::task::TaskState;
use crate::time::Timestamp;

pub(crate) use crate::store::sqlite::sql::get;

/// An instant.
pub(crate) fn time(row: &Row<'_>, index: usize) -> rusqlite::Result<Timestamp> {
    row.get(index).map(Timestamp::from_micros)
}

/// An instant, if there is one.
pub(crate) fn time_or_none(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Timestamp>> {
    let micros: Option<i64> = row.get(index)?;
    Ok(micros.map(Timestamp::from_micros))
}

/// A span that is stored in microseconds, if there is one.
pub(crate) fn span_or_none(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Duration>> {
    let micros: Option<i64> = row.get(index)?;
    Ok(micros.map(|micros| Duration::from_micros(micros.unsigned_abs())))
}

/// A name; what is no text in it is replaced.
pub(crate) fn name(row: &Row<'_>, index: usize) -> rusqlite::Result<String> {
    let bytes = row.get_ref(index)?.as_bytes()?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// A lane's number.
pub(crate) fn lane(row: &Row<'_>, index: usize) -> rusqlite::Result<LaneId> {
    row.get(index).map(LaneId)
}

/// A state. An unknown number fails the row: it is not clear what may be done with the task.
pub(crate) fn state(row: &Row<'_>, index: usize) -> rusqlite::Result<TaskState> {
    let code: i64 = row.get(index)?;
    TaskState::from_code(code).ok_or(rusqlite::Error::IntegralValueOutOfRange(index, code))
}

/// How an attempt ended.
pub(crate) fn attempt_end(row: &Row<'_>, index: usize) -> rusqlite::Result<AttemptEnd> {
    let code: i64 = row.get(index)?;
    AttemptEnd::from_code(code).ok_or(rusqlite::Error::IntegralValueOutOfRange(index, code))
}

/// An id, cut or padded to its length: the checksum then says that the task is damaged.
pub(crate) fn id(row: &Row<'_>, index: usize) -> rusqlite::Result<TaskId> {
    let stored = row.get_ref(index)?.as_blob()?;
    let mut bytes = [0; 16];
    let length = stored.len().min(bytes.len());
    bytes[..length].copy_from_slice(&stored[..length]);
    Ok(TaskId::from_bytes(bytes))
}

/// A number of attempts or crashes.
pub(crate) fn count(row: &Row<'_>, index: usize) -> rusqlite::Result<u32> {
    let stored: i64 = row.get(index)?;
    Ok(u32::try_from(stored.max(0)).unwrap_or(u32::MAX))
}

/// A count without a bound.
pub(crate) fn total(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    let stored: i64 = row.get(index)?;
    Ok(u64::try_from(stored).unwrap_or(0))
}

/// A priority.
pub(crate) fn priority(row: &Row<'_>, index: usize) -> rusqlite::Result<u8> {
    let stored: i64 = row.get(index)?;
    Ok(u8::try_from(stored.max(0)).map_or(MAX_PRIORITY, |stored| stored.min(MAX_PRIORITY)))
}

/// The class of a lane. An unknown number is read as the class whose tasks must not be started twice.
pub(crate) fn class(row: &Row<'_>, index: usize) -> rusqlite::Result<Class> {
    Ok(Class::from_code(row.get(index)?).unwrap_or(Class::Once))
}

/// How many tasks of a queue may run at once.
pub(crate) fn limit(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<u32>> {
    let stored: Option<i64> = row.get(index)?;
    Ok(stored.map(|limit| u32::try_from(limit.max(1)).unwrap_or(u32::MAX)))
}
