//! Where a database file may be, and what lies beside it.
//!
//! A database is three things that every process has to find together: the file, SQLite's log (`-wal` and its index, `-shm`)
//! and the folder of the lock files (`.punctual`). The last two are found by the file's name. A second name of the file
//! leads to another log and other locks: commits are lost, and a task runs in two processes at once. So the file must have
//! one name, and what lies beside it must really be there, not be a link or a mount of something elsewhere.
//!
//! What is refused: a file that is mounted alone or has hard links, and the same of its log; a log or a lock folder that is
//! a symbolic link, a mount point, or of the wrong type.
//!
//! What is harmless, and so allowed: a symbolic link to the file or on the way to it, since the path is resolved first, and
//! all processes use the resolved one; a folder that is mounted in several places, since the log and the locks are in it and
//! come along; names that differ in case on a file system that ignores case, since it ignores case in the other names as
//! well; a lock folder with a device number of its own (a subvolume) that is no mount point, since its name leads every
//! process to the same place.
//!
//! All this is checked when a file is opened. A name that is added later does not harm the processes that have the file
//! open, since they keep their log: the process that uses the new name is refused.

use std::fs::{self, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::store::sqlite::file::identity;
use crate::store::sqlite::file::mounts;

/// The smallest page of SQLite, and so the smallest database that is not empty.
const MIN_DATABASE_BYTES: u64 = 512;

/// The longest path of a database that SQLite opens: its limit is 512, and it keeps room for the longest suffix.
const MAX_PATH_BYTES: usize = 504;

/// The path of a database file without links: the one name by which all processes find what lies beside it.
///
/// # Errors
///
/// `Invalid` for a path that is no place for a database, `Corrupt` for a file that is too small to be one, `ReadOnly` if a
/// folder on the way cannot be searched.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf> {
    check_text(path)?;
    let resolved = match fs::canonicalize(path) {
        Ok(resolved) => {
            check_file(path, &resolved)?;
            resolved
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => resolve_new(path)?,
        Err(error) => return Err(unreadable(path, error)),
    };
    check_name(&resolved)?;
    Ok(resolved)
}

/// Checks the path as it is written.
fn check_text(path: &Path) -> Result<()> {
    let shown = path.display();
    let text = path.to_string_lossy();
    if text.is_empty() {
        return Err(Error::invalid("the path is empty"));
    }
    if text.contains('\0') {
        return Err(Error::invalid("the path has a NUL character"));
    }
    if text.starts_with("file:") || text.starts_with(":memory:") {
        return Err(Error::invalid(format!(
            "{shown} is a SQLite URI or special name, not a path; for a database in memory use in_memory()"
        )));
    }
    // `Path::file_name` would ignore a slash or a dot at the end.
    let last = text.rsplit(std::path::is_separator).next();
    if matches!(last, Some("" | "." | "..")) {
        return Err(Error::invalid(format!(
            "{shown} names a folder, not a file: it ends in a slash or in dots"
        )));
    }
    Ok(())
}

/// Checks an existing file without opening it: closing it would drop the locks that SQLite holds on it in this process.
fn check_file(path: &Path, resolved: &Path) -> Result<()> {
    let shown = path.display();
    let metadata = fs::metadata(resolved).map_err(|error| unreadable(path, error))?;
    if metadata.is_dir() {
        return Err(Error::invalid(format!("{shown} is a directory")));
    }
    if !metadata.is_file() {
        return Err(Error::invalid(format!("{shown} is not a regular file")));
    }
    if let Some(fault) = second_name(resolved, &metadata) {
        return Err(Error::invalid(format!(
            "{shown} {fault}: under another name it has another log, and commits would be lost; {ONE_NAME}"
        )));
    }
    // SQLite takes a file of one byte for an empty one, and overwrites it.
    if (1..MIN_DATABASE_BYTES).contains(&metadata.len()) {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "{shown} is not a database: it has {} bytes, and the smallest database has {MIN_DATABASE_BYTES}",
                metadata.len()
            ),
        ));
    }
    Ok(())
}

/// The path of a file that is not there yet.
fn resolve_new(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink()) {
        let target = fs::read_link(path).unwrap_or_default();
        return Err(Error::invalid(format!(
            "{shown} is a symbolic link to {}, which does not exist",
            target.display()
        )));
    }
    let name = path
        .file_name()
        .ok_or_else(|| Error::invalid(format!("{shown} names no file")))?;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match fs::canonicalize(folder) {
        Ok(folder) => Ok(folder.join(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let hint = match folder.starts_with("~") {
                true => " (a path is taken as it is: ~ is not the home folder)",
                false => "",
            };
            Err(Error::invalid(format!(
                "cannot create {shown}: the folder {} does not exist{hint}",
                folder.display()
            )))
        }
        Err(error) => Err(unreadable(folder, error)),
    }
}

/// Refuses names that belong to the files beside another database, and names that are too long for SQLite.
fn check_name(resolved: &Path) -> Result<()> {
    let shown = resolved.display();
    if resolved.as_os_str().len() > MAX_PATH_BYTES {
        return Err(Error::invalid(format!(
            "{shown} is too long: SQLite opens paths of at most {MAX_PATH_BYTES} bytes, and this one has {}",
            resolved.as_os_str().len()
        )));
    }
    // Even if that database does not exist: SQLite deletes such files when it creates the database.
    let name = resolved.file_name().unwrap_or_default().to_string_lossy();
    if let Some(suffix) = SQLITE_SUFFIXES
        .iter()
        .find(|suffix| name.ends_with(**suffix))
    {
        return Err(Error::invalid(format!(
            "{shown} has a name that SQLite gives to the log of a database: choose one that does not end in {suffix}"
        )));
    }
    let folder = resolved.parent().and_then(Path::file_name);
    let folder = folder.unwrap_or_default().to_string_lossy();
    if folder
        .strip_suffix(LOCK_FOLDER_SUFFIX)
        .is_some_and(|database| !database.is_empty())
    {
        return Err(Error::invalid(format!(
            "{shown} lies in a folder of lock files, which belongs to another database"
        )));
    }
    Ok(())
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::ReadOnly,
        _ => ErrorKind::Invalid,
    };
    Error::new(kind, format!("cannot open {}", path.display())).with_source(error)
}

/// The suffixes of a database's log, of the log's index, and of a rollback journal.
const SQLITE_SUFFIXES: [&str; 3] = ["-wal", "-shm", "-journal"];

const ONE_NAME: &str = "mount the folder, not the file, and link to it by symbolic links only";

/// Why a file has a second name, as the rest of a sentence that begins with its path; `None`: it has one name.
fn second_name(path: &Path, metadata: &Metadata) -> Option<String> {
    match identity::links(metadata) {
        Some(links) if links > 1 => return Some(format!("has {links} names (hard links)")),
        _ => {}
    }
    // A system that does not answer has no such mounts, or hides them.
    mounts::is_mount_point(path)
        .unwrap_or(false)
        .then(|| "is a mount point of its own".to_owned())
}

/// Checks the files beside a database, if they exist yet.
///
/// # Errors
///
/// `Invalid` if the log or the lock folder is kept somewhere else, or is of the wrong type, or if there is a log without its
/// file.
pub(crate) fn check_beside(file: &Path) -> Result<()> {
    for suffix in SQLITE_SUFFIXES {
        check_companion(file, &beside(file, suffix), |path, metadata| {
            if !metadata.is_file() {
                return Some("is not a regular file".to_owned());
            }
            second_name(path, metadata)
        })?;
    }
    check_companion(file, &lock_folder(file), |path, metadata| {
        if !metadata.is_dir() {
            return Some("is not a folder".to_owned());
        }
        // Any folder has several links.
        mounts::is_mount_point(path)
            .unwrap_or(false)
            .then(|| "is a mount point of its own".to_owned())
    })?;
    check_log_is_of_file(file)
}

/// SQLite deletes a log beside a file that is missing or empty: what was committed to the log would be lost.
///
/// The log is checked first: a process that creates the database makes the file before a log, and writes to the file before
/// it makes a `-wal`.
fn check_log_is_of_file(file: &Path) -> Result<()> {
    let bytes = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    for suffix in ["-wal", "-journal"] {
        let log = beside(file, suffix);
        if bytes(&log) == 0 {
            continue;
        }
        let state = match fs::metadata(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => "is missing",
            Ok(metadata) if metadata.len() == 0 && suffix == "-wal" => "is empty",
            _ => continue,
        };
        return Err(Error::invalid(format!(
            "{} {state}, but its log {} is there and would be lost: put the file back, or move the log away",
            file.display(),
            log.display(),
        )));
    }
    Ok(())
}

fn check_companion(
    file: &Path,
    companion: &Path,
    fault: impl Fn(&Path, &Metadata) -> Option<String>,
) -> Result<()> {
    let metadata = match fs::symlink_metadata(companion) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::InvalidFilename => {
            return Err(Error::invalid(format!(
                "the name of {} is too long: {} has to be possible beside it",
                file.display(),
                companion.display()
            ))
            .with_source(error));
        }
        Err(error) => return Err(unreadable(companion, error)),
    };
    let fault = if metadata.is_symlink() {
        Some("is a symbolic link".to_owned())
    } else {
        fault(companion, &metadata)
    };
    match fault {
        None => Ok(()),
        Some(fault) => Err(Error::invalid(format!(
            "cannot open {}: {} {fault}, so processes may not find the same log and locks; {ONE_NAME}",
            file.display(),
            companion.display(),
        ))),
    }
}

/// Where SQLite keeps the log of a file.
pub(crate) fn log_of(file: &Path) -> PathBuf {
    beside(file, "-wal")
}

/// The suffix of the folder with the lock files of a database.
const LOCK_FOLDER_SUFFIX: &str = ".punctual";

/// Where the lock files of a database are.
pub(crate) fn lock_folder(database: &Path) -> PathBuf {
    beside(database, LOCK_FOLDER_SUFFIX)
}

/// Creates a folder of lock files, with access for its owner only, if there is none.
pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// The file's path with something added to its name.
pub(crate) fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Creates the file with access for its owner only, and returns whether it did; SQLite gives its log the same mode. An
/// existing file is never opened here: closing it again would drop the locks that SQLite holds on it in this process.
pub(crate) fn create(path: &Path) -> Result<bool> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => {
            let kind = match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    ErrorKind::ReadOnly
                }
                io::ErrorKind::StorageFull => ErrorKind::Full,
                _ => ErrorKind::Storage,
            };
            Err(Error::new(kind, format!("cannot create {}", path.display())).with_source(error))
        }
    }
}

/// Refuses file systems on which another machine could have the file open: SQLite's log is shared memory.
#[cfg(target_os = "linux")]
pub(crate) fn check_file_system(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    // A folder that gives no answer fails later, when the file is opened.
    let Ok(stat) = rustix::fs::statfs(folder) else {
        return Ok(());
    };
    // The type of `f_type` differs between targets; each of them fits.
    match network_file_system(i128::from(stat.f_type)) {
        None => Ok(()),
        Some(name) => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{} is on a network file system ({name}), where SQLite's log does not work",
                path.display()
            ),
        )),
    }
}

/// The name of a file system of that magic number (statfs(2)), if other machines can share it.
#[cfg(target_os = "linux")]
fn network_file_system(magic: i128) -> Option<&'static str> {
    Some(match magic & 0xffff_ffff {
        0x6969 => "NFS",
        0x517b => "SMB",
        0xff53_4d42 => "CIFS",
        0xfe53_4d42 => "SMB2",
        0x0102_1997 => "9p",
        0x5346_414f => "AFS",
        0x00c3_6400 => "Ceph",
        0x7375_7245 => "Coda",
        0x6573_5546 => "FUSE",
        _ => return None,
    })
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn check_file_system(_path: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Settings;
    use crate::store::sqlite::file::open::Opener;

    #[cfg(target_os = "linux")]
    #[test]
    fn network_file_systems_are_known_by_their_number() {
        assert_eq!(network_file_system(0x6969), Some("NFS"));
        // Some targets extend the sign.
        assert_eq!(network_file_system(0xffff_ffff_ff53_4d42), Some("CIFS"));
        assert_eq!(network_file_system(0xef53), None, "ext4");
        assert_eq!(network_file_system(0x0102_1994), None, "tmpfs");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_folder_that_cannot_be_written_is_read_only() {
        // No user can create a file there, not even root.
        let error = Opener::new(Path::new("/sys/punctual.db"), &Settings::new(false)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_second_name_of_a_file_is_refused_and_a_symlink_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link, hard) = (
            dir.path().join("a.db"),
            dir.path().join("l.db"),
            dir.path().join("h.db"),
        );
        let opener = Opener::new(&file, &Settings::new(false)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(
            Opener::new(&link, &Settings::new(false)).unwrap().path,
            opener.path
        );
        std::fs::hard_link(&file, &hard).unwrap();
        let error = Opener::new(&hard, &Settings::new(false)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("hard link"), "{error}");
    }

    /// A log or a lock folder that is somewhere else is not the one that other processes find.
    #[cfg(unix)]
    #[test]
    fn p1_a_log_or_lock_folder_that_lies_elsewhere_is_refused() {
        use std::os::unix::fs::symlink;
        let elsewhere = tempfile::tempdir().unwrap();
        let target = elsewhere.path().join("target");
        fs::write(&target, "").unwrap();
        type Make = fn(&Path, &Path);
        let link: Make = |target, at| symlink(target, at).unwrap();
        let hard: Make = |target, at| fs::hard_link(target, at).unwrap();
        let folder: Make = |_, at| fs::create_dir(at).unwrap();
        let file: Make = |_, at| fs::write(at, "").unwrap();
        let dangling: Make = |_, at| symlink("nowhere", at).unwrap();
        let linked_folder: Make = |target, at| symlink(target.parent().unwrap(), at).unwrap();
        for (suffix, make, words) in [
            ("-wal", link, "is a symbolic link"),
            ("-wal", hard, "has 2 names"),
            ("-wal", folder, "is not a regular file"),
            ("-wal", dangling, "is a symbolic link"),
            ("-shm", link, "is a symbolic link"),
            ("-shm", hard, "has 2 names"),
            ("-journal", link, "is a symbolic link"),
            ("-journal", hard, "has 2 names"),
            (".punctual", linked_folder, "is a symbolic link"),
            (".punctual", dangling, "is a symbolic link"),
            (".punctual", file, "is not a folder"),
        ] {
            // On the target's file system, for the hard links.
            let dir = tempfile::tempdir_in(elsewhere.path()).unwrap();
            let database = dir.path().join("a.db");
            make(&target, &beside(&database, suffix));
            let error = Opener::new(&database, &Settings::new(false)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{suffix}: {error}");
            let text = error.to_string();
            let expected = format!("a.db{suffix} {words}");
            assert!(text.contains(&expected), "{suffix}: {text}");
            assert!(!database.exists(), "{suffix}: nothing was created");
        }
    }
}
