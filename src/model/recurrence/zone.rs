//! A time zone as spans of a constant offset.
//!
//! The offsets are those of the `chrono-tz` crate, which has the IANA database compiled in up to 2099; later instants have the
//! last offset. It does not say where they change, so a zone is searched once, and what was found is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone};
use chrono_tz::Tz;

use crate::error::{Error, Result};
use crate::sync::lock;
use crate::time::Timestamp;

/// The end of what is searched: 2100-01-01T00:00:00Z, in seconds.
const SEARCHED_UNTIL: i64 = 4_102_444_800;
/// The version of the IANA database that is compiled in, such as `2025b`. Versions are in the order of their texts.
pub(crate) const TZDB: &str = chrono_tz::IANA_TZDB_VERSION;
/// How far apart offsets are compared, in seconds: three days. From 1970 to 2099 a zone keeps an offset for seven days at
/// least (`America/Recife` in 2000).
const STEP: i64 = 3 * 24 * 3_600;

/// A span of a constant offset from UTC. It ends where the next one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// In seconds since 1970; the first span has no beginning.
    begins_at: i64,
    /// In seconds; positive in the east.
    offset: i64,
}

/// A time zone of the IANA database.
#[derive(Debug, Clone)]
pub(crate) struct Zone {
    tz: Tz,
    spans: Arc<[Span]>,
}

impl Zone {
    pub(crate) fn utc() -> Self {
        Self::of(Tz::UTC)
    }

    /// # Errors
    ///
    /// `Invalid` if the database has no zone of that name.
    pub(crate) fn named(name: &str) -> Result<Self> {
        if let Ok(tz) = name.parse::<Tz>() {
            return Ok(Self::of(tz));
        }
        let meant = chrono_tz::TZ_VARIANTS
            .iter()
            .find(|tz| tz.name().eq_ignore_ascii_case(name));
        let hint = meant.map_or_else(String::new, |tz| format!("; it is written {}", tz.name()));
        Err(Error::invalid(format!(
            "there is no time zone {name:?} in the IANA database, version {TZDB}{hint}"
        )))
    }

    pub(crate) fn name(&self) -> &'static str {
        self.tz.name()
    }

    /// Whether it is UTC, which no version of the database can move.
    pub(super) fn is_utc(&self) -> bool {
        self.tz == Tz::UTC
    }

    /// The civil time at an instant.
    pub(super) fn civil(&self, at: Timestamp) -> NaiveDateTime {
        match self.span(self.span_at(at)) {
            Some(bounds) => bounds.civil(at),
            None => at.to_utc().naive_utc(),
        }
    }

    fn of(tz: Tz) -> Self {
        static KNOWN: Mutex<Option<HashMap<Tz, Arc<[Span]>>>> = Mutex::new(None);
        let mut known = lock(&KNOWN);
        let spans = known.get_or_insert_default().entry(tz);
        let spans = Arc::clone(spans.or_insert_with(|| search(tz).into()));
        Self { tz, spans }
    }

    /// The index of the span that an instant is in.
    pub(super) fn span_at(&self, at: Timestamp) -> usize {
        let seconds = at.micros().div_euclid(1_000_000);
        let later = self.spans.partition_point(|span| span.begins_at <= seconds);
        later.saturating_sub(1)
    }

    /// The span of this index, between its neighbours.
    pub(super) fn span(&self, index: usize) -> Option<Bounds> {
        let span = *self.spans.get(index)?;
        let before = index.checked_sub(1).map(|index| self.spans[index]);
        let after = self.spans.get(index + 1).copied();
        Some(Bounds {
            span,
            before,
            after,
        })
    }
}

#[cfg(test)]
impl Zone {
    /// When its offset changes, until 2037, and whether both offsets are whole minutes.
    pub(super) fn changes(&self) -> Vec<(DateTime<chrono::Utc>, bool)> {
        let pairs = self.spans.windows(2);
        let pairs = pairs.take_while(|pair| pair[1].begins_at < 2_145_916_800);
        let change = |pair: &[Span]| {
            let is_whole = pair.iter().all(|span| span.offset % 60 == 0);
            let at = DateTime::from_timestamp(pair[1].begins_at, 0);
            (at.unwrap_or_default(), is_whole)
        };
        pairs.map(change).collect()
    }
}

/// A span, and its neighbours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    span: Span,
    before: Option<Span>,
    after: Option<Span>,
}

impl Bounds {
    /// The first instant of the span.
    pub(super) fn begins_at(&self) -> Timestamp {
        match self.before {
            Some(_) => Timestamp::from_micros(self.span.begins_at * 1_000_000),
            None => Timestamp::MIN,
        }
    }

    /// The first instant after the span; `None`: it has no end.
    pub(super) fn ends_at(&self) -> Option<Timestamp> {
        let after = self.after?;
        Some(Timestamp::from_micros(after.begins_at * 1_000_000))
    }

    /// The civil time at an instant.
    pub(super) fn civil(&self, at: Timestamp) -> NaiveDateTime {
        at.to_utc().naive_utc() + TimeDelta::seconds(self.span.offset)
    }

    /// The instant of a civil time.
    pub(super) fn instant(&self, civil: NaiveDateTime) -> Option<Timestamp> {
        let utc = civil.checked_sub_signed(TimeDelta::seconds(self.span.offset))?;
        Timestamp::rounded_up(utc.and_utc()).ok()
    }

    /// The civil times that are skipped before the span begins: the first, and the first that exists again.
    pub(super) fn gap(&self) -> Option<(NaiveDateTime, NaiveDateTime)> {
        let before = self.before?;
        let change = DateTime::from_timestamp(self.span.begins_at, 0)?.naive_utc();
        let at = |offset| change + TimeDelta::seconds(offset);
        (before.offset < self.span.offset).then(|| (at(before.offset), at(self.span.offset)))
    }

    /// The instant of a civil time as if the span had no bounds, and as if time had none.
    pub(super) fn unbounded_instant(&self, civil: NaiveDateTime) -> Timestamp {
        let micros = civil.and_utc().timestamp_micros();
        Timestamp::from_micros(micros - self.span.offset * 1_000_000)
    }

    /// The civil times of the span that were there before it begins: the first, and the first that was not.
    pub(super) fn fold(&self) -> Option<(NaiveDateTime, NaiveDateTime)> {
        let before = self.before?;
        let change = DateTime::from_timestamp(self.span.begins_at, 0)?.naive_utc();
        let at = |offset| change + TimeDelta::seconds(offset);
        (before.offset > self.span.offset).then(|| (at(self.span.offset), at(before.offset)))
    }

    /// Whether a civil time of the span comes again in the next one.
    pub(super) fn is_first_of_two(&self, at: Timestamp) -> bool {
        let Some(after) = self.after else {
            return false;
        };
        let seconds = at.micros().div_euclid(1_000_000);
        // The same civil time in the next span.
        seconds + self.span.offset - after.offset >= after.begins_at
    }

    /// Whether a civil time of the span was there in the span before.
    pub(super) fn is_second_of_two(&self, at: Timestamp) -> bool {
        let Some(before) = self.before else {
            return false;
        };
        let seconds = at.micros().div_euclid(1_000_000);
        seconds + self.span.offset - before.offset < self.span.begins_at
    }
}

/// The spans of a zone since 1970.
fn search(tz: Tz) -> Vec<Span> {
    let mut begins_at = 0;
    let mut offset = offset_at(tz, begins_at);
    let mut spans = vec![Span { begins_at, offset }];
    while begins_at < SEARCHED_UNTIL {
        let mut next = begins_at + STEP;
        if offset_at(tz, next) != offset {
            let (mut same, mut other) = (begins_at, next);
            while same + 1 < other {
                let middle = same.midpoint(other);
                match offset_at(tz, middle) == offset {
                    true => same = middle,
                    false => other = middle,
                }
            }
            offset = offset_at(tz, other);
            spans.push(Span {
                begins_at: other,
                offset,
            });
            next = other;
        }
        begins_at = next;
    }
    spans
}

fn offset_at(tz: Tz, seconds: i64) -> i64 {
    let at = DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    let offset = tz.offset_from_utc_datetime(&at.naive_utc()).fix();
    i64::from(offset.local_minus_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_found_by_its_name_and_by_no_other() {
        assert_eq!(
            Zone::named("Europe/Berlin").unwrap().name(),
            "Europe/Berlin"
        );
        for name in [
            "",
            "Berlin",
            "CEST",
            "europe/berlin",
            "Europe/Berlin ",
            "UTC+1",
        ] {
            let error = Zone::named(name).unwrap_err();
            assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        }
        let error = Zone::named("europe/berlin").unwrap_err();
        assert!(error.to_string().ends_with("; it is written Europe/Berlin"));
    }

    #[test]
    fn the_spans_of_a_zone_end_where_its_offset_changes() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        // 2026-03-29T01:00:00Z and 2026-10-25T01:00:00Z.
        let (spring, autumn) = (1_774_746_000, 1_792_890_000);
        let summer = berlin.span(berlin.span_at(Timestamp::from_micros(spring * 1_000_000)));
        let summer = summer.unwrap();
        assert_eq!(
            summer.span,
            Span {
                begins_at: spring,
                offset: 7_200
            }
        );
        assert_eq!(
            summer.after.unwrap(),
            Span {
                begins_at: autumn,
                offset: 3_600
            }
        );
    }

    /// Two changes within a step that cancel each other out would be missed. The tests of the rules look closer.
    #[test]
    fn each_zone_has_the_offset_of_its_span_at_any_time() {
        for tz in chrono_tz::TZ_VARIANTS {
            let zone = Zone::of(tz);
            for seconds in (0..SEARCHED_UNTIL).step_by(11 * 24 * 3_600 + 900) {
                let span = zone.spans[zone.span_at(Timestamp::from_micros(seconds * 1_000_000))];
                assert_eq!(span.offset, offset_at(tz, seconds), "{tz} {seconds}");
            }
        }
    }
}
