//! Opening a client.

use std::path::Path;

use crate::client::Client;
use crate::client::settings::{Location, StoreSettings, store_setters};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;

/// Opens a [`Client`] with other settings than the defaults. Made by [`Client::builder`].
///
/// # Example
///
/// ```
/// # use punctual::{Client, Durability};
/// # use std::time::Duration;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("app.db");
/// let client = Client::builder(&path)
///     .durability(Durability::ProcessCrash)
///     .busy_timeout(Duration::from_secs(1))
///     .open()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientBuilder {
    store: StoreSettings,
}

impl ClientBuilder {
    store_setters!();

    /// Opens the file, and creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Client::open`], and [`ErrorKind::Invalid`] for a setting that is out of its range.
    pub fn open(self) -> Result<Client> {
        let client = Client::on(self.store.open()?);
        client.recover()?;
        Ok(client)
    }
}

impl Client {
    /// Opens a file as a client that runs no tasks. Creates the file if there is none.
    ///
    /// # Errors
    ///
    /// A refused path stays as it was: no new file is left there, and a file there is unchanged.
    ///
    /// - [`ErrorKind::Invalid`] for a path that is no place for a database: it ends in a slash, its folder does not exist, it
    ///   is a folder, a device, or a symbolic link to nothing; it has more than 504 bytes, or its name has no room for a
    ///   further `.punctual` (9 bytes); its name ends in `-wal`, `-shm` or `-journal`, which SQLite uses for the log of another
    ///   database; it lies in a folder of lock files.
    /// - [`ErrorKind::Invalid`] for a file that has a second name: one that is mounted alone (mount its folder instead) or has
    ///   hard links, or whose log (`-wal`, `-shm`) or folder of lock files (`.punctual`) is a link or a mount of something
    ///   elsewhere.
    /// - [`ErrorKind::Corrupt`] for a file that is no database.
    /// - [`ErrorKind::ReadOnly`] if the file or its folder cannot be written.
    /// - [`ErrorKind::Version`] if its schema is newer than this crate's.
    /// - [`ErrorKind::Replaced`] if this process still has another file open that had this path.
    /// - [`ErrorKind::Forked`] in a child that was forked while its parent had a store open.
    /// - [`ErrorKind::Unsupported`] on a network file system.
    /// - [`ErrorKind::Full`] or [`ErrorKind::Storage`] if a new file cannot be made a database.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open()
    }

    /// Like [`open`](Self::open), with settings.
    pub fn builder(path: impl AsRef<Path>) -> ClientBuilder {
        let location = Location::File(path.as_ref().to_owned());
        ClientBuilder {
            store: StoreSettings::new(location, false),
        }
    }
}
