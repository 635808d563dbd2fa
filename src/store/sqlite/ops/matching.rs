//! A filter as parameters of one fixed condition: no SQL is ever built from a caller's values.

use rusqlite::{Connection, OptionalExtension, Rows, Statement, ToSql, named_params, params};

use crate::id::TaskId;
use crate::model::filter::{Filter, Span};
use crate::model::task::TaskState;
use crate::store::sqlite::ops::lanes::{LANES, LaneRow};

/// How many rows a page, a window of a count or a chunk of a bulk call examines at most.
pub(crate) const MAX_EXAMINED: i64 = 10_000;

/// The condition, for a query over `punctual_task AS task`.
macro_rules! condition {
    () => {
        "
    (:states IS NULL OR (:states >> (state / {state_step})) & 1)
    AND (:lanes IS NULL OR lane IN (SELECT value FROM json_each(:lanes)))
    AND (:partition IS NULL OR partition = :partition)
    AND (:recurrence IS NULL OR (extras & {recurrence} AND json_valid(CAST(options AS TEXT))
        AND CAST(options AS TEXT) ->> '$.slot.recurrence' = :recurrence))
    AND (:scheduled_from IS NULL OR scheduled_at BETWEEN :scheduled_from AND :scheduled_to)
    AND (:created_from IS NULL OR created_at BETWEEN :created_from AND :created_to)
    AND (:finished_from IS NULL OR finished_at BETWEEN :finished_from AND :finished_to)
    AND (:tags IS NULL OR (extras & {tags} AND NOT EXISTS (
        SELECT 1 FROM json_each(:tags) AS wanted
        WHERE NOT EXISTS (SELECT 1 FROM punctual_tag WHERE seq = task.seq AND tag = wanted.value))))"
    };
}
pub(crate) use condition;

/// Builds a query from its columns and its order, in two forms: by a window of the id index, and by a list of ids.
macro_rules! over_tasks {
    ($select:expr, $order:literal) => {
        crate::store::sqlite::ops::matching::Matching {
            in_window: crate::store::sqlite::sql::sql!(
                concat!(
                    "SELECT {select} FROM punctual_task AS task INDEXED BY punctual_task_id
                    WHERE id BETWEEN :low AND :high AND ",
                    crate::store::sqlite::ops::matching::condition!(),
                    $order
                ),
                select = $select
            ),
            by_ids: crate::store::sqlite::sql::sql!(
                concat!(
                    "SELECT {select} FROM punctual_task AS task INDEXED BY punctual_task_id
                    WHERE id IN (SELECT unhex(value) FROM json_each(:ids)) AND id BETWEEN :low AND :high AND ",
                    crate::store::sqlite::ops::matching::condition!(),
                    $order
                ),
                select = $select
            ),
        }
    };
}
pub(crate) use over_tasks;

/// The same query in its two forms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matching {
    pub(crate) in_window: &'static str,
    pub(crate) by_ids: &'static str,
}

impl Matching {
    pub(crate) fn sql(self, filter: &Filter) -> &'static str {
        if filter.ids.is_some() {
            self.by_ids
        } else {
            self.in_window
        }
    }
}

/// The parameters of the condition.
#[derive(Debug)]
pub(crate) struct Terms {
    states: Option<i64>,
    lanes: Option<String>,
    ids: Option<String>,
    tags: Option<String>,
    partition: Option<String>,
    recurrence: Option<String>,
    scheduled: Option<Span>,
    created: Option<Span>,
    finished: Option<Span>,
}

/// The lanes whose kind and queue the filter names, as JSON; `None` if it names neither.
fn lanes(conn: &Connection, filter: &Filter) -> rusqlite::Result<Option<String>> {
    if filter.kinds.is_empty() && filter.queues.is_empty() {
        return Ok(None);
    }
    let named =
        |names: &[String], name: &str| names.is_empty() || names.iter().any(|each| each == name);
    let mut ids: Vec<i64> = Vec::new();
    // Those of the file, not those in memory: another process may have added some.
    let mut statement = conn.prepare_cached(LANES)?;
    for lane in statement.query_map([], LaneRow::read)? {
        let lane = lane?;
        if named(&filter.queues, &lane.queue) && named(&filter.kinds, &lane.kind) {
            ids.push(lane.id.0);
        }
    }
    Ok(Some(
        serde_json::to_string(&ids).expect("numbers can be encoded"),
    ))
}

impl Terms {
    pub(crate) fn new(conn: &Connection, filter: &Filter) -> rusqlite::Result<Self> {
        let states = (!filter.states.is_empty()).then(|| {
            filter.states.iter().fold(0, |bits, state| {
                bits | 1 << (state.code() / TaskState::STEP)
            })
        });
        let ids = filter.ids.as_ref().map(|ids| {
            let ids: Vec<String> = ids
                .iter()
                .map(|id| id.as_uuid().simple().to_string())
                .collect();
            serde_json::to_string(&ids).expect("strings can be encoded")
        });
        let tags = (!filter.tags.is_empty())
            .then(|| serde_json::to_string(&filter.tags).expect("strings can be encoded"));
        Ok(Self {
            states,
            lanes: lanes(conn, filter)?,
            ids,
            tags,
            partition: filter.partition.clone(),
            recurrence: filter.recurrence.clone(),
            scheduled: filter.scheduled,
            created: filter.created,
            finished: filter.finished,
        })
    }

    /// Binds the parameters and the window, as far as the statement uses them, and runs it.
    pub(crate) fn query<'s>(
        &self,
        statement: &'s mut Statement<'_>,
        window: Window,
    ) -> rusqlite::Result<Rows<'s>> {
        let from = |span: Option<Span>| span.map(|span| span.from.micros());
        let to = |span: Option<Span>| span.map(|span| span.to.micros());
        let params: &[(&str, &dyn ToSql)] = named_params! {
            ":states": self.states,
            ":lanes": self.lanes,
            ":ids": self.ids,
            ":tags": self.tags,
            ":partition": self.partition,
            ":recurrence": self.recurrence,
            ":scheduled_from": from(self.scheduled),
            ":scheduled_to": to(self.scheduled),
            ":created_from": from(self.created),
            ":created_to": to(self.created),
            ":finished_from": from(self.finished),
            ":finished_to": to(self.finished),
            ":low": &window.low.as_bytes()[..],
            ":high": &window.high.as_bytes()[..],
            ":limit": window.limit,
        };
        for (name, value) in params {
            if let Some(index) = statement.parameter_index(name)? {
                statement.raw_bind_parameter(index, value)?;
            }
        }
        Ok(statement.raw_query())
    }
}

/// A range of ids to examine, both ends included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) low: TaskId,
    pub(crate) high: TaskId,
    pub(crate) limit: i64,
}

const MIN_ID: [u8; 16] = [0; 16];
const MAX_ID: [u8; 16] = [0xff; 16];

pub(crate) const LAST_EXAMINED: &str = "
    SELECT id FROM punctual_task INDEXED BY punctual_task_id
    WHERE id >= :low ORDER BY id LIMIT 1 OFFSET :offset";

pub(crate) const LAST_EXAMINED_BACKWARDS: &str = "
    SELECT id FROM punctual_task INDEXED BY punctual_task_id
    WHERE id <= :high ORDER BY id DESC LIMIT 1 OFFSET :offset";

/// The ids to examine next; and where the window after it begins, if there is one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Examine {
    pub(crate) window: Window,
    /// The last id of the window, if it does not reach to the end.
    pub(crate) last: Option<TaskId>,
}

impl Examine {
    /// The next window after `after`, in ascending or descending order.
    pub(crate) fn after(
        conn: &Connection,
        after: Option<TaskId>,
        newest_first: bool,
        limit: i64,
        filter: &Filter,
    ) -> rusqlite::Result<Option<Self>> {
        let (low, high) = if newest_first {
            let Some(high) = after.map_or(Some(MAX_ID), |id| neighbour(id, false)) else {
                return Ok(None);
            };
            (MIN_ID, high)
        } else {
            let Some(low) = after.map_or(Some(MIN_ID), |id| neighbour(id, true)) else {
                return Ok(None);
            };
            (low, MAX_ID)
        };
        let (sql, bound) = if newest_first {
            (LAST_EXAMINED_BACKWARDS, high)
        } else {
            (LAST_EXAMINED, low)
        };
        if filter.ids.is_some() {
            // Looked up one by one: nothing else is examined.
            return Ok(Some(Self::to_the_end(low, high, limit)));
        }
        let last: Option<[u8; 16]> = conn
            .prepare_cached(sql)?
            .query_row(params![&bound[..], MAX_EXAMINED - 1], |row| row.get(0))
            .optional()?;
        let (low, high) = match last {
            Some(last) if newest_first => (last, high),
            Some(last) => (low, last),
            None => (low, high),
        };
        Ok(Some(Self {
            last: last.map(TaskId::from_bytes),
            ..Self::to_the_end(low, high, limit)
        }))
    }

    fn to_the_end(low: [u8; 16], high: [u8; 16], limit: i64) -> Self {
        Self {
            window: Window {
                low: TaskId::from_bytes(low),
                high: TaskId::from_bytes(high),
                limit,
            },
            last: None,
        }
    }
}

/// The next or the previous id, if there is one.
fn neighbour(id: TaskId, next: bool) -> Option<[u8; 16]> {
    let number = u128::from_be_bytes(*id.as_bytes());
    let number = if next {
        number.checked_add(1)
    } else {
        number.checked_sub(1)
    };
    number.map(u128::to_be_bytes)
}
