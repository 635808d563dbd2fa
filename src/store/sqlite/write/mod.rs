//! The one write connection: what shares a transaction, what a caller's own SQL may do there, and what others have
//! committed.

pub(crate) mod authorizer;
pub(crate) mod batch;
pub(crate) mod borrowed;
mod connection;
pub(crate) mod failure;
pub(crate) mod peers;
pub(crate) mod shared;
pub(crate) mod transaction;
pub(crate) mod writer;
