//! Care of the store: pruning, and its health.

use std::time::Duration;

use crate::client::{Client, write};
use crate::error::{Error, ErrorKind, Result};
use crate::model::health::{Health, Probed};
use crate::model::op::{CHUNK, Op};
use crate::model::retention::Retention;

impl Client {
    /// Deletes ended tasks whose retention is over, in commits of up to 500, and returns how many. A scheduler does so by
    /// itself; call this for other retentions, or for a file that no scheduler has open.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if a span is over 1,000 years; else as [`schedule`](Self::schedule).
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{NewTask, Retention, Scheduler};
    /// # use std::time::Duration;
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// let task = scheduler.schedule(NewTask::with_kind("remind", &7))?.id();
    /// scheduler.cancel(task)?;
    /// assert_eq!(scheduler.prune(&Retention::forever().cancelled(Duration::ZERO))?, 1);
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn prune(&self, retention: &Retention) -> Result<u64> {
        retention.check()?;
        let mut pruned = 0;
        loop {
            let now = self.now();
            let op = Op::Prune {
                cutoffs: retention.cutoffs(now),
                limit: CHUNK,
            };
            let count = write::one(self.store.apply(now, vec![op])?).done();
            pruned += count as u64;
            if count < CHUNK {
                return Ok(pruned);
            }
        }
    }

    /// Makes a small write at the store's durability, waits for it for at most `timeout`, and returns the health after it:
    /// whether tasks can be stored now. Use it for a readiness probe.
    ///
    /// If the write fails, or is not done in time, [`Health::is_ok`] is false. A write that has not begun by then is not made;
    /// one that hangs delays later writes only. From inside a transaction on the same store nothing can be written, so the
    /// answer is not ok either. A later [`health`](Self::health) reports what failed, not that a probe was not answered in time.
    ///
    /// Each call costs a commit, so call it at most a few times a second. For an answer without a write see
    /// [`health`](Self::health).
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::Scheduler;
    /// # use std::time::Duration;
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// let health = scheduler.probe(Duration::from_secs(1));
    /// assert!(health.is_ok(), "{health:?}");
    /// # Ok::<(), punctual::Error>(())
    /// ```
    #[must_use]
    pub fn probe(&self, timeout: Duration) -> Health {
        let failed = self.try_write(timeout);
        failed.told_in(self.health())
    }

    /// Whether a small write is done in time.
    pub(crate) fn try_write(&self, timeout: Duration) -> Probed {
        let began = self.now();
        let written = self.store.submit(began, vec![Op::Probe]);
        let error = match written.wait_within(timeout) {
            Some(Ok(_)) => None,
            Some(Err(error)) => Some(error),
            None => Some(Error::new(
                ErrorKind::Busy,
                format!("the write of a probe was not done within {timeout:?}"),
            )),
        };
        Probed(error.map(|error| (began.to_utc(), error)))
    }

    /// Reports the store's health as known from earlier writes. To test a write, call [`probe`](Self::probe).
    #[must_use]
    pub fn health(&self) -> Health {
        self.store.health()
    }
}
