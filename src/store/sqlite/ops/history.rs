//! The lines of a task's history: how its attempts ended.

use rusqlite::{Connection, params};

use crate::model::attempt::AttemptEnd;
use crate::model::limits::MAX_HISTORY;
use crate::time::Timestamp;

const ADD_ATTEMPT: &str = "
    INSERT OR REPLACE INTO punctual_attempt
        (seq, claim_no, attempt, instance, started_at, ended_at, ending, error)
    VALUES (:seq, :claim_no, :attempt, :instance, :started_at, :ended_at, :ending, :error)";

const TRIM_ATTEMPTS: &str = "
    DELETE FROM punctual_attempt WHERE seq = :seq AND claim_no <= (
        SELECT claim_no FROM punctual_attempt WHERE seq = :seq ORDER BY claim_no DESC LIMIT 1 OFFSET :kept)";

/// A line of a task's history.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttemptRow<'a> {
    pub(crate) seq: i64,
    pub(crate) claim_no: i64,
    pub(crate) attempt: i64,
    pub(crate) instance: Option<i64>,
    pub(crate) started_at: Option<i64>,
    pub(crate) ending: AttemptEnd,
    pub(crate) error: Option<&'a str>,
}

/// Adds a line to a task's history and drops those over the bound. The caller sets the task's `ATTEMPTS` bit.
pub(crate) fn add(conn: &Connection, row: AttemptRow<'_>, at: Timestamp) -> rusqlite::Result<()> {
    conn.prepare_cached(ADD_ATTEMPT)?.execute(params![
        row.seq,
        row.claim_no,
        row.attempt,
        row.instance,
        row.started_at,
        at.micros(),
        row.ending.code(),
        row.error,
    ])?;
    let kept = MAX_HISTORY as i64;
    if row.claim_no > kept {
        conn.prepare_cached(TRIM_ATTEMPTS)?
            .execute(params![row.seq, kept])?;
    }
    Ok(())
}
