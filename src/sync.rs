//! Locks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a lock, also after a holder panicked: the crate's data under locks is consistent at every point where user code
/// or an allocation can panic.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
