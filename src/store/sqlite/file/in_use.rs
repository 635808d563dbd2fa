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
use crate::sync::lock;

static OPEN: Mutex<Vec<OpenFile>> = Mutex::new(Vec::new());

#[derive(Debug, Clone, PartialEq, Eq)]
struct OpenFile {
    path: PathBuf,
    /// Several paths may lead to it.
    folder: Identity,
    identity: Identity,
}

impl OpenFile {
    /// Whether the file at `path`, of that identity if there is one, has taken the place of this one.
    fn is_former_of(&self, path: &Path, folder: Identity, identity: Option<Identity>) -> bool {
        if identity == Some(self.identity) {
            return false;
        }
        // The number of a folder that was deleted may be another folder's by now.
        let is_same_folder = folder.inode() != 0
            && self.folder == folder
            && folder_of(&self.path).is_ok_and(|now| now == folder);
        self.path == path || is_same_folder && self.path.file_name() == path.file_name()
    }
}

fn folder_of(path: &Path) -> Result<Identity> {
    identity::at(path.parent().unwrap_or(path))
}

/// A file that is open until this is dropped.
#[derive(Debug)]
pub(crate) struct InUse(OpenFile);

impl InUse {
    /// # Errors
    ///
    /// `Replaced` if this process still has another file open that had that name.
    pub(crate) fn new(path: &Path, identity: Identity) -> Result<Self> {
        let file = OpenFile {
            path: path.to_owned(),
            folder: folder_of(path)?,
            identity,
        };
        let mut open = lock(&OPEN);
        // Again: the file may have been replaced, and opened by another thread, since the first check.
        check_among(&open, path, file.folder, Some(identity))?;
        open.push(file.clone());
        Ok(Self(file))
    }

    /// # Errors
    ///
    /// `Replaced` if the path no longer names this file.
    pub(crate) fn check(&self) -> Result<()> {
        identity::check(&self.0.path, self.0.identity)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut open = lock(&OPEN);
        if let Some(index) = open.iter().position(|file| *file == self.0) {
            open.swap_remove(index);
        }
    }
}

/// Like [`InUse::new`], for the file that the path names now. Called before a file is created there.
pub(crate) fn check(path: &Path) -> Result<()> {
    let folder = folder_of(path)?;
    check_among(&lock(&OPEN), path, folder, identity::at(path).ok())
}

fn check_among(
    open: &[OpenFile],
    path: &Path,
    folder: Identity,
    identity: Option<Identity>,
) -> Result<()> {
    if !open
        .iter()
        .any(|file| file.is_former_of(path, folder, identity))
    {
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// The number of a deleted folder was taken for the same folder: a store could not be opened in the new one.
    #[test]
    fn a_folder_with_the_number_of_a_deleted_one_is_another_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folders = ["one", "two"].map(|name| dir.path().join(name));
        std::fs::create_dir(&folders[1]).unwrap();
        let file = |folder: &Path| {
            let path = folder.join("a.db");
            std::fs::write(&path, "").unwrap();
            path
        };
        let new = file(&folders[1]);
        let deleted = OpenFile {
            path: folders[0].join("a.db"),
            folder: folder_of(&new).unwrap(),
            identity: identity::at(dir.path()).unwrap(),
        };
        let now = || identity::at(&new).ok();
        assert!(!deleted.is_former_of(&new, deleted.folder, now()));
        // By another path the same folder is the same.
        std::os::unix::fs::symlink(&folders[1], &folders[0]).unwrap();
        assert!(deleted.is_former_of(&new, deleted.folder, now()));
        let same = OpenFile {
            identity: now().unwrap(),
            ..deleted
        };
        assert!(!same.is_former_of(&new, same.folder, now()));
    }
}
