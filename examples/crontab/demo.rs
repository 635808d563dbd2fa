//! The run without arguments: what `examples/data/crontab` does, checked.

use std::path::Path;

use chrono_tz::Tz;
use punctual::chrono::{DateTime, Utc};
use punctual::{Client, Filter, Payload, RecurrenceFilter, TaskState};

use crate::parse::{Crontab, parse};
use crate::run::{Job, MAX_OUTPUT_BYTES};
use crate::table::{self, Stored};
use crate::{Mode, Result, agenda, serve};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/crontab");

const BAD: &str = "\
61 * * * * true
# A comment, and a good line
* * * * * true
  0 9 * * MON-FRO\ttrue
@sometimes true
0 0 30 2 * true
* * * *
* * * * *
NAME
NAME='value
CRON_TZ = Mars/Olympus
";

pub(crate) fn run() -> Result<()> {
    refuse_bad_lines();
    let text = std::fs::read_to_string(FILE)?;
    let crontab = parse(&text, Tz::UTC).map_err(|faults| format!("{faults:?}"))?;
    check_agenda(&crontab)?;

    let dir = tempfile::tempdir()?;
    let db = dir.path().join("crontab.db");
    serve(&crontab, &db, &Mode::Once)?;
    check_outputs(&db)?;
    check_changes(crontab, &db)
}

fn refuse_bad_lines() {
    let faults = parse(BAD, Tz::UTC).err().unwrap_or_default();
    let places: Vec<_> = faults
        .iter()
        .map(|fault| (fault.line, fault.column))
        .collect();
    let expected = [
        (1, 1),
        (4, 15),
        (5, 1),
        (6, 1),
        (7, 8),
        (8, 10),
        (9, 1),
        (10, 6),
        (11, 11),
    ];
    assert_eq!(places, expected, "{faults:#?}");
}

/// The night in Berlin on which clocks go from two to three.
fn check_agenda(crontab: &Crontab) -> Result<()> {
    let evening: DateTime<Utc> = "2026-03-28T23:46:00Z".parse()?;
    let next = agenda::next(&crontab.entries, evening, 12);
    let (slot, _) = next
        .iter()
        .find(|(_, entry)| entry.text.contains("report"))
        .ok_or("it is one of them")?;
    assert_eq!(*slot, "2026-03-29T01:00:00Z".parse::<DateTime<Utc>>()?);
    let (first, _) = next[0];
    assert_eq!(first, "2026-03-29T00:00:00Z".parse::<DateTime<Utc>>()?);
    assert_eq!(next[0].1.text, next[1].1.text, "two equal lines");
    Ok(())
}

/// What has run, in the order of the lines: whether it completed, and its output. Not what a line with a time has run meanwhile.
fn ran(db: &Path) -> Result<Vec<(bool, String)>> {
    let page = Client::open(db)?.list(&Filter::new().kind(Job::KIND))?;
    let tasks = page.tasks().iter().filter(|task| task.slot().is_none());
    let ran = tasks.map(|task| {
        let output = task.result::<String>()?.or(task.error().map(str::to_owned));
        let completed = task.state() == TaskState::Completed;
        Ok((completed, output.unwrap_or_default()))
    });
    ran.collect()
}

fn check_outputs(db: &Path) -> Result<()> {
    let mut ran = ran(db)?;
    let (_, long) = ran.remove(4);
    let expected = [
        (true, "good  morning, it is up\n"),
        (true, "FIRST\nSECOND\n"),
        (true, "100%\n"),
        (false, "exit status: 3\nthere is no backup\n"),
        (false, "signal: 9 (SIGKILL)\n"),
    ];
    let expected = expected.map(|(completed, output)| (completed, output.to_owned()));
    assert_eq!(ran, expected);
    assert!(long.ends_with("y\n".repeat(MAX_OUTPUT_BYTES / 2).as_str()));
    assert!(long.starts_with("[34464 bytes before]\n"));
    Ok(())
}

/// The same crontab again, with one line triggered, and then a shorter one.
fn check_changes(mut crontab: Crontab, db: &Path) -> Result<()> {
    let client = Client::open(db)?;
    let unchanged = Stored {
        unchanged: 5,
        ..Stored::default()
    };
    assert_eq!(table::store(&client, &crontab.entries)?, unchanged);
    let page = client.recurrences().list(&RecurrenceFilter::new())?;
    assert_eq!(page.recurrences().len(), 5, "equal lines are several");
    let report = table::names_of(&crontab.entries).find(|(_, entry)| entry.text.contains("report"));
    let (name, _) = report.ok_or("it is there")?;
    client.recurrences().trigger(&name)?;

    crontab.entries.pop();
    crontab
        .entries
        .retain(|entry| !entry.text.contains("office"));
    serve(&crontab, db, &Mode::Once)?;
    let ran = ran(db)?;
    assert_eq!(ran.len(), 6 + 1 + 6, "the @reboot lines have run again");
    assert_eq!(ran[6], (true, "the nightly report\n".to_owned()));
    let shorter = Stored {
        unchanged: 3,
        ..Stored::default()
    };
    assert_eq!(table::store(&client, &crontab.entries)?, shorter);
    Ok(())
}
