//! [`Apart`]: guests that stand or fall alone, and which operations are theirs.
//!
//! A guest in QEMU is started by one operation, one of libvirt is defined by another before. One that is a namespace is made of links, addresses and routes like any
//! other part of a lab, so it is known by its namespace, and by the marks of its ports. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::op::Op;
use crate::mark::Mark;
use crate::names::{NsName, VmName};
use crate::state::{Guest, HostState, LinkId, Ns, SettingKey};

/// Guests whose operations can be told from all others.
#[derive(Debug, Clone, Default)]
pub struct Apart {
    vms: BTreeSet<VmName>,
    namespaces: BTreeMap<NsName, VmName>,
    ports: BTreeMap<LinkId, VmName>,
}

impl Apart {
    /// These guests of a state.
    pub fn new(state: &HostState, vms: &BTreeSet<VmName>) -> Self {
        if vms.is_empty() {
            return Self::default();
        }
        let guests = state.guests.iter().filter(|(vm, _)| vms.contains(*vm));
        let namespace = |(vm, guest): (&VmName, &Guest)| match guest {
            Guest::Netns { ns } => Some((ns.clone(), vm.clone())),
            Guest::Qemu(_) | Guest::Libvirt(_) => None,
        };
        let on_host = state.links.iter().filter(|(id, _)| id.ns == Ns::Host);
        let port = |(id, alias): (&LinkId, &str)| {
            let mark: Mark = alias.parse().ok().filter(|mark: &Mark| mark.role == "nic")?;
            // No guest has a dot in its name.
            let vm = mark.name.split_once('.')?.0.parse().ok().filter(|vm| vms.contains(vm))?;
            Some((id.clone(), vm))
        };
        Self {
            vms: vms.clone(),
            namespaces: guests.filter_map(namespace).collect(),
            ports: on_host.filter_map(|(id, link)| port((id, &link.alias))).collect(),
        }
    }

    /// The guest that an operation is about, where it is one of these.
    pub fn guest_of(&self, op: &Op) -> Option<&VmName> {
        match op {
            Op::StartGuest { vm, .. }
            | Op::StopGuest { vm, .. }
            | Op::DefineGuest { vm, .. }
            | Op::UndefineGuest { vm, .. } => self.vms.get(vm),
            Op::AddNamespace { ns, .. } | Op::RemoveNamespace { ns } => self.namespaces.get(ns),
            Op::AddVeth { near, far, .. } => self.of_link(near).or_else(|| self.of_link(far)),
            Op::AddLink { id, .. }
            | Op::SetIpv6 { id, .. }
            | Op::SetTxChecksum { id, .. }
            | Op::ChangeLink { id, .. }
            | Op::RemoveLink { id } => self.of_link(id),
            Op::RemoveGroup { ns, .. } => self.of_ns(ns),
            Op::AddAddress(address) | Op::RemoveAddress(address) => self.of_link(&address.link),
            Op::AddRoute(route) | Op::RemoveRoute(route) => self.of_ns(&route.ns),
            Op::Set { key: SettingKey::Sysctl { ns, .. }, .. } => self.of_ns(ns),
            Op::Set { key: SettingKey::DeviceState { .. }, .. }
            | Op::ReplaceTable { .. }
            | Op::ChangeTable { .. }
            | Op::RestoreTable { .. }
            | Op::RemoveTable { .. }
            | Op::WriteFile { .. }
            | Op::RemoveFile { .. }
            | Op::Reload { .. }
            | Op::AddLibvirtNetwork { .. }
            | Op::ChangeLibvirtNetwork { .. }
            | Op::RemoveLibvirtNetwork { .. } => None,
        }
    }

    fn of_link(&self, id: &LinkId) -> Option<&VmName> {
        self.ports.get(id).or_else(|| self.of_ns(&id.ns))
    }

    fn of_ns(&self, ns: &Ns) -> Option<&VmName> {
        self.namespaces.get(ns.name()?)
    }
}
