//! What can go wrong while a plan runs.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::engine::EngineError;
use crate::engine::libvirt::DoorError;
use crate::kernel::KernelError;
use crate::kernel::nft::NftError;
use crate::ledger::LedgerError;
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
    /// What a table said could not be read before it was changed.
    #[error("the table could not be listed before")]
    NoListing,
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
    #[error("cannot write {file} in {ns}")]
    Setting {
        /// The file below `/proc/sys`.
        file: String,
        /// Whose it is.
        ns: Ns,
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
    /// libvirt did not do something with a network.
    #[error("cannot {action} libvirt network {}", name.escape_debug())]
    LibvirtNetwork {
        /// `add`, `change` or `remove`.
        action: &'static str,
        /// What libvirt calls it.
        name: String,
        /// Why.
        #[source]
        source: DoorError,
    },
    /// A network of libvirt's can't be written as XML.
    #[error("libvirt network {} can't be written as XML", name.escape_debug())]
    Unwritable {
        /// What libvirt calls it.
        name: String,
        /// Why.
        #[source]
        source: quick_xml::SeError,
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
    /// A guest was started, and is not there.
    #[error("guest {vm} has ended right after its start, twice")]
    Ended {
        /// The guest.
        vm: crate::names::VmName,
    },
}

impl OpError {
    /// What would help, as a sentence without a full stop, where that is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Kernel(error) | Self::Nft(NftError::Kernel(error)) => error.help().map(str::to_owned),
            Self::Guest { source, .. } => source.help(),
            Self::Ended { vm } => Some(format!("vmnet logs {vm} shows its console")),
            Self::LibvirtNetwork { source, .. } => source.help().map(str::to_owned),
            _ => None,
        }
    }

    /// Whether the host lacks something: a program, a module, a device.
    pub fn is_lack(&self) -> bool {
        match self {
            Self::Kernel(error) => error.errno() == Some(libc::EOPNOTSUPP),
            Self::Guest { source, .. } => source.is_lack(),
            Self::LibvirtNetwork { source, .. } => source.is_lack(),
            Self::NoNft => true,
            _ => false,
        }
    }
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
    /// Operations of a wave failed. The first is the source: those of one wave usually have one cause.
    #[error("failed while {}{}{restored}", phase.title(), also(others))]
    Failed {
        /// The wave.
        phase: Phase,
        /// The first that failed.
        op: Box<Op>,
        /// Why.
        #[source]
        source: OpError,
        /// The others.
        others: Vec<Failure>,
        /// What became of the way back.
        restored: Restored,
    },
    /// A signal ended it.
    #[error("interrupted{restored}")]
    Cancelled {
        /// What became of the way back.
        restored: Restored,
    },
    /// All operations worked, but that could not be written down.
    #[error("what was done can't be written down{restored}")]
    Ledger {
        /// Why.
        #[source]
        source: LedgerError,
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

impl ApplyError {
    /// What would help, as a sentence without a full stop, where that is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Failed { source, others, .. } => all(source, others).find_map(OpError::help),
            _ => None,
        }
    }

    /// Whether it failed because the host lacks something.
    pub fn is_lack(&self) -> bool {
        matches!(self, Self::Failed { source, others, .. } if all(source, others).any(OpError::is_lack))
    }

    /// Whether the host is as it was before, without exception.
    pub fn is_as_before(&self) -> bool {
        match self {
            Self::Failed { restored, .. } | Self::Cancelled { restored } | Self::Ledger { restored, .. } => {
                matches!(restored, Restored::Completely)
            }
            Self::Observe { .. } | Self::Differs { .. } => false,
        }
    }
}

fn all<'a>(source: &'a OpError, others: &'a [Failure]) -> impl Iterator<Item = &'a OpError> {
    std::iter::once(source).chain(others.iter().map(|failure| &failure.source))
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
                failures.iter().try_for_each(|failure| write!(f, "\n  {}", Chain(&failure.source)))
            }
            Self::Unknown(error) => write!(f, "; what is left of it is unknown: {}", Chain(error)),
        }
    }
}

fn also(others: &[Failure]) -> String {
    match others.len() {
        0 => String::new(),
        1 => " (one more operation failed with it)".into(),
        more => format!(" ({more} more operations failed with it)"),
    }
}

/// An error with its causes in one line, where it is not the source of another one.
struct Chain<'a>(&'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let causes = std::iter::successors(self.0.source(), |error| error.source());
        causes.into_iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

/// A plan, one operation a line.
struct Lines<'a>(&'a Plan);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.ops().try_for_each(|op| write!(f, "\n  {op}"))
    }
}
