//! A nightly report in its user's time zone: each night once, also when clocks are changed.
//!
//! `cargo run --example recurrences`; it ends by itself at once, because the clock is moved by hand as in `test_clock`.

use std::error::Error;
use std::time::Duration;

use punctual::chrono::{DateTime, Utc};
use punctual::testing::TestClock;
use punctual::{
    Filter, Outcome, Payload, Recurred, Recurrence, Retention, Scheduler, TaskContext, TaskResult,
};
use serde::{Deserialize, Serialize};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Serialize, Deserialize)]
struct Report {
    user: String,
}

impl Payload for Report {
    const KIND: &'static str = "report";
}

/// Reports what happened since the report before, and returns how many minutes that were.
fn report(report: Report, cx: &TaskContext) -> TaskResult {
    let slot = cx.slot().ok_or("a recurrence makes it")?;
    let minutes = cx.previous_slot().map(|since| (slot - since).num_minutes());
    let local = slot.with_timezone(&chrono_tz::Europe::Berlin);
    match minutes {
        None => println!("{local}: the first report for {}", report.user),
        Some(minutes) => println!("{local}: the last {minutes} minutes of {}", report.user),
    }
    Outcome::with(&minutes)
}

fn main() -> Result<(), Box<dyn Error>> {
    let clock = TestClock::new("2026-03-27T12:00:00Z".parse()?);
    let mut scheduler = Scheduler::in_memory()
        .handler_fn(report)
        .retention(Retention::forever())
        .stepped(&clock)?;
    let user = "Ada".to_owned();
    let nightly = Recurrence::new("report-for-ada", Report { user })
        .cron("30 2 * * *")?
        .time_zone("Europe/Berlin")?;
    assert_eq!(scheduler.recur(nightly.clone())?, Recurred::Created);
    // A program says it at each of its starts. The same again changes nothing.
    assert_eq!(scheduler.recur(nightly)?, Recurred::Unchanged);
    assert_eq!(scheduler.advance(4 * DAY), 4);

    // The program does not run until October. Of the slots that it missed, the latest is made up for.
    clock.set("2026-10-24T12:00:00Z".parse()?);
    assert_eq!(scheduler.drain(), 1);
    assert_eq!(scheduler.advance(2 * DAY), 2);

    let expected = [
        ("2026-03-28T01:30:00Z", None),
        // There is no half past two: clocks go from two to three.
        ("2026-03-29T01:00:00Z", Some(24 * 60 - 30)),
        ("2026-03-30T00:30:00Z", Some(24 * 60 - 30)),
        ("2026-03-31T00:30:00Z", Some(24 * 60)),
        ("2026-10-24T00:30:00Z", Some(207 * 24 * 60)),
        // Half past two comes twice, and the first time counts.
        ("2026-10-25T00:30:00Z", Some(24 * 60)),
        ("2026-10-26T01:30:00Z", Some(25 * 60)),
    ];
    let page = scheduler.list(&Filter::new().kind(Report::KIND))?;
    assert_eq!(page.tasks().len(), expected.len());
    for (task, (slot, minutes)) in page.tasks().iter().zip(expected) {
        assert_eq!(task.slot(), Some(slot.parse::<DateTime<Utc>>()?));
        assert!(task.started_at() >= task.slot(), "none is early");
        assert_eq!(task.result::<Option<i64>>()?, Some(minutes));
    }
    Ok(())
}
