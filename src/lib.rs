//! A durable task scheduler that a program links in: give it a task and a time, and a handler runs it then, once, even if
//! the process, or the power, dies in between.

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
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod client;
mod error;
mod handler;
mod id;
mod model;
mod runtime;
mod scheduler;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod thread;
mod time;
mod wake;

pub use chrono;
pub use rusqlite;

pub use client::{Bulk, Cancel, Client, ClientBuilder, Receipt, Streamed, Submit};
pub use error::{Error, ErrorKind, Result};
pub use handler::TaskHandler;
pub use handler::context::TaskContext;
pub use handler::token::StopReason;
pub use id::TaskId;
pub use model::attempt::{Attempt, AttemptEnd};
pub use model::edit::Edit;
pub use model::event::{Event, EventKind};
pub use model::filter::{Cursor, DEFAULT_PAGE, Filter, MAX_FILTER_TERMS, MAX_PAGE, Page};
pub use model::health::Health;
pub use model::limits::{
    MAX_ATTEMPTS, MAX_BATCH, MAX_ERROR_BYTES, MAX_HISTORY, MAX_METADATA_BYTES, MAX_NAME_BYTES,
    MAX_PAYLOAD_BYTES, MAX_PRIORITY, MAX_TAGS,
};
pub use model::new_task::{
    DEFAULT_MAX_ATTEMPTS, DEFAULT_MAX_CRASHES, DEFAULT_PRIORITY, DEFAULT_QUEUE, NewTask, Scheduled,
};
pub use model::outcome::{Failure, Outcome, TaskResult};
pub use model::payload::Payload;
pub use model::query::{LaneStats, Stats};
pub use model::retention::Retention;
pub use model::retry::RetryPolicy;
pub use model::task::{Ended, Task, TaskState};
pub use scheduler::{Builder, MAX_WORKERS, Scheduler, Shutdown};
pub use store::Durability;
pub use store::hub::Events;
