//! Checkpoints: a long log is moved into the file, so that the next commit starts the log anew.
//!
//! A helper thread moves most of it on a connection of its own, while commits go on. Alone it would never catch up with a
//! busy writer, so the writer moves the few pages that are left, between two transactions.
//!
//! The log starts anew only while no reader uses it. Overlapping readers would prevent that for ever. So a writer that finds
//! the log too long, and all but little of it moved, waits until its present readers have ended; new readers then read the
//! file. It waits with SQLite's write lock, for 50 ms at most, which serves readers of up to half of that, and for a
//! fifth of the time at most. While a reader needs more than a little of the log it does not wait. Never TRUNCATE: the
//! log's blocks are used again.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::Connection;

use crate::error::Result;
use crate::log::log;
use crate::panics::survive;
use crate::store::sqlite::file::open::{Opener, wait_for_locks};
use crate::sync::lock;
use crate::thread::Thread;
use crate::time::{Deadline, Stopwatch};
use crate::wake::Wake;

/// The log is checkpointed when it is longer than this.
const LONG: usize = 4 << 20;
/// While the helper moves the log, the writer makes it no longer than this.
const TOO_LONG: usize = 4 * LONG;
/// Up to this much of the log the writer moves itself.
const FEW: usize = 1 << 20;
/// How much longer the log must be before the writer tries again, if a reader was in the way.
const AGAIN: usize = FEW / 4;
/// From this length on the writer waits for readers.
const HELD_UP: usize = LONG + FEW;
/// How long the writer waits for readers: longer than the crate's own read of a page of tasks.
const READER_WAIT: Duration = Duration::from_millis(50);
/// After a wait for readers the next one comes no sooner than after this many times its length: a fifth of the time goes to
/// waits that begin the log anew, a twentieth to those in vain.
const REST: u32 = 4;
const REST_IN_VAIN: u32 = 20;
/// How long the writer waits for the helper at a time.
const PASS_WAIT: Duration = Duration::from_secs(1);
/// How long the drop of a store waits for the helper: for one checkpoint.
const JOIN_WAIT: Duration = Duration::from_secs(5);
const IDLE_WAIT: Duration = Duration::from_secs(3600);

/// The limits in pages: the user's file may have pages of any size.
#[derive(Debug, Clone, Copy)]
struct Limits {
    long: i32,
    too_long: i32,
    few: i32,
    again: i32,
    held_up: i32,
}

impl Limits {
    fn new(page_bytes: usize) -> Self {
        let pages = |bytes: usize| i32::try_from(bytes / page_bytes).unwrap_or(i32::MAX);
        Self {
            long: pages(LONG),
            too_long: pages(TOO_LONG),
            few: pages(FEW),
            again: pages(AGAIN),
            held_up: pages(HELD_UP),
        }
    }
}

/// The checkpoints of one write connection.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    /// The length of the log as of the last commit, in pages.
    pages: Arc<AtomicI32>,
    /// That length at the last look; `None` before the first look.
    seen: Option<i32>,
    /// The length at which the next checkpoint is tried: a reader can have held up the last one.
    at: i32,
    /// A reader needs more than a little of the log.
    is_held: bool,
    /// Before the next wait for readers: since when the writer rests from the last one, and for how long.
    rest: Option<(Stopwatch, Duration)>,
    limits: Limits,
    helper: Option<LogThread>,
}

impl Checkpoints {
    /// `opener`: how the helper opens a connection; `None` in memory, where there is no log.
    pub(crate) fn new(pages: Arc<AtomicI32>, page_bytes: usize, opener: Option<Opener>) -> Self {
        let limits = Limits::new(page_bytes);
        Self {
            pages,
            seen: None,
            at: limits.long,
            is_held: false,
            rest: None,
            limits,
            helper: opener.map(LogThread::new),
        }
    }

    /// Looks at the log after a commit, when the callers have their answers. Returns whether it waited for readers, with
    /// SQLite's write lock.
    pub(crate) fn after_commit(&mut self, conn: &mut Connection) -> rusqlite::Result<bool> {
        let pages = self.pages.load(Ordering::Relaxed);
        let seen = self.seen.replace(pages);
        let Some(helper) = &mut self.helper else {
            return Ok(false);
        };
        let limits = self.limits;
        if seen.is_some_and(|seen| pages < seen) {
            self.at = limits.long;
            self.is_held = false;
            helper.forget();
        }
        if pages < self.at {
            return Ok(false);
        }
        if pages >= limits.too_long && !self.is_held {
            helper.wait();
        }
        // A long log that a killed process left is moved by the writer at once: if one process after another were killed
        // before its helper is done, the log would grow with each of them.
        let was_found = seen.is_none();
        match helper.progress() {
            Progress::Working => return Ok(false),
            Progress::Idle { moved } => {
                let left = pages - moved;
                if !was_found && left > limits.few && helper.gains(left) && helper.start() {
                    return Ok(false);
                }
            }
        }
        let done = checkpoint(conn)?;
        // 0 if another checkpoint was going on: then nothing is known.
        helper.has_moved(done.moved);
        self.is_held = pages - done.moved > limits.few;
        if self.is_held {
            self.at = pages + limits.long;
            return Ok(false);
        }
        self.at = pages + limits.again;
        // Not for a log that was found: a process that makes a single call would have all others wait each time.
        if pages >= limits.held_up && !was_found && has_rested(self.rest) {
            let wait = Stopwatch::start();
            let done = restart(conn, helper.opener())?;
            let times = if done.is_busy { REST_IN_VAIN } else { REST };
            self.rest = Some((Stopwatch::start(), wait.elapsed() * times));
            return Ok(true);
        }
        Ok(false)
    }
}

/// Whether the last wait for readers is long enough ago.
fn has_rested(rest: Option<(Stopwatch, Duration)>) -> bool {
    rest.is_none_or(|(since, length)| since.elapsed() >= length)
}

/// What a checkpoint did.
pub(crate) struct Checkpoint {
    /// Another checkpoint was going on, or readers did not end in time.
    is_busy: bool,
    /// How much of the log is moved, in pages; 0 if another checkpoint was going on.
    moved: i32,
}

/// Moves the part of the log that no reader needs.
pub(crate) fn checkpoint(conn: &Connection) -> rusqlite::Result<Checkpoint> {
    run(conn, "PRAGMA wal_checkpoint(PASSIVE)")
}

/// Moves the whole log, and waits until no reader uses it, so that the next commit starts it anew.
fn restart(conn: &mut Connection, opener: &Opener) -> rusqlite::Result<Checkpoint> {
    wait_for_locks(conn, READER_WAIT)?;
    let done = run(conn, "PRAGMA wal_checkpoint(RESTART)");
    opener.wait_fairly(conn)?;
    done
}

fn run(conn: &Connection, sql: &str) -> rusqlite::Result<Checkpoint> {
    conn.prepare_cached(sql)?.query_row([], |row| {
        Ok(Checkpoint {
            is_busy: row.get(0)?,
            moved: row.get::<_, i32>(2)?.max(0),
        })
    })
}

enum Progress {
    /// `moved`: how much of the log the last pass has moved.
    Idle {
        moved: i32,
    },
    Working,
}

/// The thread that checkpoints beside the writer.
#[derive(Debug)]
struct LogThread {
    helper: Arc<LogHelper>,
    /// Started when it is first needed.
    thread: Option<Thread>,
    /// How much of the log was left before the last pass; 0: there was none.
    left: i32,
}

/// What the thread shares with the writer.
#[derive(Debug)]
struct LogHelper {
    /// Opened when it is first needed; given up after an error.
    conn: Mutex<Option<Connection>>,
    opener: Opener,
    wake: Wake,
    works: AtomicBool,
    /// Notified after each pass.
    rests: Wake,
    moved: AtomicI32,
    over: AtomicBool,
}

impl LogThread {
    fn new(opener: Opener) -> Self {
        Self {
            helper: Arc::new(LogHelper {
                conn: Mutex::new(None),
                opener,
                wake: Wake::new(),
                works: AtomicBool::new(false),
                rests: Wake::new(),
                moved: AtomicI32::new(0),
                over: AtomicBool::new(false),
            }),
            thread: None,
            left: 0,
        }
    }

    fn opener(&self) -> &Opener {
        &self.helper.opener
    }

    /// Whether another pass is worth it. If more than half of what was left before the last pass is left again, the helper
    /// does not catch up, and the writer has to move it.
    fn gains(&mut self, left: i32) -> bool {
        let before = std::mem::replace(&mut self.left, left);
        before == 0 || left <= before / 2
    }

    fn progress(&self) -> Progress {
        if self.helper.works.load(Ordering::Acquire) {
            return Progress::Working;
        }
        Progress::Idle {
            moved: self.helper.moved.load(Ordering::Relaxed),
        }
    }

    /// Waits until the helper makes no pass, at most for [`PASS_WAIT`].
    fn wait(&self) {
        let deadline = Deadline::after(PASS_WAIT);
        while self.helper.works.load(Ordering::Acquire) && !deadline.is_over() {
            self.helper.rests.wait(deadline.remaining());
        }
    }

    /// Makes the helper start a pass. `false`: its thread could not be started.
    fn start(&mut self) -> bool {
        if self.thread.is_none() {
            let helper = Arc::clone(&self.helper);
            match Thread::spawn("punctual-log", move || helper.work()) {
                Ok(thread) => self.thread = Some(thread),
                Err(error) => {
                    log!(warn, %error, "cannot checkpoint beside the writer");
                    return false;
                }
            }
        }
        self.helper.works.store(true, Ordering::Release);
        self.helper.wake.notify();
        true
    }

    /// The log has started anew: what was moved of the old one no longer counts.
    fn forget(&mut self) {
        self.has_moved(0);
    }

    /// Notes how much of the log the writer has moved.
    fn has_moved(&mut self, pages: i32) {
        self.left = 0;
        self.helper.moved.store(pages, Ordering::Relaxed);
    }
}

impl LogHelper {
    fn work(&self) {
        while !self.over.load(Ordering::Acquire) {
            if self.works.load(Ordering::Acquire) {
                let moved = survive(|| self.pass()).and_then(Result::ok);
                if moved.is_none() {
                    // The writer makes the pass by itself, and finds out what is wrong.
                    *lock(&self.conn) = None;
                }
                self.moved.store(moved.unwrap_or(0), Ordering::Relaxed);
                self.works.store(false, Ordering::Release);
                self.rests.notify();
                if moved.is_none() {
                    // Not earlier: the writer may have waited for the pass, and a `tracing` subscriber that writes to the
                    // store waits for the writer.
                    log!(warn, "cannot checkpoint beside the writer");
                }
            }
            self.wake.wait(IDLE_WAIT);
        }
    }

    fn pass(&self) -> Result<i32> {
        let mut conn = lock(&self.conn);
        let conn = match &mut *conn {
            Some(conn) => conn,
            none => none.insert(self.opener.writer()?),
        };
        checkpoint(conn)
            .map(|done| done.moved)
            .map_err(|error| crate::store::sqlite::error::of("cannot checkpoint", error))
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        self.helper.over.store(true, Ordering::Release);
        self.helper.wake.notify();
        if let Some(thread) = self.thread.take() {
            thread.join(Deadline::after(JOIN_WAIT));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Settings;
    use crate::store::sqlite::file::open::page_bytes;

    const PAGE_BYTES: usize = 4096;

    /// P14: the log of a process that was killed before its helper was done, and of the next one, and of the next.
    #[test]
    fn a_long_log_that_was_found_is_moved_without_the_helper() {
        let file = File::new();
        let mut conn = file.writer();
        for _ in 0..5 {
            write(&conn, 2 * LONG);
            let mut of_next = file.checkpoints();
            of_next.after_commit(&mut conn).unwrap();
            let helper = of_next.helper.as_ref().unwrap();
            assert!(helper.thread.is_none(), "it would be killed again");
        }
        assert!(file.log_bytes() < 3 * LONG, "begun anew each time");
    }

    /// P14: of readers that overlap, one is always there.
    #[test]
    fn readers_that_overlap_do_not_hold_the_log() {
        let file = File::new();
        let mut conn = file.writer();
        let (began, begin) = crossbeam_channel::bounded(0);
        let read = |conn: &Connection| {
            conn.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
        };
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let readers = [(); 2].map(|()| file.opener.reader().unwrap());
                read(&readers[0]);
                began.send(()).unwrap();
                for turn in 0.. {
                    read(&readers[(turn + 1) % 2]);
                    readers[turn % 2].execute_batch("COMMIT").unwrap();
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            begin.recv().unwrap();
            let mut checkpoints = file.checkpoints();
            let deadline = Deadline::after(Duration::from_secs(60));
            let (mut anew, mut waited) = (0, false);
            while anew < 3 && !deadline.is_over() {
                let length = file.pages.load(Ordering::Relaxed);
                // A wait is in vain if the machine does not run the readers meanwhile: then it is tried again.
                let is_long = file.log_bytes() > 2 * LONG;
                write(&conn, if is_long { 1 } else { LONG / 16 });
                anew += i32::from(waited && file.pages.load(Ordering::Relaxed) < length);
                waited = checkpoints.after_commit(&mut conn).unwrap();
            }
            over.store(true, Ordering::Relaxed);
            assert_eq!(anew, 3, "a wait for the readers lets the log begin anew");
        });
    }

    /// P3: a wait holds up the writes of all processes.
    #[test]
    fn a_long_reader_is_not_waited_for_nor_is_it_by_a_process_that_finds_a_long_log() {
        let file = File::new();
        let (mut conn, reader) = (file.writer(), file.opener.reader().unwrap());
        let mut checkpoints = file.checkpoints();
        write(&conn, FEW);
        checkpoints.after_commit(&mut conn).unwrap();
        reader
            .execute_batch("BEGIN; SELECT count(*) FROM t")
            .unwrap();
        for _ in 0..12 {
            write(&conn, LONG);
            checkpoints.after_commit(&mut conn).unwrap();
            let helper = checkpoints.helper.as_ref().unwrap();
            helper.wait();
        }
        assert!(checkpoints.is_held);
        assert!(checkpoints.rest.is_none());
        reader.execute_batch("COMMIT").unwrap();
        let mut of_next = file.checkpoints();
        of_next.after_commit(&mut conn).unwrap();
        assert!(of_next.rest.is_none() && !of_next.is_held);
        write(&conn, 1);
        let pages = usize::try_from(file.pages.load(Ordering::Relaxed)).unwrap();
        assert!(pages * PAGE_BYTES < FEW, "it began anew all the same");
    }

    /// P3: a reader that overlaps the next ones was waited for at each of them.
    #[test]
    fn after_a_wait_in_vain_the_next_one_comes_much_later() {
        let file = File::new();
        let (mut conn, reader) = (file.writer(), file.opener.reader().unwrap());
        let mut checkpoints = file.checkpoints();
        write(&conn, 1);
        checkpoints.after_commit(&mut conn).unwrap();
        write(&conn, HELD_UP);
        reader
            .execute_batch("BEGIN; SELECT count(*) FROM t")
            .unwrap();
        checkpoints.after_commit(&mut conn).unwrap();
        checkpoints.helper.as_ref().unwrap().wait();
        write(&conn, 1);
        assert!(checkpoints.after_commit(&mut conn).unwrap(), "it waited");
        let (_, rest) = checkpoints.rest.unwrap();
        assert!(rest >= READER_WAIT / 2 * REST_IN_VAIN, "{rest:?}");
        assert!(!has_rested(Some((Stopwatch::start(), Duration::MAX))));
        assert!(has_rested(Some((Stopwatch::start(), Duration::ZERO))));
    }

    /// A writer that waited 50 ms for readers went on to wait that short for the locks of other processes.
    #[test]
    fn after_a_wait_for_readers_the_writer_takes_turns_as_before() {
        let file = File::new();
        let (mut conn, reader) = (file.writer(), file.opener.reader().unwrap());
        reader
            .execute_batch("BEGIN; SELECT count(*) FROM t")
            .unwrap();
        write(&conn, LONG);
        let done = restart(&mut conn, &file.opener).unwrap();
        assert!(done.is_busy, "the reader is still there");
        let other = file.opener.writer().unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(move || write(&conn, 1));
            // Only a writer that takes turns announces that it waits.
            let is_announced = || file.opener.fairness.is_announced();
            while !is_announced() && !waits.is_finished() {
                std::thread::yield_now();
            }
            assert!(is_announced(), "it gave up, or waits unseen");
            other.execute_batch("COMMIT").unwrap();
            waits.join().unwrap();
        });
    }

    struct File {
        dir: tempfile::TempDir,
        opener: Opener,
        pages: Arc<AtomicI32>,
    }

    impl File {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("app.db");
            let opener = Opener::new(&path, &Settings::new(false)).unwrap();
            let conn = opener.writer().unwrap();
            assert_eq!(page_bytes(&conn).unwrap(), PAGE_BYTES);
            conn.execute_batch("CREATE TABLE t (x)").unwrap();
            Self {
                dir,
                opener,
                pages: Arc::default(),
            }
        }

        fn checkpoints(&self) -> Checkpoints {
            Checkpoints::new(
                Arc::clone(&self.pages),
                PAGE_BYTES,
                Some(self.opener.clone()),
            )
        }

        fn writer(&self) -> Connection {
            let mut conn = self.opener.writer().unwrap();
            let pages = Arc::clone(&self.pages);
            conn.wal_hook(Some(move |_: &mut _, length| {
                pages.store(length, Ordering::Relaxed);
                Ok(())
            }))
            .unwrap();
            conn
        }

        fn log_bytes(&self) -> usize {
            let log = self.dir.path().join("app.db-wal");
            usize::try_from(log.metadata().unwrap().len()).unwrap()
        }
    }

    fn write(conn: &Connection, bytes: usize) {
        conn.execute("INSERT INTO t VALUES (zeroblob(?))", [bytes as i64])
            .unwrap();
    }
}
