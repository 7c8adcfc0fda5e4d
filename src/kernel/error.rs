//! [`KernelError`]: what was asked of the kernel and how it said no.

use std::io;
use std::path::PathBuf;

use crate::names::NsName;

/// A request that the kernel refused, or that could not be put to it.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel's answer was an error.
    #[error("cannot {action}{}", text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// What was asked for, as `add bridge br-web`.
        action: String,
        /// The kernel's own explanation (`NLMSGERR_ATTR_MSG`), where it gave one.
        text: Option<String>,
        /// Its error number.
        #[source]
        source: io::Error,
    },
    /// A link that the request needs is not there.
    #[error("cannot {action}: there is no link {name}")]
    NoLink {
        /// What was asked for.
        action: String,
        /// The link that is missing.
        name: String,
    },
    /// A namespace can't be entered.
    #[error("cannot enter the namespace {name} at {}", path.display())]
    Enter {
        /// Its name.
        name: NsName,
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What stands at a namespace's path is no network namespace: a plain file left by a crash, or a link.
    #[error("{} is not a network namespace; remove that file if nothing else needs it", path.display())]
    NotANamespace {
        /// The path.
        path: PathBuf,
    },
    /// What stands at a namespace's path is the namespace that vmnet itself runs in.
    #[error("{} is this host's own network namespace by another name; unmount and remove it if nothing else needs it", path.display())]
    HostsOwn {
        /// The path.
        path: PathBuf,
    },
    /// A thread or socket of our own could not be made.
    #[error("cannot open a connection to the kernel in {place}")]
    Open {
        /// The namespace, as text.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl KernelError {
    /// The error number behind it, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::Enter { source, .. } | Self::Open { source, .. } => {
                source.raw_os_error()
            }
            Self::NoLink { .. } => Some(libc::ENODEV),
            Self::NotANamespace { .. } | Self::HostsOwn { .. } => None,
        }
    }

    /// Whether the thing that was to be removed is not there: the removal's goal is reached.
    pub fn is_gone(&self) -> bool {
        matches!(self.errno(), Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENXIO))
    }

    /// What would help, as a sentence without a full stop, where that is known from the error number.
    pub fn help(&self) -> Option<&'static str> {
        Some(match self.errno()? {
            libc::EPERM | libc::EACCES => "run it as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN",
            libc::EEXIST => {
                "another object of that name, or with that VLAN on that device, is there: rename or remove it, or give ours \
                 another"
            }
            libc::EOPNOTSUPP => "the kernel lacks a module for it",
            libc::EBUSY => "the device is in use by another tool: take it away there first",
            _ => return None,
        })
    }
}
