//! Real mounts: a database that is mounted alone, apart from its log and its lock files, and one whose folder is mounted.
//!
//! Each child runs in mount tables of its own, so that nothing stays mounted when it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use punctual::{Client, Filter, Outcome, Scheduler, TaskContext, TaskId};

use super::kit::{Line, Part, Process, part};
use crate::kit::{Probe, probe};

/// Opens the file in both ways, and notes how that went and how many tasks it then sees.
#[test]
#[ignore = "a child process that sees a mount"]
fn child() {
    let Some(part) = Part::played() else { return };
    let scheduler = Scheduler::builder(&part.file)
        .workers(1)
        .handler_fn(|_: Probe, _: &TaskContext| Ok(Outcome::done()))
        .start();
    match scheduler {
        Ok(scheduler) => {
            part.note("started");
            drop(scheduler);
        }
        Err(error) => part.note(format!("{:?} {error}", error.kind())),
    }
    match Client::open(&part.file) {
        Ok(client) => {
            let id = client.schedule(probe(2)).expect("to schedule").id();
            part.note(format!("scheduled {id}"));
        }
        Err(error) => part.note(format!("{:?} {error}", error.kind())),
    }
}

/// Whether this process may mount by itself; else it may in a user namespace, where those are allowed.
fn is_administrator() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = fs::read_to_string("/proc/self/status").expect("what the kernel says");
    let capabilities = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .expect("the capabilities");
    let bits = u64::from_str_radix(capabilities.trim(), 16).expect("a number");
    bits & (1 << CAP_SYS_ADMIN) != 0
}

/// A command that runs the rest of its arguments where `from` is mounted at `at`.
fn mounted(from: &Path, at: &Path) -> Command {
    let mut command = Command::new("unshare");
    if !is_administrator() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c"]);
    command.arg("mount --bind \"$0\" \"$1\" && shift && exec \"$@\"");
    command.args([from, at]);
    command
}

/// Whether this system lets a test mount anything. An administrator's must.
fn may_mount() -> bool {
    let dir = tempfile::tempdir().expect("a folder");
    let (from, at) = (dir.path().join("from"), dir.path().join("at"));
    fs::write(&from, "").expect("a file");
    fs::write(&at, "").expect("a file");
    let tried = mounted(&from, &at).arg("true").output();
    let works = tried.as_ref().is_ok_and(|output| output.status.success());
    assert!(works || !is_administrator(), "cannot mount: {tried:?}");
    if !works {
        eprintln!("NOT TESTED: this user may not mount anything here: {tried:?}");
    }
    works
}

/// What the two ways to open `file` answer where `from` is mounted at `at`.
fn answers(from: &Path, at: &Path, file: &Path) -> Vec<String> {
    let binary = std::env::current_exe().expect("the path of this binary");
    let mut command = mounted(from, at);
    command.arg(binary);
    let child = Process::start_as(command, part!(child), file, &[]);
    let (status, lines) = child.end();
    assert!(status.success(), "{status}: {lines:?}");
    assert_eq!(lines.len(), 2, "of a scheduler and of a client");
    lines
        .into_iter()
        .map(|line| match line {
            Line::Note(text) => text,
            line => panic!("{line:?}"),
        })
        .collect()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string())
        .collect::<Result<_, _>>()
        .expect("names");
    names.sort();
    names
}

/// A folder as the host has it, with a database that is open, and one as a container has it.
struct Host {
    dir: tempfile::TempDir,
    client: Client,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        for folder in ["host", "container"] {
            fs::create_dir(dir.path().join(folder)).expect("a folder");
        }
        let client = Client::open(dir.path().join("host/app.db")).expect("to open the file");
        client.schedule(probe(1)).expect("to schedule");
        Self { dir, client }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn count(&self) -> u64 {
        self.client.count(&Filter::all()).expect("to count")
    }
}

/// P1, P7: what a container gets by `docker -v app.db:/data/app.db`. The log lies beside each name of its own: tasks that
/// were acknowledged there would be lost, and others would run in both processes at once.
#[test]
fn p1_nothing_is_accepted_through_a_file_that_is_mounted_alone() {
    if !may_mount() {
        return;
    }
    let host = Host::new();
    // As docker makes it, to mount the file on.
    let inside = host.path("container/app.db");
    fs::write(&inside, "").expect("a file");
    let answers = answers(&host.path("host/app.db"), &inside, &inside);
    for answer in answers {
        assert!(answer.starts_with("Invalid "), "{answer}");
        assert!(answer.contains("app.db is a mount point"), "{answer}");
        assert!(answer.contains("mount the folder"), "{answer}");
    }
    assert_eq!(names(&host.path("container")), ["app.db"]);
    let tasks = host.path("host/app.db");
    assert_eq!(host.count(), 1);
    drop(host.client);
    let again = Client::open(&tasks).expect("to open the file");
    assert_eq!(again.count(&Filter::all()).expect("to count"), 1);
}

/// The file is where it should be, and its log or its lock folder is mounted from elsewhere.
#[test]
fn p1_nothing_is_accepted_apart_from_the_log_and_the_lock_files() {
    if !may_mount() {
        return;
    }
    for suffix in ["-wal", "-shm", ".punctual"] {
        let host = Host::new();
        let (file, elsewhere) = (host.path("host/app.db"), host.path("container/elsewhere"));
        let beside = host.path(&format!("host/app.db{suffix}"));
        if suffix == ".punctual" {
            fs::create_dir_all(&beside).expect("a folder");
            fs::create_dir(&elsewhere).expect("a folder");
        } else {
            fs::write(&elsewhere, "").expect("a file");
        }
        for answer in answers(&elsewhere, &beside, &file) {
            assert!(answer.starts_with("Invalid "), "{suffix}: {answer}");
            let words = format!("app.db{suffix} is a mount point");
            assert!(answer.contains(&words), "{suffix}: {answer}");
        }
        assert_eq!(host.count(), 1, "{suffix}");
    }
}

/// The way to share a file with a container: the log and the lock files come along with the folder.
#[test]
fn a_folder_that_is_mounted_twice_is_one_folder() {
    if !may_mount() {
        return;
    }
    let host = Host::new();
    let inside = host.path("container/app.db");
    let answers = answers(&host.path("host"), &host.path("container"), &inside);
    assert_eq!(answers[0], "started");
    let id = answers[1].strip_prefix("scheduled ").expect("an id");
    let id: TaskId = id.parse().expect("an id");
    let task = host.client.get(id).expect("to read");
    assert!(
        task.is_some(),
        "the host sees what the container has stored"
    );
    assert!(names(&host.path("container")).is_empty());
}
