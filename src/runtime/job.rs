//! A claimed task on its way through a worker: [`Job`] before the start, [`Running`] after it.
//!
//! Invariant: each claim ends exactly once. Starting a job, or ending a running attempt, consumes the value. A value that is
//! dropped instead ends too: a job is given back, and a running attempt ends as if its handler had panicked. So a bug loses
//! no task, and any thread may end an attempt.

use std::sync::Arc;
use std::time::Duration;

use crate::handler::context::TaskContext;
use crate::handler::holding::Holding;
use crate::handler::token::StopReason;
use crate::log::log;
use crate::model::retry::RetryPolicy;
use crate::model::settle::{Asked, Claim, End, settle, timeout};
use crate::runtime::attempts::Slot;
use crate::runtime::finish::Finished;
use crate::runtime::link::Link;
use crate::runtime::polls::PollWatch;
use crate::time::{Stopwatch, Timestamp};

/// A handler that ran for less cannot have forked, because the kernel copies the process's memory. This saves the check of
/// the process id, which takes 0.1 µs.
pub(crate) const QUICKEST_FORK: Duration = Duration::from_micros(10);

/// A claimed task that waits for a worker.
#[derive(Debug)]
pub(crate) struct Job {
    held: Claimed,
    /// The expected worker time.
    pub(crate) cost: Duration,
}

/// A started attempt: its handler is about to be called, or runs.
#[derive(Debug)]
pub(crate) struct Running(Claimed);

/// How a handler returned, for the thread that called it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returned {
    InTime,
    /// The handler had been stuck: a spare thread may have replaced this one.
    Late,
    /// This is a child process that the handler has forked. The attempt and all waiting tasks belong to the parent.
    InChild,
}

/// A claim that has not ended.
#[derive(Debug)]
struct Claimed {
    cx: TaskContext,
    /// `None` once it has ended.
    slot: Option<Slot>,
    /// `None` before the start.
    watch: Option<Stopwatch>,
    link: Arc<Link>,
}

impl Job {
    /// Holds claims from now on: they can be cancelled, and will be settled. `cost`: the expected worker time of each.
    pub(crate) fn hold(
        link: &Arc<Link>,
        claims: Vec<Claim>,
        cost: impl Fn(&Claim) -> Duration,
    ) -> Vec<Self> {
        let mut jobs = Vec::with_capacity(claims.len());
        link.attempts
            .add(claims, link.client.now(), |claim, slot, token| {
                let cost = cost(&claim);
                let holding = Holding::new(claim, token, link.client.clone());
                let cx = TaskContext {
                    holding: Arc::new(holding),
                };
                let held = Claimed {
                    cx,
                    slot: Some(slot),
                    watch: None,
                    link: Arc::clone(link),
                };
                jobs.push(Self { held, cost });
            });
        jobs
    }

    pub(crate) fn claim(&self) -> &Claim {
        &self.held.cx.holding.claim
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.held.cx.holding.token.reason() == Some(StopReason::Cancelled)
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.held.link
    }

    /// Watches the polls of the future that the task is to run as.
    pub(crate) fn watched(&self) -> Arc<PollWatch> {
        let polls = PollWatch::new(&self.claim().kind);
        if let Some(slot) = &self.held.slot {
            self.held.link.attempts.watch(slot, Arc::clone(&polls));
        }
        polls
    }

    /// Starts the attempt. `None`: the claim has ended instead, because it was cancelled or its start could not be noted.
    pub(crate) fn start(self) -> Option<Running> {
        let mut held = self.held;
        if let Some(end) = held.forbidden() {
            held.end_unstarted(end);
            return None;
        }
        if let Err(error) = held.link.client.store.begin(held.claim().fence) {
            log!(warn, task = %held.claim().id, %error, "cannot note the start");
            held.refuse();
            return None;
        }
        let handler = held.link.registry.claimed(&held.claim().kind);
        let timeout = timeout(held.claim(), handler.timeout);
        let deadline = timeout.map(|timeout| held.link.client.now() + timeout);
        if let Some(slot) = &held.slot {
            held.link.attempts.start(slot, deadline, handler.grace());
        }
        let holding = Arc::get_mut(&mut held.cx.holding);
        holding.expect("only a started attempt is shared").deadline = deadline;
        held.watch = Some(Stopwatch::start());
        Some(Running(held))
    }

    /// Gives the job back unstarted. The caller settles the returned end.
    pub(crate) fn give_back(mut self, now: Timestamp) -> Option<Finished> {
        let end = match self.is_cancelled() {
            true => End::CancelledUnstarted,
            false => End::Unstarted,
        };
        self.held.unstarted(end, now)
    }
}

impl Running {
    pub(crate) fn context(&self) -> &TaskContext {
        &self.0.cx
    }

    /// Ends the attempt: its handler has returned.
    pub(crate) fn end(mut self, end: End) -> Returned {
        let took = self.0.ran();
        let holding = &self.0.cx.holding;
        if took >= QUICKEST_FORK && holding.client.store.check().is_err() {
            self.0.forget();
            return Returned::InChild;
        }
        let end = match end {
            End::Returned { result, .. } => End::Returned {
                result,
                asked: asked(holding),
            },
            end => end,
        };
        self.0.end_started(end, took)
    }
}

impl Claimed {
    fn claim(&self) -> &Claim {
        &self.cx.holding.claim
    }

    /// Why the attempt must not start, if it must not.
    fn forbidden(&self) -> Option<End> {
        match self.cx.holding.token.reason() {
            Some(StopReason::Cancelled) => Some(End::CancelledUnstarted),
            Some(_) => Some(End::Unstarted),
            None if self.link.signals().is_cancelled(self.claim().fence) => {
                Some(End::CancelledUnstarted)
            }
            // Most have no start deadline, and need no time.
            None if self.claim().expires_at.is_some() => {
                let has_expired = self.claim().has_expired(self.link.client.now());
                has_expired.then_some(End::Unstarted)
            }
            None => None,
        }
    }

    /// Gives it back because its start could not be noted: without that, after a crash it would count as not started.
    fn refuse(&mut self) {
        if let Some(finished) = self.unstarted(End::Unstarted, self.link.client.now()) {
            self.link.finish.push(Finished {
                is_refused: true,
                ..finished
            });
        }
    }

    /// How long the handler has run so far.
    fn ran(&self) -> Duration {
        self.watch.map_or(Duration::ZERO, Stopwatch::elapsed)
    }

    /// Leaves the attempt to the parent process, without taking a lock: a thread that is not in this child may hold it.
    fn forget(&mut self) {
        std::mem::forget(self.slot.take());
    }

    fn end_unstarted(&mut self, end: End) {
        if let Some(finished) = self.unstarted(end, self.link.client.now()) {
            self.link.finish.push(finished);
        }
    }

    fn unstarted(&mut self, end: End, now: Timestamp) -> Option<Finished> {
        let slot = self.slot.take()?;
        self.link.attempts.skip(&slot);
        let claim = self.claim();
        Some(Finished {
            slot,
            kind: Arc::clone(&claim.kind),
            // The retry policy does not matter: the task was not started.
            settlement: Some(settle(claim, end, &RetryPolicy::default(), 0.5, now).into()),
            ran: None,
            is_refused: false,
        })
    }

    fn end_started(&mut self, end: End, took: Duration) -> Returned {
        let Some(slot) = self.slot.take() else {
            return Returned::InTime;
        };
        let (holding, link) = (&*self.cx.holding, &*self.link);
        let claim = &holding.claim;
        let was_called = !matches!(end, End::Undecodable(_) | End::Damaged(_));
        if matches!(end, End::Undecodable(_)) {
            link.undecodable.note(&claim.kind, link.client.now());
        } else if was_called {
            link.undecodable.note_decoded(&claim.kind);
        }
        let (ended, was_stuck) = link.attempts.end(&slot);
        link.finish.push(Finished {
            slot,
            kind: Arc::clone(&claim.kind),
            settlement: (!holding.is_settled()).then(|| link.settlement(claim, end).into()),
            ran: was_called.then_some(took),
            is_refused: false,
        });
        if was_stuck {
            return Returned::Late;
        }
        link.standing_claim().freed(claim.pool, ended);
        Returned::InTime
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if self.slot.is_none() {
            return;
        }
        if self.link.client.store.check().is_err() {
            self.forget();
        } else if self.watch.is_none() {
            self.end_unstarted(End::Unstarted);
        } else {
            let end = End::Panicked("the attempt was dropped before its handler returned".into());
            self.end_started(end, self.ran());
        }
    }
}

/// What the handler had been asked when it returned.
fn asked(holding: &Holding) -> Asked {
    match holding.token.reason() {
        Some(StopReason::ShuttingDown | StopReason::Lost) => Asked::Interrupted,
        _ if holding.is_late() => Asked::TooLong,
        _ => Asked::Not,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::model::outcome::Outcome;
    use crate::model::settle::Change;
    use crate::model::settle::tests::claim;
    use crate::runtime::link::tests::{NOW, faulty, link};
    use crate::store::faulty::Fault;
    use crate::time::MICRO;

    fn job(link: &Arc<Link>) -> Job {
        let mut jobs = Job::hold(link, vec![claim(1, 0, 3)], |_| Duration::ZERO);
        jobs.remove(0)
    }

    /// What becomes of the tasks that have ended, and whether their handlers were called.
    fn ends(link: &Link) -> Vec<(Change, bool)> {
        let ended = link.finish.take().into_iter();
        ended
            .map(|each| {
                let change = each.settlement.unwrap().change(false).clone();
                (change, each.ran.is_some())
            })
            .collect()
    }

    fn done() -> End {
        End::Returned {
            result: Ok(Outcome::done()),
            asked: Asked::Not,
        }
    }

    #[test]
    fn p4_a_job_that_is_lost_before_its_start_is_given_back() {
        let link = link();
        drop(job(&link));
        assert_eq!(link.attempts.held(Timestamp::MIN).open.threads, 0);
        assert_eq!(ends(&link), [(Change::GivenBack, false)]);
    }

    #[test]
    fn p4_an_attempt_that_is_lost_after_its_start_ends_as_by_a_panic() {
        let link = link();
        let running = job(&link).start().unwrap();
        assert_eq!(link.attempts.started().threads, 1);
        drop(running);
        assert_eq!(link.attempts.started().threads, 0, "its worker is free");
        let ends = ends(&link);
        assert!(
            matches!(ends[..], [(Change::Pending { attempt: 1, .. }, true)]),
            "{ends:?}"
        );
    }

    #[test]
    fn p7_an_attempt_ends_once_and_frees_its_place_when_it_is_settled() {
        let link = link();
        let running = job(&link).start().unwrap();
        assert_eq!(running.end(done()), Returned::InTime);
        assert_eq!(
            (link.attempts.started().threads, link.attempts.count()),
            (0, 1)
        );
        let ends = ends(&link);
        assert_eq!(ends, [(Change::Completed(None), true)]);
        assert_eq!(link.attempts.count(), 0);
        let job = job(&link);
        assert!(job.give_back(Timestamp::MIN).is_some());
        assert!(link.finish.take().is_empty(), "it was given to the caller");
    }

    #[test]
    fn an_attempt_may_end_on_another_thread_than_it_started_on() {
        let link = link();
        let running = job(&link).start().unwrap();
        std::thread::scope(|scope| scope.spawn(|| running.end(done())).join().unwrap());
        assert_eq!(ends(&link), [(Change::Completed(None), true)]);
    }

    /// It may have waited for its worker since its claim.
    #[test]
    fn a_job_is_not_started_after_its_start_deadline() {
        let link = link();
        for (expires_at, starts) in [(NOW, true), (NOW - MICRO, false)] {
            let claim = Claim {
                expires_at: Some(expires_at),
                ..claim(1, 0, 3)
            };
            let job = Job::hold(&link, vec![claim], |_| Duration::ZERO).remove(0);
            match job.start() {
                Some(running) => drop(running.end(done())),
                None => assert!(!starts),
            }
            let expected = match starts {
                true => (Change::Completed(None), true),
                false => (Change::GivenBack, false),
            };
            assert_eq!(ends(&link), [expected]);
        }
    }

    #[test]
    fn p12_a_start_that_cannot_be_noted_is_told_apart_from_what_is_given_back() {
        let (faults, link) = faulty();
        drop(job(&link));
        faults.of_begins([Fault::Before(ErrorKind::Full)]);
        assert!(job(&link).start().is_none());
        let ended = link.finish.take();
        let refused: Vec<bool> = ended.iter().map(|each| each.is_refused).collect();
        assert_eq!(refused, [false, true]);
        assert!(ended.iter().all(Finished::waits_uncalled));
    }

    #[test]
    fn p8_a_job_that_was_cancelled_is_not_started() {
        let link = link();
        let job = job(&link);
        drop(job.held.cx.holding.token.raise(StopReason::Cancelled));
        assert!(job.start().is_none());
        assert_eq!(ends(&link), [(Change::Cancelled, false)]);
        assert_eq!(link.attempts.held(Timestamp::MIN).open.threads, 0);
    }
}
