//! The turn for one thread alone: a transaction that runs the caller's code, on the caller's thread.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard};
use std::thread;

use super::reign::{Next, Reign};
use super::{CallOnDrop, Cell, Sort, Turn, Waited};
use crate::error::{Error, ErrorKind, Result};
use crate::store::sqlite::write::writer::Writer;
use crate::time::{Deadline, Timestamp};

impl Turn {
    /// Waits for the turn like any other request, and then runs `run` on the writer, on this thread.
    ///
    /// # Errors
    ///
    /// `Busy` if the turn does not come in time: `run` was not called.
    pub(crate) fn exclusive<T>(
        &self,
        now: Timestamp,
        run: impl FnOnce(&mut Writer) -> T,
    ) -> Result<T> {
        let thread = Some(thread::current());
        let (cell, leads) = self.enqueue(now, Vec::new(), Sort::Exclusive, thread)?;
        let deadline = Deadline::after(self.wait);
        let mut run = Some(run);
        if leads && let Some(answer) = self.lead_to(&cell, &mut run) {
            return Ok(answer);
        }
        loop {
            match self.wait_for_turn(&cell, deadline)? {
                Waited::Leads => {}
                Waited::Answered(answer) => {
                    answer?;
                    unreachable!("nobody else serves it");
                }
            }
            if let Some(answer) = self.lead_to(&cell, &mut run) {
                return Ok(answer);
            }
        }
    }

    /// Leads, and calls `run` when it is its turn; `None`: others came before, and had the whole reign. Only for whom
    /// `leading` was set.
    fn lead_to<T, R: FnOnce(&mut Writer) -> T>(
        &self,
        cell: &Arc<Cell>,
        run: &mut Option<R>,
    ) -> Option<T> {
        // As in `lead`.
        let _wakers = CallOnDrop(self);
        let mut reign = Reign::new(self, Some(cell));
        let mut writer = self.writer();
        let mut answer = None;
        loop {
            match reign.next() {
                Next::Batch(batch) => writer.run(batch),
                Next::Own => {
                    answer = run.take().map(|run| run(&mut writer));
                    if !self.owner.is_here() {
                        // It was forked inside: what waits is its parent's to do.
                        return answer;
                    }
                }
                Next::Over => return answer,
            }
        }
    }

    /// # Errors
    ///
    /// `Reentrant` on the thread that holds the writer: it would wait for itself.
    pub(crate) fn check_reentrant(&self) -> Result<()> {
        match self.inside.load(Ordering::Relaxed) {
            0 => Ok(()),
            inside if inside != this_thread() => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Reentrant,
                "this thread is writing to the same store: inside a transaction use the transaction's own methods",
            )),
        }
    }
}

/// A number that no other living thread has.
fn this_thread() -> usize {
    thread_local! {
        static PLACE: u8 = const { 0 };
    }
    PLACE.with(|place| std::ptr::from_ref(place).addr())
}

/// The writer in the hands of a thread. Dropped, even by a panic, it is free, and the thread may call the store again.
pub(crate) struct Inside<'a> {
    inside: &'a AtomicUsize,
    writer: MutexGuard<'a, Writer>,
}

impl<'a> Inside<'a> {
    pub(crate) fn enter(inside: &'a AtomicUsize, writer: MutexGuard<'a, Writer>) -> Self {
        inside.store(this_thread(), Ordering::Relaxed);
        Self { inside, writer }
    }
}

impl Deref for Inside<'_> {
    type Target = Writer;

    fn deref(&self) -> &Writer {
        &self.writer
    }
}

impl DerefMut for Inside<'_> {
    fn deref_mut(&mut self) -> &mut Writer {
        &mut self.writer
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // Before the lock is free, so that the mark of the next thread stays.
        self.inside.store(0, Ordering::Relaxed);
    }
}
