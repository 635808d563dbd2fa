//! What other connections have committed: noticed by SQLite's own count, and learnt no sooner than it is needed.

use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::{Shared, Writer};
use crate::error::Result;
use crate::model::settle::Fence;
use crate::store::sqlite::batch::Failure;
use crate::store::sqlite::lanes::{ForeignChanges, read_heads};
use crate::store::sqlite::{fault, schema};
use crate::time::Timestamp;
use crate::wake::lock;

impl Writer {
    /// Looks whether another connection wrote, and learns what; `true`: it did.
    pub(in crate::store::sqlite) fn refresh(&mut self) -> Result<bool> {
        if self.file.is_none() {
            return Ok(false);
        }
        self.check()?;
        let conn = self.conn.as_ref().expect("checked");
        let mut learnt = learn_foreign_writes(conn, &self.shared, &mut self.seen, self.instance);
        // Who runs nothing need not know what is due.
        if learnt.is_ok() && self.instance != 0 {
            let read = self.freshen_heads();
            learnt = read.map_err(|error| Failure::at("look for changes", error));
        }
        if let Err(failure) = learnt {
            let error = self.clean_up(failure);
            if fault::stops(error.kind()) {
                self.stop(&error);
            }
            return Err(error);
        }
        Ok(self.tell_foreign_writes())
    }

    /// Whether another connection has committed since `conn`, the writer's, has last looked.
    pub(super) fn has_foreign_writes(&self, conn: &Connection) -> rusqlite::Result<bool> {
        Ok(number(conn, DATA_VERSION)? != self.seen.data)
    }

    /// Tells the runner and maintenance, once for each time that another connection was seen to have written, and the runner
    /// once more when it is known what is due since then; `true`: now.
    pub(super) fn tell_foreign_writes(&mut self) -> bool {
        let writes = self.shared.foreign_writes.load(Ordering::SeqCst);
        let found = writes != self.told;
        if found {
            self.told = writes;
            // A start deadline may be among what was written.
            self.shared.hub.expires(Timestamp::MIN);
        }
        let tells = std::mem::take(&mut self.freshened) || found;
        if tells {
            self.shared.hub.look_again();
        }
        tells
    }

    /// Before anything is done in the transaction: whether a standing claim may come along. It was planned for the heads as
    /// they were, so while they are stale it may not: another process may have added a better task. They are read again if
    /// somebody needs them.
    pub(super) fn may_stand(&mut self, has_claims: bool) -> std::result::Result<bool, Failure> {
        if !lock(&self.shared.lanes).is_stale() {
            return Ok(true);
        }
        if !has_claims && !self.shared.hub.standing().stands() {
            return Ok(false);
        }
        self.freshen_heads()
            .map_err(|error| Failure::at("begin a transaction", error))?;
        Ok(true)
    }

    /// Reads what is due in the lanes, if another connection has committed since it was read.
    fn freshen_heads(&mut self) -> rusqlite::Result<()> {
        if lock(&self.shared.lanes).is_stale() {
            let heads = read_heads(self.conn.as_ref().expect("checked"))?;
            lock(&self.shared.lanes).set_heads(heads);
            self.freshened = true;
        }
        Ok(())
    }
}

const DATA_VERSION: &str = "PRAGMA data_version";
const SCHEMA_VERSION: &str = "PRAGMA schema_version";

/// As of when a connection knows the file.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Changes with each commit of another connection.
    data: i64,
    /// Changes with each change of any table's definition.
    schema: i64,
}

/// Learns of new and retired lanes, and whom to ask to stop, if another connection has committed since the last look. If tables were
/// changed, looks whether they are still ours.
pub(super) fn learn_foreign_writes(
    conn: &Connection,
    shared: &Shared,
    seen: &mut Seen,
    instance: i64,
) -> std::result::Result<(), Failure> {
    let failed = |error| Failure::at("look for changes", error);
    let data = number(conn, DATA_VERSION).map_err(failed)?;
    if data == seen.data {
        return Ok(());
    }
    let schema = number(conn, SCHEMA_VERSION).map_err(failed)?;
    if schema != seen.schema {
        schema::verify(conn).map_err(Failure::Refused)?;
        seen.schema = schema;
    }
    // A migration need not change any table.
    schema::check_version(conn).map_err(Failure::Refused)?;
    let known = lock(&shared.lanes).known();
    let news = ForeignChanges::read(conn, known).map_err(failed)?;
    lock(&shared.lanes).catch_up(news);
    let cancelled = cancels(conn, instance).map_err(failed)?;
    if !cancelled.is_empty() {
        shared.hub.cancel(&cancelled);
        shared.heard.fetch_add(1, Ordering::SeqCst);
    }
    shared.foreign_writes.fetch_add(1, Ordering::SeqCst);
    seen.data = data;
    Ok(())
}

fn number(conn: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    conn.prepare_cached(pragma)?.query_row([], |row| row.get(0))
}

/// What other processes want cancelled of what this one runs.
fn cancels(conn: &Connection, instance: i64) -> rusqlite::Result<Vec<Fence>> {
    conn.prepare_cached(CANCELS)?
        .query_map([instance], |row| {
            Ok(Fence {
                seq: row.get(0)?,
                instance,
                claim_no: row.get(1)?,
            })
        })?
        .collect()
}

pub(in crate::store::sqlite) const CANCELS: &str =
    "SELECT seq, claim_no FROM punctual_cancel WHERE instance = :instance";
