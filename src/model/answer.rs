//! What calls answer: expected outcomes are values, not errors.

use crate::model::task::TaskState;

/// What a bulk call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bulk {
    pub(crate) matched: u64,
    pub(crate) changed: u64,
}

impl Bulk {
    /// Tasks that matched the filter.
    #[must_use]
    pub fn matched(self) -> u64 {
        self.matched
    }

    /// Those of them that were in a state that allows the call, and were changed.
    #[must_use]
    pub fn changed(self) -> u64 {
        self.changed
    }
}

/// What [`Client::schedule_stream`](crate::Client::schedule_stream) stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Streamed {
    pub(crate) new: u64,
    pub(crate) existing: u64,
    pub(crate) different: u64,
}

impl Streamed {
    /// Tasks that were stored.
    #[must_use]
    pub fn new_count(self) -> u64 {
        self.new
    }

    /// Tasks that were stored before, by their ids.
    #[must_use]
    pub fn existing_count(self) -> u64 {
        self.existing
    }

    /// Tasks whose ids were stored before with another kind or payload, as [`Scheduled::Different`](crate::Scheduled::Different)
    /// tells it.
    #[must_use]
    pub fn different_count(self) -> u64 {
        self.different
    }
}

/// What [`Client::cancel`](crate::Client::cancel) answers. It tells the truth at the moment of its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cancel {
    /// The task will never start, or never again.
    Cancelled,
    /// An instance holds the task and is told. It ends as cancelled, unless it completes first.
    Requested,
    /// Too late: it has ended, in this state.
    Finished(TaskState),
}
