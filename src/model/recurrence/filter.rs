//! Which recurrences to list.

use super::view::RecurrenceStatus;
use crate::error::{Error, Result};
use crate::model::filter::{DEFAULT_PAGE, MAX_PAGE};

/// Which recurrences to list: all, unless something is asked for.
///
/// # Example
///
/// ```
/// # use punctual::{NewTask, Recurrence, RecurrenceFilter, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// for name in ["nightly", "weekly"] {
///     let task = NewTask::with_kind("report", name).queue("reports");
///     scheduler.recur(Recurrence::new(name, task).cron("0 2 * * *")?)?;
/// }
/// scheduler.recurrences().pause("weekly")?;
/// let active = RecurrenceFilter::new().queue("reports").paused(false);
/// let page = scheduler.recurrences().list(&active)?;
/// assert_eq!(page.recurrences()[0].name(), "nightly");
/// assert_eq!((page.recurrences().len(), page.next()), (1, None));
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct RecurrenceFilter {
    prefix: Option<String>,
    kind: Option<String>,
    queue: Option<String>,
    paused: Option<bool>,
    pub(crate) limit: usize,
    pub(crate) after: Option<String>,
}

impl Default for RecurrenceFilter {
    fn default() -> Self {
        Self::new()
    }
}

impl RecurrenceFilter {
    /// All recurrences.
    pub fn new() -> Self {
        Self {
            prefix: None,
            kind: None,
            queue: None,
            paused: None,
            limit: DEFAULT_PAGE,
            after: None,
        }
    }

    /// Those whose name begins so.
    pub fn name_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Those whose tasks are of this kind.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// Those whose tasks wait in this queue.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Those that are paused, or those that are not.
    pub fn paused(mut self, paused: bool) -> Self {
        self.paused = Some(paused);
        self
    }

    /// How many a page has at most: 1 to 1,000; default: 100.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Those after this name, as [`RecurrencePage::next`] gives it.
    pub fn after(mut self, name: impl Into<String>) -> Self {
        self.after = Some(name.into());
        self
    }

    /// # Errors
    ///
    /// `Invalid` if the limit is not allowed.
    pub(crate) fn check(&self) -> Result<()> {
        if (1..=MAX_PAGE).contains(&self.limit) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a page of {} is not between 1 and {MAX_PAGE}",
            self.limit
        )))
    }

    pub(crate) fn matches(&self, recurrence: &RecurrenceStatus) -> bool {
        let has_prefix = |prefix: &String| recurrence.name.starts_with(prefix.as_str());
        self.prefix.as_ref().is_none_or(has_prefix)
            && self
                .kind
                .as_ref()
                .is_none_or(|kind| kind == recurrence.kind())
            && self
                .queue
                .as_ref()
                .is_none_or(|queue| queue == recurrence.queue())
            && self
                .paused
                .is_none_or(|paused| paused == recurrence.is_paused())
    }
}

/// A page of recurrences in the order of their names. It examines a bounded number of them, so it may be short, or empty,
/// although more follow: only [`next`](Self::next) says whether it is the last.
///
/// # Example
///
/// ```
/// # use punctual::{NewTask, Recurrence, RecurrenceFilter, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// # scheduler.recur(Recurrence::new("nightly", NewTask::with_kind("report", &7)).cron("0 2 * * *")?)?;
/// let mut filter = RecurrenceFilter::new().limit(50);
/// loop {
///     let page = scheduler.recurrences().list(&filter)?;
///     for recurrence in page.recurrences() {
///         println!("{}: {}", recurrence.name(), recurrence.rule());
///     }
///     let Some(next) = page.next() else { break };
///     filter = filter.after(next);
/// }
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct RecurrencePage {
    pub(crate) recurrences: Vec<RecurrenceStatus>,
    pub(crate) next: Option<String>,
}

impl RecurrencePage {
    /// The recurrences.
    #[must_use]
    pub fn recurrences(&self) -> &[RecurrenceStatus] {
        &self.recurrences
    }

    /// Where the next page begins, for [`RecurrenceFilter::after`]; `None` on the last.
    #[must_use]
    pub fn next(&self) -> Option<&str> {
        self.next.as_deref()
    }
}
