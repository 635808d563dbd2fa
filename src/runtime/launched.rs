//! The claimed tasks that an executor was given. Until it polls one, the task can be taken back: an executor that never polls
//! keeps none.

use std::sync::{Arc, Mutex};

use crate::runtime::job::Job;
use crate::sync::lock;

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

    fn is_taken(&self) -> bool {
        lock(&self.0).is_none()
    }
}

/// What was launched and may not have been polled.
#[derive(Debug, Default)]
pub(crate) struct Launched {
    tasks: Vec<Arc<Unpolled>>,
    forgets_at: usize,
}

impl Launched {
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(crate) fn push(&mut self, task: Arc<Unpolled>) {
        self.tasks.push(task);
        if self.tasks.len() >= self.forgets_at {
            self.tasks.retain(|each| !each.is_taken());
            self.forgets_at = 2 * self.tasks.len() + FORGETS_BEYOND;
        }
    }

    /// Takes back those that were not polled and for which `may_take` is true.
    pub(crate) fn take(&mut self, may_take: impl Fn(&Job) -> bool) -> Vec<Job> {
        let tasks = self.tasks.iter();
        let taken = tasks.filter_map(|each| each.take_if(&may_take)).collect();
        self.tasks.retain(|each| !each.is_taken());
        taken
    }
}
