//! Subscriptions to what happens, to tasks or to recurrences. Each is bounded: a full one loses events and counts them.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use futures_core::Stream;

use crate::model::event::Event;
use crate::sync::lock;

/// All subscriptions of a kind to a store.
#[derive(Debug)]
pub(crate) struct Subscriptions<E = Event> {
    subscribers: Mutex<Vec<Subscriber<E>>>,
    count: AtomicUsize,
    closed: AtomicBool,
}

#[derive(Debug)]
struct Subscriber<E> {
    sender: Sender<E>,
    shared: Arc<Shared>,
}

/// What a subscription and its sender share.
#[derive(Debug, Default)]
struct Shared {
    lost: AtomicU64,
    /// The task that waits for the next event, if one does.
    waker: Mutex<Option<Waker>>,
}

impl Shared {
    fn take_waker(&self) -> Option<Waker> {
        lock(&self.waker).take()
    }
}

impl<E> Default for Subscriptions<E> {
    fn default() -> Self {
        Self {
            subscribers: Mutex::default(),
            count: AtomicUsize::default(),
            closed: AtomicBool::default(),
        }
    }
}

impl<E: Clone> Subscriptions<E> {
    /// Whether there are any. Without one, no events need be made.
    pub(crate) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Sends events to all subscribers. A subscription that is full loses them and counts them. Returns the wakers to call: they
    /// are code of the user's.
    #[must_use]
    pub(crate) fn publish(&self, events: Vec<E>) -> Vec<Waker> {
        let mut wakers = Vec::new();
        if events.is_empty() {
            return wakers;
        }
        let mut subscribers = lock(&self.subscribers);
        subscribers.retain(|subscriber| {
            let stays = events.iter().all(|event| {
                match subscriber.sender.try_send(event.clone()) {
                    Ok(()) => true,
                    Err(error) if error.is_full() => {
                        subscriber.shared.lost.fetch_add(1, Ordering::Relaxed);
                        true
                    }
                    // Its receiver is gone.
                    Err(_) => false,
                }
            });
            wakers.extend(subscriber.shared.take_waker());
            stays
        });
        self.count.store(subscribers.len(), Ordering::Relaxed);
        wakers
    }

    pub(crate) fn subscribe(&self, capacity: usize) -> Events<E> {
        let (sender, receiver) = bounded(capacity.max(1));
        let shared = Arc::<Shared>::default();
        let mut subscribers = lock(&self.subscribers);
        if !self.closed.load(Ordering::Relaxed) {
            subscribers.push(Subscriber {
                sender,
                shared: Arc::clone(&shared),
            });
        }
        self.count.store(subscribers.len(), Ordering::Relaxed);
        Events { receiver, shared }
    }

    /// Ends all subscriptions. Events that they hold can still be received. Returns the wakers to call.
    #[must_use]
    pub(crate) fn close(&self) -> Vec<Waker> {
        let mut subscribers = lock(&self.subscribers);
        self.closed.store(true, Ordering::Relaxed);
        let ended = std::mem::take(&mut *subscribers);
        self.count.store(0, Ordering::Relaxed);
        drop(subscribers);
        let shared: Vec<Arc<Shared>> = ended.into_iter().map(|each| each.shared).collect();
        // The senders are gone by now: whoever is woken finds the end.
        let wakers = shared.iter().filter_map(|shared| shared.take_waker());
        wakers.collect()
    }
}

/// A subscription to what happens to tasks, or to recurrences.
///
/// It is bounded: while it is full, new events are lost and counted, so a slow reader never holds up the scheduler. Dropping
/// the subscription ends it. As an iterator it blocks until the next event, and stops when the subscription has ended.
///
/// # When it ends
///
/// - If the store was opened by a [`Scheduler`](crate::Scheduler): when the scheduler has shut down and its last handler has
///   returned, even if a [`Client`](crate::Client) of it is still in use. What such a client does later makes no events.
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
pub struct Events<E = Event> {
    receiver: Receiver<E>,
    shared: Arc<Shared>,
}

impl<E> Events<E> {
    /// Waits for the next event, at most `timeout`. If the subscription has ended it does not wait.
    pub fn next_within(&self, timeout: Duration) -> Received<E> {
        match self.receiver.recv_timeout(timeout) {
            Ok(event) => Received::Event(event),
            Err(RecvTimeoutError::Timeout) => Received::Nothing,
            Err(RecvTimeoutError::Disconnected) => Received::Ended,
        }
    }

    /// The next event, if one has come. It never waits.
    pub fn try_next(&self) -> Received<E> {
        match self.receiver.try_recv() {
            Ok(event) => Received::Event(event),
            Err(TryRecvError::Empty) => Received::Nothing,
            Err(TryRecvError::Disconnected) => Received::Ended,
        }
    }

    /// How many events were lost because the subscription was full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
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
/// assert!(matches!(events.try_next(), Received::Event(_)));
/// drop(scheduler);
/// assert!(matches!(events.try_next(), Received::Ended));
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a loop that does not look whether the subscription has ended never ends"]
pub enum Received<E = Event> {
    /// The next event.
    Event(E),
    /// There is no event yet; there may be one later.
    Nothing,
    /// The subscription has ended, and all its events were received: every later call answers the same, at once.
    Ended,
}

impl<E> Received<E> {
    /// The event, if there is one. `None` means "not yet" or "never again", so it must not be the condition of a loop.
    #[must_use]
    pub fn event(self) -> Option<E> {
        match self {
            Self::Event(event) => Some(event),
            Self::Nothing | Self::Ended => None,
        }
    }
}

impl<E> Iterator for Events<E> {
    type Item = E;

    fn next(&mut self) -> Option<E> {
        self.receiver.recv().ok()
    }
}

/// A subscription to what happens, for async code: a [`Stream`], and not an iterator, so that `next` of the usual extension traits
/// can be called. It is bounded and ends as [`Events`] do. Made by [`AsyncClient::events`](crate::AsyncClient::events), or from
/// [`Events`]. Wakers are called by a thread of the store, after the commit that the event is of.
///
/// # Example
///
/// ```
/// use futures_core::Stream;
/// use punctual::AsyncClient;
/// use std::future::poll_fn;
/// use std::pin::Pin;
///
/// async fn follow(client: &AsyncClient) {
///     let mut events = client.events();
///     // With `StreamExt` of a crate like `futures`: `while let Some(event) = events.next().await`.
///     while let Some(event) = poll_fn(|cx| Pin::new(&mut events).poll_next(cx)).await {
///         println!("{} {:?}", event.task(), event.kind());
///     }
/// }
/// ```
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is polled"]
pub struct EventStream<E = Event>(Events<E>);

impl<E> EventStream<E> {
    /// How many events were lost because the subscription was full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost()
    }
}

impl<E> From<Events<E>> for EventStream<E> {
    fn from(events: Events<E>) -> Self {
        Self(events)
    }
}

impl<E> Stream for EventStream<E> {
    type Item = E;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<E>> {
        let Events { receiver, shared } = &self.0;
        let waker = cx.waker().clone();
        let received = || match receiver.try_recv() {
            Ok(event) => Poll::Ready(Some(event)),
            Err(TryRecvError::Disconnected) => Poll::Ready(None),
            Err(TryRecvError::Empty) => Poll::Pending,
        };
        let first = received();
        if first.is_ready() {
            return first;
        }
        let old = lock(&shared.waker).replace(waker);
        drop(old);
        // One may have come before the waker was there.
        received()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::id::TaskId;
    use crate::model::event::EventKind;
    use crate::time::Timestamp;

    pub(crate) fn event() -> Event {
        Event {
            task: TaskId::new(),
            task_kind: "kind".into(),
            queue: "default".into(),
            kind: EventKind::Scheduled,
            at: Timestamp::MIN,
        }
    }

    fn events(count: usize) -> Vec<Event> {
        (0..count).map(|_| event()).collect()
    }

    #[test]
    fn p14_a_slow_subscriber_loses_and_counts() {
        let subscriptions = Subscriptions::default();
        let slow = subscriptions.subscribe(2);
        let fast = subscriptions.subscribe(10);
        drop(subscriptions.publish(events(5)));
        assert_eq!(slow.lost(), 3);
        assert_eq!(fast.lost(), 0);
        for _ in 0..2 {
            assert!(matches!(slow.try_next(), Received::Event(_)));
        }
        assert!(matches!(slow.try_next(), Received::Nothing));
    }

    #[test]
    fn a_dropped_subscription_is_forgotten() {
        let subscriptions = Subscriptions::default();
        drop(subscriptions.subscribe(2));
        assert!(subscriptions.any());
        drop(subscriptions.publish(events(1)));
        assert!(!subscriptions.any());
    }

    #[test]
    fn a_close_ends_all_subscriptions() {
        let subscriptions = Subscriptions::default();
        let [first, others] = [subscriptions.subscribe(2), subscriptions.subscribe(2)];
        drop(subscriptions.publish(events(1)));
        drop(subscriptions.close());
        assert_eq!(first.count(), 1);
        assert!(matches!(others.try_next(), Received::Event(_)));
        assert!(matches!(others.try_next(), Received::Ended));
        let late = subscriptions.subscribe(1);
        assert!(matches!(late.next_within(Duration::MAX), Received::Ended));
        assert_eq!(late.count(), 0);
    }
}
