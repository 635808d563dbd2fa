//! The slots of calendar rules, against those of python-dateutil, which knows nothing of this crate. `tests/oracles/rrule.py`
//! says how the file is made.
//!
//! Where an answer differs from ours, this is why. The test finds the class of each difference, checks that it is one, and
//! counts the lines of each class, so a new difference fails. "The RFC" is RFC 5545, section 3.3.10.
//!
//! | class      | dateutil                                        | ours, and who is right                               |
//! |------------|-------------------------------------------------|------------------------------------------------------|
//! | week       | `BYWEEKNO` without days: all seven of the week  | The day of the week of `DTSTART`: by the RFC, what a |
//! |            |                                                 | rule does not say is as in `DTSTART`                 |
//! | year's end | days of January in the last week of the year    | They count by `chrono` and ISO 8601: its fault, which |
//! |            | before do not count, or count as another        | the `rrule` crate has taken over                     |
//! | mixed      | `BYDAY` with and without numbers: no day is both | Either counts: the RFC limits neither by the other   |
//! | first week | `BYSETPOS` with `WEEKLY` counts from `DTSTART`  | It counts in the whole week, as both do in the first |
//! |            | in the first week                               | month, where an example of the RFC has it so         |
//! | order      | slots that were moved out of a gap come before  | In the order of time, and once: the file has them so |
//! |            | earlier ones, or twice                          | too. The RFC speaks of a set                         |
//! | no slot    | a rule that names nothing, beside its `RDATE`s  | An error: a hundred years without a slot             |
//! | no end     | a `COUNT` that is not reached in 1,000 years    | An error: such an end is not searched for            |
//!
//! Near changes of clocks nobody differs otherwise: dateutil has the first of two civil times, and moves what is skipped by the
//! length of the gap, as the RFC says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use punctual::Rule;
use serde::Deserialize;

type Instant = DateTime<Utc>;

/// How many slots a line has in a direction, at most.
const SLOTS: usize = 6;

/// How many lines have a difference of which class.
const DIFFERENCES: [(&str, usize); 7] = [
    ("first week", 5),
    ("mixed", 4),
    ("no end", 2),
    ("no slot", 28),
    ("order", 13),
    ("week", 8),
    ("year's end", 3),
];

/// A line of `rrule.jsonl`; its header is in `rrule.py`.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(rename = "t")]
    text: String,
    #[serde(rename = "f")]
    from: i64,
    #[serde(rename = "y")]
    last_year: i32,
    #[serde(rename = "s")]
    after: Vec<i64>,
    #[serde(rename = "p")]
    before: Vec<i64>,
    #[serde(rename = "o", default)]
    is_out_of_order: u8,
}

impl Line {
    fn rule(&self) -> Rule {
        Rule::calendar(&self.text).unwrap()
    }

    fn from(&self) -> Instant {
        DateTime::from_timestamp(self.from, 0).unwrap()
    }

    /// What dateutil has after and before the instant.
    fn theirs(&self) -> Answer {
        let slots = |deltas: &[i64], sign: i64| {
            let steps = deltas.iter().scan(self.from(), |at, delta| {
                *at += TimeDelta::seconds(sign * delta);
                Some(*at)
            });
            steps.collect()
        };
        Answer {
            after: slots(&self.after, 1),
            before: slots(&self.before, -1),
        }
    }

    fn ours(&self, rule: &Rule) -> Answer {
        let after = rule.after(self.from()).take(SLOTS);
        // Where dateutil has stopped, within the last year, it is not known what it would have found.
        let after = after
            .enumerate()
            .take_while(|(index, slot)| *index < self.after.len() || slot.year() < self.last_year);
        Answer {
            after: after.map(|(_, slot)| slot).collect(),
            before: rule.before(self.from()).take(SLOTS).collect(),
        }
    }

    /// A part of the RRULE.
    fn part(&self, name: &str) -> Option<&str> {
        let rule = self
            .text
            .lines()
            .find_map(|line| line.strip_prefix("RRULE:"))?;
        let mut parts = rule.split(';').filter_map(|part| part.split_once('='));
        parts.find_map(|(each, value)| (each == name).then_some(value))
    }

    /// The rule without its COUNT.
    fn endless(&self) -> Rule {
        let count = format!("COUNT={}", self.part("COUNT").unwrap_or_default());
        let text = self.text.replace(&format!("{count};"), "");
        Rule::calendar(&text.replace(&format!(";{count}"), "")).unwrap()
    }

    /// Why a rule that dateutil reads is refused.
    fn refusal(&self, error: &str) -> Option<&'static str> {
        if error.contains("COUNT is not reached") {
            let endless = self.endless();
            let is_same = self.theirs().is_beginning_of(&self.ours(&endless));
            return is_same.then_some("no end");
        }
        let is_added = |slot: &Instant| {
            let text = slot.format("%Y%m%dT%H%M%SZ").to_string();
            let mut lines = self.text.lines();
            lines.any(|line| line.starts_with("RDATE") && line.contains(&text))
        };
        let theirs = self.theirs();
        let is_none = error.contains("no time") && theirs.all().all(is_added);
        is_none.then_some("no slot")
    }

    /// Why an answer differs from ours.
    fn difference(&self) -> Option<&'static str> {
        let has_days = ["BYDAY", "BYMONTHDAY", "BYYEARDAY"].map(|name| self.part(name).is_some());
        if self.part("BYWEEKNO").is_some() && !has_days.contains(&true) {
            let week = "RRULE:BYDAY=MO,TU,WE,TH,FR,SA,SU;";
            let rule = Rule::calendar(&self.text.replace("RRULE:", week)).unwrap();
            return (self.ours(&rule) == self.theirs()).then_some("week");
        }
        let (ours, theirs) = (self.ours(&self.rule()), self.theirs());
        let lacks = |slot: &&Instant| !theirs.all().any(|other| other == *slot);
        if self.part("BYWEEKNO").is_some() {
            // Their answer goes further, for it has fewer: what they lack is in January.
            let mut lacking = ours.all().filter(lacks);
            let is_known = lacking.all(|slot| slot.month() == 1 && slot.day() <= 4);
            return is_known.then_some("year's end");
        }
        let days = self.part("BYDAY").unwrap_or_default();
        let is_numbered = |day: &str| day.len() > 2;
        if days.split(',').any(is_numbered) && !days.split(',').all(is_numbered) {
            return theirs.all().next().is_none().then_some("mixed");
        }
        if self.part("FREQ") == Some("WEEKLY") && self.part("BYSETPOS").is_some() {
            let endless = self.endless();
            let start = self
                .text
                .lines()
                .next()?
                .rsplit(':')
                .next()?
                .trim_end_matches('Z');
            let start = chrono::NaiveDateTime::parse_from_str(start, "%Y%m%dT%H%M%S").ok()?;
            let end = start.and_utc() + TimeDelta::days(8);
            let (ours, theirs) = (self.ours(&endless), self.theirs());
            let is_known = |slot: &Instant| *slot < end || ours.all().any(|other| other == slot);
            return theirs.all().all(is_known).then_some("first week");
        }
        None
    }
}

/// The slots after an instant, and those before it, the nearest first.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    after: Vec<Instant>,
    before: Vec<Instant>,
}

impl Answer {
    fn all(&self) -> impl Iterator<Item = &Instant> {
        self.after.iter().chain(&self.before)
    }

    fn is_beginning_of(&self, other: &Self) -> bool {
        other.after.starts_with(&self.after) && other.before.starts_with(&self.before)
    }
}

#[test]
fn the_slots_of_a_calendar_rule_are_those_of_another_implementation_or_the_difference_is_known() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracles");
    let text = fs::read_to_string(folder.join("rrule.jsonl")).unwrap();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut lines = 0;
    for text in text.lines() {
        let line: Line = serde_json::from_str(text).unwrap();
        lines += 1;
        let class = match Rule::calendar(&line.text) {
            Err(error) => {
                let class = line.refusal(&error.to_string());
                Some(class.unwrap_or_else(|| panic!("{text}\n{error}")))
            }
            Ok(rule) => {
                let (ours, theirs) = (line.ours(&rule), line.theirs());
                (ours != theirs).then(|| {
                    let class = line.difference();
                    class.unwrap_or_else(|| panic!("{text}\nours:   {ours:?}\ntheirs: {theirs:?}"))
                })
            }
        };
        let order = (line.is_out_of_order == 1).then_some("order");
        for class in class.into_iter().chain(order) {
            *counts.entry(class).or_default() += 1;
        }
    }
    assert_eq!(lines, 1_000);
    assert_eq!(Vec::from_iter(counts), DIFFERENCES);
}
