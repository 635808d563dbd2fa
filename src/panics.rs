//! Survives panics of code outside the crate: handlers, wakers, `tracing` subscribers, `Drop`.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs code that may panic; `None` if it panicked.
pub(crate) fn survive<T>(run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => Some(value),
        Err(panic) => {
            discard(panic);
            None
        }
    }
}

/// Drops the value of a panic. Dropping it can panic again: then returns `false`.
pub(crate) fn discard(panic: Box<dyn Any + Send>) -> bool {
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    // The value of the second panic is leaked: its drop could panic too, and so on without end.
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
