//! [`Process`]: one process, and never another that got its number later.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process by number and start time, held by a descriptor.
#[derive(Debug)]
pub struct Process {
    /// Its number.
    pid: i32,
    fd: OwnedFd,
}

impl Process {
    /// Opens a process; `None` when it has ended, or when its number belongs to another one by now.
    pub fn open(pid: i32, started: u64) -> Option<Self> {
        // SAFETY: pidfd_open(2) takes two integers and gives a new descriptor (close-on-exec) or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the kernel has just made it for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // Looked at after it is held: what has this start time now is what the descriptor stands for.
        (start_time(pid) == Some(started)).then_some(Self { pid, fd })
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal; that it has ended already is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let (fd, signal) = (self.fd.as_raw_fd(), signal as i32);
        // SAFETY: pidfd_send_signal(2) with an open descriptor, a signal number, no siginfo and no flags.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<()>(), 0) };
        match io::Error::last_os_error() {
            _ if result == 0 => Ok(()),
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        }
    }

    /// Waits until it has ended, at most so long; says whether it has. Needs a tokio runtime.
    pub async fn ended_within(&self, limit: Duration) -> io::Result<bool> {
        // SAFETY: an `OwnedFd` that moves in here stays open, and the same, until it is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(self.fd.try_clone()?, Interest::READABLE) };
        let fd = fd.map_err(io::Error::from)?;
        let ended = tokio::time::timeout(limit, fd.readable()).await;
        if let Ok(readiness) = ended {
            let _ready = readiness?;
            // If it was a child of ours it leaves nothing behind; else this does nothing.
            let _ = nix::sys::wait::waitpid(
                nix::unistd::Pid::from_raw(self.pid),
                Some(nix::sys::wait::WaitPidFlag::WNOHANG),
            );
            return Ok(true);
        }
        Ok(false)
    }
}

/// When a process that runs was started, in clock ticks since boot (proc_pid_stat(5), field 22); `None` when it has
/// ended, a zombie included.
pub(super) fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name, may hold anything, brackets and blanks included; it ends at the last bracket.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    // The first thread may have ended while others have not: as long as one is left, so are the process's files, and
    // the locks that they hold on a guest's disk.
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    if matches!(state, "X" | "x") || (state == "Z" && threads() <= 1) {
        return None;
    }
    // The state is field 3, so field 22 is the 19th after it.
    fields.nth(18)?.parse().ok()
}

/// How long ago a start time was.
pub(super) fn age(started: u64) -> Duration {
    let uptime = std::fs::read_to_string("/proc/uptime").ok();
    let uptime: f64 = uptime.and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0.0);
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Duration::try_from_secs_f64(uptime - started as f64 / ticks as f64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_process_is_known_by_its_start_time() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let started = start_time(pid).unwrap();
        assert!(Process::open(pid, started + 1).is_none());
        let process = Process::open(pid, started).unwrap();
        assert!(!process.ended_within(Duration::from_millis(10)).await.unwrap());
        process.signal(Signal::SIGKILL).unwrap();
        assert!(process.ended_within(Duration::from_secs(5)).await.unwrap());
        process.signal(Signal::SIGKILL).unwrap();
        assert_eq!(start_time(pid), None);
        let _ = child.wait();
    }
}
