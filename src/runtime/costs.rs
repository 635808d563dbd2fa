//! How long tasks of each kind take, measured from the attempts that ended in this scheduler.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The time that a task of each kind takes: an exponentially weighted mean of the attempts that ended in this scheduler.
#[derive(Debug, Clone, Default)]
pub(crate) struct Costs(HashMap<Arc<str>, Duration>);

impl Costs {
    pub(crate) fn saw(&mut self, kind: &Arc<str>, took: Duration) {
        // Handing a task to a worker takes time too.
        let took = took.max(Duration::from_micros(2));
        match self.0.get_mut(kind) {
            Some(mean) => {
                // A slow task moves the mean more than a quick one.
                let weight = if took > *mean { 4 } else { 16 };
                *mean = (*mean * (weight - 1) + took) / weight;
            }
            None => {
                self.0.insert(Arc::clone(kind), took);
            }
        }
    }

    pub(crate) fn of(&self, kind: &str) -> Option<Duration> {
        self.0.get(kind).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_task_is_believed_sooner_than_a_quick_one() {
        let mut costs = Costs::default();
        let mut saw = |micros| {
            costs.saw(&"kind".into(), Duration::from_micros(micros));
            costs.of("kind")
        };
        assert_eq!(saw(100), Some(Duration::from_micros(100)));
        assert_eq!(saw(1_300), Some(Duration::from_micros(400)));
        assert_eq!(saw(80), Some(Duration::from_micros(380)));
        assert_eq!(costs.of("other"), None);
    }
}
