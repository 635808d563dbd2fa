//! The lanes of the file, and when each has something due: the dispatcher's timer.
//!
//! Invariant: a head is never later than the truth, but for what another process did since the last load; the first
//! thing in every transaction is to load again if there was such a one. What a transaction learns is kept apart until it
//! has committed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::limits::MAX_PRIORITY;
use crate::model::op::{Heads, Lane, LaneId};
use crate::time::Timestamp;

/// The lanes as of the last commit.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    list: Vec<Lane>,
    by_name: HashMap<(Arc<str>, Arc<str>, bool), LaneId>,
    by_id: HashMap<LaneId, usize>,
    /// Queues that are paused, whether or not they have a lane.
    paused: BTreeSet<String>,
}

const LOAD: &str = "
    SELECT lane.id, queue.name, lane.kind, lane.suspect, queue.paused_at IS NOT NULL
    FROM punctual_lane AS lane JOIN punctual_queue AS queue ON queue.id = lane.queue
    ORDER BY lane.id";

const PAUSED: &str = "SELECT name FROM punctual_queue WHERE paused_at IS NOT NULL";

pub(super) const HEAD: &str = "
    SELECT scheduled_at FROM punctual_task INDEXED BY punctual_task_due
    WHERE state = 0 AND lane = :lane AND priority = :priority
    ORDER BY scheduled_at LIMIT 1";

impl Lanes {
    /// Reads all lanes and their true heads: ten seeks a lane, whatever the number of tasks.
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let mut lanes = Self::default();
        let mut statement = conn.prepare_cached(LOAD)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            lanes.add(Lane {
                id: LaneId(row.get(0)?),
                queue: row.get(1)?,
                kind: row.get(2)?,
                suspect: row.get(3)?,
                paused: row.get(4)?,
                heads: Heads::default(),
            });
        }
        lanes.paused = conn
            .prepare_cached(PAUSED)?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut statement = conn.prepare_cached(HEAD)?;
        for lane in &mut lanes.list {
            for (priority, head) in (0_i64..).zip(&mut lane.heads) {
                *head = statement
                    .query_row(params![lane.id.0, priority], |row| row.get(0))
                    .optional()?
                    .map(Timestamp::from_micros);
            }
        }
        Ok(lanes)
    }

    fn add(&mut self, lane: Lane) {
        let name = (
            Arc::clone(&lane.queue),
            Arc::clone(&lane.kind),
            lane.suspect,
        );
        self.by_name.insert(name, lane.id);
        self.by_id.insert(lane.id, self.list.len());
        self.list.push(lane);
    }

    pub(super) fn list(&self) -> &[Lane] {
        &self.list
    }

    pub(super) fn paused(&self) -> impl Iterator<Item = &String> {
        self.paused.iter()
    }

    pub(super) fn get(&self, id: LaneId) -> Option<&Lane> {
        self.by_id.get(&id).map(|&index| &self.list[index])
    }

    /// Finds a lane without allocating: there are few, and the callers' names are their own.
    fn find(&self, queue: &str, kind: &str, suspect: bool) -> Option<LaneId> {
        // Linear up to a handful; then the map.
        if self.list.len() <= 8 {
            return self
                .list
                .iter()
                .find(|lane| {
                    lane.suspect == suspect && *lane.kind == *kind && *lane.queue == *queue
                })
                .map(|lane| lane.id);
        }
        self.by_name
            .get(&(Arc::from(queue), Arc::from(kind), suspect))
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
        for (queue, paused) in learnt.paused {
            for lane in self.list.iter_mut().filter(|lane| *lane.queue == *queue) {
                lane.paused = paused;
            }
            if paused {
                self.paused.insert(queue);
            } else {
                self.paused.remove(&queue);
            }
        }
    }
}

/// What a transaction learns about lanes, to be kept if it commits.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    created: Vec<Lane>,
    heads: HashMap<(LaneId, u8), Head>,
    paused: Vec<(String, bool)>,
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
        for (queue, paused) in &self.paused {
            if *lane.queue == **queue {
                lane.paused = *paused;
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

    pub(super) fn paused(&mut self, queue: String, paused: bool) {
        self.paused.push((queue, paused));
    }
}

const FIND_QUEUE: &str = "SELECT id, paused_at IS NOT NULL FROM punctual_queue WHERE name = :name";
const ADD_QUEUE: &str = "INSERT INTO punctual_queue (name) VALUES (:name)";
const FIND_LANE: &str =
    "SELECT id FROM punctual_lane WHERE queue = :queue AND kind = :kind AND suspect = :suspect";
const ADD_LANE: &str =
    "INSERT INTO punctual_lane (queue, kind, suspect) VALUES (:queue, :kind, :suspect)";

/// The number of a queue, which is added if it is new, and whether it is paused.
pub(super) fn queue_id(conn: &Connection, name: &str) -> rusqlite::Result<(i64, bool)> {
    let found = conn
        .prepare_cached(FIND_QUEUE)?
        .query_row([name], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some(found) = found {
        return Ok(found);
    }
    conn.prepare_cached(ADD_QUEUE)?.execute([name])?;
    Ok((conn.last_insert_rowid(), false))
}

/// The number of a lane, which is added if it is new.
pub(super) fn lane_id(
    conn: &Connection,
    known: &Lanes,
    learnt: &mut Learnt,
    queue: &str,
    kind: &str,
    suspect: bool,
) -> rusqlite::Result<LaneId> {
    if let Some(id) = known.find(queue, kind, suspect) {
        return Ok(id);
    }
    let fresh = learnt
        .created
        .iter()
        .find(|lane| lane.suspect == suspect && *lane.kind == *kind && *lane.queue == *queue);
    if let Some(lane) = fresh {
        return Ok(lane.id);
    }
    let (queue_id, paused) = queue_id(conn, queue)?;
    let found: Option<i64> = conn
        .prepare_cached(FIND_LANE)?
        .query_row(params![queue_id, kind, suspect], |row| row.get(0))
        .optional()?;
    let id = match found {
        Some(id) => id,
        None => {
            conn.prepare_cached(ADD_LANE)?
                .execute(params![queue_id, kind, suspect])?;
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
        suspect,
        paused,
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
        let id = lane_id(&conn, &lanes, &mut learnt, "mail", "send", false).unwrap();
        lanes.learn(learnt);
        (conn, lanes, id)
    }

    #[test]
    fn a_lane_is_made_once_and_found_again() {
        let (conn, mut lanes, id) = file();
        let mut learnt = Learnt::default();
        assert_eq!(
            lane_id(&conn, &lanes, &mut learnt, "mail", "send", false).unwrap(),
            id
        );
        let other = lane_id(&conn, &lanes, &mut learnt, "mail", "send", true).unwrap();
        assert_ne!(other, id);
        assert_eq!(
            lane_id(&conn, &lanes, &mut learnt, "mail", "send", true).unwrap(),
            other
        );
        lanes.learn(learnt);
        assert_eq!(lanes.list().len(), 2);
        for n in 0..10 {
            let mut learnt = Learnt::default();
            let kind = format!("kind{n}");
            let id = lane_id(&conn, &lanes, &mut learnt, "mail", &kind, false).unwrap();
            lanes.learn(learnt);
            assert_eq!(
                lanes.find("mail", &kind, false),
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
        lane_id(&conn, &lanes, &mut learnt, "mail", "other", false).unwrap();
        conn.execute_batch("ROLLBACK").unwrap();
        drop(learnt);
        assert_eq!(lanes.find("mail", "other", false), None);
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
