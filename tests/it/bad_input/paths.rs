//! Paths and files that are no place for a database: each is refused by name, and left as it was.

use std::path::{Path, PathBuf};

use punctual::rusqlite::Connection;
use punctual::{Client, Error, ErrorKind, Scheduler};

use crate::kit::{file, probe};

/// Both ways to open a file fail alike.
fn open_fails(path: &Path) -> Error {
    let client = Client::open(path).map(|_| ()).unwrap_err();
    let scheduler = Scheduler::builder(path).start().map(|_| ()).unwrap_err();
    assert_eq!(client.kind(), scheduler.kind());
    assert!(!client.is_retryable());
    client
}

#[cfg(unix)]
struct BadPath {
    name: &'static str,
    /// Makes what is there already, in an empty folder, and returns the path to open.
    make: fn(&Path) -> PathBuf,
    kind: ErrorKind,
    words: &'static str,
}

#[cfg(unix)]
fn bad_paths() -> Vec<BadPath> {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use ErrorKind::{Corrupt, Invalid};

    let bad = |name, kind, words, make: fn(&Path) -> PathBuf| BadPath {
        name,
        make,
        kind,
        words,
    };
    vec![
        bad("nothing", Invalid, "the path is empty", |_| "".into()),
        bad("memory", Invalid, "in_memory()", |_| ":memory:".into()),
        bad("a URI", Invalid, "not a path", |_| "file:x.db?a=b".into()),
        bad("a NUL", Invalid, "NUL character", |dir| dir.join("a\0b")),
        bad("a folder", Invalid, "is a directory", |dir| dir.into()),
        bad("a slash", Invalid, "names a folder", |dir| {
            dir.join("x.db/")
        }),
        bad("a dot", Invalid, "names a folder", |dir| dir.join("x.db/.")),
        bad("two dots", Invalid, "names a folder", |dir| {
            dir.join("x.db/..")
        }),
        bad("a database and a slash", Invalid, "names a folder", |dir| {
            Client::open(dir.join("x.db")).unwrap();
            dir.join("x.db/")
        }),
        bad("no folder", Invalid, "missing does not exist", |dir| {
            dir.join("missing/x.db")
        }),
        bad("home", Invalid, "~ is not the home folder", |_| {
            "~/punctual-test.db".into()
        }),
        bad("a file as a folder", Invalid, "Not a directory", |dir| {
            fs::write(dir.join("plain"), "").unwrap();
            dir.join("plain/x.db")
        }),
        bad("on from a file", Invalid, "Not a directory", |dir| {
            fs::write(dir.join("plain"), "").unwrap();
            dir.join("plain/../x.db")
        }),
        bad(
            "a link to nowhere",
            Invalid,
            "link to gone.db, which does not",
            |dir| {
                symlink("gone.db", dir.join("x.db")).unwrap();
                dir.join("x.db")
            },
        ),
        bad("links in a circle", Invalid, "symbolic links", |dir| {
            symlink("b.db", dir.join("a.db")).unwrap();
            symlink("a.db", dir.join("b.db")).unwrap();
            dir.join("a.db")
        }),
        bad("a long name", Invalid, "too long", |dir| {
            dir.join("x".repeat(300))
        }),
        bad(
            "no room for the log's name",
            Invalid,
            "is too long",
            |dir| dir.join("x".repeat(252)),
        ),
        bad(
            "no room for the lock folder's name",
            Invalid,
            "is too long",
            |dir| dir.join("x".repeat(247)),
        ),
        bad("a long path", Invalid, "at most 504 bytes", |dir| {
            let deep = (0..6).fold(dir.to_owned(), |dir, _| dir.join("x".repeat(90)));
            fs::create_dir_all(&deep).unwrap();
            deep.join("x.db")
        }),
        bad("a pipe", Invalid, "not a regular file", |dir| {
            use rustix::fs::{CWD, FileType, Mode, mknodat};
            let path = dir.join("x.db");
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
            path
        }),
        bad("a socket", Invalid, "not a regular file", |dir| {
            UnixListener::bind(dir.join("x.db")).unwrap();
            dir.join("x.db")
        }),
        bad("a device", Invalid, "not a regular file", |_| {
            "/dev/null".into()
        }),
        bad("a log", Invalid, "does not end in -wal", |dir| {
            dir.join("x.db-wal")
        }),
        bad(
            "the index of a log",
            Invalid,
            "does not end in -shm",
            |dir| dir.join("x.db-shm"),
        ),
        bad("an older log", Invalid, "does not end in -journal", |dir| {
            dir.join("x.db-journal")
        }),
        bad("a lock file", Invalid, "a folder of lock files", |dir| {
            fs::create_dir(dir.join("x.db.punctual")).unwrap();
            dir.join("x.db.punctual/y.db")
        }),
        bad("a hard link", Invalid, "hard links", |dir| {
            fs::write(dir.join("x.db"), "").unwrap();
            fs::hard_link(dir.join("x.db"), dir.join("y.db")).unwrap();
            dir.join("y.db")
        }),
        bad("a log alone", Invalid, "would be lost", |dir| {
            fs::write(dir.join("x.db-wal"), "commits").unwrap();
            dir.join("x.db")
        }),
        bad("a log and an empty file", Invalid, "would be lost", |dir| {
            fs::write(dir.join("x.db-wal"), "commits").unwrap();
            fs::write(dir.join("x.db"), "").unwrap();
            dir.join("x.db")
        }),
        bad("an older log alone", Invalid, "would be lost", |dir| {
            fs::write(dir.join("x.db-journal"), "commits").unwrap();
            dir.join("x.db")
        }),
        bad("one byte", Corrupt, "it has 1 bytes", |dir| {
            fs::write(dir.join("x.db"), "x").unwrap();
            dir.join("x.db")
        }),
        bad("a text", Corrupt, "x.db", |dir| {
            fs::write(dir.join("x.db"), "x".repeat(512)).unwrap();
            dir.join("x.db")
        }),
        bad("zeros", Corrupt, "x.db", |dir| {
            fs::write(dir.join("x.db"), [0; 4_096]).unwrap();
            dir.join("x.db")
        }),
    ]
}

/// Everything below a folder: its path, and its length if it is a file.
#[cfg(unix)]
fn listing(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            all.extend(listing(&path));
            all.push((path, 0));
        } else {
            all.push((path, metadata.len()));
        }
    }
    all.sort();
    all
}

#[cfg(unix)]
#[test]
fn a_path_that_is_no_place_for_a_file_is_refused_and_nothing_is_left_there() {
    let (_source_dir, source) = file();
    let source = Client::open(source).unwrap();
    for BadPath {
        name,
        make,
        kind,
        words,
    } in bad_paths()
    {
        let dir = tempfile::tempdir().unwrap();
        let path = make(dir.path());
        let before = listing(dir.path());
        let error = open_fails(&path);
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.to_string().contains(words), "{name}: {error}");
        assert_eq!(listing(dir.path()), before, "{name}");
        let error = source.sqlite().unwrap().backup(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{name}: {error}");
        if !path.exists() {
            assert!(error.to_string().contains(words), "{name}: {error}");
        }
        assert_eq!(listing(dir.path()), before, "{name}: a backup");
    }
    assert!(!Path::new("~").exists());
}

/// SQLite takes a file of one byte for an empty one.
#[test]
fn a_small_file_that_is_no_database_is_never_overwritten() {
    for length in 1..512 {
        let (_dir, path) = file();
        let text = "x".repeat(length);
        std::fs::write(&path, &text).unwrap();
        let error = Client::open(&path).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{length}: {error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

/// A name is a name, whatever it means to a shell, to SQLite or to a reader.
#[cfg(unix)]
#[test]
fn an_odd_name_is_a_name_of_a_file() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let fitting = "x".repeat(246);
    for name in [
        OsStr::new("what?mode=memory"),
        OsStr::new("a#b"),
        OsStr::new("50%20"),
        OsStr::new("~"),
        OsStr::new("-"),
        OsStr::new(" "),
        OsStr::new("..."),
        OsStr::new("wal"),
        OsStr::new("tasks.punctual"),
        OsStr::new("\u{939}\u{93f}"),
        OsStr::from_bytes(b"latin\xe9"),
        OsStr::new(&fitting),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        let client = Client::open(&path).unwrap();
        let id = client.schedule(probe(1)).unwrap().id();
        let copy = dir.path().join("copy");
        client.sqlite().unwrap().backup(&copy).unwrap();
        let mut conn = Connection::open(&path).unwrap();
        let tx = conn.transaction().unwrap();
        match client.sqlite().unwrap().schedule_in(&tx, probe(2)) {
            Ok(_) => assert!(name.to_str().is_some(), "{name:?}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                assert!(error.to_string().contains("not UTF-8"), "{error}");
                assert!(name.to_str().is_none(), "{error}");
            }
        }
        drop(tx);
        drop(conn);
        drop(client);
        assert!(Client::open(&copy).unwrap().get(id).unwrap().is_some());
        let scheduler = Scheduler::builder(&path).start().unwrap();
        assert!(scheduler.get(id).unwrap().is_some(), "{name:?}");
        assert!(std::fs::metadata(&path).unwrap().len() > 0, "{name:?}");
    }
}

/// The longest path that is accepted is one that SQLite can open.
#[cfg(unix)]
#[test]
fn a_path_is_accepted_exactly_if_sqlite_has_room_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let deep = (0..3).fold(dir, |dir, _| dir.join("x".repeat(100)));
    std::fs::create_dir_all(&deep).unwrap();
    for length in 480..520 {
        let path = deep.join("y".repeat(length - deep.as_os_str().len() - 1));
        match Client::open(&path) {
            Ok(client) => {
                client.schedule(probe(1)).unwrap();
                assert!(length <= 504, "{length}");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Invalid, "{length}: {error}");
                assert!(length > 504 && !path.exists(), "{length}: {error}");
            }
        }
    }
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_as_it_was() {
    let (dir, path) = file();
    let text = "This is not a database, but somebody's only copy of something.".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let error = open_fails(&path);
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("tasks.db"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["tasks.db"], "nothing is left beside it");
}

#[test]
fn a_schema_from_the_future_is_refused_and_left_as_it_was() {
    let (_dir, path) = file();
    let id = Client::open(&path)
        .unwrap()
        .schedule(probe(1))
        .unwrap()
        .id();
    let set = |version: i64| {
        let conn = Connection::open(&path).unwrap();
        let sql = "UPDATE punctual_meta SET value = ?1 WHERE key = 'schema_version'";
        let before: i64 = conn
            .query_row(
                "SELECT value FROM punctual_meta WHERE key = 'schema_version'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(conn.execute(sql, [version]).unwrap(), 1);
        before
    };
    let ours = set(99);
    let error = open_fails(&path);
    assert_eq!(error.kind(), ErrorKind::Version);
    assert!(error.to_string().contains("99"), "{error}");
    assert_eq!(set(ours), 99, "its version is untouched");
    assert!(Client::open(&path).unwrap().get(id).unwrap().is_some());
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, path) = file();
    let mode = |mode| std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(mode));
    mode(0o500).unwrap();
    let may_write = std::fs::write(dir.path().join("probe"), "").is_ok();
    // Whoever runs as root may write everywhere.
    if !may_write {
        assert_eq!(open_fails(&path).kind(), ErrorKind::ReadOnly);
    }
    mode(0o700).unwrap();
}

#[test]
fn a_backup_never_overwrites_and_leaves_nothing_half_done() {
    let (dir, path) = file();
    let client = Client::open(&path).unwrap();
    client.schedule(probe(1)).unwrap();
    let to = dir.path().join("copy.db");
    std::fs::write(&to, "mine").unwrap();
    assert_eq!(
        client.sqlite().unwrap().backup(&to).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "mine");
    assert_eq!(
        client.sqlite().unwrap().backup(&path).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    let nowhere = dir.path().join("missing").join("copy.db");
    assert_eq!(
        client
            .sqlite()
            .unwrap()
            .backup(&nowhere)
            .unwrap_err()
            .kind(),
        ErrorKind::Invalid
    );
}
