//! Reading tasks, their history, and their number.

use crate::client::{Client, write};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::id::TaskId;
use crate::model::attempt::Attempt;
use crate::model::filter::{Filter, Page};
use crate::model::query::{Query, Stats};
use crate::model::task::Task;

impl Client {
    /// Reads a task; `None` if there is none with that id.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if the task is damaged, [`ErrorKind::Storage`] if the file cannot be read.
    pub fn get(&self, id: impl Into<TaskId>) -> Result<Option<Task>> {
        let id = id.into();
        let answer = self
            .store
            .read(Query::Task(id))
            .map_err(|error| error.with_task(id))?;
        Ok(answer.task().map(|task| *task))
    }

    /// Reads a page of the matching tasks, in id order.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the filter has no condition or a bad one; [`ErrorKind::Storage`] if the file cannot be read.
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{Filter, Scheduler, TaskState};
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// let mut filter = Filter::new().state(TaskState::Failed).limit(50);
    /// loop {
    ///     let page = scheduler.list(&filter)?;
    ///     for task in page.tasks() {
    ///         println!("{} {}", task.id(), task.error().unwrap_or_default());
    ///     }
    ///     match page.next() {
    ///         Some(next) => filter = filter.after(next),
    ///         None => break,
    ///     }
    /// }
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn list(&self, filter: &Filter) -> Result<Page> {
        filter.check()?;
        Ok(self.store.read(Query::List(filter.clone()))?.list())
    }

    /// Counts the matching tasks. It reads windows of 10,000 tasks, so other writes may fall between two windows.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{Filter, NewTask, Scheduler};
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// scheduler.schedule(NewTask::with_kind("remind", &7).tag("birthday"))?;
    /// assert_eq!(scheduler.count(&Filter::new().tag("birthday").unfinished())?, 1);
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn count(&self, filter: &Filter) -> Result<u64> {
        filter.check()?;
        let (mut total, mut after) = (0, None);
        loop {
            let filter = filter.clone();
            let counted = self.store.read(Query::Count { filter, after })?.count();
            total += counted.count;
            match counted.next {
                Some(next) => after = Some(next),
                None => return Ok(total),
            }
        }
    }

    /// Counts tasks by state, queue and kind, and reports how long the oldest due task has waited. Scans the indexes of all
    /// tasks: about a second for ten million.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Storage`] if the file cannot be read.
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{NewTask, Scheduler, TaskState};
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// scheduler.schedule(NewTask::with_kind("remind", &7))?;
    /// let stats = scheduler.stats()?;
    /// for lane in stats.lanes() {
    ///     println!("{} {}: {} pending", lane.queue(), lane.kind(), lane.count(TaskState::Pending));
    /// }
    /// assert_eq!(stats.total(), 1);
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn stats(&self) -> Result<Stats> {
        Ok(self.store.read(Query::Stats { now: self.now() })?.stats())
    }

    /// Reads how a task's attempts ended, oldest first, at most the newest [`MAX_HISTORY`](crate::MAX_HISTORY). A running
    /// attempt is not included.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is no such task.
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{AttemptEnd, Failure, NewTask, Payload, Scheduler};
    /// # use serde::{Deserialize, Serialize};
    /// # use std::time::Duration;
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Remind;
    /// # impl Payload for Remind { const KIND: &'static str = "remind"; }
    /// let scheduler = Scheduler::in_memory()
    ///     .handler_fn(|_: Remind, _cx| Err(Failure::fatal("nobody there")))
    ///     .start()?;
    /// let task = scheduler.schedule(Remind)?.id();
    /// scheduler.wait(task, Duration::from_secs(10))?;
    /// let history = scheduler.history(task)?;
    /// assert_eq!(history[0].end(), AttemptEnd::Failed);
    /// assert_eq!(history[0].error(), Some("nobody there"));
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn history(&self, id: impl Into<TaskId>) -> Result<Vec<Attempt>> {
        let id = id.into();
        let history = self
            .store
            .read(Query::History(id))
            .map_err(|error| error.with_task(id))?;
        history.history().ok_or_else(|| write::not_found(id))
    }
}
