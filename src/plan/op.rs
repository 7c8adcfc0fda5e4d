//! [`Op`]: one effect on the host, as data.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::elements::SetChange;
use crate::names::{NsName, VmName};
use crate::state::{
    Address, BridgeSettings, Domain, Feature, File, Guest, LibvirtNetwork, Link, LinkId, LinkKind, Ns, Odd, Route,
    SettingKey, TableId,
};

/// One effect. The executor has one arm for each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op {
    /// Make a namespace, bring its `lo` up and mark it by `lo`'s alias.
    AddNamespace {
        /// Its name.
        ns: NsName,
        /// The alias that marks it.
        mark: String,
    },
    /// Remove a namespace. Its links are gone before.
    RemoveNamespace {
        /// Its name.
        ns: NsName,
    },
    /// Make a link in one message: kind, MAC, MTU, group and master. It stays down and without alias.
    AddLink {
        /// Where and how it is called.
        id: LinkId,
        /// What it shall be in the end.
        link: Box<Link>,
    },
    /// Make both ends of a veth pair in one message, each in its namespace, with MAC, MTU and group; the near end
    /// with its master. Both stay down and without alias.
    AddVeth {
        /// The end that the message is about.
        near: LinkId,
        /// What it shall be in the end.
        near_link: Box<Link>,
        /// The other end.
        far: LinkId,
        /// What it shall be in the end.
        far_link: Box<Link>,
    },
    /// Switch IPv6 on a link on or off (`/proc/sys/net/ipv6/conf/NAME/disable_ipv6`).
    SetIpv6 {
        /// The link.
        id: LinkId,
        /// On or off.
        on: bool,
    },
    /// Switch TX checksum offload of a link on or off (`ETHTOOL_STXCSUM`).
    SetTxChecksum {
        /// The link.
        id: LinkId,
        /// On or off.
        on: bool,
    },
    /// Change attributes of a link of ours in one message.
    ChangeLink {
        /// The link.
        id: LinkId,
        /// The attributes that change.
        change: LinkChange,
    },
    /// Remove a link; for one end of a veth pair, both.
    RemoveLink {
        /// The link.
        id: LinkId,
    },
    /// Remove every link of a group in a namespace by one message (`RTM_DELLINK` with `IFLA_GROUP`). Only planned
    /// when everything in the group is ours and is to go.
    RemoveGroup {
        /// The namespace.
        ns: Ns,
        /// The link group.
        group: u32,
        /// How many links will go, for people.
        count: usize,
    },
    /// Add an address; without duplicate detection for IPv6 (`IFA_F_NODAD`).
    AddAddress(Address),
    /// Remove an address.
    RemoveAddress(Address),
    /// Add a static route with our protocol number.
    AddRoute(Route),
    /// Remove a route with our protocol number.
    RemoveRoute(Route),
    /// Set a sysctl, or a foreign device's administrative state.
    Set {
        /// What is set.
        key: SettingKey,
        /// Its new value.
        value: String,
        /// What it was, where that is known; for people.
        was: Option<String>,
    },
    /// Replace a table whole, in one transaction; makes it where it does not exist.
    ReplaceTable {
        /// The table.
        id: TableId,
        /// The body between its braces.
        body: String,
    },
    /// Change what the sets of a table hold, in one transaction; its chains, rules and counters stay.
    ChangeTable {
        /// The table.
        id: TableId,
        /// What changes.
        sets: Vec<SetChange>,
        /// The body that it has then.
        body: String,
    },
    /// Put a table back as the kernel listed it: another tool had changed it. Only on a way back.
    RestoreTable {
        /// The table.
        id: TableId,
        /// The whole listing.
        listing: String,
    },
    /// Remove a table.
    RemoveTable {
        /// The table.
        id: TableId,
    },
    /// Write a file by rename, with its folder where that is missing.
    WriteFile {
        /// Absolute.
        path: PathBuf,
        /// What it shall be.
        file: File,
    },
    /// Remove a file, and its folder where that is empty then and ours.
    RemoveFile {
        /// Absolute.
        path: PathBuf,
    },
    /// Make a network manager read its drop-ins again.
    Reload {
        /// Which one.
        service: Service,
    },
    /// Define a guest's domain in libvirt, or define it anew.
    DefineGuest {
        /// Its name.
        vm: VmName,
        /// What is defined.
        domain: Box<Domain>,
    },
    /// Have libvirt forget a guest's domain.
    UndefineGuest {
        /// Its name.
        vm: VmName,
        /// What is defined.
        domain: Box<Domain>,
    },
    /// Define a network of libvirt's and start it, so that others can plug their machines into one of the lab's.
    AddLibvirtNetwork {
        /// What libvirt calls it.
        name: String,
        /// What it shall be.
        network: LibvirtNetwork,
    },
    /// Define it anew, and make it so at once.
    ChangeLibvirtNetwork {
        /// What libvirt calls it.
        name: String,
        /// What it shall be.
        network: LibvirtNetwork,
    },
    /// Stop a network of libvirt's and have it forgotten.
    RemoveLibvirtNetwork {
        /// What libvirt calls it.
        name: String,
        /// Its UUID.
        uuid: String,
    },
    /// Start a guest.
    StartGuest {
        /// Its name.
        vm: VmName,
        /// Everything that its start needs.
        guest: Box<Guest>,
    },
    /// Stop a guest: ACPI, a time limit, then the power cord.
    StopGuest {
        /// Its name.
        vm: VmName,
        /// What runs.
        guest: Box<Guest>,
    },
}

impl Op {
    /// Whether its goal is that something is not there.
    pub fn removes(&self) -> bool {
        matches!(
            self,
            Op::RemoveNamespace { .. }
                | Op::RemoveLink { .. }
                | Op::RemoveGroup { .. }
                | Op::RemoveAddress(_)
                | Op::RemoveRoute(_)
                | Op::RemoveTable { .. }
                | Op::RemoveFile { .. }
                | Op::StopGuest { .. }
                | Op::UndefineGuest { .. }
        )
    }

    /// What the kernel must have for it, beyond what every kernel has.
    pub fn feature(&self) -> Option<Feature> {
        match self {
            Op::AddLink { link, .. } => match link.kind {
                LinkKind::Bridge(_) => Some(Feature::Bridge),
                LinkKind::Vlan { .. } => Some(Feature::Vlan),
                LinkKind::Veth { .. } => Some(Feature::Veth),
                LinkKind::Macvlan { .. } => Some(Feature::Macvlan),
                LinkKind::Tap => Some(Feature::Tun),
            },
            Op::AddVeth { .. } => Some(Feature::Veth),
            Op::ReplaceTable { .. } | Op::ChangeTable { .. } | Op::RestoreTable { .. } => Some(Feature::Nftables),
            Op::StartGuest { guest, .. } => match guest.as_ref() {
                Guest::Qemu(_) | Guest::Libvirt(_) => Some(Feature::Tun),
                Guest::Netns { .. } => None,
            },
            Op::AddNamespace { .. }
            | Op::RemoveNamespace { .. }
            | Op::SetIpv6 { .. }
            | Op::SetTxChecksum { .. }
            | Op::ChangeLink { .. }
            | Op::RemoveLink { .. }
            | Op::RemoveGroup { .. }
            | Op::AddAddress(_)
            | Op::RemoveAddress(_)
            | Op::AddRoute(_)
            | Op::RemoveRoute(_)
            | Op::Set { .. }
            | Op::RemoveTable { .. }
            | Op::WriteFile { .. }
            | Op::RemoveFile { .. }
            | Op::Reload { .. }
            | Op::DefineGuest { .. }
            | Op::UndefineGuest { .. }
            | Op::AddLibvirtNetwork { .. }
            | Op::ChangeLibvirtNetwork { .. }
            | Op::RemoveLibvirtNetwork { .. }
            | Op::StopGuest { .. } => None,
        }
    }
}

/// A network manager that must be told when its drop-ins change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// `nmcli general reload conf`
    NetworkManager,
    /// `networkctl reload`
    Networkd,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Service::NetworkManager => "NetworkManager",
            Service::Networkd => "systemd-networkd",
        })
    }
}

/// The attributes of a link that change; `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkChange {
    /// Alias.
    pub alias: Option<String>,
    /// Hardware address.
    pub mac: Option<crate::names::Mac>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Link group.
    pub group: Option<u32>,
    /// Port of this bridge; `Some(None)`: of none.
    pub master: Option<Option<String>>,
    /// Administratively up or down.
    pub up: Option<bool>,
    /// Bridge settings.
    pub bridge: Option<BridgeSettings>,
    /// What it is as a bridge's port.
    #[serde(default, skip_serializing_if = "Odd::is_empty")]
    pub port: Odd,
}

impl LinkChange {
    /// Nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for LinkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { alias, mac, mtu, group, master, up, bridge, port } = self;
        let mut parts = Vec::new();
        if let Some(mac) = mac {
            parts.push(format!("MAC {mac}"));
        }
        if let Some(mtu) = mtu {
            parts.push(format!("MTU {mtu}"));
        }
        if let Some(group) = group {
            parts.push(format!("group {group}"));
        }
        match master {
            Some(Some(bridge)) => parts.push(format!("port of {}", bridge.escape_default())),
            Some(None) => parts.push("port of no bridge".into()),
            None => {}
        }
        if bridge.is_some() {
            parts.push("STP, forward delay and multicast snooping off".into());
        }
        for (knob, value) in port {
            parts.push(format!("{knob} {}", on_off(*value != 0)));
        }
        if let Some(up) = up {
            parts.push(if *up { "up" } else { "down" }.into());
        }
        if alias.is_some() {
            parts.push("mark".into());
        }
        f.write_str(&parts.join(", "))
    }
}

/// One line for people: an action, the object, what matters of it.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::AddNamespace { ns, .. } => write!(f, "add namespace {ns}"),
            Op::RemoveNamespace { ns } => write!(f, "remove namespace {ns}"),
            Op::AddLink { id, link } => {
                write!(f, "add {} {id}", link_word(link))?;
                if let Some(bridge) = &link.master {
                    write!(f, ", port of {}", bridge.escape_default())?;
                }
                write!(f, " ({}, MTU {})", link.mac, link.mtu)
            }
            Op::AddVeth { near, near_link, far, .. } => {
                write!(f, "add veth {near}")?;
                if let Some(bridge) = &near_link.master {
                    write!(f, ", port of {},", bridge.escape_default())?;
                }
                write!(f, " to {far} (MTU {})", near_link.mtu)
            }
            Op::SetIpv6 { id, on } => write!(f, "set {id}: IPv6 {}", on_off(*on)),
            Op::SetTxChecksum { id, on } => write!(f, "set {id}: TX checksum offload {}", on_off(*on)),
            Op::ChangeLink { id, change } => write!(f, "set {id}: {change}"),
            Op::RemoveLink { id } => write!(f, "remove link {id}"),
            Op::RemoveGroup { ns: Ns::Host, group, count } => write!(f, "remove {count} links (group {group})"),
            Op::RemoveGroup { ns, group, count } => write!(f, "remove {count} links in {ns} (group {group})"),
            Op::AddAddress(address) => write!(f, "add address {} to {}", address.net, address.link),
            Op::RemoveAddress(address) => write!(f, "remove address {} from {}", address.net, address.link),
            Op::AddRoute(route) => write!(f, "add route {}", RouteText(route)),
            Op::RemoveRoute(route) => write!(f, "remove route {}", RouteText(route)),
            Op::Set { key, value, was: Some(was) } => write!(f, "set {key}: {value} (was {was})"),
            Op::Set { key, value, was: None } => write!(f, "set {key}: {value}"),
            Op::ReplaceTable { id, body } => write!(f, "write table {id} ({} lines)", body.lines().count()),
            Op::ChangeTable { id, sets, body: _ } => {
                let count = |of: fn(&SetChange) -> &Vec<String>| sets.iter().map(|set| of(set).len()).sum::<usize>();
                let (more, fewer) = (count(|set| &set.add), count(|set| &set.remove));
                write!(f, "change table {id} (elements: {more} more, {fewer} fewer)")
            }
            Op::RestoreTable { id, listing: _ } => write!(f, "put table {id} back as it was found"),
            Op::RemoveTable { id } => write!(f, "remove table {id}"),
            Op::WriteFile { path, file } => write!(f, "write {} ({:04o})", path.display(), file.mode),
            Op::RemoveFile { path } => write!(f, "remove {}", path.display()),
            Op::Reload { service } => write!(f, "reload the configuration of {service}"),
            Op::DefineGuest { vm, domain } => {
                write!(f, "define guest {vm} in libvirt (autostart {})", on_off(domain.autostart))
            }
            Op::UndefineGuest { vm, domain: _ } => write!(f, "undefine guest {vm} in libvirt"),
            Op::AddLibvirtNetwork { name, network } => {
                write!(f, "add libvirt network {} on {}", name.escape_debug(), LibvirtText(network))
            }
            Op::ChangeLibvirtNetwork { name, network } => {
                write!(f, "set libvirt network {}: on {}", name.escape_debug(), LibvirtText(network))
            }
            Op::RemoveLibvirtNetwork { name, uuid: _ } => write!(f, "remove libvirt network {}", name.escape_debug()),
            Op::StartGuest { vm, guest } => write!(f, "start guest {vm} ({})", guest.engine()),
            Op::StopGuest { vm, guest } => write!(f, "stop guest {vm} ({})", guest.engine()),
        }
    }
}

fn link_word(link: &Link) -> String {
    match &link.kind {
        LinkKind::Vlan { parent, id } => format!("sub-interface of {parent} for VLAN {id},"),
        LinkKind::Macvlan { parent } => format!("macvlan of {parent},"),
        kind @ (LinkKind::Bridge(_) | LinkKind::Veth { .. } | LinkKind::Tap) => kind.word().to_owned(),
    }
}

struct LibvirtText<'a>(&'a LibvirtNetwork);

impl fmt::Display for LibvirtText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LibvirtNetwork { uuid: _, network: _, bridge, active, autostart } = self.0;
        let (state, autostart) = (if *active { "started" } else { "not started" }, on_off(*autostart));
        write!(f, "{} ({state}, autostart {autostart})", bridge.escape_debug())
    }
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

struct RouteText<'a>(&'a Route);

impl fmt::Display for RouteText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Route { ns, to, via, dev, metric: _ } = self.0;
        if to.prefix_len() == 0 {
            write!(f, "default")?
        } else {
            write!(f, "{to}")?
        };
        if let Some(via) = via {
            write!(f, " via {via}")?;
        }
        write!(f, " dev {dev}")?;
        match ns {
            Ns::Host => Ok(()),
            Ns::Named(ns) => write!(f, " in {ns}"),
        }
    }
}
