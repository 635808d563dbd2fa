//! Which process an instance is, and whether the kernel still has it.

use std::fs;

/// The identity of a process for as long as the machine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// The system's id of this boot; empty where it has none, or hides it.
    pub(crate) boot_id: String,
    /// The namespace of the pid: each container may begin at 1. Empty where it is not known.
    pub(crate) pid_namespace: String,
    pub(crate) pid: u32,
}

/// The boot id that a backup gives to the instances of its original. No boot has it, so they are dead wherever the backup is
/// put.
pub(crate) const OF_BACKUP: &str = "copied";

/// How the boot of a process compares with this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boot {
    /// It was of this boot.
    This,
    /// It was of another boot, and so is gone.
    Another,
    /// One of the two boot ids is not known.
    Unknown,
}

impl Process {
    pub(crate) fn own() -> Self {
        let namespace = fs::read_link("/proc/self/ns/pid");
        Self {
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .map(|id| id.trim().to_owned())
                .unwrap_or_default(),
            pid_namespace: namespace
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            pid: std::process::id(),
        }
    }

    /// Of which boot the process was, as seen by `own`.
    pub(crate) fn boot(&self, own: &Self) -> Boot {
        if self.boot_id.is_empty() || own.boot_id.is_empty() {
            Boot::Unknown
        } else if self.boot_id == own.boot_id {
            Boot::This
        } else {
            Boot::Another
        }
    }

    /// Whether it is an instance of the original, in a backup.
    pub(crate) fn is_of_backup(&self) -> bool {
        self.boot_id == OF_BACKUP
    }

    /// Whether the kernel says that the process is gone, whatever still has its files open. `false`: it is there, or its pid
    /// means another process here, or nothing is known.
    pub(crate) fn has_exited(&self, own: &Self) -> bool {
        self.boot(own) == Boot::This
            && !self.pid_namespace.is_empty()
            && self.pid_namespace == own.pid_namespace
            && has_exited(self.pid)
    }
}

/// Whether no process has that pid, or only a zombie.
#[cfg(target_os = "linux")]
fn has_exited(pid: u32) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::io::Errno;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Err(error) => error == Errno::SRCH,
        Ok(process) => {
            // It is readable once all threads of the process have ended.
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let mut fds = [PollFd::new(&process, PollFlags::IN)];
            poll(&mut fds, Some(&now)).is_ok_and(|ready| ready == 1)
                && fds[0].revents().contains(PollFlags::IN)
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn has_exited(_pid: u32) -> bool {
    false
}

/// When this process started, in ticks since the boot; 0 where it is not known. With the pid it names the process to a
/// person who looks at the file.
pub(crate) fn started_at() -> i64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command's name, in parentheses, may hold anything.
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(19))
        .and_then(|ticks| ticks.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(boot_id: &str, pid_namespace: &str, pid: u32) -> Process {
        Process {
            boot_id: boot_id.to_owned(),
            pid_namespace: pid_namespace.to_owned(),
            pid,
        }
    }

    #[test]
    fn p11_a_boot_that_is_not_told_says_nothing() {
        let own = process("a", "n", 1);
        assert_eq!(process("a", "n", 2).boot(&own), Boot::This);
        assert_eq!(process("b", "n", 2).boot(&own), Boot::Another);
        assert_eq!(process("", "n", 2).boot(&own), Boot::Unknown);
        assert_eq!(own.boot(&process("", "n", 2)), Boot::Unknown);
        assert_eq!(
            process("", "n", 1).boot(&process("", "n", 2)),
            Boot::Unknown
        );
    }

    /// Zombies are covered by the tests with real processes.
    #[cfg(target_os = "linux")]
    #[test]
    fn p11_a_process_is_gone_if_no_process_has_its_number_where_that_means_it() {
        let own = Process::own();
        assert!(!own.has_exited(&own));
        // More than the kernel ever gives.
        let pid = i32::MAX as u32;
        let gone = Process { pid, ..own.clone() };
        assert!(gone.has_exited(&own));
        for elsewhere in ["pid:[1]", ""] {
            let elsewhere = Process {
                pid_namespace: elsewhere.to_owned(),
                ..gone.clone()
            };
            assert!(!elsewhere.has_exited(&own) && !gone.has_exited(&elsewhere));
        }
        for pid in [0, u32::MAX] {
            let none = Process { pid, ..own.clone() };
            assert!(!none.has_exited(&own), "{pid} is no number of a process");
        }
    }
}
