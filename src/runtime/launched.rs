//! The claimed tasks that an executor was given. Until it polls one, the task can be taken back: an executor that never polls
//! keeps none.

use std::sync::{Arc, Mutex};

use crate::runtime::job::Job;
use crate::sync::lock;
use crate::time::Timestamp;

/// Polled tasks are forgotten when there are twice as many as after the last time, and this many more.
const FORGETS_BEYOND: usize = 64;

/// A claimed task until its first poll.
#[derive(Debug)]
pub(crate) struct Unpolled(Mutex<Option<Job>>);

impl Unpolled {
    pub(crate) fn new(job: Job) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(job))))
    }

    /// Takes the task. `None`: it was taken before.
    pub(crate) fn take(&self) -> Option<Job> {
        lock(&self.0).take()
    }

    fn take_if(&self, may_take: impl FnOnce(&Job) -> bool) -> Option<Job> {
        lock(&self.0).take_if(|job| may_take(job))
    }

    fn expires_at(&self) -> Option<Timestamp> {
        lock(&self.0).as_ref()?.claim().expires_at
    }

    fn is_taken(&self) -> bool {
        lock(&self.0).is_none()
    }
}

fn sooner(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

/// What was launched and may not have been polled.
#[derive(Debug, Default)]
pub(crate) struct Launched {
    tasks: Vec<Arc<Unpolled>>,
    /// How many of them, from the first, were there at the last [`take`](Self::take).
    seen: usize,
    forgets_at: usize,
    /// The earliest start deadline of those that are not polled; of one that was polled until the next look at all.
    expires_at: Option<Timestamp>,
}

impl Launched {
    /// When the next of them may expire.
    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    pub(crate) fn push(&mut self, task: Arc<Unpolled>) {
        self.expires_at = sooner(self.expires_at, task.expires_at());
        self.tasks.push(task);
        if self.tasks.len() >= self.forgets_at {
            let (mut index, before) = (0, std::mem::take(&mut self.seen));
            self.tasks.retain(|each| {
                let stays = !each.is_taken();
                self.seen += usize::from(stays && index < before);
                index += 1;
                stays
            });
            self.forgets_at = 2 * self.tasks.len() + FORGETS_BEYOND;
        }
    }

    /// Takes back those that were not polled and for which `may_take` is true, of all or of those that came since the last time.
    pub(crate) fn take(&mut self, of_all: bool, may_take: impl Fn(&Job) -> bool) -> Vec<Job> {
        let from = if of_all { 0 } else { self.seen };
        let tasks = self.tasks[from..].iter();
        let taken = tasks.filter_map(|each| each.take_if(&may_take)).collect();
        if of_all {
            let left = self.tasks.iter().map(|each| each.expires_at());
            self.expires_at = left.fold(None, sooner);
        }
        self.seen = self.tasks.len();
        taken
    }
}
