//! A storm on one file: process after process opens it, schedules, cancels and runs, and is killed in the middle. In the
//! end nothing that was acknowledged is lost, nothing is there that nobody asked for, and every start is accounted for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use punctual::{
    AttemptEnd, Cancel, Client, Filter, NewTask, Outcome, Payload, Scheduler, Task, TaskContext,
    TaskId, TaskState,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::kit::{Line, PATIENCE, Part, Place, Process, Since, eventually, part, seed, spin};

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

/// One process of the storm.
struct Storm {
    part: Part,
    client: Client,
    random: fastrand::Rng,
    /// Where its ids begin, and how many it has used.
    first: u128,
    count: u32,
}

impl Storm {
    fn next(&mut self, count: u32) -> u128 {
        let first = self.first + u128::from(self.count);
        self.count += count;
        first
    }

    fn quick(&mut self, number: u128) -> NewTask {
        NewTask::new(Quick {
            pad: pad(id(number)),
        })
        .id(id(number))
        .priority(self.random.u8(1..=9))
        .max_crashes(1_000)
    }

    fn told(&self, first: u128, count: u32, call: impl FnOnce() -> punctual::Result<usize>) {
        self.part.say(&Line::Scheduling { first, count });
        assert_eq!(call().expect("to schedule"), count as usize);
        self.part.say(&Line::Scheduled { first, count });
    }

    fn one(&mut self, task: impl FnOnce(NewTask) -> NewTask) {
        let number = self.next(1);
        let task = task(self.quick(number));
        let by_receipt = self.random.u8(0..10) == 0;
        let client = self.client.clone();
        self.told(number, 1, || {
            let scheduled = if by_receipt {
                client.submit().schedule(task).wait()
            } else {
                client.schedule(task)
            };
            scheduled.map(|scheduled| usize::from(scheduled.is_new()))
        });
    }

    fn many(&mut self, count: u32, due: impl Fn(NewTask) -> NewTask) {
        let first = self.next(count);
        let tasks: Vec<NewTask> = (0..count)
            .map(|offset| due(self.quick(first + u128::from(offset))))
            .collect();
        self.told(first, count, || {
            let scheduled = self.client.schedule_many(tasks)?;
            Ok(scheduled.iter().filter(|each| each.is_new()).count())
        });
    }

    fn held(&mut self) {
        let number = self.next(1);
        let attempts = self.random.u32(1..=2);
        let task = NewTask::new(Held { attempts })
            .id(id(number))
            .priority(0)
            .max_crashes(1_000);
        self.told(number, 1, || self.client.schedule(task).map(|_| 1));
    }

    fn cancel(&mut self) {
        // The first is the one that is surely held when the process dies.
        let id = id(self.first + u128::from(self.random.u32(1..self.count)));
        self.part.say(&Line::Cancelling(id));
        let answer = self.client.cancel(id).expect("to cancel");
        self.part.say(&Line::Answered(id, answer));
    }

    fn call(&mut self, mode: Mode) {
        let later = |task: NewTask| task.after(Duration::from_secs(3600));
        match self.random.u32(0..100) {
            _ if self.count == 0 || self.count == 20 => self.held(),
            0..10 if self.count > 1 => self.cancel(),
            // The commits of its handlers would be in the way.
            _ if mode == Mode::Commit => self.one(later),
            10..14 => self.many(100, |task| task),
            14..24 => self.one(later),
            24..34 => {
                let delay = Duration::from_micros(self.random.u64(0..40_000));
                self.one(|task| task.after(delay));
            }
            _ => self.one(|task| task),
        }
    }
}

fn open(part: &Part, workers: usize, mode: Mode) -> Scheduler {
    let (quick, held) = (part.clone(), part.clone());
    Scheduler::builder(&part.file)
        .workers(workers)
        .handler_fn(move |task: Quick, cx: &TaskContext| {
            quick.started(cx);
            if task.pad != pad(cx.id()) {
                quick.note(format!("the payload of {} is another", cx.id()));
            }
            // Long enough that others are claimed and wait.
            let _ = cx.cancelled_within(Duration::from_micros(50));
            quick.ended(cx);
            Ok(Outcome::done())
        })
        .handler_fn(move |task: Held, cx: &TaskContext| {
            held.started(cx);
            while mode != Mode::Last && cx.attempt() <= task.attempts {
                std::thread::park();
            }
            held.ended(cx);
            Ok(Outcome::done())
        })
        .start()
        .expect("to open the file")
}

#[test]
#[ignore = "a child process of the storm"]
fn child() {
    let Some(part) = Part::played() else { return };
    let (number, seed, mode): (u128, u64, Mode) =
        (part.argument(0), part.argument(1), part.argument(2));
    part.say(&Line::Opening);
    let scheduler = open(&part, WORKERS, mode);
    part.say(&Line::Opened);
    if mode == Mode::Last {
        return run_what_is_left(&part, &scheduler);
    }
    let mut storm = Storm {
        part: part.clone(),
        client: scheduler.client(),
        random: fastrand::Rng::with_seed(seed),
        first: first_of(number),
        count: 0,
    };
    match mode {
        Mode::Commit | Mode::Reopen => {
            for _ in 0..=CALLS {
                storm.call(mode);
            }
        }
        _ => {
            part.die_with_parent();
            loop {
                storm.call(mode);
            }
        }
    }
    for order in 0.. {
        part.next_order();
        if mode == Mode::Commit {
            let quick = Filter::new().kind(Quick::KIND).state(TaskState::Running);
            eventually("nobody else writes", || {
                (scheduler.count(&quick).expect("to count") == 0).then_some(())
            });
            storm.many(BATCH, |task| task.after(Duration::from_secs(3600)));
        } else if order % 2 == 0 {
            part.say(&Line::Opening);
            let client = Client::open(&part.file).expect("to open the file again");
            part.say(&Line::Opened);
            drop(client);
        } else {
            part.say(&Line::Opening);
            let scheduler = Scheduler::builder(&part.file)
                .workers(1)
                .start()
                .expect("to open the file again");
            part.say(&Line::Opened);
            drop(scheduler);
        }
    }
}

fn run_what_is_left(part: &Part, scheduler: &Scheduler) {
    let pending = Filter::new().state(TaskState::Pending);
    scheduler.run_now_all(&pending).expect("to make them due");
    let unfinished = pending.state(TaskState::Running);
    let mut left = u64::MAX;
    while left > 0 {
        left = eventually("fewer tasks are left", || {
            let count = scheduler.count(&unfinished).expect("to count");
            (count < left).then_some(count)
        });
    }
    let shutdown = scheduler.shutdown(PATIENCE).expect("to shut down");
    assert_eq!(shutdown.still_running(), 0);
    part.note("done");
}

/// Everything that was told, by all processes, in the order of its happening.
#[derive(Debug, Default)]
struct History {
    /// Tasks of calls that were made, and whether they were acknowledged.
    scheduled: BTreeMap<u128, (u32, bool)>,
    cancels: HashMap<TaskId, Option<Cancel>>,
    started: HashMap<(TaskId, u32), Start>,
}

#[derive(Debug)]
struct Start {
    process: usize,
    ended: bool,
}

impl History {
    /// Learns what a process told, and checks what can be said at once.
    fn learn(&mut self, process: usize, lines: &[Line]) {
        let mut started = HashSet::new();
        for line in lines {
            match *line {
                Line::Scheduling { first, count } => {
                    self.scheduled.insert(first, (count, false));
                }
                Line::Scheduled { first, count } => {
                    self.scheduled.insert(first, (count, true));
                }
                Line::Cancelling(id) => {
                    self.cancels.entry(id).or_insert(None);
                }
                Line::Answered(id, answer) => {
                    let known = self.cancels.insert(id, Some(answer)).flatten();
                    if known == Some(Cancel::Cancelled) {
                        assert_eq!(answer, Cancel::Finished(TaskState::Cancelled), "P8: {id}");
                    }
                }
                Line::Started {
                    id,
                    attempt,
                    due,
                    now,
                } => {
                    assert!(due <= now, "P2: {id} was due at {due} and started at {now}");
                    assert_ne!(
                        self.cancels.get(&id),
                        Some(&Some(Cancel::Cancelled)),
                        "P8: {id} was started after it was cancelled"
                    );
                    assert!(
                        started.insert(id),
                        "P7: {id} was started twice in one process"
                    );
                    let before = self.started.insert(
                        (id, attempt),
                        Start {
                            process,
                            ended: false,
                        },
                    );
                    assert!(
                        before.is_none(),
                        "P7: attempt {attempt} of {id} was started twice"
                    );
                }
                Line::Ended { id, attempt } => {
                    let start = self
                        .started
                        .get_mut(&(id, attempt))
                        .expect("what ends was started");
                    assert_eq!(start.process, process);
                    start.ended = true;
                }
                Line::Opening | Line::Opened => {}
                Line::Note(ref text) => assert_eq!(text, "done"),
            }
        }
    }

    fn tasks(&self) -> impl Iterator<Item = (TaskId, bool)> {
        self.scheduled
            .iter()
            .flat_map(|(&first, &(count, acknowledged))| {
                (first..first + u128::from(count)).map(move |number| (id(number), acknowledged))
            })
    }
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
    let arguments: [&dyn fmt::Display; 3] = [&number, &random.u64(..), &mode];
    let mut process = Process::start(part!(child), &place.file(), &arguments);
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
    let arguments: [&dyn fmt::Display; 3] = [&processes, &0, &Mode::Last];
    let last = Process::start(part!(child), &place.file(), &arguments);
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

/// What the file holds in the end.
#[derive(Debug, Default)]
struct Counts {
    tasks: usize,
    completed: usize,
    cancelled: usize,
    crashes: u32,
    /// Crashes of attempts that had told nothing, or that had ended and were not settled.
    untold: usize,
    unsettled: usize,
    /// Calls that were interrupted, and whether what they should have stored is there.
    unanswered: usize,
    whole: usize,
    absent: usize,
}

fn check_end(place: &Place, history: &History) -> Counts {
    let mut counts = Counts::default();
    let client = Client::open(place.file()).expect("to open the file");
    let mut stored = all(&client);
    for (&first, &(count, acknowledged)) in &history.scheduled {
        let there = (first..first + u128::from(count))
            .filter(|&number| stored.contains_key(&id(number)))
            .count();
        if acknowledged {
            assert_eq!(there, count as usize, "P1: {first:x} was acknowledged");
            continue;
        }
        counts.unanswered += 1;
        counts.whole += usize::from(there == count as usize);
        counts.absent += usize::from(there == 0);
    }
    for (id, _) in history.tasks() {
        if let Some(task) = stored.remove(&id) {
            check_task(&client, &task, history, &mut counts);
        }
    }
    assert!(
        stored.is_empty(),
        "P1: nobody scheduled {:?}",
        stored.keys().next()
    );
    drop(client);
    let integrity: String = place
        .look()
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("to check the file");
    assert_eq!(integrity, "ok");
    for table in ["payload", "result", "progress", "tag", "attempt"] {
        let strays = place.number(&format!(
            "SELECT count(*) FROM punctual_{table} WHERE seq NOT IN (SELECT seq FROM punctual_task)"
        ));
        assert_eq!(
            strays, 0,
            "P14: rows of punctual_{table} that belong to no task"
        );
    }
    let alive = place.number("SELECT count(*) FROM punctual_instance WHERE ended_at IS NULL");
    assert_eq!(alive, 0, "P11: instances that are dead and not known to be");
    let files = place.lock_files();
    assert!(files.is_empty(), "P14: lock files of the dead: {files:?}");
    counts
}

fn all(client: &Client) -> HashMap<TaskId, Task> {
    let mut tasks = HashMap::new();
    let mut filter = Filter::all().limit(1_000);
    loop {
        let page = client.list(&filter).expect("to list");
        let next = page.next();
        tasks.extend(page.into_iter().map(|task| (task.id(), task)));
        match next {
            Some(next) => filter = filter.after(next),
            None => return tasks,
        }
    }
}

fn check_task(client: &Client, task: &Task, history: &History, counts: &mut Counts) {
    let id = task.id();
    match task.kind() {
        Quick::KIND => assert_eq!(
            task.payload::<Quick>().expect("its payload").pad,
            pad(id),
            "P1: {id}"
        ),
        _ => drop(task.payload::<Held>().expect("its payload")),
    }
    let allowed: &[TaskState] = match history.cancels.get(&id) {
        None => &[TaskState::Completed],
        Some(Some(Cancel::Cancelled)) => &[TaskState::Cancelled],
        Some(Some(Cancel::Finished(state))) => &[*state],
        Some(Some(Cancel::Requested) | None) => &[TaskState::Completed, TaskState::Cancelled],
    };
    assert!(
        allowed.contains(&task.state()),
        "P4, P8: {task:?}, not {allowed:?}"
    );
    counts.tasks += 1;
    counts.completed += usize::from(task.state() == TaskState::Completed);
    counts.cancelled += usize::from(task.state() == TaskState::Cancelled);
    counts.crashes += task.crashes();
    let crashed: HashSet<u32> = match task.crashes() {
        0 => HashSet::new(),
        _ => {
            let attempts = client.history(id).expect("its history");
            let crashed = attempts
                .iter()
                .filter(|attempt| attempt.end() == AttemptEnd::Crashed);
            crashed.map(|attempt| attempt.number()).collect()
        }
    };
    assert_eq!(crashed.len(), task.crashes() as usize, "P4: {id}");
    for attempt in 1..=task.attempt() {
        let start = history.started.get(&(id, attempt));
        match (start, crashed.contains(&attempt)) {
            (Some(start), true) => counts.unsettled += usize::from(start.ended),
            (None, true) => counts.untold += 1,
            (start, false) => {
                assert!(
                    start.is_some_and(|start| start.ended) && attempt == task.attempt(),
                    "P4: attempt {attempt} of {task:?}, {start:?}, was neither the last nor a crash"
                );
            }
        }
    }
    let beyond = history.started.contains_key(&(id, task.attempt() + 1));
    assert!(!beyond, "P4: {task:?} was started once more than it knows");
    if task.state() == TaskState::Completed {
        assert!(
            !crashed.contains(&task.attempt()),
            "P4: {task:?} completed by an attempt that crashed"
        );
    }
}

#[test]
#[ignore = "a child process that creates a file"]
fn creating_child() {
    let Some(part) = Part::played() else { return };
    part.die_with_parent();
    part.say(&Line::Opening);
    let scheduler = open(&part, 1, Mode::Last);
    part.say(&Line::Opened);
    scheduler
        .schedule(Held { attempts: 0 })
        .expect("to schedule");
    loop {
        std::thread::park();
    }
}

/// P1, P12: a process that dies while it creates the file leaves none, or one that the next can use.
#[test]
fn a_file_whose_creator_was_killed_can_be_used() {
    let seed = seed("creation");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut hits = 0;
    for _ in 0..20 {
        let place = Place::new();
        let process = Process::start(part!(creating_child), &place.file(), &[]);
        let mut lines = process.read_until(|line| *line == Line::Opening);
        spin(Duration::from_micros(random.u64(0..12_000)));
        lines.extend(process.kill());
        hits += usize::from(!lines.contains(&Line::Opened));
        let client = Client::open(place.file()).expect("to open what is there");
        let id = client
            .schedule(Held { attempts: 0 })
            .expect("to schedule")
            .id();
        assert!(client.get(id).expect("to read").is_some());
        assert!(
            place.lock_files().is_empty(),
            "P14: a lock file of the dead"
        );
    }
    eprintln!("creation: {hits} kills before it was done");
    assert!(hits >= 5, "{hits} kills came before the file was made");
}
