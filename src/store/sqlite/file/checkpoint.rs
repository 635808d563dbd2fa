//! Checkpoints: the log is moved into the file once it is long, so that the next commit starts it anew.
//!
//! A helper thread does the bulk on a connection of its own, beside the commits that go on meanwhile; alone it would never
//! catch up with a busy writer, so the writer moves the few pages that are left, between two transactions. Always PASSIVE,
//! never TRUNCATE: nobody waits for a reader, and the log's blocks are used again.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::Connection;

use crate::error::Result;
use crate::panics::survive;
use crate::store::sqlite::file::open::Opener;
use crate::tell::tell;
use crate::thread::Thread;
use crate::time::Deadline;
use crate::wake::{Wake, lock};

/// The log is checkpointed when it is longer than this.
const LONG: usize = 4 << 20;
/// While the helper moves the log, the writer makes it no longer than this.
const TOO_LONG: usize = 4 * LONG;
/// So much the writer moves itself.
const FEW: usize = 1 << 20;
/// How long the writer waits for the helper at a time.
const PASS_WAIT: Duration = Duration::from_secs(1);
/// How long a store that is dropped waits for the helper: for one checkpoint.
const JOIN_WAIT: Duration = Duration::from_secs(5);
const IDLE_WAIT: Duration = Duration::from_secs(3600);

/// The lengths in pages: the user's file may have pages of any size.
#[derive(Debug, Clone, Copy)]
struct Limits {
    long: i32,
    too_long: i32,
    few: i32,
}

impl Limits {
    fn new(page_bytes: usize) -> Self {
        let pages = |bytes: usize| i32::try_from(bytes / page_bytes).unwrap_or(i32::MAX);
        Self {
            long: pages(LONG),
            too_long: pages(TOO_LONG),
            few: pages(FEW),
        }
    }
}

/// The checkpoints of one write connection.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    /// The length of the log as of the last commit, in pages.
    pages: Arc<AtomicI32>,
    /// The length at which the next checkpoint is tried: a reader can hold up the last one.
    at: i32,
    limits: Limits,
    helper: Option<Helper>,
}

impl Checkpoints {
    /// `opener`: how the helper opens a connection; `None` in memory, where there is no log.
    pub(crate) fn new(pages: Arc<AtomicI32>, page_bytes: usize, opener: Option<Opener>) -> Self {
        let limits = Limits::new(page_bytes);
        Self {
            pages,
            at: limits.long,
            limits,
            helper: opener.map(Helper::new),
        }
    }

    /// Looks at the log after a commit, whose callers have their answers by then.
    pub(crate) fn after_commit(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let pages = self.pages.load(Ordering::Relaxed);
        let Limits {
            long,
            too_long,
            few,
        } = self.limits;
        if pages < long {
            self.at = long;
            if let Some(helper) = &mut self.helper {
                helper.forget();
            }
            return Ok(());
        }
        if pages < self.at {
            return Ok(());
        }
        let Some(helper) = &mut self.helper else {
            return Ok(());
        };
        // Not while a reader has made it longer than that: then a pass makes it no shorter.
        if pages >= too_long && helper.began_at < too_long {
            helper.wait();
        }
        match helper.progress() {
            Progress::Working => return Ok(()),
            Progress::Idle { moved } => {
                let left = pages - moved;
                if left > few && helper.gains(left) && helper.start(pages) {
                    return Ok(());
                }
            }
        }
        helper.forget();
        let Some((length, moved)) = checkpoint(conn)? else {
            // Somebody else is at it.
            return Ok(());
        };
        // A reader still needs what is left, so the log grows on; try again when it is worth it.
        self.at = if moved < length { pages + long } else { long };
        Ok(())
    }
}

/// Moves what no reader needs, and tells how long the log is and how much of it is moved; `None`: another checkpoint is
/// going on.
pub(crate) fn checkpoint(conn: &Connection) -> rusqlite::Result<Option<(i32, i32)>> {
    let (busy, length, moved): (bool, i32, i32) = conn
        .prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok((!busy).then_some((length, moved)))
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
struct Helper {
    shared: Arc<Shared>,
    /// Started when it is first needed.
    thread: Option<Thread>,
    /// How much of the log was left before its last pass; 0 if there was none.
    left: i32,
    /// How long the log was when its last pass began.
    began_at: i32,
}

#[derive(Debug)]
struct Shared {
    opener: Opener,
    wake: Wake,
    works: AtomicBool,
    /// Notified after each pass.
    rests: Wake,
    moved: AtomicI32,
    over: AtomicBool,
    /// Opened when it is first needed; given up after an error.
    conn: Mutex<Option<Connection>>,
}

impl Helper {
    fn new(opener: Opener) -> Self {
        Self {
            shared: Arc::new(Shared {
                opener,
                wake: Wake::new(),
                works: AtomicBool::new(false),
                rests: Wake::new(),
                moved: AtomicI32::new(0),
                over: AtomicBool::new(false),
                conn: Mutex::new(None),
            }),
            thread: None,
            left: 0,
            began_at: 0,
        }
    }

    /// Whether it is worth another pass: if the writer wrote more than half as much as the last one moved, the helper does
    /// not catch up, and the writer has to do it.
    fn gains(&mut self, left: i32) -> bool {
        let before = std::mem::replace(&mut self.left, left);
        before == 0 || left <= before / 2
    }

    fn progress(&self) -> Progress {
        if self.shared.works.load(Ordering::Acquire) {
            return Progress::Working;
        }
        Progress::Idle {
            moved: self.shared.moved.load(Ordering::Relaxed),
        }
    }

    /// Waits until it makes no pass.
    fn wait(&self) {
        let deadline = Deadline::after(PASS_WAIT);
        while self.shared.works.load(Ordering::Acquire) && !deadline.is_over() {
            self.shared.rests.wait(deadline.remaining());
        }
    }

    /// Has it make a pass over a log of that length. `false`: there is no thread to be had.
    fn start(&mut self, pages: i32) -> bool {
        self.began_at = pages;
        if self.thread.is_none() {
            let shared = Arc::clone(&self.shared);
            match Thread::spawn("punctual-log", move || shared.work()) {
                Ok(thread) => self.thread = Some(thread),
                Err(error) => {
                    tell!(warn, %error, "cannot checkpoint beside the writer");
                    return false;
                }
            }
        }
        self.shared.works.store(true, Ordering::Release);
        self.shared.wake.notify();
        true
    }

    /// The log is about to start anew: what was moved of it counts no more.
    fn forget(&mut self) {
        self.left = 0;
        self.shared.moved.store(0, Ordering::Relaxed);
    }
}

impl Shared {
    fn work(&self) {
        while !self.over.load(Ordering::Acquire) {
            if self.works.load(Ordering::Acquire) {
                let moved = survive(|| self.pass()).and_then(Result::ok);
                if moved.is_none() {
                    // The writer makes the pass by itself, and learns what is wrong.
                    *lock(&self.conn) = None;
                }
                self.moved.store(moved.unwrap_or(0), Ordering::Relaxed);
                self.works.store(false, Ordering::Release);
                self.rests.notify();
                if moved.is_none() {
                    // Not before: the writer may have been waiting, and a subscriber that writes to the store waits for it.
                    tell!(warn, "cannot checkpoint beside the writer");
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
        let moved = checkpoint(conn)
            .map_err(|error| crate::store::sqlite::error::of("cannot checkpoint", error))?;
        Ok(moved.map_or(0, |(_, moved)| moved))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.shared.wake.notify();
        if let Some(thread) = self.thread.take() {
            thread.join(Deadline::after(JOIN_WAIT));
        }
    }
}
