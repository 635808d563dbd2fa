//! The only file that starts threads.

use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::time::Deadline;
use crate::wake::Wake;

/// A named thread that can be joined with a time limit.
#[derive(Debug)]
pub(crate) struct Thread {
    handle: JoinHandle<()>,
    ended: Wake,
}

impl Thread {
    /// # Errors
    ///
    /// `Storage` if the system cannot start a thread.
    pub(crate) fn spawn(
        name: impl Into<String>,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<Self> {
        let ended = Wake::new();
        let guard = NotifyOnDrop(ended.clone());
        let handle = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                let _guard = guard;
                body();
            })
            .map_err(|error| {
                Error::new(ErrorKind::Storage, "cannot start a thread").with_source(error)
            })?;
        Ok(Self { handle, ended })
    }

    /// Waits until the thread has ended, at most until `deadline`; not at all if it is the calling thread. Returns whether
    /// it ended without a panic. A thread that has not ended runs on.
    pub(crate) fn join(self, deadline: Deadline) -> bool {
        if self.handle.thread().id() == std::thread::current().id() {
            return false;
        }
        while !self.handle.is_finished() && !deadline.is_over() {
            // The thread notifies shortly before it is finished.
            self.ended
                .wait(deadline.remaining().min(Duration::from_millis(5)));
        }
        self.handle.is_finished() && self.handle.join().is_ok()
    }
}

struct NotifyOnDrop(Wake);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_is_bounded() {
        let stop = Wake::new();
        let stopped = stop.clone();
        let thread = Thread::spawn("sleeper", move || {
            stopped.wait(Duration::from_secs(60));
        })
        .unwrap();
        assert!(!thread.join(Deadline::after(Duration::from_millis(1))));
        stop.notify();
    }

    #[test]
    fn a_thread_that_ends_is_joined() {
        let thread = Thread::spawn("quick", || ()).unwrap();
        assert!(thread.join(Deadline::after(Duration::from_secs(60))));
    }
}
