//! [`Keeper`]: the process that keeps the log of a guest's console.
//!
//! QEMU itself would write a log without end, and a hostile guest would fill the host's disk. So its console goes into a
//! pipe, too, and a small process of the guest's user writes what comes out of it into files of a limited size. It ends
//! when QEMU does. If it ends before, QEMU finds the pipe closed and goes on without a log; and it never waits for
//! anything but the disk that it writes to: what can't be written is dropped.

use std::fs::File;
use std::io::{self, PipeWriter, Read, pipe};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{SigHandler, Signal, signal};
use serde::{Deserialize, Serialize};

use super::console_log::Log;
use super::folder::Folder;
use super::process::{self, Process};
use super::{EngineError, identity};
use crate::kernel::child;

/// The verb of a keeper's process.
pub const KEEP: &str = "keep-console-log";

/// This program, whatever became of its file.
const SELF: &str = "/proc/self/exe";

/// How long it may take to write what is left when QEMU has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A keeper's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keeper {
    /// Its number.
    pub pid: i32,
    /// When it was started, in clock ticks since boot.
    pub started: u64,
}

impl Keeper {
    /// Starts one as the owner of the guest's folder, in it; what is written to the pipe is logged.
    pub(super) fn start(folder: &Folder) -> Result<(Self, PipeWriter), EngineError> {
        let fail = |source| EngineError::Spawn { program: SELF.into(), source };
        let (end, log) = pipe().map_err(fail)?;
        let mut command = child::bare(Path::new(SELF));
        command.arg(KEEP).stdin(end).stdout(Stdio::null()).stderr(Stdio::null());
        identity::drop_in_child(&mut command, folder.owner(), None, folder.as_fd(), &[]);
        let pid = i32::try_from(command.spawn().map_err(fail)?.id()).unwrap_or_default();
        Ok((Self { pid, started: process::start_time(pid).unwrap_or_default() }, log))
    }

    /// Its process; `None` when it has ended.
    pub(super) fn process(&self) -> Option<Process> {
        Process::open(self.pid, self.started)
    }

    /// Waits until it has written the last of a guest that has ended.
    pub(super) async fn ended(keeper: Option<Self>) {
        if let Some(process) = keeper.and_then(|keeper| keeper.process()) {
            // One that hangs on a disk keeps nobody from stopping a guest.
            let _ = process.ended_within(LAST_WORDS).await;
        }
    }
}

/// Logs standard input to the working directory until it ends: what a keeper does.
///
/// # Errors
/// When standard input can't be read.
pub fn keep() -> io::Result<()> {
    // It ends with QEMU. What ends QEMU by a signal, as systemd does, must not cost the last lines.
    for ignored in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        // SAFETY: no function is installed.
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
    }
    let mut log = Log::begin(Path::new("."));
    // Without std's buffer.
    let mut console = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut buffer = [0; 16 << 10];
    loop {
        match console.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => log.write(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
