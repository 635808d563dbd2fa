//! The file: where it may be, how it is opened, its schema, its log, and how processes take turns at it.

pub(crate) mod checkpoint;
pub(crate) mod counter;
pub(crate) mod fairness;
pub(crate) mod identity;
pub(crate) mod in_use;
pub(crate) mod mounts;
pub(crate) mod open;
pub(crate) mod paths;
pub(crate) mod readers;
pub(crate) mod schema;
