//! What another process commits is noticed here while it happens: tasks that become due, and cancellations.
//!
//! The clock of whoever has to notice stands still, so that the look of once a second never comes: what is not noticed
//! otherwise is not noticed at all.

use std::os::unix::fs::MetadataExt;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use punctual::rusqlite::Connection;
use punctual::testing::TestClock;
use punctual::{
    Cancel, Client, NewTask, Outcome, Payload, Scheduler, TaskContext, TaskId, TaskState,
};
use serde::{Deserialize, Serialize};

use super::kit::{Line, PATIENCE, Part, Place, Process, eventually, part, slow_syncs};

#[derive(Serialize, Deserialize)]
struct Quick;

impl Payload for Quick {
    const KIND: &'static str = "quick";
}

/// Runs until it is cancelled.
#[derive(Serialize, Deserialize)]
struct Endless;

impl Payload for Endless {
    const KIND: &'static str = "endless";
}

/// A clock that stands still, when everything that is scheduled now is due.
fn later() -> TestClock {
    TestClock::new("2099-01-01T00:00:00Z".parse().expect("a time"))
}

#[test]
#[ignore = "a child process that schedules what it is ordered to"]
fn scheduling_child() {
    let Some(part) = Part::played() else { return };
    let client = Client::open(&part.file).expect("to open the file");
    part.say(&Line::Opened);
    loop {
        let gap: u64 = part.next_order().parse().expect("milliseconds");
        thread::park_timeout(Duration::from_millis(gap));
        let scheduled = client.schedule(Quick).expect("to schedule");
        part.note(scheduled.id().to_string());
    }
}

#[test]
#[ignore = "a child process that runs until it is cancelled"]
fn running_child() {
    let Some(part) = Part::played() else { return };
    let handler = part.clone();
    let _scheduler = Scheduler::builder(&part.file)
        .clock(later())
        .workers(1)
        .handler_fn(move |_: Endless, cx: &TaskContext| {
            handler.started(cx);
            while !cx.cancelled() {
                thread::park_timeout(Duration::from_millis(1));
            }
            handler.ended(cx);
            Err("it was told to stop".into())
        })
        .start()
        .expect("to open the file");
    part.say(&Line::Opened);
    loop {
        part.next_order();
    }
}

/// A scheduler that has to notice, and what its handler starts.
fn noticing(place: &Place, clock: TestClock) -> (Scheduler, Receiver<TaskId>) {
    let (sender, started) = channel();
    let scheduler = Scheduler::builder(place.file())
        .clock(clock)
        .workers(1)
        .handler_fn(move |_: Quick, cx: &TaskContext| {
            sender.send(cx.id()).expect("the test listens");
            Ok(Outcome::done())
        })
        .start()
        .expect("to open the file");
    (scheduler, started)
}

/// Has the child schedule tasks one by one, each once the last one has ended here, and later and later after that. The first
/// comes to a scheduler that sleeps, the others to one that expects more.
fn every_commit_is_noticed(place: &Place, mut child: Process) {
    assert_eq!(child.line(), Line::Opened);
    for round in 0..4 {
        let (scheduler, started) = noticing(place, later());
        assert!(!scheduler.health().is_polling(), "this system tells");
        asleep(place);
        for number in 0..12 {
            child.order(&(number * (round + 1)).to_string());
            let Line::Note(id) = child.line() else {
                panic!("the child says something else");
            };
            let id: TaskId = id.parse().expect("an id");
            let started = started.recv_timeout(PATIENCE);
            assert_eq!(started, Ok(id), "task {number} of round {round}");
            let ended = scheduler.wait(id, PATIENCE).expect("to read");
            assert_eq!(ended.expect("an end").state(), TaskState::Completed);
        }
    }
}

/// Waits until this process has asked the kernel to tell of the file's log: it has stopped looking by itself.
fn asleep(place: &Place) {
    let log = place.file().with_file_name("tasks.db-wal");
    let inode = std::fs::metadata(log).expect("the log").ino();
    let watched = format!(" ino:{inode:x} ");
    eventually("the log is watched", || {
        let mut files = std::fs::read_dir("/proc/self/fdinfo").expect("the open files");
        files.find_map(|file| {
            let info = std::fs::read_to_string(file.ok()?.path()).ok()?;
            let mut lines = info.lines();
            lines.find(|line| line.starts_with("inotify ") && line.contains(&watched))?;
            Some(())
        })
    });
}

#[test]
fn p3_another_process_s_commit_starts_its_task_here() {
    let place = Place::new();
    let child = Process::start(part!(scheduling_child), &place.file(), &[]);
    every_commit_is_noticed(&place, child);
}

/// The kernel tells of a write to the log long before the commit can be seen.
#[test]
fn p3_no_commit_is_missed_whose_sync_takes_long() {
    let place = Place::new();
    let child = Process::start_as(
        slow_syncs(&place),
        part!(scheduling_child),
        &place.file(),
        &[],
    );
    every_commit_is_noticed(&place, child);
}

/// Whoever uses the file without us is noticed, too.
#[test]
fn p3_what_the_user_s_own_connection_commits_is_noticed() {
    let place = Place::new();
    let clock = TestClock::new("2030-01-01T00:00:00Z".parse().expect("a time"));
    let (scheduler, started) = noticing(&place, clock);
    asleep(&place);
    let at = "2031-01-01T00:00:00Z".parse().expect("a time");
    let id = scheduler
        .schedule(NewTask::new(Quick).at(at))
        .expect("to schedule")
        .id();
    let conn = Connection::open(place.file()).expect("to open the file");
    conn.busy_timeout(PATIENCE).expect("to wait for a lock");
    conn.execute("UPDATE punctual_task SET scheduled_at = 0", [])
        .expect("to change the file");
    assert_eq!(started.recv_timeout(PATIENCE), Ok(id));
}

#[test]
fn p8_a_cancellation_reaches_the_process_that_runs_the_task() {
    let place = Place::new();
    let mut child = Process::start(part!(running_child), &place.file(), &[]);
    assert_eq!(child.line(), Line::Opened);
    let client = Client::open(place.file()).expect("to open the file");
    for _ in 0..3 {
        let id = client.schedule(Endless).expect("to schedule").id();
        let started = |line: &Line| matches!(line, Line::Started { id: of, .. } if *of == id);
        child.read_until(started);
        let answer = client.cancel(id).expect("to cancel");
        assert_eq!(answer, Cancel::Requested);
        let ended = |line: &Line| matches!(line, Line::Ended { id: of, .. } if *of == id);
        child.read_until(ended);
        let ended = client.wait(id, PATIENCE).expect("to read").expect("an end");
        assert_eq!(ended.state(), TaskState::Cancelled);
    }
    // What was heard of is forgotten with the next commit.
    let left: i64 = Connection::open(place.file())
        .and_then(|conn| {
            let sql = "SELECT count(*) FROM punctual_cancel";
            conn.query_row(sql, [], |row| row.get(0))
        })
        .expect("to read");
    assert!(left <= 1, "{left} left");
    child.order("end");
}
