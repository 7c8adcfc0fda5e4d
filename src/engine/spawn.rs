//! Starting a process that is written down before it runs.
//!
//! Between the start of a guest and its record vmnet may be killed, and nobody would know the process. So the child
//! waits before exec until the record stands; if that never happens, it ends.

use std::io::{self, Read, Write, pipe};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Starts `command`; its program runs only once `record` has been called with the process number and has succeeded.
///
/// The outer error is that of the start, the inner one that of `record`.
pub(super) fn recorded<E>(
    mut command: Command,
    record: impl FnOnce(i32) -> Result<(), E>,
) -> io::Result<Result<(), E>> {
    let (mut pid_read, pid_write) = pipe()?;
    let (go_read, mut go_write) = pipe()?;
    let ends = [pid_read.as_raw_fd(), go_write.as_raw_fd()];
    let (tell, wait) = (pid_write.as_raw_fd(), go_read.as_raw_fd());
    // SAFETY: `gate` makes system calls only; the descriptors are open until the child is forked, which is before
    // this function closes them.
    unsafe { command.pre_exec(move || gate(ends, tell, wait)) };
    std::thread::scope(|scope| {
        // `spawn` returns after exec, so it waits on a thread of its own.
        let spawned = std::thread::Builder::new().spawn_scoped(scope, move || {
            let child = command.spawn();
            // With the last copies of these the other side sees that there is no child.
            drop((pid_write, go_read));
            child
        })?;
        let mut number = [0; 4];
        let recorded = match pid_read.read_exact(&mut number) {
            Ok(()) => Some(record(i32::from_ne_bytes(number))),
            // No child came to be: what `spawn` says is the reason.
            Err(_) => None,
        };
        if let Some(Ok(())) = recorded {
            go_write.write_all(b"!")?;
        }
        drop(go_write);
        let child = spawned.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (recorded, child) {
            (Some(Err(error)), _) => Ok(Err(error)),
            (Some(Ok(())), Ok(_)) => Ok(Ok(())),
            (_, Err(error)) => Err(error),
            (None, Ok(_)) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    })
}

/// In the child: says its number, and waits for leave to go on.
fn gate(parents: [RawFd; 2], tell: RawFd, wait: RawFd) -> io::Result<()> {
    // SAFETY: closing, getpid, write and read are system calls without memory but the two local buffers.
    unsafe {
        for end in parents {
            libc::close(end);
        }
        let number = libc::getpid().to_ne_bytes();
        if libc::write(tell, number.as_ptr().cast(), number.len()) != 4 {
            return Err(io::Error::last_os_error());
        }
        let mut leave = 0_u8;
        match libc::read(wait, (&raw mut leave).cast(), 1) {
            1 => Ok(()),
            // The one who waits for the child gave up, or is gone.
            _ => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &std::path::Path) -> Command {
        let mut command = Command::new("touch");
        command.arg(path);
        command
    }

    #[test]
    fn the_program_runs_when_it_is_recorded_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let (yes, no) = (folder.path().join("yes"), folder.path().join("no"));
        let mut seen = 0;
        let started = recorded(touch(&yes), |pid| {
            assert!(!yes.exists());
            seen = pid;
            Ok::<(), ()>(())
        });
        assert_eq!(started.unwrap(), Ok(()));
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(seen), None).unwrap();
        assert!(yes.exists());
        assert_eq!(recorded(touch(&no), |_| Err("full")).unwrap(), Err("full"));
        assert!(!no.exists());
    }

    #[test]
    fn a_program_that_is_not_there_is_the_starts_error() {
        let error = recorded(Command::new("/nonexistent/program"), |_| Ok::<(), ()>(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
