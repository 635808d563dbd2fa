//! How often a task may be started.

/// How often a task is delivered to its handler, should the process or the power die meanwhile.
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
    /// Until an attempt has ended: one that was interrupted is made again. The default.
    #[default]
    AtLeastOnce,
    /// It is never started twice: its claim is synced to the disk before its handler is called, and an attempt that did not
    /// complete it is final. One that was interrupted ends as failed with the error `interrupted`, and so may one that
    /// was about to start when the power went. Only [`retry`](crate::Client::retry) has it started again.
    AtMostOnce,
}
