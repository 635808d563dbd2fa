//! For tests of programs that use the crate: a clock that moves by hand, and a scheduler that is stepped.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::client::Client;
use crate::clock::Clock;
use crate::error::Result;
use crate::model::health::Health;
use crate::runtime::dispatcher::Dispatcher;
use crate::runtime::executor::{Executor, Ran};
use crate::runtime::maintenance::Maintenance;
use crate::runtime::service::{Next, Service};
use crate::scheduler::builder::Builder;
use crate::scheduler::parts::Parts;
use crate::sync::lock;
use crate::time::Timestamp;
use crate::wake::Wake;

/// A clock that stands still until it is moved. Clones show the same time.
///
/// # Example
///
/// ```
/// use punctual::testing::TestClock;
/// use std::time::Duration;
///
/// let clock = TestClock::new("2026-03-01T09:00:00Z".parse().unwrap());
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().to_rfc3339(), "2026-03-01T09:01:00+00:00");
/// ```
#[derive(Clone)]
pub struct TestClock(Arc<Mutex<State>>);

struct State {
    now: Timestamp,
    /// Waiters for the time to move.
    parked: Vec<Wake>,
}

impl TestClock {
    /// Makes a clock that stands at `now`; outside the years 1970 to 9999, at the nearest end.
    #[must_use]
    pub fn new(now: DateTime<Utc>) -> Self {
        let now =
            Timestamp::from_micros(now.timestamp_micros()).clamp(Timestamp::MIN, Timestamp::MAX);
        Self(Arc::new(Mutex::new(State {
            now,
            parked: Vec::new(),
        })))
    }

    /// The time that the clock shows.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        lock(&self.0).now.to_utc()
    }

    /// Moves the clock forward.
    pub fn advance(&self, span: Duration) {
        let now = lock(&self.0).now + span;
        self.move_to(now);
    }

    /// Sets the clock, forward or back.
    pub fn set(&self, now: DateTime<Utc>) {
        self.move_to(
            Timestamp::from_micros(now.timestamp_micros()).clamp(Timestamp::MIN, Timestamp::MAX),
        );
    }

    fn move_to(&self, now: Timestamp) {
        let parked = {
            let mut state = lock(&self.0);
            state.now = now;
            std::mem::take(&mut state.parked)
        };
        for wake in parked {
            wake.notify();
        }
    }
}

impl fmt::Debug for TestClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestClock({})", self.now())
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        lock(&self.0).now
    }

    fn park(&self, wake: &Wake, until: Option<Timestamp>) {
        {
            let mut state = lock(&self.0);
            if until.is_some_and(|until| until <= state.now) {
                drop(state);
                // The caller is awake: from here on each notification must reach it.
                wake.wait(Duration::ZERO);
                return;
            }
            state.parked.push(wake.clone());
        }
        // The time may never move again, so even this wait ends: the loop that waits then looks again and waits again.
        wake.wait(crate::time::MAX_PARK);
        lock(&self.0).parked.retain(|parked| !parked.is_same(wake));
    }
}

/// A scheduler without threads: a test steps it, and time moves by hand.
///
/// Steps the production loops, in turn, on the calling thread; handlers run there too. Made by [`Builder::stepped`]. Derefs to
/// a [`Client`].
///
/// While a handler runs, no loop is stepped: a handler that moves the clock beyond its time limit is not asked to stop, though
/// its attempt ends as timed out. [`cancelled_within`](crate::TaskContext::cancelled_within) waits in real time.
///
/// # Example
///
/// ```
/// use punctual::testing::TestClock;
/// use punctual::{NewTask, Outcome, Payload, Scheduler, TaskState};
/// use serde::{Deserialize, Serialize};
/// use std::time::Duration;
///
/// #[derive(Serialize, Deserialize)]
/// struct Remind;
/// impl Payload for Remind { const KIND: &'static str = "remind"; }
///
/// let clock = TestClock::new("2026-03-01T09:00:00Z".parse()?);
/// let mut scheduler = Scheduler::in_memory()
///     .handler_fn(|_: Remind, _cx| Ok(Outcome::done()))
///     .stepped(&clock)?;
/// let day = Duration::from_secs(24 * 3600);
/// let task = scheduler.schedule(NewTask::new(Remind).after(day))?.id();
/// assert_eq!(scheduler.drain(), 0, "not due yet");
/// assert_eq!(scheduler.advance(day), 1);
/// assert_eq!(scheduler.get(task)?.unwrap().state(), TaskState::Completed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Stepper {
    parts: Parts,
    clock: TestClock,
    dispatcher: Dispatcher,
    executor: Executor,
    maintenance: Maintenance,
}

impl Builder {
    /// Uses another clock than the system's.
    pub fn clock(mut self, clock: TestClock) -> Self {
        self.store.of_any.clock = Arc::new(clock);
        self
    }

    /// Opens the storage and makes a scheduler without threads, with `clock` as its time.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn stepped(self, clock: &TestClock) -> Result<Stepper> {
        let parts = self.clock(clock.clone()).build()?;
        Ok(Stepper::new(parts, clock))
    }
}

impl Stepper {
    pub(crate) fn new(parts: Parts, clock: &TestClock) -> Self {
        parts.link.signals().call_wakers_here();
        Self {
            dispatcher: parts.dispatcher(),
            executor: parts.executor(),
            maintenance: parts.maintenance(None),
            clock: clock.clone(),
            parts,
        }
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &TestClock {
        &self.clock
    }

    /// Reports the health of the scheduler, as [`Scheduler::health`](crate::Scheduler::health) does.
    #[must_use]
    pub fn health(&self) -> Health {
        self.parts.health()
    }

    /// Claims and settles what is due to be claimed and settled now, without running a handler.
    fn turn(&mut self) -> Next {
        let now = Clock::now(&self.clock);
        let maintenance = self.maintenance.run_once(now);
        let next = self.dispatcher.run_once(now).or(maintenance);
        // Nothing happens between two steps: the standing claim is withdrawn too.
        self.parts.link.standing_claim().withdraw();
        next
    }

    /// Runs a waiting task, or polls a future that was woken, also by what it has asked the store for. Returns how many attempts
    /// that has ended; `None`: there is neither.
    fn run_one(&self) -> Option<usize> {
        let before = self.ended();
        let ran = self.executor.run_one().or_else(|| {
            let client = &self.parts.client;
            client.beside.writes.finish();
            client.beside.reads.finish();
            client.store.finish_submitted();
            self.executor.run_one()
        })?;
        Some(match ran {
            Ran::Task => 1,
            Ran::Poll => usize::from(self.ended() > before),
        })
    }

    /// How many handlers have returned.
    fn ended(&self) -> u64 {
        let now = Clock::now(&self.clock);
        self.parts.link.attempts.held(now).ended
    }

    /// Runs one claimed or due task to the end of its attempt and settles it. Returns whether there was one; a future that
    /// waits for something else than a write, a read or an event of the store does not count.
    pub fn step(&mut self) -> bool {
        loop {
            let ran = self.run_one().or_else(|| {
                self.turn();
                self.run_one()
            });
            match ran {
                Some(0) => {}
                Some(_) => break,
                None => return false,
            }
        }
        self.turn();
        true
    }

    /// Runs all tasks that are due, and those that become due by running them. Returns the number of attempts that have
    /// ended.
    pub fn drain(&mut self) -> usize {
        let mut ended = 0;
        loop {
            let next = self.turn();
            let mut ran = false;
            while let Some(attempts) = self.run_one() {
                ended += attempts;
                ran = true;
            }
            let again = matches!(next, Next::At(at) if at <= Clock::now(&self.clock));
            if !ran && !again {
                return ended;
            }
        }
    }

    /// Moves the clock forward by `span`, stopping at each instant at which a task is due to run it. Returns the number of
    /// attempts that have ended.
    pub fn advance(&mut self, span: Duration) -> usize {
        let end = Clock::now(&self.clock) + span;
        let mut ran = self.drain();
        loop {
            let now = Clock::now(&self.clock);
            let next = match self.turn() {
                Next::At(at) if at > now => at.min(end),
                _ => end,
            };
            self.clock.move_to(next);
            ran += self.drain();
            if next >= end {
                return ran;
            }
        }
    }
}

impl Deref for Stepper {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.parts.client
    }
}

impl Drop for Stepper {
    /// Gives back claimed tasks that did not run.
    fn drop(&mut self) {
        self.parts.stop();
        for _ in 0..3 {
            if self.turn() == Next::Ended {
                break;
            }
        }
    }
}

impl fmt::Debug for Stepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stepper")
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod forgetting;
#[cfg(test)]
mod year;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p3_a_wait_that_was_over_at_once_does_not_swallow_the_next_notification() {
        let clock = TestClock::new("2026-03-01T09:00:00Z".parse().unwrap());
        let (wake, now) = (Wake::new(), Clock::now(&clock));
        wake.sleep_until(Some(now));
        clock.park(&wake, Some(now));
        wake.notify_due(now + Duration::from_secs(1));
        assert!(wake.wait(Duration::ZERO));
    }
}
