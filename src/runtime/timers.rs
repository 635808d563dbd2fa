//! When each held task has to be looked at, in order.

use std::collections::BTreeSet;

use crate::time::Timestamp;

/// The next instant of each slot that has one.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Timestamp, usize)>);

impl Timers {
    /// Changes the instant of a slot, which was `former`.
    pub(crate) fn set(&mut self, slot: usize, former: Option<Timestamp>, next: Option<Timestamp>) {
        if former == next {
            return;
        }
        if let Some(at) = former {
            self.0.remove(&(at, slot));
        }
        if let Some(at) = next {
            self.0.insert((at, slot));
        }
    }

    /// Takes a slot whose instant has come.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<usize> {
        self.next().filter(|at| *at <= now)?;
        self.0.pop_first().map(|(_, slot)| slot)
    }

    /// The earliest instant.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.0.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_due_in_the_order_of_their_instants_and_once() {
        let at = Timestamp::from_micros;
        let mut timers = Timers::default();
        timers.set(1, None, Some(at(5)));
        timers.set(2, None, Some(at(3)));
        timers.set(3, None, Some(at(4)));
        timers.set(3, Some(at(4)), None);
        timers.set(1, Some(at(5)), Some(at(5)));
        assert_eq!((timers.next(), timers.pop_due(at(2))), (Some(at(3)), None));
        assert_eq!(
            [5, 5, 5].map(|now| timers.pop_due(at(now))),
            [Some(2), Some(1), None]
        );
        assert_eq!(timers.next(), None);
    }
}
