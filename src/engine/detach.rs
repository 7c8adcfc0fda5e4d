//! A process that outlives whoever starts it: its terminal, its session, its login.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, pipe};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use super::own_scope;
use crate::kernel::caps::{self, Caps};
use crate::kernel::child;

/// What the process says when it is ready; anything else is why it is not.
const READY: &str = "ready";

/// A process of its own that waits to be released.
#[derive(Debug)]
#[must_use = "it waits to be released"]
pub struct Detached {
    /// Nothing is written: its end is the word, also when this process is killed.
    release: PipeWriter,
    ready: PipeReader,
}

/// Starts this program again as a process of a session of its own, in `/`, with nothing open but two pipes and
/// nothing in its environment but `PATH`, `LC_ALL` and `environment`. It has to call [`released`] and then [`tell`].
///
/// # Errors
/// When it does not start.
pub fn start(arguments: &[&str], environment: &[(&str, &Path)]) -> io::Result<Detached> {
    let (ready, its_ready) = pipe()?;
    let (its_release, release) = pipe()?;
    // Not by its path: a package may replace the file meanwhile.
    let mut command = child::bare(Path::new("/proc/self/exe"));
    command.arg0("vmnet").args(arguments).envs(environment.iter().copied());
    command.stdin(its_release).stdout(its_ready).stderr(Stdio::null());
    // SAFETY: `detach` makes system calls only.
    unsafe { command.pre_exec(detach) };
    let mut first = command.spawn()?;
    // With it go the last copies of the pipes' other ends here.
    drop(command);
    first.wait()?;
    Ok(Detached { release, ready })
}

impl Detached {
    /// Lets it go on, and waits until it is ready.
    ///
    /// # Errors
    /// What it says, or that it ended without a word.
    pub fn release(self) -> io::Result<()> {
        let Self { release, ready } = self;
        drop(release);
        match io::read_to_string(ready)?.as_str() {
            READY => Ok(()),
            "" => Err(io::ErrorKind::UnexpectedEof.into()),
            why => Err(io::Error::other(why.to_owned())),
        }
    }
}

/// In the process that [`start`] started: leaves the caller's login, and waits until the caller lets it go on, or is
/// gone.
///
/// # Errors
/// When systemd gives it no scope, so that it would end with the caller's login.
pub async fn released(scope: &str) -> io::Result<()> {
    if !own_scope(scope, &[nix::unistd::getpid().as_raw()], None).await {
        return Err(io::Error::other("systemd gives it no scope of its own, so it would end with this login"));
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(nix::unistd::dup2_stdin(File::open("/dev/null")?)?)
}

/// In the process that [`start`] started: says that it is ready, or why not, and lets go of its last descriptor.
///
/// # Errors
/// When `/dev/null` is not there.
pub fn tell(problem: Option<&str>) -> io::Result<()> {
    // Whoever is gone has no need to know.
    let _ = nix::unistd::write(io::stdout(), problem.unwrap_or(READY).as_bytes());
    Ok(nix::unistd::dup2_stdout(File::options().write(true).open("/dev/null")?)?)
}

/// In the child: a session without a terminal, and a second child that is no leader of it and so can't get one. Its
/// parent is process 1 from now on.
fn detach() -> io::Result<()> {
    // SAFETY: system calls only; the process has one thread here, and what is left of it ends at once.
    unsafe {
        check(libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32))?;
        // It may do what its starter may.
        caps::hand(Caps::ALL)?;
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
