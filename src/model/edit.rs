//! Changes to a task that waits, or is to wait again.

use std::fmt;

use crate::error::Result;
use crate::model::json::{encode, verified};
use crate::model::limits::{check_max_attempts, check_priority};
use crate::model::payload::Payload;

/// What to change in a task that is pending, or is retried; everything else stays as it is.
///
/// # Example
///
/// ```
/// use punctual::Edit;
///
/// let edit = Edit::new().priority(0).max_attempts(3);
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct Edit {
    payload: Option<(&'static str, Result<Vec<u8>>)>,
    priority: Option<u8>,
    max_attempts: Option<u32>,
}

impl Edit {
    /// Changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the payload; it must be of the task's kind. It is checked as [`NewTask`](crate::NewTask)'s is, also by
    /// [`Payload::VERIFY`].
    pub fn payload<P: Payload>(mut self, payload: &P) -> Self {
        let mut encoded = encode("payload", payload);
        if P::VERIFY {
            encoded = encoded.and_then(verified::<P>);
        }
        self.payload = Some((P::KIND, encoded));
        self
    }

    /// Replaces the priority, 0 to 9.
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Replaces the number of attempts, 1 to 10,000. A task that is delivered at most once keeps its single one.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// # Errors
    ///
    /// `Invalid` or `Payload`.
    pub(crate) fn prepare(self) -> Result<Patch> {
        self.priority.map_or(Ok(()), check_priority)?;
        self.max_attempts.map_or(Ok(()), check_max_attempts)?;
        let payload = self
            .payload
            .map(|(kind, bytes)| bytes.map(|bytes| (kind.to_owned(), bytes)))
            .transpose()?;
        Ok(Patch {
            payload,
            priority: self.priority,
            max_attempts: self.max_attempts,
        })
    }
}

/// Shows no payload.
impl fmt::Debug for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edit")
            .field("priority", &self.priority)
            .field("max_attempts", &self.max_attempts)
            .finish_non_exhaustive()
    }
}

/// A checked change of a task.
#[derive(Clone, Default)]
pub(crate) struct Patch {
    pub(crate) payload: Option<(String, Vec<u8>)>,
    pub(crate) priority: Option<u8>,
    pub(crate) max_attempts: Option<u32>,
}

impl Patch {
    /// Whether it changes nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.payload.is_none() && self.priority.is_none() && self.max_attempts.is_none()
    }
}

/// Shows no payload.
impl fmt::Debug for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Patch(priority {:?})", self.priority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_found_when_it_is_prepared() {
        assert!(Edit::new().priority(10).prepare().is_err());
        assert!(Edit::new().max_attempts(0).prepare().is_err());
        assert!(Edit::new().priority(9).max_attempts(1).prepare().is_ok());
    }
}
