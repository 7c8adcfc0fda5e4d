//! [`differences`]: object by object, what should be there and what is. For people; a repair comes from `diff`. Pure.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::state::{
    Address, BridgeSettings, File, HostState, LibvirtNetwork, Link, LinkId, LinkKind, Ns, Route, SettingKey, Table,
};

/// How much of what should be is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// Something on the host keeps parts of it from being decided. What is there beyond the known part may be wanted,
    /// and so may an MTU or a text that follows from a device.
    Part,
    /// All of it; what is there may be of a change that was interrupted, before it could be recorded.
    Unrecorded,
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Object {
    /// A network namespace.
    Namespace,
    /// A link.
    Link,
    /// An address on a link.
    Address,
    /// A route.
    Route,
    /// A sysctl, or a device's state.
    Setting,
    /// An nftables table.
    Table,
    /// A file.
    File,
    /// A network of libvirt's.
    LibvirtNetwork,
}

/// How it differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "problem", rename_all = "kebab-case")]
pub enum Problem {
    /// It should be there.
    Missing,
    /// It should not be there.
    Unexpected,
    /// It is there, and not as it should be.
    Differs {
        /// What of it, for example `state` or `mtu`.
        property: &'static str,
        /// As it should be; `None` where that is a text of many lines.
        should: Option<String>,
        /// As it is.
        is: String,
    },
}

/// One object that is not as it should be. Display says it in a line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Difference {
    /// What it is.
    pub object: Object,
    /// Its name.
    pub name: String,
    /// The link that an address is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The namespace that it is in; `None`: the host's own.
    pub namespace: Option<String>,
    /// What is the matter.
    #[serde(flatten)]
    pub problem: Problem,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, name, link, namespace, problem } = self;
        let word = match object {
            Object::Namespace => "namespace ",
            Object::Address => "address ",
            Object::Route => "route ",
            Object::Table => "table ",
            Object::LibvirtNetwork => "libvirt network ",
            Object::Link if matches!(problem, Problem::Differs { .. }) => "",
            Object::Link => "link ",
            Object::Setting | Object::File => "",
        };
        let on = link.as_ref().map_or_else(String::new, |link| format!("on {link}"));
        let at = namespace.as_ref().map_or_else(String::new, |ns| format!("in {ns}"));
        let place = [on, at].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        let place = if place.is_empty() { place } else { format!(" {place}") };
        let name = name.escape_debug();
        match problem {
            Problem::Missing => write!(f, "{word}{name} is missing{place}"),
            Problem::Unexpected => write!(f, "{word}{name}{place}: should not be there"),
            Problem::Differs { property: _, should: Some(should), is } => {
                write!(f, "{word}{name}{place}: {}, should be {}", is.escape_debug(), should.escape_debug())
            }
            Problem::Differs { property: _, should: None, is } => {
                write!(f, "{word}{name}{place}: {}", is.escape_debug())
            }
        }
    }
}

/// Every object of `current` that is not as `wanted` says, and every setting that nobody wants any more and that is not
/// what was found. What is inside a namespace that is missing is not counted out.
pub fn differences(
    current: &HostState,
    wanted: &HostState,
    to_restore: &super::Found,
    extent: Extent,
) -> Vec<Difference> {
    let mut found = Found { extent, list: Vec::new() };
    namespaces(current, wanted, &mut found);
    links(current, wanted, &mut found);
    let is_there = |ns: &Ns| ns.name().is_none_or(|name| current.namespaces.contains_key(name));
    for address in wanted.addresses.difference(&current.addresses).filter(|address| is_there(&address.link.ns)) {
        found.address(address, Problem::Missing);
    }
    for address in current.addresses.difference(&wanted.addresses) {
        found.address(address, Problem::Unexpected);
    }
    for route in wanted.routes.difference(&current.routes).filter(|route| is_there(&route.ns)) {
        found.route(route, Problem::Missing);
    }
    for route in current.routes.difference(&wanted.routes) {
        found.route(route, Problem::Unexpected);
    }
    let unwanted = to_restore.iter().filter(|(key, _)| extent != Extent::Part && !wanted.settings.contains_key(key));
    for (key, should) in wanted.settings.iter().chain(unwanted) {
        // Of a thing that is not there nothing can be set.
        let Some(is) = current.settings.get(key).filter(|is| *is != should) else { continue };
        let differs = Problem::Differs { property: "value", should: Some(should.clone()), is: is.clone() };
        let (name, ns) = match key {
            SettingKey::Sysctl { ns, key } => (format!("net/{key}"), ns),
            SettingKey::DeviceState { device } => (format!("state of {device}"), &Ns::Host),
        };
        found.push(Object::Setting, &name, ns, differs);
    }
    tables(current, wanted, is_there, &mut found);
    files(current, wanted, &mut found);
    libvirt_networks(current, wanted, &mut found);
    found.list
}

struct Found {
    extent: Extent,
    list: Vec<Difference>,
}

impl Found {
    fn push(&mut self, object: Object, name: &str, ns: &Ns, problem: Problem) {
        self.on(object, name, None, ns, problem);
    }

    fn on(&mut self, object: Object, name: &str, link: Option<String>, ns: &Ns, problem: Problem) {
        if self.extent == Extent::Part && problem == Problem::Unexpected {
            return;
        }
        let namespace = ns.name().map(ToString::to_string);
        self.list.push(Difference { object, name: name.to_owned(), link, namespace, problem });
    }

    fn address(&mut self, address: &Address, problem: Problem) {
        let Address { link: LinkId { ns, name }, net } = address;
        self.on(Object::Address, &net.to_string(), Some(name.to_string()), ns, problem);
    }

    fn route(&mut self, route: &Route, problem: Problem) {
        let Route { ns, to, via, dev, metric: _ } = route;
        let to = if to.prefix_len() == 0 { "default".to_owned() } else { to.to_string() };
        let via = via.map_or_else(String::new, |via| format!(" via {via}"));
        self.push(Object::Route, &format!("{to}{via} dev {dev}"), ns, problem);
    }

    fn differs(&mut self, id: &LinkId, property: &'static str, should: String, is: String) {
        if self.extent == Extent::Part && property == "mtu" {
            return;
        }
        let differs = Problem::Differs { property, should: Some(should), is };
        self.push(Object::Link, id.name.as_str(), &id.ns, differs);
    }
}

fn namespaces(current: &HostState, wanted: &HostState, found: &mut Found) {
    for (ns, namespace) in &wanted.namespaces {
        match current.namespaces.get(ns) {
            None => found.push(Object::Namespace, ns.as_str(), &Ns::Host, Problem::Missing),
            Some(is) if is != namespace => {
                let is = if is.mark.is_empty() { "only half made".to_owned() } else { format!("marked {}", is.mark) };
                let differs = Problem::Differs { property: "mark", should: Some(namespace.mark.clone()), is };
                found.push(Object::Namespace, ns.as_str(), &Ns::Host, differs);
            }
            Some(_) => {}
        }
    }
    for ns in current.namespaces.keys().filter(|ns| !wanted.namespaces.contains_key(*ns)) {
        found.push(Object::Namespace, ns.as_str(), &Ns::Host, Problem::Unexpected);
    }
}

fn links(current: &HostState, wanted: &HostState, found: &mut Found) {
    for (id, should) in &wanted.links {
        match current.links.get(id) {
            Some(is) => link(id, is, should, found),
            None if id.ns.name().is_none_or(|name| current.namespaces.contains_key(name)) => {
                found.push(Object::Link, id.name.as_str(), &id.ns, Problem::Missing);
            }
            None => {}
        }
    }
    for id in current.links.keys().filter(|id| !wanted.links.contains_key(*id)) {
        found.push(Object::Link, id.name.as_str(), &id.ns, Problem::Unexpected);
    }
}

fn link(id: &LinkId, is: &Link, should: &Link, found: &mut Found) {
    let Link { kind, mac, mtu, group, alias, master, up, ipv6, tx_checksum, odd } = should;
    if is.kind != *kind {
        found.differs(id, "kind", describe(kind), describe(&is.kind));
    }
    if is.up != *up {
        let word = |up: bool| if up { "up" } else { "down" }.to_owned();
        found.differs(id, "state", word(*up), word(is.up));
    }
    if is.master != *master {
        let word = |master: &Option<String>| match master {
            Some(bridge) => format!("port of {bridge}"),
            None => "port of no bridge".to_owned(),
        };
        found.differs(id, "master", word(master), word(&is.master));
    }
    if is.mtu != *mtu {
        found.differs(id, "mtu", format!("MTU {mtu}"), format!("MTU {}", is.mtu));
    }
    if is.mac != *mac {
        found.differs(id, "mac", format!("MAC {mac}"), format!("MAC {}", is.mac));
    }
    if is.group != *group {
        found.differs(id, "group", format!("group {group}"), format!("group {}", is.group));
    }
    if is.alias != *alias {
        let now = if is.alias.is_empty() { "not marked".to_owned() } else { format!("marked \"{}\"", is.alias) };
        found.differs(id, "mark", format!("marked {alias}"), now);
    }
    let switch = |what: &str, on: bool| format!("{what} {}", if on { "on" } else { "off" });
    if is.ipv6 != *ipv6 {
        found.differs(id, "ipv6", switch("IPv6", *ipv6), switch("IPv6", is.ipv6));
    }
    if let (Some(should), Some(is)) = (tx_checksum, is.tx_checksum.filter(|is| tx_checksum != &Some(*is))) {
        let word = |on| switch("TX checksum offload", on);
        found.differs(id, "tx-checksum", word(*should), word(is));
    }
    for (knob, is) in is.odd.iter().filter(|(knob, _)| !odd.contains_key(knob)) {
        match knob.sysctl(id.name.as_str()) {
            Some(key) => {
                let (should, is) = (Some(knob.right().to_string()), is.to_string());
                let differs = Problem::Differs { property: "value", should, is };
                found.push(Object::Setting, &format!("net/{key}"), &id.ns, differs);
            }
            None => {
                let word = |value: u32| switch(&knob.to_string(), value != 0);
                found.differs(id, "port", word(knob.right()), word(*is));
            }
        }
    }
}

fn describe(kind: &LinkKind) -> String {
    match kind {
        LinkKind::Bridge(BridgeSettings { stp, forward_delay, multicast_snooping }) => {
            let on = |on: bool| if on { "on" } else { "off" };
            let (stp, snooping) = (on(*stp), on(*multicast_snooping));
            format!("bridge with STP {stp}, forward delay {forward_delay}, multicast snooping {snooping}")
        }
        LinkKind::Vlan { parent, id } => format!("VLAN {id} of {parent}"),
        LinkKind::Veth { peer: Some(peer) } => format!("veth to {peer}"),
        LinkKind::Veth { peer: None } => "something else".to_owned(),
        LinkKind::Macvlan { parent } => format!("macvlan of {parent}"),
        LinkKind::Tap => "TAP".to_owned(),
    }
}

fn tables(current: &HostState, wanted: &HostState, is_there: impl Fn(&Ns) -> bool, found: &mut Found) {
    for (id, should) in wanted.tables.iter().filter(|(id, _)| is_there(&id.ns)) {
        let name = format!("{} {}", id.family, id.name);
        let is = match current.tables.get(id) {
            Some(is) if is == should => continue,
            None => {
                found.push(Object::Table, &name, &id.ns, Problem::Missing);
                continue;
            }
            Some(Table::Drifted(_)) if found.extent == Extent::Unrecorded => {
                "other rules than those recorded (the interrupted change may have written them)"
            }
            Some(Table::Drifted(_)) => "changed by another tool",
            // What the rules name, devices for example, has changed.
            Some(Table::Body(_)) if found.extent != Extent::Part => "other rules than it should have by now",
            Some(Table::Body(_)) => continue,
        };
        let differs = Problem::Differs { property: "rules", should: None, is: is.to_owned() };
        found.push(Object::Table, &name, &id.ns, differs);
    }
    for id in current.tables.keys().filter(|id| !wanted.tables.contains_key(*id)) {
        found.push(Object::Table, &format!("{} {}", id.family, id.name), &id.ns, Problem::Unexpected);
    }
}

fn files(current: &HostState, wanted: &HostState, found: &mut Found) {
    for (path, should) in &wanted.files {
        let name = path.display().to_string();
        let Some(is) = current.files.get(path) else {
            found.push(Object::File, &name, &Ns::Host, Problem::Missing);
            continue;
        };
        if is.mode != should.mode {
            let (should, is) = (format!("mode {:04o}", should.mode), format!("mode {:04o}", is.mode));
            let differs = Problem::Differs { property: "mode", should: Some(should), is };
            found.push(Object::File, &name, &Ns::Host, differs);
        }
        if let Some(access) = is.access.filter(|_| is.access != should.access) {
            let differs = Problem::Differs { property: "access", should: None, is: access.to_string() };
            found.push(Object::File, &name, &Ns::Host, differs);
        }
        if is.content != should.content && found.extent != Extent::Part {
            let is = "another text than it should have".to_owned();
            found.push(Object::File, &name, &Ns::Host, Problem::Differs { property: "content", should: None, is });
        }
    }
    let goes = |(path, file): &(&PathBuf, &File)| !wanted.files.contains_key(*path) && file.is_made(path);
    for (path, _) in current.files.iter().filter(goes) {
        found.push(Object::File, &path.display().to_string(), &Ns::Host, Problem::Unexpected);
    }
}

fn libvirt_networks(current: &HostState, wanted: &HostState, found: &mut Found) {
    for (name, should) in &wanted.libvirt_networks {
        let mut push = |problem| found.push(Object::LibvirtNetwork, name, &Ns::Host, problem);
        let Some(is) = current.libvirt_networks.get(name) else {
            push(Problem::Missing);
            continue;
        };
        let LibvirtNetwork { uuid, network: _, bridge, active, autostart } = should;
        let mut differs = |property, is: String, should: String| {
            if is != should {
                push(Problem::Differs { property, should: Some(should), is });
            }
        };
        let on = |bridge: &str| if bridge.is_empty() { "on no bridge".to_owned() } else { format!("on {bridge}") };
        differs("bridge", on(&is.bridge), on(bridge));
        let state = |active: bool| if active { "started" } else { "not started" }.to_owned();
        differs("state", state(is.active), state(*active));
        let switch = |on: bool| format!("autostart {}", if on { "on" } else { "off" });
        differs("autostart", switch(is.autostart), switch(*autostart));
        differs("uuid", format!("UUID {}", is.uuid), format!("UUID {uuid}"));
    }
    for name in current.libvirt_networks.keys().filter(|name| !wanted.libvirt_networks.contains_key(*name)) {
        found.push(Object::LibvirtNetwork, name, &Ns::Host, Problem::Unexpected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{IfName, Mac};
    use crate::state::{Family, File, Namespace, TableId};

    fn name(text: &str) -> IfName {
        text.parse().unwrap()
    }

    fn wanted() -> HostState {
        let router: crate::names::NsName = "vmnet-campus".parse().unwrap();
        let mut state = HostState::default();
        state.namespaces.insert(router.clone(), Namespace { mark: "vmnet:campus:namespace:router".into() });
        let link = |kind, master: Option<&str>| Link {
            kind,
            mac: Mac::try_from([2, 0, 0, 0, 0, 1]).unwrap(),
            mtu: 1500,
            group: 7,
            alias: "vmnet:campus:x:y".into(),
            master: master.map(str::to_owned),
            up: true,
            ipv6: false,
            tx_checksum: Some(false),
            odd: crate::state::Odd::new(),
        };
        let (near, far) = (LinkId::host(name("rt-web")), LinkId::inside(&router, name("web")));
        state.links.insert(LinkId::host(name("br-web")), link(LinkKind::Bridge(BridgeSettings::OURS), None));
        let veth = |peer: &LinkId| LinkKind::Veth { peer: Some(peer.clone()) };
        state.links.insert(near.clone(), link(veth(&far), Some("br-web")));
        state.links.insert(far.clone(), link(veth(&near), None));
        state.addresses.insert(Address { link: far.clone(), net: "192.168.10.1/24".parse().unwrap() });
        let default = Route {
            ns: far.ns.clone(),
            to: "0.0.0.0/0".parse().unwrap(),
            via: "192.0.2.1".parse().ok(),
            dev: name("web"),
            metric: 0,
        };
        state.routes.insert(default);
        state.settings.insert(SettingKey::sysctl(&far.ns, "ipv4/ip_forward"), "1".into());
        let table = TableId { ns: far.ns, family: Family::Inet, name: "vmnet-campus".into() };
        state.tables.insert(table, Table::Body("x".into()));
        state.files.insert("/run/x".into(), File::new(0o755, "x"));
        state
    }

    fn texts(current: &HostState, extent: Extent) -> Vec<String> {
        differences(current, &wanted(), &super::super::Found::new(), extent).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn equal_states_have_none() {
        assert_eq!(texts(&wanted(), Extent::Whole), [""; 0]);
    }

    #[test]
    fn each_object_says_what_it_should_be_and_what_it_is() {
        let mut now = wanted();
        let (br, rt) = (LinkId::host(name("br-web")), LinkId::host(name("rt-web")));
        now.links.get_mut(&br).unwrap().up = false;
        let port = now.links.get_mut(&rt).unwrap();
        port.master = Some("x\u{1b}[31m".into());
        port.mtu = 1400;
        now.addresses.clear();
        now.routes.clear();
        now.settings.values_mut().for_each(|value| *value = "0".into());
        now.tables.values_mut().for_each(|table| *table = Table::Drifted("y".into()));
        now.files.values_mut().for_each(|file| file.mode = 0o644);
        let wanted = [
            "br-web: down, should be up",
            "rt-web: port of x\\u{1b}[31m, should be port of br-web",
            "rt-web: MTU 1400, should be MTU 1500",
            "address 192.168.10.1/24 is missing on web in vmnet-campus",
            "route default via 192.0.2.1 dev web is missing in vmnet-campus",
            "net/ipv4/ip_forward in vmnet-campus: 0, should be 1",
            "table inet vmnet-campus in vmnet-campus: changed by another tool",
            "/run/x: mode 0644, should be mode 0755",
        ];
        assert_eq!(texts(&now, Extent::Whole), wanted);
    }

    #[test]
    fn a_missing_namespace_stands_for_what_is_in_it() {
        let found = texts(&HostState::default(), Extent::Whole);
        let wanted = [
            "namespace vmnet-campus is missing",
            "link br-web is missing",
            "link rt-web is missing",
            "/run/x is missing",
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_is_known_in_part_says_nothing_of_more() {
        let mut now = wanted();
        let rt = LinkId::host(name("rt-web"));
        now.links.insert(LinkId::host(name("eno1.10")), now.links[&rt].clone());
        now.links.get_mut(&rt).unwrap().mtu = 9000;
        now.tables.values_mut().for_each(|table| *table = Table::Body("z".into()));
        assert_eq!(texts(&now, Extent::Part), [""; 0]);
        assert_eq!(texts(&now, Extent::Whole).len(), 3);
    }

    #[test]
    fn what_an_interrupted_change_left_is_no_other_tools() {
        let mut now = wanted();
        now.links.get_mut(&LinkId::host(name("rt-web"))).unwrap().alias.clear();
        now.tables.values_mut().for_each(|table| *table = Table::Drifted("y".into()));
        let wanted = [
            "rt-web: not marked, should be marked vmnet:campus:x:y",
            "table inet vmnet-campus in vmnet-campus: other rules than those recorded (the interrupted change may have \
             written them)",
        ];
        assert_eq!(texts(&now, Extent::Unrecorded), wanted);
    }
}
