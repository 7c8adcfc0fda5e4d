//! [`Link`]: one multiplexed connection to a host by the system's OpenSSH.
//!
//! The connection itself is started here rather than by the `openssh` crate: so that whether an unknown host key is
//! accepted stays the user's own configuration, and that forwardings and commands which they wrote there for their own
//! logins are left out. Everything that goes through it is the crate's.

use std::io::{IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use openssh::Session;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::error::Trouble;
use super::started::{self, Input, Started};
use super::told;
use crate::engine::ssh::Door;
use crate::kernel::child;
use crate::render::shell;

/// How long the connection may take altogether; the first part, to the exchange of keys, by `ConnectTimeout=10`.
const CONNECTING: Duration = Duration::from_secs(30);

/// Options of the connection. Three questions three seconds apart that nobody answers: a dead link is noticed within 12
/// seconds. Ten minutes without use end it, should vmnet be killed before it could.
const OPTIONS: [&str; 12] = [
    "BatchMode=yes",
    "ConnectTimeout=10",
    "ConnectionAttempts=1",
    "ServerAliveInterval=3",
    "ServerAliveCountMax=3",
    "ControlPersist=600",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
];

/// A connection.
pub(super) struct Link {
    destination: String,
    session: Mutex<Arc<Session>>,
}

impl Link {
    /// Connects.
    pub(super) async fn connect(destination: &str) -> Result<Self, Trouble> {
        if !is_destination(destination) {
            return Err(Trouble::Destination);
        }
        let session = Mutex::new(connect(destination).await?);
        Ok(Self { destination: destination.to_owned(), session })
    }

    /// Starts a command there.
    pub(super) async fn start(&self, program: &str, args: &[&str], input: Input<'_>) -> Result<Started, Trouble> {
        let session = self.session().await?;
        let mut command = session.clone().arc_command(program);
        command.args(args).stdout(openssh::Stdio::piped()).stderr(openssh::Stdio::piped());
        command.stdin(match input {
            Input::Nothing => openssh::Stdio::null(),
            Input::Bytes(_) => openssh::Stdio::piped(),
            Input::File(file) => file.into(),
        });
        let child = {
            let _deaf = Deaf::begin();
            // The crate starts the process at once, on this thread.
            command.spawn().now_or_never()
        };
        let failed = |error: openssh::Error| Trouble::Ssh { said: started::reason(error) };
        match child {
            Some(child) => Ok(Started::Far(child.map_err(failed)?, session)),
            None => Err(Trouble::Ssh { said: "it did not start at once".into() }),
        }
    }

    /// Runs a command there on this terminal.
    pub(super) async fn interactive(&self, program: &str, args: &[&str]) -> Result<i32, Trouble> {
        let begun = Instant::now();
        let session = self.session().await?;
        let mut command = child::callers("ssh");
        command.arg("-S").arg(session.control_socket()).args(["-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]);
        // Should the connection be gone: the discard port, so that no other one is made.
        command.args(["-p", "9", if std::io::stdin().is_terminal() { "-t" } else { "-T" }, "none", "--"]);
        command.args(std::iter::once(&program).chain(args).map(|word| shell::quote(word)));
        match started::interactive("ssh", command).await? {
            255 => match session.check().await {
                Ok(()) => Ok(255),
                Err(error) => Err(Trouble::Cut { after: begun.elapsed(), said: started::reason(error) }),
            },
            code => Ok(code),
        }
    }

    /// Runs ssh to a guest on this terminal, through a pipe that vmnet makes there.
    pub(super) async fn log_in(&self, door: &Door, pipe: &[&str], args: &[String]) -> Result<i32, Trouble> {
        let start = |source| Trouble::Start { program: "ssh".into(), source };
        let session = self.session().await?;
        let mut known = tempfile::NamedTempFile::new().map_err(start)?;
        let mut command = child::callers("ssh");
        let is_line = |text: &str| text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
        if let Some(key) = door.host_key.as_ref().filter(|key| is_line(key)) {
            writeln!(known, "{} {key}", door.alias).map_err(start)?;
            command.arg("-o").arg(format!("UserKnownHostsFile=\"{}\"", known.path().display()));
            command.args(["-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes"]);
        }
        let socket = session.control_socket().to_string_lossy();
        let there: Vec<String> = pipe.iter().map(|word| shell::quote(word)).collect();
        // Quoted twice: for the shell here that starts it, and for the one there.
        let through = ["ssh", "-S", &socket, "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-p", "9", "none", "--"];
        let through = through.map(shell::quote).into_iter().chain(there.iter().map(|word| shell::quote(word)));
        let through = through.collect::<Vec<_>>().join(" ");
        command.arg("-o").arg(format!("ProxyCommand={}", through.replace('%', "%%")));
        command.args(["-o", &format!("HostKeyAlias={}", door.alias), "-o", "CheckHostIP=no", "-l", &door.user]);
        command.arg(door.address.to_string()).args(args);
        started::interactive("ssh", command).await
    }

    /// Ends the connection.
    pub(super) async fn close(self) {
        if let Ok(session) = Arc::try_unwrap(self.session.into_inner()) {
            // It may be gone already, which is as good.
            let _ = timeout(CONNECTING, session.close()).await;
        }
    }

    /// The connection; made anew where it has ended since it was used last. Nothing has been started by then.
    async fn session(&self) -> Result<Arc<Session>, Trouble> {
        let mut session = self.session.lock().await;
        // The process that holds it answers there as long as it is alive.
        if UnixStream::connect(session.control_socket()).is_err() {
            *session = connect(&self.destination).await?;
        }
        Ok(session.clone())
    }
}

/// What may stand after `ssh`: no option, and nothing that a `ProxyCommand` of the user's would hand to a shell.
fn is_destination(text: &str) -> bool {
    let fit = |c: char| c.is_alphanumeric() || "@.:-_[]%/+".contains(c);
    !text.is_empty() && !text.starts_with('-') && text.chars().all(fit)
}

async fn connect(destination: &str) -> Result<Arc<Session>, Trouble> {
    let start = |source| Trouble::Start { program: "ssh".into(), source };
    // Short, since the path of a socket has at most 108 bytes; 0700.
    let folder = tempfile::Builder::new().prefix("vmnet-ssh.").tempdir().map_err(start)?;
    let log = folder.path().join("log");
    let mut command = child::callers("ssh");
    command.arg("-E").arg(&log).arg("-S").arg(folder.path().join("master")).args(["-M", "-f", "-N"]);
    for option in OPTIONS {
        command.args(["-o", option]);
    }
    command.args(["--", destination]).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    let mut waiting = command.kill_on_drop(true).spawn().map_err(start)?;
    // It ends when the connection stands, and leaves a process behind that holds it.
    match timeout(CONNECTING, waiting.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(Arc::new(Session::new_process_mux(folder))),
        Ok(Ok(_)) => Err(told::trouble(&said(&log, folder))),
        Ok(Err(source)) => Err(start(source)),
        Err(_) => Err(Trouble::TooSlow { what: "the connection", limit: CONNECTING }),
    }
}

fn said(log: &Path, folder: TempDir) -> String {
    let said = std::fs::read(log).unwrap_or_default();
    drop(folder);
    String::from_utf8_lossy(&said).into_owned()
}

/// While it lives, this thread blocks the signals of a terminal, and so does for good what is started meanwhile: they
/// are for vmnet to handle, not for its ssh to die of. (ssh would handle them even where they were ignored.)
struct Deaf(Option<SigSet>);

impl Deaf {
    fn begin() -> Self {
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP]);
        Self(signals.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok())
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            // It was the mask a moment ago.
            let _ = before.thread_set_mask();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_no_option_and_no_shell_word() {
        for good in ["h1", "root@10.0.0.1", "ssh://root@h1:2222", "fe80::1%eth0", "[::1]", "müller"] {
            assert!(is_destination(good), "{good}");
        }
        for bad in ["", "-oProxyCommand=x", "h1 h2", "h1;id", "$(id)", "`id`", "h1\n", "a|b", "'"] {
            assert!(!is_destination(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_started_while_deaf_stays_deaf_and_the_thread_does_not() {
        let mut command = child::callers("sleep");
        let mut child = {
            let _deaf = Deaf::begin();
            command.arg("60").spawn().unwrap()
        };
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
        let blocked = u64::from_str_radix(blocked, 16).unwrap();
        let bit = |signal: Signal| 1_u64 << (signal as u32 - 1);
        assert_eq!(blocked & bit(Signal::SIGINT), bit(Signal::SIGINT));
        assert_eq!(blocked & bit(Signal::SIGTERM), 0);
        assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGINT));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
