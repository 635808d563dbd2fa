//! A durable task scheduler that a Rust program links in. Give it a task and a time: a handler runs the task then, once, even
//! if the process or the power fails in between. One SQLite file, no server. Handlers are plain functions on threads, or futures on
//! any async runtime or on none.
//!
//! ```
//! use punctual::{NewTask, Outcome, Payload, Scheduler, TaskContext, TaskHandler, TaskResult};
//! use serde::{Deserialize, Serialize};
//! use std::time::Duration;
//!
//! #[derive(Serialize, Deserialize)]
//! struct Remind { user: u64, text: String }
//!
//! impl Payload for Remind {
//!     const KIND: &'static str = "remind";
//! }
//!
//! struct Reminder { sender: String }
//!
//! impl TaskHandler for Reminder {
//!     type Payload = Remind;
//!
//!     fn run(&self, remind: Remind, _cx: &TaskContext) -> TaskResult {
//!         println!("{} to {}: {}", self.sender, remind.user, remind.text);
//!         Ok(Outcome::done())
//!     }
//! }
//!
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("app.db");
//! let scheduler = Scheduler::builder(&path)
//!     .handler(Reminder { sender: "me".into() })
//!     .workers(4)
//!     .start()?;
//! let remind = Remind { user: 7, text: "drink some water".into() };
//! let task = scheduler.schedule(NewTask::new(remind).after(Duration::from_millis(20)))?.id();
//! scheduler.wait(task, Duration::from_secs(10))?;
//! scheduler.shutdown(Duration::from_secs(30))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How a task runs
//!
//! ```text
//!          schedule            claim              Ok
//! NewTask ─────────► Pending ─────────► Running ──────► Completed
//!                    │  ▲                │  │
//!                    │  └────────────────┘  ├─────────► Failed
//!                    │  retry, snooze,      │  no attempt left, fatal error,
//!                    │  rescue, give-back   │  or too many crashes
//!                    │                      └─────────► Cancelled
//!                    ├─ cancel ───────────────────────► Cancelled
//!                    └─ start deadline passed ────────► Failed
//! ```
//!
//! [`Client::schedule`] writes the task and returns once it is on disk. At the due time the dispatcher claims the task, and a
//! worker notes the start and calls the handler. The handler's answer is then settled: the task is completed, failed,
//! cancelled, snoozed, or tried again as the [`RetryPolicy`] says. A claim belongs to one process, which holds a kernel lock
//! that ends with the process. When a process dies, another scheduler takes back its tasks: those not started wait as before,
//! those started run again at no cost in attempts.
//!
//! # Promises
//!
//! - **P1 durable.** When `schedule` returns `Ok`, the task survives `kill -9` and, at the default [`Durability`], a loss
//!   of power.
//! - **P2 not early.** No attempt starts before its `scheduled_at`, by the scheduler's clock.
//! - **P3 not late.** With a free worker, a due task starts as soon as the timer wakes the process, plus one small commit.
//!   Nothing is polled.
//! - **P4 at least once.** Every acknowledged task runs, or is stored, until it has ended and its [`Retention`] is over. A
//!   crash costs a started task none of its attempts, up to its [`max_crashes`](NewTask::max_crashes).
//! - **P5 at most once.** A task with [`Delivery::AtMostOnce`] is never started twice, also across a loss of power: its claim
//!   is synced before it starts, and whatever ends its attempt is final.
//! - **P6 exactly-once effects.** What a handler writes in the same file by [`TaskContext::complete`] commits with the
//!   completion, or not at all.
//! - **P7 no overlap.** Two attempts of one task never run at the same time. A stale attempt can change nothing.
//! - **P8 cancel tells the truth.** See [`Cancel`].
//! - **P9 order.** At each claim, of the due tasks of a queue: lowest priority value, then `scheduled_at`, then insertion.
//! - **P10 recurrences.** Each slot of a [`Recurrence`] makes at most one task, across processes, restarts and changes of the
//!   clock. A missed slot is handled by its policy, [`Missed`], never silently.
//! - **P11 crash recovery.** A dead process's tasks are runnable again at once when the next scheduler opens the file, and
//!   within a second if another has it open. A living process's tasks are never taken, however slow it is.
//! - **P12 never goes quiet.** No error, panic or slow disk ends a loop silently. Only a file that is damaged, replaced,
//!   read-only or of a newer schema stops the store; every call and [`health`](Scheduler::health) then name the reason.
//!   `health` also says since when writes fail. For a readiness probe use [`probe`](Scheduler::probe).
//! - **P13 flat cost.** Scheduling and claiming visit only the rows that they take, however many tasks the file holds.
//! - **P14 bounded.** Memory does not grow with the backlog, nor with queues that are no longer used. Ended tasks are pruned by
//!   default. The file and its log stop growing when the load does.
//!
//! What it cannot promise: effects outside the file happen at least once (or at most once, with that delivery), never exactly
//! once, so a handler should tolerate being called twice. A handler thread cannot be killed, only asked to stop; a future is
//! dropped at an `.await`. All processes of a file are on one machine. A process that is stopped inside a commit holds SQLite's lock until it continues or dies. A
//! bulk call or a [`transaction`](Client::transaction) delays other writes by its own length. After a loss of power, never
//! after a crash, a task that was reported completed may run again.
//!
//! # Files
//!
//! Beside `app.db` lie SQLite's log (`app.db-wal`, `app.db-shm`) and the folder of the processes' lock files
//! (`app.db.punctual`). They belong together: move or delete them together, while no process has the file open, and copy the
//! file by [`backup`](Sqlite::backup). All processes of a file run as one user. If the log, or the file itself, is moved or
//! removed while a store has it open, the store stops with [`ErrorKind::Replaced`].
//!
//! # What is where
//!
//! - [`Scheduler`] owns the file and the threads. [`Client`] does everything but run tasks; a scheduler derefs to one.
//! - [`NewTask`] is a task to be scheduled: when, in which queue, with how many attempts.
//! - [`Recurrence`] makes tasks by a [`Rule`]: when, in which time zone, and what becomes of missed and overlapping slots;
//!   [`Recurrences`] reads and changes those that are stored. The page [`recurrences`] has tables of what happens when.
//! - [`Tx`] is a transaction that also holds the user's own SQL; [`Sqlite`] is what only a store in SQLite can do.
//! - [`TaskHandler`], or a closure, runs a kind of task; [`TaskContext`] is the attempt it runs; [`Outcome`] and [`Failure`]
//!   are its answers.
//! - [`AsyncTaskHandler`], or a closure, runs a kind of task as a future; [`AsyncContext`] is its attempt, and [`Spawn`] the executor
//!   that it runs on. [`AsyncClient`] is the client for async code.
//! - [`Task`] and [`Attempt`] show what is stored; [`Filter`] and [`Page`] find it; an [`Edit`] changes it; an [`Event`]
//!   reports a change.
//! - [`Submit`] makes a client's writes without waiting for them, each with a [`Receipt`] to wait for or to await.
//! - [`RetryPolicy`], [`Delivery`], [`Durability`] and [`Retention`] are the settings to decide on; [`Health`] and [`Stats`]
//!   tell how it goes.
//! - [`Error`] is opaque: decide by its [`ErrorKind`].
//!
//! # Features
//!
//! - `bundled` (default): compiles SQLite in. Without it the system's SQLite is linked, and refused at run time if that version
//!   can lose commits (before 3.51.3, except 3.50.7 and 3.44.6 and later in their lines).
//! - `tokio`: `Builder::tokio` and [`Spawn`] for `tokio::runtime::Handle`. Other executors need no feature.
//! - `rrule`: `Rule::calendar`, rules as calendars write them (RFC 5545).
//! - `testing`: `TestClock` and `Stepper`, for tests that move time by hand.
//!
//! `rusqlite`, `chrono` and `uuid` are re-exported: their versions are part of this crate's interface. Rust 1.89 or later;
//! Linux and other Unix systems.

#![forbid(unsafe_code)]
#![warn(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::print_stdout
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::print_stdout,
        clippy::type_complexity,
        reason = "tests fail by panics, print their seeds, and are written as tables"
    )
)]

mod client;
mod clock;
mod error;
mod handler;
mod id;
mod log;
mod model;
mod panics;
mod process;
pub mod recurrences;
mod runtime;
mod scheduler;
mod store;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod thread;
mod time;
mod wake;

/// Compiles the README's examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;

pub use chrono;
pub use rusqlite;
pub use uuid;

pub use client::Client;
pub use client::async_recurrences::AsyncRecurrences;
pub use client::asynchronous::AsyncClient;
pub use client::builder::ClientBuilder;
pub use client::recurrences::Recurrences;
pub use client::sqlite::Sqlite;
pub use client::submit::{Receipt, Submit, SubmitRecurrences};
pub use client::transaction::Tx;
pub use error::{Error, ErrorKind, Result};
pub use handler::async_context::{AsyncContext, Stopped};
pub use handler::context::TaskContext;
pub use handler::spawn::{Spawn, TaskFuture};
pub use handler::token::StopReason;
pub use handler::{AsyncTaskHandler, TaskHandler};
pub use id::TaskId;
pub use model::answer::{Bulk, Cancel, Streamed};
pub use model::attempt::{Attempt, AttemptEnd};
pub use model::delivery::Delivery;
pub use model::durability::Durability;
pub use model::edit::Edit;
pub use model::event::{Event, EventKind};
pub use model::filter::{Cursor, DEFAULT_PAGE, Filter, MAX_FILTER_TERMS, MAX_PAGE, Page};
pub use model::health::{Health, SlowTransaction};
pub use model::limits::{
    DEFAULT_MAX_ATTEMPTS, DEFAULT_MAX_CRASHES, DEFAULT_PRIORITY, DEFAULT_QUEUE, MAX_ATTEMPTS,
    MAX_BATCH, MAX_ERROR_BYTES, MAX_HISTORY, MAX_METADATA_BYTES, MAX_NAME_BYTES, MAX_PAYLOAD_BYTES,
    MAX_PRIORITY, MAX_TAGS,
};
pub use model::new_task::{NewTask, Scheduled};
pub use model::outcome::{Failure, Outcome, TaskResult};
pub use model::payload::Payload;
pub use model::query::{LaneStats, Stats};
pub use model::recurrence::edit::RecurrenceEdit;
pub use model::recurrence::event::{RecurrenceEvent, RecurrenceEventKind};
pub use model::recurrence::explain::{ExplainedSlot, Explanation, SlotFate};
pub use model::recurrence::filter::{RecurrenceFilter, RecurrencePage};
pub use model::recurrence::policy::{Missed, Overlap, SkipReason};
pub use model::recurrence::request::Recurrence;
pub use model::recurrence::rule::Rule;
pub use model::recurrence::set::{Declared, RecurrenceSet, Undeclared};
pub use model::recurrence::slots::{Fold, Gap};
pub use model::recurrence::view::{Backfilled, PausedBy, Recurred, RecurrenceStatus, Triggered};
pub use model::retention::Retention;
pub use model::retry::RetryPolicy;
pub use model::task::{Ended, Task, TaskState};
pub use scheduler::builder::{Builder, MAX_IN_FLIGHT, MAX_WORKERS};
pub use scheduler::{Scheduler, Shutdown};
pub use store::events::{EventStream, Events, Received};
pub use store::sqlite::settings::SqliteSettings;
