//! Up to where the slots of a rule are decided, and what is still to be decided after a change of its time zones.
//!
//! Slots are decided in the order of time. A new version of the time zone database moves civil times: one that was decided may
//! come again, and one that was to come may be gone by. So what is a civil time goes on after the civil time up to which slots of
//! its zone were decided. Instants, and spans of elapsed time, do not move: they go on after the last instant.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};

use super::kind::Kind;
use super::rule::Rule;
use super::search::{Found, Way};
use super::zone::{Bounds, Zone};
use crate::time::Timestamp;

/// No version of the database moves a zone further. A note that is further off is damaged.
const MAX_MOVED: Duration = Duration::from_secs(2 * 24 * 3_600);
/// How many slots may stand for civil times that were skipped: those of a day, at one a second.
const MAX_SKIPPED: usize = 100_000;

/// Up to where the slots of a rule are decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) until: Timestamp,
    /// The same of each time zone whose civil times are slots. A zone that is not there is decided up to the instant.
    zones: BTreeMap<String, InZone>,
}

/// Up to where the slots of a zone are decided. A civil time is in microseconds, as if it were UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct InZone {
    /// The civil time at the last decided instant, by the database that found the slots.
    civil: i64,
    #[serde(default, skip_serializing_if = "Pass::is_only")]
    pass: Pass,
    /// An instant up to which the slots after that civil time are decided as well, and its own civil time. It is there while
    /// they are not in the order of time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<(i64, i64)>,
    /// The slots begin there: none of a civil time before it is decided.
    #[serde(default, skip_serializing_if = "is_false")]
    begins: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Whether a civil time comes twice, and which time it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Pass {
    #[default]
    Only,
    First,
    Second,
}

impl Pass {
    fn is_only(&self) -> bool {
        *self == Self::Only
    }
}

impl InZone {
    /// Everything is decided up to an instant.
    fn at(zone: &Zone, instant: Timestamp) -> Self {
        let bounds = zone.span(zone.span_at(instant));
        let pass = match bounds {
            Some(bounds) if bounds.is_second_of_two(instant) => Pass::Second,
            Some(bounds) if bounds.is_first_of_two(instant) => Pass::First,
            _ => Pass::Only,
        };
        Self {
            civil: micros(zone.civil(instant)),
            pass,
            since: None,
            begins: false,
        }
    }
}

/// Up to where the slots of a zone are decided whose civil times were moved.
#[derive(Debug, Clone, Copy)]
struct Moved {
    civil: NaiveDateTime,
    pass: Pass,
    /// The instant up to which the slots after that civil time are decided.
    since: Option<Timestamp>,
}

impl Decided {
    /// `zones` is what [`zones`](Self::zones) gave.
    pub(crate) fn new(until: Timestamp, zones: Option<&str>) -> Self {
        let zones = zones.and_then(|zones| serde_json::from_str(zones).ok());
        Self {
            until,
            zones: zones.unwrap_or_default(),
        }
    }

    /// Its civil times as a text; `None`: there are none.
    pub(crate) fn zones(&self) -> Option<String> {
        (!self.zones.is_empty())
            .then(|| serde_json::to_string(&self.zones).expect("a map of numbers can be encoded"))
    }

    /// Notes that all slots up to `last` are decided which were still to be decided.
    pub(crate) fn advance(&mut self, rule: &Rule, last: Timestamp) {
        let until = self.until.max(last);
        for zone in rule.0.moving_zones() {
            let noted = match self.moved(zone) {
                // Else the order is that of time again, and no decided civil time is to come once more.
                Some(moved) if last < until || zone.civil(until) < moved.civil => {
                    moved.advanced(zone, last)
                }
                _ => InZone::at(zone, until),
            };
            self.zones.insert(zone.name().to_owned(), noted);
        }
        self.until = until;
    }

    /// Notes that the slots begin after an instant: none is decided.
    pub(crate) fn begin(rule: &Rule, until: Timestamp) -> Self {
        let noted = |zone: &Zone| InZone {
            begins: true,
            ..InZone::at(zone, until)
        };
        let zones = rule.0.moving_zones().into_iter();
        Self {
            until,
            zones: zones
                .map(|zone| (zone.name().to_owned(), noted(zone)))
                .collect(),
        }
    }

    /// If civil times were moved: up to where there are slots whose civil times are decided.
    pub(crate) fn moved_until(&self, rule: &Rule) -> Option<Timestamp> {
        let zones = rule.0.moving_zones().into_iter();
        let moved = zones.filter_map(|zone| Some((zone, self.moved(zone)?)));
        let until = moved.map(|(zone, moved)| {
            let near = (zone.span_at(self.until)..).map_while(|index| zone.span(index));
            let near = near.take_while(|bounds| bounds.begins_at() < self.until + MAX_MOVED);
            let last = near.map(|bounds| bounds.unbounded_instant(moved.civil));
            last.filter(|last| *last < self.until + MAX_MOVED)
                .max()
                .unwrap_or(self.until)
        });
        until.max().map(|until| until.max(self.until))
    }

    /// The slots of a rule that are still to be decided, as a rule of its own; `None`: they are those after `until`.
    pub(crate) fn undecided(&self, rule: &Rule) -> Option<Rule> {
        let zones = rule.0.moving_zones();
        if zones.into_iter().all(|zone| self.moved(zone).is_none()) {
            return None;
        }
        // An instant that is a decided slot is one slot, also if the civil time of another part was moved to it.
        let decided = rule.0.map(&|part| match self.moved_part(part) {
            Some(_) => Kind::At(part.fixed()),
            None => part.clone(),
        });
        let decided = within(decided, Timestamp::MIN, self.until);
        let undecided = rule.0.map(&|part| match self.moved_part(part) {
            Some((zone, moved)) => without(self.rest(part, zone, moved), decided.clone()),
            None => after(part.clone(), self.until),
        });
        Some(Rule(undecided))
    }

    fn moved(&self, zone: &Zone) -> Option<Moved> {
        let noted = *self.zones.get(zone.name())?;
        let now = InZone {
            begins: noted.begins,
            ..InZone::at(zone, self.until)
        };
        if noted == now || !is_near(noted.civil, now.civil) {
            return None;
        }
        if noted.begins && now.civil < noted.civil {
            // The civil times between come again, and none has been decided.
            return None;
        }
        let (mut civil, mut since) = (noted.civil, None);
        if let Some((instant, then)) = noted.since
            && is_near(instant, self.until.micros())
            && is_near(then, now.civil)
        {
            let instant = Timestamp::from_micros(instant);
            if micros(zone.civil(instant)) == then {
                since = Some(instant);
            } else {
                // The zone was moved once more.
                civil = civil.max(then);
            }
        }
        Some(Moved {
            civil: Timestamp::from_micros(civil).to_utc().naive_utc(),
            pass: noted.pass,
            since,
        })
    }

    fn moved_part<'a>(&self, part: &'a Kind) -> Option<(&'a Zone, Moved)> {
        let zone = part.moving_zone()?;
        Some((zone, self.moved(zone)?))
    }

    /// The slots of a part whose civil times are still to be decided.
    fn rest(&self, part: &Kind, zone: &Zone, moved: Moved) -> Kind {
        let start = Timestamp::from_micros(self.until.micros() - MAX_MOVED.as_micros() as i64);
        let first = moved.since.map_or(start, |since| step(since).max(start));
        let mut pieces = Vec::new();
        let mut skipped = Vec::new();
        let mut index = zone.span_at(start);
        while let Some(bounds) = zone.span(index) {
            let ends_at = bounds.ends_at();
            // Far from here no civil time is one that was decided.
            let end = ends_at.filter(|end| *end < self.until + MAX_MOVED);
            let last = end.map_or(Timestamp::MAX, |end| {
                Timestamp::from_micros(end.micros() - 1)
            });
            let after = zone.span(index + 1);
            if let Some(from) = moved.first_after(&bounds, after.as_ref()) {
                pieces.push(within(
                    part.clone(),
                    from.max(bounds.begins_at()).max(first),
                    last,
                ));
                skipped.extend(moved.skipped(part, zone, &bounds));
            }
            if end.is_none() {
                break;
            }
            index += 1;
        }
        let fixed = part.fixed();
        let rest = without(Kind::AnyOf(pieces), Kind::At(skipped));
        if fixed.is_empty() {
            return rest;
        }
        let fixed = Kind::At(fixed);
        Kind::AnyOf(vec![without(rest, fixed.clone()), after(fixed, self.until)])
    }
}

impl Moved {
    /// The slots up to `last` are decided as well.
    fn advanced(self, zone: &Zone, last: Timestamp) -> InZone {
        let since = self.since.map_or(last, |since| since.max(last));
        InZone {
            civil: micros(self.civil),
            pass: self.pass,
            since: Some((since.micros(), micros(zone.civil(since)))),
            begins: false,
        }
    }

    /// From when on the slots in a span of constant offset are undecided; `None`: all in it are decided.
    fn first_after(self, bounds: &Bounds, after: Option<&Bounds>) -> Option<Timestamp> {
        let is_in_fold = |bounds: &Bounds| {
            let fold = bounds.fold();
            fold.is_some_and(|(first, end)| (first..end).contains(&self.civil))
        };
        match self.pass {
            Pass::First if is_in_fold(bounds) => Some(bounds.begins_at()),
            Pass::Second if after.is_some_and(is_in_fold) => None,
            _ => Some(step(bounds.unbounded_instant(self.civil))),
        }
    }

    /// The slots in a span that stand for civil times before it begins, which were skipped, and are decided.
    fn skipped(self, part: &Kind, zone: &Zone, bounds: &Bounds) -> Vec<Timestamp> {
        let Some((first, end)) = bounds.gap() else {
            return Vec::new();
        };
        let length = (end - first).to_std().unwrap_or_default();
        let until = bounds.begins_at() + length;
        let (mut slots, mut at) = (
            Vec::new(),
            Timestamp::from_micros(bounds.begins_at().micros() - 1),
        );
        for _ in 0..MAX_SKIPPED {
            match part.find(Way::After, at) {
                Found::Slot(slot) if slot <= until => at = slot,
                _ => break,
            }
            if part.last_civil(zone, at) <= self.civil {
                slots.push(at);
            }
        }
        slots
    }
}

/// Whether a number of microseconds is so near another that no change of a zone is longer.
fn is_near(one: i64, other: i64) -> bool {
    let apart = one.checked_sub(other).and_then(i64::checked_abs);
    apart.is_some_and(|apart| apart <= MAX_MOVED.as_micros() as i64)
}

fn without(rule: Kind, except: Kind) -> Kind {
    Kind::Except {
        rule: Box::new(rule),
        except: Box::new(except),
    }
}

fn within(rule: Kind, first: Timestamp, last: Timestamp) -> Kind {
    let rule = Box::new(rule);
    Kind::Within { rule, first, last }
}

/// The slots of a rule after an instant.
fn after(rule: Kind, instant: Timestamp) -> Kind {
    within(rule, step(instant), Timestamp::MAX)
}

fn step(at: Timestamp) -> Timestamp {
    Timestamp::from_micros(at.micros() + 1)
}

fn micros(civil: NaiveDateTime) -> i64 {
    civil.and_utc().timestamp_micros()
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;
    use crate::model::recurrence::decide::{Decision, Step, Upcoming};
    use crate::model::recurrence::policy::SkipReason;
    use crate::model::recurrence::slots::{Fold, Gap};

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
        let zones = format!("{{\"Europe/Berlin\":{{\"civil\":{}}}}}", at(civil).micros());
        Decided::new(at(until), Some(&zones))
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
            decided = Decided::new(decided.until, decided.zones().as_deref());
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
        let zones = decided.zones.keys();
        assert_eq!(zones.collect::<Vec<_>>(), ["Asia/Tokyo", "Europe/Berlin"]);
        decided.zones.get_mut("Europe/Berlin").unwrap().civil -= 3_600_000_000;
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

    /// Summer time was said to have begun; now it begins in half an hour. Or clocks were said to be set back already.
    #[test]
    fn p10_a_change_of_clocks_nearby_loses_no_civil_time() {
        let ahead = decided("2026-03-29T00:30:00Z", "2026-03-29T02:30:00Z");
        assert_eq!(next(&berlin("0 3 * * *"), &ahead), "29 01:00");
        assert_eq!(next(&berlin("15 3 * * *"), &ahead), "29 01:15");
        let behind = decided("2026-10-25T01:10:00Z", "2026-10-25T01:10:00Z");
        assert_eq!(next(&berlin("30 1 * * *"), &behind), "24 23:30");
    }

    /// What was decided is the second 2:37 now; it was another civil time, or the only 2:37.
    #[test]
    fn p10_a_civil_time_of_a_fold_is_known_by_which_of_the_two_it_is() {
        let rule = berlin("37,38 2 * * *");
        let mut behind = decided("2026-10-25T01:37:00Z", "2026-10-25T01:30:00Z");
        assert_eq!(next(&rule, &behind), "25 00:37");
        behind.advance(&rule, at("2026-10-25T00:37:00Z"));
        assert_eq!(next(&rule, &behind), "25 00:38");
        let only = decided("2026-10-25T01:37:00Z", "2026-10-25T02:37:00Z");
        assert_eq!(next(&rule, &only), "25 00:38");
        // By the former database this was the first 2:37: the second is to come.
        let mut first = only.clone();
        first.until = at("2026-10-25T00:30:00Z");
        first.zones.get_mut("Europe/Berlin").unwrap().pass = Pass::First;
        let both = rule.fold(Fold::Both).unwrap();
        assert_eq!(next(&both, &first), "25 00:38");
        first.zones.get_mut("Europe/Berlin").unwrap().pass = Pass::Second;
        assert_eq!(next(&both, &first), "25 01:38");
    }

    #[test]
    fn p10_a_damaged_note_is_as_none() {
        let rule = berlin("30 2 * * *");
        let until = at("2026-07-02T12:00:00Z");
        for civil in [
            i64::MAX,
            i64::MIN,
            0,
            8_210_266_876_799_999_999,
            until.micros() + 1_000_000_000_000,
        ] {
            for since in ["".to_owned(), format!(",\"since\":[{civil},{civil}]")] {
                let text = format!("{{\"Europe/Berlin\":{{\"civil\":{civil}{since}}}}}");
                let mut decided = Decided::new(until, Some(&text));
                assert!(decided.undecided(&rule).is_none(), "{text}");
                decided.advance(&rule, until + Duration::from_secs(60));
            }
        }
        for text in [
            "",
            "[1]",
            "{\"Europe/Berlin\":1}",
            "{\"Europe/Berlin\":{\"civil\":1e30}}",
        ] {
            assert!(Decided::new(until, Some(text)).zones.is_empty(), "{text}");
        }
        let near = until.micros() + 7_200_000_000;
        let text = format!(
            "{{\"Europe/Berlin\":{{\"civil\":{near},\"since\":[{},{}]}}}}",
            i64::MIN,
            i64::MAX
        );
        let mut decided = Decided::new(until, Some(&text));
        decided.advance(&rule, until);
        assert!(decided.undecided(&rule).is_none());
    }

    /// Real zones take the place of others, at any minute around their changes of clocks.
    #[test]
    fn p10_whatever_zone_takes_the_place_of_another_each_civil_time_comes_once() {
        let zones = [
            "Europe/Berlin",
            "Europe/Lisbon",
            "Africa/Lagos",
            "Europe/Istanbul",
            "Africa/Cairo",
            "Asia/Beirut",
            "Africa/Abidjan",
            "America/St_Johns",
            "Australia/Lord_Howe",
        ];
        let days = [
            "2026-03-28T20:00:00Z",
            "2026-10-24T18:00:00Z",
            "2026-04-04T08:00:00Z",
            "2026-10-29T12:00:00Z",
        ];
        for seed in 0..1_500_u64 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (old, new) = (zones[random.usize(..7)], zones[random.usize(..zones.len())]);
            let minutes = [random.u8(..60), random.u8(..60)];
            let hours = [random.u8(..2), random.u8(2..24)];
            let text = format!(
                "{},{} {}-{} * * *",
                minutes[0], minutes[1], hours[0], hours[1]
            );
            let until = at(days[random.usize(..4)]) + Duration::from_secs(60 * random.u64(..900));
            let gap = if random.bool() {
                Gap::RunAfter
            } else {
                Gap::Skip
            };
            let rule = cron(&text, new).gap(gap).unwrap();
            let (old, new) = (Zone::named(old).unwrap(), Zone::named(new).unwrap());
            let noted = InZone {
                pass: Pass::Only,
                ..InZone::at(&old, until)
            };
            let zones = BTreeMap::from([(new.name().to_owned(), noted)]);
            let mut decided = Decided { until, zones };
            let what = format!(
                "seed {seed}: {text}, {} is {}, at {}",
                old.name(),
                new.name(),
                until.to_utc()
            );
            let (from, to) = (until - MAX_MOVED, (until + MAX_MOVED).to_utc());
            let is_to_come = |slot: &DateTime<Utc>| {
                let slot = Timestamp::rounded_up(*slot).unwrap();
                match decided.moved(&new) {
                    Some(_) => micros(rule.0.last_civil(&new, slot)) > noted.civil,
                    None => slot > until,
                }
            };
            let slots = rule.after(from.to_utc()).take_while(|slot| *slot < to);
            let expected: Vec<DateTime<Utc>> = slots.filter(is_to_come).collect();
            let mut walked = Vec::new();
            loop {
                let next = match decided.undecided(&rule) {
                    Some(undecided) => Upcoming::after(&undecided, Timestamp::MIN),
                    None => Upcoming::after(&rule, decided.until),
                };
                let Upcoming::Slot(slot) = next else {
                    panic!("{what}: {next:?}");
                };
                if slot.to_utc() >= to {
                    break;
                }
                walked.push(slot.to_utc());
                decided.advance(&rule, slot);
                decided = Decided::new(decided.until, decided.zones().as_deref());
            }
            assert_eq!(walked, expected, "{what}");
        }
    }

    /// The rule names an hour before the added time, and no clocks are set in between.
    #[cfg(feature = "rrule")]
    #[test]
    fn p10_an_added_civil_time_is_not_taken_for_one_that_was_skipped() {
        let rule = Rule::calendar(
            "DTSTART;TZID=Europe/Berlin:20260101T140000
RRULE:FREQ=DAILY
RDATE;TZID=Europe/Berlin:20260701T150000",
        )
        .unwrap();
        let ahead = decided("2026-07-01T11:30:00Z", "2026-07-01T14:30:00Z");
        assert_eq!(next(&rule, &ahead), "01 13:00");
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
