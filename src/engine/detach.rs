//! A process that outlives whoever starts it: its terminal, its session, its login.

use std::fs::File;
use std::io::{self, PipeReader, Read, pipe};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where programs are looked for, whatever the caller's environment says.
const SEARCH_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts this program again as a process of a session of its own, in `/`, with nothing open but `/dev/null` and
/// nothing in its environment but `PATH` and `environment`. Its number, once it has called [`is_ready`].
///
/// # Errors
/// Also when it ended before it was ready.
pub fn start(arguments: &[&str], environment: &[(&str, &Path)]) -> io::Result<i32> {
    let (reader, writer) = pipe()?;
    // Not by its path: a package may replace the file meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("vmnet").args(arguments).current_dir("/");
    command.env_clear().env("PATH", SEARCH_PATH).envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null());
    // SAFETY: `detach` makes system calls only.
    unsafe { command.pre_exec(detach) };
    let mut first = command.spawn()?;
    // With it goes the last copy of the pipe's other end here.
    drop(command);
    first.wait()?;
    number(reader)
}

fn number(mut reader: PipeReader) -> io::Result<i32> {
    let mut number = [0; 4];
    reader.read_exact(&mut number)?;
    Ok(i32::from_ne_bytes(number))
}

/// To be called by the process that [`start`] started: says that it is ready, and lets go of its last descriptor.
///
/// # Errors
/// When nobody listens any more.
pub fn is_ready() -> io::Result<()> {
    let number = nix::unistd::getpid().as_raw().to_ne_bytes();
    let stdout = io::stdout();
    if nix::unistd::write(&stdout, &number)? != number.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(nix::unistd::dup2_stdout(File::options().write(true).open("/dev/null")?)?)
}

/// In the child: a session without a terminal, and a second child that is no leader of it and so can't get one. Its
/// parent is process 1 from now on.
fn detach() -> io::Result<()> {
    // SAFETY: system calls only; the process has one thread here, and what is left of it ends at once.
    unsafe {
        check(libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32))?;
        check(libc::setsid())?;
        match check(libc::fork())? {
            0 => Ok(()),
            _ => libc::_exit(0),
        }
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
