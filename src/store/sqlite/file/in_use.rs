//! The files that this process has open.
//!
//! A process has one index of the log (`-shm`) for each open file, and SQLite finds it by the file's name. After a file was
//! replaced, opening the new file would reach the old file's index: SQLite takes the process for the first to open it,
//! truncates it, and a connection that still uses it for the old file dies by SIGBUS. So a name is not opened for a new file
//! while the old one is open, and each connection checks which file it has before it reads.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::store::sqlite::file::identity::{self, Identity};
use crate::wake::lock;

static OPEN: Mutex<Vec<(PathBuf, Identity)>> = Mutex::new(Vec::new());

/// A file that is open until this is dropped.
#[derive(Debug)]
pub(crate) struct InUse {
    path: PathBuf,
    identity: Identity,
}

impl InUse {
    /// # Errors
    ///
    /// `Replaced` if this process still has another file open that had that name.
    pub(crate) fn new(path: &Path, identity: Identity) -> Result<Self> {
        let mut open = lock(&OPEN);
        check_among(&open, path, Some(identity))?;
        open.push((path.to_owned(), identity));
        Ok(Self {
            path: path.to_owned(),
            identity,
        })
    }

    /// # Errors
    ///
    /// `Replaced` if the path no longer names this file.
    pub(crate) fn check(&self) -> Result<()> {
        identity::check(&self.path, self.identity)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut open = lock(&OPEN);
        let own = |(path, identity): &(PathBuf, Identity)| {
            *path == self.path && *identity == self.identity
        };
        if let Some(index) = open.iter().position(own) {
            open.swap_remove(index);
        }
    }
}

/// Like [`InUse::new`], for the file that the path names now. Called before a file is created there.
pub(crate) fn check(path: &Path) -> Result<()> {
    check_among(&lock(&OPEN), path, identity::at(path).ok())
}

fn check_among(
    open: &[(PathBuf, Identity)],
    path: &Path,
    identity: Option<Identity>,
) -> Result<()> {
    let former = |(name, other): &&(PathBuf, Identity)| name == path && Some(*other) != identity;
    if !open.iter().any(|each| former(&each)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Replaced,
        format!(
            "the file that was at {} was moved, deleted or replaced, and this process has it open: close that first",
            path.display()
        ),
    ))
}
