//! The handle of an answer that comes when a transaction has committed.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::model::op::Reply;
use crate::time::Deadline;
use crate::wake::Wake;

/// An answer that may not have come yet.
pub(crate) trait PendingReply: Send {
    /// Blocks until the answer has come.
    fn wait(self: Box<Self>) -> Result<Vec<Reply>>;

    /// Takes the answer if it has come; otherwise wakes the task of `cx` when it comes.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Reply>>>;

    /// Withdraws the request, unless a leader has begun to serve it.
    fn withdraw(self: Box<Self>);
}

/// Ends a bounded wait.
struct Answered(Wake);

impl std::task::Wake for Answered {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

/// The answer to a submitted request, or the handle of one to come.
pub(crate) enum Ticket {
    Ready(Option<Result<Vec<Reply>>>),
    Pending(Box<dyn PendingReply>),
}

impl Ticket {
    pub(crate) fn ready(answer: Result<Vec<Reply>>) -> Self {
        Self::Ready(Some(answer))
    }

    pub(crate) fn wait(self) -> Result<Vec<Reply>> {
        match self {
            Self::Ready(answer) => answer.unwrap_or_else(taken),
            Self::Pending(pending) => pending.wait(),
        }
    }

    /// Waits for the answer, at most `span`. This thread never leads, so what blocks the store does not block the caller.
    /// `None`: no answer has come, and the request is withdrawn unless a leader has begun to serve it.
    pub(crate) fn wait_within(mut self, span: Duration) -> Option<Result<Vec<Reply>>> {
        let deadline = Deadline::after(span);
        let wake = Wake::new();
        let waker = Waker::from(Arc::new(Answered(wake.clone())));
        let mut cx = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(answer) = self.poll(&mut cx) {
                return Some(answer);
            }
            if deadline.is_over() {
                break;
            }
            wake.wait(deadline.remaining());
        }
        if let Self::Pending(pending) = self {
            pending.withdraw();
        }
        None
    }

    /// The answer, if it has come.
    pub(crate) fn try_take(&mut self) -> Option<Result<Vec<Reply>>> {
        match self.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Reply>>> {
        let answer = match self {
            Self::Ready(answer) => return Poll::Ready(answer.take().unwrap_or_else(taken)),
            Self::Pending(pending) => pending.poll(cx),
        };
        if answer.is_ready() {
            *self = Self::Ready(None);
        }
        answer
    }
}

/// For who asks again: no other answer comes.
fn taken() -> Result<Vec<Reply>> {
    let why = "the answer to this write was given before";
    Err(Error::new(ErrorKind::State, why))
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(_) => write!(f, "Ticket::Ready"),
            Self::Pending(_) => write!(f, "Ticket::Pending"),
        }
    }
}
