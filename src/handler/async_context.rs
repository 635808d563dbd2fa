//! The attempt, as an async handler sees it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use serde::Serialize;

use crate::client::asynchronous::AsyncClient;
use crate::client::transaction::Tx;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::handler::about::about_attempt;
use crate::handler::holding::Holding;
use crate::handler::token::{Raised, StopReason};
use crate::model::outcome::Outcome;

/// The attempt that an async handler runs: its task, its deadline, and whether the handler should stop.
///
/// A clone is cheap and means the same attempt. It may outlive the attempt: then it still names the task, but
/// [`progress`](Self::progress) and [`complete`](Self::complete) fail with [`ErrorKind::State`].
///
/// # Stopping
///
/// When the attempt's deadline passes, when its task is cancelled and when the scheduler shuts down, the handler is asked to
/// stop: [`stopped`](Self::stopped) ends. It then has a while to clean up: the
/// [grace](crate::AsyncTaskHandler::stop_grace), 5 seconds by default. After that its future is dropped at the `.await` where
/// it is, and the attempt is recorded as timed out, cancelled or interrupted.
///
/// # Example
///
/// ```
/// use punctual::{AsyncContext, Outcome, TaskResult};
///
/// async fn import(rows: Vec<u64>, cx: AsyncContext) -> TaskResult {
///     for (done, _row) in rows.iter().enumerate() {
///         if cx.cancelled() {
///             return Err("stopped half-way".into());
///         }
///         if done % 1000 == 0 {
///             cx.progress(&done).await?;
///         }
///     }
///     Outcome::with(&rows.len())
/// }
/// ```
#[derive(Clone)]
pub struct AsyncContext {
    pub(crate) holding: Arc<Holding>,
}

impl AsyncContext {
    about_attempt!();

    /// Waits until the handler should stop, and tells why. Any number of futures may wait. Dropping one has no effect.
    ///
    /// # Example
    ///
    /// With `tokio::select!`, `futures::select!` or `smol::future::or` a handler waits for its work and for this, whichever is
    /// first. Here by hand:
    ///
    /// ```
    /// use punctual::{AsyncContext, Outcome, StopReason, TaskResult};
    ///
    /// async fn until_cancelled(cx: AsyncContext) -> TaskResult {
    ///     match cx.stopped().await {
    ///         StopReason::Cancelled => Ok(Outcome::cancel("as asked")),
    ///         _ => Err("to be continued".into()),
    ///     }
    /// }
    /// ```
    pub fn stopped(&self) -> Stopped {
        Stopped(Raised::new(Arc::clone(&self.holding.token)))
    }

    /// Stores a progress report, as [`TaskContext::progress`](crate::TaskContext::progress).
    ///
    /// The report is stored by a thread of the client's own. If this future is dropped before one has taken it up, it is not.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Payload`] if the report cannot be encoded or is too large; [`ErrorKind::State`] if the attempt no longer
    /// holds its task; else an error of the storage, which a handler may ignore.
    pub async fn progress<T: Serialize + Sync + ?Sized>(&self, report: &T) -> Result<()> {
        let client = &self.holding.client;
        client.store.check()?;
        let op = self.holding.progress(report)?;
        let holding = Arc::clone(&self.holding);
        client.beside.writes.run(move || holding.report(op)).await?
    }

    /// Ends the attempt in the transaction that writes the handler's own rows, as
    /// [`TaskContext::complete`](crate::TaskContext::complete). Return the outcome of this call from the handler.
    ///
    /// The closure runs on a thread of the client's own, so it blocks no thread of the runtime. If this future is dropped
    /// before the closure's turn to write has come, the closure never runs. Once begun it runs to its end, and its outcome is the
    /// attempt's, whatever becomes of this future; only then does the attempt end. Of several calls one at a time runs, and the
    /// first that succeeds counts.
    ///
    /// # Errors
    ///
    /// As [`TaskContext::complete`](crate::TaskContext::complete).
    ///
    /// # Panics
    ///
    /// If the closure panics; everything that it did is undone first.
    ///
    /// # Example
    ///
    /// ```
    /// use punctual::{AsyncContext, NewTask, Outcome, TaskResult};
    ///
    /// async fn deposit((account, amount): (u32, i64), cx: AsyncContext) -> TaskResult {
    ///     cx.complete(move |tx| {
    ///         let sql = "UPDATE accounts SET balance = balance + ?2 WHERE id = ?1";
    ///         tx.sqlite()?.execute(sql, (account, amount))?;
    ///         tx.schedule(NewTask::with_kind("receipt", &account))?;
    ///         Ok(Outcome::done())
    ///     })
    ///     .await
    /// }
    /// ```
    pub async fn complete<E: From<Error> + Send + 'static>(
        &self,
        run: impl FnOnce(&Tx<'_>) -> Result<Outcome, E> + Send + 'static,
    ) -> Result<Outcome, E> {
        let client = &self.holding.client;
        client.store.check()?;
        let holding = Arc::clone(&self.holding);
        let ran = client
            .beside
            .writes
            .run_wanted(move |is_wanted| holding.complete_beside(is_wanted, run));
        ran.await?
    }

    /// The client of the scheduler that runs the handler, for instance to schedule further tasks.
    #[must_use]
    pub fn client(&self) -> AsyncClient {
        self.holding.client.to_async()
    }
}

impl fmt::Debug for AsyncContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncContext")
            .field("id", &self.holding.claim.id)
            .field("kind", &self.holding.claim.kind)
            .field("attempt", &self.holding.claim.attempt)
            .field("deadline", &self.holding.deadline)
            .finish_non_exhaustive()
    }
}

/// Waits until a handler should stop. Made by [`AsyncContext::stopped`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Stopped(Raised);

impl Future for Stopped {
    type Output = StopReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        Pin::new(&mut self.0).poll(cx)
    }
}
