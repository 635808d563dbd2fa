//! Recurrences: the arithmetic of their rules. All of it is pure: an instant in, an instant out.

mod cron;
pub(crate) mod rule;
pub(crate) mod slots;
mod zone;
