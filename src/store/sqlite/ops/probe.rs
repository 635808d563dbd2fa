//! A write that stores nothing for a caller: it shows whether writes work.

use crate::store::sqlite::ops::write_tx::WriteTx;

/// The value changes each time: SQLite does not write one that stays the same.
const PROBE: &str = "
    INSERT INTO punctual_meta (key, value) VALUES ('probes', 1)
    ON CONFLICT (key) DO UPDATE SET value = value + 1";

pub(crate) fn probe(tx: &WriteTx<'_>) -> rusqlite::Result<()> {
    tx.conn.prepare_cached(PROBE)?.execute([]).map(|_| ())
}
