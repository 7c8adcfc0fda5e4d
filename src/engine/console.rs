//! The serial console of a guest on this terminal, or for a script on standard input and output.
//!
//! QEMU drops what a guest writes while nobody is connected, so a guest never stalls on its console.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::EngineError;
use super::folder::{Folder, make_parent};
use crate::names::{LabName, VmName};
use crate::render::qemu::CONSOLE_SOCKET;

/// Ctrl-], which leaves the console.
const LEAVE: u8 = 0x1d;

/// Connects standard input and output to the console of the guest whose run folder is `run_dir`.
///
/// On a terminal: raw, until Ctrl-] or the guest's end. Else standard input is sent, then the console's output is
/// copied until the guest ends or has been silent for `silence`.
pub fn attach(lab: &LabName, vm: &VmName, run_dir: &Path, silence: Duration) -> Result<(), EngineError> {
    let _lock = lock(lab, vm, run_dir)?;
    let run = Folder::open(run_dir)?.ok_or_else(|| EngineError::not_running(lab, vm))?;
    let fail = |source| EngineError::Console { vm: vm.clone(), source };
    let place = run.socket(CONSOLE_SOCKET).map_err(|_| EngineError::not_running(lab, vm))?;
    let mut socket = UnixStream::connect(format!("/proc/self/fd/{}", place.as_raw_fd())).map_err(fail)?;
    socket.set_nonblocking(true).map_err(fail)?;
    join(vm, &mut socket, silence)
}

/// As [`attach`], to the console of a guest that libvirt runs: the pseudoterminal `pty`.
pub fn attach_pty(
    lab: &LabName,
    vm: &VmName,
    run_dir: &Path,
    pty: &Path,
    silence: Duration,
) -> Result<(), EngineError> {
    // Nobody but libvirt may have made anything for this guest.
    make_parent(run_dir)?;
    let _lock = lock(lab, vm, run_dir)?;
    let fail = |source| EngineError::Console { vm: vm.clone(), source };
    let flags = libc::O_NOCTTY | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let mut console = File::options().read(true).write(true).custom_flags(flags).open(pty).map_err(fail)?;
    if !console.metadata().map_err(fail)?.file_type().is_char_device() {
        return Err(fail(io::ErrorKind::InvalidInput.into()));
    }
    join(vm, &mut Pty(&mut console), silence)
}

/// A pseudoterminal. When the other end is closed, reading it is an error.
struct Pty<'a>(&'a mut File);

impl Read for Pty<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
            read => read,
        }
    }
}

impl Write for Pty<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl AsFd for Pty<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Joins standard input and output with a console until one of them ends.
fn join(vm: &VmName, console: &mut (impl Read + Write + AsFd), silence: Duration) -> Result<(), EngineError> {
    let fail = |source| EngineError::Console { vm: vm.clone(), source };
    let terminal = RawTerminal::enter().map_err(fail)?;
    let signals = signals().map_err(fail)?;
    if terminal.is_some() {
        say(&format!("Console of {vm}; Ctrl-] leaves it.\r\n"));
    }
    let ended = copy(console, io::stdin().as_fd(), terminal.is_some(), signals.as_fd(), silence);
    drop(terminal);
    if let Ok(End::Left) = ended {
        say("\n");
    }
    ended.map(drop).map_err(fail)
}

/// Says something beside the guest's own output. A closed stderr is no reason to stop.
fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Why the copying came to its end.
enum End {
    /// Ctrl-], or a signal.
    Left,
    /// The guest's QEMU closed the socket.
    Closed,
    /// A script's time is over.
    Silent,
}

/// What is on its way to the guest.
#[derive(Default)]
struct Input {
    /// Nothing more comes.
    is_over: bool,
    /// Ctrl-] came.
    leaves: bool,
    /// What the guest has not taken yet.
    pending: Vec<u8>,
}

impl Input {
    /// Whether to look for more. A script waits for the guest; at a terminal Ctrl-] must be seen although it takes
    /// nothing.
    fn wants_more(&self, interactive: bool) -> bool {
        !self.is_over && (interactive || self.pending.is_empty())
    }

    fn take(&mut self, stdin: BorrowedFd<'_>, buffer: &mut [u8], interactive: bool) -> io::Result<()> {
        // Past std's buffer, which a poll does not see into.
        let length = nix::unistd::read(stdin, buffer)?;
        let typed = &buffer[..length];
        let leave = interactive.then(|| typed.iter().position(|byte| *byte == LEAVE)).flatten();
        self.is_over = length == 0;
        self.leaves = leave.is_some() || (interactive && self.is_over);
        self.pending.extend_from_slice(&typed[..leave.unwrap_or(length)]);
        Ok(())
    }

    /// Hands over what the guest takes at once.
    fn send(&mut self, console: &mut impl Write) -> io::Result<()> {
        while !self.pending.is_empty() {
            match console.write(&self.pending) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Copies both ways. `console` does not block: a guest that reads nothing must not make this deaf to signals.
fn copy(
    console: &mut (impl Read + Write + AsFd),
    stdin: BorrowedFd<'_>,
    interactive: bool,
    signals: BorrowedFd<'_>,
    silence: Duration,
) -> io::Result<End> {
    let mut stdout = io::stdout();
    let mut input = Input::default();
    let mut last = Instant::now();
    let mut buffer = [0; 16 << 10];
    loop {
        let sends = if input.pending.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
        let mut waiting =
            vec![PollFd::new(console.as_fd(), PollFlags::POLLIN | sends), PollFd::new(signals, PollFlags::POLLIN)];
        // Without events of interest a closed input would still wake the poll all the time.
        waiting.extend(input.wants_more(interactive).then(|| PollFd::new(stdin, PollFlags::POLLIN)));
        let limit = match !interactive && input.is_over && input.pending.is_empty() {
            true => match silence.checked_sub(last.elapsed()) {
                Some(left) => PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
                None => return Ok(End::Silent),
            },
            false => PollTimeout::NONE,
        };
        match poll(&mut waiting, limit) {
            Err(nix::errno::Errno::EINTR) => continue,
            result => result?,
        };
        let ready: Vec<bool> = waiting.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        if ready[0] {
            match console.read(&mut buffer) {
                Ok(0) => return Ok(End::Closed),
                Ok(length) => {
                    stdout.write_all(&buffer[..length])?;
                    stdout.flush()?;
                    last = Instant::now();
                }
                // It was for writing.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if ready[1] {
            return Ok(End::Left);
        }
        if ready.get(2) == Some(&true) {
            input.take(stdin, &mut buffer, interactive)?;
            last = Instant::now();
        }
        if !input.pending.is_empty() {
            input.send(console)?;
            last = Instant::now();
        }
        if input.leaves {
            return Ok(End::Left);
        }
    }
}

/// One console a guest: QEMU would let a second one wait without a word.
fn lock(lab: &LabName, vm: &VmName, run_dir: &Path) -> Result<File, EngineError> {
    let path = run_dir.with_extension("console");
    let fail = |source| match io::Error::kind(&source) {
        io::ErrorKind::NotFound => EngineError::not_running(lab, vm),
        _ => EngineError::File { action: "open", path: path.clone(), source },
    };
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(EngineError::ConsoleBusy { vm: vm.clone() }),
        Err(std::fs::TryLockError::Error(source)) => Err(fail(source)),
    }
}

/// The signals that end a console, as a descriptor: the terminal has to be put right first.
fn signals() -> io::Result<SignalFd> {
    let set = SigSet::from_iter([Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT]);
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?)
}

/// The terminal's settings as they were, for whoever has to restore them.
static FOUND: Mutex<Option<Termios>> = Mutex::new(None);

/// A terminal that hands every key on; as it was again when this is dropped, and when the program panics.
struct RawTerminal;

impl RawTerminal {
    /// `None` when standard input is no terminal.
    fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        let Ok(found) = tcgetattr(&stdin) else { return Ok(None) };
        let mut raw = found.clone();
        cfmakeraw(&mut raw);
        if FOUND.lock().unwrap_or_else(PoisonError::into_inner).replace(found).is_none() {
            let previous = std::panic::take_hook();
            // A panic may abort without unwinding, and then nothing is dropped.
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                previous(panic);
            }));
        }
        tcsetattr(&stdin, SetArg::TCSADRAIN, &raw)?;
        Ok(Some(Self))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some(found) = FOUND.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::pthread::{pthread_kill, pthread_self};

    /// Copies more than fits to somebody who reads nothing, and gives how it ended once `end` was called.
    fn stuck(interactive: bool, end: impl FnOnce(&mut UnixStream) + Send) -> io::Result<End> {
        let (mut console, unread) = UnixStream::pair()?;
        console.set_nonblocking(true)?;
        let (stdin, mut typed) = UnixStream::pair()?;
        let signals = signals()?;
        let ended = std::thread::scope(|scope| {
            scope.spawn(move || {
                typed.set_nonblocking(true).unwrap();
                let mut sent = 0;
                let deadline = Instant::now() + Duration::from_secs(20);
                while sent < 4 << 20 && Instant::now() < deadline {
                    match typed.write(&[b'x'; 4096]) {
                        Ok(length) => sent += length,
                        // Who waits for the guest takes no more by then.
                        Err(_) if !interactive && sent > 1 << 18 => break,
                        Err(_) => std::thread::sleep(Duration::from_millis(1)),
                    }
                }
                std::thread::sleep(Duration::from_millis(200));
                end(&mut typed);
            });
            copy(&mut console, stdin.as_fd(), interactive, signals.as_fd(), Duration::from_millis(10))
        });
        drop(unread);
        ended
    }

    #[test]
    fn a_guest_that_reads_nothing_makes_nobody_deaf() {
        let own = pthread_self();
        let ended = stuck(false, |_| pthread_kill(own, Signal::SIGTERM).unwrap());
        assert!(matches!(ended, Ok(End::Left)));
    }

    #[test]
    fn a_terminal_is_left_although_the_guest_reads_nothing() {
        let ended = stuck(true, |typed| {
            while typed.write(&[LEAVE]).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        assert!(matches!(ended, Ok(End::Left)));
    }

    #[test]
    fn all_of_the_input_arrives_and_then_silence_ends_it() {
        let (mut console, mut guest) = UnixStream::pair().unwrap();
        console.set_nonblocking(true).unwrap();
        let (stdin, mut typed) = UnixStream::pair().unwrap();
        let (quiet, _signals) = UnixStream::pair().unwrap();
        std::thread::scope(|scope| {
            let read = scope.spawn(move || {
                let mut all = vec![0; 1 << 20];
                guest.read_exact(&mut all).map(|()| (all, guest))
            });
            scope.spawn(move || typed.write_all(&[b'x'; 1 << 20]).unwrap());
            let ended = copy(&mut console, stdin.as_fd(), false, quiet.as_fd(), Duration::from_millis(100));
            assert!(matches!(ended, Ok(End::Silent)));
            assert!(read.join().unwrap().unwrap().0.iter().all(|byte| *byte == b'x'));
        });
    }
}
