//! The lanes of the file, and when each has something due: the dispatcher's timer.
//!
//! Invariant: a head is never later than the truth, but for what another process did since the heads were read; they are
//! read again before a claim if there was such a one. What a transaction learns is kept apart until it has committed.
//!
//! A retired lane is not among them: a task that is inserted into it would be found by no claim. So retirements by other
//! processes are learnt at the beginning of each transaction, before anything is written.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::limits::MAX_PRIORITY;
use crate::model::op::{Class, Heads, KnownLanes, Lane, LaneId};
use crate::store::sqlite::ops::row;
use crate::time::Timestamp;

/// The lanes in use as of the last commit.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    list: Vec<Lane>,
    /// Changes with each lane that is added or removed.
    version: u64,
    /// The greatest number of a lane so far.
    last: i64,
    /// The number of the last retirement that is known.
    retired: i64,
    by_name: HashMap<(Arc<str>, Arc<str>, Class), LaneId>,
    by_id: HashMap<LaneId, usize>,
    /// What is set of queues, whether or not they have a lane.
    settings: BTreeMap<String, QueueSettings>,
    /// Another process may have changed what is due since the heads were read.
    is_stale: bool,
}

/// What is set of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct QueueSettings {
    paused: bool,
    limit: Option<u32>,
}

/// The lanes in use after the last known one: numbers only grow, so these are all that are new.
pub(crate) const NEW_LANES: &str = "
    SELECT lane.id, queue.name, lane.kind, lane.class
    FROM punctual_lane AS lane INDEXED BY punctual_lane_retired
    JOIN punctual_queue AS queue ON queue.id = lane.queue
    WHERE lane.retired = 0 AND lane.id > :last ORDER BY lane.id";

pub(crate) const NEWLY_RETIRED: &str = "
    SELECT id FROM punctual_lane INDEXED BY punctual_lane_retired WHERE retired > :retired";

/// Any lane, retired or not.
pub(crate) const LANE: &str = "
    SELECT queue.name, lane.kind, lane.class, queue.paused_at IS NOT NULL, queue.max_running
    FROM punctual_lane AS lane JOIN punctual_queue AS queue ON queue.id = lane.queue
    WHERE lane.id = :id";

/// A counter in the file: its numbers are never used again.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Counter {
    /// The number of the last lane.
    Lanes,
    /// The number of the last retirement.
    Retirements,
    /// The greatest number of a retirement whose lanes are deleted, some or all of them.
    Forgotten,
}

impl Counter {
    fn key(self) -> &'static str {
        match self {
            Self::Lanes => "lanes",
            Self::Retirements => "retirements",
            Self::Forgotten => "forgotten",
        }
    }

    pub(crate) fn read(self, conn: &Connection) -> rusqlite::Result<i64> {
        let value: Option<i64> = conn
            .prepare_cached(READ_COUNTER)?
            .query_row([self.key()], |row| row.get(0))
            .optional()?;
        Ok(value.unwrap_or(0))
    }

    /// The next number.
    pub(crate) fn draw(self, conn: &Connection) -> rusqlite::Result<i64> {
        conn.prepare_cached(DRAW)?
            .query_row([self.key()], |row| row.get(0))
    }

    pub(crate) fn raise_to(self, conn: &Connection, value: i64) -> rusqlite::Result<()> {
        conn.prepare_cached(RAISE)?
            .execute(params![self.key(), value])
            .map(|_| ())
    }
}

const READ_COUNTER: &str = "SELECT value FROM punctual_meta WHERE key = :key";

const DRAW: &str = "
    INSERT INTO punctual_meta (key, value) VALUES (:key, 1)
    ON CONFLICT (key) DO UPDATE SET value = value + 1
    RETURNING value";

const RAISE: &str = "
    INSERT INTO punctual_meta (key, value) VALUES (:key, :value)
    ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)";

pub(crate) const QUEUE_SETTINGS: &str = "
    SELECT name, paused_at IS NOT NULL, max_running FROM punctual_queue INDEXED BY punctual_queue_set
    WHERE paused_at IS NOT NULL OR max_running IS NOT NULL";

/// The first pending task from a lane and priority on, and so step by step all heads: a seek for each that there is. With `>`
/// SQLite would pass over all tasks of that priority.
pub(crate) const NEXT_HEAD: &str = "
    SELECT lane, priority, scheduled_at FROM punctual_task INDEXED BY punctual_task_due
    WHERE state = 0 AND (lane, priority) >= (:lane, :priority)
    ORDER BY lane, priority, scheduled_at LIMIT 1";

pub(crate) const HEAD: &str = "
    SELECT scheduled_at FROM punctual_task INDEXED BY punctual_task_due
    WHERE state = 0 AND lane = :lane AND priority = :priority
    ORDER BY scheduled_at LIMIT 1";

impl Lanes {
    /// Reads the lanes in use and their true heads.
    pub(crate) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let mut lanes = Self::default();
        lanes.catch_up(ForeignChanges::read(conn, lanes.known())?);
        lanes.set_heads(read_heads(conn)?);
        Ok(lanes)
    }

    /// Up to where the lanes are known.
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

    /// Another process has committed: takes over its lanes and settings at once. The heads are only marked.
    pub(crate) fn catch_up(&mut self, news: ForeignChanges) {
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
        if news.settings != self.settings {
            self.settings = news.settings;
            for lane in &mut self.list {
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
        self.by_name.insert(name_of(&lane), lane.id);
        self.by_id.insert(lane.id, self.list.len());
        self.last = self.last.max(lane.id.0);
        self.version += 1;
        self.list.push(lane);
    }

    /// Forgets lanes that are retired, and the memory that they took.
    fn remove(&mut self, retired: &[LaneId]) {
        for id in retired {
            let Some(index) = self.by_id.remove(id) else {
                continue;
            };
            let lane = self.list.swap_remove(index);
            if let Some(moved) = self.list.get(index) {
                self.by_id.insert(moved.id, index);
            }
            let name = name_of(&lane);
            // There may be a new lane of the same name by now.
            if self.by_name.get(&name) == Some(id) {
                self.by_name.remove(&name);
            }
            self.version += 1;
        }
        let room = 2 * self.list.len();
        if self.list.capacity() > 2 * room {
            self.list.shrink_to(room);
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
            list: self.list.clone(),
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

fn name_of(lane: &Lane) -> (Arc<str>, Arc<str>, Class) {
    (Arc::clone(&lane.queue), Arc::clone(&lane.kind), lane.class)
}

/// Up to where the lanes of the file are known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    last: i64,
    retired: i64,
}

impl Known {
    /// Whether no lane was retired since. The user's own connection asks, inside its transaction.
    pub(crate) fn has_all_retirements(self, conn: &Connection) -> rusqlite::Result<bool> {
        Ok(Counter::Retirements.read(conn)? == self.retired)
    }
}

/// What other processes did to the lanes, but for their heads.
#[derive(Debug)]
pub(crate) struct ForeignChanges {
    lanes: Vec<Lane>,
    gone: Gone,
    /// The number of the last retirement that is among them.
    retired: i64,
    settings: BTreeMap<String, QueueSettings>,
}

/// Which of the known lanes are not in use any more.
#[derive(Debug)]
enum Gone {
    These(Vec<LaneId>),
    /// All but those that were read.
    AllOthers,
}

impl ForeignChanges {
    /// Reads what was added and retired since, and what is set of queues.
    ///
    /// Another process may commit between two statements. What it does then is read at the next look, for these numbers are
    /// read before what they count. A lane may even be deleted then: only after the retired ones are read is it certain
    /// that none was missed.
    pub(crate) fn read(conn: &Connection, known: Known) -> rusqlite::Result<Self> {
        let retired = Counter::Retirements.read(conn)?;
        let mut lanes = new_lanes(conn, known.last)?;
        let mut gone = Gone::These(Vec::new());
        if retired > known.retired {
            gone = Gone::These(
                conn.prepare_cached(NEWLY_RETIRED)?
                    .query_map([known.retired], |row| row.get(0).map(LaneId))?
                    .collect::<rusqlite::Result<_>>()?,
            );
            if Counter::Forgotten.read(conn)? > known.retired {
                // Some of them are deleted already: which, only those that are left tell.
                lanes = new_lanes(conn, 0)?;
                gone = Gone::AllOthers;
            }
        }
        let settings = conn
            .prepare_cached(QUEUE_SETTINGS)?
            .query_map([], |row| {
                let (paused, limit) = (row.get(1)?, row::limit(row, 2)?);
                Ok((row.get(0)?, QueueSettings { paused, limit }))
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self {
            lanes,
            gone,
            retired,
            settings,
        })
    }
}

/// The lanes in use after `last`.
fn new_lanes(conn: &Connection, last: i64) -> rusqlite::Result<Vec<Lane>> {
    conn.prepare_cached(NEW_LANES)?
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
        .collect()
}

/// Reads the lane of that number, retired or not.
pub(crate) fn read_lane(conn: &Connection, id: LaneId) -> rusqlite::Result<Option<Lane>> {
    conn.prepare_cached(LANE)?
        .query_row([id.0], |row| {
            Ok(Lane {
                id,
                queue: row.get(0)?,
                kind: row.get(1)?,
                class: row::class(row, 2)?,
                paused: row.get(3)?,
                limit: row::limit(row, 4)?,
                heads: Heads::default(),
            })
        })
        .optional()
}

/// Reads the true heads: a seek for each that there is, whatever the number of tasks. Never after a transaction has changed
/// anything: that may be rolled back.
pub(crate) fn read_heads(conn: &Connection) -> rusqlite::Result<Vec<(LaneId, i64, Timestamp)>> {
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
pub(crate) struct Learnt {
    created: Vec<Lane>,
    /// The number of a retirement, and the lanes retired with it.
    retirement: Option<i64>,
    retired: HashSet<LaneId>,
    heads: HashMap<(LaneId, u8), Head>,
    queues: Vec<(String, QueueChange)>,
}

/// A change of what is set of a queue.
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
    pub(crate) fn created(&self, id: LaneId) -> Option<&Lane> {
        self.created.iter().find(|lane| lane.id == id)
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

    /// Lanes were retired under this number.
    pub(crate) fn retired(&mut self, number: i64, lanes: impl IntoIterator<Item = LaneId>) {
        self.retirement = Some(number);
        self.retired.extend(lanes);
    }

    /// The lane as this transaction sees it.
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

    /// A pending task was added.
    pub(crate) fn added(&mut self, lane: LaneId, priority: u8, at: Timestamp) {
        self.heads
            .entry((lane, priority))
            .and_modify(|head| head.at = Some(head.at.map_or(at, |known| known.min(at))))
            .or_insert(Head {
                at: Some(at),
                exact: false,
            });
    }

    /// Nothing before `at` is pending.
    pub(crate) fn found(&mut self, lane: LaneId, priority: u8, at: Option<Timestamp>) {
        self.heads
            .insert((lane, priority), Head { at, exact: true });
    }

    pub(crate) fn changed(&mut self, queue: String, change: QueueChange) {
        self.queues.push((queue, change));
    }
}

const FIND_QUEUE: &str =
    "SELECT id, paused_at IS NOT NULL, max_running FROM punctual_queue WHERE name = :name";
const ADD_QUEUE: &str = "INSERT INTO punctual_queue (name) VALUES (:name)";
pub(crate) const FIND_LANE: &str = "
    SELECT id FROM punctual_lane
    WHERE queue = :queue AND kind = :kind AND class = :class AND retired = 0";
const ADD_LANE: &str =
    "INSERT INTO punctual_lane (id, queue, kind, class) VALUES (:id, :queue, :kind, :class)";

/// The number of a queue, which is added if it is new, and what is set of it.
pub(crate) fn queue_id(conn: &Connection, name: &str) -> rusqlite::Result<(i64, QueueSettings)> {
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

/// The number of the lane in use for these tasks, which is added if there is none.
pub(crate) fn lane_id(
    conn: &Connection,
    known: &Lanes,
    learnt: &mut Learnt,
    queue: &str,
    kind: &str,
    class: Class,
) -> rusqlite::Result<LaneId> {
    if let Some(id) = known.find(queue, kind, class)
        && !learnt.is_retired(id)
    {
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
            let id = Counter::Lanes.draw(conn)?;
            conn.prepare_cached(ADD_LANE)?
                .execute(params![id, queue_id, kind, class.code()])?;
            id
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
    use crate::store::sqlite::file::open;
    use crate::store::sqlite::file::schema;

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
