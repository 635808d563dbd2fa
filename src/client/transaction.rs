//! Transactions: tasks that commit with the user's own rows, or not at all.

use std::fmt;

use rusqlite::Connection;

use crate::client::Client;
use crate::client::write::{self, Write};
use crate::error::{Error, ErrorKind, Result};
use crate::id::TaskId;
use crate::model::answer::Cancel;
use crate::model::new_task::{NewTask, Scheduled};
use crate::model::recurrence::request::Recurrence;
use crate::model::recurrence::set::{Declared, RecurrenceSet};
use crate::model::recurrence::view::{Recurred, RecurrenceAction};
use crate::store::sqlite::face;
use crate::store::{Holder, Transaction, TransactionEnd};
use crate::time::Timestamp;

/// A transaction on the scheduler's own file: the user's SQL, and tasks that are stored with it. Made by
/// [`Client::transaction`] and [`TaskContext::complete`](crate::TaskContext::complete).
///
/// Its answers hold only once the transaction has committed: until then no task is started, and no handler is asked to stop.
/// For other calls on the same store from inside, see [`ErrorKind::Reentrant`].
///
/// # Example
///
/// ```
/// # use punctual::{NewTask, Scheduler, Tx};
/// fn order(tx: &Tx<'_>, item: &str) -> punctual::Result<()> {
///     tx.sqlite()?.execute("INSERT INTO orders (item) VALUES (?1)", [item])?;
///     tx.schedule(NewTask::with_kind("ship", item))?;
///     Ok(())
/// }
/// # let scheduler = Scheduler::in_memory().start()?;
/// # scheduler.transaction(|tx| {
/// #     tx.sqlite()?.execute_batch("CREATE TABLE orders (item TEXT)")?;
/// #     Ok::<_, punctual::Error>(())
/// # })?;
/// scheduler.transaction(|tx| order(tx, "a kettle"))?;
/// # Ok::<(), punctual::Error>(())
/// ```
pub struct Tx<'a> {
    work: &'a dyn Transaction,
    now: Timestamp,
}

impl<'a> Tx<'a> {
    pub(crate) fn new(work: &'a dyn Transaction, now: Timestamp) -> Self {
        Self { work, now }
    }

    /// Stores a task with the transaction.
    ///
    /// # Errors
    ///
    /// As [`Client::schedule`]. After [`ErrorKind::Invalid`] and [`ErrorKind::Payload`] the transaction can go on; after any
    /// other error it cannot be committed.
    pub fn schedule(&self, task: impl Into<NewTask>) -> Result<Scheduled> {
        self.run(write::schedule(self.now, task.into()))
    }

    /// Stores tasks with the transaction, and returns the answers in their order.
    ///
    /// # Errors
    ///
    /// As [`schedule`](Self::schedule).
    pub fn schedule_many<T: Into<NewTask>>(
        &self,
        tasks: impl IntoIterator<Item = T>,
    ) -> Result<Vec<Scheduled>> {
        self.run(write::schedule_many(self.now, 0, tasks))
    }

    /// Stores a recurrence with the transaction.
    ///
    /// # Errors
    ///
    /// As [`Client::recur`]. After [`ErrorKind::Invalid`] and [`ErrorKind::Payload`] the transaction can go on; after any other
    /// error it cannot be committed.
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{NewTask, Recurrence, Scheduler};
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// # scheduler.transaction(|tx| {
    /// #     tx.sqlite()?.execute_batch("CREATE TABLE customers (id INTEGER PRIMARY KEY)")?;
    /// #     Ok::<_, punctual::Error>(())
    /// # })?;
    /// scheduler.transaction(|tx| {
    ///     tx.sqlite()?.execute("INSERT INTO customers VALUES (7)", [])?;
    ///     let invoice = NewTask::with_kind("invoice", &7);
    ///     tx.recur(Recurrence::new("invoice-7", invoice).cron("@monthly")?)
    /// })?;
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn recur(&self, recurrence: Recurrence) -> Result<Recurred> {
        self.run(write::recur(self.now, recurrence))
    }

    /// Brings a set of recurrences in line with what the program declares, with the transaction.
    ///
    /// # Errors
    ///
    /// As [`Client::declare`]; what follows from an error, as for [`recur`](Self::recur).
    pub fn declare(&self, set: RecurrenceSet) -> Result<Declared> {
        self.run(write::declare(self.now, set))
    }

    /// Removes a recurrence with the transaction.
    ///
    /// # Errors
    ///
    /// As [`Recurrences::remove`](crate::Recurrences::remove). After [`ErrorKind::NotFound`] the transaction can go on; after any
    /// other error it cannot be committed.
    pub fn remove_recurrence(&self, name: &str) -> Result<()> {
        self.run(write::change_recurrence(name, RecurrenceAction::Remove))
    }

    /// Cancels a task with the transaction.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is no such task; else as [`schedule`](Self::schedule).
    pub fn cancel(&self, id: impl Into<TaskId>) -> Result<Cancel> {
        self.run(write::cancel(id.into()))
    }

    /// SQLite's connection, for the user's own SQL inside the transaction. The transaction is an immediate one, so another
    /// writer never forces a retry. Foreign keys are enforced.
    ///
    /// `BEGIN`, `COMMIT`, `ROLLBACK`, `SAVEPOINT`, `ATTACH`, a `PRAGMA` that sets anything, and writes to the tables
    /// `punctual_…` are refused; those tables may be read.
    ///
    /// This is the scheduler's one write connection, and it outlives the transaction: leave its settings (busy timeout, limits,
    /// configuration) as they are, and drop temporary tables.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if the tasks are not kept in SQLite.
    pub fn sqlite(&self) -> Result<&Connection> {
        face::connection(self.work)
    }

    fn run<T>(&self, write: Result<Write<T>>) -> Result<T> {
        let write = write?;
        let reply = self.work.apply(write.op).map(|reply| vec![reply]);
        write.answer.of(reply)
    }
}

/// Runs a closure in a transaction of its own; `holder` names the attempt that it is for. The closure also returns how the
/// transaction is to end.
pub(crate) fn run_inside<T, E: From<Error>>(
    client: &Client,
    holder: Option<Holder>,
    run: impl FnOnce(&Tx<'_>) -> Result<(T, TransactionEnd), E>,
) -> Result<T, E> {
    let now = client.now();
    let mut run = Some(run);
    let mut answer = None;
    let ended = client.store.transaction(now, holder, &mut |work| match run
        .take()
        .map(|run| run(&Tx::new(work, now)))
    {
        Some(Ok((value, ending))) => {
            answer = Some(Ok(value));
            ending
        }
        Some(Err(error)) => {
            answer = Some(Err(error));
            TransactionEnd::RollBack
        }
        None => TransactionEnd::RollBack,
    });
    match (ended, answer) {
        // The refusal of its SQL says less.
        (Err(error), _) if error.kind() == ErrorKind::Forked => Err(error.into()),
        // The closure's error may say more about what went wrong.
        (_, Some(Err(error))) => Err(error),
        (Err(error), _) => Err(error.into()),
        (Ok(()), answer) => answer.expect("a transaction that has ended was run"),
    }
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").finish_non_exhaustive()
    }
}

impl Client {
    /// Runs a closure in a transaction on the file: the user's own SQL, and any number of tasks, commit together or not at
    /// all. Returns the closure's value once the commit is on disk, at the durability of the store.
    ///
    /// The closure runs now, on this thread, in the scheduler's own write path: other writes wait for it, so it should do
    /// nothing but SQL. Its error is any type that is made from the crate's own, such as [`Error`] or
    /// `Box<dyn std::error::Error>`; where `?` follows the call, name it, as the example does. If it returns an error or
    /// panics, everything that it did is undone, and nothing else is.
    ///
    /// # Errors
    ///
    /// The closure's own error. Of the crate's own: [`ErrorKind::Busy`] if its turn did not come in time, before it is called;
    /// [`ErrorKind::Timeout`] if it took longer than [`transaction_timeout`](crate::Builder::transaction_timeout);
    /// [`ErrorKind::Invalid`] if its SQL ended the transaction or gave a table one of the crate's names;
    /// [`ErrorKind::Forked`] in a child that was forked inside; [`ErrorKind::Sql`] if a deferred foreign key is violated at the
    /// end; [`ErrorKind::Unknown`] if the disk failed during the commit: it may or may not be stored;
    /// [`ErrorKind::Reentrant`] inside another transaction on the same store; else as [`schedule`](Self::schedule).
    ///
    /// # Panics
    ///
    /// If the closure panics; everything that it did is undone first.
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{NewTask, Scheduler};
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// let order = scheduler.transaction(|tx| {
    ///     tx.sqlite()?.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)")?;
    ///     tx.sqlite()?.execute("INSERT INTO orders (item) VALUES (?1)", ["a kettle"])?;
    ///     let order = tx.sqlite()?.last_insert_rowid();
    ///     tx.schedule(NewTask::with_kind("ship", &order))?;
    ///     Ok::<_, punctual::Error>(order)
    /// })?;
    /// assert_eq!(order, 1);
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn transaction<T, E: From<Error>>(
        &self,
        run: impl FnOnce(&Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        run_inside(self, None, |tx| {
            run(tx).map(|answer| (answer, TransactionEnd::Commit))
        })
    }
}
