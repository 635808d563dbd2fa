//! Which file an operation is in.

use crate::model::op::{Op, Reply};
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::ops::{
    change, claim, expire, forget, insert, probe, prune, queue, recur, rescue, settle,
};

/// What an operation does, for the text of its error.
pub(crate) fn what(op: &Op) -> &'static str {
    match op {
        Op::Insert(_) => "schedule",
        Op::Claim(_) => "claim",
        Op::Settle(_) => "settle",
        Op::Progress { .. } => "keep progress",
        Op::Change { .. } | Op::ChangeMatching { .. } => "change a task",
        Op::PauseQueue { .. } => "pause a queue",
        Op::LimitQueue { .. } => "limit a queue",
        Op::Probe => "write",
        Op::Prune { .. } => "prune",
        Op::Expire { .. } => "expire",
        Op::RetireLanes { .. } => "retire queues",
        Op::ForgetLanes { .. } => "forget queues",
        Op::Recur(_) => "store a recurrence",
        Op::Declare(_) => "declare recurrences",
        Op::ChangeRecurrence { .. } => "change a recurrence",
        Op::DecideBefore(_) => "decide what is due",
        Op::Fire { .. } => "fire recurrences",
        Op::Disown { .. } => "give back",
    }
}

/// Applies an operation.
pub(crate) fn apply(tx: &mut WriteTx<'_>, op: &Op) -> rusqlite::Result<Reply> {
    Ok(match op {
        Op::Insert(tasks) => {
            Reply::Inserted(insert::insert(tx, &tasks.iter().collect::<Vec<_>>())?)
        }
        Op::Claim(request) => Reply::Claimed(claim::claim(tx, request)?),
        Op::Settle(settlements) => Reply::Settled(settle::settle(tx, settlements)?),
        Op::Progress { fence, value } => Reply::Progressed(settle::progress(tx, *fence, value)?),
        Op::Change { id, action } => Reply::Changed(change::change(tx, *id, action)?),
        Op::ChangeMatching {
            filter,
            action,
            after,
        } => Reply::ChangedMany(change::change_matching(tx, filter, action, *after)?),
        Op::PauseQueue { queue, paused } => {
            queue::pause(tx, queue, *paused)?;
            Reply::Done(1)
        }
        Op::LimitQueue { queue, limit } => {
            queue::limit(tx, queue, *limit)?;
            Reply::Done(1)
        }
        Op::Probe => {
            probe::probe(tx)?;
            Reply::Done(1)
        }
        Op::Prune { cutoffs, limit } => Reply::Done(prune::prune(tx, cutoffs, *limit)?),
        Op::Expire { limit } => Reply::Done(expire::expire(tx, *limit)?),
        Op::RetireLanes { lanes } => Reply::Done(forget::retire(tx, lanes)?),
        Op::ForgetLanes { lanes } => Reply::Done(forget::forget(tx, lanes)?),
        Op::Recur(registration) => Reply::Recurred(recur::register::register(tx, registration)?),
        Op::Declare(declaration) => Reply::Declared(recur::declare::declare(tx, declaration)?),
        Op::ChangeRecurrence { name, action } => {
            Reply::RecurrenceChanged(recur::change::change(tx, name, action)?)
        }
        Op::DecideBefore(op) => Reply::Done(recur::before::decide_before(tx, op)?.into()),
        Op::Fire { limit } => Reply::Done(recur::fire::fire(tx, *limit)?),
        Op::Disown { held } => Reply::Done(rescue::disown(tx, held)?),
    })
}
