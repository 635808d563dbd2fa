//! The parent's handle of a process of the bank.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::{PATIENCE, Result};

/// A running process. Killed when dropped.
pub(crate) struct Branch {
    child: Child,
    lines: Receiver<String>,
    told: Told,
}

/// What a process has reported.
#[derive(Default)]
pub(crate) struct Told {
    /// Transfers whose order was acknowledged.
    pub(crate) ordered: Vec<String>,
    /// Transfers whose handlers have begun and not ended.
    begun: HashSet<String>,
}

impl Told {
    fn hear(&mut self, line: &str) -> Result<()> {
        match line.split_once(' ') {
            Some(("ordered", id)) => self.ordered.push(id.to_owned()),
            Some(("begun", id)) => drop(self.begun.insert(id.to_owned())),
            Some(("ended", id)) => drop(self.begun.remove(id)),
            _ => return Err(format!("a process says {line:?}").into()),
        }
        Ok(())
    }

    pub(crate) fn has_unfinished(&self) -> bool {
        !self.begun.is_empty()
    }
}

impl Branch {
    pub(crate) fn start(part: &str, file: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(part)
            .arg(file)
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().expect("it is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output)
                .lines()
                .map_while(std::result::Result::ok)
            {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            lines,
            told: Told::default(),
        })
    }

    /// Waits until `ordered` of its orders were acknowledged.
    pub(crate) fn wait_for(&mut self, ordered: usize) -> Result<()> {
        while self.told.ordered.len() < ordered {
            let line = self.lines.recv_timeout(PATIENCE)?;
            self.told.hear(&line)?;
        }
        Ok(())
    }

    /// Kills the process as `kill -9` does, and returns what it had reported.
    pub(crate) fn kill(mut self) -> Result<Told> {
        self.child.kill()?;
        self.child.wait()?;
        self.listen()?;
        Ok(std::mem::take(&mut self.told))
    }

    /// Waits until the process has ended by itself.
    pub(crate) fn end(mut self, patience: Duration) -> Result<()> {
        let since = Instant::now();
        while since.elapsed() < patience {
            if let Some(status) = self.child.try_wait()? {
                self.listen()?;
                return match status.success() {
                    true => Ok(()),
                    false => Err(format!("a process ended: {status}").into()),
                };
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err("a process does not end".into())
    }

    /// Reads the rest of its reports.
    fn listen(&mut self) -> Result<()> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.told.hear(&line)?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => return Err("its pipe stays open".into()),
            }
        }
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
