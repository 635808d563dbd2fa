//! Callers that wait for the end of a task.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::id::TaskId;
use crate::sync::lock;
use crate::wake::Wake;

/// All waiting callers, by task.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    wakes: Mutex<HashMap<TaskId, Vec<Wake>>>,
    count: AtomicUsize,
}

impl Waiters {
    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Registers for the end of a task. Register first, then read the task's state: an end in between notifies.
    pub(crate) fn wait_for(&self, id: TaskId) -> Waiter<'_> {
        let wake = Wake::new();
        let mut wakes = lock(&self.wakes);
        wakes.entry(id).or_default().push(wake.clone());
        self.count.fetch_add(1, Ordering::SeqCst);
        Waiter {
            waiters: self,
            id,
            wake,
        }
    }

    /// Wakes the callers that wait for these tasks: they have ended.
    pub(crate) fn notify(&self, ended: &[TaskId]) {
        if self.count.load(Ordering::SeqCst) > 0 {
            let wakes = lock(&self.wakes);
            for id in ended {
                wakes.get(id).into_iter().flatten().for_each(Wake::notify);
            }
        }
    }

    /// Wakes all waiting callers, to look again.
    pub(crate) fn notify_all(&self) {
        lock(&self.wakes).values().flatten().for_each(Wake::notify);
    }
}

/// A registration for the end of one task. Dropping it unregisters.
#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    waiters: &'a Waiters,
    id: TaskId,
    wake: Wake,
}

impl Waiter<'_> {
    /// Blocks until the task ends, at most for `span`. It may return early.
    pub(crate) fn wait(&self, span: Duration) {
        self.wake.wait(span);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut by_task = lock(&self.waiters.wakes);
        if let Some(wakes) = by_task.get_mut(&self.id) {
            wakes.retain(|wake| !wake.is_same(&self.wake));
            if wakes.is_empty() {
                by_task.remove(&self.id);
            }
        }
        self.waiters.count.fetch_sub(1, Ordering::SeqCst);
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
        assert!(waiter.wake.wait(Duration::ZERO));
        assert!(!other.wake.wait(Duration::ZERO));
        drop((waiter, other));
        assert!(lock(&waiters.wakes).is_empty());
        assert!(!waiters.any());
    }
}
