//! Changes of stored tasks: one by one, or all that match a filter.

use chrono::{DateTime, Utc};

use crate::client::{Client, write};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::id::TaskId;
use crate::model::answer::{Bulk, Cancel};
use crate::model::edit::{Edit, Patch};
use crate::model::filter::Filter;
use crate::model::op::{Action, Op};

impl Client {
    /// Cancels a task.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is no such task; else as [`schedule`](Self::schedule).
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{Cancel, NewTask, Scheduler, TaskState};
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// let task = scheduler.schedule(NewTask::with_kind("remind", &7))?.id();
    /// assert_eq!(scheduler.cancel(task)?, Cancel::Cancelled);
    /// assert_eq!(scheduler.cancel(task)?, Cancel::Finished(TaskState::Cancelled));
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn cancel(&self, id: impl Into<TaskId>) -> Result<Cancel> {
        self.write(write::cancel(id.into()))
    }

    /// Deletes a task that has ended, with its result and history.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], or [`ErrorKind::State`] if it has not ended; else as [`schedule`](Self::schedule).
    pub fn delete(&self, id: impl Into<TaskId>) -> Result<()> {
        self.write(write::change(id.into(), Ok(Action::Delete)))
    }

    /// Makes a pending task due at another instant, rounded up to a microsecond.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], [`ErrorKind::State`] if it is not pending, [`ErrorKind::Invalid`] outside the years 1970 to
    /// 9999; else as [`schedule`](Self::schedule).
    pub fn reschedule(&self, id: impl Into<TaskId>, at: DateTime<Utc>) -> Result<()> {
        self.write(write::change(id.into(), write::reschedule(at)))
    }

    /// Makes a pending task due now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], or [`ErrorKind::State`] if it is not pending; else as [`schedule`](Self::schedule).
    pub fn run_now(&self, id: impl Into<TaskId>) -> Result<()> {
        self.write(write::change(id.into(), Ok(Action::RunNow)))
    }

    /// Makes an ended task pending again, due now, with all its attempts before it. Its history and last error stay; its
    /// result, progress and start deadline are removed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], or [`ErrorKind::State`] if it has not ended; else as [`schedule`](Self::schedule).
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{NewTask, Scheduler, TaskState};
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// let task = scheduler.schedule(NewTask::with_kind("remind", &7))?.id();
    /// scheduler.cancel(task)?;
    /// scheduler.retry(task)?;
    /// assert_eq!(scheduler.get(task)?.unwrap().state(), TaskState::Pending);
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn retry(&self, id: impl Into<TaskId>) -> Result<()> {
        self.write(write::change(
            id.into(),
            Ok(Action::Retry(Patch::default())),
        ))
    }

    /// Makes an ended task pending again, as [`retry`](Self::retry) does, and changes it in the same commit: no attempt runs
    /// with the old values.
    ///
    /// # Errors
    ///
    /// As [`retry`](Self::retry) and [`edit`](Self::edit).
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{Edit, NewTask, Payload, Scheduler};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Remind { user: u64 }
    /// # impl Payload for Remind { const KIND: &'static str = "remind"; }
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// let task = scheduler.schedule(NewTask::with_kind("remind", "nobody"))?.id();
    /// scheduler.cancel(task)?;
    /// scheduler.retry_with(task, Edit::new().payload(&Remind { user: 7 }))?;
    /// assert_eq!(scheduler.get(task)?.unwrap().payload::<Remind>()?.user, 7);
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn retry_with(&self, id: impl Into<TaskId>, edit: Edit) -> Result<()> {
        self.write(write::change(id.into(), edit.prepare().map(Action::Retry)))
    }

    /// Changes a pending task.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], [`ErrorKind::State`] if it is not pending, [`ErrorKind::Invalid`] if the change is not allowed,
    /// [`ErrorKind::Payload`] if the new payload is of another kind or too large; else as [`schedule`](Self::schedule).
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{Edit, NewTask, Scheduler};
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// let task = scheduler.schedule(NewTask::with_kind("remind", &7))?.id();
    /// scheduler.edit(task, Edit::new().priority(0))?;
    /// assert_eq!(scheduler.get(task)?.unwrap().priority(), 0);
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn edit(&self, id: impl Into<TaskId>, edit: Edit) -> Result<()> {
        self.write(write::change(id.into(), edit.prepare().map(Action::Edit)))
    }

    /// Cancels all matching tasks, in commits of up to 500.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the filter has no condition (for every task use [`Filter::all`]) or a bad one; else as
    /// [`schedule`](Self::schedule). The commits before the error stand; calling again is safe.
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{Filter, NewTask, Scheduler};
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// scheduler.schedule_many((0..3).map(|n| NewTask::with_kind("remind", &n).queue("mail")))?;
    /// let bulk = scheduler.cancel_all(&Filter::new().queue("mail").unfinished())?;
    /// assert_eq!((bulk.matched(), bulk.changed()), (3, 3));
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn cancel_all(&self, filter: &Filter) -> Result<Bulk> {
        self.change_all(filter, &Action::Cancel)
    }

    /// Deletes all matching ended tasks, in commits of up to 500.
    ///
    /// # Errors
    ///
    /// As [`cancel_all`](Self::cancel_all).
    pub fn delete_all(&self, filter: &Filter) -> Result<Bulk> {
        self.change_all(filter, &Action::Delete)
    }

    /// Makes all matching pending tasks due at another instant, in commits of up to 500.
    ///
    /// # Errors
    ///
    /// As [`cancel_all`](Self::cancel_all).
    pub fn reschedule_all(&self, filter: &Filter, at: DateTime<Utc>) -> Result<Bulk> {
        self.change_all(filter, &write::reschedule(at)?)
    }

    /// Makes all matching pending tasks due now, in commits of up to 500.
    ///
    /// # Errors
    ///
    /// As [`cancel_all`](Self::cancel_all).
    pub fn run_now_all(&self, filter: &Filter) -> Result<Bulk> {
        self.change_all(filter, &Action::RunNow)
    }

    /// Makes all matching ended tasks pending again, in commits of up to 500.
    ///
    /// # Errors
    ///
    /// As [`cancel_all`](Self::cancel_all).
    pub fn retry_all(&self, filter: &Filter) -> Result<Bulk> {
        self.change_all(filter, &Action::Retry(Patch::default()))
    }

    /// Makes all matching ended tasks pending again and changes them, in commits of up to 500. Tasks of another kind than the
    /// new payload's stay as they are.
    ///
    /// # Errors
    ///
    /// As [`cancel_all`](Self::cancel_all).
    pub fn retry_all_with(&self, filter: &Filter, edit: Edit) -> Result<Bulk> {
        self.change_all(filter, &Action::Retry(edit.prepare()?))
    }

    /// Changes all matching pending tasks, in commits of up to 500. Tasks of another kind than the new payload's stay as they
    /// are.
    ///
    /// # Errors
    ///
    /// As [`cancel_all`](Self::cancel_all).
    pub fn edit_all(&self, filter: &Filter, edit: Edit) -> Result<Bulk> {
        self.change_all(filter, &Action::Edit(edit.prepare()?))
    }

    fn change_all(&self, filter: &Filter, action: &Action) -> Result<Bulk> {
        filter.check()?;
        let mut bulk = Bulk::default();
        let mut after = None;
        loop {
            let op = Op::ChangeMatching {
                filter: Box::new(filter.clone()),
                action: action.clone(),
                after,
            };
            let changed = write::one(self.store.apply(self.now(), vec![op])?).changed_many();
            bulk.matched += changed.matched as u64;
            bulk.changed += changed.changed as u64;
            match changed.next {
                Some(next) => after = Some(next),
                None => return Ok(bulk),
            }
        }
    }
}
