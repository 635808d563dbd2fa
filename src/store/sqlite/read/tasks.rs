//! Reading tasks: one, a page of those that match a filter, or how many do.
//!
//! No read transaction is long: lists and counts go by windows of the id index, each a statement of its own.

use std::sync::Mutex;

use rusqlite::{Connection, OptionalExtension};

use crate::id::TaskId;
use crate::log::log;
use crate::model::filter::{Cursor, Filter, Page};
use crate::model::lane::{Lane, LaneId};
use crate::model::query::Counted;
use crate::model::task::{Task, TaskState};
use crate::store::lanes::Lanes;
use crate::store::sqlite::ops::lanes::read_lane;
use crate::store::sqlite::ops::matching::{Examine, Matching, Terms, over_tasks};
use crate::store::sqlite::ops::trouble::Trouble;
use crate::store::sqlite::ops::{extras, options, payload, row};
use crate::store::sqlite::sql::{columns, extra, sql};
use crate::sync::lock;
use crate::time::Timestamp;

/// The most bytes of payloads and results on a page, beside those of its last task.
const MAX_PAGE_BYTES: usize = 4 << 20;

pub(crate) const STATE: &str = "SELECT state FROM punctual_task WHERE id = :id";

pub(super) fn state(conn: &Connection, id: TaskId) -> rusqlite::Result<Option<TaskState>> {
    conn.prepare_cached(STATE)?
        .query_row([&id.as_bytes()[..]], |row| row::state(row, 0))
        .optional()
}

pub(super) fn states(
    conn: &Connection,
    ids: &[TaskId],
) -> rusqlite::Result<Vec<Option<TaskState>>> {
    let snapshot = conn.unchecked_transaction()?;
    let states = ids.iter().map(|id| state(conn, *id));
    let states = states.collect::<rusqlite::Result<_>>()?;
    snapshot.finish()?;
    Ok(states)
}

pub(crate) const TASK: &str = sql!(
    "SELECT {columns} FROM punctual_task WHERE id = :id",
    columns = Stored::COLUMNS
);

pub(crate) const LIST: Matching = over_tasks!(Stored::COLUMNS, " ORDER BY id LIMIT :limit");

pub(crate) const LIST_BACKWARDS: Matching =
    over_tasks!(Stored::COLUMNS, " ORDER BY id DESC LIMIT :limit");

pub(crate) const COUNT: Matching = over_tasks!("count(*)", "");

pub(super) fn task(
    conn: &Connection,
    lanes: &Mutex<Lanes>,
    id: TaskId,
) -> rusqlite::Result<Option<Task>> {
    // One snapshot for the row and what belongs to it.
    let snapshot = conn.unchecked_transaction()?;
    let found = conn
        .prepare_cached(TASK)?
        .query_row([&id.as_bytes()[..]], Stored::read)
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
            let id = row::id(row, 0)?;
            match Stored::read(row).and_then(|stored| stored.complete(conn, lanes)) {
                Ok(task) => {
                    bytes += task.payload.len() + task.result.as_ref().map_or(0, Vec::len);
                    page.tasks.push(task);
                }
                // One damaged task does not hide the others; `get` says what is wrong with it.
                Err(error) => log!(warn, task = %id, %error, "left out of a list"),
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

columns! {
    /// A row of the task table, before what belongs to it is read.
    struct Stored {
        id: TaskId = "id" by row::id,
        seq: i64 = "seq" by row::get,
        lane: LaneId = "lane" by row::lane,
        priority: u8 = "priority" by row::priority,
        state: TaskState = "state" by row::state,
        attempt: u32 = "attempt" by row::count,
        max_attempts: u32 = "max_attempts" by row::count,
        scheduled_at: Timestamp = "scheduled_at" by row::time,
        created_at: Timestamp = "created_at" by row::time,
        started_at: Option<Timestamp> = "started_at" by row::time_or_none,
        finished_at: Option<Timestamp> = "finished_at" by row::time_or_none,
        expires_at: Option<Timestamp> = "expires_at" by row::time_or_none,
        cancel_requested: bool = "cancel_requested_at IS NOT NULL" by row::get,
        extras: i64 = "extras" by row::get,
        checksum: i64 = "checksum" by row::get,
        partition: Option<String> = "partition" by row::get,
        options: Option<Vec<u8>> = "options" by row::get,
        payload: Option<Vec<u8>> = "payload" by row::get,
    }
}

const RESULT: &str = "SELECT result FROM punctual_result WHERE seq = :seq";
const PROGRESS: &str = "SELECT value FROM punctual_progress WHERE seq = :seq";
const TAGS: &str = "SELECT tag FROM punctual_tag WHERE seq = :seq ORDER BY tag";

impl Stored {
    /// Reads what belongs to the task.
    fn complete(self, conn: &Connection, lanes: &Mutex<Lanes>) -> rusqlite::Result<Task> {
        let (seq, extras) = (self.seq, self.extras);
        let lane = lane(conn, lanes, self.lane)?.ok_or_else(|| damaged("its lane is missing"))?;
        let stored = payload::read(conn, seq, extras, self.payload)?;
        let payload =
            payload::verify(stored, self.checksum, self.id, &lane.kind).map_err(damaged)?;
        let mut tags = Vec::new();
        if extras & extra::TAGS != 0 {
            tags = conn
                .prepare_cached(TAGS)?
                .query_map([seq], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
        }
        let options = options::decode(self.options.as_deref()).map_err(damaged)?;
        let trouble = Trouble::of(conn, seq, extras)?;
        Ok(Task {
            id: self.id,
            delivery: lane.class.delivery(),
            kind: lane.kind,
            queue: lane.queue,
            partition: self.partition,
            priority: self.priority,
            state: self.state,
            created_at: self.created_at,
            scheduled_at: self.scheduled_at,
            expires_at: self.expires_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            attempt: self.attempt,
            crashes: trouble.crashes,
            blamed_crashes: trouble.blamed,
            max_attempts: self.max_attempts,
            cancel_requested: self.cancel_requested,
            options: options.unwrap_or_default(),
            tags,
            payload,
            result: extras::read(conn, seq, extras, extra::RESULT, RESULT)?,
            progress: extras::read(conn, seq, extras, extra::PROGRESS, PROGRESS)?,
            error: extras::last_error(conn, seq, extras)?,
        })
    }
}

/// An error about one row, of the kind that SQLite uses for a damaged file.
fn damaged(what: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some(format!("a task is damaged: {what}")),
    )
}

/// The lane of that number: from memory, or read if it is retired or was added by another process.
fn lane(conn: &Connection, lanes: &Mutex<Lanes>, id: LaneId) -> rusqlite::Result<Option<Lane>> {
    if let Some(lane) = lock(lanes).get(id) {
        return Ok(Some(lane.clone()));
    }
    read_lane(conn, id)
}
