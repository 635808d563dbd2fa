//! Which tasks a list, a count or a bulk call applies to.

use std::fmt;
use std::ops::RangeBounds;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use std::ops::Bound;

use crate::error::{Error, Result};
use crate::id::TaskId;
use crate::model::limits::check_name;
use crate::model::task::{Task, TaskState};
use crate::time::Timestamp;

/// The tasks in a page by default.
pub const DEFAULT_PAGE: usize = 100;
/// The most tasks in a page.
pub const MAX_PAGE: usize = 1_000;
/// The most ids, kinds, queues or tags of one filter, each.
pub const MAX_FILTER_TERMS: usize = 1_000;

/// Selects tasks: every condition must hold. Of several states, kinds, queues or ids, one must match; of several tags, all.
///
/// A filter without a condition is refused; [`Filter::all`] selects every task.
///
/// # Example
///
/// ```
/// use punctual::{Filter, TaskState};
///
/// let failed_mails = Filter::new()
///     .kind("mail.send")
///     .state(TaskState::Failed)
///     .newest_first()
///     .limit(50);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Filter {
    pub(crate) everything: bool,
    pub(crate) states: Vec<TaskState>,
    pub(crate) kinds: Vec<String>,
    pub(crate) queues: Vec<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) partition: Option<String>,
    pub(crate) recurrence: Option<String>,
    pub(crate) ids: Option<Vec<TaskId>>,
    pub(crate) scheduled: Option<Span>,
    pub(crate) created: Option<Span>,
    pub(crate) finished: Option<Span>,
    pub(crate) newest_first: bool,
    pub(crate) limit: Option<usize>,
    pub(crate) after: Option<Cursor>,
}

/// A range of instants, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
}

impl Span {
    /// An open end is the least or greatest `Timestamp`. No stored instant lies between two microseconds, so an excluded end
    /// is the neighbouring microsecond.
    fn new(range: impl RangeBounds<DateTime<Utc>>) -> Self {
        let micros = |time: &DateTime<Utc>| time.timestamp_micros();
        let ceil = |time: &DateTime<Utc>| {
            micros(time) + i64::from(!time.timestamp_subsec_nanos().is_multiple_of(1_000))
        };
        let from = match range.start_bound() {
            Bound::Included(time) => ceil(time),
            Bound::Excluded(time) => micros(time) + 1,
            Bound::Unbounded => i64::MIN,
        };
        let to = match range.end_bound() {
            Bound::Included(time) => micros(time),
            Bound::Excluded(time) => ceil(time) - 1,
            Bound::Unbounded => i64::MAX,
        };
        Self {
            from: Timestamp::from_micros(from),
            to: Timestamp::from_micros(to),
        }
    }
}

impl Filter {
    /// A filter without a condition yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every task.
    pub fn all() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    /// Tasks in this state, or in one given before.
    pub fn state(mut self, state: TaskState) -> Self {
        self.states.push(state);
        self
    }

    /// Tasks that have not ended: pending or running ones.
    pub fn unfinished(self) -> Self {
        self.state(TaskState::Pending).state(TaskState::Running)
    }

    /// Tasks of this kind, or of one given before.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kinds.push(kind.into());
        self
    }

    /// Tasks in this queue, or in one given before.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queues.push(queue.into());
        self
    }

    /// Tasks with this tag, and with all tags given before.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Tasks of this partition.
    pub fn partition(mut self, partition: impl Into<String>) -> Self {
        self.partition = Some(partition.into());
        self
    }

    /// Tasks that this recurrence made, also those of an earlier one of the same name.
    pub fn recurrence(mut self, name: impl Into<String>) -> Self {
        self.recurrence = Some(name.into());
        self
    }

    /// Tasks with one of these ids, or of those given before. At most 1,000.
    pub fn ids<T: Into<TaskId>>(mut self, ids: impl IntoIterator<Item = T>) -> Self {
        let ids = ids.into_iter().map(Into::into);
        self.ids.get_or_insert_default().extend(ids);
        self
    }

    /// Tasks whose `scheduled_at` is in this range.
    pub fn scheduled(mut self, range: impl RangeBounds<DateTime<Utc>>) -> Self {
        self.scheduled = Some(Span::new(range));
        self
    }

    /// Tasks that were scheduled within this range of time.
    pub fn created(mut self, range: impl RangeBounds<DateTime<Utc>>) -> Self {
        self.created = Some(Span::new(range));
        self
    }

    /// Tasks that ended within this range of time.
    pub fn finished(mut self, range: impl RangeBounds<DateTime<Utc>>) -> Self {
        self.finished = Some(Span::new(range));
        self
    }

    /// Lists by descending id. Default: ascending.
    pub fn newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }

    /// The most tasks in a page, 1 to 1,000. Default: 100. Only `list` uses it.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Continues after a page. Only `list` uses it.
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    pub(crate) fn page_size(&self) -> usize {
        self.limit.unwrap_or(DEFAULT_PAGE)
    }

    /// # Errors
    ///
    /// `Invalid` if the filter has no condition, or a bad one.
    pub(crate) fn check(&self) -> Result<()> {
        let conditions = self.everything
            || !self.states.is_empty()
            || !self.kinds.is_empty()
            || !self.queues.is_empty()
            || !self.tags.is_empty()
            || self.partition.is_some()
            || self.recurrence.is_some()
            || self.ids.is_some()
            || self.scheduled.is_some()
            || self.created.is_some()
            || self.finished.is_some();
        if !conditions {
            return Err(Error::invalid(
                "the filter has no condition; Filter::all() says that every task is meant",
            ));
        }
        if !(1..=MAX_PAGE).contains(&self.page_size()) {
            return Err(Error::invalid(format!(
                "the page size {} is not between 1 and {MAX_PAGE}",
                self.page_size()
            )));
        }
        let named = |what: &str, names: &[String]| {
            if names.len() > MAX_FILTER_TERMS {
                return Err(Error::invalid(format!(
                    "the filter names over {MAX_FILTER_TERMS} {what}s"
                )));
            }
            names.iter().try_for_each(|name| check_name(what, name))
        };
        named("kind", &self.kinds)?;
        named("queue", &self.queues)?;
        named("tag", &self.tags)?;
        if let Some(partition) = &self.partition {
            check_name("partition", partition)?;
        }
        if let Some(recurrence) = &self.recurrence {
            check_name("name of the recurrence", recurrence)?;
        }
        if self
            .ids
            .as_ref()
            .is_some_and(|ids| ids.len() > MAX_FILTER_TERMS)
        {
            return Err(Error::invalid(format!(
                "the filter names over {MAX_FILTER_TERMS} ids"
            )));
        }
        Ok(())
    }
}

/// A position in a list, to continue from. It stays valid whatever happens to the tasks.
///
/// As text it fits into a URL.
///
/// # Example
///
/// ```
/// # use punctual::{Cursor, Filter, NewTask, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// scheduler.schedule_many((0..3).map(|n| NewTask::with_kind("remind", &n)))?;
/// let page = scheduler.list(&Filter::all().limit(2))?;
/// let in_url = page.next().expect("there is more").to_string();
/// let cursor: Cursor = in_url.parse()?;
/// assert_eq!(scheduler.list(&Filter::all().after(cursor))?.tasks().len(), 1);
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor(pub(crate) TaskId);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse()
            .map(Self)
            .map_err(|_| Error::invalid("not a cursor"))
    }
}

/// Some of the tasks that match a filter, in id order.
///
/// A page examines at most 10,000 tasks and carries at most about 4 MiB of payloads. It may therefore hold fewer tasks than
/// asked for, even none: the list ends only when [`next`](Self::next) is `None`.
///
/// # Example
///
/// ```
/// # use punctual::{Filter, NewTask, Page, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// scheduler.schedule_many((0..3).map(|n| NewTask::with_kind("remind", &n)))?;
/// let page: Page = scheduler.list(&Filter::all().limit(2))?;
/// assert_eq!(page.tasks().len(), 2);
/// assert!(page.next().is_some(), "there is more");
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Page {
    pub(crate) tasks: Vec<Task>,
    pub(crate) next: Option<Cursor>,
}

impl Page {
    /// The tasks of this page.
    #[must_use]
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// Where the next page begins, for [`Filter::after`]; `None` at the end.
    #[must_use]
    pub fn next(&self) -> Option<Cursor> {
        self.next
    }
}

impl IntoIterator for Page {
    type Item = Task;
    type IntoIter = std::vec::IntoIter<Task>;

    fn into_iter(self) -> Self::IntoIter {
        self.tasks.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_without_a_condition_is_refused() {
        assert!(Filter::new().check().is_err());
        assert!(Filter::new().limit(10).newest_first().check().is_err());
        assert!(Filter::all().check().is_ok());
        assert!(
            Filter::new().ids::<TaskId>([]).check().is_ok(),
            "no ids match nothing"
        );
    }

    #[test]
    fn bad_terms_are_refused() {
        assert!(Filter::new().kind("").check().is_err());
        assert!(Filter::new().queue("a\nb").check().is_err());
        assert!(Filter::new().tag("\0").check().is_err());
        assert!(Filter::all().limit(0).check().is_err());
        assert!(Filter::all().limit(MAX_PAGE + 1).check().is_err());
        let many = (0..=MAX_FILTER_TERMS).map(|_| TaskId::new());
        assert!(Filter::new().ids(many).check().is_err());
    }

    #[test]
    fn a_range_means_its_microseconds() {
        let at = |nanos| DateTime::from_timestamp(0, nanos).unwrap();
        let ends = |span: Span| (span.from.micros(), span.to.micros());
        assert_eq!(ends(Span::new(at(1_000)..at(3_000))), (1, 2));
        assert_eq!(ends(Span::new(at(1_000)..=at(3_000))), (1, 3));
        assert_eq!(ends(Span::new(at(1_001)..at(3_001))), (2, 3));
        assert_eq!(ends(Span::new(at(1_000)..)), (1, i64::MAX));
    }

    #[test]
    fn a_cursor_survives_text() {
        let cursor = Cursor(TaskId::new());
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        assert!("".parse::<Cursor>().is_err());
    }
}
