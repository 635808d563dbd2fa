//! The client for async code: no call blocks a thread of the runtime.

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::client::transaction::Tx;
use crate::client::write::{self, Write};
use crate::client::{Client, aside};
use crate::error::{Error, ErrorKind, Result};
use crate::id::TaskId;
use crate::model::answer::{Bulk, Cancel, Streamed};
use crate::model::attempt::Attempt;
use crate::model::edit::{Edit, Patch};
use crate::model::filter::{Filter, Page};
use crate::model::health::Health;
use crate::model::new_task::{NewTask, Scheduled};
use crate::model::op::Action;
use crate::model::query::Stats;
use crate::model::recurrence::request::Recurrence;
use crate::model::recurrence::set::{Declared, RecurrenceSet};
use crate::model::recurrence::view::Recurred;
use crate::model::retention::Retention;
use crate::model::task::{Ended, Task};
use crate::store::events::EventStream;

impl Client {
    /// Returns the same client for async code, in any runtime or in none.
    #[must_use]
    pub fn to_async(&self) -> AsyncClient {
        AsyncClient {
            client: self.clone(),
        }
    }
}

/// Everything that a [`Client`] does, for async code. Made by [`Client::to_async`].
///
/// No call blocks a thread of the runtime. Writes of single tasks are queued for the store, as by [`Client::submit`]. Reads,
/// transactions and calls in several commits run on a few threads of the client's own, at most eight, which start when they are
/// needed. Waits hold no thread.
///
/// # Cancel safety
///
/// Nothing happens before a future is polled. Dropped after that:
///
/// - `schedule`, `cancel` and the other writes of single tasks, queues and their limits: the write is queued, and is made.
/// - `transaction`: if its turn to write has not come, nothing is done. Once begun it runs to its end.
/// - Calls in several commits: if none of those threads has taken it up, nothing is done; otherwise it runs to its end.
/// - Reads and waits change nothing.
///
/// # Example
///
/// ```
/// use punctual::{AsyncClient, NewTask, TaskState};
/// use std::time::Duration;
///
/// async fn remind(client: &AsyncClient, user: u64) -> punctual::Result<bool> {
///     let task = client.schedule(NewTask::with_kind("remind", &user)).await?.id();
///     let ended = client.wait(task, Duration::from_secs(10)).await?;
///     Ok(ended.is_some_and(|task| task.state() == TaskState::Completed))
/// }
/// ```
#[derive(Debug, Clone)]
pub struct AsyncClient {
    pub(super) client: Client,
}

impl AsyncClient {
    /// The same client for blocking code.
    #[must_use]
    pub fn as_blocking(&self) -> &Client {
        &self.client
    }

    /// As [`Client::schedule`].
    ///
    /// # Errors
    ///
    /// As [`Client::schedule`].
    pub async fn schedule(&self, task: impl Into<NewTask>) -> Result<Scheduled> {
        self.send(write::schedule(self.client.now(), task.into()))
            .await
    }

    /// As [`Client::schedule_many`].
    ///
    /// # Errors
    ///
    /// As [`Client::schedule_many`].
    pub async fn schedule_many<T: Into<NewTask>>(
        &self,
        tasks: impl IntoIterator<Item = T>,
    ) -> Result<Vec<Scheduled>> {
        let write = write::schedule_many(self.client.now(), 0, tasks);
        self.send(write).await
    }

    /// As [`Client::schedule_stream`]. The iterator is read on a thread of its own, so it may wait for its items.
    ///
    /// # Errors
    ///
    /// As [`Client::schedule_stream`].
    pub async fn schedule_stream<T, I>(&self, tasks: I) -> Result<Streamed>
    where
        T: Into<NewTask>,
        I: IntoIterator<Item = T> + Send + 'static,
    {
        let own = aside::Aside::default();
        self.on(&own, move |client| client.schedule_stream(tasks))
            .await
    }

    /// As [`Client::cancel`].
    ///
    /// # Errors
    ///
    /// As [`Client::cancel`].
    pub async fn cancel(&self, id: impl Into<TaskId>) -> Result<Cancel> {
        self.send(write::cancel(id.into())).await
    }

    /// As [`Client::delete`].
    ///
    /// # Errors
    ///
    /// As [`Client::delete`].
    pub async fn delete(&self, id: impl Into<TaskId>) -> Result<()> {
        self.send(write::change(id.into(), Ok(Action::Delete)))
            .await
    }

    /// As [`Client::reschedule`].
    ///
    /// # Errors
    ///
    /// As [`Client::reschedule`].
    pub async fn reschedule(&self, id: impl Into<TaskId>, at: DateTime<Utc>) -> Result<()> {
        self.send(write::change(id.into(), write::reschedule(at)))
            .await
    }

    /// As [`Client::run_now`].
    ///
    /// # Errors
    ///
    /// As [`Client::run_now`].
    pub async fn run_now(&self, id: impl Into<TaskId>) -> Result<()> {
        self.send(write::change(id.into(), Ok(Action::RunNow)))
            .await
    }

    /// As [`Client::retry`].
    ///
    /// # Errors
    ///
    /// As [`Client::retry`].
    pub async fn retry(&self, id: impl Into<TaskId>) -> Result<()> {
        let action = Action::Retry(Patch::default());
        self.send(write::change(id.into(), Ok(action))).await
    }

    /// As [`Client::retry_with`].
    ///
    /// # Errors
    ///
    /// As [`Client::retry_with`].
    pub async fn retry_with(&self, id: impl Into<TaskId>, edit: Edit) -> Result<()> {
        let action = edit.prepare().map(Action::Retry);
        self.send(write::change(id.into(), action)).await
    }

    /// As [`Client::edit`].
    ///
    /// # Errors
    ///
    /// As [`Client::edit`].
    pub async fn edit(&self, id: impl Into<TaskId>, edit: Edit) -> Result<()> {
        let action = edit.prepare().map(Action::Edit);
        self.send(write::change(id.into(), action)).await
    }

    /// As [`Client::cancel_all`].
    ///
    /// # Errors
    ///
    /// As [`Client::cancel_all`].
    pub async fn cancel_all(&self, filter: &Filter) -> Result<Bulk> {
        let filter = filter.clone();
        self.write(move |client| client.cancel_all(&filter)).await
    }

    /// As [`Client::delete_all`].
    ///
    /// # Errors
    ///
    /// As [`Client::delete_all`].
    pub async fn delete_all(&self, filter: &Filter) -> Result<Bulk> {
        let filter = filter.clone();
        self.write(move |client| client.delete_all(&filter)).await
    }

    /// As [`Client::reschedule_all`].
    ///
    /// # Errors
    ///
    /// As [`Client::reschedule_all`].
    pub async fn reschedule_all(&self, filter: &Filter, at: DateTime<Utc>) -> Result<Bulk> {
        let filter = filter.clone();
        self.write(move |client| client.reschedule_all(&filter, at))
            .await
    }

    /// As [`Client::run_now_all`].
    ///
    /// # Errors
    ///
    /// As [`Client::run_now_all`].
    pub async fn run_now_all(&self, filter: &Filter) -> Result<Bulk> {
        let filter = filter.clone();
        self.write(move |client| client.run_now_all(&filter)).await
    }

    /// As [`Client::retry_all`].
    ///
    /// # Errors
    ///
    /// As [`Client::retry_all`].
    pub async fn retry_all(&self, filter: &Filter) -> Result<Bulk> {
        let filter = filter.clone();
        self.write(move |client| client.retry_all(&filter)).await
    }

    /// As [`Client::retry_all_with`].
    ///
    /// # Errors
    ///
    /// As [`Client::retry_all_with`].
    pub async fn retry_all_with(&self, filter: &Filter, edit: Edit) -> Result<Bulk> {
        let filter = filter.clone();
        self.write(move |client| client.retry_all_with(&filter, edit))
            .await
    }

    /// As [`Client::edit_all`].
    ///
    /// # Errors
    ///
    /// As [`Client::edit_all`].
    pub async fn edit_all(&self, filter: &Filter, edit: Edit) -> Result<Bulk> {
        let filter = filter.clone();
        self.write(move |client| client.edit_all(&filter, edit))
            .await
    }

    /// As [`Client::pause`].
    ///
    /// # Errors
    ///
    /// As [`Client::pause`].
    pub async fn pause(&self, queue: &str) -> Result<()> {
        self.send(write::pause(queue, true)).await
    }

    /// As [`Client::resume`].
    ///
    /// # Errors
    ///
    /// As [`Client::resume`].
    pub async fn resume(&self, queue: &str) -> Result<()> {
        self.send(write::pause(queue, false)).await
    }

    /// As [`Client::set_global_limit`].
    ///
    /// # Errors
    ///
    /// As [`Client::set_global_limit`].
    pub async fn set_global_limit(&self, queue: &str, limit: Option<usize>) -> Result<()> {
        self.send(write::limit(queue, limit)).await
    }

    /// As [`Client::recur`].
    ///
    /// # Errors
    ///
    /// As [`Client::recur`].
    pub async fn recur(&self, recurrence: Recurrence) -> Result<Recurred> {
        self.write(move |client| client.recur(recurrence)).await
    }

    /// As [`Client::declare`].
    ///
    /// # Errors
    ///
    /// As [`Client::declare`].
    pub async fn declare(&self, set: RecurrenceSet) -> Result<Declared> {
        self.write(move |client| client.declare(set)).await
    }

    /// As [`Client::get`].
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn get(&self, id: impl Into<TaskId>) -> Result<Option<Task>> {
        let id = id.into();
        self.read(move |client| client.get(id)).await
    }

    /// As [`Client::list`].
    ///
    /// # Errors
    ///
    /// As [`Client::list`].
    pub async fn list(&self, filter: &Filter) -> Result<Page> {
        let filter = filter.clone();
        self.read(move |client| client.list(&filter)).await
    }

    /// As [`Client::count`].
    ///
    /// # Errors
    ///
    /// As [`Client::count`].
    pub async fn count(&self, filter: &Filter) -> Result<u64> {
        let filter = filter.clone();
        self.read(move |client| client.count(&filter)).await
    }

    /// As [`Client::stats`].
    ///
    /// # Errors
    ///
    /// As [`Client::stats`].
    pub async fn stats(&self) -> Result<Stats> {
        self.read(Client::stats).await
    }

    /// As [`Client::history`].
    ///
    /// # Errors
    ///
    /// As [`Client::history`].
    pub async fn history(&self, id: impl Into<TaskId>) -> Result<Vec<Attempt>> {
        let id = id.into();
        self.read(move |client| client.history(id)).await
    }

    /// As [`Client::prune`].
    ///
    /// # Errors
    ///
    /// As [`Client::prune`].
    pub async fn prune(&self, retention: &Retention) -> Result<u64> {
        let retention = *retention;
        self.write(move |client| client.prune(&retention)).await
    }

    /// As [`Sqlite::backup`](crate::Sqlite::backup).
    ///
    /// # Errors
    ///
    /// As [`Client::sqlite`] and [`Sqlite::backup`](crate::Sqlite::backup).
    pub async fn backup(&self, path: impl AsRef<Path>) -> Result<()> {
        let path: PathBuf = path.as_ref().to_owned();
        self.read(move |client| client.sqlite()?.backup(path)).await
    }

    /// As [`Client::probe`].
    pub async fn probe(&self, timeout: Duration) -> Health {
        // On a thread of its own: others may be waiting for the turn to write.
        let own = aside::Aside::default();
        let probed = self.on(&own, move |client| Ok(client.probe(timeout))).await;
        probed.unwrap_or_else(|_| self.client.health())
    }

    /// As [`Client::health`], which waits for nothing.
    #[must_use]
    pub fn health(&self) -> Health {
        self.client.health()
    }

    /// Waits until a task has ended, as [`Client::wait`], and holds no thread: thousands may wait at once. For an end in another
    /// process the wait may be late by an eighth of its length, and at most by half a second.
    ///
    /// # Errors
    ///
    /// As [`Client::wait`].
    pub async fn wait(&self, id: impl Into<TaskId>, timeout: Duration) -> Result<Option<Ended>> {
        self.client.store.check()?;
        let waits = &self.client.beside.waits;
        waits.wait(&self.client.store, id.into(), timeout)?.await
    }

    /// Subscribes to the changes of tasks, as [`Client::events`], which waits for nothing.
    pub fn events(&self) -> EventStream {
        self.client.events().into()
    }

    /// As [`Client::events_with_capacity`], which waits for nothing.
    pub fn events_with_capacity(&self, capacity: usize) -> EventStream {
        self.client.events_with_capacity(capacity).into()
    }

    /// Runs a closure in a transaction on the file, as [`Client::transaction`], on a thread of the client's.
    ///
    /// # Errors
    ///
    /// As [`Client::transaction`].
    ///
    /// # Panics
    ///
    /// If the closure panics; everything that it did is undone first.
    ///
    /// # Example
    ///
    /// ```
    /// use punctual::{AsyncClient, NewTask};
    ///
    /// async fn order(client: &AsyncClient, item: String) -> punctual::Result<i64> {
    ///     client
    ///         .transaction(move |tx| {
    ///             tx.sqlite()?.execute("INSERT INTO orders (item) VALUES (?1)", [item])?;
    ///             let order = tx.sqlite()?.last_insert_rowid();
    ///             tx.schedule(NewTask::with_kind("ship", &order))?;
    ///             Ok::<_, punctual::Error>(order)
    ///         })
    ///         .await
    /// }
    /// ```
    pub async fn transaction<T, E>(
        &self,
        run: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.client.store.check()?;
        let client = self.client.clone();
        let writes = &self.client.beside.writes;
        let ran = writes.run_wanted(move |is_wanted| {
            client.transaction(|tx| {
                if !is_wanted() {
                    // Nobody is left to be told this.
                    return Err(Error::new(ErrorKind::State, "the future was dropped").into());
                }
                run(tx)
            })
        });
        ran.await?
    }

    /// Queues a write, and waits for its answer.
    async fn send<T>(&self, write: Result<Write<T>>) -> Result<T> {
        let Write { op, now, answer } = write?;
        let store = &self.client.store;
        let now = now.unwrap_or_else(|| self.client.now());
        let replies = match store.try_submit(now, vec![op]) {
            Ok(mut ticket) => poll_fn(|cx| ticket.poll(cx)).await,
            Err(ops) => {
                // The queue is full, and waiting for room would block this thread.
                let later = std::sync::Arc::clone(store);
                let writes = &self.client.beside.writes;
                writes.run_surely(move || later.apply(now, ops)).await?
            }
        };
        answer.of(replies)
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Client) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.on(&self.client.beside.reads, call).await
    }

    pub(super) async fn write<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Client) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.on(&self.client.beside.writes, call).await
    }

    async fn on<T: Send + 'static>(
        &self,
        threads: &aside::Aside,
        call: impl FnOnce(&Client) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // Before a lock is taken, which in a forked child may be held for ever.
        self.client.store.check()?;
        let client = self.client.clone();
        threads.run(move || call(&client)).await?
    }
}
