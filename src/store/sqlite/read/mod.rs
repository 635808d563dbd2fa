//! What can be read without the write connection.

pub(crate) mod stats;
pub(crate) mod tasks;
