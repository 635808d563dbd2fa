//! A caller's transaction: what runs inside it, on the caller's thread, and how it ends.

use std::any::Any;
use std::sync::Arc;

use crate::error::Result;
use crate::id::TaskId;
use crate::model::delivery::Delivery;
use crate::model::op::{Op, Reply};
use crate::model::settle::{Fence, Settlement};

/// The inside of a transaction.
pub(crate) trait Transaction {
    /// Applies an operation, which is undone if the transaction is.
    ///
    /// # Errors
    ///
    /// After any of its errors the transaction cannot be committed any more.
    fn apply(&self, op: Op) -> Result<Reply>;

    /// The engine's own connection, for its face.
    fn connection(&self) -> &dyn Any;
}

/// How a transaction ends.
#[derive(Debug)]
pub(crate) enum Ending {
    Commit,
    /// The attempt that it was made for ends with it.
    Settle(Arc<Settlement>),
    RollBack,
}

/// What runs inside, once.
pub(crate) type Body<'a> = dyn FnMut(&dyn Transaction) -> Ending + 'a;

/// The attempt that a transaction is made for: only while it holds its task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder {
    pub(crate) id: TaskId,
    pub(crate) fence: Fence,
    pub(crate) delivery: Delivery,
}
