//! The conformance suite of [`Store`]: what every backend must do, run over each.
//!
//! A test is a function of a [`Kit`]; [`on_every_backend`] makes a `#[test]` of it for every backend, and [`on_shared`] for
//! those that several instances share. A further backend is a [`Backend`] and a line in these macros. Nothing here knows how
//! a backend stores anything: tests that look into its storage, or damage it, are its own.

mod bounds;
mod change;
pub(super) mod claim;
pub(super) mod forget;
mod insert;
pub(super) mod prune;
pub(super) mod read;
mod recur;
pub(super) mod rescue;
pub(super) mod settle;
mod standing_claim;
mod suspects;
pub(super) mod transaction;

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::id::TaskId;
use crate::model::attempt::{Attempt, AttemptEnd};
use crate::model::filter::{Filter, Page};
use crate::model::lane::{ClaimRequest, Lane, LaneClaim, QueueClaim};
use crate::model::limits::MAX_PRIORITY;
use crate::model::new_task::Insert;
use crate::model::new_task::Scheduled;
use crate::model::op::{Action, Changed, ChangedMany, Op, Reply, Rescued, Settled};
use crate::model::outcome::{Failure, Outcome, TaskResult};
use crate::model::pool::{PerPool, Pool};
use crate::model::query::Query;
use crate::model::retry::RetryPolicy;
use crate::model::settle::{Asked, Claim, End, Settlement, settle};
use crate::model::task::{Task, TaskState};
use crate::store::Store;
pub(super) use crate::time::MICRO;
use crate::time::Timestamp;

/// The seeds of so many random histories. A failure tells its seed: give it as `PUNCTUAL_SEED`.
pub(super) fn seeds(count: u64) -> Range<u64> {
    let given = std::env::var("PUNCTUAL_SEED").ok();
    let given = given.map(|seed| seed.parse().expect("PUNCTUAL_SEED is a number"));
    let first = given.unwrap_or_else(|| fastrand::u64(..1 << 32));
    first..first + count
}

/// Makes a test of each function for every backend.
macro_rules! on_every_backend {
    ($($name:ident),* $(,)?) => {
        mod file {
            $(#[test] fn $name() { super::$name(&mut crate::store::sqlite::kit::on_file()); })*
        }
        mod memory {
            $(#[test] fn $name() { super::$name(&mut crate::store::sqlite::kit::in_memory()); })*
        }
    };
}
use on_every_backend;

/// Makes a test of each function for the backends that several instances share, of which one can die.
macro_rules! on_shared {
    ($($name:ident),* $(,)?) => {
        mod shared_file {
            $(#[test] fn $name() { super::$name(&mut crate::store::sqlite::kit::on_file()); })*
        }
    };
}
use on_shared;

pub(super) const S: Duration = Duration::from_secs(1);
/// The instant at which every kit begins.
pub(super) const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// One storage, and how instances of it are opened.
pub(super) trait Backend: Any {
    /// A further instance; `runs`: it may claim.
    fn open(&self, runs: bool, now: Timestamp) -> Arc<dyn Store>;

    /// The same, whose calls wait for 20 ms at most.
    fn open_impatient(&self, runs: bool, now: Timestamp) -> Arc<dyn Store>;

    /// The machine has lost its power, and with it all that tells which claims were started. No instance is open.
    fn lose_power(&self);
}

/// One instance under test, and the time that its calls are made at.
pub(super) struct Kit {
    /// Closed before its backend is removed.
    store: Option<Arc<dyn Store>>,
    backend: Box<dyn Backend>,
    pub(super) now: Timestamp,
}

impl Kit {
    pub(super) fn on(backend: impl Backend) -> Self {
        Self {
            store: Some(backend.open(true, NOW)),
            backend: Box::new(backend),
            now: NOW,
        }
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().unwrap()
    }

    /// The backend, for tests of its own.
    pub(super) fn backend<B: Backend>(&self) -> &B {
        let backend: &dyn Any = &*self.backend;
        backend.downcast_ref().expect("a kit of this backend")
    }

    /// A further instance, or client, of the same storage.
    pub(super) fn another(&self, runs: bool) -> Arc<dyn Store> {
        self.backend.open(runs, self.now)
    }

    /// The same, whose calls wait for 20 ms at most.
    pub(super) fn impatient(&self, runs: bool) -> Arc<dyn Store> {
        self.backend.open_impatient(runs, self.now)
    }

    /// The instance dies: its lock is free, and its claims are still stored. Another instance is opened.
    pub(super) fn kill(&mut self) {
        self.store = None;
        self.store = Some(self.another(true));
    }

    /// The same, by a loss of power.
    pub(super) fn lose_power(&mut self) {
        self.store = None;
        self.backend.lose_power();
        self.store = Some(self.another(true));
    }

    /// Takes back all that dead instances held.
    pub(super) fn recover(&self) -> Rescued {
        let mut all = Rescued::default();
        loop {
            let slice = self.store().recover(self.now).unwrap();
            all.crashed += slice.crashed;
            all.given_back += slice.given_back;
            if !slice.more {
                return all;
            }
        }
    }

    /// The attempts of these claims are started, and their instance dies and is taken back.
    pub(super) fn crash(&mut self, claims: &[Claim]) {
        for claim in claims {
            self.store().begin(claim.fence).unwrap();
        }
        self.kill();
        assert_eq!(self.recover().crashed, claims.len());
    }

    pub(super) fn later(&mut self, span: Duration) {
        self.now = self.now + span;
    }

    pub(super) fn apply(&self, op: Op) -> Reply {
        self.store().apply(self.now, vec![op]).unwrap().remove(0)
    }

    pub(super) fn insert(&self, task: Insert) -> TaskId {
        let scheduled = self.insert_all(vec![task]).remove(0);
        assert!(scheduled.is_new());
        scheduled.id()
    }

    pub(super) fn insert_all(&self, tasks: Vec<Insert>) -> Vec<Scheduled> {
        self.apply(Op::Insert(tasks)).inserted()
    }

    /// Everything that may be claimed by the lanes as they are known, for `free` workers.
    pub(super) fn request(&self, free: usize) -> ClaimRequest {
        request(&**self.store(), free)
    }

    pub(super) fn claim(&self, free: usize) -> Vec<Claim> {
        self.claim_by(self.request(free))
    }

    pub(super) fn claim_by(&self, request: ClaimRequest) -> Vec<Claim> {
        claimed(self.apply(Op::Claim(request)))
    }

    pub(super) fn claim_one(&self) -> Claim {
        let mut claims = self.claim(1);
        assert_eq!(claims.len(), 1, "one task is due");
        claims.remove(0)
    }

    /// How an attempt ended, with a retry after ten seconds.
    pub(super) fn ended(&self, claim: &Claim, end: End) -> Settlement {
        settle(claim, end, &RetryPolicy::fixed(10 * S), 0.5, self.now)
    }

    pub(super) fn settle(&self, claim: &Claim, end: End) -> Settled {
        settled(self.apply(Op::Settle(vec![self.ended(claim, end).into()]))).remove(0)
    }

    pub(super) fn change(&self, id: TaskId, action: Action) -> Changed {
        self.apply(Op::Change { id, action }).changed()
    }

    pub(super) fn change_matching(
        &self,
        filter: &Filter,
        action: &Action,
        after: Option<TaskId>,
    ) -> ChangedMany {
        let op = Op::ChangeMatching {
            filter: Box::new(filter.clone()),
            action: action.clone(),
            after,
        };
        self.apply(op).changed_many()
    }

    pub(super) fn pause(&self, queue: &str, paused: bool) {
        self.apply(Op::PauseQueue {
            queue: queue.to_owned(),
            paused,
        });
    }

    pub(super) fn find(&self, id: TaskId) -> Option<Task> {
        let answer = self.store().read(Query::Task(id)).unwrap();
        answer.task().map(|task| *task)
    }

    pub(super) fn task(&self, id: TaskId) -> Task {
        self.find(id).expect("the task is stored")
    }

    pub(super) fn state(&self, id: TaskId) -> TaskState {
        let answer = self.store().read(Query::State(id)).unwrap();
        answer.state().expect("the task is stored")
    }

    pub(super) fn history(&self, id: TaskId) -> Vec<Attempt> {
        let answer = self.store().read(Query::History(id)).unwrap();
        answer.history().expect("the task is stored")
    }

    /// How its attempts ended.
    pub(super) fn ends(&self, id: TaskId) -> Vec<AttemptEnd> {
        self.history(id).iter().map(Attempt::end).collect()
    }

    pub(super) fn list(&self, filter: &Filter) -> Page {
        let answer = self.store().read(Query::List(filter.clone())).unwrap();
        answer.list()
    }

    /// When the queue's tasks of a kind are due next, as the store knows without reading.
    pub(super) fn next_at(&self, queue: &str, kind: &str) -> Option<Timestamp> {
        let lanes = self.store().lanes().list;
        let of = |lane: &&Lane| *lane.queue == *queue && *lane.kind == *kind;
        lanes.iter().filter(of).filter_map(Lane::next_at).min()
    }

    /// A task in each state that a caller may find it in: pending, running, completed, failed, cancelled.
    pub(super) fn in_state(&self, state: TaskState) -> TaskId {
        let id = self.insert(task());
        let end = match state {
            TaskState::Pending => return id,
            TaskState::Running => None,
            TaskState::Completed => Some(done()),
            TaskState::Failed => Some(returned(Err(Failure::fatal("no")))),
            TaskState::Cancelled => Some(returned(Ok(Outcome::cancel("unwanted")))),
        };
        let claim = self.claim_one();
        assert_eq!(claim.id, id, "nothing else is due");
        if let Some(end) = end {
            assert_eq!(self.settle(&claim, end), Settled::Applied);
        }
        assert_eq!(self.state(id), state);
        id
    }
}

/// Everything that may be claimed by the lanes as they are known, for `free` workers.
pub(super) fn request(store: &dyn Store, free: usize) -> ClaimRequest {
    let mut queues: Vec<(Arc<str>, QueueClaim)> = Vec::new();
    for lane in store.lanes().list.iter() {
        let claim = LaneClaim {
            lane: lane.id,
            cost: None,
            class: lane.class,
            pool: Pool::Threads,
            beside_suspects: None,
        };
        match queues.iter_mut().find(|(queue, _)| *queue == lane.queue) {
            Some((_, queue)) => queue.lanes.push(claim),
            None => queues.push((
                Arc::clone(&lane.queue),
                QueueClaim {
                    lanes: vec![claim],
                    limit: usize::MAX,
                },
            )),
        }
    }
    ClaimRequest {
        queues: queues.into_iter().map(|(_, queue)| queue).collect(),
        free: PerPool::threads(free),
        budget: Duration::ZERO,
        limit: usize::MAX,
        suspects: Default::default(),
        lanes_version: store.lanes().version,
    }
}

pub(super) fn claimed(reply: Reply) -> Vec<Claim> {
    match reply {
        Reply::Claimed(claims) => claims,
        other => panic!("{other:?}"),
    }
}

pub(super) fn settled(reply: Reply) -> Vec<Settled> {
    match reply {
        Reply::Settled(answers) => answers,
        other => panic!("{other:?}"),
    }
}

/// A task that is due at [`NOW`].
pub(super) fn task() -> Insert {
    Insert {
        id: TaskId::new(),
        kind: "probe".into(),
        payload: b"null".to_vec(),
        queue: "default".into(),
        partition: None,
        priority: 5,
        created_at: NOW,
        scheduled_at: NOW,
        expires_at: None,
        max_attempts: 20,
        delivery: crate::model::delivery::Delivery::AtLeastOnce,
        tags: Vec::new(),
        options: None,
    }
}

pub(super) fn due(at: Timestamp) -> Insert {
    Insert {
        scheduled_at: at,
        ..task()
    }
}

pub(super) fn returned(result: TaskResult) -> End {
    End::Returned {
        result,
        asked: Asked::Not,
    }
}

pub(super) fn done() -> End {
    returned(Ok(Outcome::done()))
}

pub(super) fn error() -> End {
    returned(Err("no".into()))
}

/// A JSON string of this many bytes.
pub(super) fn json(bytes: usize) -> Vec<u8> {
    serde_json::to_vec(&"x".repeat(bytes - 2)).unwrap()
}

pub(super) fn priorities() -> std::ops::RangeInclusive<u8> {
    0..=MAX_PRIORITY
}
