//! Settings that only a store in SQLite has.

use crate::error::{Error, Result};

const PAGE_CACHE_BYTES: usize = 16 << 20;

/// Settings that only a store in SQLite has. Pass them to [`Builder::sqlite`](crate::Builder::sqlite) or
/// [`ClientBuilder::sqlite`](crate::ClientBuilder::sqlite).
///
/// # Example
///
/// ```
/// # use punctual::{Client, SqliteSettings};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("app.db");
/// let settings = SqliteSettings::default().page_cache_bytes(64 << 20);
/// let client = Client::builder(&path).sqlite(settings).open()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct SqliteSettings {
    pub(crate) page_cache_bytes: usize,
}

impl Default for SqliteSettings {
    fn default() -> Self {
        Self {
            page_cache_bytes: PAGE_CACHE_BYTES,
        }
    }
}

impl SqliteSettings {
    /// How many bytes of the file the write connection keeps in memory, at most; memory is taken as needed. 1 MiB to 64 GiB;
    /// default: 16 MiB. More helps when tasks are stored out of the order of their due times, into many queues, or with
    /// large payloads. A store in memory ignores it.
    pub fn page_cache_bytes(mut self, bytes: usize) -> Self {
        self.page_cache_bytes = bytes;
        self
    }

    /// # Errors
    ///
    /// `Invalid` for a setting that is not in its range.
    pub(crate) fn check(&self) -> Result<()> {
        let bytes = self.page_cache_bytes as u64;
        if (1 << 20..=1 << 36).contains(&bytes) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a page cache of {bytes} bytes is not between 1 MiB and 64 GiB"
        )))
    }
}
