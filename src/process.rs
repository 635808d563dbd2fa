//! Process identity: a forked child must not use a store that its parent has opened.
//!
//! SQLite records a process's file locks in memory, and a fork copies the memory without the locks. So a child may not use
//! its parent's store, and may not open a store of its own while its memory holds a copy of the parent's. This holds for
//! other files too: a mutex that another thread of the parent held, in SQLite or in the allocator, stays locked in the child.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// The open stores that this memory holds: the process that opened them in the upper half, their number in the lower. One
/// atomic word, because a child must not wait for a lock.
static OPEN: AtomicU64 = AtomicU64::new(0);

fn word(process: u32, count: u32) -> u64 {
    u64::from(process) << 32 | u64::from(count)
}

fn parts(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

/// The process that created a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner(u32);

impl Owner {
    pub(crate) fn this() -> Self {
        Self(std::process::id())
    }

    /// # Errors
    ///
    /// `Forked` in any other process.
    pub(crate) fn check(self) -> Result<()> {
        if self.is_here() {
            return Ok(());
        }
        Err(forked())
    }

    pub(crate) fn is_here(self) -> bool {
        self == Self::this()
    }
}

/// The process that opened a store; counted as an open store until dropped.
#[derive(Debug)]
pub(crate) struct Home(Owner);

impl Home {
    /// # Errors
    ///
    /// `Forked` in a child of a process that had a store open when it was forked.
    pub(crate) fn new() -> Result<Self> {
        let owner = Owner::this();
        let Owner(own) = owner;
        let one_more = |open| match parts(open) {
            (opener, count) if opener == own => Some(word(own, count + 1)),
            (_, 0) => Some(word(own, 1)),
            _ => None,
        };
        OPEN.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more)
            .map(|_| Self(owner))
            .map_err(|_| forked())
    }

    /// # Errors
    ///
    /// `Forked` in any other process.
    pub(crate) fn check(&self) -> Result<()> {
        self.0.check()
    }

    pub(crate) fn is_here(&self) -> bool {
        self.0.is_here()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.is_here() {
            // A child leaves the count of its parent as it is.
            OPEN.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn forked() -> Error {
    Error::new(
        ErrorKind::Forked,
        "this process was forked from one that has a store open: open it after the fork, or in another program",
    )
}

#[cfg(test)]
mod tests {
    use std::mem::ManuallyDrop;

    use super::*;

    #[test]
    fn what_another_process_opened_is_not_used_here() {
        let own = Home::new().unwrap();
        assert!(own.check().is_ok());
        // It was never opened, and is not to be closed.
        let parents = ManuallyDrop::new(Home(Owner(std::process::id() + 1)));
        assert_eq!(parents.check().unwrap_err().kind(), ErrorKind::Forked);
    }

    #[test]
    fn the_process_and_the_count_are_kept_apart() {
        assert_eq!(parts(word(u32::MAX, 7)), (u32::MAX, 7));
        assert_eq!(parts(word(3, u32::MAX)), (3, u32::MAX));
    }
}
