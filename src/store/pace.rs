//! The pace of a store: how long its dispatcher waits, how far it claims ahead, and how soon it asks again after an error.
//!
//! What is right follows from what a commit costs, so each engine has its own.
//!
//! # How long the end of an attempt waits to be settled
//!
//! At most the sum of two spans, on a store that works:
//!
//! 1. [`gather`](Pace::gather), before the dispatcher passes it to the store: only completions that nobody waits for, and
//!    only while the workers have tasks waiting or callers write all the time. `runtime/gather.rs` decides that.
//! 2. [`gather`](Pace::gather) again, in the store: it may wait there for a caller's transaction to share. Then the
//!    dispatcher asks for the answer, and after [`patience`](Pace::patience) without such a transaction the store makes one.
//!
//! What must not wait, because a caller or the next task of a limited queue waits for it, skips both.

use std::time::Duration;

/// Spans and numbers that fit the commits of a store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How long the claimed tasks that wait may keep each worker busy, and how long they may wait before they are given back.
    pub(crate) ahead: Duration,
    /// A task that takes longer is never claimed ahead of the workers.
    pub(crate) max_ahead_cost: Duration,
    /// The most tasks in one claim: more share a transaction for little gain, and others wait for it.
    pub(crate) max_claim: usize,
    /// The most tasks that wait for a worker: the workers should not run out of the quickest while a transaction claims more.
    pub(crate) max_waiting: usize,
    /// With more lanes than this no claim is left with the store: every call that makes something due would look at all.
    pub(crate) max_standing_lanes: usize,
    /// How long a completion may wait to be settled together with others, and then for a caller's transaction to share.
    pub(crate) gather: Duration,
    /// From how many waiting tasks on completions are gathered. Half as many as tasks wait are enough.
    pub(crate) gather_from: usize,
    /// How many completions are enough while callers write all the time.
    pub(crate) gathered: usize,
    /// How long the store lets a settlement that is waited for wait for a caller's transaction to share.
    pub(crate) patience: Duration,
    /// When to look again after a free worker that has tasks waiting and does not get the processor.
    pub(crate) look_again: Duration,
    /// How long nothing is claimed after a start that could not be noted.
    pub(crate) after_refusal: Duration,
    /// How long tasks of a kind that could not be decoded here are left to other processes, once they are due.
    pub(crate) left_to_others: Duration,
    /// How long after an error the store is left alone, at first. It doubles with each further error.
    pub(crate) first_backoff: Duration,
    /// How long after an error the store is left alone, at most.
    pub(crate) max_backoff: Duration,
    /// After how many settled tasks expired ones are pruned: two for each that was settled.
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
        look_again: Duration::from_millis(1),
        after_refusal: Duration::from_millis(100),
        left_to_others: Duration::from_millis(50),
        first_backoff: Duration::from_millis(10),
        max_backoff: Duration::from_secs(1),
        prune_from: 32,
        max_prune: 500,
    };
}
