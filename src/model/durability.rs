//! What an acknowledged call survives.

/// How much an acknowledged call survives.
///
/// # Example
///
/// ```
/// use punctual::{Durability, Scheduler};
///
/// let builder = Scheduler::builder("cache.db").durability(Durability::ProcessCrash);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A crash of the process and a loss of power: every acknowledged call has been synced to the disk. The default.
    #[default]
    PowerLoss,
    /// A crash of the process, but not a loss of power, which may undo the last calls; the file stays whole.
    ProcessCrash,
}
