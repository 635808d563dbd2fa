//! The operations of a transaction, one a file, and what they share: the transaction itself, the lanes, the rows, and the
//! one exit of a task.

pub(crate) mod apply;
pub(crate) mod cancels;
pub(crate) mod change;
pub(crate) mod claim;
pub(crate) mod expire;
pub(crate) mod extras;
pub(crate) mod forget;
pub(crate) mod history;
pub(crate) mod insert;
pub(crate) mod lanes;
pub(crate) mod matching;
pub(crate) mod options;
pub(crate) mod payload;
pub(crate) mod probe;
pub(crate) mod prune;
pub(crate) mod queue;
pub(crate) mod recur;
pub(crate) mod rescue;
pub(crate) mod room;
pub(crate) mod row;
pub(crate) mod settle;
pub(crate) mod transition;
pub(crate) mod trouble;
pub(crate) mod write_tx;
