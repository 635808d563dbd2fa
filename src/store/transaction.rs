//! A caller's transaction: what runs inside it, on the caller's thread, and how it ends.

use std::any::Any;
use std::sync::Arc;

use crate::error::Result;
use crate::id::TaskId;
use crate::model::delivery::Delivery;
use crate::model::op::{Op, Reply};
use crate::model::settle::{Fence, Settlement};

/// The inside of a caller's transaction.
pub(crate) trait Transaction {
    /// Applies an operation. A rollback of the transaction undoes it.
    ///
    /// # Errors
    ///
    /// After any error the transaction can no longer be committed.
    fn apply(&self, op: Op) -> Result<Reply>;

    /// The engine's own connection, for the public face of the engine.
    fn connection(&self) -> &dyn Any;
}

/// How a transaction ends.
#[derive(Debug)]
pub(crate) enum TransactionEnd {
    Commit,
    /// Settles the attempt that the transaction was made for, and commits.
    Settle(Arc<Settlement>),
    RollBack,
}

/// The code that runs inside, once.
pub(crate) type Body<'a> = dyn FnMut(&dyn Transaction) -> TransactionEnd + 'a;

/// The attempt that a transaction is made for. The transaction runs only while that attempt holds its task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder {
    pub(crate) id: TaskId,
    pub(crate) fence: Fence,
    pub(crate) delivery: Delivery,
}
