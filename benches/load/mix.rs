//! Files with many tasks that must not slow down an immediate one.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use punctual::chrono::DateTime;
use punctual::rusqlite::{Connection, params};
use punctual::{Client, Durability, NewTask, TaskState};
use uuid::Uuid;

use crate::work::Work;
use crate::{Result, bare};

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    Empty,
    /// Due in an hour, at a better priority, in the same queue and of the same kind.
    Future,
    Completed,
    /// Due, in a queue that is paused.
    Paused,
    /// Due, of a kind without a handler.
    Unknown,
}

impl Mix {
    pub(crate) const FILLED: [Self; 4] =
        [Self::Future, Self::Completed, Self::Paused, Self::Unknown];

    /// The state in the limit's table. Tasks that may not run have one of their own, the best that a bare table can do.
    fn bare_state(self) -> i64 {
        match self {
            Self::Empty | Self::Future => 0,
            Self::Completed => 2,
            Self::Paused | Self::Unknown => 3,
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty",
            Self::Future => "future",
            Self::Completed => "completed",
            Self::Paused => "paused",
            Self::Unknown => "of unknown kind",
        })
    }
}

const HOUR: Duration = Duration::from_secs(3600);
/// How many rows share a transaction.
const BATCH: u64 = 50_000;

const COMPLETE: &str = "
    UPDATE punctual_task
    SET state = 20, instance = 1, attempt = 1, claim_no = seq, started_at = :now, finished_at = :now
    WHERE seq BETWEEN :first AND :last AND state = 0";

/// Creates a file of ours with `count` tasks.
///
/// # Errors
///
/// If not all of them are stored.
pub(crate) fn fill(path: &Path, mix: Mix, count: u64) -> Result<()> {
    store(path, mix, count)?;
    sync(path)
}

/// Syncs the file now; otherwise the measured commits would sync it. Call this only while this process has the file closed:
/// SQLite's locks would be lost.
fn sync(path: &Path) -> Result<()> {
    Ok(File::open(path)?.sync_all()?)
}

fn store(path: &Path, mix: Mix, count: u64) -> Result<()> {
    let client = Client::open(path)?;
    if mix == Mix::Paused {
        client.pause("paused")?;
    }
    let now = bare::now();
    client.schedule_stream((0..count).map(|number| {
        // A different instant for each, as for tasks scheduled one by one.
        let at = now - count as i64 + number as i64;
        let task = match mix {
            Mix::Unknown => NewTask::with_kind("unknown", &Work::numbered(number)),
            _ => NewTask::new(Work::numbered(number)),
        };
        match mix {
            Mix::Future => task.priority(0).at(instant(at + HOUR.as_micros() as i64)),
            Mix::Paused => task.queue("paused").at(instant(at)),
            _ => task.at(instant(at)),
        }
    }))?;
    if mix == Mix::Completed {
        complete(path, count)?;
    }
    let state = match mix {
        Mix::Completed => TaskState::Completed,
        _ => TaskState::Pending,
    };
    let stored = client.stats()?.count(state);
    if stored != count {
        return Err(format!("{stored} of {count} tasks are stored").into());
    }
    Ok(())
}

fn instant(micros: i64) -> DateTime<punctual::chrono::Utc> {
    DateTime::from_timestamp_micros(micros).expect("it is about now")
}

/// Writes what settling each task would write, many at a time.
fn complete(path: &Path, count: u64) -> Result<()> {
    let conn = Connection::open(path)?;
    conn.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -65536")?;
    let mut statement = conn.prepare(COMPLETE)?;
    for first in (1..=count).step_by(BATCH as usize) {
        let last = first + BATCH - 1;
        statement.execute(params![bare::now(), first as i64, last as i64])?;
    }
    Ok(())
}

/// Creates a file of the limit with `count` rows.
pub(crate) fn fill_bare(path: &Path, mix: Mix, count: u64) -> Result<()> {
    const FILL: &str = "
        INSERT INTO task (id, kind, payload, due, state, attempt) VALUES (?1, 'work', ?2, ?3, ?4, ?5)";
    let conn = bare::open(path, Durability::ProcessCrash, bare::Ids::Unique)?;
    conn.execute_batch("PRAGMA synchronous = OFF")?;
    let mut insert = conn.prepare(FILL)?;
    let start = match mix {
        Mix::Future => bare::now() + HOUR.as_micros() as i64,
        _ => bare::now() - count as i64,
    };
    for first in (0..count).step_by(BATCH as usize) {
        conn.execute_batch("BEGIN")?;
        for number in first..count.min(first + BATCH) {
            insert.execute(params![
                Uuid::now_v7().as_bytes(),
                serde_json::to_vec(&Work::numbered(number))?,
                start + number as i64,
                mix.bare_state(),
                i64::from(mix == Mix::Completed),
            ])?;
        }
        conn.execute_batch("COMMIT")?;
    }
    drop(insert);
    conn.close().map_err(|(_, error)| error)?;
    sync(path)
}
