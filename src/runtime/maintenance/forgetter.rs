//! Deletes retired lanes once their last ended task is deleted, and queues without a lane.

use std::collections::HashSet;
use std::time::Duration;

use crate::client::Client;
use crate::error::Result;
use crate::log::log;
use crate::model::lane::LaneId;
use crate::model::op::{CHUNK, Op};
use crate::model::query::Query;
use crate::model::task::TaskState;
use crate::runtime::service::{Next, Service};
use crate::time::Timestamp;

/// How often the ended tasks are scanned. Seldom is enough: a retired lane costs nothing but its row.
const PASS_EVERY: Duration = Duration::from_secs(3600);

const FINAL_STATES: [TaskState; 3] = [
    TaskState::Completed,
    TaskState::Failed,
    TaskState::Cancelled,
];

/// The forgetter of lanes and queues.
#[derive(Debug)]
pub(crate) struct Forgetter {
    client: Client,
    next: Timestamp,
    pass: Option<Pass>,
}

/// A scan of the ended tasks, in steps of bounded length.
#[derive(Debug)]
struct Pass {
    /// Lanes that were retired when the pass began, and in which no task was found. No task is added to a retired lane, so
    /// the lanes left at the end of the pass stay empty.
    empty: HashSet<LaneId>,
    /// The states that are still to be scanned. `at` is the current one, and the end time up to which it has been scanned.
    states: std::slice::Iter<'static, TaskState>,
    at: Option<(TaskState, Option<Timestamp>)>,
}

impl Forgetter {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            next: Timestamp::MIN,
            pass: None,
        }
    }

    fn begin(&self) -> Result<Option<Pass>> {
        let retired = self.client.store.read(Query::RetiredLanes)?;
        let mut states = FINAL_STATES.iter();
        Ok(Some(Pass {
            empty: retired.retired_lanes().into_iter().collect(),
            at: states.next().map(|state| (*state, None)),
            states,
        }))
    }

    /// Makes one step of the pass. Returns what is left of the pass.
    fn step(&self, mut pass: Pass, now: Timestamp) -> Result<Option<Pass>> {
        if pass.empty.is_empty() {
            return Ok(None);
        }
        if let Some((state, after)) = pass.at {
            let seen = self.client.store.read(Query::EndedLanes { state, after })?;
            let seen = seen.ended_lanes();
            for lane in &seen.lanes {
                pass.empty.remove(lane);
            }
            pass.at = match seen.next {
                Some(after) => Some((state, Some(after))),
                None => pass.states.next().map(|state| (*state, None)),
            };
            return Ok(Some(pass));
        }
        let lanes: Vec<LaneId> = pass.empty.iter().take(CHUNK).copied().collect();
        for lane in &lanes {
            pass.empty.remove(lane);
        }
        self.client
            .store
            .apply(now, vec![Op::ForgetLanes { lanes }])?;
        Ok(Some(pass))
    }
}

impl Service for Forgetter {
    fn run_once(&mut self, now: Timestamp) -> Next {
        let step = match self.pass.take() {
            Some(pass) => self.step(pass, now),
            // The upper bound: setting the clock back must not delay the next pass.
            None if now < self.next && self.next <= now + PASS_EVERY => return Next::Notified,
            None => {
                self.next = now + PASS_EVERY;
                self.begin()
            }
        };
        self.pass = step.unwrap_or_else(|error| {
            log!(warn, %error, "cannot forget queues; trying again");
            None
        });
        match self.pass {
            Some(_) => Next::At(now),
            None => Next::Notified,
        }
    }
}
