//! The attempt, as its handler sees it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::client::Client;
use crate::client::transaction::{Tx, run_inside};
use crate::error::{Error, ErrorKind, Result};
use crate::handler::token::{StopReason, Token};
use crate::id::TaskId;
use crate::model::json::encode;
use crate::model::op::{Op, Settled};
use crate::model::outcome::Outcome;
use crate::model::retry::RetryPolicy;
use crate::model::settle::{Asked, Claim, End, Settlement, settle};
use crate::model::task::SlotOf;
use crate::store::{Holder, TransactionEnd};
use crate::time::Timestamp;

/// The largest progress report, as encoded JSON: 16 KiB.
const MAX_PROGRESS_BYTES: usize = 16 << 10;

/// The metadata of a task that has none.
static NO_METADATA: BTreeMap<String, String> = BTreeMap::new();

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
    pub(crate) claim: Claim,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) token: Arc<Token>,
    pub(crate) client: Client,
    /// The attempt was settled by [`complete`](Self::complete).
    pub(crate) settled: AtomicBool,
}

impl TaskContext {
    /// The task's id: the same in every attempt, so it can serve as an idempotency key.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.claim.id
    }

    /// The task's kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.claim.kind
    }

    /// The queue that the task was in.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.claim.queue
    }

    /// Which start of the task this is, from 1. A snoozed or interrupted start is not counted, a crashed one is: after a crash
    /// the number may exceed [`max_attempts`](Self::max_attempts). The last attempt is the one whose number less
    /// [`crashes`](Self::crashes) is `max_attempts`.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.claim.attempt
    }

    /// How many earlier attempts ended with their process. They cost the task none of its attempts.
    #[must_use]
    pub fn crashes(&self) -> u32 {
        self.claim.crashes
    }

    /// How many attempts the task has; crashed ones are not counted.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.claim.max_attempts
    }

    /// When the task was due.
    #[must_use]
    pub fn scheduled_at(&self) -> DateTime<Utc> {
        self.claim.scheduled_at.to_utc()
    }

    /// When the attempt should have ended; `None`: no limit.
    #[must_use]
    pub fn deadline(&self) -> Option<DateTime<Utc>> {
        self.deadline.map(Timestamp::to_utc)
    }

    /// The task's metadata.
    ///
    /// # Example
    ///
    /// ```
    /// use punctual::{Outcome, TaskContext, TaskResult};
    ///
    /// fn remind(cx: &TaskContext) -> TaskResult {
    ///     let request = cx.metadata().get("request").map_or("unknown", String::as_str);
    ///     println!("reminding, for request {request}");
    ///     Ok(Outcome::done())
    /// }
    /// ```
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        let options = self.claim.options.as_deref();
        options.map_or(&NO_METADATA, |options| &options.metadata)
    }

    /// The name of the recurrence that made the task; `None`: it was scheduled by a caller.
    #[must_use]
    pub fn recurrence(&self) -> Option<&str> {
        self.slot_of().map(|slot| slot.recurrence.as_str())
    }

    /// The slot of the recurrence that the task was made for: its nominal instant, whatever the jitter and however late it is.
    /// `None`: the task has none, or was [triggered](crate::Recurrences::trigger).
    ///
    /// # Example
    ///
    /// A report of the time since the last one:
    ///
    /// ```
    /// use punctual::{Outcome, TaskContext, TaskResult};
    ///
    /// fn report(cx: &TaskContext) -> TaskResult {
    ///     let slot = cx.slot().ok_or("it is made by a recurrence")?;
    ///     println!("from {:?} to {slot}", cx.previous_slot());
    ///     Ok(Outcome::done())
    /// }
    /// ```
    #[must_use]
    pub fn slot(&self) -> Option<DateTime<Utc>> {
        let slot = self.slot_of().and_then(|slot| slot.at);
        slot.map(Timestamp::to_utc)
    }

    /// The slot of the task that the recurrence made before this one. In a task of a [backfill](crate::Recurrences::backfill):
    /// the slot before, by the rule, whether it made a task or not.
    #[must_use]
    pub fn previous_slot(&self) -> Option<DateTime<Utc>> {
        let previous = self.slot_of().and_then(|slot| slot.previous);
        previous.map(Timestamp::to_utc)
    }

    fn slot_of(&self) -> Option<&SlotOf> {
        self.claim.options.as_deref()?.slot.as_ref()
    }

    /// The text of the newest error of an earlier attempt, if there is one.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.claim.last_error.as_deref()
    }

    /// Whether the handler should stop soon. Nothing else can stop it.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.token.reason().is_some()
    }

    /// Why the handler should stop; `None`: it need not.
    #[must_use]
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.token.reason()
    }

    /// Sleeps for `span`, or until the handler should stop. Returns [`cancelled`](Self::cancelled).
    #[must_use]
    pub fn cancelled_within(&self, span: Duration) -> bool {
        self.token.wait(span).is_some()
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
        let value = encode("progress", report)?;
        if value.len() > MAX_PROGRESS_BYTES {
            return Err(Error::new(
                ErrorKind::Payload,
                format!(
                    "the progress has {} bytes, more than {MAX_PROGRESS_BYTES}",
                    value.len()
                ),
            )
            .with_task(self.claim.id));
        }
        let op = Op::Progress {
            fence: self.claim.fence,
            value,
        };
        let mut replies = self
            .client
            .store
            .apply(self.client.now(), vec![op])
            .map_err(|error| error.with_task(self.claim.id))?;
        match replies.remove(0).progressed() {
            Settled::Applied => Ok(()),
            Settled::Stale => {
                self.token.raise(StopReason::Lost);
                Err(Error::stale(self.claim.id))
            }
        }
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
        if self.is_settled() {
            return Err(self.settled_already().into());
        }
        let holder = Holder {
            id: self.claim.id,
            fence: self.claim.fence,
            delivery: self.claim.class.delivery(),
        };
        let ran = run_inside(&self.client, Some(holder), |tx| {
            let outcome = run(tx).map_err(Refused::ByCaller)?;
            let settlement = Arc::new(self.settlement(outcome));
            Ok(((), TransactionEnd::Settle(settlement)))
        });
        match ran {
            Ok(()) => {
                self.settled.store(true, Ordering::Release);
                Ok(Outcome::settled())
            }
            Err(Refused::ByCaller(error)) => Err(error),
            Err(Refused::ByStore(error)) => {
                if error.kind() == ErrorKind::State {
                    self.token.raise(StopReason::Lost);
                }
                Err(error.with_task(self.claim.id).into())
            }
        }
    }

    /// Whether the attempt's deadline has passed.
    pub(crate) fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| deadline <= self.client.now())
    }

    /// Whether [`complete`](Self::complete) has settled the attempt.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    fn settled_already(&self) -> Error {
        let id = self.claim.id;
        Error::new(
            ErrorKind::State,
            format!("the attempt of the task {id} was settled already"),
        )
        .with_task(id)
    }

    fn settlement(&self, outcome: Outcome) -> Settlement {
        let now = self.client.now();
        let end = End::Returned {
            result: Ok(outcome),
            asked: if self.is_late() {
                Asked::TooLong
            } else {
                Asked::Not
            },
        };
        // No outcome is retried.
        settle(&self.claim, end, &RetryPolicy::default(), 0.5, now)
    }

    /// The client of the scheduler that runs the handler, for instance to schedule further tasks.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// What refused a completion.
enum Refused<E> {
    ByCaller(E),
    ByStore(Error),
}

impl<E> From<Error> for Refused<E> {
    fn from(error: Error) -> Self {
        Self::ByStore(error)
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext")
            .field("id", &self.claim.id)
            .field("kind", &self.claim.kind)
            .field("attempt", &self.claim.attempt)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
