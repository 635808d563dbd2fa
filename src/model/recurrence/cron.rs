//! A cron expression: which civil times it matches, without a zone.
//!
//! The fields are read by the `croner` crate, which also says whether a day matches. The search is ours, because a slot that
//! does not exist or exists twice in a zone is decided outside (`slots.rs`).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use croner::time::Weekday;
use croner::{Cron as Parsed, CronPattern};

use super::field::{Field, parser};
use crate::error::{Error, Result};
use crate::sync::lock;

/// How many expressions are kept parsed. Parsing one takes as long as storing twenty tasks.
const MAX_KNOWN: usize = 4_096;

/// The longest expression, in bytes.
const MAX_BYTES: usize = 256;
/// After so many months without a match there is none: the Gregorian calendar repeats after 400 years.
const MAX_MONTHS: usize = 400 * 12 + 1;

const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A cron expression.
#[derive(Clone)]
pub(crate) struct Cron {
    text: String,
    /// The days, months and weekdays. Its other fields are not used.
    days: CronPattern,
    seconds: u64,
    minutes: u64,
    hours: u64,
    months: u64,
    /// In ascending order; `None`: all.
    years: Option<Vec<i32>>,
    follows_elapsed_time: bool,
}

impl Cron {
    /// Reads an expression as [`parse`](Self::parse) does, unless it is known.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub(crate) fn known(text: &str) -> Result<Arc<Self>> {
        static KNOWN: Mutex<Option<HashMap<String, Arc<Cron>>>> = Mutex::new(None);
        if let Some(cron) = lock(&KNOWN).get_or_insert_default().get(text) {
            return Ok(Arc::clone(cron));
        }
        let cron = Arc::new(Self::parse(text)?);
        let mut known = lock(&KNOWN);
        let known = known.get_or_insert_default();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(text.to_owned(), Arc::clone(&cron));
        Ok(cron)
    }

    /// Reads five fields (minute, hour, day of month, month, day of week), six (a second before them), seven (a year after
    /// them), or a nickname such as `@daily`.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the field and the column where it is wrong, or if no date matches.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let invalid = |why: String| Error::invalid(format!("the cron expression {text:?}: {why}"));
        if text.len() > MAX_BYTES {
            let bytes = text.len();
            return Err(Error::invalid(format!(
                "the cron expression has {bytes} bytes, more than {MAX_BYTES}"
            )));
        }
        let trimmed = text.trim();
        let nickname = NICKNAMES
            .iter()
            .find(|(name, _)| trimmed.eq_ignore_ascii_case(name));
        let expression = match nickname {
            Some((_, expression)) => expression,
            None if trimmed.starts_with('@') => {
                let names = NICKNAMES.map(|(name, _)| name).join(", ");
                return Err(invalid(format!(
                    "there is no such nickname; there are {names}"
                )));
            }
            None => text,
        };
        let words: Vec<&str> = expression.split_ascii_whitespace().collect();
        if let Some((name, _)) = words.first().and_then(|first| first.split_once('=')) {
            return Err(invalid(format!(
                "{name} is no part of it: `time_zone` sets its zone"
            )));
        }
        let fields = match words.len() {
            5 => &Field::ALL[1..6],
            6 => &Field::ALL[..6],
            7 => &Field::ALL[..],
            count => {
                return Err(invalid(format!("it has {count} fields, not 5, 6 or 7")));
            }
        };
        for (field, word) in fields.iter().zip(&words) {
            if let Some((at, wrong)) = field.fault(word) {
                let before = word.as_ptr().addr() - expression.as_ptr().addr() + at;
                let column = expression[..before].chars().count() + 1;
                let name = field.name();
                let hint = if words.len() == 6 {
                    " (the first of six fields is the second)"
                } else {
                    ""
                };
                return Err(invalid(format!("column {column}, {name}: {wrong}{hint}")));
            }
        }
        let word = |field| {
            let index = fields.iter().position(|each| *each == field);
            index.map(|index| words[index])
        };
        let begins_with_star = |field| word(field).is_some_and(|word| word.starts_with('*'));
        // As Vixie cron: a day matches by either field, unless one of them begins with a star. Then both have to.
        let is_and = begins_with_star(Field::Day) || begins_with_star(Field::Weekday);
        let parsed = parser(is_and)
            .parse(expression)
            .map_err(|error| invalid(error.to_string()))?;
        let cron = Self::of(text, &parsed, word(Field::Year))
            .follow_elapsed_time(begins_with_star(Field::Minute) || begins_with_star(Field::Hour));
        match cron.at_or_after(DateTime::UNIX_EPOCH.naive_utc()) {
            Some(_) => Ok(cron),
            None => Err(invalid("no date from 1970 on matches".to_owned())),
        }
    }

    fn of(text: &str, parsed: &Parsed, year: Option<&str>) -> Self {
        let bits = |values: Vec<u16>| {
            values
                .into_iter()
                .fold(0, |bits, value| bits | 1_u64 << value)
        };
        let mut days = parsed.pattern.clone();
        let years = year.filter(|year| *year != "*").map(|_| {
            let years = days.years.values();
            years.into_iter().map(i32::from).collect()
        });
        // Not used here, and large: one byte for each of 5,000 years.
        days.years = Default::default();
        Self {
            text: text.to_owned(),
            seconds: bits(days.seconds.values()),
            minutes: bits(days.minutes.values()),
            hours: bits(days.hours.values()),
            months: bits(days.months.values()),
            years,
            days,
            follows_elapsed_time: false,
        }
    }

    fn follow_elapsed_time(mut self, follows: bool) -> Self {
        self.follows_elapsed_time = follows;
        self
    }

    /// The text that was read.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether its minute or its hour begins with a star. Such a rule means spans of time, not times of the day: it runs on
    /// through a fold, and is not caught up after a gap. The distinction is Vixie cron's.
    pub(crate) fn follows_elapsed_time(&self) -> bool {
        self.follows_elapsed_time
    }

    /// The first match at or after a civil time.
    pub(crate) fn at_or_after(&self, from: NaiveDateTime) -> Option<NaiveDateTime> {
        let from = match from.nanosecond() {
            0 => from,
            _ => from
                .with_nanosecond(0)?
                .checked_add_signed(chrono::TimeDelta::seconds(1))?,
        };
        if self.matches_day(from.date())
            && let Some(time) = self.time_at_or_after(from.time())
        {
            return Some(from.date().and_time(time));
        }
        let date = self.day_at_or_after(from.date().succ_opt()?)?;
        Some(date.and_time(self.time_at_or_after(NaiveTime::MIN)?))
    }

    /// The last match at or before a civil time.
    pub(crate) fn at_or_before(&self, until: NaiveDateTime) -> Option<NaiveDateTime> {
        if self.matches_day(until.date())
            && let Some(time) = self.time_at_or_before(until.time())
        {
            return Some(until.date().and_time(time));
        }
        let date = self.day_at_or_before(until.date().pred_opt()?)?;
        let last = NaiveTime::from_hms_opt(23, 59, 59)?;
        Some(date.and_time(self.time_at_or_before(last)?))
    }

    fn matches_day(&self, date: NaiveDate) -> bool {
        self.matches_year(date.year())
            && has(self.months, date.month())
            && self.matches_day_of_month(date)
    }

    fn matches_year(&self, year: i32) -> bool {
        let years = self.years.as_ref();
        years.is_none_or(|years| years.binary_search(&year).is_ok())
    }

    fn matches_day_of_month(&self, date: NaiveDate) -> bool {
        let weekday = Weekday::from_days_from_sunday(date.weekday().num_days_from_sunday());
        let matches = self
            .days
            .day_match(date.year(), date.month(), date.day(), weekday);
        matches.unwrap_or(false)
    }

    fn day_at_or_after(&self, from: NaiveDate) -> Option<NaiveDate> {
        let mut date = from;
        for _ in 0..MAX_MONTHS {
            if !self.matches_year(date.year()) {
                let mut years = self.years.iter().flatten();
                let year = years.find(|year| **year > date.year())?;
                date = NaiveDate::from_ymd_opt(*year, 1, 1)?;
            }
            let next_month = match date.month() {
                12 => NaiveDate::from_ymd_opt(date.year() + 1, 1, 1)?,
                month => NaiveDate::from_ymd_opt(date.year(), month + 1, 1)?,
            };
            if has(self.months, date.month()) {
                let mut days = date.iter_days().take_while(|day| *day < next_month);
                if let Some(day) = days.find(|day| self.matches_day_of_month(*day)) {
                    return Some(day);
                }
            }
            date = next_month;
        }
        None
    }

    fn day_at_or_before(&self, until: NaiveDate) -> Option<NaiveDate> {
        let mut date = until;
        for _ in 0..MAX_MONTHS {
            if !self.matches_year(date.year()) {
                let mut years = self.years.iter().flatten().rev();
                let year = years.find(|year| **year < date.year())?;
                date = NaiveDate::from_ymd_opt(*year, 12, 31)?;
            }
            let first = date.with_day(1)?;
            if has(self.months, date.month()) {
                let mut days = (0..date.day()).filter_map(|back| date.with_day(date.day() - back));
                if let Some(day) = days.find(|day| self.matches_day_of_month(*day)) {
                    return Some(day);
                }
            }
            date = first.pred_opt()?;
        }
        None
    }

    fn time_at_or_after(&self, from: NaiveTime) -> Option<NaiveTime> {
        let (hour, minute, second) = (from.hour(), from.minute(), from.second());
        if has(self.hours, hour) {
            if has(self.minutes, minute)
                && let Some(second) = first_from(self.seconds, second)
            {
                return NaiveTime::from_hms_opt(hour, minute, second);
            }
            if let Some(minute) = first_from(self.minutes, minute + 1) {
                return NaiveTime::from_hms_opt(hour, minute, first_from(self.seconds, 0)?);
            }
        }
        let hour = first_from(self.hours, hour + 1)?;
        let (minute, second) = (first_from(self.minutes, 0)?, first_from(self.seconds, 0)?);
        NaiveTime::from_hms_opt(hour, minute, second)
    }

    fn time_at_or_before(&self, until: NaiveTime) -> Option<NaiveTime> {
        let (hour, minute, second) = (until.hour(), until.minute(), until.second());
        if has(self.hours, hour) {
            if has(self.minutes, minute)
                && let Some(second) = last_until(self.seconds, second)
            {
                return NaiveTime::from_hms_opt(hour, minute, second);
            }
            if let Some(minute) = minute
                .checked_sub(1)
                .and_then(|minute| last_until(self.minutes, minute))
            {
                return NaiveTime::from_hms_opt(hour, minute, last_until(self.seconds, 59)?);
            }
        }
        let hour = hour
            .checked_sub(1)
            .and_then(|hour| last_until(self.hours, hour))?;
        let (minute, second) = (last_until(self.minutes, 59)?, last_until(self.seconds, 59)?);
        NaiveTime::from_hms_opt(hour, minute, second)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cron").field(&self.text).finish()
    }
}

fn has(bits: u64, value: u32) -> bool {
    bits >> value & 1 == 1
}

/// The lowest value of the set from `value` on; all values are below 64.
fn first_from(bits: u64, value: u32) -> Option<u32> {
    let from = bits.checked_shr(value).unwrap_or(0);
    (from != 0).then(|| value + from.trailing_zeros())
}

/// The highest value of the set up to `value`, which is below 64.
fn last_until(bits: u64, value: u32) -> Option<u32> {
    let until = bits & (u64::MAX >> (63 - value));
    until.checked_ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn civil(text: &str) -> NaiveDateTime {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap()
    }

    fn refusal(text: &str) -> String {
        Cron::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn an_expression_matches_these_civil_times_in_both_directions() {
        // From the middle of Saturday, 2026-02-28, which is the last day of its month.
        let table = [
            ("0 2 * * *", ["2026-03-01 02:00:00", "2026-02-28 02:00:00"]),
            (
                "*/20 * * * *",
                ["2026-02-28 12:20:00", "2026-02-28 12:00:00"],
            ),
            (
                "5-10/5 12 * * *",
                ["2026-03-01 12:05:00", "2026-02-28 12:10:00"],
            ),
            (
                "*/10 15 12 * * *",
                ["2026-02-28 12:15:00", "2026-02-27 12:15:50"],
            ),
            ("0 0 29 2 *", ["2028-02-29 00:00:00", "2024-02-29 00:00:00"]),
            ("0 0 L * *", ["2026-03-31 00:00:00", "2026-02-28 00:00:00"]),
            ("0 0 LW * *", ["2026-03-31 00:00:00", "2026-02-27 00:00:00"]),
            (
                "0 0 15W * *",
                ["2026-03-16 00:00:00", "2026-02-16 00:00:00"],
            ),
            (
                "0 0 * * 5#2",
                ["2026-03-13 00:00:00", "2026-02-13 00:00:00"],
            ),
            (
                "0 0 ? * FRIL",
                ["2026-03-27 00:00:00", "2026-02-27 00:00:00"],
            ),
            (
                "0 0 * JAN,jul sun",
                ["2026-07-05 00:00:00", "2026-01-25 00:00:00"],
            ),
            ("0 0 * * 7", ["2026-03-01 00:00:00", "2026-02-22 00:00:00"]),
            (
                "0 0 0 1 1 ? 2025-2030/5",
                ["2030-01-01 00:00:00", "2025-01-01 00:00:00"],
            ),
            (" @Monthly ", ["2026-03-01 00:00:00", "2026-02-01 00:00:00"]),
        ];
        let from = civil("2026-02-28 12:10:01");
        for (text, [next, previous]) in table {
            let cron = Cron::parse(text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(cron.at_or_after(from), Some(civil(next)), "{text}");
            assert_eq!(cron.at_or_before(from), Some(civil(previous)), "{text}");
            for at in [next, previous].map(civil) {
                assert_eq!(cron.at_or_after(at), Some(at), "{text}: itself");
                assert_eq!(cron.at_or_before(at), Some(at), "{text}: itself");
            }
        }
    }

    /// Vixie cron: either of the two, unless one begins with a star.
    #[test]
    fn the_day_of_the_month_and_the_day_of_the_week_combine_as_in_vixie_cron() {
        let days = |text: &str| {
            let cron = Cron::parse(text).unwrap();
            let mut at = civil("2026-06-01 00:00:00");
            let mut days = Vec::new();
            while let Some(found) = cron.at_or_after(at).filter(|found| found.month() == 6) {
                days.push(found.day());
                at = found + chrono::TimeDelta::days(1);
            }
            days
        };
        // 1 June 2026 is a Monday.
        assert_eq!(days("0 0 13 * MON"), [1, 8, 13, 15, 22, 29]);
        assert_eq!(days("0 0 13 * *"), [13]);
        assert_eq!(days("0 0 */7 * MON"), [1, 8, 15, 22, 29]);
        assert_eq!(
            days("0 0 */2 * MON"),
            [1, 15, 29],
            "odd days that are Mondays"
        );
        assert_eq!(days("0 0 ? * MON"), [1, 8, 15, 22, 29]);
    }

    #[test]
    fn leap_days_are_found_across_2100_and_impossible_dates_are_refused() {
        let leap = Cron::parse("0 0 29 2 *").unwrap();
        let after = leap.at_or_after(civil("2096-03-01 00:00:00"));
        assert_eq!(after, Some(civil("2104-02-29 00:00:00")));
        let before = leap.at_or_before(civil("2104-02-28 00:00:00"));
        assert_eq!(before, Some(civil("2096-02-29 00:00:00")));
        for text in [
            "0 0 30 2 *",
            "0 0 31 2,4,6,9,11 *",
            "0 0 0 1 1 * 1969",
            "0 0 0 29 2 * 2025-2027",
        ] {
            assert!(refusal(text).contains("no date from 1970 on"), "{text}");
        }
    }

    #[test]
    fn a_refusal_names_the_column_and_the_field() {
        let table = [
            (
                "60 * * * *",
                "column 1, minute: `60`: a number is not between 0 and 59",
            ),
            ("0 25 * * *", "column 3, hour"),
            (
                "0  1,,2 * * *",
                "column 6, hour: an item of the list is empty",
            ),
            ("0 0 0 * *", "column 5, day of month"),
            ("0 0 1-40 * *", "column 5, day of month"),
            ("0 0 5-1 * *", "column 5, day of month"),
            ("0 0 * MON *", "column 7, month: `MON` is not allowed"),
            ("0 0 * 1 JAN", "column 9, day of week: `JAN` is not allowed"),
            ("L * * * *", "column 1, minute: `L` is not allowed"),
            ("*/0 * * * *", "column 1, minute"),
            ("5/15 * * * *", "column 1, minute"),
            (
                "0 9-5 * * *",
                "hour: `9-5`: it is no range from a lower to a higher number between 0 and 23",
            ),
            (
                "*/90 * * * *",
                "minute: `*/90`: the step is longer than the field",
            ),
            (
                "0-59/61 * * * *",
                "minute: `0-59/61`: the step is longer than the field",
            ),
            (
                "0 0 1 1 * 2030",
                "column 11, day of week: `2030`: a number is not between 0 and 7 (the first of six fields",
            ),
            (
                "CRON_TZ=Europe/Berlin 0 9 * * *",
                "CRON_TZ is no part of it",
            ),
            ("*,5 * * * *", "column 1, minute"),
            ("0 0 * * 1#6", "column 9, day of week"),
            ("0 0 * * +1", "column 9, day of week: `+` is not allowed"),
            (
                "0 0 1,? * *",
                "column 7, day of month: `?` must stand alone",
            ),
            ("0 0 1 ä *", "column 7, month: `ä` is not allowed"),
            ("0 0 0 1 1 0 1-x", "column 15, year: `x` is not allowed"),
            ("1-2-3 * * * *", "column 1, minute"),
            ("99999999999 * * * *", "column 1, minute"),
            ("* * * *", "it has 4 fields, not 5, 6 or 7"),
            ("", "it has 0 fields"),
            ("@reboot", "there is no such nickname; there are @yearly, "),
            ("@daily 5", "there is no such nickname"),
            ("* * * * @daily", "column 9, day of week"),
        ];
        for (text, words) in table {
            let refusal = refusal(text);
            assert!(refusal.contains(words), "{text}: {refusal}");
        }
        assert!(refusal(&"1,".repeat(200)).contains("400 bytes"));
    }
}
