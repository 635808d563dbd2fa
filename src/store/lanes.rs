//! The lanes in use, and when each has something due: the dispatcher's timer. Pure: the engine does the reading and writing.
//!
//! Invariant: a head is never later than the truth, except for what another process did since the heads were read; after
//! such a commit they are read again before a claim. What a transaction learns is kept apart until it has committed.
//!
//! A retired lane is not among them: no claim would find a task inserted into it. So each transaction reads the retirements
//! by other processes before it writes anything.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::model::lane::{Class, Heads, KnownLanes, Lane, LaneId};
use crate::model::recurrence::view::Trouble;
use crate::time::Timestamp;

/// The lanes in use as of the last commit.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    /// Shared with snapshots: copied if it changes while a snapshot exists.
    list: Arc<Vec<Lane>>,
    /// Changes with each lane that is added or removed.
    version: u64,
    /// The greatest lane number so far.
    last: i64,
    /// The number of the last known retirement.
    retired: i64,
    by_name: HashMap<(Arc<str>, Arc<str>, Class), LaneId>,
    by_id: HashMap<LaneId, usize>,
    /// The settings of queues, whether or not they have a lane.
    settings: BTreeMap<String, QueueSettings>,
    /// When a recurrence has to be looked at next: a head like those of the lanes.
    recurrence_at: Option<Timestamp>,
    /// The recurrences that an operator should know of.
    troubled: BTreeMap<String, Trouble>,
    /// The version of the time zone database by which other processes find slots, if it is newer than that of this program.
    newer_tzdb: Option<String>,
    /// The recurrences that this program cannot read. After a commit of another process they are tried again.
    unreadable: BTreeMap<i64, String>,
    /// Whether another process may have changed what is due since the heads were read.
    is_stale: bool,
}

/// The settings of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct QueueSettings {
    pub(crate) paused: bool,
    pub(crate) limit: Option<u32>,
}

impl Lanes {
    /// Up to which lane and retirement the lanes are known.
    pub(crate) fn known(&self) -> Known {
        Known {
            last: self.last,
            retired: self.retired,
        }
    }

    /// Changes with each lane that is added or removed.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Takes over the lanes and settings that another process has committed. The heads are only marked as stale.
    pub(crate) fn catch_up(&mut self, news: Changes) {
        self.is_stale = true;
        match news.gone {
            Gone::These(retired) => self.remove(&retired),
            Gone::AllOthers => {
                let stays: HashSet<LaneId> = news.lanes.iter().map(|lane| lane.id).collect();
                let known = self.list.iter().map(|lane| lane.id);
                let gone: Vec<LaneId> = known.filter(|id| !stays.contains(id)).collect();
                self.remove(&gone);
            }
        }
        self.retired = self.retired.max(news.retired);
        for lane in news.lanes {
            if !self.by_id.contains_key(&lane.id) {
                self.add(lane);
            }
        }
        self.troubled = news.troubled;
        self.newer_tzdb = news.newer_tzdb;
        self.unreadable.clear();
        if news.settings != self.settings {
            self.settings = news.settings;
            for lane in Arc::make_mut(&mut self.list) {
                let setting = self.settings.get(&*lane.queue).copied().unwrap_or_default();
                (lane.paused, lane.limit) = (setting.paused, setting.limit);
            }
        }
    }

    /// Whether the heads have to be read again before they can be relied on.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale
    }

    pub(crate) fn set_heads(&mut self, heads: Vec<(LaneId, i64, Timestamp)>) {
        for lane in Arc::make_mut(&mut self.list) {
            lane.heads = Heads::default();
        }
        let list = Arc::make_mut(&mut self.list);
        for (lane, priority, at) in heads {
            if let Some(&index) = self.by_id.get(&lane)
                && let Ok(priority) = usize::try_from(priority)
                && let Some(head) = list[index].heads.get_mut(priority)
            {
                *head = Some(at);
            }
        }
        self.is_stale = false;
    }

    /// Sets when a recurrence has to be looked at next, as it was read with the heads.
    pub(crate) fn set_recurrence_at(&mut self, at: Option<Timestamp>) {
        self.recurrence_at = at;
    }

    /// The recurrences that an operator should know of.
    pub(crate) fn troubled(&self) -> &BTreeMap<String, Trouble> {
        &self.troubled
    }

    /// The recurrences that this program cannot read.
    pub(crate) fn unreadable(&self) -> &BTreeMap<i64, String> {
        &self.unreadable
    }

    /// The version of the time zone database by which other processes find slots, if it is newer than that of this program.
    pub(crate) fn newer_tzdb(&self) -> Option<&String> {
        self.newer_tzdb.as_ref()
    }

    /// When a recurrence has to be looked at next.
    pub(crate) fn recurrence_at(&self) -> Option<Timestamp> {
        self.recurrence_at
    }

    fn add(&mut self, mut lane: Lane) {
        if let Some(setting) = self.settings.get(&*lane.queue) {
            (lane.paused, lane.limit) = (setting.paused, setting.limit);
        }
        self.by_name.insert(name_of(&lane), lane.id);
        self.by_id.insert(lane.id, self.list.len());
        self.last = self.last.max(lane.id.0);
        self.version += 1;
        Arc::make_mut(&mut self.list).push(lane);
    }

    /// Forgets retired lanes, and frees the memory that they took.
    fn remove(&mut self, retired: &[LaneId]) {
        let list = Arc::make_mut(&mut self.list);
        for id in retired {
            let Some(index) = self.by_id.remove(id) else {
                continue;
            };
            let lane = list.swap_remove(index);
            if let Some(moved) = list.get(index) {
                self.by_id.insert(moved.id, index);
            }
            let name = name_of(&lane);
            // There may be a new lane of the same name by now.
            if self.by_name.get(&name) == Some(id) {
                self.by_name.remove(&name);
            }
            self.version += 1;
        }
        let room = 2 * list.len();
        if list.capacity() > 2 * room {
            list.shrink_to(room);
            self.by_id.shrink_to(room);
            self.by_name.shrink_to(room);
        }
    }

    pub(crate) fn list(&self) -> &[Lane] {
        &self.list
    }

    pub(crate) fn snapshot(&self) -> KnownLanes {
        KnownLanes {
            version: self.version,
            list: Arc::clone(&self.list),
            recurrence_at: self.recurrence_at,
        }
    }

    /// The limits of queues, whether or not those have a lane.
    pub(crate) fn limits(&self) -> impl Iterator<Item = (&String, u32)> {
        let limit =
            |(queue, setting): (_, &QueueSettings)| setting.limit.map(|limit| (queue, limit));
        self.settings.iter().filter_map(limit)
    }

    pub(crate) fn paused(&self) -> impl Iterator<Item = &String> {
        let paused = self.settings.iter().filter(|(_, setting)| setting.paused);
        paused.map(|(queue, _)| queue)
    }

    pub(crate) fn get(&self, id: LaneId) -> Option<&Lane> {
        self.by_id.get(&id).map(|&index| &self.list[index])
    }

    /// Finds a lane: up to eight lanes are compared one by one, without allocating.
    pub(crate) fn find(&self, queue: &str, kind: &str, class: Class) -> Option<LaneId> {
        // Linear for a few lanes; more are looked up in the map, by an allocated key.
        if self.list.len() <= 8 {
            return self
                .list
                .iter()
                .find(|lane| lane.class == class && *lane.kind == *kind && *lane.queue == *queue)
                .map(|lane| lane.id);
        }
        self.by_name
            .get(&(Arc::from(queue), Arc::from(kind), class))
            .copied()
    }

    /// Takes over what a committed transaction learnt.
    pub(crate) fn learn(&mut self, learnt: Learnt) {
        if let Some(number) = learnt.retirement {
            self.retired = self.retired.max(number);
            let retired: Vec<LaneId> = learnt.retired.into_iter().collect();
            self.remove(&retired);
        }
        for lane in learnt.created {
            if !self.by_id.contains_key(&lane.id) {
                self.add(lane);
            }
        }
        if let Some(head) = learnt.recurrence {
            head.apply_to(&mut self.recurrence_at);
        }
        self.troubled.extend(learnt.troubled);
        for id in learnt.readable {
            self.unreadable.remove(&id);
        }
        self.unreadable.extend(learnt.unreadable);
        self.troubled
            .retain(|_, trouble| *trouble != Trouble::default());
        if learnt.heads.is_empty() && learnt.queues.is_empty() {
            return;
        }
        let list = Arc::make_mut(&mut self.list);
        for ((id, priority), head) in learnt.heads {
            if let Some(&index) = self.by_id.get(&id) {
                head.apply_to(&mut list[index].heads[usize::from(priority)]);
            }
        }
        for (queue, change) in learnt.queues {
            for lane in list.iter_mut().filter(|lane| *lane.queue == *queue) {
                change.apply_to(&mut lane.paused, &mut lane.limit);
            }
            let setting = self.settings.entry(queue).or_default();
            change.apply_to(&mut setting.paused, &mut setting.limit);
        }
        self.settings
            .retain(|_, setting| *setting != QueueSettings::default());
    }
}

fn name_of(lane: &Lane) -> (Arc<str>, Arc<str>, Class) {
    (Arc::clone(&lane.queue), Arc::clone(&lane.kind), lane.class)
}

/// Up to which lane and retirement the file is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// The number of the last lane.
    pub(crate) last: i64,
    /// The number of the last retirement.
    pub(crate) retired: i64,
}

/// What other processes did to the lanes, except to their heads.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) gone: Gone,
    /// The number of the last retirement among these changes.
    pub(crate) retired: i64,
    pub(crate) settings: BTreeMap<String, QueueSettings>,
    pub(crate) troubled: BTreeMap<String, Trouble>,
    pub(crate) newer_tzdb: Option<String>,
}

/// Which of the known lanes are not in use any more.
#[derive(Debug)]
pub(crate) enum Gone {
    These(Vec<LaneId>),
    /// All except those in [`Changes::lanes`].
    AllOthers,
}

/// What a transaction learns about lanes, to be kept if it commits.
#[derive(Debug, Default)]
pub(crate) struct Learnt {
    created: Vec<Lane>,
    /// The number of a retirement, and the lanes retired with it.
    retirement: Option<i64>,
    retired: HashSet<LaneId>,
    heads: HashMap<(LaneId, u8), Head>,
    queues: Vec<(String, QueueChange)>,
    recurrence: Option<Head>,
    troubled: Vec<(String, Trouble)>,
    unreadable: BTreeMap<i64, String>,
    readable: Vec<i64>,
}

/// A change of a queue's setting.
#[derive(Debug, Clone, Copy)]
pub(crate) enum QueueChange {
    Paused(bool),
    Limit(Option<u32>),
}

impl QueueChange {
    fn apply_to(self, paused: &mut bool, limit: &mut Option<u32>) {
        match self {
            Self::Paused(value) => *paused = value,
            Self::Limit(value) => *limit = value,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Head {
    at: Option<Timestamp>,
    /// Whether nothing earlier is pending; if not, all that is known is that something is pending at `at`.
    exact: bool,
}

impl Head {
    fn apply_to(self, slot: &mut Option<Timestamp>) {
        *slot = match (self.exact, *slot) {
            (true, _) | (false, None) => self.at,
            (false, Some(known)) => Some(self.at.map_or(known, |at| at.min(known))),
        };
    }
}

impl Learnt {
    pub(crate) fn created(&self, id: LaneId) -> Option<&Lane> {
        self.created.iter().find(|lane| lane.id == id)
    }

    /// Notes that a lane was added.
    pub(crate) fn create(&mut self, lane: Lane) {
        self.created.push(lane);
    }

    /// The lane of this queue, kind and class, if this transaction has added it.
    pub(crate) fn find(&self, queue: &str, kind: &str, class: Class) -> Option<LaneId> {
        let is_it =
            |lane: &&Lane| lane.class == class && *lane.kind == *kind && *lane.queue == *queue;
        self.created.iter().find(is_it).map(|lane| lane.id)
    }

    pub(crate) fn all_created(&self) -> impl Iterator<Item = &Lane> {
        self.created.iter()
    }

    /// How many lanes were added or retired.
    pub(crate) fn lane_changes(&self) -> u64 {
        (self.created.len() + self.retired.len()) as u64
    }

    pub(crate) fn is_retired(&self, id: LaneId) -> bool {
        self.retired.contains(&id)
    }

    /// Notes that lanes were retired under this number.
    pub(crate) fn retired(&mut self, number: i64, lanes: impl IntoIterator<Item = LaneId>) {
        self.retirement = Some(number);
        self.retired.extend(lanes);
    }

    /// Changes `lane` to how this transaction sees it.
    pub(crate) fn apply_to(&self, lane: &mut Lane) {
        for (priority, slot) in (0..).zip(&mut lane.heads) {
            if let Some(head) = self.heads.get(&(lane.id, priority)) {
                head.apply_to(slot);
            }
        }
        for (queue, change) in &self.queues {
            if *lane.queue == **queue {
                change.apply_to(&mut lane.paused, &mut lane.limit);
            }
        }
    }

    /// Notes that a pending task was added.
    pub(crate) fn added(&mut self, lane: LaneId, priority: u8, at: Timestamp) {
        self.heads
            .entry((lane, priority))
            .and_modify(|head| head.at = Some(head.at.map_or(at, |known| known.min(at))))
            .or_insert(Head {
                at: Some(at),
                exact: false,
            });
    }

    /// Notes that nothing before `at` is pending; `None`: nothing at all.
    pub(crate) fn found(&mut self, lane: LaneId, priority: u8, at: Option<Timestamp>) {
        self.heads
            .insert((lane, priority), Head { at, exact: true });
    }

    /// Notes that a recurrence has to be looked at at this instant.
    pub(crate) fn recurs(&mut self, at: Timestamp) {
        let head = self.recurrence.get_or_insert(Head {
            at: None,
            exact: false,
        });
        head.at = Some(head.at.map_or(at, |known| known.min(at)));
    }

    /// Notes that no recurrence has to be looked at before this instant; `None`: none at all.
    pub(crate) fn recurs_next(&mut self, at: Option<Timestamp>) {
        self.recurrence = Some(Head { at, exact: true });
    }

    /// The earliest instant at which a recurrence has to be looked at because of this transaction; `None` if the transaction
    /// has looked itself.
    pub(crate) fn recurrence_at(&self) -> Option<Timestamp> {
        let added = self.recurrence.filter(|head| !head.exact);
        added.and_then(|head| head.at)
    }

    /// Notes that this program cannot read a recurrence.
    pub(crate) fn unreadable(&mut self, id: i64, recurrence: String) {
        self.unreadable.insert(id, recurrence);
    }

    /// Notes that a recurrence was written, so that it can be read.
    pub(crate) fn readable(&mut self, id: i64) {
        self.unreadable.remove(&id);
        self.readable.push(id);
    }

    /// The recurrences that this transaction could not read.
    pub(crate) fn all_unreadable(&self) -> impl Iterator<Item = &i64> {
        self.unreadable.keys()
    }

    /// Notes what an operator should know of a recurrence, if anything.
    pub(crate) fn troubled(&mut self, recurrence: String, trouble: Trouble) {
        self.troubled.push((recurrence, trouble));
    }

    pub(crate) fn changed(&mut self, queue: String, change: QueueChange) {
        self.queues.push((queue, change));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn lane(id: i64) -> Lane {
        Lane {
            id: LaneId(id),
            queue: "mail".into(),
            kind: format!("kind{id}").into(),
            class: Class::Plain,
            paused: false,
            limit: None,
            heads: Heads::default(),
        }
    }

    fn lanes() -> (Lanes, LaneId) {
        let (mut lanes, mut learnt) = (Lanes::default(), Learnt::default());
        learnt.create(lane(1));
        lanes.learn(learnt);
        (lanes, LaneId(1))
    }

    #[test]
    fn a_head_is_lowered_by_what_is_added_and_set_by_what_is_found() {
        let (mut lanes, id) = lanes();
        let mut step = |change: &dyn Fn(&mut Learnt)| {
            let mut learnt = Learnt::default();
            change(&mut learnt);
            lanes.learn(learnt);
            lanes.get(id).unwrap().heads[5]
        };
        assert_eq!(step(&|learnt| learnt.added(id, 5, at(7))), Some(at(7)));
        assert_eq!(step(&|learnt| learnt.added(id, 5, at(9))), Some(at(7)));
        assert_eq!(step(&|learnt| learnt.added(id, 5, at(3))), Some(at(3)));
        assert_eq!(
            step(&|learnt| learnt.found(id, 5, Some(at(8)))),
            Some(at(8))
        );
        let both = |learnt: &mut Learnt| {
            learnt.found(id, 5, None);
            learnt.added(id, 5, at(20));
        };
        assert_eq!(step(&both), Some(at(20)));
        assert_eq!(step(&|learnt| learnt.found(id, 5, None)), None);
    }

    #[test]
    fn a_snapshot_stays_as_it_was_and_its_version_tells_of_lanes_that_come_and_go() {
        let (mut lanes, id) = lanes();
        let before = lanes.snapshot();
        let mut learnt = Learnt::default();
        learnt.added(id, 5, at(7));
        lanes.learn(learnt);
        let head = lanes.snapshot();
        assert_eq!(before.list[0].heads[5], None);
        assert_eq!(head.list[0].heads[5], Some(at(7)));
        assert_eq!(head.version, before.version, "the lanes are the same");
        let mut learnt = Learnt::default();
        learnt.create(lane(2));
        learnt.retired(1, [id]);
        lanes.learn(learnt);
        let other = lanes.snapshot();
        assert_eq!((head.list.len(), other.list.len()), (1, 1));
        assert_eq!(other.list[0].id, LaneId(2));
        assert_ne!(other.version, head.version, "although there are as many");
    }
}
