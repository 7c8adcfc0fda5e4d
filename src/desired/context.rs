//! [`Context`]: the desired state while it is being put together. Pure.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::collisions::name_twice;
use super::{Desired, Host, Note, Refusal};
use crate::mark::Mark;
use crate::model::{Model, Network};
use crate::names::{IfName, LabName, Mac, NetName};
use crate::render::ETHERNET_MTU;
use crate::rule;
use crate::state::{Facts, HostState, Link, LinkId, LinkKind, Ns, SettingKey};

/// What every concern writes to.
pub(super) struct Context<'a> {
    pub(super) model: &'a Model,
    pub(super) host: &'a Host<'a>,
    pub(super) state: HostState,
    pub(super) notes: Vec<Note>,
    pub(super) refusals: Vec<Refusal>,
    /// The MTU of each network's segment on this host, in bytes.
    pub(super) mtu: BTreeMap<NetName, u32>,
    /// The uplink port of each bridge that has one.
    pub(super) wires: Vec<IfName>,
    /// The subnets whose gateways are on other hosts, where the way there leads through this host itself, each with the
    /// device that it takes.
    pub(super) ways: Vec<(IfName, IpNet)>,
    pub(super) group: u32,
}

impl<'a> Context<'a> {
    pub(super) fn new(model: &'a Model, host: &'a Host<'a>) -> Self {
        Self {
            model,
            host,
            state: HostState::default(),
            notes: Vec::new(),
            refusals: Vec::new(),
            mtu: BTreeMap::new(),
            wires: Vec::new(),
            ways: Vec::new(),
            group: rule::link_group(model.lab()),
        }
    }

    pub(super) fn facts(&self) -> &'a Facts {
        self.host.facts
    }

    pub(super) fn lab(&self) -> &'a LabName {
        self.model.lab()
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refusals.push(refusal);
    }

    pub(super) fn note(&mut self, about: impl ToString, text: impl Into<String>) {
        self.notes.push(Note { about: about.to_string(), text: text.into() });
    }

    /// A link of ours: up, marked, without IPv6, port of nothing.
    pub(super) fn link(&self, kind: LinkKind, mac: Mac, mtu: u32, role: &str, name: &str) -> Link {
        Link {
            kind,
            mac,
            mtu,
            group: self.group,
            alias: Mark::new(self.lab(), role, name).to_string(),
            master: None,
            up: true,
            ipv6: false,
            tx_checksum: None,
            odd: crate::state::Odd::new(),
        }
    }

    /// Adds a link. Sub-interfaces are named after the host's device: only here can they meet another name.
    pub(super) fn add_link(&mut self, id: LinkId, link: Link) {
        let (name, mark) = (id.name.clone(), link.alias.clone());
        if let Some(other) = self.state.links.insert(id, link).filter(|other| other.alias != mark) {
            self.refuse(name_twice(name.as_str(), &other.alias, &mark));
        }
    }

    pub(super) fn set(&mut self, ns: &Ns, key: impl Into<String>, value: impl ToString) {
        let key = key.into();
        if self.facts().without_ipv6 && key.starts_with("ipv6/") {
            return;
        }
        self.state.settings.insert(SettingKey::sysctl(ns, key), value.to_string());
    }

    /// The MTU of a network's segment, in bytes.
    pub(super) fn mtu_of(&self, network: &Network) -> u32 {
        self.mtu.get(network.name()).copied().unwrap_or(ETHERNET_MTU)
    }

    pub(super) fn finish(self) -> (Desired, Vec<Refusal>) {
        (Desired { state: self.state, notes: self.notes, mtu: self.mtu }, self.refusals)
    }
}
