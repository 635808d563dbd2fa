//! Storing tasks.

use crate::client::{Client, write};
#[cfg(doc)]
use crate::error::Error;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::model::answer::Streamed;
use crate::model::new_task::{NewTask, Scheduled};
#[cfg(doc)]
use crate::model::retention::Retention;

/// How many tasks of a [`schedule_stream`](Client::schedule_stream) share a commit.
const STREAM_CHUNK: usize = 1_000;

impl Client {
    /// Stores a task and returns once it is on disk.
    ///
    /// The payload is kept as JSON, at most [`MAX_PAYLOAD_BYTES`](crate::MAX_PAYLOAD_BYTES) (1 MiB). The due time defaults
    /// to now and has microsecond resolution. If a task with the same id is stored, nothing is added and the answer is
    /// [`Scheduled::Existing`], so scheduling again by the same id is safe while the task is kept (an ended task for its
    /// [`Retention`]). The answer is [`Scheduled::Different`] if the stored task has another kind or payload.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the task is not allowed, [`ErrorKind::Payload`] if its payload cannot be encoded or is
    /// too large; [`ErrorKind::Busy`], [`ErrorKind::Full`] or [`ErrorKind::Storage`] if nothing was stored;
    /// [`ErrorKind::Unknown`] if the disk failed during the commit. [`Error::task_id`] names the task.
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{NewTask, Scheduler};
    /// # use std::time::Duration;
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// let task = NewTask::with_kind("remind", &7).after(Duration::from_secs(60));
    /// let again = task.clone();
    /// assert!(scheduler.schedule(task)?.is_new());
    /// assert!(!scheduler.schedule(again)?.is_new(), "the same id is the same task");
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn schedule(&self, task: impl Into<NewTask>) -> Result<Scheduled> {
        self.write(write::schedule(self.now(), task.into()))
    }

    /// Stores tasks in one commit, all or none, and returns the answers in their order.
    ///
    /// At most [`MAX_BATCH`](crate::MAX_BATCH) (100,000). Other writes wait until all are written; to store more, or to let
    /// other writes in between, use [`schedule_stream`](Self::schedule_stream).
    ///
    /// # Errors
    ///
    /// As [`schedule`](Self::schedule); if one task is not allowed, none is stored. [`Error::task_id`] and the text name it: the
    /// text has its number in the call, from 0.
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{NewTask, Scheduler};
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// let scheduled = scheduler.schedule_many((0..100).map(|n| NewTask::with_kind("count", &n)))?;
    /// assert_eq!(scheduled.len(), 100);
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn schedule_many<T: Into<NewTask>>(
        &self,
        tasks: impl IntoIterator<Item = T>,
    ) -> Result<Vec<Scheduled>> {
        self.write(write::schedule_many(self.now(), 0, tasks))
    }

    /// Stores tasks from an iterator of any length, in commits of 1,000, holding at most 1,000 tasks in memory.
    ///
    /// Resumable: after an error, give the same tasks with the same ids again; those already stored are counted as existing.
    ///
    /// # Errors
    ///
    /// As [`schedule`](Self::schedule). The commits before the error stand.
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{NewTask, Scheduler};
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// let streamed = scheduler.schedule_stream((0..2_500).map(|n| NewTask::with_kind("count", &n)))?;
    /// assert_eq!(streamed.new_count(), 2_500);
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn schedule_stream<T: Into<NewTask>>(
        &self,
        tasks: impl IntoIterator<Item = T>,
    ) -> Result<Streamed> {
        let mut tasks = tasks.into_iter().map(Into::into).peekable();
        let mut streamed = Streamed::default();
        while tasks.peek().is_some() {
            let mut chunk: Vec<NewTask> = tasks.by_ref().take(STREAM_CHUNK).collect();
            let first = chunk.first_mut().map(NewTask::draw_id);
            let number = streamed.new + streamed.existing + streamed.different;
            let scheduled = self
                .write(write::schedule_many(self.now(), number, chunk))
                .map_err(|error| match (error.task_id(), first) {
                    (None, Some(first)) => error.with_task(first),
                    _ => error,
                })?;
            for each in scheduled {
                *match each {
                    Scheduled::New(_) => &mut streamed.new,
                    Scheduled::Existing(_) => &mut streamed.existing,
                    Scheduled::Different(_) => &mut streamed.different,
                } += 1;
            }
        }
        Ok(streamed)
    }
}
