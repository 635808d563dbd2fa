//! The lanes and queues of the file: their rows, and the heads of what is pending.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::lane::{Class, Heads, Lane, LaneId};
use crate::model::limits::MAX_PRIORITY;
use crate::store::lanes::{Changes, Gone, Known, Lanes, Learnt, QueueSettings};
use crate::store::sqlite::file::counter::Counter;
use crate::store::sqlite::ops::recur::head;
use crate::store::sqlite::ops::row;
use crate::store::sqlite::sql::{columns, sql};
use crate::time::Timestamp;

columns! {
    /// A lane, for a query over `punctual_lane AS lane` and `punctual_queue AS queue`.
    struct LaneRow {
        id: LaneId = "lane.id" by row::lane,
        queue: Arc<str> = "queue.name" by row::get,
        kind: Arc<str> = "lane.kind" by row::get,
        class: Class = "lane.class" by row::class,
    }
}

impl LaneRow {
    /// The lane, as yet without the settings of its queue and without heads.
    fn into_lane(self) -> Lane {
        Lane {
            id: self.id,
            queue: self.queue,
            kind: self.kind,
            class: self.class,
            paused: false,
            limit: None,
            heads: Heads::default(),
        }
    }
}

/// The lanes of the file, retired or not.
pub(crate) const LANES: &str = sql!(
    "SELECT {columns} FROM punctual_lane AS lane JOIN punctual_queue AS queue ON queue.id = lane.queue",
    columns = LaneRow::COLUMNS
);

/// The lanes in use after the last known one: numbers only grow, so these are all that are new.
pub(crate) const NEW_LANES: &str = sql!(
    "SELECT {columns}
    FROM punctual_lane AS lane INDEXED BY punctual_lane_retired
    JOIN punctual_queue AS queue ON queue.id = lane.queue
    WHERE lane.retired = {in_use} AND lane.id > :last ORDER BY lane.id",
    columns = LaneRow::COLUMNS
);

pub(crate) const NEWLY_RETIRED: &str = "
    SELECT id FROM punctual_lane INDEXED BY punctual_lane_retired WHERE retired > :retired";

/// Any lane, retired or not.
pub(crate) const LANE: &str = sql!(
    "SELECT {columns}
    FROM punctual_lane AS lane JOIN punctual_queue AS queue ON queue.id = lane.queue
    WHERE lane.id = :id",
    columns = LaneRow::COLUMNS
);

columns! {
    /// A queue.
    struct QueueRow {
        id: i64 = "id" by row::get,
        name: String = "name" by row::get,
        paused: bool = "paused_at IS NOT NULL" by row::get,
        limit: Option<u32> = "max_running" by row::limit,
    }
}

impl QueueRow {
    fn settings(&self) -> QueueSettings {
        QueueSettings {
            paused: self.paused,
            limit: self.limit,
        }
    }
}

/// The few queues that have settings.
const QUEUE_SETTINGS: &str = sql!(
    "SELECT {columns} FROM punctual_queue INDEXED BY punctual_queue_set
    WHERE paused_at IS NOT NULL OR max_running IS NOT NULL",
    columns = QueueRow::COLUMNS
);

columns! {
    /// The place of a task in the order of what is pending.
    struct HeadRow {
        lane: i64 = "lane" by row::get,
        priority: i64 = "priority" by row::get,
        at: Timestamp = "scheduled_at" by row::time,
    }
}

/// The first pending task from a lane and priority on. Repeated step by step it finds all heads, with a seek for each. With
/// `>` SQLite would pass over all tasks of that priority.
pub(crate) const NEXT_HEAD: &str = sql!(
    "SELECT {columns} FROM punctual_task INDEXED BY punctual_task_due
    WHERE state = {pending} AND (lane, priority) >= (:lane, :priority)
    ORDER BY lane, priority, scheduled_at LIMIT 1",
    columns = HeadRow::COLUMNS
);

pub(crate) const HEAD: &str = sql!(
    "
    SELECT scheduled_at FROM punctual_task INDEXED BY punctual_task_due
    WHERE state = {pending} AND lane = :lane AND priority = :priority
    ORDER BY scheduled_at LIMIT 1"
);

/// Reads the lanes in use and their true heads.
pub(crate) fn load(conn: &Connection) -> rusqlite::Result<Lanes> {
    let mut lanes = Lanes::default();
    lanes.catch_up(read_changes(conn, lanes.known())?);
    lanes.set_heads(read_heads(conn)?);
    lanes.set_recurrence_at(head::next(conn, head::ALL_READABLE)?);
    Ok(lanes)
}

/// Whether no lane was retired since `known`. It is asked on the user's own connection, inside its transaction.
pub(crate) fn has_all_retirements(conn: &Connection, known: Known) -> rusqlite::Result<bool> {
    Ok(Counter::Retirements.read(conn)? == known.retired)
}

/// Reads the lanes added and retired since `known`, and the settings of queues.
///
/// Another process may commit between two statements. Its changes are then read at the next look, because each counter is
/// read before what it counts. The process may even delete lanes, so `forgotten` is read after the retired lanes: only then
/// is it certain that none was missed.
pub(crate) fn read_changes(conn: &Connection, known: Known) -> rusqlite::Result<Changes> {
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
            // Some of them are deleted already: all known lanes are gone except those that are still in the file.
            lanes = new_lanes(conn, 0)?;
            gone = Gone::AllOthers;
        }
    }
    let settings = conn
        .prepare_cached(QUEUE_SETTINGS)?
        .query_map([], |row| {
            let queue = QueueRow::read(row)?;
            let settings = queue.settings();
            Ok((queue.name, settings))
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Changes {
        lanes,
        gone,
        retired,
        settings,
        troubled: head::troubled(conn)?,
        newer_tzdb: head::newer_tzdb(conn)?,
    })
}

/// The lanes in use after `last`.
fn new_lanes(conn: &Connection, last: i64) -> rusqlite::Result<Vec<Lane>> {
    conn.prepare_cached(NEW_LANES)?
        .query_map([last], |row| LaneRow::read(row).map(LaneRow::into_lane))?
        .collect()
}

/// Reads the lane of that number, retired or not, without settings and heads.
pub(crate) fn read_lane(conn: &Connection, id: LaneId) -> rusqlite::Result<Option<Lane>> {
    conn.prepare_cached(LANE)?
        .query_row([id.0], |row| LaneRow::read(row).map(LaneRow::into_lane))
        .optional()
}

/// Reads the true heads, with a seek for each, whatever the number of tasks. Never call it after a transaction has changed
/// anything: the change may be rolled back.
pub(crate) fn read_heads(conn: &Connection) -> rusqlite::Result<Vec<(LaneId, i64, Timestamp)>> {
    let mut heads = Vec::new();
    let mut statement = conn.prepare_cached(NEXT_HEAD)?;
    let mut from = (i64::MIN, i64::MIN);
    loop {
        let next = statement
            .query_row(params![from.0, from.1], HeadRow::read)
            .optional()?;
        let Some(HeadRow { lane, priority, at }) = next else {
            return Ok(heads);
        };
        heads.push((LaneId(lane), priority, at));
        // A damaged priority may be any number.
        from = match (priority.checked_add(1), lane.checked_add(1)) {
            (Some(after), _) => (lane, after),
            (None, Some(after)) => (after, i64::MIN),
            (None, None) => return Ok(heads),
        };
    }
}

const FIND_QUEUE: &str = sql!(
    "SELECT {columns} FROM punctual_queue WHERE name = :name",
    columns = QueueRow::COLUMNS
);
const ADD_QUEUE: &str = "INSERT INTO punctual_queue (name) VALUES (:name)";
pub(crate) const FIND_LANE: &str = sql!(
    "
    SELECT id FROM punctual_lane
    WHERE queue = :queue AND kind = :kind AND class = :class AND retired = {in_use}"
);
const ADD_LANE: &str =
    "INSERT INTO punctual_lane (id, queue, kind, class) VALUES (:id, :queue, :kind, :class)";

/// The number of a queue, which is added if it is new, and its settings.
pub(crate) fn queue_id(conn: &Connection, name: &str) -> rusqlite::Result<(i64, QueueSettings)> {
    let found = conn
        .prepare_cached(FIND_QUEUE)?
        .query_row([name], QueueRow::read)
        .optional()?;
    if let Some(queue) = found {
        return Ok((queue.id, queue.settings()));
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
    if let Some(id) = learnt.find(queue, kind, class) {
        return Ok(id);
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
    // Another process may have added tasks to it: its heads are read, not assumed.
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
    learnt.create(Lane {
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
    use crate::model::suspects::Level;
    use crate::store::sqlite::file::open;
    use crate::store::sqlite::file::schema;

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
        let other = lane_id(
            &conn,
            &lanes,
            &mut learnt,
            "mail",
            "send",
            Class::Suspect(Level::ALONE),
        )
        .unwrap();
        assert_ne!(other, id);
        assert_eq!(
            lane_id(
                &conn,
                &lanes,
                &mut learnt,
                "mail",
                "send",
                Class::Suspect(Level::ALONE)
            )
            .unwrap(),
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
        assert_eq!(load(&conn).unwrap().list().len(), 12);
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
}
