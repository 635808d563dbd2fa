//! Recurrences: stored, read and changed.

use std::ops::Range;

use chrono::{DateTime, Utc};

use crate::client::wait::DEFAULT_EVENTS;
use crate::client::{Client, write};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::model::query::Query;
use crate::model::recurrence::edit::RecurrenceEdit;
use crate::model::recurrence::event::RecurrenceEvent;
use crate::model::recurrence::explain::Explanation;
use crate::model::recurrence::filter::{RecurrenceFilter, RecurrencePage};
use crate::model::recurrence::request::Recurrence;
use crate::model::recurrence::set::{Declared, RecurrenceSet};
use crate::model::recurrence::view::{
    Backfilled, Recurred, RecurrenceAction, RecurrenceStatus, Triggered,
};
use crate::store::events::Events;
use crate::time::Timestamp;

impl Client {
    /// Stores a recurrence by its name: creates it, or changes the one that is stored. A scheduler that has the file open makes
    /// its tasks, in whichever process.
    ///
    /// It makes tasks as soon as it is stored, if a scheduler has the file open. To change recurrences before any task is made at
    /// the start of a program, use [`Builder::recurrences`](crate::Builder::recurrences), or a client that is opened before the
    /// scheduler.
    ///
    /// It may be called at each start of a program: if the same was given before, nothing changes and no slot is lost, also if
    /// the recurrence was paused or edited since. If the rule is another, what is due by the old one is decided first; then the slots
    /// begin anew, after the call or as [`since`](Recurrence::since) says. The text of a rule counts: `@daily` is another than
    /// `0 0 * * *`. Any other change holds for the slots to come.
    ///
    /// One of a [set](Self::declare) is changed, too; the next program that declares the set changes it back.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] or [`ErrorKind::Payload`], naming the recurrence and what is wrong with it; else as
    /// [`schedule`](Self::schedule).
    ///
    /// # Example
    ///
    /// ```
    /// # use punctual::{NewTask, Overlap, Recurrence, Scheduler};
    /// # use std::time::Duration;
    /// # let scheduler = Scheduler::in_memory().start()?;
    /// let sync = Recurrence::new("sync", NewTask::with_kind("sync", &7).queue("crm"))
    ///     .every(Duration::from_secs(300))?
    ///     .overlap(Overlap::BufferOne);
    /// scheduler.recur(sync)?;
    /// # Ok::<(), punctual::Error>(())
    /// ```
    pub fn recur(&self, recurrence: Recurrence) -> Result<Recurred> {
        self.change_recurrences(write::recur(self.now(), recurrence))
    }

    /// Brings the stored recurrences of a set in line with what the program declares, in one commit. One that is stored, but of no
    /// set, joins it.
    ///
    /// # Errors
    ///
    /// As [`recur`](Self::recur); [`ErrorKind::Invalid`] also if two recurrences have the same name, or one is of another set.
    pub fn declare(&self, set: RecurrenceSet) -> Result<Declared> {
        self.change_recurrences(write::declare(self.now(), set))
    }

    /// Returns what can be done with stored recurrences.
    #[must_use]
    pub fn recurrences(&self) -> Recurrences<'_> {
        Recurrences(self)
    }
}

/// What can be done with stored recurrences. Made by [`Client::recurrences`].
///
/// # Example
///
/// ```
/// # use punctual::{NewTask, Recurrence, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// let nightly = Recurrence::new("nightly", NewTask::with_kind("report", &7)).cron("0 2 * * *")?;
/// scheduler.recur(nightly)?;
/// scheduler.recurrences().pause("nightly")?;
/// assert!(scheduler.recurrences().get("nightly")?.unwrap().is_paused());
/// scheduler.recurrences().resume("nightly")?;
/// scheduler.recurrences().remove("nightly")?;
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Recurrences<'a>(&'a Client);

impl Recurrences<'_> {
    /// Reads a recurrence; `None` if there is none of that name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if it is damaged, [`ErrorKind::Storage`] if the file cannot be read.
    pub fn get(self, name: &str) -> Result<Option<RecurrenceStatus>> {
        let answer = self.0.store.read(Query::Recurrence(name.to_owned()))?;
        Ok(answer.recurrence().map(|status| *status))
    }

    /// Reads a page of the matching recurrences, in the order of their names. One that cannot be read is left out; `get` says
    /// what is wrong with it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the filter is not allowed; [`ErrorKind::Storage`] if the file cannot be read.
    pub fn list(self, filter: &RecurrenceFilter) -> Result<RecurrencePage> {
        filter.check()?;
        let answer = self.0.store.read(Query::Recurrences(filter.clone()))?;
        Ok(answer.recurrences())
    }

    /// Tells what became of the slots from the start of a range up to its end, and what will: which task each made, or why it
    /// made none. At most 1,000 slots; [`Explanation::next`] says where to go on.
    ///
    /// This is read from the record of decisions, so it knows of tasks that are pruned; a slot whose task is stored is told as
    /// made in any case. Slots from before the recurrence was stored are not among them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is none of that name; [`ErrorKind::Invalid`] if the range is empty or outside the years
    /// 1970 to 9999; else as [`get`](Self::get).
    pub fn explain(self, name: &str, range: Range<DateTime<Utc>>) -> Result<Explanation> {
        let (from, to) = instants(&range)?;
        let query = Query::Explain {
            name: name.to_owned(),
            from,
            to,
            now: self.0.now(),
        };
        let explained = self.0.store.read(query)?.explained();
        explained.ok_or_else(|| write::of_recurrence(name, write::no_recurrence()))
    }

    /// Stops making tasks, in every process, until [`resume`](Self::resume). Live tasks go on; slots that wait for their end
    /// wait on. What is due already is decided first. No completion is [expected](Recurrence::expect_within) during the pause.
    ///
    /// If its failures have paused it, or it is not declared any more, this makes it a pause by a caller: a program that declares
    /// it again does not resume it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is none of that name; else as [`Client::schedule`].
    pub fn pause(self, name: &str) -> Result<()> {
        self.change(name, RecurrenceAction::Pause)
    }

    /// Makes tasks again, from the next slot on. The slots that came meanwhile are recorded as skipped.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause); [`ErrorKind::Corrupt`] if it is damaged.
    pub fn resume(self, name: &str) -> Result<()> {
        self.change(name, RecurrenceAction::Resume)
    }

    /// Removes a recurrence, with the record of its slots and with those that wait. Its tasks stay. One that is stored under its
    /// name later is another, which knows nothing of its slots; but a slot of both has one task as long as that is stored.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    pub fn remove(self, name: &str) -> Result<()> {
        self.change(name, RecurrenceAction::Remove)
    }

    /// Makes a task now, besides those of the slots, if the overlap policy lets it. It has no slot and does not count for
    /// [`max_count`](Recurrence::max_count). A paused recurrence makes it, too.
    ///
    /// # Errors
    ///
    /// As [`resume`](Self::resume).
    pub fn trigger(self, name: &str) -> Result<Triggered> {
        self.0.write(write::trigger(name))
    }

    /// Changes a recurrence for the slots to come.
    ///
    /// # Errors
    ///
    /// As [`resume`](Self::resume); [`ErrorKind::Invalid`] if the change is not allowed, [`ErrorKind::Payload`] if the new
    /// payload cannot be encoded or is of another kind.
    pub fn edit(self, name: &str, edit: RecurrenceEdit) -> Result<()> {
        self.0
            .change_recurrences(write::edit_recurrence(name, edit))
    }

    /// Makes the tasks of the slots in a past range that made none: those that were skipped, and those from before the
    /// recurrence was stored, by the rule as it is now. In commits of up to 500 slots.
    ///
    /// Each slot makes at most one task, also if this is called again, even after the tasks are pruned: where the record of
    /// decisions is gone, none is made, and [`Backfilled`] counts them. The overlap policy does not apply: all are made at once,
    /// so give them a queue with a limit if they must not run side by side, and look at the range with [`explain`](Self::explain)
    /// first: a wrong year may mean a million tasks. They do not count for
    /// [`max_count`](Recurrence::max_count) or
    /// [`pause_after_failures`](Recurrence::pause_after_failures). Slots that are still to be decided are left alone.
    ///
    /// # Errors
    ///
    /// As [`resume`](Self::resume); [`ErrorKind::Invalid`] if the range is empty or outside the years 1970 to 9999. The commits
    /// before the error stand; calling again is safe.
    pub fn backfill(self, name: &str, range: Range<DateTime<Utc>>) -> Result<Backfilled> {
        let (mut from, to) = instants(&range)?;
        let mut all = Backfilled::default();
        loop {
            let (filled, next) = self.0.write(write::backfill(name, from, to))?;
            all.made += filled.made;
            all.existing += filled.existing;
            all.forgotten += filled.forgotten;
            match next {
                Some(next) => from = next,
                None => return Ok(all),
            }
        }
    }

    /// Lets the recurrence go on with the slots from this instant on, past or future, whatever was decided before. What is due is
    /// decided first. A task that a slot has made and that is still stored is not made again. Slots from this instant on that
    /// wait for the end of a live task are decided anew; those between now and a future instant are passed over. Nothing is
    /// decided anew once the recurrence has made as many tasks as it may. This is for a clock that was far ahead and was set
    /// back: the recurrence would wait until the clock comes where it was.
    ///
    /// # Errors
    ///
    /// As [`resume`](Self::resume); [`ErrorKind::Invalid`] outside 1970 to 9999.
    pub fn reset(self, name: &str, from: DateTime<Utc>) -> Result<()> {
        self.0.change_recurrences(write::reset(name, from))
    }

    /// Subscribes to what this client, its clones, and the scheduler that it belongs to do with recurrences, holding up to 1,024
    /// events, as [`Client::events`] does to what happens to tasks.
    #[must_use]
    pub fn events(self) -> Events<RecurrenceEvent> {
        let signals = self.0.store.signals();
        signals.recurrence_subscriptions().subscribe(DEFAULT_EVENTS)
    }

    fn change(self, name: &str, action: RecurrenceAction) -> Result<()> {
        self.0
            .change_recurrences(write::change_recurrence(name, action))
    }
}

/// # Errors
///
/// `Invalid` if the range is empty.
fn instants(range: &Range<DateTime<Utc>>) -> Result<(Timestamp, Timestamp)> {
    let (from, to) = (
        Timestamp::rounded_up(range.start)?,
        Timestamp::rounded_up(range.end)?,
    );
    if from < to {
        return Ok((from, to));
    }
    Err(Error::invalid(format!(
        "the range from {} to {} is empty",
        range.start, range.end
    )))
}
