//! The crontab in the store: a recurrence for each line with a time, a task for each `@reboot` line at each start.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use punctual::uuid::Uuid;
use punctual::{
    Client, Filter, Missed, NewTask, Overlap, Payload, Recurred, Recurrence, RecurrenceFilter,
    Result, TaskId, TaskState,
};

use crate::parse::{Entry, When};
use crate::run::Job;

/// What the names of the recurrences begin with. Those of others are left alone.
const PREFIX: &str = "crontab:";
const REBOOT: &str = "@reboot";
/// A command that has not started by then does not start: all workers were busy, or this program did not run.
const START_WITHIN: Duration = Duration::from_secs(60);

/// What [`store`] has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) created: usize,
    pub(crate) changed: usize,
    pub(crate) unchanged: usize,
    pub(crate) removed: usize,
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "lines with a time: {} new, {} changed, {} as before, {} removed",
            self.created, self.changed, self.unchanged, self.removed
        )
    }
}

/// Stores the lines with a time, and removes those that are no longer there. The same crontab again changes nothing.
///
/// As in cron, a command runs beside itself if it takes longer than its interval, and a slot at which this program did not run
/// is skipped. A slot that came less than a minute ago is not: a quick restart loses none.
pub(crate) fn store(client: &Client, entries: &[Entry]) -> Result<Stored> {
    let mut stored = Stored::default();
    let mut names = BTreeSet::new();
    let mut recurrences = Vec::new();
    for (name, entry) in names_of(entries) {
        if let When::At(rule) = &entry.when {
            let task = NewTask::new(entry.job.clone()).start_within(START_WITHIN);
            let recurrence = Recurrence::new(name.clone(), task)
                .rule(rule.clone())
                .overlap(Overlap::Allow)
                .missed(Missed::Skip);
            recurrences.push(recurrence);
            names.insert(name);
        }
    }
    for recurred in client.transaction(|tx| {
        let recurred = recurrences.into_iter().map(|one| tx.recur(one));
        recurred.collect::<Result<Vec<_>>>()
    })? {
        match recurred {
            Recurred::Created => stored.created += 1,
            Recurred::Changed => stored.changed += 1,
            Recurred::Unchanged => stored.unchanged += 1,
        }
    }
    for name in stored_names(client)? {
        if !names.contains(&name) {
            client.recurrences().remove(&name)?;
            stored.removed += 1;
        }
    }
    Ok(stored)
}

/// Schedules the `@reboot` lines. Those of an earlier start that have not begun are cancelled.
pub(crate) fn reboot(client: &Client, entries: &[Entry]) -> Result<Vec<TaskId>> {
    let waiting = Filter::new().kind(Job::KIND).tag(REBOOT);
    client.cancel_all(&waiting.state(TaskState::Pending))?;
    let entries = entries
        .iter()
        .filter(|entry| matches!(entry.when, When::Reboot));
    let tasks = entries.map(|entry| NewTask::new(entry.job.clone()).tag(REBOOT));
    let scheduled = client.schedule_many(tasks)?;
    Ok(scheduled.into_iter().map(|one| one.id()).collect())
}

/// Each entry with a name that depends on its text alone, and on how many lines above it are equal.
pub(crate) fn names_of(entries: &[Entry]) -> impl Iterator<Item = (String, &Entry)> {
    let mut counts = HashMap::new();
    entries.iter().map(move |entry| {
        let count = counts.entry(entry.text.as_str()).or_insert(0);
        *count += 1;
        let text = Uuid::new_v5(&Uuid::NAMESPACE_OID, entry.text.as_bytes());
        (format!("{PREFIX}{text}:{count}"), entry)
    })
}

fn stored_names(client: &Client) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut filter = RecurrenceFilter::new().name_prefix(PREFIX);
    loop {
        let page = client.recurrences().list(&filter)?;
        let found = page.recurrences().iter();
        names.extend(found.map(|recurrence| recurrence.name().to_owned()));
        match page.next() {
            Some(next) => filter = filter.after(next),
            None => return Ok(names),
        }
    }
}
