//! What runs next, without a store: only the rules and the time.

use std::path::Path;

use chrono_tz::Tz;
use punctual::chrono::{DateTime, Utc};

use crate::parse::{Entry, When};

/// The next slots of all entries, in their order.
pub(crate) fn next(
    entries: &[Entry],
    after: DateTime<Utc>,
    count: usize,
) -> Vec<(DateTime<Utc>, &Entry)> {
    let slots = entries.iter().flat_map(|entry| {
        let rule = match &entry.when {
            When::At(rule) => Some(rule),
            When::Reboot => None,
        };
        let slots = rule.into_iter().flat_map(|rule| rule.after(after));
        slots.take(count).map(move |slot| (slot, entry))
    });
    let mut slots: Vec<_> = slots.collect();
    slots.sort_by_key(|(slot, _)| *slot);
    slots.truncate(count);
    slots
}

/// Prints the next slots, each in the time zone of its line.
pub(crate) fn print(entries: &[Entry], after: DateTime<Utc>, count: usize) {
    for (slot, entry) in next(entries, after, count) {
        let local = slot.with_timezone(&entry.zone).format("%a %F %T %Z");
        println!("{local} ({})  {}", entry.zone, entry.job.command);
    }
}

/// The time zone of lines that name none: that of `TZ`, else that of the machine, else UTC.
pub(crate) fn local_zone() -> Tz {
    let named = std::env::var("TZ").ok();
    let named = named.and_then(|name| name.trim_start_matches(':').parse().ok());
    named.or_else(linked_zone).unwrap_or(Tz::UTC)
}

/// `/etc/localtime` is a link to a file of the zone's name.
fn linked_zone() -> Option<Tz> {
    let target = Path::new("/etc/localtime").canonicalize().ok()?;
    let (_, name) = target.to_str()?.split_once("/zoneinfo/")?;
    name.parse().ok()
}
