//! The running parts of a scheduler.
//!
//! A service is stepped by `run_once(now) -> next wake`, and its thread only steps it in a loop. So a test steps the same
//! code by hand, on one thread, with its own clock.

pub(crate) mod attempts;
pub(crate) mod backoff;
pub(crate) mod call;
pub(crate) mod claimer;
pub(crate) mod costs;
pub(crate) mod dispatcher;
pub(crate) mod executor;
pub(crate) mod fibers;
pub(crate) mod finish;
pub(crate) mod flight;
pub(crate) mod gather;
pub(crate) mod job;
mod launched;
pub(crate) mod link;
pub(crate) mod maintenance;
pub(crate) mod places;
pub(crate) mod plan;
pub(crate) mod polls;
pub(crate) mod queue_order;
pub(crate) mod ready;
pub(crate) mod service;
pub(crate) mod settler;
pub(crate) mod shutdown;
pub(crate) mod suspects;
pub(crate) mod timers;
pub(crate) mod undecodable;
