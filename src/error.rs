//! The one error type of the crate: a kind to decide by, a sentence to read, a cause to inspect.
//!
//! Expected answers (a task that is already there, a cancel that came too late) are values, not errors.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::id::TaskId;

/// The result of every fallible call of the crate.
///
/// # Example
///
/// ```
/// use punctual::{NewTask, Result, Scheduler, TaskId};
///
/// fn remind(scheduler: &Scheduler, user: u64) -> Result<TaskId> {
///     Ok(scheduler.schedule(NewTask::with_kind("remind", &user))?.id())
/// }
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, for a program to decide by.
///
/// # Example
///
/// ```
/// use punctual::{Error, ErrorKind};
///
/// fn advice(error: &Error) -> &'static str {
///     match error.kind() {
///         ErrorKind::Busy | ErrorKind::Full | ErrorKind::Storage => "nothing was stored: try again",
///         ErrorKind::Unknown => "schedule again by the same id",
///         _ => "do not try again",
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is outside what its documentation allows. Nothing was done.
    Invalid,
    /// A payload or result cannot be encoded, cannot be decoded, or is too large.
    Payload,
    /// There is no task with that id.
    NotFound,
    /// The task is not in a state that allows the call.
    State,
    /// The busy timeout was over: another connection held the write lock, the writes before this one took too long, or too many
    /// waited. Nothing was stored.
    Busy,
    /// The disk, or the file's page limit, is full. Nothing was stored.
    Full,
    /// The storage failed. Nothing was stored.
    Storage,
    /// The disk failed during a commit: the operation may or may not be stored.
    Unknown,
    /// The file is damaged, or is not a database.
    Corrupt,
    /// The file was moved, deleted or replaced while this process had it open. The path can be opened again once all schedulers
    /// (a shutdown is not enough), clients and own connections of this process to the former file are dropped.
    Replaced,
    /// The file or its folder cannot be written.
    ReadOnly,
    /// The file has a newer schema than this version of the crate knows, or SQLite is too old to be safe.
    Version,
    /// The file system or the storage cannot do what was asked.
    Unsupported,
    /// The store was closed or stopped.
    Closed,
    /// The process was forked, without `exec`, while a store was open. The child can use neither its parent's stores nor any
    /// other file.
    ///
    /// The parent's file is refused because a child inherits SQLite's record of the locks, but not the locks. Another file is
    /// no safer: only the thread that forked goes on in the child. A mutex that another thread held at that moment, in SQLite
    /// or in the allocator, is never released there, so any call might wait for ever. Until it calls `exec`, POSIX allows the
    /// child of a process with several threads only what is safe in a signal handler, and every open store has threads or may
    /// be used by several.
    ///
    /// Fork before the first store is opened or after the last one is dropped, or start another program by
    /// [`std::process::Command`]: that program may open any file.
    Forked,
    /// A call on a store by a thread that is writing to that store: from inside a transaction, or from a `tracing` subscriber
    /// or SQL function that was called during a write. The call would wait for itself, so nothing was done.
    Reentrant,
    /// A caller's transaction took longer than its timeout. Nothing was stored.
    Timeout,
    /// The caller's own SQL failed inside a transaction: the error's [`source`](StdError::source) is the one from `rusqlite`.
    Sql,
}

/// An error of the crate.
///
/// Opaque: decide by [`kind`](Self::kind), show it to people by `Display`, find the cause by
/// [`source`](StdError::source). No error text contains a payload.
///
/// # Example
///
/// ```
/// use punctual::{ErrorKind, Scheduler};
///
/// let error = Scheduler::builder("").start().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Invalid);
/// assert!(!error.is_retryable());
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone, thiserror::Error)]
#[error("{context}{}", Cause(source))]
struct Inner {
    kind: ErrorKind,
    context: Arc<str>,
    task: Option<TaskId>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// Shows a cause after its context, on the same line.
struct Cause<'a>(&'a Option<Arc<dyn StdError + Send + Sync>>);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            context: context.into().into(),
            task: None,
            source: None,
        }))
    }

    pub(crate) fn invalid(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, context)
    }

    /// The error of a write by an attempt that no longer holds its task.
    pub(crate) fn stale(id: TaskId) -> Self {
        Self::new(
            ErrorKind::State,
            format!("the task {id} is not this attempt's any more"),
        )
        .with_task(id)
    }

    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    pub(crate) fn with_task(mut self, id: TaskId) -> Self {
        self.0.task = Some(id);
        self
    }

    /// The same error, as the reason why `context` did not happen.
    pub(crate) fn in_context(mut self, context: &str) -> Self {
        self.0.context = format!("{context}: {}", self.0.context).into();
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later without a change by the caller: the lock was held, the disk was full, the
    /// storage failed, or the outcome of a commit is unknown (scheduling again by the same id is safe).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::Busy | ErrorKind::Full | ErrorKind::Storage | ErrorKind::Unknown
        )
    }

    /// The task that the failed call was about. Every error of [`schedule`](crate::Client::schedule) names its task, which can
    /// then be scheduled again by the same id.
    #[must_use]
    pub fn task_id(&self) -> Option<TaskId> {
        self.0.task
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.0.kind);
        debug.field("message", &self.0.to_string());
        if let Some(task) = self.0.task {
            debug.field("task", &task);
        }
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_and_why_on_one_line() {
        let error = Error::new(ErrorKind::Busy, "cannot claim from queue \"mail\"")
            .with_source("database is locked");
        assert_eq!(
            error.to_string(),
            "cannot claim from queue \"mail\": database is locked"
        );
        assert!(error.is_retryable());
        assert!(error.source().is_some());
        assert_eq!(
            error.in_context("no").to_string(),
            "no: cannot claim from queue \"mail\": database is locked"
        );
    }

    #[test]
    fn an_error_keeps_the_task_it_is_about() {
        let id = TaskId::new();
        let error = Error::invalid("x").with_task(id);
        assert_eq!(error.clone().task_id(), Some(id));
        assert!(format!("{error:?}").contains(&id.to_string()));
    }
}
