//! A command: the payload of its task, and the handler that runs it in a shell and keeps its output.

use std::collections::BTreeMap;
use std::io::{self, PipeReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use punctual::{Delivery, Failure, Outcome, Payload, TaskContext, TaskHandler, TaskResult};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

/// How much of a command's output is kept: the end.
pub(crate) const MAX_OUTPUT_BYTES: usize = 64 << 10;
/// The same of a command that fails: its output is in the text of the error, which is shorter.
const MAX_FAILED_BYTES: usize = punctual::MAX_ERROR_BYTES - 256;
/// The longest time between two looks at a running command.
const LOOK: Duration = Duration::from_millis(50);
/// How long a command may take to end when it is asked to, before it is killed.
pub(crate) const TERMINATION: Duration = Duration::from_secs(2);
/// How long the output of a command that has ended is waited for: another process may hold it open.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// A command, with all that it needs. As in cron, it is never started twice, also if this program dies meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) command: String,
    pub(crate) input: Option<String>,
    /// In the order of the names: the same lines have to make the same payload.
    pub(crate) env: BTreeMap<String, String>,
}

impl Payload for Job {
    const KIND: &'static str = "crontab.job";
    const DELIVERY: Delivery = Delivery::AtMostOnce;
}

/// Runs commands. The result is the output; a command that fails has it in the text of the error, after its exit status.
pub(crate) struct Shell;

impl TaskHandler for Shell {
    type Payload = Job;

    fn run(&self, job: Job, cx: &TaskContext) -> TaskResult {
        let mut running = Running::start(job)?;
        let mut pause = Duration::from_millis(1);
        let ended = loop {
            if let Some(status) = running.child.try_wait()? {
                break Some(status);
            }
            if cx.cancelled_within(pause) {
                break None;
            }
            pause = (2 * pause).min(LOOK);
        };
        let said = match ended {
            Some(status) if status.success() => {
                return Outcome::with(&running.output(MAX_OUTPUT_BYTES));
            }
            Some(status) => status.to_string(),
            None => format!("stopped ({})", running.stop()?),
        };
        let output = running.output(MAX_FAILED_BYTES);
        Err(Failure::fatal(format!("{said}\n{output}")))
    }
}

/// A command that runs, with the processes that it has started. They are killed when it is dropped before its end.
struct Running {
    child: Child,
    output: Arc<Mutex<Output>>,
    reader: JoinHandle<()>,
}

#[derive(Default)]
struct Output {
    /// The end of what was read.
    kept: Vec<u8>,
    dropped_bytes: usize,
}

impl Running {
    fn start(job: Job) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let shell = job.env.get("SHELL").map_or("/bin/sh", String::as_str);
        let mut command = Command::new(shell);
        command
            .args(["-c", &job.command])
            .envs(&job.env)
            .stdin(if job.input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(writer.try_clone()?)
            .stderr(writer)
            // So that the processes that it starts can be killed with it, and Ctrl-C reaches this program alone.
            .process_group(0);
        if let Some(home) = job.env.get("HOME") {
            command.current_dir(home);
        }
        let mut child = command.spawn()?;
        // It holds the writing ends of the pipe, and the output would not end.
        drop(command);
        let output = Arc::new(Mutex::new(Output::default()));
        let own = Arc::clone(&output);
        let reader = thread::spawn(move || read(reader, &own));
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), job.input) {
            // A command need not read its input.
            thread::spawn(move || stdin.write_all(input.as_bytes()));
        }
        Ok(Self {
            child,
            output,
            reader,
        })
    }

    /// Asks the processes to end, and kills them if they do not.
    fn stop(&mut self) -> io::Result<ExitStatus> {
        let since = Instant::now();
        self.signal(Signal::TERM);
        while since.elapsed() < TERMINATION {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(LOOK);
        }
        self.signal(Signal::KILL);
        self.child.wait()
    }

    /// Only before the child was waited for: then another group may have its number.
    fn signal(&self, signal: Signal) {
        // An error means that there is no process any more.
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }

    /// The end of the output, in at most so many bytes. A process that the command has left behind is not waited for.
    fn output(&self, max_bytes: usize) -> String {
        let since = Instant::now();
        while !self.reader.is_finished() && since.elapsed() < LAST_OUTPUT {
            thread::sleep(Duration::from_millis(1));
        }
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&output.kept);
        let mut from = text.len().saturating_sub(max_bytes);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        match output.dropped_bytes + from {
            0 => text.into_owned(),
            dropped => format!("[{dropped} bytes before]\n{}", &text[from..]),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Reads to the end, so that no command waits for a reader. An error ends the output.
fn read(mut from: PipeReader, output: &Mutex<Output>) {
    let mut bytes = [0; 8 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        output.kept.extend_from_slice(&bytes[..count]);
        let excess = output.kept.len().saturating_sub(MAX_OUTPUT_BYTES);
        output.kept.drain(..excess);
        output.dropped_bytes += excess;
    }
}
