//! The writes of the store and their answers: operations as values.
//!
//! A batch mixes operations, so settlements, the next claim and other callers' inserts share a transaction.

use std::sync::Arc;

use crate::id::TaskId;
use crate::model::delivery::Delivery;
use crate::model::edit::Patch;
use crate::model::filter::Filter;
use crate::model::lane::{ClaimRequest, Class, LaneId};
use crate::model::new_task::Insert;
use crate::model::new_task::Scheduled;
use crate::model::recurrence::definition::Registration;
use crate::model::recurrence::set::{Declaration, Declaring};
use crate::model::recurrence::view::{Recurred, RecurrenceAction, RecurrenceChanged};
use crate::model::retention::Cutoffs;
use crate::model::settle::{Claim, Fence, Settlement};
use crate::model::task::TaskState;
use crate::model::variants::take_variants;
use crate::time::Timestamp;

/// The most tasks that one transaction of a bulk call or of maintenance touches.
pub(crate) const CHUNK: usize = 500;

/// One operation. It happens whole or not at all.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// Stores tasks; a task whose id is already stored changes nothing.
    Insert(Vec<Insert>),
    /// Takes due tasks for this instance.
    Claim(ClaimRequest),
    /// Records how attempts ended. Each settlement is shared, so the caller still has it if the write fails.
    Settle(Vec<Arc<Settlement>>),
    /// Stores a running handler's progress report.
    Progress { fence: Fence, value: Vec<u8> },
    /// A caller's change of one task.
    Change { id: TaskId, action: Action },
    /// A caller's change of the next [`CHUNK`] matching tasks after `after`, in id order.
    ChangeMatching {
        filter: Box<Filter>,
        action: Action,
        after: Option<TaskId>,
    },
    /// Stops or resumes the claims from a queue, in every process.
    PauseQueue { queue: String, paused: bool },
    /// Limits how many tasks of a queue run at once, in all processes together.
    LimitQueue { queue: String, limit: Option<u32> },
    /// Tests whether the store can be written; changes no task.
    Probe,
    /// Deletes ended tasks whose retention is over, at most `limit`.
    Prune { cutoffs: Cutoffs, limit: usize },
    /// Fails tasks whose start deadline has passed. Looks at the first `limit` deadlines.
    Expire { limit: usize },
    /// Retires those of these lanes that have no pending and no running task, and whose queue is neither paused nor limited.
    RetireLanes { lanes: Vec<LaneId> },
    /// Deletes those of these lanes that are retired. The caller has made sure that none of them has a task.
    ForgetLanes { lanes: Vec<LaneId> },
    /// Stores a recurrence, or what is new about it.
    Recur(Box<Registration>),
    /// Brings the stored recurrences of a set in line with what a program declares.
    Declare(Box<Declaration>),
    /// A caller's change of a recurrence.
    ChangeRecurrence {
        name: String,
        action: RecurrenceAction,
    },
    /// Decides up to [`CHUNK`] slots that are due of the recurrences which another operation is about to change.
    DecideBefore(Box<Op>),
    /// Makes the tasks of slots that are due, of at most `limit` recurrences.
    Fire { limit: usize },
    /// Gives back everything that this instance holds except these claims: the claims of a commit whose outcome was unknown.
    Disown { held: Vec<Fence> },
}

impl Op {
    /// Whether it decides the slots of a recurrence anew.
    pub(crate) fn is_reset(&self) -> bool {
        match self {
            Self::ChangeRecurrence { action, .. } => matches!(action, RecurrenceAction::Reset(_)),
            _ => false,
        }
    }

    /// Whether its answer promises that the write survives a power cut. The scheduler's own writes may be lost in one: they are
    /// then made again.
    pub(crate) fn is_durable(&self) -> bool {
        match self {
            Self::Insert(_)
            | Self::Change { .. }
            | Self::ChangeMatching { .. }
            | Self::PauseQueue { .. }
            | Self::LimitQueue { .. }
            | Self::Recur(_)
            | Self::Declare(_)
            | Self::ChangeRecurrence { .. }
            | Self::Probe => true,
            Self::Claim(_)
            | Self::Settle(_)
            | Self::Progress { .. }
            | Self::Prune { .. }
            | Self::Expire { .. }
            | Self::RetireLanes { .. }
            | Self::ForgetLanes { .. }
            | Self::DecideBefore(_)
            | Self::Fire { .. }
            | Self::Disown { .. } => false,
        }
    }

    /// Whether the write must be on disk before anything follows from it, whatever the durability of the store. For a task that
    /// is delivered at most once: after a power cut its claim must be there, and so must an end that was reported.
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
    Recurred(Recurred),
    Declared(Declaring),
    RecurrenceChanged(RecurrenceChanged),
    /// The answer to a setting of a queue or a maintenance operation: how many tasks, lanes or recurrences it touched.
    Done(usize),
}

take_variants! { Reply,
    inserted: Inserted => Vec<Scheduled>,
    progressed: Progressed => Settled,
    changed: Changed => Changed,
    changed_many: ChangedMany => ChangedMany,
    recurred: Recurred => Recurred,
    declared: Declared => Declaring,
    recurrence_changed: RecurrenceChanged => RecurrenceChanged,
    done: Done => usize,
}

/// Whether a write under a fence found its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    Applied,
    /// The claim was taken over, or was settled before: nothing was changed.
    Stale,
}

/// A caller's change of a task.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Cancel,
    Delete,
    /// The new due time.
    Reschedule(Timestamp),
    RunNow,
    /// With a change of the task in the same commit; an empty patch changes nothing.
    Retry(Patch),
    Edit(Patch),
}

impl Action {
    /// Whether the action is allowed for tasks in this state. A bulk call counts other matching tasks as unchanged.
    pub(crate) fn allows(&self, state: TaskState) -> bool {
        match self {
            Self::Cancel => !state.is_final(),
            Self::Delete | Self::Retry(_) => state.is_final(),
            Self::Reschedule(_) | Self::RunNow | Self::Edit(_) => state == TaskState::Pending,
        }
    }
}

/// The answer to an [`Action`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Done.
    Applied,
    /// A cancel of a task that an instance holds: its handler is asked to stop.
    Requested,
    /// The task's state does not allow the action.
    Refused(TaskState),
    /// The new payload is of another kind than the task's.
    WrongKind,
    NotFound,
}

/// The answer to one chunk of a bulk call.
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
    /// Started tasks that can run again, or have crashed too often.
    pub(crate) crashed: usize,
    /// Tasks that had not been started.
    pub(crate) given_back: usize,
    /// Whether tasks of dead instances are left for the next slice.
    pub(crate) more: bool,
}
