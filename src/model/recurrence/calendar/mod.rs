//! A rule as calendars write it: iCalendar lines, RFC 5545.
//!
//! Civil times are found without a zone (`pattern.rs`), and placed in it afterwards (`civil.rs`).

mod civil;
mod days;
mod parts;
mod pattern;
#[cfg(test)]
mod tests;
mod text;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use chrono::NaiveDateTime;

use crate::error::{Error, Result};
use crate::model::recurrence::search::{Found, Way, nearer};
use crate::model::recurrence::zone::Zone;
use crate::sync::lock;
use crate::time::Timestamp;

use pattern::{Civil, Pattern};
use text::Line;

/// The longest text, in bytes: some 500 excluded times.
const MAX_BYTES: usize = 8 * 1_024;
/// How many texts are kept read. One takes up to some 20 KiB.
const MAX_KNOWN: usize = 1_024;

/// A calendar rule.
#[derive(Debug)]
pub(super) struct Calendar {
    /// Its lines as they were written, without folds and empty lines.
    text: String,
    zone: Zone,
    pattern: Pattern,
    until: Option<Timestamp>,
    /// Ascending.
    added: Vec<Timestamp>,
    /// Those of them that are not civil times of `zone`, and are not excluded. Ascending.
    fixed: Vec<Timestamp>,
    /// Ascending.
    excluded: Vec<Timestamp>,
}

impl Calendar {
    /// Reads lines as [`read`](Self::read) does, unless they are known.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub(super) fn known(text: &str) -> Result<Arc<Self>> {
        static KNOWN: Mutex<Option<HashMap<String, Arc<Calendar>>>> = Mutex::new(None);
        if let Some(calendar) = lock(&KNOWN).get_or_insert_default().get(text) {
            return Ok(Arc::clone(calendar));
        }
        let calendar = Arc::new(Self::read(text)?);
        let mut known = lock(&KNOWN);
        let known = known.get_or_insert_default();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(text.to_owned(), Arc::clone(&calendar));
        Ok(calendar)
    }

    /// # Errors
    ///
    /// `Invalid`, naming the line, the column and the property that is wrong.
    fn read(text: &str) -> Result<Self> {
        if text.len() > MAX_BYTES {
            let bytes = text.len();
            return Err(Error::invalid(format!(
                "the calendar rule has {bytes} bytes, more than {MAX_BYTES}"
            )));
        }
        let texts = text::unfold(text)?;
        let lines = texts.iter().map(|(number, text)| Line::read(*number, text));
        let lines: Vec<Line<'_>> = lines.collect::<Result<_>>()?;
        let (mut added, mut excluded) = (Vec::new(), Vec::new());
        for line in &lines {
            match line.name.as_str() {
                "DTSTART" | "RRULE" => {}
                "RDATE" => added.extend(line.instants()?),
                "EXDATE" => excluded.extend(line.instants()?),
                "EXRULE" => {
                    return Err(line.whole_fault("it is not read: `Rule::except` excludes a rule"));
                }
                _ => {
                    return Err(line
                        .whole_fault("it is not read, only DTSTART, RRULE, RDATE and EXDATE are"));
                }
            }
        }
        let start = parts::only(&lines, "DTSTART", "")?;
        let zone = start.zone()?;
        let mut fixed = Vec::new();
        for line in lines.iter().filter(|line| line.name == "RDATE") {
            let own = line.zone()?;
            if own.as_ref().map(Zone::name) != zone.as_ref().map(Zone::name) {
                fixed.extend(line.instants()?);
            }
        }
        for instants in [&mut added, &mut fixed, &mut excluded] {
            instants.sort_unstable();
            instants.dedup();
        }
        fixed.retain(|at| excluded.binary_search(at).is_err());
        let civil = start.civil(start.value, zone.as_ref())?;
        let rule = parts::only(&lines, "RRULE", ": `Rule::at` is a list of instants")?;
        let (pattern, until) = parts::read(rule, civil)?;
        let texts: Vec<&str> = texts.iter().map(|(_, text)| text.as_str()).collect();
        Ok(Self {
            text: texts.join("\n"),
            zone: zone.unwrap_or_else(Zone::utc),
            pattern,
            until,
            added,
            fixed,
            excluded,
        })
    }

    /// Its lines.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The zone of its start.
    pub(super) fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The instants that are added, unless they are civil times of its zone.
    pub(super) fn fixed(&self) -> Vec<Timestamp> {
        self.fixed.clone()
    }

    /// The last of the civil times for which a slot stands: one that was skipped became a later one.
    pub(super) fn last_civil(&self, slot: Timestamp) -> NaiveDateTime {
        let civil = self.zone.civil(slot);
        let is_named = |civil| self.pattern.find(Way::After, civil) == Civil::At(civil);
        let gap = self.zone.span(self.zone.span_at(slot));
        match gap.and_then(|bounds| bounds.gap()) {
            Some((first, end))
                if civil < end + (end - first)
                    && !is_named(civil)
                    && is_named(civil - (end - first)) =>
            {
                civil - (end - first)
            }
            _ => civil,
        }
    }

    /// The nearest slot from an instant on, which is itself not included.
    pub(super) fn find(&self, way: Way, from: Timestamp) -> Found {
        let mut from = from;
        // A slot that is passed over is one of the excluded.
        for _ in 0..=self.excluded.len() {
            let found = nearer(way, self.by_rule(way, from), self.added(way, from));
            match found {
                Found::Slot(slot) if self.excluded.binary_search(&slot).is_ok() => from = slot,
                found => return found,
            }
        }
        Found::Further(from)
    }

    fn by_rule(&self, way: Way, from: Timestamp) -> Found {
        let until = self.until.unwrap_or(Timestamp::MAX);
        let from = match way {
            Way::After => Timestamp::from_micros(from.micros() + 1).max(Timestamp::MIN),
            Way::Before => Timestamp::from_micros(from.micros() - 1).min(until),
        };
        if !(Timestamp::MIN..=until).contains(&from) {
            return Found::Nothing;
        }
        match civil::find(&self.pattern, &self.zone, way, from) {
            Found::Slot(at) | Found::Further(at) if at > until => Found::Nothing,
            found => found,
        }
    }

    fn added(&self, way: Way, from: Timestamp) -> Found {
        let index = match way {
            Way::After => Some(self.added.partition_point(|at| *at <= from)),
            Way::Before => self.added.partition_point(|at| *at < from).checked_sub(1),
        };
        index
            .and_then(|index| self.added.get(index).copied())
            .into()
    }
}

/// Its DTSTART and RRULE, and how many instants are added and excluded.
impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("calendar")?;
        let named = |name: &str| {
            self.text.lines().find(|line| {
                let start = line.get(..name.len());
                start.is_some_and(|start| start.eq_ignore_ascii_case(name))
            })
        };
        for line in ["DTSTART", "RRULE"].into_iter().filter_map(named) {
            write!(f, " {line}")?;
        }
        for (count, what) in [(self.added.len(), "with"), (self.excluded.len(), "without")] {
            match count {
                0 => {}
                1 => write!(f, ", {what} 1 instant")?,
                _ => write!(f, ", {what} {count} instants")?,
            }
        }
        Ok(())
    }
}
