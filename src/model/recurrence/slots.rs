//! The slots of a cron expression in a time zone: civil times that do not exist there, or exist twice, are decided here.
//!
//! A zone is walked span by span of constant offset, so the slots come in the order of time, and a fold or a gap is the border
//! between two spans.

use std::sync::Arc;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::cron::Cron;
use super::zone::{Bounds, Zone};
use crate::time::Timestamp;

/// What becomes of a slot whose civil time is skipped, as when clocks are set forward.
///
/// It does not apply to a cron expression whose minute or hour begins with `*`: that means spans of time, and goes by elapsed
/// time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Gap {
    /// All slots of the gap make one at its end, which is also the one that is due there, if any. The default.
    #[default]
    RunAfter,
    /// There is no slot.
    Skip,
}

/// What becomes of a slot whose civil time comes twice, as when clocks are set back.
///
/// It does not apply to a cron expression whose minute or hour begins with `*`: that means spans of time, and runs on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fold {
    /// The slot is the first time. The default.
    #[default]
    First,
    /// The slot is the second time.
    Second,
    /// There are two slots.
    Both,
}

const SECOND: TimeDelta = TimeDelta::seconds(1);

/// A cron expression in a zone.
#[derive(Debug, Clone)]
pub(super) struct ZonedCron {
    pub(super) cron: Arc<Cron>,
    pub(super) zone: Zone,
    pub(super) gap: Gap,
    pub(super) fold: Fold,
}

impl ZonedCron {
    /// The first slot after an instant.
    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let from = Timestamp::from_micros(after.micros() + 1);
        let mut index = self.zone.span_at(from);
        loop {
            let bounds = self.zone.span(index)?;
            let from = from.max(bounds.begins_at());
            if from == bounds.begins_at() && self.runs_after_gap(&bounds) {
                return Some(from);
            }
            let ends_at = bounds.ends_at().unwrap_or(Timestamp::MAX);
            let mut civil = bounds.civil(from);
            while let Some(found) = self.cron.at_or_after(civil) {
                match bounds.instant(found) {
                    Some(at) if at < ends_at && self.counts(&bounds, at) => return Some(at),
                    Some(at) if at < ends_at => civil = found.checked_add_signed(SECOND)?,
                    _ => break,
                }
            }
            index += 1;
        }
    }

    /// The last slot before an instant.
    pub(super) fn previous(&self, before: Timestamp) -> Option<Timestamp> {
        let until = Timestamp::from_micros(before.micros().checked_sub(1)?);
        if until < Timestamp::MIN {
            return None;
        }
        let mut index = self.zone.span_at(until);
        loop {
            let bounds = self.zone.span(index)?;
            let last = bounds
                .ends_at()
                .map(|end| Timestamp::from_micros(end.micros() - 1));
            let until = last.map_or(until, |last| last.min(until));
            let mut civil = bounds.civil(until);
            while let Some(found) = self.cron.at_or_before(civil) {
                match bounds.instant(found) {
                    Some(at) if at >= bounds.begins_at() && self.counts(&bounds, at) => {
                        return Some(at);
                    }
                    Some(at) if at >= bounds.begins_at() => {
                        civil = found.checked_sub_signed(SECOND)?
                    }
                    _ => break,
                }
            }
            if self.runs_after_gap(&bounds) {
                return Some(bounds.begins_at());
            }
            index = index.checked_sub(1)?;
        }
    }

    /// Whether a slot falls into the gap before a span, and is to run at its end.
    fn runs_after_gap(&self, bounds: &Bounds) -> bool {
        if self.gap == Gap::Skip || self.cron.follows_elapsed_time() {
            return false;
        }
        let Some((first, end)) = bounds.gap() else {
            return false;
        };
        let slot = self.cron.at_or_after(first);
        slot.is_some_and(|slot| slot < end)
    }

    /// Whether a match in a span is a slot.
    fn counts(&self, bounds: &Bounds, at: Timestamp) -> bool {
        if self.cron.follows_elapsed_time() || self.fold == Fold::Both {
            return true;
        }
        match self.fold {
            Fold::Second => !bounds.is_first_of_two(at),
            _ => !bounds.is_second_of_two(at),
        }
    }
}
