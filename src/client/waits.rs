//! Waits for the ends of tasks that hold no thread each: one thread looks for all of them.
//!
//! An end in this process tells the thread. For ends in other processes it looks at the state of each task that is waited for,
//! at first often, then less: the longer a wait takes, the later it may notice.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::client::write;
use crate::error::Result;
use crate::id::TaskId;
use crate::log::log;
use crate::model::query::{Answer, Query};
use crate::model::task::{Ended, TaskState};
use crate::panics::survive;
use crate::store::Store;
use crate::store::waiters::Call;
use crate::sync::lock;
use crate::thread::Thread;
use crate::time::{Deadline, Stopwatch};
use crate::wake::Wake;

/// A wait looks each time an eighth of its length so far has passed, within these bounds.
const SOONEST_LOOK: Duration = Duration::from_millis(5);
const LATEST_LOOK: Duration = Duration::from_millis(500);
/// So many states are read at once.
const AT_ONCE: usize = 500;
/// How long the thread rests after a panic.
const AFTER_PANIC: Duration = Duration::from_secs(1);
/// How long the thread stays when nobody waits.
const IDLE: Duration = Duration::from_secs(10);

/// All waits of a client and its clones.
#[derive(Debug, Default)]
pub(crate) struct Waits(Arc<Room>);

#[derive(Debug, Default)]
struct Room {
    state: Mutex<State>,
    wake: Wake,
}

#[derive(Debug, Default)]
struct State {
    waits: BTreeMap<u64, Place>,
    last: u64,
    has_thread: bool,
    closed: bool,
}

struct Place {
    id: TaskId,
    call: Arc<Call>,
    since: Stopwatch,
    look: Deadline,
    deadline: Deadline,
    waker: Option<Waker>,
    answer: Option<Result<Option<Ended>>>,
}

impl Waits {
    /// Waits for the end of a task, for at most `timeout`.
    ///
    /// # Errors
    ///
    /// `Storage` if no thread can be started.
    pub(crate) fn wait(
        &self,
        store: &Arc<dyn Store>,
        id: TaskId,
        timeout: Duration,
    ) -> Result<Wait> {
        let call = Call::new(self.0.wake.clone());
        let mut state = lock(&self.0.state);
        if !state.has_thread {
            let (room, store) = (Arc::clone(&self.0), Arc::clone(store));
            Thread::spawn("punctual-waits", move || {
                while survive(|| room.work(&*store)).is_none() {
                    log!(error, "the thread of the waits panicked; it goes on");
                    room.wake.wait(AFTER_PANIC);
                }
            })?;
            state.has_thread = true;
        }
        state.last += 1;
        let number = state.last;
        store.signals().waiters().add(id, Arc::clone(&call));
        state.waits.insert(
            number,
            Place {
                id,
                call: Arc::clone(&call),
                since: Stopwatch::start(),
                look: Deadline::after(Duration::ZERO),
                deadline: Deadline::after(timeout),
                waker: None,
                answer: None,
            },
        );
        drop(state);
        self.0.wake.notify();
        Ok(Wait {
            room: Arc::clone(&self.0),
            store: Arc::clone(store),
            number,
            id,
            call,
        })
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        lock(&self.0.state).closed = true;
        self.0.wake.notify();
    }
}

impl Room {
    fn work(&self, store: &dyn Store) {
        let mut idle = Deadline::after(IDLE);
        loop {
            let (due, next) = self.due();
            let mut wakers = Vec::new();
            for chunk in due.chunks(AT_ONCE) {
                let ids = chunk.iter().map(|(_, id, _)| *id).collect();
                let states = store.read(Query::States(ids)).map(Answer::states);
                for (index, (number, id, is_over)) in chunk.iter().enumerate() {
                    let answer = match &states {
                        Ok(states) => ended(store, *id, states[index]),
                        Err(error) => Err(error.clone().with_task(*id)),
                    };
                    if !matches!(answer, Ok(None)) || *is_over {
                        wakers.extend(self.answer(*number, answer));
                    }
                }
            }
            store.signals().call(wakers);
            let mut state = lock(&self.state);
            if !state.waits.is_empty() {
                idle = Deadline::after(IDLE);
            } else if state.closed || idle.is_over() {
                state.has_thread = false;
                return;
            }
            drop(state);
            self.wake.wait(next.unwrap_or_else(|| idle.remaining()));
        }
    }

    /// The waits whose tasks are to be looked at, with whether each ends with this look, and how long there is none after them.
    fn due(&self) -> (Vec<(u64, TaskId, bool)>, Option<Duration>) {
        let mut state = lock(&self.state);
        let (mut due, mut next) = (Vec::new(), None::<Duration>);
        for (number, place) in &mut state.waits {
            if place.answer.is_some() {
                continue;
            }
            let is_over = place.deadline.is_over();
            if place.call.was_told() || place.look.is_over() || is_over {
                due.push((*number, place.id, is_over));
                let span = (place.since.elapsed() / 8).clamp(SOONEST_LOOK, LATEST_LOOK);
                place.look = Deadline::after(span);
            }
            let span = place.look.remaining().min(place.deadline.remaining());
            next = Some(next.map_or(span, |next| next.min(span)));
        }
        (due, next)
    }

    /// Ends a wait. Returns the waker to call.
    fn answer(&self, number: u64, answer: Result<Option<Ended>>) -> Option<Waker> {
        let mut state = lock(&self.state);
        let place = state.waits.get_mut(&number)?;
        place.answer = Some(answer);
        place.waker.take()
    }
}

/// The task of this state, if it has ended.
fn ended(store: &dyn Store, id: TaskId, state: Option<TaskState>) -> Result<Option<Ended>> {
    if !state.ok_or_else(|| write::not_found(id))?.is_final() {
        return Ok(None);
    }
    let task = store.read(Query::Task(id));
    let task = task.map_err(|error| error.with_task(id))?.task();
    let task = *task.ok_or_else(|| write::not_found(id))?;
    // A retry may fall between the two reads.
    Ok(task.state.is_final().then(|| Ended(task)))
}

/// A wait for the end of a task. Dropping it ends the wait.
pub(crate) struct Wait {
    room: Arc<Room>,
    store: Arc<dyn Store>,
    number: u64,
    id: TaskId,
    call: Arc<Call>,
}

impl Future for Wait {
    type Output = Result<Option<Ended>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = cx.waker().clone();
        let mut state = lock(&self.room.state);
        let place = state.waits.get_mut(&self.number);
        let place = place.expect("it is there until this is dropped");
        if let Some(answer) = place.answer.take() {
            drop(state);
            return Poll::Ready(answer);
        }
        let old = place.waker.replace(waker);
        drop(state);
        drop(old);
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let place = lock(&self.room.state).waits.remove(&self.number);
        drop(place);
        let waiters = self.store.signals().waiters();
        waiters.remove(self.id, &self.call);
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
