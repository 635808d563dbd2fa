//! A caller's transaction on the write connection: the fence, the caller's code, the completion, one commit.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use rusqlite::Connection;

use super::{Writer, run_sql};
use crate::error::{Error, ErrorKind, Result};
use crate::model::op::{Op, Reply, Settled};
use crate::store::sqlite::batch::{self, Failure};
use crate::store::sqlite::guard::Guard;
use crate::store::sqlite::settle;
use crate::store::sqlite::tx::{Done, Tx};
use crate::store::{Body, Ending, Holder, Work};
use crate::time::Timestamp;

impl Writer {
    /// Runs `body` in a transaction of its own, and ends that as it says.
    pub(in crate::store::sqlite) fn transaction(
        &mut self,
        now: Timestamp,
        holder: Option<Holder>,
        body: &mut Body<'_>,
    ) -> Result<()> {
        self.check()?;
        self.set_sync(self.durability == super::Durability::PowerLoss)?;
        let mut done = Done::default();
        let ran = catch_unwind(AssertUnwindSafe(|| {
            self.inside(now, holder, body, &mut done)
        }));
        let error = match ran {
            Ok(Ok(Ended::Committed)) => {
                self.publish(done, || {});
                return Ok(());
            }
            Ok(Ok(Ended::NotWanted)) => {
                self.leave();
                return Ok(());
            }
            Err(panic) => {
                self.leave();
                resume_unwind(panic);
            }
            Ok(Err(Stopped::Refused(error))) => {
                self.leave();
                error
            }
            Ok(Err(Stopped::Failed(failure))) => {
                let error = self.clean_up(failure);
                if error.kind() != ErrorKind::Unknown {
                    done.undo_standing();
                }
                error
            }
        };
        if !matches!(error.kind(), ErrorKind::Invalid | ErrorKind::State) {
            self.note(now, &error);
        }
        Err(error)
    }

    /// Rolls back what the caller does not want, or may not have.
    fn leave(&mut self) {
        let conn = self.conn.as_ref().expect("checked");
        if conn.is_autocommit() {
            // Something in it has failed so badly that SQLite rolled it back: what the connection holds may not be right.
            self.give_up_connection();
        }
        self.roll_back();
    }

    fn inside(
        &mut self,
        now: Timestamp,
        holder: Option<Holder>,
        body: &mut Body<'_>,
        done: &mut Done,
    ) -> std::result::Result<Ended, Stopped> {
        let stands = self.begin(true, || false, done)?;
        let conn = self.conn.as_ref().expect("checked");
        if let Some(holder) = holder {
            check_held(conn, holder)?;
        }
        let guard = &*self.guard;
        let hub = &self.shared.hub;
        let inside = Inside {
            conn,
            guard,
            failed: RefCell::new(None),
            tx: RefCell::new(Tx {
                conn,
                now,
                instance: self.instance,
                lanes: &self.shared.lanes,
                wants_events: hub.wants_events(),
                drawn: &mut self.drawn,
                waiting: &self.waiting,
                done,
            }),
        };
        let ending = {
            let _entered = guard.enter(holder.map(|holder| holder.id));
            body(&inside)
        };
        let Inside { failed, tx, .. } = inside;
        let mut tx = tx.into_inner();
        let failed = failed.into_inner();
        if matches!(ending, Ending::RollBack) && failed.is_none() && !guard.has_interrupted() {
            return Ok(Ended::NotWanted);
        }
        if let Some(error) = failed {
            return Err(Stopped::Refused(error));
        }
        if conn.is_autocommit() || guard.has_interrupted() {
            return Err(Stopped::Refused(guard.why_ended()));
        }
        if let (Ending::Settle(settlement), Some(holder)) = (ending, holder) {
            let settled = settle::settle(&mut tx, std::slice::from_ref(&settlement));
            let settled = settled.map_err(|error| Failure::at("settle", error))?;
            if settled != [Settled::Applied] {
                return Err(Stopped::Refused(stale(holder)));
            }
        }
        if stands && tx.done.news.due.is_some_and(|due| due <= now) {
            batch::claim_standing(&mut tx, hub)?;
        }
        run_sql(conn, "COMMIT").map_err(Failure::Commit)?;
        Ok(Ended::Committed)
    }
}

enum Ended {
    Committed,
    /// The caller does not want it.
    NotWanted,
}

/// Why a transaction was not committed, although the caller wanted it, or was not begun.
enum Stopped {
    Failed(Failure),
    Refused(Error),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The fence: a stale attempt does not get inside.
fn check_held(conn: &Connection, holder: Holder) -> std::result::Result<(), Stopped> {
    let fence = holder.fence;
    let held = conn
        .prepare_cached(settle::HELD)
        .and_then(|mut held| held.exists([fence.seq, fence.instance, fence.claim_no]))
        .map_err(|error| Failure::at("look at the task", error))?;
    if held {
        return Ok(());
    }
    Err(Stopped::Refused(stale(holder)))
}

fn stale(holder: Holder) -> Error {
    let id = holder.id;
    Error::new(
        ErrorKind::State,
        format!("the task {id} is not this attempt's any more"),
    )
    .with_task(id)
}

struct Inside<'a> {
    conn: &'a Connection,
    guard: &'a Guard,
    tx: RefCell<Tx<'a>>,
    /// Why the transaction cannot be committed.
    failed: RefCell<Option<Error>>,
}

impl Work for Inside<'_> {
    fn apply(&self, op: Op) -> Result<Reply> {
        if let Some(error) = &*self.failed.borrow() {
            return Err(error.clone());
        }
        if self.conn.is_autocommit() {
            return Err(self.guard.why_ended());
        }
        let mut tx = self.tx.borrow_mut();
        let applied = self.guard.as_ours(|| batch::apply_checked(&mut tx, &op));
        applied.map_err(|failure| {
            let error = failure.into_error(self.conn);
            // It may be done by half.
            *self.failed.borrow_mut() = Some(error.clone());
            error
        })
    }

    fn sql(&self) -> &Connection {
        self.conn
    }
}
