//! The health of a scheduler or client, for a readiness probe or an operator.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::error::{Error, ErrorKind};
use crate::id::TaskId;
use crate::time::Timestamp;

/// The health of a scheduler or client. Taken without a write, and without a read of the file.
///
/// The workers, and the kinds that are unknown or cannot be decoded, are known to a scheduler alone: a
/// [`Client`](crate::Client), also one from [`Scheduler::client`](crate::Scheduler::client), reports 0 and none.
///
/// # Which call for what
///
/// - `health()`, of a [`Scheduler`](crate::Scheduler::health) or a [`Client`](crate::Client::health), costs almost nothing. It
///   reports the writes that were tried; without any, a full disk does not show. Use it for metrics, or a liveness probe.
/// - `probe(timeout)`, likewise [of both](crate::Client::probe), tries a small write first. Use it for a readiness probe.
///
/// # Example
///
/// ```
/// # use punctual::Scheduler;
/// let scheduler = Scheduler::in_memory().start().unwrap();
/// let health = scheduler.health();
/// assert!(health.is_ok(), "{health:?}");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Health {
    pub(crate) stopped: Option<Error>,
    pub(crate) last_error: Option<(DateTime<Utc>, Error)>,
    pub(crate) failing_since: Option<DateTime<Utc>>,
    pub(crate) recovered_at: Option<DateTime<Utc>>,
    pub(crate) workers: usize,
    pub(crate) busy: usize,
    pub(crate) stuck: usize,
    pub(crate) spare: usize,
    pub(crate) in_flight: usize,
    pub(crate) max_in_flight: usize,
    pub(crate) stuck_futures: usize,
    pub(crate) slow_polls: Vec<(String, u64)>,
    pub(crate) blocking_kinds: Vec<String>,
    pub(crate) unpolled: usize,
    pub(crate) futures_rest_until: Option<DateTime<Utc>>,
    pub(crate) unknown_kinds: Vec<String>,
    pub(crate) undecodable_kinds: Vec<String>,
    pub(crate) suspect_kinds: Vec<String>,
    pub(crate) quiet_until: Option<DateTime<Utc>>,
    pub(crate) paused_queues: Vec<String>,
    pub(crate) global_limits: Vec<(String, usize)>,
    pub(crate) overdue_recurrences: Vec<String>,
    pub(crate) stopped_recurrences: Vec<String>,
    pub(crate) unreadable_recurrences: Vec<String>,
    pub(crate) newer_time_zones: Option<String>,
    pub(crate) decided_ahead: Vec<String>,
    pub(crate) is_polling: bool,
    pub(crate) blocked_wakers: usize,
    pub(crate) slow_transaction: Option<SlowTransaction>,
}

impl Health {
    /// Whether the store can be written as far as is known, and each stuck handler is replaced by a spare thread. Kinds that
    /// are unknown or cannot be decoded do not count, nor whether a scheduler was shut down.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.stopped.is_none() && self.failing_since.is_none() && self.stuck <= self.spare
    }

    /// Since when writes fail: the time of the first call whose write failed after the last write that succeeded. `None`: the
    /// last write succeeded, or none was tried.
    ///
    /// A write fails if the disk is full, if the disk or the file refuses to be written, or if another program holds the
    /// file's lock for longer than the busy timeout. A write that has waited over a second for the lock or the disk counts as
    /// failed, as does one that was refused as [`Busy`](ErrorKind::Busy) after it waited for other writes or for a
    /// [`slow_transaction`](Self::slow_transaction). A call that was refused for its arguments does not count.
    ///
    /// While writes fail, a running [`Scheduler`](crate::Scheduler) tries one about once a second, so it notices when writes
    /// work again. A [`Client`](crate::Client) alone notices at its next write, or by [`probe`](crate::Client::probe).
    ///
    /// Reads do not count: a read that fails returns the error to its caller.
    #[must_use]
    pub fn failing_since(&self) -> Option<DateTime<Utc>> {
        self.failing_since
    }

    /// When writes last worked again after a failure: the time of the call whose write succeeded. `None`: they have never
    /// failed, or have failed since the first failure.
    #[must_use]
    pub fn recovered_at(&self) -> Option<DateTime<Utc>> {
        self.recovered_at
    }

    /// Why the store stopped for good, if it did: the file is damaged, was replaced, cannot be written or has a newer
    /// schema. Every call then fails with this kind.
    #[must_use]
    pub fn stopped(&self) -> Option<ErrorKind> {
        self.stopped.as_ref().map(Error::kind)
    }

    /// The last error of a write, or of a transaction that took too long, and the time of its call. It is kept when writes work
    /// again; [`failing_since`](Self::failing_since) says whether they still fail.
    /// A write that still waits for the disk or for a lock has no error yet, though it may count as failing.
    #[must_use]
    pub fn last_error(&self) -> Option<(DateTime<Utc>, &Error)> {
        self.last_error.as_ref().map(|(at, error)| (*at, error))
    }

    /// A transaction of the program that has exceeded [`transaction_timeout`](crate::Builder::transaction_timeout) and still
    /// runs. Every write to the file waits for it.
    #[must_use]
    pub fn slow_transaction(&self) -> Option<&SlowTransaction> {
        self.slow_transaction.as_ref()
    }

    /// The configured workers; 0 for a client.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Blocking handlers that are running.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.busy
    }

    /// Blocking handlers that have not returned 10 seconds after their deadline or their cancellation. If async handlers share
    /// the workers, those too.
    #[must_use]
    pub fn stuck(&self) -> usize {
        self.stuck
    }

    /// Threads started to replace those of stuck handlers.
    #[must_use]
    pub fn spare(&self) -> usize {
        self.spare
    }

    /// Async handlers that are running.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many async handlers may run at once; 0 for a client.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.max_in_flight
    }

    /// Async handlers of which a poll has not returned 10 seconds after their future was to be dropped. Their places are
    /// free for others.
    #[must_use]
    pub fn stuck_futures(&self) -> usize {
        self.stuck_futures
    }

    /// How many polls of async handlers took over 10 ms, by kind, since the scheduler started. Other futures of the same thread
    /// wait meanwhile.
    ///
    /// # Example
    ///
    /// ```
    /// # let scheduler = punctual::Scheduler::in_memory().start()?;
    /// for (kind, count) in scheduler.health().slow_polls() {
    ///     println!("{kind} has blocked its thread {count} times");
    /// }
    /// # Ok::<(), punctual::Error>(())
    /// ```
    #[must_use]
    pub fn slow_polls(&self) -> &[(String, u64)] {
        &self.slow_polls
    }

    /// Kinds of due tasks that ran while their process crashed, and have not returned since. They start in groups that get
    /// smaller with each crash, so some wait for others to end.
    #[must_use]
    pub fn suspect_kinds(&self) -> &[String] {
        &self.suspect_kinds
    }

    /// Until when nothing else starts in this process, because such a task runs that may crash it.
    #[must_use]
    pub fn quiet_until(&self) -> Option<DateTime<Utc>> {
        self.quiet_until
    }

    /// Kinds of async handlers of which a poll had gone on for over a second, as of the last second.
    #[must_use]
    pub fn blocking_kinds(&self) -> &[String] {
        &self.blocking_kinds
    }

    /// How many wakers of the program's have blocked the thread of the store that called them, for over some milliseconds, and still
    /// do. At 31 no other is called: no future is woken to be told of a cancellation, a deadline, an answer or an event.
    #[must_use]
    pub fn blocked_wakers(&self) -> usize {
        self.blocked_wakers
    }

    /// How many tasks the executor of the async handlers was given over a second ago and has not polled, as of the last second:
    /// it does not run, or all its threads are blocked.
    #[must_use]
    pub fn unpolled(&self) -> usize {
        self.unpolled
    }

    /// Until when no further async handler is started, because the executor has dropped futures before they were ready, and none
    /// has ended in between: 1 second at first, at most 60.
    #[must_use]
    pub fn futures_rest_until(&self) -> Option<DateTime<Utc>> {
        self.futures_rest_until
    }

    /// Kinds that have pending tasks in the store and no handler here. Their tasks wait for a process that has one. A kind whose
    /// last task was cancelled may still be named for a while.
    #[must_use]
    pub fn unknown_kinds(&self) -> &[String] {
        &self.unknown_kinds
    }

    /// Kinds of which this scheduler could not decode a payload within the last two hours, sorted: another version of the
    /// program has scheduled those tasks. [`Payload`](crate::Payload) says what happens to them.
    #[must_use]
    pub fn undecodable_kinds(&self) -> &[String] {
        &self.undecodable_kinds
    }

    /// Whether commits of other processes are found by polling, within 50 ms, because the system does not report them. For a
    /// file on Linux this happens only if the user has no more inotify watches or instances.
    #[must_use]
    pub fn is_polling(&self) -> bool {
        self.is_polling
    }

    /// Queues that are paused.
    #[must_use]
    pub fn paused_queues(&self) -> &[String] {
        &self.paused_queues
    }

    /// Queues with a limit for all processes together, by [`set_global_limit`](crate::Client::set_global_limit), and how many
    /// of their tasks may run at once. A client without a scheduler has them as of its last write.
    #[must_use]
    pub fn global_limits(&self) -> &[(String, usize)] {
        &self.global_limits
    }

    /// Recurrences of which no task has completed in time, by their
    /// [`expect_within`](crate::Recurrence::expect_within), also if no process had the file open at the time. The completion
    /// ends this, a span that is long enough, and a pause. Overdue are found by schedulers; a client without one has them as of its last write.
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{NewTask, Recurrence, Scheduler};
    /// # use std::time::Duration;
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// let backup = Recurrence::new("backup", NewTask::with_kind("backup", &()))
    ///     .cron("0 3 * * *")?
    ///     .expect_within(Duration::from_secs(3600));
    /// scheduler.recur(backup)?;
    /// for name in scheduler.health().overdue_recurrences() {
    ///     println!("{name} has not completed in time");
    /// }
    /// # Ok::<(), punctual::Error>(())
    /// ```
    #[must_use]
    pub fn overdue_recurrences(&self) -> &[String] {
        &self.overdue_recurrences
    }

    /// Recurrences that are paused because as many of their tasks in a row have failed as
    /// [`pause_after_failures`](crate::Recurrence::pause_after_failures) says.
    #[must_use]
    pub fn stopped_recurrences(&self) -> &[String] {
        &self.stopped_recurrences
    }

    /// Recurrences that are due and that this program cannot read: a newer version of it has stored them, or they are damaged.
    /// They are left to other processes. Storing one again by [`recur`](crate::Client::recur) mends it.
    #[must_use]
    pub fn unreadable_recurrences(&self) -> &[String] {
        &self.unreadable_recurrences
    }

    /// Recurrences of which slots are decided that are still to come by the clock, by over a minute: the clock was ahead and was
    /// set back. They make no tasks until the clock comes there, or
    /// [`Recurrences::reset`](crate::Recurrences::reset) is called: nothing else can tell whether the clock is right now. The
    /// first 100; only a scheduler looks for them.
    #[must_use]
    pub fn recurrences_ahead(&self) -> &[String] {
        &self.decided_ahead
    }

    /// The version of the IANA time zone database by which the slots of some recurrences were found, if it is newer than the
    /// one compiled into this program. This process leaves those recurrences to processes with the newer version: slots found
    /// by two versions could be lost, or come twice.
    #[must_use]
    pub fn newer_time_zones(&self) -> Option<&str> {
        self.newer_time_zones.as_deref()
    }
}

/// Why the write of a probe failed, and when the probe was called; `None`: the write is stored.
#[derive(Debug)]
pub(crate) struct Probed(pub(crate) Option<(DateTime<Utc>, Error)>);

impl Probed {
    /// The health with the result of the probe.
    pub(crate) fn told_in(self, mut health: Health) -> Health {
        if let Some((began, error)) = self.0 {
            health.failing_since.get_or_insert(began);
            health.last_error = Some((began, error));
        }
        health
    }
}

/// The results of a store's writes.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriteResults {
    pub(crate) last_error: Option<(Timestamp, Error)>,
    pub(crate) failing_since: Option<Timestamp>,
    pub(crate) recovered_at: Option<Timestamp>,
}

impl WriteResults {
    /// A write that was asked for at `now` has failed. Returns the replaced error, to be dropped without a lock.
    pub(crate) fn failed(&mut self, now: Timestamp, error: &Error) -> Option<Error> {
        if is_failure(error.kind()) {
            self.failing_since.get_or_insert(now);
        }
        let forgotten = self.last_error.replace((now, error.clone()));
        forgotten.map(|(_, error)| error)
    }

    /// A write that was asked for at `now` is stored.
    pub(crate) fn succeeded(&mut self, now: Timestamp) {
        if let Some(since) = self.failing_since.take() {
            // This write may have been asked for before the first one that failed.
            self.recovered_at = Some(now.max(since));
        }
    }
}

/// Whether an error means that the store could not be written, not that the caller asked for something not allowed.
fn is_failure(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Busy | ErrorKind::Full | ErrorKind::Storage | ErrorKind::Unknown
    )
}

/// A transaction of the program that exceeded its timeout, as [`Health::slow_transaction`] reports it.
///
/// # Example
///
/// ```
/// use punctual::{Health, SlowTransaction};
///
/// fn alarm(health: &Health) -> Option<String> {
///     let slow: &SlowTransaction = health.slow_transaction()?;
///     Some(format!("{} has been in a transaction for {:?}", slow.thread(), slow.running_for()))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowTransaction {
    pub(crate) thread: String,
    pub(crate) task: Option<TaskId>,
    pub(crate) running_for: Duration,
}

impl SlowTransaction {
    /// The name of the thread that runs the transaction; empty if the thread has none.
    #[must_use]
    pub fn thread(&self) -> &str {
        &self.thread
    }

    /// The task whose handler runs it by [`complete`](crate::TaskContext::complete); `None` for a
    /// [`transaction`](crate::Client::transaction).
    #[must_use]
    pub fn task(&self) -> Option<TaskId> {
        self.task
    }

    /// How long it has been running.
    #[must_use]
    pub fn running_for(&self) -> Duration {
        self.running_for
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, "as it should")
    }

    #[test]
    fn p12_writes_fail_from_the_first_that_failed_to_the_next_that_is_stored() {
        let mut writes = WriteResults::default();
        writes.failed(at(10), &error(ErrorKind::Full));
        writes.failed(at(20), &error(ErrorKind::Busy));
        assert_eq!(writes.failing_since, Some(at(10)));
        assert_eq!(writes.recovered_at, None);
        writes.succeeded(at(30));
        writes.succeeded(at(40));
        assert_eq!(
            (writes.failing_since, writes.recovered_at),
            (None, Some(at(30)))
        );
        assert!(writes.last_error.is_some_and(|(when, _)| when == at(20)));
    }

    #[test]
    fn what_a_caller_did_wrong_is_no_failure_of_the_store() {
        use ErrorKind as E;
        for kind in [
            E::Timeout,
            E::Sql,
            E::Invalid,
            E::State,
            E::Payload,
            E::Reentrant,
        ] {
            let mut writes = WriteResults::default();
            writes.failed(at(10), &error(kind));
            assert_eq!(writes.failing_since, None, "{kind:?}");
        }
        for kind in [E::Busy, E::Full, E::Storage, E::Unknown] {
            let mut writes = WriteResults::default();
            writes.failed(at(10), &error(kind));
            assert_eq!(writes.failing_since, Some(at(10)), "{kind:?}");
        }
    }

    #[test]
    fn a_write_that_was_asked_for_earlier_does_not_recover_before_the_failure() {
        let mut writes = WriteResults::default();
        writes.failed(at(10), &error(ErrorKind::Full));
        writes.succeeded(at(5));
        assert_eq!(writes.recovered_at, Some(at(10)));
    }
}
