//! The pace of a store: how long its dispatcher waits, how far it claims ahead, and how soon it asks again after an error.
//!
//! The right values depend on what a commit costs, so each engine has its own.
//!
//! # How long the end of an attempt waits to be settled
//!
//! At most the sum of two spans, on a store that works:
//!
//! 1. [`gather`](Pace::gather), before the dispatcher passes it to the store: only completions that no caller waits for, and
//!    only while tasks wait for a worker or callers write all the time.
//! 2. [`gather`](Pace::gather) again, in the store, where it may wait to join a caller's transaction. Then the dispatcher
//!    waits for the answer and makes the transaction itself once the turn is free. It checks that at once, and then every
//!    [`patience`](Pace::patience).
//!
//! The end of a task that a caller waits for skips the first span. An end that the next task of a limited queue waits for
//! skips both, as does every end while the scheduler stops. `runtime/gather.rs` decides both.

use std::time::Duration;

/// Spans and numbers that suit the cost of a store's commits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How much work may wait, claimed, for each worker, and how long claimed tasks may wait before they are given back.
    pub(crate) ahead: Duration,
    /// A task that takes longer is never claimed ahead of the workers.
    pub(crate) max_ahead_cost: Duration,
    /// The most tasks in one claim. More would gain little, and others wait for the transaction.
    pub(crate) max_claim: usize,
    /// The most claimed tasks that wait for a worker: enough to keep the workers busy with the quickest tasks while a
    /// transaction claims more.
    pub(crate) max_waiting: usize,
    /// With more lanes than this no claim is left with the store: every call that makes a task due would look at all lanes.
    pub(crate) max_standing_lanes: usize,
    /// How long a completion may wait to be settled together with others, and after that to join a caller's transaction.
    pub(crate) gather: Duration,
    /// Completions are gathered while at least this many tasks wait for a worker. Half as many completions as tasks wait are
    /// enough.
    pub(crate) gather_from: usize,
    /// How many gathered completions are enough while callers write all the time.
    pub(crate) gathered: usize,
    /// How often a thread that waits for its settlement checks whether the turn is free; between the checks a caller's
    /// transaction may take it along.
    pub(crate) patience: Duration,
    /// After this many operations, or this much time, a thread that leads the writes hands the turn on.
    pub(crate) max_lead_ops: usize,
    pub(crate) max_lead: Duration,
    /// How often a leader yields the processor to threads that may come to share its next transaction.
    pub(crate) yields: usize,
    /// For how long a leader waits, beyond that, for tasks whose receipts were just answered: as a share of the time that the
    /// last transaction took. At most [`max_lead`](Self::max_lead).
    pub(crate) regroup: f64,
    /// How soon to look again if tasks have waited for [`ahead`](Self::ahead) although a worker is free, which then does not
    /// get the processor.
    pub(crate) look_again: Duration,
    /// How long nothing is claimed after a start that could not be noted.
    pub(crate) after_refusal: Duration,
    /// How long tasks of a kind that could not be decoded here are left to other processes, once they are due.
    pub(crate) left_to_others: Duration,
    /// How long the store is left alone after an error, at first. The span doubles with each further error.
    pub(crate) first_backoff: Duration,
    /// How long the store is left alone after an error, at most.
    pub(crate) max_backoff: Duration,
    /// After this many settled tasks, ended tasks past their retention are pruned: two for each that was settled.
    pub(crate) prune_from: usize,
    /// The most tasks that a settling transaction prunes.
    pub(crate) max_prune: usize,
}

impl Pace {
    /// For a store in this process, whose commits take microseconds.
    pub(crate) const LOCAL: Self = Self {
        ahead: Duration::from_millis(5),
        max_ahead_cost: Duration::from_millis(1),
        max_claim: 256,
        max_waiting: 1024,
        max_standing_lanes: 64,
        gather: Duration::from_millis(2),
        gather_from: 8,
        gathered: 16,
        patience: Duration::from_micros(500),
        max_lead_ops: 256,
        max_lead: Duration::from_millis(5),
        yields: 2,
        regroup: 0.5,
        look_again: Duration::from_millis(1),
        after_refusal: Duration::from_millis(100),
        left_to_others: Duration::from_millis(50),
        first_backoff: Duration::from_millis(10),
        max_backoff: Duration::from_secs(1),
        prune_from: 32,
        max_prune: 500,
    };
}
