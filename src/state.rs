//! [`HostState`]: what a lab owns on one host. Desired and observed are this one type, so a diff is a comparison.
//!
//! Beside it stands [`Facts`]: what the pure side must know of a host and can't decide. Pure: both are data, filled
//! by `observe/` or by a test.

mod domain;
mod facts;
mod knob;
mod libvirt;
mod more;
mod pairs;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use domain::{Domain, ForeignDomain, Libvirt, LibvirtFiles, LibvirtGuest};
pub use facts::{
    Device, Facts, Feature, ForeignNamespace, ForwardDrop, FoundRoute, HiddenVlan, NO_MODULES, ServiceUser, Tool,
};
pub use knob::{Knob, Odd, Place};
pub use libvirt::{ForeignNetwork, ForeignNic, LibvirtNetwork};
pub use more::{DiskFile, FirmwareFiles, Kept, More, OwnDisk, Uefi};

use crate::mark::Mark;
use crate::names::{FileDigest, IfName, Mac, NsName, VlanId, VmName};

/// The kernel objects, files and guests that one lab owns on one host.
///
/// Links, addresses and routes are keyed by namespace and name, never by ifindex: an index is reused after a
/// deletion, a name that carries our mark is ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// Network namespaces below `/run/netns`, by name.
    pub namespaces: BTreeMap<NsName, Namespace>,
    /// Links in the host's and in the lab's namespaces.
    #[serde(with = "pairs")]
    pub links: BTreeMap<LinkId, Link>,
    /// Addresses on those links.
    pub addresses: BTreeSet<Address>,
    /// Routes with our protocol number, on the host out of those links, in the lab's namespaces out of any.
    pub routes: BTreeSet<Route>,
    /// Settings of things that are not ours as a whole: sysctls, a NIC's administrative state.
    #[serde(with = "pairs")]
    pub settings: BTreeMap<SettingKey, String>,
    /// nftables tables.
    #[serde(with = "pairs")]
    pub tables: BTreeMap<TableId, Table>,
    /// Files that the lab owns, by absolute path.
    pub files: BTreeMap<PathBuf, File>,
    /// Guests that run.
    pub guests: BTreeMap<VmName, Guest>,
    /// What libvirt has defined for guests, whether they run or not.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub domains: BTreeMap<VmName, Domain>,
    /// libvirt's networks, by the names that they have there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub libvirt_networks: BTreeMap<String, LibvirtNetwork>,
}

impl HostState {
    /// The same state without a guest: without what belongs to it alone. Asks nothing of definition or host, so a
    /// guest can always be stopped.
    pub fn remove_guest(&mut self, vm: &VmName) {
        let Some(guest) = self.guests.remove(vm) else { return };
        let ns = match guest {
            Guest::Netns { ns } => Some(Ns::Named(ns)),
            // What libvirt has defined stays.
            Guest::Qemu(_) | Guest::Libvirt(_) => None,
        };
        let nic = format!("{vm}.");
        let is_its = |link: &Link| {
            link.alias.parse::<Mark>().is_ok_and(|mark| mark.role == "nic" && mark.name.starts_with(&nic))
        };
        self.links.retain(|id, link| Some(&id.ns) != ns.as_ref() && !(id.ns == Ns::Host && is_its(link)));
        self.addresses.retain(|address| Some(&address.link.ns) != ns.as_ref());
        self.routes.retain(|route| Some(&route.ns) != ns.as_ref());
        self.settings.retain(|key, _| match key {
            SettingKey::Sysctl { ns: of, .. } => Some(of) != ns.as_ref(),
            SettingKey::DeviceState { .. } => true,
        });
        self.namespaces.retain(|name, _| ns.as_ref().and_then(Ns::name) != Some(name));
    }
}

/// A network namespace: the host's own, or a named one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ns {
    /// The namespace that vmnet itself runs in.
    Host,
    /// A namespace below `/run/netns`.
    Named(NsName),
}

impl Ns {
    /// The name of a named namespace.
    pub fn name(&self) -> Option<&NsName> {
        match self {
            Ns::Host => None,
            Ns::Named(name) => Some(name),
        }
    }
}

impl fmt::Display for Ns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ns::Host => f.pad("host"),
            Ns::Named(name) => name.fmt(f),
        }
    }
}

/// What is remembered of a namespace beside its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// The alias of its `lo`, which marks it as ours.
    pub mark: String,
}

/// A link by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LinkId {
    /// Where it is.
    pub ns: Ns,
    /// Its name there.
    pub name: IfName,
}

impl LinkId {
    /// A link of the host's namespace.
    pub fn host(name: IfName) -> Self {
        Self { ns: Ns::Host, name }
    }

    /// A link of a named namespace.
    pub fn inside(ns: &NsName, name: IfName) -> Self {
        Self { ns: Ns::Named(ns.clone()), name }
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ns {
            Ns::Host => write!(f, "{}", self.name),
            Ns::Named(ns) => write!(f, "{} in {ns}", self.name),
        }
    }
}

/// A network interface of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// What it is, with what its kind needs.
    pub kind: LinkKind,
    /// Its hardware address; always chosen by us.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The link group (`IFLA_GROUP`) of the lab, set in the creating message.
    pub group: u32,
    /// The alias (`IFLA_IFALIAS`): lab, role and full name, see `model::mark`.
    pub alias: String,
    /// The bridge it is a port of. A `String`, since another tool may have moved it to a bridge of any name.
    pub master: Option<String>,
    /// Administratively up.
    pub up: bool,
    /// Whether IPv6 works on it (`disable_ipv6` is 0).
    pub ipv6: bool,
    /// TX checksum offload where we set it: off on the router's inner veth ends, since a guest that gets a DHCP
    /// reply by AF_PACKET sees the unfinished checksum. `None`: not ours to say.
    pub tx_checksum: Option<bool>,
    /// What another tool turned on it.
    #[serde(default, skip_serializing_if = "Odd::is_empty")]
    pub odd: Odd,
}

/// The kinds of link that vmnet makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum LinkKind {
    /// A bridge. All of ours have these settings the same; they stand here so that drift shows.
    Bridge(BridgeSettings),
    /// An 802.1Q sub-interface.
    Vlan {
        /// The device in the host's namespace that carries the tagged frames.
        parent: IfName,
        /// Its VLAN.
        id: VlanId,
    },
    /// One end of a veth pair.
    Veth {
        /// The other end; `None` when observed and the other end is not a link of this lab.
        peer: Option<LinkId>,
    },
    /// A macvlan in bridge mode.
    Macvlan {
        /// The device in the host's namespace that it shares.
        parent: IfName,
    },
    /// A TAP. Never made by a plan of its own: a guest's start opens it.
    Tap,
}

impl LinkKind {
    /// The kernel's word for it (`IFLA_INFO_KIND`).
    pub fn word(&self) -> &'static str {
        match self {
            LinkKind::Bridge(_) => "bridge",
            LinkKind::Vlan { .. } => "vlan",
            LinkKind::Veth { .. } => "veth",
            LinkKind::Macvlan { .. } => "macvlan",
            LinkKind::Tap => "tun",
        }
    }
}

/// Bridge attributes that matter for guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeSettings {
    /// Spanning tree. Off: its forward delay outlasts DHCP and PXE.
    pub stp: bool,
    /// Forward delay in centiseconds (`IFLA_BR_FORWARD_DELAY`, USER_HZ).
    pub forward_delay: u32,
    /// Multicast snooping. Off: it breaks IPv6 neighbour discovery where nobody queries.
    pub multicast_snooping: bool,
}

impl BridgeSettings {
    /// The settings of every bridge that vmnet makes.
    pub const OURS: Self = Self { stp: false, forward_delay: 0, multicast_snooping: false };
}

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// Where it is.
    pub link: LinkId,
    /// Address with prefix length.
    pub net: IpNet,
}

/// A static route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// The namespace whose main table holds it.
    pub ns: Ns,
    /// The destination; `0.0.0.0/0` or `::/0` is the default route.
    pub to: IpNet,
    /// The next hop; `None` for a directly connected destination.
    pub via: Option<IpAddr>,
    /// The outgoing link.
    pub dev: IfName,
    /// Its metric, where that is what says whose it is: the lab's link group, on a device of the host that is not ours.
    /// 0 on our own links, which say it themselves.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub metric: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A setting of something that is not ours as a whole: what was found is put back by `destroy`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum SettingKey {
    /// A file below `/proc/sys/net` of a namespace.
    Sysctl {
        /// The namespace.
        ns: Ns,
        /// Its path with slashes, for example `ipv4/conf/eno1/forwarding` (a name may contain dots).
        key: String,
    },
    /// `up` or `down`: the administrative state of a foreign device on the host.
    DeviceState {
        /// The device.
        device: IfName,
    },
}

impl SettingKey {
    /// A sysctl by namespace and path below `/proc/sys/net`.
    pub fn sysctl(ns: &Ns, key: impl Into<String>) -> Self {
        Self::Sysctl { ns: ns.clone(), key: key.into() }
    }
}

impl fmt::Display for SettingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingKey::Sysctl { ns: Ns::Host, key } => write!(f, "net/{key}"),
            SettingKey::Sysctl { ns, key } => write!(f, "net/{key} in {ns}"),
            SettingKey::DeviceState { device } => write!(f, "state of {device}"),
        }
    }
}

/// An nftables table by namespace, family and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableId {
    /// The namespace.
    pub ns: Ns,
    /// Its address family.
    pub family: Family,
    /// Its name.
    pub name: String,
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)?;
        match &self.ns {
            Ns::Host => Ok(()),
            Ns::Named(ns) => write!(f, " in {ns}"),
        }
    }
}

/// The nftables families that vmnet uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// Bridged frames.
    Bridge,
}

impl Family {
    /// The nft word.
    pub fn word(self) -> &'static str {
        match self {
            Family::Inet => "inet",
            Family::Bridge => "bridge",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// An nftables table: what it should say, or what is known of what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Table {
    /// The body between the braces, in nft syntax. Observed as this only where the kernel's listing is the one that
    /// was recorded when this very body was applied.
    Body(String),
    /// Observed, and not what any known body made: changed by another tool, or of an unknown version. The kernel's
    /// listing without counters and other state, so that a way back can write it again; empty where it could not be
    /// had.
    Drifted(String),
}

/// A file of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Permission bits.
    pub mode: u32,
    /// Its whole text.
    pub content: String,
    /// Who else can change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
}

impl File {
    /// A file that nobody but vmnet's own user can change.
    pub fn new(mode: u32, content: impl Into<String>) -> Self {
        Self { mode, content: content.into(), access: None }
    }

    /// Whether vmnet wrote it: by the mark in its text, or by a name that it gives to what it has not finished.
    pub fn is_made(&self, path: &Path) -> bool {
        let is_unfinished =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(".vmnet-new"));
        is_unfinished || self.content.split_whitespace().any(|word| word.parse::<Mark>().is_ok())
    }
}

/// Whose a file and its folder are, where others can change either: it is not vmnet's own user's, or its folder, as far
/// as that is ours, is not so, or not 0755.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The user that the file belongs to.
    pub uid: u32,
    /// The folder's user and permission bits.
    pub folder: Option<(u32, u32)>,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "others can change it: it belongs to user {}", self.uid)?;
        match self.folder {
            Some((uid, mode)) => write!(f, ", its folder to user {uid} with mode {mode:04o}"),
            None => Ok(()),
        }
    }
}

/// A guest that runs, as far as a plan must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "engine", rename_all = "kebab-case")]
pub enum Guest {
    /// A QEMU process that vmnet started.
    Qemu(Box<QemuGuest>),
    /// A domain of libvirt.
    Libvirt(Box<LibvirtGuest>),
    /// A namespace that plays the guest; its links and addresses stand with all others.
    Netns {
        /// The guest's namespace.
        ns: NsName,
    },
}

impl Guest {
    /// Whether it is a machine, which something starts and stops: a namespace is made of links and addresses.
    pub fn is_machine(&self) -> bool {
        match self {
            Guest::Qemu(_) | Guest::Libvirt(_) => true,
            Guest::Netns { .. } => false,
        }
    }

    /// The TAPs that are there as long as it runs, in nic order.
    pub fn taps(&self) -> &[(IfName, Link)] {
        match self {
            Guest::Qemu(guest) => &guest.taps,
            Guest::Libvirt(guest) => &guest.taps,
            Guest::Netns { .. } => &[],
        }
    }

    /// The word of its engine in the definition.
    pub fn engine(&self) -> &'static str {
        match self {
            Guest::Qemu(_) => "qemu",
            Guest::Libvirt(_) => "libvirt",
            Guest::Netns { .. } => "netns",
        }
    }
}

/// Everything that the start of one QEMU guest needs, decided beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QemuGuest {
    /// The program, absolute.
    pub program: PathBuf,
    /// Its arguments; descriptors stand as `{tap:N}` and `{vhost:N}`, N counting the nics, `{file:N}`, N counting
    /// `files`, each from 0, and `{log:0}` for the log of its console. It runs in `run_dir`, so sockets stand without a folder.
    pub args: Vec<String>,
    /// It needs `/dev/kvm`.
    pub kvm: bool,
    /// The user that QEMU runs as, for example `vmnet-qemu`.
    pub user: String,
    /// The TAPs in nic order.
    pub taps: Vec<(IfName, Link)>,
    /// Open `/dev/vhost-net` once for each nic that wants it and hand it over.
    pub vhost: bool,
    /// Files that are opened for reading and handed over, so that QEMU's user needs no way to them.
    pub files: Vec<PathBuf>,
    /// Folder of its sockets below the run directory; made for its user, 0700.
    pub run_dir: PathBuf,
    /// Folder of its disk and seed below the state directory; made for its user, 0700.
    pub state_dir: PathBuf,
    /// The overlay to make when it does not exist.
    pub disk: Option<Overlay>,
    /// The files of the NoCloud seed (name and text), written to `seed.img` in the state folder at each start;
    /// none for a guest that does without cloud-init.
    pub seed: Vec<(String, String)>,
    /// What most guests have nothing of.
    #[serde(default)]
    pub more: More,
}

/// A qcow2 overlay over a read-only base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// The overlay's file.
    pub path: PathBuf,
    /// The base image, absolute.
    pub base: PathBuf,
    /// The base's format, always told to QEMU (probing a guest-written raw image would be a hole).
    pub base_format: String,
    /// Virtual size in bytes; `None`: the base's.
    pub size: Option<u64>,
    /// What is in the base; `None`: whoever makes the overlay has to find out.
    #[serde(default)]
    pub digest: Option<FileDigest>,
}
