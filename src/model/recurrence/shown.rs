//! What a rule is, for people.

use std::fmt;
use std::time::Duration;

use super::kind::Kind;
use super::slots::{Fold, Gap};
use crate::time::Timestamp;

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |at: &Timestamp| at.to_utc().to_rfc3339();
        match self {
            Self::Cron(cron) => {
                write!(f, "cron {} in {}", cron.cron.text(), cron.zone.name())?;
                if cron.gap != Gap::default() {
                    write!(f, ", gap {:?}", cron.gap)?;
                }
                if cron.fold != Fold::default() {
                    write!(f, ", fold {:?}", cron.fold)?;
                }
                Ok(())
            }
            #[cfg(feature = "rrule")]
            Self::Calendar(calendar) => calendar.fmt(f),
            Self::Every { anchor, micros } => {
                let interval = Duration::from_micros(micros.unsigned_abs());
                write!(f, "every {interval:?}, counted from {}", shown(anchor))
            }
            Self::At(instants) => match instants.as_slice() {
                [only] => write!(f, "at {}", shown(only)),
                [first, ..] => write!(f, "at {} instants from {}", instants.len(), shown(first)),
                [] => Ok(()),
            },
            Self::AnyOf(rules) => {
                f.write_str("any of [")?;
                for (index, rule) in rules.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "; " };
                    write!(f, "{comma}{rule}")?;
                }
                f.write_str("]")
            }
            Self::Except { rule, except } => write!(f, "{rule}, except [{except}]"),
            Self::ExceptDates { rule, dates, .. } => {
                let dates = dates.len();
                write!(
                    f,
                    "{rule}, except {dates} date{}",
                    if dates == 1 { "" } else { "s" }
                )
            }
            Self::Within { rule, first, last } => {
                write!(f, "{rule}")?;
                if *first > Timestamp::MIN {
                    write!(f, ", not before {}", shown(first))?;
                }
                if *last < Timestamp::MAX {
                    write!(f, ", not after {}", shown(last))?;
                }
                Ok(())
            }
        }
    }
}
