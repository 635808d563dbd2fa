//! A write that stores nothing for a caller: it shows whether writes work.

use crate::store::sqlite::file::counter::Counter;
use crate::store::sqlite::ops::write_tx::WriteTx;

/// Counts the probe: SQLite does not write a value that stays the same.
pub(crate) fn probe(tx: &WriteTx<'_>) -> rusqlite::Result<()> {
    Counter::Probes.draw(tx.conn).map(|_| ())
}
