//! The claim to an answer that will come when a transaction has committed.

use std::fmt;
use std::task::{Context, Poll, Waker};

use crate::error::Result;
use crate::model::op::Reply;

/// An answer on its way.
pub(crate) trait Pending: Send {
    /// Blocks until it is there.
    fn wait(self: Box<Self>) -> Result<Vec<Reply>>;

    /// Takes it if it is there, or has the task woken when it is.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Reply>>>;
}

/// The answer to a submitted request, or the promise of it.
pub(crate) enum Ticket {
    Ready(Option<Result<Vec<Reply>>>),
    Pending(Box<dyn Pending>),
}

impl Ticket {
    pub(crate) fn ready(answer: Result<Vec<Reply>>) -> Self {
        Self::Ready(Some(answer))
    }

    pub(crate) fn wait(self) -> Result<Vec<Reply>> {
        match self {
            Self::Ready(answer) => answer.expect("an answer is taken once"),
            Self::Pending(pending) => pending.wait(),
        }
    }

    /// The answer, if it is there.
    pub(crate) fn try_take(&mut self) -> Option<Result<Vec<Reply>>> {
        match self.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Reply>>> {
        match self {
            Self::Ready(answer) => {
                Poll::Ready(answer.take().expect("a future is not polled after its end"))
            }
            Self::Pending(pending) => pending.poll(cx),
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(_) => write!(f, "Ticket::Ready"),
            Self::Pending(_) => write!(f, "Ticket::Pending"),
        }
    }
}
