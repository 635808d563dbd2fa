//! A handler's answer.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::model::json::encode;
use crate::model::limits::clean_text;

/// What a handler returns.
///
/// # Example
///
/// ```
/// use punctual::{Outcome, TaskResult};
///
/// fn parse(text: &str) -> TaskResult {
///     let number: u64 = text.parse()?;
///     Outcome::with(&number)
/// }
/// assert!(parse("seven").is_err());
/// ```
pub type TaskResult = Result<Outcome, Failure>;

/// How a handler ended its attempt, other than by an error.
///
/// # Example
///
/// ```
/// use punctual::{Outcome, TaskResult};
/// use std::time::Duration;
///
/// fn poll(ready: Option<u64>) -> TaskResult {
///     match ready {
///         Some(rows) => Outcome::with(&rows),
///         None => Ok(Outcome::snooze(Duration::from_secs(30))),
///     }
/// }
/// # assert!(poll(None).is_ok());
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub struct Outcome(pub(crate) Verdict);

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done(Option<Vec<u8>>),
    Snooze(Duration),
    Cancel(String),
    /// The outcome was committed by [`TaskContext::complete`](crate::TaskContext::complete).
    Settled,
}

impl Outcome {
    /// Completes the task.
    pub fn done() -> Self {
        Self(Verdict::Done(None))
    }

    /// Completes the task and stores `result` with it, as JSON of at most [`MAX_PAYLOAD_BYTES`](crate::MAX_PAYLOAD_BYTES). It
    /// is encoded, but not decoded to check that it can be read back.
    ///
    /// # Errors
    ///
    /// A [`Failure`] if the result cannot be encoded or is too large.
    pub fn with<T: Serialize + ?Sized>(result: &T) -> Result<Self, Failure> {
        Ok(Self(Verdict::Done(Some(encode("result", result)?))))
    }

    /// Calls the handler again after `delay`: the task is not ready. This is no failure and costs no attempt; but a task
    /// that is delivered at most once fails.
    pub fn snooze(delay: Duration) -> Self {
        Self(Verdict::Snooze(delay))
    }

    pub(crate) fn settled() -> Self {
        Self(Verdict::Settled)
    }

    /// Ends the task as cancelled; it is not tried again.
    pub fn cancel(reason: impl Into<String>) -> Self {
        Self(Verdict::Cancel(clean_text(&reason.into())))
    }
}

/// Shows no result.
impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Verdict::Done(_) => write!(f, "Outcome::done"),
            Verdict::Snooze(delay) => write!(f, "Outcome::snooze({delay:?})"),
            Verdict::Cancel(reason) => write!(f, "Outcome::cancel({reason:?})"),
            Verdict::Settled => write!(f, "Outcome (settled)"),
        }
    }
}

/// Why an attempt failed, and whether to try again.
///
/// Made from any error by `?`, which means: try again as the retry policy says. Like `anyhow`'s error, it does not itself
/// implement [`Error`](std::error::Error). Its text is kept in the task's history, cleaned and cut to
/// [`MAX_ERROR_BYTES`](crate::MAX_ERROR_BYTES).
///
/// # Example
///
/// ```
/// use punctual::{Failure, Outcome, TaskResult};
/// use std::time::Duration;
///
/// fn deliver(status: u16) -> TaskResult {
///     match status {
///         200 => Ok(Outcome::done()),
///         429 => Err(Failure::retry_after(Duration::from_secs(60), "slow down")),
///         410 => Err(Failure::fatal("gone for good")),
///         _ => Err(format!("status {status}").into()),
///     }
/// }
/// # assert!(deliver(410).is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub(crate) text: String,
    pub(crate) retry: Retry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    ByPolicy,
    After(Duration),
    Never,
}

impl Failure {
    fn new(error: impl Into<Box<dyn StdError + Send + Sync>>, retry: Retry) -> Self {
        let error = error.into();
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let shown = error.to_string();
            // Many errors already show their cause.
            if !text.ends_with(&shown) {
                text.push_str(": ");
                text.push_str(&shown);
            }
            cause = error.source();
        }
        Self {
            text: clean_text(&text),
            retry,
        }
    }

    /// Tries again after `delay`, whatever the retry policy says, if an attempt is left.
    #[must_use]
    pub fn retry_after(delay: Duration, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(error, Retry::After(delay))
    }

    /// Fails the task now, without another try.
    #[must_use]
    pub fn fatal(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(error, Retry::Never)
    }

    /// The error's text, as it is stored.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error, Retry::ByPolicy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    #[test]
    fn any_error_becomes_a_failure_with_its_causes() {
        let io = std::io::Error::other("disk on fire");
        assert_eq!(Failure::from(io).text(), "disk on fire");
        assert_eq!(Failure::from("plain").retry, Retry::ByPolicy);
        let nested = Error::new(ErrorKind::Storage, "cannot read")
            .with_source(std::io::Error::other("bad sector"));
        assert_eq!(Failure::from(nested).text(), "cannot read: bad sector");
        assert_eq!(Failure::fatal("x").retry, Retry::Never);
    }

    #[test]
    fn a_result_that_cannot_be_encoded_is_a_failure() {
        let map = std::collections::HashMap::from([((1, 2), 3)]);
        assert!(Outcome::with(&map).unwrap_err().text().contains("result"));
        assert_eq!(
            format!("{:?}", Outcome::with("secret").unwrap()),
            "Outcome::done"
        );
    }
}
