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

static OPEN: Mutex<Vec<(Name, Identity)>> = Mutex::new(Vec::new());

/// The name of a file, also if its folder is reached by several paths.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    folder: Identity,
    /// The whole path where folders have no identity.
    file: PathBuf,
}

impl Name {
    fn of(path: &Path) -> Result<Self> {
        let folder = identity::at(path.parent().unwrap_or(path))?;
        let file = match path.file_name() {
            Some(name) if folder.inode() != 0 => name.into(),
            _ => path.to_owned(),
        };
        Ok(Self { folder, file })
    }
}

/// A file that is open until this is dropped.
#[derive(Debug)]
pub(crate) struct InUse {
    path: PathBuf,
    name: Name,
    identity: Identity,
}

impl InUse {
    /// # Errors
    ///
    /// `Replaced` if this process still has another file open that had that name.
    pub(crate) fn new(path: &Path, identity: Identity) -> Result<Self> {
        let name = Name::of(path)?;
        let mut open = lock(&OPEN);
        // Again: the file may have been replaced, and opened by another thread, since the first check.
        check_among(&open, &name, path, Some(identity))?;
        open.push((name.clone(), identity));
        Ok(Self {
            path: path.to_owned(),
            name,
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
        let is_own =
            |(name, identity): &(Name, Identity)| *name == self.name && *identity == self.identity;
        if let Some(index) = open.iter().position(is_own) {
            open.swap_remove(index);
        }
    }
}

/// Like [`InUse::new`], for the file that the path names now. Called before a file is created there.
pub(crate) fn check(path: &Path) -> Result<()> {
    let name = Name::of(path)?;
    check_among(&lock(&OPEN), &name, path, identity::at(path).ok())
}

fn check_among(
    open: &[(Name, Identity)],
    name: &Name,
    path: &Path,
    identity: Option<Identity>,
) -> Result<()> {
    let is_former = |(other, file): &(Name, Identity)| other == name && Some(*file) != identity;
    if !open.iter().any(is_former) {
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
