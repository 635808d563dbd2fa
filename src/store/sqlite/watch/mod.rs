//! Notices other connections' commits as they happen.
//!
//! The kernel reports a write to the log before the commit is visible, by as long as its sync takes. So the file is then
//! checked again and again for a while, less and less often. While this process itself writes, the log is not watched, and
//! the file is checked now and then: reports of all its own writes would cost more.
//!
//! Invariant: before a longer pause the log is watched, and then the file checked once more.

mod inotify;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::error::Result;
use crate::log::log;
use crate::panics::survive;
use crate::store::sqlite::error;
use crate::store::sqlite::file::paths::log_of;
use crate::store::sqlite::watch::inotify::{Bell, Notice};
use crate::store::sqlite::write::writer::Writer;
use crate::store::turn::Turn;
use crate::thread::Thread;
use crate::time::{Deadline, Stopwatch};
use crate::wake::Wake;

/// How long a commit that another process has begun to write is followed. A longer one is found by the dispatcher's own
/// check, once a second.
const FOLLOWED: Duration = Duration::from_secs(1);
/// The first pause between two looks; later ones are an eighth of the time that has passed.
const FIRST_PAUSE: Duration = Duration::from_micros(250);
/// Pauses of at least this length are cut short when the kernel reports another write.
const WATCHED_PAUSE: Duration = Duration::from_millis(1);
/// The longest pause while this process writes; where the kernel reports nothing, the pause after a commit was found.
const BUSY_PAUSE: Duration = Duration::from_millis(2);
/// The least pause after a commit was found: another is likely.
const AFTER_FIND: Duration = Duration::from_millis(2);
/// The longest pause where the kernel reports nothing.
const IDLE_PAUSE: Duration = Duration::from_millis(50);
/// How long a drop waits for the thread to end.
const JOIN_WAIT: Duration = Duration::from_secs(1);

/// The result of a look at the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Another connection has committed. `took`: how long it took to read what.
    Found {
        took: Duration,
    },
    /// Only this connection has committed, or it is in use.
    Own,
    Nothing,
    /// The look failed.
    Failed,
}

/// When to look next.
#[derive(Debug, Default)]
struct Pauses {
    /// How long nothing was found.
    waited: Duration,
}

impl Pauses {
    /// The pause before the next look; `None` once nothing more is to be expected.
    fn next(&mut self, look: Look) -> Option<Duration> {
        match look {
            Look::Failed => return Some(FOLLOWED),
            Look::Found { .. } => self.waited = Duration::ZERO,
            Look::Own => self.waited = self.waited.min(8 * BUSY_PAUSE),
            Look::Nothing => {}
        }
        if self.waited >= FOLLOWED {
            return None;
        }
        let pause = match look {
            // The cost of reading what was committed grows with the number of queues and kinds.
            Look::Found { took } => AFTER_FIND.max(8 * took),
            _ => (self.waited / 8).max(FIRST_PAUSE),
        };
        self.waited += pause;
        Some(pause)
    }
}

/// The thread that looks.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<Stop>,
    thread: Option<Thread>,
}

#[derive(Debug)]
struct Stop {
    is_over: AtomicBool,
    /// Whether the kernel reports nothing.
    is_polling: AtomicBool,
    /// Ends a pause.
    wake: Wake,
    /// Ends a wait for the kernel.
    bell: Option<Bell>,
}

impl Watch {
    /// Wakes the runner for other connections' commits to a file, from now on.
    ///
    /// # Errors
    ///
    /// `Storage` if the thread cannot be started.
    pub(crate) fn start(turn: &Arc<Turn<Writer>>, file: &Path) -> Result<Self> {
        let notice = match Notice::new(&log_of(file)) {
            Ok(notice) => Some(notice),
            Err(error) => {
                log!(warn, %error, "the kernel does not tell of writes to the log: it is looked at often instead");
                None
            }
        };
        let stop = Arc::new(Stop {
            is_over: AtomicBool::new(false),
            is_polling: AtomicBool::new(notice.is_none()),
            wake: Wake::new(),
            bell: notice.as_ref().map(Notice::bell),
        });
        let mut watcher = Watcher {
            turn: Arc::downgrade(turn),
            stop: Arc::clone(&stop),
            commits: 0,
        };
        let thread = Thread::spawn("punctual-watch", move || match notice {
            Some(notice) => watcher.follow(notice),
            None => watcher.poll(),
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Watch {
    pub(crate) fn is_polling(&self) -> bool {
        self.stop.is_polling.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.is_over.store(true, Ordering::SeqCst);
        self.stop.wake.notify();
        if let Some(bell) = &self.stop.bell {
            bell.ring();
        }
        if let Some(thread) = self.thread.take() {
            thread.join(Deadline::after(JOIN_WAIT));
        }
    }
}

#[derive(Debug)]
struct Watcher {
    turn: Weak<Turn<Writer>>,
    stop: Arc<Stop>,
    /// How many commits of this process the last look has seen.
    commits: u64,
}

impl Watcher {
    /// Sleeps until the kernel reports a write, then looks until the commit is visible.
    fn follow(&mut self, mut notice: Notice) {
        let mut pauses = Pauses::default();
        while !self.is_over() {
            let look = self.look();
            let pause = pauses.next(look);
            let is_quiet =
                look == Look::Nothing && pause.is_none_or(|pause| pause >= WATCHED_PAUSE);
            if !is_quiet {
                notice.disarm();
                self.pause(pause.unwrap_or(FOLLOWED));
            } else if notice.is_armed() {
                if notice.wait(pause) {
                    pauses = Pauses::default();
                }
            } else {
                // The log may be gone for a moment, or the user's watches used up.
                let is_armed = notice.arm();
                self.stop.is_polling.store(!is_armed, Ordering::Relaxed);
                if !is_armed {
                    self.pause(IDLE_PAUSE);
                }
            }
            // Once the log is watched, the next look finds what was committed before.
        }
    }

    /// Looks often while others write, and less often otherwise.
    fn poll(&mut self) {
        let mut pause = IDLE_PAUSE;
        while !self.is_over() {
            self.pause(pause);
            pause = match self.look() {
                Look::Found { took } => BUSY_PAUSE.max(8 * took),
                Look::Failed => FOLLOWED,
                _ => (2 * pause).min(IDLE_PAUSE),
            };
        }
    }

    fn look(&mut self) -> Look {
        let Some(turn) = self.turn.upgrade() else {
            return Look::Nothing;
        };
        let watch = Stopwatch::start();
        let look = || turn.with_idle_writer(|writer| (writer.refresh(), writer.commits()));
        let Some(looked) = survive(look) else {
            log!(
                error,
                "the look for other processes' commits panicked; it goes on"
            );
            return Look::Failed;
        };
        // Another thread has the writer: a leader looks by itself before it writes.
        let Some((found, commits)) = looked else {
            return Look::Own;
        };
        let is_own = std::mem::replace(&mut self.commits, commits) != commits;
        match found {
            Ok(true) => Look::Found {
                took: watch.elapsed(),
            },
            Ok(false) if is_own => Look::Own,
            Ok(false) => Look::Nothing,
            Err(error) => {
                log!(warn, %error, "cannot look for other processes' commits");
                if error::stops(error.kind()) {
                    // There is nothing to be noticed in such a file any more.
                    self.stop.is_over.store(true, Ordering::SeqCst);
                }
                Look::Failed
            }
        }
    }

    fn pause(&self, span: Duration) {
        self.stop.wake.wait(span);
    }

    fn is_over(&self) -> bool {
        self.stop.is_over.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When looks are made until none is any more, in microseconds, and what they find.
    fn looks(find: impl Fn(Duration) -> Look) -> Vec<(Duration, Look)> {
        let (mut pauses, mut at, mut all) = (Pauses::default(), Duration::ZERO, Vec::new());
        loop {
            let look = find(at);
            all.push((at, look));
            match pauses.next(look) {
                Some(pause) if all.len() < 10_000 => at += pause,
                _ => return all,
            }
        }
    }

    #[test]
    fn a_commit_is_found_soon_after_it_shows_however_long_its_sync_takes() {
        let all = looks(|_| Look::Nothing);
        assert!(all.len() < 100, "{} looks for nothing", all.len());
        for micros in (0..999_000).step_by(100) {
            let shown = Duration::from_micros(micros);
            let found = all.iter().find(|(at, _)| *at >= shown).unwrap().0;
            let late = found - shown;
            assert!(late <= FIRST_PAUSE.max(shown / 7), "{shown:?}: {late:?}");
        }
    }

    #[test]
    fn while_this_process_writes_looks_are_far_apart_and_go_on() {
        let end = Duration::from_secs(10);
        let look = |at: Duration| match at < end {
            true => Look::Own,
            false => Look::Nothing,
        };
        let all = looks(look);
        let during = all.iter().filter(|(at, _)| *at < end).count();
        assert!((4_900..5_300).contains(&during), "{during} looks in 10 s");
        let gaps = all.windows(2).map(|pair| pair[1].0 - pair[0].0);
        let busy = gaps.take(during).max().unwrap();
        assert!(busy <= BUSY_PAUSE, "{busy:?}");
    }

    #[test]
    fn one_commit_that_was_found_makes_the_next_be_looked_for() {
        let found = Duration::from_millis(2);
        let mut pauses = Pauses::default();
        assert_eq!(pauses.next(Look::Nothing), Some(FIRST_PAUSE));
        let look = |micros| Look::Found {
            took: Duration::from_micros(micros),
        };
        assert_eq!(pauses.next(look(9)), Some(found));
        assert_eq!(pauses.next(look(9)), Some(found));
        assert_eq!(pauses.next(Look::Nothing), Some(FIRST_PAUSE));
        assert_eq!(
            pauses.next(look(2_000)),
            Some(8 * found),
            "never all the time"
        );
    }
}
