//! A claimed task on its way through an executor: the future that the executor polls, around that of the handler.
//!
//! Invariant: each claim ends exactly once, however the executor treats the future. It ends when the handler's future is
//! ready, has panicked, or was dropped after a request to stop; and it ends by the drop of the flight, if the executor drops
//! that before. Before its first poll the dispatcher may take the task back: an executor that never polls keeps none.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use crate::handler::HandlerFuture;
use crate::handler::async_context::AsyncContext;
use crate::handler::spawn::Spawn;
use crate::handler::token::StopReason;
use crate::log::log;
use crate::model::outcome::Failure;
use crate::model::settle::{End, StoredPayload};
use crate::panics::survive;
use crate::runtime::call::{AttemptSpan, caught, log_end};
use crate::runtime::fibers::Fibers;
use crate::runtime::job::{Job, QUICKEST_FORK, Returned, Running};
use crate::runtime::launched::Unpolled;
use crate::runtime::link::Link;
use crate::runtime::polls::PollWatch;
use crate::runtime::shutdown::ShutdownState;

/// For a future that needs the timers or sockets of a runtime.
const ON_WORKERS: &str =
    "It ran on the scheduler's workers: Builder::spawner and Builder::tokio run it on a runtime";

/// Hands claimed tasks to an executor.
pub(crate) struct Launcher {
    spawner: Box<dyn Spawn>,
    /// If the workers poll them.
    fibers: Option<Arc<Fibers>>,
    shutdown: Arc<ShutdownState>,
}

impl Launcher {
    /// `spawner`: the program's executor; `None`: the workers.
    pub(crate) fn new(
        spawner: Option<Box<dyn Spawn>>,
        fibers: &Arc<Fibers>,
        shutdown: Arc<ShutdownState>,
    ) -> Self {
        let workers = spawner.is_none().then(|| Arc::clone(fibers));
        Self {
            spawner: spawner.unwrap_or_else(|| Box::new(Arc::clone(fibers))),
            fibers: workers,
            shutdown,
        }
    }

    /// Whether the workers poll the futures.
    pub(crate) fn is_workers(&self) -> bool {
        self.fibers.is_some()
    }

    /// Never under a lock: the spawner is code of the user's.
    pub(crate) fn launch(&self, job: Job) -> Arc<Unpolled> {
        let link = Arc::downgrade(job.link());
        let polls = job.watched();
        let unpolled = Unpolled::new(job);
        let flight = Flight {
            link,
            polls,
            stage: Stage::Waits(Arc::clone(&unpolled)),
            shutdown: Arc::clone(&self.shutdown),
            fibers: self.fibers.clone(),
        };
        if survive(|| self.spawner.spawn(Box::pin(flight))).is_none() {
            log!(error, "the spawner panicked");
        }
        unpolled
    }
}

impl fmt::Debug for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launcher").finish_non_exhaustive()
    }
}

/// The future of a claimed task.
struct Flight {
    stage: Stage,
    /// The task has it too, until it has ended or was taken back: an executor that keeps the future then keeps no store open.
    link: Weak<Link>,
    polls: Arc<PollWatch>,
    shutdown: Arc<ShutdownState>,
    /// If the workers poll it.
    fibers: Option<Arc<Fibers>>,
}

enum Stage {
    /// It was never polled.
    Waits(Arc<Unpolled>),
    Flies(Box<Flying>),
    Ended,
}

struct Flying {
    running: Running,
    future: HandlerFuture,
    span: AttemptSpan,
}

impl Flight {
    /// Starts the attempt, unless the scheduler stops.
    fn take_off(&mut self, job: Job, link: &Link) {
        if self.shutdown.is_stopping() {
            if let Some(finished) = job.give_back(link.client.now()) {
                link.finish.push(finished);
            }
            return;
        }
        let Some(running) = job.start() else {
            return;
        };
        let holding = &running.context().holding;
        let entry = link.registry.claimed(&holding.claim.kind);
        let span = AttemptSpan::new(&holding.claim);
        let made = span.inside(|| {
            log!(debug, "started");
            let cx = AsyncContext {
                holding: Arc::clone(holding),
            };
            match &holding.claim.payload {
                StoredPayload::Whole(payload) => match caught(|| entry.future(payload, cx)) {
                    Ok(Ok(future)) => Ok(future),
                    Ok(Err(error)) => Err(End::Undecodable(error.to_string())),
                    Err(panic) => Err(End::Panicked(panic)),
                },
                StoredPayload::Damaged(how) => Err(End::Damaged(how)),
            }
        });
        match made {
            Ok(future) => {
                self.stage = Stage::Flies(Box::new(Flying {
                    running,
                    future,
                    span,
                }));
            }
            Err(end) => {
                span.inside(|| log_end(&end, holding));
                self.end(running, end);
            }
        }
    }

    /// Drops the handler's future, then ends the attempt.
    fn land(&mut self, end: End) {
        let Stage::Flies(flying) = mem::replace(&mut self.stage, Stage::Ended) else {
            return;
        };
        let Flying {
            running,
            future,
            span,
        } = *flying;
        span.inside(|| {
            if survive(|| drop(future)).is_none() {
                log!(error, "the handler's future panicked when it was dropped");
            }
            log_end(&end, &running.context().holding);
        });
        drop(span);
        self.end(running, end);
    }

    /// Ends the attempt, after a completion that it may still run.
    fn end(&self, running: Running, end: End) {
        let holding = Arc::clone(&running.context().holding);
        holding.token.forget();
        let fibers = self.fibers.clone();
        holding.over(move || {
            if running.end(end) == Returned::Late
                && let Some(fibers) = fibers
            {
                fibers.note_late();
            }
        });
    }
}

impl Future for Flight {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let flight = &mut *self;
        let Some(link) = flight.link.upgrade() else {
            // Its task was taken back, and the scheduler is gone.
            return Poll::Ready(());
        };
        flight.polls.begin();
        let Some(polled) = flight.fly(cx, &link) else {
            // The handler has forked, and this is the child: the attempt is the parent's.
            mem::forget(mem::replace(&mut flight.stage, Stage::Ended));
            return Poll::Pending;
        };
        let took = flight.polls.end();
        link.polls.took(flight.polls.kind(), took);
        polled
    }
}

impl Flight {
    /// Takes off if it has not, and polls the handler's future. `None` in a child process that it has forked.
    fn fly(&mut self, cx: &mut Context<'_>, link: &Link) -> Option<Poll<()>> {
        let flight = self;
        if let Stage::Waits(unpolled) = &flight.stage {
            if link.client.store.check().is_err() {
                // A fork has copied the executor: the task is the parent's.
                return None;
            }
            let job = unpolled.take();
            flight.stage = Stage::Ended;
            if let Some(job) = job {
                flight.take_off(job, link);
            }
        }
        loop {
            let Stage::Flies(flying) = &mut flight.stage else {
                return Some(Poll::Ready(()));
            };
            let token = &flying.running.context().holding.token;
            if token.is_over(cx.waker()) {
                flight.land(End::returned(Err(Failure::from(
                    "its future was dropped: it had been asked to stop",
                ))));
                return Some(Poll::Ready(()));
            }
            let future = &mut flying.future;
            let polled = flying.span.inside(|| caught(|| future.as_mut().poll(cx)));
            if flight.polls.takes() >= QUICKEST_FORK && link.client.store.check().is_err() {
                return None;
            }
            let end = match polled {
                Ok(Poll::Ready(result)) => End::returned(result),
                Err(panic) => End::Panicked(match flight.fibers {
                    Some(_) if panic.contains("runtime") => format!("{panic}. {ON_WORKERS}"),
                    _ => panic,
                }),
                Ok(Poll::Pending) if token.is_over(cx.waker()) => continue,
                Ok(Poll::Pending) => return Some(Poll::Pending),
            };
            link.places.note_ended();
            flight.land(end);
            return Some(Poll::Ready(()));
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let Some(link) = self.link.upgrade() else {
            return;
        };
        if matches!(self.stage, Stage::Ended) || link.client.store.check().is_err() {
            // In a forked child, the attempt is the parent's.
            return;
        }
        let dropped = || link.places.note_dropped(link.client.now());
        match &self.stage {
            Stage::Flies(flying) => {
                dropped();
                // The handler is not to blame: this costs no attempt.
                let token = &flying.running.context().holding.token;
                let wakers = token.raise(StopReason::ShuttingDown);
                link.signals().call(wakers);
                self.land(End::returned(Err(Failure::from(
                    "interrupted: its executor has dropped its future",
                ))));
            }
            Stage::Waits(unpolled) => {
                // Its drop gives it back.
                if let Some(_job) = unpolled.take() {
                    dropped();
                }
            }
            Stage::Ended => {}
        }
    }
}
