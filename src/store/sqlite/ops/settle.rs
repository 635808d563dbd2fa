//! Recording how attempts ended. Every statement is fenced: a runner whose claim was taken over changes nothing, and the row
//! count says so.

use std::sync::Arc;

use rusqlite::{OptionalExtension, params};

use crate::id::TaskId;
use crate::model::attempt::AttemptEnd;
use crate::model::event::EventKind;
use crate::model::lane::{Class, LaneId};
use crate::model::op::Settled;
use crate::model::settle::{Change, Fence, Settlement};
use crate::model::task::TaskState;
use crate::store::sqlite::ops::history::AttemptRow;
use crate::store::sqlite::ops::row;
use crate::store::sqlite::ops::transition::{self, COMPLETE, Held, HeldRow};
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::sql::sql;

pub(crate) const HELD: &str = sql!(
    "SELECT {columns} FROM punctual_task
    WHERE seq = :seq AND instance = :instance AND claim_no = :claim_no AND state = {running}",
    columns = HeldRow::COLUMNS
);

pub(crate) fn settle(
    tx: &mut WriteTx<'_>,
    settlements: &[Arc<Settlement>],
) -> rusqlite::Result<Vec<Settled>> {
    let mut completes = tx.conn.prepare_cached(COMPLETE)?;
    let mut answers = Vec::with_capacity(settlements.len());
    let mut rest = settlements;
    while let Some(settlement) = rest.first() {
        if let Some((handful, after)) = rest.split_first_chunk()
            && !tx.wants_events
            && handful.iter().all(|each| is_plain(each, tx.instance))
        {
            transition::complete_handful(tx, handful, &mut answers)?;
            rest = after;
            continue;
        }
        answers.push(match settlement.change(false) {
            Change::Completed(result) => {
                transition::complete(tx, &mut completes, settlement, result.as_deref())?
            }
            _ => end_or_release(tx, settlement)?,
        });
        rest = &rest[1..];
    }
    // A stale claim counts as settled, too: its place in the ledger is free either way.
    let fences = settlements.iter().map(|settlement| settlement.fence);
    tx.done.settled.extend(fences);
    Ok(answers)
}

/// Whether a settlement of this instance only completes its task: no result, no line in the history.
fn is_plain(settlement: &Settlement, instance: i64) -> bool {
    settlement.record.is_none()
        && settlement.fence.instance == instance
        && *settlement.change(false) == Change::Completed(None)
}

/// The task that the attempt of this fence holds, and whether its cancellation was requested. `None`: the fence is stale.
fn held(tx: &WriteTx<'_>, fence: Fence) -> rusqlite::Result<Option<(Held, bool)>> {
    let Fence {
        seq,
        instance,
        claim_no,
    } = fence;
    let row = tx
        .conn
        .prepare_cached(HELD)?
        .query_row([seq, instance, claim_no], HeldRow::read)
        .optional()?;
    row.map(|row| {
        let cancel_requested = row.cancel_requested;
        Ok((row.held_by(instance, tx.conn)?, cancel_requested))
    })
    .transpose()
}

fn end_or_release(tx: &mut WriteTx<'_>, settlement: &Settlement) -> rusqlite::Result<Settled> {
    let Some((mut held, cancel_requested)) = held(tx, settlement.fence)? else {
        return Ok(Settled::Stale);
    };
    let record = settlement.record.as_ref();
    let mut line = record.map(|record| held.line(record.end, record.error.as_deref()));
    if settlement.is_unstarted {
        held.unclaim();
        line = line.map(|line| AttemptRow {
            attempt: 0,
            started_at: None,
            ..line
        });
    }
    let at = settlement.finished_at;
    let event = match settlement.change(cancel_requested) {
        Change::Pending { at, attempt } => {
            held.scheduled_at = at.micros();
            held.attempt = i64::from(*attempt);
            held.trouble.undecoded = 0;
            held.drop_start_deadline(tx)?;
            clear(tx, &mut held)?;
            match record.map(|record| record.end) {
                Some(AttemptEnd::Snoozed) => EventKind::Snoozed,
                Some(AttemptEnd::Interrupted) => EventKind::GivenBack,
                _ => EventKind::Retrying,
            }
        }
        Change::Undecoded { at } => {
            held.scheduled_at = at.micros();
            held.trouble.undecoded = held.trouble.undecoded.saturating_add(1);
            EventKind::Retrying
        }
        Change::GivenBack => EventKind::GivenBack,
        Change::Failed => {
            transition::end(tx, &held, TaskState::Failed, line, at)?;
            return Ok(Settled::Applied);
        }
        Change::Cancelled => {
            transition::end(tx, &held, TaskState::Cancelled, line, at)?;
            return Ok(Settled::Applied);
        }
        Change::Completed(_) => unreachable!("a completion has its own statement"),
    };
    transition::release(tx, &held, line, event, at)?;
    Ok(Settled::Applied)
}

/// The handler has returned: its task is no suspect any more.
fn clear(tx: &mut WriteTx<'_>, held: &mut Held) -> rusqlite::Result<()> {
    if let Some(lane) = tx.lane(held.lane)
        && lane.class.level().is_some()
    {
        held.lane = tx.lane_id(&lane.queue, &lane.kind, Class::Plain)?;
    }
    Ok(())
}

pub(crate) const PROGRESS: &str = sql!(
    "
    UPDATE punctual_task SET extras = extras | {progress}
    WHERE seq = :seq AND instance = :instance AND claim_no = :claim_no AND state = {running}
    RETURNING id, lane"
);

const KEEP_PROGRESS: &str =
    "INSERT OR REPLACE INTO punctual_progress (seq, value) VALUES (:seq, :value)";

pub(crate) fn progress(
    tx: &mut WriteTx<'_>,
    fence: Fence,
    value: &[u8],
) -> rusqlite::Result<Settled> {
    let found: Option<(TaskId, LaneId)> = tx
        .conn
        .prepare_cached(PROGRESS)?
        .query_row(params![fence.seq, fence.instance, fence.claim_no], |row| {
            Ok((row::id(row, 0)?, row::lane(row, 1)?))
        })
        .optional()?;
    let Some((id, lane)) = found else {
        return Ok(Settled::Stale);
    };
    tx.conn
        .prepare_cached(KEEP_PROGRESS)?
        .execute(params![fence.seq, value])?;
    tx.event(lane, id, EventKind::Progressed);
    Ok(Settled::Applied)
}
