//! Rules of several zones, of which the time zone database changes again and again: no civil time comes twice, and none is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::on_a_file;
use crate::id::TaskId;
use crate::model::filter::Filter;
use crate::model::new_task::NewTask;
use crate::model::op::{Action, Op};
use crate::model::query::Query;
use crate::model::recurrence::explain::SlotFate;
use crate::model::recurrence::policy::{Missed, Overlap};
use crate::model::recurrence::request::Recurrence;
use crate::model::recurrence::rule::Rule;
use crate::model::recurrence::view::RecurrenceAction;
use crate::store::sqlite::kit::File;
use crate::store::suite::{Kit, seeds};
use crate::time::Timestamp;

on_a_file!(p10_no_civil_time_comes_twice_and_none_is_lost_whatever_becomes_of_the_zones);

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const HOURS: i64 = 3_600_000_000;
const HISTORIES: u64 = 8;
const STEPS: usize = 50;

/// 2026-07-01T12:00:00Z.
const START: Timestamp = Timestamp::from_micros(1_782_907_200_000_000);

fn p10_no_civil_time_comes_twice_and_none_is_lost_whatever_becomes_of_the_zones(kit: &mut Kit) {
    for seed in seeds(HISTORIES) {
        kit.now = START;
        let mut history = History::begin(kit, seed);
        for _ in 0..STEPS {
            history.step(kit);
        }
        history.end(kit);
    }
}

/// A zone that is so many hours ahead of UTC.
fn zone(ahead: i64) -> String {
    format!("Etc/GMT{:+}", -ahead)
}

/// A part of the rule.
struct Part {
    /// Its zone, by its index; `None`: it is of instants.
    zone: Option<usize>,
    text: String,
    of: fn(&str, &str) -> Rule,
    /// The civil times that have made tasks, or the instants.
    made: BTreeSet<Timestamp>,
    /// The civil times that were moved to instants whose tasks were there.
    met: BTreeSet<Timestamp>,
}

impl Part {
    fn rule(&self, ahead: &[i64; 2]) -> Rule {
        let zone = self.zone.map(|index| zone(ahead[index]));
        (self.of)(&self.text, &zone.unwrap_or_default())
    }

    /// The civil time at an instant.
    fn civil(&self, at: Timestamp, ahead: &[i64; 2]) -> Timestamp {
        let ahead = self.zone.map_or(0, |index| ahead[index]);
        Timestamp::from_micros(at.micros() + ahead * HOURS)
    }
}

struct History {
    seed: u64,
    random: fastrand::Rng,
    name: String,
    /// How many hours the zones are ahead of UTC.
    ahead: [i64; 2],
    ahead_at_start: [i64; 2],
    parts: Vec<Part>,
    missed: Missed,
    /// The slots that have made tasks.
    made: BTreeSet<DateTime<Utc>>,
    log: Vec<String>,
}

impl History {
    fn begin(kit: &mut Kit, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let ahead = [2, -5];
        let mut parts = vec![Part {
            zone: None,
            text: random.u64(31..90).to_string(),
            of: |minutes, _| {
                let minutes: u32 = minutes.parse().unwrap();
                Rule::every(MINUTE * minutes, START.to_utc()).unwrap()
            },
            made: BTreeSet::new(),
            met: BTreeSet::new(),
        }];
        for index in 0..random.usize(1..4) {
            parts.push(Self::civil_part(&mut random, index % 2));
        }
        let rules = parts.iter().map(|part| part.rule(&ahead));
        let mut rule = Rule::any_of(rules).unwrap();
        if random.bool() {
            rule = rule.not_before((START - DAY).to_utc()).unwrap();
        }
        let missed = match random.u8(..4) {
            0 => Missed::Latest,
            _ => Missed::All { max: 10_000 },
        };
        let name = format!("recurrence {seed}");
        let task = NewTask::with_kind("probe", &1);
        let recurrence = Recurrence::new(name.clone(), task)
            .rule(rule)
            .overlap(Overlap::Allow)
            .missed(missed);
        kit.apply(Op::Recur(Box::new(recurrence.prepare(kit.now).unwrap())));
        let mut history = Self {
            seed,
            random,
            name,
            ahead,
            ahead_at_start: ahead,
            parts,
            missed,
            made: BTreeSet::new(),
            log: Vec::new(),
        };
        // What is moved is moved to after the start.
        kit.later(MINUTE * 400);
        history.fire(kit);
        history
    }

    fn civil_part(random: &mut fastrand::Rng, zone: usize) -> Part {
        let (minute, hour) = (random.u8(..60), random.u8(..6));
        #[cfg(feature = "rrule")]
        if random.u8(..3) == 0 {
            return Part {
                zone: Some(zone),
                text: format!(
                    "RRULE:FREQ=DAILY;BYHOUR={hour},9,{},20;BYMINUTE={minute}",
                    hour + 5
                ),
                of: |text, zone| {
                    Rule::calendar(&format!("DTSTART;TZID={zone}:20260101T000000\n{text}")).unwrap()
                },
                made: BTreeSet::new(),
                met: BTreeSet::new(),
            };
        }
        Part {
            zone: Some(zone),
            text: format!(
                "{minute},{} {hour}-23/{} * * *",
                (minute + 7) % 60,
                random.u8(1..7)
            ),
            of: |text, zone| Rule::cron(text).unwrap().time_zone(zone).unwrap(),
            made: BTreeSet::new(),
            met: BTreeSet::new(),
        }
    }

    fn step(&mut self, kit: &mut Kit) {
        match self.random.u8(..6) {
            0..=2 => {
                kit.later(MINUTE * self.random.u32(1..200));
                self.log
                    .push(format!("{} minutes", kit.now.since(START).as_secs() / 60));
            }
            3 | 4 => {
                self.fire(kit);
                if self.missed != Missed::Latest && self.random.bool() {
                    self.backfill(kit);
                }
            }
            _ => {
                self.change_zones(kit);
                if self.random.bool() {
                    // The next slot is found anew.
                    kit.apply(Op::Fire { limit: 10 });
                    self.check_record(kit);
                }
                if self.random.bool() {
                    self.fire(kit);
                }
            }
        }
    }

    /// A new version of the database says that a zone is so many hours ahead.
    fn change_zones(&mut self, kit: &Kit) {
        let index = self.random.usize(..2);
        let ahead = [self.random.i64(1..5), self.random.i64(-6..-2)][index];
        let (from, to) = (zone(self.ahead[index]), zone(ahead));
        self.ahead[index] = ahead;
        self.log.push(format!("{from} is {to}"));
        kit.sql(|conn| {
            let sql = "UPDATE punctual_recurrence_definition
                SET definition = CAST(replace(CAST(definition AS TEXT), ?, ?) AS BLOB)";
            conn.execute(sql, [&from, &to]).unwrap();
            let sql = "UPDATE punctual_recurrence SET tzdb = '1999a', decided_civil = replace(decided_civil, ?, ?)
                WHERE tzdb IS NOT NULL";
            conn.execute(sql, [&from, &to]).unwrap();
        });
    }

    fn fire(&mut self, kit: &Kit) {
        while kit.apply(Op::Fire { limit: 10 }).done() > 0 {}
        for part in &mut self.parts {
            let rule = part.rule(&self.ahead);
            let slots = rule.after((START - DAY).to_utc());
            for slot in slots.take_while(|slot| *slot <= kit.now.to_utc()) {
                if self.made.contains(&slot) {
                    let slot = Timestamp::rounded_up(slot).unwrap();
                    part.met.insert(part.civil(slot, &self.ahead));
                }
            }
        }
        let tasks = self.tasks(kit);
        let is_new = |slot: &Timestamp| !self.made.contains(&slot.to_utc());
        let slots: Vec<Timestamp> = tasks.iter().map(|(_, slot)| *slot).filter(is_new).collect();
        self.log.push(format!("{} made", slots.len()));
        for slot in slots {
            let mut is_new = false;
            for part in &mut self.parts {
                let before = Timestamp::from_micros(slot.micros() - 1).to_utc();
                let next = part.rule(&self.ahead).after(before).next();
                if next == Some(slot.to_utc()) {
                    is_new |= part.made.insert(part.civil(slot, &self.ahead));
                }
            }
            self.made.insert(slot.to_utc());
            self.check(is_new, &format!("{} came twice", slot.to_utc()));
        }
        self.check_record(kit);
    }

    /// All slots have made their tasks, as far as is known.
    fn backfill(&self, kit: &Kit) {
        let count = self.tasks(kit).len();
        let (from, to) = (Timestamp::from_micros(START.micros() + 1), kit.now);
        let name = self.name.clone();
        let action = RecurrenceAction::Backfill { from, to };
        kit.apply(Op::ChangeRecurrence { name, action });
        self.check(self.tasks(kit).len() == count, "a backfill has made a task");
    }

    /// What became of the slots is told once of each, and as it is.
    fn check_record(&self, kit: &Kit) {
        let (name, now) = (self.name.clone(), kit.now);
        let (from, to) = (START, now + DAY);
        let answer = kit.store().read(Query::Explain {
            name,
            from,
            to,
            now,
        });
        let explanation = answer.unwrap().explained().unwrap();
        let told = explanation.slots().windows(2);
        let is_once = told.into_iter().all(|pair| pair[0].slot() < pair[1].slot());
        self.check(is_once, "a slot is told twice");
        for told in explanation.slots() {
            let slot = Timestamp::rounded_up(told.slot()).unwrap();
            let is_skipped = matches!(told.fate(), SlotFate::Skipped(_));
            // An instant that does not move.
            let is_made = self.parts[0].made.contains(&slot);
            self.check(
                !(is_skipped && is_made),
                &format!("{} is told as skipped", told.slot()),
            );
        }
    }

    fn tasks(&self, kit: &Kit) -> Vec<(TaskId, Timestamp)> {
        let mut filter = Filter::new().recurrence(self.name.clone()).limit(1_000);
        let mut tasks = Vec::new();
        loop {
            let page = kit.list(&filter);
            tasks.extend(page.tasks().iter().map(|task| {
                let slot = Timestamp::rounded_up(task.slot().unwrap()).unwrap();
                (task.id(), slot)
            }));
            match page.next() {
                Some(next) => filter = filter.after(next),
                None => return tasks,
            }
        }
    }

    fn end(mut self, kit: &Kit) {
        self.fire(kit);
        let parts = self.parts.iter();
        for part in parts.filter(|_| self.missed != Missed::Latest) {
            let first = part.civil(START, &self.ahead_at_start);
            let last = part.civil(kit.now, &self.ahead);
            let rule = part.rule(&self.ahead);
            let day_before = (START - DAY).to_utc();
            let due = rule
                .after(day_before)
                .take_while(|slot| *slot <= kit.now.to_utc());
            for slot in due {
                let civil = part.civil(Timestamp::rounded_up(slot).unwrap(), &self.ahead);
                let is_due = civil > first && civil <= last;
                let is_made = part.made.contains(&civil) || part.met.contains(&civil);
                self.check(!is_due || is_made, &format!("{rule}: {slot} is lost"));
            }
        }
        for (id, _) in self.tasks(kit) {
            kit.change(id, Action::Cancel);
            kit.change(id, Action::Delete);
        }
        let name = self.name;
        let action = RecurrenceAction::Remove;
        kit.apply(Op::ChangeRecurrence { name, action });
    }

    fn check(&self, holds: bool, what: &str) {
        assert!(
            holds,
            "seed {}: {what}, after {}",
            self.seed,
            self.log.join("; ")
        );
    }
}
