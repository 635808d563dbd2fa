//! Plans what to claim next. A plan follows from what is due in the lanes and how busy the workers are; no I/O, no clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::lane::{ClaimRequest, Class, KnownLanes, Lane, LaneClaim, QueueClaim};
use crate::model::pool::{PerPool, Pool};
use crate::runtime::costs::Costs;
use crate::runtime::queue_order::QueueOrder;
use crate::runtime::suspects::{Beside, Turns};
use crate::store::Pace;
use crate::time::Timestamp;

/// Which queues this scheduler runs, and how many tasks of each at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    /// The most tasks of a queue that run in this scheduler at once.
    pub(crate) caps: HashMap<Arc<str>, usize>,
    /// Whether queues without a cap are left to other schedulers.
    pub(crate) only_capped: bool,
}

impl Scope {
    /// How many more tasks of a queue may run here now; `None` if this scheduler does not run the queue.
    fn room(&self, load: &Load, queue: &Arc<str>) -> Option<usize> {
        match self.caps.get(queue) {
            Some(cap) => Some(cap.saturating_sub(load.held.get(queue).copied().unwrap_or(0))),
            None if self.only_capped => None,
            None => Some(usize::MAX),
        }
    }
}

/// What the scheduler holds, and how busy its workers are.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Tasks that are claimed and not settled, per queue with a cap.
    pub(crate) held: HashMap<Arc<str>, usize>,
    pub(crate) beside: Beside,
    /// Workers that have no task and for which no claimed task waits, and places without a future.
    pub(crate) free: PerPool<usize>,
    /// Whether more tasks are claimed for the workers than there are workers.
    pub(crate) overbooked: bool,
    /// How many attempts had ended when this was counted.
    pub(crate) ended: u64,
    /// Whether all workers are busy, and none has taken a task for [`Pace::ahead`].
    pub(crate) stalled: bool,
    /// All workers.
    pub(crate) workers: usize,
    /// How many tasks wait for a worker, and their expected worker time.
    pub(crate) waiting: usize,
    pub(crate) ahead: Duration,
    /// Kinds that this process cannot decode but another may: other processes have [`Pace::left_to_others`] to claim their
    /// due tasks first.
    pub(crate) left_to_others: Vec<Arc<str>>,
}

/// What to claim, and when to plan again.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) claim: Option<ClaimRequest>,
    /// When the next task is due that this scheduler may claim.
    pub(crate) next: Option<Timestamp>,
    /// The standing claim: what to claim if something becomes due earlier, a task for each free worker. The number is
    /// [`Load::ended`]: attempts that end later free further workers.
    pub(crate) standing_claim: Option<(ClaimRequest, u64)>,
}

/// Plans claims, from the measured costs of kinds and the order of queues.
#[derive(Debug)]
pub(crate) struct Planner {
    pace: Pace,
    pub(crate) scope: Scope,
    pub(crate) costs: Costs,
    pub(crate) order: QueueOrder,
    turns: Turns,
}

impl Planner {
    pub(crate) fn new(pace: Pace, scope: Scope) -> Self {
        Self {
            pace,
            scope,
            costs: Costs::default(),
            order: QueueOrder::default(),
            turns: Turns::default(),
        }
    }

    /// Plans the next claim. `pool_of`: what a kind's tasks need to run; `None`: it has no handler.
    pub(crate) fn plan(
        &mut self,
        known: &KnownLanes,
        pool_of: impl Fn(&str) -> Option<Pool>,
        load: &Load,
        now: Timestamp,
    ) -> Plan {
        let (pace, lanes) = (self.pace, &*known.list);
        let has_handler = |kind: &str| pool_of(kind).is_some();
        self.order.forget(lanes);
        let mut plan = Plan::default();
        let target = pace.ahead * u32::try_from(load.workers).unwrap_or(u32::MAX);
        let budget = target.saturating_sub(load.ahead);
        // A claim is a transaction, so there is no further one ahead until half of the waiting tasks are used up.
        let is_low =
            !load.stalled && load.waiting <= pace.max_waiting / 2 && load.ahead <= target / 2;
        let (mut queues, mut standing_claim) = (Queues::default(), Queues::default());
        // Tasks of these lanes are never claimed by a caller's transaction: their claim is synced, or needs a count first.
        let is_special = |lane: &Lane| {
            lane.limit.is_some() || lane.class == Class::Once && has_handler(&lane.kind)
        };
        let special: Vec<&Lane> = lanes.iter().filter(|lane| is_special(lane)).collect();
        let may_stand = |queue: &Arc<str>| special.iter().all(|lane| lane.queue != *queue);
        let runs_here = |lane: &Lane| {
            let room = self.scope.room(load, &lane.queue);
            has_handler(&lane.kind) && room.is_some_and(|room| room > 0)
        };
        let has_place = |lane: &Lane| {
            let pool = pool_of(&lane.kind);
            pool.is_some_and(|pool| load.free[pool] > 0)
        };
        let (turn, look_again) = self
            .turns
            .next(lanes, runs_here, has_place, load.beside, now);
        plan.next = look_again;
        for lane in lanes {
            if lane.paused || !turn.lets(lane.class) || !has_handler(&lane.kind) {
                continue;
            }
            let Some(room) = self.scope.room(load, &lane.queue) else {
                continue;
            };
            if room == 0 {
                // The end of one of its tasks wakes the dispatcher.
                continue;
            }
            let capped = self.scope.caps.contains_key(&lane.queue) || lane.limit.is_some();
            let pool = pool_of(&lane.kind).unwrap_or_default();
            let cost = self
                .costs
                .of(&lane.kind)
                .filter(|cost| *cost <= pace.max_ahead_cost);
            let claim = LaneClaim {
                lane: lane.id,
                cost: cost.filter(|_| !capped && may_wait(lane.class, pool)),
                class: lane.class,
                pool,
                beside_suspects: self
                    .turns
                    .suspects_since()
                    .filter(|_| lane.class == Class::Once),
            };
            let is_left = load.left_to_others.contains(&lane.kind);
            let is_overbooked = load.overbooked && pool == Pool::Threads;
            if !is_overbooked
                && !is_left
                && !turn.is_trial()
                && lanes.len() <= pace.max_standing_lanes
                && may_stand(&lane.queue)
            {
                standing_claim.add(&lane.queue, claim, room);
            }
            let left_for = if is_left {
                pace.left_to_others
            } else {
                Duration::ZERO
            };
            match lane.next_at().map(|at| at + left_for) {
                Some(at) if at <= now => queues.add(&lane.queue, claim, room),
                at => plan.next = plan.next.into_iter().chain(at).min(),
            }
        }
        let queues = queues.list;
        let affordable = |queue: &QueueClaim| {
            queue
                .lanes
                .iter()
                .any(|lane| lane.cost.is_some_and(|cost| cost <= budget))
        };
        let has_place = |queue: &QueueClaim| {
            let mut lanes = queue.lanes.iter();
            lanes.any(|lane| load.free[lane.pool] > 0)
        };
        let is_worth_it =
            |(_, queue): &(_, QueueClaim)| has_place(queue) || is_low && affordable(queue);
        let limit = if turn.is_trial() {
            load.free.total().min(1)
        } else {
            let room = pace.max_waiting.saturating_sub(load.waiting);
            pace.max_claim.min(room)
        };
        if limit > 0 && queues.iter().any(is_worth_it) {
            plan.claim = Some(ClaimRequest {
                queues: self.order.in_turn(queues),
                free: load.free,
                budget,
                limit,
                suspects: load.beside.suspects,
                lanes_version: known.version,
            });
        } else if !standing_claim.list.is_empty() {
            let request = ClaimRequest {
                queues: self.order.in_turn(standing_claim.list),
                free: load.free,
                budget: Duration::ZERO,
                limit: load.free.total(),
                suspects: load.beside.suspects,
                lanes_version: known.version,
            };
            plan.standing_claim = Some((request, load.ended));
        }
        plan
    }
}

/// Whether tasks of this class may be claimed before a worker is free for them. A future would take a place for as long as it
/// runs, which says nothing of when another gets one.
fn may_wait(class: Class, pool: Pool) -> bool {
    class.may_wait() && pool == Pool::Threads
}

/// Lanes to claim from, by queue, in the order in which they were added.
#[derive(Default)]
struct Queues<'a> {
    list: Vec<(Arc<str>, QueueClaim)>,
    places: HashMap<&'a str, usize>,
}

impl<'a> Queues<'a> {
    fn add(&mut self, queue: &'a Arc<str>, lane: LaneClaim, limit: usize) {
        if let Some(&place) = self.places.get(&**queue) {
            self.list[place].1.lanes.push(lane);
            return;
        }
        self.places.insert(queue, self.list.len());
        let lanes = vec![lane];
        let claim = QueueClaim { lanes, limit };
        self.list.push((Arc::clone(queue), claim));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lane::{Heads, LaneId};
    use crate::model::suspects::{Level, Suspects};

    const PACE: Pace = Pace::LOCAL;
    const NOW: Timestamp = Timestamp::from_micros(1_000);

    fn lane(id: i64, queue: &str, head: i64) -> Lane {
        let mut heads = Heads::default();
        heads[5] = Some(Timestamp::from_micros(head));
        Lane {
            id: LaneId(id),
            queue: queue.into(),
            kind: "kind".into(),
            class: Class::Plain,
            paused: false,
            limit: None,
            heads,
        }
    }

    fn load(free: usize) -> Load {
        Load {
            free: PerPool::threads(free),
            workers: 2,
            ..Load::default()
        }
    }

    fn of_threads(kind: &str) -> Option<Pool> {
        (kind == "kind").then_some(Pool::Threads)
    }

    fn known(lanes: &[Lane]) -> KnownLanes {
        let list = lanes.to_vec();
        KnownLanes {
            version: 7,
            list: Arc::new(list),
            recurrence_at: None,
        }
    }

    fn planned(lanes: &[Lane], scope: &Scope, load: &Load, costs: &Costs) -> (Vec<i64>, Plan) {
        let mut planner = Planner {
            costs: costs.clone(),
            ..Planner::new(PACE, scope.clone())
        };
        let plan = planner.plan(&known(lanes), of_threads, load, NOW);
        let lanes = plan
            .claim
            .iter()
            .flat_map(|claim| &claim.queues)
            .flat_map(|queue| &queue.lanes)
            .map(|lane| lane.lane.0)
            .collect();
        (lanes, plan)
    }

    fn measured(micros: u64) -> Costs {
        let mut costs = Costs::default();
        costs.saw(&"kind".into(), Duration::from_micros(micros));
        costs
    }

    #[test]
    fn only_lanes_that_are_due_and_may_run_are_claimed_from() {
        let mut paused = lane(2, "a", 1);
        paused.paused = true;
        let mut unknown = lane(3, "a", 1);
        unknown.kind = "other".into();
        let mut empty = lane(4, "a", 1);
        empty.heads = Heads::default();
        let lanes = [
            lane(1, "a", 1_000),
            paused,
            unknown,
            empty,
            lane(5, "b", 1_001),
            lane(6, "b", 1_002),
        ];
        let (claimed, plan) = planned(&lanes, &Scope::default(), &load(1), &Costs::default());
        assert_eq!(claimed, [1]);
        assert_eq!(plan.next, Some(Timestamp::from_micros(1_001)));
    }

    #[test]
    fn a_kind_that_cannot_be_decoded_here_is_left_to_others_for_a_moment() {
        let left = Load {
            left_to_others: vec!["kind".into()],
            ..load(1)
        };
        let later = NOW + PACE.left_to_others;
        let lanes = [lane(1, "a", NOW.micros())];
        let (claimed, plan) = planned(&lanes, &Scope::default(), &left, &Costs::default());
        assert!(claimed.is_empty() && plan.standing_claim.is_none());
        assert_eq!(plan.next, Some(later), "and not for ever");
        let long_due = [lane(
            1,
            "a",
            NOW.micros() - PACE.left_to_others.as_micros() as i64,
        )];
        let (claimed, _) = planned(&long_due, &Scope::default(), &left, &Costs::default());
        assert_eq!(claimed, [1]);
    }

    #[test]
    fn what_is_paused_or_unknown_or_full_wakes_nobody() {
        let mut paused = lane(2, "a", 2_000);
        paused.paused = true;
        let mut unknown = lane(3, "a", 2_000);
        unknown.kind = "other".into();
        let scope = Scope {
            caps: [("full".into(), 1)].into(),
            ..Scope::default()
        };
        let mut load = load(2);
        load.held.insert("full".into(), 1);
        let (claimed, plan) = planned(
            &[paused, unknown, lane(4, "full", 1)],
            &scope,
            &load,
            &Costs::default(),
        );
        assert!(claimed.is_empty());
        assert_eq!(plan.next, None);
    }

    #[test]
    fn a_scheduler_of_some_queues_leaves_the_others_alone() {
        let scope = Scope {
            caps: [("mine".into(), 3)].into(),
            only_capped: true,
        };
        let lanes = [lane(1, "mine", 1), lane(2, "other", 1)];
        let (claimed, plan) = planned(&lanes, &scope, &load(2), &Costs::default());
        assert_eq!(claimed, [1]);
        assert_eq!(plan.claim.unwrap().queues[0].limit, 3);
    }

    #[test]
    fn without_a_free_worker_only_measured_quick_kinds_are_claimed_ahead() {
        let lanes = [lane(1, "a", 1)];
        let claims =
            |load: &Load, costs: &Costs| planned(&lanes, &Scope::default(), load, costs).1.claim;
        assert!(
            claims(&load(0), &Costs::default()).is_none(),
            "not measured"
        );
        assert!(claims(&load(0), &measured(2_000)).is_none(), "slow");
        assert!(claims(&load(0), &measured(10)).is_some());
        let full = Load {
            ahead: 2 * PACE.ahead,
            ..load(0)
        };
        assert!(claims(&full, &measured(10)).is_none(), "enough is waiting");
        let stalled = Load {
            stalled: true,
            ..load(0)
        };
        assert!(
            claims(&stalled, &measured(10)).is_none(),
            "no worker comes for it"
        );
        let capped = Scope {
            caps: [("a".into(), 9)].into(),
            ..Scope::default()
        };
        assert!(
            planned(&lanes, &capped, &load(0), &measured(10))
                .1
                .claim
                .is_none(),
            "capped"
        );
    }

    fn held(levels: &[i8]) -> Load {
        let mut suspects = Suspects::default();
        for level in levels {
            suspects.add(Level::from_code(*level).unwrap());
        }
        Load {
            beside: Beside {
                suspects,
                ..Beside::default()
            },
            ..load(2)
        }
    }

    fn suspects(id: i64, at: i64, level: i8) -> Lane {
        let class = Class::Suspect(Level::from_code(level).unwrap());
        Lane {
            class,
            ..lane(id, "a", at)
        }
    }

    #[test]
    fn p4_suspects_run_in_groups_and_those_behind_one_that_waits_wait() {
        let plan =
            |lanes: &[Lane], load: &Load| planned(lanes, &Scope::default(), load, &measured(10));
        let plain = || lane(9, "a", 1);
        let alone = [suspects(1, 1, 0), plain()];
        let (claimed, made) = plan(&alone, &load(2));
        assert_eq!(claimed, [1, 9]);
        let claim = made.claim.unwrap();
        assert_eq!(claim.queues[0].lanes[0].cost, None, "and never ahead");
        assert_eq!(plan(&alone, &held(&[0])).0, [9]);
        let pairs = [suspects(1, 1, 1), plain()];
        assert_eq!(plan(&pairs, &held(&[3])).0, [1, 9]);
        let (_, made) = plan(&pairs, &held(&[3]));
        assert_eq!(made.claim.unwrap().suspects, held(&[3]).beside.suspects);
        assert_eq!(plan(&pairs, &held(&[3, 3])).0, [9]);
        assert_eq!(plan(&[suspects(1, 1, 5)], &held(&[0])).0, [0; 0]);
        // One that runs alone is the best, and others of its time: all wait for the group to end.
        for (at, expected) in [(1, &[9][..]), (0, &[1, 2, 9])] {
            let lanes = [suspects(1, 1, 0), suspects(2, at, 5), plain()];
            assert_eq!(plan(&lanes, &held(&[5])).0, expected, "{at}");
        }
        let later = [suspects(1, 2_000, 0), suspects(2, 1, 5), plain()];
        assert_eq!(plan(&later, &held(&[5])).0, [2, 9], "it is not due");
        let elsewhere = Lane {
            queue: "elsewhere".into(),
            ..suspects(1, 1, 0)
        };
        let scope = Scope {
            caps: HashMap::from([("a".into(), 9)]),
            only_capped: true,
        };
        let lanes = [elsewhere, suspects(2, 1, 5), plain()];
        let (claimed, _) = planned(&lanes, &scope, &held(&[5]), &measured(10));
        assert_eq!(claimed, [2, 9], "it is for another scheduler");
    }

    #[test]
    fn p4_one_suspect_is_tried_without_others() {
        let lanes = [suspects(1, 1, -1), suspects(2, 1, 3), lane(9, "b", 1)];
        let (claimed, plan) = planned(&lanes, &Scope::default(), &load(2), &measured(10));
        assert_eq!(claimed, [1]);
        assert_eq!(plan.claim.unwrap().limit, 1);
        let beside = Beside {
            open: 1,
            claimed_at: Some(NOW),
            ..Beside::default()
        };
        let young = Load { beside, ..load(1) };
        let (claimed, plan) = planned(&lanes, &Scope::default(), &young, &measured(10));
        assert_eq!(claimed, [0; 0]);
        assert_eq!(plan.next, Some(NOW + Duration::from_secs(10)));
        assert!(
            plan.standing_claim.is_none(),
            "in a caller's commit neither"
        );
        let later = [suspects(1, 2_000, -1), lane(9, "b", 2_000)];
        let (_, plan) = planned(&later, &Scope::default(), &load(2), &measured(10));
        let queues = plan.standing_claim.unwrap().0.queues;
        let ids = queues.iter().flat_map(|queue| &queue.lanes);
        let ids: Vec<LaneId> = ids.map(|lane| lane.lane).collect();
        assert_eq!(ids, [LaneId(9)]);
    }

    /// P5: a crash beside it would be its end.
    #[test]
    fn p4_a_task_delivered_at_most_once_waits_a_while_beside_suspects() {
        let once = |at| Lane {
            class: Class::Once,
            ..lane(1, "a", at)
        };
        let mut planner = Planner::new(PACE, Scope::default());
        let mut since = |lanes: &[Lane], load: &Load, now| {
            let plan = planner.plan(&known(lanes), of_threads, load, now);
            let queues = plan.claim.unwrap().queues;
            let mut lanes = queues.iter().flat_map(|queue| &queue.lanes);
            let once = lanes.find(|lane| lane.lane == LaneId(1)).unwrap();
            once.beside_suspects
        };
        let later = NOW + Duration::from_secs(1);
        assert_eq!(since(&[once(1)], &load(2), NOW), None);
        let due = [once(1), suspects(2, 1, 3)];
        assert_eq!(since(&due, &load(2), NOW), Some(NOW));
        assert_eq!(
            since(&[once(1)], &held(&[0]), later),
            Some(NOW),
            "without a gap"
        );
        assert_eq!(since(&[once(1)], &load(2), later), None);
        assert_eq!(since(&[once(1)], &held(&[0]), later), Some(later));
    }

    #[test]
    fn p4_beside_suspects_a_task_waits_for_ten_seconds_if_it_can() {
        let claim = |since| LaneClaim {
            lane: LaneId(1),
            cost: None,
            class: Class::Once,
            pool: Pool::Threads,
            beside_suspects: since,
        };
        let at = |seconds| NOW + Duration::from_secs(seconds);
        assert_eq!(claim(None).waits_until(NOW, None), None);
        let since = claim(Some(at(100)));
        assert_eq!(
            since.waits_until(NOW, None),
            Some(at(110)),
            "it was due before"
        );
        assert_eq!(since.waits_until(at(105), None), Some(at(115)));
        assert_eq!(
            since.waits_until(at(105), Some(at(115))),
            None,
            "it would expire"
        );
        assert_eq!(since.waits_until(at(105), Some(at(116))), Some(at(115)));
    }

    /// P5, P9: their claims are synced, or counted, in a transaction of their own; and what is better in their queue must not
    /// be overtaken by what comes along with a caller's commit.
    #[test]
    fn a_queue_with_a_limit_or_a_task_delivered_at_most_once_has_no_standing_claim() {
        let later = |id, queue| lane(id, queue, 2_000);
        let once = Lane {
            class: Class::Once,
            ..later(2, "once")
        };
        let limited = Lane {
            limit: Some(3),
            ..later(3, "limited")
        };
        let unknown = Lane {
            kind: "other".into(),
            class: Class::Once,
            ..later(4, "plain")
        };
        let lanes = [
            later(1, "once"),
            once.clone(),
            limited.clone(),
            unknown,
            later(5, "plain"),
        ];
        let (_, plan) = planned(&lanes, &Scope::default(), &load(1), &measured(10));
        let (standing_claim, _) = plan.standing_claim.unwrap();
        let lanes = standing_claim.queues.iter().flat_map(|queue| &queue.lanes);
        assert_eq!(lanes.map(|lane| lane.lane.0).collect::<Vec<_>>(), [5]);
        let due = [once, limited].map(|mut lane| {
            lane.heads[5] = Some(NOW);
            lane
        });
        let (claimed, plan) = planned(&due, &Scope::default(), &load(1), &measured(10));
        assert_eq!(claimed, [2, 3]);
        let lanes = plan.claim.unwrap().queues;
        assert!(
            lanes
                .iter()
                .flat_map(|queue| &queue.lanes)
                .all(|lane| lane.cost.is_none()),
            "and never ahead"
        );
    }

    #[test]
    fn queues_take_turns_by_starts() {
        let lanes = [lane(1, "a", 1), lane(2, "b", 1), lane(3, "c", 1)];
        let mut planner = Planner::new(PACE, Scope::default());
        let mut first = |claimed: &str| {
            let plan = planner.plan(&known(&lanes), of_threads, &load(1), NOW);
            let first = plan.claim.unwrap().queues[0].lanes[0].lane.0;
            planner.order.took(&[Arc::from(claimed)]);
            first
        };
        assert_eq!(
            [
                first("a"),
                first("b"),
                first("c"),
                first("a"),
                first("c"),
                first("b")
            ],
            [1, 2, 3, 1, 2, 2]
        );
    }

    /// P14: a queue that comes again takes its turn after the others.
    #[test]
    fn queues_without_a_lane_have_no_turn() {
        let mut planner = Planner::new(PACE, Scope::default());
        let gone: Vec<Arc<str>> = (0..99).map(|n| format!("gone {n}").into()).collect();
        planner.order.took(&gone);
        planner.order.took(&["a".into()]);
        let lanes = [lane(1, "b", 1), lane(2, "a", 1)];
        let plan = planner.plan(&known(&lanes), of_threads, &load(1), NOW);
        assert_eq!(planner.order.queues(), ["a", "b"]);
        assert_eq!(plan.claim.unwrap().lanes_version, 7);
    }
}
