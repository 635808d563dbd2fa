//! The thread between the store and the workers: it settles what has ended and claims what is due, both in one
//! transaction, and sleeps until the next task is due or something happens.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::handler::token::StopReason;
use crate::model::op::{ClaimRequest, Class, KnownLanes, Lane, Op, Reply, Settled};
use crate::model::retention::Retention;
use crate::model::settle::Claim;
use crate::runtime::control::Control;
use crate::runtime::finish::Finished;
use crate::runtime::job::Job;
use crate::runtime::link::Link;
use crate::runtime::plan::{Load, Plan, Planner, Scope};
use crate::runtime::ready::Ready;
use crate::runtime::service::{Next, Service};
use crate::runtime::settling::{Batch, Deferred};
use crate::store::Pace;
use crate::tell::tell;
use crate::time::{MAX_PARK, Stopwatch, Timestamp};

/// The dispatcher.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    link: Arc<Link>,
    retention: Retention,
    ready: Arc<Ready>,
    control: Arc<Control>,
    planner: Planner,
    /// Ends that the store did not take yet.
    unsettled: Vec<Finished>,
    /// After an error of the store: until when it is left alone, and for how long after the next one.
    rest_until: Option<Timestamp>,
    backoff: Duration,
    /// A start could not be noted: until when nothing is claimed.
    refused_until: Option<Timestamp>,
    refreshed_at: Option<Timestamp>,
    /// Settlements that share somebody else's transaction, as soon as there is one.
    deferred: Option<Deferred>,
    /// Callers write all the time: settlements find the turn taken.
    crowded: bool,
    /// How many tasks were settled since something was pruned.
    unpruned: usize,
    /// A queue has a cap: what ends makes room for what waits, here or in another process.
    has_caps: bool,
    /// A commit's outcome is not known: it may have claimed tasks that are not held here.
    in_doubt: bool,
}

impl Dispatcher {
    pub(crate) fn new(
        link: Arc<Link>,
        scope: Scope,
        retention: Retention,
        ready: Arc<Ready>,
        control: Arc<Control>,
    ) -> Self {
        let pace = link.pace;
        Self {
            link,
            retention,
            ready,
            control,
            planner: Planner::new(pace, scope),
            unsettled: Vec::new(),
            rest_until: None,
            backoff: pace.first_backoff,
            refused_until: None,
            refreshed_at: None,
            deferred: None,
            crowded: false,
            unpruned: 0,
            has_caps: false,
            in_doubt: false,
        }
    }

    /// Asks the handlers of cancelled tasks to stop.
    fn pass_on_cancellations(&self, now: Timestamp) {
        let hub = self.link.client.store.hub();
        hub.pass_on_cancelled(|cancelled| {
            // One may be of a task that was granted meanwhile. After the stop has begun it will be given back.
            if !self.control.is_stopping() {
                self.ready.admit();
            }
            for &fence in cancelled {
                self.link.attempts.raise(fence, StopReason::Cancelled, now);
            }
        });
    }

    /// Looks for what other processes did, once a second, or when it next can.
    fn refresh(&mut self, now: Timestamp) {
        let due = self
            .refreshed_at
            .is_none_or(|at| now.since(at) >= MAX_PARK || now < at);
        if due {
            match self.link.client.store.refresh() {
                Ok(false) => return,
                Ok(true) => {}
                Err(error) => tell!(warn, %error, "cannot look for changes"),
            }
            self.refreshed_at = Some(now);
        }
    }

    /// Takes back claimed tasks that no worker has begun with: because the scheduler stops, because the workers are busy
    /// with longer ones than expected, because their queue was paused, or because a better one is due.
    fn withdraw(&self, lanes: &[Lane], now: Timestamp) -> Vec<Finished> {
        let waiting = self.ready.waiting();
        if waiting.count == 0 {
            return Vec::new();
        }
        // A worker between two tasks comes for the next one as soon as it gets the processor.
        let busy = self.link.attempts.started() >= self.ready.wanted();
        let all = self.control.is_stopping() || busy && waiting.unmoved >= self.link.pace.ahead;
        let best = self.best_due(lanes, now);
        let jobs = self.ready.withdraw(|claim| {
            let overtaken = |best: &Option<(u8, Timestamp)>| {
                best.is_none_or(|best| best < (claim.priority, claim.scheduled_at))
            };
            all || best.get(&*claim.queue).is_some_and(overtaken)
        });
        jobs.into_iter()
            .filter_map(|job| job.give_back(now))
            .collect()
    }

    /// Per queue, priority and due time of the best task that could be claimed; `None` for a queue that is paused.
    fn best_due<'a>(
        &self,
        lanes: &'a [Lane],
        now: Timestamp,
    ) -> HashMap<&'a str, Option<(u8, Timestamp)>> {
        let mut best: HashMap<&str, Option<(u8, Timestamp)>> = HashMap::new();
        for lane in lanes {
            if lane.paused {
                best.insert(&lane.queue, None);
            } else if lane.class != Class::Suspect && self.link.registry.get(&lane.kind).is_some() {
                let due = (0..)
                    .zip(&lane.heads)
                    .filter_map(|(priority, head)| head.map(|at| (priority, at)))
                    .find(|(_, at)| *at <= now);
                if let Some(due) = due {
                    let known = best.entry(&lane.queue).or_insert(Some(due));
                    *known = known.map(|known| known.min(due));
                }
            }
        }
        best
    }

    /// The kinds that other processes should have first, if there are any.
    fn left_to_others(&self, now: Timestamp) -> Vec<Arc<str>> {
        let kinds = self.link.undecodable.kinds(now);
        if kinds.is_empty() || !self.link.client.store.has_others() {
            return Vec::new();
        }
        kinds
    }

    fn load(&self, now: Timestamp) -> Load {
        let waiting = self.ready.waiting();
        let workers = self.ready.wanted();
        let held = self.link.attempts.held();
        Load {
            held: held.capped,
            suspect: held.has_suspect,
            workers,
            free: workers.saturating_sub(held.open),
            overbooked: held.open > workers,
            ended: held.ended,
            // All are at tasks that take longer: what is claimed ahead of them would only be given back again.
            stalled: held.started >= workers && waiting.unmoved >= self.link.pace.ahead,
            waiting: waiting.count,
            ahead: waiting.cost,
            left_to_others: self.left_to_others(now),
        }
    }

    /// Leaves a standing claim with the store.
    fn leave(&self, plan: &mut Plan) {
        if let Some((standing, ended)) = plan.standing.take() {
            self.link
                .client
                .store
                .hub()
                .standing()
                .leave(standing, ended);
        }
    }

    /// Withdraws the standing claim, and takes what it was granted. Returns whether a transaction is at it just now.
    fn take_granted(&mut self, now: Timestamp) -> bool {
        let link = Arc::clone(&self.link);
        let standing = link.client.store.hub().standing();
        let withdrawn = standing.withdraw();
        self.in_doubt |= withdrawn.in_doubt;
        if self.control.is_stopping() {
            self.refuse(standing.take_granted(), now);
        } else {
            self.ready.admit();
        }
        withdrawn.in_flight
    }

    /// Gives claims back that no worker is to see.
    fn refuse(&mut self, claims: Vec<Claim>, now: Timestamp) {
        let jobs = Job::hold(&self.link, claims, |_| Duration::ZERO);
        let refused = jobs.into_iter().filter_map(|job| job.give_back(now));
        self.unsettled.extend(refused);
    }

    fn plan(&mut self, lanes: &KnownLanes, now: Timestamp) -> Plan {
        self.planner.turns.took(&self.link.attempts.take_turns());
        let load = self.load(now);
        let is_limited = |lane: &Lane| lane.limit.is_some();
        self.has_caps = !self.planner.scope.caps.is_empty() || lanes.list.iter().any(is_limited);
        let has_handler = |kind: &str| self.link.registry.get(kind).is_some();
        self.planner.plan(lanes, has_handler, &load, now)
    }

    /// Settles and claims in one transaction, and returns how many were claimed.
    fn transact(
        &mut self,
        now: Timestamp,
        finished: Vec<Finished>,
        claim: Option<ClaimRequest>,
    ) -> Result<usize> {
        let mut ops = Vec::with_capacity(4);
        // What waits for an answer, or for a place in a queue with a cap, should not wait for a stranger.
        let defers = claim.is_none()
            && !self.in_doubt
            && self.deferred.is_none()
            && !self.has_caps
            && !self.control.is_stopping();
        if self.in_doubt {
            let held = self.link.attempts.rows();
            ops.push(Op::Disown { held });
        }
        self.unpruned += finished.len();
        let finished = self.forget_settled(finished);
        let batch = Batch {
            finished,
            while_stopping: self.control.is_stopping(),
            disowns: self.in_doubt,
        };
        if !batch.finished.is_empty() {
            ops.push(Op::Settle(batch.settlements()));
        }
        if self.unpruned >= self.link.pace.prune_from {
            let limit = (2 * std::mem::take(&mut self.unpruned)).min(self.link.pace.max_prune);
            let cutoffs = self.retention.cutoffs(now);
            ops.push(Op::Prune { cutoffs, limit });
        }
        ops.extend(claim.map(Op::Claim));
        if ops.is_empty() {
            return Ok(0);
        }
        if !defers {
            let answer = self.link.client.store.apply(now, ops);
            return self.answered(batch, answer);
        }
        let deferred = Deferred {
            ticket: self.link.client.store.defer(now, ops),
            batch,
            since: Stopwatch::start(),
        };
        self.collect(deferred)
    }

    /// What was settled in a transaction of its own leaves nothing to be written: returns the others.
    fn forget_settled(&mut self, finished: Vec<Finished>) -> Vec<Finished> {
        let (unsettled, settled): (Vec<_>, Vec<_>) = finished
            .into_iter()
            .partition(|each| each.settlement.is_some());
        for each in &settled {
            if let Some(took) = each.ran {
                self.planner.costs.saw(&each.kind, took);
            }
            let counts = usize::from(self.control.is_stopping());
            self.control.finished.fetch_add(counts, Ordering::Relaxed);
        }
        let places = settled.into_iter().map(|each| each.place);
        self.link.attempts.free(places);
        unsettled
    }

    /// Takes the answer to deferred settlements if it has come, or if it is time to see to it.
    fn collect(&mut self, mut deferred: Deferred) -> Result<usize> {
        let answer = match deferred.ticket.try_take() {
            Some(answer) => answer,
            None if deferred.since.elapsed() >= self.link.pace.gather
                || self.control.is_stopping() =>
            {
                deferred.ticket.wait()
            }
            None => {
                self.crowded = true;
                self.deferred = Some(deferred);
                return Ok(0);
            }
        };
        self.answered(deferred.batch, answer)
    }

    fn answered(&mut self, batch: Batch, answer: Result<Vec<Reply>>) -> Result<usize> {
        match answer {
            Ok(replies) => {
                // An answer to what was asked before the doubt settles nothing of it.
                self.in_doubt &= !batch.disowns;
                self.settled(batch, &replies);
                let mut count = 0;
                for reply in replies {
                    if let Reply::Claimed(claims) = reply {
                        count = claims.len();
                        self.claimed(claims);
                    }
                }
                Ok(count)
            }
            Err(error) => {
                self.unsettled.extend(batch.finished);
                self.in_doubt |= error.kind() == ErrorKind::Unknown;
                Err(error)
            }
        }
    }

    fn settled(&mut self, batch: Batch, replies: &[Reply]) {
        let answers = replies.iter().find_map(|reply| match reply {
            Reply::Settled(answers) => Some(answers),
            _ => None,
        });
        let Some(answers) = answers else { return };
        for (each, answer) in batch.finished.iter().zip(answers) {
            if let (Settled::Stale, Some(settlement)) = (answer, &each.settlement) {
                tell!(warn, task = %settlement.id, "the result of a stale attempt was dropped");
            }
            if let Some(took) = each.ran {
                self.planner.costs.saw(&each.kind, took);
            }
            if batch.while_stopping {
                let counter = match each.ran {
                    Some(_) => &self.control.finished,
                    None => &self.control.given_back,
                };
                let counts = each.ran.is_some() || each.gives_back();
                counter.fetch_add(usize::from(counts), Ordering::Relaxed);
            }
        }
        let places = batch.finished.into_iter().map(|each| each.place);
        self.link.attempts.free(places);
    }

    /// While the workers have enough to do, or callers keep the store busy, completions are settled many at a time; when
    /// that is at the latest. Not if anybody waits for one: a caller, or the next task of a queue with a cap.
    fn gather(&self, waiting: usize, now: Timestamp) -> Option<Timestamp> {
        let can_wait = !self.has_caps
            && !self.control.is_stopping()
            && !self.link.client.store.hub().has_waiters();
        let enough = if self.deferred.is_some() {
            // They come with the next ones.
            usize::MAX
        } else if !can_wait {
            1
        } else if waiting >= self.link.pace.gather_from {
            waiting / 2
        } else if self.crowded {
            self.link.pace.gathered
        } else {
            1
        };
        match self.link.finish.wake_for(enough) {
            true => Some(now),
            false => (enough > 1).then(|| now + self.link.pace.gather),
        }
    }

    fn claimed(&mut self, claims: Vec<Claim>) {
        let cost = |claim: &Claim| {
            self.planner
                .costs
                .of(&claim.kind)
                .unwrap_or(self.link.pace.ahead)
        };
        let jobs = Job::hold(&self.link, claims, cost);
        self.ready.push(jobs);
    }
}

impl Service for Dispatcher {
    fn run_once(&mut self, now: Timestamp) -> Next {
        let in_flight = self.take_granted(now);
        self.pass_on_cancellations(now);
        if let Some(until) = later(self.rest_until, now, self.link.pace) {
            return Next::At(until);
        }
        if self.in_doubt && in_flight {
            // What that takes must not be given back with what is in doubt. Its end notifies.
            return Next::Notified;
        }
        self.refresh(now);
        // Looked at before anything is claimed: what is claimed after it is seen in `held`.
        let stopping = self.control.is_stopping();
        if let Some(deferred) = self.deferred.take()
            && let Err(error) = self.collect(deferred)
        {
            return self.failed(&error, now);
        }
        let mut finished = std::mem::take(&mut self.unsettled);
        if self.deferred.is_none() {
            finished.extend(self.link.finish.take());
        }
        if finished
            .iter()
            .any(|each| each.ran.is_none() && each.gives_back())
        {
            self.refused_until = Some(now + self.link.pace.after_refusal);
        }
        let lanes = self.link.client.store.lanes();
        finished.append(&mut self.withdraw(&lanes.list, now));
        let refused_until = later(self.refused_until, now, self.link.pace);
        // What a standing claim takes just now is not known yet: nothing is claimed beside it.
        let may_claim = !stopping && refused_until.is_none() && !in_flight;
        let mut plan = if may_claim {
            self.plan(&lanes, now)
        } else {
            Plan::default()
        };
        if plan.claim.is_none() && !self.in_doubt {
            // Callers need not wait for what is settled meanwhile.
            self.leave(&mut plan);
        }
        let (settles, claims) = (!finished.is_empty(), plan.claim.is_some());
        // Until it is seen to be so again.
        self.crowded &= settles || self.deferred.is_some();
        match self.transact(now, finished, plan.claim.take()) {
            Ok(claimed) => {
                self.rest_until = None;
                self.backoff = self.link.pace.first_backoff;
                let in_flight = self.take_granted(now);
                if may_claim {
                    // Only now it is known what is due next.
                    let lanes = self.link.client.store.lanes();
                    plan = self.plan(&lanes, now);
                }
                if claims && claimed == 0 && !settles {
                    // Nothing could be claimed: asking again would not help.
                    plan.claim = None;
                }
                if !in_flight {
                    self.leave(&mut plan);
                }
            }
            Err(error) => return self.failed(&error, now),
        }
        if stopping && !in_flight && self.link.attempts.count() == 0 {
            return self.end(now);
        }
        let at_once = (plan.claim.is_some() || !self.unsettled.is_empty()).then_some(now);
        let waiting = self.ready.waiting();
        // If no worker takes one within the budget, they are given back. A free one that has not come yet is waited for.
        let patience = match self.link.pace.ahead.saturating_sub(waiting.unmoved) {
            Duration::ZERO => self.link.pace.look_again,
            patience => patience,
        };
        let withdraw = (waiting.count > 0).then(|| now + patience);
        let settle = self.gather(waiting.count, now);
        let collect = self.deferred.as_ref().map(|_| now + self.link.pace.gather);
        Next::at(
            [at_once, plan.next, refused_until, withdraw, settle, collect]
                .into_iter()
                .flatten()
                .min(),
        )
    }
}

impl Dispatcher {
    fn end(&self, now: Timestamp) -> Next {
        self.ready.close();
        self.link.client.store.close(now);
        self.control.end();
        Next::Ended
    }

    /// Nothing can be settled any more: starts nothing, and once no handler runs leaves what it holds to whoever opens the
    /// file next.
    fn give_up(&mut self, now: Timestamp) {
        for job in self.ready.withdraw(|_| true) {
            drop(job.give_back(now));
        }
        // A worker may have one in hand that it has not begun with.
        if self.link.attempts.held().open == 0 {
            self.unsettled.clear();
            self.deferred = None;
            self.link.finish.take();
            self.link.client.store.close(now);
        }
    }

    /// Leaves the store alone for a while. What ended is kept until it can be settled.
    fn failed(&mut self, error: &Error, now: Timestamp) -> Next {
        tell!(warn, %error, "cannot settle and claim; trying again");
        let until = now + self.backoff.mul_f64(0.5 + fastrand::f64());
        self.rest_until = Some(until);
        self.backoff = (self.backoff * 2).min(self.link.pace.max_backoff);
        if self.link.client.store.condition().stopped.is_some() {
            self.give_up(now);
            if self.link.attempts.count() == 0 && self.control.is_stopping() {
                return self.end(now);
            }
        }
        Next::At(until)
    }
}

/// `until`, if it is still to come. One that is too far away is from before the clock was set back.
fn later(until: Option<Timestamp>, now: Timestamp, pace: Pace) -> Option<Timestamp> {
    until.filter(|&until| now < until && until <= now + 2 * pace.max_backoff)
}

#[cfg(all(test, feature = "testing"))]
mod tests;
