//! Decides what the dispatcher claims, and which claims are given back before a worker has started them.
//!
//! Invariant: tasks are claimed for free workers. For busy workers they are claimed ahead, at most as many as run within
//! [`Pace::ahead`](crate::store::Pace::ahead).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::handler::Registered;
use crate::model::lane::{KnownLanes, Lane};
use crate::model::pool::PerPool;
use crate::model::settle::Claim;
use crate::runtime::backoff::still_to_come;
use crate::runtime::finish::Finished;
use crate::runtime::flight::Launcher;
use crate::runtime::job::Job;
use crate::runtime::launched::Launched;
use crate::runtime::link::Link;
use crate::runtime::plan::{Load, Plan, Planner, Scope};
use crate::runtime::ready::Ready;
use crate::runtime::suspects::Beside;
use crate::time::{MICRO, Timestamp};

/// Claims for the workers.
#[derive(Debug)]
pub(crate) struct Claimer {
    link: Arc<Link>,
    ready: Arc<Ready>,
    launcher: Arc<Launcher>,
    launched: Launched,
    /// A cancellation was passed on since the launched were looked at.
    has_cancelled: bool,
    /// The paused queues, as of that look.
    paused: HashSet<Arc<str>>,
    planner: Planner,
    /// A queue has a cap: the end of one of its tasks makes room for the next, here or in another process.
    has_caps: bool,
    /// Until when nothing is claimed, because a start could not be noted.
    refused_until: Option<Timestamp>,
}

impl Claimer {
    pub(crate) fn new(
        link: Arc<Link>,
        ready: Arc<Ready>,
        launcher: Arc<Launcher>,
        scope: Scope,
    ) -> Self {
        Self {
            planner: Planner::new(link.pace, scope),
            link,
            ready,
            launcher,
            launched: Launched::default(),
            has_cancelled: false,
            paused: HashSet::new(),
            has_caps: false,
            refused_until: None,
        }
    }

    /// Records how long a handler of this kind ran.
    pub(crate) fn saw(&mut self, kind: &Arc<str>, took: Duration) {
        self.planner.costs.saw(kind, took);
    }

    /// Whether a queue had a cap when a claim was last planned.
    pub(crate) fn has_caps(&self) -> bool {
        self.has_caps
    }

    /// Stops claiming for a while ([`Pace::after_refusal`](crate::store::Pace::after_refusal)) if the start of one of these could
    /// not be noted.
    pub(crate) fn note_refusals(&mut self, finished: &[Finished], now: Timestamp) {
        if finished.iter().any(|each| each.is_refused) {
            self.refused_until = Some(now + self.link.pace.after_refusal);
        }
    }

    /// Until when nothing may be claimed; `None` if claiming is allowed.
    pub(crate) fn rests(&self, now: Timestamp) -> Option<Timestamp> {
        still_to_come(self.refused_until, now, self.link.pace)
    }

    /// Plans the next claim. All granted claims must have been admitted before.
    pub(crate) fn plan(&mut self, lanes: &KnownLanes, now: Timestamp) -> Plan {
        self.planner
            .order
            .took(&self.link.attempts.take_claimed_queues());
        let load = self.load(now);
        let is_limited = |lane: &Lane| lane.limit.is_some();
        self.has_caps = !self.planner.scope.caps.is_empty() || lanes.list.iter().any(is_limited);
        let pool_of = |kind: &str| self.link.registry.get(kind).map(Registered::pool);
        self.planner.plan(lanes, pool_of, &load, now)
    }

    /// Leaves the plan's standing claim, if any, with the store.
    pub(crate) fn leave(&self, plan: &mut Plan) {
        if let Some((standing_claim, ended)) = plan.standing_claim.take() {
            self.link.standing_claim().leave(standing_claim, ended);
        }
    }

    /// Hands claims to the workers.
    pub(crate) fn hand_over(&self, claims: Vec<Claim>) {
        if claims.is_empty() {
            return;
        }
        let unmeasured = self.link.pace.ahead;
        let cost = |claim: &Claim| self.planner.costs.of(&claim.kind).unwrap_or(unmeasured);
        self.ready.push(Job::hold(&self.link, claims, cost));
    }

    /// Launches the claims that are to run as futures; gives those back that were cancelled, and all if the scheduler stops.
    pub(crate) fn launch(&mut self, is_stopping: bool, now: Timestamp) -> Vec<Finished> {
        let (back, jobs): (Vec<Job>, Vec<Job>) = self
            .ready
            .take_futures()
            .into_iter()
            .partition(|job| is_stopping || job.is_cancelled());
        for job in jobs {
            self.launched.push(self.launcher.launch(job));
        }
        give_back(back, now)
    }

    /// Notes that launched tasks may have been cancelled.
    pub(crate) fn note_cancelled(&mut self) {
        self.has_cancelled = true;
    }

    /// Takes back what an executor was given and has not polled: because the scheduler stops, because it was cancelled, because
    /// its queue was paused, or because its start deadline has passed.
    fn withdraw_launched(
        &mut self,
        lanes: &[Lane],
        is_stopping: bool,
        now: Timestamp,
    ) -> Vec<Finished> {
        let paused = lanes.iter().filter(|lane| lane.paused);
        let paused: HashSet<Arc<str>> = paused.map(|lane| Arc::clone(&lane.queue)).collect();
        let may_expire = self.launched.expires_at().is_some_and(|at| at < now);
        let is_new = std::mem::take(&mut self.has_cancelled) || paused != self.paused;
        let of_all = is_new || is_stopping || may_expire;
        self.paused = paused;
        if !of_all && self.paused.is_empty() {
            return Vec::new();
        }
        let jobs = self.launched.take(of_all, |job| {
            let is_paused = self.paused.contains(&job.claim().queue);
            is_stopping || is_paused || job.is_cancelled() || job.claim().has_expired(now)
        });
        give_back(jobs, now)
    }

    /// When a launched task may pass its start deadline.
    pub(crate) fn launched_expire(&self) -> Option<Timestamp> {
        self.launched.expires_at().map(|at| at + MICRO)
    }

    /// Until when no future is launched, because an executor has dropped one.
    pub(crate) fn futures_rest(&self, now: Timestamp) -> Option<Timestamp> {
        self.link.places.rests(now)
    }

    /// Gives back claims that must not reach a worker.
    pub(crate) fn refuse(&self, claims: Vec<Claim>, now: Timestamp) -> Vec<Finished> {
        let jobs = Job::hold(&self.link, claims, |_| Duration::ZERO);
        give_back(jobs, now)
    }

    /// Takes back claimed tasks that no worker has started: because the scheduler stops, because the workers' tasks take
    /// longer than expected, because their queue was paused, or because a better task is due.
    pub(crate) fn withdraw(
        &mut self,
        lanes: &[Lane],
        is_stopping: bool,
        now: Timestamp,
    ) -> Vec<Finished> {
        let mut finished = self.withdraw_launched(lanes, is_stopping, now);
        finished.extend(self.withdraw_waiting(lanes, is_stopping, now));
        finished
    }

    fn withdraw_waiting(&self, lanes: &[Lane], is_stopping: bool, now: Timestamp) -> Vec<Finished> {
        let waiting = self.ready.waiting();
        if waiting.count == 0 {
            return Vec::new();
        }
        // Not busy: a worker between two tasks takes the next one as soon as it gets the processor.
        let is_busy = self.link.attempts.started().threads >= self.ready.wanted();
        let all = is_stopping || is_busy && waiting.unmoved >= self.link.pace.ahead;
        let best = self.best_due(lanes, now);
        let jobs = self.ready.withdraw(|claim| {
            let overtaken = |best: &Option<(u8, Timestamp)>| {
                best.is_none_or(|best| best < (claim.priority, claim.scheduled_at))
            };
            all || best.get(&*claim.queue).is_some_and(overtaken)
        });
        give_back(jobs, now)
    }

    /// Drops the tasks that wait for a worker: the store has stopped, so nothing can be given back any more. Returns whether
    /// no handler runs.
    pub(crate) fn forget(&mut self, now: Timestamp) -> bool {
        drop(give_back(self.ready.withdraw(|_| true), now));
        drop(give_back(self.ready.take_futures(), now));
        drop(give_back(self.launched.take(true, |_| true), now));
        let held = self.link.attempts.held(now);
        // A stuck future has given up its place, and runs on.
        held.open.total() == 0 && held.started.total() == 0
    }

    /// When to check the tasks that wait for a worker. If no worker has taken one by then they are given back, unless a
    /// worker is free: then they wait on.
    pub(crate) fn next(
        &self,
        waiting: usize,
        unmoved: Duration,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let pace = self.link.pace;
        let patience = match pace.ahead.saturating_sub(unmoved) {
            Duration::ZERO => pace.look_again,
            patience => patience,
        };
        (waiting > 0).then(|| now + patience)
    }

    /// Per queue, priority and due time of the best task that may be claimed now; `None` for a paused queue.
    fn best_due<'a>(
        &self,
        lanes: &'a [Lane],
        now: Timestamp,
    ) -> HashMap<&'a str, Option<(u8, Timestamp)>> {
        let mut best: HashMap<&str, Option<(u8, Timestamp)>> = HashMap::new();
        for lane in lanes {
            if lane.paused {
                best.insert(&lane.queue, None);
            } else if lane.class.level().is_none() && self.link.registry.get(&lane.kind).is_some() {
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

    /// The kinds that are left to other processes first, if there are other processes.
    fn left_to_others(&self) -> Vec<Arc<str>> {
        let kinds = self.link.undecodable.left();
        if kinds.is_empty() || !self.link.client.store.has_others() {
            return Vec::new();
        }
        kinds
    }

    fn load(&self, now: Timestamp) -> Load {
        let waiting = self.ready.waiting();
        let workers = self.ready.wanted();
        let held = self.link.attempts.held(now);
        let unpolled = held.open.futures.saturating_sub(held.started.futures);
        // Nobody would poll another.
        let is_in_vain = self.launcher.is_workers() && held.started.threads >= workers;
        let futures = match is_in_vain {
            true => 0,
            false => self.link.places.free(held.open.futures, now),
        };
        Load {
            held: held.capped,
            beside: Beside {
                suspects: held.suspects,
                open: held.open.total(),
                waiting: waiting.count + unpolled,
                claimed_at: held.claimed_at,
            },
            workers,
            free: PerPool {
                threads: workers.saturating_sub(held.open.threads),
                futures,
            },
            overbooked: held.open.threads > workers,
            ended: held.ended,
            // All workers run longer tasks than expected: tasks claimed ahead would only be given back.
            stalled: held.started.threads >= workers && waiting.unmoved >= self.link.pace.ahead,
            waiting: waiting.count,
            ahead: waiting.cost,
            left_to_others: self.left_to_others(),
        }
    }
}

fn give_back(jobs: impl IntoIterator<Item = Job>, now: Timestamp) -> Vec<Finished> {
    let finished = jobs.into_iter().filter_map(|job| job.give_back(now));
    finished.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lane::{Class, Heads, LaneId};
    use crate::model::settle::tests::claim;
    use crate::runtime::link::tests::link;

    const NOW: Timestamp = Timestamp::from_micros(2_000_000_000);

    fn claimer(link: &Arc<Link>) -> Claimer {
        let ready = Ready::new(1, vec![Arc::clone(link)], Arc::default());
        let launcher = Launcher::new(None, ready.fibers(), Arc::default());
        Claimer::new(
            Arc::clone(link),
            Arc::new(ready),
            Arc::new(launcher),
            Scope::default(),
        )
    }

    /// The lane of the claims, whose best task of this priority is due.
    fn lane(priority: usize) -> Lane {
        let claim = claim(1, 0, 3);
        let mut heads = Heads::default();
        heads[priority] = Some(claim.scheduled_at);
        Lane {
            id: LaneId(1),
            queue: claim.queue,
            kind: claim.kind,
            class: Class::Plain,
            paused: false,
            limit: None,
            heads,
        }
    }

    #[test]
    fn p9_a_claim_that_a_better_task_overtakes_is_given_back() {
        let link = link();
        let mut claimer = claimer(&link);
        let mut is_kept = |lane: Lane| {
            claimer.hand_over(vec![claim(1, 0, 3)]);
            let back = claimer.withdraw(&[lane], false, NOW);
            claimer.forget(NOW);
            back.is_empty()
        };
        assert!(is_kept(lane(6)), "a worse one");
        assert!(is_kept(lane(5)), "one as good");
        assert!(!is_kept(lane(4)), "a better one");
        let unknown = Lane {
            kind: "other".into(),
            ..lane(4)
        };
        assert!(is_kept(unknown), "one that cannot run here");
        let elsewhere = Lane {
            queue: "other".into(),
            ..lane(4)
        };
        assert!(is_kept(elsewhere), "one of another queue");
        let paused = Lane {
            paused: true,
            ..lane(6)
        };
        assert!(!is_kept(paused), "its queue is paused");
    }

    #[test]
    fn p4_nothing_that_waits_is_kept_once_the_stop_has_begun() {
        let link = link();
        let mut claimer = claimer(&link);
        claimer.hand_over(vec![claim(1, 0, 3), claim(1, 0, 3)]);
        assert_eq!(claimer.withdraw(&[], false, NOW).len(), 0);
        let back = claimer.withdraw(&[], true, NOW);
        assert!(back.iter().all(Finished::waits_uncalled));
        assert_eq!((back.len(), link.attempts.held(NOW).open.threads), (2, 0));
        drop(back);
        assert_eq!(link.attempts.count(), 0);
    }

    #[test]
    fn p12_after_a_start_that_could_not_be_noted_nothing_is_claimed_for_a_moment() {
        let link = link();
        let mut claimer = claimer(&link);
        claimer.note_refusals(&[], NOW);
        assert_eq!(claimer.rests(NOW), None);
        let mut refused = claimer.refuse(vec![claim(1, 0, 3)], NOW);
        claimer.note_refusals(&refused, NOW);
        assert_eq!(claimer.rests(NOW), None, "it was given back");
        refused[0].is_refused = true;
        claimer.note_refusals(&refused, NOW);
        let until = NOW + link.pace.after_refusal;
        assert_eq!(claimer.rests(NOW), Some(until));
        assert_eq!(claimer.rests(until), None);
    }

    #[test]
    fn p14_a_worker_on_its_way_is_looked_for_now_and_then() {
        let link = link();
        let (claimer, pace) = (claimer(&link), link.pace);
        assert_eq!(claimer.next(0, Duration::ZERO, NOW), None);
        let at_first = claimer.next(1, Duration::ZERO, NOW);
        assert_eq!(at_first, Some(NOW + pace.ahead));
        let later = claimer.next(1, pace.ahead, NOW);
        assert_eq!(later, Some(NOW + pace.look_again));
    }
}
