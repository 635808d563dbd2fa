//! Several processes on one file: real ones, which are stopped, forked and killed.

mod copy;
mod crash;
mod fair;
mod flights;
mod forget;
mod fork;
mod full;
mod kit;
mod limit;
mod mount;
mod once;
mod order;
mod poison;
mod recurrences;
mod stale;
mod stop;
mod transaction;
mod version;
mod wake;
