//! The one write connection: whose turn it is, what shares a transaction, and what a caller's own SQL may do there.

pub(crate) mod authorizer;
pub(crate) mod batch;
pub(crate) mod borrowed;
pub(crate) mod failure;
pub(crate) mod peers;
pub(crate) mod shared;
pub(crate) mod transaction;
pub(crate) mod writer;
