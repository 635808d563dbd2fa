//! The limit of many callers: a group commit by hand.
//!
//! Whoever finds the turn free leads: it inserts what has queued in one transaction, commits, wakes its followers and hands
//! the turn to the first of those that have queued meanwhile. A dedicated thread behind a channel, or a mutex, was as fast
//! at best, and took a tenth more of processor time; one condition variable for all was slower by a tenth; a leader
//! that stays until the queue is empty, and eight rows in a statement, were no faster.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Thread;

use punctual::rusqlite::{Connection, Result};

use crate::bare::{INSERT, New};

/// A caller that waits: for its commit, or for its turn.
struct Caller {
    thread: Thread,
    stage: AtomicU8,
}

const WAITS: u8 = 0;
const LEADS: u8 = 1;
const DONE: u8 = 2;

impl Caller {
    /// Sleeps until it is told something.
    fn wait(&self) -> u8 {
        loop {
            match self.stage.load(Ordering::Acquire) {
                WAITS => std::thread::park(),
                told => return told,
            }
        }
    }

    fn tell(&self, stage: u8) {
        self.stage.store(stage, Ordering::Release);
        self.thread.unpark();
    }
}

#[derive(Default)]
struct Queue<'a> {
    waiting: Vec<(New<'a>, Arc<Caller>)>,
    is_led: bool,
    /// How many the last transaction had.
    last: usize,
}

/// A connection that callers share.
pub(crate) struct Group<'a> {
    queue: Mutex<Queue<'a>>,
    conn: Mutex<Connection>,
}

impl<'a> Group<'a> {
    pub(crate) fn new(conn: Connection) -> Self {
        Self {
            queue: Mutex::default(),
            conn: Mutex::new(conn),
        }
    }

    /// The connection, while nobody puts anything.
    pub(crate) fn conn(&mut self) -> &Connection {
        self.conn.get_mut().expect("nobody panicked")
    }

    /// Stores a task, and returns once it is durable.
    ///
    /// # Errors
    ///
    /// The storage's; the others of the group then wait for ever.
    pub(crate) fn put(&self, task: New<'a>) -> Result<()> {
        thread_local! {
            static THREAD: Thread = std::thread::current();
        }
        let caller = Arc::new(Caller {
            thread: THREAD.with(Thread::clone),
            stage: AtomicU8::new(WAITS),
        });
        let mut queue = self.queue.lock().expect("nobody panicked");
        queue.waiting.push((task, Arc::clone(&caller)));
        let is_led = std::mem::replace(&mut queue.is_led, true);
        drop(queue);
        if is_led && caller.wait() == DONE {
            return Ok(());
        }
        self.lead(&caller)
    }

    fn lead(&self, leader: &Arc<Caller>) -> Result<()> {
        let conn = self.conn.lock().expect("nobody panicked");
        self.gather();
        let batch = {
            let mut queue = self.queue.lock().expect("nobody panicked");
            queue.last = queue.waiting.len();
            std::mem::take(&mut queue.waiting)
        };
        conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut insert = conn.prepare_cached(INSERT)?;
        for (task, _) in &batch {
            task.insert(&mut insert)?;
        }
        conn.prepare_cached("COMMIT")?.execute([])?;
        for (_, caller) in &batch {
            if !Arc::ptr_eq(caller, leader) {
                caller.tell(DONE);
            }
        }
        drop(insert);
        drop(conn);
        self.gather();
        let mut queue = self.queue.lock().expect("nobody panicked");
        match queue.waiting.first() {
            Some((_, next)) => next.tell(LEADS),
            None => queue.is_led = false,
        }
        Ok(())
    }

    /// Lets those come who were just answered, if fewer than last time have: worth a twentieth.
    fn gather(&self) {
        let is_short = {
            let queue = self.queue.lock().expect("nobody panicked");
            queue.waiting.len() < queue.last
        };
        if is_short {
            std::thread::yield_now();
        }
    }
}
