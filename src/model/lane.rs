//! Lanes: a queue's tasks of one kind and class, when each lane has something due, and what may be claimed from it.

use std::sync::Arc;
use std::time::Duration;

use crate::model::delivery::Delivery;
use crate::model::limits::MAX_PRIORITY;
use crate::model::pool::{PerPool, Pool};
use crate::model::suspects::{Level, Suspects};
use crate::time::Timestamp;

/// A queue's tasks of one kind and class, as the store numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LaneId(pub(crate) i64);

/// Per priority, an instant before which no pending task of the lane is due; `None`: no pending task.
pub(crate) type Heads = [Option<Timestamp>; MAX_PRIORITY as usize + 1];

/// The number of a class of suspects in the store is this more than their level, except for those that run alone.
const SUSPECTS: i64 = 100;

/// What is special about a lane's tasks: each class is claimed in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    Plain,
    /// Tasks that ran while their process crashed: few of them run at once.
    Suspect(Level),
    /// Tasks delivered at most once: their claim is on disk before they start.
    Once,
}

impl Class {
    /// The class of new tasks.
    pub(crate) fn new(delivery: Delivery) -> Self {
        match delivery {
            Delivery::AtLeastOnce => Self::Plain,
            Delivery::AtMostOnce => Self::Once,
        }
    }

    pub(crate) fn delivery(self) -> Delivery {
        match self {
            Self::Plain | Self::Suspect(_) => Delivery::AtLeastOnce,
            Self::Once => Delivery::AtMostOnce,
        }
    }

    /// The number in the store.
    pub(crate) const fn code(self) -> i64 {
        match self {
            Self::Plain => 0,
            Self::Suspect(Level::ALONE) => 1,
            Self::Once => 2,
            Self::Suspect(level) => SUSPECTS + level.code() as i64,
        }
    }

    pub(crate) fn from_code(code: i64) -> Option<Self> {
        match code {
            0 => Some(Self::Plain),
            1 => Some(Self::Suspect(Level::ALONE)),
            2 => Some(Self::Once),
            _ => {
                let level = i8::try_from(code.checked_sub(SUSPECTS)?).ok()?;
                Level::from_code(level).map(Self::Suspect)
            }
        }
    }

    /// The level of suspects.
    pub(crate) fn level(self) -> Option<Level> {
        match self {
            Self::Suspect(level) => Some(level),
            Self::Plain | Self::Once => None,
        }
    }

    /// Whether its tasks may be claimed before a worker is free for them.
    pub(crate) fn may_wait(self) -> bool {
        self == Self::Plain
    }
}

/// What the store keeps of a lane in memory.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    pub(crate) id: LaneId,
    pub(crate) queue: Arc<str>,
    pub(crate) kind: Arc<str>,
    pub(crate) class: Class,
    pub(crate) paused: bool,
    /// How many tasks of its queue run at once at most, in all processes together.
    pub(crate) limit: Option<u32>,
    pub(crate) heads: Heads,
}

impl Lane {
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        self.heads.iter().flatten().min().copied()
    }
}

/// The lanes in use, as the store keeps them in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct KnownLanes {
    /// Changes with each lane that is added or removed.
    pub(crate) version: u64,
    pub(crate) list: Arc<Vec<Lane>>,
    /// When a recurrence has to be looked at next.
    pub(crate) recurrence_at: Option<Timestamp>,
}

/// Which due tasks to take.
#[derive(Debug, Clone)]
pub(crate) struct ClaimRequest {
    /// The queues take turns, in this order.
    pub(crate) queues: Vec<QueueClaim>,
    /// This many tasks have a free worker, or a free place for a future, and are claimed whatever their cost.
    pub(crate) free: PerPool<usize>,
    /// Further tasks are claimed ahead of the workers while their expected time fits into this.
    pub(crate) budget: Duration,
    /// The most tasks in all.
    pub(crate) limit: usize,
    /// The suspects that are held already.
    pub(crate) suspects: Suspects,
    /// The version of the lanes that the request was planned for. A standing claim is not made once the version has changed:
    /// new lanes may have better tasks.
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
    /// How long one task takes a worker; `None`: unknown, so no task is claimed ahead.
    pub(crate) cost: Option<Duration>,
    pub(crate) class: Class,
    pub(crate) pool: Pool,
    /// Since when there are suspects, for tasks that are delivered at most once.
    pub(crate) beside_suspects: Option<Timestamp>,
}

/// How long a task that is delivered at most once waits beside suspects: if one of them crashes the process, it would have
/// failed for good.
const BESIDE_SUSPECTS: Duration = Duration::from_secs(10);

impl LaneClaim {
    /// Until when a task waits that is due at an instant. `None`: it need not, or would not be started in time.
    pub(crate) fn waits_until(
        &self,
        due_at: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Option<Timestamp> {
        let until = self.beside_suspects?.max(due_at) + BESIDE_SUSPECTS;
        expires_at.is_none_or(|at| until < at).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_survive_storage() {
        let levels = (i8::MIN..=i8::MAX)
            .filter_map(Level::from_code)
            .map(Class::Suspect);
        for class in levels.chain([Class::Plain, Class::Once]) {
            assert_eq!(Class::from_code(class.code()), Some(class));
        }
        for unknown in [-1, 3, 100 - 5, 100 + 32, i64::MIN] {
            assert_eq!(Class::from_code(unknown), None);
        }
    }
}
