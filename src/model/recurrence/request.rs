//! The request to make tasks by a rule: a builder that is checked when it is stored.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::definition::{DEFAULT_GRACE, DEFAULT_WINDOW, Definition, Registration, Template};
use super::policy::{Missed, Overlap};
use super::rule::Rule;
use super::slots::{Fold, Gap};
use crate::error::{Error, Result};
use crate::model::limits::check_name;
use crate::model::new_task::NewTask;
use crate::time::Timestamp;

/// A recurrence to be stored: a name, a task, and the rule by which tasks like it are made.
///
/// [`Client::recur`](crate::Client::recur) stores it. Each slot of the rule makes at most one task, whichever process comes
/// first, and whatever crashes or changes of the clock come in between. Everything that a task can have its tasks have,
/// except an id and a due time of their own.
///
/// # Example
///
/// ```
/// # use punctual::{NewTask, Payload, Recurrence, Scheduler};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)]
/// # struct Report { customer: u32 }
/// # impl Payload for Report { const KIND: &'static str = "report"; }
/// # let scheduler = Scheduler::in_memory().start()?;
/// let nightly = Recurrence::new("nightly-report", NewTask::new(Report { customer: 7 }).queue("reports"))
///     .cron("30 2 * * *")?
///     .time_zone("Europe/Berlin")?;
/// scheduler.recur(nightly)?;
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a recurrence makes tasks only if it is stored"]
pub struct Recurrence {
    name: String,
    task: NewTask,
    rule: Option<Rule>,
    floats: bool,
    since: Option<DateTime<Utc>>,
    missed: Missed,
    grace: Duration,
    window: Duration,
    overlap: Overlap,
    jitter: Option<Duration>,
    max_count: Option<u64>,
    pause_after_failures: Option<u32>,
    expect_within: Option<Duration>,
}

impl Recurrence {
    /// A recurrence that makes tasks like this one: a payload alone, or a [`NewTask`] with its queue, priority and so on. It
    /// needs a rule as well.
    pub fn new(name: impl Into<String>, task: impl Into<NewTask>) -> Self {
        Self {
            name: name.into(),
            task: task.into(),
            rule: None,
            floats: false,
            since: None,
            missed: Missed::default(),
            grace: DEFAULT_GRACE,
            window: DEFAULT_WINDOW,
            overlap: Overlap::default(),
            jitter: None,
            max_count: None,
            pause_after_failures: None,
            expect_within: None,
        }
    }

    /// The civil times that a cron expression matches, as [`Rule::cron`].
    ///
    /// # Errors
    ///
    /// As [`Rule::cron`].
    pub fn cron(self, expression: &str) -> Result<Self> {
        Ok(self.rule(Rule::cron(expression)?))
    }

    /// Every `interval`, counted from the instant at which the recurrence is first stored, which stays the same when the same
    /// interval is stored again. For an instant of your own use [`Rule::every`].
    ///
    /// # Errors
    ///
    /// As [`Rule::every`].
    pub fn every(self, interval: Duration) -> Result<Self> {
        let mut recurrence = self.rule(Rule::every(interval, DateTime::UNIX_EPOCH)?);
        recurrence.floats = true;
        Ok(recurrence)
    }

    /// Any rule. The last rule that was given counts; to have several, unite them by [`Rule::any_of`].
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rule = Some(rule);
        self.floats = false;
        self
    }

    /// The time zone of the cron expression, as [`Rule::time_zone`]. Default: UTC.
    ///
    /// # Errors
    ///
    /// As [`Rule::time_zone`], or [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) before a rule is given.
    pub fn time_zone(self, name: &str) -> Result<Self> {
        self.with_rule("a time zone", |rule| rule.time_zone(name))
    }

    /// What becomes of slots that are skipped when clocks are set forward, as [`Rule::gap`].
    ///
    /// # Errors
    ///
    /// As [`time_zone`](Self::time_zone).
    pub fn gap(self, gap: Gap) -> Result<Self> {
        self.with_rule("a gap", |rule| rule.gap(gap))
    }

    /// What becomes of slots that come twice when clocks are set back, as [`Rule::fold`].
    ///
    /// # Errors
    ///
    /// As [`time_zone`](Self::time_zone).
    pub fn fold(self, fold: Fold) -> Result<Self> {
        self.with_rule("a fold", |rule| rule.fold(fold))
    }

    fn with_rule(mut self, what: &str, change: impl FnOnce(Rule) -> Result<Rule>) -> Result<Self> {
        match self.rule.take() {
            Some(rule) => self.rule = Some(change(rule)?),
            None => return Err(Error::invalid(format!("{what} is given before the rule"))),
        }
        Ok(self)
    }

    /// The first slot that counts is at this instant or after it, if the recurrence is new or its rule is another than the stored
    /// one; else this changes nothing. It may be past: past slots are missed ones. What is decided stays decided, so slots up to
    /// the last decided one do not count again. With the present, an [`every`](Self::every) has its first slot at once. Default:
    /// the slots after it is stored.
    pub fn since(mut self, start: DateTime<Utc>) -> Self {
        self.since = Some(start);
        self
    }

    /// What becomes of missed slots. Default: [`Missed::Latest`].
    pub fn missed(mut self, missed: Missed) -> Self {
        self.missed = missed;
        self
    }

    /// How late a slot may be and still count as on time. Default: 60 seconds.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How old a missed slot may be and still make a task. Default: 365 days.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// What becomes of a slot while a task of this recurrence is live. Default: [`Overlap::Skip`].
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }

    /// Delays the tasks, each by a part of this span that depends on the name and the slot alone, and that is less than the
    /// time to the next slot. So recurrences with the same rule do not all start at once. The slot itself stays as it is.
    /// Longer than the interval of [`every`](Self::every) it is refused. Default: none.
    pub fn jitter(mut self, span: Duration) -> Self {
        self.jitter = Some(span);
        self
    }

    /// Ends the recurrence after this many tasks. At least 1; default: no end.
    pub fn max_count(mut self, count: u64) -> Self {
        self.max_count = Some(count);
        self
    }

    /// Pauses the recurrence when this many of its tasks in a row have failed for good. At least 1; default: never.
    pub fn pause_after_failures(mut self, failures: u32) -> Self {
        self.pause_after_failures = Some(failures);
        self
    }

    /// Expects a task of the recurrence to complete within this span after each slot. If none does,
    /// [`Health::overdue_recurrences`](crate::Health::overdue_recurrences) names the recurrence, until all that is overdue is met.
    /// Default: no expectation.
    ///
    /// A task that completes, also that of a [call](crate::Recurrences::trigger), meets all slots that have come, except those
    /// whose tasks were made after its own and have not ended. A [backfilled](crate::Recurrences::backfill) task meets none. If
    /// all slots up to its own are met when a task is made, as when it waited for another, it has this span from then on.
    ///
    /// What is expected stays so if the rule or this span is changed, and after a [reset](crate::Recurrences::reset). A span that
    /// is added counts from then on, for the slots to come and for live tasks that were made since the last completion. Nothing
    /// is expected in a [pause](crate::Recurrences::pause), except in one by failures. After it the slots to come are, and the
    /// live tasks of those before it.
    pub fn expect_within(mut self, span: Duration) -> Self {
        self.expect_within = Some(span);
        self
    }

    /// The slots that it would have after an instant, in ascending order; nothing is stored. An interval without an instant of its
    /// own is counted from this one. Without a rule there are none.
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{NewTask, Recurrence};
    /// let weekly = Recurrence::new("weekly", NewTask::with_kind("report", &7)).cron("0 9 * * MON")?;
    /// let next: Vec<_> = weekly.preview("2026-03-01T00:00:00Z".parse()?).take(5).collect();
    /// assert_eq!(next[0].to_rfc3339(), "2026-03-02T09:00:00+00:00");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn preview(&self, after: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> + '_ {
        let anchor = Timestamp::rounded_up(after).unwrap_or(Timestamp::MIN);
        let rule = self.rule.clone().map(|rule| match self.floats {
            true => rule.anchored_at(anchor),
            false => rule,
        });
        let mut last = Some(after);
        std::iter::from_fn(move || {
            last = rule.as_ref()?.after(last?).next();
            last
        })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Checks everything.
    ///
    /// # Errors
    ///
    /// `Invalid` or `Payload`, naming the recurrence and the field.
    pub(crate) fn prepare(self, now: Timestamp) -> Result<Registration> {
        check_name("name of the recurrence", &self.name)?;
        let context = format!("the recurrence {:?}", self.name);
        self.checked(now)
            .map_err(|error| error.in_context(&context))
    }

    fn checked(self, now: Timestamp) -> Result<Registration> {
        let Some(rule) = self.rule else {
            return Err(Error::invalid("it has no rule"));
        };
        let since = self
            .since
            .map(|since| Timestamp::rounded_up(since).map_err(|error| error.in_context("since")));
        let (task, start_within) = self.task.repeated(now)?;
        let (task, payload) = Template::of(task, start_within);
        let definition = Definition {
            rule,
            floats: self.floats,
            missed: self.missed,
            grace: self.grace,
            window: self.window,
            overlap: self.overlap,
            jitter: self.jitter,
            max_count: self.max_count,
            pause_after_failures: self.pause_after_failures,
            expect_within: self.expect_within,
            task,
        };
        definition.check()?;
        Ok(Registration {
            name: self.name,
            definition,
            payload,
            since: since.transpose()?,
        })
    }
}

/// Shows no payload.
impl fmt::Debug for Recurrence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recurrence")
            .field("name", &self.name)
            .field("rule", &self.rule)
            .field("missed", &self.missed)
            .field("overlap", &self.overlap)
            .finish_non_exhaustive()
    }
}
