//! Tests of rules: their slots, in all zones and in both directions.

use chrono::{DateTime, DurationRound, LocalResult, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use std::time::Duration;

use super::cron::Cron;
use super::kind::Kind;
use super::rule::Rule;
use super::search::Found;
use super::slots::{Fold, Gap, ZonedCron};
use super::zone::Zone;
use crate::time::Timestamp;

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
    assert!(Rule::at(vec![one; 10_001]).is_err());
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
                    let exists = later.find_map(|later| tz.from_local_datetime(&later).earliest());
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
            let cron = Cron::known(expressions[(number / 3 + change) % 4]).unwrap();
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

fn times(rule: &Rule, from: &str, count: usize) -> Vec<String> {
    let slots = rule.after(utc(from)).take(count);
    slots
        .map(|slot| slot.format("%d %H:%M").to_string())
        .collect()
}

#[test]
fn united_rules_have_each_slot_once_and_in_order_in_both_directions() {
    let parts = ["0 */6 * * *", "0 12 * * *", "30 9 * * *"].map(|text| Rule::cron(text).unwrap());
    let rule = Rule::any_of(parts).unwrap();
    let expected = ["01 06:00", "01 09:30", "01 12:00", "01 18:00", "02 00:00"];
    assert_eq!(slots(&rule, "2026-03-01T00:00:00Z", 5), expected);
    assert!(Rule::any_of([]).is_err());
}

#[test]
fn excluded_slots_are_passed_over_in_both_directions() {
    let work = Rule::cron("0 9 * * *").unwrap();
    let rule = work.except(Rule::cron("* * * * SAT,SUN").unwrap()).unwrap();
    // 6 March 2026 is a Friday.
    let expected = ["06 09:00", "09 09:00", "10 09:00"];
    assert_eq!(slots(&rule, "2026-03-05T12:00:00Z", 3), expected);
    let dates = ["2026-03-09", "2026-03-06"].map(|date| date.parse().unwrap());
    let rule = rule.except_dates(dates).unwrap();
    let expected = ["05 09:00", "10 09:00", "11 09:00"];
    assert_eq!(slots(&rule, "2026-03-05T00:00:00Z", 3), expected);
}

#[test]
fn a_date_is_excluded_in_the_zone_of_the_rule() {
    let rule = berlin("0 0,12 * * *");
    let rule = rule.except_dates(["2026-07-02".parse().unwrap()]).unwrap();
    let expected = ["01 10:00", "02 22:00", "03 10:00"];
    assert_eq!(times(&rule, "2026-07-01T00:00:00Z", 3), expected);
    let other = Rule::cron("0 0 * * *").unwrap();
    let several = Rule::any_of([berlin("0 0 * * *"), other]).unwrap();
    let error = several
        .except_dates(["2026-07-02".parse().unwrap()])
        .unwrap_err();
    assert!(error.to_string().contains("several time zones"), "{error}");
}

#[test]
fn a_start_and_an_end_are_slots_themselves() {
    let hour = Duration::from_secs(3600);
    let rule = Rule::every(hour, utc("2026-03-01T00:00:00Z")).unwrap();
    let rule = rule.not_before(utc("2026-03-01T05:00:00Z")).unwrap();
    let rule = rule.not_after(utc("2026-03-01T07:00:00Z")).unwrap();
    let expected = ["01 05:00", "01 06:00", "01 07:00"];
    assert_eq!(slots(&rule, "2026-02-01T00:00:00Z", 3), expected);
    assert_eq!(rule.after(utc("2026-02-01T00:00:00Z")).count(), 3);
    assert_eq!(rule.before(utc("2027-02-01T00:00:00Z")).count(), 3);
    assert!(rule.clone().not_after(utc("2026-03-01T04:59:59Z")).is_err());
    assert!(rule.not_before(utc("2026-03-01T07:00:01Z")).is_err());
}

#[test]
fn a_rule_that_excludes_all_its_slots_is_refused() {
    let minutes = || Rule::cron("* * * * *").unwrap();
    let error = minutes().except(minutes()).unwrap_err();
    assert!(error.to_string().contains("are all excluded"), "{error}");
    let start = utc("2026-03-01T00:00:30Z");
    let end = utc("2026-03-01T00:00:40Z");
    let between = minutes().not_before(start).unwrap().not_after(end);
    assert!(between.is_err(), "no minute begins between them");
}

/// Most of the first year's slots are excluded, so one search does not reach the first that is left.
#[test]
fn a_search_over_many_excluded_slots_goes_on_where_it_has_stopped() {
    let second = Duration::from_secs(1);
    let rule = Rule::every(second, utc("2026-01-01T00:00:00Z")).unwrap();
    let rule = rule.except(Rule::cron("* * * 1 1 *").unwrap()).unwrap();
    let first = rule.after(utc("2026-01-01T00:00:00Z")).next();
    assert_eq!(first, Some(utc("2026-01-02T00:00:00Z")));
    let last = rule.before(utc("2026-01-01T23:00:00Z")).next();
    assert_eq!(last, Some(utc("2025-12-31T23:59:59Z")));
}

#[test]
fn a_rule_survives_its_storage_and_is_equal_only_to_its_like() {
    let hour = Duration::from_secs(3600);
    let every = Rule::every(hour, utc("2026-03-01T00:00:00Z")).unwrap();
    let christmas = ["2026-12-25".parse().unwrap()];
    let rules = [
        berlin("30 2 * * *"),
        berlin("30 2 * * *").fold(Fold::Both).unwrap(),
        berlin("30 2 * * *").gap(Gap::Skip).unwrap(),
        Rule::cron("30 2 * * *").unwrap(),
        every.clone(),
        Rule::at([utc("2026-03-01T00:00:00Z"), utc("2026-02-01T00:00:00Z")]).unwrap(),
        Rule::any_of([every.clone(), berlin("1 1 1 1 *")]).unwrap(),
        every.clone().except(berlin("0 0 * * *")).unwrap(),
        every.clone().except_dates(christmas).unwrap(),
        every.not_after(utc("2027-01-01T00:00:00Z")).unwrap(),
    ];
    for (index, rule) in rules.iter().enumerate() {
        let stored = serde_json::to_string(rule).unwrap();
        let back: Rule = serde_json::from_str(&stored).unwrap();
        for (other, also) in rules.iter().enumerate() {
            assert_eq!(back == *also, index == other, "{stored} {also}");
        }
        let from = "2025-10-01T00:00:00Z";
        assert_eq!(times(&back, from, 5), times(rule, from, 5));
    }
    #[cfg(not(feature = "rrule"))]
    {
        let calendar = r#"{"calendar":{"text":"DTSTART:20260101T000000Z\nRRULE:FREQ=DAILY"}}"#;
        let error = serde_json::from_str::<Rule>(calendar)
            .unwrap_err()
            .to_string();
        assert!(error.contains("without the feature `rrule`"), "{error}");
    }
    let damaged = r#"{"cron":{"expression":"x","zone":"UTC"}}"#;
    assert!(serde_json::from_str::<Rule>(damaged).is_err());
}

/// A zone has some hundred changes of its offset, and each of them was printed.
#[test]
fn a_rule_is_shown_in_a_line_with_all_that_differs_from_the_defaults() {
    let rule = Rule::cron("30 2 * * *").unwrap();
    let rule = rule.time_zone("Europe/Berlin").unwrap();
    assert_eq!(
        format!("{rule:?}"),
        "Rule(cron 30 2 * * * in Europe/Berlin)"
    );
    let rule = rule.gap(Gap::Skip).unwrap().fold(Fold::Both).unwrap();
    let rule = rule.except_dates(["2026-12-24".parse().unwrap()]).unwrap();
    let expected = "cron 30 2 * * * in Europe/Berlin, gap Skip, fold Both, except 1 date";
    assert_eq!(rule.to_string(), expected);
}

/// Each level would pass over the excluded slots of the next one anew.
#[test]
fn nested_exclusions_are_searched_within_bounds() {
    let second = || Rule::cron("* * * * * *").unwrap();
    let mut rule = Rule::cron("* * * * * * 2026").unwrap();
    for _ in 0..8 {
        // Not by `except`, which would search a million.
        rule = Rule(Kind::Except {
            rule: Box::new(second().0),
            except: Box::new(rule.0),
        });
    }
    let at = Timestamp::rounded_up(utc("2026-06-01T00:00:00Z")).unwrap();
    let next = at + Duration::from_secs(1);
    assert_eq!(rule.next_slot(at), Found::Slot(next));
    let even = Rule(Kind::Except {
        rule: Box::new(second().0),
        except: Box::new(rule.0),
    });
    assert!(matches!(even.next_slot(at), Found::Further(_)));
}
