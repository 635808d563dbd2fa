//! The slots of cron expressions, against answers that others gave: two Python libraries that know nothing of each other, and
//! the published tests of the crate that reads our expressions. The files are in `tests/oracles`; `cron.py` there says how they
//! are made.
//!
//! Where an answer differs from ours, this is why. A test finds the class of each difference by itself, checks that it is one,
//! and counts the lines of each class, so a new difference fails. "Vixie" is `cron(8)` and `crontab(5)` of Vixie cron 4.1 and
//! Debian.
//!
//! | class      | who differs | their slots                                     | ours, and who is right                              |
//! |------------|-------------|-------------------------------------------------|-----------------------------------------------------|
//! | gap end    | both        | `0-23`: the skipped slot is dropped; else       | For times of the day one at the end of the gap. As  |
//! |            |             | APScheduler moves it by the length of the gap   | Vixie, which makes up for them at once              |
//! | gap shift  | APScheduler | a slot so moved                                 | See "gap end"                                       |
//! | gap star   | both        | a skipped slot runs after the gap, though its   | None: such a rule goes by elapsed time. As Vixie    |
//! |            |             | minute or hour begins with `*`                  |                                                     |
//! | gap day    | APScheduler | none for 30 December 2011, which Samoa skipped  | One at its end: `Gap` has no limit. Vixie takes     |
//! |            |             |                                                 | over three hours for a correction, and skips it too |
//! | fold twice | both        | a time of the day that comes twice is two slots | One, the first, unless `Fold` says else. As Vixie   |
//! | fold lost  | croniter    | a slot in the second pass is left out           | A rule of elapsed time runs on, as Vixie: its fault |
//! | back       | APScheduler | slots before the start, which is in the second  | None before the start: its fault                    |
//! |            |             | pass                                            |                                                     |
//! | repeat     | APScheduler | a slot is there twice: a moved one, and its own | Once: its fault                                     |
//! | carry      | APScheduler | the first slots of a day are missing, if a gap  | All of them: its fault                              |
//! |            |             | was crossed on the way to it                    |                                                     |
//! | nth        | croniter    | with `#`, `L` or `W` in one day field the value | Either matches, as without such a sign. Vixie has   |
//! |            |             | in the other is ignored                         | none of them                                        |
//! | nearest    | croniter    | `31W` in a shorter month: its last working day  | None in a month without the day, as croner's tests  |
//! |            |             |                                                 | say. Vixie has no `W`                               |
//! | equal      | croniter    | `5-5` is every value                            | It is 5, as in Vixie: its fault                     |
//! | refused    | both        | `5/15` begins at 5; by croniter `22-2` and      | An error. Vixie wants a range before a step, and    |
//! |            |             | `FRI-MON` go over the end                       | its ends in order                                   |
//!
//! Near no change of clocks, and without these signs and ranges, nobody differs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use chrono::{
    DateTime, Datelike, LocalResult, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike, Utc,
};
use chrono_tz::Tz;
use punctual::Rule;
use serde::Deserialize;

type Instant = DateTime<Utc>;

/// How many slots each line has.
const SLOTS: usize = 6;

/// How many answers of whom have a difference of which class. A line may have several.
const DIFFERENCES: [(&str, &str, usize); 18] = [
    ("APScheduler", "back", 58),
    ("APScheduler", "carry", 2),
    ("APScheduler", "fold twice", 15),
    ("APScheduler", "gap day", 3),
    ("APScheduler", "gap end", 67),
    ("APScheduler", "gap shift", 41),
    ("APScheduler", "repeat", 27),
    ("both", "fold twice", 38),
    ("both", "gap end", 8),
    ("both", "gap star", 25),
    ("both", "refused", 6),
    ("croniter", "equal", 10),
    ("croniter", "fold lost", 2),
    ("croniter", "fold twice", 15),
    ("croniter", "gap star", 22),
    ("croniter", "nearest", 6),
    ("croniter", "nth", 58),
    ("croniter", "refused", 6),
];

/// A line of `cron.jsonl`; its header is in `cron.py`.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(rename = "e")]
    expression: String,
    #[serde(rename = "z", default = "utc")]
    zone: String,
    #[serde(rename = "f")]
    from: i64,
    #[serde(rename = "s")]
    both: Option<Vec<i64>>,
    #[serde(rename = "c")]
    croniter: Option<Vec<i64>>,
    #[serde(rename = "a")]
    apscheduler: Option<Vec<i64>>,
    /// What the oracles differ in, with commas.
    #[serde(rename = "d", default)]
    classes: String,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn instant(seconds: i64) -> Instant {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn read(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracles");
    fs::read_to_string(folder.join(name)).unwrap()
}

fn slots(rule: &Rule, from: Instant) -> Vec<Instant> {
    rule.after(from).take(SLOTS).collect()
}

/// An expression, with what it takes to explain a difference.
struct Case<'a> {
    fields: Vec<&'a str>,
    tz: Tz,
    rule: Rule,
    /// Its civil times, as if they were in UTC.
    civil: Rule,
    from: Instant,
}

impl Case<'_> {
    fn field(&self, from_minute: usize) -> &str {
        let seconds = usize::from(self.fields.len() > 5);
        self.fields[seconds + from_minute]
    }

    fn is_elapsed(&self) -> bool {
        self.field(0).starts_with('*') || self.field(1).starts_with('*')
    }

    /// The rule with another field.
    fn with(&self, from_minute: usize, text: &str) -> Rule {
        let mut fields = self.fields.clone();
        let seconds = usize::from(fields.len() > 5);
        fields[seconds + from_minute] = text;
        let rule = Rule::cron(&fields.join(" ")).unwrap();
        rule.time_zone(self.tz.name()).unwrap()
    }

    fn offset(&self, at: Instant) -> TimeDelta {
        let offset = self.tz.offset_from_utc_datetime(&at.naive_utc()).fix();
        TimeDelta::seconds(offset.local_minus_utc().into())
    }

    fn local(&self, at: Instant) -> NaiveDateTime {
        at.naive_utc() + self.offset(at)
    }

    /// Whether a civil time from `first` until before `end` matches.
    fn matches(&self, first: NaiveDateTime, end: NaiveDateTime) -> bool {
        let before = first.and_utc() - TimeDelta::seconds(1);
        let next = self.civil.after(before).next();
        next.is_some_and(|next| next < end.and_utc())
    }

    /// The last change of clocks forward up to an instant, less than `hours` ago, and by how much.
    fn gap_before(&self, at: Instant, hours: i64) -> Option<(Instant, TimeDelta)> {
        let mut later = at;
        for hour in 1..=hours {
            let earlier = at - TimeDelta::hours(hour);
            let forward = self.offset(later) - self.offset(earlier);
            if forward > TimeDelta::zero() {
                let seconds = (0..3_600)
                    .rev()
                    .map(|second| earlier + TimeDelta::seconds(second));
                let last = seconds
                    .into_iter()
                    .find(|at| self.offset(*at) == self.offset(earlier));
                return last.map(|last| (last + TimeDelta::seconds(1), forward));
            }
            later = earlier;
        }
        None
    }

    /// Why an oracle has a slot that we do not have.
    fn extra(&self, at: Instant) -> Option<&'static str> {
        let local = self.local(at);
        if at <= self.from {
            return Some("back");
        }
        if let Some((end, length)) = self.gap_before(at, 2)
            && at < end + length
        {
            let first = self.local(end) - length;
            if at == end && self.is_elapsed() && self.matches(first, self.local(end)) {
                return Some("gap star");
            }
            let skipped = local - length;
            if self.matches(skipped, skipped + TimeDelta::seconds(1)) {
                return Some("gap shift");
            }
        }
        let is_second = match self.tz.from_local_datetime(&local) {
            LocalResult::Ambiguous(_, second) => second == at,
            _ => false,
        };
        let matches = self.matches(local, local + TimeDelta::seconds(1));
        (is_second && matches && !self.is_elapsed()).then_some("fold twice")
    }

    /// Why an oracle does not have a slot that we have.
    fn missing(&self, at: Instant) -> Option<&'static str> {
        let local = self.local(at);
        if let Some((end, length)) = self.gap_before(at, 1)
            && at == end
            && !self.is_elapsed()
            && self.matches(local - length, local)
        {
            return Some(match length.num_hours() {
                24 => "gap day",
                _ => "gap end",
            });
        }
        if let LocalResult::Ambiguous(_, second) = self.tz.from_local_datetime(&local)
            && second == at
            && self.is_elapsed()
        {
            return Some("fold lost");
        }
        let hours = (at - self.from).num_hours() + 1;
        let (_, length) = self.gap_before(at, hours)?;
        let passed = TimeDelta::seconds(local.num_seconds_from_midnight().into());
        (passed < length).then_some("carry")
    }

    /// What croniter makes of the whole expression, if that is not what we do.
    fn reading_of_croniter(&self, theirs: &[Instant]) -> Option<&'static str> {
        let (day, weekday) = (self.field(2), self.field(4));
        for field in 0..5 {
            let ends = self.field(field).split_once('-');
            if ends.is_some_and(|(first, last)| first == last)
                && slots(&self.with(field, "*"), self.from) == theirs
            {
                return Some("equal");
            }
        }
        let is_any = |field: &str| field.starts_with('*') || field == "?";
        if !is_any(day) && !is_any(weekday) {
            let by_day = day.contains('W').then(|| self.with(4, "*"));
            let by_weekday = weekday.contains(['#', 'L']).then(|| self.with(2, "*"));
            let mut rules = by_day.into_iter().chain(by_weekday);
            let first = rules.next()?;
            let last = *theirs.last()?;
            let mut expected: Vec<Instant> = first
                .after(self.from)
                .take_while(|at| *at <= last)
                .collect();
            for rule in rules {
                let others: Vec<Instant> =
                    rule.after(self.from).take_while(|at| *at <= last).collect();
                expected.retain(|at| others.contains(at));
            }
            return (expected == theirs).then_some("nth");
        }
        let nearest: u32 = day.strip_suffix('W')?.parse().ok()?;
        let ours: Vec<Instant> = self
            .rule
            .after(self.from)
            .take_while(|at| Some(at) <= theirs.last())
            .collect();
        let is_last = |at: Instant| {
            let date = self.local(at).date();
            let shorter = date.num_days_in_month() < nearest as u8;
            shorter && self.with(2, "LW").before(at + TimeDelta::seconds(1)).next() == Some(at)
        };
        let all = theirs.iter().all(|at| ours.contains(at) || is_last(*at));
        (all && ours.iter().all(|at| theirs.contains(at))).then_some("nearest")
    }

    /// Why an oracle differs from us: the classes, none if it does not.
    fn explain(&self, oracle: &str, theirs: &[Instant]) -> Result<Vec<&'static str>, String> {
        let ours = slots(&self.rule, self.from);
        if ours == theirs {
            return Ok(Vec::new());
        }
        if oracle == "croniter"
            && let Some(class) = self.reading_of_croniter(theirs)
        {
            return Ok(vec![class]);
        }
        let mut classes = Vec::new();
        if theirs.windows(2).any(|pair| pair[0] == pair[1]) {
            classes.push("repeat");
        }
        let end = ours.last().min(theirs.last()).copied();
        for at in ours.iter().chain(theirs).copied() {
            let class = match (ours.contains(&at), theirs.contains(&at)) {
                (true, true) => continue,
                _ if Some(at) > end => continue,
                (false, _) => self.extra(at),
                (true, false) => self.missing(at),
            };
            classes.push(class.ok_or(format!("{at} is not explained"))?);
        }
        classes.sort_unstable();
        classes.dedup();
        match classes.is_empty() {
            true => Err("the same slots in another order".to_owned()),
            false => Ok(classes),
        }
    }
}

/// Whether an expression has what we refuse: a step after a number, or a range across the end.
fn is_refused_by_design(expression: &str) -> bool {
    let order = ["NOV", "FEB", "FRI", "MON"];
    let value = |text: &str| match order.iter().position(|name| *name == text) {
        Some(index) => Some(10 - index),
        None => text.parse().ok(),
    };
    expression.split([' ', ',']).any(|item| {
        let (span, step) = item.split_once('/').unwrap_or((item, ""));
        match span.split_once('-') {
            Some((first, last)) => value(first) > value(last),
            None => !step.is_empty() && span != "*",
        }
    })
}

#[test]
fn the_slots_of_an_expression_are_those_of_two_other_implementations_or_the_difference_is_known() {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut lines = 0;
    for text in read("cron.jsonl").lines() {
        let line: Line = serde_json::from_str(text).unwrap();
        lines += 1;
        let answers = [
            ("both", &line.both),
            ("croniter", &line.croniter),
            ("APScheduler", &line.apscheduler),
        ];
        let answers = answers
            .iter()
            .filter_map(|(oracle, answer)| Some((*oracle, answer.as_ref()?)));
        let rule = match Rule::cron(&line.expression) {
            Ok(rule) => rule.time_zone(&line.zone).unwrap(),
            Err(error) => {
                assert!(is_refused_by_design(&line.expression), "{error}");
                for (oracle, _) in answers {
                    *counts.entry((oracle, "refused")).or_default() += 1;
                }
                continue;
            }
        };
        let case = Case {
            fields: line.expression.split(' ').collect(),
            tz: line.zone.parse().unwrap(),
            rule,
            civil: Rule::cron(&line.expression).unwrap(),
            from: instant(line.from),
        };
        let ours = slots(&case.rule, case.from);
        let end = *ours.last().unwrap() + TimeDelta::microseconds(1);
        let mut back: Vec<Instant> = case.rule.before(end).take(SLOTS).collect();
        back.reverse();
        assert_eq!(ours, back, "backwards it is the same: {text}");
        let mut found = Vec::new();
        for (oracle, answer) in answers {
            let steps = answer.iter().scan(line.from, |at, step| {
                *at += step;
                Some(instant(*at))
            });
            let theirs: Vec<Instant> = steps.collect();
            match case.explain(oracle, &theirs) {
                Ok(classes) => found.extend(classes.into_iter().map(|class| (oracle, class))),
                Err(why) => panic!("{text}\n{why}\nours:     {ours:?}\n{oracle}: {theirs:?}"),
            }
        }
        for class in line.classes.split_terminator(',') {
            let known = found.iter().any(|(_, found)| found.starts_with(class));
            assert!(known, "{text}: {found:?}");
        }
        for difference in found {
            *counts.entry(difference).or_default() += 1;
        }
    }
    assert_eq!(lines, 2_982);
    let counts: Vec<_> = counts
        .into_iter()
        .map(|((oracle, class), count)| (oracle, class, count))
        .collect();
    assert_eq!(counts, DIFFERENCES);
}

#[test]
fn the_slots_of_an_expression_are_those_that_its_parser_publishes() {
    let text = read("croner.txt");
    let facts = text.lines().filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for fact in facts {
        let columns: Vec<&str> = fact.split(" | ").collect();
        let [expression, zone, from, expected] = columns[..] else {
            panic!("four columns: {fact}");
        };
        let rule = Rule::cron(expression).and_then(|rule| rule.time_zone(zone));
        let rule = rule.unwrap_or_else(|error| panic!("{error}"));
        let expected: Vec<Instant> = expected.split(' ').map(|at| at.parse().unwrap()).collect();
        let found: Vec<Instant> = match from.split_once(' ').unwrap() {
            ("after", from) => rule
                .after(from.parse().unwrap())
                .take(expected.len())
                .collect(),
            (_, from) => rule
                .before(from.parse().unwrap())
                .take(expected.len())
                .collect(),
        };
        assert_eq!(found, expected, "{fact}");
        count += 1;
    }
    assert_eq!(count, 52);
}
