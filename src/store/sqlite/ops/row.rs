//! Rows: columns that may be damaged, and the length that a row keeps.
//!
//! One flipped bit can take a column out of its range. Such a column is read as the nearest value in range, where there is
//! one: a damaged row is its task's failure, and must not fail the transaction that reads it.

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

/// How many bytes of room a new row has for what its claim and its completion add.
const ROOM: usize = 23;

/// The room of a row that was never claimed, as SQL.
pub(crate) const ROOM_SQL: &str = "x'0000000000000000000000000000000000000000000000'";
const _: () = assert!(
    ROOM_SQL.len() == "x''".len() + 2 * ROOM,
    "as long as the room"
);

/// How many bytes SQLite needs for a number, besides one byte in the header of its row
/// (<https://sqlite.org/fileformat2.html#record_format>).
fn number_bytes(number: i64) -> usize {
    let fits = |bits: u32| (-(1_i64 << (bits - 1))..1 << (bits - 1)).contains(&number);
    match number {
        0 | 1 => 0,
        _ if fits(8) => 1,
        _ if fits(16) => 2,
        _ if fits(24) => 3,
        _ if fits(32) => 4,
        _ if fits(48) => 6,
        _ => 8,
    }
}

/// How many bytes a claim adds to a row that was never claimed: its state, its number, the instance and an instant.
pub(crate) fn claim_bytes(instance: i64, claim_no: i64) -> usize {
    1 + number_bytes(claim_no) + number_bytes(instance) + TIME_BYTES
}

/// How many bytes a completion adds to the row: an instant, and the first of its extras.
pub(crate) fn completion_bytes(has_result: bool) -> usize {
    TIME_BYTES + usize::from(has_result)
}

const TIME_BYTES: usize = 8;

/// The room of a new row, less what it has taken already.
pub(crate) fn room(taken: usize) -> &'static [u8] {
    &[0; ROOM][taken.min(ROOM)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_what_the_file_format_says() {
        let table = [
            (0, 0),
            (1, 0),
            (-1, 1),
            (127, 1),
            (128, 2),
            (-32_768, 2),
            (32_768, 3),
            (8_388_608, 4),
            (1 << 31, 6),
            (1 << 47, 8),
            (i64::MIN, 8),
        ];
        for (number, bytes) in table {
            assert_eq!(number_bytes(number), bytes, "{number}");
        }
    }
}
