//! Networks of libvirt, the lab's and others', and what of others' domains a plan must know. Pure: data.

use serde::{Deserialize, Serialize};

use super::{Guest, HostState};

impl HostState {
    /// Whether libvirt has some of it.
    pub fn uses_libvirt(&self) -> bool {
        let runs_there = self.guests.values().any(|guest| matches!(guest, Guest::Libvirt(_)));
        runs_there || !self.domains.is_empty() || !self.libvirt_networks.is_empty()
    }

    /// The same state without what libvirt has of it.
    pub fn leave_out_libvirt(&mut self) {
        self.guests.retain(|_, guest| !matches!(guest, Guest::Libvirt(_)));
        self.domains.clear();
        self.libvirt_networks.clear();
    }
}

/// A network of libvirt that hands out a bridge of the lab's, for machines that others start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibvirtNetwork {
    /// Its UUID.
    pub uuid: String,
    /// The network of the lab that its metadata name.
    pub network: String,
    /// The bridge that it hands out; a `String`, since another tool may have written anything there. Empty: none.
    pub bridge: String,
    /// Whether it is started, so that a domain can use it.
    pub active: bool,
    /// Whether libvirt starts it when the host boots.
    pub autostart: bool,
}

/// A network of libvirt that is not the lab's. Names are untrusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignNetwork {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// The lab that its metadata name.
    pub lab: Option<String>,
}

/// An interface of a foreign domain. Names are untrusted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignNic {
    /// It is plugged in, since the domain runs; else it will be, when the domain starts.
    pub live: bool,
    /// The libvirt network that it is on.
    pub network: Option<String>,
    /// The bridge that it is on, where that is said.
    pub bridge: Option<String>,
    /// Its device on the host.
    pub tap: Option<String>,
}
