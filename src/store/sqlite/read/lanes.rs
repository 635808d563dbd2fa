//! Which lanes are idle, and which retired ones still have ended tasks: by strides, so that no statement runs long.

use rusqlite::{Connection, params};

use crate::model::lane::LaneId;
use crate::model::query::Seen;
use crate::model::task::TaskState;
use crate::store::sqlite::ops::forget::is_idle;
use crate::store::sqlite::read::stats::{ENDED, ended_stride};
use crate::store::sqlite::sql::sql;
use crate::time::Timestamp;

/// How many lanes one look passes over: a few milliseconds.
const STRIDE: i64 = 1_000;

pub(crate) const IDLE_LANES: &str = sql!(concat!(
    "SELECT id, ",
    is_idle!(),
    " FROM punctual_lane AS each INDEXED BY punctual_lane_retired
    WHERE retired = {in_use} AND id > :after ORDER BY id LIMIT :limit"
));

/// The idle ones of the next [`STRIDE`] lanes in use after `after`.
pub(crate) fn idle_lanes(conn: &Connection, after: LaneId) -> rusqlite::Result<Seen<LaneId>> {
    let seen: Vec<(LaneId, bool)> = conn
        .prepare_cached(IDLE_LANES)?
        .query_map([after.0, STRIDE], |row| {
            Ok((LaneId(row.get(0)?), row.get(1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let is_cut = seen.len() as i64 == STRIDE;
    let last = seen.last().map(|(lane, _)| *lane);
    let idle = seen.into_iter().filter(|(_, is_idle)| *is_idle);
    Ok(Seen {
        lanes: idle.map(|(lane, _)| lane).collect(),
        next: last.filter(|_| is_cut),
    })
}

pub(crate) const RETIRED_LANES: &str =
    sql!("SELECT id FROM punctual_lane INDEXED BY punctual_lane_retired WHERE retired > {in_use}");

pub(crate) fn retired_lanes(conn: &Connection) -> rusqlite::Result<Vec<LaneId>> {
    conn.prepare_cached(RETIRED_LANES)?
        .query_map([], |row| row.get(0).map(LaneId))?
        .collect()
}

/// The lanes of the next stride of tasks in a final state that ended after `after`.
pub(crate) fn ended_lanes(
    conn: &Connection,
    state: TaskState,
    after: Option<Timestamp>,
) -> rusqlite::Result<Seen<Timestamp>> {
    let from = after.map_or(i64::MIN, Timestamp::micros);
    let to = ended_stride(conn, state, from)?;
    let lanes = conn
        .prepare_cached(ENDED)?
        .query_map(params![state.code(), from, to.unwrap_or(i64::MAX)], |row| {
            row.get(0).map(LaneId)
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Seen {
        lanes,
        next: to.map(Timestamp::from_micros),
    })
}
