//! Recurrences: stored, changed, and fired. Each function works in the transaction of its operation, so a slot makes its task
//! in the transaction that moves the recurrence on: whoever comes second finds it moved.

pub(crate) mod before;
pub(crate) mod change;
pub(crate) mod declare;
mod due;
pub(crate) mod exits;
pub(crate) mod expected;
pub(crate) mod fire;
pub(crate) mod head;
pub(crate) mod make;
pub(crate) mod record;
pub(crate) mod register;
pub(crate) mod row;
pub(crate) mod runs;
