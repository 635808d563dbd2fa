//! The limits of what the crate accepts, and their checks.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::time::Timestamp;

/// The largest payload or result, as encoded JSON: 1 MiB.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 20;
/// The longest name of a kind, queue, partition or tag, in bytes.
///
/// A name is made of printable characters: letters with their marks, digits, punctuation, symbols, and spaces except at its
/// ends. Invisible characters are not allowed, such as the joiners inside some emoji and in the scripts of India and Iran.
/// Two names are equal if their bytes are. Unicode writes some letters in two ways (é as one character, or as an e and an
/// accent): bring names that people type to one form first, for instance to NFC.
pub const MAX_NAME_BYTES: usize = 128;
/// The most tags of a task.
pub const MAX_TAGS: usize = 16;
/// The largest metadata of a task, keys and values together, in bytes.
pub const MAX_METADATA_BYTES: usize = 4096;
/// The most tasks in one [`schedule_many`](crate::Client::schedule_many).
pub const MAX_BATCH: usize = 100_000;
/// The worst (highest) priority value.
pub const MAX_PRIORITY: u8 = 9;
/// The highest `max_attempts`.
pub const MAX_ATTEMPTS: u32 = 10_000;
/// The longest error text that is kept, in bytes; a longer one is cut.
pub const MAX_ERROR_BYTES: usize = 8 * 1024;
/// How many of a task's attempts its history keeps: the newest.
pub const MAX_HISTORY: usize = 50;
/// The queue of tasks that name none.
pub const DEFAULT_QUEUE: &str = "default";
/// The priority of tasks that name none; 0 is the best, 9 the worst.
pub const DEFAULT_PRIORITY: u8 = 5;
/// The attempts of tasks that name none, the first counted.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 20;
/// How many crashes of the process a task survives by default.
pub const DEFAULT_MAX_CRASHES: u32 = 3;
/// The highest limit of a queue for all processes together.
const MAX_QUEUE_LIMIT: u32 = 1_000_000;
/// The longest span of any option: 1,000 years.
pub(crate) const MAX_SPAN: Duration = Duration::from_secs(1000 * 365 * 24 * 3600);

/// Checks a kind, queue, partition or tag: 1 to 128 bytes of printable characters, without a space at either end.
///
/// # Errors
///
/// `Invalid`, naming `what`.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(format!("the {what} is empty")));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(Error::invalid(format!(
            "the {what} has {} bytes, more than {MAX_NAME_BYTES}",
            name.len()
        )));
    }
    if name.starts_with(' ') || name.ends_with(' ') {
        return Err(Error::invalid(format!(
            "the {what} {name:?} begins or ends with a space"
        )));
    }
    match name.chars().find(|&c| !is_printable(c)) {
        None => Ok(()),
        Some(c) => Err(Error::invalid(format!(
            "the {what} {name:?} has the character {}, which is not printable",
            c.escape_unicode()
        ))),
    }
}

/// Whether a character is allowed in a name: letters, marks, digits, punctuation, symbols and the space. Control and format
/// characters, other spaces, and characters that Unicode has not assigned are not.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return c == ' ' || c.is_ascii_graphic();
    }
    // `{:?}` escapes all other characters. It also escapes a mark that follows nothing, so a letter stands before it.
    String::from_iter(['a', c]).escape_debug().count() == 2
}

/// # Errors
///
/// `Invalid` if the priority is over 9.
pub(crate) fn check_priority(priority: u8) -> Result<()> {
    if priority <= MAX_PRIORITY {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the priority {priority} is not between 0 and {MAX_PRIORITY}"
    )))
}

/// # Errors
///
/// `Invalid` if it is not 1 to 10,000.
pub(crate) fn check_max_attempts(attempts: u32) -> Result<()> {
    if (1..=MAX_ATTEMPTS).contains(&attempts) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "max_attempts {attempts} is not between 1 and {MAX_ATTEMPTS}"
    )))
}

/// Checks a limit of a queue for all processes: 1 to 1,000,000.
///
/// # Errors
///
/// `Invalid`, naming the queue.
pub(crate) fn check_limit(queue: &str, limit: usize) -> Result<u32> {
    let allowed = u32::try_from(limit)
        .ok()
        .filter(|limit| (1..=MAX_QUEUE_LIMIT).contains(limit));
    allowed.ok_or_else(|| {
        Error::invalid(format!(
            "the queue {queue:?} has a limit of {limit}; 1 to {MAX_QUEUE_LIMIT} are allowed, and to stop it, pause it"
        ))
    })
}

/// # Errors
///
/// `Invalid` if the span is longer than [`MAX_SPAN`].
pub(crate) fn check_span(what: &str, span: Duration) -> Result<Duration> {
    if span > MAX_SPAN {
        return Err(Error::invalid(format!(
            "the {what} is longer than 1,000 years"
        )));
    }
    Ok(span)
}

/// `now + span`, if the span is at most [`MAX_SPAN`].
///
/// # Errors
///
/// `Invalid` if it is longer.
pub(crate) fn after(what: &str, now: Timestamp, span: Duration) -> Result<Timestamp> {
    check_span(what, span)?;
    Ok(now + span)
}

/// # Errors
///
/// `Payload` if `bytes` is over [`MAX_PAYLOAD_BYTES`].
pub(crate) fn check_size(what: &str, bytes: &[u8]) -> Result<()> {
    if bytes.len() > MAX_PAYLOAD_BYTES {
        return Err(Error::new(
            ErrorKind::Payload,
            format!(
                "the {what} has {} bytes, more than {MAX_PAYLOAD_BYTES}",
                bytes.len()
            ),
        ));
    }
    Ok(())
}

/// An error text fit to be stored and shown: no control characters, at most [`MAX_ERROR_BYTES`].
pub(crate) fn clean_text(text: &str) -> String {
    let mut clean = String::with_capacity(text.len().min(MAX_ERROR_BYTES));
    for c in text.chars() {
        let c = if c.is_control() && c != '\n' && c != '\t' {
            '\u{fffd}'
        } else {
            c
        };
        if clean.len() + c.len_utf8() > MAX_ERROR_BYTES {
            break;
        }
        clean.push(c);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let good = [
            "a",
            "mail.send",
            "a/b:c@d_e-f",
            "größe",
            "½ price",
            "Bob's \"mail\" \\ #1 (new)",
            "हिन्दी",
            "cafe\u{301}",
            "日本語",
            "العربية",
            "🚀",
            &"x".repeat(128),
        ];
        for good in good {
            check_name("queue", good).unwrap();
        }
        let bad = [
            "",
            " ",
            " a",
            "a ",
            "a\0b",
            "a\n",
            "a\tb",
            "a\u{7f}",
            "a\u{a0}b",
            "a\u{200b}b",
            "a\u{202e}b",
            "a\u{2028}b",
            "\u{feff}a",
            "a\u{e000}",
            "a\u{378}",
            &"x".repeat(129),
        ];
        for bad in bad {
            let error = check_name("queue", bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad:?}");
        }
    }

    #[test]
    fn error_texts_are_cleaned_and_cut() {
        assert_eq!(clean_text("a\0b\nc"), "a\u{fffd}b\nc");
        let long = "ü".repeat(MAX_ERROR_BYTES);
        let cut = clean_text(&long);
        assert!(cut.len() <= MAX_ERROR_BYTES && cut.len() > MAX_ERROR_BYTES - 4);
    }

    #[test]
    fn absurd_spans_are_refused() {
        assert!(after("delay", Timestamp::MIN, Duration::MAX).is_err());
        assert!(after("delay", Timestamp::MIN, Duration::from_secs(60)).is_ok());
    }
}
