//! The command of `vmnet with`: the caller's own program, on the caller's own streams.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::failure::Failure;
use super::output::{Output, foreign};
use super::signals::Signals;
use crate::kernel::child;
use crate::names::LabName;

/// How often it is looked whether there is a signal to be handed on.
const LOOK: Duration = Duration::from_millis(50);

/// What a shell says of a program that is not there, and of one that can't be run.
const NOT_THERE: u8 = 127;
const NOT_RUN: u8 = 126;

/// Tells that a program is not there, or none that can be run; its exit code then.
pub(super) fn missing(program: &str, output: &Output) -> Option<ExitCode> {
    let runs = |path: &Path| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    let path = Path::new(program);
    let is_there = match program.contains('/') {
        true => runs(path),
        false => {
            let folders = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&folders).any(|folder| runs(&folder.join(program)))
        }
    };
    if is_there {
        return None;
    }
    let help = "name a program, and its arguments as words of their own: vmnet with net.toml -- make test";
    let (message, code) = match program.contains('/') && path.exists() {
        true => (format!("{} can't be run; nothing was done", foreign(program)), NOT_RUN),
        false => (format!("there is no program {}; nothing was done", foreign(program)), NOT_THERE),
    };
    output.failure(&Failure::advised(message, help));
    Some(ExitCode::from(code))
}

/// Runs a command with the caller's environment and standard streams, and gives its exit code as a shell would: 128 and
/// the signal's number when one ended it.
///
/// On a terminal it is in the terminal's foreground like vmnet itself, and gets what is typed there; a signal that a
/// process sends to vmnet is handed on to it. Without one it leads a process group, and all of that get what comes.
pub(super) async fn run(command: &[String], lab: &LabName, file: &Path, signals: &Signals, output: &Output) -> u8 {
    let Some((program, args)) = command.split_first() else { return 0 };
    let on_terminal = File::open("/dev/tty").is_ok();
    let mut started = child::callers(program);
    started.args(args).env("VMNET_LAB", lab.as_str()).env("VMNET_FILE", file);
    if !on_terminal {
        started.process_group(0);
    }
    let told = |error: std::io::Error| {
        let code = if error.kind() == std::io::ErrorKind::NotFound { NOT_THERE } else { NOT_RUN };
        output.failure(&Failure::failed(format!("{} can't be started", foreign(program)), error));
        code
    };
    let mut running = match tokio::process::Command::from(started).spawn() {
        Ok(running) => running,
        Err(error) => return told(error),
    };
    let pid = running.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let hand_on = |came: Vec<Signal>| {
        for (signal, pid) in came.into_iter().zip(std::iter::repeat(pid).flatten()) {
            // Who has ended meanwhile wants none.
            let _ = if on_terminal { kill(pid, signal) } else { killpg(pid, signal) };
        }
    };
    // What came before it was there has not reached it.
    hand_on(signals.take(true));
    loop {
        tokio::select! {
            ended = running.wait() => return match ended {
                Ok(status) => code(status),
                Err(error) => told(error),
            },
            () = tokio::time::sleep(LOOK) => hand_on(signals.take(!on_terminal)),
        }
    }
}

fn code(status: std::process::ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(1)
}
