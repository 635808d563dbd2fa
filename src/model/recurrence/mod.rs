//! Recurrences: the arithmetic of their rules, and what becomes of their slots. All of it is pure: an instant in, an instant
//! out.

pub(crate) mod backfill;
#[cfg(feature = "rrule")]
mod calendar;
mod cron;
pub(crate) mod decide;
pub(crate) mod definition;
pub(crate) mod edit;
pub(crate) mod event;
pub(crate) mod explain;
mod field;
pub(crate) mod filter;
mod kind;
mod known;
pub(crate) mod policy;
pub(crate) mod request;
pub(crate) mod rule;
pub(crate) mod search;
pub(crate) mod set;
mod shown;
pub(crate) mod slots;
mod stored;
#[cfg(test)]
mod tests;
pub(crate) mod undecided;
pub(crate) mod view;
pub(crate) mod zone;
