//! [`diff`]: two host states in, a plan out.
//!
//! Bridges and ports are changed in place wherever the kernel allows it, so that running guests keep their network;
//! a link is made anew only when its kind, parent or VLAN differs. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::elements;
use super::{LinkChange, Op, Plan, Service};
use crate::names::VmName;
use crate::paths::{NETWORK_MANAGER_DROP_INS, NETWORKD_DROP_INS};
use crate::state::{
    Address, File, Guest, HostState, Knob, LibvirtNetwork, Link, LinkId, LinkKind, Ns, Odd, Place, Route, SettingKey,
    Table,
};

/// What stood in a setting before a lab changed it: what it goes back to.
pub type Found = BTreeMap<SettingKey, String>;

/// The operations that turn `current` into `desired`; settings that are no longer wanted go back to `found`.
/// A whole link group is removed by one message only in the namespaces of `own_groups` (see
/// [`own_groups`](super::own_groups)); with an empty set each link is removed by its name.
pub fn diff(current: &HostState, desired: &HostState, found: &Found, own_groups: &BTreeSet<Ns>) -> Plan {
    let mut ops = Vec::new();
    guests(current, desired, &mut ops);
    domains(current, desired, &mut ops);
    libvirt_networks(current, desired, &mut ops);
    let links = Links::of(current, desired);
    links.ops(current, desired, own_groups, &mut ops);
    namespaces(current, desired, &mut ops);
    addresses(current, desired, &links, &mut ops);
    routes(current, desired, &links, &mut ops);
    settings(current, desired, found, &links, &mut ops);
    tables(current, desired, &mut ops);
    files(current, desired, &mut ops);
    Plan::from_ops(ops)
}

fn guests(current: &HostState, desired: &HostState, ops: &mut Vec<Op>) {
    for (vm, guest) in &current.guests {
        if desired.guests.get(vm) != Some(guest) {
            // A namespace that plays a guest is made and removed like every other one.
            if guest.is_machine() {
                ops.push(Op::StopGuest { vm: vm.clone(), guest: Box::new(guest.clone()) });
            }
        }
    }
    for (vm, guest) in &desired.guests {
        if starts(current, vm, guest) {
            ops.push(Op::StartGuest { vm: vm.clone(), guest: Box::new(guest.clone()) });
        }
    }
}

/// Whether a guest that is wanted has to be started.
fn starts(current: &HostState, vm: &VmName, guest: &Guest) -> bool {
    guest.is_machine() && current.guests.get(vm) != Some(guest)
}

fn domains(current: &HostState, desired: &HostState, ops: &mut Vec<Op>) {
    for (vm, domain) in current.domains.iter().filter(|(vm, _)| !desired.domains.contains_key(*vm)) {
        ops.push(Op::UndefineGuest { vm: vm.clone(), domain: Box::new(domain.clone()) });
    }
    // One that is started is defined anew: what was edited by other means counts until then.
    for (vm, domain) in &desired.domains {
        let starts = desired.guests.get(vm).is_some_and(|guest| starts(current, vm, guest));
        if starts || current.domains.get(vm) != Some(domain) {
            ops.push(Op::DefineGuest { vm: vm.clone(), domain: Box::new(domain.clone()) });
        }
    }
}

fn libvirt_networks(current: &HostState, desired: &HostState, ops: &mut Vec<Op>) {
    // One with another UUID is another one, and libvirt has only one of a name.
    let same = |a: &LibvirtNetwork, b: &LibvirtNetwork| a.uuid == b.uuid;
    for (name, network) in &current.libvirt_networks {
        if !desired.libvirt_networks.get(name).is_some_and(|wanted| same(network, wanted)) {
            ops.push(Op::RemoveLibvirtNetwork { name: name.clone(), uuid: network.uuid.clone() });
        }
    }
    for (name, network) in &desired.libvirt_networks {
        let (name, network) = (name.clone(), network.clone());
        match current.libvirt_networks.get(&name) {
            Some(is) if *is == network => {}
            Some(is) if same(is, &network) => ops.push(Op::ChangeLibvirtNetwork { name, network }),
            Some(_) | None => ops.push(Op::AddLibvirtNetwork { name, network }),
        }
    }
}

fn namespaces(current: &HostState, desired: &HostState, ops: &mut Vec<Op>) {
    for (ns, namespace) in &current.namespaces {
        if desired.namespaces.get(ns) != Some(namespace) {
            ops.push(Op::RemoveNamespace { ns: ns.clone() });
        }
    }
    for (ns, namespace) in &desired.namespaces {
        if current.namespaces.get(ns) != Some(namespace) {
            ops.push(Op::AddNamespace { ns: ns.clone(), mark: namespace.mark.clone() });
        }
    }
}

/// Which links go and which come; what depended on those that go is gone with them.
struct Links<'a> {
    gone: BTreeSet<&'a LinkId>,
    made: BTreeSet<&'a LinkId>,
    /// Of those that go: the TAPs of guests that stop. No operation removes them, the guest's end does.
    with_guest: BTreeSet<LinkId>,
}

impl<'a> Links<'a> {
    fn of(current: &'a HostState, desired: &'a HostState) -> Self {
        let with_guest = taps_of_stopping(current, desired);
        let mut gone = BTreeSet::new();
        for (id, link) in &current.links {
            let stays = desired.links.get(id).is_some_and(|wanted| same_thing(link, wanted));
            // The kernel removes a veth pair, and what sits on a device, together.
            if !stays || with_guest.contains(id) {
                gone.insert(id);
                if let LinkKind::Veth { peer: Some(peer) } = &link.kind
                    && let Some((peer, _)) = current.links.get_key_value(peer)
                {
                    gone.insert(peer);
                }
            }
        }
        // Half a pair is no pair: an end whose other end is not there was never made, or lost it.
        let made = desired.links.keys().filter(|id| !current.links.contains_key(id) || gone.contains(id)).collect();
        Self { gone, made, with_guest }
    }

    fn ops(&self, current: &HostState, desired: &HostState, own_groups: &BTreeSet<Ns>, ops: &mut Vec<Op>) {
        self.removals(current, own_groups, ops);
        for id in &self.made {
            let link = &desired.links[*id];
            match &link.kind {
                // The guest's start opens the TAP; nothing else can.
                LinkKind::Tap => continue,
                LinkKind::Veth { peer: Some(peer) } => {
                    // One message makes both: the end on a bridge is the near one (it takes its master at once).
                    let Some(far) = desired.links.get(peer) else { continue };
                    if is_near(id, link, peer, far) {
                        ops.push(Op::AddVeth {
                            near: (*id).clone(),
                            near_link: Box::new(link.clone()),
                            far: peer.clone(),
                            far_link: Box::new(far.clone()),
                        });
                    }
                }
                LinkKind::Veth { peer: None } => continue,
                LinkKind::Bridge(_) | LinkKind::Vlan { .. } | LinkKind::Macvlan { .. } => {
                    ops.push(Op::AddLink { id: (*id).clone(), link: Box::new(link.clone()) });
                }
            }
            settle(id, link, new_links_have_ipv6(&id.ns, desired), ops);
        }
        for (id, wanted) in &desired.links {
            if let Some(link) = current.links.get(id).filter(|_| !self.made.contains(id)) {
                change(id, link, wanted, ops);
            }
        }
    }

    fn removals(&self, current: &HostState, own_groups: &BTreeSet<Ns>, ops: &mut Vec<Op>) {
        let mut by_ns = BTreeMap::<&Ns, Vec<&LinkId>>::new();
        for id in self.gone.iter().filter(|id| !self.with_guest.contains(**id)) {
            by_ns.entry(&id.ns).or_default().push(id);
        }
        let mut all = BTreeMap::<&Ns, (usize, BTreeSet<u32>)>::new();
        for (id, link) in current.links.iter().filter(|(id, _)| !self.with_guest.contains(id)) {
            let (count, groups) = all.entry(&id.ns).or_default();
            *count += 1;
            groups.insert(link.group);
        }
        for (ns, ids) in by_ns {
            let (count, groups) = &all[ns];
            let everything_goes = *count == ids.len() && own_groups.contains(ns);
            let has_tap = ids.iter().any(|id| current.links[*id].kind == LinkKind::Tap);
            if let (true, false, Some(group), 1) =
                (everything_goes && ids.len() > 1, has_tap, groups.first(), groups.len())
            {
                ops.push(Op::RemoveGroup { ns: ns.clone(), group: *group, count: ids.len() });
                continue;
            }
            for id in ids {
                let removed_with_peer = match &current.links[id].kind {
                    LinkKind::Veth { peer: Some(peer) } => peer < id && self.gone.contains(peer),
                    _ => false,
                };
                if !removed_with_peer {
                    ops.push(Op::RemoveLink { id: id.clone() });
                }
            }
        }
    }
}

/// The TAPs of guests that stop, or stop and start again.
fn taps_of_stopping(current: &HostState, desired: &HostState) -> BTreeSet<LinkId> {
    let stopping = current.guests.iter().filter(|(vm, guest)| desired.guests.get(*vm) != Some(*guest));
    let taps = stopping.flat_map(|(_, guest)| guest.taps());
    taps.map(|(tap, _)| LinkId::host(tap.clone())).filter(|id| current.links.contains_key(id)).collect()
}

/// Whether the kernel can turn one into the other in place.
fn same_thing(current: &Link, wanted: &Link) -> bool {
    match (&current.kind, &wanted.kind) {
        (LinkKind::Bridge(_), LinkKind::Bridge(_)) | (LinkKind::Tap, LinkKind::Tap) => true,
        (a, b) => a == b,
    }
}

fn is_near(id: &LinkId, link: &Link, peer: &LinkId, far: &Link) -> bool {
    match (link.master.is_some(), far.master.is_some()) {
        (true, false) => true,
        (false, true) => false,
        _ => id < peer,
    }
}

/// Whether IPv6 works on a link when it is made: known where the state sets the namespace's default, which happens
/// before any link appears there.
fn new_links_have_ipv6(ns: &Ns, desired: &HostState) -> Option<bool> {
    let default = SettingKey::sysctl(ns, "ipv6/conf/default/disable_ipv6");
    desired.settings.get(&default).map(|off| off == "0")
}

/// What the creating message can't carry.
fn settle(id: &LinkId, link: &Link, ipv6: Option<bool>, ops: &mut Vec<Op>) {
    if ipv6 != Some(link.ipv6) {
        ops.push(Op::SetIpv6 { id: id.clone(), on: link.ipv6 });
    }
    if let Some(on) = link.tx_checksum {
        ops.push(Op::SetTxChecksum { id: id.clone(), on });
    }
    let change = LinkChange { alias: Some(link.alias.clone()), up: link.up.then_some(true), ..LinkChange::default() };
    ops.push(Op::ChangeLink { id: id.clone(), change });
}

fn change(id: &LinkId, current: &Link, wanted: &Link, ops: &mut Vec<Op>) {
    let Link { kind, mac, mtu, group, alias, master, up, ipv6, tx_checksum, odd } = wanted;
    for (knob, value) in turned(&current.odd, odd) {
        if let Some(key) = knob.sysctl(id.name.as_str()) {
            let (key, was) = (SettingKey::sysctl(&id.ns, key), current.odd.get(&knob).map(ToString::to_string));
            ops.push(Op::Set { key, value: value.to_string(), was });
        }
    }
    if current.ipv6 != *ipv6 {
        ops.push(Op::SetIpv6 { id: id.clone(), on: *ipv6 });
    }
    if let Some(on) = tx_checksum.filter(|on| current.tx_checksum != Some(*on)) {
        ops.push(Op::SetTxChecksum { id: id.clone(), on });
    }
    let change = LinkChange {
        alias: (current.alias != *alias).then(|| alias.clone()),
        mac: (current.mac != *mac).then_some(*mac),
        mtu: (current.mtu != *mtu).then_some(*mtu),
        group: (current.group != *group).then_some(*group),
        master: (current.master != *master).then(|| master.clone()),
        up: (current.up != *up).then_some(*up),
        bridge: match kind {
            LinkKind::Bridge(settings) if current.kind != *kind => Some(*settings),
            _ => None,
        },
        // To which bridge it goes, that one sets it right.
        port: if current.master == *master {
            let port = |(knob, _): &(Knob, u32)| matches!(knob.place(), Place::Port(_));
            turned(&current.odd, odd).into_iter().filter(port).collect()
        } else {
            Odd::new()
        },
    };
    if !change.is_empty() {
        ops.push(Op::ChangeLink { id: id.clone(), change });
    }
}

/// The knobs that have to be turned, each with how it should stand.
fn turned(current: &Odd, wanted: &Odd) -> Odd {
    let back = current.keys().filter(|knob| !wanted.contains_key(knob)).map(|knob| (*knob, knob.right()));
    let other = wanted.iter().filter(|(knob, value)| current.get(knob) != Some(value));
    back.chain(other.map(|(knob, value)| (*knob, *value))).collect()
}

fn addresses(current: &HostState, desired: &HostState, links: &Links<'_>, ops: &mut Vec<Op>) {
    let stays = |address: &Address| !links.gone.contains(&address.link);
    for address in current.addresses.difference(&desired.addresses).filter(|a| stays(a)) {
        ops.push(Op::RemoveAddress(address.clone()));
    }
    for address in &desired.addresses {
        if !current.addresses.contains(address) || !stays(address) {
            ops.push(Op::AddAddress(address.clone()));
        }
    }
}

/// Routes go with their link, with its last address in the next hop's subnet, and when it is set down.
fn routes(current: &HostState, desired: &HostState, links: &Links<'_>, ops: &mut Vec<Op>) {
    let shaken: BTreeSet<&LinkId> = current.addresses.difference(&desired.addresses).map(|a| &a.link).collect();
    let link_of = |route: &Route| LinkId { ns: route.ns.clone(), name: route.dev.clone() };
    let lost = |route: &Route| links.gone.contains(&link_of(route));
    for route in &current.routes {
        let unwanted = !desired.routes.contains(route) || shaken.contains(&link_of(route));
        if unwanted && !lost(route) {
            ops.push(Op::RemoveRoute(route.clone()));
        }
    }
    for route in &desired.routes {
        if !current.routes.contains(route) || lost(route) || shaken.contains(&link_of(route)) {
            ops.push(Op::AddRoute(route.clone()));
        }
    }
}

fn settings(current: &HostState, desired: &HostState, found: &Found, links: &Links<'_>, ops: &mut Vec<Op>) {
    for (key, value) in &desired.settings {
        let was = current.settings.get(key);
        if was != Some(value) || link_of(key).is_some_and(|id| links.made.contains(&id)) {
            ops.push(Op::Set { key: key.clone(), value: value.clone(), was: was.cloned() });
        }
    }
    for (key, value) in found {
        let was = current.settings.get(key);
        // Without a present value the thing itself is gone, and its setting with it.
        if !desired.settings.contains_key(key) && was.is_some() && was != Some(value) {
            ops.push(Op::Set { key: key.clone(), value: value.clone(), was: was.cloned() });
        }
    }
}

/// The link that a setting is one of: it goes with it.
fn link_of(key: &SettingKey) -> Option<LinkId> {
    match key {
        SettingKey::Sysctl { ns, key } => Some(LinkId { ns: ns.clone(), name: key.split('/').nth(2)?.parse().ok()? }),
        SettingKey::DeviceState { .. } => None,
    }
}

fn tables(current: &HostState, desired: &HostState, ops: &mut Vec<Op>) {
    for id in current.tables.keys().filter(|id| !desired.tables.contains_key(id)) {
        // A table goes with its namespace.
        if id.ns.name().is_none_or(|ns| desired.namespaces.contains_key(ns)) {
            ops.push(Op::RemoveTable { id: id.clone() });
        }
    }
    for (id, table) in &desired.tables {
        if current.tables.get(id) == Some(table) {
            continue;
        }
        match table {
            Table::Body(body) => {
                let is = current.tables.get(id);
                let changes = is.and_then(|is| match is {
                    Table::Body(is) => elements::changes(is, body),
                    Table::Drifted(_) => None,
                });
                ops.push(match changes {
                    Some(sets) => Op::ChangeTable { id: id.clone(), sets, body: body.clone() },
                    None => Op::ReplaceTable { id: id.clone(), body: body.clone() },
                });
            }
            Table::Drifted(listing) => ops.push(Op::RestoreTable { id: id.clone(), listing: listing.clone() }),
        }
    }
}

fn files(current: &HostState, desired: &HostState, ops: &mut Vec<Op>) {
    let goes = |(path, file): &(&PathBuf, &File)| !desired.files.contains_key(*path) && file.is_made(path);
    for (path, _) in current.files.iter().filter(goes) {
        ops.push(Op::RemoveFile { path: path.clone() });
    }
    for (path, file) in &desired.files {
        if current.files.get(path) != Some(file) {
            ops.push(Op::WriteFile { path: path.clone(), file: file.clone() });
        }
    }
    for (folder, service) in
        [(NETWORK_MANAGER_DROP_INS, Service::NetworkManager), (NETWORKD_DROP_INS, Service::Networkd)]
    {
        let below = |state: &HostState| -> Vec<(PathBuf, File)> {
            let files = state.files.range::<Path, _>((Bound::Included(Path::new(folder)), Bound::Unbounded));
            let files = files.take_while(|(path, _)| path.starts_with(folder));
            files.map(|(path, file)| (path.clone(), file.clone())).collect()
        };
        if below(current) != below(desired) {
            ops.push(Op::Reload { service });
        }
    }
}
