//! The request to schedule a task: a builder that is checked when the task is scheduled.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::id::TaskId;
use crate::model::delivery::Delivery;
use crate::model::json::{encode, verified};
use crate::model::limits::{
    DEFAULT_MAX_ATTEMPTS, DEFAULT_PRIORITY, DEFAULT_QUEUE, MAX_METADATA_BYTES, MAX_TAGS, after,
    check_max_attempts, check_name, check_priority, check_span,
};
use crate::model::payload::Payload;
use crate::model::retry::RetryPolicy;
use crate::model::task::Options;
use crate::time::Timestamp;

/// A task to be scheduled.
///
/// The payload is encoded at once; an encoding error, like every other mistake, is reported by
/// [`schedule`](crate::Client::schedule).
///
/// # Example
///
/// ```
/// # use punctual::{NewTask, Payload};
/// # use serde::{Deserialize, Serialize};
/// # use std::time::Duration;
/// # #[derive(Serialize, Deserialize)]
/// # struct Remind { user: u64 }
/// # impl Payload for Remind { const KIND: &'static str = "remind"; }
/// let task = NewTask::new(Remind { user: 7 })
///     .after(Duration::from_secs(3600))
///     .queue("mail")
///     .priority(2)
///     .max_attempts(5)
///     .tag("welcome");
/// ```
#[derive(Clone)]
#[must_use = "a task runs only if it is scheduled"]
pub struct NewTask {
    /// The id that the caller gave.
    id: Option<TaskId>,
    drawn: Drawn,
    kind: Cow<'static, str>,
    payload: Result<Vec<u8>>,
    queue: Cow<'static, str>,
    partition: Option<String>,
    priority: u8,
    due: Due,
    start_by: Option<Due>,
    max_attempts: Option<u32>,
    delivery: Delivery,
    tags: Vec<String>,
    options: Options,
}

/// The id of a task whose caller gave none. It is drawn when the task is scheduled and shared by all clones, so that a clone
/// can be scheduled again after an error.
#[derive(Default)]
struct Drawn(OnceLock<Arc<OnceLock<TaskId>>>);

impl Drawn {
    fn id(&self) -> TaskId {
        match self.0.get() {
            Some(shared) => *shared.get_or_init(TaskId::new),
            // There is no clone to share the id with.
            None => TaskId::new(),
        }
    }
}

impl Clone for Drawn {
    fn clone(&self) -> Self {
        Self(OnceLock::from(Arc::clone(self.0.get_or_init(Arc::default))))
    }
}

#[derive(Debug, Clone, Copy)]
enum Due {
    Now,
    At(DateTime<Utc>),
    After(Duration),
}

impl Due {
    fn resolve(self, what: &str, now: Timestamp) -> Result<Timestamp> {
        match self {
            Self::Now => Ok(now),
            Self::At(time) => Timestamp::rounded_up(time)
                .map_err(|error| error.in_context(&format!("the {what}"))),
            Self::After(span) => after(what, now, span),
        }
    }
}

impl NewTask {
    /// A task due at once, with the default options.
    pub fn new<P: Payload>(payload: P) -> Self {
        let mut task = Self::with_kind(P::KIND, &payload).delivery(P::DELIVERY);
        if P::VERIFY {
            task.payload = task.payload.and_then(verified::<P>);
        }
        task
    }

    /// A task of a kind that is known only at run time. The handler decodes `payload` from its JSON. This is not verified,
    /// whatever [`Payload::VERIFY`] says: the type that the handler decodes is not known here.
    pub fn with_kind<T: Serialize + ?Sized>(
        kind: impl Into<Cow<'static, str>>,
        payload: &T,
    ) -> Self {
        Self {
            id: None,
            drawn: Drawn::default(),
            kind: kind.into(),
            payload: encode("payload", payload),
            queue: Cow::Borrowed(DEFAULT_QUEUE),
            partition: None,
            priority: DEFAULT_PRIORITY,
            due: Due::Now,
            start_by: None,
            max_attempts: None,
            delivery: Delivery::AtLeastOnce,
            tags: Vec::new(),
            options: Options::default(),
        }
    }

    /// Gives the task the caller's own id. If a task with that id is stored, nothing is added, and [`Scheduled`] says whether
    /// the stored task is the same.
    ///
    /// Default: a new UUIDv7, drawn when the task is scheduled. [`Scheduled::id`] returns it, and so does
    /// [`Error::task_id`](crate::Error::task_id) if scheduling fails. Clones of a task share the id: after an error it is safe
    /// to schedule a clone. To have the id before, pass [`TaskId::new`].
    pub fn id(mut self, id: impl Into<TaskId>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The task's id, drawn if none was given.
    pub(crate) fn draw_id(&mut self) -> TaskId {
        *self.id.get_or_insert_with(|| self.drawn.id())
    }

    /// Makes the task due at this instant, rounded up to a microsecond. A past instant means at once. 1970 to 9999.
    pub fn at(mut self, time: DateTime<Utc>) -> Self {
        self.due = Due::At(time);
        self
    }

    /// Makes the task due this long after it is scheduled.
    pub fn after(mut self, delay: Duration) -> Self {
        self.due = Due::After(delay);
        self
    }

    /// The queue that the task waits in. Default: `default`. A queue exists once it has a task, and is forgotten when it is
    /// idle, so a queue for each user is fine.
    pub fn queue(mut self, queue: impl Into<Cow<'static, str>>) -> Self {
        self.queue = queue.into();
        self
    }

    /// The tenant or customer that the task belongs to. It is stored and shown; later limits by key will count by it.
    pub fn partition(mut self, partition: impl Into<String>) -> Self {
        self.partition = Some(partition.into());
        self
    }

    /// The priority, 0 to 9. Of the due tasks of a queue, lower values run first. Default: 5.
    ///
    /// The order is strict: while tasks of a lower value keep the workers busy, tasks of a higher value wait, perhaps for ever.
    /// Queues take turns instead, so put tasks that must not be delayed into a queue of their own.
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// How often the task is tried before it fails for good, the first attempt counted. Attempts during which the process died,
    /// and those that stopped because the scheduler was shutting down, do not count. 1 to 10,000; default: 20, and 1 if the
    /// task is delivered at most once.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// Whether the task may be started again after an attempt that did not complete it. If not, `max_attempts` must be 1.
    /// Default: the payload's [`DELIVERY`](Payload::DELIVERY), and at least once for [`with_kind`](Self::with_kind).
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// How many crashes of its process that it is blamed for the task survives; one more and it fails as `crashed`. Default: 3.
    ///
    /// When a process crashes that ran several tasks, none is blamed at first. Those that ran are then started in groups, which
    /// get smaller with each further crash. One that was alone in its group at a crash is tried: nothing else starts in its
    /// process for 10 seconds before and after it (then 20, 40 and at most 80, if a crash has shown nothing). If the process
    /// crashes within that time, the task is blamed; so is one beside which nothing ran. A task whose handler returns is in no
    /// group any more. Process ends that no task can have caused, such as a loss of power, do not count, unless the process had
    /// claimed no other task.
    ///
    /// With 0 the task fails at any end of the process during an attempt and is not started again.
    pub fn max_crashes(mut self, crashes: u32) -> Self {
        self.options.max_crashes = Some(crashes);
        self
    }

    /// How long an attempt may take. At that deadline [`TaskContext::cancelled`](crate::TaskContext::cancelled) turns true.
    /// Default: the handler's timeout.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// The start deadline: if the task has not started by this instant, it ends as failed with the reason `expired`. So does
    /// one that is due only later.
    pub fn start_by(mut self, time: DateTime<Utc>) -> Self {
        self.start_by = Some(Due::At(time));
        self
    }

    /// Like [`start_by`](Self::start_by), this long after the task is scheduled.
    pub fn start_within(mut self, span: Duration) -> Self {
        self.start_by = Some(Due::After(span));
        self
    }

    /// The retry policy of this task alone; a [custom](RetryPolicy::custom) one is refused. Default: the handler's policy.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.retry = Some(policy);
        self
    }

    /// Adds a tag to find the task by. At most 16.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Adds an entry to the task's metadata, which is stored and shown. At most 4 KiB in all.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.metadata.insert(key.into(), value.into());
        self
    }

    /// Checks everything and resolves times that are relative to `now`.
    ///
    /// # Errors
    ///
    /// `Invalid` or `Payload`, naming the task's id.
    pub(crate) fn prepare(mut self, now: Timestamp) -> Result<Insert> {
        let id = self.draw_id();
        self.checked(id, now).map_err(|error| error.with_task(id))
    }

    fn checked(mut self, id: TaskId, now: Timestamp) -> Result<Insert> {
        if id.is_nil() {
            return Err(Error::invalid("the task id is nil"));
        }
        check_name("kind", &self.kind)?;
        check_name("queue", &self.queue)?;
        if let Some(partition) = &self.partition {
            check_name("partition", partition)?;
        }
        check_priority(self.priority)?;
        let max_attempts = self.checked_attempts()?;
        check_options(&self.options)?;
        self.tags.sort_unstable();
        self.tags.dedup();
        if self.tags.len() > MAX_TAGS {
            return Err(Error::invalid(format!("over {MAX_TAGS} tags")));
        }
        for tag in &self.tags {
            check_name("tag", tag)?;
        }
        let expires_at = self
            .start_by
            .map(|start_by| start_by.resolve("start deadline", now))
            .transpose()?;
        Ok(Insert {
            id,
            kind: self.kind,
            payload: self.payload?,
            queue: self.queue,
            partition: self.partition,
            priority: self.priority,
            created_at: now,
            scheduled_at: self.due.resolve("due time", now)?,
            expires_at,
            max_attempts,
            delivery: self.delivery,
            tags: self.tags,
            options: (!self.options.is_default()).then(|| Box::new(self.options)),
        })
    }
}

impl NewTask {
    /// Checks a task that is made again and again, without an id and a due time of its own. Also returns how long after it is
    /// due it may start at the latest.
    ///
    /// # Errors
    ///
    /// `Invalid` or `Payload`.
    pub(crate) fn repeated(self, now: Timestamp) -> Result<(Insert, Option<Duration>)> {
        if self.id.is_some() {
            return Err(Error::invalid(
                "its task has an id: each slot draws one of its own",
            ));
        }
        if !matches!(self.due, Due::Now) {
            return Err(Error::invalid(
                "its task has a due time: each slot has its own",
            ));
        }
        let start_within = match self.start_by {
            None | Some(Due::Now) => None,
            Some(Due::After(span)) => Some(span),
            Some(Due::At(_)) => {
                return Err(Error::invalid(
                    "its task has a start deadline at one instant: use start_within",
                ));
            }
        };
        let task = self.checked(TaskId::new(), now)?;
        Ok((task, start_within))
    }

    /// # Errors
    ///
    /// `Invalid` if it is out of range, or not allowed with the delivery.
    fn checked_attempts(&self) -> Result<u32> {
        let max_attempts = self.max_attempts.unwrap_or(match self.delivery {
            Delivery::AtLeastOnce => DEFAULT_MAX_ATTEMPTS,
            Delivery::AtMostOnce => 1,
        });
        check_max_attempts(max_attempts)?;
        if max_attempts > 1 && self.delivery == Delivery::AtMostOnce {
            return Err(Error::invalid(format!(
                "max_attempts {max_attempts} for a task that is delivered at most once"
            )));
        }
        Ok(max_attempts)
    }
}

fn check_options(options: &Options) -> Result<()> {
    if let Some(timeout) = options.timeout {
        check_timeout(timeout)?;
    }
    if let Some(policy) = &options.retry {
        if policy.is_custom() {
            return Err(Error::invalid(
                "a custom retry policy cannot be stored with a task: give it to the handler",
            ));
        }
        policy.check()?;
    }
    let bytes: usize = options
        .metadata
        .iter()
        .map(|(k, v)| k.len() + v.len())
        .sum();
    if bytes > MAX_METADATA_BYTES {
        return Err(Error::invalid(format!(
            "the metadata has {bytes} bytes, more than {MAX_METADATA_BYTES}"
        )));
    }
    Ok(())
}

/// # Errors
///
/// `Invalid` if the timeout is zero or over 1,000 years.
pub(crate) fn check_timeout(timeout: Duration) -> Result<()> {
    if timeout.is_zero() {
        return Err(Error::invalid("the timeout is zero"));
    }
    check_span("timeout", timeout)?;
    Ok(())
}

impl<P: Payload> From<P> for NewTask {
    fn from(payload: P) -> Self {
        Self::new(payload)
    }
}

/// Shows no payload.
impl fmt::Debug for NewTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewTask")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("queue", &self.queue)
            .field("priority", &self.priority)
            .field("due", &self.due)
            .finish_non_exhaustive()
    }
}

/// A checked task on its way to the store.
#[derive(Clone)]
pub(crate) struct Insert {
    pub(crate) id: TaskId,
    pub(crate) kind: Cow<'static, str>,
    pub(crate) payload: Vec<u8>,
    pub(crate) queue: Cow<'static, str>,
    pub(crate) partition: Option<String>,
    pub(crate) priority: u8,
    pub(crate) created_at: Timestamp,
    pub(crate) scheduled_at: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) max_attempts: u32,
    pub(crate) delivery: Delivery,
    pub(crate) tags: Vec<String>,
    /// `None`: all defaults.
    pub(crate) options: Option<Box<Options>>,
}

/// Shows no payload.
impl fmt::Debug for Insert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Insert({}, {:?})", self.id, self.kind)
    }
}

/// What [`schedule`](crate::Client::schedule) answers.
///
/// # Example
///
/// ```
/// # use punctual::{NewTask, Scheduled, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// let task = NewTask::with_kind("remind", &7);
/// let id = scheduler.schedule(task.clone())?.id();
/// assert_eq!(scheduler.schedule(task)?, Scheduled::Existing(id));
/// let other = NewTask::with_kind("remind", &8).id(id);
/// let scheduled = scheduler.schedule(other)?;
/// assert!(scheduled.is_different());
/// assert_eq!(scheduled, Scheduled::Different(id));
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheduled {
    /// The task was stored.
    New(TaskId),
    /// A task with that id was already stored, with the same kind and payload; nothing was added.
    Existing(TaskId),
    /// A task with that id was already stored, with another kind or payload; nothing was added or changed.
    ///
    /// The payloads are compared as encoded. So this is also the answer for a stored task whose payload was
    /// [edited](crate::Client::edit), and for a map that gives its entries in another order each time.
    Different(TaskId),
}

impl Scheduled {
    /// The id of the stored task. After [`Different`](Self::Different) that is not the task that was given.
    #[must_use]
    pub fn id(self) -> TaskId {
        match self {
            Self::New(id) | Self::Existing(id) | Self::Different(id) => id,
        }
    }

    /// Whether this call stored the task.
    #[must_use]
    pub fn is_new(self) -> bool {
        matches!(self, Self::New(_))
    }

    /// Whether another task has the id: nothing was stored of the one that was given.
    #[must_use]
    pub fn is_different(self) -> bool {
        matches!(self, Self::Different(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn task() -> NewTask {
        NewTask::with_kind("kind", &())
    }

    fn kind_of(mut task: NewTask) -> Option<ErrorKind> {
        let id = task.draw_id();
        let error = task.prepare(Timestamp::from_micros(1_000)).err()?;
        assert_eq!(error.task_id(), Some(id), "every error names the task");
        Some(error.kind())
    }

    #[test]
    fn mistakes_are_found_when_it_is_prepared() {
        let invalid = [
            task().id(uuid::Uuid::nil()),
            NewTask::with_kind("", &()),
            NewTask::with_kind("x".repeat(129), &()),
            task().queue(""),
            task().queue("a b "),
            task().partition("\n"),
            task().priority(10),
            task().max_attempts(0),
            task().max_attempts(10_001),
            task().timeout(Duration::ZERO),
            task().timeout(Duration::MAX),
            task().after(Duration::MAX),
            task().at(DateTime::<Utc>::MIN_UTC),
            task().at(DateTime::<Utc>::MAX_UTC),
            task().start_by(DateTime::<Utc>::MAX_UTC),
            task().start_within(Duration::MAX),
            task().retry(RetryPolicy::custom(|_| Duration::ZERO)),
            task().retry(RetryPolicy::fixed(Duration::MAX)),
            task().tag("no tabs,\tplease"),
            (0..17).fold(task(), |task, i| task.tag(format!("tag{i}"))),
            task().metadata("k", "v".repeat(4096)),
        ];
        for bad in invalid {
            assert_eq!(kind_of(bad.clone()), Some(ErrorKind::Invalid), "{bad:?}");
        }
        let unencodable =
            NewTask::with_kind("kind", &std::collections::HashMap::from([((1, 2), 3)]));
        assert_eq!(kind_of(unencodable), Some(ErrorKind::Payload));
        assert_eq!(kind_of(task()), None);
    }

    #[test]
    fn an_id_is_drawn_once_for_a_task_and_its_clones() {
        let prepared = |task: &NewTask| task.clone().prepare(Timestamp::MIN).unwrap().id;
        let (one, other) = (task(), task());
        let later_clone = one.clone().priority(1);
        let id = prepared(&one);
        assert_eq!((prepared(&one), prepared(&later_clone)), (id, id));
        assert_ne!(prepared(&other), id);
        let failed = one.clone().priority(10).prepare(Timestamp::MIN);
        assert_eq!(failed.unwrap_err().task_id(), Some(id));
        let given = TaskId::new();
        assert_eq!(prepared(&one.clone().id(given)), given);
        assert_eq!(prepared(&one), id, "the others keep theirs");
    }

    #[test]
    fn relative_times_count_from_now() {
        let now = Timestamp::from_micros(1_000);
        let insert = task()
            .after(Duration::from_micros(5))
            .start_within(Duration::from_micros(7))
            .prepare(now)
            .unwrap();
        assert_eq!(insert.scheduled_at.micros(), 1_005);
        assert_eq!(insert.expires_at.unwrap().micros(), 1_007);
        assert_eq!(task().prepare(now).unwrap().scheduled_at, now);
    }

    #[test]
    fn the_same_tag_twice_is_one_tag() {
        let insert = task().tag("b").tag("a").tag("b").prepare(Timestamp::MIN);
        assert_eq!(insert.unwrap().tags, ["a", "b"]);
    }
}
