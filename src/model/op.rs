//! What the store is asked to write, and what it answers: operations as values.
//!
//! A batch mixes kinds, so settlements, the next claim and other callers' inserts share a transaction.

use std::sync::Arc;

use crate::id::TaskId;
use crate::model::delivery::Delivery;
use crate::model::edit::Patch;
use crate::model::filter::Filter;
use crate::model::lane::{ClaimRequest, Class, LaneId};
use crate::model::new_task::Insert;
use crate::model::new_task::Scheduled;
use crate::model::retention::Cutoffs;
use crate::model::settle::{Claim, Fence, Settlement};
use crate::model::task::TaskState;
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
    /// Gives back what this instance holds but for these claims: those of a commit whose outcome was not known.
    Disown { held: Vec<Fence> },
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
            | Self::Disown { .. } => false,
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
