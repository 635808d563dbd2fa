//! A request for the turn: what is asked, and where its caller waits for the answer.
//!
//! Invariant: a request is answered once, or taken out of the queue by the caller that gave up.

use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::thread::Thread;

use super::helpers::Helpers;
use crate::error::{Error, ErrorKind, Result};
use crate::model::op::{Op, Reply};
use crate::sync::lock;
use crate::time::Timestamp;

/// The operations of one call. They share one transaction, perhaps with other requests.
pub(crate) struct Request {
    pub(crate) now: Timestamp,
    pub(crate) ops: Vec<Op>,
    pub(super) cell: Arc<Cell>,
    helpers: Arc<Helpers>,
    is_answered: bool,
}

impl Request {
    pub(super) fn new(
        now: Timestamp,
        ops: Vec<Op>,
        cell: Arc<Cell>,
        helpers: Arc<Helpers>,
    ) -> Self {
        Self {
            now,
            ops,
            cell,
            helpers,
            is_answered: false,
        }
    }

    /// Drops the request without an answer: its caller has given up, or serves it itself.
    pub(super) fn forget(mut self) {
        self.is_answered = true;
    }

    /// Answers the request; the first answer counts. The operations go back with the answer, so that the caller frees them,
    /// not the leader.
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
            self.helpers.push(waker);
        }
    }

    /// Whether a caller was promised that it is on disk, or waits for a turn of its own.
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

/// What a request and its caller share.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) state: Mutex<CellState>,
    /// The request time of a write; `None`: it is a read.
    pub(super) asked_at: Option<Timestamp>,
    pub(super) sort: Sort,
}

impl Cell {
    /// The cell of a request that is about to be queued. `thread`: the one that parks for the answer, and can lead.
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
    /// By any leader.
    Shared,
    /// Likewise, but it waits for a caller's transaction: no leader wakes its thread, which checks by itself from time to time
    /// whether the turn is free.
    Patient,
    /// By its own thread alone.
    Exclusive,
}

#[derive(Debug)]
pub(super) struct CellState {
    pub(super) stage: Stage,
    /// The operations, once they are answered.
    spent: Vec<Op>,
    pub(super) waker: Option<Waker>,
    /// The thread that is parked for the answer, and can lead.
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
    /// The turn was free, and may still be.
    Invited,
    Done(Result<Vec<Reply>>),
    /// The answer was taken, or is not waited for any more.
    Taken,
}
