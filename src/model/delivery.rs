//! How often a task may be started.

use serde::{Deserialize, Serialize};

/// Whether a task may be started again after an attempt that did not complete it.
///
/// # Example
///
/// ```
/// # use punctual::{Delivery, NewTask, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// let siren = NewTask::with_kind("siren", &3);
/// let task = scheduler.schedule(siren.delivery(Delivery::AtMostOnce))?.id();
/// assert_eq!(scheduler.get(task)?.unwrap().delivery(), Delivery::AtMostOnce);
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Delivery {
    /// The task may be started again: after an error as its retry policy says, and after a crash or a loss of power. The
    /// default.
    #[default]
    AtLeastOnce,
    /// The task is never started twice. Its claim is synced to the disk before its handler is called, at any
    /// [`Durability`](crate::Durability). Whatever ends its attempt is final, also an error, a panic or a snooze; its retry
    /// policy is not used. If the process or the power fails during the attempt, the task ends as failed with the error
    /// `interrupted`; so may a task that was about to start when the power failed. Only [`retry`](crate::Client::retry) starts
    /// it again. A process that also holds tasks which ran while a process crashed starts it up to ten seconds later, unless its
    /// start deadline comes first: if one of them crashes again, it would end with it.
    AtMostOnce,
}
