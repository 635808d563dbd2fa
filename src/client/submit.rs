//! The writes of a client, without waiting for them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use chrono::{DateTime, Utc};

use crate::client::Client;
use crate::client::write::{self, Answer, Write};
use crate::error::Result;
use crate::id::TaskId;
use crate::model::answer::Cancel;
use crate::model::edit::{Edit, Patch};
use crate::model::new_task::{NewTask, Scheduled};
use crate::model::op::Action;
use crate::model::recurrence::edit::RecurrenceEdit;
use crate::model::recurrence::request::Recurrence;
use crate::model::recurrence::set::{Declared, RecurrenceSet};
use crate::model::recurrence::view::{Recurred, RecurrenceAction, Triggered};
use crate::store::Ticket;

impl Client {
    /// Returns the same writes, without waiting for them.
    #[must_use]
    pub fn submit(&self) -> Submit<'_> {
        Submit(self)
    }
}

/// The writes of a [`Client`] without waiting: each returns a [`Receipt`].
///
/// When the method returns, the write is queued for a thread of the store, unless it is refused at once: then the receipt has
/// the error. Dropping the receipt does not cancel the write. Made
/// by [`Client::submit`].
///
/// # Example
///
/// ```
/// # use punctual::{NewTask, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// let receipts: Vec<_> = (0..100)
///     .map(|n| scheduler.submit().schedule(NewTask::with_kind("count", &n)))
///     .collect();
/// for receipt in receipts {
///     assert!(receipt.wait()?.is_new());
/// }
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Submit<'a>(pub(super) &'a Client);

impl<'a> Submit<'a> {
    /// As [`Client::schedule`].
    pub fn schedule(self, task: impl Into<NewTask>) -> Receipt<Scheduled> {
        self.send(write::schedule(self.0.now(), task.into()))
    }

    /// As [`Client::schedule_many`].
    pub fn schedule_many<T: Into<NewTask>>(
        self,
        tasks: impl IntoIterator<Item = T>,
    ) -> Receipt<Vec<Scheduled>> {
        self.send(write::schedule_many(self.0.now(), 0, tasks))
    }

    /// As [`Client::cancel`].
    pub fn cancel(self, id: impl Into<TaskId>) -> Receipt<Cancel> {
        self.send(write::cancel(id.into()))
    }

    /// As [`Client::delete`].
    pub fn delete(self, id: impl Into<TaskId>) -> Receipt<()> {
        self.send(write::change(id.into(), Ok(Action::Delete)))
    }

    /// As [`Client::reschedule`].
    pub fn reschedule(self, id: impl Into<TaskId>, at: DateTime<Utc>) -> Receipt<()> {
        self.send(write::change(id.into(), write::reschedule(at)))
    }

    /// As [`Client::run_now`].
    pub fn run_now(self, id: impl Into<TaskId>) -> Receipt<()> {
        self.send(write::change(id.into(), Ok(Action::RunNow)))
    }

    /// As [`Client::retry`].
    pub fn retry(self, id: impl Into<TaskId>) -> Receipt<()> {
        self.send(write::change(
            id.into(),
            Ok(Action::Retry(Patch::default())),
        ))
    }

    /// As [`Client::retry_with`].
    pub fn retry_with(self, id: impl Into<TaskId>, edit: Edit) -> Receipt<()> {
        self.send(write::change(id.into(), edit.prepare().map(Action::Retry)))
    }

    /// As [`Client::edit`].
    pub fn edit(self, id: impl Into<TaskId>, edit: Edit) -> Receipt<()> {
        self.send(write::change(id.into(), edit.prepare().map(Action::Edit)))
    }

    /// As [`Client::pause`].
    pub fn pause(self, queue: &str) -> Receipt<()> {
        self.send(write::pause(queue, true))
    }

    /// As [`Client::resume`].
    pub fn resume(self, queue: &str) -> Receipt<()> {
        self.send(write::pause(queue, false))
    }

    /// As [`Client::set_global_limit`].
    pub fn set_global_limit(self, queue: &str, limit: Option<usize>) -> Receipt<()> {
        self.send(write::limit(queue, limit))
    }

    /// As [`Client::recur`].
    pub fn recur(self, recurrence: Recurrence) -> Receipt<Recurred> {
        self.send(write::recur(self.0.now(), recurrence))
    }

    /// As [`Client::declare`].
    pub fn declare(self, set: RecurrenceSet) -> Receipt<Declared> {
        self.send(write::declare(self.0.now(), set))
    }

    /// Returns the changes of stored recurrences, without waiting for them.
    #[must_use]
    pub fn recurrences(self) -> SubmitRecurrences<'a> {
        SubmitRecurrences(self)
    }

    fn send<T>(self, write: Result<Write<T>>) -> Receipt<T> {
        match write {
            Ok(write) => Receipt {
                ticket: self
                    .0
                    .store
                    .submit(write.now.unwrap_or_else(|| self.0.now()), vec![write.op]),
                answer: write.answer,
            },
            Err(error) => Receipt {
                ticket: Ticket::ready(Err(error)),
                answer: Answer::refused(),
            },
        }
    }
}

/// The changes of stored recurrences without waiting. Made by [`Submit::recurrences`].
///
/// # Example
///
/// ```
/// use punctual::Client;
///
/// async fn pause_all(client: &Client, names: &[&str]) -> punctual::Result<()> {
///     let receipts: Vec<_> = names
///         .iter()
///         .map(|name| client.submit().recurrences().pause(name))
///         .collect();
///     for receipt in receipts {
///         receipt.await?;
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct SubmitRecurrences<'a>(Submit<'a>);

impl SubmitRecurrences<'_> {
    /// As [`Recurrences::pause`](crate::Recurrences::pause).
    pub fn pause(self, name: &str) -> Receipt<()> {
        self.change(name, RecurrenceAction::Pause)
    }

    /// As [`Recurrences::resume`](crate::Recurrences::resume).
    pub fn resume(self, name: &str) -> Receipt<()> {
        self.change(name, RecurrenceAction::Resume)
    }

    /// As [`Recurrences::remove`](crate::Recurrences::remove).
    pub fn remove(self, name: &str) -> Receipt<()> {
        self.change(name, RecurrenceAction::Remove)
    }

    /// As [`Recurrences::trigger`](crate::Recurrences::trigger).
    pub fn trigger(self, name: &str) -> Receipt<Triggered> {
        self.0.send(write::trigger(name))
    }

    /// As [`Recurrences::edit`](crate::Recurrences::edit).
    pub fn edit(self, name: &str, edit: RecurrenceEdit) -> Receipt<()> {
        self.0.send(write::edit_recurrence(name, edit))
    }

    /// As [`Recurrences::reset`](crate::Recurrences::reset).
    pub fn reset(self, name: &str, from: DateTime<Utc>) -> Receipt<()> {
        self.0.send(write::reset(name, from))
    }

    fn change(self, name: &str, action: RecurrenceAction) -> Receipt<()> {
        self.0.send(write::change_recurrence(name, action))
    }
}

/// The answer to a submitted write, once the write is on disk. Wait for it, or await it in any async runtime.
///
/// The waker of an awaited receipt may call the store. It runs on a thread of the store: if it blocks, it delays other
/// wakers by milliseconds, and no write; see [`Health::blocked_wakers`](crate::Health::blocked_wakers).
///
/// # Example
///
/// ```
/// use punctual::{Client, NewTask, Receipt, Scheduled};
///
/// async fn remind(client: &Client, user: u64) -> punctual::Result<Scheduled> {
///     let receipt: Receipt<Scheduled> = client.submit().schedule(NewTask::with_kind("remind", &user));
///     receipt.await
/// }
/// ```
#[derive(Debug)]
#[must_use = "the write may fail"]
pub struct Receipt<T> {
    ticket: Ticket,
    answer: Answer<T>,
}

impl<T> Receipt<T> {
    /// Blocks until the write is on disk.
    ///
    /// # Errors
    ///
    /// As the method of [`Client`] with the same name. [`ErrorKind::Reentrant`](crate::ErrorKind::Reentrant) inside a
    /// transaction on the same store, if the write is not done yet: it is made after the transaction, if it was not submitted
    /// inside by the same thread; such a write is refused. [`ErrorKind::State`](crate::ErrorKind::State) if the answer was
    /// given to a poll before.
    pub fn wait(self) -> Result<T> {
        self.answer.of(self.ticket.wait())
    }
}

impl<T> Future for Receipt<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.ticket.poll(cx) {
            Poll::Ready(replies) => Poll::Ready(self.answer.of(replies)),
            Poll::Pending => Poll::Pending,
        }
    }
}
