//! How the crate survives panics of code that is not its own: handlers, wakers, `tracing` subscribers, `Drop`.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs code that may panic; `None`: it did.
pub(crate) fn survive<T>(run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => Some(value),
        Err(panic) => {
            discard(panic);
            None
        }
    }
}

/// Drops the value that a panic carried. To drop it can panic again: `false` if it did.
pub(crate) fn discard(panic: Box<dyn Any + Send>) -> bool {
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    // The value of the second panic may do the same, without end: it is leaked.
    dropped.map_err(std::mem::forget).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics with another of its kind each time that it is dropped.
    struct Hydra;

    impl Drop for Hydra {
        fn drop(&mut self) {
            std::panic::panic_any(Hydra);
        }
    }

    #[test]
    fn p12_a_panic_whose_value_panics_when_it_is_dropped_ends_nothing() {
        assert_eq!(survive(|| std::panic::panic_any(Hydra)), None::<()>);
        assert_eq!(survive(|| 7), Some(7));
    }
}
