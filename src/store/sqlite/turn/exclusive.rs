//! The turn for one thread alone: a transaction that runs the caller's code, on the caller's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::reign::{Next, Reign};
use super::{Cell, Sort, Turn, Waited};
use crate::error::{Error, ErrorKind, Result};
use crate::store::sqlite::writer::Writer;
use crate::time::{Deadline, Timestamp};
use crate::wake::lock;

impl Turn {
    /// Waits for the turn like any other request, and then runs `run` on the writer, on this thread.
    ///
    /// # Errors
    ///
    /// `Busy` if the turn does not come in time: `run` was not called.
    pub(in crate::store::sqlite) fn exclusive<T>(
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
        let mut reign = Reign::new(self, Some(cell));
        let mut writer = lock(&self.writer);
        let mut answer = None;
        loop {
            match reign.next() {
                Next::Batch(batch) => writer.run(batch),
                Next::Own => {
                    let _inside = Inside::enter(&self.inside);
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
    /// `Reentrant` on the thread that is inside a transaction of its own: it would wait for itself.
    pub(in crate::store::sqlite) fn check_reentrant(&self) -> Result<()> {
        match self.inside.load(Ordering::Relaxed) {
            0 => Ok(()),
            inside if inside != this_thread() => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Reentrant,
                "a call on the same store from inside its transaction: use the transaction's own methods",
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

/// A thread inside a transaction of its own; dropped, even by a panic, it is outside again.
struct Inside<'a>(&'a AtomicUsize);

impl<'a> Inside<'a> {
    fn enter(inside: &'a AtomicUsize) -> Self {
        inside.store(this_thread(), Ordering::Relaxed);
        Self(inside)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
