//! The writer while a thread holds it, and the mark that says which thread that is.

use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number that no other living thread has.
pub(super) fn this_thread() -> usize {
    thread_local! {
        static PLACE: u8 = const { 0 };
    }
    PLACE.with(|place| std::ptr::from_ref(place).addr())
}

/// The writer while a thread holds it. Dropping it, even by a panic, frees the writer; the thread may then call the store
/// again.
pub(super) struct HeldWriter<'a, W> {
    holder: &'a AtomicUsize,
    writer: MutexGuard<'a, W>,
}

impl<'a, W> HeldWriter<'a, W> {
    pub(super) fn enter(holder: &'a AtomicUsize, writer: MutexGuard<'a, W>) -> Self {
        holder.store(this_thread(), Ordering::Relaxed);
        Self { holder, writer }
    }
}

impl<W> Deref for HeldWriter<'_, W> {
    type Target = W;

    fn deref(&self) -> &W {
        &self.writer
    }
}

impl<W> DerefMut for HeldWriter<'_, W> {
    fn deref_mut(&mut self) -> &mut W {
        &mut self.writer
    }
}

impl<W> Drop for HeldWriter<'_, W> {
    fn drop(&mut self) {
        // Before the lock is free, so that it does not erase the mark of the next thread.
        self.holder.store(0, Ordering::Relaxed);
    }
}
