//! Reading how the attempts of a task ended.

use rusqlite::Connection;

use crate::id::TaskId;
use crate::model::attempt::{Attempt, AttemptEnd};
use crate::model::limits::MAX_HISTORY;
use crate::model::task::TaskState;
use crate::store::sqlite::read::tasks::state_of;
use crate::time::Timestamp;

pub(crate) const HISTORY_TASK: &str = "
    SELECT seq, state, attempt, claim_no, started_at, finished_at,
        (SELECT name FROM punctual_instance WHERE id = task.instance)
    FROM punctual_task AS task WHERE id = :id";

pub(crate) const HISTORY: &str = "
    SELECT claim_no, attempt, started_at, ended_at, ending, error,
        (SELECT name FROM punctual_instance WHERE id = line.instance)
    FROM punctual_attempt AS line WHERE seq = :seq ORDER BY claim_no";

pub(super) fn history(conn: &Connection, id: TaskId) -> rusqlite::Result<Option<Vec<Attempt>>> {
    let snapshot = conn.unchecked_transaction()?;
    let mut task_statement = conn.prepare_cached(HISTORY_TASK)?;
    let mut tasks = task_statement.query([&id.as_bytes()[..]])?;
    let Some(task) = tasks.next()? else {
        return Ok(None);
    };
    let seq: i64 = task.get(0)?;
    let claim_no: i64 = task.get(3)?;
    let mut statement = conn.prepare_cached(HISTORY)?;
    let mut lines = statement.query([seq])?;
    let mut history = Vec::new();
    let mut told = false;
    while let Some(line) = lines.next()? {
        told |= line.get::<_, i64>(0)? == claim_no;
        let code: i64 = line.get(4)?;
        history.push(Attempt {
            number: line.get(1)?,
            started_at: line.get::<_, Option<i64>>(2)?.map(Timestamp::from_micros),
            ended_at: Timestamp::from_micros(line.get(3)?),
            instance: line.get(6)?,
            end: AttemptEnd::from_code(code)
                .ok_or(rusqlite::Error::IntegralValueOutOfRange(4, code))?,
            error: line.get(5)?,
        });
    }
    // The attempt that completed the task has no line of its own.
    if state_of(task.get(1)?)? == TaskState::Completed && !told {
        history.push(Attempt {
            number: task.get(2)?,
            started_at: task.get::<_, Option<i64>>(4)?.map(Timestamp::from_micros),
            ended_at: Timestamp::from_micros(task.get(5)?),
            instance: task.get(6)?,
            end: AttemptEnd::Completed,
            error: None,
        });
    }
    let over = history.len().saturating_sub(MAX_HISTORY);
    history.drain(..over);
    drop(lines);
    drop(tasks);
    drop(statement);
    drop(task_statement);
    snapshot.finish()?;
    Ok(Some(history))
}
