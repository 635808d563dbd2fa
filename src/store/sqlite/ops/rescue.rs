//! Taking back what a dead instance held, a slice at a time.

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::attempt::AttemptEnd;
use crate::model::event::EventKind;
use crate::model::lane::Class;
use crate::model::op::Rescued;
use crate::model::settle::{Death, Fence, Orphan, Rescue, Running, rescue as decide};
use crate::model::suspects::{Ran, only_cause};
use crate::model::task::TaskState;
use crate::store::sqlite::instances::evidence::Evidence;
use crate::store::sqlite::instances::roll;
use crate::store::sqlite::ops::cancels;
use crate::store::sqlite::ops::options;
use crate::store::sqlite::ops::row;
use crate::store::sqlite::ops::transition::{self, Held, HeldRow};
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::sql::{columns, sql};
use crate::time::Timestamp;

pub(crate) const ORPHANS: &str = sql!(
    "SELECT {columns}, options FROM punctual_task INDEXED BY punctual_task_running
    WHERE state = {running}
        AND lane IN (SELECT id FROM punctual_lane INDEXED BY punctual_lane_retired WHERE retired = {in_use})
        AND instance = :instance LIMIT :limit",
    columns = HeldRow::COLUMNS
);

columns! {
    /// A claim of a dead instance, for a query over `punctual_task AS task` and `punctual_lane AS lane`.
    struct ClaimRow {
        seq: i64 = "task.seq" by row::get,
        claim_no: i64 = "task.claim_no" by row::get,
        started_at: Option<Timestamp> = "task.started_at" by row::time_or_none,
        class: Class = "lane.class" by row::class,
    }
}

pub(crate) const HELD: &str = sql!(
    "SELECT {columns} FROM punctual_task AS task INDEXED BY punctual_task_running
    JOIN punctual_lane AS lane ON lane.id = task.lane
    WHERE task.state = {running}
        AND task.lane IN (SELECT id FROM punctual_lane INDEXED BY punctual_lane_retired WHERE retired = {in_use})
        AND task.instance = :instance",
    columns = ClaimRow::COLUMNS
);

columns! {
    /// What a dead instance ran, once that is noted.
    struct RanRow {
        count: u64 = "ran" by row::total,
        only_cause: Option<i64> = "only_cause" by row::get,
    }
}

pub(crate) const RAN: &str = sql!(
    "SELECT {columns} FROM punctual_instance WHERE id = :instance AND ran IS NOT NULL",
    columns = RanRow::COLUMNS
);

pub(crate) const NOTE_RAN: &str =
    "UPDATE punctual_instance SET ran = ?2, only_cause = ?3 WHERE id = ?1";

/// How an instance died. What it ran is noted by the first slice: whoever goes on with the rescue finds less.
fn death(conn: &Connection, instance: i64, evidence: &Evidence) -> rusqlite::Result<Death> {
    let known = conn
        .prepare_cached(RAN)?
        .query_row([instance], RanRow::read)
        .optional()?;
    let running = match known {
        Some(RanRow { count, only_cause }) => Running { count, only_cause },
        None => {
            let running = look(conn, instance, evidence)?;
            conn.prepare_cached(NOTE_RAN)?.execute(params![
                instance,
                running.count.cast_signed(),
                running.only_cause
            ])?;
            running
        }
    };
    Ok(match evidence {
        Evidence::Ledger(_) => Death::Crash(running),
        Evidence::None { is_copied: true } => Death::Copied,
        Evidence::None { is_copied: false } => Death::Unknown {
            count: running.count,
        },
    })
}

/// What an instance ran: of the claims in its ledger those that it still held, for the others are settled.
fn look(conn: &Connection, instance: i64, evidence: &Evidence) -> rusqlite::Result<Running> {
    let mut ran = Vec::new();
    let mut held = conn.prepare_cached(HELD)?;
    let mut rows = held.query([instance])?;
    while let Some(row) = rows.next()? {
        let claim = ClaimRow::read(row)?;
        if evidence.was_started(claim.seq, claim.claim_no) {
            ran.push(Ran {
                seq: claim.seq,
                started_at: claim.started_at.unwrap_or(Timestamp::MAX),
                level: claim.class.level(),
            });
        }
    }
    Ok(Running {
        count: ran.len() as u64,
        only_cause: only_cause(&ran),
    })
}

/// A slice that has taken back this many tasks stops if a request waits.
const ENOUGH: usize = 192;

/// A task of a dead instance.
struct Left {
    held: Held,
    cancel_requested: bool,
    max_crashes: Option<u32>,
}

impl Left {
    fn orphan(&self, tx: &WriteTx<'_>, started: bool, death: Death) -> Orphan {
        // A task of a lane that is not known is not started again.
        let lane = tx.lane(self.held.lane);
        Orphan {
            seq: self.held.fence.seq,
            crashes: self.held.trouble.crashes,
            blamed: self.held.trouble.blamed,
            max_crashes: self.max_crashes,
            class: lane.map_or(Class::Once, |lane| lane.class),
            cancel_requested: self.cancel_requested,
            started,
            death,
        }
    }
}

pub(crate) fn rescue(
    tx: &mut WriteTx<'_>,
    instance: i64,
    evidence: &Evidence,
    limit: usize,
) -> rusqlite::Result<Rescued> {
    let death = death(tx.conn, instance, evidence)?;
    let left = orphans(tx, instance, limit)?;
    let mut rescued = Rescued {
        more: left.len() == limit,
        ..Rescued::default()
    };
    for (done, each) in left.into_iter().enumerate() {
        if done >= ENOUGH && tx.is_waited_for() {
            // The next slice goes on after the requests that wait.
            rescued.more = true;
            break;
        }
        let fence = each.held.fence;
        let started = evidence.was_started(fence.seq, fence.claim_no);
        let orphan = each.orphan(tx, started, death);
        if started {
            rescued.crashed += 1;
        } else {
            rescued.given_back += 1;
        }
        take_back(tx, each.held, started, decide(orphan))?;
    }
    if !rescued.more {
        roll::end(tx.conn, instance, tx.now)?;
        cancels::forget(tx.conn, instance)?;
    }
    Ok(rescued)
}

fn orphans(tx: &WriteTx<'_>, instance: i64, limit: usize) -> rusqlite::Result<Vec<Left>> {
    tx.conn
        .prepare_cached(ORPHANS)?
        .query_map(params![instance, limit as i64], |row| {
            let options: Option<Vec<u8>> = row.get("options")?;
            // Damaged options are found at the next claim.
            let options = options::decode(options.as_deref()).ok().flatten();
            let row = HeldRow::read(row)?;
            Ok(Left {
                cancel_requested: row.cancel_requested,
                max_crashes: options.and_then(|options| options.max_crashes),
                held: row.held_by(instance, tx.conn)?,
            })
        })?
        .collect()
}

/// Gives back what this instance holds except for these claims. The rest was never started: the answer to its claim was
/// lost.
pub(crate) fn disown(tx: &mut WriteTx<'_>, held: &[Fence]) -> rusqlite::Result<usize> {
    let mut given_back = 0;
    for each in orphans(tx, tx.instance, usize::MAX >> 1)? {
        if !held.iter().any(|fence| fence.seq == each.held.fence.seq) {
            let verdict = decide(each.orphan(tx, false, Death::Copied));
            take_back(tx, each.held, false, verdict)?;
            given_back += 1;
        }
    }
    Ok(given_back)
}

fn take_back(
    tx: &mut WriteTx<'_>,
    mut held: Held,
    started: bool,
    verdict: Rescue,
) -> rusqlite::Result<()> {
    let error = match verdict {
        Rescue::Interrupted => "interrupted",
        _ => "crashed",
    };
    let line = started.then(|| held.line(AttemptEnd::Crashed, Some(error)));
    if started {
        held.trouble.crashes = held.trouble.crashes.saturating_add(1);
        held.drop_start_deadline(tx)?;
    } else {
        held.unclaim();
    }
    let is_blamed = match verdict {
        Rescue::Suspect { is_blamed, .. } | Rescue::Crashed { is_blamed } => is_blamed,
        _ => false,
    };
    held.trouble.blamed = held.trouble.blamed.saturating_add(u32::from(is_blamed));
    if let Rescue::Suspect { level, .. } = verdict
        && let Some(lane) = tx.lane(held.lane)
    {
        held.lane = tx.lane_id(&lane.queue, &lane.kind, Class::Suspect(level))?;
    }
    let at = tx.now;
    match verdict {
        Rescue::GiveBack => transition::release(tx, &held, line, EventKind::GivenBack, at),
        Rescue::Suspect { .. } | Rescue::Innocent => {
            transition::release(tx, &held, line, EventKind::Rescued, at)
        }
        Rescue::Crashed { .. } | Rescue::Interrupted => {
            transition::end(tx, &held, TaskState::Failed, line, at)
        }
        Rescue::Cancelled => transition::end(tx, &held, TaskState::Cancelled, line, at),
    }
}
