//! The instances of a file: which processes have it open, which of them are dead, and what each has started.

pub(crate) mod evidence;
pub(crate) mod ledger;
pub(crate) mod process;
pub(crate) mod roll;
