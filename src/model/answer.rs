//! The answers of calls: expected outcomes are values, not errors.

use crate::model::task::TaskState;

/// The counts of a bulk call.
///
/// # Example
///
/// ```
/// # use punctual::{Bulk, Filter, NewTask, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// scheduler.schedule(NewTask::with_kind("remind", &7).queue("mail"))?;
/// let bulk: Bulk = scheduler.delete_all(&Filter::new().queue("mail"))?;
/// assert_eq!((bulk.matched(), bulk.changed()), (1, 0), "it has not ended");
/// # Ok::<(), punctual::Error>(())
/// ```
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

    /// Tasks among them whose state allows the call, and that were changed.
    #[must_use]
    pub fn changed(self) -> u64 {
        self.changed
    }
}

/// The counts of a [`Client::schedule_stream`](crate::Client::schedule_stream).
///
/// # Example
///
/// ```
/// # use punctual::{NewTask, Scheduler, Streamed};
/// # let scheduler = Scheduler::in_memory().start()?;
/// let tasks: Vec<NewTask> = (0..3).map(|n| NewTask::with_kind("count", &n)).collect();
/// scheduler.schedule_stream(tasks.clone())?;
/// let again: Streamed = scheduler.schedule_stream(tasks)?;
/// assert_eq!((again.new_count(), again.existing_count()), (0, 3));
/// # Ok::<(), punctual::Error>(())
/// ```
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

    /// Tasks whose ids were stored before, with the same kind and payload.
    #[must_use]
    pub fn existing_count(self) -> u64 {
        self.existing
    }

    /// Tasks whose ids were stored before with another kind or payload, as
    /// [`Scheduled::Different`](crate::Scheduled::Different) explains.
    #[must_use]
    pub fn different_count(self) -> u64 {
        self.different
    }
}

/// What [`Client::cancel`](crate::Client::cancel) answers, true at the moment of its commit.
///
/// # Example
///
/// ```
/// # use punctual::{Cancel, NewTask, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// let task = scheduler.schedule(NewTask::with_kind("remind", &7))?.id();
/// match scheduler.cancel(task)? {
///     Cancel::Cancelled => println!("it will not run"),
///     Cancel::Requested => println!("its handler is asked to stop"),
///     Cancel::Finished(state) => println!("too late: {state}"),
/// }
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cancel {
    /// The task is cancelled and will not start, or not start again.
    Cancelled,
    /// A scheduler holds the task, and its handler is asked to stop. The task ends as cancelled, unless it completes first.
    Requested,
    /// Too late: the task has ended, in this state.
    Finished(TaskState),
}
