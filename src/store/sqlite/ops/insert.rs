//! Storing new tasks.

use rusqlite::{OptionalExtension, Statement, params};

use crate::model::delivery::Delivery;
use crate::model::event::EventKind;
use crate::model::lane::{ClaimRequest, Class, LaneClaim, LaneId};
use crate::model::new_task::Insert;
use crate::model::new_task::Scheduled;
use crate::model::pool::Pool;
use crate::model::settle::{Claim, Fence, StoredPayload};
use crate::model::task::TaskState;
use crate::store::sqlite::ops::payload::{self, MAX_INLINE_BYTES, checksum};
use crate::store::sqlite::ops::transition;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::ops::{options, room};
use crate::store::sqlite::sql::{extra, sql};

const INSERT: &str = "
    INSERT INTO punctual_task (id, lane, priority, state, attempt, max_attempts, claim_no, instance,
        scheduled_at, created_at, started_at, expires_at, room, extras, checksum, partition, options, payload)
    VALUES (:id, :lane, :priority, :state, :attempt, :max_attempts, :claim_no, :instance,
        :scheduled_at, :created_at, :started_at, :expires_at, :room, :extras, :checksum, :partition, :options, :payload)
    ON CONFLICT (id) DO NOTHING";

/// Inserts pending tasks without anything rare. For each, id, lane, priority, max_attempts, scheduled_at, created_at,
/// checksum and payload are bound, in this order.
macro_rules! insert_plain {
    ($insert:literal, [$($comma:literal)*]) => {
        concat!(
            $insert,
            " INTO punctual_task (id, lane, priority, state, attempt, max_attempts, claim_no,
                scheduled_at, created_at, room, extras, checksum, payload)
            VALUES ",
            $($comma, "(?, ?, ?, {pending}, 0, ?, 0, ?, ?, {room}, 0, ?, ?)",)*
            " ON CONFLICT (id) DO NOTHING"
        )
    };
}

/// One plain task: a tenth less work than [`INSERT`], most of it in binding.
const INSERT_PLAIN: &str = sql!(insert_plain!("INSERT", [""]), room = room::ROOM_SQL);

/// [`HANDFUL`] plain tasks: a fifth less work than one by one. OR FAIL: an error rolls the transaction back, so the
/// statement needs no journal of its own.
const INSERT_HANDFUL: &str = sql!(
    insert_plain!("INSERT OR FAIL", ["" ", " ", " ", " ", " ", " ", " ", "]),
    room = room::ROOM_SQL
);

const HANDFUL: usize = 8;

const STORED: &str = "SELECT seq, checksum FROM punctual_task WHERE id = :id";

const INSERT_TAG: &str = "INSERT INTO punctual_tag (seq, tag) VALUES (:seq, :tag)";

pub(crate) fn insert(tx: &mut WriteTx<'_>, tasks: &[&Insert]) -> rusqlite::Result<Vec<Scheduled>> {
    let mut answers = Vec::with_capacity(tasks.len());
    let mut rest = tasks;
    while let Some(task) = rest.first() {
        if let Some((handful, after)) = rest.split_first_chunk()
            && handful.iter().all(|task| is_plain(task))
        {
            insert_handful(tx, handful, &mut answers)?;
            rest = after;
            continue;
        }
        rest = &rest[1..];
        answers.push(match insert_one(tx, task)? {
            Some(_) => Scheduled::New(task.id),
            None => stored_before(tx, task)?.1,
        });
    }
    Ok(answers)
}

/// Stores a task and returns its row; `None`: its id is stored already.
pub(crate) fn insert_one(tx: &mut WriteTx<'_>, task: &Insert) -> rusqlite::Result<Option<i64>> {
    let lane = tx.lane_id(&task.queue, &task.kind, Class::new(task.delivery))?;
    let seq = write(tx, lane, task, None)?;
    if let Some(seq) = seq {
        transition::waits(tx, lane, task.priority, task.scheduled_at);
        if let Some(at) = task.expires_at {
            tx.expires(seq, at)?;
        }
    }
    Ok(seq)
}

/// The row of the task that is stored with the id of `task`, and whether it is the same task.
fn stored_before(tx: &WriteTx<'_>, task: &Insert) -> rusqlite::Result<(Option<i64>, Scheduled)> {
    let stored: Option<(i64, i64)> = tx
        .conn
        .prepare_cached(STORED)?
        .query_row([&task.id.as_bytes()[..]], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    Ok(match stored {
        Some((seq, sum)) if sum == checksum(task.id, &task.kind, &task.payload) => {
            (Some(seq), Scheduled::Existing(task.id))
        }
        Some((seq, _)) => (Some(seq), Scheduled::Different(task.id)),
        None => (None, Scheduled::Existing(task.id)),
    })
}

/// Stores a due task as already claimed, with one write of its row, if a worker waits for one and the task is the best of
/// its queue. `None`: it is not, and no task was stored.
pub(crate) fn insert_claimed(
    tx: &mut WriteTx<'_>,
    task: &Insert,
    standing_claim: &ClaimRequest,
) -> rusqlite::Result<Option<(Scheduled, Option<Claim>)>> {
    if task.delivery == Delivery::AtMostOnce {
        return Ok(None);
    }
    let id = tx.lane_id(&task.queue, &task.kind, Class::Plain)?;
    let Some(lane) = tx.lane(id) else {
        return Ok(None);
    };
    let Some(pool) = pool_of_next(tx, task, id, standing_claim) else {
        return Ok(None);
    };
    let claim_no = tx.draw(0);
    let Some(seq) = write(tx, id, task, Some(claim_no))? else {
        return Ok(Some((stored_before(tx, task)?.1, None)));
    };
    tx.event(id, task.id, EventKind::Claimed);
    let claim = Claim {
        fence: Fence {
            seq,
            instance: tx.instance,
            claim_no,
        },
        id: task.id,
        kind: lane.kind,
        queue: lane.queue,
        priority: task.priority,
        scheduled_at: task.scheduled_at,
        expires_at: task.expires_at,
        attempt: 1,
        crashes: 0,
        undecoded: 0,
        max_attempts: task.max_attempts,
        class: lane.class,
        pool,
        options: task.options.clone(),
        last_error: None,
        payload: StoredPayload::Whole(task.payload.clone()),
    };
    Ok(Some((Scheduled::New(task.id), Some(claim))))
}

/// The pool that would take this task next if it were stored; `None`: it may not be taken, or something due in its queue is
/// better.
fn pool_of_next(
    tx: &WriteTx<'_>,
    task: &Insert,
    lane: LaneId,
    standing_claim: &ClaimRequest,
) -> Option<Pool> {
    let may_start = task.scheduled_at <= tx.now && task.expires_at.is_none_or(|at| at >= tx.now);
    if !may_start {
        return None;
    }
    let takes = |claim: &&LaneClaim| claim.lane == lane && claim.class == Class::Plain;
    let mut queues = standing_claim.queues.iter();
    let (queue, pool) = queues.find_map(|queue| {
        let claim = queue.lanes.iter().find(takes)?;
        Some((queue, claim.pool))
    })?;
    if queue.limit == 0 || standing_claim.free[pool] == 0 {
        return None;
    }
    let place = (task.priority, task.scheduled_at);
    let mut beside = queue.lanes.iter().filter(|claim| claim.pool == pool);
    let is_best = beside.all(|claim| {
        let Some(mut lane) = tx.lane(claim.lane) else {
            return false;
        };
        tx.done.learnt.apply_to(&mut lane);
        let better = (0..)
            .zip(&lane.heads)
            .filter_map(|(priority, head)| head.map(|at| (priority, at)))
            // Of two that are alike, the stored one comes first.
            .any(|(priority, at)| at <= tx.now && (priority, at) <= place);
        !lane.paused && lane.limit.is_none() && !better
    });
    is_best.then_some(pool)
}

/// Writes the rows of a task, as pending or as started under a claim's number; `None`: its id is stored already.
fn write(
    tx: &mut WriteTx<'_>,
    lane: LaneId,
    task: &Insert,
    claim_no: Option<i64>,
) -> rusqlite::Result<Option<i64>> {
    let inline = task.payload.len() <= MAX_INLINE_BYTES;
    let mut extras = 0;
    if !inline {
        extras |= extra::PAYLOAD;
    }
    if !task.tags.is_empty() {
        extras |= extra::TAGS;
    }
    let options = task.options.as_ref();
    if options.is_some_and(|options| options.slot.is_some()) {
        extras |= extra::RECURRENCE;
    }
    let added = if claim_no.is_none() && is_plain(task) {
        let mut statement = tx.conn.prepare_cached(INSERT_PLAIN)?;
        bind_plain(&mut statement, 0, lane, task)?;
        statement.raw_execute()?
    } else {
        insert_row(tx, lane, task, claim_no, extras)?
    };
    if added == 0 {
        return Ok(None);
    }
    let seq = tx.conn.last_insert_rowid();
    if !inline {
        payload::keep(tx.conn, seq, &task.payload)?;
    }
    for tag in &task.tags {
        tx.conn
            .prepare_cached(INSERT_TAG)?
            .execute(params![seq, tag])?;
    }
    tx.event_at(lane, task.id, EventKind::Scheduled, task.created_at);
    Ok(Some(seq))
}

/// Whether a task needs nothing but its row, and everything rare is at its default.
fn is_plain(task: &Insert) -> bool {
    task.payload.len() <= MAX_INLINE_BYTES
        && task.tags.is_empty()
        && task.expires_at.is_none()
        && task.partition.is_none()
        && task.options.is_none()
}

/// Binds the values of a plain task, as the `index`-th row of a statement.
fn bind_plain(
    statement: &mut Statement<'_>,
    index: usize,
    lane: LaneId,
    task: &Insert,
) -> rusqlite::Result<()> {
    let first = 8 * index + 1;
    statement.raw_bind_parameter(first, task.id.as_bytes())?;
    statement.raw_bind_parameter(first + 1, lane.0)?;
    statement.raw_bind_parameter(first + 2, task.priority)?;
    statement.raw_bind_parameter(first + 3, task.max_attempts)?;
    statement.raw_bind_parameter(first + 4, task.scheduled_at.micros())?;
    statement.raw_bind_parameter(first + 5, task.created_at.micros())?;
    let sum = checksum(task.id, &task.kind, &task.payload);
    statement.raw_bind_parameter(first + 6, sum)?;
    statement.raw_bind_parameter(first + 7, &task.payload)
}

/// Stores plain tasks. If ids of a handful are stored already, which is rare, they are looked up.
fn insert_handful(
    tx: &mut WriteTx<'_>,
    handful: &[&Insert; HANDFUL],
    answers: &mut Vec<Scheduled>,
) -> rusqlite::Result<()> {
    let mut statement = tx.conn.prepare_cached(INSERT_HANDFUL)?;
    let mut lanes = [LaneId(0); HANDFUL];
    for (index, task) in handful.iter().enumerate() {
        lanes[index] = tx.lane_id(&task.queue, &task.kind, Class::new(task.delivery))?;
        bind_plain(&mut statement, index, lanes[index], task)?;
    }
    let added = statement.raw_execute()?;
    // Each row's number is one more than that of the row before.
    let before = tx.conn.last_insert_rowid() - added as i64;
    for (index, (task, lane)) in handful.iter().zip(lanes).enumerate() {
        let mut answer = Scheduled::New(task.id);
        if added < HANDFUL {
            let twin = handful[..index].iter().any(|other| other.id == task.id);
            let (seq, stored) = stored_before(tx, task)?;
            if added == 0 || twin || seq.is_none_or(|seq| seq <= before) {
                answer = stored;
            }
        }
        if answer.is_new() {
            transition::waits(tx, lane, task.priority, task.scheduled_at);
            tx.event_at(lane, task.id, EventKind::Scheduled, task.created_at);
        }
        answers.push(answer);
    }
    Ok(())
}

/// Inserts the row of a task with everything that it may have.
fn insert_row(
    tx: &WriteTx<'_>,
    lane: LaneId,
    task: &Insert,
    claim_no: Option<i64>,
    extras: i64,
) -> rusqlite::Result<usize> {
    let state = claim_no.map_or(TaskState::Pending, |_| TaskState::Running);
    let inline = extras & extra::PAYLOAD == 0;
    tx.conn.prepare_cached(INSERT)?.execute(params![
        task.id.as_bytes(),
        lane.0,
        task.priority,
        state.code(),
        i64::from(claim_no.is_some()),
        task.max_attempts,
        claim_no.unwrap_or(0),
        claim_no.map(|_| tx.instance),
        task.scheduled_at.micros(),
        task.created_at.micros(),
        claim_no.map(|_| tx.now.micros()),
        task.expires_at.map(|at| at.micros()),
        room::room(claim_no.map_or(0, |number| room::claim_bytes(tx.instance, number))),
        extras,
        checksum(task.id, &task.kind, &task.payload),
        task.partition,
        task.options.as_deref().map(options::encode),
        inline.then_some(&task.payload),
    ])
}
