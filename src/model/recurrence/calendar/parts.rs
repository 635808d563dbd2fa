//! The parts of an RRULE. The `rrule` crate reads them; what it would guess at is refused before.

use chrono::NaiveDateTime;
use rrule::{RRule, Unvalidated};

use crate::error::{Error, Result};
use crate::model::recurrence::calendar::civil::instant;
use crate::model::recurrence::calendar::days::reason;
use crate::model::recurrence::calendar::pattern::Pattern;
use crate::model::recurrence::calendar::text::{Line, Part};
use crate::model::recurrence::zone::Zone;
use crate::time::Timestamp;

/// The highest COUNT: to find their end, the slots are counted when a rule is read.
const MAX_COUNT: usize = 10_000;

const NAMES: [&str; 14] = [
    "FREQ",
    "UNTIL",
    "COUNT",
    "INTERVAL",
    "BYSECOND",
    "BYMINUTE",
    "BYHOUR",
    "BYDAY",
    "BYMONTHDAY",
    "BYYEARDAY",
    "BYWEEKNO",
    "BYMONTH",
    "BYSETPOS",
    "WKST",
];
const WEEKDAYS: [&str; 7] = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"];

/// The civil times of an RRULE, and the last instant at which it may have one.
///
/// # Errors
///
/// `Invalid`, naming the part that is wrong.
pub(super) fn read(line: &Line<'_>, start: NaiveDateTime) -> Result<(Pattern, Option<Timestamp>)> {
    line.without_parameters()?;
    let mut parts = Vec::new();
    let (mut count, mut until) = (None, None);
    for part in line.value.split(';') {
        let Some((name, value)) = part.split_once('=') else {
            return Err(line.fault(part.column, "a part is no NAME=VALUE"));
        };
        let upper = name.text.to_ascii_uppercase();
        if !NAMES.contains(&upper.as_str()) {
            return Err(line.fault(part.column, format!("`{}` is no part of it", name.text)));
        }
        let is_again = parts.iter().any(|(known, _)| *known == upper);
        if is_again {
            return Err(line.fault(part.column, format!("{upper} is there twice")));
        }
        match upper.as_str() {
            "COUNT" => count = Some(self::count(line, value)?),
            "UNTIL" => until = Some(instant(&Zone::utc(), line.civil(value, None)?)),
            _ => check(line, &upper, value)?,
        }
        parts.push((upper, value));
    }
    if let (Some(_), Some(_)) = (count, until) {
        return Err(line.whole_fault("it has both COUNT and UNTIL"));
    }
    let of_rule = parts
        .iter()
        .filter(|(name, _)| name != "COUNT" && name != "UNTIL");
    let texts: Vec<String> = of_rule
        .map(|(name, value)| format!("{name}={}", value.text.to_ascii_uppercase()))
        .collect();
    let rule: RRule<Unvalidated> = texts
        .join(";")
        .parse()
        .map_err(|error| line.whole_fault(reason(&error)))?;
    let pattern = Pattern::of(&rule, start).map_err(|why| line.whole_fault(why))?;
    let pattern = match count {
        None => Ok(pattern),
        Some(count) => pattern.ending_after(count),
    };
    let pattern = pattern.map_err(|found| {
        line.whole_fault(format!(
            "its COUNT is not reached in 1,000 years: they have {found} of its slots"
        ))
    })?;
    Ok((pattern, until))
}

fn count(line: &Line<'_>, value: Part<'_>) -> Result<usize> {
    let is_number = value.text.bytes().all(|byte| byte.is_ascii_digit());
    let count = value.text.parse().ok().filter(|_| is_number);
    let count = count.filter(|count| (1..=MAX_COUNT).contains(count));
    count.ok_or_else(|| {
        let why = format!(
            "COUNT `{}` is not from 1 to 10,000: set an UNTIL",
            value.text
        );
        line.fault(value.column, why)
    })
}

/// # Errors
///
/// `Invalid` if a part other than COUNT and UNTIL cannot be read.
fn check(line: &Line<'_>, name: &str, value: Part<'_>) -> Result<()> {
    for item in value.split(',') {
        let fault = |why: String| line.fault(item.column, format!("{name} {why}"));
        if item.text.is_empty() {
            return Err(fault("has an empty item".to_owned()));
        }
        let upper = item.text.to_ascii_uppercase();
        if name == "BYDAY" && !is_weekday(&upper) {
            return Err(fault(format!("`{}` is no day of the week", item.text)));
        }
        let alone = match name {
            "FREQ" => format!("FREQ={upper}"),
            _ => format!("FREQ=DAILY;{name}={upper}"),
        };
        // Each item alone, so that its column is known.
        let read: std::result::Result<RRule<Unvalidated>, _> = alone.parse();
        read.map_err(|error| fault(reason(&error)))?;
    }
    Ok(())
}

/// Whether it is a day of the week, with a number that is not 0 or without one.
fn is_weekday(upper: &str) -> bool {
    let Some(number) = WEEKDAYS.iter().find_map(|day| upper.strip_suffix(day)) else {
        return false;
    };
    let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    number.is_empty() || is_number && digits.len() <= 2 && digits.parse().is_ok_and(|n: u8| n > 0)
}

/// The line that is there exactly once.
///
/// # Errors
///
/// `Invalid` if it is missing, or there again.
pub(super) fn only<'a, 'b>(lines: &'b [Line<'a>], name: &str, hint: &str) -> Result<&'b Line<'a>> {
    let mut found = lines.iter().filter(|line| line.name == name);
    let Some(line) = found.next() else {
        return Err(Error::invalid(format!(
            "the calendar rule: it has no {name}{hint}"
        )));
    };
    match found.next() {
        Some(again) => Err(again.whole_fault(format!("there is a second {name}"))),
        None => Ok(line),
    }
}
