//! A storm on one file: process after process opens it, schedules, cancels and runs, and is killed in the middle. In the
//! end nothing that was acknowledged is lost, nothing is there that nobody asked for, and every start is accounted for.

mod child;
mod creation;
mod history;

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use punctual::{AttemptEnd, Client, Payload, TaskId, TaskState};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::history::{History, check_end};
use super::kit::{Line, PATIENCE, Place, Since, eventually, seed, spin};

const KILLS: usize = 50;
/// How many of them come inside a commit, and inside a call that opens the file.
const KILLS_IN_COMMIT: usize = 5;
const KILLS_IN_OPEN: usize = 5;
/// A storm that does not get its kills by then has found something else.
const MAX_PROCESSES: usize = 120;
/// What a process has acknowledged, at the least, before it is killed.
const CALLS: usize = 100;
const WORKERS: usize = 4;

/// The tasks of a large commit, and how much of it has been written, at the least, when it is interrupted.
const BATCH: u32 = 1_000;
const MIDST_BYTES: u64 = 100_000;

/// The log is begun anew once it is longer than 4 MiB. While its helper moves it the writer goes on up to 16 MiB, which a
/// machine with nothing to spare comes near; a large commit comes on top of that. Alone it is 4.5 MB.
const MAX_LOG_BYTES: u64 = 20 << 20;

/// How a process of the storm is killed, or that it is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Anywhere.
    Anywhere,
    /// While it commits a batch.
    Commit,
    /// While it opens the file a second time, with the first in use.
    Reopen,
    /// Before it has opened the file at all: its predecessor's tasks wait to be rescued.
    Open,
    /// It runs what is left, and lives.
    Last,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [
            Self::Anywhere,
            Self::Commit,
            Self::Reopen,
            Self::Open,
            Self::Last,
        ]
        .into_iter()
        .find(|mode| mode.to_string() == text)
        .ok_or(())
    }
}

/// A task that is over in a moment.
#[derive(Debug, Serialize, Deserialize)]
struct Quick {
    pad: String,
}

impl Payload for Quick {
    const KIND: &'static str = "quick";
}

/// A task whose first attempts never end: only a kill ends them.
#[derive(Debug, Serialize, Deserialize)]
struct Held {
    attempts: u32,
}

impl Payload for Held {
    const KIND: &'static str = "held";
}

/// Where the ids of a process begin.
fn first_of(process: u128) -> u128 {
    (process + 1) << 64
}

fn id(number: u128) -> TaskId {
    Uuid::from_u128(number).into()
}

/// What the payload of a task must be: short ones in its row, some long ones in a table of their own.
fn pad(id: TaskId) -> String {
    let number = id.as_uuid().as_u128();
    let length = match number % 50 {
        0 => 3_000,
        short => short * 20,
    };
    let letter = char::from(b'a' + (number % 26) as u8);
    letter.to_string().repeat(length as usize)
}

fn acknowledged(lines: &[Line]) -> usize {
    lines
        .iter()
        .filter(|line| matches!(line, Line::Scheduled { .. } | Line::Answered(..)))
        .count()
}

/// Tasks that a process has started and not ended.
fn unfinished(lines: &[Line]) -> HashSet<(TaskId, u32)> {
    let mut unfinished = HashSet::new();
    for line in lines {
        match *line {
            Line::Started { id, attempt, .. } => {
                unfinished.insert((id, attempt));
            }
            Line::Ended { id, attempt } => {
                unfinished.remove(&(id, attempt));
            }
            _ => {}
        }
    }
    unfinished
}

/// Whether the last call that a process began, of those that `begins` knows, has not returned.
fn interrupted(
    lines: &[Line],
    begins: impl Fn(&Line) -> bool,
    returns: impl Fn(&Line) -> bool,
) -> bool {
    lines
        .iter()
        .rev()
        .find(|line| begins(line) || returns(line))
        .is_some_and(begins)
}

fn is_batch(line: &Line) -> bool {
    matches!(line, Line::Scheduling { count: BATCH, .. })
}

fn is_batch_done(line: &Line) -> bool {
    matches!(line, Line::Scheduled { count: BATCH, .. })
}

/// Starts a process, kills it as `mode` says, and returns what it told, and whether the kill came where it should.
fn kill_one(
    place: &Place,
    number: usize,
    mode: Mode,
    random: &mut fastrand::Rng,
) -> (Vec<Line>, bool) {
    let mut process = child::start(place, number, random.u64(..), mode);
    let mut lines = Vec::new();
    if mode == Mode::Open {
        lines.extend(process.read_until(|line| *line == Line::Opening));
        spin(Duration::from_micros(random.u64(0..4_000)));
        lines.extend(process.kill());
        let hit = interrupted(
            &lines,
            |line| *line == Line::Opening,
            |line| *line == Line::Opened,
        );
        return (lines, hit);
    }
    let since = Since::now();
    let held = (id(first_of(number as u128)), 1);
    while acknowledged(&lines) < CALLS || !unfinished(&lines).contains(&held) {
        lines.push(process.line());
        assert!(
            since.elapsed() < PATIENCE,
            "{} calls in {PATIENCE:?}",
            acknowledged(&lines)
        );
    }
    let hit = match mode {
        Mode::Commit => {
            process.order("batch");
            lines.extend(process.read_until(is_batch));
            let before = process.bytes_written();
            eventually("the batch is being written", || {
                (process.bytes_written() - before >= MIDST_BYTES).then_some(())
            });
            spin(Duration::from_micros(random.u64(0..4_000)));
            lines.extend(process.kill());
            interrupted(&lines, is_batch, is_batch_done)
        }
        Mode::Reopen => {
            for _ in 0..random.u32(0..3) {
                process.order("open");
                lines.extend(process.read_until(|line| *line == Line::Opened));
            }
            process.order("open");
            lines.extend(process.read_until(|line| *line == Line::Opening));
            spin(Duration::from_micros(random.u64(0..2_000)));
            lines.extend(process.kill());
            interrupted(
                &lines,
                |line| *line == Line::Opening,
                |line| *line == Line::Opened,
            )
        }
        _ => {
            spin(Duration::from_micros(random.u64(0..4_000)));
            lines.extend(process.kill());
            true
        }
    };
    (lines, hit)
}

/// A task that a process held when it was killed.
#[derive(Debug)]
struct Orphan {
    id: TaskId,
    attempt: u32,
    crashes: u32,
}

fn orphans(place: &Place) -> Vec<Orphan> {
    let conn = place.look();
    let mut statement = conn
        .prepare("SELECT id, attempt, ifnull(crashes, 0) FROM punctual_task LEFT JOIN punctual_trouble USING (seq) WHERE state = 10")
        .expect("a query");
    let rows = statement
        .query_map([], |row| {
            Ok(Orphan {
                id: Uuid::from_bytes(row.get(0)?).into(),
                attempt: row.get(1)?,
                crashes: row.get(2)?,
            })
        })
        .expect("the tasks that are held");
    rows.map(|row| row.expect("a task")).collect()
}

/// What became of the tasks that dead processes held.
#[derive(Debug, Default)]
struct TakenBack {
    crashed: usize,
    /// Crashed as well, so lately after the start was noted that the handler had told nothing yet.
    untold: usize,
    given_back: usize,
}

impl TakenBack {
    /// Checks what the next to open the file made of the orphans.
    fn check(&mut self, orphans: &[Orphan], client: &Client, history: &History) {
        for orphan in orphans {
            let task = client
                .get(orphan.id)
                .expect("to read")
                .expect("the task is there");
            let was_asked = history.cancels.contains_key(&orphan.id);
            assert!(
                task.state() == TaskState::Pending
                    || (was_asked && task.state() == TaskState::Cancelled),
                "P11: {task:?} is still held by the dead"
            );
            let start = history.started.get(&(orphan.id, orphan.attempt));
            let counts = (task.attempt(), task.crashes());
            let crashed = (orphan.attempt, orphan.crashes + 1);
            if start.is_some() {
                assert_eq!(counts, crashed, "P4: {} was started: {start:?}", orphan.id);
                let attempts = client.history(orphan.id).expect("its history");
                let last = attempts.last().expect("an attempt that crashed");
                assert_eq!(
                    (last.number(), last.end()),
                    (orphan.attempt, AttemptEnd::Crashed)
                );
                self.crashed += 1;
            } else if counts == crashed {
                self.untold += 1;
            } else {
                assert_eq!(
                    counts,
                    (orphan.attempt - 1, orphan.crashes),
                    "P4: {} was not started, so it is as if it had not been claimed",
                    orphan.id
                );
                self.given_back += 1;
            }
        }
    }
}

/// P1, P2, P4, P7, P8, P11, P14: whatever a process was doing when it was killed, no acknowledged task is lost or altered,
/// none is there that was not asked for, none starts early, twice at once, or after it was cancelled, and a crash costs an
/// attempt of those tasks alone that were started. Nothing of the dead is left beside the file.
#[test]
fn whatever_is_killed_every_acknowledged_task_is_accounted_for() {
    let seed = seed("storm");
    let mut random = fastrand::Rng::with_seed(seed);
    let place = Place::new();
    let mut history = History::default();
    let mut taken_back = TakenBack::default();
    let (mut kills, mut in_commit, mut in_open, mut in_first_open) = (0, 0, 0, 0);
    let (mut processes, mut log_bytes) = (0, 0);
    let since = Since::now();
    while kills < KILLS
        || in_commit < KILLS_IN_COMMIT
        || in_open < KILLS_IN_OPEN
        || in_first_open < KILLS_IN_OPEN
    {
        assert!(
            processes < MAX_PROCESSES,
            "{kills} kills, {in_commit} in commits, {in_open} and {in_first_open} in opens"
        );
        let mode = match processes % 6 {
            1 => Mode::Commit,
            3 => Mode::Reopen,
            4 => Mode::Open,
            _ => Mode::Anywhere,
        };
        let (lines, hit) = kill_one(&place, processes, mode, &mut random);
        history.learn(processes, &lines);
        processes += 1;
        if mode == Mode::Open {
            in_first_open += usize::from(hit);
            continue;
        }
        assert!(acknowledged(&lines) >= CALLS && !unfinished(&lines).is_empty());
        kills += 1;
        in_commit += usize::from(hit && mode == Mode::Commit);
        in_open += usize::from(hit && mode == Mode::Reopen);
        log_bytes = log_bytes.max(place.log_bytes());
        let orphans = orphans(&place);
        for (id, attempt) in unfinished(&lines) {
            assert!(
                orphans
                    .iter()
                    .any(|orphan| (orphan.id, orphan.attempt) == (id, attempt)),
                "P4: {id} is held until somebody takes it back"
            );
        }
        if mode == Mode::Anywhere {
            let client = Client::open(place.file()).expect("to open what a dead process left");
            taken_back.check(&orphans, &client, &history);
        }
    }
    let storm = since.elapsed();
    let last = child::start(&place, processes, 0, Mode::Last);
    let lines = last.read_until(|line| matches!(line, Line::Note(_)));
    history.learn(processes, &lines);
    let (status, _) = last.end();
    assert!(status.success());
    let counts = check_end(&place, &history);
    eprintln!(
        "storm: {kills} kills in {storm:?}, {in_commit} of them in a commit, {in_open} in an open, and {in_first_open} \
         more in a first open; {taken_back:?}; {counts:?}; a log of {log_bytes} bytes; {:?} in all",
        since.elapsed()
    );
    assert!(
        log_bytes <= MAX_LOG_BYTES,
        "P14: the log grew to {log_bytes} bytes"
    );
    assert!(counts.timed_out > 0, "{counts:?}");
    assert!(taken_back.crashed >= KILLS / 2, "{taken_back:?}");
    assert!(taken_back.given_back >= 1, "{taken_back:?}");
    assert!(taken_back.untold <= kills * WORKERS / 4, "{taken_back:?}");
    assert!(counts.untold <= processes * WORKERS / 4, "{counts:?}");
    assert_eq!(
        counts.whole + counts.absent,
        counts.unanswered,
        "P1: a call is stored whole or not at all"
    );
}
