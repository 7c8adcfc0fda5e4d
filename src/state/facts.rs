//! [`Facts`]: what is true of a host and not ours to decide.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{FirmwareFiles, ForeignDomain, ForeignNetwork, Libvirt};
use crate::names::{IfName, Mac, NsName, VlanId};

/// What the pure side knows of a host. Read-only input of every plan; a test writes it as data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Every link of the host's namespace that is not this lab's, by name. Names are untrusted: the kernel accepts
    /// nearly any byte.
    pub devices: BTreeMap<String, Device>,
    /// Sub-interfaces of the host's devices in namespaces of others; looked for where the lab wants a VLAN that it does
    /// not have yet.
    #[serde(default)]
    pub hidden_vlans: Vec<HiddenVlan>,
    /// Routes of the host's main table that are not this lab's.
    pub routes: Vec<FoundRoute>,
    /// Routes of the main tables in the lab's own namespaces that somebody else made, each in the place of one of the
    /// lab's to the same destination: the kernel takes no second one.
    #[serde(default)]
    pub routes_inside: Vec<(NsName, FoundRoute)>,
    /// What stands below `/run/netns` and is not this lab's, by file name.
    pub namespaces: BTreeMap<String, ForeignNamespace>,
    /// Kernel features that are there or can be loaded.
    pub features: BTreeSet<Feature>,
    /// Why a feature is missing, where more is known than that it is.
    pub missing: BTreeMap<Feature, String>,
    /// Programs that were found, absolute.
    pub tools: BTreeMap<Tool, PathBuf>,
    /// Capabilities that the process has: `CAP_NET_ADMIN`, `CAP_SYS_ADMIN`, …
    pub capabilities: BTreeSet<String>,
    /// NetworkManager runs here.
    pub network_manager: bool,
    /// systemd-networkd runs here.
    pub networkd: bool,
    /// Foreign forward chains (iptables, nftables) whose policy drops what nothing accepts.
    pub forward_drops: Vec<ForwardDrop>,
    /// The kernel has no IPv6 at all (`ipv6.disable=1`, or built without), and so none of its settings.
    #[serde(default)]
    pub without_ipv6: bool,
    /// `net.bridge.bridge-nf-call-iptables` is 1: bridged frames go through the forward chains too.
    pub bridge_netfilter: bool,
    /// nftables tables of the host's namespace that are not this lab's, as `family name`.
    pub tables: BTreeSet<String>,
    /// The present value of every sysctl of the host's namespace that a plan may change, by path below
    /// `/proc/sys/net`.
    pub sysctls: BTreeMap<String, String>,
    /// UEFI for guests, where a package brought it.
    #[serde(default)]
    pub firmware: Option<FirmwareFiles>,
    /// The user that QEMU runs as, where it exists.
    pub qemu_user: Option<ServiceUser>,
    /// Files that stand where a plan may write one, and don't carry the lab's mark.
    #[serde(default)]
    pub foreign_files: BTreeSet<PathBuf>,
    /// What came of asking libvirt.
    #[serde(default, skip_serializing_if = "Libvirt::is_not_asked")]
    pub libvirt: Libvirt,
    /// Domains of libvirt that are not the lab's guests, where libvirt was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_domains: Vec<ForeignDomain>,
    /// Networks of libvirt that are not the lab's, where it was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_networks: Vec<ForeignNetwork>,
    /// MACs that foreign libvirt domains of this host use, with the domain's name.
    pub foreign_macs: BTreeMap<Mac, String>,
}

impl Facts {
    /// Whether anybody but the lab uses a device of the host: it has an address or a route, is a port of something, or
    /// something sits on it.
    pub fn is_used(&self, name: &str) -> bool {
        let own = self.devices.get(name).is_some_and(|device| !device.addresses.is_empty() || device.master.is_some());
        // The two ends of a veth pair name each other.
        let sits = |device: &Device| device.lower.as_deref() == Some(name) && device.kind.as_deref() != Some("veth");
        own || self.devices.values().any(sits) || self.routes.iter().any(|route| route.dev.as_deref() == Some(name))
    }
}

/// A link of the host that is not the lab's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The kernel's word for its kind; `None` for a physical NIC.
    pub kind: Option<String>,
    /// Alternative names.
    pub altnames: Vec<String>,
    /// Its present hardware address.
    pub mac: Option<Mac>,
    /// Its permanent hardware address (`IFLA_PERM_ADDRESS`).
    pub permanent_mac: Option<Mac>,
    /// Administratively up.
    pub up: bool,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The device it is a port of.
    pub master: Option<String>,
    /// Its addresses, link-local ones included.
    pub addresses: Vec<IpNet>,
    /// Its alias.
    pub alias: Option<String>,
    /// Its link group; 0 is the default one.
    pub group: u32,
    /// For a sub-interface: its parent's name and VLAN.
    pub vlan: Option<(String, VlanId)>,
    /// The device of the same namespace that it sits on (a VLAN's or macvlan's parent), or a veth's other end.
    #[serde(default)]
    pub lower: Option<String>,
    /// Has a carrier.
    pub carrier: bool,
}

/// A sub-interface that was moved into a namespace of somebody else. The VLAN stays taken on the device, and the host's
/// own list of links does not show by what. Names are untrusted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HiddenVlan {
    /// The device of the host that it sits on.
    pub device: String,
    /// Its VLAN.
    pub vlan: VlanId,
    /// Its name there.
    pub name: String,
    /// Where it is, for people: a namespace's name, or a process in it.
    pub place: String,
    /// Its alias.
    pub alias: Option<String>,
}

/// A route that is not ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundRoute {
    /// Destination.
    pub to: IpNet,
    /// Outgoing device, where it has one.
    pub dev: Option<String>,
    /// The next hop; `None` where the destination is on the device's own network.
    #[serde(default)]
    pub via: Option<IpAddr>,
}

/// What a file below `/run/netns` is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForeignNamespace {
    /// A namespace with this alias on its `lo`.
    Namespace {
        /// The alias; `None` when there is none.
        mark: Option<String>,
    },
    /// Not a namespace: a plain file (left by a crash, or by a mount in another mount namespace) or a link.
    NotOne,
}

/// A feature of the kernel that a plan may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// Bridges (`bridge.ko`).
    Bridge,
    /// 802.1Q sub-interfaces (`8021q.ko`).
    Vlan,
    /// veth pairs (`veth.ko`).
    Veth,
    /// macvlan (`macvlan.ko`).
    Macvlan,
    /// TUN/TAP (`tun.ko`).
    Tun,
    /// nftables (`nf_tables.ko`) with NAT.
    Nftables,
    /// nftables for bridged frames (`nft_meta_bridge.ko`).
    NftablesBridge,
    /// KVM: `/dev/kvm` opens.
    Kvm,
    /// vhost-net: `/dev/vhost-net` opens.
    VhostNet,
}

/// What a missing feature's reason holds where no module can bring it.
pub const NO_MODULES: &str = "without loadable modules";

impl Feature {
    /// The kernel module that brings it.
    pub fn module(self) -> &'static str {
        match self {
            Feature::Bridge => "bridge",
            Feature::Vlan => "8021q",
            Feature::Veth => "veth",
            Feature::Macvlan => "macvlan",
            Feature::Tun => "tun",
            Feature::Nftables => "nf_tables",
            Feature::NftablesBridge => "nft_meta_bridge",
            Feature::Kvm => "kvm",
            Feature::VhostNet => "vhost_net",
        }
    }

    /// Every feature.
    pub const ALL: [Feature; 9] = [
        Feature::Bridge,
        Feature::Vlan,
        Feature::Veth,
        Feature::Macvlan,
        Feature::Tun,
        Feature::Nftables,
        Feature::NftablesBridge,
        Feature::Kvm,
        Feature::VhostNet,
    ];
}

/// A program that a plan may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// `nft`
    Nft,
    /// `ip`
    Ip,
    /// `qemu-system-x86_64` (of the host's architecture)
    Qemu,
    /// `qemu-img`
    QemuImg,
    /// `qemu-bridge-helper`
    BridgeHelper,
    /// `ssh`
    Ssh,
    /// `ssh-keygen`
    SshKeygen,
}

impl Tool {
    /// The file name of the program.
    pub fn program(self) -> &'static str {
        match self {
            Tool::Nft => "nft",
            Tool::Ip => "ip",
            Tool::Qemu => "qemu-system-x86_64",
            Tool::QemuImg => "qemu-img",
            Tool::BridgeHelper => "qemu-bridge-helper",
            Tool::Ssh => "ssh",
            Tool::SshKeygen => "ssh-keygen",
        }
    }

    /// The Debian package that brings it.
    pub fn package(self) -> &'static str {
        match self {
            Tool::Nft => "nftables",
            Tool::Ip => "iproute2",
            Tool::Qemu => "qemu-system-x86",
            Tool::QemuImg => "qemu-utils",
            Tool::BridgeHelper => "qemu-system-common",
            Tool::Ssh | Tool::SshKeygen => "openssh-client",
        }
    }

    /// Every tool.
    pub const ALL: [Tool; 7] =
        [Tool::Nft, Tool::Ip, Tool::Qemu, Tool::QemuImg, Tool::BridgeHelper, Tool::Ssh, Tool::SshKeygen];
}

/// A foreign forward chain that would drop the lab's traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardDrop {
    /// The chain as its owner would name it, for example `iptables FORWARD` or `inet filter forward`.
    pub chain: String,
    /// The line that lets a device's traffic through, with `{dev}` for the device.
    pub remedy: String,
    /// The devices, of those that were asked about, whose traffic it does not accept.
    pub devices: BTreeSet<IfName>,
}

/// A system user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceUser {
    /// Its name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// The group that `/dev/kvm` belongs to, when the user needs it.
    pub kvm_gid: Option<u32>,
}
