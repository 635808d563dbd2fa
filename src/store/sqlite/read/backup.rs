//! The online backup: a copy of a file as of one instant, made while the file is in use.

use std::path::Path;

use rusqlite::backup::Backup;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use crate::error::{Error, Result};
use crate::store::Settings;
use crate::store::sqlite::error;
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
    let mut not_written = None;
    let read = read(&mut |conn| match copy(conn, &opener.path) {
        Err(error) if is_of_a_write(&error) => {
            not_written = Some(error::of("cannot write the copy", error));
            Ok(())
        }
        other => other,
    });
    not_written.map_or(read, Err).map_err(|error| {
        // A partial copy is worse than none.
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
    // In one step: a write between two steps would make the copy begin anew.
    backup.step(-1)?;
    drop(backup);
    // The original's instances hold nothing in the copy. Their rows name the original's file, which says so, unless the copy
    // is put in the original's place. So they get a boot id that no boot has, and count as dead wherever the copy lies.
    target.execute(
        "UPDATE punctual_instance SET boot_id = ?1 WHERE ended_at IS NULL",
        [OF_BACKUP],
    )?;
    Ok(())
}

/// Whether a write has failed, so the copy is at fault: the original is only read.
fn is_of_a_write(error: &rusqlite::Error) -> bool {
    let writes = [
        ffi::SQLITE_IOERR_WRITE,
        ffi::SQLITE_IOERR_FSYNC,
        ffi::SQLITE_IOERR_DIR_FSYNC,
        ffi::SQLITE_IOERR_TRUNCATE,
    ];
    error.sqlite_error().is_some_and(|failed| {
        matches!(failed.code, ErrorCode::DiskFull | ErrorCode::ReadOnly)
            || writes.contains(&failed.extended_code)
    })
}
