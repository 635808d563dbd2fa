//! Taking back what a dead instance held, a slice at a time.

use rusqlite::params;

use crate::id::TaskId;
use crate::model::attempt::AttemptEnd;
use crate::model::delivery::Delivery;
use crate::model::event::EventKind;
use crate::model::op::{Class, LaneId, Rescued, Started};
use crate::model::settle::{Orphan, Rescue, rescue as decide};
use crate::model::task::Options;
use crate::store::sqlite::row;
use crate::store::sqlite::tx::{AttemptRow, Tx, extra};
use crate::time::Timestamp;

pub(super) const ORPHANS: &str = "
    SELECT seq, id, lane, priority, attempt, crashes, claim_no, scheduled_at, started_at,
        cancel_requested_at IS NOT NULL, options, expires_at, blamed
    FROM punctual_task INDEXED BY punctual_task_running
    WHERE state = 10 AND lane IN (SELECT id FROM punctual_lane INDEXED BY punctual_lane_retired WHERE retired = 0)
        AND instance = :instance LIMIT :limit";

const TAKE_BACK: &str = "
    UPDATE punctual_task
    SET state = :state, lane = :lane, attempt = :attempt, crashes = :crashes, blamed = :blamed, finished_at = :finished_at,
        extras = extras | :extras, instance = iif(:state = 0, NULL, instance)
    WHERE seq = :seq AND state = 10 AND claim_no = :claim_no";

/// How many claims an instance holds, up to two.
pub(super) const COUNT_HELD: &str = "
    SELECT count(*) FROM (
        SELECT 1 FROM punctual_task INDEXED BY punctual_task_running
        WHERE state = 10 AND lane IN (SELECT id FROM punctual_lane INDEXED BY punctual_lane_retired WHERE retired = 0)
            AND instance = :instance LIMIT 2)";

/// An instance has heard of them, or is no more.
pub(super) const FORGET_CANCELS: &str = "DELETE FROM punctual_cancel WHERE instance = :instance";

const END_INSTANCE: &str = "UPDATE punctual_instance SET ended_at = :now WHERE id = :id";

/// A slice of so many is cut short if somebody waits.
const ENOUGH: usize = 192;

struct Row {
    seq: i64,
    id: TaskId,
    lane: LaneId,
    priority: u8,
    attempt: i64,
    crashes: u32,
    blamed: u32,
    claim_no: i64,
    scheduled_at: i64,
    started_at: Option<i64>,
    cancel_requested: bool,
    max_crashes: Option<u32>,
    expires_at: Option<i64>,
}

pub(super) fn rescue(
    tx: &mut Tx<'_>,
    instance: i64,
    started: &Started,
    limit: usize,
) -> rusqlite::Result<Rescued> {
    let rows = orphans(tx, instance, limit)?;
    let mut rescued = Rescued {
        more: rows.len() == limit,
        ..Rescued::default()
    };
    for (done, row) in rows.iter().enumerate() {
        if done >= ENOUGH && tx.is_waited_for() {
            // The next slice goes on after whoever waits.
            rescued.more = true;
            break;
        }
        let orphan = Orphan {
            blamed: row.blamed,
            max_crashes: row.max_crashes,
            delivery: delivery(tx, row.lane),
            cancel_requested: row.cancel_requested,
            started: started.includes(row.seq, row.claim_no),
            is_suspect: started.blames(),
        };
        if orphan.started {
            rescued.crashed += 1;
        } else {
            rescued.given_back += 1;
        }
        take_back(tx, instance, row, orphan.started, decide(orphan))?;
    }
    if !rescued.more {
        tx.conn
            .prepare_cached(END_INSTANCE)?
            .execute(params![tx.now.micros(), instance])?;
        tx.conn
            .prepare_cached(FORGET_CANCELS)?
            .execute([instance])?;
    }
    Ok(rescued)
}

fn orphans(tx: &Tx<'_>, instance: i64, limit: usize) -> rusqlite::Result<Vec<Row>> {
    tx.conn
        .prepare_cached(ORPHANS)?
        .query_map(params![instance, limit as i64], |row| {
            let options: Option<Vec<u8>> = row.get(10)?;
            // Options that cannot be decoded are found at the next claim.
            let options: Options = options
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .unwrap_or_default();
            Ok(Row {
                seq: row.get(0)?,
                id: row::id(row, 1)?,
                lane: LaneId(row.get(2)?),
                priority: row::priority(row, 3)?,
                attempt: row.get(4)?,
                crashes: row::count(row, 5)?,
                blamed: row::count(row, 12)?,
                claim_no: row.get(6)?,
                scheduled_at: row.get(7)?,
                started_at: row.get(8)?,
                cancel_requested: row.get(9)?,
                max_crashes: options.max_crashes,
                expires_at: row.get(11)?,
            })
        })?
        .collect()
}

/// Gives back what this instance holds but for `held`. It was never started: whoever claimed it does not know of it.
pub(super) fn disown(tx: &mut Tx<'_>, held: &[i64]) -> rusqlite::Result<usize> {
    let mut given_back = 0;
    let instance = tx.instance;
    for row in orphans(tx, instance, usize::MAX >> 1)? {
        if !held.contains(&row.seq) {
            let orphan = Orphan {
                blamed: row.blamed,
                max_crashes: row.max_crashes,
                delivery: delivery(tx, row.lane),
                cancel_requested: row.cancel_requested,
                started: false,
                is_suspect: false,
            };
            take_back(tx, instance, &row, false, decide(orphan))?;
            given_back += 1;
        }
    }
    Ok(given_back)
}

/// How often the tasks of a lane may be started; once, if it is not known.
fn delivery(tx: &Tx<'_>, lane: LaneId) -> Delivery {
    tx.lane(lane)
        .map_or(Delivery::AtMostOnce, |lane| lane.class.delivery())
}

fn take_back(
    tx: &mut Tx<'_>,
    instance: i64,
    row: &Row,
    started: bool,
    verdict: Rescue,
) -> rusqlite::Result<()> {
    let mut extras = 0;
    if started {
        extras |= extra::ATTEMPTS;
        let line = AttemptRow {
            seq: row.seq,
            claim_no: row.claim_no,
            attempt: row.attempt,
            instance: Some(instance),
            started_at: row.started_at,
            ending: AttemptEnd::Crashed,
            error: Some(match verdict {
                Rescue::Interrupted => "interrupted",
                _ => "crashed",
            }),
        };
        tx.add_attempt(line, tx.now)?;
    }
    // Only a started task was in the crash, and only such a one is suspected.
    let lane = match verdict {
        Rescue::Suspect => match tx.lane(row.lane) {
            Some(lane) => tx.lane_id(&lane.queue, &lane.kind, Class::Suspect)?,
            None => row.lane,
        },
        _ => row.lane,
    };
    let state = verdict.state();
    let is_blamed = matches!(verdict, Rescue::Suspect | Rescue::Crashed);
    tx.conn.prepare_cached(TAKE_BACK)?.execute(params![
        state.code(),
        lane.0,
        if started {
            row.attempt
        } else {
            row.attempt - 1
        },
        row.crashes.saturating_add(u32::from(started)),
        row.blamed.saturating_add(u32::from(is_blamed)),
        state.is_final().then_some(tx.now.micros()),
        extras,
        row.seq,
        row.claim_no,
    ])?;
    let event = match verdict {
        Rescue::GiveBack => EventKind::GivenBack,
        Rescue::Suspect | Rescue::Innocent => EventKind::Rescued,
        Rescue::Crashed | Rescue::Interrupted => EventKind::Failed,
        Rescue::Cancelled => EventKind::Cancelled,
    };
    tx.event(lane, row.id, event);
    if state.is_final() {
        tx.done.news.ended.push(row.id);
    } else {
        tx.pending(lane, row.priority, Timestamp::from_micros(row.scheduled_at));
        if let Some(at) = row.expires_at.filter(|_| !started) {
            tx.expires(row.seq, Timestamp::from_micros(at))?;
        }
    }
    Ok(())
}
