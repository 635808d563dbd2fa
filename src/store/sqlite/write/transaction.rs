//! A caller's transaction on the write connection: the fence, the caller's code, the completion, one commit.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use rusqlite::Connection;

use crate::error::{Error, ErrorKind, Result};
use crate::model::delivery::Delivery;
use crate::model::durability::Durability;
use crate::model::op::{Op, Reply, Settled};
use crate::store::done::Done;
use crate::store::sqlite::error;
use crate::store::sqlite::ops::settle;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::write::authorizer::{Authorizer, stop_watching};
use crate::store::sqlite::write::batch;
use crate::store::sqlite::write::failure::WriteFailure;
use crate::store::sqlite::write::writer::Writer;
use crate::store::{Body, Holder, Transaction, TransactionEnd};
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
        self.connection.check(now)?;
        let must_sync = holder.is_some_and(|holder| holder.delivery == Delivery::AtMostOnce);
        self.connection
            .set_sync(must_sync || self.durability == Durability::PowerLoss)?;
        let shared = Arc::clone(&self.shared);
        let authorizer = &*shared.authorizer;
        authorizer
            .watch_rows(self.connection.get_mut())
            .map_err(|error| error::of("cannot watch the connection", error))?;
        let mut done = Done::default();
        let ran = catch_unwind(AssertUnwindSafe(|| {
            self.transact(false, &mut done, |tx, stands, signals| {
                inside(tx, authorizer, holder, body)?;
                Ok(batch::claim_due(tx, stands, signals)?)
            })
        }));
        if let Err(forked) = authorizer.check_process() {
            self.connection.forget();
            return match ran {
                Ok(_) => Err(forked),
                Err(panic) => resume_unwind(panic),
            };
        }
        stop_watching(self.connection.get_mut());
        let error = match ran {
            Ok(Ok(())) => {
                self.publish(done, || {});
                self.connection.leave_nothing_running();
                return Ok(());
            }
            Ok(Err(NotCommitted::RolledBack)) => {
                self.connection.leave();
                return Ok(());
            }
            Err(panic) => {
                self.connection.leave();
                resume_unwind(panic);
            }
            Ok(Err(NotCommitted::Refused(error))) => {
                self.connection.leave();
                error
            }
            Ok(Err(NotCommitted::Failed(failure))) => self.clean_up(failure, done),
        };
        let is_theirs = matches!(
            error.kind(),
            ErrorKind::Invalid | ErrorKind::State | ErrorKind::Sql
        );
        if !is_theirs {
            shared.note(now, &error);
        }
        Err(error)
    }
}

/// What is between BEGIN and COMMIT: the fence, the caller's code, the completion.
fn inside(
    tx: &mut WriteTx<'_>,
    authorizer: &Authorizer,
    holder: Option<Holder>,
    body: &mut Body<'_>,
) -> std::result::Result<(), NotCommitted> {
    let conn = tx.conn;
    if let Some(holder) = holder {
        check_held(conn, holder)?;
    }
    let inside = Inside {
        conn,
        authorizer,
        failed: RefCell::new(None),
        tx: RefCell::new(tx),
    };
    let (ending, checked) = {
        let _entered = authorizer.enter(holder.map(|holder| holder.id));
        let ending = body(&inside);
        (ending, authorizer.check_end(conn))
    };
    let Inside { failed, tx, .. } = inside;
    if let Some(error) = failed.into_inner() {
        return Err(NotCommitted::Refused(error));
    }
    match (&ending, checked) {
        // A transaction that took too long shows in `health`, even if the caller did not want it committed.
        (_, Err(error)) if error.kind() == ErrorKind::Timeout => {
            return Err(NotCommitted::Refused(error));
        }
        (TransactionEnd::RollBack, _) => return Err(NotCommitted::RolledBack),
        (_, checked) => checked.map_err(NotCommitted::Refused)?,
    }
    if let (TransactionEnd::Settle(settlement), Some(holder)) = (ending, holder) {
        let settled = batch::checked(tx.into_inner(), "settle", |tx| {
            settle::settle(tx, std::slice::from_ref(&settlement))
        })?;
        if settled != [Settled::Applied] {
            return Err(NotCommitted::Refused(Error::stale(holder.id)));
        }
    }
    Ok(())
}

/// Why a transaction was not committed.
enum NotCommitted {
    Failed(WriteFailure),
    /// The attempt does not hold the task any more, or the caller did what is not allowed in it.
    Refused(Error),
    /// The caller did not want it committed.
    RolledBack,
}

impl From<WriteFailure> for NotCommitted {
    fn from(failure: WriteFailure) -> Self {
        Self::Failed(failure)
    }
}

/// The fence: the code of a stale attempt is not run.
fn check_held(conn: &Connection, holder: Holder) -> std::result::Result<(), NotCommitted> {
    let fence = holder.fence;
    let held = conn
        .prepare_cached(settle::HELD)
        .and_then(|mut held| held.exists([fence.seq, fence.instance, fence.claim_no]))
        .map_err(|error| WriteFailure::at("look at the task", error))?;
    if held {
        return Ok(());
    }
    Err(NotCommitted::Refused(Error::stale(holder.id)))
}

struct Inside<'a, 'tx> {
    conn: &'a Connection,
    authorizer: &'a Authorizer,
    tx: RefCell<&'a mut WriteTx<'tx>>,
    /// Why the transaction cannot be committed any more.
    failed: RefCell<Option<Error>>,
}

impl Transaction for Inside<'_, '_> {
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
