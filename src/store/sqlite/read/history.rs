//! Reading how the attempts of a task ended.

use rusqlite::{Connection, OptionalExtension};

use crate::id::TaskId;
use crate::model::attempt::{Attempt, AttemptEnd};
use crate::model::limits::MAX_HISTORY;
use crate::model::task::TaskState;
use crate::store::sqlite::ops::row;
use crate::store::sqlite::sql::{columns, sql};
use crate::time::Timestamp;

pub(crate) const HISTORY_TASK: &str = sql!(
    "SELECT {columns} FROM punctual_task AS task WHERE id = :id",
    columns = Newest::COLUMNS
);

columns! {
    /// The newest attempt, as the task's row describes it.
    struct Newest {
        seq: i64 = "seq" by row::get,
        state: TaskState = "state" by row::state,
        attempt: u32 = "attempt" by row::count,
        claim_no: i64 = "claim_no" by row::get,
        started_at: Option<Timestamp> = "started_at" by row::time_or_none,
        finished_at: Option<Timestamp> = "finished_at" by row::time_or_none,
        instance: Option<String> = "(SELECT name FROM punctual_instance WHERE id = task.instance)" by row::get,
    }
}

pub(crate) const HISTORY: &str = sql!(
    "SELECT {columns} FROM punctual_attempt AS line WHERE seq = :seq ORDER BY claim_no",
    columns = Earlier::COLUMNS
);

columns! {
    /// An earlier attempt.
    struct Earlier {
        claim_no: i64 = "claim_no" by row::get,
        attempt: u32 = "attempt" by row::count,
        started_at: Option<Timestamp> = "started_at" by row::time_or_none,
        ended_at: Timestamp = "ended_at" by row::time,
        end: AttemptEnd = "ending" by row::attempt_end,
        error: Option<String> = "error" by row::get,
        instance: Option<String> = "(SELECT name FROM punctual_instance WHERE id = line.instance)" by row::get,
    }
}

pub(super) fn history(conn: &Connection, id: TaskId) -> rusqlite::Result<Option<Vec<Attempt>>> {
    let snapshot = conn.unchecked_transaction()?;
    let task = conn
        .prepare_cached(HISTORY_TASK)?
        .query_row([&id.as_bytes()[..]], Newest::read)
        .optional()?;
    let Some(task) = task else {
        return Ok(None);
    };
    let lines: Vec<Earlier> = conn
        .prepare_cached(HISTORY)?
        .query_map([task.seq], Earlier::read)?
        .collect::<rusqlite::Result<_>>()?;
    let told = lines.iter().any(|line| line.claim_no == task.claim_no);
    let mut history: Vec<Attempt> = lines.into_iter().map(Earlier::into_attempt).collect();
    // The attempt that completed the task has no line of its own.
    if task.state == TaskState::Completed
        && !told
        && let Some(ended_at) = task.finished_at
    {
        history.push(Attempt {
            number: task.attempt,
            started_at: task.started_at,
            ended_at,
            instance: task.instance,
            end: AttemptEnd::Completed,
            error: None,
        });
    }
    let over = history.len().saturating_sub(MAX_HISTORY);
    history.drain(..over);
    snapshot.finish()?;
    Ok(Some(history))
}

impl Earlier {
    fn into_attempt(self) -> Attempt {
        Attempt {
            number: self.attempt,
            started_at: self.started_at,
            ended_at: self.ended_at,
            instance: self.instance,
            end: self.end,
            error: self.error,
        }
    }
}
