//! The content of a transaction: the operations of its requests, in an order in which each sees what it has to, and the
//! standing claim that comes along.

use crate::model::lane::ClaimRequest;
use crate::model::new_task::{Insert, Scheduled};
use crate::model::op::{Op, Reply};
use crate::model::settle::Claim;
use crate::store::Signals;
use crate::store::sqlite::ops::apply;
use crate::store::sqlite::ops::claim;
use crate::store::sqlite::ops::insert;
use crate::store::sqlite::ops::recur::exits;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::write::failure::WriteFailure;
use crate::store::standing_claim::Taken;
use crate::store::turn::Request;

/// Runs the operations of the requests. A lone insert comes after the scheduler's own operations. Claims come last, so that
/// they see what the others did.
pub(crate) fn operate(
    tx: &mut WriteTx<'_>,
    batch: &[Request],
    stands: bool,
    signals: &Signals,
) -> std::result::Result<Vec<Vec<Reply>>, WriteFailure> {
    let room = |request: &Request| Vec::with_capacity(request.ops.len());
    let mut replies: Vec<Vec<Reply>> = batch.iter().map(room).collect();
    let lone = lone_insert(batch);
    let (mut singles, mut claims) = (Vec::new(), Vec::new());
    for (index, request) in batch.iter().enumerate() {
        if lone == Some(index) {
            continue;
        }
        if let Some(task) = single(request) {
            tx.now = request.now;
            singles.push((index, task));
            continue;
        }
        store_singles(tx, &mut singles, &mut replies)?;
        tx.now = request.now;
        for op in &request.ops {
            if matches!(op, Op::Claim(_)) {
                claims.push((index, replies[index].len(), op));
                replies[index].push(Reply::Claimed(Vec::new()));
            } else {
                replies[index].push(apply_checked(tx, op)?);
            }
        }
    }
    store_singles(tx, &mut singles, &mut replies)?;
    let last = batch.iter().map(|request| request.now).max();
    tx.now = last.unwrap_or(tx.now);
    if let Some(index) = lone
        && let Some(task) = single(&batch[index])
    {
        replies[index].push(store_lone(tx, task, stands, signals)?);
    }
    for (request, index, op) in claims {
        replies[request][index] = apply_checked(tx, op)?;
    }
    claim_due(tx, stands, signals)?;
    Ok(replies)
}

/// The only request of a caller, if it stores one task and does nothing else. What else becomes due is then known before it
/// runs.
fn lone_insert(batch: &[Request]) -> Option<usize> {
    let mut callers = (0..).zip(batch).filter(|(_, each)| each.is_durable());
    let (index, request) = callers.next()?;
    let is_alone = callers.next().is_none();
    (is_alone && single(request).is_some()).then_some(index)
}

/// The task of a request that stores one task and does nothing else.
fn single(request: &Request) -> Option<&Insert> {
    match &request.ops[..] {
        [Op::Insert(tasks)] if tasks.len() == 1 => tasks.first(),
        _ => None,
    }
}

/// Stores the tasks of many callers at once.
fn store_singles(
    tx: &mut WriteTx<'_>,
    singles: &mut Vec<(usize, &Insert)>,
    replies: &mut [Vec<Reply>],
) -> std::result::Result<(), WriteFailure> {
    if singles.is_empty() {
        return Ok(());
    }
    let tasks: Vec<&Insert> = singles.iter().map(|(_, task)| *task).collect();
    let stored = checked(tx, "schedule", |tx| insert::insert(tx, &tasks))?;
    for ((index, _), stored) in singles.drain(..).zip(stored) {
        replies[index].push(Reply::Inserted(vec![stored]));
    }
    Ok(())
}

/// Stores the task of the only caller, and claims it for a worker that waits, if there is one.
fn store_lone(
    tx: &mut WriteTx<'_>,
    task: &Insert,
    stands: bool,
    signals: &Signals,
) -> std::result::Result<Reply, WriteFailure> {
    if stands
        && let Some(taken) = signals.standing_claim().take(tx.lanes_version())
        && let Some(stored) = stand_in(tx, task, taken)?
    {
        return Ok(Reply::Inserted(vec![stored]));
    }
    let stored = checked(tx, "schedule", |tx| insert::insert(tx, &[task]))?;
    Ok(Reply::Inserted(stored))
}

/// Stores a task as claimed by the standing claim, if that would take it next; `None`: the task was not stored.
fn stand_in(
    tx: &mut WriteTx<'_>,
    task: &Insert,
    taken: Taken,
) -> std::result::Result<Option<Scheduled>, WriteFailure> {
    with_standing_claim(tx, taken, |tx, request| {
        let stored = checked(tx, "schedule", |tx| {
            insert::insert_claimed(tx, task, request)
        })?;
        let (stored, claim) = stored.unzip();
        Ok((stored, claim.flatten().into_iter().collect()))
    })
}

/// Makes the standing claim if something has become due; `stands`: whether it may come along.
pub(crate) fn claim_due(
    tx: &mut WriteTx<'_>,
    stands: bool,
    signals: &Signals,
) -> std::result::Result<(), WriteFailure> {
    if stands && tx.done.news.due.is_some_and(|due| due <= tx.now) {
        make_standing_claim(tx, signals)?;
    }
    Ok(())
}

/// Makes the standing claim, unless it was made already.
fn make_standing_claim(
    tx: &mut WriteTx<'_>,
    signals: &Signals,
) -> std::result::Result<(), WriteFailure> {
    let taken = match tx.done.standing_claim.take() {
        // Storing a task may have added a lane.
        Some((taken, claims))
            if claims.is_empty() && taken.request().lanes_version == tx.lanes_version() =>
        {
            taken
        }
        Some(made) => {
            tx.done.standing_claim = Some(made);
            return Ok(());
        }
        None => match signals.standing_claim().take(tx.lanes_version()) {
            Some(taken) => taken,
            None => return Ok(()),
        },
    };
    with_standing_claim(tx, taken, |tx, request| {
        let claims = checked(tx, "claim", |tx| claim::claim(tx, request))?;
        Ok(((), claims))
    })
}

/// Runs `run`, which returns an answer and what the standing claim has claimed. The end of the transaction decides what
/// becomes of that, also after an error.
fn with_standing_claim<T>(
    tx: &mut WriteTx<'_>,
    taken: Taken,
    run: impl FnOnce(
        &mut WriteTx<'_>,
        &ClaimRequest,
    ) -> std::result::Result<(T, Vec<Claim>), WriteFailure>,
) -> std::result::Result<T, WriteFailure> {
    let ran = run(tx, taken.request());
    let (answer, claims) = match ran {
        Ok((answer, claims)) => (Ok(answer), claims),
        Err(failure) => (Err(failure), Vec::new()),
    };
    tx.done.standing_claim = Some((taken, claims));
    answer
}

/// Runs something in a transaction, then tells the recurrences whose tasks it has ended, and checks that SQLite has not rolled
/// the transaction back.
pub(crate) fn checked<T>(
    tx: &mut WriteTx<'_>,
    what: &'static str,
    run: impl FnOnce(&mut WriteTx<'_>) -> rusqlite::Result<T>,
) -> std::result::Result<T, WriteFailure> {
    let answer = run(tx).map_err(|error| WriteFailure::at(what, error))?;
    if !tx.turned.is_empty() {
        exits::tell(tx).map_err(|error| WriteFailure::at(what, error))?;
    }
    if tx.conn.is_autocommit() {
        // SQLite rolled it back: a further statement would commit alone.
        return Err(WriteFailure::Void);
    }
    Ok(answer)
}

/// Runs one operation, and checks that SQLite has not rolled the transaction back.
pub(crate) fn apply_checked(
    tx: &mut WriteTx<'_>,
    op: &Op,
) -> std::result::Result<Reply, WriteFailure> {
    checked(tx, apply::what(op), |tx| apply::apply(tx, op))
}
