//! [`Definition`]: the user's TOML file as it was written, each value with its place.
//!
//! Untrusted text comes in; typed values come out, or a list of all problems at once. A key is known because a line
//! of this room reads it, so nothing can be accepted and ignored. What values mean together is `model/`. Pure.

mod entries;
mod guest;
mod key;
mod problem;
mod read;
mod sections;
mod value;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
pub use toml::Spanned as At;

pub use entries::Entries;
pub use guest::{RouteDef, UserDef};
pub use key::Key;
pub use problem::{Problem, ProblemReport, Problems};
pub use value::{Bytes, Cpus, ExternalKind, Sha256, Sha512, Text};

use crate::kinds::{
    Accel, Across, Command, DeviceRef, Engine, Firmware, ImageFormat, Mode, NicAddress, NicModel, Peer, Service,
    Snippet, Url, Wanted,
};
use crate::names::{
    DiskName, DomainName, HostName, IfName, ImageName, LabName, Login, Mac, NetName, PackageName, PasswordHash,
    UplinkName, VlanId, VmName,
};

/// A definition as written: nothing filled in, nothing compared.
///
/// It may carry problems: values that could not be read. `model/` adds its own, so that one run tells them all.
#[derive(Debug, Clone, Default)]
pub struct Definition {
    /// `lab`
    pub lab: Key<LabName>,
    /// The name that it was given in place of its own ([`Definition::called`]); `None`: it runs under its own.
    pub alias: Option<LabName>,
    /// `libvirt`: whether each network gets one of libvirt's
    pub libvirt: Key<bool>,
    /// `[uplink.*]`
    pub uplinks: Entries<UplinkName, UplinkDef>,
    /// `[defaults.vm]`
    pub defaults: VmDef,
    /// `[network.*]`
    pub networks: Entries<NetName, NetworkDef>,
    /// `[router]`
    pub router: Key<RouterDef>,
    /// `[image.*]`
    pub images: Entries<ImageName, ImageDef>,
    /// `[vm.*]`
    pub vms: Entries<VmName, VmDef>,
    /// `[host.*]`
    pub hosts: Entries<HostName, HostDef>,
    /// `[[expect]]`
    pub expects: Key<Vec<At<ExpectDef>>>,
    /// What is wrong with it so far: unknown keys, and values that are not what they should be.
    pub problems: Problems,
}

/// `[uplink.*]`
#[derive(Debug, Clone, Default)]
pub struct UplinkDef {
    /// `device`: name, altname or permanent MAC.
    pub device: Key<DeviceRef>,
}

/// `[network.*]`
#[derive(Debug, Clone, Default)]
pub struct NetworkDef {
    /// `mode`
    pub mode: Key<Mode>,
    /// `vlan`
    pub vlan: Key<VlanId>,
    /// `uplink`
    pub uplink: Key<UplinkName>,
    /// `subnet`, one or a list
    pub subnets: Key<Vec<At<IpNet>>>,
    /// `gateway`, one or a list: at most one in each subnet
    pub gateways: Key<Vec<At<IpAddr>>>,
    /// `dns`, one or a list
    pub dns: Key<Vec<At<IpAddr>>>,
    /// `search`, one or a list: domains for short names
    pub search: Key<Vec<At<DomainName>>>,
    /// `mtu` in bytes
    pub mtu: Key<u32>,
    /// `bridge`: one that exists already
    pub bridge: Key<IfName>,
    /// `ifname`: fixes the name of the bridge
    pub ifname: Key<IfName>,
    /// `across`: what joins its parts on several hosts
    pub across: Key<Across>,
    /// `hosts`, one or a list: where it is although no guest needs it
    pub hosts: Key<Vec<At<HostName>>>,
}

/// `[host.*]`: a machine, and what differs on it. What it overrides stands at the same path as at the top.
#[derive(Debug, Clone, Default)]
pub struct HostDef {
    /// `ssh`: the destination for OpenSSH
    pub ssh: Key<Text>,
    /// `underlay`: its address for the other hosts
    pub underlay: Key<IpAddr>,
    /// `uplink.*`
    pub uplinks: Entries<UplinkName, UplinkDef>,
    /// `network.*`: `uplink`, `subnet`, `mtu`, `bridge` and `ifname` alone
    pub networks: Entries<NetName, NetworkDef>,
    /// `router.external`
    pub router: Key<RouterDef>,
}

/// `[router]`
#[derive(Debug, Clone, Default)]
pub struct RouterDef {
    /// `host`: where it lives
    pub host: Key<HostName>,
    /// `external`
    pub external: Key<ExternalDef>,
}

/// `router.external`
#[derive(Debug, Clone, Default)]
pub struct ExternalDef {
    /// `via`
    pub via: Key<ExternalKind>,
    /// `uplink`
    pub uplink: Key<UplinkName>,
    /// `vlan`
    pub vlan: Key<VlanId>,
    /// `address`, one or a list, with prefix length
    pub addresses: Key<Vec<At<IpNet>>>,
    /// `gateway`, one or a list
    pub gateways: Key<Vec<At<IpAddr>>>,
    /// `snat`
    pub snat: Key<Ipv4Addr>,
    /// `transit`
    pub transit: Key<Ipv4Net>,
}

/// `[image.*]`
#[derive(Debug, Clone, Default)]
pub struct ImageDef {
    /// `file`
    pub file: Key<Text>,
    /// `url`
    pub url: Key<Url>,
    /// `sha256` of the file or of what comes from the url
    pub sha256: Key<Sha256>,
    /// `sha512`
    pub sha512: Key<Sha512>,
    /// `format`
    pub format: Key<ImageFormat>,
    /// `kernel`
    pub kernel: Key<Text>,
    /// `initrd`
    pub initrd: Key<Text>,
    /// `cmdline`
    pub cmdline: Key<Text>,
}

/// `[vm.*]` and `[defaults.vm]`
#[derive(Debug, Clone, Default)]
pub struct VmDef {
    /// `nic`, one or a list
    pub nics: Key<Vec<At<NicDef>>>,
    /// `engine`
    pub engine: Key<Engine>,
    /// `accel`
    pub accel: Key<Accel>,
    /// `cpus`
    pub cpus: Key<Cpus>,
    /// `memory`
    pub memory: Key<Bytes<16>>,
    /// `image`
    pub image: Key<ImageName>,
    /// `disk`
    pub disk: Key<Bytes<1>>,
    /// `disks`, by name
    pub disks: Key<DiskDefs>,
    /// `firmware`
    pub firmware: Key<Firmware>,
    /// `qemu_args`, one or a list
    pub qemu_args: Key<Vec<At<Text>>>,
    /// `libvirt_xml`
    pub libvirt_xml: Key<Snippet>,
    /// `user`
    pub user: Key<Login>,
    /// `ssh_keys`, one or a list
    pub ssh_keys: Key<Vec<At<Text>>>,
    /// `cloud_init`: it gets a seed
    pub cloud_init: Key<bool>,
    /// `password_hash` of `user`
    pub password_hash: Key<PasswordHash>,
    /// `users`, one or a list
    pub users: Key<Vec<At<UserDef>>>,
    /// `packages`, one or a list
    pub packages: Key<Vec<At<PackageName>>>,
    /// `run`, one or a list
    pub run: Key<Vec<At<Command>>>,
    /// `user_data`: a file
    pub user_data: Key<Text>,
    /// `autostart`
    pub autostart: Key<bool>,
    /// `description`
    pub description: Key<Text>,
    /// `host`: where it runs
    pub host: Key<HostName>,
}

/// The further disks of a guest, each with the place of its name.
#[derive(Debug, Clone, Default)]
pub struct DiskDefs(pub BTreeMap<DiskName, At<DiskDef>>);

/// A further disk of a guest, `"10GiB"` being short for `{ size = "10GiB" }`.
#[derive(Debug, Clone, Default)]
pub struct DiskDef {
    /// `size`
    pub size: Key<Bytes<1>>,
    /// `file`
    pub file: Key<Text>,
    /// `format`
    pub format: Key<ImageFormat>,
    /// `readonly`
    pub readonly: Key<bool>,
}

/// One nic of a guest, `"web"` being short for `{ network = "web" }`.
#[derive(Debug, Clone, Default)]
pub struct NicDef {
    /// `network`
    pub network: Key<NetName>,
    /// `address`, one or a list: without prefix length, `dhcp`, `slaac`
    pub addresses: Key<Vec<At<NicAddress>>>,
    /// `gateway`: its network's is for this guest, too
    pub gateway: Key<bool>,
    /// `routes`, one or a list
    pub routes: Key<Vec<At<RouteDef>>>,
    /// `dns`, one or a list, in the place of the network's
    pub dns: Key<Vec<At<IpAddr>>>,
    /// `search`, one or a list, in the place of the network's
    pub search: Key<Vec<At<DomainName>>>,
    /// `mac`
    pub mac: Key<Mac>,
    /// `model`
    pub model: Key<NicModel>,
    /// `tap`
    pub tap: Key<IfName>,
}

/// `[[expect]]`: who reaches whom, or must not.
#[derive(Debug, Clone, Default)]
pub struct ExpectDef {
    /// `from`: the guest that tries
    pub from: Key<VmName>,
    /// `to`: a guest, `gateway:NETWORK` or `outside`
    pub to: Key<Peer>,
    /// `address`: which of its addresses
    pub address: Key<IpAddr>,
    /// `service`
    pub service: Key<Service>,
    /// `result`
    pub result: Key<Wanted>,
}

impl Definition {
    /// The same lab with namespaces for guests, whatever it says of their engines, and without libvirt, which is not
    /// there.
    #[must_use]
    pub fn rehearsed(mut self) -> Self {
        let netns = || Key::Is(At::new(0..0, Engine::Netns));
        self.vms.values_mut().for_each(|vm| vm.engine = netns());
        self.libvirt = Key::Is(At::new(0..0, false));
        self
    }

    /// The same file as another lab; under its own name it stays what it is.
    #[must_use]
    pub fn called(mut self, lab: LabName) -> Self {
        if self.lab.value() != Some(&lab) {
            self.lab = Key::Is(At::new(0..0, lab.clone()));
            self.alias = Some(lab);
        }
        self
    }

    /// Reads a definition.
    ///
    /// # Errors
    /// The syntax errors of a text that is no TOML: the rest of such a tree is a guess, and complaints about it would
    /// only confuse. Unknown keys and values of the wrong kind are kept in [`Definition::problems`].
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let (table, errors) = toml::de::DeTable::parse_recoverable(text);
        for error in errors {
            let problem = Problem::new(error.span().unwrap_or(0..0), "this is not TOML").label(error.message());
            problems
                .push(problem.help("text and addresses stand in quotes; a key and a [table] stand once in the file"));
        }
        problems.into_result(())?;
        let mut problems = Problems::default();
        let mut definition = sections::definition(&table, &mut problems);
        definition.problems = problems;
        Ok(definition)
    }
}
