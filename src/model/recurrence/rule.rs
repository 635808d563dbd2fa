//! A rule that says when something recurs, and the slots that it names.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

#[cfg(feature = "rrule")]
use super::calendar::Calendar;
use super::cron::Cron;
use super::kind::Kind;
use super::search::{Found, Way};
use super::slots::{Fold, Gap, ZonedCron};
use super::stored::StoredRule;
use super::zone::Zone;
use crate::error::{Error, Result};
use crate::model::limits::MAX_SPAN;
use crate::time::Timestamp;

/// The shortest interval of [`Rule::every`]: 1 ms.
const MIN_INTERVAL: Duration = Duration::from_millis(1);
/// The most instants of [`Rule::at`], and dates of [`Rule::except_dates`].
const MAX_INSTANTS: usize = 10_000;
/// The most rules of [`Rule::any_of`].
const MAX_RULES: usize = 100;
/// How deep rules may be nested.
const MAX_DEPTH: usize = 16;
/// How many searches in a row may find nothing but excluded slots before a rule counts as one that has none.
const MAX_SEARCHES: usize = 500;

/// When something recurs: a cron expression in a time zone, a fixed interval, a list of instants, or what these combine to;
/// with the feature `rrule` also a rule as calendars write them.
///
/// A rule names instants, its *slots*, from 1970 to 9999. It knows no clock: [`after`](Self::after) and
/// [`before`](Self::before) say what comes next and what came last. A [`Recurrence`](crate::Recurrence) makes a task for each
/// slot. Two rules are equal if they were written alike.
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
#[derive(Clone, Serialize, Deserialize)]
#[serde(into = "StoredRule", try_from = "StoredRule")]
pub struct Rule(pub(super) Kind);

/// As `Display`: a zone has some hundred changes of its offset.
impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({self})")
    }
}

impl From<Rule> for StoredRule {
    fn from(rule: Rule) -> Self {
        Self::of(&rule.0)
    }
}

impl TryFrom<StoredRule> for Rule {
    type Error = Error;

    fn try_from(stored: StoredRule) -> Result<Self> {
        stored.read().map(Self)
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        StoredRule::of(&self.0) == StoredRule::of(&other.0)
    }
}

impl Eq for Rule {}

impl Rule {
    /// The civil times that a cron expression matches, in UTC unless a [`time_zone`](Self::time_zone) is named.
    ///
    /// Five fields: minute, hour, day of month, month, day of week. With six a field of seconds comes first, with seven a field of
    /// years last. A field is a number, a `*` or a range `1-5`, these two also with a step `/2`, or a list of them with commas.
    /// The end of a range is not before its start. Months and days of the week have English names of three letters; Sunday is
    /// 0 or 7. `L` is the last day of the month, `LW` its last working day, `15W` the working day nearest to the 15th, `5L` the
    /// last Friday, `5#2` the second; `?` is `*`. Nicknames are `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`,
    /// `@yearly` and `@annually`. Case does not matter.
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
            cron: Cron::known(expression)?,
            zone: Zone::utc(),
            gap: Gap::default(),
            fold: Fold::default(),
        }))))
    }

    /// What iCalendar lines say (RFC 5545): `DTSTART`, `RRULE`, and any number of `RDATE` and `EXDATE`.
    ///
    /// - `DTSTART` and `RRULE` are there once, in any order. `DTSTART` is where periods and slots are counted from; it is a slot
    ///   only if the `RRULE` names it. Several rules are united by [`any_of`](Self::any_of), and a rule is excluded by
    ///   [`except`](Self::except): `EXRULE` is not read.
    /// - A time ends with `Z`, or its line names a zone of the IANA database, as in `DTSTART;TZID=Europe/Berlin:20260105T093000`.
    ///   Times without a zone are refused, and so are dates without a time: a slot is an instant. `UNTIL` is in UTC, as RFC 5545
    ///   says for a `DTSTART` with a zone; a slot at that instant counts. Each line of `RDATE` or `EXDATE` may have a zone of
    ///   its own.
    /// - A civil time that comes twice is its first, and one that is skipped goes by the offset before the change: half past two
    ///   becomes half past three. Two slots that so meet are one. All frequencies count by the clock of the zone: `HOURLY`,
    ///   `MINUTELY` and `SECONDLY` have nothing in an hour that comes again. Start such a rule in UTC.
    /// - `EXDATE` excludes the slot at that instant; for whole days there is [`except_dates`](Self::except_dates).
    /// - In `BYDAY`, days with a number and without one may be mixed. `BYWEEKNO` without days means the day of the week of
    ///   `DTSTART`. `BYSETPOS` counts in whole periods, also before `DTSTART`.
    ///
    /// Long lines may be folded as RFC 5545 says: columns count from the beginning of the unfolded line.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with the line, the property, and where it can be told the column, if a
    /// line cannot be read; if the text has over 8 KiB, `INTERVAL` is over 65,535 or `COUNT` over 10,000; if a part does not go
    /// with the frequency, as RFC 5545 says; if the `RRULE` names no time in its first hundred years, or does not reach its
    /// `COUNT` in a thousand; or if no slot is left from 1970 on. The `rrule` crate also refuses what is out of the ordinary: the
    /// second 60, a day of the week before the last but three of a month (`-5MO`), and a `BYSETPOS` beyond 366, or beyond 53 in a
    /// week, 31 in a month, 24 in an hour, 60 in a minute.
    ///
    /// # Example
    ///
    /// ```
    /// use punctual::Rule;
    ///
    /// // The last working day of each month, but not in December.
    /// let payday = Rule::calendar(
    ///     "DTSTART;TZID=Europe/Berlin:20260130T090000
    /// RRULE:FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1
    /// EXDATE;TZID=Europe/Berlin:20261231T090000",
    /// )?;
    /// let slots: Vec<String> = payday
    ///     .after("2026-10-01T00:00:00Z".parse()?)
    ///     .take(3)
    ///     .map(|slot| slot.to_rfc3339())
    ///     .collect();
    /// let expected = ["2026-10-30T08:00:00+00:00", "2026-11-30T08:00:00+00:00", "2027-01-29T08:00:00+00:00"];
    /// assert_eq!(slots, expected);
    ///
    /// let error = Rule::calendar("DTSTART:20260130T090000Z\nRRULE:FREQ=DAILY;BYHOUR=9,25").unwrap_err();
    /// assert!(error.to_string().contains("line 2, column 27, RRULE: BYHOUR"), "{error}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "rrule")]
    pub fn calendar(text: &str) -> Result<Self> {
        Self(Kind::Calendar(Calendar::known(text)?)).checked()
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

    /// Every slot of any of these rules. A slot that several have is one slot.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if there is no rule or there are over 100, or if rules are nested over
    /// 16 deep.
    ///
    /// # Example
    ///
    /// ```
    /// use punctual::Rule;
    ///
    /// let opening = [Rule::cron("0 8 * * MON-FRI")?, Rule::cron("0 10 * * SAT")?];
    /// let rule = Rule::any_of(opening)?;
    /// let slots: Vec<String> = rule
    ///     .after("2026-05-08T12:00:00Z".parse()?) // a Friday
    ///     .take(2)
    ///     .map(|slot| slot.to_rfc3339())
    ///     .collect();
    /// assert_eq!(slots, ["2026-05-09T10:00:00+00:00", "2026-05-11T08:00:00+00:00"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn any_of(rules: impl IntoIterator<Item = Self>) -> Result<Self> {
        let rules: Vec<Kind> = rules
            .into_iter()
            .take(MAX_RULES + 1)
            .map(|rule| rule.0)
            .collect();
        if rules.is_empty() {
            return Err(Error::invalid("there is no rule to unite"));
        }
        if rules.len() > MAX_RULES {
            return Err(Error::invalid(format!("over {MAX_RULES} rules are united")));
        }
        Self(Kind::AnyOf(rules)).checked()
    }

    /// Without the slots that are also slots of another rule.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if no slot is left, as far as a bounded search can tell, or if rules are
    /// nested over 16 deep.
    ///
    /// # Example
    ///
    /// ```
    /// use punctual::Rule;
    ///
    /// // Nine o'clock, but not in August.
    /// let rule = Rule::cron("0 9 * * *")?.except(Rule::cron("* * * AUG *")?)?;
    /// let next = rule.after("2026-07-31T12:00:00Z".parse()?).next();
    /// assert_eq!(next, Some("2026-09-01T09:00:00Z".parse()?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn except(self, other: Self) -> Result<Self> {
        let kind = Kind::Except {
            rule: Box::new(self.0),
            except: Box::new(other.0),
        };
        Self(kind).checked()
    }

    /// Without the slots on these dates, in the time zone of the rule's cron expressions and calendar rules, or else in UTC.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if there are over 10,000 dates, if no slot is left, or if the rule's
    /// parts have several time zones: then exclude the dates from each part.
    ///
    /// # Example
    ///
    /// ```
    /// use punctual::Rule;
    /// use punctual::chrono::NaiveDate;
    ///
    /// let christmas: NaiveDate = "2026-12-25".parse()?;
    /// let rule = Rule::cron("30 0 * * *")?.time_zone("Europe/Berlin")?.except_dates([christmas])?;
    /// let next = rule.after("2026-12-24T12:00:00Z".parse()?).next();
    /// assert_eq!(next, Some("2026-12-25T23:30:00Z".parse()?), "half past midnight on the 26th in Berlin");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn except_dates(self, dates: impl IntoIterator<Item = NaiveDate>) -> Result<Self> {
        let mut dates: Vec<NaiveDate> = dates.into_iter().take(MAX_INSTANTS + 1).collect();
        if dates.len() > MAX_INSTANTS {
            return Err(Error::invalid(format!(
                "over {MAX_INSTANTS} excluded dates"
            )));
        }
        dates.sort_unstable();
        dates.dedup();
        let zone = {
            let mut zones = self.0.zones().into_iter();
            let zone = zones.next().cloned().unwrap_or_else(Zone::utc);
            if zones.any(|other| other.name() != zone.name()) {
                return Err(Error::invalid(
                    "a date is excluded from a rule of several time zones: exclude it from each part",
                ));
            }
            zone
        };
        let rule = Box::new(self.0);
        Self(Kind::ExceptDates { rule, dates, zone }).checked()
    }

    /// Without the slots before this instant, which is itself allowed. It is rounded up to a microsecond.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) outside 1970 to 9999, or if no slot is left.
    pub fn not_before(self, start: DateTime<Utc>) -> Result<Self> {
        let first = Timestamp::rounded_up(start).map_err(|error| error.in_context("the start"))?;
        self.within(first, Timestamp::MAX)
    }

    /// Without the slots after this instant, which is itself allowed. It is rounded down to a microsecond.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) outside 1970 to 9999, if it is before the rule's start, or if no slot
    /// is left.
    ///
    /// # Example
    ///
    /// ```
    /// use punctual::Rule;
    ///
    /// let rule = Rule::cron("0 9 * * *")?
    ///     .not_before("2026-03-01T00:00:00Z".parse()?)?
    ///     .not_after("2026-03-02T09:00:00Z".parse()?)?;
    /// assert_eq!(rule.after("2026-01-01T00:00:00Z".parse()?).count(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn not_after(self, end: DateTime<Utc>) -> Result<Self> {
        Timestamp::rounded_up(end).map_err(|error| error.in_context("the end"))?;
        self.within(Timestamp::MIN, floor(end))
    }

    fn within(self, first: Timestamp, last: Timestamp) -> Result<Self> {
        let (rule, first, last) = match self.0 {
            // Start and end of the same rule.
            Kind::Within {
                rule,
                first: own_first,
                last: own_last,
            } => (rule, first.max(own_first), last.min(own_last)),
            kind => (Box::new(kind), first, last),
        };
        if last < first {
            return Err(Error::invalid(format!(
                "the end {} of the rule is before its start {}",
                last.to_utc(),
                first.to_utc()
            )));
        }
        Self(Kind::Within { rule, first, last }).checked()
    }

    /// # Errors
    ///
    /// `Invalid` if the rule has no slot, or is nested too deep.
    fn checked(self) -> Result<Self> {
        if self.0.depth() > MAX_DEPTH {
            return Err(Error::invalid(format!(
                "rules are nested over {MAX_DEPTH} deep"
            )));
        }
        let before_all = Timestamp::from_micros(-1);
        match self.search_far(Way::After, before_all) {
            Found::Slot(_) => Ok(self),
            Found::Nothing => Err(Error::invalid(format!("the rule has no slot: {self}"))),
            Found::Further(_) => Err(Error::invalid(format!(
                "the first million slots of the rule are all excluded: {self}"
            ))),
        }
    }

    fn with_cron(mut self, what: &str, set: impl FnOnce(&mut ZonedCron)) -> Result<Self> {
        match &mut self.0 {
            Kind::Cron(cron) => set(cron),
            Kind::Every { .. } | Kind::At(_) => {
                return Err(Error::invalid(format!(
                    "{what} is only for a cron expression: this rule names instants"
                )));
            }
            #[cfg(feature = "rrule")]
            Kind::Calendar(_) => {
                return Err(Error::invalid(format!(
                    "{what} is only for a cron expression: a calendar rule says it itself"
                )));
            }
            _ => {
                return Err(Error::invalid(format!(
                    "{what} is only for a cron expression: give it before rules are combined"
                )));
            }
        }
        Ok(self)
    }

    /// The name of the time zone of its civil times. `None`: it has none, or its parts have several.
    #[must_use]
    pub fn zone_name(&self) -> Option<&str> {
        self.only_zone().map(Zone::name)
    }

    /// The time zone of its civil times, if that is one.
    fn only_zone(&self) -> Option<&Zone> {
        let zones = self.0.zones();
        let zone = *zones.first()?;
        let is_same = |other: &&Zone| other.name() == zone.name();
        zones.iter().all(is_same).then_some(zone)
    }

    /// The slots after an instant, in ascending order. They end only if the rule does, or after a million excluded ones in a row.
    pub fn after(&self, instant: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> + '_ {
        let mut last = Some(floor(instant));
        std::iter::from_fn(move || {
            last = self.search_far(Way::After, last?).slot();
            last.map(Timestamp::to_utc)
        })
    }

    /// The slots before an instant, in descending order: the latest comes first. They end as those of [`after`](Self::after).
    pub fn before(&self, instant: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> + '_ {
        let mut last = Timestamp::rounded_up(instant).ok();
        if last.is_none() && instant > Timestamp::MAX.to_utc() {
            last = Some(Timestamp::MAX);
        }
        std::iter::from_fn(move || {
            last = self.search_far(Way::Before, last?).slot();
            last.map(Timestamp::to_utc)
        })
    }

    /// The nearest slot, by as many searches as it takes, up to [`MAX_SEARCHES`].
    fn search_far(&self, way: Way, from: Timestamp) -> Found {
        let mut found = Found::Further(from);
        for _ in 0..MAX_SEARCHES {
            match found {
                Found::Further(at) => found = self.search(way, at),
                _ => break,
            }
        }
        found
    }

    fn search(&self, way: Way, from: Timestamp) -> Found {
        match self.0.find(way, from) {
            Found::Slot(at) | Found::Further(at)
                if !(Timestamp::MIN..=Timestamp::MAX).contains(&at) =>
            {
                Found::Nothing
            }
            found => found,
        }
    }

    /// The first slot after an instant.
    pub(crate) fn next_slot(&self, after: Timestamp) -> Found {
        self.search(Way::After, after)
    }

    /// The last slot before an instant.
    pub(crate) fn previous_slot(&self, before: Timestamp) -> Found {
        self.search(Way::Before, before)
    }

    /// Whether its slots depend on the time zone database.
    pub(crate) fn has_zones(&self) -> bool {
        self.0.zones().into_iter().any(|zone| !zone.is_utc())
    }

    /// The same rule counted from another instant, if it is an interval.
    pub(crate) fn anchored_at(&self, anchor: Timestamp) -> Self {
        match self.0 {
            Kind::Every { micros, .. } => Self(Kind::Every { anchor, micros }),
            ref kind => Self(kind.clone()),
        }
    }

    /// The interval of a rule that is nothing else.
    pub(crate) fn interval(&self) -> Option<Duration> {
        match self.0 {
            Kind::Every { micros, .. } => Some(Duration::from_micros(micros.unsigned_abs())),
            _ => None,
        }
    }
}

/// What the rule is, for people: `cron 30 2 * * * in Europe/Berlin`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An instant, rounded down to a microsecond: a slot within that microsecond is after it.
fn floor(instant: DateTime<Utc>) -> Timestamp {
    Timestamp::from_micros(instant.timestamp_micros().max(-1))
}
