//! Instructions per task, which hardly depend on the load of the machine: `cargo bench --bench instructions`.
//!
//! The bench runs itself under valgrind's callgrind with N tasks and with 2 N, and prints the difference per task, so that
//! opening and closing cancel out. It runs `instructions W2|W4 N [FILE]`: W2 stores N tasks from 16 threads, each of which
//! waits until its task is durable, and W4 runs a file of N due tasks, which it makes if none is given.
//!
//! Under valgrind everything is fifty times as slow, and one thread runs at a time. Claims ahead are bounded by time, so W4
//! claims fewer at once than it usually does: its figure is higher, and varies by some percent. Compare it with itself.

use std::path::Path;
use std::process::Command;

use punctual::Durability;

#[path = "load/ours.rs"]
mod ours;

use ours::{Note, View};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The workloads, each with its N.
const COUNTED: [(&str, u64); 2] = [("W2", 5_000), ("W4", 10_000)];
const RUNS: usize = 3;
const FEW: u64 = 100;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |name: &str| arguments.iter().any(|each| each == name);
    // Cargo adds options of its own.
    let words: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|each| !each.starts_with("--"))
        .collect();
    if let [workload, tasks, ref file @ ..] = words[..] {
        return run(workload, tasks.parse()?, file.first().map(Path::new));
    }
    if given("--small") || given("--test") {
        run("W2", FEW, None)?;
        return run("W4", FEW, None);
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("no valgrind on the PATH: nothing was counted");
        return Ok(());
    }
    for (workload, tasks) in COUNTED {
        let mut each = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            let more = counted(workload, 2 * tasks)? - counted(workload, tasks)?;
            each.push(more / tasks as f64);
        }
        each.sort_unstable_by(f64::total_cmp);
        println!(
            "{workload:<5} {:>10.0} instructions per task ({:.0} – {:.0})",
            each[RUNS / 2],
            each[0],
            each[RUNS - 1]
        );
    }
    Ok(())
}

fn fresh_folder() -> Result<tempfile::TempDir> {
    let parent = option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, Into::into);
    Ok(tempfile::tempdir_in(parent)?)
}

fn run(workload: &str, tasks: u64, file: Option<&Path>) -> Result<()> {
    let dir = fresh_folder()?;
    let path = dir.path().join("tasks.db");
    match workload {
        "W2" => {
            let client = ours::client(&path, Durability::PowerLoss)?;
            ours::by_threads(&client, tasks, &ours::note);
            View::new(&path)?.check(ours::PENDING, tasks)
        }
        "W4" => {
            match file {
                Some(file) => drop(ours::copy(file, dir.path())?),
                None => ours::fill(&path, tasks, &ours::note)?,
            }
            let view = View::new(&path)?;
            let _scheduler = ours::drain::<Note>(&path, tasks, &view)?;
            view.check(ours::COMPLETED, tasks)
        }
        other => Err(format!("{other} is not counted; W2 and W4 are").into()),
    }
}

/// The instructions of a whole process that does `tasks` tasks.
fn counted(workload: &str, tasks: u64) -> Result<f64> {
    let dir = fresh_folder()?;
    let file = dir.path().join("filled.db");
    if workload == "W4" {
        // Filled in this process, which is not counted.
        ours::fill(&file, tasks, &ours::note)?;
    }
    let mut out = std::ffi::OsString::from("--callgrind-out-file=");
    out.push(dir.path().join("callgrind.out"));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind".as_ref(), out.as_os_str()])
        .arg(std::env::current_exe()?)
        .args([workload, &tasks.to_string()])
        .args((workload == "W4").then_some(&file))
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("valgrind failed:\n{told}").into());
    }
    told.lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, count)| count.trim().parse().ok())
        .ok_or_else(|| format!("valgrind told no count:\n{told}").into())
}
