//! The civil times that an RRULE names, without a zone, and the bounded search for them in both directions.
//!
//! A day is searched if the rule names it and its period is one that counts. The times in it are those of its hours that
//! count, at the same seconds of each hour.

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Weekday};
use rrule::{Frequency, RRule, Unvalidated};

use crate::model::recurrence::calendar::days::Days;
use crate::model::recurrence::search::Way;

/// How many years one search looks through. It takes about as long as storing a few tasks.
const MAX_YEARS: i32 = 40;
/// How many times of day one search looks at, of the days that it looks at.
const MAX_TIMES: usize = 200_000;
/// The last year with slots.
const LAST_YEAR: i32 = 9999;
/// A rule without a time in so many years from its start is refused.
const MAX_WAIT: i32 = 100;
/// In how many years from the start the times of a count have to be: they are counted when a rule is read.
const MAX_COUNTED: i32 = 1_000;
/// The last day of a leap year, from 0.
const LAST_DAY: u32 = 365;
const LAST_SECOND: u32 = 86_399;
const DAY_SECONDS: i64 = 86_400;
const SECOND: TimeDelta = TimeDelta::seconds(1);
const DAY: TimeDelta = TimeDelta::days(1);

/// What a search in civil time has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Civil {
    At(NaiveDateTime),
    Nothing,
    /// None on any day up to this one, itself included.
    Further(NaiveDate),
}

/// The civil times of a rule.
#[derive(Debug)]
pub(super) struct Pattern {
    start: NaiveDateTime,
    /// The last time of a rule with a count.
    last: Option<NaiveDateTime>,
    freq: Frequency,
    interval: i64,
    week_start: Weekday,
    days: Days,
    /// Ascending.
    hours: Vec<u32>,
    /// Seconds of an hour, ascending.
    seconds: Vec<u32>,
    /// Which times of a period of a day or longer count; empty: all.
    positions: Vec<i64>,
}

impl Pattern {
    /// # Errors
    ///
    /// What is wrong with the rule.
    pub(super) fn of(rule: &RRule<Unvalidated>, start: NaiveDateTime) -> Result<Self, String> {
        let freq = rule.get_freq();
        let days = Days::of(rule, start)?;
        let mut positions: Vec<i64> = rule.get_by_set_pos().iter().map(|n| (*n).into()).collect();
        // What is not said of a time is as at the start, but for what the frequency goes through.
        let values = |given: &[u8], at_start: u32, finest: Frequency, end: u32| {
            let mut values: Vec<u32> = given.iter().map(|value| (*value).into()).collect();
            if values.is_empty() && freq < finest {
                values.push(at_start);
            } else if values.is_empty() {
                values.extend(0..end);
            }
            values.sort_unstable();
            values.dedup();
            values
        };
        let hours = values(rule.get_by_hour(), start.hour(), Frequency::Hourly, 24);
        let minutes = values(
            rule.get_by_minute(),
            start.minute(),
            Frequency::Minutely,
            60,
        );
        let mut in_minute = values(
            rule.get_by_second(),
            start.second(),
            Frequency::Secondly,
            60,
        );
        if freq == Frequency::Minutely {
            in_minute = picked(&in_minute, &positions);
        }
        let in_hour = minutes
            .iter()
            .flat_map(|minute| in_minute.iter().map(move |second| minute * 60 + second));
        let mut seconds: Vec<u32> = in_hour.collect();
        if freq == Frequency::Hourly {
            seconds = picked(&seconds, &positions);
        }
        if freq == Frequency::Secondly && picked(&[0], &positions).is_empty() {
            seconds.clear();
        }
        if freq >= Frequency::Hourly {
            positions.clear();
        }
        let pattern = Self {
            start,
            last: None,
            freq,
            interval: rule.get_interval().into(),
            week_start: rule.get_week_start(),
            days,
            hours,
            seconds,
            positions,
        };
        if !pattern.has_times() {
            return Err("no time of a day is one of the rule".to_owned());
        }
        match pattern.first_within(start, MAX_WAIT) {
            Some(_) => Ok(pattern),
            None => Err(format!("no time in {MAX_WAIT} years is one of the rule")),
        }
    }

    /// The first time from one on, in so many years from the start.
    fn first_within(&self, from: NaiveDateTime, years: i32) -> Option<NaiveDateTime> {
        let last_year = self.start.year() + years;
        let mut from = from;
        while from.year() <= last_year {
            match self.find(Way::After, from) {
                Civil::At(at) => return Some(at).filter(|at| at.year() <= last_year),
                Civil::Nothing => return None,
                Civil::Further(day) => from = day.and_time(NaiveTime::MIN) + DAY,
            }
        }
        None
    }

    /// With an end after so many times, counted from the start.
    ///
    /// # Errors
    ///
    /// How many there are in [`MAX_COUNTED`] years, if there are fewer.
    pub(super) fn ending_after(mut self, count: usize) -> Result<Self, usize> {
        let mut from = self.start;
        for found in 0..count {
            let at = self.first_within(from, MAX_COUNTED).ok_or(found)?;
            from = at + SECOND;
        }
        self.last = Some(from - SECOND);
        Ok(self)
    }

    /// The nearest time from one on, which is itself included.
    pub(super) fn find(&self, way: Way, from: NaiveDateTime) -> Civil {
        let from = match way {
            Way::After => ceil(from).max(self.start),
            Way::Before => self.last.map_or(from, |last| last.min(from)),
        };
        if from < self.start || self.last.is_some_and(|last| from > last) {
            return Civil::Nothing;
        }
        let found = self.search(way, from);
        match (found, self.last) {
            (Civil::At(at), _) if at < self.start => Civil::Nothing,
            (Civil::At(at), Some(last)) if at > last => Civil::Nothing,
            _ => found,
        }
    }

    fn search(&self, way: Way, from: NaiveDateTime) -> Civil {
        let mut years = match way {
            Way::After => from.year()..=LAST_YEAR,
            Way::Before => self.start.year()..=from.year().min(LAST_YEAR),
        };
        let (mut searched, mut times) = (0, 0);
        while let Some(year) = step(way, &mut years) {
            if !self.is_year_of_period(year) {
                continue;
            }
            if searched == MAX_YEARS {
                let border = match way {
                    Way::After => NaiveDate::from_yo_opt(year, 1).and_then(|day| day.pred_opt()),
                    Way::Before => NaiveDate::from_yo_opt(year + 1, 1),
                };
                return border.map_or(Civil::Nothing, Civil::Further);
            }
            searched += 1;
            let (first, last) = match way {
                Way::After if year == from.year() => (from.ordinal0(), LAST_DAY),
                Way::Before if year == from.year() => (0, from.ordinal0()),
                _ => (0, LAST_DAY),
            };
            let mut days = self.days.of_year(year).between(first, last);
            while let Some(day) = step(way, &mut days) {
                let date = NaiveDate::from_yo_opt(year, day + 1);
                let Some(date) = date.filter(|date| self.is_day_of_period(*date)) else {
                    continue;
                };
                let second = from.time().num_seconds_from_midnight();
                let (first, last) = match way {
                    Way::After if date == from.date() => (second, LAST_SECOND),
                    Way::Before if date == from.date() => (0, second),
                    _ => (0, LAST_SECOND),
                };
                if let Some(at) = step(way, &mut self.times(date, first, last)) {
                    return Civil::At(at);
                }
                times += 1 + self.hours.len() * self.seconds.len();
                if times > MAX_TIMES {
                    return Civil::Further(date);
                }
            }
        }
        Civil::Nothing
    }

    fn is_year_of_period(&self, year: i32) -> bool {
        let passed = i64::from(year) - i64::from(self.start.year());
        self.freq != Frequency::Yearly || passed.rem_euclid(self.interval) == 0
    }

    fn is_day_of_period(&self, date: NaiveDate) -> bool {
        let passed = |period: &dyn Fn(NaiveDate) -> i64| period(date) - period(self.start.date());
        let counts = |passed: i64| passed.rem_euclid(self.interval) == 0;
        match self.freq {
            Frequency::Yearly => true,
            Frequency::Monthly => counts(passed(&|date| {
                i64::from(date.year()) * 12 + i64::from(date.month0())
            })),
            Frequency::Weekly => counts(passed(&|date| {
                i64::from(self.week_of(date).num_days_from_ce()).div_euclid(7)
            })),
            Frequency::Daily => counts(passed(&|date| date.num_days_from_ce().into())),
            Frequency::Hourly | Frequency::Minutely | Frequency::Secondly => {
                let to_next = self.periods_before(date, 0).wrapping_neg();
                to_next.rem_euclid(self.interval) * self.unit() < DAY_SECONDS
            }
        }
    }

    /// The first day of the week of a date.
    fn week_of(&self, date: NaiveDate) -> NaiveDate {
        date.week(self.week_start).first_day()
    }

    /// The length of a period that is shorter than a day, in seconds.
    fn unit(&self) -> i64 {
        match self.freq {
            Frequency::Minutely => 60,
            Frequency::Secondly => 1,
            _ => 3_600,
        }
    }

    /// How many periods shorter than a day lie between that of the start and that of a second of a day.
    fn periods_before(&self, date: NaiveDate, second: u32) -> i64 {
        let period = |at: NaiveDateTime, second: u32| {
            let midnight = at.date().and_time(NaiveTime::MIN).and_utc().timestamp();
            (midnight + i64::from(second)).div_euclid(self.unit())
        };
        let start = self.start.time().num_seconds_from_midnight();
        period(date.and_time(NaiveTime::MIN), second) - period(self.start, start)
    }

    /// The times of a day from one second to another, both included.
    fn times(
        &self,
        date: NaiveDate,
        first: u32,
        last: u32,
    ) -> impl DoubleEndedIterator<Item = NaiveDateTime> {
        let is_all = self.positions.is_empty();
        let picked = if is_all {
            Vec::new()
        } else {
            self.picked_of(date)
        };
        let hours = if is_all { self.hours.as_slice() } else { &[] };
        let all = hours.iter().flat_map(move |hour| {
            let begin = hour * 3_600;
            let from = self
                .seconds
                .partition_point(|second| begin + second < first);
            let until = self
                .seconds
                .partition_point(|second| begin + second <= last);
            let seconds = self.seconds.get(from..until).unwrap_or_default();
            seconds.iter().map(move |second| begin + second)
        });
        let all = all.filter(move |second| {
            self.freq < Frequency::Hourly
                || self.periods_before(date, *second).rem_euclid(self.interval) == 0
        });
        let picked = picked
            .into_iter()
            .filter(move |second| (first..=last).contains(second));
        picked.chain(all).filter_map(move |second| {
            let time = NaiveTime::from_num_seconds_from_midnight_opt(second, 0)?;
            Some(date.and_time(time))
        })
    }

    /// The seconds of a day whose positions in its period count, ascending.
    fn picked_of(&self, date: NaiveDate) -> Vec<u32> {
        let has = |date: &NaiveDate| self.days.of_year(date.year()).has(date.ordinal0());
        let (before, all) = match self.freq {
            Frequency::Weekly => {
                let week = self.week_of(date).iter_days().take(7);
                let days: Vec<NaiveDate> = week.filter(has).collect();
                (days.partition_point(|day| *day < date), days.len())
            }
            Frequency::Monthly | Frequency::Yearly => {
                let first = match self.freq {
                    Frequency::Monthly => date.ordinal0() - date.day0(),
                    _ => 0,
                };
                let last = match self.freq {
                    Frequency::Monthly => first + u32::from(date.num_days_in_month()) - 1,
                    _ => LAST_DAY,
                };
                let year = self.days.of_year(date.year());
                let before = year.between(first, date.ordinal0()).count() - 1;
                (before, year.between(first, last).count())
            }
            _ => (0, 1),
        };
        let in_day = self.hours.len() * self.seconds.len();
        let mut seconds: Vec<u32> = indices(&self.positions, in_day * all)
            .filter_map(|index| index.checked_sub(before * in_day))
            .filter(|index| *index < in_day)
            .map(|index| {
                let (hour, second) = (index / self.seconds.len(), index % self.seconds.len());
                self.hours[hour] * 3_600 + self.seconds[second]
            })
            .collect();
        seconds.sort_unstable();
        seconds.dedup();
        seconds
    }

    /// Whether there are times of day that count, and of short periods also some that the interval reaches.
    fn has_times(&self) -> bool {
        let common = gcd(self.interval, DAY_SECONDS / self.unit());
        let mut hours = self.hours.iter();
        hours.any(|hour| {
            self.seconds.iter().any(|second| {
                let passed = self.periods_before(self.start.date(), hour * 3_600 + second);
                self.freq < Frequency::Hourly || passed.rem_euclid(common) == 0
            })
        })
    }
}

/// The next item in a direction.
fn step<T>(way: Way, items: &mut impl DoubleEndedIterator<Item = T>) -> Option<T> {
    match way {
        Way::After => items.next(),
        Way::Before => items.next_back(),
    }
}

/// The next whole second.
fn ceil(at: NaiveDateTime) -> NaiveDateTime {
    match at.nanosecond() {
        0 => at,
        nanos => at + TimeDelta::nanoseconds(1_000_000_000 - i64::from(nanos)),
    }
}

/// The indices that positions mean in a list: 1 is its first item, -1 its last.
fn indices(positions: &[i64], length: usize) -> impl Iterator<Item = usize> {
    let length = length as i64;
    positions.iter().filter_map(move |position| {
        let index = match *position {
            1.. => position - 1,
            _ => length + position,
        };
        usize::try_from(index).ok().filter(|_| index < length)
    })
}

/// The items at these positions; all, if there is none.
fn picked(items: &[u32], positions: &[i64]) -> Vec<u32> {
    if positions.is_empty() {
        return items.to_vec();
    }
    let mut picked: Vec<u32> = indices(positions, items.len())
        .map(|index| items[index])
        .collect();
    picked.sort_unstable();
    picked.dedup();
    picked
}

fn gcd(one: i64, other: i64) -> i64 {
    match other {
        0 => one,
        _ => gcd(other, one % other),
    }
}
