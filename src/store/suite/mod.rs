//! The conformance suite of [`Store`]: what every backend must do, run over each.
//!
//! A test is a function of a [`Kit`]; [`on_every_backend`] makes a `#[test]` of it for every backend. A further backend is
//! a constructor of the kit and a line in that macro. What needs a look into the storage itself asks
//! [`Kit::sql`] for it and is listed under [`on_files`].

mod change;
mod claim;
mod forget;
mod insert;
mod prune;
mod read;
mod rescue;
mod settle;
mod standing;
mod transaction;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::id::TaskId;
use crate::model::attempt::{Attempt, AttemptEnd};
use crate::model::filter::{Filter, Page};
use crate::model::lane::{ClaimRequest, Lane, LaneClaim, QueueClaim};
use crate::model::limits::MAX_PRIORITY;
use crate::model::new_task::Insert;
use crate::model::new_task::Scheduled;
use crate::model::op::{Action, Changed, ChangedMany, Op, Reply, Settled, Started};
use crate::model::outcome::{Failure, Outcome, TaskResult};
use crate::model::query::Query;
use crate::model::retry::RetryPolicy;
use crate::model::settle::{Asked, Claim, End, Settlement, settle};
use crate::model::task::{Task, TaskState};
use crate::store::{Durability, Settings, Store, open_file, open_memory};
use crate::time::Timestamp;

/// Makes a test of each function for every backend.
macro_rules! on_every_backend {
    ($($name:ident),* $(,)?) => {
        mod file {
            $(#[test] fn $name() { super::$name(&mut crate::store::suite::Kit::file()); })*
        }
        mod memory {
            $(#[test] fn $name() { super::$name(&mut crate::store::suite::Kit::memory()); })*
        }
    };
}
use on_every_backend;

/// Makes a test of each function for the backends whose file can be looked into, damaged or opened twice.
macro_rules! on_files {
    ($($name:ident),* $(,)?) => {
        mod file_only {
            $(#[test] fn $name() { super::$name(&mut crate::store::suite::Kit::file()); })*
        }
    };
}
use on_files;

pub(super) const S: Duration = Duration::from_secs(1);
pub(super) const MICRO: Duration = Duration::from_micros(1);
/// The instant at which every kit begins.
pub(super) const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// One store under test, and the time that its calls are made at.
pub(super) struct Kit {
    store: Option<Arc<dyn Store>>,
    place: Option<(tempfile::TempDir, PathBuf)>,
    pub(super) now: Timestamp,
}

fn settings(runs: bool) -> Settings {
    Settings {
        durability: Durability::ProcessCrash,
        busy_wait: 10 * S,
        ..Settings::new(runs)
    }
}

impl Kit {
    pub(super) fn file() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("suite.db");
        Self {
            store: Some(open_file(&path, settings(true), NOW).unwrap()),
            place: Some((dir, path)),
            now: NOW,
        }
    }

    pub(super) fn memory() -> Self {
        Self {
            store: Some(open_memory(settings(true), NOW).unwrap()),
            place: None,
            now: NOW,
        }
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().unwrap()
    }

    fn path(&self) -> &PathBuf {
        &self.place.as_ref().expect("only files have a path").1
    }

    /// A further instance, or client, of the same file.
    pub(super) fn another(&self, runs: bool) -> Arc<dyn Store> {
        open_file(self.path(), settings(runs), self.now).unwrap()
    }

    /// The process dies: its lock is free, and what it held is still in the file. Another opens it.
    pub(super) fn die(&mut self) {
        self.store = None;
        self.store = Some(self.another(true));
    }

    /// Looks into the file, or damages it, beside the store.
    pub(super) fn sql<T>(&self, look: impl FnOnce(&rusqlite::Connection) -> T) -> T {
        look(&rusqlite::Connection::open(self.path()).unwrap())
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
        let mut queues: Vec<(Arc<str>, QueueClaim)> = Vec::new();
        for lane in self.store().lanes().list.iter() {
            let claim = LaneClaim {
                lane: lane.id,
                cost: None,
                class: lane.class,
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
            free,
            budget: Duration::ZERO,
            limit: usize::MAX,
            lanes_version: self.store().lanes().version,
        }
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

    /// Takes back what an instance held, as if it had died.
    pub(super) fn rescue(&self, instance: i64, started: Started) -> crate::model::op::Rescued {
        let op = Op::Rescue {
            instance,
            started,
            limit: 500,
        };
        self.apply(op).rescued()
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
