//! Taking back what a dead instance held, a slice at a time.

use rusqlite::{Connection, params};

use crate::model::attempt::AttemptEnd;
use crate::model::delivery::Delivery;
use crate::model::event::EventKind;
use crate::model::lane::{Class, LaneId};
use crate::model::op::Rescued;
use crate::model::settle::{Fence, Orphan, Rescue, rescue as decide};
use crate::model::task::TaskState;
use crate::store::sqlite::instances::evidence::Evidence;
use crate::store::sqlite::instances::roll;
use crate::store::sqlite::ops::cancels;
use crate::store::sqlite::ops::options;
use crate::store::sqlite::ops::transition::{self, Held, HeldRow};
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::sql::sql;

pub(crate) const ORPHANS: &str = sql!(
    "SELECT {columns}, options FROM punctual_task INDEXED BY punctual_task_running
    WHERE state = {running}
        AND lane IN (SELECT id FROM punctual_lane INDEXED BY punctual_lane_retired WHERE retired = {in_use})
        AND instance = :instance LIMIT :limit",
    columns = HeldRow::COLUMNS
);

pub(crate) const COUNT_HELD: &str = sql!("
    SELECT count(*) FROM (
        SELECT 1 FROM punctual_task INDEXED BY punctual_task_running
        WHERE state = {running} AND lane IN (SELECT id FROM punctual_lane INDEXED BY punctual_lane_retired WHERE retired = {in_use})
            AND instance = :instance LIMIT 2)");

/// How many claims an instance holds, up to two.
pub(crate) fn count_held(conn: &Connection, instance: i64) -> rusqlite::Result<u32> {
    conn.prepare_cached(COUNT_HELD)?
        .query_row([instance], |row| row.get(0))
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
    fn orphan(&self, tx: &WriteTx<'_>, started: bool, is_suspect: bool) -> Orphan {
        Orphan {
            blamed: self.held.trouble.blamed,
            max_crashes: self.max_crashes,
            delivery: delivery(tx, self.held.lane),
            cancel_requested: self.cancel_requested,
            started,
            is_suspect,
        }
    }
}

pub(crate) fn rescue(
    tx: &mut WriteTx<'_>,
    instance: i64,
    evidence: &Evidence,
    limit: usize,
) -> rusqlite::Result<Rescued> {
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
        let orphan = each.orphan(tx, started, evidence.blames());
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
            let verdict = decide(each.orphan(tx, false, false));
            take_back(tx, each.held, false, verdict)?;
            given_back += 1;
        }
    }
    Ok(given_back)
}

/// The delivery of a lane's tasks; at most once if the lane is not known.
fn delivery(tx: &WriteTx<'_>, lane: LaneId) -> Delivery {
    tx.lane(lane)
        .map_or(Delivery::AtMostOnce, |lane| lane.class.delivery())
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
    if matches!(verdict, Rescue::Suspect | Rescue::Crashed) {
        held.trouble.blamed = held.trouble.blamed.saturating_add(1);
    }
    if verdict == Rescue::Suspect
        && let Some(lane) = tx.lane(held.lane)
    {
        held.lane = tx.lane_id(&lane.queue, &lane.kind, Class::Suspect)?;
    }
    let at = tx.now;
    match verdict {
        Rescue::GiveBack => transition::release(tx, &held, line, EventKind::GivenBack, at),
        Rescue::Suspect | Rescue::Innocent => {
            transition::release(tx, &held, line, EventKind::Rescued, at)
        }
        Rescue::Crashed | Rescue::Interrupted => {
            transition::end(tx, &held, TaskState::Failed, line, at)
        }
        Rescue::Cancelled => transition::end(tx, &held, TaskState::Cancelled, line, at),
    }
}
