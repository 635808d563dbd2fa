//! The instants of civil times, as RFC 5545 means them: a time that comes twice is its first, and a time that is skipped goes
//! by the offset before the change, so that half past two becomes half past three.
//!
//! As for cron expressions, a zone is walked span by span of constant offset, so the slots come in the order of time. Those
//! that were moved out of a gap lie among the first slots of the span after it.

use chrono::{NaiveDateTime, NaiveTime, TimeDelta};

use crate::model::recurrence::calendar::pattern::{Civil, Pattern};
use crate::model::recurrence::search::{Found, Way, nearer};
use crate::model::recurrence::zone::{Bounds, Zone};
use crate::time::Timestamp;

const SECOND: TimeDelta = TimeDelta::seconds(1);
const DAY: TimeDelta = TimeDelta::days(1);

/// The instant of a civil time.
pub(super) fn instant(zone: &Zone, civil: NaiveDateTime) -> Timestamp {
    let near = Timestamp::from_micros(civil.and_utc().timestamp_micros());
    // No offset is longer than a day, and no span is shorter than two.
    let first = zone.span_at(near).saturating_sub(1);
    let spans = (first..).map_while(|index| zone.span(index));
    let mut found = spans.take(3).filter_map(|bounds| within(&bounds, civil));
    found.next().unwrap_or(near)
}

/// The instant of a civil time that belongs to a span.
fn within(bounds: &Bounds, civil: NaiveDateTime) -> Option<Timestamp> {
    if let Some((first, end)) = bounds.gap()
        && (first..end).contains(&civil)
    {
        return Some(moved(bounds, first, civil));
    }
    let at = bounds.unbounded_instant(civil);
    let is_begun = at >= bounds.begins_at() || bounds.begins_at() == Timestamp::MIN;
    (is_begun && is_before_end(bounds, at)).then_some(at)
}

fn is_before_end(bounds: &Bounds, at: Timestamp) -> bool {
    bounds.ends_at().is_none_or(|end| at < end)
}

/// The instant of a time in the gap before a span, which begins with the civil time `first`.
fn moved(bounds: &Bounds, first: NaiveDateTime, civil: NaiveDateTime) -> Timestamp {
    let passed = (civil - first).num_microseconds().unwrap_or(0);
    Timestamp::from_micros(bounds.begins_at().micros() + passed)
}

/// The nearest slot of a pattern in a zone; `from` is included.
pub(super) fn find(pattern: &Pattern, zone: &Zone, way: Way, from: Timestamp) -> Found {
    let mut index = zone.span_at(from);
    while let Some(bounds) = zone.span(index) {
        let from = match way {
            Way::After => from.max(bounds.begins_at()),
            Way::Before => bounds.ends_at().map_or(from, |end| {
                from.min(Timestamp::from_micros(end.micros() - 1))
            }),
        };
        let own = own(pattern, &bounds, way, from);
        let found = match &own {
            Own::Found(found) => *found,
            Own::Beyond(_) | Own::Unknown => Found::Nothing,
        };
        let found = nearer(way, found, out_of_gap(pattern, &bounds, way, from));
        if found != Found::Nothing {
            return found;
        }
        let next = |index: usize| match way {
            Way::After => Some(index + 1),
            Way::Before => index.checked_sub(1),
        };
        let Some(mut other) = next(index) else {
            return Found::Nothing;
        };
        match own {
            Own::Found(_) => return Found::Nothing,
            Own::Unknown => {}
            // No search is needed in the spans between.
            Own::Beyond(civil) => {
                while let Some(bounds) = zone.span(other)
                    && is_past(&bounds, way, civil)
                    && let Some(further) = next(other)
                {
                    other = further;
                }
            }
        }
        index = other;
    }
    Found::Nothing
}

/// What the search among the civil times of a span has found.
enum Own {
    Found(Found),
    /// None in the span: the nearest in this direction is this one, in another span.
    Beyond(NaiveDateTime),
    /// None in the span, and of others it is not known.
    Unknown,
}

/// The nearest slot whose civil time exists in a span.
fn own(pattern: &Pattern, bounds: &Bounds, way: Way, from: Timestamp) -> Own {
    let mut civil = bounds.civil(from);
    // What comes again here was a slot the first time.
    let is_again = |civil: NaiveDateTime| bounds.fold().is_some_and(|(_, end)| civil < end);
    if is_again(civil) {
        match (way, bounds.fold()) {
            (Way::After, Some((_, end))) => civil = end,
            _ => return Own::Unknown,
        }
    }
    match pattern.find(way, civil) {
        Civil::At(at) => {
            let slot = bounds.unbounded_instant(at);
            if slot < bounds.begins_at() || !is_before_end(bounds, slot) {
                Own::Beyond(at)
            } else if is_again(at) {
                Own::Unknown
            } else {
                Own::Found(Found::Slot(slot))
            }
        }
        Civil::Nothing => Own::Found(Found::Nothing),
        Civil::Further(day) => {
            let midnight = day.and_time(NaiveTime::MIN);
            let end = match way {
                Way::After => midnight + DAY,
                Way::Before => midnight,
            };
            let searched = bounds.unbounded_instant(end).micros();
            let last = bounds.ends_at().map_or(searched, |end| end.micros());
            let searched = match way {
                Way::After => searched.min(last) - 1,
                Way::Before => searched.max(bounds.begins_at().micros()),
            };
            Own::Found(Found::Further(Timestamp::from_micros(searched)))
        }
    }
}

/// The nearest slot whose civil time was skipped before a span.
fn out_of_gap(pattern: &Pattern, bounds: &Bounds, way: Way, from: Timestamp) -> Found {
    let Some((first, end)) = bounds.gap() else {
        return Found::Nothing;
    };
    let passed = TimeDelta::microseconds(from.micros() - bounds.begins_at().micros());
    let mut civil = match way {
        Way::After => first + passed,
        Way::Before => (first + passed).min(end - SECOND),
    };
    while (first..end).contains(&civil) {
        match pattern.find(way, civil) {
            Civil::At(at) if (first..end).contains(&at) => {
                return Found::Slot(moved(bounds, first, at));
            }
            Civil::At(_) | Civil::Nothing => break,
            Civil::Further(day) => {
                let midnight = day.and_time(NaiveTime::MIN);
                civil = match way {
                    Way::After => midnight + DAY,
                    Way::Before => midnight - SECOND,
                };
            }
        }
    }
    Found::Nothing
}

/// Whether a civil time lies beyond a span in a direction.
fn is_past(bounds: &Bounds, way: Way, civil: NaiveDateTime) -> bool {
    let at = bounds.unbounded_instant(civil);
    match way {
        Way::After => !is_before_end(bounds, at),
        Way::Before => {
            let begins_at = bounds.begins_at();
            at < begins_at && bounds.gap().is_none_or(|(first, _)| civil < first)
        }
    }
}
