//! W13b: many recurrences that are due at the same instant, as at noon, make their tasks. The limit writes as many rows.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use punctual::chrono::DateTime;
use punctual::rusqlite::{Connection, params};
use punctual::{Client, Durability, Recurrence, Rule, Scheduler, SqliteSettings};

use crate::bare::{self, Ids};
use crate::ours::{self, CACHE_BYTES, Note, View};
use crate::pairs::{Slice, Subject};
use crate::{Result, Run, insert};

const WORKERS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(60);
/// How many recurrences ours fires in a transaction, and the limit too.
const CHUNK: u64 = 200;
/// How many recurrences are stored in a transaction, before anything is measured.
const BATCH: u64 = 1_000;
const NOON: &str = "0 12 * * *";
const DAY: i64 = 24 * 3_600 * 1_000_000;

/// The limit's recurrences: what changes with each slot, with the indexes that ours has.
const TABLE: &str = "
    CREATE TABLE recurrence(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, due INT, next INT, decided INT NOT NULL,
        previous INT, made INT NOT NULL, expected INT, overdue INT, run_first INT, run_last INT, run_fate INT);
    CREATE INDEX recurrence_due ON recurrence(due) WHERE due IS NOT NULL;
    CREATE INDEX recurrence_expected ON recurrence(expected) WHERE expected IS NOT NULL;
    CREATE INDEX recurrence_overdue ON recurrence(id) WHERE overdue IS NOT NULL;";

const ADD: &str = "INSERT INTO recurrence (id, name, due, next, decided, made) VALUES (?1, ?2, ?3, ?3, ?3 - 1, 0)";

const MOVE_ON: &str = "
    UPDATE recurrence SET due = ?2, next = ?2, decided = ?3, previous = ?3, made = made + 1, run_first = ?3,
        run_last = ?3, run_fate = 0
    WHERE id = ?1";

pub(crate) fn run(run: &mut Run) -> Result<()> {
    let count = if run.is_small { 250 } else { 50_000 };
    let dir = tempfile::tempdir_in(&run.folder)?;
    let noon = Noon::new(dir.path(), count)?;
    run.paired(
        &Subject {
            workload: "W13b",
            setting: format!("NORMAL, {count} at noon"),
            tasks: Some(count),
            at_least: Some(0.4),
            note: Some("no handler: only the making of the tasks".into()),
            ..Subject::default()
        },
        &mut |_| noon.ours(),
        &mut |_| noon.limit(),
        None,
    )
}

/// Files of recurrences that are due, one for each side. Every slice uses a copy.
struct Noon {
    folder: PathBuf,
    count: u64,
    /// When all are due: the last noon.
    at: i64,
    payload: Vec<u8>,
}

impl Noon {
    fn new(folder: &Path, count: u64) -> Result<Self> {
        let now = DateTime::from_timestamp_micros(bare::now()).expect("it is this year");
        let at = Rule::cron(NOON)?.before(now).next();
        let noon = Self {
            folder: folder.to_owned(),
            count,
            at: at.ok_or("there is no noon")?.timestamp_micros(),
            payload: insert::payload()?,
        };
        noon.fill_ours(&folder.join("ours.db"))?;
        noon.fill_limit(&folder.join("limit.db"))?;
        Ok(noon)
    }

    /// A client stores them; only a scheduler makes their tasks.
    fn fill_ours(&self, path: &Path) -> Result<()> {
        let client = Client::open(path)?;
        let at = DateTime::from_timestamp_micros(self.at).expect("it is this year");
        for first in (0..self.count).step_by(BATCH as usize) {
            client.transaction(|tx| {
                for number in first..(first + BATCH).min(self.count) {
                    let recurrence = Recurrence::new(name(number), Note::new()).cron(NOON)?;
                    tx.recur(recurrence.since(at))?;
                }
                Ok::<_, punctual::Error>(())
            })?;
        }
        Ok(())
    }

    fn fill_limit(&self, path: &Path) -> Result<()> {
        let conn = bare::open(path, Durability::ProcessCrash, Ids::Unique)?;
        conn.execute_batch(TABLE)?;
        let mut add = conn.prepare(ADD)?;
        conn.execute_batch("BEGIN")?;
        for number in 0..self.count {
            add.execute(params![number as i64 + 1, name(number), self.at])?;
        }
        conn.execute_batch("COMMIT")?;
        Ok(())
    }

    /// Measured from the start of the scheduler until the file has all tasks.
    fn ours(&self) -> Result<Slice> {
        let dir = tempfile::tempdir_in(&self.folder)?;
        let path = ours::copy(&self.folder.join("ours.db"), dir.path())?;
        let conn = Connection::open(&path)?;
        // A seek. The file had no task before, so the number of the last is how many there are.
        let mut last = conn.prepare("SELECT ifnull(max(seq), 0) FROM punctual_task")?;
        let started = Instant::now();
        let mut scheduler = None;
        let slice = Slice::of(self.count, || {
            let builder = Scheduler::builder(&path).workers(WORKERS);
            let settings = SqliteSettings::default().page_cache_bytes(CACHE_BYTES);
            scheduler = Some(builder.sqlite(settings).start()?);
            while last.query_row([], |row| row.get::<_, i64>(0))? < self.count as i64 {
                if started.elapsed() > PATIENCE {
                    return Err("the recurrences do not make their tasks".into());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        })?;
        View::new(&path)?.check(ours::PENDING, self.count)?;
        Ok(slice)
    }

    /// Measured from the opening of the file. The limit need not look for what is due.
    fn limit(&self) -> Result<Slice> {
        let dir = tempfile::tempdir_in(&self.folder)?;
        let path = ours::copy(&self.folder.join("limit.db"), dir.path())?;
        let slice = Slice::of(self.count, || self.make_bare(&path))?;
        bare::check(&Connection::open(&path)?, bare::PENDING, self.count)?;
        Ok(slice)
    }

    fn make_bare(&self, path: &Path) -> Result<()> {
        let conn = bare::open(path, Durability::ProcessCrash, Ids::Unique)?;
        let mut begin = conn.prepare("BEGIN IMMEDIATE")?;
        let mut insert = conn.prepare(bare::INSERT)?;
        let mut move_on = conn.prepare(MOVE_ON)?;
        let mut commit = conn.prepare("COMMIT")?;
        for first in (0..self.count).step_by(CHUNK as usize) {
            begin.execute([])?;
            for number in first..(first + CHUNK).min(self.count) {
                bare::New::now(&self.payload).insert(&mut insert)?;
                move_on.execute([number as i64 + 1, self.at + DAY, self.at])?;
            }
            commit.execute([])?;
        }
        Ok(())
    }
}

fn name(number: u64) -> String {
    format!("noon-{number:06}")
}
