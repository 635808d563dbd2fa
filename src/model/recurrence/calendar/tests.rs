//! Tests of calendar rules: what they name, how they are refused, and that no search takes long.

use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Utc, Weekday};

use crate::model::recurrence::calendar::Calendar;
use crate::model::recurrence::calendar::days::Days;
use crate::model::recurrence::rule::Rule;
use crate::model::recurrence::search::{Found, Way};
use crate::time::{Stopwatch, Timestamp};

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn calendar(text: &str) -> Rule {
    Rule::calendar(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn berlin(start: &str, rule: &str) -> Rule {
    calendar(&format!("DTSTART;TZID=Europe/Berlin:{start}\nRRULE:{rule}"))
}

/// The slots after an instant, and that those before the last are the same.
fn slots(rule: &Rule, from: &str, count: usize) -> Vec<String> {
    let slots: Vec<_> = rule.after(utc(from)).take(count).collect();
    let end = *slots.last().unwrap() + TimeDelta::microseconds(1);
    let mut back: Vec<_> = rule.before(end).take(slots.len()).collect();
    back.reverse();
    assert_eq!(slots, back, "backwards it is the same");
    let shown = slots.iter().map(|slot| slot.format("%d %H:%M").to_string());
    shown.collect()
}

fn refusal(text: &str) -> String {
    Rule::calendar(text).unwrap_err().to_string()
}

#[test]
fn a_skipped_time_goes_by_the_offset_before_the_change() {
    let nightly = berlin("20260101T023000", "FREQ=DAILY");
    let expected = ["28 01:30", "29 01:30", "30 00:30"];
    assert_eq!(slots(&nightly, "2026-03-28T00:00:00Z", 3), expected);
    // Half past two becomes half past three, which is there itself; and three o'clock lies between.
    let several = berlin("20260101T020000", "FREQ=DAILY;BYHOUR=2,3;BYMINUTE=0,30");
    let expected = ["29 01:00", "29 01:30", "30 00:00", "30 00:30", "30 01:00"];
    assert_eq!(slots(&several, "2026-03-28T12:00:00Z", 5), expected);
}

#[test]
fn a_time_that_comes_twice_is_its_first() {
    let nightly = berlin("20260101T023000", "FREQ=DAILY");
    let expected = ["24 00:30", "25 00:30", "26 01:30"];
    assert_eq!(slots(&nightly, "2026-10-24T00:00:00Z", 3), expected);
    // So the hour that comes again has no slot of an hourly rule.
    let hourly = berlin("20260101T000000", "FREQ=HOURLY");
    let expected = ["24 23:00", "25 00:00", "25 02:00"];
    assert_eq!(slots(&hourly, "2026-10-24T22:00:00Z", 3), expected);
    let from = utc("2026-10-25T01:10:00Z");
    assert_eq!(
        hourly.before(from).next(),
        Some(utc("2026-10-25T00:00:00Z"))
    );
}

/// Samoa crossed the date line: its 30 December 2011 is a gap of a day.
#[test]
fn the_slots_of_a_day_that_is_skipped_come_a_day_later() {
    let rule = calendar("DTSTART;TZID=Pacific/Apia:20110101T120000\nRRULE:FREQ=DAILY;BYHOUR=9,12");
    let expected = ["29 19:00", "29 22:00", "30 19:00", "30 22:00", "31 19:00"];
    assert_eq!(slots(&rule, "2011-12-29T18:00:00Z", 5), expected);
}

#[test]
fn a_time_is_added_once_and_an_excluded_one_is_not_there() {
    let rule = calendar(
        "DTSTART:20260301T090000Z\r\nRRULE:FREQ=DAILY;COUNT=4\r\nRDATE;TZID=Europe/Berlin:20260302T10\r\n 0000,20260302T1\
         10000\r\nEXDATE:20260303T090000Z\r\nEXDATE;VALUE=DATE-TIME;TZID=\"Europe/Berlin\":20260304T100000\r\n",
    );
    let all = ["01 09:00", "02 09:00", "02 10:00"];
    assert_eq!(slots(&rule, "2026-01-01T00:00:00Z", 9), all);
}

#[test]
fn a_count_and_an_end_are_where_the_slots_end() {
    let from = "2020-01-01T00:00:00Z";
    let count = berlin("20260331T090000", "FREQ=MONTHLY;COUNT=3");
    assert_eq!(slots(&count, from, 9), ["31 07:00", "31 07:00", "31 07:00"]);
    let last = count.before(utc("9999-01-01T00:00:00Z")).next();
    assert_eq!(
        last,
        Some(utc("2026-07-31T07:00:00Z")),
        "not each month has a 31st"
    );
    let until = berlin("20260331T090000", "FREQ=DAILY;UNTIL=20260402T070000Z");
    assert_eq!(slots(&until, from, 9), ["31 07:00", "01 07:00", "02 07:00"]);
    let last = until.before(utc("9999-01-01T00:00:00Z")).next();
    assert_eq!(last, Some(utc("2026-04-02T07:00:00Z")));
}

#[test]
fn days_with_and_without_a_number_are_united() {
    let rule = calendar("DTSTART:20260601T000000Z\nRRULE:FREQ=MONTHLY;BYDAY=MO,2TU,-1SU");
    let days = slots(&rule, "2026-05-31T12:00:00Z", 7);
    let expected = ["01", "08", "09", "15", "22", "28", "29"].map(|day| format!("{day} 00:00"));
    assert_eq!(days, expected);
}

/// Long before a slot, and long after: a rule is not gone through from its start.
#[test]
fn no_search_goes_through_the_past_or_on_without_end() {
    let rules = [
        "DTSTART:19700101T000000Z\nRRULE:FREQ=SECONDLY",
        "DTSTART:19010101T000000Z\nRRULE:FREQ=SECONDLY;INTERVAL=65535;BYHOUR=3;BYMINUTE=0;BYSECOND=0",
        "DTSTART:19700101T000000Z\nRRULE:FREQ=MINUTELY;INTERVAL=7;BYMONTH=2;BYMONTHDAY=29;BYSETPOS=1",
        "DTSTART:20000229T000000Z\nRRULE:FREQ=YEARLY;INTERVAL=100",
        "DTSTART:19990101T000000Z\nRRULE:FREQ=YEARLY;BYWEEKNO=53;BYDAY=SA;BYMONTH=1;BYHOUR=0,1,2;BYSETPOS=-1",
        "DTSTART:20240105T000000Z\nRRULE:FREQ=DAILY;INTERVAL=7;BYMONTHDAY=13",
    ];
    for text in rules {
        let calendar = Calendar::known(text).unwrap();
        for from in [
            "2026-08-01T00:00:00Z",
            "5000-01-01T00:00:00Z",
            "9999-12-31T00:00:00Z",
        ] {
            for way in [Way::After, Way::Before] {
                let from = Timestamp::rounded_up(utc(from)).unwrap();
                let begun = Stopwatch::start();
                let found = calendar.find(way, from);
                assert!(
                    begun.elapsed() < Duration::from_millis(100),
                    "{text}: {way:?}"
                );
                if let Found::Further(at) = found {
                    assert_ne!(at, from, "{text}: {way:?}");
                    assert_eq!(at > from, way == Way::After, "{text}");
                }
            }
        }
    }
    let leap = calendar(rules[3]);
    let next = leap.after(utc("2001-01-01T00:00:00Z")).next();
    assert_eq!(next, Some(utc("2400-02-29T00:00:00Z")));
    let previous = leap.before(utc("2799-01-01T00:00:00Z")).next();
    assert_eq!(previous, Some(utc("2400-02-29T00:00:00Z")));
}

/// Interval and hours together: each hit is `n × interval` after the start.
#[test]
fn a_short_interval_keeps_its_phase_over_hours_and_days_that_do_not_count() {
    let rule =
        calendar("DTSTART:20260101T000000Z\nRRULE:FREQ=SECONDLY;INTERVAL=7;BYHOUR=3;BYDAY=WE");
    let start = utc("2026-01-01T00:00:00Z");
    for slot in rule.after(utc("2026-06-30T00:00:00Z")).take(1_000) {
        assert_eq!((slot - start).num_seconds() % 7, 0, "{slot}");
        assert_eq!(slot.weekday(), Weekday::Wed);
    }
}

/// Against `chrono`'s own weeks, in each kind of year.
#[test]
fn week_numbers_are_those_of_the_calendar() {
    for number in (1..=53).chain(-53..=-1) {
        let text = format!("FREQ=YEARLY;BYWEEKNO={number};BYDAY=MO,TU,WE,TH,FR,SA,SU");
        let start = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        let days = Days::of(&text.parse().unwrap(), start.and_time(Default::default())).unwrap();
        for year in 2000..2028 {
            let first = NaiveDate::from_ymd_opt(year, 1, 1).unwrap();
            let of_year = first.iter_days().take_while(|day| day.year() == year);
            for day in of_year {
                let week = day.iso_week();
                let last = NaiveDate::from_ymd_opt(week.year(), 12, 28).unwrap();
                let weeks = i64::from(last.iso_week().week());
                let index = i64::from(week.week());
                let is_in = index == number || index - weeks - 1 == number;
                let found = days.of_year(year).has(day.ordinal0());
                assert_eq!(found, is_in, "{number} {day}");
            }
        }
    }
}

#[test]
fn a_refusal_names_the_line_and_what_is_wrong_with_it() {
    let start = "DTSTART:20260101T090000Z\n";
    let table = [
        ("", "it has no DTSTART"),
        ("DTSTART:20260101T090000Z", "it has no RRULE"),
        ("DTSTART\nRRULE:FREQ=DAILY", "line 1: no colon"),
        (" DTSTART:20260101T090000Z", "line 1 begins with a space"),
        (
            "DTSTART:20260101T090000\nRRULE:FREQ=DAILY",
            "line 1, column 9, DTSTART: `20260101T090000` is in no time zone",
        ),
        (
            "DTSTART;VALUE=DATE:20260101\nRRULE:FREQ=DAILY",
            "line 1, DTSTART: DATE is not read",
        ),
        ("DTSTART:20260101\nRRULE:FREQ=DAILY", "is a date"),
        ("DTSTART:20260230T090000Z\nRRULE:FREQ=DAILY", "is no time"),
        ("DTSTART:20260101T250000Z\nRRULE:FREQ=DAILY", "is no time"),
        ("DTSTART:20261231T235960Z\nRRULE:FREQ=DAILY", "is no time"),
        ("DTSTART:18991231T000000Z\nRRULE:FREQ=DAILY", "1900 to 9999"),
        (
            "DTSTART;TZID=Berlin:20260101T090000\nRRULE:FREQ=DAILY",
            "line 1, DTSTART: there is no time zone \"Berlin\"",
        ),
        (
            "DTSTART;TZID=Europe/Berlin:20260101T090000Z\nRRULE:FREQ=DAILY",
            "is UTC, and the line names a zone",
        ),
        (
            "DTSTART;X-A=1:20260101T090000Z\nRRULE:FREQ=DAILY",
            "the parameter X-A",
        ),
        (
            "DTSTART;TZID:20260101T090000Z\nRRULE:FREQ=DAILY",
            "line 1, column 9, DTSTART: a parameter has no value",
        ),
        (
            "*\nDTSTART:20260101T090000Z\nDTSTART:20260101T090000Z\nRRULE:FREQ=DAILY",
            "line 3, DTSTART: there is a second",
        ),
        (
            "*RRULE:FREQ=DAILY\nRRULE:FREQ=DAILY",
            "line 3, RRULE: there is a second",
        ),
        (
            "*RRULE:FREQ=DAILY\nEXRULE:FREQ=DAILY",
            "line 3, EXRULE: it is not read: `Rule::except`",
        ),
        (
            "*RRULE:FREQ=DAILY\nSUMMARY:lunch",
            "line 3, SUMMARY: it is not read",
        ),
        (
            "*RRULE:FREQ=DAILY\nSUMMARY:d\u{e9}j",
            "line 3: '\u{e9}' is not allowed",
        ),
        (
            "*RRULE:FREQ=DAILY\nRDATE:20260101T090000Z,x",
            "line 3, column 24, RDATE: `x` is no time",
        ),
        (
            "*RRULE:FREQ=DAILY\nRDATE;VALUE=PERIOD:20260101T090000Z/PT1H",
            "PERIOD is not read",
        ),
        (
            "*RRULE:FREQ=DAILY\nEXDATE;VALUE=DATE:20260101",
            "DATE is not read",
        ),
        ("*RRULE;X=1:FREQ=DAILY", "line 2, RRULE: the parameter X"),
        ("*RRULE:COUNT=3", "line 2, RRULE: The property `FREQ`"),
        (
            "*RRULE:FREQ=OFTEN",
            "line 2, column 12, RRULE: FREQ `OFTEN`",
        ),
        (
            "*RRULE:FREQ=DAILY;",
            "line 2, column 18, RRULE: a part is no NAME=VALUE",
        ),
        (
            "*RRULE:FREQ=DAILY;BYEASTER=1",
            "line 2, column 18, RRULE: `BYEASTER` is no part",
        ),
        (
            "*RRULE:FREQ=DAILY;COUNT=1;COUNT=2",
            "column 26, RRULE: COUNT is there twice",
        ),
        (
            "*RRULE:FREQ=DAILY;COUNT=1;UNTIL=20270101T000000Z",
            "both COUNT and UNTIL",
        ),
        ("*RRULE:FREQ=DAILY;COUNT=0", "column 24, RRULE: COUNT `0`"),
        ("*RRULE:FREQ=DAILY;COUNT=10001", "1 to 10,000"),
        ("*RRULE:FREQ=DAILY;COUNT=+1", "COUNT `+1`"),
        (
            "*RRULE:FREQ=DAILY;UNTIL=20270101",
            "column 24, RRULE: `20270101` is a date",
        ),
        (
            "*RRULE:FREQ=DAILY;UNTIL=20270101T000000",
            "is in no time zone",
        ),
        ("*RRULE:FREQ=DAILY;INTERVAL=0", "INTERVAL is 0"),
        (
            "*RRULE:FREQ=DAILY;INTERVAL=65536",
            "column 27, RRULE: INTERVAL `65536`",
        ),
        (
            "*RRULE:FREQ=DAILY;BYHOUR=9,24",
            "column 27, RRULE: BYHOUR `24`",
        ),
        ("*RRULE:FREQ=DAILY;BYSECOND=60", "BYSECOND `60`"),
        (
            "*RRULE:FREQ=DAILY;BYHOUR=",
            "column 25, RRULE: BYHOUR has an empty item",
        ),
        (
            "*RRULE:FREQ=DAILY;BYDAY=XMO",
            "BYDAY `XMO` is no day of the week",
        ),
        (
            "*RRULE:FREQ=MONTHLY;BYDAY=0MO",
            "BYDAY `0MO` is no day of the week",
        ),
        ("*RRULE:FREQ=WEEKLY;BYDAY=1MO", "BYDAY has numbers"),
        (
            "*RRULE:FREQ=YEARLY;BYWEEKNO=1;BYDAY=1MO",
            "BYDAY has numbers",
        ),
        ("*RRULE:FREQ=WEEKLY;BYMONTHDAY=1", "BYMONTHDAY"),
        (
            "*RRULE:FREQ=MONTHLY;BYMONTHDAY=30;BYMONTH=2",
            "line 2, RRULE: no time in 100 years",
        ),
        (
            "*RRULE:FREQ=SECONDLY;INTERVAL=2;BYSECOND=1",
            "line 2, RRULE: no time of a day",
        ),
        (
            "*RRULE:FREQ=YEARLY;INTERVAL=500;COUNT=9",
            "its COUNT is not reached in 1,000 years: they have 3",
        ),
        (
            "*RRULE:FREQ=DAILY;UNTIL=20250101T000000Z",
            "the rule has no slot",
        ),
        (
            "*RRULE:FREQ=DAILY;COUNT=1\nEXDATE:20260101T090000Z",
            "the rule has no slot",
        ),
    ];
    for (text, words) in table {
        let text = text.replacen('*', start, 1);
        let refusal = refusal(&text);
        assert!(refusal.contains(words), "{text}: {refusal}");
    }
    let long = format!(
        "{start}RRULE:FREQ=DAILY\nEXDATE:{}",
        "20260101T090000Z,".repeat(482)
    );
    assert!(refusal(&long).contains("8192"), "{}", refusal(&long));
}

#[test]
fn a_calendar_rule_combines_with_others_and_has_its_own_zone() {
    let rule = berlin("20260101T003000", "FREQ=DAILY");
    let rule = rule.except_dates(["2026-07-02".parse().unwrap()]).unwrap();
    let expected = ["30 22:30", "02 22:30"];
    assert_eq!(slots(&rule, "2026-06-30T12:00:00Z", 2), expected);
    let rule = berlin("20260101T003000", "FREQ=DAILY");
    let union = Rule::any_of([rule.clone(), Rule::cron("0 12 * * *").unwrap()]).unwrap();
    assert_eq!(
        slots(&union, "2026-06-30T12:00:00Z", 2),
        ["30 22:30", "01 12:00"]
    );
    let error = rule.time_zone("Asia/Tokyo").unwrap_err().to_string();
    assert!(error.contains("a calendar rule says it itself"), "{error}");
    let error = union.except_dates(["2026-07-02".parse().unwrap()]);
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("several time zones")
    );
}

#[test]
fn a_calendar_rule_survives_its_storage_and_is_equal_to_what_is_written_alike() {
    let text = "DTSTART;TZID=Europe/Berlin:20260101T090000\nRRULE:FREQ=DAILY;COUNT=3\nEXDATE:20260102T080000Z";
    let rule = calendar(text);
    let stored = serde_json::to_string(&rule).unwrap();
    let back: Rule = serde_json::from_str(&stored).unwrap();
    assert_eq!(back, rule);
    assert_eq!(back, calendar(&text.replace('\n', "\r\n")));
    assert_eq!(back, calendar(&text.replace("COUNT", "\n COUNT")));
    assert_ne!(back, calendar(&text.replace("COUNT=3", "COUNT=4")));
    assert_eq!(back.interval(), None);
    let shown = "calendar DTSTART;TZID=Europe/Berlin:20260101T090000 RRULE:FREQ=DAILY;COUNT=3, without 1 instant";
    assert_eq!(back.to_string(), shown);
}
