//! Counting everything, by the indexes alone and in strides: no statement runs long, however many tasks there are.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::lane::LaneId;
use crate::model::limits::MAX_PRIORITY;
use crate::model::query::{LaneStats, RecurrenceCounts, Stats};
use crate::model::task::TaskState;
use crate::store::sqlite::ops::lanes::{self, LANES, LaneRow};
use crate::store::sqlite::ops::row;
use crate::store::sqlite::sql::{columns, sql};
use crate::time::Timestamp;

/// How many entries of an index one statement passes over.
const STRIDE: i64 = 100_000;

/// Where a stride of pending tasks ends. The collation lets SQLite seek by `seq`, too.
pub(crate) const PENDING_STRIDE: &str = sql!("
    SELECT scheduled_at, seq FROM punctual_task INDEXED BY punctual_task_due
    WHERE state = {pending} AND lane = :lane AND priority = :priority AND (scheduled_at, seq) > (:scheduled_at, :seq COLLATE BINARY)
    ORDER BY scheduled_at, seq LIMIT 1 OFFSET :offset");

/// What is left after the last whole stride.
pub(crate) const PENDING_REST: &str = sql!("
    SELECT count(*) FROM punctual_task INDEXED BY punctual_task_due
    WHERE state = {pending} AND lane = :lane AND priority = :priority AND (scheduled_at, seq) > (:scheduled_at, :seq COLLATE BINARY)");

pub(crate) const RUNNING: &str = sql!("
    SELECT lane, count(*) FROM punctual_task INDEXED BY punctual_task_running WHERE state = {running} GROUP BY lane");

/// Where a stride of ended tasks ends: all of one instant go together, so it may be longer.
pub(crate) const ENDED_STRIDE: &str = "
    SELECT finished_at FROM punctual_task INDEXED BY punctual_task_ended
    WHERE state = :state AND finished_at IS NOT NULL AND finished_at > :finished_at
    ORDER BY finished_at LIMIT 1 OFFSET :offset";

pub(crate) const ENDED: &str = "
    SELECT lane, count(*) FROM punctual_task INDEXED BY punctual_task_ended
    WHERE state = :state AND finished_at IS NOT NULL AND finished_at > :from AND finished_at <= :to
    GROUP BY lane";

/// What was counted so far.
struct Counts {
    names: HashMap<LaneId, Name>,
    /// The index in the statistics of each queue and kind, whose tasks may be in several lanes.
    places: HashMap<Name, usize>,
    stats: Stats,
}

/// A queue and a kind.
type Name = (Arc<str>, Arc<str>);

pub(crate) const RECURRENCES: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence",
    columns = RecurrenceRow::COLUMNS
);

columns! {
    /// The number of recurrences.
    struct RecurrenceRow {
        all: u64 = "count(*)" by row::total,
        paused: u64 = "count(paused_at)" by row::total,
        ended: u64 = "count(*) FILTER (WHERE due_at IS NULL AND paused_at IS NULL)" by row::total,
    }
}

fn recurrences(conn: &Connection) -> rusqlite::Result<RecurrenceCounts> {
    let counts = conn
        .prepare_cached(RECURRENCES)?
        .query_row([], RecurrenceRow::read)?;
    Ok(RecurrenceCounts {
        all: counts.all,
        paused: counts.paused,
        ended: counts.ended,
    })
}

pub(crate) fn stats(conn: &Connection, now: Timestamp) -> rusqlite::Result<Stats> {
    // The lanes of the file, not those in memory: another process may have added some.
    let lanes = lanes::load(conn)?;
    let mut counts = Counts::new(conn)?;
    let mut oldest: Option<Timestamp> = None;
    for lane in lanes.list() {
        if let Some(head) = lane.next_at() {
            oldest = Some(oldest.map_or(head, |at| at.min(head)));
            let pending = pending(conn, lane.id)?;
            counts.add(lane.id, TaskState::Pending, pending);
        }
    }
    let mut statement = conn.prepare_cached(RUNNING)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        counts.add(LaneId(row.get(0)?), TaskState::Running, row.get(1)?);
    }
    for state in [
        TaskState::Completed,
        TaskState::Failed,
        TaskState::Cancelled,
    ] {
        ended(conn, &mut counts, state)?;
    }
    let mut stats = counts.stats;
    stats.recurrences = recurrences(conn)?;
    stats.oldest_due = oldest.filter(|at| *at <= now).map(|at| now.since(at));
    Ok(stats)
}

impl Counts {
    fn new(conn: &Connection) -> rusqlite::Result<Self> {
        let names = conn
            .prepare_cached(LANES)?
            .query_map([], |row| {
                let lane = LaneRow::read(row)?;
                Ok((lane.id, (lane.queue, lane.kind)))
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self {
            names,
            places: HashMap::new(),
            stats: Stats::default(),
        })
    }

    fn add(&mut self, id: LaneId, state: TaskState, count: i64) {
        let Some(name) = self.names.get(&id) else {
            return;
        };
        let lanes = &mut self.stats.lanes;
        let place = *self.places.entry(name.clone()).or_insert_with(|| {
            lanes.push(LaneStats {
                queue: Arc::clone(&name.0),
                kind: Arc::clone(&name.1),
                counts: [0; TaskState::ALL.len()],
            });
            lanes.len() - 1
        });
        for (known, total) in TaskState::ALL.into_iter().zip(&mut lanes[place].counts) {
            if known == state {
                *total += u64::try_from(count).unwrap_or(0);
            }
        }
    }
}

fn pending(conn: &Connection, lane: LaneId) -> rusqlite::Result<i64> {
    let mut total = 0;
    for priority in 0..=MAX_PRIORITY {
        let mut last = (i64::MIN, i64::MIN);
        while let Some(next) = conn
            .prepare_cached(PENDING_STRIDE)?
            .query_row(
                params![lane.0, priority, last.0, last.1, STRIDE - 1],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?
        {
            total += STRIDE;
            last = next;
        }
        total += conn
            .prepare_cached(PENDING_REST)?
            .query_row(params![lane.0, priority, last.0, last.1], |row| {
                row.get::<_, i64>(0)
            })?;
    }
    Ok(total)
}

/// Where the next stride of ended tasks ends; `None`: it goes to the end.
pub(crate) fn ended_stride(
    conn: &Connection,
    state: TaskState,
    from: i64,
) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached(ENDED_STRIDE)?
        .query_row(params![state.code(), from, STRIDE - 1], |row| row.get(0))
        .optional()
}

fn ended(conn: &Connection, counts: &mut Counts, state: TaskState) -> rusqlite::Result<()> {
    let mut from = i64::MIN;
    loop {
        let to = ended_stride(conn, state, from)?;
        let mut statement = conn.prepare_cached(ENDED)?;
        let mut rows = statement.query(params![state.code(), from, to.unwrap_or(i64::MAX)])?;
        while let Some(row) = rows.next()? {
            counts.add(LaneId(row.get(0)?), state, row.get(1)?);
        }
        match to {
            Some(to) => from = to,
            None => return Ok(()),
        }
    }
}
