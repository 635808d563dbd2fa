//! Where commits are told: to the dispatcher, to subscribers, to whoever waits for the end of a task.
//!
//! Everything here happens after COMMIT. Nobody who is told can hold up the teller: a full subscription loses events and
//! counts them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use crate::id::TaskId;
use crate::model::event::Event;
use crate::model::settle::Fence;
use crate::store::standing::Standing;
use crate::time::Timestamp;
use crate::wake::{Wake, lock};

/// What a commit did that somebody may want to know.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// The earliest instant at which something became due that may not have been before.
    pub(crate) due: Option<Timestamp>,
    /// Attempts of this instance whose cancellation was asked for.
    pub(crate) cancelled: Vec<Fence>,
    /// Whether a queue was paused or resumed.
    pub(crate) queues: bool,
    pub(crate) ended: Vec<TaskId>,
    pub(crate) events: Vec<Event>,
}

impl News {
    pub(crate) fn due_at(&mut self, at: Timestamp) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

/// Tells news to whoever asked for them.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    runner: Mutex<Option<Wake>>,
    cancelled: Mutex<Vec<Fence>>,
    standing: Arc<Standing>,
    maintenance: Mutex<Option<Wake>>,
    expiry: Mutex<Option<Timestamp>>,
    waiters: Mutex<HashMap<TaskId, Vec<Wake>>>,
    waiter_count: AtomicUsize,
    subscribers: Mutex<Vec<Subscriber>>,
    subscriber_count: AtomicUsize,
    closed: AtomicBool,
}

#[derive(Debug)]
struct Subscriber {
    sender: Sender<Event>,
    lost: Arc<AtomicU64>,
}

impl Hub {
    /// The dispatcher's wake: it is notified of everything that may be for it.
    pub(crate) fn set_runner(&self, wake: Wake) {
        self.standing.set_runner(wake.clone());
        *lock(&self.runner) = Some(wake);
    }

    /// The claim that the runner leaves with the store.
    pub(crate) fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// The wake of maintenance: it is notified of earlier start deadlines.
    pub(crate) fn set_maintenance(&self, wake: Wake) {
        *lock(&self.maintenance) = Some(wake);
    }

    /// Notes that the cancellation of attempts was asked for. Before their callers are answered, so that none of them that
    /// waits for a worker is started after the answer.
    pub(crate) fn cancel(&self, attempts: &[Fence]) {
        if !attempts.is_empty() {
            lock(&self.cancelled).extend(attempts);
        }
    }

    /// Whether the cancellation of an attempt was asked for, and not passed on yet.
    pub(crate) fn is_cancelled(&self, attempt: Fence) -> bool {
        lock(&self.cancelled).contains(&attempt)
    }

    /// Has the noted cancellations passed on, if there are any, and forgets them after that.
    pub(crate) fn pass_on_cancelled(&self, pass_on: impl FnOnce(&[Fence])) {
        let mut cancelled = lock(&self.cancelled);
        if !cancelled.is_empty() {
            pass_on(&cancelled);
            cancelled.clear();
        }
    }

    /// Whether anybody waits for the end of a task.
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiter_count.load(Ordering::Relaxed) > 0
    }

    /// Whether anybody listens to events, so that nobody makes them in vain.
    pub(crate) fn wants_events(&self) -> bool {
        self.subscriber_count.load(Ordering::Relaxed) > 0
    }

    /// Takes the earliest start deadline that was added since the last call.
    pub(crate) fn take_expiry(&self) -> Option<Timestamp> {
        lock(&self.expiry).take()
    }

    /// A start deadline was added: maintenance is woken if it sleeps beyond it.
    pub(crate) fn expires(&self, at: Timestamp) {
        {
            let mut expiry = lock(&self.expiry);
            *expiry = Some(expiry.map_or(at, |known| known.min(at)));
        }
        if let Some(wake) = &*lock(&self.maintenance) {
            wake.notify_due(at);
        }
    }

    /// Another connection has committed something: the runner is woken to look what that means for it.
    pub(crate) fn look_again(&self) {
        if let Some(wake) = &*lock(&self.runner) {
            wake.notify();
        }
    }

    pub(crate) fn tell(&self, news: News) {
        let wake_now = news.queues || !news.cancelled.is_empty();
        if (wake_now || news.due.is_some())
            && let Some(wake) = &*lock(&self.runner)
        {
            match news.due {
                Some(at) if !wake_now => wake.notify_due(at),
                _ => wake.notify(),
            }
        }
        if self.waiter_count.load(Ordering::SeqCst) > 0 {
            let waiters = lock(&self.waiters);
            for id in &news.ended {
                waiters.get(id).into_iter().flatten().for_each(Wake::notify);
            }
        }
        if !news.events.is_empty() {
            self.publish(news.events);
        }
    }

    fn publish(&self, events: Vec<Event>) {
        let mut subscribers = lock(&self.subscribers);
        subscribers.retain(|subscriber| {
            events.iter().all(|event| {
                match subscriber.sender.try_send(event.clone()) {
                    Ok(()) => true,
                    Err(error) if error.is_full() => {
                        subscriber.lost.fetch_add(1, Ordering::Relaxed);
                        true
                    }
                    // Its receiver is gone.
                    Err(_) => false,
                }
            })
        });
        self.subscriber_count
            .store(subscribers.len(), Ordering::Relaxed);
    }

    pub(crate) fn subscribe(&self, capacity: usize) -> Events {
        let (sender, receiver) = bounded(capacity.max(1));
        let lost = Arc::new(AtomicU64::new(0));
        let mut subscribers = lock(&self.subscribers);
        if !self.closed.load(Ordering::Relaxed) {
            subscribers.push(Subscriber {
                sender,
                lost: Arc::clone(&lost),
            });
        }
        self.subscriber_count
            .store(subscribers.len(), Ordering::Relaxed);
        Events { receiver, lost }
    }

    /// Registers for the end of a task. Register first, then look at its state: an end in between notifies.
    pub(crate) fn wait_for(self: &Hub, id: TaskId) -> Waiter<'_> {
        let wake = Wake::new();
        let mut waiters = lock(&self.waiters);
        waiters.entry(id).or_default().push(wake.clone());
        self.waiter_count.fetch_add(1, Ordering::SeqCst);
        Waiter {
            hub: self,
            id,
            wake,
        }
    }

    /// Ends all subscriptions: what they hold can still be received.
    pub(crate) fn close(&self) {
        let mut subscribers = lock(&self.subscribers);
        self.closed.store(true, Ordering::Relaxed);
        subscribers.clear();
        self.subscriber_count.store(0, Ordering::Relaxed);
        lock(&self.waiters)
            .values()
            .flatten()
            .for_each(Wake::notify);
    }
}

/// A registration for the end of one task; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    hub: &'a Hub,
    id: TaskId,
    wake: Wake,
}

impl Waiter<'_> {
    /// Blocks until the task ends, or for `span`.
    pub(crate) fn wait(&self, span: Duration) {
        self.wake.wait(span);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiters = lock(&self.hub.waiters);
        if let Some(wakes) = waiters.get_mut(&self.id) {
            wakes.retain(|wake| !wake.is_same(&self.wake));
            if wakes.is_empty() {
                waiters.remove(&self.id);
            }
        }
        self.hub.waiter_count.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A subscription to what happens to tasks.
///
/// Bounded: while it is full, new events are lost and counted, so a slow reader never holds up the scheduler. Dropping it
/// ends it. As an iterator it blocks for the next event, and is over when the subscription has ended.
///
/// # When it ends
///
/// - If the store was opened by a [`Scheduler`](crate::Scheduler): when the scheduler has shut down and its last handler
///   has returned, even if a [`Client`](crate::Client) of it is still in use. What such a client then does is told to
///   nobody.
/// - If it was opened by [`Client::open`](crate::Client::open): when the last clone of that client is dropped.
/// - When the store has stopped (see [`Health::stopped`](crate::Health::stopped)) and a scheduler has given it up.
///
/// Events from before the end are received first. A subscription that is made after the end has ended at once.
///
/// # Example
///
/// The loop of a thread that follows what happens, and does something else in between:
///
/// ```
/// # use punctual::{NewTask, Received, Scheduler};
/// # use std::time::Duration;
/// # let scheduler = Scheduler::in_memory().start()?;
/// let events = scheduler.events();
/// scheduler.schedule(NewTask::with_kind("remind", &7))?;
/// # scheduler.shutdown(Duration::from_secs(10))?;
/// loop {
///     match events.next_within(Duration::from_secs(1)) {
///         Received::Event(event) => println!("{} {:?}", event.task(), event.kind()),
///         Received::Nothing => println!("all quiet"),
///         // Without this the loop would spin: an ended subscription answers at once.
///         Received::Ended => break,
///     }
/// }
/// assert_eq!(events.lost(), 0);
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug)]
pub struct Events {
    receiver: Receiver<Event>,
    lost: Arc<AtomicU64>,
}

impl Events {
    /// Waits for the next event, at most `timeout`. If the subscription has ended it does not wait.
    pub fn next_within(&self, timeout: Duration) -> Received {
        match self.receiver.recv_timeout(timeout) {
            Ok(event) => Received::Event(event),
            Err(RecvTimeoutError::Timeout) => Received::Nothing,
            Err(RecvTimeoutError::Disconnected) => Received::Ended,
        }
    }

    /// The next event, if one has come. It never waits.
    pub fn try_next(&self) -> Received {
        match self.receiver.try_recv() {
            Ok(event) => Received::Event(event),
            Err(TryRecvError::Empty) => Received::Nothing,
            Err(TryRecvError::Disconnected) => Received::Ended,
        }
    }

    /// How many events were lost because the subscription was full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// What [`Events::next_within`] and [`Events::try_next`] answer.
///
/// # Example
///
/// ```
/// # use punctual::{NewTask, Received, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// let events = scheduler.events();
/// assert!(matches!(events.try_next(), Received::Nothing));
/// scheduler.schedule(NewTask::with_kind("remind", &7))?;
/// assert!(events.try_next().event().is_some());
/// drop(scheduler);
/// assert!(matches!(events.try_next(), Received::Ended));
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a loop that does not look whether the subscription has ended never ends"]
pub enum Received {
    /// The next event.
    Event(Event),
    /// There is no event yet; there may be one later.
    Nothing,
    /// The subscription has ended, and all its events were received: every later call answers the same, at once.
    Ended,
}

impl Received {
    /// The event, if there is one. It does not tell "not yet" from "never again": for what comes after a wait, not for the
    /// condition of a loop.
    #[must_use]
    pub fn event(self) -> Option<Event> {
        match self {
            Self::Event(event) => Some(event),
            Self::Nothing | Self::Ended => None,
        }
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.receiver.recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::EventKind;

    fn event() -> Event {
        Event {
            task: TaskId::new(),
            task_kind: "kind".into(),
            queue: "default".into(),
            kind: EventKind::Scheduled,
            at: Timestamp::MIN,
        }
    }

    fn news(count: usize) -> News {
        News {
            events: (0..count).map(|_| event()).collect(),
            ..News::default()
        }
    }

    #[test]
    fn p14_a_slow_subscriber_loses_and_counts() {
        let hub = Hub::default();
        let slow = hub.subscribe(2);
        let fast = hub.subscribe(10);
        hub.tell(news(5));
        assert_eq!(slow.lost(), 3);
        assert_eq!(fast.lost(), 0);
        for _ in 0..2 {
            assert!(matches!(slow.try_next(), Received::Event(_)));
        }
        assert!(matches!(slow.try_next(), Received::Nothing));
    }

    #[test]
    fn a_dropped_subscription_is_forgotten() {
        let hub = Hub::default();
        drop(hub.subscribe(2));
        assert!(hub.wants_events());
        hub.tell(news(1));
        assert!(!hub.wants_events());
    }

    #[test]
    fn a_closed_hub_ends_its_subscriptions() {
        let hub = Hub::default();
        let [events, others] = [hub.subscribe(2), hub.subscribe(2)];
        hub.tell(news(1));
        hub.close();
        assert_eq!(events.count(), 1);
        assert!(matches!(others.try_next(), Received::Event(_)));
        assert!(matches!(others.try_next(), Received::Ended));
        let late = hub.subscribe(1);
        assert!(matches!(late.next_within(Duration::MAX), Received::Ended));
        assert_eq!(late.count(), 0);
    }

    #[test]
    fn waiters_are_told_of_their_task_only_and_leave_nothing_behind() {
        let hub = Hub::default();
        let id = TaskId::new();
        let waiter = hub.wait_for(id);
        let other = hub.wait_for(TaskId::new());
        hub.tell(News {
            ended: vec![id],
            ..News::default()
        });
        assert!(waiter.wake.wait(Duration::ZERO));
        assert!(!other.wake.wait(Duration::ZERO));
        drop((waiter, other));
        assert!(lock(&hub.waiters).is_empty());
        assert_eq!(hub.waiter_count.load(Ordering::SeqCst), 0);
    }
}
