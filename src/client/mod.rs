//! Everything that can be done with tasks, but for running them.

mod change;
pub(crate) mod settings;
pub(crate) mod sqlite;
pub(crate) mod submit;
pub(crate) mod transaction;
mod write;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::client::settings::{Location, StoreSettings, store_setters};
use crate::client::write::Write;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::id::TaskId;
use crate::model::answer::Streamed;
use crate::model::attempt::Attempt;
use crate::model::filter::{Filter, Page};
use crate::model::health::{Health, Probed};
use crate::model::new_task::{NewTask, Scheduled};
use crate::model::op::{CHUNK, Op};
use crate::model::query::{Query, Stats};
use crate::model::retention::Retention;
use crate::model::task::{Ended, Task};
use crate::store::Store;
use crate::store::events::Events;
use crate::time::{Deadline, Stopwatch, Timestamp};

/// How many tasks of a [`schedule_stream`](Client::schedule_stream) share a commit.
const STREAM_CHUNK: usize = 1_000;
/// How many events a subscription holds, unless it says otherwise.
const DEFAULT_EVENTS: usize = 1_024;
/// Who waits for the end of a task looks for one in another process this often: an eighth of how long it has waited.
const SOONEST_LOOK: Duration = Duration::from_millis(5);
const LATEST_LOOK: Duration = Duration::from_millis(250);
/// Schedules tasks and looks after them; everything but running them.
///
/// A clone is cheap and means the same file. A [`Scheduler`](crate::Scheduler) is one, by `Deref`; a program that runs
/// nothing opens one by [`Client::open`]. Every method may be called from any thread at any time.
///
/// A write is on disk when its method returns `Ok`, at the durability the file was opened with. The same writes without
/// waiting: [`submit`](Self::submit).
///
/// # Example
///
/// ```
/// # use punctual::{Client, NewTask, Payload, TaskState};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)]
/// # struct Remind { user: u64 }
/// # impl Payload for Remind { const KIND: &'static str = "remind"; }
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("app.db");
/// let client = Client::open(&path)?;
/// let task = client.schedule(Remind { user: 7 })?.id();
/// assert_eq!(client.get(task)?.unwrap().state(), TaskState::Pending);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) store: Arc<dyn Store>,
    /// The store's.
    pub(crate) clock: Arc<dyn Clock>,
}

/// Opens a [`Client`] with other settings than the default ones. Made by [`Client::builder`].
///
/// # Example
///
/// ```
/// # use punctual::{Client, Durability};
/// # use std::time::Duration;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("app.db");
/// let client = Client::builder(&path)
///     .durability(Durability::ProcessCrash)
///     .busy_timeout(Duration::from_secs(1))
///     .open()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientBuilder {
    store: StoreSettings,
}

impl ClientBuilder {
    store_setters!();

    /// Opens the file, and creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Client::open`], and [`ErrorKind::Invalid`] for a setting that is out of its range.
    pub fn open(self) -> Result<Client> {
        let client = Client::on(self.store.open()?);
        client.recover()?;
        Ok(client)
    }
}

impl Client {
    /// Opens a file without running anything in this process, and creates it if there is none.
    ///
    /// # Errors
    ///
    /// Nothing is left at a path that was refused, and a file there is as it was.
    ///
    /// - [`ErrorKind::Invalid`] for a path that is no place for a database: it ends in a slash, its folder does not exist, it
    ///   is a folder, a device, or a symbolic link to nothing; it has more than 504 bytes, or there is no room for a further
    ///   `.punctual` (9 bytes) in its name; its name ends in `-wal`, `-shm` or `-journal`, which SQLite uses for the log of
    ///   another database; it lies in a folder of lock files.
    /// - [`ErrorKind::Invalid`] for a file that has a second name: one that is mounted alone (mount its folder instead) or has
    ///   hard links, or whose log (`-wal`, `-shm`) or folder of lock files (`.punctual`) is a link or a mount of something
    ///   elsewhere.
    /// - [`ErrorKind::Corrupt`] for a file that is no database.
    /// - [`ErrorKind::ReadOnly`] if the file or its folder cannot be written.
    /// - [`ErrorKind::Version`] if its schema is newer than this crate's.
    /// - [`ErrorKind::Unsupported`] on a network file system.
    /// - [`ErrorKind::Full`] or [`ErrorKind::Storage`] if a new file cannot be made a database.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open()
    }

    /// Like [`open`](Self::open), with settings.
    pub fn builder(path: impl AsRef<Path>) -> ClientBuilder {
        let place = Location::File(path.as_ref().to_owned());
        ClientBuilder {
            store: StoreSettings::new(place, false),
        }
    }

    pub(crate) fn on(store: Arc<dyn Store>) -> Self {
        let clock = Arc::clone(store.clock());
        Self { store, clock }
    }

    /// Takes back what processes held that have died.
    pub(crate) fn recover(&self) -> Result<()> {
        while self.store.recover(self.clock.now())?.more {}
        Ok(())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Stores a task and returns once it is on disk.
    ///
    /// The payload is kept as JSON, at most [`MAX_PAYLOAD_BYTES`](crate::MAX_PAYLOAD_BYTES) (1 MiB). The due time defaults
    /// to now and has microsecond resolution. If a task with the same id is stored, nothing is added and
    /// [`Scheduled::Existing`] says so: scheduling again by the same id is safe, for as long as the task is kept (an ended
    /// one for its [`Retention`]). [`Scheduled::Different`] says that the stored task has another kind or payload.
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

    /// Stores tasks in one commit, all or none, and answers in their order.
    ///
    /// At most [`MAX_BATCH`](crate::MAX_BATCH) (100,000): while they are written, other writes wait. For more, or to let
    /// others in between, [`schedule_stream`](Self::schedule_stream).
    ///
    /// # Errors
    ///
    /// As [`schedule`](Self::schedule); if one task is not allowed, none is stored, and [`Error::task_id`] names it.
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
        self.write(write::schedule_many(self.now(), tasks))
    }

    /// Stores tasks from an iterator of any length, in commits of 1,000, never holding more.
    ///
    /// Resumable: after an error, give the same tasks with the same ids again; those that are stored are counted as
    /// existing.
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
            let scheduled =
                self.schedule_many(chunk)
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

    /// Reads a task; `None` if there is none with that id.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if the task is damaged, [`ErrorKind::Storage`] if it cannot be read.
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
    /// [`ErrorKind::Invalid`] if the filter has no condition or a bad one; [`ErrorKind::Storage`] if it cannot be read.
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

    /// Counts the matching tasks. It goes by windows of 10,000 tasks, so it is not one instant's truth while others write.
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

    /// Counts tasks by state, queue and kind, and tells how long the oldest due one waits. It passes over the indexes of
    /// all tasks: about a second for ten million.
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

    /// Reads how a task's attempts ended, oldest first, at most the newest [`MAX_HISTORY`](crate::MAX_HISTORY). The one
    /// that is running is not among them.
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

    /// Stops starting tasks of a queue, in every process, until [`resume`](Self::resume). What runs goes on; what was
    /// claimed and not started is given back. The pause survives a restart.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the name is not allowed; else as [`schedule`](Self::schedule).
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::Scheduler;
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// scheduler.pause("mail")?;
    /// assert_eq!(scheduler.health().paused_queues(), ["mail"]);
    /// scheduler.resume("mail")?;
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn pause(&self, queue: &str) -> Result<()> {
        self.write(write::pause(queue, true))
    }

    /// Starts tasks of a queue again.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    pub fn resume(&self, queue: &str) -> Result<()> {
        self.write(write::pause(queue, false))
    }

    /// Bounds how many tasks of a queue run at once in all processes of the file together; `None`: not at all. The limit is
    /// kept in the file, whoever has it open, until another is given. What runs already goes on.
    ///
    /// For each scheduler's own limits see [`Builder::queue`](crate::Builder::queue).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the name is not allowed, or the limit is 0 (pause the queue instead) or over 1,000,000;
    /// else as [`schedule`](Self::schedule).
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::Scheduler;
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// scheduler.set_global_limit("reports", Some(2))?;
    /// assert_eq!(scheduler.health().global_limits(), [("reports".to_owned(), 2)]);
    /// scheduler.set_global_limit("reports", None)?;
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn set_global_limit(&self, queue: &str, limit: Option<usize>) -> Result<()> {
        self.write(write::limit(queue, limit))
    }

    /// Deletes ended tasks whose retention is over, in commits of up to 500, and returns how many. A scheduler does so on
    /// its own; this is for other retentions, or for a file that no scheduler has open.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if a span is over 1,000 years; else as [`schedule`](Self::schedule).
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{NewTask, Retention, Scheduler};
    /// # use std::time::Duration;
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// let task = scheduler.schedule(NewTask::with_kind("remind", &7))?.id();
    /// scheduler.cancel(task)?;
    /// assert_eq!(scheduler.prune(&Retention::forever().cancelled(Duration::ZERO))?, 1);
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn prune(&self, retention: &Retention) -> Result<u64> {
        retention.check()?;
        let mut pruned = 0;
        loop {
            let now = self.now();
            let op = Op::Prune {
                cutoffs: retention.cutoffs(now),
                limit: CHUNK,
            };
            let count = write::one(self.store.apply(now, vec![op])?).done();
            pruned += count as u64;
            if count < CHUNK {
                return Ok(pruned);
            }
        }
    }

    /// Makes a small write, at the durability of the store, waits for it, at most `timeout`, and returns the health after
    /// that: whether tasks can be stored now. The call for a readiness probe.
    ///
    /// If the write fails, or is not done in time, [`Health::is_ok`] is false. A write that has not begun by then is not
    /// made; one that hangs holds up nobody but later writes. From inside a transaction on the same store nothing can be
    /// written, so the answer is not ok either.
    ///
    /// It costs a commit, so a few times a second is often enough. If nothing is to be written, take
    /// [`health`](Self::health).
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::Scheduler;
    /// # use std::time::Duration;
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// let health = scheduler.probe(Duration::from_secs(1));
    /// assert!(health.is_ok(), "{health:?}");
    /// # Ok::<(), punctual::Error>(())
    /// ```
    #[must_use]
    pub fn probe(&self, timeout: Duration) -> Health {
        let failed = self.try_write(timeout);
        failed.told_in(self.health())
    }

    /// Whether a small write is done in time.
    pub(crate) fn try_write(&self, timeout: Duration) -> Probed {
        let began = self.now();
        let written = self.store.submit(began, vec![Op::Probe]);
        let error = match written.wait_within(timeout) {
            Some(Ok(_)) => None,
            Some(Err(error)) => Some(error),
            None => Some(Error::new(
                ErrorKind::Busy,
                format!("the write of a probe was not done within {timeout:?}"),
            )),
        };
        Probed(error.map(|error| (began.to_utc(), error)))
    }

    /// How the store is, as far as is known without a write. To find out, [`probe`](Self::probe).
    #[must_use]
    pub fn health(&self) -> Health {
        self.store.health()
    }

    fn write<T>(&self, write: Result<Write<T>>) -> Result<T> {
        let write = write?;
        let replies = self
            .store
            .apply(write.now.unwrap_or_else(|| self.now()), vec![write.op]);
        write::answer(replies, write.task, write.answer)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
