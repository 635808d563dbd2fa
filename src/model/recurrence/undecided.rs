//! Up to where the slots of a rule are decided, and what is still to be decided after a change of its time zones.
//!
//! Slots are decided in the order of time. A new version of the time zone database moves civil times: one that was decided may
//! come again, and one that was to come may be gone by. So what is a civil time goes on after the civil time up to which slots of
//! its zone were decided. Instants, and spans of elapsed time, do not move: they go on after the last instant.

use std::collections::BTreeMap;

use chrono::NaiveDateTime;

use super::kind::Kind;
use super::rule::Rule;
use super::search::{Found, Way};
use super::zone::Zone;
use crate::time::Timestamp;

/// How many slots may have the civil times of slots that were decided: those of a day, at one a second.
const MAX_PASSED: usize = 100_000;

/// Up to where the slots of a rule are decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) until: Timestamp,
    /// The same in the civil time of each time zone, by the database that found the slots: in microseconds, as if it were UTC.
    /// A zone that is not there is decided up to the instant.
    civil: BTreeMap<String, i64>,
}

impl Decided {
    /// `civil` is what [`civil`](Self::civil) gave.
    pub(crate) fn new(until: Timestamp, civil: Option<&str>) -> Self {
        let civil = civil.and_then(|civil| serde_json::from_str(civil).ok());
        Self {
            until,
            civil: civil.unwrap_or_default(),
        }
    }

    /// Its civil times as a text; `None`: there are none.
    pub(crate) fn civil(&self) -> Option<String> {
        (!self.civil.is_empty())
            .then(|| serde_json::to_string(&self.civil).expect("a map of numbers can be encoded"))
    }

    /// Notes that all slots up to `last` are decided which were still to be decided.
    pub(crate) fn advance(&mut self, rule: &Rule, last: Timestamp) {
        let until = self.until;
        for zone in rule.0.moving_zones() {
            let (civil, noted) = (micros(zone.civil(last)), self.civil.get(zone.name()));
            let civil = match noted {
                Some(noted) if *noted != micros(zone.civil(until)) => civil.max(*noted),
                Some(noted) if last <= until => *noted,
                _ => civil,
            };
            self.civil.insert(zone.name().to_owned(), civil);
        }
        self.until = until.max(last);
    }

    /// The slots of a rule that are still to be decided, as a rule of its own; `None`: they are those after [`until`](Self::until).
    pub(crate) fn undecided(&self, rule: &Rule) -> Option<Rule> {
        let zones = rule.0.moving_zones();
        if zones
            .into_iter()
            .all(|zone| self.moved_civil(zone).is_none())
        {
            return None;
        }
        // An instant that is a decided slot is one slot, also if the civil time of another part was moved to it.
        let decided = rule.0.map(&|part| match self.moved(part) {
            Some(_) => Kind::At(part.fixed()),
            None => part.clone(),
        });
        let decided = until(decided, self.until);
        Some(Rule(
            rule.0.map(&|part| self.undecided_part(part, &decided)),
        ))
    }

    /// The civil time up to which slots of a zone are decided, if it is another one than that of the instant.
    fn moved_civil(&self, zone: &Zone) -> Option<NaiveDateTime> {
        let noted = *self.civil.get(zone.name())?;
        let civil = Timestamp::from_micros(noted).to_utc().naive_utc();
        (civil != zone.civil(self.until)).then_some(civil)
    }

    /// The zone of a part, and the civil time up to which its slots are decided, if that is another one than that of the instant.
    fn moved<'a>(&self, part: &'a Kind) -> Option<(&'a Zone, NaiveDateTime)> {
        let zone = part.moving_zone()?;
        Some((zone, self.moved_civil(zone)?))
    }

    fn undecided_part(&self, part: &Kind, decided: &Kind) -> Kind {
        let Some((zone, civil)) = self.moved(part) else {
            return after(part.clone(), self.until);
        };
        let moved = after(part.clone(), self.last_passed(part, zone, civil));
        let fixed = Kind::At(part.fixed());
        let moved = without(without(moved, decided.clone()), fixed.clone());
        Kind::AnyOf(vec![moved, after(fixed, self.until)])
    }

    /// The last slot of a part whose civil time was decided, or an instant before the first one.
    fn last_passed(&self, part: &Kind, zone: &Zone, civil: NaiveDateTime) -> Timestamp {
        let ahead = micros(zone.civil(self.until)) - micros(civil);
        let mut last = Timestamp::from_micros(self.until.micros().saturating_sub(ahead));
        for _ in 0..MAX_PASSED {
            match part.find(Way::After, last) {
                Found::Slot(slot) if part.last_civil(zone, slot) <= civil => last = slot,
                _ => break,
            }
        }
        last
    }
}

fn without(rule: Kind, except: Kind) -> Kind {
    Kind::Except {
        rule: Box::new(rule),
        except: Box::new(except),
    }
}

/// The slots of a rule after an instant.
fn after(rule: Kind, instant: Timestamp) -> Kind {
    Kind::Within {
        rule: Box::new(rule),
        first: Timestamp::from_micros(instant.micros() + 1),
        last: Timestamp::MAX,
    }
}

/// The slots of a rule up to an instant.
fn until(rule: Kind, instant: Timestamp) -> Kind {
    Kind::Within {
        rule: Box::new(rule),
        first: Timestamp::MIN,
        last: instant,
    }
}

fn micros(civil: NaiveDateTime) -> i64 {
    civil.and_utc().timestamp_micros()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::{DateTime, Utc};

    use super::*;
    use crate::model::recurrence::decide::{Decision, Step, Upcoming};
    use crate::model::recurrence::policy::SkipReason;
    use crate::model::recurrence::slots::Fold;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::rounded_up(utc(text)).unwrap()
    }

    fn cron(expression: &str, zone: &str) -> Rule {
        Rule::cron(expression).unwrap().time_zone(zone).unwrap()
    }

    fn berlin(expression: &str) -> Rule {
        cron(expression, "Europe/Berlin")
    }

    /// Slots are decided up to an instant, which was thought to be this civil time in Berlin.
    fn decided(until: &str, civil: &str) -> Decided {
        let civil = format!("{{\"Europe/Berlin\":{}}}", at(civil).micros());
        Decided::new(at(until), Some(&civil))
    }

    fn next(rule: &Rule, decided: &Decided) -> String {
        let found = match decided.undecided(rule) {
            Some(undecided) => Upcoming::after(&undecided, Timestamp::MIN),
            None => Upcoming::after(rule, decided.until),
        };
        match found {
            Upcoming::Slot(slot) => slot.to_utc().format("%d %H:%M").to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// The database says now that clocks were an hour ahead of, or behind, what the one before had said.
    #[test]
    fn p10_after_a_change_of_the_time_zones_no_civil_time_comes_twice_and_none_is_lost() {
        // In July half past two is 00:30Z. It was decided when it was thought to be 01:30Z, or 23:30Z the day before.
        let table = [
            (
                "30 2 * * *",
                "2026-07-02T00:30:00Z",
                "2026-07-02T02:30:00Z",
                "03 00:30",
            ),
            (
                "30 2 * * *",
                "2026-07-02T01:30:00Z",
                "2026-07-02T02:30:00Z",
                "03 00:30",
            ),
            (
                "30 2 * * *",
                "2026-07-01T23:30:00Z",
                "2026-07-02T02:30:00Z",
                "03 00:30",
            ),
            // Three o'clock is gone by now: it is due.
            (
                "0 2,3 * * *",
                "2026-07-02T01:00:00Z",
                "2026-07-02T02:00:00Z",
                "02 01:00",
            ),
            (
                "0 2,3 * * *",
                "2026-07-01T23:00:00Z",
                "2026-07-02T02:00:00Z",
                "02 01:00",
            ),
            // By elapsed time.
            (
                "*/30 * * * *",
                "2026-07-02T01:00:00Z",
                "2026-07-02T02:00:00Z",
                "02 01:30",
            ),
        ];
        for (expression, until, civil, expected) in table {
            let found = next(&berlin(expression), &decided(until, civil));
            assert_eq!(found, expected, "{expression} {until}");
        }
    }

    /// By the former database there was no gap: half past two was 01:30Z, and three o'clock 02:00Z.
    #[test]
    fn p10_a_civil_time_that_is_in_a_gap_now_does_not_come_again_at_its_end() {
        let thirty = decided("2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z");
        assert_eq!(next(&berlin("30 2 * * *"), &thirty), "30 00:30");
        let two = decided("2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z");
        assert_eq!(
            next(&berlin("0 2,3 * * *"), &two),
            "29 01:00",
            "three o'clock is still to come"
        );
        assert_eq!(
            next(&berlin("0,30 2 * * *"), &two),
            "29 01:00",
            "so is half past two"
        );
    }

    /// Half past two becomes half past three, as RFC 5545 says.
    #[cfg(feature = "rrule")]
    #[test]
    fn p10_a_calendar_s_time_that_is_in_a_gap_now_does_not_come_again() {
        let calendar = |hours: &str| {
            let rule = format!("RRULE:FREQ=DAILY;BYHOUR={hours};BYMINUTE=30");
            Rule::calendar(&format!(
                "DTSTART;TZID=Europe/Berlin:20260101T000000\n{rule}"
            ))
            .unwrap()
        };
        let thirty = decided("2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z");
        assert_eq!(next(&calendar("2"), &thirty), "30 00:30");
        assert_eq!(
            next(&calendar("2,3"), &thirty),
            "29 01:30",
            "half past three is still to come"
        );
    }

    #[cfg(feature = "rrule")]
    #[test]
    fn p10_instants_that_a_calendar_adds_do_not_move() {
        let rule = Rule::calendar(
            "DTSTART;TZID=Europe/Berlin:20260101T023000
RRULE:FREQ=DAILY
RDATE:20260701T113000Z,20260701T123000Z
RDATE;TZID=Europe/Berlin:20260701T133000,20260701T150000",
        )
        .unwrap();
        // It was 15:00 at noon: half past two that was, which is 12:30Z now, but for what is no civil time.
        let ahead = decided("2026-07-01T12:00:00Z", "2026-07-01T15:00:00Z");
        assert_eq!(next(&rule, &ahead), "01 12:30");
        // It was 13:00: half past one is to come, and is gone by. What was an instant was decided.
        let behind = decided("2026-07-01T12:00:00Z", "2026-07-01T13:00:00Z");
        let undecided = behind.undecided(&rule).unwrap();
        let slots: Vec<String> = undecided
            .after(utc("2026-07-01T00:00:00Z"))
            .take(4)
            .map(|slot| slot.format("%d %H:%M").to_string())
            .collect();
        assert_eq!(slots, ["01 12:30", "01 13:00", "02 00:30", "03 00:30"]);
    }

    #[test]
    fn p10_a_new_database_that_says_the_same_loses_no_second_slot_of_a_fold() {
        let rule = berlin("30 2 * * *").fold(Fold::Both).unwrap();
        let mut decided = Decided::new(at("2026-10-24T00:30:00Z"), None);
        for first in ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"] {
            decided.advance(&rule, at(first));
            assert!(decided.undecided(&rule).is_none(), "{first}");
            decided = Decided::new(decided.until, decided.civil().as_deref());
        }
    }

    /// Noon is 14:00 in Berlin. By the former database it was 13:00.
    #[test]
    fn p10_each_zone_goes_on_after_its_own_civil_time() {
        let every = Rule::every(Duration::from_secs(900), DateTime::UNIX_EPOCH).unwrap();
        let tokyo = cron("30 20 * * *", "Asia/Tokyo");
        let rule = Rule::any_of([every.clone(), tokyo, berlin("35 13,14 * * *")]).unwrap();
        let mut decided = Decided::new(at("2026-07-01T10:00:00Z"), None);
        decided.advance(&rule, at("2026-07-01T12:00:00Z"));
        assert!(decided.undecided(&rule).is_none());
        let zones = decided.civil.keys();
        assert_eq!(zones.collect::<Vec<_>>(), ["Asia/Tokyo", "Europe/Berlin"]);
        *decided.civil.get_mut("Europe/Berlin").unwrap() -= 3_600_000_000;
        let undecided = decided.undecided(&rule).unwrap();
        let slots: Vec<String> = undecided
            .after(utc("2026-07-01T00:00:00Z"))
            .take(4)
            .map(|slot| slot.format("%H:%M").to_string())
            .collect();
        // 13:35 is gone by.
        assert_eq!(slots, ["11:35", "12:15", "12:30", "12:35"]);
        decided.advance(&rule, at("2026-07-01T11:35:00Z"));
        assert_eq!(next(&rule, &decided), "01 12:15");
        assert!(decided.undecided(&rule).is_some());
        decided.advance(&rule, at("2026-07-01T12:15:00Z"));
        assert!(
            decided.undecided(&rule).is_none(),
            "all zones are alike again"
        );
        // What is excluded moves nothing.
        let rest = every.except(berlin("30 13 * * *")).unwrap();
        assert!(decided.undecided(&rest).is_none());
    }

    #[test]
    fn a_span_that_is_passed_ends_before_what_is_decided() {
        let every = |minutes: u64| {
            let interval = Duration::from_secs(60 * minutes);
            Rule::every(interval, utc("2026-07-01T12:00:00Z")).unwrap()
        };
        let (all, rule) = (Rule::any_of([every(10), every(15)]).unwrap(), every(10));
        let (first, now) = (at("2026-07-01T12:10:00Z"), at("2026-07-01T13:20:00Z"));
        let decision = Decision::pass(&rule, first, now, SkipReason::Missed);
        let split = decision.between(&rule, &all, at("2026-07-01T12:30:00Z"));
        let pass = |first: &str, last: &str| Step::Pass {
            first: at(first),
            last: at(last),
            reason: SkipReason::Missed,
        };
        let steps = [
            pass("2026-07-01T12:10:00Z", "2026-07-01T12:10:00Z"),
            pass("2026-07-01T12:20:00Z", "2026-07-01T13:20:00Z"),
        ];
        assert_eq!(split.steps, steps);
    }
}
