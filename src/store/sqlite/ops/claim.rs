//! Taking due tasks: by a merge of the lanes' heads, so that only rows that are taken are visited.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use rusqlite::{params, params_from_iter};

use crate::id::TaskId;
use crate::model::event::EventKind;
use crate::model::lane::{ClaimRequest, Heads, Lane, LaneClaim, QueueClaim};
use crate::model::limits::MAX_PRIORITY;
use crate::model::op::CHUNK;
use crate::model::pool::{PerPool, Pool};
use crate::model::settle::{Claim, Fence, StoredPayload};
use crate::store::sqlite::ops::expire::expire_one;
use crate::store::sqlite::ops::room;
use crate::store::sqlite::ops::trouble::Trouble;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::ops::{extras, options, payload, row};
use crate::store::sqlite::sql::{columns, sql};
use crate::time::Timestamp;

/// The next pending tasks of a lane and priority, and whether their start deadline has passed. The time has no upper bound:
/// the first task that is not due says when to wake. `seq` is the row's number, which ends every entry of the index; SQLite
/// seeks by it only if the comparison has a collation, and otherwise passes over all entries of the same instant.
pub(crate) const CANDIDATES: &str = sql!(
    "SELECT {columns} FROM punctual_task INDEXED BY punctual_task_due
    WHERE state = {pending} AND lane = :lane AND priority = :priority
        AND (scheduled_at, seq) > (:scheduled_at, :seq COLLATE BINARY)
    ORDER BY scheduled_at, seq LIMIT :limit",
    columns = Candidate::COLUMNS
);

/// Takes a row that was read in this transaction. No RETURNING: SQLite would keep a journal of the statement, which costs
/// three times as much as the read and the update.
pub(crate) const TAKE: &str = sql!("
    UPDATE punctual_task
    SET state = {running}, instance = :instance, claim_no = :claim_no, attempt = attempt + 1, started_at = :now,
        room = substr(room, :taken + 1)
    WHERE seq = :seq AND state = {pending}");

/// Takes [`HANDFUL`] rows: a third less work than one by one. OR FAIL: an error rolls the transaction back, so the statement
/// needs no journal of its own.
pub(crate) const TAKE_HANDFUL: &str = sql!("
    UPDATE OR FAIL punctual_task
    SET state = {running}, instance = ?1, claim_no = ?2, attempt = attempt + 1, started_at = ?3,
        room = substr(room, ?4 + 1)
    WHERE state = {pending} AND seq IN (?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)");

const HANDFUL: usize = 16;

/// How many tasks of a lane run, up to a limit.
pub(crate) const COUNT_RUNNING: &str = sql!("
    SELECT count(*) FROM (
        SELECT 1 FROM punctual_task INDEXED BY punctual_task_running WHERE state = {running} AND lane = :lane LIMIT :limit)");

/// A claim that has this many tasks stops if another request waits; the next claim goes on.
const ENOUGH: usize = 16;

/// The most bytes of payloads in one claim, beside those of its last task.
const MAX_BYTES: usize = 4 << 20;

pub(crate) fn claim(tx: &mut WriteTx<'_>, request: &ClaimRequest) -> rusqlite::Result<Vec<Claim>> {
    let mut queues = Vec::with_capacity(request.queues.len());
    for queue in &request.queues {
        queues.push(QueueCursor::new(tx, queue)?);
    }
    let mut claims = Vec::new();
    let mut budget = Budget {
        free: request.free,
        left: request.budget,
    };
    // `None`: the best due suspect has to wait, and so have those behind it.
    let mut suspects = Some(request.suspects);
    // One task from each queue in turn, until no queue has another.
    let mut open: VecDeque<usize> = (0..queues.len()).collect();
    let mut bytes = 0;
    let mut expired = 0;
    while claims.len() < request.limit
        && bytes < MAX_BYTES
        && expired < CHUNK
        && !(claims.len() >= ENOUGH && tx.is_waited_for())
        && let Some(index) = open.pop_front()
    {
        let queue = &mut queues[index];
        let room = budget.room(&queue.lanes).min(request.limit - claims.len());
        let may_suspects = suspects.is_some() && !queue.suspects_wait;
        let Some(best) = queue.best(tx, may_suspects, room)? else {
            continue;
        };
        let level = queue.lanes[best].claim.class.level();
        if let (Some(level), Some(held)) = (level, suspects)
            && !held.admit(level)
        {
            if is_best_suspect(tx, &mut queues, index, best)? {
                suspects = None;
            } else {
                // Better ones of other queues may run.
                queues[index].suspects_wait = true;
            }
            open.push_front(index);
            continue;
        }
        if !budget.affords(&queue.lanes[best].claim) {
            // The best task must not be overtaken, so nothing more of its pool comes from this queue.
            queue.is_used_up[queue.lanes[best].claim.pool] = true;
            open.push_front(index);
            continue;
        }
        if let Some(claim) = queue.read(tx, best)? {
            budget.spend(&queue.lanes[best].claim);
            bytes += claim.payload.len();
            if let (Some(level), Some(held)) = (level, &mut suspects) {
                held.add(level);
            }
            claims.push(claim);
        } else {
            expired += 1;
        }
        open.push_back(index);
    }
    take(tx, &mut claims)?;
    if expired == CHUNK {
        // The rest is for the next claim, after other writes have had their turn.
        tx.done.news.due_at(tx.now);
    }
    for queue in &queues {
        for lane in &queue.lanes {
            lane.learn(tx);
        }
    }
    Ok(claims)
}

/// Whether the best task of a lane, which is one of suspects, comes before the suspects of all other queues.
fn is_best_suspect(
    tx: &WriteTx<'_>,
    queues: &mut [QueueCursor],
    queue: usize,
    lane: usize,
) -> rusqlite::Result<bool> {
    let best = queues[queue].lanes[lane].peek(tx, 1)?;
    for (index, other) in queues.iter_mut().enumerate() {
        if index == queue || other.left == 0 || other.suspects_wait {
            continue;
        }
        let suspects = other.lanes.iter_mut();
        for lane in suspects.filter(|lane| lane.claim.class.level().is_some()) {
            let key = lane.peek(tx, 1)?;
            if key.is_some() && key < best {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// How much may be claimed: a task for each free worker and place, then as much as keeps the workers busy for a moment.
struct Budget {
    free: PerPool<usize>,
    left: Duration,
}

impl Budget {
    /// How many tasks of these lanes it can afford at most.
    fn room(&self, lanes: &[LaneCursor]) -> usize {
        let cheapest = lanes.iter().filter_map(|lane| lane.claim.cost).min();
        let ahead = cheapest.map_or(0, |cost| self.left.as_nanos() / cost.as_nanos().max(1));
        let free = self.free.total();
        free.saturating_add(usize::try_from(ahead).unwrap_or(usize::MAX))
    }

    fn affords(&self, lane: &LaneClaim) -> bool {
        self.free[lane.pool] > 0 || lane.cost.is_some_and(|cost| cost <= self.left)
    }

    fn spend(&mut self, lane: &LaneClaim) {
        let free = &mut self.free[lane.pool];
        if *free > 0 {
            *free -= 1;
        } else if let Some(cost) = lane.cost {
            self.left -= cost;
        }
    }
}

/// The due tasks of one queue, best first.
struct QueueCursor {
    lanes: Vec<LaneCursor>,
    left: usize,
    /// Its best suspect has to wait, and with it those behind it.
    suspects_wait: bool,
    /// The best task of a pool cannot be afforded, and none of that pool may overtake it.
    is_used_up: PerPool<bool>,
}

impl QueueCursor {
    fn new(tx: &WriteTx<'_>, queue: &QueueClaim) -> rusqlite::Result<Self> {
        let known = |id| {
            let mut lane = tx.lane(id)?;
            // A task that was given back earlier in this transaction may be better than the others that are due.
            tx.done.learnt.apply_to(&mut lane);
            Some(lane)
        };
        let lanes: Vec<LaneCursor> = queue
            .lanes
            .iter()
            .filter_map(|&claim| known(claim.lane).map(|lane| LaneCursor::new(claim, lane)))
            // Another process may have paused the queue since the request was made.
            .filter(|lane| !lane.lane.paused)
            .collect();
        let mut left = queue.limit;
        if let Some(LaneCursor { lane, .. }) = lanes.first()
            && let Some(limit) = lane.limit
        {
            left = left.min(room(tx, &lane.queue, limit)?);
        }
        Ok(Self {
            lanes,
            left,
            suspects_wait: false,
            is_used_up: PerPool::default(),
        })
    }

    /// The lane with the best due task: by priority, then due time, then insertion. `room`: about how many will be asked
    /// for.
    fn best(
        &mut self,
        tx: &WriteTx<'_>,
        suspects: bool,
        room: usize,
    ) -> rusqlite::Result<Option<usize>> {
        if self.left == 0 {
            return Ok(None);
        }
        let (room, lanes) = (self.left.min(room).min(256), self.lanes.len());
        // One more than a lane's share shows when its next task is due. Of very many lanes only the first task of each is
        // read.
        let chunk = if lanes > room {
            1
        } else {
            room.div_ceil(lanes.max(1)) + 1
        };
        let mut best = None;
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let waits = lane.claim.class.level().is_some() && !suspects;
            if waits || self.is_used_up[lane.claim.pool] {
                continue;
            }
            if let Some(key) = lane.peek(tx, chunk)?
                && best.is_none_or(|(best, _)| key < best)
            {
                best = Some((key, index));
            }
        }
        Ok(best.map(|(_, index)| index))
    }

    /// Claims the best task of a lane; `None`: it has expired, and was ended.
    fn read(&mut self, tx: &mut WriteTx<'_>, index: usize) -> rusqlite::Result<Option<Claim>> {
        let lane = &mut self.lanes[index];
        let candidate = lane
            .buffer
            .pop_front()
            .expect("only a lane that has one is the best");
        if candidate.expires_at.is_some_and(|at| at < tx.now) {
            expire_one(tx, candidate.seq)?;
            return Ok(None);
        }
        self.left -= 1;
        let claim = candidate.claim(tx, lane.claim.pool, &lane.lane, lane.priority)?;
        Ok(Some(claim))
    }
}

/// How many more tasks of a queue may run in all processes. Claimed tasks count, also those of dead instances until they are
/// taken back.
fn room(tx: &WriteTx<'_>, queue: &str, limit: u32) -> rusqlite::Result<usize> {
    let mut left = limit;
    let mut statement = tx.conn.prepare_cached(COUNT_RUNNING)?;
    for lane in tx.lanes_of(queue) {
        let running: u32 = statement.query_row(params![lane.0, left], |row| row.get(0))?;
        left = left.saturating_sub(running);
    }
    Ok(left as usize)
}

/// The pending tasks of one lane, best first, read a few at a time.
struct LaneCursor {
    claim: LaneClaim,
    lane: Lane,
    heads: Heads,
    priority: u8,
    /// Due tasks that were read and not taken.
    buffer: VecDeque<Candidate>,
    /// Where to read on in this priority.
    last: (i64, i64),
    /// `Some` once this priority has no further due task. Inside: when its next task is due, if it has one.
    exhausted: Option<Option<Timestamp>>,
    /// When the next task is due, by visited priority.
    visited: HashMap<u8, Option<Timestamp>>,
}

const START: (i64, i64) = (i64::MIN, i64::MIN);

impl LaneCursor {
    fn new(claim: LaneClaim, lane: Lane) -> Self {
        Self {
            claim,
            heads: lane.heads,
            lane,
            priority: 0,
            buffer: VecDeque::new(),
            last: START,
            exhausted: None,
            visited: HashMap::new(),
        }
    }

    /// Priority, due time and row of the best due task.
    fn peek(
        &mut self,
        tx: &WriteTx<'_>,
        chunk: usize,
    ) -> rusqlite::Result<Option<(u8, Timestamp, i64)>> {
        loop {
            if let Some(best) = self.buffer.front() {
                match self.claim.waits_until(best.at, best.expires_at) {
                    Some(until) if until > tx.now => {
                        self.buffer.clear();
                        self.exhausted = Some(Some(until));
                    }
                    _ => return Ok(Some((self.priority, best.at, best.seq))),
                }
            }
            if self.priority > MAX_PRIORITY {
                return Ok(None);
            }
            let due = self.heads[usize::from(self.priority)].is_some_and(|head| head <= tx.now);
            match self.exhausted {
                None if due => self.read(tx, chunk)?,
                exhausted => {
                    if let Some(next) = exhausted {
                        self.visited.insert(self.priority, next);
                    }
                    self.priority += 1;
                    self.last = START;
                    self.exhausted = None;
                }
            }
        }
    }

    fn read(&mut self, tx: &WriteTx<'_>, chunk: usize) -> rusqlite::Result<()> {
        let mut statement = tx.conn.prepare_cached(CANDIDATES)?;
        let mut rows = statement.query(params![
            self.lane.id.0,
            self.priority,
            self.last.0,
            self.last.1,
            chunk as i64
        ])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            count += 1;
            // Before the rest of the row is read: a task that is not due is not taken.
            let at = row::time(row, 0)?;
            if at > tx.now {
                self.exhausted = Some(Some(at));
                return Ok(());
            }
            let candidate = Candidate::read(row)?;
            self.last = (at.micros(), candidate.seq);
            self.buffer.push_back(candidate);
        }
        if count < chunk {
            self.exhausted = Some(None);
        }
        Ok(())
    }

    /// Notes what this claim has found out about when the lane has something due.
    fn learn(&self, tx: &mut WriteTx<'_>) {
        for (&priority, &next) in &self.visited {
            tx.done.learnt.found(self.lane.id, priority, next);
        }
        if self.priority <= MAX_PRIORITY && self.last != START {
            let next = match (self.buffer.front(), self.exhausted) {
                (Some(best), _) => Some(best.at),
                (None, Some(next)) => next,
                (None, None) => Some(Timestamp::from_micros(self.last.0)),
            };
            tx.done.learnt.found(self.lane.id, self.priority, next);
        }
    }
}

columns! {
    /// A due task as it was read.
    struct Candidate {
        at: Timestamp = "scheduled_at" by row::time,
        seq: i64 = "seq" by row::get,
        id: TaskId = "id" by row::id,
        attempt: u32 = "attempt" by row::count,
        max_attempts: u32 = "max_attempts" by row::count,
        /// The number of its last claim.
        claim_no: i64 = "claim_no" by row::get,
        extras: i64 = "extras" by row::get,
        checksum: i64 = "checksum" by row::get,
        options: Option<Vec<u8>> = "options" by row::get,
        payload: Option<Vec<u8>> = "payload" by row::get,
        /// Its start deadline, unless it was started before.
        expires_at: Option<Timestamp> = "iif(attempt = 0, expires_at, NULL)" by row::time_or_none,
    }
}

impl Candidate {
    /// The claim of this task, still under the number of its last claim.
    fn claim(
        self,
        tx: &mut WriteTx<'_>,
        pool: Pool,
        lane: &Lane,
        priority: u8,
    ) -> rusqlite::Result<Claim> {
        let seq = self.seq;
        let stored = payload::read(tx.conn, seq, self.extras, self.payload)?;
        let mut payload = match payload::verify(stored, self.checksum, self.id, &lane.kind) {
            Ok(bytes) => StoredPayload::Whole(bytes),
            Err(damage) => StoredPayload::Damaged(damage),
        };
        let options = options::decode(self.options.as_deref()).unwrap_or_else(|damage| {
            payload = StoredPayload::Damaged(damage);
            None
        });
        let options = options.map(Box::new);
        let last_error = extras::last_error(tx.conn, seq, self.extras)?;
        let trouble = Trouble::of(tx.conn, seq, self.extras)?;
        tx.event(lane.id, self.id, EventKind::Claimed);
        Ok(Claim {
            fence: Fence {
                seq,
                instance: tx.instance,
                claim_no: self.claim_no,
            },
            id: self.id,
            kind: lane.kind.clone(),
            queue: lane.queue.clone(),
            priority,
            scheduled_at: self.at,
            expires_at: self.expires_at,
            attempt: self.attempt.saturating_add(1),
            crashes: trouble.crashes,
            undecoded: trouble.undecoded,
            max_attempts: self.max_attempts,
            class: lane.class,
            pool,
            options,
            last_error,
            payload,
        })
    }
}

/// Takes the tasks that were read, all under one number: it distinguishes the claims of one row, not the rows of one claim.
fn take(tx: &mut WriteTx<'_>, claims: &mut [Claim]) -> rusqlite::Result<()> {
    let Some(last) = claims.iter().map(|claim| claim.fence.claim_no).max() else {
        return Ok(());
    };
    let claim_no = tx.draw(last);
    for claim in claims.iter_mut() {
        claim.fence.claim_no = claim_no;
    }
    let (instance, now) = (tx.instance, tx.now.micros());
    let bytes = room::claim_bytes(instance, claim_no) as i64;
    let mut handfuls = claims.chunks_exact(HANDFUL);
    if handfuls.len() > 0 {
        let mut statement = tx.conn.prepare_cached(TAKE_HANDFUL)?;
        for handful in &mut handfuls {
            let seqs = handful.iter().map(|claim| claim.fence.seq);
            let bound = [instance, claim_no, now, bytes].into_iter().chain(seqs);
            check(statement.execute(params_from_iter(bound))?, HANDFUL)?;
        }
    }
    let mut statement = tx.conn.prepare_cached(TAKE)?;
    for claim in handfuls.remainder() {
        let seq = claim.fence.seq;
        let taken = statement.execute(params![instance, claim_no, now, bytes, seq])?;
        check(taken, 1)?;
    }
    Ok(())
}

/// A row that was read as pending cannot have changed since.
fn check(taken: usize, expected: usize) -> rusqlite::Result<()> {
    if taken == expected {
        return Ok(());
    }
    Err(rusqlite::Error::StatementChangedRows(taken))
}
