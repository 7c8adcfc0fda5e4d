//! What `vmnet` and `vmnet-libvirt` say to each other: one JSON document a line, a question on standard input, its
//! answer on standard output. Pure: types only.
//!
//! A few verbs with fixed arguments, nothing generic. Objects are named by UUID, so nothing is ever done to another
//! one that has taken a name meanwhile; and whatever would end or remove one says whose it must be by its metadata, which
//! `vmnet-libvirt` looks at right before.

pub mod plug;
pub mod xml;

use std::fmt;

use serde::{Deserialize, Serialize};

/// The form of the documents; both programs come from one build, and each checks.
pub const VERSION: u32 = 1;

/// The connection that the system's guests have.
pub const SYSTEM: &str = "qemu:///system";

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// The first question: connect.
    Open {
        /// [`VERSION`].
        version: u32,
        /// The connection, [`SYSTEM`] for example.
        uri: String,
    },
    /// All domains, defined or running.
    Domains,
    /// What a domain does.
    State {
        /// Which.
        uuid: String,
    },
    /// Define a domain, or define it anew.
    Define {
        /// Its XML.
        xml: String,
        /// Whether libvirt starts it when the host boots.
        autostart: bool,
    },
    /// Start a domain that is defined.
    Start {
        /// Which.
        uuid: String,
        /// Whose it must be.
        mark: Owner,
    },
    /// Press the power button.
    Shutdown {
        /// Which.
        uuid: String,
        /// Whose it must be.
        mark: Owner,
    },
    /// Pull the power cord; one that is off is none.
    Destroy {
        /// Which.
        uuid: String,
        /// Whose it must be.
        mark: Owner,
    },
    /// Forget a domain, with its variables of UEFI; one that is not there is none.
    Undefine {
        /// Which.
        uuid: String,
        /// Whose it must be.
        mark: Owner,
    },
    /// Plug a device into a domain, anybody's.
    Attach {
        /// Which.
        uuid: String,
        /// The device.
        xml: String,
        /// Now, and when it starts the next time.
        scope: Scope,
    },
    /// Unplug a device, anybody's.
    Detach {
        /// Which.
        uuid: String,
        /// The device.
        xml: String,
        /// Now, and when it starts the next time.
        scope: Scope,
    },
    /// All networks, defined or active.
    Networks,
    /// Define a network, or define it anew: as it is in force from now on, too.
    DefineNetwork {
        /// Its XML.
        xml: String,
        /// Whether it is started.
        active: bool,
        /// Whether libvirt starts it when the host boots.
        autostart: bool,
    },
    /// Stop and forget a network; one that is not there is none.
    RemoveNetwork {
        /// Which.
        uuid: String,
        /// The lab that its metadata must name.
        lab: String,
    },
}

/// Whose a domain must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The lab.
    pub lab: String,
    /// The guest.
    pub vm: String,
}

/// What of a domain a change is made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// To the running one.
    pub live: bool,
    /// To its definition.
    pub persistent: bool,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// Connected.
    Open {
        /// libvirt's version as it counts: 1,000,000 × major + 1,000 × minor + release.
        libvirt: u32,
    },
    /// Done.
    Done,
    /// Defined.
    Defined {
        /// Which.
        uuid: String,
    },
    /// To [`Ask::Domains`].
    Domains {
        /// By name.
        domains: Vec<Domain>,
    },
    /// To [`Ask::State`].
    State {
        /// What it does; `None` where there is no such domain.
        state: Option<DomainState>,
    },
    /// To [`Ask::Networks`].
    Networks {
        /// By name.
        networks: Vec<Network>,
    },
    /// It was not done.
    Refused {
        /// Why.
        refusal: Refusal,
    },
}

/// A domain of libvirt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// What it does.
    pub state: DomainState,
    /// Whether it stays when it is off.
    pub persistent: bool,
    /// Whether libvirt starts it when the host boots.
    pub autostart: bool,
    /// What it is: as it runs, or as it is defined where it does not.
    pub xml: String,
    /// How it is defined, where it runs and is persistent: what it will be when it starts the next time.
    pub next: Option<String>,
}

/// What a domain does, as far as vmnet must tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DomainState {
    /// It has a process.
    Running,
    /// It is paused or suspended: it has a process, which does nothing.
    Paused,
    /// It has none.
    Off,
    /// It had one, which crashed.
    Crashed,
}

impl DomainState {
    /// Whether there is a process.
    pub fn has_process(self) -> bool {
        match self {
            DomainState::Running | DomainState::Paused => true,
            DomainState::Off | DomainState::Crashed => false,
        }
    }
}

/// A network of libvirt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Whether it is started.
    pub active: bool,
    /// Whether it stays when it is not.
    pub persistent: bool,
    /// Whether libvirt starts it when the host boots.
    pub autostart: bool,
    /// What it is: as it is in force, or as it is defined where it is not started.
    pub xml: String,
    /// How it is defined, where it is started and persistent: what it will be when it starts the next time.
    pub next: Option<String>,
}

/// Why libvirt, or `vmnet-libvirt` itself, did not do it. Whole: nothing of what libvirt says is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Refusal {
    /// What kind it is.
    pub kind: RefusalKind,
    /// libvirt's number (`virErrorNumber`); 0 where it is `vmnet-libvirt`'s own refusal.
    pub code: u32,
    /// The part of libvirt that says so (`virErrorDomain`).
    pub domain: u32,
    /// In words.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What libvirt says may hold names of others.
        for c in self.message.trim_end().chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        match self.code {
            0 => Ok(()),
            code => write!(f, " (libvirt's error {code} of domain {})", self.domain),
        }
    }
}

/// What a caller must tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// The daemon does not answer: it does not run, or the socket is not there.
    NoDaemon,
    /// The socket, or the daemon, does not let this user in.
    NotPermitted,
    /// There is no such domain or network.
    NotThere,
    /// The name or the UUID is another one's.
    Taken,
    /// The domain or network is not the lab's.
    Foreign,
    /// Its state does not allow it: it runs already, or does not run.
    State,
    /// The XML is not what libvirt takes.
    Xml,
    /// This connection can't do it.
    Unsupported,
    /// Anything else.
    Other,
}
