//! The two pools that run tasks: threads, and places for futures.

use std::ops::{Index, IndexMut};

/// What a task needs to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Pool {
    /// A worker's thread, for a handler that blocks it.
    #[default]
    Threads,
    /// A place for a future, which shares its thread with others.
    Futures,
}

/// One of something for each pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PerPool<T> {
    pub(crate) threads: T,
    pub(crate) futures: T,
}

impl<T> Index<Pool> for PerPool<T> {
    type Output = T;

    fn index(&self, pool: Pool) -> &T {
        match pool {
            Pool::Threads => &self.threads,
            Pool::Futures => &self.futures,
        }
    }
}

impl<T> IndexMut<Pool> for PerPool<T> {
    fn index_mut(&mut self, pool: Pool) -> &mut T {
        match pool {
            Pool::Threads => &mut self.threads,
            Pool::Futures => &mut self.futures,
        }
    }
}

impl PerPool<usize> {
    /// Of threads alone.
    #[cfg(test)]
    pub(crate) fn threads(threads: usize) -> Self {
        Self {
            threads,
            futures: 0,
        }
    }

    pub(crate) fn total(self) -> usize {
        self.threads + self.futures
    }

    /// Without these; `None` if there are not as many.
    pub(crate) fn without(mut self, pools: impl IntoIterator<Item = Pool>) -> Option<Self> {
        for pool in pools {
            self[pool] = self[pool].checked_sub(1)?;
        }
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pool_has_its_own() {
        let mut places = PerPool::threads(2);
        places[Pool::Futures] += 1;
        assert_eq!(places.total(), 3);
        let left = places.without([Pool::Threads, Pool::Futures]).unwrap();
        assert_eq!(left, PerPool::threads(1));
        assert_eq!(left.without([Pool::Futures]), None);
    }
}
