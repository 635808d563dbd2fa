//! Recurrences: the arithmetic of their rules. All of it is pure: an instant in, an instant out.

mod cron;
mod kind;
pub(crate) mod rule;
pub(crate) mod slots;
mod stored;
#[cfg(test)]
mod tests;
mod zone;
