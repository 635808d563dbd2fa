//! The attempt, as its handler sees it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::client::Client;
use crate::client::transaction::Tx;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::handler::about::about_attempt;
use crate::handler::holding::Holding;
use crate::model::outcome::Outcome;

/// The attempt that a handler runs: its task, its deadline, and whether the handler should stop.
///
/// # Example
///
/// ```
/// use punctual::{Outcome, TaskContext, TaskResult};
///
/// fn import(rows: &[u64], cx: &TaskContext) -> TaskResult {
///     for (done, _row) in rows.iter().enumerate() {
///         if cx.cancelled() {
///             return Err("stopped half-way".into());
///         }
///         if done % 1000 == 0 {
///             cx.progress(&done)?;
///         }
///     }
///     Outcome::with(&rows.len())
/// }
/// ```
pub struct TaskContext {
    pub(crate) holding: Arc<Holding>,
}

impl TaskContext {
    about_attempt!();

    /// Sleeps for `span`, or until the handler should stop. Returns [`cancelled`](Self::cancelled).
    #[must_use]
    pub fn cancelled_within(&self, span: Duration) -> bool {
        self.holding.token.wait(span).is_some()
    }

    /// Stores a progress report, JSON of at most 16 KiB, which [`Task::progress`](crate::Task::progress) reads. Each report
    /// replaces the one before, and is kept for the attempts that follow. It is committed when this returns, but not
    /// synced: a power cut may undo it. The report is encoded, but not decoded to check that it can be read back.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Payload`] if the report cannot be encoded or is too large; [`ErrorKind::State`] if the attempt no longer
    /// holds its task; else an error of the storage, which a handler may ignore.
    ///
    /// # Example
    ///
    /// An attempt that goes on where the one before has stopped:
    ///
    /// ```
    /// use punctual::{Outcome, TaskContext, TaskResult};
    ///
    /// fn import(rows: &[u64], cx: &TaskContext) -> TaskResult {
    ///     let task = cx.client().get(cx.id())?.ok_or("it is deleted")?;
    ///     let done: usize = task.progress()?.unwrap_or(0);
    ///     for (index, _row) in rows.iter().enumerate().skip(done) {
    ///         cx.progress(&(index + 1))?;
    ///     }
    ///     Ok(Outcome::done())
    /// }
    /// ```
    pub fn progress<T: Serialize + ?Sized>(&self, report: &T) -> Result<()> {
        self.holding.report(self.holding.progress(report)?)
    }

    /// Ends the attempt in the transaction that writes the handler's own rows: the closure's writes, the tasks that it
    /// schedules and the completion commit together, or not at all. So these writes happen exactly once, however often the
    /// process dies (P6).
    ///
    /// The closure runs now, on this thread, if the attempt still holds its task. The [`Outcome`] that it returns is committed
    /// too: usually [`Outcome::done`], but a snooze or a cancellation as well. The attempt is then settled: return the outcome
    /// of this call from the handler; anything else that it returns is ignored. If the closure returns an error or panics,
    /// nothing is stored, and the handler decides how the attempt ends. For the rules inside the closure see
    /// [`Client::transaction`]. As the last expression of a handler its error is a [`Failure`](crate::Failure); before a `?`
    /// name it: `Ok::<_, punctual::Error>(Outcome::done())`.
    ///
    /// # Errors
    ///
    /// The closure's own error. Of the crate's own: [`ErrorKind::State`] if the attempt no longer holds its task or is
    /// settled already, before the closure is called; else as [`Client::transaction`]. After [`ErrorKind::Unknown`] return the
    /// error: if the commit was stored, the commit counts and the error is dropped; if not, the error is recorded.
    ///
    /// # Panics
    ///
    /// If the closure panics; everything that it did is undone first.
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{NewTask, Payload, Scheduler, TaskState};
    /// # use serde::{Deserialize, Serialize};
    /// # use std::time::Duration;
    /// #[derive(Serialize, Deserialize)]
    /// struct Deposit { account: u32, amount: i64 }
    /// impl Payload for Deposit { const KIND: &'static str = "deposit"; }
    ///
    /// let scheduler = Scheduler::in_memory()
    ///     .handler_fn(|deposit: Deposit, cx| {
    ///         cx.complete(|tx| {
    ///             let sql = "UPDATE accounts SET balance = balance + ?2 WHERE id = ?1";
    ///             tx.sqlite()?.execute(sql, (deposit.account, deposit.amount))?;
    ///             tx.schedule(NewTask::with_kind("receipt", &deposit))?;
    ///             Ok(punctual::Outcome::done())
    ///         })
    ///     })
    ///     .start()?;
    /// scheduler.transaction(|tx| {
    ///     tx.sqlite()?.execute_batch("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER)")?;
    ///     tx.sqlite()?.execute("INSERT INTO accounts VALUES (7, 100)", [])?;
    ///     Ok::<_, punctual::Error>(())
    /// })?;
    /// let task = scheduler.schedule(Deposit { account: 7, amount: 5 })?.id();
    /// let ended = scheduler.wait(task, Duration::from_secs(10))?.expect("it is quick");
    /// assert_eq!(ended.state(), TaskState::Completed);
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn complete<E: From<Error>>(
        &self,
        run: impl FnOnce(&Tx<'_>) -> std::result::Result<Outcome, E>,
    ) -> std::result::Result<Outcome, E> {
        self.holding.complete(run)
    }

    /// The client of the scheduler that runs the handler, for instance to schedule further tasks.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.holding.client
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext")
            .field("id", &self.holding.claim.id)
            .field("kind", &self.holding.claim.kind)
            .field("attempt", &self.holding.claim.attempt)
            .field("deadline", &self.holding.deadline)
            .finish_non_exhaustive()
    }
}
