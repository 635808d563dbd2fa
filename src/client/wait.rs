//! Waiting for the end of a task, and subscriptions to events.

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

/// How many events a subscription holds by default.
pub(super) const DEFAULT_EVENTS: usize = 1_024;
/// To find an end in another process, a wait looks each time an eighth of its length so far has passed, within these bounds.
const SOONEST_LOOK: Duration = Duration::from_millis(5);
const LATEST_LOOK: Duration = Duration::from_millis(250);

impl Client {
    /// Waits until a task has ended, for at most `timeout`. `None`: it has not ended by then.
    ///
    /// An end in this process wakes the wait at once. For an end in another process the wait looks every 5 to 250 ms, and may
    /// be late by an eighth of its length.
    ///
    /// Inside a handler the wait keeps that handler's worker. If all workers wait in this way for tasks that have not started,
    /// no worker is left to start them, and each wait ends with its timeout. With one worker, that is every wait for a pending
    /// task of the same scheduler. Better schedule the rest of the work as a further task, or return
    /// [`Outcome::snooze`](crate::Outcome::snooze) and look again then.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is no such task, or the task is deleted during the wait.
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
                // A retry may fall between the two reads.
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

    /// Subscribes to the changes of tasks made by this client, its clones and the scheduler that it belongs to, holding up to 1,024
    /// events. When a call returns, its events
    /// have been sent; those of the scheduler may come a moment after [`get`](Self::get) or [`wait`](Self::wait) show what it
    /// did. Changes by [`schedule_in`](crate::Sqlite::schedule_in) and [`cancel_in`](crate::Sqlite::cancel_in) are
    /// not included. [`Events`] shows the loop that reads a subscription, and when one ends.
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

    /// Subscribes as [`events`](Self::events) does, holding up to `capacity` events, at least 1.
    #[must_use]
    pub fn events_with_capacity(&self, capacity: usize) -> Events {
        self.store.signals().subscriptions().subscribe(capacity)
    }
}
