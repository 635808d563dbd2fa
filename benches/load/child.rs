//! Runs this program again as a child process, to be measured alone or killed.

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::{Result, crowd, futures, idle, processes, recovery};

/// The environment variables that give a child its part and its file.
const PART: &str = "PUNCTUAL_LOAD_PART";
const FILE: &str = "PUNCTUAL_LOAD_FILE";
const SPAN: &str = "PUNCTUAL_LOAD_SPAN_MS";
const COUNT: &str = "PUNCTUAL_LOAD_COUNT";

/// What a child is given to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task<'a> {
    pub(crate) part: &'a str,
    pub(crate) file: &'a Path,
    pub(crate) span: Duration,
    pub(crate) count: u64,
}

/// Plays the part of a child, if this process is one; else `None`.
pub(crate) fn play() -> Option<Result<()>> {
    let part = std::env::var(PART).ok()?;
    let file = std::env::var_os(FILE)?;
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    let task = Task {
        part: &part,
        file: Path::new(&file),
        span: Duration::from_millis(number(SPAN)?),
        count: number(COUNT)?,
    };
    Some(match task.part {
        "idle" => idle::scheduler(task),
        "bare" => idle::bare(task),
        "crowd" => crowd::keeper(task),
        "sleepers" => futures::sleeper(task),
        "claimed" | "started" => recovery::doomed(task),
        "commit" | "commit-bare" => processes::committer(task),
        "wake" | "wake-own" => processes::caller(task),
        other => Err(format!("no such part: {other}").into()),
    })
}

/// A child that is running. Killed when dropped.
pub(crate) struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start(task: Task<'_>) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(PART, task.part)
            .env(FILE, task.file)
            .env(SPAN, task.span.as_millis().to_string())
            .env(COUNT, task.count.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().expect("it is piped");
        let lines = BufReader::new(stdout).lines();
        Ok(Self { child, lines })
    }

    /// The next line that it prints.
    ///
    /// # Errors
    ///
    /// If the child ends without one.
    pub(crate) fn line(&mut self) -> Result<String> {
        match self.lines.next() {
            Some(line) => Ok(line?),
            None => Err(format!("a child process ended: {}", self.child.wait()?).into()),
        }
    }

    /// Kills the child as `kill -9` does, and returns when it is dead.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The child may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
