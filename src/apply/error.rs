//! What can go wrong while a plan runs.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::engine::EngineError;
use crate::kernel::KernelError;
use crate::kernel::nft::NftError;
use crate::observe::ObserveError;
use crate::plan::{Op, Phase, Plan, Service};
use crate::state::Ns;

/// Why an operation did not work.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// nft refused.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// No nft program is known.
    #[error("there is no nft program on this host; install the package nftables")]
    NoNft,
    /// A file could not be written or removed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `write` or `remove`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A setting could not be written.
    #[error("cannot write {file}")]
    Setting {
        /// The file below `/proc/sys`.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A value that the setting can't have.
    #[error("{key} cannot be {value:?}")]
    Value {
        /// The setting.
        key: String,
        /// The value.
        value: String,
    },
    /// It was part of a batch, and another operation of it says why it failed.
    #[error("failed together with another operation in the namespace {ns}")]
    Together {
        /// Where.
        ns: Ns,
    },
    /// The host has given no answer.
    #[error("the host has not run it")]
    Unanswered,
    /// A network manager did not read its drop-ins.
    #[error("cannot tell {service} to read its configuration again")]
    Reload {
        /// Which.
        service: Service,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A guest did not start or stop.
    #[error("cannot {action} guest {vm}")]
    Guest {
        /// `start` or `stop`.
        action: &'static str,
        /// The guest.
        vm: crate::names::VmName,
        /// Why.
        #[source]
        source: Box<EngineError>,
    },
}

/// An operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("{op}")]
pub struct Failure {
    /// The operation.
    pub op: Op,
    /// Why.
    #[source]
    pub source: OpError,
}

/// Why a plan was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Operations failed.
    #[error("{} while {}{restored}", Many(failures), phase.title())]
    Failed {
        /// The wave.
        phase: Phase,
        /// Never empty; the first one is the source.
        failures: Vec<Failure>,
        /// What became of the way back.
        restored: Restored,
    },
    /// A signal ended it.
    #[error("interrupted{restored}")]
    Cancelled {
        /// What became of the way back.
        restored: Restored,
    },
    /// The journal could not be written.
    #[error("cannot write the journal{restored}")]
    Journal {
        /// Why.
        #[source]
        source: io::Error,
        /// What became of the way back.
        restored: Restored,
    },
    /// All operations worked, but whether the host is as it should be is unknown.
    #[error("all is done, but the result could not be read back")]
    Observe {
        /// Why.
        #[source]
        source: ObserveError,
    },
    /// All operations worked, and still the host is not as it should be: another tool works against it.
    #[error("another program changes what vmnet sets; these changes did not last:{}", Lines(rest))]
    Differs {
        /// What would have to be done once more.
        rest: Plan,
    },
}

/// What became of the way back.
#[derive(Debug)]
pub enum Restored {
    /// Everything is as it was before.
    Completely,
    /// All but this.
    Except {
        /// What would still have to be done.
        rest: Plan,
        /// What failed on the way.
        failures: Vec<Failure>,
    },
    /// The host could not be observed, so nothing is known.
    Unknown(ObserveError),
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completely => f.write_str("; everything is as it was before"),
            Self::Except { rest, failures } => {
                write!(f, "; all is as it was before, except that these are left to do:{}", Lines(rest))?;
                failures.iter().try_for_each(|failure| write!(f, "\n  {failure}: {}", failure.source))
            }
            Self::Unknown(error) => write!(f, "; what is left of it is unknown: {error}"),
        }
    }
}

/// The failures of a wave in one line: all of one wave usually have one cause.
struct Many<'a>(&'a [Failure]);

impl fmt::Display for Many<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.0.first() else { return Ok(()) };
        write!(f, "could not {first}: {}", first.source)?;
        if let Some(cause) = std::error::Error::source(&first.source) {
            write!(f, ": {cause}")?;
        }
        match self.0.len() {
            1 => Ok(()),
            more => write!(f, " (and {} more)", more - 1),
        }
    }
}

/// A plan, one operation a line.
struct Lines<'a>(&'a Plan);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.ops().try_for_each(|op| write!(f, "\n  {op}"))
    }
}

impl ApplyError {
    /// Whether the host is as it was before, without exception.
    pub fn is_as_before(&self) -> bool {
        match self {
            Self::Failed { restored, .. } | Self::Cancelled { restored } | Self::Journal { restored, .. } => {
                matches!(restored, Restored::Completely)
            }
            Self::Observe { .. } | Self::Differs { .. } => false,
        }
    }
}
