//! Which process this is: what one has opened a child that was forked from it must not touch.
//!
//! SQLite keeps the locks of a process in its memory, and a fork copies the memory without the locks. So a child may use
//! neither its parent's store nor one of its own, as long as its parent's is in its memory. Nor may it open another file: a
//! mutex that another thread of the parent held, in SQLite or in the allocator, is never released in the child.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// Who has stores open, as far as the memory of this process says: the process, and in the lower half how many. In one word,
/// because no lock may be in the way of a child.
static OPEN: AtomicU64 = AtomicU64::new(0);

fn word(process: u32, count: u32) -> u64 {
    u64::from(process) << 32 | u64::from(count)
}

fn parts(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

/// The process that something was made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner(u32);

impl Owner {
    pub(crate) fn this() -> Self {
        Self(std::process::id())
    }

    /// # Errors
    ///
    /// `Forked` anywhere but in that process.
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

/// The process that has opened a store. Dropped with it.
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
    /// `Forked` anywhere but in that process.
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
            // Its own are counted.
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
