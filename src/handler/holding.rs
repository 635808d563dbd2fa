//! A task that this process holds: what an attempt knows of its task, and how it writes for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;

use crate::client::Client;
use crate::client::transaction::{Tx, run_inside};
use crate::error::{Error, ErrorKind, Result};
use crate::handler::token::{StopReason, Token};
use crate::model::json::encode;
use crate::model::op::{Op, Settled};
use crate::model::outcome::Outcome;
use crate::model::retry::RetryPolicy;
use crate::model::settle::{Asked, Claim, End, Settlement, settle};
use crate::model::task::SlotOf;
use crate::store::{Holder, TransactionEnd};
use crate::sync::lock;
use crate::time::Timestamp;

/// The largest progress report, as encoded JSON: 16 KiB.
const MAX_PROGRESS_BYTES: usize = 16 << 10;

/// The metadata of a task that has none.
pub(crate) static NO_METADATA: BTreeMap<String, String> = BTreeMap::new();

/// A task that this process holds, from its claim until its attempt has ended.
#[derive(Debug)]
pub(crate) struct Holding {
    pub(crate) claim: Claim,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) token: Arc<Token>,
    pub(crate) client: Client,
    /// The attempt was settled by a completion.
    settled: AtomicBool,
    /// Held by the completion on another thread that may write.
    completes: Mutex<()>,
    /// Whether completions run on other threads.
    stage: Mutex<Stage>,
}

#[derive(Default)]
enum Stage {
    #[default]
    Open,
    /// Completions run, or wait for the turn to write. The attempt ends after them: by `after`, if its future is gone already.
    Completes {
        running: usize,
        after: Option<Box<dyn FnOnce() + Send>>,
    },
    Over,
}

impl Holding {
    pub(crate) fn new(claim: Claim, token: Arc<Token>, client: Client) -> Self {
        Self {
            claim,
            deadline: None,
            token,
            client,
            settled: AtomicBool::new(false),
            completes: Mutex::default(),
            stage: Mutex::default(),
        }
    }

    pub(crate) fn slot_of(&self) -> Option<&SlotOf> {
        self.claim.options.as_deref()?.slot.as_ref()
    }

    /// The operation that stores a progress report.
    pub(crate) fn progress<T: Serialize + ?Sized>(&self, report: &T) -> Result<Op> {
        let value = encode("progress", report)?;
        if value.len() > MAX_PROGRESS_BYTES {
            return Err(Error::new(
                ErrorKind::Payload,
                format!(
                    "the progress has {} bytes, more than {MAX_PROGRESS_BYTES}",
                    value.len()
                ),
            )
            .with_task(self.claim.id));
        }
        Ok(Op::Progress {
            fence: self.claim.fence,
            value,
        })
    }

    /// Tells the handler that the attempt no longer holds its task.
    fn lost(&self) {
        let wakers = self.token.raise(StopReason::Lost);
        self.client.store.signals().call(wakers);
    }

    /// Stores a progress report.
    pub(crate) fn report(&self, progress: Op) -> Result<()> {
        let replies = self.client.store.apply(self.client.now(), vec![progress]);
        let mut replies = replies.map_err(|error| error.with_task(self.claim.id))?;
        match replies.remove(0).progressed() {
            Settled::Applied => Ok(()),
            Settled::Stale => {
                self.lost();
                Err(Error::stale(self.claim.id))
            }
        }
    }

    /// Settles the attempt in the transaction that the closure writes in.
    pub(crate) fn complete<E: From<Error>>(
        &self,
        run: impl FnOnce(&Tx<'_>) -> Result<Outcome, E>,
    ) -> Result<Outcome, E> {
        if self.is_settled() {
            return Err(self.refused("was settled already").into());
        }
        let holder = Holder {
            id: self.claim.id,
            fence: self.claim.fence,
            delivery: self.claim.class.delivery(),
        };
        let ran = run_inside(&self.client, Some(holder), |tx| {
            let outcome = run(tx).map_err(Refused::ByCaller)?;
            let settlement = Arc::new(self.settlement(outcome));
            Ok(((), TransactionEnd::Settle(settlement)))
        });
        match ran {
            Ok(()) => {
                self.settled.store(true, Ordering::Release);
                Ok(Outcome::settled())
            }
            Err(Refused::ByCaller(error)) => Err(error),
            Err(Refused::ByStore(error)) => {
                if error.kind() == ErrorKind::State {
                    self.lost();
                }
                Err(error.with_task(self.claim.id).into())
            }
        }
    }

    /// As [`complete`](Self::complete), while the attempt's future may end on another thread: the attempt then ends after
    /// this. `is_wanted`: whether anybody waits for it. Once its closure has begun, that is not asked.
    pub(crate) fn complete_beside<E: From<Error>>(
        &self,
        is_wanted: &dyn Fn() -> bool,
        run: impl FnOnce(&Tx<'_>) -> Result<Outcome, E>,
    ) -> Result<Outcome, E> {
        {
            let mut stage = lock(&self.stage);
            match &mut *stage {
                Stage::Open => {
                    *stage = Stage::Completes {
                        running: 1,
                        after: None,
                    }
                }
                // One at a time writes. If that is refused, the next may be taken.
                Stage::Completes {
                    running,
                    after: None,
                } => *running += 1,
                Stage::Completes { .. } | Stage::Over => {
                    return Err(self.refused("is over").into());
                }
            }
        }
        // If the closure panics, the attempt can end all the same.
        let _completion = Completion(self);
        let _turn = lock(&self.completes);
        self.complete(|tx| {
            if !is_wanted() {
                return Err(self.refused("is over").into());
            }
            run(tx)
        })
    }

    /// Ends the attempt by `end`: now, or when a completion that runs has ended.
    pub(crate) fn over(&self, end: impl FnOnce() + Send + 'static) {
        let mut stage = lock(&self.stage);
        if let Stage::Completes { after, .. } = &mut *stage {
            *after = Some(Box::new(end));
            return;
        }
        *stage = Stage::Over;
        drop(stage);
        end();
    }

    /// Whether the attempt's deadline has passed.
    pub(crate) fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| deadline <= self.client.now())
    }

    /// Whether a completion has settled the attempt.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    fn refused(&self, why: &str) -> Error {
        let id = self.claim.id;
        Error::new(
            ErrorKind::State,
            format!("the attempt of the task {id} {why}"),
        )
        .with_task(id)
    }

    fn settlement(&self, outcome: Outcome) -> Settlement {
        let now = self.client.now();
        let end = End::Returned {
            result: Ok(outcome),
            asked: if self.is_late() {
                Asked::TooLong
            } else {
                Asked::Not
            },
        };
        // No outcome is retried.
        settle(&self.claim, end, &RetryPolicy::default(), 0.5, now)
    }
}

/// A completion that runs. Its drop is its end.
struct Completion<'a>(&'a Holding);

impl Drop for Completion<'_> {
    fn drop(&mut self) {
        let mut stage = lock(&self.0.stage);
        let Stage::Completes { running, after } = &mut *stage else {
            return;
        };
        *running -= 1;
        if *running > 0 {
            return;
        }
        let end = after.take();
        *stage = match end {
            Some(_) => Stage::Over,
            None => Stage::Open,
        };
        drop(stage);
        if let Some(end) = end {
            end();
        }
    }
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::Completes { .. } => "Completes",
            Self::Over => "Over",
        })
    }
}

/// What refused a completion.
enum Refused<E> {
    ByCaller(E),
    ByStore(Error),
}

impl<E> From<Error> for Refused<E> {
    fn from(error: Error) -> Self {
        Self::ByStore(error)
    }
}
