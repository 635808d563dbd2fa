//! A caller's transaction on the write connection: the fence, the caller's code, the completion, one commit.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use rusqlite::Connection;

use crate::error::{Error, ErrorKind, Result};
use crate::log::log;
use crate::model::delivery::Delivery;
use crate::model::durability::Durability;
use crate::model::op::{Op, Reply, Settled};
use crate::store::sqlite::error;
use crate::store::sqlite::ops::settle;
use crate::store::sqlite::ops::write_tx::{Done, WriteTx};
use crate::store::sqlite::write::authorizer::{Authorizer, stop_watching};
use crate::store::sqlite::write::batch;
use crate::store::sqlite::write::failure::WriteFailure;
use crate::store::sqlite::write::writer::{COMMIT, Writer, run_sql};
use crate::store::{Body, Ending, Holder, Transaction};
use crate::time::Timestamp;

impl Writer {
    /// Runs `body` in a transaction of its own, and ends that as `body` returns.
    pub(crate) fn transaction(
        &mut self,
        now: Timestamp,
        holder: Option<Holder>,
        body: &mut Body<'_>,
    ) -> Result<()> {
        self.now = now;
        self.check()?;
        let must_sync = holder.is_some_and(|holder| holder.delivery == Delivery::AtMostOnce);
        self.set_sync(must_sync || self.durability == Durability::PowerLoss)?;
        if let Some(conn) = &mut self.conn {
            self.authorizer
                .watch_rows(conn)
                .map_err(|error| error::of("cannot watch the connection", error))?;
        }
        let mut done = Done::default();
        let ran = catch_unwind(AssertUnwindSafe(|| {
            self.inside(now, holder, body, &mut done)
        }));
        if let Err(forked) = self.authorizer.check_process() {
            // Even a rollback would write where the parent does.
            std::mem::forget(self.conn.take());
            return match ran {
                Ok(_) => Err(forked),
                Err(panic) => resume_unwind(panic),
            };
        }
        if let Some(conn) = &mut self.conn {
            stop_watching(conn);
        }
        let error = match ran {
            Ok(Ok(TransactionEnd::Committed)) => {
                self.publish(done, || {});
                self.leave_nothing_running();
                return Ok(());
            }
            Ok(Ok(TransactionEnd::RolledBack)) => {
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
                    done.undo_standing_claim();
                }
                error
            }
        };
        let is_theirs = matches!(
            error.kind(),
            ErrorKind::Invalid | ErrorKind::State | ErrorKind::Sql
        );
        if !is_theirs {
            self.note(now, &error);
        }
        Err(error)
    }

    /// Rolls back a transaction that the caller does not want, or that was refused.
    fn leave(&mut self) {
        let conn = self.conn.as_ref().expect("checked");
        if conn.is_autocommit() {
            // An error was so bad that SQLite itself rolled back: the connection's caches may be wrong.
            self.give_up_connection();
        }
        self.roll_back();
        self.end_streak();
        self.leave_nothing_running();
    }

    /// Gives the connection up if a statement still runs. Rows that the caller has leaked would keep the connection at what
    /// it has read, and every later write busy.
    fn leave_nothing_running(&mut self) {
        if self.conn.as_ref().is_some_and(Connection::is_busy) {
            log!(
                warn,
                "a statement was left running inside a transaction: the log cannot be shortened until this process ends"
            );
            self.give_up_connection();
        }
    }

    fn inside(
        &mut self,
        now: Timestamp,
        holder: Option<Holder>,
        body: &mut Body<'_>,
        done: &mut Done,
    ) -> std::result::Result<TransactionEnd, Stopped> {
        self.begin(done)?;
        let conn = self.conn.as_ref().expect("checked");
        let stands = self.peers.may_stand(conn, &self.shared, false)?;
        if let Some(holder) = holder {
            check_held(conn, holder)?;
        }
        let authorizer = &*self.authorizer;
        let signals = &self.shared.signals;
        let inside = Inside {
            conn,
            authorizer,
            failed: RefCell::new(None),
            tx: RefCell::new(WriteTx {
                conn,
                now,
                instance: self.instance,
                lanes: &self.shared.lanes,
                wants_events: signals.subscriptions().any(),
                drawn: &mut self.drawn,
                waiting: &self.waiting,
                done,
            }),
        };
        let (ending, checked) = {
            let _entered = authorizer.enter(holder.map(|holder| holder.id));
            let ending = body(&inside);
            (ending, authorizer.check_end(conn))
        };
        let Inside { failed, tx, .. } = inside;
        let mut tx = tx.into_inner();
        let failed = failed.into_inner();
        if let Some(error) = failed {
            return Err(Stopped::Refused(error));
        }
        match (&ending, checked) {
            // A transaction that took too long shows in `health`, even if the caller did not want it committed.
            (_, Err(error)) if error.kind() == ErrorKind::Timeout => {
                return Err(Stopped::Refused(error));
            }
            (Ending::RollBack, _) => return Ok(TransactionEnd::RolledBack),
            (_, checked) => checked.map_err(Stopped::Refused)?,
        }
        if let (Ending::Settle(settlement), Some(holder)) = (ending, holder) {
            let settled = settle::settle(&mut tx, std::slice::from_ref(&settlement));
            let settled = settled.map_err(|error| WriteFailure::at("settle", error))?;
            if settled != [Settled::Applied] {
                return Err(Stopped::Refused(Error::stale(holder.id)));
            }
        }
        batch::claim_due(&mut tx, stands, signals)?;
        self.shared
            .wait(now, || run_sql(conn, COMMIT))
            .map_err(WriteFailure::Commit)?;
        Ok(TransactionEnd::Committed)
    }
}

enum TransactionEnd {
    Committed,
    /// The caller did not want it committed.
    RolledBack,
}

/// Why a transaction that the caller wanted was not committed, or not begun.
enum Stopped {
    Failed(WriteFailure),
    Refused(Error),
}

impl From<WriteFailure> for Stopped {
    fn from(failure: WriteFailure) -> Self {
        Self::Failed(failure)
    }
}

/// The fence: the code of a stale attempt is not run.
fn check_held(conn: &Connection, holder: Holder) -> std::result::Result<(), Stopped> {
    let fence = holder.fence;
    let held = conn
        .prepare_cached(settle::HELD)
        .and_then(|mut held| held.exists([fence.seq, fence.instance, fence.claim_no]))
        .map_err(|error| WriteFailure::at("look at the task", error))?;
    if held {
        return Ok(());
    }
    Err(Stopped::Refused(Error::stale(holder.id)))
}

struct Inside<'a> {
    conn: &'a Connection,
    authorizer: &'a Authorizer,
    tx: RefCell<WriteTx<'a>>,
    /// Why the transaction cannot be committed any more.
    failed: RefCell<Option<Error>>,
}

impl Transaction for Inside<'_> {
    fn apply(&self, op: Op) -> Result<Reply> {
        if let Some(error) = &*self.failed.borrow() {
            return Err(error.clone());
        }
        self.authorizer.check(self.conn)?;
        let mut tx = self.tx.borrow_mut();
        let applied = self
            .authorizer
            .as_ours(|| batch::apply_checked(&mut tx, &op));
        applied.map_err(|failure| {
            let error = failure.into_error(self.conn);
            // The operation may be half done.
            *self.failed.borrow_mut() = Some(error.clone());
            error
        })
    }

    fn connection(&self) -> &dyn Any {
        self.conn
    }
}
