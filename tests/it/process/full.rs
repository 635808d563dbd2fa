//! A process that may not write any further for a while, as on a full disk: the limit on the size of its files is set
//! from outside, and taken away again.

use std::process::Command;

use punctual::{
    Client, Filter, NewTask, Outcome, Payload, Scheduler, TaskContext, TaskId, TaskState,
};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::kit::{Line, PATIENCE, Part, Place, Process, part};
use crate::kit::eventually;

#[derive(Serialize, Deserialize)]
struct Padded(String);

impl Payload for Padded {
    const KIND: &'static str = "padded";
}

fn id(number: u128) -> TaskId {
    Uuid::from_u128(number).into()
}

#[test]
#[ignore = "a child process that may not write"]
fn child() {
    let Some(part) = Part::played() else { return };
    let scheduler = Scheduler::builder(&part.file)
        .workers(2)
        .handler_fn(|_: Padded, _: &TaskContext| Ok(Outcome::done()))
        .start()
        .expect("to open the file");
    part.say(&Line::Opened);
    for number in 1.. {
        while part.next_order() == "health" {
            part.note(format!("{}", scheduler.health().is_ok()));
        }
        part.say(&Line::Scheduling {
            first: number,
            count: 1,
        });
        // Some are larger than all that SQLite keeps in memory of a transaction.
        let pad = "x".repeat(if number % 10 == 0 { 1 << 19 } else { 500 });
        match scheduler.schedule(NewTask::new(Padded(pad)).id(id(number))) {
            Ok(_) => part.say(&Line::Scheduled {
                first: number,
                count: 1,
            }),
            Err(error) => part.note(format!("{:?}", error.kind())),
        }
    }
}

/// Bounds how long the files of a process may get; `None`: as long as those of this one.
fn limit_files(process: &Process, bytes: Option<u64>) {
    let own = getrlimit(Resource::Fsize);
    let limit = Rlimit {
        current: bytes.or(own.current),
        maximum: own.maximum,
    };
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::Fsize, limit).expect("to limit the child");
}

/// The child, and how it fared with its calls.
struct Caller {
    process: Process,
    acknowledged: Vec<u128>,
    refusals: Vec<String>,
}

impl Caller {
    /// Whether all is well, as it says itself. Nothing is written to find out.
    fn is_ok(&mut self) -> bool {
        self.process.order("health");
        match self.process.line() {
            Line::Note(is_ok) => is_ok == "true",
            other => panic!("{other:?}"),
        }
    }

    /// Has it schedule a task, and returns whether that was acknowledged.
    fn call(&mut self) -> bool {
        self.process.order("schedule");
        match (self.process.line(), self.process.line()) {
            (Line::Scheduling { .. }, Line::Scheduled { first, .. }) => {
                self.acknowledged.push(first);
                true
            }
            (Line::Scheduling { .. }, Line::Note(kind)) => {
                self.refusals.push(kind);
                false
            }
            other => panic!("{other:?}"),
        }
    }
}

/// P12, P1: while nothing can be written every call says so, and what was acknowledged stays; once there is room again
/// everything goes on by itself.
#[test]
fn a_process_that_cannot_write_for_a_while_goes_on_when_it_can() {
    let place = Place::new();
    // A process is killed when it writes beyond the limit, unless it ignores the signal.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
    command.arg(std::env::current_exe().expect("the path of this binary"));
    let process = Process::start_as(command, part!(child), &place.file(), &[]);
    process.read_until(|line| *line == Line::Opened);
    let mut caller = Caller {
        process,
        acknowledged: Vec::new(),
        refusals: Vec::new(),
    };
    for round in 1..=3 {
        for _ in 0..15 {
            assert!(caller.call(), "{:?}", caller.refusals);
        }
        limit_files(&caller.process, Some(place.log_bytes() + 10_000));
        let refused = caller.refusals.len();
        for _ in 0..40 {
            caller.call();
        }
        let refusals = caller.refusals.split_off(refused);
        eprintln!("full: round {round}: {refusals:?}");
        assert!(
            refusals.len() >= 10,
            "the limit does not bite: {refusals:?}"
        );
        let honest = ["Full", "Storage", "Unknown"];
        assert!(
            refusals.iter().all(|kind| honest.contains(&kind.as_str())),
            "{refusals:?}"
        );
        limit_files(&caller.process, None);
        assert!(
            (0..10).any(|_| caller.call()),
            "there is room again, and it still cannot write: {:?}",
            caller.refusals
        );
    }
    // Not even what fits into the log as it is.
    limit_files(&caller.process, Some(1));
    assert!(!caller.call() && !caller.is_ok(), "it says so");
    limit_files(&caller.process, None);
    eventually("it notices by itself", || caller.is_ok());
    let client = Client::open(place.file()).expect("to open the file");
    for &number in &caller.acknowledged {
        let ended = client
            .wait(id(number), PATIENCE)
            .expect("P1: it was acknowledged");
        let ended = ended.unwrap_or_else(|| panic!("{number} is not run any more"));
        assert_eq!(ended.state(), TaskState::Completed);
        assert_eq!(
            ended.task().attempt(),
            1,
            "its end could not be settled, and was then"
        );
    }
    caller.process.kill();
    let integrity: String = place
        .look()
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("to check the file");
    assert_eq!(integrity, "ok");
}

#[test]
#[ignore = "a child process that may create files and not write to them"]
fn unwritable() {
    let Some(part) = Part::played() else { return };
    let client = Client::open(&part.file).map(|_| ());
    part.note(format!("{:?}", client.map_err(|error| error.kind())));
    let scheduler = Scheduler::builder(&part.file).start().map(|_| ());
    part.note(format!("{:?}", scheduler.map_err(|error| error.kind())));
}

/// What a process says that tries to open the file and may not write to any.
fn opened_unwritable(place: &Place) -> Vec<Line> {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""]);
    command.arg(std::env::current_exe().expect("the path of this binary"));
    let process = Process::start_as(command, part!(unwritable), &place.file(), &[]);
    let (status, lines) = process.end();
    assert!(status.success(), "{status}: {lines:?}");
    assert_eq!(lines.len(), 2, "of a client and of a scheduler");
    lines
}

/// An empty file would be there, and a backup program or the next start would take it for a database without tasks.
#[test]
fn a_file_that_could_not_be_made_a_database_is_not_left_behind() {
    let place = Place::new();
    let lines = opened_unwritable(&place);
    for line in lines {
        let Line::Note(answer) = line else {
            panic!("{line:?}")
        };
        let honest = ["Err(Full)", "Err(Storage)"];
        assert!(honest.contains(&answer.as_str()), "{answer}");
    }
    let folder = place.file();
    let folder = folder.parent().expect("a folder");
    let left = std::fs::read_dir(folder).expect("to look").count();
    assert_eq!(left, 0, "something was left behind");
    // A file that was there before stays, though it is empty.
    std::fs::write(place.file(), "").expect("an empty file");
    opened_unwritable(&place);
    assert!(place.file().exists(), "it is not ours to remove");
}

#[test]
#[ignore = "a child process that runs out of file descriptors"]
fn crowded() {
    let Some(part) = Part::played() else { return };
    let client = Client::open(&part.file).expect("to open the file");
    let tasks = (0..2_000).map(|n| NewTask::with_kind("none", &n));
    client.schedule_many(tasks).expect("to schedule");
    let limit = Rlimit {
        current: Some(64),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    setrlimit(Resource::Nofile, limit).expect("to limit itself");
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    // Each that reads at the same time needs a connection of its own.
    let refused = std::sync::Mutex::new(Vec::new());
    let read = || {
        while refused.lock().expect("nobody panics").is_empty() {
            if let Err(error) = client.count(&Filter::all()) {
                refused.lock().expect("nobody panics").push(error.kind());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(read);
        }
    });
    let mut refused = refused.into_inner().expect("nobody panics");
    refused.dedup();
    part.note(format!("{refused:?}"));
    let write = client.schedule(NewTask::with_kind("none", &0));
    part.note(format!("{:?}", write.map(|_| ())));
    drop(files);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| client.count(&Filter::all()).expect("to read"));
        }
    });
    part.note("it reads");
}

/// It is no fault of the file's.
#[test]
fn p12_a_process_without_file_descriptors_is_not_told_that_the_file_is_read_only() {
    let place = Place::new();
    let process = Process::start(part!(crowded), &place.file(), &[]);
    for expected in ["[Storage]", "Ok(())", "it reads"] {
        assert_eq!(process.line(), Line::Note(expected.to_owned()));
    }
}

#[test]
#[ignore = "a child process that may not write as much as a backup takes"]
fn backs_up() {
    let Some(part) = Part::played() else { return };
    let client = Client::open(&part.file).expect("to open the file");
    let tasks = (0..2_000).map(|n| NewTask::with_kind("none", &n));
    client.schedule_many(tasks).expect("to schedule");
    let limit = Rlimit {
        current: Some(100_000),
        maximum: getrlimit(Resource::Fsize).maximum,
    };
    setrlimit(Resource::Fsize, limit).expect("to limit itself");
    let copy = part.file.with_extension("copy");
    let sqlite = client.sqlite().expect("a file");
    let failed = sqlite.backup(&copy).expect_err("it is too large");
    part.note(format!("{:?} {}", failed.kind(), copy.exists()));
    part.note(failed.to_string());
    part.note(format!("{:?}", client.count(&Filter::all()).ok()));
}

#[test]
fn a_backup_that_does_not_fit_says_that_the_copy_could_not_be_written() {
    let place = Place::new();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
    command.arg(std::env::current_exe().expect("the path of this binary"));
    let process = Process::start_as(command, part!(backs_up), &place.file(), &[]);
    let (status, lines) = process.end();
    assert!(status.success(), "{status}: {lines:?}");
    let [Line::Note(kind), Line::Note(text), Line::Note(count)] = lines.as_slice() else {
        panic!("{lines:?}")
    };
    let honest = ["Full false", "Storage false"];
    assert!(honest.contains(&kind.as_str()), "{kind}");
    assert!(text.contains("cannot write the copy"), "{text}");
    assert_eq!(count, "Some(2000)", "the store is not harmed");
}
