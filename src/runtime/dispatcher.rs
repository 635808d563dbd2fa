//! The service between the store and the workers: it settles ended attempts and claims due tasks, both in one transaction,
//! then sleeps until the next task is due or it is notified.
//!
//! Its state is in its parts: the [`Settler`], the [`Claimer`] and the [`Backoff`]. This file has the order in which they
//! act.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::handler::token::StopReason;
use crate::log::log;
use crate::model::retention::Retention;
use crate::runtime::backoff::Backoff;
use crate::runtime::claimer::Claimer;
use crate::runtime::flight::Launcher;
use crate::runtime::link::Link;
use crate::runtime::plan::{Plan, Scope};
use crate::runtime::ready::Ready;
use crate::runtime::service::{Next, Service};
use crate::runtime::settler::Settler;
use crate::runtime::shutdown::ShutdownState;
use crate::time::{MAX_PARK, Timestamp};

/// Settles, claims and hands claims to the workers.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    link: Arc<Link>,
    ready: Arc<Ready>,
    shutdown: Arc<ShutdownState>,
    settler: Settler,
    claimer: Claimer,
    backoff: Backoff,
    /// When it last looked for commits of other processes.
    refreshed_at: Option<Timestamp>,
}

impl Dispatcher {
    pub(crate) fn new(
        link: Arc<Link>,
        ready: Arc<Ready>,
        launcher: Arc<Launcher>,
        shutdown: Arc<ShutdownState>,
        scope: Scope,
        retention: Retention,
    ) -> Self {
        Self {
            settler: Settler::new(Arc::clone(&link), Arc::clone(&shutdown), retention),
            claimer: Claimer::new(Arc::clone(&link), Arc::clone(&ready), launcher, scope),
            backoff: Backoff::new(link.pace),
            refreshed_at: None,
            link,
            ready,
            shutdown,
        }
    }

    /// Settles and claims once. `in_flight`: a transaction is making the standing claim, so its claims are not known yet.
    fn step(&mut self, in_flight: bool, now: Timestamp) -> Result<Next> {
        // Read before claiming: whatever is claimed after this read is then counted by `attempts.count()` below.
        let is_stopping = self.shutdown.is_stopping();
        self.settler.collect()?;
        let mut finished = self.settler.take(|kind, took| self.claimer.saw(kind, took));
        self.claimer.note_refusals(&finished, now);
        let lanes = self.link.client.store.lanes();
        // Not before they were read: by an earlier time the best of them may not be due yet.
        let now = now.max(self.link.client.now());
        finished.extend(self.claimer.withdraw(&lanes.list, is_stopping, now));
        let may_claim = !is_stopping && !in_flight && self.claimer.rests(now).is_none();
        let mut plan = if may_claim {
            self.claimer.plan(&lanes, now)
        } else {
            Plan::default()
        };
        if plan.claim.is_none() && !self.settler.is_in_doubt() {
            // A caller's commit can then make this claim while this step settles.
            self.claimer.leave(&mut plan);
        }
        // Else the store would copy the list to change it, while other writers wait.
        drop(lanes);
        let (settles, claims) = (!finished.is_empty(), plan.claim.is_some());
        let has_caps = self.claimer.has_caps();
        let claim = plan.claim.take();
        let claimed = self.settler.transact(finished, claim, has_caps, now)?;
        self.backoff.worked();
        // Nothing could be claimed: the same claim again would find nothing either.
        let is_futile = claims && claimed.is_empty() && !settles;
        self.claimer.hand_over(claimed);
        let in_flight = self.take_granted(now);
        let given_back = self.claimer.launch(is_stopping, now);
        self.settler.keep(given_back);
        if may_claim {
            // What is due next is known only after the claim.
            plan = self.claimer.plan(&self.link.client.store.lanes(), now);
        }
        if is_futile {
            plan.claim = None;
        }
        if !in_flight {
            self.claimer.leave(&mut plan);
        }
        if is_stopping && !in_flight && self.link.attempts.count() == 0 {
            return Ok(self.end(now));
        }
        Ok(self.next(&plan, now))
    }

    /// When to act again, unless notified earlier.
    fn next(&self, plan: &Plan, now: Timestamp) -> Next {
        let waiting = self.ready.waiting();
        let claim = plan.claim.as_ref().map(|_| now);
        let has_caps = self.claimer.has_caps();
        let times = [
            claim,
            plan.next,
            self.claimer.rests(now),
            self.claimer.futures_rest(now),
            self.claimer.launched_expire(),
            self.claimer.next(waiting.count, waiting.unmoved, now),
            self.settler.next(waiting.count, has_caps, now),
        ];
        Next::at(times.into_iter().flatten().min())
    }

    /// Withdraws the standing claim and takes the claims it was granted. Returns whether a transaction is making it now.
    fn take_granted(&mut self, now: Timestamp) -> bool {
        let standing_claim = self.link.standing_claim();
        let withdrawn = standing_claim.withdraw();
        if withdrawn.in_doubt {
            self.settler.doubt();
        }
        if self.shutdown.is_stopping() {
            let refused = self.claimer.refuse(standing_claim.take_granted(), now);
            self.settler.keep(refused);
        } else {
            self.ready.admit();
        }
        withdrawn.in_flight
    }

    /// Asks the handlers of cancelled tasks to stop.
    fn pass_on_cancellations(&mut self, now: Timestamp) {
        let signals = self.link.signals();
        let claimer = &mut self.claimer;
        signals.pass_on_cancelled(|cancelled| {
            // A granted task that is not held yet may be among them. During a shutdown it is given back instead.
            if !self.shutdown.is_stopping() {
                self.ready.admit();
            }
            let attempts = &self.link.attempts;
            claimer.note_cancelled();
            signals.call(attempts.raise(cancelled, StopReason::Cancelled, now));
        });
    }

    /// Looks for commits of other processes: once a second, or as soon after as no write is under way.
    fn refresh(&mut self, now: Timestamp) {
        let due = self
            .refreshed_at
            .is_none_or(|at| now.since(at) >= MAX_PARK || now < at);
        if due {
            match self.link.client.store.refresh() {
                Ok(false) => return,
                Ok(true) => {}
                Err(error) => log!(warn, %error, "cannot look for changes"),
            }
            self.refreshed_at = Some(now);
        }
    }

    /// Backs off after an error of the store. Ends are kept until they can be settled.
    fn failed(&mut self, error: &Error, now: Timestamp) -> Next {
        log!(warn, %error, "cannot settle and claim; trying again");
        let until = self.backoff.failed(fastrand::f64(), now);
        if self.link.client.store.health().stopped.is_some() {
            self.give_up(now);
            if self.link.attempts.count() == 0 && self.shutdown.is_stopping() {
                return self.end(now);
            }
        }
        Next::At(until)
    }

    /// The store has stopped: starts nothing more. Once no handler runs, leaves all held tasks to the next instance that
    /// opens the file.
    fn give_up(&mut self, now: Timestamp) {
        if self.claimer.forget(now) {
            self.settler.forget();
            self.link.client.store.close(now);
        }
    }

    fn end(&self, now: Timestamp) -> Next {
        self.ready.close();
        self.link.client.store.close(now);
        self.shutdown.end();
        Next::Ended
    }
}

impl Service for Dispatcher {
    fn run_once(&mut self, now: Timestamp) -> Next {
        let in_flight = self.take_granted(now);
        self.pass_on_cancellations(now);
        if let Some(until) = self.backoff.rests(now) {
            return Next::At(until);
        }
        if self.settler.is_in_doubt() && in_flight {
            // The claims of that transaction must not be given back with those in doubt. Its end notifies.
            return Next::Notified;
        }
        self.refresh(now);
        match self.step(in_flight, now) {
            Ok(next) => next,
            Err(error) => self.failed(&error, now),
        }
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;
