//! One binary for all tests of behaviour: a module a promise, or a kind of fault.

mod attempts;
mod bad_input;
mod deploy;
mod events;
mod face;
mod health;
mod kit;
mod lifecycle;
mod p02_not_early;
mod p03_not_late;
mod p06_transactions;
mod p08_cancel;
mod p09_order;
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
