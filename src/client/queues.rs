//! Settings of queues.

use crate::client::{Client, write};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;

impl Client {
    /// Stops starting tasks of a queue, in every process, until [`resume`](Self::resume). Running tasks continue; tasks that
    /// were claimed but not started are given back. The pause survives a restart.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the name is not allowed; else as [`schedule`](Self::schedule).
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::Scheduler;
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// scheduler.pause("mail")?;
    /// assert_eq!(scheduler.health().paused_queues(), ["mail"]);
    /// scheduler.resume("mail")?;
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn pause(&self, queue: &str) -> Result<()> {
        self.write(write::pause(queue, true))
    }

    /// Starts tasks of a queue again.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    pub fn resume(&self, queue: &str) -> Result<()> {
        self.write(write::pause(queue, false))
    }

    /// Limits how many tasks of a queue run at once in all processes of the file together. `None` removes the limit. The limit
    /// is stored in the file and stays until it is changed. Tasks that already run continue.
    ///
    /// For the limits of one scheduler see [`Builder::queue`](crate::Builder::queue).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the name is not allowed, or the limit is 0 (pause the queue instead) or over 1,000,000;
    /// else as [`schedule`](Self::schedule).
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::Scheduler;
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// scheduler.set_global_limit("reports", Some(2))?;
    /// assert_eq!(scheduler.health().global_limits(), [("reports".to_owned(), 2)]);
    /// scheduler.set_global_limit("reports", None)?;
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn set_global_limit(&self, queue: &str, limit: Option<usize>) -> Result<()> {
        self.write(write::limit(queue, limit))
    }
}
