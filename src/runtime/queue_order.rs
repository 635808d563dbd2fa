//! The order in which queues take turns: first the queue whose last claim is longest ago.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::model::lane::{Lane, QueueClaim};

/// The queues, the next one first. New queues are added at the end; queues without a lane are removed.
#[derive(Debug, Default)]
pub(crate) struct QueueOrder(VecDeque<Arc<str>>);

impl QueueOrder {
    /// Moves queues from which tasks were claimed to the end, in the order of the last claim of each.
    pub(crate) fn took(&mut self, claimed: &[Arc<str>]) {
        let mut seen = HashSet::new();
        let mut last_first: Vec<&Arc<str>> = claimed.iter().rev().collect();
        last_first.dedup();
        last_first.retain(|queue| seen.insert(*queue));
        self.0.retain(|queue| !seen.contains(queue));
        self.0.extend(last_first.into_iter().rev().cloned());
    }

    /// Removes queues that have no lane any more. Does nothing while there are at most as many queues as lanes.
    pub(crate) fn forget(&mut self, lanes: &[Lane]) {
        if self.0.len() > lanes.len() {
            let queues: HashSet<&str> = lanes.iter().map(|lane| &*lane.queue).collect();
            self.0.retain(|queue| queues.contains(&**queue));
        }
    }

    /// Sorts the queues by their turns. There may be thousands, so their places are looked up in a map.
    pub(crate) fn in_turn(&mut self, mut queues: Vec<(Arc<str>, QueueClaim)>) -> Vec<QueueClaim> {
        let mut places: HashMap<Arc<str>, usize> = self.0.iter().cloned().zip(0..).collect();
        for (queue, _) in &queues {
            places.entry(Arc::clone(queue)).or_insert_with(|| {
                self.0.push_back(Arc::clone(queue));
                self.0.len() - 1
            });
        }
        queues.sort_by_cached_key(|(queue, _)| places.get(queue).copied());
        queues.into_iter().map(|(_, claim)| claim).collect()
    }

    /// The queues in the order of their turns.
    #[cfg(test)]
    pub(crate) fn queues(&self) -> Vec<&str> {
        self.0.iter().map(|queue| &**queue).collect()
    }
}
