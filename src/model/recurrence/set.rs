//! A program's own recurrences, declared as a named set.

use super::definition::Registration;
use super::request::Recurrence;
use crate::error::{Error, Result};
use crate::model::limits::check_name;
use crate::time::Timestamp;

/// The most recurrences of a set.
const MAX_DECLARED: usize = 10_000;

/// The recurrences that a program declares as its own: those that are stored are brought in line with them, and no others are
/// touched.
///
/// Give it to [`Builder::recurrences`](crate::Builder::recurrences), to be declared at each start, or to
/// [`Client::declare`](crate::Client::declare). What was edited or paused at run time stays until the declared recurrence itself
/// is another. A set whose revision is lower than the stored one changes nothing, so an old version of the program that starts
/// beside a new one, as during a deploy, undoes nothing.
///
/// # Example
///
/// ```
/// use punctual::{NewTask, Recurrence, RecurrenceSet, Scheduler, Undeclared};
///
/// let set = RecurrenceSet::new("reports")
///     .revision(3)
///     .undeclared(Undeclared::Remove)
///     .recurrence(Recurrence::new("nightly", NewTask::with_kind("report", &1)).cron("0 2 * * *")?)
///     .recurrence(Recurrence::new("weekly", NewTask::with_kind("report", &7)).cron("0 3 * * MON")?);
/// let scheduler = Scheduler::in_memory().recurrences(set).start()?;
/// assert!(scheduler.recurrences().get("weekly")?.is_some());
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a set is declared only if it is given to a builder or a client"]
pub struct RecurrenceSet {
    name: String,
    revision: u64,
    undeclared: Undeclared,
    recurrences: Vec<Recurrence>,
}

/// What becomes of a recurrence that a set declared before, and does not any more.
///
/// # Example
///
/// ```
/// use punctual::{RecurrenceSet, Undeclared};
///
/// let set = RecurrenceSet::new("reports").undeclared(Undeclared::Remove);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Undeclared {
    /// It is paused. If it is declared again, it goes on. The default.
    #[default]
    Pause,
    /// It is removed. Its tasks stay.
    Remove,
}

impl RecurrenceSet {
    /// An empty set. The name is the program's, or that of a part of it.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            revision: 0,
            undeclared: Undeclared::default(),
            recurrences: Vec::new(),
        }
    }

    /// The revision, which grows with the program's versions. Default: 0.
    pub fn revision(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }

    /// What becomes of those that the set declared before, and does not any more. Default: [`Undeclared::Pause`].
    pub fn undeclared(mut self, undeclared: Undeclared) -> Self {
        self.undeclared = undeclared;
        self
    }

    /// Adds a recurrence. At most 10,000.
    pub fn recurrence(mut self, recurrence: Recurrence) -> Self {
        self.recurrences.push(recurrence);
        self
    }

    /// # Errors
    ///
    /// `Invalid` or `Payload`, naming what is wrong.
    pub(crate) fn prepare(self, now: Timestamp) -> Result<Declaration> {
        check_name("name of the set of recurrences", &self.name)?;
        if self.recurrences.len() > MAX_DECLARED {
            return Err(Error::invalid(format!(
                "the set {:?} has over {MAX_DECLARED} recurrences",
                self.name
            )));
        }
        let revision = i64::try_from(self.revision).map_err(|_| {
            Error::invalid(format!("the set {:?} has a revision over 2^63", self.name))
        })?;
        let mut registrations = Vec::with_capacity(self.recurrences.len());
        let mut names = std::collections::HashSet::new();
        for recurrence in self.recurrences {
            let of_set = |error: Error| error.in_context(&format!("the set {:?}", self.name));
            let registration = recurrence.prepare(now).map_err(of_set)?;
            if !names.insert(registration.name.clone()) {
                return Err(Error::invalid(format!(
                    "the set {:?} has two recurrences {:?}",
                    self.name, registration.name
                )));
            }
            registrations.push(registration);
        }
        Ok(Declaration {
            set: self.name,
            revision,
            undeclared: self.undeclared,
            registrations,
        })
    }
}

/// A checked set on its way to the store.
#[derive(Debug, Clone)]
pub(crate) struct Declaration {
    pub(crate) set: String,
    pub(crate) revision: i64,
    pub(crate) undeclared: Undeclared,
    pub(crate) registrations: Vec<Registration>,
}

/// What [`Client::declare`](crate::Client::declare) answers.
///
/// # Example
///
/// ```
/// # use punctual::{Declared, NewTask, Recurrence, RecurrenceSet, Scheduler};
/// # let scheduler = Scheduler::in_memory().start()?;
/// let nightly = Recurrence::new("nightly", NewTask::with_kind("report", &1)).cron("0 2 * * *")?;
/// let set = RecurrenceSet::new("reports").revision(3).recurrence(nightly);
/// let declared: Declared = scheduler.declare(set)?;
/// assert_eq!((declared.created_count(), declared.is_outdated()), (1, false));
/// let older = scheduler.declare(RecurrenceSet::new("reports").revision(2))?;
/// assert!(older.is_outdated());
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Declared {
    pub(crate) is_outdated: bool,
    pub(crate) created: usize,
    pub(crate) changed: usize,
    pub(crate) unchanged: usize,
    pub(crate) undeclared: usize,
}

impl Declared {
    /// Whether the set was declared with a higher revision before: nothing was changed.
    #[must_use]
    pub fn is_outdated(self) -> bool {
        self.is_outdated
    }

    /// Recurrences that are new.
    #[must_use]
    pub fn created_count(self) -> usize {
        self.created
    }

    /// Recurrences that are declared otherwise than before, or again.
    #[must_use]
    pub fn changed_count(self) -> usize {
        self.changed
    }

    /// Recurrences that are declared as before.
    #[must_use]
    pub fn unchanged_count(self) -> usize {
        self.unchanged
    }

    /// Recurrences that were paused or removed, because they are not declared any more.
    #[must_use]
    pub fn undeclared_count(self) -> usize {
        self.undeclared
    }
}

/// The answer of the store to a [`Declaration`].
#[derive(Debug, Clone)]
pub(crate) enum Declaring {
    Done(Declared),
    /// A recurrence of the set's is of another set.
    Refused {
        recurrence: String,
        set: String,
    },
}
