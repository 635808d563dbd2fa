//! Passes on what commits did: to the dispatcher, to maintenance, to subscribers, and to callers that wait for the end of a
//! task.
//!
//! Everything here happens after COMMIT. No receiver can hold up the thread that notifies it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Waker;
use std::{fmt, mem};

use crate::id::TaskId;
use crate::model::event::Event;
use crate::model::recurrence::event::RecurrenceEvent;
use crate::model::settle::Fence;
use crate::panics::survive;
use crate::store::events::Subscriptions;
use crate::store::standing_claim::StandingClaim;
use crate::store::waiters::Waiters;
use crate::sync::lock;
use crate::time::Timestamp;
use crate::wake::Wake;

/// What a commit did that a receiver may need to know.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// The earliest instant at which the commit may have made something due.
    pub(crate) due: Option<Timestamp>,
    /// Attempts of this instance whose cancellation was requested.
    pub(crate) cancelled: Vec<Fence>,
    /// Whether a queue was paused, resumed or limited.
    pub(crate) queues: bool,
    pub(crate) ended: Vec<TaskId>,
    pub(crate) events: Vec<Event>,
    pub(crate) recurrence_events: Vec<RecurrenceEvent>,
}

impl News {
    pub(crate) fn due_at(&mut self, at: Timestamp) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

/// The receivers of news.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    runner: Mutex<Option<Wake>>,
    cancelled: Mutex<HashSet<Fence>>,
    standing_claim: Arc<StandingClaim>,
    maintenance: Mutex<Option<Wake>>,
    expiry: Mutex<Option<Timestamp>>,
    waiters: Waiters,
    subscriptions: Subscriptions,
    recurrence_subscriptions: Subscriptions<RecurrenceEvent>,
    wakers: OnceLock<Box<dyn CallWakers>>,
    /// Wakers are called by the thread that hands them over.
    calls_here: AtomicBool,
}

/// Calls wakers, on threads that they may hold up: they are the program's code.
pub(crate) trait CallWakers: fmt::Debug + Send + Sync {
    /// Adds the waker of who waits for what a write publishes. It is called once no thread writes.
    fn after_write(&self, waker: Waker);

    /// Has wakers called, without waiting for that. Not for a thread that writes.
    fn call(&self, wakers: Vec<Waker>);
}

impl Signals {
    /// Sets the dispatcher's wake, which is notified of everything that may concern the dispatcher.
    pub(crate) fn set_runner(&self, wake: Wake) {
        self.standing_claim.set_runner(wake.clone());
        *lock(&self.runner) = Some(wake);
    }

    /// The claim that the dispatcher leaves with the store.
    pub(crate) fn standing_claim(&self) -> &Arc<StandingClaim> {
        &self.standing_claim
    }

    /// Sets what calls wakers.
    pub(crate) fn set_wakers(&self, wakers: impl CallWakers + 'static) {
        let _ = self.wakers.set(Box::new(wakers));
    }

    /// Has wakers called by the threads that hand them over, for a scheduler that is stepped.
    #[cfg(feature = "testing")]
    pub(crate) fn call_wakers_here(&self) {
        self.calls_here.store(true, Ordering::Relaxed);
    }

    /// Has wakers called, without waiting for that: they are the program's code, and may block. Not for a thread that writes.
    pub(crate) fn call(&self, wakers: Vec<Waker>) {
        match self.wakers.get() {
            Some(_) if wakers.is_empty() => {}
            Some(callers) if !self.calls_here.load(Ordering::Relaxed) => callers.call(wakers),
            _ => {
                for waker in wakers {
                    let _ = survive(|| waker.wake());
                }
            }
        }
    }

    /// Sets the wake of maintenance, which is notified of earlier start deadlines.
    pub(crate) fn set_maintenance(&self, wake: Wake) {
        *lock(&self.maintenance) = Some(wake);
    }

    /// Notes attempts whose cancellation was requested. Call it before the callers are answered, so that no such attempt
    /// that still waits for a worker is started after the answer.
    pub(crate) fn cancel(&self, attempts: &[Fence]) {
        if !attempts.is_empty() {
            lock(&self.cancelled).extend(attempts);
        }
    }

    /// Whether the cancellation of an attempt was requested, and not passed on yet.
    pub(crate) fn is_cancelled(&self, attempt: Fence) -> bool {
        lock(&self.cancelled).contains(&attempt)
    }

    /// Gives the noted cancellations, if there are any, to `pass_on`, and forgets them after that. Not under the lock: it may
    /// wake code of the user's, and commits that cancel need the lock.
    pub(crate) fn pass_on_cancelled(&self, pass_on: impl FnOnce(&HashSet<Fence>)) {
        let cancelled = lock(&self.cancelled).clone();
        if !cancelled.is_empty() {
            pass_on(&cancelled);
            lock(&self.cancelled).retain(|fence| !cancelled.contains(fence));
        }
    }

    /// Takes the earliest start deadline that was added since the last call.
    pub(crate) fn take_expiry(&self) -> Option<Timestamp> {
        lock(&self.expiry).take()
    }

    /// Notes a new start deadline, and wakes maintenance if it would sleep beyond that.
    pub(crate) fn expires(&self, at: Timestamp) {
        {
            let mut expiry = lock(&self.expiry);
            *expiry = Some(expiry.map_or(at, |known| known.min(at)));
        }
        if let Some(wake) = &*lock(&self.maintenance) {
            wake.notify_due(at);
        }
    }

    /// Wakes maintenance if it would sleep beyond an instant at which a recurrence has to be looked at.
    pub(crate) fn recurs(&self, at: Timestamp) {
        if let Some(wake) = &*lock(&self.maintenance) {
            wake.notify_due(at);
        }
    }

    /// Wakes the runner to see what another connection has committed.
    pub(crate) fn look_again(&self) {
        if let Some(wake) = &*lock(&self.runner) {
            wake.notify();
        }
    }

    /// Sends the events of a commit to their subscribers.
    pub(crate) fn publish(&self, news: &mut News) {
        let mut wakers = self.subscriptions.publish(mem::take(&mut news.events));
        let events = mem::take(&mut news.recurrence_events);
        wakers.extend(self.recurrence_subscriptions.publish(events));
        match self.wakers.get() {
            Some(callers) => {
                for waker in wakers {
                    callers.after_write(waker);
                }
            }
            None => self.call(wakers),
        }
    }

    /// Notifies the dispatcher and the waiting callers of what a commit did. Its events are sent already.
    pub(crate) fn notify(&self, news: &News) {
        let wake_now = news.queues || !news.cancelled.is_empty();
        if (wake_now || news.due.is_some())
            && let Some(wake) = &*lock(&self.runner)
        {
            match news.due {
                Some(at) if !wake_now => wake.notify_due(at),
                _ => wake.notify(),
            }
        }
        self.waiters.notify(&news.ended);
    }

    /// The callers that wait for the end of a task.
    pub(crate) fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    /// The subscriptions to events of recurrences.
    pub(crate) fn recurrence_subscriptions(&self) -> &Subscriptions<RecurrenceEvent> {
        &self.recurrence_subscriptions
    }

    /// The subscriptions to events of tasks.
    pub(crate) fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// Ends all subscriptions, and wakes all waiters to look again: no events come any more.
    pub(crate) fn close(&self) {
        let mut wakers = self.subscriptions.close();
        wakers.extend(self.recurrence_subscriptions.close());
        self.call(wakers);
        self.waiters.notify_all();
    }
}
