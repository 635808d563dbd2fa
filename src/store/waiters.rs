//! Callers that wait for the end of a task.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::id::TaskId;
use crate::sync::lock;
use crate::wake::Wake;

/// All waiting callers, by task.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    calls: Mutex<HashMap<TaskId, Vec<Arc<Call>>>>,
    count: AtomicUsize,
}

/// How a waiting caller is told. Several calls may share a wake: then the flag says whose task it is.
#[derive(Debug)]
pub(crate) struct Call {
    is_told: AtomicBool,
    wake: Wake,
}

impl Call {
    pub(crate) fn new(wake: Wake) -> Arc<Self> {
        Arc::new(Self {
            is_told: AtomicBool::new(false),
            wake,
        })
    }

    /// Whether it was told since this was last asked.
    pub(crate) fn was_told(&self) -> bool {
        self.is_told.swap(false, Ordering::AcqRel)
    }

    fn tell(&self) {
        self.is_told.store(true, Ordering::Release);
        self.wake.notify();
    }
}

impl Waiters {
    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Registers for the end of a task. Register first, then read the task's state: an end in between notifies.
    pub(crate) fn wait_for(&self, id: TaskId) -> Waiter<'_> {
        let call = Call::new(Wake::new());
        self.add(id, Arc::clone(&call));
        Waiter {
            waiters: self,
            id,
            call,
        }
    }

    /// As [`wait_for`](Self::wait_for), until [`remove`](Self::remove).
    pub(crate) fn add(&self, id: TaskId, call: Arc<Call>) {
        lock(&self.calls).entry(id).or_default().push(call);
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn remove(&self, id: TaskId, call: &Arc<Call>) {
        let mut by_task = lock(&self.calls);
        if let Some(calls) = by_task.get_mut(&id) {
            calls.retain(|each| !Arc::ptr_eq(each, call));
            if calls.is_empty() {
                by_task.remove(&id);
            }
        }
        self.count.fetch_sub(1, Ordering::SeqCst);
    }

    /// Wakes the callers that wait for these tasks: they have ended.
    pub(crate) fn notify(&self, ended: &[TaskId]) {
        if self.count.load(Ordering::SeqCst) > 0 {
            let calls = lock(&self.calls);
            for id in ended {
                calls
                    .get(id)
                    .into_iter()
                    .flatten()
                    .for_each(|call| call.tell());
            }
        }
    }

    /// Wakes all waiting callers, to look again.
    pub(crate) fn notify_all(&self) {
        let calls = lock(&self.calls);
        calls.values().flatten().for_each(|call| call.tell());
    }
}

/// A registration for the end of one task. Dropping it unregisters.
#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    waiters: &'a Waiters,
    id: TaskId,
    call: Arc<Call>,
}

impl Waiter<'_> {
    /// Blocks until the task ends, at most for `span`. It may return early.
    pub(crate) fn wait(&self, span: Duration) {
        self.call.wake.wait(span);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.waiters.remove(self.id, &self.call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_are_told_of_their_task_only_and_leave_nothing_behind() {
        let waiters = Waiters::default();
        let id = TaskId::new();
        let waiter = waiters.wait_for(id);
        let other = waiters.wait_for(TaskId::new());
        waiters.notify(&[id]);
        assert!(waiter.call.wake.wait(Duration::ZERO));
        assert!(!other.call.wake.wait(Duration::ZERO));
        drop((waiter, other));
        assert!(lock(&waiters.calls).is_empty());
        assert!(!waiters.any());
    }
}
