//! What a rule is made of, and the bounded search for its slots.

#[cfg(feature = "rrule")]
use std::sync::Arc;

use chrono::{NaiveDate, NaiveDateTime};

#[cfg(feature = "rrule")]
use super::calendar::Calendar;
use super::search::{Found, Way, nearer};
use super::slots::ZonedCron;
use super::zone::Zone;
use crate::time::Timestamp;

/// How many slots in a row a search passes over because they are excluded, before it has to be called again. A hundred take
/// about as long as storing ten tasks.
const MAX_EXCLUDED: usize = 2_000;

/// What a rule is made of.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Cron(Box<ZonedCron>),
    #[cfg(feature = "rrule")]
    Calendar(Arc<Calendar>),
    Every {
        anchor: Timestamp,
        micros: i64,
    },
    /// In ascending order.
    At(Vec<Timestamp>),
    AnyOf(Vec<Kind>),
    Except {
        rule: Box<Kind>,
        except: Box<Kind>,
    },
    ExceptDates {
        rule: Box<Kind>,
        /// In ascending order.
        dates: Vec<NaiveDate>,
        zone: Zone,
    },
    /// The slots between two instants, both included.
    Within {
        rule: Box<Kind>,
        first: Timestamp,
        last: Timestamp,
    },
}

impl Kind {
    /// The nearest slot from an instant on, which is itself not included.
    pub(super) fn find(&self, way: Way, from: Timestamp) -> Found {
        match self {
            Self::Cron(cron) => match way {
                Way::After => cron.next(from).into(),
                Way::Before => cron.previous(from).into(),
            },
            #[cfg(feature = "rrule")]
            Self::Calendar(calendar) => calendar.find(way, from),
            Self::Every { anchor, micros } => multiple(*anchor, *micros, way, from).into(),
            Self::At(instants) => {
                let index = match way {
                    Way::After => Some(instants.partition_point(|instant| *instant <= from)),
                    Way::Before => instants
                        .partition_point(|instant| *instant < from)
                        .checked_sub(1),
                };
                index.and_then(|index| instants.get(index).copied()).into()
            }
            Self::AnyOf(rules) => {
                let found = rules.iter().map(|rule| rule.find(way, from));
                found.fold(Found::Nothing, |one, other| nearer(way, one, other))
            }
            Self::Except { rule, except } => rule.find_allowed(way, from, |slot| except.has(slot)),
            Self::ExceptDates { rule, dates, zone } => rule.find_allowed(way, from, |slot| {
                dates.binary_search(&zone.civil(slot).date()).is_ok()
            }),
            Self::Within { rule, first, last } => {
                let from = match way {
                    Way::After => from.max(way.step_back(*first)),
                    Way::Before => from.min(way.step_back(*last)),
                };
                match rule.find(way, from) {
                    Found::Slot(at) | Found::Further(at) if at < *first || at > *last => {
                        Found::Nothing
                    }
                    found => found,
                }
            }
        }
    }

    /// The nearest slot that is not excluded.
    fn find_allowed(
        &self,
        way: Way,
        from: Timestamp,
        is_excluded: impl Fn(Timestamp) -> bool,
    ) -> Found {
        let mut from = from;
        for _ in 0..MAX_EXCLUDED {
            match self.find(way, from) {
                Found::Slot(slot) if is_excluded(slot) => from = slot,
                found => return found,
            }
        }
        Found::Further(from)
    }

    /// Whether an instant is a slot. By the parts: a search would pass over the excluded slots of each level anew.
    fn has(&self, at: Timestamp) -> bool {
        match self {
            Self::AnyOf(rules) => rules.iter().any(|rule| rule.has(at)),
            Self::Except { rule, except } => rule.has(at) && !except.has(at),
            Self::ExceptDates { rule, dates, zone } => {
                rule.has(at) && dates.binary_search(&zone.civil(at).date()).is_err()
            }
            Self::Within { rule, first, last } => (*first..=*last).contains(&at) && rule.has(at),
            rule => rule.find(Way::After, Way::After.step_back(at)) == Found::Slot(at),
        }
    }

    /// The time zones whose civil times are slots, if a version of the time zone database can move them. Excluded slots do not
    /// count.
    pub(super) fn moving_zones(&self) -> Vec<&Zone> {
        match self {
            Self::AnyOf(rules) => rules.iter().flat_map(Self::moving_zones).collect(),
            Self::Except { rule, .. }
            | Self::ExceptDates { rule, .. }
            | Self::Within { rule, .. } => rule.moving_zones(),
            part => part.moving_zone().into_iter().collect(),
        }
    }

    /// The same of a rule without parts.
    pub(super) fn moving_zone(&self) -> Option<&Zone> {
        let zone = match self {
            Self::Cron(cron) if !cron.cron.follows_elapsed_time() => &cron.zone,
            #[cfg(feature = "rrule")]
            Self::Calendar(calendar) => calendar.zone(),
            _ => return None,
        };
        (!zone.is_utc()).then_some(zone)
    }

    /// The rule with each of its parts replaced. What is excluded stays.
    pub(super) fn map(&self, replace: &impl Fn(&Self) -> Self) -> Self {
        let boxed = |rule: &Self| Box::new(rule.map(replace));
        match self {
            Self::AnyOf(rules) => Self::AnyOf(rules.iter().map(|rule| rule.map(replace)).collect()),
            Self::Except { rule, except } => Self::Except {
                rule: boxed(rule),
                except: except.clone(),
            },
            Self::ExceptDates { rule, dates, zone } => Self::ExceptDates {
                rule: boxed(rule),
                dates: dates.clone(),
                zone: zone.clone(),
            },
            Self::Within { rule, first, last } => Self::Within {
                rule: boxed(rule),
                first: *first,
                last: *last,
            },
            part => replace(part),
        }
    }

    /// The slots of a rule without parts that are instants, though others are civil times of a zone. In ascending order.
    pub(super) fn fixed(&self) -> Vec<Timestamp> {
        match self {
            #[cfg(feature = "rrule")]
            Self::Calendar(calendar) => calendar.fixed(),
            _ => Vec::new(),
        }
    }

    /// The last of the civil times in a zone for which a slot of a rule without parts stands. It is another than that of the slot
    /// if it was skipped when clocks were set forward.
    pub(super) fn last_civil(&self, zone: &Zone, slot: Timestamp) -> NaiveDateTime {
        let civil = zone.civil(slot);
        match self {
            Self::Cron(cron) => cron.cron.at_or_before(civil).unwrap_or(civil),
            #[cfg(feature = "rrule")]
            Self::Calendar(calendar) => calendar.last_civil(slot),
            _ => civil,
        }
    }

    /// The time zones of its civil times.
    pub(super) fn zones(&self) -> Vec<&Zone> {
        match self {
            Self::Cron(cron) => vec![&cron.zone],
            #[cfg(feature = "rrule")]
            Self::Calendar(calendar) => vec![calendar.zone()],
            Self::Every { .. } | Self::At(_) => Vec::new(),
            Self::AnyOf(rules) => rules.iter().flat_map(Self::zones).collect(),
            Self::Except { rule, except } => {
                let mut zones = rule.zones();
                zones.extend(except.zones());
                zones
            }
            Self::ExceptDates { rule, .. } | Self::Within { rule, .. } => rule.zones(),
        }
    }

    /// How deep its parts are nested.
    pub(super) fn depth(&self) -> usize {
        match self {
            #[cfg(feature = "rrule")]
            Self::Calendar(_) => 1,
            Self::Cron(_) | Self::Every { .. } | Self::At(_) => 1,
            Self::AnyOf(rules) => 1 + rules.iter().map(Self::depth).max().unwrap_or(0),
            Self::Except { rule, except } => 1 + rule.depth().max(except.depth()),
            Self::ExceptDates { rule, .. } | Self::Within { rule, .. } => 1 + rule.depth(),
        }
    }
}

/// The nearest of the instants `anchor + n × micros`.
fn multiple(anchor: Timestamp, micros: i64, way: Way, from: Timestamp) -> Option<Timestamp> {
    let passed = from.micros().checked_sub(anchor.micros())?;
    let count = match way {
        Way::After => passed.div_euclid(micros).checked_add(1)?,
        Way::Before => passed.checked_sub(1)?.div_euclid(micros),
    };
    let at = anchor.micros().checked_add(micros.checked_mul(count)?)?;
    Some(Timestamp::from_micros(at))
}
