//! Other connections to the file: their commits, noticed by SQLite's own counter, and read only when they are needed.

use std::sync::atomic::Ordering;

use rusqlite::Connection;

use crate::store::sqlite::file::schema;
use crate::store::sqlite::ops::cancels;
use crate::store::sqlite::ops::lanes::{read_changes, read_heads};
use crate::store::sqlite::ops::recur::head;
use crate::store::sqlite::write::failure::WriteFailure;
use crate::store::sqlite::write::shared::Shared;
use crate::sync::lock;
use crate::time::Timestamp;

const DATA_VERSION: &str = "PRAGMA data_version";
const SCHEMA_VERSION: &str = "PRAGMA schema_version";

/// What the write connection knows of other connections' commits.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    /// `data_version` at the last look: it changes with each commit of another connection.
    data_version: i64,
    /// `schema_version` at that look: it changes with each change of a table's definition.
    schema_version: i64,
    /// How often others had written when the runner and maintenance were last woken for it.
    told: u64,
    /// Whether the heads of the lanes were read again after others had written, and the runner was not woken since.
    has_fresh_heads: bool,
    /// How often others' cancellations had been read when a transaction last deleted them.
    deleting: u64,
    /// The same, of the last transaction that did so and has committed.
    deleted: u64,
}

impl Peers {
    /// Makes the next look read everything: the connection is another, or the outcome of its commit is not known.
    pub(crate) fn look_anew(&mut self) {
        (self.data_version, self.schema_version) = (0, 0);
    }

    /// Whether another connection has committed since the last look.
    pub(crate) fn have_written(&self, conn: &Connection) -> rusqlite::Result<bool> {
        Ok(number(conn, DATA_VERSION)? != self.data_version)
    }

    /// Reads the added and retired lanes, and the cancelled attempts, if another connection has committed since the last
    /// look. If tables were changed, checks that they are still ours.
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
        // Always: a migration need not change any table.
        schema::check_version(conn).map_err(WriteFailure::Refused)?;
        let known = lock(&shared.lanes).known();
        let news = read_changes(conn, known).map_err(failed)?;
        lock(&shared.lanes).catch_up(news);
        let cancelled = cancels::read(conn, instance).map_err(failed)?;
        if !cancelled.is_empty() {
            shared.signals.cancel(&cancelled);
            shared.heard.fetch_add(1, Ordering::SeqCst);
        }
        shared.others_writes.fetch_add(1, Ordering::SeqCst);
        self.data_version = data;
        Ok(())
    }

    /// Reads what others have committed; for an instance that runs tasks, also what is due since then.
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

    /// Whether a standing claim may come along with a transaction in which nothing was done yet. Not while the heads are
    /// stale: another process may have added a better task than those for which the claim was planned. The heads are read
    /// again only if the transaction claims, or a standing claim is there.
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
            let recurrence_at = head::next(conn, head::ALL_READABLE)?;
            let mut lanes = lock(&shared.lanes);
            lanes.set_heads(heads);
            lanes.set_recurrence_at(recurrence_at);
            self.has_fresh_heads = true;
        }
        Ok(())
    }

    /// Deletes others' cancellations that were read. After the commit, call [`deleted_cancels`](Self::deleted_cancels).
    pub(crate) fn delete_cancels(
        &mut self,
        conn: &Connection,
        shared: &Shared,
        instance: i64,
    ) -> Result<(), WriteFailure> {
        self.deleting = shared.heard.load(Ordering::SeqCst);
        if self.deleting != self.deleted {
            cancels::forget(conn, instance)
                .map_err(|error| WriteFailure::at("forget cancellations", error))?;
        }
        Ok(())
    }

    /// The transaction that deleted them has committed.
    pub(crate) fn deleted_cancels(&mut self) {
        self.deleted = self.deleting;
    }

    /// Wakes the runner and maintenance if another connection was seen to have written since the last call. Wakes the runner
    /// also if the heads were read again. Returns whether it woke the runner.
    pub(crate) fn wake_runner(&mut self, shared: &Shared) -> bool {
        let writes = shared.others_writes.load(Ordering::SeqCst);
        let found = writes != self.told;
        if found {
            self.told = writes;
            // A start deadline may be among what was written.
            shared.signals.expires(Timestamp::MIN);
        }
        let has_fresh_heads = std::mem::take(&mut self.has_fresh_heads);
        if has_fresh_heads {
            let recurrence_at = lock(&shared.lanes).recurrence_at();
            if let Some(at) = recurrence_at {
                shared.signals.recurs(at);
            }
        }
        let tells = has_fresh_heads || found;
        if tells {
            shared.signals.look_again();
        }
        tells
    }
}

fn number(conn: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    conn.prepare_cached(pragma)?.query_row([], |row| row.get(0))
}
