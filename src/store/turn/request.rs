//! A request for the turn: what is asked, and where its caller waits for the answer.
//!
//! Invariant: a request is answered once, or taken out of the queue by the caller who gave up.

use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::thread::Thread;

use super::wakers::Wakers;
use crate::error::{Error, ErrorKind, Result};
use crate::model::op::{Op, Reply};
use crate::time::Timestamp;
use crate::wake::lock;

/// Operations of one call: one transaction, with what else is there.
pub(crate) struct Request {
    pub(crate) now: Timestamp,
    pub(crate) ops: Vec<Op>,
    pub(super) cell: Arc<Cell>,
    wakers: Arc<Wakers>,
    is_answered: bool,
}

impl Request {
    pub(super) fn new(now: Timestamp, ops: Vec<Op>, cell: Arc<Cell>, wakers: Arc<Wakers>) -> Self {
        Self {
            now,
            ops,
            cell,
            wakers,
            is_answered: false,
        }
    }

    /// It is not to be answered any more: its caller has given up, or serves it itself.
    pub(super) fn forget(mut self) {
        self.is_answered = true;
    }

    /// Answers it; the first answer counts. What was asked goes back with the answer: to free it is not a leader's work.
    pub(crate) fn answer(&mut self, answer: Result<Vec<Reply>>) {
        if std::mem::replace(&mut self.is_answered, true) {
            return;
        }
        let (thread, waker) = {
            let mut state = lock(&self.cell.state);
            state.stage = Stage::Done(answer);
            state.spent = std::mem::take(&mut self.ops);
            (state.thread.take(), state.waker.take())
        };
        if let Some(thread) = thread {
            thread.unpark();
        }
        if let Some(waker) = waker {
            self.wakers.push(waker);
        }
    }

    /// Whether somebody was promised that it is on disk, or stands in line to write.
    pub(crate) fn is_durable(&self) -> bool {
        self.cell.sort == Sort::Exclusive || self.ops.iter().any(Op::is_durable)
    }

    pub(crate) fn must_sync(&self) -> bool {
        self.ops.iter().any(Op::must_sync)
    }
}

/// A request that is dropped without an answer was in the hands of a leader that panicked.
impl Drop for Request {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        self.answer(Err(Error::new(
            ErrorKind::Unknown,
            "the write was interrupted by a panic: it may or may not be stored",
        )));
    }
}

/// Where a request and its caller meet.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) state: Mutex<CellState>,
    /// When it was asked for; `None`: it is a read.
    pub(super) asked_at: Option<Timestamp>,
    pub(super) sort: Sort,
}

impl Cell {
    /// Of a request that is about to be queued. `thread`: which one parks for it, and can lead.
    pub(super) fn new(asked_at: Option<Timestamp>, sort: Sort, thread: Option<Thread>) -> Self {
        Self {
            state: Mutex::new(CellState {
                stage: Stage::Queued,
                spent: Vec::new(),
                waker: None,
                thread,
            }),
            asked_at,
            sort,
        }
    }
}

/// How a request is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// By whoever leads.
    Shared,
    /// Likewise, and its thread looks by itself whether the turn is free, after a while.
    Patient,
    /// By its own thread alone.
    Exclusive,
}

impl Sort {
    pub(super) fn of(ops: &[Op]) -> Self {
        // Nobody minds if it waits a little: nothing starts with it.
        let is_patient = |op: &Op| matches!(op, Op::Settle(_) | Op::Prune { .. });
        if ops.iter().all(is_patient) {
            Self::Patient
        } else {
            Self::Shared
        }
    }
}

#[derive(Debug)]
pub(super) struct CellState {
    pub(super) stage: Stage,
    /// What was asked, once it is answered.
    spent: Vec<Op>,
    pub(super) waker: Option<Waker>,
    /// Who is parked for it, and can lead.
    pub(super) thread: Option<Thread>,
}

impl CellState {
    /// The answer, if it has come.
    pub(super) fn take(&mut self) -> Option<Result<Vec<Reply>>> {
        match std::mem::replace(&mut self.stage, Stage::Taken) {
            Stage::Done(answer) => Some(answer),
            other => {
                self.stage = other;
                None
            }
        }
    }
}

#[derive(Debug)]
pub(super) enum Stage {
    Queued,
    /// The turn was handed to the thread that waits.
    Lead,
    /// The turn was free, and may be still.
    Invited,
    Done(Result<Vec<Reply>>),
    /// The answer was taken, or nobody waits for it.
    Taken,
}
