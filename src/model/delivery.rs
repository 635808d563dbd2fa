//! How often a task may be started.

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Delivery {
    /// It is: after an error as its retry policy says, and after the process or the power died. The default.
    #[default]
    AtLeastOnce,
    /// It is never started twice: its claim is synced to the disk before its handler is called, at any
    /// [`Durability`](crate::Durability), and whatever ends its attempt is final, also an error, a panic or a snooze: its retry
    /// policy means nothing. If the process or the power died it ends as failed with the error `interrupted`, and so may one
    /// that was about to start when the power went. Only [`retry`](crate::Client::retry) has it started again.
    AtMostOnce,
}
