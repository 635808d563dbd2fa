//! The rules, as values: what a task is, what may become of it, what the store is asked to do.
//!
//! Pure: no I/O, no threads, no clock. Time, randomness and everything stored come in as arguments, so each rule is
//! tested as a table beside its code.

pub(crate) mod answer;
pub(crate) mod attempt;
pub(crate) mod delivery;
pub(crate) mod durability;
pub(crate) mod edit;
pub(crate) mod event;
pub(crate) mod filter;
pub(crate) mod health;
pub(crate) mod idle;
pub(crate) mod json;
pub(crate) mod lane;
pub(crate) mod limits;
pub(crate) mod new_task;
pub(crate) mod op;
pub(crate) mod outcome;
pub(crate) mod payload;
pub(crate) mod pool;
pub(crate) mod query;
pub(crate) mod recurrence;
pub(crate) mod retention;
pub(crate) mod retry;
pub(crate) mod settle;
pub(crate) mod suspects;
pub(crate) mod task;
pub(crate) mod variants;
