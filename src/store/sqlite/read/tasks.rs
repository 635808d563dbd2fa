//! Reading tasks: one, a page of those that match a filter, or how many do.
//!
//! No read transaction is long: lists and counts go by windows of the id index, each a statement of its own.

use std::sync::Mutex;

use rusqlite::{Connection, OptionalExtension, Row};

use crate::id::TaskId;
use crate::model::filter::{Cursor, Filter, Page};
use crate::model::op::{Lane, LaneId};
use crate::model::query::Counted;
use crate::model::task::{Options, Task, TaskState};
use crate::store::lanes::Lanes;
use crate::store::sqlite::ops::insert::checksum;
use crate::store::sqlite::ops::lanes::read_lane;
use crate::store::sqlite::ops::matching::{Examine, Matching, Terms, over_tasks};
use crate::store::sqlite::ops::row;
use crate::store::sqlite::ops::write_tx::extra;
use crate::tell::tell;
use crate::time::Timestamp;
use crate::wake::lock;

/// A page carries at most this much of payloads and results, and one task more.
const MAX_PAGE_BYTES: usize = 4 << 20;

pub(crate) const STATE: &str = "SELECT state FROM punctual_task WHERE id = :id";

pub(super) fn state(conn: &Connection, id: TaskId) -> rusqlite::Result<Option<TaskState>> {
    let code: Option<i64> = conn
        .prepare_cached(STATE)?
        .query_row([&id.as_bytes()[..]], |row| row.get(0))
        .optional()?;
    code.map(state_of).transpose()
}

pub(super) fn state_of(code: i64) -> rusqlite::Result<TaskState> {
    TaskState::from_code(code).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, code))
}

macro_rules! columns {
    () => {
        "seq, id, lane, priority, state, attempt, crashes, max_attempts, scheduled_at, created_at, started_at,
        finished_at, expires_at, cancel_requested_at IS NOT NULL, extras, checksum, partition, options, payload"
    };
}

pub(crate) const TASK: &str = concat!("SELECT ", columns!(), " FROM punctual_task WHERE id = :id");

pub(crate) const LIST: Matching = over_tasks!([columns!()], " ORDER BY id LIMIT :limit");

pub(crate) const LIST_BACKWARDS: Matching =
    over_tasks!([columns!()], " ORDER BY id DESC LIMIT :limit");

pub(crate) const COUNT: Matching = over_tasks!(["count(*)"], "");

pub(super) fn task(
    conn: &Connection,
    lanes: &Mutex<Lanes>,
    id: TaskId,
) -> rusqlite::Result<Option<Task>> {
    // One snapshot for the row and what belongs to it.
    let snapshot = conn.unchecked_transaction()?;
    let found = conn
        .prepare_cached(TASK)?
        .query_row([&id.as_bytes()[..]], Stored::new)
        .optional()?;
    let task = found
        .map(|stored| stored.complete(conn, lanes))
        .transpose()?;
    snapshot.finish()?;
    Ok(task)
}

pub(super) fn list(
    conn: &Connection,
    lanes: &Mutex<Lanes>,
    filter: &Filter,
) -> rusqlite::Result<Page> {
    let mut page = Page {
        tasks: Vec::new(),
        next: None,
    };
    let limit = filter.page_size();
    let after = filter.after.map(|cursor| cursor.0);
    let snapshot = conn.unchecked_transaction()?;
    let examine = Examine::after(conn, after, filter.newest_first, limit as i64, filter)?;
    if let Some(examine) = examine {
        let terms = Terms::new(conn, filter)?;
        let query = if filter.newest_first {
            LIST_BACKWARDS
        } else {
            LIST
        };
        let mut statement = conn.prepare_cached(query.sql(filter))?;
        let mut rows = terms.query(&mut statement, examine.window)?;
        let (mut bytes, mut count) = (0, 0);
        let mut cut = None;
        while let Some(row) = rows.next()? {
            count += 1;
            let id = row::id(row, 1)?;
            match Stored::new(row).and_then(|stored| stored.complete(conn, lanes)) {
                Ok(task) => {
                    bytes += task.payload.len() + task.result.as_ref().map_or(0, Vec::len);
                    page.tasks.push(task);
                }
                // One damaged task does not hide the others; `get` says what is wrong with it.
                Err(error) => tell!(warn, task = %id, %error, "left out of a list"),
            }
            if count == limit || bytes >= MAX_PAGE_BYTES {
                cut = Some(id);
                break;
            }
        }
        page.next = cut.or(examine.last).map(Cursor);
    }
    snapshot.finish()?;
    Ok(page)
}

pub(super) fn count(
    conn: &Connection,
    filter: &Filter,
    after: Option<TaskId>,
) -> rusqlite::Result<Counted> {
    let Some(examine) = Examine::after(conn, after, false, 0, filter)? else {
        return Ok(Counted {
            count: 0,
            next: None,
        });
    };
    let terms = Terms::new(conn, filter)?;
    let mut statement = conn.prepare_cached(COUNT.sql(filter))?;
    let mut rows = terms.query(&mut statement, examine.window)?;
    let count: i64 = match rows.next()? {
        Some(row) => row.get(0)?,
        None => 0,
    };
    Ok(Counted {
        count: u64::try_from(count).unwrap_or(0),
        next: examine.last,
    })
}

/// A row of the task table, before what belongs to it is fetched.
struct Stored {
    seq: i64,
    lane: LaneId,
    extras: i64,
    checksum: i64,
    options: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    task: Task,
}

const PAYLOAD: &str = "SELECT payload FROM punctual_payload WHERE seq = :seq";
const RESULT: &str = "SELECT result FROM punctual_result WHERE seq = :seq";
const PROGRESS: &str = "SELECT value FROM punctual_progress WHERE seq = :seq";
const TAGS: &str = "SELECT tag FROM punctual_tag WHERE seq = :seq ORDER BY tag";
const ERROR: &str = "
    SELECT error FROM punctual_attempt WHERE seq = :seq AND error IS NOT NULL
    ORDER BY claim_no DESC LIMIT 1";

impl Stored {
    fn new(row: &Row<'_>) -> rusqlite::Result<Self> {
        let time = |index: usize| -> rusqlite::Result<Option<Timestamp>> {
            Ok(row
                .get::<_, Option<i64>>(index)?
                .map(Timestamp::from_micros))
        };
        let due = |index: usize| row.get(index).map(Timestamp::from_micros);
        Ok(Self {
            seq: row.get(0)?,
            lane: LaneId(row.get(2)?),
            extras: row.get(14)?,
            checksum: row.get(15)?,
            options: row.get(17)?,
            payload: row.get(18)?,
            task: Task {
                id: row::id(row, 1)?,
                kind: "".into(),
                queue: "".into(),
                partition: row.get(16)?,
                priority: row::priority(row, 3)?,
                state: state_of(row.get(4)?)?,
                created_at: due(9)?,
                scheduled_at: due(8)?,
                expires_at: time(12)?,
                started_at: time(10)?,
                finished_at: time(11)?,
                attempt: row::count(row, 5)?,
                crashes: row::count(row, 6)?,
                max_attempts: row::count(row, 7)?,
                delivery: Default::default(),
                cancel_requested: row.get(13)?,
                options: Options::default(),
                tags: Vec::new(),
                payload: Vec::new(),
                result: None,
                progress: None,
                error: None,
            },
        })
    }

    fn complete(self, conn: &Connection, lanes: &Mutex<Lanes>) -> rusqlite::Result<Task> {
        let Self {
            seq,
            extras,
            mut task,
            ..
        } = self;
        let blob = |bit: i64, sql: &str| -> rusqlite::Result<Option<Vec<u8>>> {
            if extras & bit == 0 {
                return Ok(None);
            }
            conn.prepare_cached(sql)?
                .query_row([seq], |row| row.get(0))
                .optional()
        };
        let lane = lane(conn, lanes, self.lane)?.ok_or_else(|| damaged("its lane is missing"))?;
        task.delivery = lane.class.delivery();
        (task.kind, task.queue) = (lane.kind, lane.queue);
        task.payload = match self.payload {
            Some(payload) => payload,
            None => {
                blob(extra::PAYLOAD, PAYLOAD)?.ok_or_else(|| damaged("its payload is missing"))?
            }
        };
        if checksum(task.id.as_bytes(), &task.kind, &task.payload) != self.checksum {
            return Err(damaged("its payload does not match its checksum"));
        }
        if let Some(options) = self.options {
            task.options = serde_json::from_slice(&options)
                .map_err(|_| damaged("its options cannot be decoded"))?;
        }
        task.result = blob(extra::RESULT, RESULT)?;
        task.progress = blob(extra::PROGRESS, PROGRESS)?;
        if extras & extra::TAGS != 0 {
            task.tags = conn
                .prepare_cached(TAGS)?
                .query_map([seq], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
        }
        if extras & extra::ATTEMPTS != 0 {
            task.error = conn
                .prepare_cached(ERROR)?
                .query_row([seq], |row| row.get(0))
                .optional()?;
        }
        Ok(task)
    }
}

/// An error about one row, of the kind that SQLite uses for a damaged file.
fn damaged(what: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some(format!("a task is damaged: {what}")),
    )
}

/// The lane of that number: known, or read if it is retired or of another process.
fn lane(conn: &Connection, lanes: &Mutex<Lanes>, id: LaneId) -> rusqlite::Result<Option<Lane>> {
    if let Some(lane) = lock(lanes).get(id) {
        return Ok(Some(lane.clone()));
    }
    read_lane(conn, id)
}
