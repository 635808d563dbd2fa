//! P10: each slot makes at most one task, across processes, restarts and changes of the clock; a missed slot is handled by its
//! policy, never silently.
//!
//! Which instants are slots: the tests of `src/model/recurrence`. What each policy makes of them: those of the store.

use std::time::Duration;

use chrono::{DateTime, Utc};
use punctual::testing::{Stepper, TestClock};
use punctual::{
    Client, ErrorKind, Filter, Missed, NewTask, Outcome, Overlap, Recurred, Recurrence,
    RecurrenceEdit, RecurrenceEventKind, RecurrenceFilter, RecurrenceSet, Rule, Scheduler,
    Triggered,
};

use crate::kit::{DAY, LONG, Log, MS, Probe, S, clock, eventually, file, probe};

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// A recurrence whose tasks may run side by side.
fn named(name: &str) -> Recurrence {
    Recurrence::new(name, Probe(1)).overlap(Overlap::Allow)
}

/// A scheduler in memory whose tasks complete.
fn completes(clock: &TestClock) -> Stepper {
    let stepped = Scheduler::in_memory()
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .stepped(clock);
    stepped.unwrap()
}

/// A scheduler on a file that logs the slots of the tasks that it runs.
fn logs(path: &std::path::Path, clock: &TestClock, log: &Log<String>) -> Stepper {
    let log = log.clone();
    let stepped = Scheduler::builder(path)
        .workers(1)
        .handler_fn(move |_: Probe, cx| {
            let slot = cx.slot().expect("a recurrence made it");
            log.push(slot.format("%d %H:%M:%S").to_string());
            Ok(Outcome::done())
        })
        .stepped(clock);
    stepped.unwrap()
}

/// P10, P2: clocks go from two to three on 29 March 2026 in Berlin.
#[test]
fn a_nightly_task_runs_once_each_night_also_when_clocks_change() {
    let clock = TestClock::new(utc("2026-03-27T12:00:00Z"));
    let log = Log::new();
    let own = log.clone();
    let mut scheduler = Scheduler::in_memory()
        .handler_fn(move |_: Probe, cx| {
            let started = cx.client().get(cx.id())?.unwrap().started_at().unwrap();
            assert_eq!(cx.recurrence(), Some("nightly"));
            assert_eq!(Some(started), cx.slot(), "at its very instant");
            own.push((cx.previous_slot(), started));
            Ok(Outcome::done())
        })
        .stepped(&clock)
        .unwrap();
    let nightly = named("nightly").cron("30 2 * * *").unwrap();
    scheduler
        .recur(nightly.time_zone("Europe/Berlin").unwrap())
        .unwrap();
    assert_eq!(scheduler.advance(4 * DAY), 4);
    let expected = [
        "2026-03-28T01:30:00Z",
        "2026-03-29T01:00:00Z",
        "2026-03-30T00:30:00Z",
        "2026-03-31T00:30:00Z",
    ]
    .map(utc);
    let (previous, slots): (Vec<_>, Vec<_>) = log.take().into_iter().unzip();
    assert_eq!(slots, expected);
    assert_eq!(previous[0], None);
    assert_eq!(previous[1..], [0, 1, 2].map(|index| Some(expected[index])));
}

/// P10: whether a program was stopped properly or not, and however often it says what it wants.
#[test]
fn a_restart_neither_loses_nor_doubles_a_slot() {
    let (_dir, path) = file();
    let clock = TestClock::new(utc("2026-03-01T00:00:00Z"));
    let log = Log::new();
    let all = || {
        named("hourly")
            .cron("0 * * * *")
            .unwrap()
            .missed(Missed::All { max: 100 })
    };
    for hours in [1_u32, 3, 2, 5] {
        let mut scheduler = logs(&path, &clock, &log);
        scheduler.recur(all()).unwrap();
        scheduler.drain();
        scheduler.advance(S * 1800);
        drop(scheduler);
        clock.advance(S * 3600 * hours);
    }
    let mut scheduler = logs(&path, &clock, &log);
    scheduler.drain();
    let slots = log.take();
    let expected: Vec<String> = (1..=13).map(|hour| format!("01 {hour:02}:00:00")).collect();
    assert_eq!(slots, expected);
    assert_eq!(scheduler.count(&Filter::all()).unwrap(), 13);
}

/// P10: the clock of a machine that wakes up, or is set.
#[test]
fn a_step_of_the_clock_neither_repeats_nor_floods() {
    let (_dir, path) = file();
    let clock = TestClock::new(utc("2026-03-01T00:00:00Z"));
    let log = Log::new();
    let mut scheduler = logs(&path, &clock, &log);
    scheduler
        .recur(named("m").cron("* * * * *").unwrap())
        .unwrap();
    scheduler.advance(S * 120);
    assert_eq!(log.take(), ["01 00:01:00", "01 00:02:00"]);
    clock.set(utc("2026-03-01T00:00:30Z"));
    scheduler.advance(S * 120);
    assert_eq!(log.take(), [""; 0], "they were run before");
    clock.set(utc("2026-03-04T09:30:15Z"));
    scheduler.drain();
    assert_eq!(log.take(), ["04 09:30:00"], "of what was missed the latest");
}

/// P10: three processes with one file, each of which may come first.
#[test]
fn several_schedulers_on_one_file_make_one_task_of_a_slot() {
    let (_dir, path) = file();
    let clock = TestClock::new(utc("2026-03-01T00:00:00Z"));
    let log = Log::new();
    let mut schedulers = [(); 3].map(|()| logs(&path, &clock, &log));
    for name in ["a", "b", "c"] {
        schedulers[0]
            .recur(named(name).cron("* * * * *").unwrap())
            .unwrap();
    }
    for minute in 1..=30 {
        clock.advance(S * 60);
        let first = minute % 3;
        for index in [first, (first + 1) % 3, (first + 2) % 3] {
            schedulers[index].drain();
        }
    }
    assert_eq!(log.take().len(), 90);
    assert_eq!(schedulers[1].count(&Filter::all()).unwrap(), 90);
}

/// P10, P6: with the user's rows, or not at all.
#[test]
fn a_recurrence_commits_with_the_transaction_that_stores_it() {
    let clock = clock();
    let mut scheduler = completes(&clock);
    let minutely = || named("a").cron("* * * * *").unwrap();
    let undone = scheduler.transaction(|tx| {
        assert_eq!(tx.recur(minutely())?, Recurred::Created);
        Err::<(), _>(tx.schedule(probe(1).priority(10)).unwrap_err())
    });
    assert_eq!(undone.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(scheduler.advance(S * 120), 0);
    scheduler.transaction(|tx| tx.recur(minutely())).unwrap();
    assert_eq!(scheduler.advance(S * 120), 2);
}

#[test]
fn a_recurrence_is_removed_with_the_transaction_that_removes_it() {
    let scheduler = Scheduler::in_memory().start().unwrap();
    let stored = |name| scheduler.recurrences().get(name).unwrap().is_some();
    scheduler.recur(named("a").every(S).unwrap()).unwrap();
    let kept: punctual::Result<()> = scheduler.transaction(|tx| {
        tx.remove_recurrence("a")?;
        tx.remove_recurrence("a")
    });
    let error = kept.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("\"a\""), "{error}");
    assert!(stored("a"), "rolled back");
    scheduler
        .transaction(|tx| {
            assert!(tx.remove_recurrence("b").is_err());
            tx.remove_recurrence("a")
        })
        .unwrap();
    assert!(!stored("a"));
}

/// P10: nobody had the file open for months, and the first thing that a program does is a change.
#[test]
fn a_change_after_a_long_downtime_loses_no_slot() {
    let clock = clock();
    let scheduler = completes(&clock);
    let all = || {
        let recurrence = named("a").every(S).unwrap();
        recurrence.missed(Missed::All { max: 2_000 })
    };
    scheduler.recur(all()).unwrap();
    let made = || scheduler.count(&Filter::new().recurrence("a")).unwrap();
    clock.advance(1_500 * S);
    scheduler.recur(all().grace(2 * S)).unwrap();
    assert_eq!(made(), 1_500);
    clock.advance(700 * S);
    scheduler.recurrences().pause("a").unwrap();
    assert_eq!(made(), 2_200);
}

#[test]
fn each_change_of_a_recurrence_can_be_submitted() {
    let clock = clock();
    let scheduler = completes(&clock);
    let get = |scheduler: &Stepper| scheduler.recurrences().get("a").unwrap().unwrap();
    let every = named("a").every(S).unwrap();
    scheduler.submit().recur(every).wait().unwrap();
    let changes = scheduler.submit().recurrences();
    changes.pause("a").wait().unwrap();
    assert!(get(&scheduler).is_paused());
    changes.resume("a").wait().unwrap();
    assert!(!get(&scheduler).is_paused());
    changes
        .edit("a", RecurrenceEdit::new().priority(1))
        .wait()
        .unwrap();
    assert_eq!(get(&scheduler).priority(), 1);
    let Triggered::Made(task) = changes.trigger("a").wait().unwrap() else {
        panic!("nothing is live");
    };
    assert_eq!(
        scheduler.get(task).unwrap().unwrap().recurrence(),
        Some("a")
    );
    let from = clock.now() + 9 * S;
    changes.reset("a", from).wait().unwrap();
    assert!(get(&scheduler).next_slot().unwrap() >= from);
    changes.remove("a").wait().unwrap();
    assert!(scheduler.recurrences().get("a").unwrap().is_none());
    for refused in [
        changes.pause("a").wait(),
        changes.edit("a", RecurrenceEdit::new()).wait(),
        changes.reset("a", DateTime::UNIX_EPOCH - DAY).wait(),
    ] {
        let error = refused.unwrap_err();
        assert!(
            error.to_string().contains("the recurrence \"a\""),
            "{error}"
        );
    }
}

/// P10, P3: by real threads, after a commit by a client that runs nothing.
#[test]
fn a_recurrence_that_another_client_stores_begins_at_once() {
    let (_dir, path) = file();
    let ran = Log::new();
    let log = ran.clone();
    let scheduler = Scheduler::builder(&path)
        .workers(1)
        .handler_fn(move |_: Probe, cx| {
            log.push(cx.slot().unwrap());
            Ok(Outcome::done())
        })
        .start()
        .unwrap();
    let client = Client::open(&path).unwrap();
    client
        .recur(named("often").every(20 * MS).unwrap())
        .unwrap();
    eventually("ten slots", || ran.len() >= 10);
    client.recurrences().pause("often").unwrap();
    scheduler.shutdown(LONG).unwrap();
    let mut slots = ran.take();
    slots.sort_unstable();
    let count = slots.len();
    slots.dedup();
    assert_eq!(slots.len(), count, "each slot once");
    let anchor = slots[0];
    for slot in slots {
        let passed = slot - anchor;
        assert_eq!(
            passed.num_microseconds().unwrap() % 20_000,
            0,
            "none drifts"
        );
    }
}

/// P10: what was skipped is told.
#[test]
fn events_tell_what_a_recurrence_does() {
    let clock = TestClock::new(utc("2026-03-01T00:00:00Z"));
    let mut scheduler = Scheduler::in_memory()
        .handler_fn(|probe: Probe, _cx| match probe.0 {
            1 => Ok(Outcome::done()),
            _ => Err(punctual::Failure::fatal("no")),
        })
        .stepped(&clock)
        .unwrap();
    let events = scheduler.recurrences().events();
    let told = || {
        let mut told = Vec::new();
        while let Some(event) = events.try_next().event() {
            assert_eq!(event.recurrence(), "a");
            let hour = |at: DateTime<Utc>| at.format("%H:%M").to_string();
            told.push(match event.kind() {
                RecurrenceEventKind::Made { slot, .. } => format!("made {}", hour(slot.unwrap())),
                RecurrenceEventKind::Skipped {
                    first,
                    last,
                    reason,
                } => {
                    format!("{reason:?} {} {}", hour(first), hour(last))
                }
                kind => format!("{kind:?}"),
            });
        }
        told
    };
    let hourly = |probe: u32| {
        let recurrence = Recurrence::new("a", Probe(probe))
            .cron("0 * * * *")
            .unwrap();
        recurrence.pause_after_failures(1).expect_within(S * 600)
    };
    scheduler.recur(hourly(1)).unwrap();
    scheduler.advance(S * 3600);
    assert_eq!(told(), ["Created", "made 01:00"]);
    clock.advance(S * 3600 * 3);
    scheduler.drain();
    assert_eq!(
        told(),
        ["Missed 02:00 03:00", "made 04:00", "Overdue", "Recovered"]
    );
    scheduler.recur(hourly(2)).unwrap();
    scheduler.advance(S * 3600);
    assert_eq!(told(), ["Changed", "made 05:00", "Paused(Failures)"]);
    assert_eq!(scheduler.health().stopped_recurrences(), ["a"]);
    clock.advance(S * 3600);
    scheduler.recurrences().resume("a").unwrap();
    scheduler.recurrences().pause("a").unwrap();
    scheduler.recurrences().remove("a").unwrap();
    // That of five has failed, and was overdue when nobody looked.
    let resumed = ["Paused 06:00 06:00", "Resumed"];
    let expected = [&resumed[..], &["Overdue", "Paused(Caller)", "Removed"]].concat();
    assert_eq!(told(), expected);
}

/// P10: a deploy that takes a line out of the program, and an operator who has paused another.
#[test]
fn a_program_declares_its_own_recurrences_at_each_start() {
    let (_dir, path) = file();
    let clock = TestClock::new(utc("2026-03-01T00:00:00Z"));
    let start = |names: &[&str], revision| {
        let empty = RecurrenceSet::new("program").revision(revision);
        let set = names.iter().fold(empty, |set, name| {
            set.recurrence(named(name).cron("0 * * * *").unwrap())
        });
        Scheduler::builder(&path)
            .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
            .recurrences(set)
            .stepped(&clock)
            .unwrap()
    };
    let mut scheduler = start(&["a", "b", "c"], 1);
    assert_eq!(scheduler.advance(S * 3600), 3);
    scheduler.recurrences().pause("c").unwrap();
    drop(scheduler);
    let mut scheduler = start(&["b", "c"], 2);
    assert_eq!(scheduler.advance(S * 3600), 1, "one is gone, one is paused");
    drop(scheduler);
    let mut scheduler = start(&["a", "b", "c"], 1);
    assert_eq!(
        scheduler.advance(S * 3600),
        1,
        "the old program changes nothing"
    );
}

/// Nothing is created by a program that declares what is not allowed.
#[test]
fn a_set_that_is_not_allowed_stops_the_start() {
    let (_dir, path) = file();
    let daily = || named("a").cron("@daily").unwrap();
    let table = [
        (RecurrenceSet::new("").recurrence(daily()), "is empty"),
        (
            RecurrenceSet::new("s")
                .recurrence(daily())
                .recurrence(daily()),
            "two recurrences",
        ),
        (
            RecurrenceSet::new("s").recurrence(named("a")),
            "has no rule",
        ),
        (RecurrenceSet::new("s").revision(u64::MAX), "revision"),
    ];
    for (set, words) in table {
        let error = Scheduler::builder(&path)
            .recurrences(set)
            .start()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert!(!path.exists());
    }
    let client = Client::open(&path).unwrap();
    client
        .declare(RecurrenceSet::new("one").recurrence(daily()))
        .unwrap();
    let error = client
        .declare(RecurrenceSet::new("other").recurrence(daily()))
        .unwrap_err();
    assert!(error.to_string().contains("by the set \"one\""), "{error}");
}

/// P10: nothing can tell whether a clock is right, so this is told, and only an explicit call goes back.
#[test]
fn a_clock_that_was_years_ahead_is_told() {
    let clock = TestClock::new(utc("2026-03-01T00:00:00Z"));
    let mut scheduler = completes(&clock);
    for name in ["a", "b"] {
        scheduler
            .recur(named(name).cron("0 * * * *").unwrap())
            .unwrap();
    }
    clock.set(utc("2036-03-01T00:00:00Z"));
    assert_eq!(scheduler.drain(), 2);
    assert!(scheduler.health().recurrences_ahead().is_empty());
    let events = scheduler.recurrences().events();
    clock.set(utc("2026-03-01T06:30:00Z"));
    scheduler.drain();
    assert_eq!(scheduler.health().recurrences_ahead(), ["a", "b"]);
    let decided = utc("2036-03-01T00:00:00Z");
    for name in ["a", "b"] {
        let event = events.try_next().event().expect("it is told");
        assert_eq!(event.recurrence(), name);
        assert_eq!(event.kind(), RecurrenceEventKind::ClockBehind { decided });
    }
    assert_eq!(scheduler.advance(S * 7200), 0);
    scheduler
        .recurrences()
        .reset("a", utc("2026-03-01T08:30:00Z"))
        .unwrap();
    assert_eq!(scheduler.advance(S * 7200), 2);
    assert_eq!(scheduler.health().recurrences_ahead(), ["b"]);
}

#[test]
fn a_preview_stores_nothing_and_is_what_comes() {
    let clock = TestClock::new(utc("2026-03-01T00:00:00Z"));
    let (log, path) = (Log::new(), file());
    let mut scheduler = logs(&path.1, &clock, &log);
    let expected = ["01 05:00:00", "01 10:00:00", "01 15:00:00"];
    let every = named("a").every(S * 5 * 3600).unwrap();
    let preview = every.preview(clock.now()).take(3);
    let preview: Vec<_> = preview
        .map(|slot| slot.format("%d %H:%M:%S").to_string())
        .collect();
    assert_eq!(preview, expected);
    assert!(scheduler.recurrences().get("a").unwrap().is_none());
    assert_eq!(
        scheduler.submit().recur(every).wait().unwrap(),
        Recurred::Created
    );
    scheduler.advance(S * 15 * 3600);
    assert_eq!(log.take(), expected);
    assert_eq!(named("b").preview(clock.now()).count(), 0);
}

#[test]
fn recurrences_are_listed_by_name_in_pages() {
    let scheduler = Scheduler::in_memory().start().unwrap();
    let names = ["b", "a", "c", "ab", "d"];
    for name in names {
        let task = NewTask::with_kind("report", &1).queue(if name == "d" { "d" } else { "q" });
        let recurrence = Recurrence::new(name, task).cron("@daily").unwrap();
        scheduler.recur(recurrence).unwrap();
    }
    scheduler.recurrences().pause("c").unwrap();
    let listed = |filter: RecurrenceFilter| {
        let (mut names, mut filter) = (Vec::new(), filter.limit(2));
        loop {
            let page = scheduler.recurrences().list(&filter).unwrap();
            names.extend(page.recurrences().iter().map(|one| one.name().to_owned()));
            match page.next() {
                Some(next) => filter = filter.after(next),
                None => return names,
            }
        }
    };
    let stats = scheduler.stats().unwrap();
    let counts = (
        stats.recurrences(),
        stats.paused_recurrences(),
        stats.ended_recurrences(),
    );
    assert_eq!(counts, (5, 1, 0));
    assert_eq!(listed(RecurrenceFilter::new()), ["a", "ab", "b", "c", "d"]);
    assert_eq!(
        listed(RecurrenceFilter::new().name_prefix("a")),
        ["a", "ab"]
    );
    assert_eq!(listed(RecurrenceFilter::new().queue("d")), ["d"]);
    assert_eq!(listed(RecurrenceFilter::new().kind("other")), [""; 0]);
    assert_eq!(listed(RecurrenceFilter::new().paused(true)), ["c"]);
    let error = scheduler
        .recurrences()
        .list(&RecurrenceFilter::new().limit(0));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_mistake_is_refused_and_named() {
    let scheduler = Scheduler::in_memory().start().unwrap();
    let rule = || Rule::every(S, utc("2026-01-01T00:00:00Z")).unwrap();
    let of = |task: NewTask| Recurrence::new("a", task).rule(rule());
    let table: Vec<(Recurrence, &str)> = vec![
        (named("a"), "it has no rule"),
        (
            named("").rule(rule()),
            "the name of the recurrence is empty",
        ),
        (named(&"x".repeat(129)).rule(rule()), "129 bytes"),
        (of(probe(1).queue("")), "the queue is empty"),
        (of(probe(1).id(punctual::TaskId::new())), "has an id"),
        (of(probe(1).after(S)), "has a due time"),
        (
            of(probe(1).start_by(utc("2026-01-01T00:00:00Z"))),
            "use start_within",
        ),
        (of(NewTask::with_kind("k", &f64::NAN)), "NaN"),
        (
            named("a").rule(rule()).jitter(2 * S),
            "a jitter of 2s is longer than the interval 1s",
        ),
        (named("a").rule(rule()).max_count(0), "max_count of 0"),
        (
            named("a").rule(rule()).pause_after_failures(0),
            "pause_after_failures 0",
        ),
        (
            named("a").rule(rule()).expect_within(Duration::ZERO),
            "expect_within is zero",
        ),
        (
            named("a").rule(rule()).window(Duration::MAX),
            "window is longer",
        ),
        (
            named("a")
                .rule(rule())
                .overlap(Overlap::BufferAll { max: 0 }),
            "a maximum of 0",
        ),
        (
            Recurrence::new("a", Probe(1))
                .rule(rule())
                .missed(Missed::All { max: 5 }),
            "keeps only one",
        ),
        (
            named("a").rule(rule()).since(DateTime::<Utc>::MAX_UTC),
            "since",
        ),
    ];
    for (recurrence, words) in table {
        let error = scheduler.recur(recurrence).unwrap_err();
        let kind = error.kind();
        assert!(
            matches!(kind, ErrorKind::Invalid | ErrorKind::Payload),
            "{error}"
        );
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    let page = scheduler
        .recurrences()
        .list(&RecurrenceFilter::new())
        .unwrap();
    assert!(page.recurrences().is_empty());
    let early: Vec<(punctual::Result<Recurrence>, &str)> = vec![
        (named("a").cron("61 * * * *"), "column 1, minute"),
        (named("a").cron("0 0 30 2 *"), "no date from 1970"),
        (named("a").every(Duration::ZERO), "is not between"),
        (named("a").every(Duration::MAX), "is not between"),
        (named("a").time_zone("Europe/Berlin"), "before the rule"),
        (
            named("a").cron("@daily").unwrap().time_zone("CEST"),
            "no time zone",
        ),
        (
            named("a").rule(rule()).time_zone("UTC"),
            "only for a cron expression",
        ),
    ];
    for (refused, words) in early {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    let none = scheduler.recurrences().pause("nightly").unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NotFound);
    assert!(none.to_string().contains("nightly"), "{none}");
}

/// P10, P6: the user's own connection ends the live task, and the slot that waited is made and run.
#[test]
fn a_slot_that_waits_runs_when_the_user_cancels_on_a_connection_of_their_own() {
    let (_dir, path) = file();
    let ran = Log::new();
    let log = ran.clone();
    let scheduler = Scheduler::builder(&path)
        .workers(1)
        .handler_fn(move |_: Probe, cx| {
            log.push(cx.id());
            Ok(Outcome::done())
        })
        .start()
        .unwrap();
    let often = named("a").overlap(Overlap::BufferOne);
    scheduler.pause("default").unwrap();
    scheduler.recur(often.every(LONG).unwrap()).unwrap();
    let recurrences = scheduler.recurrences();
    let punctual::Triggered::Made(live) = recurrences.trigger("a").unwrap() else {
        panic!("nothing is live");
    };
    let punctual::Triggered::Waiting(waits) = recurrences.trigger("a").unwrap() else {
        panic!("one is live");
    };

    let mut conn = punctual::rusqlite::Connection::open(&path).unwrap();
    let tx = conn.transaction().unwrap();
    let own = scheduler.sqlite().unwrap();
    assert_eq!(
        own.cancel_in(&tx, live).unwrap(),
        punctual::Cancel::Cancelled
    );
    tx.commit().unwrap();
    scheduler.resume("default").unwrap();
    eventually("it runs", || ran.len() == 1);
    assert_eq!(ran.take(), [waits]);
}
