//! Deciding what is due by a recurrence as it is now, before something else changes it.

use crate::model::recurrence::decide::{Decision, MAX_PLACED};
use crate::model::recurrence::policy::{MAX_KEPT, SkipReason};
use crate::store::sqlite::ops::recur::fire::update_zone;
use crate::store::sqlite::ops::recur::make::Maker;
use crate::store::sqlite::ops::recur::row::{self as rows, Recurring, mark};
use crate::store::sqlite::ops::write_tx::WriteTx;

/// In how many steps all that is due may have to be decided.
const MAX_STEPS: usize = MAX_KEPT as usize / MAX_PLACED + 1;

/// Decides all that is due of a recurrence.
pub(super) fn decide_due(tx: &mut WriteTx<'_>, recurring: &mut Recurring) -> rusqlite::Result<()> {
    decide_some(tx, recurring, usize::MAX).map(|_| ())
}

/// Decides what is due of a recurrence, about as many slots as may be given a place. Returns how many were.
pub(super) fn decide_some(
    tx: &mut WriteTx<'_>,
    recurring: &mut Recurring,
    limit: usize,
) -> rusqlite::Result<usize> {
    update_zone(tx, recurring)?;
    let Some((definition, payload)) = rows::definition(tx.conn, recurring)? else {
        return Ok(0);
    };
    let mark = mark(tx.conn)?;
    let mut maker = Maker {
        recurring,
        definition: &definition,
        payload: &payload,
        mark,
    };
    let (mut placed, now) = (0, tx.now);
    if maker.recurring.paused_at.is_some()
        && let Some(slot) = maker.recurring.due_slot(now)
    {
        let decision = maker.undecided(|definition| {
            Decision::pass(&definition.rule, slot, now, SkipReason::Paused)
        });
        return maker.take(tx, decision);
    }
    for _ in 0..MAX_STEPS {
        if placed >= limit || maker.recurring.due_slot(now).is_none() {
            break;
        }
        placed += maker.decide(tx)?;
    }
    Ok(placed)
}
