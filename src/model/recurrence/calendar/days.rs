//! Which days a calendar rule names, year by year. The `rrule` crate reads that from the rule's parts; what it says of a year
//! is kept as a set of bits.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;

use chrono::{Datelike, Month, NaiveDate, NaiveDateTime, TimeDelta, Weekday};
use rrule::{Frequency, NWeekday, RRule, RRuleError, RRuleSet, Tz, Unvalidated, Validated};

use crate::sync::lock;

/// How many years are kept. A search near one instant needs one or two.
const MAX_KNOWN: usize = 4;
/// Over so many periods an iteration of the `rrule` crate passes its last year, 10,000: it ends after its first period.
const ONE_PERIOD: u16 = u16::MAX;

const WEEK: [Weekday; 7] = [
    Weekday::Mon,
    Weekday::Tue,
    Weekday::Wed,
    Weekday::Thu,
    Weekday::Fri,
    Weekday::Sat,
    Weekday::Sun,
];

/// Days of a year, from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Year([u64; 6]);

impl Year {
    fn add(&mut self, day: u32) {
        self.0[day as usize / 64] |= 1 << (day % 64);
    }

    pub(super) fn has(&self, day: u32) -> bool {
        self.0[day as usize / 64] >> (day % 64) & 1 == 1
    }

    /// The days between two, both included.
    pub(super) fn between(self, first: u32, last: u32) -> impl DoubleEndedIterator<Item = u32> {
        (first..=last).filter(move |day| self.has(*day))
    }
}

/// The days that a rule names, were each period one of its own.
pub(super) struct Days {
    /// Their union. The days of the week with and without a number are apart: together the `rrule` crate intersects them.
    rules: Vec<RRule<Validated>>,
    is_monthly: bool,
    /// The week numbers that count, apart: the `rrule` crate takes the first days of a year for the wrong week of the one before.
    weeks: Vec<i8>,
    week_start: Weekday,
    known: Mutex<VecDeque<(i32, Year)>>,
}

impl Days {
    fn is_in_week(&self, date: NaiveDate) -> bool {
        if self.weeks.is_empty() {
            return true;
        }
        let (number, count) = week(date, self.week_start);
        let counts = |week: i8| match u32::try_from(week) {
            Ok(week) => week == number,
            Err(_) => u32::from(week.unsigned_abs()) + number == count + 1,
        };
        self.weeks.iter().any(|week| counts(*week))
    }

    /// # Errors
    ///
    /// What is wrong with the rule.
    pub(super) fn of(rule: &RRule<Unvalidated>, start: NaiveDateTime) -> Result<Self, String> {
        check(rule, start)?;
        let is_monthly = rule.get_freq() == Frequency::Monthly;
        let mut months = rule.get_by_month().to_vec();
        let mut month_days = rule.get_by_month_day().to_vec();
        let mut weekdays = rule.get_by_weekday().to_vec();
        let has_days = !month_days.is_empty()
            || !weekdays.is_empty()
            || !rule.get_by_year_day().is_empty()
            || !rule.get_by_week_no().is_empty();
        let day = i8::try_from(start.day()).unwrap_or(i8::MAX);
        // What the rule does not say is as at its start.
        match rule.get_freq() {
            Frequency::Yearly if !has_days => {
                month_days.push(day);
                if months.is_empty() {
                    months.extend(u8::try_from(start.month()));
                }
            }
            Frequency::Yearly if weekdays.is_empty() && !rule.get_by_week_no().is_empty() => {
                let is_week_alone = month_days.is_empty() && rule.get_by_year_day().is_empty();
                weekdays.extend(is_week_alone.then(|| NWeekday::Every(start.weekday())));
            }
            Frequency::Monthly if !has_days => month_days.push(day),
            Frequency::Weekly if !has_days => weekdays.push(NWeekday::Every(start.weekday())),
            Frequency::Yearly | Frequency::Monthly | Frequency::Weekly => {}
            _ if !has_days => weekdays.extend(WEEK.map(NWeekday::Every)),
            _ => {}
        }
        let months: Vec<Month> = months
            .into_iter()
            .filter_map(|month| Month::try_from(month).ok())
            .collect();
        let (plain, numbered): (Vec<_>, Vec<_>) = weekdays
            .into_iter()
            .partition(|day| matches!(day, NWeekday::Every(_)));
        let freq = match is_monthly {
            true => Frequency::Monthly,
            false => Frequency::Yearly,
        };
        let mut groups = vec![plain, numbered];
        groups.retain(|group| !group.is_empty());
        if groups.is_empty() {
            groups.push(Vec::new());
        }
        let rules = groups.into_iter().map(|weekdays| {
            RRule::new(freq)
                .interval(ONE_PERIOD)
                .week_start(rule.get_week_start())
                .by_month(&months)
                .by_month_day(month_days.clone())
                .by_year_day(rule.get_by_year_day().to_vec())
                .by_weekday(weekdays)
                .validate(midnight(start.date().with_ordinal(1).unwrap_or_default()))
        });
        Ok(Self {
            rules: rules
                .collect::<Result<_, _>>()
                .map_err(|error| reason(&error))?,
            is_monthly,
            weeks: rule.get_by_week_no().to_vec(),
            week_start: rule.get_week_start(),
            known: Mutex::default(),
        })
    }

    /// The days of a year, from 1 to 9999.
    pub(super) fn of_year(&self, year: i32) -> Year {
        let mut known = lock(&self.known);
        if let Some((_, days)) = known.iter().find(|(known, _)| *known == year) {
            return *days;
        }
        let days = self.find(year);
        if known.len() >= MAX_KNOWN {
            known.pop_front();
        }
        known.push_back((year, days));
        days
    }

    fn find(&self, year: i32) -> Year {
        let mut days = Year::default();
        let months = if self.is_monthly { 1..=12 } else { 1..=1 };
        for first in months.filter_map(|month| NaiveDate::from_ymd_opt(year, month, 1)) {
            let set = RRuleSet::new(midnight(first)).set_rrules(self.rules.clone());
            for day in &set {
                if self.is_in_week(day.date_naive()) {
                    days.add(day.ordinal0());
                }
            }
        }
        days
    }
}

/// # Errors
///
/// What the `rrule` crate, or RFC 5545 beyond it, does not allow.
fn check(rule: &RRule<Unvalidated>, start: NaiveDateTime) -> Result<(), String> {
    let midnight = midnight(start.date());
    let checked = rule.clone().validate(midnight);
    checked.map_err(|error| reason(&error))?;
    if rule.get_interval() == 0 {
        return Err("INTERVAL is 0".to_owned());
    }
    let mut days = rule.get_by_weekday().iter();
    let is_numbered = days.any(|day| matches!(day, NWeekday::Nth(..)));
    let has_numbers = match rule.get_freq() {
        Frequency::Monthly => true,
        Frequency::Yearly => rule.get_by_week_no().is_empty(),
        _ => false,
    };
    match is_numbered && !has_numbers {
        true => {
            Err("BYDAY has numbers, which are for months, and for years without BYWEEKNO".into())
        }
        false => Ok(()),
    }
}

/// What an error of the `rrule` crate says, without its preface.
pub(super) fn reason(error: &RRuleError) -> String {
    let text = match error {
        RRuleError::ParserError(error) => error.to_string(),
        RRuleError::ValidationError(error) => error.to_string(),
        RRuleError::IterError(error) => error.clone(),
    };
    text.trim_end_matches('.').to_owned()
}

/// The number of the week of a date, and how many weeks its year has. A week belongs to the year that has four days of it.
fn week(date: NaiveDate, week_start: Weekday) -> (u32, u32) {
    let fourth = |date: NaiveDate| date.week(week_start).first_day() + TimeDelta::days(3);
    let number = |date: NaiveDate| fourth(date).ordinal0() / 7 + 1;
    let in_last = NaiveDate::from_ymd_opt(fourth(date).year(), 12, 28);
    (number(date), in_last.map_or(52, number))
}

impl fmt::Debug for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Days").field(&self.rules).finish()
    }
}

fn midnight(date: NaiveDate) -> chrono::DateTime<Tz> {
    date.and_time(chrono::NaiveTime::MIN)
        .and_utc()
        .with_timezone(&Tz::UTC)
}
