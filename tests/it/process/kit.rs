//! Real child processes, and what they tell before they are killed.
//!
//! The test binary runs itself again, with the name of one ignored test as the child's part. A child writes its history
//! as lines to a pipe, each by one `write`: what it wrote before a SIGKILL is in the pipe and cannot be lost. It obeys
//! its standard input, and ends with it, so that no child outlives a test.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use punctual::rusqlite::{Connection, OpenFlags};
use punctual::{AsyncContext, Cancel, Client, Filter, TaskContext, TaskId, TaskState};
use rustix::process::{Pid, Signal, kill_process};

/// How long a child may take for anything that is asked of it: not a measure, only a bound.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const PART: &str = "PUNCTUAL_TEST_CHILD";
/// The file and the arguments of the part, one a line.
const ARGUMENTS: &str = "PUNCTUAL_TEST_ARGUMENTS";
/// Begins the lines that are ours: the test harness writes to the same pipe.
const MARK: &str = "~ ";

/// What a child tells. Every line is about what has happened, or is about to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// A call that opens the file is about to be made, or has returned.
    Opening,
    Opened,
    /// A call that schedules `count` tasks with ids from `first` on is about to be made, or was acknowledged.
    Scheduling {
        first: u128,
        count: u32,
    },
    Scheduled {
        first: u128,
        count: u32,
    },
    /// A cancellation is about to be asked for, or was answered.
    Cancelling(TaskId),
    Answered(TaskId, Cancel),
    /// A handler was called, or is about to return. Times are microseconds of the wall clock.
    Started {
        id: TaskId,
        attempt: u32,
        due: i64,
        now: i64,
    },
    Ended {
        id: TaskId,
        attempt: u32,
    },
    /// Anything else.
    Note(String),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opening => write!(f, "opening"),
            Self::Opened => write!(f, "opened"),
            Self::Scheduling { first, count } => write!(f, "scheduling {first} {count}"),
            Self::Scheduled { first, count } => write!(f, "scheduled {first} {count}"),
            Self::Cancelling(id) => write!(f, "cancelling {id}"),
            Self::Answered(id, Cancel::Cancelled) => write!(f, "answered {id} cancelled"),
            Self::Answered(id, Cancel::Requested) => write!(f, "answered {id} requested"),
            Self::Answered(id, Cancel::Finished(state)) => {
                write!(f, "answered {id} {}", state_name(*state))
            }
            Self::Started {
                id,
                attempt,
                due,
                now,
            } => write!(f, "started {id} {attempt} {due} {now}"),
            Self::Ended { id, attempt } => write!(f, "ended {id} {attempt}"),
            Self::Note(text) => write!(f, "note {text}"),
        }
    }
}

fn state_name(state: TaskState) -> &'static str {
    match state {
        TaskState::Completed => "was-completed",
        TaskState::Failed => "was-failed",
        TaskState::Cancelled => "was-cancelled",
        other => panic!("{other} is not the end of a task"),
    }
}

impl Line {
    fn parse(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["opening"] => Self::Opening,
            ["opened"] => Self::Opened,
            ["scheduling", first, count] => Self::Scheduling {
                first: word(first),
                count: word(count),
            },
            ["scheduled", first, count] => Self::Scheduled {
                first: word(first),
                count: word(count),
            },
            ["cancelling", id] => Self::Cancelling(word(id)),
            ["answered", id, answer] => Self::Answered(
                word(id),
                match answer {
                    "cancelled" => Cancel::Cancelled,
                    "requested" => Cancel::Requested,
                    "was-completed" => Cancel::Finished(TaskState::Completed),
                    "was-failed" => Cancel::Finished(TaskState::Failed),
                    "was-cancelled" => Cancel::Finished(TaskState::Cancelled),
                    other => panic!("no answer: {other}"),
                },
            ),
            ["started", id, attempt, due, now] => Self::Started {
                id: word(id),
                attempt: word(attempt),
                due: word(due),
                now: word(now),
            },
            ["ended", id, attempt] => Self::Ended {
                id: word(id),
                attempt: word(attempt),
            },
            ["note", ..] => Self::Note(text["note ".len()..].to_owned()),
            _ => panic!("a child says {text:?}"),
        }
    }
}

fn word<T: FromStr>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|_| panic!("a child says {text:?}"))
}

/// The name of a child's part, an ignored test of the same module, for [`Process::start`].
macro_rules! part {
    ($test:ident) => {{
        // A name of no test would be a child that ends at once without a word: it does not compile.
        let _: fn() = $test;
        concat!(module_path!(), "::", stringify!($test))
    }};
}
pub(crate) use part;

/// A child process, killed at the latest when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    orders: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    /// Starts a child that plays a [`part!`] on `file`.
    pub(crate) fn start(part: &str, file: &Path, arguments: &[&dyn fmt::Display]) -> Self {
        let binary = std::env::current_exe().expect("the path of this binary");
        Self::start_as(Command::new(binary), part, file, arguments)
    }

    /// Like [`start`](Self::start), by a command that runs this binary with the arguments that are added to it.
    pub(crate) fn start_as(
        mut command: Command,
        part: &str,
        file: &Path,
        arguments: &[&dyn fmt::Display],
    ) -> Self {
        // The harness names its tests without the name of the binary.
        let (_, test) = part.split_once("::").expect("the path of a test");
        let mut child = command
            .args([
                test,
                "--exact",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(PART, part)
            .env(ARGUMENTS, written(file, arguments))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child process");
        let output = child.stdout.take().expect("its output is a pipe");
        let (sender, lines) = channel();
        std::thread::Builder::new()
            .name(format!("lines of {}", child.id()))
            .spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if let Some(line) = line.strip_prefix(MARK)
                        && sender.send(line.to_owned()).is_err()
                    {
                        return;
                    }
                }
            })
            .expect("a thread that reads");
        Self {
            orders: child.stdin.take(),
            child,
            lines,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line; `None` if there is none within `span`, or the child has ended and told everything.
    pub(crate) fn line_within(&self, span: Duration) -> Option<Line> {
        match self.lines.recv_timeout(span) {
            Ok(line) => Some(Line::parse(&line)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    /// The next line, which must come.
    pub(crate) fn line(&self) -> Line {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Line::parse(&line),
            Err(RecvTimeoutError::Timeout) => {
                panic!("process {} says nothing for {PATIENCE:?}", self.id())
            }
            Err(RecvTimeoutError::Disconnected) => {
                panic!("process {} has ended too early", self.id())
            }
        }
    }

    /// Reads on until a line is `wanted`, and returns all that were read, that one last.
    pub(crate) fn read_until(&self, wanted: impl Fn(&Line) -> bool) -> Vec<Line> {
        let mut lines = Vec::new();
        loop {
            let line = self.line();
            let found = wanted(&line);
            lines.push(line);
            if found {
                return lines;
            }
        }
    }

    /// Gives the child a word of order.
    pub(crate) fn order(&mut self, word: &str) {
        let orders = self.orders.as_mut().expect("a child that takes orders");
        writeln!(orders, "{word}").expect("the child reads its orders");
    }

    /// SIGKILL. Returns what the child had told and nobody had read.
    pub(crate) fn kill(mut self) -> Vec<Line> {
        self.child.kill().expect("to kill the child");
        self.child.wait().expect("to see it dead");
        self.rest()
    }

    fn rest(&self) -> Vec<Line> {
        let mut rest = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => rest.push(Line::parse(&line)),
                Err(RecvTimeoutError::Disconnected) => return rest,
                Err(RecvTimeoutError::Timeout) => panic!("the pipe of a dead process stays open"),
            }
        }
    }

    /// Takes the orders away and reads to the end, which must come by itself.
    pub(crate) fn end(mut self) -> (ExitStatus, Vec<Line>) {
        drop(self.orders.take());
        let rest = self.rest();
        // Its pipe is closed, so it is dead or as good as that.
        (self.child.wait().expect("to see it end"), rest)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("the id of a child");
        kill_process(id, signal).expect("to signal the child");
    }

    /// How many bytes it has written so far, to files and pipes, as the kernel counts.
    pub(crate) fn bytes_written(&self) -> u64 {
        let path = format!("/proc/{}/io", self.id());
        let io = std::fs::read_to_string(path).expect("what the kernel counts");
        io.lines()
            .find_map(|line| line.strip_prefix("wchar: "))
            .map(word)
            .expect("bytes written")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A context of a handler of either kind.
pub(crate) trait AnyContext {
    /// The task, the number of the attempt, and when it was due in microseconds.
    fn attempt_of(&self) -> (TaskId, u32, i64);
}

impl AnyContext for TaskContext {
    fn attempt_of(&self) -> (TaskId, u32, i64) {
        let due = self.scheduled_at().timestamp_micros();
        (self.id(), self.attempt(), due)
    }
}

impl AnyContext for AsyncContext {
    fn attempt_of(&self) -> (TaskId, u32, i64) {
        let due = self.scheduled_at().timestamp_micros();
        (self.id(), self.attempt(), due)
    }
}

/// This binary, for a child whose every fsync takes 20 ms longer.
pub(crate) fn slow_syncs(place: &Place) -> Command {
    let source = place.file().with_file_name("slow.c");
    let library = place.file().with_file_name("slow.so");
    if !library.exists() {
        std::fs::write(
            &source,
            "#define _GNU_SOURCE
             #include <unistd.h>
             #include <sys/syscall.h>
             int fsync(int file) { usleep(20000); return syscall(SYS_fsync, file); }
             int fdatasync(int file) { usleep(20000); return syscall(SYS_fdatasync, file); }",
        )
        .expect("to write a source");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .status()
            .expect("a C compiler, as for SQLite itself");
        assert!(built.success());
    }
    let mut command = Command::new(std::env::current_exe().expect("the path of this binary"));
    command.env("LD_PRELOAD", library);
    command
}

fn written(file: &Path, arguments: &[&dyn fmt::Display]) -> String {
    let mut text = file.to_str().expect("a path in UTF-8").to_owned();
    for argument in arguments {
        text.push('\n');
        text.push_str(&argument.to_string());
    }
    text
}

/// A child's own side.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) file: PathBuf,
    arguments: Vec<String>,
    pipe: std::sync::Arc<File>,
}

impl Part {
    /// The part that this process plays; `None` in the process of the tests themselves, where the child's part has
    /// nothing to do.
    pub(crate) fn played() -> Option<Self> {
        std::env::var_os(PART)?;
        let text = std::env::var(ARGUMENTS).expect("the arguments of a child");
        let mut arguments = text.lines().map(str::to_owned);
        let pipe = std::io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .expect("the pipe");
        let part = Self {
            file: arguments.next().expect("a file").into(),
            arguments: arguments.collect(),
            pipe: std::sync::Arc::new(pipe.into()),
        };
        // The harness has begun a line.
        part.write("\n");
        Some(part)
    }

    pub(crate) fn argument<T: FromStr>(&self, index: usize) -> T {
        word(&self.arguments[index])
    }

    /// Tells the parent, by one `write` that is whole or not at all.
    pub(crate) fn say(&self, line: &Line) {
        self.write(&format!("{MARK}{line}\n"));
    }

    pub(crate) fn note(&self, text: impl Into<String>) {
        self.say(&Line::Note(text.into()));
    }

    fn write(&self, text: &str) {
        assert!(text.len() <= 4096, "a pipe takes no more at once");
        if (&*self.pipe).write_all(text.as_bytes()).is_err() {
            // Nobody reads: the test is over.
            std::process::exit(1);
        }
    }

    pub(crate) fn started(&self, cx: &impl AnyContext) {
        let (id, attempt, due) = cx.attempt_of();
        self.say(&Line::Started {
            id,
            attempt,
            due,
            now: wall_clock(),
        });
    }

    pub(crate) fn ended(&self, cx: &impl AnyContext) {
        let (id, attempt, _) = cx.attempt_of();
        self.say(&Line::Ended { id, attempt });
    }

    /// The next word of order. When there is nobody left to give one, the process ends.
    pub(crate) fn next_order(&self) -> String {
        let mut order = String::new();
        match std::io::stdin().read_line(&mut order) {
            Ok(0) | Err(_) => std::process::exit(0),
            Ok(_) => order.trim_end().to_owned(),
        }
    }

    /// Ends the process when the test does, whatever it is doing. Not for a child that takes orders.
    pub(crate) fn die_with_parent(&self) {
        let part = self.clone();
        std::thread::Builder::new()
            .spawn(move || {
                loop {
                    part.next_order();
                }
            })
            .expect("a thread that watches the parent");
    }
}

/// A place for a database, removed with it.
#[derive(Debug)]
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a folder"),
        }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("tasks.db")
    }

    /// The length of the write-ahead log.
    pub(crate) fn log_bytes(&self) -> u64 {
        std::fs::metadata(self.dir.path().join("tasks.db-wal")).map_or(0, |log| log.len())
    }

    /// The lock files of instances that are there now; the one by which processes say that they wait is nobody's.
    pub(crate) fn lock_files(&self) -> Vec<String> {
        let folder = self.dir.path().join("tasks.db.punctual");
        // A process that died early may not even have made it.
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries
            .map(|entry| {
                let entry = entry.expect("a lock file");
                entry.file_name().into_string().expect("its name")
            })
            .filter(|name| name != "waiting")
            .collect()
    }

    pub(crate) fn lose_lock_files(&self) {
        let folder = self.dir.path().join("tasks.db.punctual");
        std::fs::remove_dir_all(folder).expect("to remove the lock files");
    }

    /// A connection that only looks, past the crate: it takes nothing back and clears nothing up.
    pub(crate) fn look(&self) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(self.file(), flags).expect("to look at the file");
        conn.busy_timeout(PATIENCE).expect("to wait for a lock");
        conn
    }

    /// A number that a query finds.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.look()
            .query_row(sql, [], |row| row.get(0))
            .expect("a number")
    }
}

/// A runtime for the futures of a child process.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let builder = builder.worker_threads(2).enable_time();
    builder.build().expect("a runtime")
}

/// Waits until all tasks of the file have ended.
pub(crate) fn until_nothing_is_left(client: &Client) {
    let unfinished = Filter::new().unfinished();
    eventually("nothing is left", || {
        let left = client.count(&unfinished).expect("to count");
        (left == 0).then_some(())
    });
}

/// The seed of a randomised test: printed, and taken from `PUNCTUAL_SEED` to run one again.
pub(crate) fn seed(test: &str) -> u64 {
    let seed = match std::env::var("PUNCTUAL_SEED") {
        Ok(seed) => word(&seed),
        Err(_) => fastrand::u64(..),
    };
    eprintln!("{test}: PUNCTUAL_SEED={seed}");
    seed
}

/// A bound on a wait; also measures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Since(Instant);

#[expect(
    clippy::disallowed_methods,
    reason = "processes are real, and so is the time they take"
)]
impl Since {
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// The wall clock, in microseconds.
#[expect(
    clippy::disallowed_methods,
    reason = "a child tells when a handler was called"
)]
pub(crate) fn wall_clock() -> i64 {
    punctual::chrono::Utc::now().timestamp_micros()
}

/// Spins for a moment that is too short to sleep: a kill should hit anywhere in it.
pub(crate) fn spin(span: Duration) {
    let since = Since::now();
    while since.elapsed() < span {
        std::hint::spin_loop();
    }
}

/// Looks again and again until there is what was looked for. Fails with `what` when it does not come.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Since::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            since.elapsed() < PATIENCE,
            "{what}: not within {PATIENCE:?}"
        );
        pause();
    }
}

/// Lets others run before the next look: another process gives no notice.
#[expect(
    clippy::disallowed_methods,
    reason = "the one pause of a poll on another process"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}
