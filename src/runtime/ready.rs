//! Claimed tasks that wait for a worker: one place that every worker takes from.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::model::settle::Claim;
use crate::runtime::control::Control;
use crate::runtime::job::Job;
use crate::runtime::link::Link;
use crate::store::standing::Workers;
use crate::time::Stopwatch;
use crate::wake::lock;

/// How long an idle worker waits: it is woken for each task.
const IDLE_WAIT: Duration = Duration::from_secs(60);

/// Brings claims that came along with a caller's commit to the workers.
#[derive(Debug)]
pub(crate) struct Intake {
    /// The store owns this, and the link owns the store.
    pub(crate) link: Weak<Link>,
    pub(crate) ready: Arc<Ready>,
    pub(crate) control: Arc<Control>,
}

impl Workers for Intake {
    fn take(&self, claims: Vec<Claim>) -> Vec<Claim> {
        let link = self.link.upgrade();
        let Some(link) = link.filter(|_| !self.control.is_stopping()) else {
            // Nothing new starts: the dispatcher gives them back.
            return claims;
        };
        // A worker waits for each.
        let jobs = Job::hold(&link, claims, |_| Duration::ZERO);
        self.ready.push(jobs);
        Vec::new()
    }
}

/// What waits for a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) count: usize,
    pub(crate) cost: Duration,
    /// How long it is since a worker took one, or the first came.
    pub(crate) unmoved: Duration,
}

/// The claimed tasks that no worker has taken yet, in the order of their claims.
#[derive(Debug)]
pub(crate) struct Ready {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    jobs: VecDeque<Job>,
    /// How long they will take a worker, all together.
    cost: Duration,
    /// When a worker last took one, or the first came.
    moved: Stopwatch,
    /// How many threads there should be: the workers, and a spare one for each that is stuck.
    wanted: usize,
    spares: usize,
    threads: usize,
    closed: bool,
}

impl Ready {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                cost: Duration::ZERO,
                moved: Stopwatch::start(),
                wanted: workers,
                spares: 0,
                threads: 0,
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn push(&self, jobs: impl IntoIterator<Item = Job>) {
        let mut state = lock(&self.state);
        let before = state.jobs.len();
        if before == 0 {
            state.moved = Stopwatch::start();
        }
        for job in jobs {
            state.cost += job.cost;
            state.jobs.push_back(job);
        }
        let added = state.jobs.len() - before;
        drop(state);
        if added > 8 {
            self.changed.notify_all();
        } else {
            (0..added).for_each(|_| self.changed.notify_one());
        }
    }

    /// The next task, without waiting.
    #[cfg(feature = "testing")]
    pub(crate) fn try_next(&self) -> Option<Job> {
        lock(&self.state).pop()
    }

    /// Waits for the next task; `None` when the thread is one too many, or everything is over. Only for a thread that was
    /// counted by [`add_thread`](Self::add_thread), and not after `None`.
    pub(crate) fn next(&self) -> Option<Job> {
        let mut state = lock(&self.state);
        loop {
            if state.threads > state.wanted || (state.closed && state.jobs.is_empty()) {
                state.threads -= 1;
                return None;
            }
            if let Some(job) = state.pop() {
                return Some(job);
            }
            state = self
                .changed
                .wait_timeout(state, IDLE_WAIT)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Takes back what no worker has taken and `which` chooses.
    pub(crate) fn withdraw(&self, mut which: impl FnMut(&Claim) -> bool) -> Vec<Job> {
        let mut state = lock(&self.state);
        let Some(first) = state.jobs.iter().position(|job| which(job.claim())) else {
            return Vec::new();
        };
        // None before the first; it is not asked for twice.
        let mut rest = state.jobs.split_off(first);
        let mut back = Vec::from_iter(rest.pop_front());
        for job in rest {
            if which(job.claim()) {
                back.push(job);
            } else {
                state.jobs.push_back(job);
            }
        }
        state.cost = state.jobs.iter().map(|job| job.cost).sum();
        back
    }

    pub(crate) fn waiting(&self) -> Waiting {
        let state = lock(&self.state);
        Waiting {
            count: state.jobs.len(),
            cost: state.cost,
            unmoved: state.moved.elapsed(),
        }
    }

    /// Counts a thread that is about to run [`next`](Self::next), unless there are enough.
    pub(crate) fn add_thread(&self) -> bool {
        let mut state = lock(&self.state);
        let missing = state.threads < state.wanted;
        state.threads += usize::from(missing);
        missing
    }

    /// A counted thread could not be started.
    pub(crate) fn remove_thread(&self) {
        lock(&self.state).threads -= 1;
    }

    /// Asks for a thread in the place of a stuck one, if that makes no more than `max`.
    pub(crate) fn add_spare(&self, max: usize) -> bool {
        let mut state = lock(&self.state);
        let allowed = state.wanted < max;
        state.wanted += usize::from(allowed);
        state.spares += usize::from(allowed);
        allowed
    }

    /// A stuck handler has returned: if it was replaced, there is one thread too many.
    pub(crate) fn drop_spare(&self) {
        let mut state = lock(&self.state);
        let replaced = usize::from(state.spares > 0);
        state.spares -= replaced;
        state.wanted -= replaced;
        drop(state);
        self.changed.notify_all();
    }

    /// How many threads there should be.
    pub(crate) fn wanted(&self) -> usize {
        lock(&self.state).wanted
    }

    /// How many of them are in the place of stuck ones.
    pub(crate) fn spares(&self) -> usize {
        lock(&self.state).spares
    }

    /// Ends the workers once they have run what is there.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }
}

impl State {
    fn pop(&mut self) -> Option<Job> {
        let job = self.jobs.pop_front()?;
        self.cost = self.cost.saturating_sub(job.cost);
        self.moved = Stopwatch::start();
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settle::tests::claim;
    use crate::runtime::link::tests::link;

    fn jobs(count: usize) -> Vec<Job> {
        let claims = (0..count).map(|_| claim(1, 0, 3)).collect();
        Job::hold(&link(), claims, |_| Duration::from_millis(1))
    }

    #[test]
    fn threads_beyond_what_is_wanted_end() {
        let ready = Ready::new(1);
        assert!(ready.add_thread());
        assert!(!ready.add_thread(), "one is enough");
        assert!(ready.add_spare(2) && !ready.add_spare(2), "up to the cap");
        assert!(ready.add_thread());
        assert_eq!((ready.wanted(), ready.spares()), (2, 1));
        ready.push(jobs(1));
        ready.drop_spare();
        assert!(
            ready.next().is_none(),
            "the stuck one returned: one too many"
        );
        assert!(ready.next().is_some(), "and the other goes on");
        ready.drop_spare();
        assert_eq!(
            ready.wanted(),
            1,
            "a stuck one that was not replaced takes nobody along"
        );
    }

    #[test]
    fn what_waits_can_be_taken_back_and_is_run_before_the_end() {
        let ready = Ready::new(1);
        ready.add_thread();
        ready.push(jobs(3));
        assert_eq!(ready.waiting().count, 3);
        assert_eq!(ready.waiting().cost, Duration::from_millis(3));
        let mut first = true;
        assert_eq!(ready.withdraw(|_| std::mem::take(&mut first)).len(), 1);
        ready.close();
        assert!(ready.next().is_some() && ready.next().is_some());
        assert!(ready.next().is_none());
    }

    #[test]
    fn p3_many_tasks_wake_as_many_workers() {
        let ready = Ready::new(100);
        let (taken, all) = (Mutex::new(0), Condvar::new());
        std::thread::scope(|scope| {
            for _ in 0..100 {
                assert!(ready.add_thread());
                scope.spawn(|| {
                    ready.next().unwrap();
                    *lock(&taken) += 1;
                    all.notify_all();
                    // Nobody takes a second one until each has had its own.
                    let taken = lock(&taken);
                    let wait = Duration::from_secs(60);
                    drop(all.wait_timeout_while(taken, wait, |taken| *taken < 100));
                });
            }
            ready.push(jobs(100));
        });
        assert_eq!(*lock(&taken), 100);
    }
}
