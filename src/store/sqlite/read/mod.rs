//! Reads, on the caller's thread. Those of a file never wait for the writer; those in memory use the write connection.

pub(crate) mod backup;
pub(crate) mod history;
pub(crate) mod lanes;
pub(crate) mod maintenance;
pub(crate) mod recurrences;
pub(crate) mod stats;
pub(crate) mod tasks;

use std::sync::Mutex;

use rusqlite::Connection;

use crate::model::query::{Answer, Query};
use crate::store::lanes::Lanes;

pub(crate) fn read(
    conn: &Connection,
    known: &Mutex<Lanes>,
    query: &Query,
) -> rusqlite::Result<Answer> {
    Ok(match query {
        Query::Task(id) => Answer::Task(tasks::task(conn, known, *id)?.map(Box::new)),
        Query::State(id) => Answer::State(tasks::state(conn, *id)?),
        Query::States(ids) => Answer::States(tasks::states(conn, ids)?),
        Query::List(filter) => Answer::List(tasks::list(conn, known, filter)?),
        Query::Count { filter, after } => Answer::Count(tasks::count(conn, filter, *after)?),
        Query::History(id) => Answer::History(history::history(conn, *id)?),
        Query::Stats { now } => Answer::Stats(stats::stats(conn, *now)?),
        Query::IdleLanes { after } => Answer::IdleLanes(lanes::idle_lanes(conn, *after)?),
        Query::RetiredLanes => Answer::RetiredLanes(lanes::retired_lanes(conn)?),
        Query::EndedLanes { state, after } => {
            Answer::EndedLanes(lanes::ended_lanes(conn, *state, *after)?)
        }
        Query::Recurrence(name) => {
            Answer::Recurrence(recurrences::recurrence(conn, name)?.map(Box::new))
        }
        Query::DecidedAfter(at) => Answer::DecidedAfter(recurrences::decided_after(conn, *at)?),
        Query::Explain {
            name,
            from,
            to,
            now,
        } => Answer::Explained(recurrences::explain(conn, name, *from, *to, *now)?),
        Query::Recurrences(filter) => Answer::Recurrences(recurrences::recurrences(conn, filter)?),
    })
}
