//! Changes to a stored recurrence, for the slots to come.

use std::fmt;
use std::time::Duration;

use super::definition::Definition;
use super::policy::{Missed, Overlap};
use super::rule::Rule;
use crate::error::{Error, ErrorKind, Result};
use crate::model::delivery::Delivery;
use crate::model::json::{encode, verified};
use crate::model::limits::{check_max_attempts, check_name, check_priority};
use crate::model::payload::Payload;

/// What to change in a stored recurrence; everything else stays as it is.
///
/// A program that stores the recurrence at each start does not undo this, as long as what it stores is the same as before.
///
/// # Example
///
/// ```
/// # use punctual::{NewTask, Overlap, Recurrence, RecurrenceEdit, Rule, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// let nightly = Recurrence::new("nightly", NewTask::with_kind("report", &7)).cron("0 2 * * *")?;
/// scheduler.recur(nightly.clone())?;
/// let edit = RecurrenceEdit::new().rule(Rule::cron("0 4 * * *")?).priority(0).overlap(Overlap::Allow);
/// scheduler.recurrences().edit("nightly", edit)?;
/// scheduler.recur(nightly)?;
/// assert_eq!(scheduler.recurrences().get("nightly")?.unwrap().priority(), 0);
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct RecurrenceEdit {
    payload: Option<(&'static str, Result<Vec<u8>>)>,
    patch: RecurrencePatch,
}

impl RecurrenceEdit {
    /// Changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the rule: its slots begin anew, with those after the edit.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.patch.rule = Some(rule);
        self
    }

    /// Replaces the payload; it must be of the kind of the recurrence's tasks. It is checked as [`NewTask`](crate::NewTask)'s
    /// is, also by [`Payload::VERIFY`].
    pub fn payload<P: Payload>(mut self, payload: &P) -> Self {
        let mut encoded = encode("payload", payload);
        if P::VERIFY {
            encoded = encoded.and_then(verified::<P>);
        }
        self.payload = Some((P::KIND, encoded));
        self
    }

    /// Replaces the queue.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.patch.queue = Some(queue.into());
        self
    }

    /// Replaces the priority, 0 to 9.
    pub fn priority(mut self, priority: u8) -> Self {
        self.patch.priority = Some(priority);
        self
    }

    /// Replaces the number of attempts, 1 to 10,000. Tasks that are delivered at most once keep their single one.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.patch.max_attempts = Some(attempts);
        self
    }

    /// Replaces what becomes of missed slots.
    pub fn missed(mut self, missed: Missed) -> Self {
        self.patch.missed = Some(missed);
        self
    }

    /// Replaces how late a slot may be and still count as on time.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.patch.grace = Some(grace);
        self
    }

    /// Replaces how old a missed slot may be and still make a task.
    pub fn window(mut self, window: Duration) -> Self {
        self.patch.window = Some(window);
        self
    }

    /// Replaces what becomes of slots while a task is live. Slots that wait already wait on.
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.patch.overlap = Some(overlap);
        self
    }

    /// Replaces the longest delay of the tasks; `None`: no delay.
    pub fn jitter(mut self, span: impl Into<Option<Duration>>) -> Self {
        self.patch.jitter = Some(span.into());
        self
    }

    /// Replaces how many tasks it makes at most; `None`: no end.
    pub fn max_count(mut self, count: impl Into<Option<u64>>) -> Self {
        self.patch.max_count = Some(count.into());
        self
    }

    /// Replaces how many failures in a row pause it; `None`: none do.
    pub fn pause_after_failures(mut self, failures: impl Into<Option<u32>>) -> Self {
        self.patch.pause_after_failures = Some(failures.into());
        self
    }

    /// Replaces how soon after a slot a completion is expected; `None`: no expectation.
    pub fn expect_within(mut self, span: impl Into<Option<Duration>>) -> Self {
        self.patch.expect_within = Some(span.into());
        self
    }

    /// # Errors
    ///
    /// `Invalid` or `Payload`, as far as that can be told without the recurrence.
    pub(crate) fn prepare(self) -> Result<RecurrencePatch> {
        let mut patch = self.patch;
        if let Some(queue) = &patch.queue {
            check_name("queue", queue)?;
        }
        patch.priority.map_or(Ok(()), check_priority)?;
        patch.max_attempts.map_or(Ok(()), check_max_attempts)?;
        let payload = self.payload;
        patch.payload = payload
            .map(|(kind, bytes)| bytes.map(|bytes| (kind, bytes)))
            .transpose()?;
        Ok(patch)
    }
}

/// Shows no payload.
impl fmt::Debug for RecurrenceEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.patch.fmt(f)
    }
}

/// A change of a recurrence, checked as far as that is possible without the recurrence.
#[derive(Clone, Default)]
pub(crate) struct RecurrencePatch {
    rule: Option<Rule>,
    /// With its kind.
    payload: Option<(&'static str, Vec<u8>)>,
    queue: Option<String>,
    priority: Option<u8>,
    max_attempts: Option<u32>,
    missed: Option<Missed>,
    grace: Option<Duration>,
    window: Option<Duration>,
    overlap: Option<Overlap>,
    jitter: Option<Option<Duration>>,
    max_count: Option<Option<u64>>,
    pause_after_failures: Option<Option<u32>>,
    expect_within: Option<Option<Duration>>,
}

impl RecurrencePatch {
    /// The recurrence as the patch makes it, and its payload if that is another.
    ///
    /// # Errors
    ///
    /// `Invalid` if what comes out is not allowed, `Payload` if the new payload is of another kind.
    pub(crate) fn apply(&self, definition: &Definition) -> Result<(Definition, Option<Vec<u8>>)> {
        let mut new = definition.clone();
        if let Some(rule) = &self.rule {
            (new.rule, new.floats) = (rule.clone(), false);
        }
        let task = &mut new.task;
        if let Some((kind, _)) = &self.payload
            && *kind != task.kind
        {
            return Err(Error::new(
                ErrorKind::Payload,
                format!(
                    "the new payload is of the kind {kind:?}, its tasks are of {:?}",
                    task.kind
                ),
            ));
        }
        if let Some(queue) = &self.queue {
            task.queue.clone_from(queue);
        }
        task.priority = self.priority.unwrap_or(task.priority);
        if task.delivery == Delivery::AtLeastOnce {
            task.max_attempts = self.max_attempts.unwrap_or(task.max_attempts);
        }
        new.missed = self.missed.unwrap_or(new.missed);
        new.grace = self.grace.unwrap_or(new.grace);
        new.window = self.window.unwrap_or(new.window);
        new.overlap = self.overlap.unwrap_or(new.overlap);
        new.jitter = self.jitter.unwrap_or(new.jitter);
        new.max_count = self.max_count.unwrap_or(new.max_count);
        new.pause_after_failures = self
            .pause_after_failures
            .unwrap_or(new.pause_after_failures);
        new.expect_within = self.expect_within.unwrap_or(new.expect_within);
        new.check()?;
        Ok((new, self.payload.as_ref().map(|(_, bytes)| bytes.clone())))
    }
}

/// Shows no payload.
impl fmt::Debug for RecurrencePatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecurrenceEdit")
            .field("rule", &self.rule)
            .field("queue", &self.queue)
            .field("priority", &self.priority)
            .field("missed", &self.missed)
            .field("overlap", &self.overlap)
            .finish_non_exhaustive()
    }
}
