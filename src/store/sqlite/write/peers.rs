//! Other connections to the file: what they have committed, noticed by SQLite's own count, and learnt no sooner than it is
//! needed.

use std::sync::atomic::Ordering;

use rusqlite::Connection;

use crate::model::settle::Fence;
use crate::store::sqlite::file::schema;
use crate::store::sqlite::ops::lanes::{read_changes, read_heads};
use crate::store::sqlite::ops::rescue;
use crate::store::sqlite::write::failure::WriteFailure;
use crate::store::sqlite::write::shared::Shared;
use crate::time::Timestamp;
use crate::wake::lock;

const DATA_VERSION: &str = "PRAGMA data_version";
const SCHEMA_VERSION: &str = "PRAGMA schema_version";

/// What the write connection knows of other connections' commits.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    /// `data_version` at the last look: it changes with each commit of another connection.
    data_version: i64,
    /// `schema_version` then: it changes with each change of a table's definition.
    schema_version: i64,
    /// How often others had written when maintenance was last woken for it.
    told: u64,
    /// Whether the heads of the lanes were read again after others had written, and the runner was not woken since.
    has_fresh_heads: bool,
    /// How often others' cancellations had been read when they were last deleted.
    deleted: u64,
}

impl Peers {
    /// The next look takes everything for new: the connection is another, or the outcome of its commit is not known.
    pub(crate) fn look_anew(&mut self) {
        (self.data_version, self.schema_version) = (0, 0);
    }

    /// Whether another connection has committed since the last look.
    pub(crate) fn have_written(&self, conn: &Connection) -> rusqlite::Result<bool> {
        Ok(number(conn, DATA_VERSION)? != self.data_version)
    }

    /// Learns of new and retired lanes, and of cancelled attempts, if another connection has committed since the last look. If
    /// tables were changed, looks whether they are still ours.
    pub(crate) fn learn(
        &mut self,
        conn: &Connection,
        shared: &Shared,
        instance: i64,
    ) -> Result<(), WriteFailure> {
        let failed = |error| WriteFailure::at("look for changes", error);
        let data = number(conn, DATA_VERSION).map_err(failed)?;
        if data == self.data_version {
            return Ok(());
        }
        let schema = number(conn, SCHEMA_VERSION).map_err(failed)?;
        if schema != self.schema_version {
            schema::verify(conn).map_err(WriteFailure::Refused)?;
            self.schema_version = schema;
        }
        // A migration need not change any table.
        schema::check_version(conn).map_err(WriteFailure::Refused)?;
        let known = lock(&shared.lanes).known();
        let news = read_changes(conn, known).map_err(failed)?;
        lock(&shared.lanes).catch_up(news);
        let cancelled = cancels(conn, instance).map_err(failed)?;
        if !cancelled.is_empty() {
            shared.signals.cancel(&cancelled);
            shared.heard.fetch_add(1, Ordering::SeqCst);
        }
        shared.others_writes.fetch_add(1, Ordering::SeqCst);
        self.data_version = data;
        Ok(())
    }

    /// Learns what others have committed, and for an instance that runs tasks what is due since then.
    pub(crate) fn refresh(
        &mut self,
        conn: &Connection,
        shared: &Shared,
        instance: i64,
    ) -> Result<(), WriteFailure> {
        self.learn(conn, shared, instance)?;
        if instance == 0 {
            return Ok(());
        }
        self.freshen_heads(conn, shared)
            .map_err(|error| WriteFailure::at("look for changes", error))
    }

    /// Whether a standing claim may come along with a transaction in which nothing was done yet. It was planned for the heads as
    /// they were, so while they are stale it may not: another process may have added a better task. The heads are read again
    /// only if there is a claim, or one stands.
    pub(crate) fn may_stand(
        &mut self,
        conn: &Connection,
        shared: &Shared,
        has_claims: bool,
    ) -> Result<bool, WriteFailure> {
        if !lock(&shared.lanes).is_stale() {
            return Ok(true);
        }
        if !has_claims && !shared.signals.standing_claim().stands() {
            return Ok(false);
        }
        self.freshen_heads(conn, shared)
            .map_err(|error| WriteFailure::at("begin a transaction", error))?;
        Ok(true)
    }

    /// Reads the heads of the lanes, if another connection has committed since they were read.
    fn freshen_heads(&mut self, conn: &Connection, shared: &Shared) -> rusqlite::Result<()> {
        if lock(&shared.lanes).is_stale() {
            let heads = read_heads(conn)?;
            lock(&shared.lanes).set_heads(heads);
            self.has_fresh_heads = true;
        }
        Ok(())
    }

    /// Deletes others' cancellations that were read, and returns how often some had been read by then: to be given to
    /// [`deleted_cancels`](Self::deleted_cancels) after the commit.
    pub(crate) fn delete_cancels(
        &self,
        conn: &Connection,
        shared: &Shared,
        instance: i64,
    ) -> Result<u64, WriteFailure> {
        let heard = shared.heard.load(Ordering::SeqCst);
        if heard != self.deleted {
            conn.prepare_cached(rescue::FORGET_CANCELS)
                .and_then(|mut forget| forget.execute([instance]))
                .map_err(|error| WriteFailure::at("forget cancellations", error))?;
        }
        Ok(heard)
    }

    pub(crate) fn deleted_cancels(&mut self, heard: u64) {
        self.deleted = heard;
    }

    /// Wakes the runner and maintenance once for each time that another connection was seen to have written, and the runner once
    /// more when the heads were read since; `true`: now.
    pub(crate) fn wake_runner(&mut self, shared: &Shared) -> bool {
        let writes = shared.others_writes.load(Ordering::SeqCst);
        let found = writes != self.told;
        if found {
            self.told = writes;
            // A start deadline may be among what was written.
            shared.signals.expires(Timestamp::MIN);
        }
        let tells = std::mem::take(&mut self.has_fresh_heads) || found;
        if tells {
            shared.signals.look_again();
        }
        tells
    }
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

pub(crate) const CANCELS: &str =
    "SELECT seq, claim_no FROM punctual_cancel WHERE instance = :instance";
