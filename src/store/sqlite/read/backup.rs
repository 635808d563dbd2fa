//! The online backup: one instant's copy of a file, made while it is used.

use std::path::Path;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, Result};
use crate::store::Settings;
use crate::store::sqlite::file::open::Opener;
use crate::store::sqlite::file::paths;
use crate::store::sqlite::instances::process::OF_BACKUP;

/// Copies a store to `to`, which must not exist. `read` runs its argument on a connection to the store.
pub(crate) fn backup(
    to: &Path,
    read: impl FnOnce(&mut dyn FnMut(&Connection) -> rusqlite::Result<()>) -> Result<()>,
) -> Result<()> {
    if to.exists() {
        return Err(Error::invalid(format!("{} exists already", to.display())));
    }
    let context = format!("cannot back up to {}", to.display());
    let opener =
        Opener::new(to, &Settings::new(false)).map_err(|error| error.in_context(&context))?;
    if !opener.is_new {
        return Err(Error::invalid(format!("{} exists already", to.display())));
    }
    read(&mut |conn| copy(conn, &opener.path)).map_err(|error| {
        // A copy that is not whole is worse than none.
        let _ = std::fs::remove_file(&opener.path);
        let _ = std::fs::remove_file(paths::beside(&opener.path, "-journal"));
        error.in_context(&context)
    })
}

fn copy(conn: &Connection, to: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut target = Connection::open_with_flags(to, flags)?;
    let backup = Backup::new(conn, &mut target)?;
    // In one step: between two, a write would make it begin anew.
    backup.step(-1)?;
    drop(backup);
    // The instances of the original hold nothing in the copy. Their rows name the original's file, and so tell that,
    // unless the copy is put in the original's place: so they become of another boot, which is dead wherever it lies.
    target.execute(
        "UPDATE punctual_instance SET boot_id = ?1 WHERE ended_at IS NULL",
        [OF_BACKUP],
    )?;
    Ok(())
}
