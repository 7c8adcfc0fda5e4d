//! [`RemoteError`]: what went wrong between this machine and a host, and what to do about it.
//!
//! What vmnet on the host says itself is no error here: it is an `Answer` that carries the failure.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::INSTALLED;

/// What went wrong with a host.
#[derive(Debug, thiserror::Error)]
#[error("host {host} ({destination})")]
pub struct RemoteError {
    /// The host's name.
    pub host: String,
    /// How it was to be reached.
    pub destination: String,
    /// What went wrong.
    #[source]
    pub trouble: Trouble,
}

/// The kinds of what goes wrong. `said` is what ssh or the host said.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// ssh would take it for something else.
    #[error("this is no destination for ssh: it is empty, begins with \"-\", or has a character that no host has")]
    Destination,
    /// The local program does not start.
    #[error("{program} can't be started on this machine")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody knows the name.
    #[error("its name is not known: {said}")]
    Unresolved {
        /// ssh's words.
        said: String,
    },
    /// Nobody answers.
    #[error("it does not answer: {said}")]
    NoAnswer {
        /// ssh's words.
        said: String,
    },
    /// It did not come to an end.
    #[error("{what} took longer than {} s, and was given up", limit.as_secs())]
    TooSlow {
        /// What.
        what: &'static str,
        /// The time given.
        limit: Duration,
    },
    /// No ssh server there.
    #[error("it refuses the connection: {said}")]
    Refused {
        /// ssh's words.
        said: String,
    },
    /// It does not let us in.
    #[error("it does not accept this login: {said}")]
    Denied {
        /// ssh's words.
        said: String,
    },
    /// Nobody has ever seen its key.
    #[error("its host key is not known, and nobody is asked here: {said}")]
    KeyUnknown {
        /// ssh's words.
        said: String,
    },
    /// It has another key than before: another machine, a new installation, or somebody in between.
    #[error("its host key is another one than the known one")]
    KeyChanged {
        /// The file that has the old one, where ssh said so.
        file: Option<String>,
        /// What the host is called there.
        name: Option<String>,
    },
    /// ssh failed in some other way.
    #[error("ssh has failed: {said}")]
    Ssh {
        /// ssh's words.
        said: String,
    },
    /// `vmnet` is not there.
    #[error("there is no vmnet on it: {said}")]
    NoVmnet {
        /// The shell's words.
        said: String,
    },
    /// It is there and does not run: another processor, another C library.
    #[error("the vmnet on it does not run: {said}")]
    NotRunnable {
        /// The words of the shell or the loader.
        said: String,
    },
    /// The connection broke while vmnet worked there. What became of it is not known.
    #[error("the connection broke off after {:.1} s, and what became of the command is not known: {said}", after.as_secs_f64())]
    Cut {
        /// How long it had held.
        after: Duration,
        /// ssh's words.
        said: String,
    },
    /// Somebody killed vmnet there, or there was no memory left.
    #[error("vmnet was killed on it{}", if said.is_empty() { String::new() } else { format!(": {said}") })]
    Killed {
        /// Its last words.
        said: String,
    },
    /// Another version.
    #[error("it has {found}, and this is vmnet {own}")]
    Version {
        /// What it says.
        found: String,
        /// The version of this program.
        own: &'static str,
    },
    /// It says something else than vmnet would.
    #[error("it does not answer as vmnet does, but with {line}")]
    Garbage {
        /// The first such line, quoted.
        line: String,
    },
    /// vmnet ended without a result.
    #[error("vmnet ended there with code {code} and without a result{}", if said.is_empty() { String::new() } else { format!(": {said}") })]
    NoResult {
        /// Its exit code.
        code: i32,
        /// What it said on standard error.
        said: String,
    },
    /// The pipes to ssh broke.
    #[error("what it says can't be read")]
    Pipe(#[source] io::Error),
    /// A file of this machine can't be read.
    #[error("{} can't be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file was not taken there.
    #[error("{} was not taken: {said}", path.display())]
    NotTaken {
        /// The file.
        path: PathBuf,
        /// vmnet's words there.
        said: String,
    },
    /// The program could not be put there.
    #[error("vmnet can't be installed on it: {what}: {said}")]
    Install {
        /// The step.
        what: String,
        /// Its words.
        said: String,
    },
    /// Another vmnet is found before the one that was installed.
    #[error("vmnet was installed as {INSTALLED}, and another one stands before it on the host's PATH: {found}")]
    Shadowed {
        /// What that one says.
        found: String,
    },
}

/// What ssh compares with `Host` of its configuration: no login is part of it.
fn without_user(destination: &str) -> &str {
    destination.rsplit_once('@').map_or(destination, |(_, host)| host)
}

impl RemoteError {
    /// What to do about it, as a sentence without a full stop, where that is known.
    pub fn help(&self) -> Option<String> {
        let Self { host, destination, trouble } = self;
        Some(match trouble {
            Trouble::Destination => format!("write ssh = \"NAME\" in [host.{host}], as you would write it after ssh"),
            Trouble::Start { program, .. } if program == "ssh" => "apt-get install openssh-client".into(),
            Trouble::Unresolved { .. } => {
                format!(
                    "write ssh = \"ADDRESS\" in [host.{host}], or Host {} in ~/.ssh/config",
                    without_user(destination)
                )
            }
            Trouble::NoAnswer { .. } | Trouble::TooSlow { .. } => {
                format!("see whether it is up and reachable: ssh -v {destination}")
            }
            Trouble::Refused { .. } => {
                format!("see whether sshd runs there and on which port: ssh -v {destination}; Port in ~/.ssh/config")
            }
            Trouble::Denied { .. } => {
                let sudo = std::env::var_os("SUDO_UID").is_some();
                let whose = if sudo { "; under sudo root's keys count: run vmnet without it" } else { "" };
                format!("make ssh {destination} work without a password: ssh-copy-id {destination}, or ssh-add{whose}")
            }
            Trouble::KeyUnknown { .. } => {
                format!("look at its key and accept it once: ssh {destination}")
            }
            Trouble::KeyChanged { file, name } => {
                let file = file.as_deref().map(|file| format!(" -f {file}")).unwrap_or_default();
                let name = name.as_deref().unwrap_or(destination);
                format!(
                    "only if you know why (a new installation), forget the old one: ssh-keygen{file} -R '{name}'; then ssh {destination}"
                )
            }
            Trouble::NoVmnet { .. } | Trouble::NotRunnable { .. } | Trouble::Version { .. } => {
                "--install copies this vmnet to it".into()
            }
            Trouble::Cut { .. } | Trouble::Killed { .. } => {
                format!("see what is there: ssh {destination} vmnet list")
            }
            Trouble::Garbage { .. } => {
                format!(
                    "let ~/.bashrc and the like print nothing there without a terminal: ssh {destination} vmnet --version"
                )
            }
            Trouble::Shadowed { .. } => format!("remove the other one: ssh {destination} which -a vmnet"),
            Trouble::Start { .. }
            | Trouble::Ssh { .. }
            | Trouble::NoResult { .. }
            | Trouble::Pipe(_)
            | Trouble::File { .. }
            | Trouble::NotTaken { .. }
            | Trouble::Install { .. } => return None,
        })
    }

    /// Whether the host lacks something that `--install` brings.
    pub fn wants_install(&self) -> bool {
        matches!(self.trouble, Trouble::NoVmnet { .. } | Trouble::NotRunnable { .. } | Trouble::Version { .. })
    }
}
