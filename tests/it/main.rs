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
mod process_copy;
#[cfg(target_os = "linux")]
mod process_crash;
#[cfg(target_os = "linux")]
mod process_fair;
#[cfg(target_os = "linux")]
mod process_forget;
#[cfg(target_os = "linux")]
mod process_fork;
#[cfg(target_os = "linux")]
mod process_full;
#[cfg(target_os = "linux")]
mod process_kit;
#[cfg(target_os = "linux")]
mod process_limit;
#[cfg(target_os = "linux")]
mod process_mount;
#[cfg(target_os = "linux")]
mod process_once;
#[cfg(target_os = "linux")]
mod process_order;
#[cfg(target_os = "linux")]
mod process_poison;
#[cfg(target_os = "linux")]
mod process_stale;
#[cfg(target_os = "linux")]
mod process_stop;
#[cfg(target_os = "linux")]
mod process_transaction;
#[cfg(target_os = "linux")]
mod process_version;
#[cfg(target_os = "linux")]
mod process_wake;
mod queues;
mod retry;
mod secrecy;
mod shutdown;
mod testing_api;
mod tidy;
