//! The lanes of the file, and when each has something due: the dispatcher's timer.
//!
//! Invariant: a head is never later than the truth, but for what another process did since the heads were read; they are
//! read again before a claim if there was such a one. What a transaction learns is kept apart until it has committed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::limits::MAX_PRIORITY;
use crate::model::op::{Class, Heads, Lane, LaneId};
use crate::store::sqlite::row;
use crate::time::Timestamp;

/// The lanes as of the last commit.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    list: Vec<Lane>,
    by_name: HashMap<(Arc<str>, Arc<str>, Class), LaneId>,
    by_id: HashMap<LaneId, usize>,
    /// What is set of queues, whether or not they have a lane.
    settings: BTreeMap<String, QueueSettings>,
    /// Another process may have changed what is due since the heads were read.
    is_stale: bool,
}

/// What is set of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct QueueSettings {
    paused: bool,
    limit: Option<u32>,
}

/// Lanes are never removed, so those after the last known one are all that are new.
pub(super) const NEW_LANES: &str = "
    SELECT lane.id, queue.name, lane.kind, lane.class
    FROM punctual_lane AS lane JOIN punctual_queue AS queue ON queue.id = lane.queue
    WHERE lane.id > :last ORDER BY lane.id";

pub(super) const QUEUE_SETTINGS: &str = "
    SELECT name, paused_at IS NOT NULL, max_running FROM punctual_queue INDEXED BY punctual_queue_set
    WHERE paused_at IS NOT NULL OR max_running IS NOT NULL";

/// The first pending task from a lane and priority on, and so step by step all heads: a seek for each that there is. With `>`
/// SQLite would pass over all tasks of that priority.
pub(super) const NEXT_HEAD: &str = "
    SELECT lane, priority, scheduled_at FROM punctual_task INDEXED BY punctual_task_due
    WHERE state = 0 AND (lane, priority) >= (:lane, :priority)
    ORDER BY lane, priority, scheduled_at LIMIT 1";

pub(super) const HEAD: &str = "
    SELECT scheduled_at FROM punctual_task INDEXED BY punctual_task_due
    WHERE state = 0 AND lane = :lane AND priority = :priority
    ORDER BY scheduled_at LIMIT 1";

impl Lanes {
    /// Reads all lanes and their true heads.
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let mut lanes = Self::default();
        lanes.catch_up(ForeignChanges::read(conn, 0)?);
        lanes.set_heads(read_heads(conn)?);
        Ok(lanes)
    }

    /// The number of the last lane.
    pub(super) fn last(&self) -> i64 {
        self.list.iter().map(|lane| lane.id.0).max().unwrap_or(0)
    }

    /// Another process has committed: takes over its lanes and settings at once. The heads are only marked.
    pub(super) fn catch_up(&mut self, news: ForeignChanges) {
        self.is_stale = true;
        for lane in news.lanes {
            if !self.by_id.contains_key(&lane.id) {
                self.add(lane);
            }
        }
        if news.settings != self.settings {
            self.settings = news.settings;
            for lane in &mut self.list {
                let setting = self.settings.get(&*lane.queue).copied().unwrap_or_default();
                (lane.paused, lane.limit) = (setting.paused, setting.limit);
            }
        }
    }

    /// Whether the heads have to be read again before they can be relied on.
    pub(super) fn is_stale(&self) -> bool {
        self.is_stale
    }

    pub(super) fn set_heads(&mut self, heads: Vec<(LaneId, i64, Timestamp)>) {
        for lane in &mut self.list {
            lane.heads = Heads::default();
        }
        for (lane, priority, at) in heads {
            if let Some(&index) = self.by_id.get(&lane)
                && let Ok(priority) = usize::try_from(priority)
                && let Some(head) = self.list[index].heads.get_mut(priority)
            {
                *head = Some(at);
            }
        }
        self.is_stale = false;
    }

    fn add(&mut self, mut lane: Lane) {
        if let Some(setting) = self.settings.get(&*lane.queue) {
            (lane.paused, lane.limit) = (setting.paused, setting.limit);
        }
        let name = (Arc::clone(&lane.queue), Arc::clone(&lane.kind), lane.class);
        self.by_name.insert(name, lane.id);
        self.by_id.insert(lane.id, self.list.len());
        self.list.push(lane);
    }

    pub(super) fn list(&self) -> &[Lane] {
        &self.list
    }

    /// The limits of queues, whether or not those have a lane.
    pub(super) fn limits(&self) -> impl Iterator<Item = (&String, u32)> {
        let limit =
            |(queue, setting): (_, &QueueSettings)| setting.limit.map(|limit| (queue, limit));
        self.settings.iter().filter_map(limit)
    }

    pub(super) fn paused(&self) -> impl Iterator<Item = &String> {
        let paused = self.settings.iter().filter(|(_, setting)| setting.paused);
        paused.map(|(queue, _)| queue)
    }

    pub(super) fn get(&self, id: LaneId) -> Option<&Lane> {
        self.by_id.get(&id).map(|&index| &self.list[index])
    }

    /// Finds a lane without allocating: there are few, and the callers' names are their own.
    fn find(&self, queue: &str, kind: &str, class: Class) -> Option<LaneId> {
        // Linear up to a handful; then the map.
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
    pub(super) fn learn(&mut self, learnt: Learnt) {
        for lane in learnt.created {
            if !self.by_id.contains_key(&lane.id) {
                self.add(lane);
            }
        }
        for ((id, priority), head) in learnt.heads {
            if let Some(&index) = self.by_id.get(&id) {
                head.apply_to(&mut self.list[index].heads[usize::from(priority)]);
            }
        }
        for (queue, change) in learnt.queues {
            for lane in self.list.iter_mut().filter(|lane| *lane.queue == *queue) {
                change.apply_to(&mut lane.paused, &mut lane.limit);
            }
            let setting = self.settings.entry(queue).or_default();
            change.apply_to(&mut setting.paused, &mut setting.limit);
        }
        self.settings
            .retain(|_, setting| *setting != QueueSettings::default());
    }
}

/// What other processes did to the lanes, but for their heads.
#[derive(Debug)]
pub(super) struct ForeignChanges {
    lanes: Vec<Lane>,
    settings: BTreeMap<String, QueueSettings>,
}

impl ForeignChanges {
    /// Reads the lanes after `last`, and what is set of queues.
    pub(super) fn read(conn: &Connection, last: i64) -> rusqlite::Result<Self> {
        let lanes = conn
            .prepare_cached(NEW_LANES)?
            .query_map([last], |row| {
                Ok(Lane {
                    id: LaneId(row.get(0)?),
                    queue: row.get(1)?,
                    kind: row.get(2)?,
                    class: row::class(row, 3)?,
                    paused: false,
                    limit: None,
                    heads: Heads::default(),
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let settings = conn
            .prepare_cached(QUEUE_SETTINGS)?
            .query_map([], |row| {
                let (paused, limit) = (row.get(1)?, row::limit(row, 2)?);
                Ok((row.get(0)?, QueueSettings { paused, limit }))
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self { lanes, settings })
    }
}

/// Reads the true heads: a seek for each that there is, whatever the number of tasks. Never after a transaction has changed
/// anything: that may be rolled back.
pub(super) fn read_heads(conn: &Connection) -> rusqlite::Result<Vec<(LaneId, i64, Timestamp)>> {
    let mut heads = Vec::new();
    let mut statement = conn.prepare_cached(NEXT_HEAD)?;
    let mut from = (i64::MIN, i64::MIN);
    loop {
        let next: Option<(i64, i64, i64)> = statement
            .query_row(params![from.0, from.1], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
        let Some((lane, priority, at)) = next else {
            return Ok(heads);
        };
        heads.push((LaneId(lane), priority, Timestamp::from_micros(at)));
        // A damaged priority may be any number.
        from = match (priority.checked_add(1), lane.checked_add(1)) {
            (Some(after), _) => (lane, after),
            (None, Some(after)) => (after, i64::MIN),
            (None, None) => return Ok(heads),
        };
    }
}

/// What a transaction learns about lanes, to be kept if it commits.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    created: Vec<Lane>,
    heads: HashMap<(LaneId, u8), Head>,
    queues: Vec<(String, QueueChange)>,
}

/// A change of what is set of a queue.
#[derive(Debug, Clone, Copy)]
pub(super) enum QueueChange {
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
    /// Whether nothing earlier is known to be there, or only that something is.
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
    pub(super) fn created(&self, id: LaneId) -> Option<&Lane> {
        self.created.iter().find(|lane| lane.id == id)
    }

    pub(super) fn all_created(&self) -> impl Iterator<Item = &Lane> {
        self.created.iter()
    }

    pub(super) fn created_count(&self) -> usize {
        self.created.len()
    }

    /// The lane as this transaction sees it.
    pub(super) fn apply_to(&self, lane: &mut Lane) {
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

    /// A pending task was added.
    pub(super) fn added(&mut self, lane: LaneId, priority: u8, at: Timestamp) {
        self.heads
            .entry((lane, priority))
            .and_modify(|head| head.at = Some(head.at.map_or(at, |known| known.min(at))))
            .or_insert(Head {
                at: Some(at),
                exact: false,
            });
    }

    /// Nothing before `at` is pending.
    pub(super) fn found(&mut self, lane: LaneId, priority: u8, at: Option<Timestamp>) {
        self.heads
            .insert((lane, priority), Head { at, exact: true });
    }

    pub(super) fn changed(&mut self, queue: String, change: QueueChange) {
        self.queues.push((queue, change));
    }
}

const FIND_QUEUE: &str =
    "SELECT id, paused_at IS NOT NULL, max_running FROM punctual_queue WHERE name = :name";
const ADD_QUEUE: &str = "INSERT INTO punctual_queue (name) VALUES (:name)";
const FIND_LANE: &str =
    "SELECT id FROM punctual_lane WHERE queue = :queue AND kind = :kind AND class = :class";
const ADD_LANE: &str =
    "INSERT INTO punctual_lane (queue, kind, class) VALUES (:queue, :kind, :class)";

/// The number of a queue, which is added if it is new, and what is set of it.
pub(super) fn queue_id(conn: &Connection, name: &str) -> rusqlite::Result<(i64, QueueSettings)> {
    let found = conn
        .prepare_cached(FIND_QUEUE)?
        .query_row([name], |row| {
            let (paused, limit) = (row.get(1)?, row::limit(row, 2)?);
            Ok((row.get(0)?, QueueSettings { paused, limit }))
        })
        .optional()?;
    if let Some(found) = found {
        return Ok(found);
    }
    conn.prepare_cached(ADD_QUEUE)?.execute([name])?;
    Ok((conn.last_insert_rowid(), QueueSettings::default()))
}

/// The number of a lane, which is added if it is new.
pub(super) fn lane_id(
    conn: &Connection,
    known: &Lanes,
    learnt: &mut Learnt,
    queue: &str,
    kind: &str,
    class: Class,
) -> rusqlite::Result<LaneId> {
    if let Some(id) = known.find(queue, kind, class) {
        return Ok(id);
    }
    let fresh = learnt
        .created
        .iter()
        .find(|lane| lane.class == class && *lane.kind == *kind && *lane.queue == *queue);
    if let Some(lane) = fresh {
        return Ok(lane.id);
    }
    let (queue_id, setting) = queue_id(conn, queue)?;
    let found: Option<i64> = conn
        .prepare_cached(FIND_LANE)?
        .query_row(params![queue_id, kind, class.code()], |row| row.get(0))
        .optional()?;
    let id = match found {
        Some(id) => id,
        None => {
            conn.prepare_cached(ADD_LANE)?
                .execute(params![queue_id, kind, class.code()])?;
            conn.last_insert_rowid()
        }
    };
    // Another process may have filled it: its heads are asked for, not assumed.
    let mut heads = Heads::default();
    if found.is_some() {
        let mut statement = conn.prepare_cached(HEAD)?;
        for (priority, head) in (0..=i64::from(MAX_PRIORITY)).zip(&mut heads) {
            *head = statement
                .query_row(params![id, priority], |row| row.get(0))
                .optional()?
                .map(Timestamp::from_micros);
        }
    }
    learnt.created.push(Lane {
        id: LaneId(id),
        queue: queue.into(),
        kind: kind.into(),
        class,
        paused: setting.paused,
        limit: setting.limit,
        heads,
    });
    Ok(LaneId(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::{open, schema};

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn file() -> (Connection, Lanes, LaneId) {
        let conn = open::memory().unwrap();
        schema::migrate(&conn).unwrap();
        let mut lanes = Lanes::default();
        let mut learnt = Learnt::default();
        let id = lane_id(&conn, &lanes, &mut learnt, "mail", "send", Class::Plain).unwrap();
        lanes.learn(learnt);
        (conn, lanes, id)
    }

    #[test]
    fn a_lane_is_made_once_and_found_again() {
        let (conn, mut lanes, id) = file();
        let mut learnt = Learnt::default();
        assert_eq!(
            lane_id(&conn, &lanes, &mut learnt, "mail", "send", Class::Plain).unwrap(),
            id
        );
        let other = lane_id(&conn, &lanes, &mut learnt, "mail", "send", Class::Suspect).unwrap();
        assert_ne!(other, id);
        assert_eq!(
            lane_id(&conn, &lanes, &mut learnt, "mail", "send", Class::Suspect).unwrap(),
            other
        );
        lanes.learn(learnt);
        assert_eq!(lanes.list().len(), 2);
        for n in 0..10 {
            let mut learnt = Learnt::default();
            let kind = format!("kind{n}");
            let id = lane_id(&conn, &lanes, &mut learnt, "mail", &kind, Class::Plain).unwrap();
            lanes.learn(learnt);
            assert_eq!(
                lanes.find("mail", &kind, Class::Plain),
                Some(id),
                "linear or by the map"
            );
        }
        assert_eq!(Lanes::load(&conn).unwrap().list().len(), 12);
    }

    #[test]
    fn what_a_rolled_back_transaction_created_is_not_known() {
        let (conn, lanes, _) = file();
        conn.execute_batch("BEGIN").unwrap();
        let mut learnt = Learnt::default();
        lane_id(&conn, &lanes, &mut learnt, "mail", "other", Class::Plain).unwrap();
        conn.execute_batch("ROLLBACK").unwrap();
        drop(learnt);
        assert_eq!(lanes.find("mail", "other", Class::Plain), None);
    }

    #[test]
    fn a_head_is_lowered_by_what_is_added_and_set_by_what_is_found() {
        let (_conn, mut lanes, id) = file();
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
}
