//! A copy of the file that was made by other tools while a task runs, opened beside the living original.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use punctual::rusqlite::Connection;
use punctual::rusqlite::backup::Backup;
use punctual::{
    Client, Delivery, NewTask, Outcome, Scheduler, Task, TaskContext, TaskId, TaskState,
};

use super::kit::{Line, PATIENCE, Part, Place, Process, part};
use crate::kit::{Probe, probe};

/// Runs two tasks that end when they are ordered to.
#[test]
#[ignore = "a child process that holds running tasks"]
fn child() {
    let Some(part) = Part::played() else { return };
    let (sender, ends) = channel::<()>();
    let ends = Arc::new(Mutex::new(ends));
    let handler = part.clone();
    let scheduler = Scheduler::builder(&part.file)
        .workers(2)
        .handler_fn(move |_: Probe, cx: &TaskContext| {
            handler.started(cx);
            let end = ends.lock().expect("no panic").recv();
            end.expect("an order");
            handler.ended(cx);
            Ok(Outcome::done())
        })
        .start()
        .expect("to open the file");
    loop {
        match part.next_order().as_str() {
            "finish" => {
                for _ in 0..2 {
                    sender.send(()).expect("a handler that waits");
                }
            }
            "stop" => {
                let stopped = scheduler.shutdown(PATIENCE).expect("to stop");
                part.note(format!("{} still run", stopped.still_running()));
                return;
            }
            order => panic!("{order}"),
        }
    }
}

/// The original, and the process that runs its two tasks.
struct Original {
    place: Place,
    process: Process,
    plain: TaskId,
    once: TaskId,
}

impl Original {
    fn new() -> Self {
        let place = Place::new();
        let client = Client::open(place.file()).expect("to open the file");
        let schedule = |task: NewTask| client.schedule(task).expect("to schedule").id();
        let plain = schedule(probe(1));
        let once = schedule(probe(2).delivery(Delivery::AtMostOnce));
        // Closed before the file is copied: to close a file drops the locks that this process has on it.
        drop(client);
        let process = Process::start(part!(child), &place.file(), &[]);
        for _ in 0..2 {
            process.read_until(|line| matches!(line, Line::Started { .. }));
        }
        Self {
            place,
            process,
            plain,
            once,
        }
    }

    fn folder(&self) -> PathBuf {
        self.place.file().with_extension("db.punctual")
    }

    /// Copies the file and its log, as `cp` does, into the folder.
    fn copy_to(&self, folder: &Path) -> PathBuf {
        for name in ["tasks.db", "tasks.db-wal"] {
            let from = self.place.file().with_file_name(name);
            fs::copy(from, folder.join(name)).expect("to copy");
        }
        folder.join("tasks.db")
    }

    /// Copies the folder of the lock files as well, as `cp -r` does.
    fn copy_all_to(&self, folder: &Path) -> PathBuf {
        let inside = folder.join("tasks.db.punctual");
        fs::create_dir(&inside).expect("a folder");
        for entry in fs::read_dir(self.folder()).expect("the lock files") {
            let entry = entry.expect("a lock file");
            fs::copy(entry.path(), inside.join(entry.file_name())).expect("to copy");
        }
        self.copy_to(folder)
    }

    /// Copies by SQLite itself, as `sqlite3 .backup` does.
    fn copy_by_sqlite_to(&self, folder: &Path) -> PathBuf {
        let to = folder.join("tasks.db");
        let from = self.place.look();
        let mut target = Connection::open(&to).expect("a database");
        let backup = Backup::new(&from, &mut target).expect("a backup");
        backup.step(-1).expect("to copy");
        drop(backup);
        to
    }

    /// Both tasks still run in the original, and end there, once, as if nothing had happened.
    fn goes_on(mut self) {
        let client = Client::open(self.place.file()).expect("to open the file");
        for id in [self.plain, self.once] {
            assert_eq!(task(&client, id).state(), TaskState::Running);
        }
        self.process.order("finish");
        for id in [self.plain, self.once] {
            let ended = client.wait(id, PATIENCE).expect("to read").expect("an end");
            assert_eq!(ended.state(), TaskState::Completed);
            let task = ended.task();
            assert_eq!((task.attempt(), task.crashes()), (1, 0));
        }
        self.process.order("stop");
        let (status, lines) = self.process.end();
        assert!(status.success(), "{status}: {lines:?}");
        let starts = lines
            .iter()
            .filter(|line| matches!(line, Line::Started { .. }));
        assert_eq!(starts.count(), 0, "{lines:?}");
        assert!(
            lines.contains(&Line::Note("0 still run".to_owned())),
            "{lines:?}"
        );
    }
}

fn task(client: &Client, id: TaskId) -> Task {
    client.get(id).expect("to read").expect("it is there")
}

/// What runs in the original is taken back in the copy by the call that opens it.
fn is_taken_back(original: &Original, copy: &Path) {
    let client = Client::open(copy).expect("to open the copy");
    let plain = task(&client, original.plain);
    assert_eq!((plain.state(), plain.crashes()), (TaskState::Pending, 1));
    // Whether it was started no list in the copy can say for certain: so it is not started again.
    let once = task(&client, original.once);
    assert_eq!(once.state(), TaskState::Failed);
    assert_eq!(once.error(), Some("interrupted"));
    let scheduler = Scheduler::builder(copy)
        .workers(1)
        .handler_fn(|_: Probe, _: &TaskContext| Ok(Outcome::done()))
        .start()
        .expect("to open the copy");
    let ended = scheduler.wait(original.plain, PATIENCE);
    let ended = ended.expect("to read").expect("an end");
    assert_eq!(
        (ended.state(), ended.task().attempt()),
        (TaskState::Completed, 2)
    );
}

/// P11: without a word from the living process whose tasks they were.
#[test]
fn p11_a_copy_s_running_tasks_are_taken_back_while_the_original_goes_on() {
    type Copy = fn(&Original, &Path) -> PathBuf;
    let ways: [(&str, Copy); 4] = [
        ("the file and its log", Original::copy_to),
        ("and the lock files", Original::copy_all_to),
        ("by SQLite", Original::copy_by_sqlite_to),
        ("by backup", |original, folder| {
            let to = folder.join("tasks.db");
            let client = Client::open(original.place.file()).expect("to open the file");
            client
                .sqlite()
                .expect("SQLite")
                .backup(&to)
                .expect("a copy");
            to
        }),
    ];
    for (way, copy) in ways {
        eprintln!("copied: {way}");
        let original = Original::new();
        let locks = original.place.lock_files();
        let dir = tempfile::tempdir().expect("a folder");
        let copy = copy(&original, dir.path());
        is_taken_back(&original, &copy);
        assert_eq!(original.place.lock_files(), locks, "{way}");
        original.goes_on();
    }
}

/// P11: a snapshot of the file system has the same inodes on another device. Its lock files may be older than its log.
#[test]
fn p11_a_snapshot_s_running_tasks_are_taken_back_whatever_its_lock_files_list() {
    use std::os::unix::fs::MetadataExt;
    let original = Original::new();
    let dir = tempfile::tempdir().expect("a folder");
    let copy = original.copy_all_to(dir.path());
    let [name] = &original.place.lock_files()[..] else {
        panic!("one process has the file open");
    };
    let lock_file = dir.path().join("tasks.db.punctual").join(name);
    fs::write(&lock_file, "").expect("to empty the list");
    let inode = |path: &Path| fs::metadata(path).expect("a file").ino().cast_signed();
    let conn = Connection::open(&copy).expect("to open the copy");
    let sql = "UPDATE punctual_instance SET lock_inode = ?1, file_inode = ?2, file_device = file_device + 1";
    let changed = conn.execute(sql, [inode(&lock_file), inode(&copy)]);
    assert_eq!(changed.expect("to make it a snapshot"), 1);
    drop(conn);
    is_taken_back(&original, &copy);
    original.goes_on();
}

/// P7, P11: a file system that is mounted anew may have another number. The lock says that the process lives.
#[test]
fn p11_a_living_process_keeps_its_tasks_though_the_device_has_another_number() {
    let original = Original::new();
    let conn = Connection::open(original.place.file()).expect("to open the file");
    conn.busy_timeout(PATIENCE).expect("to wait for a lock");
    let sql = "UPDATE punctual_instance SET file_device = file_device + 1";
    assert_eq!(conn.execute(sql, []).expect("to change the number"), 1);
    drop(conn);
    original.goes_on();
}

/// P4: a copy that is put back in the place of the original, once no process has that open, is the original as it was.
#[test]
fn a_copy_that_is_put_back_in_the_original_s_place_runs_its_tasks_again() {
    for is_killed in [false, true] {
        let mut original = Original::new();
        let dir = tempfile::tempdir().expect("a folder");
        original.copy_to(dir.path());
        if is_killed {
            original.process.kill();
        } else {
            original.process.order("finish");
            original.process.order("stop");
            let (status, lines) = original.process.end();
            assert!(status.success(), "{status}: {lines:?}");
        }
        let file = original.place.file();
        // To the index of a log that was replaced no process may hold on.
        let _ = fs::remove_file(file.with_file_name("tasks.db-shm"));
        for name in ["tasks.db", "tasks.db-wal"] {
            let to = file.with_file_name(name);
            fs::copy(dir.path().join(name), to).expect("to put it back");
        }
        let client = Client::open(&file).expect("to open the file");
        let plain = task(&client, original.plain);
        assert_eq!(plain.state(), TaskState::Pending, "killed: {is_killed}");
        let once = task(&client, original.once);
        assert_eq!(once.error(), Some("interrupted"), "killed: {is_killed}");
    }
}

/// P4: as above, of a backup, and in a new container: there the number of a process says nothing about those of the last.
#[test]
fn a_backup_that_is_put_in_the_original_s_place_runs_its_tasks_again_in_a_new_container() {
    let mut original = Original::new();
    let dir = tempfile::tempdir().expect("a folder");
    let backup = dir.path().join("backup.db");
    let file = original.place.file();
    let client = Client::open(&file).expect("to open the file");
    client
        .sqlite()
        .expect("SQLite")
        .backup(&backup)
        .expect("a copy");
    drop(client);
    let conn = Connection::open(&backup).expect("to open the copy");
    let sql = "UPDATE punctual_instance SET pid_namespace = 'pid:[1]'";
    assert_eq!(conn.execute(sql, []).expect("to change the copy"), 1);
    drop(conn);
    original.process.order("finish");
    original.process.order("stop");
    let (status, lines) = original.process.end();
    assert!(status.success(), "{status}: {lines:?}");
    fs::copy(&backup, &file).expect("to put it back");
    let client = Client::open(&file).expect("to open the file");
    assert_eq!(task(&client, original.plain).state(), TaskState::Pending);
}
