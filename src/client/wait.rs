//! Hearing of what happens: waiting for the end of a task, and subscriptions to events.

use std::time::Duration;

use crate::client::{Client, write};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::id::TaskId;
use crate::model::query::Query;
use crate::model::task::Ended;
use crate::store::events::Events;
use crate::time::{Deadline, Stopwatch};

/// How many events a subscription holds, unless it says otherwise.
const DEFAULT_EVENTS: usize = 1_024;
/// A wait looks for an end in another process this often: an eighth of how long it has waited.
const SOONEST_LOOK: Duration = Duration::from_millis(5);
const LATEST_LOOK: Duration = Duration::from_millis(250);

impl Client {
    /// Waits until a task has ended, at most `timeout`; `None` if it has not by then.
    ///
    /// An end in this process wakes it; one in another process it looks for, every 5 to 250 ms: it may be an eighth late.
    ///
    /// Inside a handler it keeps that handler's worker. If all workers wait so for tasks that have not been started, none is left
    /// to start them, and each wait ends with its timeout: with one worker that is every wait for a pending task of the same
    /// scheduler. Better schedule the rest of the work as a further task, or return [`Outcome::snooze`](crate::Outcome::snooze)
    /// and look again then.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is no such task, or it was deleted meanwhile.
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{NewTask, Outcome, Payload, Scheduler};
    /// # use serde::{Deserialize, Serialize};
    /// # use std::time::Duration;
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Add(u64, u64);
    /// # impl Payload for Add { const KIND: &'static str = "add"; }
    /// let scheduler = Scheduler::in_memory()
    ///     .handler_fn(|Add(a, b), _cx| Outcome::with(&(a + b)))
    ///     .start()?;
    /// let task = scheduler.schedule(Add(1, 2))?.id();
    /// let ended = scheduler.wait(task, Duration::from_secs(10))?.expect("it is quick");
    /// assert_eq!(ended.result::<u64>()?, Some(3));
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn wait(&self, id: impl Into<TaskId>, timeout: Duration) -> Result<Option<Ended>> {
        let id = id.into();
        let deadline = Deadline::after(timeout);
        self.store.check()?;
        let waiter = self.store.signals().waiters().wait_for(id);
        let waited = Stopwatch::start();
        loop {
            let state = self
                .store
                .read(Query::State(id))
                .map_err(|error| error.with_task(id))?;
            let state = state.state().ok_or_else(|| write::not_found(id))?;
            if state.is_final() {
                let task = self.get(id)?.ok_or_else(|| write::not_found(id))?;
                // Between the two reads it may have been retried.
                if task.state.is_final() {
                    return Ok(Some(Ended(task)));
                }
            }
            if deadline.is_over() {
                return Ok(None);
            }
            let look_again = (waited.elapsed() / 8).clamp(SOONEST_LOOK, LATEST_LOOK);
            waiter.wait(deadline.remaining().min(look_again));
        }
    }

    /// Subscribes to what happens to tasks by this process, holding up to 1,024 events. Not to what
    /// [`schedule_in`](crate::Sqlite::schedule_in) and [`cancel_in`](crate::Sqlite::cancel_in) do. When a subscription ends, and the loop that
    /// reads one, is shown at [`Events`].
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{EventKind, NewTask, Scheduler};
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// let events = scheduler.events();
    /// let task = scheduler.schedule(NewTask::with_kind("remind", &7))?.id();
    /// let event = events.try_next().event().expect("it is stored");
    /// assert_eq!((event.task(), event.kind()), (task, EventKind::Scheduled));
    /// # Ok::<(), punctual::Error>(())
    /// ```
    #[must_use]
    pub fn events(&self) -> Events {
        self.events_with_capacity(DEFAULT_EVENTS)
    }

    /// Subscribes to what happens to tasks by this process, holding up to `capacity` events, at least 1.
    #[must_use]
    pub fn events_with_capacity(&self, capacity: usize) -> Events {
        self.store.signals().subscriptions().subscribe(capacity)
    }
}
