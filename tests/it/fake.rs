//! [`FakeHost`]: a host in memory. Every operation really changes its state, with what the kernel does beside it.

use std::collections::BTreeSet;
use std::io;

use vmnet::apply::{Host, OpError};
use vmnet::kernel::KernelError;
use vmnet::observe::ObserveError;
use vmnet::plan::{LinkChange, Op, SetChange};
use vmnet::state::{Address, Guest, HostState, Link, LinkId, LinkKind, Ns, Route, SettingKey, Table};

/// A host in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeHost {
    /// What is there.
    pub state: HostState,
    /// The settings that an observation reads, with what a new thing of that name has.
    pub defaults: Vec<(SettingKey, String)>,
    /// The number of the operation that fails, counted from 0 over all.
    pub fails: BTreeSet<usize>,
    /// How many were run.
    pub count: usize,
}

type Answer = Result<(), i32>;

impl Host for FakeHost {
    async fn run(&mut self, ops: &[Op]) -> Vec<Result<(), OpError>> {
        ops.iter().map(|op| self.one(op).map_err(|errno| refused(op, errno))).collect()
    }

    async fn observe(&mut self) -> Result<HostState, ObserveError> {
        Ok(self.look())
    }
}

fn refused(op: &Op, errno: i32) -> OpError {
    let source = io::Error::from_raw_os_error(errno);
    KernelError::Refused { action: op.to_string(), text: None, source }.into()
}

impl FakeHost {
    /// A host in this state.
    pub(crate) fn new(state: &HostState, defaults: &[(SettingKey, String)]) -> Self {
        Self { state: state.clone(), defaults: defaults.to_vec(), ..Self::default() }
    }

    /// What an observation finds.
    pub(crate) fn look(&self) -> HostState {
        let mut state = self.state.clone();
        // A guest that is a namespace runs when that is there.
        state.guests.retain(|_, guest| guest.is_machine());
        for ns in state.namespaces.keys() {
            if let Some((_, vm)) = ns.as_str().split_once('.') {
                state.guests.insert(vm.parse().unwrap(), Guest::Netns { ns: ns.clone() });
            }
        }
        state
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each operation")]
    fn one(&mut self, op: &Op) -> Answer {
        let number = self.count;
        self.count += 1;
        if self.fails.contains(&number) {
            return Err(libc::EIO);
        }
        match op {
            Op::AddNamespace { ns, mark } => {
                let namespace = vmnet::state::Namespace { mark: mark.clone() };
                self.settle_defaults(|key| matches!(key, SettingKey::Sysctl { ns: Ns::Named(at), .. } if at == ns));
                self.state.namespaces.insert(ns.clone(), namespace).map_or(Ok(()), |_| Err(libc::EEXIST))
            }
            Op::RemoveNamespace { ns } => {
                let inside = self.state.links.keys().filter(|id| id.ns.name() == Some(ns)).cloned().collect::<Vec<_>>();
                inside.iter().for_each(|id| self.remove_link(id));
                self.state.namespaces.remove(ns);
                self.state.tables.retain(|id, _| id.ns.name() != Some(ns));
                self.state
                    .settings
                    .retain(|key, _| !matches!(key, SettingKey::Sysctl { ns: Ns::Named(at), .. } if at == ns));
                Ok(())
            }
            Op::AddLink { id, link } => self.add_link(id, link),
            Op::AddVeth { near, near_link, far, far_link } => {
                if self.state.links.contains_key(far) {
                    return Err(libc::EEXIST);
                }
                self.add_link(near, near_link)?;
                self.add_link(far, &Link { master: None, ..(**far_link).clone() })
            }
            Op::SetIpv6 { id, on } => self.link(id).map(|link| link.ipv6 = *on),
            Op::SetTxChecksum { id, on } => self.link(id).map(|link| link.tx_checksum = Some(*on)),
            Op::ChangeLink { id, change } => self.change(id, change),
            Op::RemoveLink { id } => {
                self.remove_link(id);
                Ok(())
            }
            Op::RemoveGroup { ns, group, count: _ } => {
                let gone = self.state.links.iter().filter(|(id, link)| id.ns == *ns && link.group == *group);
                let gone: Vec<LinkId> = gone.map(|(id, _)| id.clone()).collect();
                gone.iter().for_each(|id| self.remove_link(id));
                Ok(())
            }
            Op::AddAddress(address) => {
                self.link(&address.link)?;
                if self.state.addresses.insert(address.clone()) { Ok(()) } else { Err(libc::EEXIST) }
            }
            Op::RemoveAddress(address) => {
                self.state.addresses.remove(address);
                let subnet = address.net.trunc();
                let through =
                    |route: &Route| is_on(route, &address.link) && route.via.is_some_and(|via| subnet.contains(&via));
                self.state.routes.retain(|route| !through(route));
                Ok(())
            }
            Op::AddRoute(route) => self.add_route(route),
            Op::RemoveRoute(route) => {
                self.state.routes.remove(route);
                Ok(())
            }
            Op::Set { key, value, was: _ } => match self.state.settings.get_mut(key) {
                Some(place) => {
                    place.clone_from(value);
                    Ok(())
                }
                None => Err(libc::ENOENT),
            },
            Op::ReplaceTable { id, body } => {
                self.need_ns(&id.ns)?;
                self.state.tables.insert(id.clone(), Table::Body(body.clone()));
                Ok(())
            }
            Op::ChangeTable { id, sets, body } => {
                let Some(Table::Body(is)) = self.state.tables.get(id) else { return Err(libc::ENOENT) };
                changed_as_said(is, sets, body);
                self.state.tables.insert(id.clone(), Table::Body(body.clone()));
                Ok(())
            }
            Op::RestoreTable { id, listing } => {
                self.need_ns(&id.ns)?;
                self.state.tables.insert(id.clone(), Table::Drifted(listing.clone()));
                Ok(())
            }
            Op::RemoveTable { id } => {
                self.state.tables.remove(id);
                Ok(())
            }
            Op::WriteFile { path, file } => {
                self.state.files.insert(path.clone(), file.clone());
                Ok(())
            }
            Op::RemoveFile { path } => {
                self.state.files.remove(path);
                Ok(())
            }
            Op::Reload { service: _ } => Ok(()),
            Op::DefineGuest { vm, domain } => {
                self.state.domains.insert(vm.clone(), (**domain).clone());
                Ok(())
            }
            Op::UndefineGuest { vm, domain: _ } => {
                // libvirt refuses nothing of the kind, and the domain of a guest that runs would be gone with it.
                if self.state.guests.get(vm).is_some_and(|guest| matches!(guest, Guest::Libvirt(_))) {
                    return Err(libc::EBUSY);
                }
                self.state.domains.remove(vm);
                Ok(())
            }
            Op::AddLibvirtNetwork { name, network } => {
                self.need_bridge(&Ns::Host, &network.bridge)?;
                let before = self.state.libvirt_networks.insert(name.clone(), network.clone());
                before.map_or(Ok(()), |_| Err(libc::EEXIST))
            }
            Op::ChangeLibvirtNetwork { name, network } => {
                self.need_bridge(&Ns::Host, &network.bridge)?;
                let is = self.state.libvirt_networks.get_mut(name).ok_or(libc::ENOENT)?;
                if is.uuid != network.uuid {
                    return Err(libc::EEXIST);
                }
                is.clone_from(network);
                Ok(())
            }
            Op::RemoveLibvirtNetwork { name, uuid } => {
                self.state.libvirt_networks.retain(|is, network| is != name || network.uuid != *uuid);
                Ok(())
            }
            Op::StartGuest { vm, guest } => {
                if matches!(&**guest, Guest::Libvirt(_)) && !self.state.domains.contains_key(vm) {
                    return Err(libc::ENOENT);
                }
                for (tap, link) in guest.taps() {
                    let id = LinkId::host(tap.clone());
                    self.add_link(&id, link)?;
                    self.state.links.insert(id, link.clone());
                }
                self.state.guests.insert(vm.clone(), (**guest).clone());
                Ok(())
            }
            Op::StopGuest { vm, guest } => {
                guest.taps().iter().for_each(|(tap, _)| self.remove_link(&LinkId::host(tap.clone())));
                self.state.guests.remove(vm);
                Ok(())
            }
        }
    }

    fn need_ns(&self, ns: &Ns) -> Answer {
        let there = ns.name().is_none_or(|name| self.state.namespaces.contains_key(name));
        if there { Ok(()) } else { Err(libc::ENOENT) }
    }

    fn link(&mut self, id: &LinkId) -> Result<&mut Link, i32> {
        self.state.links.get_mut(id).ok_or(libc::ENODEV)
    }

    /// A new link is down, unmarked, and has what its namespace gives to new ones.
    fn add_link(&mut self, id: &LinkId, link: &Link) -> Answer {
        self.need_ns(&id.ns)?;
        if self.state.links.contains_key(id) {
            return Err(libc::EEXIST);
        }
        if let Some(master) = &link.master {
            self.need_bridge(&id.ns, master)?;
        }
        let off = SettingKey::sysctl(&id.ns, "ipv6/conf/default/disable_ipv6");
        let ipv6 = self.state.settings.get(&off).is_none_or(|value| value != "1");
        let new = Link { alias: String::new(), up: false, ipv6, tx_checksum: None, ..link.clone() };
        self.state.links.insert(id.clone(), new);
        let (ns, name) = (id.ns.clone(), id.name.clone());
        self.settle_defaults(|key| concerns(key, &ns, name.as_str()));
        Ok(())
    }

    fn need_bridge(&self, ns: &Ns, name: &str) -> Answer {
        let ours = name.parse().ok().and_then(|name| self.state.links.get(&LinkId { ns: ns.clone(), name }));
        match ours {
            Some(Link { kind: LinkKind::Bridge(_), .. }) => Ok(()),
            Some(_) => Err(libc::EINVAL),
            // A bridge that is not the lab's.
            None if name == "br0" => Ok(()),
            None => Err(libc::ENODEV),
        }
    }

    fn change(&mut self, id: &LinkId, change: &LinkChange) -> Answer {
        let LinkChange { alias, mac, mtu, group, master, up, bridge, port } = change.clone();
        if let Some(Some(master)) = &master {
            self.need_bridge(&id.ns, master)?;
        }
        let link = self.link(id)?;
        if let (Some(settings), LinkKind::Bridge(_)) = (bridge, &link.kind) {
            link.kind = LinkKind::Bridge(settings);
        }
        for (knob, value) in port {
            link.odd.insert(knob, value);
        }
        link.odd.retain(|knob, value| !knob.is_right(*value));
        link.alias = alias.unwrap_or(std::mem::take(&mut link.alias));
        link.mac = mac.unwrap_or(link.mac);
        link.mtu = mtu.unwrap_or(link.mtu);
        link.group = group.unwrap_or(link.group);
        link.master = master.unwrap_or(link.master.take());
        link.up = up.unwrap_or(link.up);
        if up == Some(false) {
            self.state.routes.retain(|route| !is_on(route, id));
        }
        Ok(())
    }

    fn remove_link(&mut self, id: &LinkId) {
        let Some(link) = self.state.links.remove(id) else { return };
        self.state.addresses.retain(|Address { link, net: _ }| link != id);
        self.state.routes.retain(|route| !is_on(route, id));
        self.state.settings.retain(|key, _| !concerns(key, &id.ns, id.name.as_str()));
        match link.kind {
            LinkKind::Veth { peer: Some(peer) } => self.remove_link(&peer),
            LinkKind::Bridge(_) => {
                for (_, port) in self.state.links.iter_mut().filter(|(port, _)| port.ns == id.ns) {
                    port.master.take_if(|master| master == id.name.as_str());
                }
            }
            LinkKind::Veth { peer: None } | LinkKind::Vlan { .. } | LinkKind::Macvlan { .. } | LinkKind::Tap => {}
        }
    }

    fn add_route(&mut self, route: &Route) -> Answer {
        let id = LinkId { ns: route.ns.clone(), name: route.dev.clone() };
        if !self.link(&id)?.up {
            return Err(libc::ENETDOWN);
        }
        let reaches = |address: &Address| address.link == id && route.via.is_none_or(|via| address.net.contains(&via));
        if route.via.is_some() && !self.state.addresses.iter().any(reaches) {
            return Err(libc::ENETUNREACH);
        }
        if self.state.routes.insert(route.clone()) { Ok(()) } else { Err(libc::EEXIST) }
    }

    fn settle_defaults(&mut self, of: impl Fn(&SettingKey) -> bool) {
        for (key, value) in self.defaults.iter().filter(|(key, _)| of(key)) {
            self.state.settings.insert(key.clone(), value.clone());
        }
    }
}

fn is_on(route: &Route, id: &LinkId) -> bool {
    route.ns == id.ns && route.dev == id.name
}

fn concerns(key: &SettingKey, at: &Ns, link: &str) -> bool {
    matches!(key, SettingKey::Sysctl { ns, key } if ns == at && key.split('/').nth(2) == Some(link))
}

/// Makes the changes in one body and finds the other.
fn changed_as_said(from: &str, sets: &[SetChange], to: &str) {
    let held = |body: &str, set: &str| -> BTreeSet<String> {
        let (_, rest) = body.split_once(&format!("set {set} {{")).expect("the table has this set");
        let (own, _) = rest.split_once("\t}").expect("the set ends");
        let elements =
            own.split_once("elements = {").map_or("", |(_, elements)| elements.trim_end_matches([' ', '}', '\n']));
        elements.split(',').map(|element| element.trim().to_owned()).filter(|element| !element.is_empty()).collect()
    };
    for SetChange { set, remove, add } in sets {
        let mut now = held(from, set);
        assert!(remove.iter().all(|element| now.remove(element)), "{set} has not all of {remove:?}");
        assert!(add.iter().all(|element| now.insert(element.clone())), "{set} has some of {add:?}");
        assert_eq!(now, held(to, set), "{set}");
    }
}
