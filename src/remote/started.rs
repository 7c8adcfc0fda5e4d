//! [`Started`]: a command that runs on a host, over ssh or in its namespaces here.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use openssh::Session;
use tokio::process::Child;

use super::error::Trouble;
use super::talk::{Reader, Writer};
use super::told;
use crate::kernel::child;

/// What a command reads.
pub(super) enum Input<'a> {
    /// Nothing.
    Nothing,
    /// Bytes, which the caller writes to the stream.
    Bytes(&'a [u8]),
    /// A file, which ssh reads itself.
    File(File),
}

/// It runs.
pub(super) enum Started {
    /// By ssh.
    Far(openssh::Child<Arc<Session>>, Arc<Session>),
    /// On this machine.
    Here(Child),
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With a code.
    Code(i32),
    /// By a signal.
    Killed,
    /// The connection is gone; what ssh said.
    Lost(String),
}

impl Started {
    /// Its standard streams; the first only where there are bytes to be written.
    pub(super) fn streams(&mut self) -> (Option<Writer>, Reader, Reader) {
        fn boxed(stream: Option<impl tokio::io::AsyncRead + Send + Unpin + 'static>) -> Reader {
            stream.map_or_else(|| Box::new(tokio::io::empty()) as Reader, |stream| Box::new(stream) as Reader)
        }
        match self {
            Started::Far(child, _) => (
                child.stdin().take().map(|to| Box::new(to) as Writer),
                boxed(child.stdout().take()),
                boxed(child.stderr().take()),
            ),
            Started::Here(child) => (
                child.stdin.take().map(|to| Box::new(to) as Writer),
                boxed(child.stdout.take()),
                boxed(child.stderr.take()),
            ),
        }
    }

    /// Waits for its end.
    pub(super) async fn end(self) -> Result<End, Trouble> {
        match self {
            Started::Here(mut child) => Ok(end(child.wait().await.map_err(Trouble::Pipe)?)),
            Started::Far(child, session) => match child.wait().await {
                Ok(status) => Ok(end(status)),
                Err(openssh::Error::Remote(_)) => Ok(End::Code(127)),
                // 255 is what ssh says for both.
                Err(openssh::Error::RemoteProcessTerminated | openssh::Error::Disconnected) => {
                    Ok(match session.check().await {
                        Ok(()) => End::Killed,
                        Err(error) => End::Lost(reason(error)),
                    })
                }
                Err(error) => Ok(End::Lost(reason(error))),
            },
        }
    }
}

/// What ssh says of a connection that is gone.
pub(super) fn reason(error: openssh::Error) -> String {
    match error {
        openssh::Error::Master(source) | openssh::Error::Ssh(source) | openssh::Error::Connect(source) => {
            told::last(&source.to_string())
        }
        other => other.to_string(),
    }
}

fn end(status: ExitStatus) -> End {
    match status.code() {
        Some(code) => End::Code(code),
        None => End::Killed,
    }
}

/// This program, whatever became of its file.
pub(super) fn own(args: &[&str]) -> Command {
    let mut command = child::callers("/proc/self/exe");
    command.args(args);
    command
}

/// Starts a command of this machine as one of a host's: a signal from the terminal is not for it, and it outlives
/// whoever asked, as it would over ssh.
pub(super) fn here(program: &str, mut command: Command, input: Input<'_>) -> Result<Started, Trouble> {
    command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(match input {
        Input::Nothing => Stdio::null(),
        Input::Bytes(_) => Stdio::piped(),
        Input::File(file) => Stdio::from(file),
    });
    let child = tokio::process::Command::from(command).spawn();
    child.map(Started::Here).map_err(|source| Trouble::Start { program: program.to_owned(), source })
}

/// Runs a command with this process's own streams; 128 and the signal's number when one ended it.
pub(super) async fn interactive(program: &str, command: Command) -> Result<i32, Trouble> {
    let status = tokio::process::Command::from(command).status().await;
    let status = status.map_err(|source| Trouble::Start { program: program.to_owned(), source })?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
}
