//! [`Definition`]: the user's TOML file as it was written, each value with its place.
//!
//! Untrusted text comes in; typed values come out, or a list of all problems at once. A key is known because a line
//! of this room reads it, so nothing can be accepted and ignored. What values mean together is `model/`. Pure.

mod problem;
mod read;
mod sections;
mod value;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
pub use toml::Spanned as At;

pub use problem::{Problem, ProblemReport, Problems};
pub use value::{Bytes, ExternalKind, Text};

use crate::model::{Accel, Engine, ImageFormat, Mode, NicModel};
use crate::names::{IfName, ImageName, LabName, Mac, NetName, UplinkName, VlanId, VmName};

/// Entries of a section by name, each with the place of its key.
pub type Entries<K, V> = BTreeMap<K, At<V>>;

/// A definition as written: nothing filled in, nothing compared.
#[derive(Debug, Clone, Default)]
pub struct Definition {
    /// `lab`
    pub lab: Option<At<LabName>>,
    /// `[uplink.*]`
    pub uplinks: Entries<UplinkName, UplinkDef>,
    /// `[defaults.vm]`
    pub defaults: VmDef,
    /// `[network.*]`
    pub networks: Entries<NetName, NetworkDef>,
    /// `[router]`
    pub router: Option<At<RouterDef>>,
    /// `[image.*]`
    pub images: Entries<ImageName, ImageDef>,
    /// `[vm.*]`
    pub vms: Entries<VmName, VmDef>,
}

/// `[uplink.*]`
#[derive(Debug, Clone, Default)]
pub struct UplinkDef {
    /// `device`: name, altname or permanent MAC.
    pub device: Option<At<Text>>,
}

/// `[network.*]`
#[derive(Debug, Clone, Default)]
pub struct NetworkDef {
    /// `mode`
    pub mode: Option<At<Mode>>,
    /// `vlan`
    pub vlan: Option<At<VlanId>>,
    /// `uplink`
    pub uplink: Option<At<UplinkName>>,
    /// `subnet`, one or a list
    pub subnets: Option<At<Vec<At<IpNet>>>>,
    /// `gateway`, one or a list: at most one in each subnet
    pub gateways: Option<At<Vec<At<IpAddr>>>>,
    /// `dns`, one or a list
    pub dns: Option<At<Vec<At<IpAddr>>>>,
    /// `mtu` in bytes
    pub mtu: Option<At<u32>>,
    /// `bridge`: one that exists already
    pub bridge: Option<At<IfName>>,
    /// `ifname`: fixes the name of the bridge
    pub ifname: Option<At<IfName>>,
}

/// `[router]`
#[derive(Debug, Clone, Default)]
pub struct RouterDef {
    /// `external`
    pub external: Option<At<ExternalDef>>,
}

/// `router.external`
#[derive(Debug, Clone, Default)]
pub struct ExternalDef {
    /// `via`
    pub via: Option<At<ExternalKind>>,
    /// `uplink`
    pub uplink: Option<At<UplinkName>>,
    /// `vlan`
    pub vlan: Option<At<VlanId>>,
    /// `address`, one or a list, with prefix length
    pub addresses: Option<At<Vec<At<IpNet>>>>,
    /// `gateway`, one or a list
    pub gateways: Option<At<Vec<At<IpAddr>>>>,
    /// `snat`
    pub snat: Option<At<Ipv4Addr>>,
    /// `transit`
    pub transit: Option<At<Ipv4Net>>,
}

/// `[image.*]`
#[derive(Debug, Clone, Default)]
pub struct ImageDef {
    /// `file`
    pub file: Option<At<Text>>,
    /// `format`
    pub format: Option<At<ImageFormat>>,
    /// `kernel`
    pub kernel: Option<At<Text>>,
    /// `initrd`
    pub initrd: Option<At<Text>>,
    /// `cmdline`
    pub cmdline: Option<At<Text>>,
}

/// `[vm.*]` and `[defaults.vm]`
#[derive(Debug, Clone, Default)]
pub struct VmDef {
    /// `nic`, one or a list
    pub nics: Option<At<Vec<At<NicDef>>>>,
    /// `engine`
    pub engine: Option<At<Engine>>,
    /// `accel`
    pub accel: Option<At<Accel>>,
    /// `cpus`
    pub cpus: Option<At<u32>>,
    /// `memory`
    pub memory: Option<At<Bytes>>,
    /// `image`
    pub image: Option<At<ImageName>>,
    /// `disk`
    pub disk: Option<At<Bytes>>,
    /// `user`
    pub user: Option<At<Text>>,
    /// `ssh_keys`, one or a list
    pub ssh_keys: Option<At<Vec<At<Text>>>>,
}

/// One nic of a guest, `"web"` being short for `{ network = "web" }`.
#[derive(Debug, Clone, Default)]
pub struct NicDef {
    /// `network`
    pub network: Option<At<NetName>>,
    /// `address`, one or a list, without prefix length
    pub addresses: Option<At<Vec<At<IpAddr>>>>,
    /// `mac`
    pub mac: Option<At<Mac>>,
    /// `model`
    pub model: Option<At<NicModel>>,
    /// `tap`
    pub tap: Option<At<IfName>>,
}

impl Definition {
    /// Reads a definition.
    ///
    /// # Errors
    /// Every problem of the text: what is no TOML, unknown keys with the nearest known one, values of the wrong kind.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let (table, errors) = toml::de::DeTable::parse_recoverable(text);
        for error in errors {
            problems.push(Problem::new(error.span().unwrap_or(0..0), "this is not TOML").label(error.message()));
        }
        // After a syntax error the rest of the tree is a guess; its complaints would only confuse.
        problems.into_result(())?;
        let mut problems = Problems::default();
        let definition = sections::definition(&table, &mut problems);
        problems.into_result(definition)
    }
}
