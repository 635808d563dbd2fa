//! SQL whose numbers have names: `{running}` in a statement stands for the number of that state, `{tags}` for the bit that
//! says that a task has tags, `{in_use}` for the mark of a lane that is not retired. The names are replaced at compile time;
//! an unknown name does not compile.

use rusqlite::Row;
use rusqlite::types::FromSql;

use crate::model::task::TaskState;

/// The bits of `punctual_task.extras`: what a task has in other tables.
pub(crate) mod extra {
    pub(crate) const PAYLOAD: i64 = 1;
    pub(crate) const TAGS: i64 = 2;
    pub(crate) const RESULT: i64 = 4;
    pub(crate) const ATTEMPTS: i64 = 8;
    pub(crate) const PROGRESS: i64 = 16;
    pub(crate) const TROUBLE: i64 = 32;
    /// The task was made by a recurrence: while it is live it is in the table of live tasks.
    pub(crate) const RECURRENCE: i64 = 64;
}

/// `punctual_lane.retired` of a lane in use. Of a retired lane it is the number of its retirement, which is greater.
const IN_USE: i64 = 0;

/// The numbers that statements name.
const NUMBERS: [(&str, i64); 14] = [
    ("pending", TaskState::Pending.code()),
    ("running", TaskState::Running.code()),
    ("completed", TaskState::Completed.code()),
    ("failed", TaskState::Failed.code()),
    ("cancelled", TaskState::Cancelled.code()),
    ("state_step", TaskState::STEP),
    ("payload", extra::PAYLOAD),
    ("tags", extra::TAGS),
    ("result", extra::RESULT),
    ("attempts", extra::ATTEMPTS),
    ("progress", extra::PROGRESS),
    ("trouble", extra::TROUBLE),
    ("recurrence", extra::RECURRENCE),
    ("in_use", IN_USE),
];

/// A statement with its names replaced: `sql!("… state = {running}")`. Further names stand for texts, such as a list of
/// columns: `sql!("SELECT {columns} FROM …", columns = Row::COLUMNS)`.
macro_rules! sql {
    ($text:expr $(, $name:ident = $value:expr)* $(,)?) => {{
        const TEXT: &str = $text;
        const TEXTS: &[(&str, &str)] = &[$((stringify!($name), $value)),*];
        const LENGTH: usize = $crate::store::sqlite::sql::length(TEXT, TEXTS);
        const BYTES: [u8; LENGTH] = $crate::store::sqlite::sql::expand(TEXT, TEXTS);
        match core::str::from_utf8(&BYTES) {
            Ok(sql) => sql,
            Err(_) => panic!("a name is cut out of a text between its characters"),
        }
    }};
}
pub(crate) use sql;

/// How long a text is with its names replaced.
pub(crate) const fn length(text: &str, texts: &[(&str, &str)]) -> usize {
    walk::<0>(text.as_bytes(), texts).1
}

/// A text with its names replaced; `N` is its [`length`].
pub(crate) const fn expand<const N: usize>(text: &str, texts: &[(&str, &str)]) -> [u8; N] {
    walk::<N>(text.as_bytes(), texts).0
}

/// Replaces the names. Returns the first `N` bytes of the result, and how long all of it is.
const fn walk<const N: usize>(text: &[u8], texts: &[(&str, &str)]) -> ([u8; N], usize) {
    let (mut out, mut length, mut at) = ([0; N], 0, 0);
    while at < text.len() {
        if text[at] == b'{' {
            let end = end_of_name(text, at);
            let name = text.split_at(end).0.split_at(at + 1).1;
            (out, length) = match text_of(name, texts) {
                Some(value) => append(out, length, value.as_bytes(), 0),
                None => {
                    let (digits, first) = digits_of(name);
                    append(out, length, &digits, first)
                }
            };
            at = end;
        } else {
            (out, length) = append(out, length, text.split_at(at + 1).0, at);
        }
        at += 1;
    }
    (out, length)
}

/// Appends `bytes` from `first` on.
const fn append<const N: usize>(
    mut out: [u8; N],
    mut length: usize,
    bytes: &[u8],
    first: usize,
) -> ([u8; N], usize) {
    let mut index = first;
    while index < bytes.len() {
        if length < N {
            out[length] = bytes[index];
        }
        length += 1;
        index += 1;
    }
    (out, length)
}

const fn end_of_name(text: &[u8], start: usize) -> usize {
    let mut end = start;
    while text[end] != b'}' {
        end += 1;
    }
    end
}

const fn text_of<'a>(name: &[u8], texts: &[(&str, &'a str)]) -> Option<&'a str> {
    let mut index = 0;
    while index < texts.len() {
        if is_same(name, texts[index].0.as_bytes()) {
            return Some(texts[index].1);
        }
        index += 1;
    }
    None
}

/// The number of that name, in decimal at the end of four bytes, and where it begins.
const fn digits_of(name: &[u8]) -> ([u8; 4], usize) {
    let mut index = 0;
    while !is_same(name, NUMBERS[index].0.as_bytes()) {
        index += 1;
        assert!(index < NUMBERS.len(), "a name in a statement is not known");
    }
    let (mut number, mut digits, mut first) = (NUMBERS[index].1, [0; 4], 4);
    while first == 4 || number > 0 {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    (digits, first)
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut index = 0;
    while index < one.len() && index < other.len() && one[index] == other[index] {
        index += 1;
    }
    index == one.len() && index == other.len()
}

/// A column of any type. A value of another type fails its row.
pub(crate) fn get<T: FromSql>(row: &Row<'_>, index: usize) -> rusqlite::Result<T> {
    row.get(index)
}

/// A row as a type: its columns, in the order in which they are read. `by` names the function that reads a column. A column
/// may be any expression, with names as in a statement.
macro_rules! columns {
    (
        $(#[$meta:meta])*
        struct $name:ident {
            $(#[$first_doc:meta])*
            $first:ident: $first_type:ty = $first_column:literal by $first_read:expr,
            $($(#[$doc:meta])* $field:ident: $type:ty = $column:literal by $read:expr,)*
        }
    ) => {
        $(#[$meta])*
        pub(crate) struct $name {
            $(#[$first_doc])*
            pub(crate) $first: $first_type,
            $($(#[$doc])* pub(crate) $field: $type,)*
        }

        impl $name {
            /// What to select for [`read`](Self::read).
            pub(crate) const COLUMNS: &'static str =
                $crate::store::sqlite::sql::sql!(concat!($first_column $(, ", ", $column)*));

            pub(crate) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
                let mut index = 0;
                Ok(Self {
                    $first: $first_read(row, index)?,
                    $($field: {
                        index += 1;
                        $read(row, index)?
                    },)*
                })
            }
        }
    };
}
pub(crate) use columns;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_by_their_numbers_and_texts() {
        assert_eq!(
            sql!("state = {pending} OR state IN ({running}, {cancelled})"),
            "state = 0 OR state IN (10, 40)"
        );
        assert_eq!(
            sql!("SELECT {what}, extras & ~{tags} AS ü", what = "é, b"),
            "SELECT é, b, extras & ~2 AS ü"
        );
        assert_eq!(sql!(""), "");
    }

    /// Files that were made by a released version have these numbers.
    #[test]
    fn the_numbers_are_those_in_files() {
        let numbers: Vec<i64> = NUMBERS.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, [0, 10, 20, 30, 40, 10, 1, 2, 4, 8, 16, 32, 64, 0]);
    }

    #[test]
    fn columns_are_read_in_their_order() {
        columns! {
            /// Three of them.
            #[derive(Debug, PartialEq)]
            struct Three {
                /// The first.
                one: i64 = "{running}" by get,
                two: Option<i64> = "NULL" by get,
                three: String = "'c'" by get,
            }
        }
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        let select = sql!("SELECT {columns}", columns = Three::COLUMNS);
        let read = conn.query_row(select, [], Three::read).unwrap();
        let three = "c".to_owned();
        let expected = Three {
            one: TaskState::Running.code(),
            two: None,
            three,
        };
        assert_eq!(read, expected);
    }
}
