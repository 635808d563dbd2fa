//! The claim to an answer that will come when a transaction has committed.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::error::Result;
use crate::model::op::Reply;
use crate::time::Deadline;
use crate::wake::Wake;

/// An answer on its way.
pub(crate) trait PendingReply: Send {
    /// Blocks until it is there.
    fn wait(self: Box<Self>) -> Result<Vec<Reply>>;

    /// Takes it if it is there, or has the task woken when it is.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Reply>>>;

    /// Takes back what was asked, if nobody has begun with it.
    fn withdraw(self: Box<Self>);
}

/// Ends a wait with a bound.
struct Answered(Wake);

impl std::task::Wake for Answered {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

/// The answer to a submitted request, or the promise of it.
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
            Self::Ready(answer) => answer.expect("an answer is taken once"),
            Self::Pending(pending) => pending.wait(),
        }
    }

    /// Waits for the answer, at most `span`, on a thread that does nothing for it: whatever holds up the store does not hold
    /// up the caller. `None`: it has not come, and what was asked is taken back if nobody has begun with it.
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
