//! Storing new tasks.

use rusqlite::params;

use crate::model::event::EventKind;
use crate::model::new_task::Scheduled;
use crate::model::op::Insert;
use crate::model::task::Options;
use crate::store::sqlite::tx::{Tx, extra};

/// A payload up to this is kept in the task's row: a larger one would be rewritten with every change of state.
pub(super) const MAX_INLINE_BYTES: usize = 1024;

const INSERT: &str = "
    INSERT INTO punctual_task (id, lane, priority, state, attempt, crashes, max_attempts, claim_no,
        scheduled_at, created_at, expires_at, extras, checksum, partition, options, payload)
    VALUES (:id, :lane, :priority, 0, 0, 0, :max_attempts, 0,
        :scheduled_at, :created_at, :expires_at, :extras, :checksum, :partition, :options, :payload)
    ON CONFLICT (id) DO NOTHING";

const INSERT_PAYLOAD: &str = "INSERT INTO punctual_payload (seq, payload) VALUES (:seq, :payload)";

const INSERT_TAG: &str = "INSERT INTO punctual_tag (seq, tag) VALUES (:seq, :tag)";

/// Over what must not change unseen: which task it is, who handles it, and with what.
pub(super) fn checksum(id: &[u8], kind: &str, payload: &[u8]) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(id);
    hasher.update(kind.as_bytes());
    hasher.update(payload);
    i64::from(hasher.finalize())
}

pub(super) fn encode_options(options: &Options) -> Option<Vec<u8>> {
    (!options.is_default())
        .then(|| serde_json::to_vec(options).expect("options of a checked task can be encoded"))
}

pub(super) fn insert(tx: &mut Tx<'_>, tasks: &[Insert]) -> rusqlite::Result<Vec<Scheduled>> {
    tasks.iter().map(|task| insert_one(tx, task)).collect()
}

fn insert_one(tx: &mut Tx<'_>, task: &Insert) -> rusqlite::Result<Scheduled> {
    let lane = tx.lane_id(&task.queue, &task.kind, false)?;
    let inline = task.payload.len() <= MAX_INLINE_BYTES;
    let mut extras = 0;
    if !inline {
        extras |= extra::PAYLOAD;
    }
    if !task.tags.is_empty() {
        extras |= extra::TAGS;
    }
    let id = task.id.as_bytes();
    let added = tx.conn.prepare_cached(INSERT)?.execute(params![
        id,
        lane.0,
        task.priority,
        task.max_attempts,
        task.scheduled_at.micros(),
        task.created_at.micros(),
        task.expires_at.map(|at| at.micros()),
        extras,
        checksum(id, &task.kind, &task.payload),
        task.partition,
        encode_options(&task.options),
        inline.then_some(&task.payload),
    ])?;
    if added == 0 {
        return Ok(Scheduled::Existing(task.id));
    }
    if extras != 0 {
        let seq = tx.conn.last_insert_rowid();
        if !inline {
            tx.conn
                .prepare_cached(INSERT_PAYLOAD)?
                .execute(params![seq, task.payload])?;
        }
        for tag in &task.tags {
            tx.conn
                .prepare_cached(INSERT_TAG)?
                .execute(params![seq, tag])?;
        }
    }
    tx.pending(lane, task.priority, task.scheduled_at);
    if let Some(at) = task.expires_at {
        tx.expires(at);
    }
    tx.event(lane, task.id, EventKind::Scheduled);
    Ok(Scheduled::New(task.id))
}
