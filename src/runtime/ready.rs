//! Claimed tasks that wait for a worker: one queue that every worker takes from.
//!
//! All claims come here as jobs, and count as held from then on: the claims that the dispatcher asked for, and those that a
//! standing claim was granted. Granted claims stay with the store until a worker or the dispatcher takes them. They are moved
//! under this queue's lock, so after [`admit`](Ready::admit) all claims granted before it count as held.
//!
//! The queue may serve several stores: each job owns the link to its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::model::pool::Pool;
use crate::model::settle::Claim;
use crate::runtime::fibers::{Fiber, Fibers};
use crate::runtime::job::Job;
use crate::runtime::link::Link;
use crate::runtime::shutdown::ShutdownState;
use crate::sync::lock;
use crate::time::Stopwatch;
use crate::wake::Bell;

/// How long an idle worker waits before it looks again; each task wakes one sooner.
const IDLE_WAIT: Duration = Duration::from_secs(60);

/// The tasks that wait for a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) count: usize,
    pub(crate) cost: Duration,
    /// The time since a worker last took a task, or since the first one came.
    pub(crate) unmoved: Duration,
}

/// The claimed tasks that no worker has taken yet, in the order of their claims.
#[derive(Debug)]
pub(crate) struct Ready {
    /// One for each store: where to look for granted claims.
    links: Vec<Arc<Link>>,
    shutdown: Arc<ShutdownState>,
    state: Mutex<State>,
    /// Rung for each job and each woken future, and when threads must end.
    bell: Bell,
    fibers: Arc<Fibers>,
}

/// What a worker does next.
#[derive(Debug)]
pub(crate) enum Work {
    Job(Job),
    /// A future that was woken.
    Fiber(Arc<Fiber>),
}

#[derive(Debug)]
struct State {
    jobs: VecDeque<Job>,
    /// Jobs to be launched as futures, not by a worker.
    futures: Vec<Job>,
    /// Whether a future goes before a job, if both wait.
    is_turn_of_fibers: bool,
    /// The expected worker time of all jobs together.
    cost: Duration,
    /// When a worker last took a job, or the first one came.
    moved: Stopwatch,
    /// How many threads there should be: the workers, and the spares that replace stuck threads.
    wanted: usize,
    spares: usize,
    threads: usize,
    closed: bool,
}

impl Ready {
    pub(crate) fn new(workers: usize, links: Vec<Arc<Link>>, shutdown: Arc<ShutdownState>) -> Self {
        let bell = Bell::default();
        Self {
            fibers: Arc::new(Fibers::new(bell.clone())),
            bell,
            links,
            shutdown,
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                futures: Vec::new(),
                is_turn_of_fibers: false,
                cost: Duration::ZERO,
                moved: Stopwatch::start(),
                wanted: workers,
                spares: 0,
                threads: 0,
                closed: false,
            }),
        }
    }

    /// The bell that wakes the workers.
    pub(crate) fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// The futures that share the workers.
    pub(crate) fn fibers(&self) -> &Arc<Fibers> {
        &self.fibers
    }

    pub(crate) fn push(&self, jobs: Vec<Job>) {
        let count = lock(&self.state).push(jobs);
        self.bell.ring(count);
    }

    /// Takes the jobs that are to be launched as futures.
    pub(crate) fn take_futures(&self) -> Vec<Job> {
        std::mem::take(&mut lock(&self.state).futures)
    }

    /// Takes in the claims that the standing claims were granted. After this call all of them count as held.
    pub(crate) fn admit(&self) {
        self.admit_to(&mut lock(&self.state));
    }

    fn admit_to(&self, state: &mut State) {
        for link in &self.links {
            let standing_claim = link.standing_claim();
            if standing_claim.has_granted() {
                // A free worker takes each at once.
                let cost = |_: &Claim| Duration::ZERO;
                state.push(Job::hold(link, standing_claim.take_granted(), cost));
            }
        }
    }

    /// What to do next, without waiting. Once the shutdown has begun, granted claims are left to the dispatcher.
    fn take(&self, state: &mut State) -> Option<Work> {
        if !self.shutdown.is_stopping() {
            self.admit_to(state);
        }
        state.is_turn_of_fibers = !state.is_turn_of_fibers;
        if state.is_turn_of_fibers
            && let Some(fiber) = self.fibers.next()
        {
            return Some(Work::Fiber(fiber));
        }
        let job = state.pop().map(Work::Job);
        job.or_else(|| self.fibers.next().map(Work::Fiber))
    }

    /// What to do next, without waiting.
    #[cfg(feature = "testing")]
    pub(crate) fn try_next(&self) -> Option<Work> {
        self.take(&mut lock(&self.state))
    }

    /// Waits for something to do. `None`: the calling thread must end, because there are too many threads or the queue is
    /// closed and empty. Only for a thread that was counted by [`add_thread`](Self::add_thread); not to be called after `None`.
    pub(crate) fn next(&self) -> Option<Work> {
        loop {
            let heard = self.bell.rings();
            {
                let mut state = lock(&self.state);
                if state.threads > state.wanted || (state.closed && state.jobs.is_empty()) {
                    state.threads -= 1;
                    return None;
                }
                if let Some(work) = self.take(&mut state) {
                    return Some(work);
                }
            }
            self.bell.wait(heard, IDLE_WAIT);
        }
    }

    /// Removes and returns the waiting jobs that `which` chooses.
    pub(crate) fn withdraw(&self, mut which: impl FnMut(&Claim) -> bool) -> Vec<Job> {
        let mut state = lock(&self.state);
        let Some(first) = state.jobs.iter().position(|job| which(job.claim())) else {
            return Vec::new();
        };
        // `which` is called once for each job: the first match was found above.
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

    /// Counts a thread that will call [`next`](Self::next), unless there are enough. Returns whether it was counted.
    pub(crate) fn add_thread(&self) -> bool {
        let mut state = lock(&self.state);
        let missing = state.threads < state.wanted;
        state.threads += usize::from(missing);
        missing
    }

    /// Takes back the count of a thread that could not be started.
    pub(crate) fn remove_thread(&self) {
        lock(&self.state).threads -= 1;
    }

    /// Asks for a thread in place of a stuck one, unless there are `max` already. Returns whether it asked.
    pub(crate) fn add_spare(&self, max: usize) -> bool {
        let mut state = lock(&self.state);
        let allowed = state.wanted < max;
        state.wanted += usize::from(allowed);
        state.spares += usize::from(allowed);
        allowed
    }

    /// To be called when a stuck handler has returned: if its thread was replaced, one thread must end.
    pub(crate) fn drop_spare(&self) {
        let mut state = lock(&self.state);
        let replaced = usize::from(state.spares > 0);
        state.spares -= replaced;
        state.wanted -= replaced;
        drop(state);
        self.bell.ring_all();
    }

    /// How many threads there should be.
    pub(crate) fn wanted(&self) -> usize {
        lock(&self.state).wanted
    }

    /// How many of them replace stuck threads.
    pub(crate) fn spares(&self) -> usize {
        lock(&self.state).spares
    }

    /// Closes the queue: the workers run the waiting jobs and end.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.bell.ring_all();
    }
}

impl State {
    /// Returns how many of them are for workers.
    fn push(&mut self, jobs: Vec<Job>) -> usize {
        if self.jobs.is_empty() {
            self.moved = Stopwatch::start();
        }
        let before = self.jobs.len();
        for job in jobs {
            if job.claim().pool == Pool::Futures {
                self.futures.push(job);
            } else {
                self.cost += job.cost;
                self.jobs.push_back(job);
            }
        }
        self.jobs.len() - before
    }

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
    use crate::model::lane::ClaimRequest;
    use crate::model::pool::PerPool;
    use crate::model::settle::tests::claim;
    use crate::runtime::link::tests::link;

    fn jobs(count: usize) -> Vec<Job> {
        let claims = (0..count).map(|_| claim(1, 0, 3)).collect();
        Job::hold(&link(), claims, |_| Duration::from_millis(1))
    }

    fn ready(workers: usize) -> Ready {
        Ready::new(workers, vec![link()], Arc::default())
    }

    #[test]
    fn threads_beyond_what_is_wanted_end() {
        let ready = ready(1);
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
        let ready = ready(1);
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
        let ready = ready(100);
        let (taken, all) = (Mutex::new(0), std::sync::Condvar::new());
        std::thread::scope(|scope| {
            for _ in 0..100 {
                assert!(ready.add_thread());
                scope.spawn(|| {
                    ready.next().unwrap();
                    *lock(&taken) += 1;
                    all.notify_all();
                    // No worker takes a second job before each has had its own.
                    let taken = lock(&taken);
                    let wait = Duration::from_secs(60);
                    drop(all.wait_timeout_while(taken, wait, |taken| *taken < 100));
                });
            }
            ready.push(jobs(100));
        });
        assert_eq!(*lock(&taken), 100);
    }

    /// A standing claim that is granted two tasks.
    fn granted(link: &Link) {
        let standing_claim = link.standing_claim();
        let request = ClaimRequest {
            queues: Vec::new(),
            free: PerPool::threads(2),
            budget: Duration::ZERO,
            limit: 2,
            suspects: Default::default(),
            lanes_version: 0,
        };
        standing_claim.leave(request, 0);
        let taken = standing_claim.take(0).unwrap();
        taken.end(vec![claim(1, 0, 3), claim(1, 0, 3)]);
    }

    #[test]
    fn p3_a_worker_that_waits_is_woken_by_the_store_itself() {
        let link = link();
        let ready = Ready::new(2, vec![Arc::clone(&link)], Arc::default());
        link.standing_claim().set_workers(ready.bell());
        let watch = Stopwatch::start();
        let jobs: Vec<Option<Work>> = std::thread::scope(|scope| {
            let workers = [(); 2].map(|()| {
                assert!(ready.add_thread());
                scope.spawn(|| ready.next())
            });
            granted(&link);
            workers.map(|worker| worker.join().unwrap()).into()
        });
        assert!(watch.elapsed() < IDLE_WAIT / 2, "they were woken");
        assert_eq!(jobs.iter().flatten().count(), 2);
        assert_eq!(link.attempts.count(), 2);
    }

    #[test]
    fn p7_what_was_granted_is_held_once_the_dispatcher_looks() {
        let link = link();
        let ready = Ready::new(2, vec![Arc::clone(&link)], Arc::default());
        granted(&link);
        assert_eq!(link.attempts.count(), 0, "it lies with the store");
        ready.admit();
        assert_eq!((link.attempts.count(), ready.waiting().count), (2, 2));
    }

    /// P7: a place of one link is no place of another.
    #[test]
    fn what_several_stores_granted_comes_to_one_queue_and_ends_at_the_store_of_each() {
        let links = [link(), link()];
        let ready = Ready::new(2, links.to_vec(), Arc::default());
        links.iter().for_each(|link| granted(link));
        ready.admit();
        assert_eq!(ready.waiting().count, 4);
        let mut jobs = ready.withdraw(|_| true);
        let _first = jobs.remove(0);
        drop(jobs);
        let counts = |link: &Arc<Link>| (link.attempts.count(), link.finish.take().len());
        assert_eq!(links.each_ref().map(counts), [(2, 1), (2, 2)]);
    }

    #[cfg(feature = "testing")]
    #[test]
    fn what_was_granted_is_left_to_the_dispatcher_once_the_stop_has_begun() {
        let (link, shutdown) = (link(), Arc::<ShutdownState>::default());
        let ready = Ready::new(2, vec![Arc::clone(&link)], Arc::clone(&shutdown));
        shutdown.begin();
        granted(&link);
        assert!(ready.try_next().is_none());
        assert!(link.standing_claim().has_granted());
    }
}
