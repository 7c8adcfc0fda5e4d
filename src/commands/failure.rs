//! [`Failure`]: how a command ends badly, and the exit code that goes with it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

use crate::apply::ApplyError;
use crate::definition::Problems;
use crate::desired::Refusal;
use crate::engine::EngineError;
use crate::ledger::{LedgerError, LockError};
use crate::remote::RemoteError;

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The definition is wrong.
    #[error("{} is not a valid definition", path.display())]
    Definition {
        /// The file.
        path: PathBuf,
        /// Its text.
        text: String,
        /// Everything that is wrong with it.
        problems: Problems,
    },
    /// The host makes it impossible.
    #[error("this host makes it impossible")]
    Refused(Vec<Refusal>),
    /// The command line or a file's name is wrong.
    #[error("{0}")]
    Usage(String),
    /// The host lacks something.
    #[error("{message}")]
    Lacks {
        /// What, and where to get it.
        message: String,
        /// What the system said.
        #[source]
        source: Option<anyhow::Error>,
    },
    /// It was not done, and there is a way to have it.
    #[error("{message}")]
    Advised {
        /// Why not.
        message: String,
        /// What to do.
        help: String,
    },
    /// Hosts did not do it, or not all of them.
    #[error("{message}")]
    Hosts {
        /// What is the case now.
        message: String,
        /// What became of it on each host: a `state` for people, or the document of a failure.
        hosts: BTreeMap<String, Value>,
        /// What to do.
        help: Option<String>,
        /// The exit code.
        code: u8,
    },
    /// Whoever read the output has seen enough (`vmnet status | head`).
    #[error("nobody reads the output")]
    NobodyReads,
    /// It was tried and did not work.
    #[error("{message}")]
    Failed {
        /// What was tried, and what to do.
        message: String,
        /// What the system said.
        #[source]
        source: Option<anyhow::Error>,
    },
}

impl Failure {
    /// Something failed for a reason.
    pub fn failed(message: impl Into<String>, source: impl Into<anyhow::Error>) -> Self {
        Self::Failed { message: message.into(), source: Some(source.into()) }
    }

    /// Something is as it must not be.
    pub fn because(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), source: None }
    }

    /// Something is as it must not be, and this is what to do about it.
    pub fn advised(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Advised { message: message.into(), help: help.into() }
    }

    /// The host lacks something.
    pub fn lacks(message: impl Into<String>) -> Self {
        Self::Lacks { message: message.into(), source: None }
    }

    /// Standard output is gone.
    pub(super) fn output(source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::NobodyReads;
        }
        Self::failed("the output can't be written", source)
    }

    /// The asynchronous runtime can't start.
    pub(super) fn runtime(source: std::io::Error) -> Self {
        Self::failed("vmnet can't start its event loop", source)
    }

    /// Whether a signal ended it.
    pub(super) fn is_cancelled(&self) -> bool {
        let Self::Failed { source: Some(source), .. } = self else { return false };
        matches!(source.downcast_ref(), Some(ApplyError::Cancelled { .. }))
    }

    /// Whether it can't be written down since the disk is full.
    pub(super) fn is_full(&self) -> bool {
        let Self::Failed { source: Some(source), .. } = self else { return false };
        source.downcast_ref().is_some_and(LedgerError::is_full)
    }

    /// Whether another vmnet is at work.
    pub(super) fn is_held(&self) -> bool {
        let Self::Failed { source: Some(source), .. } = self else { return false };
        matches!(source.downcast_ref::<LockError>(), Some(LockError::Held { .. }))
    }

    /// What to do about it, where the room that failed knows.
    pub(super) fn help(&self) -> Option<String> {
        match self {
            Self::Advised { help, .. } => return Some(help.clone()),
            Self::Hosts { help, .. } => return help.clone(),
            _ => {}
        }
        let (Self::Failed { source, .. } | Self::Lacks { source, .. }) = self else { return None };
        let source = source.as_ref()?;
        let engine = source.downcast_ref::<EngineError>().and_then(EngineError::help);
        let apply = || source.downcast_ref::<ApplyError>().and_then(ApplyError::help);
        engine.or_else(apply).or_else(|| source.downcast_ref::<RemoteError>().and_then(RemoteError::help))
    }

    /// 1 failed, 2 the definition or the command line is wrong, 4 the host lacks something; 141 is what a shell makes
    /// of SIGPIPE.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    /// The same as a number.
    pub fn code(&self) -> u8 {
        match self {
            Self::Failed { .. } | Self::Advised { .. } => 1,
            Self::Refused(refusals) if !refusals.iter().any(Refusal::is_lack) => 1,
            Self::Definition { .. } | Self::Usage(_) => 2,
            Self::Refused(_) | Self::Lacks { .. } => 4,
            Self::Hosts { code, .. } => *code,
            Self::NobodyReads => 141,
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let message = "the guest can't be reached or prepared";
        if error.is_lack() {
            return Self::Lacks { message: message.into(), source: Some(error.into()) };
        }
        Self::failed(message, error)
    }
}

impl From<ApplyError> for Failure {
    fn from(error: ApplyError) -> Self {
        let message = "the lab was not changed as wanted";
        if error.is_lack() {
            return Self::Lacks { message: message.into(), source: Some(error.into()) };
        }
        Self::failed(message, error)
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        if error.is_permission() {
            return Self::Lacks { message: not_root(), source: Some(error.into()) };
        }
        if let LedgerError::Untrusted { .. } = error {
            return Self::failed("nothing was changed", error);
        }
        Self::failed("the lab's ledger can't be used", error)
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        if error.is_permission() {
            return Self::Lacks { message: not_root(), source: Some(error.into()) };
        }
        Self::failed("nothing was changed", error)
    }
}

/// What to tell somebody who is not root.
pub(super) fn not_root() -> String {
    "this needs CAP_NET_ADMIN and CAP_SYS_ADMIN and access to vmnet's folders; run it as root (sudo vmnet …)".to_owned()
}
