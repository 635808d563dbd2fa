//! One attempt of a task, as its history shows it.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::time::Timestamp;

/// How an attempt ended.
///
/// # Example
///
/// ```
/// use punctual::AttemptEnd;
///
/// fn is_worth_a_look(end: AttemptEnd) -> bool {
///     matches!(end, AttemptEnd::Panicked | AttemptEnd::Crashed | AttemptEnd::Undecodable)
/// }
/// assert!(!is_worth_a_look(AttemptEnd::Completed));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttemptEnd {
    /// The handler returned `Ok`.
    Completed,
    /// The handler returned an error.
    Failed,
    /// The handler panicked.
    Panicked,
    /// The handler returned an error after its deadline.
    TimedOut,
    /// The handler asked to be called again later.
    Snoozed,
    /// The task was cancelled, by a caller or by the handler.
    Cancelled,
    /// The process died while the handler ran. The error of the attempt is "crashed", or "interrupted" if the task is delivered
    /// at most once.
    Crashed,
    /// The start deadline passed before the handler was started.
    Expired,
    /// The payload could not be decoded, or does not match its checksum. The handler was not called, and the task lost no
    /// attempt.
    Undecodable,
    /// The handler returned an error after it was asked to stop because the scheduler was shutting down or had lost the task
    /// ([`StopReason`](crate::StopReason)). This costs the task no attempt; but a task that is delivered at most once has
    /// failed, as has one whose error was [fatal](crate::Failure::fatal). A panic is no such error: it costs an attempt.
    Interrupted,
}

impl AttemptEnd {
    pub(crate) fn code(self) -> i64 {
        match self {
            Self::Completed => 0,
            Self::Failed => 10,
            Self::Panicked => 20,
            Self::TimedOut => 30,
            Self::Snoozed => 40,
            Self::Cancelled => 50,
            Self::Crashed => 60,
            Self::Expired => 70,
            Self::Undecodable => 80,
            Self::Interrupted => 90,
        }
    }

    pub(crate) fn from_code(code: i64) -> Option<Self> {
        [
            Self::Completed,
            Self::Failed,
            Self::Panicked,
            Self::TimedOut,
            Self::Snoozed,
            Self::Cancelled,
            Self::Crashed,
            Self::Expired,
            Self::Undecodable,
            Self::Interrupted,
        ]
        .into_iter()
        .find(|end| end.code() == code)
    }
}

/// One attempt of a task: when it ran, where, and how it ended.
///
/// Made by [`Client::history`](crate::Client::history).
///
/// # Example
///
/// ```
/// use punctual::{Attempt, AttemptEnd};
///
/// fn crashes(history: &[Attempt]) -> usize {
///     history.iter().filter(|attempt| attempt.end() == AttemptEnd::Crashed).count()
/// }
/// # assert_eq!(crashes(&[]), 0);
/// ```
#[derive(Debug, Clone)]
pub struct Attempt {
    pub(crate) number: u32,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ended_at: Timestamp,
    pub(crate) instance: Option<String>,
    pub(crate) end: AttemptEnd,
    pub(crate) error: Option<String>,
}

impl Attempt {
    /// Which start of the task it was, from 1; 0 if its handler was not called. A snoozed or interrupted attempt gives its
    /// number back, so a number can occur twice.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// When the task was claimed for this attempt; `None` if its handler was not called.
    #[must_use]
    pub fn started_at(&self) -> Option<DateTime<Utc>> {
        self.started_at.map(Timestamp::to_utc)
    }

    /// When the attempt ended. For a crash: when the crash was found.
    #[must_use]
    pub fn ended_at(&self) -> DateTime<Utc> {
        self.ended_at.to_utc()
    }

    /// The time from start to end; `None` if the handler was not called.
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        self.started_at.map(|start| self.ended_at.since(start))
    }

    /// The name of the scheduler instance (one running scheduler) that ran it.
    #[must_use]
    pub fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    /// How it ended.
    #[must_use]
    pub fn end(&self) -> AttemptEnd {
        self.end
    }

    /// The error's text, cleaned and cut to [`MAX_ERROR_BYTES`](crate::MAX_ERROR_BYTES).
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_storage() {
        for code in (0..=90).step_by(10) {
            assert_eq!(AttemptEnd::from_code(code).unwrap().code(), code);
        }
        assert_eq!(AttemptEnd::from_code(91), None);
    }
}
