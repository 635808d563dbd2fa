//! The room of a row: what a claim and a completion add to it takes the place of padding, so that it keeps its length and stays
//! in its page.

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
pub(crate) fn completion_bytes(has_extras: bool) -> usize {
    TIME_BYTES + usize::from(has_extras)
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
