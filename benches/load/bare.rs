//! The limit: bare rusqlite that does the same work in a minimal table.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use punctual::Durability;
use punctual::rusqlite::{self, Connection, Statement, params};
use uuid::Uuid;

use crate::Result;

const TABLE: &str = "
    CREATE TABLE task(seq INTEGER PRIMARY KEY, id BLOB NOT NULL, kind TEXT NOT NULL, payload BLOB NOT NULL,
        due INT NOT NULL, state INT NOT NULL, attempt INT NOT NULL, owner INT);
    CREATE INDEX task_due ON task(due, seq) WHERE state = 0;";

const ID_INDEX: &str = "CREATE UNIQUE INDEX task_id ON task(id);";

pub(crate) const INSERT: &str =
    "INSERT INTO task (id, kind, payload, due, state, attempt) VALUES (?1, 'note', ?2, ?3, 0, 0)";

/// Eight rows at once: less than four fifths of the work of one by one.
const INSERT_HANDFUL: &str = "
    INSERT INTO task (id, kind, payload, due, state, attempt)
    VALUES (?, 'note', ?, ?, 0, 0), (?, 'note', ?, ?, 0, 0), (?, 'note', ?, ?, 0, 0), (?, 'note', ?, ?, 0, 0),
        (?, 'note', ?, ?, 0, 0), (?, 'note', ?, ?, 0, 0), (?, 'note', ?, ?, 0, 0), (?, 'note', ?, ?, 0, 0)";

const HANDFUL: u64 = 8;

const DUE: &str = "
    SELECT seq, id, kind, payload, attempt FROM task WHERE state = 0 AND due <= ?1 ORDER BY due, seq LIMIT ?2";

const CLAIM: &str = "UPDATE task SET state = 1, attempt = ?2, owner = 1 WHERE seq = ?1";

/// A claimed task without an owner is completed. SQLite keeps 0, 1 and NULL in the head of a row alone, so only the head
/// changes. A state 2 would need a byte in the body, and SQLite would rewrite the row with its payload: no slower at 100
/// bytes, but less than half as fast at 8 KiB, and a quarter as fast at 64 KiB.
const FINISH: &str = "UPDATE task SET owner = NULL WHERE seq = ?1";

/// The condition for a task to be in a state.
pub(crate) const PENDING: &str = "state = 0 AND owner IS NULL";
pub(crate) const COMPLETED: &str = "state = 1 AND owner IS NULL";

/// What the limit guarantees of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ids {
    /// Ids are unique, and a task can be found by its id.
    Unique,
    /// The lean limit: an id is a plain value.
    Unchecked,
}

/// Opens the limit's file; creates the file and its table if there is none. The log is bounded as ours is, at 4 MiB. A
/// checkpoint between transactions instead of in COMMIT was no faster.
pub(crate) fn open(path: &Path, durability: Durability, ids: Ids) -> Result<Connection> {
    let is_new = !path.exists();
    let conn = Connection::open(path)?;
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA cache_size = -65536; PRAGMA wal_autocheckpoint = 1024;",
    )?;
    conn.execute_batch(match durability {
        Durability::PowerLoss => "PRAGMA synchronous = FULL",
        Durability::ProcessCrash => "PRAGMA synchronous = NORMAL",
    })?;
    if is_new {
        conn.execute_batch(TABLE)?;
        if ids == Ids::Unique {
            conn.execute_batch(ID_INDEX)?;
        }
    }
    Ok(conn)
}

pub(crate) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is after 1970");
    since.as_micros() as i64
}

/// A task to store.
pub(crate) struct New<'a> {
    id: [u8; 16],
    due: i64,
    payload: &'a [u8],
}

impl<'a> New<'a> {
    /// Due now, with a fresh id.
    pub(crate) fn now(payload: &'a [u8]) -> Self {
        Self {
            id: *Uuid::now_v7().as_bytes(),
            due: now(),
            payload,
        }
    }

    pub(crate) fn insert(&self, insert: &mut Statement<'_>) -> rusqlite::Result<()> {
        insert
            .execute(params![self.id, self.payload, self.due])
            .map(|_| ())
    }
}

/// Stores each task in a transaction of its own, the implicit one of the statement: as fast as an explicit BEGIN IMMEDIATE
/// and COMMIT at FULL, and a little faster at NORMAL.
pub(crate) fn one_by_one(conn: &Connection, tasks: u64, payload: &[u8]) -> Result<()> {
    let mut insert = conn.prepare(INSERT)?;
    for _ in 0..tasks {
        New::now(payload).insert(&mut insert)?;
    }
    Ok(())
}

/// Stores `batch` tasks per transaction.
pub(crate) fn by_batches(conn: &Connection, tasks: u64, batch: u64, payload: &[u8]) -> Result<()> {
    let mut begin = conn.prepare("BEGIN IMMEDIATE")?;
    let mut insert = conn.prepare(INSERT)?;
    let mut handful = conn.prepare(INSERT_HANDFUL)?;
    let mut commit = conn.prepare("COMMIT")?;
    let mut left = tasks;
    while left > 0 {
        let now = left.min(batch);
        begin.execute([])?;
        for _ in 0..now / HANDFUL {
            for index in 0..HANDFUL as usize {
                let task = New::now(payload);
                handful.raw_bind_parameter(3 * index + 1, task.id)?;
                handful.raw_bind_parameter(3 * index + 2, task.payload)?;
                handful.raw_bind_parameter(3 * index + 3, task.due)?;
            }
            handful.raw_execute()?;
        }
        for _ in 0..now % HANDFUL {
            New::now(payload).insert(&mut insert)?;
        }
        commit.execute([])?;
        left -= now;
    }
    Ok(())
}

/// How many tasks the limit claims and finishes in a transaction, for a size of payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    batch: u32,
}

impl Drain {
    /// The fastest of the numbers that were tried.
    pub(crate) fn of(payload_bytes: usize) -> Self {
        let batch = match payload_bytes {
            0x10_0000.. => 16,
            _ => 256,
        };
        Self { batch }
    }

    /// Claims and finishes all due tasks of a file. Finishing a batch and claiming the next in one transaction is 1.2 times
    /// as fast as in two. So is selecting and then updating each, compared with UPDATE .. WHERE seq IN (..) RETURNING. A
    /// memory-mapped file is no faster.
    pub(crate) fn run(self, path: &Path, ids: Ids) -> Result<()> {
        let conn = open(path, Durability::PowerLoss, ids)?;
        let mut begin = conn.prepare("BEGIN IMMEDIATE")?;
        let mut commit = conn.prepare("COMMIT")?;
        let mut due = conn.prepare(DUE)?;
        let mut claim = conn.prepare(CLAIM)?;
        let mut finish = conn.prepare(FINISH)?;
        let mut held: Vec<(i64, i64)> = Vec::new();
        loop {
            begin.execute([])?;
            for (seq, _) in held.drain(..) {
                finish.execute([seq])?;
            }
            let mut rows = due.query(params![now(), self.batch])?;
            while let Some(row) = rows.next()? {
                // The values that a handler would be called with.
                std::hint::black_box((row.get_ref(1)?, row.get_ref(2)?, row.get_ref(3)?));
                held.push((row.get(0)?, row.get(4)?));
            }
            drop(rows);
            for (seq, attempt) in &held {
                claim.execute([*seq, attempt + 1])?;
            }
            commit.execute([])?;
            if held.is_empty() {
                return Ok(());
            }
        }
    }
}

/// # Errors
///
/// If there are not exactly `tasks` tasks, all in this state.
pub(crate) fn check(conn: &Connection, state: &str, tasks: u64) -> Result<()> {
    let (found, all): (i64, i64) = conn.query_row(
        &format!("SELECT count(*) FILTER (WHERE {state}), count(*) FROM task"),
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if (found, all) == (tasks as i64, tasks as i64) {
        return Ok(());
    }
    Err(format!("{found} of {all} tasks have {state}, not all of {tasks}").into())
}
