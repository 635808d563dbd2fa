//! Recording how attempts ended. Every statement is fenced: a runner whose claim was taken over changes nothing, and
//! learns it from the row count.

use rusqlite::{CachedStatement, OptionalExtension, params, params_from_iter};

use crate::model::attempt::AttemptEnd;
use crate::model::event::EventKind;
use crate::model::op::{LaneId, Settled};
use crate::model::settle::{Change, Fence, Settlement};
use crate::store::sqlite::prune::forget_expiry;
use crate::store::sqlite::row;
use crate::store::sqlite::tx::{AttemptRow, Tx, extra};
use crate::time::Timestamp;

pub(super) const COMPLETE: &str = "
    UPDATE punctual_task SET state = 20, finished_at = :now, extras = extras | :extras, room = substr(room, :taken + 1)
    WHERE seq = :seq AND instance = :instance AND claim_no = :claim_no AND state = 10";

/// Completes [`HANDFUL`] tasks that leave nothing but their end: a sixth less work than one by one. OR FAIL: if it fails
/// the transaction is rolled back, so it needs no journal of its own.
pub(super) const COMPLETE_HANDFUL: &str = "
    UPDATE OR FAIL punctual_task SET state = 20, finished_at = ended.column3, room = substr(room, ?2 + 1)
    FROM (VALUES (?3, ?4, ?5), (?6, ?7, ?8), (?9, ?10, ?11), (?12, ?13, ?14), (?15, ?16, ?17), (?18, ?19, ?20),
        (?21, ?22, ?23), (?24, ?25, ?26), (?27, ?28, ?29), (?30, ?31, ?32), (?33, ?34, ?35), (?36, ?37, ?38),
        (?39, ?40, ?41), (?42, ?43, ?44), (?45, ?46, ?47), (?48, ?49, ?50)) AS ended
    WHERE seq = ended.column1 AND instance = ?1 AND claim_no = ended.column2 AND state = 10";

const HANDFUL: usize = 16;

/// Whether a row is as the completion of this attempt left it.
const IS_COMPLETED: &str = "
    SELECT 1 FROM punctual_task
    WHERE seq = :seq AND instance = :instance AND claim_no = :claim_no AND state = 20 AND finished_at = :finished_at";

const KEEP_RESULT: &str =
    "INSERT OR REPLACE INTO punctual_result (seq, result) VALUES (:seq, :result)";

pub(super) const HELD: &str = "
    SELECT lane, priority, attempt, started_at, scheduled_at, expires_at, cancel_requested_at IS NOT NULL, undecoded
    FROM punctual_task
    WHERE seq = :seq AND instance = :instance AND claim_no = :claim_no AND state = 10";

pub(super) const RELEASE: &str = "
    UPDATE punctual_task
    SET state = 0, instance = NULL, scheduled_at = :scheduled_at, expires_at = :expires_at, attempt = :attempt,
        undecoded = :undecoded, started_at = :started_at, extras = extras | :extras
    WHERE seq = :seq AND instance = :instance AND claim_no = :claim_no AND state = 10";

pub(super) const END: &str = "
    UPDATE punctual_task
    SET state = :state, finished_at = :now, attempt = :attempt, started_at = :started_at, extras = extras | :extras
    WHERE seq = :seq AND instance = :instance AND claim_no = :claim_no AND state = 10";

const LANE: &str = "SELECT lane FROM punctual_task WHERE seq = :seq";

pub(super) fn settle(
    tx: &mut Tx<'_>,
    settlements: &[Settlement],
) -> rusqlite::Result<Vec<Settled>> {
    let mut completes = tx.conn.prepare_cached(COMPLETE)?;
    let mut answers = Vec::with_capacity(settlements.len());
    let mut rest = settlements;
    while let Some(settlement) = rest.first() {
        if let Some((handful, after)) = rest.split_at_checked(HANDFUL)
            && !tx.wants_events
            && handful.iter().all(|each| is_plain(each, tx.instance))
        {
            complete_handful(tx, handful, &mut answers)?;
            rest = after;
            continue;
        }
        answers.push(match settlement.change(false) {
            Change::Completed(result) => {
                complete(tx, &mut completes, settlement, result.as_deref())?
            }
            _ => end_or_release(tx, settlement)?,
        });
        rest = &rest[1..];
    }
    // A stale claim is as good as settled: its place in the ledger is free either way.
    let fences = settlements.iter().map(|settlement| settlement.fence);
    tx.done.settled.extend(fences);
    Ok(answers)
}

/// Whether an attempt of this instance leaves nothing but the completion of its task.
fn is_plain(settlement: &Settlement, instance: i64) -> bool {
    settlement.record.is_none()
        && settlement.fence.instance == instance
        && *settlement.change(false) == Change::Completed(None)
}

fn complete_handful(
    tx: &mut Tx<'_>,
    handful: &[Settlement],
    answers: &mut Vec<Settled>,
) -> rusqlite::Result<()> {
    let instance = tx.instance;
    let bytes = row::completion_bytes(false) as i64;
    let ends = handful.iter().flat_map(|each| {
        let Fence { seq, claim_no, .. } = each.fence;
        [seq, claim_no, each.finished_at.micros()]
    });
    let bound = [instance, bytes].into_iter().chain(ends);
    let changed = tx
        .conn
        .prepare_cached(COMPLETE_HANDFUL)?
        .execute(params_from_iter(bound))?;
    for each in handful {
        // Some are stale if not all were changed: which, their rows tell.
        let applied = changed == HANDFUL
            || tx.conn.prepare_cached(IS_COMPLETED)?.exists(params![
                each.fence.seq,
                each.fence.instance,
                each.fence.claim_no,
                each.finished_at.micros()
            ])?;
        if applied {
            tx.done.news.ended.push(each.id);
        }
        answers.push(if applied {
            Settled::Applied
        } else {
            Settled::Stale
        });
    }
    Ok(())
}

fn complete(
    tx: &mut Tx<'_>,
    completes: &mut CachedStatement<'_>,
    settlement: &Settlement,
    result: Option<&[u8]>,
) -> rusqlite::Result<Settled> {
    let Fence {
        seq,
        instance,
        claim_no,
    } = settlement.fence;
    let mut extras = 0;
    if result.is_some() {
        extras |= extra::RESULT;
    }
    if settlement.record.is_some() {
        extras |= extra::ATTEMPTS;
    }
    let changed = completes.execute(params![
        settlement.finished_at.micros(),
        extras,
        row::completion_bytes(extras != 0) as i64,
        seq,
        instance,
        claim_no
    ])?;
    if changed == 0 {
        return Ok(Settled::Stale);
    }
    if let Some(result) = result {
        tx.conn
            .prepare_cached(KEEP_RESULT)?
            .execute(params![seq, result])?;
    }
    if settlement.record.is_some() || tx.wants_events {
        let lane: i64 = tx
            .conn
            .prepare_cached(LANE)?
            .query_row([seq], |row| row.get(0))?;
        tx.event(LaneId(lane), settlement.id, EventKind::Completed);
    }
    if let Some(record) = &settlement.record {
        let (attempt, started_at) = tx
            .conn
            .prepare_cached("SELECT attempt, started_at FROM punctual_task WHERE seq = :seq")?
            .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let row = attempt_row(settlement.fence, attempt, started_at).ended(record);
        tx.add_attempt(row, settlement.finished_at)?;
    }
    tx.done.news.ended.push(settlement.id);
    Ok(Settled::Applied)
}

fn attempt_row<'a>(fence: Fence, attempt: i64, started_at: Option<i64>) -> AttemptRow<'a> {
    AttemptRow {
        seq: fence.seq,
        claim_no: fence.claim_no,
        attempt,
        instance: Some(fence.instance),
        started_at,
        ending: AttemptEnd::Completed,
        error: None,
    }
}

/// What the fence found.
struct Held {
    lane: LaneId,
    priority: u8,
    attempt: i64,
    undecoded: u32,
    started_at: Option<i64>,
    scheduled_at: i64,
    expires_at: Option<i64>,
    cancel_requested: bool,
}

impl Held {
    /// As it was before a claim that was not started.
    fn unclaimed(mut self) -> Self {
        self.attempt -= 1;
        self.started_at = self.started_at.filter(|_| self.attempt > 0);
        self
    }
}

fn end_or_release(tx: &mut Tx<'_>, settlement: &Settlement) -> rusqlite::Result<Settled> {
    let Fence {
        seq,
        instance,
        claim_no,
    } = settlement.fence;
    let held = tx
        .conn
        .prepare_cached(HELD)?
        .query_row(params![seq, instance, claim_no], |row| {
            Ok(Held {
                lane: LaneId(row.get(0)?),
                priority: row::priority(row, 1)?,
                attempt: row.get(2)?,
                started_at: row.get(3)?,
                scheduled_at: row.get(4)?,
                expires_at: row.get(5)?,
                cancel_requested: row.get(6)?,
                undecoded: row::count(row, 7)?,
            })
        })
        .optional()?;
    let Some(mut held) = held else {
        return Ok(Settled::Stale);
    };
    if settlement.is_unstarted {
        held = held.unclaimed();
    }
    let mut extras = 0;
    if let Some(record) = &settlement.record {
        extras |= extra::ATTEMPTS;
        let (attempt, started_at) = match settlement.is_unstarted {
            true => (0, None),
            false => (held.attempt, held.started_at),
        };
        let row = attempt_row(settlement.fence, attempt, started_at).ended(record);
        tx.add_attempt(row, settlement.finished_at)?;
    }
    let (state, event) = match settlement.change(held.cancel_requested) {
        Change::Pending { at, attempt } => {
            let event = match settlement.record.as_ref().map(|record| record.end) {
                Some(AttemptEnd::Snoozed) => EventKind::Snoozed,
                Some(AttemptEnd::Interrupted) => EventKind::GivenBack,
                _ => EventKind::Retrying,
            };
            held.scheduled_at = at.micros();
            held.attempt = i64::from(*attempt);
            held.undecoded = 0;
            // It was started in time.
            if let Some(at) = held.expires_at.take() {
                forget_expiry(tx.conn, seq, at)?;
            }
            release(tx, settlement, &held, extras, event)?;
            return Ok(Settled::Applied);
        }
        Change::GivenBack => {
            release(tx, settlement, &held, extras, EventKind::GivenBack)?;
            return Ok(Settled::Applied);
        }
        Change::Undecoded { at } => {
            held.scheduled_at = at.micros();
            held.undecoded = held.undecoded.saturating_add(1);
            release(tx, settlement, &held, extras, EventKind::Retrying)?;
            return Ok(Settled::Applied);
        }
        Change::Failed => (30, EventKind::Failed),
        Change::Cancelled => (40, EventKind::Cancelled),
        Change::Completed(_) => unreachable!("a completion has its own statement"),
    };
    tx.conn.prepare_cached(END)?.execute(params![
        state,
        settlement.finished_at.micros(),
        held.attempt,
        held.started_at,
        extras,
        seq,
        instance,
        claim_no
    ])?;
    tx.event(held.lane, settlement.id, event);
    tx.done.news.ended.push(settlement.id);
    Ok(Settled::Applied)
}

/// Makes a task pending again, as `held` says.
fn release(
    tx: &mut Tx<'_>,
    settlement: &Settlement,
    held: &Held,
    extras: i64,
    event: EventKind,
) -> rusqlite::Result<()> {
    let Fence {
        seq,
        instance,
        claim_no,
    } = settlement.fence;
    tx.conn.prepare_cached(RELEASE)?.execute(params![
        held.scheduled_at,
        held.expires_at,
        held.attempt,
        held.undecoded,
        held.started_at,
        extras,
        seq,
        instance,
        claim_no
    ])?;
    let at = Timestamp::from_micros(held.scheduled_at);
    tx.pending(held.lane, held.priority, at);
    if let Some(at) = held.expires_at {
        tx.expires(seq, Timestamp::from_micros(at))?;
    }
    tx.event(held.lane, settlement.id, event);
    Ok(())
}

pub(super) const PROGRESS: &str = "
    UPDATE punctual_task SET extras = extras | 16
    WHERE seq = :seq AND instance = :instance AND claim_no = :claim_no AND state = 10
    RETURNING id, lane";

const KEEP_PROGRESS: &str =
    "INSERT OR REPLACE INTO punctual_progress (seq, value) VALUES (:seq, :value)";

pub(super) fn progress(tx: &mut Tx<'_>, fence: Fence, value: &[u8]) -> rusqlite::Result<Settled> {
    let found: Option<([u8; 16], i64)> = tx
        .conn
        .prepare_cached(PROGRESS)?
        .query_row(params![fence.seq, fence.instance, fence.claim_no], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((id, lane)) = found else {
        return Ok(Settled::Stale);
    };
    tx.conn
        .prepare_cached(KEEP_PROGRESS)?
        .execute(params![fence.seq, value])?;
    let id = crate::id::TaskId::from_bytes(id);
    tx.event(LaneId(lane), id, EventKind::Progressed);
    Ok(Settled::Applied)
}
