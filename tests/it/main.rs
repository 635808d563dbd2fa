//! One binary for all tests of behaviour: a module a promise, or a kind of fault.

mod attempts;
mod face;
#[cfg(target_os = "linux")]
mod process_crash;
#[cfg(target_os = "linux")]
mod process_kit;
#[cfg(target_os = "linux")]
mod process_order;
#[cfg(target_os = "linux")]
mod process_poison;
#[cfg(target_os = "linux")]
mod process_stale;
#[cfg(target_os = "linux")]
mod process_stop;
mod secrecy;
