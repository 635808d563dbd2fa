//! One binary for all tests of behaviour: a module a promise, or a kind of fault. P13, the cost of a call, is tested where the
//! statements are, in `src/store/sqlite/query_plans.rs`.

mod asynchronous;
mod bad_input;
mod context;
mod deploy;
mod events;
mod face;
mod health;
mod kit;
mod lifecycle;
mod oracles;
#[cfg(feature = "rrule")]
mod oracles_rrule;
mod p01_durable;
mod p02_not_early;
mod p03_not_late;
mod p04_at_least_once;
mod p05_at_most_once;
mod p06_transactions;
mod p07_no_overlap;
mod p08_cancel;
mod p09_order;
mod p10_recurrences;
mod p11_crash_recovery;
mod p12_never_quiet;
mod p14_bounded;
mod payloads;
#[cfg(target_os = "linux")]
mod process;
mod queues;
mod retry;
mod secrecy;
mod shutdown;
mod testing_api;
mod tidy;
