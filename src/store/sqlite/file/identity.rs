//! Which file a path names, to notice that it was moved, deleted or replaced.

use std::fs::Metadata;
use std::path::Path;

use rusqlite::Connection;
#[cfg(unix)]
use rusqlite::{FileControl, MAIN_DB};

use crate::error::{Error, ErrorKind, Result};
#[cfg(unix)]
use crate::store::sqlite::error;

/// Device and inode; 0 where the system has none. Two files that exist at the same time never have the same; one file may
/// get another device number when its file system is mounted anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// The identity that [`columns`](Self::columns) has stored.
    pub(crate) fn stored(device: i64, inode: i64) -> Self {
        Self {
            device: device.cast_unsigned(),
            inode: inode.cast_unsigned(),
        }
    }

    /// Device and inode as numbers that SQLite can store.
    pub(crate) fn columns(self) -> (i64, i64) {
        (self.device.cast_signed(), self.inode.cast_signed())
    }

    /// Whether both identities are known, and differ.
    pub(crate) fn is_another(self, other: Self) -> bool {
        self.inode != 0 && other.inode != 0 && self != other
    }

    pub(crate) fn inode(self) -> u64 {
        self.inode
    }
}

#[cfg(unix)]
pub(crate) fn of(metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
    }
}

#[cfg(not(unix))]
pub(crate) fn of(_metadata: &Metadata) -> Identity {
    Identity {
        device: 0,
        inode: 0,
    }
}

#[cfg(unix)]
pub(crate) fn links(metadata: &Metadata) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    Some(metadata.nlink())
}

#[cfg(not(unix))]
pub(crate) fn links(_metadata: &Metadata) -> Option<u64> {
    None
}

pub(crate) fn at(path: &Path) -> Result<Identity> {
    std::fs::metadata(path)
        .map(|metadata| of(&metadata))
        .map_err(|error| {
            Error::new(
                ErrorKind::Replaced,
                format!("{} was moved or deleted", path.display()),
            )
            .with_source(error)
        })
}

/// # Errors
///
/// `Replaced` if the path no longer names the file it named.
pub(crate) fn check(path: &Path, expected: Identity) -> Result<()> {
    if at(path)? == expected {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Replaced,
        format!("{} was replaced by another file", path.display()),
    ))
}

/// Whether the path of a connection names another file by now.
#[cfg(unix)]
pub(crate) fn has_moved(conn: &Connection) -> Result<bool> {
    let mut moved = 0;
    conn.file_control(Some(MAIN_DB), FileControl::HasMoved(&mut moved))
        .map_err(|error| error::of("cannot ask the connection", error))?;
    Ok(moved != 0)
}

#[cfg(not(unix))]
pub(crate) fn has_moved(_conn: &Connection) -> Result<bool> {
    Ok(false)
}
