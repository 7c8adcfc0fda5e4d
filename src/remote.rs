//! Other hosts: vmnet's verbs carried out by the vmnet there.
//!
//! A [`Place`] is how a host is reached: over OpenSSH by the user's own configuration, or as namespaces of this machine
//! in a rehearsal. Who uses it does not know which. Every wait is bounded, and a link that dies is an error soon.

mod error;
mod event;
pub mod files;
mod install;
mod ssh;
mod started;
mod talk;
mod told;

use std::fs::File;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::timeout;

use crate::engine::ssh::Door;
pub use error::{RemoteError, Trouble};
pub use event::Event;
use started::{End, Input, Started};

/// Where `--install` puts the program on a host: in the folder that administrators' own programs are in, which is on
/// the `PATH` that sshd gives.
pub const INSTALLED: &str = "/usr/local/bin/vmnet";

/// How long a command may take on a host, where nobody says otherwise: longer than any verb waits for guests.
pub const LIMIT: Duration = Duration::from_secs(15 * 60);

/// How long a small question may take.
const SHORT: Duration = Duration::from_secs(30);

/// How long vmnet may take to end after its last line.
const ENDING: Duration = Duration::from_secs(10);

/// Makes the command that runs vmnet with some arguments on a rehearsed host.
pub type Factory = Arc<dyn Fn(&[&str]) -> Command + Send + Sync>;

/// A host, and the way to it.
pub struct Place {
    host: String,
    destination: String,
    way: Way,
}

enum Way {
    Ssh(ssh::Link),
    Rehearsed(Factory),
}

/// What vmnet on a host answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its exit code.
    pub code: i32,
    /// Whether the document is that of a failure.
    pub failed: bool,
    /// The command's `--json` document.
    pub document: Value,
    /// What it said on standard error, which is little: its remarks come as events.
    pub said: String,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({}, {})", self.host, self.destination)
    }
}

impl Place {
    /// Connects to a host over ssh: one connection, which everything else goes through. `destination` is what one would
    /// write after `ssh`.
    ///
    /// # Errors
    /// Every reason that ssh gives, within half a minute.
    pub async fn connect(host: &str, destination: &str) -> Result<Self, RemoteError> {
        let connected = ssh::Link::connect(destination).await;
        let fail = |trouble| RemoteError { host: host.to_owned(), destination: destination.to_owned(), trouble };
        let way = Way::Ssh(connected.map_err(fail)?);
        Ok(Self { host: host.to_owned(), destination: destination.to_owned(), way })
    }

    /// A host that is namespaces on this machine.
    pub fn rehearsed(host: &str, factory: Factory) -> Self {
        Self { host: host.to_owned(), destination: "rehearsed".to_owned(), way: Way::Rehearsed(factory) }
    }

    /// This machine, by this program.
    pub fn this(host: &str) -> Self {
        Self::rehearsed(host, Arc::new(started::own))
    }

    /// The host's name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// How it is reached.
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// Runs `vmnet --events ARGS…` there with `stdin`, within [`LIMIT`].
    ///
    /// # Errors
    /// When no result came back. A failure that vmnet there tells is an [`Answer`].
    pub async fn call(&self, args: &[&str], stdin: &[u8], on_event: impl FnMut(Event)) -> Result<Answer, RemoteError> {
        self.call_within(LIMIT, args, stdin, on_event).await
    }

    /// As [`Place::call`], within a time of the caller's choice. What runs there is not ended when the time is over.
    pub async fn call_within(
        &self,
        limit: Duration,
        args: &[&str],
        stdin: &[u8],
        on_event: impl FnMut(Event),
    ) -> Result<Answer, RemoteError> {
        self.ask(limit, args, Input::Bytes(stdin), on_event).await.map_err(|trouble| self.error(trouble))
    }

    /// As [`Place::call`], with a file of this machine on its standard input.
    async fn call_with_file(
        &self,
        args: &[&str],
        file: File,
        on_event: impl FnMut(Event),
    ) -> Result<Answer, RemoteError> {
        self.ask(LIMIT, args, Input::File(file), on_event).await.map_err(|trouble| self.error(trouble))
    }

    async fn ask(
        &self,
        limit: Duration,
        args: &[&str],
        input: Input<'_>,
        on_event: impl FnMut(Event),
    ) -> Result<Answer, Trouble> {
        let begun = Instant::now();
        let args: Vec<&str> = ["--events"].iter().chain(args).copied().collect();
        let work = async {
            let bytes = match input {
                Input::Bytes(bytes) => bytes,
                Input::Nothing | Input::File(_) => &[],
            };
            let mut started = self.start("vmnet", &args, input).await?;
            let (writer, output, error) = started.streams();
            let heard =
                talk::events(writer.map(|to| (to, bytes)), output, error, on_event).await.map_err(Trouble::Pipe)?;
            Ok((heard, started))
        };
        let what = "the command";
        let (heard, started) = timeout(limit, work).await.map_err(|_| Trouble::TooSlow { what, limit })??;
        let what = "the end after the result";
        let end = timeout(ENDING, started.end()).await.map_err(|_| Trouble::TooSlow { what, limit: ENDING })??;
        answer(heard, end, begun.elapsed())
    }

    /// Runs `vmnet ARGS…` there on this terminal, or on this process's standard streams where they are none, and gives
    /// its exit code. A dead link ends it.
    ///
    /// # Errors
    /// When it could not be started, or the connection broke.
    pub async fn interactive(&self, args: &[&str]) -> Result<i32, RemoteError> {
        let done = match &self.way {
            Way::Ssh(link) => link.interactive("vmnet", args).await,
            Way::Rehearsed(factory) => started::interactive("vmnet", factory(args)).await,
        };
        done.map_err(|trouble| self.error(trouble))
    }

    /// Logs in to a guest of this host, on this terminal: ssh runs here, where the user's keys are, and `pipe` is what
    /// vmnet there joins it to the guest with. In a rehearsal no guest is logged in to.
    ///
    /// # Errors
    /// When ssh could not be started, or the connection is gone.
    pub async fn log_in(&self, door: &Door, pipe: &[&str], args: &[String]) -> Result<i32, RemoteError> {
        let words: Vec<&str> = ["vmnet"].iter().chain(pipe).copied().collect();
        let done = match &self.way {
            Way::Ssh(link) => link.log_in(door, &words, args).await,
            Way::Rehearsed(factory) => started::interactive("vmnet", factory(pipe)).await,
        };
        done.map_err(|trouble| self.error(trouble))
    }

    /// Refuses a host that has another version of vmnet, or none.
    ///
    /// # Errors
    /// [`Trouble::Version`] and [`Trouble::NoVmnet`], which [`Place::install`] puts right.
    pub async fn check_version(&self) -> Result<(), RemoteError> {
        let check = async {
            let found = self.run("vmnet", &["--version"], Input::Nothing, SHORT).await?;
            is_own_version(&found)
        };
        check.await.map_err(|trouble| self.error(trouble))
    }

    /// Ends the connection. Dropping it does so, too.
    pub async fn close(self) {
        if let Way::Ssh(link) = self.way {
            link.close().await;
        }
    }

    /// Runs a plain command there, which must succeed, and gives what it says.
    async fn run(&self, program: &str, args: &[&str], input: Input<'_>, limit: Duration) -> Result<String, Trouble> {
        let begun = Instant::now();
        let work = async {
            let mut started = self.start(program, args, input).await?;
            let (_, output, error) = started.streams();
            let said = talk::plain(output, error).await.map_err(Trouble::Pipe)?;
            Ok::<_, Trouble>((said, started.end().await?))
        };
        let what = "a command";
        let ((out, err), end) = timeout(limit, work).await.map_err(|_| Trouble::TooSlow { what, limit })??;
        match end {
            End::Code(0) => Ok(out),
            End::Code(127) if program == "vmnet" => Err(Trouble::NoVmnet { said: told::last(&err) }),
            End::Code(_) if program == "vmnet" => Err(Trouble::NotRunnable { said: told::last(&err) }),
            End::Code(code) => {
                let said = if err.is_empty() { format!("code {code}") } else { told::last(&err) };
                Err(Trouble::Install { what: program.to_owned(), said })
            }
            End::Killed => Err(Trouble::Killed { said: err }),
            End::Lost(said) => Err(Trouble::Cut { after: begun.elapsed(), said }),
        }
    }

    async fn start(&self, program: &str, args: &[&str], input: Input<'_>) -> Result<Started, Trouble> {
        match &self.way {
            Way::Ssh(link) => link.start(program, args, input).await,
            Way::Rehearsed(factory) => started::here(program, factory(args), input),
        }
    }

    fn error(&self, trouble: Trouble) -> RemoteError {
        RemoteError { host: self.host.clone(), destination: self.destination.clone(), trouble }
    }
}

/// What became of a command by what was heard and how it ended.
fn answer(heard: talk::Heard, end: End, after: Duration) -> Result<Answer, Trouble> {
    let talk::Heard { last, garbage, said } = heard;
    match (end, last) {
        (End::Code(code), Some((failed, document))) => Ok(Answer { code, failed, document, said }),
        (End::Lost(said), _) => Err(Trouble::Cut { after, said }),
        (End::Killed, _) => Err(Trouble::Killed { said: told::visible(&said) }),
        (End::Code(127), None) => Err(Trouble::NoVmnet { said: told::last(&said) }),
        (End::Code(126), None) => Err(Trouble::NotRunnable { said: told::last(&said) }),
        (End::Code(code), None) => Err(match garbage {
            Some(line) => Trouble::Garbage { line },
            None => Trouble::NoResult { code, said: told::visible(&said) },
        }),
    }
}

/// Whether `vmnet --version` printed what this program would.
fn is_own_version(found: &str) -> Result<(), Trouble> {
    let own = env!("CARGO_PKG_VERSION");
    match found.strip_prefix("vmnet ") {
        Some(version) if version == own => Ok(()),
        Some(version) if !version.contains(char::is_whitespace) => {
            Err(Trouble::Version { found: format!("vmnet {}", version.escape_debug()), own })
        }
        _ => Err(Trouble::Garbage { line: crate::names::quoted(found) }),
    }
}
