//! The reads of the store and their answers.

use std::sync::Arc;
use std::time::Duration;

use crate::id::TaskId;
use crate::model::attempt::Attempt;
use crate::model::filter::{Filter, Page};
use crate::model::lane::LaneId;
use crate::model::recurrence::explain::Explanation;
use crate::model::recurrence::filter::{RecurrenceFilter, RecurrencePage};
use crate::model::recurrence::view::RecurrenceStatus;
use crate::model::task::{Task, TaskState};
use crate::model::variants::take_variants;
use crate::time::Timestamp;

/// A read. It never waits for a writer.
#[derive(Debug, Clone)]
pub(crate) enum Query {
    Task(TaskId),
    State(TaskId),
    /// The states of several tasks, as of one instant.
    States(Vec<TaskId>),
    List(Filter),
    /// One window of a count, after this id.
    Count {
        filter: Filter,
        after: Option<TaskId>,
    },
    History(TaskId),
    Stats {
        now: Timestamp,
    },
    /// The idle ones among some of the lanes in use, after this one.
    IdleLanes {
        after: LaneId,
    },
    RetiredLanes,
    /// The lanes of some tasks in a final state: the first that ended after this instant.
    EndedLanes {
        state: TaskState,
        after: Option<Timestamp>,
    },
    Recurrence(String),
    Recurrences(RecurrenceFilter),
    /// The first recurrences of which a slot after this instant is decided, with the last such slot.
    DecidedAfter(Timestamp),
    /// What became of a recurrence's slots in a range, whose end is not included.
    Explain {
        name: String,
        from: Timestamp,
        to: Timestamp,
        now: Timestamp,
    },
}

/// What the store answers to each [`Query`].
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Task(Option<Box<Task>>),
    State(Option<TaskState>),
    States(Vec<Option<TaskState>>),
    List(Page),
    Count(Counted),
    History(Option<Vec<Attempt>>),
    Stats(Stats),
    IdleLanes(Seen<LaneId>),
    RetiredLanes(Vec<LaneId>),
    EndedLanes(Seen<Timestamp>),
    Recurrence(Option<Box<RecurrenceStatus>>),
    Recurrences(RecurrencePage),
    DecidedAfter(Vec<(String, Timestamp)>),
    Explained(Option<Explanation>),
}

take_variants! { Answer,
    task: Task => Option<Box<Task>>,
    state: State => Option<TaskState>,
    states: States => Vec<Option<TaskState>>,
    list: List => Page,
    count: Count => Counted,
    history: History => Option<Vec<Attempt>>,
    stats: Stats => Stats,
    idle_lanes: IdleLanes => Seen<LaneId>,
    retired_lanes: RetiredLanes => Vec<LaneId>,
    ended_lanes: EndedLanes => Seen<Timestamp>,
    recurrence: Recurrence => Option<Box<RecurrenceStatus>>,
    recurrences: Recurrences => RecurrencePage,
    decided_after: DecidedAfter => Vec<(String, Timestamp)>,
    explained: Explained => Option<Explanation>,
}

/// One window of a count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) count: u64,
    /// Where the next window begins; `None` at the end.
    pub(crate) next: Option<TaskId>,
}

/// The lanes that one stride of a scan has found.
#[derive(Debug, Clone)]
pub(crate) struct Seen<Place> {
    pub(crate) lanes: Vec<LaneId>,
    /// Where the next stride begins: after this; `None` at the end.
    pub(crate) next: Option<Place>,
}

/// The number of tasks by state, queue and kind, and how far behind the scheduler is.
///
/// Made by [`Client::stats`](crate::Client::stats).
///
/// # Example
///
/// ```
/// # use punctual::{NewTask, Scheduler, Stats, TaskState};
/// # let scheduler = Scheduler::in_memory().start()?;
/// scheduler.schedule(NewTask::with_kind("remind", &7))?;
/// let stats: Stats = scheduler.stats()?;
/// assert_eq!((stats.count(TaskState::Pending), stats.total()), (1, 1));
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Stats {
    pub(crate) lanes: Vec<LaneStats>,
    pub(crate) oldest_due: Option<Duration>,
    pub(crate) recurrences: RecurrenceCounts,
}

/// The number of recurrences, by what they do.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RecurrenceCounts {
    pub(crate) all: u64,
    pub(crate) paused: u64,
    pub(crate) ended: u64,
}

impl Stats {
    /// Tasks in this state, in all queues.
    #[must_use]
    pub fn count(&self, state: TaskState) -> u64 {
        self.lanes.iter().map(|lane| lane.count(state)).sum()
    }

    /// All tasks.
    #[must_use]
    pub fn total(&self) -> u64 {
        TaskState::ALL
            .into_iter()
            .map(|state| self.count(state))
            .sum()
    }

    /// The counts for each kind in each queue that has tasks.
    #[must_use]
    pub fn lanes(&self) -> &[LaneStats] {
        &self.lanes
    }

    /// How long the oldest due task has been waiting for its start; `None` if none is due. Tasks in paused queues and
    /// of kinds without a handler count.
    #[must_use]
    pub fn oldest_due(&self) -> Option<Duration> {
        self.oldest_due
    }

    /// All recurrences.
    #[must_use]
    pub fn recurrences(&self) -> u64 {
        self.recurrences.all
    }

    /// Recurrences that are paused.
    #[must_use]
    pub fn paused_recurrences(&self) -> u64 {
        self.recurrences.paused
    }

    /// Recurrences that are not paused, but have no slot any more.
    #[must_use]
    pub fn ended_recurrences(&self) -> u64 {
        self.recurrences.ended
    }
}

/// The number of tasks of one kind in one queue.
///
/// # Example
///
/// ```
/// # use punctual::{LaneStats, NewTask, Scheduler, TaskState};
/// # let scheduler = Scheduler::in_memory().start()?;
/// scheduler.schedule(NewTask::with_kind("remind", &7).queue("mail"))?;
/// let stats = scheduler.stats()?;
/// let lane: &LaneStats = &stats.lanes()[0];
/// assert_eq!((lane.queue(), lane.kind()), ("mail", "remind"));
/// assert_eq!(lane.count(TaskState::Pending), 1);
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LaneStats {
    pub(crate) queue: Arc<str>,
    pub(crate) kind: Arc<str>,
    pub(crate) counts: [u64; TaskState::ALL.len()],
}

impl LaneStats {
    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Tasks in this state.
    #[must_use]
    pub fn count(&self, state: TaskState) -> u64 {
        TaskState::ALL
            .into_iter()
            .zip(self.counts)
            .find(|(each, _)| *each == state)
            .map_or(0, |(_, count)| count)
    }
}
