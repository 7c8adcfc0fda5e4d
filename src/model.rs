//! [`Model`]: the definition, valid by construction.
//!
//! Every default is filled in, every address, MAC and device name chosen; fields are private to this room, so a
//! `Model` that exists is right. What depends on the host (which device an altname means, what is free there) is
//! not in it: that is `desired/`, from [`crate::state::Facts`]. Pure.

mod across;
mod address;
mod devices;
mod disk;
mod effect;
mod expect;
mod hosts;
mod image;
mod lock;
mod nic;
mod resolve;
mod route;
mod router;
mod segment;
mod setup;
mod share;
mod slice;
pub mod ssh;
mod view;
mod vm;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};
use serde::Serialize;

use crate::names::{
    DiskName, DomainName, HostName, IfName, ImageName, LabName, Mac, NetName, NsName, UplinkName, VlanId, VmName,
};

pub use crate::kinds::{Accel, Across, DeviceRef, Engine, ImageFormat, Mode, NicModel, Peer, Service, Wanted};
use crate::kinds::{Firmware, Snippet};
pub use disk::Disk;
pub use effect::Effects;
pub use image::Base;
pub use lock::{Lock, LockError, NicKey, ShareKey};
pub use resolve::{Resolved, resolve};
pub use route::{Automatic, ExtraRoute};
pub use setup::{Account, Setup};
pub use slice::{next_hop, slice};
use view::View;
pub use view::view;

/// A struct whose fields only this room can set and everybody can read.
macro_rules! record {
    ($(#[$doc:meta])* $name:ident {
        $($(#[doc = $field_doc:literal])* $(#[serde($($serde:tt)*)])? $field:ident: $type:ty,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        pub struct $name {
            $($(#[serde($($serde)*)])? pub(in crate::model) $field: $type,)*
        }

        impl $name {
            $($(#[doc = $field_doc])* pub fn $field(&self) -> &$type { &self.$field })*
        }
    };
}

record! {
    /// A lab with every decision taken that does not need the host.
    Model {
        /// Its name.
        lab: LabName,
        /// What it says of libvirt's networks; `None`: nothing.
        #[serde(skip_serializing_if = "Option::is_none")]
        libvirt: Option<bool>,
        /// The host whose part this is; `None`: all of it.
        here: Option<HostName>,
        /// Its hosts; none where the definition names none: then it is this machine's.
        hosts: BTreeMap<HostName, Host>,
        /// Its uplinks.
        uplinks: BTreeMap<UplinkName, Uplink>,
        /// Its networks.
        networks: BTreeMap<NetName, Network>,
        /// Its router; `None` when no network is routed or translated.
        router: Option<Router>,
        /// Of one host's part: what is reached by way of other hosts.
        elsewhere: Vec<Elsewhere>,
        /// Its guests.
        vms: BTreeMap<VmName, Vm>,
        /// What it says of who reaches whom.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        expects: Vec<Assertion>,
        /// What it has as a view of the whole lab.
        #[serde(skip)]
        view: View,
    }
}

record! {
    /// One `[[expect]]`.
    Assertion {
        /// The guest that tries.
        from: VmName,
        /// Whom.
        to: Peer,
        /// At which addresses.
        addresses: Vec<IpAddr>,
        /// What.
        service: Service,
        /// What should come of it.
        wanted: Wanted,
    }
}

record! {
    /// A machine that carries a part of the lab.
    Host {
        /// Its name.
        name: HostName,
        /// The destination for OpenSSH.
        ssh: String,
        /// Its address for the other hosts.
        underlay: Option<IpAddr>,
        /// Devices of uplinks that have another name there.
        devices: BTreeMap<UplinkName, DeviceRef>,
        /// What differs of networks.
        networks: BTreeMap<NetName, NetworkOfHost>,
        /// The router's way to the outside there, where it differs.
        external: Option<External>,
    }
}

record! {
    /// What differs of a network on one host.
    NetworkOfHost {
        /// The uplink that carries its VLAN.
        uplink: Option<UplinkName>,
        /// MTU in bytes.
        mtu: Option<u32>,
        /// The foreign bridge, or the name of vmnet's own.
        bridge: Option<IfName>,
    }
}

record! {
    /// A subnet whose gateway is on another host.
    Elsewhere {
        /// The network.
        network: NetName,
        /// The host that has the gateway.
        host: HostName,
        /// The subnet.
        to: IpNet,
        /// The address of that host, or of its router.
        via: IpAddr,
    }
}

record! {
    /// A physical NIC or bond that the lab uses.
    Uplink {
        /// Its name in the definition.
        name: UplinkName,
        /// The device: name, altname or permanent MAC.
        device: DeviceRef,
    }
}

record! {
    /// One layer-2 segment.
    Network {
        /// Its name.
        name: NetName,
        /// What it is for.
        mode: Mode,
        /// Its bridge.
        bridge: Bridge,
        /// The VLAN and the uplink that carries it.
        tagged: Option<Tagged>,
        /// Its subnets, in the order of the definition.
        subnets: Vec<Subnet>,
        /// Name servers for its guests.
        dns: Vec<IpAddr>,
        /// Domains that its guests look short names up in.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        search: Vec<DomainName>,
        /// MTU in bytes of every hop of the segment; `None`: the uplink's, or 1500 where there is none.
        mtu: Option<u32>,
        /// What joins its parts on several hosts.
        across: Across,
        /// The hosts that need it for guests, or that the definition lists.
        hosts: BTreeSet<HostName>,
        /// With [`Across::Routed`]: the subnets of each host.
        shares: BTreeMap<HostName, Vec<Subnet>>,
    }
}

/// The bridge of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bridge {
    /// Made by vmnet.
    Own {
        /// Its name.
        name: IfName,
        /// Its MAC, fixed at its creation.
        mac: Mac,
    },
    /// There already (`bridge = "br0"`); vmnet adds and removes its own ports, nothing else.
    Foreign {
        /// Its name.
        name: IfName,
    },
}

impl Bridge {
    /// Its name.
    pub fn name(&self) -> &IfName {
        match self {
            Bridge::Own { name, .. } | Bridge::Foreign { name } => name,
        }
    }
}

/// A VLAN of an uplink.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Tagged {
    /// The uplink whose device carries the frames.
    pub uplink: UplinkName,
    /// Its number.
    pub vlan: VlanId,
}

record! {
    /// An IP subnet of a network.
    Subnet {
        /// The prefix, host bits zero.
        net: IpNet,
        /// The gateway: the router's address (nat, routed) or the segment's own (bridged); `None`: there is none.
        gateway: Option<IpAddr>,
    }
}

record! {
    /// The namespace that holds gateways, NAT and policy.
    Router {
        /// Its namespace.
        namespace: NsName,
        /// The host that holds the gateways of networks which are one segment.
        host: Option<HostName>,
        /// Its way to the outside.
        external: External,
        /// Its port in every network it serves.
        ports: BTreeMap<NetName, RouterPort>,
    }
}

record! {
    /// A veth pair between the router and a network's bridge.
    RouterPort {
        /// The end on the bridge.
        outer: IfName,
        /// Its MAC.
        outer_mac: Mac,
        /// The end in the router, named after the network.
        inner: IfName,
        /// Its MAC: the gateway's.
        inner_mac: Mac,
        /// The gateway addresses on it.
        addresses: Vec<IpNet>,
    }
}

/// How the router reaches the outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "via", rename_all = "kebab-case")]
pub enum External {
    /// Not at all.
    None,
    /// A veth pair to the host, which translates or routes on.
    Host(HostExternal),
    /// An address of its own on the device's network, by macvlan.
    Macvlan(OwnExternal),
    /// An external VLAN of a trunk, its sub-interface inside the router.
    Vlan {
        /// The VLAN.
        vlan: VlanId,
        /// The rest.
        external: OwnExternal,
    },
}

/// `via = "host"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostExternal {
    /// The transit network between host (first address) and router (second).
    pub transit: Ipv4Net,
    /// It was chosen by rule, and so is that of each host.
    #[serde(skip)]
    pub transit_by_rule: bool,
    /// The end in the host.
    pub outer: IfName,
    /// Its MAC.
    pub outer_mac: Mac,
    /// The MAC of the end in the router.
    pub inner_mac: Mac,
    /// Translate to this address of the host rather than to that of the outgoing device.
    pub snat: Option<Ipv4Addr>,
}

impl HostExternal {
    /// The host's address on the transit network.
    pub fn host_address(&self) -> Ipv4Net {
        self.address(1)
    }

    /// The router's address on the transit network.
    pub fn router_address(&self) -> Ipv4Net {
        self.address(2)
    }

    fn address(&self, number: u32) -> Ipv4Net {
        let address = u32::from(self.transit.network()) + number;
        Ipv4Net::new(address.into(), self.transit.prefix_len()).expect("a prefix length that was one stays one")
    }
}

/// An external interface with addresses of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OwnExternal {
    /// The uplink whose device it uses.
    pub uplink: UplinkName,
    /// Its MAC.
    pub mac: Mac,
    /// Its addresses, the first of each family being the one that is translated to.
    pub addresses: Vec<IpNet>,
    /// The next hops outside, at most one of each family.
    pub gateways: Vec<IpAddr>,
}

/// The name of the external interface inside the router; reserved, so no network can have it.
pub const OUTSIDE: &str = "outside";

record! {
    /// A guest.
    Vm {
        /// Its name, which is its hostname too.
        name: VmName,
        /// What runs it.
        engine: Engine,
        /// How QEMU executes it.
        accel: Accel,
        /// Virtual CPUs.
        cpus: u32,
        /// Memory in bytes.
        memory: u64,
        /// What it boots; `None` for the netns engine.
        image: Option<Image>,
        /// Size of its disk in bytes; `None`: the image's own.
        disk: Option<u64>,
        /// Its further disks.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        disks: BTreeMap<DiskName, Disk>,
        /// What starts its operating system.
        #[serde(skip_serializing_if = "Firmware::is_bios")]
        firmware: Firmware,
        /// More arguments for QEMU.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        qemu_args: Vec<String>,
        /// More devices of its libvirt domain.
        #[serde(skip_serializing_if = "Option::is_none")]
        libvirt_xml: Option<Snippet>,
        /// The login that cloud-init makes.
        user: String,
        /// Keys that may log in, or files that hold them, as written in the definition.
        ssh_keys: Vec<String>,
        /// It gets a seed for cloud-init.
        #[serde(skip_serializing_if = "is_true")]
        cloud_init: bool,
        /// What else cloud-init does in it.
        #[serde(skip_serializing_if = "Setup::is_empty")]
        setup: Setup,
        /// It starts when the host does.
        autostart: bool,
        /// What it is for, in a line for people.
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// Where it runs; `None` where the definition names no hosts.
        host: Option<HostName>,
        /// Its interfaces.
        nics: Vec<Nic>,
    }
}

record! {
    /// What a guest boots.
    Image {
        /// Its name.
        name: ImageName,
        /// The base disk; `None`: the guest has no disk.
        #[serde(flatten)]
        base: Option<Base>,
        /// `qcow2` or `raw`.
        format: ImageFormat,
        /// A kernel to boot directly.
        kernel: Option<PathBuf>,
        /// Its initial RAM disk.
        initrd: Option<PathBuf>,
        /// Its command line.
        cmdline: Option<String>,
    }
}

record! {
    /// A network interface of a guest.
    Nic {
        /// The network it is on.
        network: NetName,
        /// Its MAC.
        mac: Mac,
        /// Its addresses with their subnets' prefix lengths, as far as they are known here.
        addresses: Vec<IpNet>,
        /// What it has from its segment instead.
        #[serde(skip_serializing_if = "Automatic::is_none")]
        automatic: Automatic,
        /// The gateway of its network may be the guest's.
        #[serde(skip_serializing_if = "is_true")]
        gateway: bool,
        /// Routes of its own.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        routes: Vec<ExtraRoute>,
        /// Name servers in the place of its network's.
        #[serde(skip_serializing_if = "Option::is_none")]
        dns: Option<Vec<IpAddr>>,
        /// Domains for short names in the place of its network's.
        #[serde(skip_serializing_if = "Option::is_none")]
        search: Option<Vec<DomainName>>,
        /// Its TAP (or its veth's outer end) on the host.
        tap: IfName,
        /// QEMU's device model.
        model: NicModel,
    }
}

impl Model {
    /// The MAC of a device of ours on this host: hosts of one lab never share one, whatever they were cloned from.
    pub fn device_mac(&self, role: &str, name: &str) -> Mac {
        slice::device_mac(&self.lab, self.here.as_ref(), role, name)
    }

    /// Whether libvirt has to be asked about this lab.
    pub fn uses_libvirt(&self) -> bool {
        self.has_libvirt_guests() || self.has_libvirt_networks()
    }

    /// Whether each network gets one of libvirt's, for machines that others start: as the definition says, else where
    /// libvirt runs guests of the lab.
    pub fn has_libvirt_networks(&self) -> bool {
        self.libvirt.unwrap_or_else(|| self.has_libvirt_guests())
    }

    fn has_libvirt_guests(&self) -> bool {
        self.vms.values().any(|vm| vm.engine == Engine::Libvirt)
    }

    /// The network that a nic is on.
    pub fn network_of(&self, nic: &Nic) -> &Network {
        // `resolve` makes nics of networks of the same model only.
        &self.networks[nic.network()]
    }

    /// A guest's nics with their numbers and networks.
    pub fn nics<'a>(&'a self, vm: &'a Vm) -> impl Iterator<Item = (usize, &'a Nic, &'a Network)> {
        vm.nics.iter().enumerate().map(|(number, nic)| (number, nic, self.network_of(nic)))
    }
}

/// Of values that are nearly always so, only the others are shown.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_true(value: &bool) -> bool {
    *value
}
