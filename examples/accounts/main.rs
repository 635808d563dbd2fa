//! Money in the scheduler's own file: a transfer is a task, and what its handler writes commits with its completion. So each
//! transfer is made exactly once, whichever process dies. To show this, three processes on one file order and make transfers
//! and are killed at random, again and again. Then the books are audited.
//!
//! `cargo run --example accounts [-- <kills>]`

#![allow(
    clippy::disallowed_methods,
    reason = "the library's own rules for time and threads do not bind its users"
)]

mod audit;
mod bank;
mod branch;

use std::path::Path;
use std::time::{Duration, Instant};

use branch::Branch;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How many processes have the file open at once.
const BRANCHES: usize = 3;
/// A process is killed only after this many of its calls were acknowledged.
const ACKNOWLEDGED: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["branch", file] => bank::serve(Path::new(file), true),
        ["closing-branch", file] => bank::serve(Path::new(file), false),
        [] => kill_and_audit(20),
        [kills] => kill_and_audit(kills.parse()?),
        _ => Err("usage: accounts [<kills>]".into()),
    }
}

fn kill_and_audit(kills: usize) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("bank.db");
    bank::found(&file)?;
    let open = || Branch::start("branch", &file);
    let mut branches = (0..BRANCHES).map(|_| open()).collect::<Result<Vec<_>>>()?;
    let mut ordered = Vec::new();
    let (mut counted, mut idle) = (0, 0);
    while counted < kills {
        let mut victim = branches.swap_remove(fastrand::usize(..branches.len()));
        victim.wait_for(ACKNOWLEDGED)?;
        std::thread::sleep(Duration::from_micros(fastrand::u64(..5_000)));
        let told = victim.kill()?;
        // A kill counts if it cut a handler short. By now some orders were acknowledged.
        if told.has_unfinished() {
            counted += 1;
        } else {
            idle += 1;
        }
        ordered.extend(told.ordered);
        branches.push(open()?);
    }
    for branch in branches {
        ordered.extend(branch.kill()?.ordered);
    }

    // Two more processes make the transfers that are left, and end by themselves.
    let since = Instant::now();
    let closing = (0..2).map(|_| Branch::start("closing-branch", &file));
    for branch in closing.collect::<Result<Vec<_>>>()? {
        branch.end(PATIENCE.saturating_sub(since.elapsed()))?;
    }
    let audited = audit::audit(&file, &ordered)?;
    println!(
        "{counted} processes killed with a transfer in hand, {idle} without; {} transfers acknowledged, {} made, \
        each once; {} attempts cut short",
        ordered.len(),
        audited.transfers,
        audited.crashes
    );
    Ok(())
}
