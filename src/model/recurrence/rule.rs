//! A rule that says when something recurs, and the slots that it names.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::cron::Cron;
use super::slots::{Fold, Gap, ZonedCron};
use super::zone::Zone;
use crate::error::{Error, Result};
use crate::model::limits::MAX_SPAN;
use crate::time::Timestamp;

/// The shortest interval of [`Rule::every`]: 1 ms.
const MIN_INTERVAL: Duration = Duration::from_millis(1);
/// The most instants of [`Rule::at`].
const MAX_INSTANTS: usize = 10_000;

/// When something recurs: a cron expression in a time zone, a fixed interval, or a list of instants.
///
/// A rule names instants, its *slots*, from 1970 to 9999. It knows no clock: [`after`](Self::after) and
/// [`before`](Self::before) say what comes next and what came last. A scheduler cannot run tasks by a rule yet; a program can
/// schedule the next one itself, by an id that it makes of the slot.
///
/// # Example
///
/// ```
/// use punctual::Rule;
/// use punctual::chrono::{DateTime, Utc};
///
/// let nightly = Rule::cron("30 2 * * *")?.time_zone("Europe/Berlin")?;
/// let saturday: DateTime<Utc> = "2026-03-28T12:00:00Z".parse()?;
/// let slots: Vec<String> = nightly.after(saturday).take(2).map(|slot| slot.to_rfc3339()).collect();
/// // There is no half past two on 29 March: clocks go from two to three.
/// assert_eq!(slots, ["2026-03-29T01:00:00+00:00", "2026-03-30T00:30:00+00:00"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Rule(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Cron(Box<ZonedCron>),
    Every { anchor: Timestamp, micros: i64 },
    At(Vec<Timestamp>),
}

impl Rule {
    /// The civil times that a cron expression matches, in UTC unless a [`time_zone`](Self::time_zone) is named.
    ///
    /// Five fields: minute, hour, day of month, month, day of week. With six a field of seconds comes first, with seven a field of
    /// years last. A field is a `*`, a number, a range `1-5`, each with a step `/2`, or a list of them with commas. Months and
    /// days of the week have English names of three letters; Sunday is 0 or 7. `L` is the last day of the month, `LW` its last
    /// working day, `15W` the working day nearest to the 15th, `5L` the last Friday, `5#2` the second; `?` is `*`. Nicknames
    /// are `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly` and `@annually`. Case does not matter.
    ///
    /// As in Vixie cron: if both the day of month and the day of week are restricted, a day matches by **either** of them, unless
    /// one of the two begins with `*` (as `*/2` does), when it has to match both. An expression whose minute or hour begins
    /// with `*` means spans of time and goes by elapsed time; all others mean times of the day, and [`Gap`] and [`Fold`] say
    /// what happens when clocks are changed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with the column and the field that is wrong, or if no date from 1970
    /// on matches, such as 30 February.
    ///
    /// # Example
    ///
    /// ```
    /// use punctual::Rule;
    ///
    /// assert!(Rule::cron("0 9-17/2 * * MON-FRI").is_ok());
    /// let error = Rule::cron("0 25 * * *").unwrap_err();
    /// assert!(error.to_string().contains("column 3, hour"), "{error}");
    /// assert!(Rule::cron("0 0 30 FEB *").is_err());
    /// ```
    pub fn cron(expression: &str) -> Result<Self> {
        Ok(Self(Kind::Cron(Box::new(ZonedCron {
            cron: Cron::parse(expression)?,
            zone: Zone::utc(),
            gap: Gap::default(),
            fold: Fold::default(),
        }))))
    }

    /// Every `interval`, counted from an instant in both directions: the slots are `anchor + n × interval`, whatever happens
    /// in between, so nothing drifts.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the interval is shorter than 1 ms, longer than 1,000 years or no
    /// whole number of microseconds, or if the anchor is outside 1970 to 9999.
    ///
    /// # Example
    ///
    /// ```
    /// use punctual::Rule;
    /// use punctual::chrono::{DateTime, Utc};
    /// use std::time::Duration;
    ///
    /// let midnight: DateTime<Utc> = "2026-01-01T00:00:00Z".parse()?;
    /// let rule = Rule::every(Duration::from_secs(90 * 60), midnight)?;
    /// let next = rule.after("2026-01-01T02:00:00Z".parse()?).next();
    /// assert_eq!(next, Some("2026-01-01T03:00:00Z".parse()?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn every(interval: Duration, anchor: DateTime<Utc>) -> Result<Self> {
        if !(MIN_INTERVAL..=MAX_SPAN).contains(&interval) {
            return Err(Error::invalid(format!(
                "the interval {interval:?} is not between 1 ms and 1,000 years"
            )));
        }
        if !interval.subsec_nanos().is_multiple_of(1_000) {
            return Err(Error::invalid(format!(
                "the interval {interval:?} is no whole number of microseconds"
            )));
        }
        let micros = i64::try_from(interval.as_micros()).unwrap_or(i64::MAX);
        let anchor = Timestamp::rounded_up(anchor)?;
        Ok(Self(Kind::Every { anchor, micros }))
    }

    /// At each of these instants, rounded up to a microsecond. The order does not matter, and an instant counts once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if there is none or there are over 10,000, or if one is outside 1970 to
    /// 9999.
    pub fn at(instants: impl IntoIterator<Item = DateTime<Utc>>) -> Result<Self> {
        let instants = instants.into_iter().take(MAX_INSTANTS + 1);
        let mut instants: Vec<Timestamp> =
            instants.map(Timestamp::rounded_up).collect::<Result<_>>()?;
        if instants.is_empty() {
            return Err(Error::invalid("the list of instants is empty"));
        }
        if instants.len() > MAX_INSTANTS {
            return Err(Error::invalid(format!(
                "the list has over {MAX_INSTANTS} instants"
            )));
        }
        instants.sort_unstable();
        instants.dedup();
        Ok(Self(Kind::At(instants)))
    }

    /// The time zone of a cron expression, by its name in the IANA database. Default: UTC, never that of the machine.
    ///
    /// The database is compiled in and covers the years up to 2099; after them a zone keeps its last offset.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if there is no zone of that name, or if the rule is none of civil
    /// times.
    pub fn time_zone(self, name: &str) -> Result<Self> {
        let zone = Zone::named(name)?;
        self.with_cron("a time zone", |cron| cron.zone = zone)
    }

    /// What becomes of slots that are skipped when clocks are set forward. Default: [`Gap::RunAfter`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the rule is none of civil times.
    pub fn gap(self, gap: Gap) -> Result<Self> {
        self.with_cron("a gap", |cron| cron.gap = gap)
    }

    /// What becomes of slots that come twice when clocks are set back. Default: [`Fold::First`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the rule is none of civil times.
    pub fn fold(self, fold: Fold) -> Result<Self> {
        self.with_cron("a fold", |cron| cron.fold = fold)
    }

    fn with_cron(mut self, what: &str, set: impl FnOnce(&mut ZonedCron)) -> Result<Self> {
        match &mut self.0 {
            Kind::Cron(cron) => set(cron),
            Kind::Every { .. } | Kind::At(_) => {
                return Err(Error::invalid(format!(
                    "{what} is only for a cron expression: this rule names instants"
                )));
            }
        }
        Ok(self)
    }

    /// The slots after an instant, in ascending order. They end only if the rule does.
    pub fn after(&self, instant: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> + '_ {
        let mut last = Some(floor(instant));
        std::iter::from_fn(move || {
            last = self.next_slot(last?);
            last.map(Timestamp::to_utc)
        })
    }

    /// The slots before an instant, in descending order: the latest comes first.
    pub fn before(&self, instant: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> + '_ {
        let mut last = Timestamp::rounded_up(instant).ok();
        if last.is_none() && instant > Timestamp::MAX.to_utc() {
            last = Some(Timestamp::MAX);
        }
        std::iter::from_fn(move || {
            last = self.previous_slot(last?);
            last.map(Timestamp::to_utc)
        })
    }

    /// The first slot after an instant.
    pub(crate) fn next_slot(&self, after: Timestamp) -> Option<Timestamp> {
        let slot = match &self.0 {
            Kind::Cron(cron) => cron.next(after),
            Kind::Every { anchor, micros } => {
                let passed = after.micros().checked_sub(anchor.micros())?;
                let count = passed.div_euclid(*micros).checked_add(1)?;
                at_multiple(*anchor, *micros, count)
            }
            Kind::At(instants) => {
                let index = instants.partition_point(|instant| *instant <= after);
                instants.get(index).copied()
            }
        };
        slot.filter(|slot| *slot <= Timestamp::MAX)
    }

    /// The last slot before an instant.
    pub(crate) fn previous_slot(&self, before: Timestamp) -> Option<Timestamp> {
        let slot = match &self.0 {
            Kind::Cron(cron) => cron.previous(before),
            Kind::Every { anchor, micros } => {
                let passed = before
                    .micros()
                    .checked_sub(anchor.micros())?
                    .checked_sub(1)?;
                at_multiple(*anchor, *micros, passed.div_euclid(*micros))
            }
            Kind::At(instants) => {
                let index = instants.partition_point(|instant| *instant < before);
                index.checked_sub(1).map(|index| instants[index])
            }
        };
        slot.filter(|slot| *slot >= Timestamp::MIN)
    }
}

/// What the rule is, for people: `cron 30 2 * * * in Europe/Berlin`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Cron(cron) => write!(f, "cron {} in {}", cron.cron.text(), cron.zone.name()),
            Kind::Every { anchor, micros } => {
                let interval = Duration::from_micros(micros.unsigned_abs());
                let anchor = anchor.to_utc().to_rfc3339();
                write!(f, "every {interval:?}, counted from {anchor}")
            }
            Kind::At(instants) => match instants.as_slice() {
                [only] => write!(f, "at {}", only.to_utc().to_rfc3339()),
                [first, ..] => {
                    let first = first.to_utc().to_rfc3339();
                    write!(f, "at {} instants from {first}", instants.len())
                }
                [] => Ok(()),
            },
        }
    }
}

/// The slot of this number of an interval.
fn at_multiple(anchor: Timestamp, micros: i64, count: i64) -> Option<Timestamp> {
    let at = anchor.micros().checked_add(micros.checked_mul(count)?)?;
    Some(Timestamp::from_micros(at))
}

/// An instant, rounded down to a microsecond: a slot within that microsecond is after it.
fn floor(instant: DateTime<Utc>) -> Timestamp {
    Timestamp::from_micros(instant.timestamp_micros().max(-1))
}

#[cfg(test)]
mod tests {
    use chrono::{DurationRound, LocalResult, NaiveDateTime, TimeDelta, TimeZone};
    use chrono_tz::Tz;

    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn berlin(expression: &str) -> Rule {
        let rule = Rule::cron(expression).unwrap();
        rule.time_zone("Europe/Berlin").unwrap()
    }

    /// The slots of a day and the night before it, as hour and minute in UTC.
    fn slots(rule: &Rule, from: &str, count: usize) -> Vec<String> {
        let slots: Vec<_> = rule.after(utc(from)).take(count).collect();
        let mut back: Vec<_> = rule
            .before(*slots.last().unwrap() + TimeDelta::microseconds(1))
            .take(count)
            .collect();
        back.reverse();
        assert_eq!(slots, back, "backwards it is the same");
        slots
            .iter()
            .map(|slot| slot.format("%d %H:%M").to_string())
            .collect()
    }

    /// Clocks go from 2:00 to 3:00 at 01:00Z.
    #[test]
    fn p10_slots_in_a_gap_run_once_at_its_end_together_with_a_slot_that_is_due_there() {
        let from = "2026-03-28T12:00:00Z";
        assert_eq!(
            slots(&berlin("30 2 * * *"), from, 2),
            ["29 01:00", "30 00:30"]
        );
        assert_eq!(
            slots(&berlin("0,15,30,45 2 * * *"), from, 2),
            ["29 01:00", "30 00:00"]
        );
        assert_eq!(
            slots(&berlin("30 2,3 * * *"), from, 3),
            ["29 01:00", "29 01:30", "30 00:30"]
        );
        assert_eq!(
            slots(&berlin("0 2,3 * * *"), from, 2),
            ["29 01:00", "30 00:00"]
        );
        assert_eq!(
            slots(&berlin("0 3 * * *"), from, 2),
            ["29 01:00", "30 01:00"]
        );
        let skips = berlin("30 2 * * *").gap(Gap::Skip).unwrap();
        assert_eq!(slots(&skips, from, 2), ["30 00:30", "31 00:30"]);
    }

    /// Clocks go from 3:00 to 2:00 at 01:00Z.
    #[test]
    fn p10_a_slot_that_comes_twice_runs_as_often_as_its_rule_says() {
        let from = "2026-10-24T12:00:00Z";
        let nightly = || berlin("30 2 * * *");
        let of = |fold| nightly().fold(fold).unwrap();
        assert_eq!(slots(&nightly(), from, 2), ["25 00:30", "26 01:30"]);
        assert_eq!(slots(&of(Fold::Second), from, 2), ["25 01:30", "26 01:30"]);
        let twice = ["25 00:30", "25 01:30", "26 01:30"];
        assert_eq!(slots(&of(Fold::Both), from, 3), twice);
        let both = berlin("10,50 2 * * *").fold(Fold::Both).unwrap();
        let in_order = ["25 00:10", "25 00:50", "25 01:10", "25 01:50", "26 01:10"];
        assert_eq!(slots(&both, from, 5), in_order);
    }

    #[test]
    fn p10_a_rule_of_elapsed_time_neither_pauses_nor_catches_up_when_clocks_change() {
        let half_hours = berlin("*/30 * * * *");
        let autumn = ["25 00:00", "25 00:30", "25 01:00", "25 01:30", "25 02:00"];
        assert_eq!(slots(&half_hours, "2026-10-24T23:59:00Z", 5), autumn);
        let spring = ["29 00:00", "29 00:30", "29 01:00", "29 01:30"];
        assert_eq!(slots(&half_hours, "2026-03-28T23:59:00Z", 4), spring);
        // In the hour that is skipped only.
        let skipped = berlin("*/30 2 * * *");
        assert_eq!(
            slots(&skipped, "2026-03-28T12:00:00Z", 2),
            ["30 00:00", "30 00:30"]
        );
    }

    /// A day without an instant: Samoa crossed the date line.
    #[test]
    fn p10_a_day_that_is_skipped_is_a_gap() {
        let rule = Rule::cron("0 12 * * *").unwrap().time_zone("Pacific/Apia");
        let days = ["29 22:00", "30 10:00", "30 22:00"];
        assert_eq!(slots(&rule.unwrap(), "2011-12-29T12:00:00Z", 3), days);
    }

    #[test]
    fn p10_an_interval_is_counted_from_its_anchor_and_never_drifts() {
        let anchor = utc("2026-01-01T00:00:00Z");
        let rule = Rule::every(Duration::from_secs(7), anchor).unwrap();
        let far = utc("2999-01-01T00:00:00Z");
        for from in [anchor, utc("1970-01-01T00:00:01Z"), far] {
            let next = rule.after(from).next().unwrap();
            let previous = rule.before(from).next().unwrap();
            for slot in [next, previous] {
                assert_eq!((slot - anchor).num_microseconds().unwrap() % 7_000_000, 0);
            }
            assert!(previous < from && from < next && next - from <= TimeDelta::seconds(7));
        }
        assert_eq!(rule.before(utc("1970-01-01T00:00:00Z")).next(), None);
        let hourly = Rule::every(Duration::from_secs(3_600), anchor).unwrap();
        assert_eq!(
            hourly.after(utc("9999-12-31T22:30:00Z")).count(),
            1,
            "and then it ends"
        );
        for interval in [
            Duration::ZERO,
            Duration::from_micros(999),
            Duration::MAX,
            Duration::from_nanos(1_000_001),
        ] {
            assert!(Rule::every(interval, anchor).is_err(), "{interval:?}");
        }
    }

    #[test]
    fn a_list_of_instants_is_sorted_and_ends() {
        let [one, two] = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"].map(utc);
        let rule = Rule::at([two, one, two]).unwrap();
        assert_eq!(
            rule.after(DateTime::UNIX_EPOCH).collect::<Vec<_>>(),
            [one, two]
        );
        assert_eq!(rule.before(two).collect::<Vec<_>>(), [one]);
        assert_eq!(
            rule.before(DateTime::<Utc>::MAX_UTC).collect::<Vec<_>>(),
            [two, one]
        );
        assert!(Rule::at([]).is_err());
        assert!(Rule::at(vec![one; MAX_INSTANTS + 1]).is_err());
        assert!(
            rule.clone().time_zone("Europe/Berlin").is_err(),
            "an instant has no zone"
        );
        assert!(rule.gap(Gap::Skip).is_err());
    }

    #[test]
    fn a_rule_is_shown_as_what_it_is() {
        assert_eq!(berlin("@daily").to_string(), "cron @daily in Europe/Berlin");
        let every = Rule::every(Duration::from_secs(90), utc("2026-01-01T00:00:00Z"));
        let text = "every 90s, counted from 2026-01-01T00:00:00+00:00";
        assert_eq!(every.unwrap().to_string(), text);
    }

    /// The slots of a window, found by asking `chrono` about each of its civil minutes or instants.
    fn by_hand(tz: Tz, rule: &ZonedCron, from: DateTime<Utc>, hours: i64) -> Vec<DateTime<Utc>> {
        let matches = |civil: NaiveDateTime| rule.cron.at_or_after(civil) == Some(civil);
        let end = from + TimeDelta::hours(hours);
        let mut slots = Vec::new();
        if rule.cron.follows_elapsed_time() {
            let instants = (0..hours * 60).map(|minute| from + TimeDelta::minutes(minute));
            slots.extend(instants.filter(|at| matches(at.with_timezone(&tz).naive_local())));
        } else {
            // No offset is over 14 hours, and no expression of the test is finer than five minutes.
            for minute in (-15 * 60..(hours + 15) * 60).step_by(5) {
                let civil = from.naive_utc() + TimeDelta::minutes(minute);
                if !matches(civil) {
                    continue;
                }
                match tz.from_local_datetime(&civil) {
                    LocalResult::Single(at) => slots.push(at.to_utc()),
                    LocalResult::Ambiguous(first, second) => {
                        if rule.fold != Fold::Second {
                            slots.push(first.to_utc());
                        }
                        if rule.fold != Fold::First {
                            slots.push(second.to_utc());
                        }
                    }
                    LocalResult::None if rule.gap == Gap::Skip => {}
                    LocalResult::None => {
                        let mut later = (1..).map(|minute| civil + TimeDelta::minutes(minute));
                        let exists =
                            later.find_map(|later| tz.from_local_datetime(&later).earliest());
                        slots.push(exists.unwrap().to_utc());
                    }
                }
            }
        }
        slots.sort_unstable();
        slots.dedup();
        slots.retain(|slot| (from..end).contains(slot));
        slots
    }

    /// Changes of an offset by whole minutes, in each zone.
    #[test]
    fn p10_changes_of_each_zone_are_crossed_without_a_slot_lost_doubled_or_out_of_order() {
        let expressions = [
            "0,30 0-23 * * *",
            "15 1,2,3,23 * * *",
            "*/30 * * * *",
            "10 * * * *",
        ];
        let policies = [
            (Gap::RunAfter, Fold::First),
            (Gap::Skip, Fold::Second),
            (Gap::RunAfter, Fold::Both),
        ];
        let mut changes = 0;
        for (number, tz) in chrono_tz::TZ_VARIANTS.into_iter().enumerate() {
            let zone = Zone::named(tz.name()).unwrap();
            let whole = zone.changes().into_iter().filter(|(_, is_whole)| *is_whole);
            // All of them take minutes. Many zones share their changes, and each takes others of them.
            for (change, (at, _)) in whole.enumerate().skip(number % 6).step_by(6) {
                let (gap, fold) = policies[(number + change) % 3];
                let cron = Cron::parse(expressions[(number / 3 + change) % 4]).unwrap();
                let zone = zone.clone();
                let zoned = ZonedCron {
                    cron,
                    zone,
                    gap,
                    fold,
                };
                let from = at.duration_trunc(TimeDelta::hours(1)).unwrap() - TimeDelta::hours(4);
                let expected = by_hand(tz, &zoned, from, 8);
                let end = from + TimeDelta::hours(8);
                let rule = Rule(Kind::Cron(Box::new(zoned)));
                let just_before = from - TimeDelta::microseconds(1);
                let found: Vec<_> = rule
                    .after(just_before)
                    .take_while(|slot| *slot < end)
                    .collect();
                assert_eq!(found, expected, "{rule}, {at}: {gap:?}, {fold:?}");
                let mut back: Vec<_> = rule.before(end).take_while(|slot| *slot >= from).collect();
                back.reverse();
                assert_eq!(back, expected, "{rule}, {at}, backwards");
                changes += 1;
            }
        }
        assert!(changes > 5_000, "{changes}");
    }
}
