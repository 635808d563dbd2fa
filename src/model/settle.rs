//! Decides what becomes of a task when its attempt ends, or when its instance has died.

use std::sync::Arc;
use std::time::Duration;

use crate::id::TaskId;
use crate::model::attempt::AttemptEnd;
use crate::model::delivery::Delivery;
use crate::model::lane::Class;
use crate::model::limits::DEFAULT_MAX_CRASHES;
use crate::model::limits::clean_text;
use crate::model::outcome::{Failure, Retry, TaskResult, Verdict};
use crate::model::pool::Pool;
use crate::model::retry::RetryPolicy;
use crate::model::suspects::Level;
use crate::model::task::Options;
use crate::time::Timestamp;

/// How long a task waits after each process that could not decode its payload; after the last wait it fails. So a rolling
/// deploy has over an hour to bring a process that can.
const DECODE_DELAYS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
    Duration::from_secs(3600),
];

/// The right of an attempt to write. A task that was claimed again has another `claim_no`, and a task claimed by another
/// instance has another `instance`, so a stale attempt changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fence {
    /// The task's row, never public.
    pub(crate) seq: i64,
    pub(crate) instance: i64,
    /// Grows with every claim of the task, and of the instance.
    pub(crate) claim_no: i64,
}

/// A task that this instance holds. Holding a claim is the right to settle.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) fence: Fence,
    pub(crate) id: TaskId,
    pub(crate) kind: Arc<str>,
    pub(crate) queue: Arc<str>,
    pub(crate) priority: u8,
    pub(crate) scheduled_at: Timestamp,
    /// Its start deadline, unless it was started before.
    pub(crate) expires_at: Option<Timestamp>,
    /// Includes this start.
    pub(crate) attempt: u32,
    pub(crate) crashes: u32,
    /// How often in a row the payload could not be decoded so far.
    pub(crate) undecoded: u32,
    pub(crate) max_attempts: u32,
    pub(crate) class: Class,
    pub(crate) pool: Pool,
    /// `None`: the defaults, as for most tasks.
    pub(crate) options: Option<Box<Options>>,
    /// The text of the newest error, if there was an attempt before this one.
    pub(crate) last_error: Option<String>,
    pub(crate) payload: StoredPayload,
}

impl Claim {
    /// Whether it must not be started any more, because its start deadline has passed.
    pub(crate) fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at < now)
    }
}

/// A payload on its way to the handler; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum StoredPayload {
    Whole(Vec<u8>),
    /// The checksum does not match, or a column is not what it should be.
    Damaged(&'static str),
}

impl StoredPayload {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Damaged(_) => 0,
        }
    }
}

impl std::fmt::Debug for StoredPayload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Damaged(how) => write!(f, "damaged: {how}"),
        }
    }
}

impl Claim {
    /// Whether a recurrence made the task.
    pub(crate) fn recurs(&self) -> bool {
        let options = self.options.as_ref();
        options.is_some_and(|options| options.slot.is_some())
    }

    /// Attempts that ended by an error, including this one if it does: crashes do not count.
    fn tries(&self) -> u32 {
        self.attempt.saturating_sub(self.crashes).max(1)
    }
}

/// Whether the handler had been asked to stop when it returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Not,
    /// Its deadline had passed.
    TooLong,
    /// The scheduler asked, for its own reasons: it is shutting down, or has lost the task.
    Interrupted,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// The handler returned.
    Returned { result: TaskResult, asked: Asked },
    /// The handler panicked.
    Panicked(String),
    /// The payload does not match the handler's type, so the handler was not called. A process with another version of the
    /// program may be able to decode it.
    Undecodable(String),
    /// The payload is damaged: the handler was not called, and never can be.
    Damaged(&'static str),
    /// The handler was not called: the scheduler stopped, or a better task came.
    Unstarted,
    /// Cancelled before the handler was called.
    CancelledUnstarted,
}

impl End {
    /// The handler returned, and had not been asked for anything as far as it knows.
    pub(crate) fn returned(result: TaskResult) -> Self {
        Self::Returned {
            result,
            asked: Asked::Not,
        }
    }

    /// Whether the handler returned the outcome of a completion.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self, Self::Returned { result: Ok(outcome), .. } if outcome.0 == Verdict::Settled)
    }
}

/// The task's next state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Completed(Option<Vec<u8>>),
    /// To be started again; `attempt` is the number of its starts that count.
    Pending {
        at: Timestamp,
        attempt: u32,
    },
    /// Not started: as if it had not been claimed.
    GivenBack,
    /// Not started, because its payload could not be decoded: as if it had not been claimed, but due later.
    Undecoded {
        at: Timestamp,
    },
    Failed,
    Cancelled,
}

/// What the store must record for a finished attempt.
#[derive(Debug, Clone)]
pub(crate) struct Settlement {
    pub(crate) fence: Fence,
    pub(crate) id: TaskId,
    pub(crate) delivery: Delivery,
    /// Whether a recurrence made the task.
    pub(crate) recurs: bool,
    change: Change,
    /// Whether the handler was not called: the attempt does not count.
    pub(crate) is_unstarted: bool,
    /// The line in the task's history; none if nothing started, or for a plain success, which the task's row shows.
    pub(crate) record: Option<Record>,
    pub(crate) finished_at: Timestamp,
}

/// A line of a task's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) end: AttemptEnd,
    pub(crate) error: Option<String>,
}

impl Record {
    fn new(end: AttemptEnd, error: impl Into<String>) -> Option<Self> {
        Some(Self {
            end,
            error: Some(error.into()),
        })
    }
}

impl Settlement {
    /// Whether the task waits again although its handler was not called.
    pub(crate) fn waits_uncalled(&self) -> bool {
        matches!(self.change, Change::GivenBack | Change::Undecoded { .. })
    }

    /// Whether the task completed, so that nothing follows from it but its end.
    pub(crate) fn is_completion(&self) -> bool {
        matches!(self.change, Change::Completed(_))
    }

    /// The change to apply: a task that would run again or fail ends as cancelled if a caller has asked for that meanwhile.
    pub(crate) fn change(&self, cancel_requested: bool) -> &Change {
        match self.change {
            Change::Pending { .. }
            | Change::GivenBack
            | Change::Undecoded { .. }
            | Change::Failed
                if cancel_requested =>
            {
                &Change::Cancelled
            }
            ref change => change,
        }
    }
}

/// What the store must record for a finished attempt. `draw` is uniform in 0 ..= 1, for the jitter.
pub(crate) fn settle(
    claim: &Claim,
    end: End,
    retry: &RetryPolicy,
    draw: f64,
    now: Timestamp,
) -> Settlement {
    let failed = |how: AttemptEnd, failure: &Failure| {
        (
            after_failure(claim, failure, retry, draw, now),
            Record::new(how, failure.text.clone()),
        )
    };
    let is_unstarted = !matches!(end, End::Returned { .. } | End::Panicked(_));
    let (change, record) = match end {
        End::Returned { result, asked } => match (result, asked) {
            (Ok(outcome), asked) => match outcome.0 {
                Verdict::Done(result) => (
                    Change::Completed(result),
                    (asked == Asked::TooLong).then(|| Record {
                        end: AttemptEnd::Completed,
                        error: Some("completed after its deadline".to_owned()),
                    }),
                ),
                Verdict::Snooze(_) if claim.class == Class::Once => (
                    Change::Failed,
                    Record::new(
                        AttemptEnd::Failed,
                        "it asked to be called again, but is delivered at most once",
                    ),
                ),
                // A snooze is not a failure: the attempt is given back.
                Verdict::Snooze(delay) => (
                    Change::Pending {
                        at: now + delay,
                        attempt: claim.attempt.saturating_sub(1),
                    },
                    Some(Record {
                        end: AttemptEnd::Snoozed,
                        error: None,
                    }),
                ),
                // This attempt has not settled itself, or there would be nothing to settle.
                Verdict::Settled => failed(
                    AttemptEnd::Failed,
                    &Failure::from("it returned the outcome of another attempt"),
                ),
                Verdict::Cancel(reason) => (
                    Change::Cancelled,
                    Record::new(AttemptEnd::Cancelled, reason),
                ),
            },
            (Err(failure), Asked::Not) => failed(AttemptEnd::Failed, &failure),
            (Err(failure), Asked::TooLong) => failed(AttemptEnd::TimedOut, &failure),
            (Err(failure), Asked::Interrupted) => (
                after_interruption(claim, &failure, now),
                Record::new(AttemptEnd::Interrupted, failure.text),
            ),
        },
        End::Panicked(text) => failed(AttemptEnd::Panicked, &Failure::from(text)),
        End::Undecodable(text) => (
            undecoded(claim, now),
            Record::new(AttemptEnd::Undecodable, clean_text(&text)),
        ),
        End::Damaged(how) => (Change::Failed, Record::new(AttemptEnd::Undecodable, how)),
        End::Unstarted => (Change::GivenBack, None),
        End::CancelledUnstarted => (Change::Cancelled, None),
    };
    Settlement {
        fence: claim.fence,
        id: claim.id,
        delivery: claim.class.delivery(),
        recurs: claim.recurs(),
        change,
        is_unstarted,
        record,
        finished_at: now,
    }
}

fn after_failure(
    claim: &Claim,
    failure: &Failure,
    retry: &RetryPolicy,
    draw: f64,
    now: Timestamp,
) -> Change {
    let tries = claim.tries();
    if tries >= claim.max_attempts || claim.class == Class::Once {
        return Change::Failed;
    }
    let delay = match failure.retry {
        Retry::Never => return Change::Failed,
        Retry::After(delay) => delay,
        Retry::ByPolicy => {
            let own = claim.options.as_ref().and_then(|own| own.retry.as_ref());
            own.unwrap_or(retry).jittered(tries, draw)
        }
    };
    Change::Pending {
        at: now + delay,
        attempt: claim.attempt,
    }
}

/// The payload never reached a handler, so this was no attempt, whatever the delivery. The task waits for a process that can
/// decode its payload, for a limited time.
fn undecoded(claim: &Claim, now: Timestamp) -> Change {
    let before = usize::try_from(claim.undecoded).unwrap_or(usize::MAX);
    match DECODE_DELAYS.get(before) {
        Some(&delay) => Change::Undecoded { at: now + delay },
        None => Change::Failed,
    }
}

/// The handler stopped because it was asked to: this costs no attempt, as a crash costs none.
fn after_interruption(claim: &Claim, failure: &Failure, now: Timestamp) -> Change {
    let delay = match failure.retry {
        _ if claim.class == Class::Once => return Change::Failed,
        // The handler says that another attempt would not help.
        Retry::Never => return Change::Failed,
        Retry::After(delay) => delay,
        Retry::ByPolicy => Duration::ZERO,
    };
    Change::Pending {
        at: now + delay,
        attempt: claim.attempt.saturating_sub(1),
    }
}

/// A task that ran at so many deaths is suspected at the next one, also if that may be a loss of power: perhaps the task takes
/// the machine down, or the system tells no loss of power from a crash.
const FREQUENT_DEATHS: u32 = 2;

/// A task that a dead instance held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Orphan {
    pub(crate) seq: i64,
    /// At how many deaths it ran before.
    pub(crate) crashes: u32,
    /// How many crashes it was blamed for so far.
    pub(crate) blamed: u32,
    pub(crate) max_crashes: Option<u32>,
    pub(crate) class: Class,
    pub(crate) cancel_requested: bool,
    /// Whether its handler had been started: the task is in the dead instance's ledger, or there is no ledger to look in.
    pub(crate) started: bool,
    pub(crate) death: Death,
}

/// What is known of an instance's death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// Its process crashed, or was killed, and its ledger says what it ran.
    Crash(Running),
    /// It may have been a loss of power. `count`: how many claims it held.
    Unknown { count: u64 },
    /// It did not die here: its claims are copies, or were never its own.
    Copied,
}

/// The attempts that a process ran when it crashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) count: u64,
    /// The row of the task that alone can have caused the crash, if there is one.
    pub(crate) only_cause: Option<i64>,
}

/// What happens to a task whose instance died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rescue {
    /// It was never started: as if it had not been claimed.
    GiveBack,
    /// It can run again at once, but with few others: it may have caused the crash. It is blamed for it if nothing else can
    /// have.
    Suspect { level: Level, is_blamed: bool },
    /// It can run again at once: it was started, but is not suspected.
    Innocent,
    /// It has crashed too often, or its caller wants no second start.
    Crashed { is_blamed: bool },
    /// It may have been started, and must not be started again.
    Interrupted,
    /// A caller had asked to cancel it.
    Cancelled,
}

/// Decides for a task whose instance died. A crash costs it no attempt, but one of its `max_crashes` if it alone may have
/// caused the crash. A task that allows none fails in any case: its caller wants no second start.
pub(crate) fn rescue(orphan: Orphan) -> Rescue {
    let max_crashes = orphan.max_crashes.unwrap_or(DEFAULT_MAX_CRASHES);
    let former = orphan.class.level();
    if orphan.cancel_requested {
        return Rescue::Cancelled;
    }
    if !orphan.started {
        return Rescue::GiveBack;
    }
    if orphan.class.delivery() == Delivery::AtMostOnce {
        return Rescue::Interrupted;
    }
    let (level, is_blamed) = match orphan.death {
        Death::Copied => (None, false),
        Death::Unknown { count: 1 } => (Some(Level::ALONE), true),
        Death::Unknown { count } => {
            let is_frequent = orphan.crashes >= FREQUENT_DEATHS;
            let level = is_frequent.then(|| Level::after_crash(count, former));
            (level, false)
        }
        Death::Crash(running) => {
            let is_blamed = running.only_cause == Some(orphan.seq);
            let lower = Level::after_crash(running.count, former);
            // A trial that has shown it needs not be longer.
            let level = former.filter(|_| is_blamed).unwrap_or(lower);
            (Some(level), is_blamed)
        }
    };
    if max_crashes == 0 || is_blamed && orphan.blamed >= max_crashes {
        return Rescue::Crashed { is_blamed };
    }
    match level {
        Some(level) => Rescue::Suspect { level, is_blamed },
        None => Rescue::Innocent,
    }
}

/// How long an attempt may take: the task's own timeout comes before its handler's.
pub(crate) fn timeout(claim: &Claim, handler: Option<Duration>) -> Option<Duration> {
    let own = claim.options.as_ref().and_then(|own| own.timeout);
    own.or(handler)
}

#[cfg(test)]
pub(crate) mod tests;
