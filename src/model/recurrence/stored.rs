//! A rule as it is stored: JSON that names its parts, with cron expressions as they were written.

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

#[cfg(feature = "rrule")]
use super::calendar::Calendar;
use super::cron::Cron;
use super::kind::Kind;
use super::slots::{Fold, Gap, ZonedCron};
use super::zone::Zone;
use crate::error::{Error, Result};
use crate::time::Timestamp;

/// A rule as it is stored. Rules are equal if these are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StoredRule {
    Cron {
        expression: String,
        zone: String,
        #[serde(default)]
        gap: Gap,
        #[serde(default)]
        fold: Fold,
    },
    /// There with the feature `rrule` or without it, so that the name means nothing else.
    Calendar {
        text: String,
    },
    Every {
        micros: i64,
        anchor: i64,
    },
    At(Vec<i64>),
    AnyOf(Vec<Self>),
    Except {
        rule: Box<Self>,
        except: Box<Self>,
    },
    ExceptDates {
        rule: Box<Self>,
        dates: Vec<String>,
        zone: String,
    },
    Within {
        rule: Box<Self>,
        first: i64,
        last: i64,
    },
}

impl StoredRule {
    pub(super) fn of(kind: &Kind) -> Self {
        let boxed = |kind| Box::new(Self::of(kind));
        match kind {
            Kind::Cron(zoned) => Self::Cron {
                expression: zoned.cron.text().to_owned(),
                zone: zoned.zone.name().to_owned(),
                gap: zoned.gap,
                fold: zoned.fold,
            },
            #[cfg(feature = "rrule")]
            Kind::Calendar(calendar) => Self::Calendar {
                text: calendar.text().to_owned(),
            },
            Kind::Every { anchor, micros } => Self::Every {
                micros: *micros,
                anchor: anchor.micros(),
            },
            Kind::At(instants) => Self::At(instants.iter().map(|at| at.micros()).collect()),
            Kind::AnyOf(rules) => Self::AnyOf(rules.iter().map(Self::of).collect()),
            Kind::Except { rule, except } => Self::Except {
                rule: boxed(rule),
                except: boxed(except),
            },
            Kind::ExceptDates { rule, dates, zone } => Self::ExceptDates {
                rule: boxed(rule),
                dates: dates.iter().map(ToString::to_string).collect(),
                zone: zone.name().to_owned(),
            },
            Kind::Within { rule, first, last } => Self::Within {
                rule: boxed(rule),
                first: first.micros(),
                last: last.micros(),
            },
        }
    }

    /// # Errors
    ///
    /// `Invalid` if it is damaged, if this version of the program does not know one of its names, or if it needs a feature that
    /// this program was built without.
    pub(super) fn read(self) -> Result<Kind> {
        let boxed = |stored: Box<Self>| stored.read().map(Box::new);
        Ok(match self {
            Self::Cron {
                expression,
                zone,
                gap,
                fold,
            } => Kind::Cron(Box::new(ZonedCron {
                cron: Cron::known(&expression)?,
                zone: Zone::named(&zone)?,
                gap,
                fold,
            })),
            #[cfg(feature = "rrule")]
            Self::Calendar { text } => Kind::Calendar(Calendar::known(&text)?),
            #[cfg(not(feature = "rrule"))]
            Self::Calendar { .. } => {
                return Err(Error::invalid(
                    "the stored rule is a calendar rule, and this program was built without the feature `rrule` of punctual",
                ));
            }
            Self::Every { micros, anchor } => {
                if micros < 1 {
                    return Err(Error::invalid(
                        "the interval of a stored rule is not positive",
                    ));
                }
                Kind::Every {
                    anchor: Timestamp::from_micros(anchor),
                    micros,
                }
            }
            Self::At(instants) => {
                let mut instants: Vec<_> =
                    instants.into_iter().map(Timestamp::from_micros).collect();
                instants.sort_unstable();
                Kind::At(instants)
            }
            Self::AnyOf(rules) => {
                Kind::AnyOf(rules.into_iter().map(Self::read).collect::<Result<_>>()?)
            }
            Self::Except { rule, except } => Kind::Except {
                rule: boxed(rule)?,
                except: boxed(except)?,
            },
            Self::ExceptDates { rule, dates, zone } => Kind::ExceptDates {
                rule: boxed(rule)?,
                dates: dates
                    .iter()
                    .map(|date| date.parse::<NaiveDate>())
                    .collect::<std::result::Result<_, _>>()
                    .map_err(|_| Error::invalid("a date of a stored rule cannot be read"))?,
                zone: Zone::named(&zone)?,
            },
            Self::Within { rule, first, last } => Kind::Within {
                rule: boxed(rule)?,
                first: Timestamp::from_micros(first),
                last: Timestamp::from_micros(last),
            },
        })
    }
}
