//! The turn for one thread alone: a transaction that runs the caller's code, on the caller's thread.

use std::sync::Arc;
use std::thread;

use super::lead::{Lead, Step};
use super::request::{Cell, Sort};
use super::{Turn, Waited, WakeOnDrop, Writes};
use crate::error::Result;
use crate::time::{Deadline, Timestamp};

impl<W: Writes> Turn<W> {
    /// Waits for the turn like any other request, and then runs `run` on the writer, on this thread. `now`: the request time
    /// of a write; `None`: it is a read.
    ///
    /// # Errors
    ///
    /// `Busy` if the turn does not come in time: `run` was not called.
    pub(crate) fn exclusive<T>(
        &self,
        now: Option<Timestamp>,
        run: impl FnOnce(&mut W) -> T,
    ) -> Result<T> {
        let thread = Some(thread::current());
        let (cell, leads) = self
            .line
            .enqueue(now, Vec::new(), Sort::Exclusive, thread)?;
        let deadline = Deadline::after(self.line.wait);
        let mut run = Some(run);
        if leads && let Some(answer) = self.lead_to(&cell, &mut run) {
            return Ok(answer);
        }
        loop {
            match self.wait_for_turn(&cell, deadline)? {
                Waited::Leads => {}
                Waited::Answered(answer) => {
                    answer?;
                    unreachable!("only its own thread serves an exclusive request");
                }
            }
            if let Some(answer) = self.lead_to(&cell, &mut run) {
                return Ok(answer);
            }
        }
    }

    /// Leads, and calls `run` when the request reaches the front. `None`: earlier requests took all the time of this lead,
    /// and `run` was not called. Call it only if `leading` was set for this thread.
    fn lead_to<T, R: FnOnce(&mut W) -> T>(
        &self,
        cell: &Arc<Cell>,
        run: &mut Option<R>,
    ) -> Option<T> {
        // As in `lead`.
        let _wakers = WakeOnDrop(&self.line);
        let mut lead = Lead::new(&self.line, Some(cell));
        let mut writer = self.writer();
        let mut answer = None;
        loop {
            match lead.next() {
                Step::Batch(batch) => writer.run(batch),
                Step::Own => {
                    answer = run.take().map(|run| run(&mut writer));
                    if !self.line.owner.is_here() {
                        // `run` forked, and this is the child: the waiting requests are its parent's.
                        return answer;
                    }
                }
                Step::Over => return answer,
            }
        }
    }
}
