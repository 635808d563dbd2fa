//! W10: a process dies while it holds many tasks. How long until all can run again, when the file is opened and when another
//! process has it open, and how long other tasks wait meanwhile.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use punctual::rusqlite::{Connection, params};
use punctual::{Client, Durability, NewTask, Outcome, Scheduler, TaskState};
use uuid::Uuid;

use crate::child::{Running, Task};
use crate::report::Row;
use crate::work::Work;
use crate::{Result, Run, bare};

/// The kind of the tasks that the dead process held; no process has a handler for it.
const ORPHAN: &str = "orphan";
/// Long enough for one process to notice another.
const ACQUAINTANCE: Duration = Duration::from_millis(1_500);
const PATIENCE: Duration = Duration::from_secs(60);
/// How many rows the limit takes back in one transaction.
const SLICE: u64 = 500;

const MAX_TIME_MS: f64 = 2_000.0;
const MAX_WAIT_MS: f64 = 50.0;

pub(crate) fn run(run: &mut Run) -> Result<()> {
    let count = if run.is_small { 2_000 } else { 100_000 };
    let limit = bare_rescue(run, count)?;
    for part in ["claimed", "started"] {
        let dir = tempfile::tempdir_in(&run.folder)?;
        let time = at_open(&dir.path().join("open.db"), part, count)?;
        time_row(
            run,
            format!("NORMAL, {count} {part}, at an open"),
            time,
            limit,
        );
        let (time, wait) = while_open(&dir.path().join("other.db"), part, count)?;
        time_row(
            run,
            format!("NORMAL, {count} {part}, by another"),
            time,
            limit,
        );
        run.report.row(&Row {
            workload: "W10",
            setting: format!("FULL, {part}, longest wait"),
            value: wait,
            unit: "ms",
            limit: MAX_WAIT_MS,
            target: Some(format!("at most {MAX_WAIT_MS}")),
            met: Some(wait <= MAX_WAIT_MS),
            ..Row::default()
        });
    }
    Ok(())
}

fn time_row(run: &mut Run, setting: String, time: f64, limit: f64) {
    run.report.row(&Row {
        workload: "W10",
        setting,
        value: time,
        unit: "ms",
        limit,
        ratio: Some(time / limit),
        target: Some(format!("at most {MAX_TIME_MS}")),
        met: Some(time <= MAX_TIME_MS),
        ..Row::default()
    });
}

fn child<'a>(part: &'a str, path: &'a Path, count: u64) -> Result<Running> {
    let mut child = Running::start(Task {
        part,
        file: path,
        span: Duration::ZERO,
        count,
    })?;
    child.line()?;
    Ok(child)
}

/// The milliseconds that an open takes that finds the tasks of a dead process.
fn at_open(path: &Path, part: &str, count: u64) -> Result<f64> {
    let mut child = child(part, path, count)?;
    child.kill()?;
    let opened = Instant::now();
    let scheduler = Scheduler::builder(path).workers(2).start()?;
    let time = opened.elapsed();
    check(&scheduler, &Connection::open(path)?, count)?;
    Ok(millis(time))
}

/// With the file open already: the milliseconds from the kill until all tasks are taken back, and the longest time from the
/// call that scheduled another task meanwhile to its start.
fn while_open(path: &Path, part: &str, count: u64) -> Result<(f64, f64)> {
    let (sender, starts) = channel();
    let scheduler = Scheduler::builder(path)
        .workers(2)
        .handler_fn(move |_: Work, _cx| {
            // After a failed measurement there is no receiver.
            let _ = sender.send(Instant::now());
            Ok(Outcome::done())
        })
        .start()?;
    let mut child = child(part, path, count)?;
    std::thread::sleep(ACQUAINTANCE);
    let conn = Connection::open(path)?;
    let mut is_held = conn.prepare(
        "SELECT EXISTS (SELECT 1 FROM punctual_task INDEXED BY punctual_task_running
            WHERE state = 10 AND lane IN (SELECT id FROM punctual_lane) AND instance = ?1)",
    )?;
    let dead: i64 = conn.query_row(
        "SELECT instance FROM punctual_task WHERE state = 10 LIMIT 1",
        [],
        |row| row.get(0),
    )?;
    let mut longest = Duration::ZERO;
    let killed = Instant::now();
    child.kill()?;
    let mut probes = 0;
    while is_held.query_row([dead], |row| row.get(0))? {
        let called = Instant::now();
        scheduler.schedule(
            NewTask::new(Work::numbered(probes))
                .queue("probe")
                .priority(0),
        )?;
        longest = longest.max(starts.recv_timeout(PATIENCE)? - called);
        probes += 1;
        if killed.elapsed() > PATIENCE {
            return Err("the tasks of a dead process are not taken back".into());
        }
    }
    let time = killed.elapsed();
    check(&scheduler, &conn, count)?;
    Ok((millis(time), millis(longest)))
}

/// # Errors
///
/// If one of the tasks cannot be run again.
fn check(client: &Client, conn: &Connection, count: u64) -> Result<()> {
    let running: i64 = conn.query_row(
        "SELECT count(*) FROM punctual_task WHERE state = 10 AND lane IN (SELECT id FROM punctual_lane WHERE kind = ?1)",
        [ORPHAN],
        |row| row.get(0),
    )?;
    let stats = client.stats()?;
    let lanes = stats.lanes().iter().filter(|lane| lane.kind() == ORPHAN);
    let pending: u64 = lanes.map(|lane| lane.count(TaskState::Pending)).sum();
    if (running, pending) != (0, count) {
        return Err(format!("of {count} tasks {running} run and {pending} are pending").into());
    }
    Ok(())
}

/// The child to be killed: an instance that holds `count` tasks, started or only claimed.
pub(crate) fn doomed(task: Task<'_>) -> Result<()> {
    let scheduler = Scheduler::builder(task.file).workers(2).start()?;
    let orphans = (0..task.count).map(|n| NewTask::with_kind(ORPHAN, &Work::numbered(n)));
    scheduler.schedule_stream(orphans)?;
    let conn = Connection::open(task.file)?;
    conn.busy_timeout(PATIENCE)?;
    let own = "SELECT id, name FROM punctual_instance WHERE pid = ?1 AND ended_at IS NULL";
    let (instance, name): (i64, String) = conn.query_row(own, [std::process::id()], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    let claimed = conn.execute(
        "UPDATE punctual_task SET state = 10, instance = ?1, claim_no = seq, attempt = 1, started_at = ?2
        WHERE state = 0",
        params![instance, bare::now()],
    )?;
    if claimed as u64 != task.count {
        return Err(format!("{claimed} of {} tasks are claimed", task.count).into());
    }
    if task.part == "started" {
        // A cell for each task, in the ledger's format: its row and the number of its claim.
        let mut seqs = conn.prepare("SELECT seq FROM punctual_task WHERE state = 10")?;
        let mut cells = Vec::new();
        for seq in seqs.query_map([], |row| row.get::<_, i64>(0))? {
            let seq = seq?.to_le_bytes();
            cells.extend(seq);
            cells.extend(seq);
        }
        let mut ledger = task.file.as_os_str().to_owned();
        ledger.push(".punctual");
        let ledger = Path::new(&ledger).join(name);
        std::fs::OpenOptions::new()
            .write(true)
            .open(ledger)?
            .write_all_at(&cells, 0)?;
    }
    println!("ready");
    loop {
        std::thread::sleep(PATIENCE);
    }
}

/// The milliseconds in which bare rusqlite makes the same number of rows runnable again, in slices.
fn bare_rescue(run: &Run, count: u64) -> Result<f64> {
    let dir = tempfile::tempdir_in(&run.folder)?;
    let path = dir.path().join("bare.db");
    let conn = bare::open(&path, Durability::ProcessCrash, bare::Ids::Unique)?;
    let mut insert = conn.prepare(
        "INSERT INTO task (id, kind, payload, due, state, attempt, owner) VALUES (?1, 'orphan', ?2, ?3, 1, 1, 7)",
    )?;
    conn.execute_batch("BEGIN")?;
    for number in 0..count {
        let payload = serde_json::to_vec(&Work::numbered(number))?;
        insert.execute(params![Uuid::now_v7().as_bytes(), payload, bare::now()])?;
    }
    conn.execute_batch("COMMIT")?;
    let mut take_back = conn.prepare(
        "UPDATE task SET state = 0, owner = NULL, attempt = attempt - 1
        WHERE seq BETWEEN ?1 AND ?2 AND state = 1 AND owner = 7",
    )?;
    let started = Instant::now();
    let mut taken = 0;
    for first in (1..=count).step_by(SLICE as usize) {
        taken += take_back.execute([first as i64, (first + SLICE - 1) as i64])?;
    }
    let time = started.elapsed();
    if taken as u64 != count {
        return Err(format!("the limit took back {taken} of {count}").into());
    }
    Ok(millis(time))
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
