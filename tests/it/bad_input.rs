//! Bad input: each mistake is a clear typed error at the call that got it; nothing is lost, and nothing half done.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use punctual::rusqlite::Connection;
use punctual::{
    Client, Edit, Error, ErrorKind, Filter, MAX_BATCH, MAX_NAME_BYTES, MAX_PAYLOAD_BYTES, NewTask,
    Outcome, Payload, Retention, RetryPolicy, Scheduler, TaskId,
};
use serde::{Deserialize, Serialize};

use crate::kit::{DAY, Probe, S, file, probe};

use punctual::chrono;

fn long_name() -> String {
    "x".repeat(MAX_NAME_BYTES + 1)
}

#[derive(Serialize, Deserialize)]
struct Nameless;

impl Payload for Nameless {
    const KIND: &'static str = "";
}

/// Tasks that `schedule` refuses, and how.
fn bad_tasks() -> Vec<(&'static str, NewTask, ErrorKind)> {
    use ErrorKind::{Invalid, Payload};
    let unencodable = std::collections::HashMap::from([((1, 2), 3)]);
    vec![
        ("an empty kind", NewTask::new(Nameless), Invalid),
        ("a long kind", NewTask::with_kind(long_name(), &1), Invalid),
        ("a kind with a tab", NewTask::with_kind("a\tb", &1), Invalid),
        ("an empty queue", probe(1).queue(""), Invalid),
        ("a long queue", probe(1).queue(long_name()), Invalid),
        ("a queue with a NUL", probe(1).queue("a\0b"), Invalid),
        (
            "a queue with a space at its end",
            probe(1).queue("a "),
            Invalid,
        ),
        (
            "a queue that turns the text",
            probe(1).queue("a\u{202e}b"),
            Invalid,
        ),
        ("an empty partition", probe(1).partition(""), Invalid),
        ("an empty tag", probe(1).tag(""), Invalid),
        ("a priority of 10", probe(1).priority(10), Invalid),
        ("no attempts", probe(1).max_attempts(0), Invalid),
        ("too many attempts", probe(1).max_attempts(10_001), Invalid),
        ("a nil id", probe(1).id(uuid_nil()), Invalid),
        (
            "before 1970",
            probe(1).at(DateTime::from_timestamp(-1, 0).unwrap()),
            Invalid,
        ),
        (
            "the first instant",
            probe(1).at(DateTime::<Utc>::MIN_UTC),
            Invalid,
        ),
        (
            "the last instant",
            probe(1).at(DateTime::<Utc>::MAX_UTC),
            Invalid,
        ),
        ("an absurd delay", probe(1).after(Duration::MAX), Invalid),
        (
            "an absurd start deadline",
            probe(1).start_within(Duration::MAX),
            Invalid,
        ),
        ("no time at all", probe(1).timeout(Duration::ZERO), Invalid),
        (
            "an absurd timeout",
            probe(1).timeout(Duration::MAX),
            Invalid,
        ),
        (
            "an absurd retry",
            probe(1).retry(RetryPolicy::fixed(Duration::MAX)),
            Invalid,
        ),
        (
            "code as a policy",
            probe(1).retry(RetryPolicy::custom(|_| S)),
            Invalid,
        ),
        (
            "much metadata",
            probe(1).metadata("k", "v".repeat(5_000)),
            Invalid,
        ),
        (
            "a payload over the limit",
            NewTask::with_kind("probe", &"x".repeat(MAX_PAYLOAD_BYTES)),
            Payload,
        ),
        (
            "what is no JSON",
            NewTask::with_kind("probe", &unencodable),
            Payload,
        ),
    ]
}

fn uuid_nil() -> TaskId {
    "00000000-0000-0000-0000-000000000000".parse().unwrap()
}

#[test]
fn a_bad_task_is_refused_by_name_and_nothing_is_stored() {
    let scheduler = Scheduler::in_memory().start().unwrap();
    for (name, task, kind) in bad_tasks() {
        let mut ids = Vec::new();
        let mut refused = |error: Error| {
            assert_eq!(error.kind(), kind, "{name}: {error}");
            ids.push(error.task_id().expect("it names the task"));
            assert!(!error.is_retryable(), "{name}");
            assert!(
                !error.to_string().contains("xxxxxxxxxx\""),
                "{name}: {error}"
            );
        };
        refused(scheduler.schedule(task.clone()).unwrap_err());
        refused(
            scheduler
                .submit()
                .schedule(task.clone())
                .wait()
                .unwrap_err(),
        );
        // One bad task among good ones: none is stored.
        let many = [probe(1), task, probe(2)];
        refused(scheduler.schedule_many(many).unwrap_err());
        ids.dedup();
        assert_eq!(ids.len(), 1, "{name}: always the same");
    }
    assert_eq!(scheduler.count(&Filter::all()).unwrap(), 0);
    let error = scheduler
        .schedule_many((0..=MAX_BATCH as u32).map(probe))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(scheduler.count(&Filter::all()).unwrap(), 0);
    // The largest of everything that is allowed.
    let limit = NewTask::with_kind(
        "x".repeat(MAX_NAME_BYTES),
        &"x".repeat(MAX_PAYLOAD_BYTES - 2),
    )
    .queue("q".repeat(MAX_NAME_BYTES))
    .at("9999-12-31T23:59:59.999999Z".parse().unwrap())
    .priority(9)
    .max_attempts(10_000);
    let id = scheduler.schedule(limit).unwrap().id();
    assert_eq!(
        scheduler.get(id).unwrap().unwrap().payload_json().len(),
        MAX_PAYLOAD_BYTES
    );
}

#[test]
fn a_stream_stores_what_came_before_a_bad_task() {
    let scheduler = Scheduler::in_memory().start().unwrap();
    let tasks = |bad: u32| {
        (0..2_500).map(move |n| {
            let id = TaskId::from(punctual_uuid(n));
            probe(n).id(id).priority(if n == bad { 10 } else { 5 })
        })
    };
    let error = scheduler.schedule_stream(tasks(2_100)).unwrap_err();
    assert_eq!(error.task_id(), Some(TaskId::from(punctual_uuid(2_100))));
    assert_eq!(scheduler.count(&Filter::all()).unwrap(), 2_000);
    let streamed = scheduler.schedule_stream(tasks(u32::MAX)).unwrap();
    assert_eq!(
        (streamed.new_count(), streamed.existing_count()),
        (500, 2_000)
    );
}

fn punctual_uuid(n: u32) -> uuid::Uuid {
    uuid::Uuid::from_u128(u128::from(n) + 1)
}

#[test]
fn bad_changes_and_filters_are_refused() {
    let scheduler = Scheduler::in_memory().start().unwrap();
    let id = scheduler.schedule(probe(1).after(DAY)).unwrap().id();
    let invalid = |result: punctual::Result<()>, what: &str| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Invalid, "{what}");
    };
    invalid(
        scheduler.reschedule(id, DateTime::<Utc>::MAX_UTC),
        "the last instant",
    );
    invalid(
        scheduler.edit(id, Edit::new().priority(10)),
        "a priority of 10",
    );
    invalid(
        scheduler.edit(id, Edit::new().max_attempts(0)),
        "no attempts",
    );
    invalid(scheduler.pause(""), "an empty queue");
    invalid(scheduler.resume(&long_name()), "a long queue");
    let filters = [
        Filter::new(),
        Filter::new().limit(5),
        Filter::new().kind(""),
        Filter::new().queue("a\tb"),
        Filter::new().tag(long_name()),
        Filter::all().limit(0),
        Filter::all().limit(1_001),
        Filter::new().ids((0..1_001).map(|_| TaskId::new())),
    ];
    for filter in filters {
        let shown = format!("{filter:?}");
        let kinds = [
            scheduler.list(&filter).map(|_| ()),
            scheduler.count(&filter).map(|_| ()),
            scheduler.cancel_all(&filter).map(|_| ()),
            scheduler.delete_all(&filter).map(|_| ()),
            scheduler.run_now_all(&filter).map(|_| ()),
            scheduler.retry_all(&filter).map(|_| ()),
        ];
        for result in kinds {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Invalid, "{shown}");
        }
    }
    let absurd = Retention::default().completed(Duration::MAX);
    invalid(scheduler.prune(&absurd).map(|_| ()), "an absurd retention");
    let task = scheduler.get(id).unwrap().unwrap();
    assert_eq!((task.priority(), task.max_attempts()), (5, 20));
    for text in ["", "nonsense", "0000"] {
        assert_eq!(
            text.parse::<TaskId>().unwrap_err().kind(),
            ErrorKind::Invalid
        );
        assert_eq!(
            text.parse::<punctual::Cursor>().unwrap_err().kind(),
            ErrorKind::Invalid
        );
    }
}

#[test]
fn calls_on_a_task_that_is_not_there_or_not_so_say_which() {
    let scheduler = Scheduler::in_memory().start().unwrap();
    let pending = scheduler.schedule(probe(1).after(DAY)).unwrap().id();
    let missing = TaskId::new();
    let calls = |id: TaskId| {
        vec![
            scheduler.delete(id).unwrap_err(),
            scheduler.retry(id).unwrap_err(),
        ]
    };
    for error in calls(pending) {
        assert_eq!(
            (error.kind(), error.task_id()),
            (ErrorKind::State, Some(pending))
        );
        assert!(error.to_string().contains("pending"), "{error}");
    }
    for error in calls(missing) {
        assert_eq!(
            (error.kind(), error.task_id()),
            (ErrorKind::NotFound, Some(missing))
        );
    }
    let errors = [
        scheduler.run_now(missing).unwrap_err(),
        scheduler
            .reschedule(missing, Utc::now_for_tests())
            .unwrap_err(),
        scheduler
            .edit(missing, Edit::new().priority(1))
            .unwrap_err(),
        scheduler.history(missing).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(
            (error.kind(), error.task_id()),
            (ErrorKind::NotFound, Some(missing))
        );
    }
    let other = scheduler.edit(pending, Edit::new().payload(&crate::kit::Other(1)));
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Payload);
    assert!(scheduler.get(missing).unwrap().is_none());
}

trait Fixed {
    fn now_for_tests() -> DateTime<Utc>;
}

impl Fixed for Utc {
    fn now_for_tests() -> DateTime<Utc> {
        "2030-01-01T00:00:00Z".parse().unwrap()
    }
}

fn cache(bytes: usize) -> punctual::SqliteSettings {
    punctual::SqliteSettings::default().page_cache_bytes(bytes)
}

type Setup = fn(punctual::Builder) -> punctual::Builder;

#[test]
fn a_bad_scheduler_is_refused_before_anything_is_created() {
    let bad: [(&str, Setup); 21] = [
        ("zero workers", |b| b.workers(0)),
        ("a page cache of nothing", |b| b.sqlite(cache(0))),
        ("a page cache without bounds", |b| {
            b.sqlite(cache(usize::MAX))
        }),
        ("too many workers", |b| b.workers(1_025)),
        ("too many spare threads", |b| b.max_spare_threads(1_025)),
        ("a handler registered twice", |b| {
            b.handler_fn(|_: Probe, _| Ok(Outcome::done()))
                .handler_fn(|_: Probe, _| Ok(Outcome::done()))
        }),
        ("a handler without a kind", |b| {
            b.handler_fn(|_: Nameless, _| Ok(Outcome::done()))
        }),
        ("a policy without a handler", |b| {
            b.retry_policy("probe", RetryPolicy::fixed(S))
        }),
        ("a timeout without a handler", |b| b.timeout("probe", S)),
        ("no time at all", |b| {
            b.handler_fn(|_: Probe, _| Ok(Outcome::done()))
                .timeout("probe", Duration::ZERO)
        }),
        ("a queue without a name", |b| b.queue("", 1)),
        ("a queue that runs nothing", |b| b.queue("a", 0)),
        ("a queue given twice", |b| b.queue("a", 1).queue("a", 2)),
        ("only queues, and none", |b| b.only_queues()),
        ("a global limit of nothing", |b| b.global_limit("a", 0)),
        ("a global limit without bounds", |b| {
            b.global_limit("a", usize::MAX)
        }),
        ("a global limit of no queue", |b| b.global_limit("", 1)),
        ("a global limit given twice", |b| {
            b.global_limit("a", 1).global_limit("a", 2)
        }),
        ("no time for a transaction", |b| {
            b.transaction_timeout(Duration::ZERO)
        }),
        ("all the time for a transaction", |b| {
            b.transaction_timeout(Duration::MAX)
        }),
        ("an absurd retention", |b| {
            b.retention(Retention::default().failed(Duration::MAX))
        }),
    ];
    for (name, setup) in bad {
        let (dir, path) = file();
        let error = setup(Scheduler::builder(&path)).start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{name}: {error}");
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 0, "{name}: nothing was created");
    }
}

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

/// What a program shows of an error, and writes to its log, has no payload in it.
#[test]
fn no_text_shows_a_payload() {
    let scheduler = Scheduler::in_memory().start().unwrap();
    let task = NewTask::with_kind("probe", "secret");
    assert!(!format!("{task:?}").contains("secret"));
    let id = scheduler.schedule(task).unwrap().id();
    let task = scheduler.get(id).unwrap().unwrap();
    assert!(!format!("{task:?}").contains("secret"));
    let error = task.payload::<u32>().unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"));
    let edit = Edit::new().payload(&Probe(1));
    assert!(!format!("{edit:?}").contains("payload: Some"));
}
