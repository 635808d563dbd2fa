//! The whole-system workloads, each beside the least that bare rusqlite needs for the same work:
//! `cargo bench --bench load -- [W1 W2 ..] [--json] [--small] [--large]`.
//!
//! Ours and the limit alternate, in most workloads in slices of one process, on real files at the same durability. A change
//! of the machine's speed affects both; the result is the ratio, pair by pair. `docs/benchmarks.md` describes each workload.

#![expect(
    clippy::disallowed_methods,
    reason = "what takes how long is the question here"
)]

#[path = "load/bare.rs"]
mod bare;
#[path = "load/both.rs"]
mod both;
#[path = "load/child.rs"]
mod child;
#[path = "load/crowd.rs"]
mod crowd;
#[path = "load/drain.rs"]
mod drain;
#[path = "load/futures.rs"]
mod futures;
#[path = "load/group.rs"]
mod group;
#[path = "load/idle.rs"]
mod idle;
#[path = "load/immediate.rs"]
mod immediate;
#[path = "load/insert.rs"]
mod insert;
#[path = "load/lateness.rs"]
mod lateness;
#[path = "load/mix.rs"]
mod mix;
#[path = "load/noon.rs"]
mod noon;
#[path = "load/ours.rs"]
mod ours;
#[path = "load/pairs.rs"]
mod pairs;
#[path = "load/payload.rs"]
mod payload;
#[path = "load/processes.rs"]
mod processes;
#[path = "load/quantile.rs"]
mod quantile;
#[path = "load/recovery.rs"]
mod recovery;
#[path = "load/report.rs"]
mod report;
#[path = "load/slots.rs"]
mod slots;
#[path = "load/work.rs"]
mod work;

use report::Report;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The options of the command line, and where results go.
struct Run {
    /// A fresh folder on a real disk.
    folder: std::path::PathBuf,
    /// Whether each workload runs once, at its smallest size, to see that it works. Times mean nothing then.
    is_small: bool,
    /// Whether W8 also measures files of ten million tasks: ten minutes more.
    is_large: bool,
    report: Report,
}

fn main() -> Result<()> {
    if let Some(played) = child::play() {
        return played;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |name: &str| arguments.iter().any(|each| each == name);
    // `cargo bench -- --test` runs every bench once, at its smallest size.
    let is_small = given("--small") || given("--test");
    let dir = tempfile::tempdir_in(
        option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, Into::into),
    )?;
    let mut run = Run {
        folder: dir.path().to_owned(),
        is_small,
        is_large: given("--large"),
        report: Report::new(given("--json")),
    };
    type Workload = fn(&mut Run) -> Result<()>;
    let workloads: &[(&str, Workload)] = &[
        ("W1", insert::w1),
        ("W2", insert::w2),
        ("W3", insert::w3),
        ("W4", drain::w4),
        ("W5", both::w5),
        ("W5b", both::w5b),
        ("W6", lateness::spaced),
        ("W6b", lateness::busy),
        ("W7", idle::run),
        ("W8", immediate::run),
        ("W9", payload::w9),
        ("W10", recovery::run),
        ("W11", processes::flat_out),
        ("W12", processes::wake_up),
        ("W13", crowd::run),
        ("W13b", noon::run),
        ("W13c", slots::run),
        ("W14", futures::sleepers),
        ("W14b", futures::drain),
        ("W14c", futures::lateness),
        ("W14d", futures::waits),
    ];
    let names = arguments.iter().any(|each| each.starts_with('W'));
    for (name, workload) in workloads {
        if !names || given(name) {
            workload(&mut run)?;
        }
    }
    run.report.end();
    Ok(())
}
