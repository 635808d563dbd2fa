//! The places for futures: how many run at once, and a rest after an executor that drops them.

use std::sync::Mutex;
use std::time::Duration;

use crate::sync::lock;
use crate::time::Timestamp;

/// How long no further future is started after one was dropped by its executor. Doubles with each that follows.
const FIRST_REST: Duration = Duration::from_secs(1);
const MAX_REST: Duration = Duration::from_secs(60);

/// The places for futures.
#[derive(Debug)]
pub(crate) struct Places {
    max: usize,
    rest: Mutex<Rest>,
}

#[derive(Debug, Default)]
struct Rest {
    until: Option<Timestamp>,
    /// How long the last rest was; zero: none since a future ended as it should.
    span: Duration,
    /// A future has ended as it should since the executor dropped the last one.
    has_ended: bool,
}

impl Rest {
    /// Until when no further future is started; `None`: one may be.
    fn at(&self, now: Timestamp) -> Option<Timestamp> {
        // The clock may have been set back.
        let is_to_come = |at: &Timestamp| *at > now && *at <= now + MAX_REST;
        self.until.filter(is_to_come)
    }
}

impl Places {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            rest: Mutex::default(),
        }
    }

    /// How many more futures may start, if so many run.
    pub(crate) fn free(&self, running: usize, now: Timestamp) -> usize {
        match self.rests(now) {
            Some(_) => 0,
            None => self.max.saturating_sub(running),
        }
    }

    /// Until when no further future is started; `None`: one may be.
    pub(crate) fn rests(&self, now: Timestamp) -> Option<Timestamp> {
        lock(&self.rest).at(now)
    }

    /// Notes that an executor has dropped a future. A single one between others that end brings no rest, and all that it drops
    /// during a rest count as one.
    pub(crate) fn note_dropped(&self, now: Timestamp) {
        let mut rest = lock(&self.rest);
        if std::mem::take(&mut rest.has_ended) || rest.at(now).is_some() {
            return;
        }
        rest.span = (2 * rest.span).clamp(FIRST_REST, MAX_REST);
        rest.until = Some(now + rest.span);
    }

    /// Notes that a future has ended as it should: others may, and a rest is over.
    pub(crate) fn note_ended(&self) {
        let mut rest = lock(&self.rest);
        rest.span = Duration::ZERO;
        rest.until = None;
        rest.has_ended = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);
    const S: Duration = Duration::from_secs(1);

    #[test]
    fn p12_an_executor_that_drops_all_futures_gets_fewer_and_fewer() {
        let places = Places::new(10);
        assert_eq!(places.free(3, NOW), 7);
        assert_eq!(places.free(11, NOW), 0);
        let mut now = NOW;
        for rest in [1, 2, 4, 8, 16, 32, 60, 60] {
            for _ in 0..3 {
                places.note_dropped(now);
            }
            assert_eq!(places.rests(now), Some(now + rest * S));
            assert_eq!(places.free(0, now), 0);
            assert_eq!(places.rests(now - 100 * S), None, "a clock set back");
            now = now + rest * S;
            assert_eq!(places.free(0, now), 10);
        }
        places.note_dropped(now);
        places.note_ended();
        assert_eq!(places.rests(now), None, "others end");
        places.note_dropped(now);
        assert_eq!(places.rests(now), None, "a single one");
        places.note_dropped(now);
        assert_eq!(places.rests(now), Some(now + S));
    }
}
