//! The public name of a task: a UUID, never a row number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};

/// The id of a task: a UUID, by default of version 7 (RFC 9562), drawn before the task is written.
///
/// Ids drawn by one process increase, so a list in id order is nearly in the order of creation. A caller may give a task any
/// other UUID but the nil one, for instance one derived from a request; scheduling the same id again makes no second task.
/// An id is not an authorisation: its first half is a time.
///
/// # Example
///
/// ```
/// use punctual::TaskId;
///
/// let id = TaskId::new();
/// assert_eq!(id.to_string().parse::<TaskId>().unwrap(), id);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(Uuid);

impl TaskId {
    /// Draws a new id.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "every call gives another value; a default should not"
    )]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Whether all bits are zero. `schedule` refuses such an id.
    #[must_use]
    pub fn is_nil(self) -> bool {
        self.0.is_nil()
    }

    /// The UUID itself.
    #[must_use]
    pub fn as_uuid(self) -> Uuid {
        self.0
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl From<Uuid> for TaskId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl From<&TaskId> for TaskId {
    fn from(id: &TaskId) -> Self {
        *id
    }
}

impl From<TaskId> for Uuid {
    fn from(id: TaskId) -> Self {
        id.0
    }
}

impl FromStr for TaskId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Uuid::try_parse(text)
            .map(Self)
            .map_err(|error| Error::invalid("not a task id").with_source(error))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_process_increase() {
        let ids: Vec<TaskId> = (0..1000).map(|_| TaskId::new()).collect();
        assert!(ids.is_sorted());
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn an_id_survives_text_and_bytes() {
        let id = TaskId::new();
        assert_eq!(id.to_string().parse::<TaskId>().unwrap(), id);
        assert_eq!(TaskId::from_bytes(*id.as_bytes()), id);
        assert!("nonsense".parse::<TaskId>().is_err());
    }
}
