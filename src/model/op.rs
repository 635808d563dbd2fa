//! What the store is asked to write, and what it answers: operations as values.
//!
//! A batch mixes kinds, so settlements, the next claim and other callers' inserts share a transaction.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::id::TaskId;
use crate::model::delivery::Delivery;
use crate::model::filter::Filter;
use crate::model::limits::MAX_PRIORITY;
use crate::model::new_task::Scheduled;
use crate::model::retention::Cutoffs;
use crate::model::settle::{Claim, Fence, Settlement};
use crate::model::task::{Options, TaskState};
use crate::time::Timestamp;

/// How many tasks one transaction of a bulk call or of maintenance touches at most.
pub(crate) const CHUNK: usize = 500;

/// One operation. It happens whole or not at all.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// Stores tasks; one whose id is stored changes nothing.
    Insert(Vec<Insert>),
    /// Takes due tasks for this instance.
    Claim(ClaimRequest),
    /// Records how attempts ended. Each settlement is shared: the caller still has it if the store could not take it.
    Settle(Vec<Arc<Settlement>>),
    /// Keeps what a running handler reports.
    Progress { fence: Fence, value: Vec<u8> },
    /// What a caller asks of one task.
    Change { id: TaskId, action: Action },
    /// What a caller asks of the next [`CHUNK`] matching tasks after `after`, in id order.
    ChangeMatching {
        filter: Box<Filter>,
        action: Action,
        after: Option<TaskId>,
    },
    /// Stops or resumes the claims from a queue, in every process.
    PauseQueue { queue: String, paused: bool },
    /// Bounds how many tasks of a queue run at once, in all processes together.
    LimitQueue { queue: String, limit: Option<u32> },
    /// Changes nothing that matters: whether the store can be written.
    Probe,
    /// Deletes ended tasks whose retention is over, at most `limit`.
    Prune { cutoffs: Cutoffs, limit: usize },
    /// Fails tasks whose start deadline has passed. It looks at the first `limit` deadlines.
    Expire { limit: usize },
    /// Retires those of these lanes that have no pending and no running task, and whose queue is neither paused nor limited.
    RetireLanes { lanes: Vec<LaneId> },
    /// Deletes those of these lanes that are retired. The caller knows that none of them has a task.
    ForgetLanes { lanes: Vec<LaneId> },
    /// Gives back what this instance holds but for these rows: claims of a commit whose outcome was not known.
    Disown { held: Vec<i64> },
    /// Takes back what a dead instance held, at most `limit`.
    Rescue {
        instance: i64,
        started: Started,
        limit: usize,
    },
}

impl Op {
    /// Whether the answer promises that it survives a power cut. What the scheduler does on its own may be lost with
    /// the power: it is then done again.
    pub(crate) fn is_durable(&self) -> bool {
        match self {
            Self::Insert(_)
            | Self::Change { .. }
            | Self::ChangeMatching { .. }
            | Self::PauseQueue { .. }
            | Self::LimitQueue { .. }
            | Self::Probe => true,
            Self::Claim(_)
            | Self::Settle(_)
            | Self::Progress { .. }
            | Self::Prune { .. }
            | Self::Expire { .. }
            | Self::RetireLanes { .. }
            | Self::ForgetLanes { .. }
            | Self::Disown { .. }
            | Self::Rescue { .. } => false,
        }
    }

    /// Whether it must be on disk before anything follows from it, whatever the durability of the store: a task that is
    /// delivered at most once must not seem unclaimed after a power cut, nor unfinished once it was told to have ended.
    pub(crate) fn must_sync(&self) -> bool {
        match self {
            Self::Claim(request) => request
                .queues
                .iter()
                .flat_map(|queue| &queue.lanes)
                .any(|lane| lane.class == Class::Once),
            Self::Settle(settlements) => settlements
                .iter()
                .any(|each| each.delivery == Delivery::AtMostOnce),
            _ => false,
        }
    }
}

/// What the store answers to each [`Op`], in the same order.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Inserted(Vec<Scheduled>),
    Claimed(Vec<Claim>),
    Settled(Vec<Settled>),
    Progressed(Settled),
    Changed(Changed),
    ChangedMany(ChangedMany),
    /// A setting of a queue, or a maintenance operation: how many tasks or lanes it touched.
    Done(usize),
    Rescued(Rescued),
}

/// Takes the answer that belongs to an operation.
macro_rules! answers {
    ($($name:ident: $variant:ident => $type:ty),* $(,)?) => {
        impl Reply {
            $(pub(crate) fn $name(self) -> $type {
                match self {
                    Self::$variant(answer) => answer,
                    other => unreachable!("the store answered {other:?} where {} was due", stringify!($variant)),
                }
            })*
        }
    };
}

answers! {
    inserted: Inserted => Vec<Scheduled>,
    progressed: Progressed => Settled,
    changed: Changed => Changed,
    changed_many: ChangedMany => ChangedMany,
    done: Done => usize,
    rescued: Rescued => Rescued,
}

/// A checked task on its way to the file.
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
    /// `None`: all at their defaults.
    pub(crate) options: Option<Box<Options>>,
}

/// Shows no payload.
impl std::fmt::Debug for Insert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Insert({}, {:?})", self.id, self.kind)
    }
}

/// A queue's tasks of one kind and class, as the store numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LaneId(pub(crate) i64);

/// Per priority, an instant before which no pending task of the lane is due; `None`: the lane has none.
pub(crate) type Heads = [Option<Timestamp>; MAX_PRIORITY as usize + 1];

/// What is special about the tasks of a lane: each class is claimed in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    Plain,
    /// They have crashed a process before: they run one at a time.
    Suspect,
    /// They are delivered at most once: their claim is on disk before they start.
    Once,
}

impl Class {
    /// That of new tasks.
    pub(crate) fn new(delivery: Delivery) -> Self {
        match delivery {
            Delivery::AtLeastOnce => Self::Plain,
            Delivery::AtMostOnce => Self::Once,
        }
    }

    pub(crate) fn delivery(self) -> Delivery {
        match self {
            Self::Plain | Self::Suspect => Delivery::AtLeastOnce,
            Self::Once => Delivery::AtMostOnce,
        }
    }

    /// The number in the file.
    pub(crate) const fn code(self) -> i64 {
        match self {
            Self::Plain => 0,
            Self::Suspect => 1,
            Self::Once => 2,
        }
    }

    pub(crate) fn from_code(code: i64) -> Option<Self> {
        [Self::Plain, Self::Suspect, Self::Once]
            .into_iter()
            .find(|class| class.code() == code)
    }

    /// Whether its tasks may be claimed before a worker is free for them.
    pub(crate) fn may_wait(self) -> bool {
        self == Self::Plain
    }
}

/// What the store knows of a lane without reading.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    pub(crate) id: LaneId,
    pub(crate) queue: Arc<str>,
    pub(crate) kind: Arc<str>,
    pub(crate) class: Class,
    pub(crate) paused: bool,
    /// How many tasks of its queue run at once, at most, in all processes together.
    pub(crate) limit: Option<u32>,
    pub(crate) heads: Heads,
}

impl Lane {
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        self.heads.iter().flatten().min().copied()
    }
}

/// The lanes in use, as the store knows them without reading.
#[derive(Debug, Clone, Default)]
pub(crate) struct KnownLanes {
    /// Changes with each lane that is added or removed.
    pub(crate) version: u64,
    pub(crate) list: Arc<Vec<Lane>>,
}

/// Which due tasks to take.
#[derive(Debug, Clone)]
pub(crate) struct ClaimRequest {
    /// They take turns, in this order.
    pub(crate) queues: Vec<QueueClaim>,
    /// So many tasks have a worker waiting and are taken whatever they cost.
    pub(crate) free: usize,
    /// Further ones are taken ahead of the workers while their expected time fits into this.
    pub(crate) budget: Duration,
    /// The most tasks in all.
    pub(crate) limit: usize,
    /// The version of the lanes that it was planned for. A claim that stands is not made once there are others: the tasks of
    /// those may be better.
    pub(crate) lanes_version: u64,
}

/// What may be taken from one queue.
#[derive(Debug, Clone)]
pub(crate) struct QueueClaim {
    pub(crate) lanes: Vec<LaneClaim>,
    pub(crate) limit: usize,
}

/// What may be taken from one lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneClaim {
    pub(crate) lane: LaneId,
    /// How long one task takes a worker; `None`: unknown, so none is taken ahead.
    pub(crate) cost: Option<Duration>,
    pub(crate) class: Class,
}

/// Whether a write under a fence found its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    Applied,
    /// The claim was taken over, or settled before: nothing was changed.
    Stale,
}

/// What a caller asks of a task.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Cancel,
    Delete,
    /// The new due time.
    Reschedule(Timestamp),
    RunNow,
    /// With a change of the task at the same time; the empty one changes nothing.
    Retry(Patch),
    Edit(Patch),
}

impl Action {
    /// Whether the action is for tasks in this state; a bulk call counts those that match and are not as unchanged.
    pub(crate) fn allows(&self, state: TaskState) -> bool {
        match self {
            Self::Cancel => !state.is_final(),
            Self::Delete | Self::Retry(_) => state.is_final(),
            Self::Reschedule(_) | Self::RunNow | Self::Edit(_) => state == TaskState::Pending,
        }
    }
}

/// A checked change of a task.
#[derive(Clone, Default)]
pub(crate) struct Patch {
    pub(crate) payload: Option<(String, Vec<u8>)>,
    pub(crate) priority: Option<u8>,
    pub(crate) max_attempts: Option<u32>,
}

impl Patch {
    /// Whether it changes nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.payload.is_none() && self.priority.is_none() && self.max_attempts.is_none()
    }
}

/// Shows no payload.
impl std::fmt::Debug for Patch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Patch(priority {:?})", self.priority)
    }
}

/// What became of a caller's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Done.
    Applied,
    /// A cancel of a task that an instance holds: it will be told.
    Requested,
    /// The task is in a state that does not allow it.
    Refused(TaskState),
    /// The new payload is of another kind than the task.
    WrongKind,
    NotFound,
}

/// What became of one chunk of a bulk call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChangedMany {
    pub(crate) matched: usize,
    pub(crate) changed: usize,
    /// Where the next chunk begins; `None` at the end.
    pub(crate) next: Option<TaskId>,
}

/// Which of a dead instance's claims were started.
#[derive(Debug, Clone)]
pub(crate) enum Started {
    /// There is no ledger to ask: every claim counts as started. None is blamed for the death, unless it was the only one.
    All { alone: bool },
    /// Those in its ledger, by row and claim number, sorted.
    Listed(Arc<[(i64, i64)]>),
}

impl Started {
    pub(crate) fn includes(&self, seq: i64, claim_no: i64) -> bool {
        match self {
            Self::All { .. } => true,
            Self::Listed(cells) => cells.binary_search(&(seq, claim_no)).is_ok(),
        }
    }
}

impl Started {
    /// Whether what was started may have been the cause of the death.
    pub(crate) fn blames(&self) -> bool {
        matches!(self, Self::Listed(_) | Self::All { alone: true })
    }
}

/// What one slice of a rescue did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rescued {
    /// Started tasks that are runnable again, or have crashed too often.
    pub(crate) crashed: usize,
    /// Tasks that had not been started.
    pub(crate) given_back: usize,
    /// Tasks of dead instances are left for the next slice.
    pub(crate) more: bool,
}
