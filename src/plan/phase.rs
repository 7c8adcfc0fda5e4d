//! [`Phase`]: the order of effects, in one place.

use serde::{Deserialize, Serialize};

use super::op::Op;
use crate::state::{LinkKind, Ns, SettingKey};

/// When an operation may run. The order of the variants is the order of the waves: first everything that goes, the
/// dependent before what it depends on; then everything that comes, the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Guests stop first: they use everything else.
    StopGuests,
    /// libvirt forgets those that are off and shall not be started any more.
    UndefineGuests,
    /// Nobody plugs anything more into what goes.
    RemoveLibvirtNetworks,
    /// Routes leave while their links are still there.
    RemoveRoutes,
    /// So do addresses.
    RemoveAddresses,
    /// Links inside namespaces, which takes the outer ends of their veth pairs along.
    RemoveInnerLinks,
    /// Links of the host.
    RemoveLinks,
    /// Namespaces, empty by now: one that is removed with links in it gives them up only later.
    RemoveNamespaces,
    /// Tables, when nothing is left for them to guard.
    RemoveTables,
    /// What was found is put back.
    Restore,
    /// Files.
    RemoveFiles,
    /// Files come first: drop-ins keep network managers away from links that appear later.
    Files,
    /// Network managers read their drop-ins.
    Reload,
    /// Namespaces.
    Namespaces,
    /// Settings inside our namespaces, before any link appears there and inherits the defaults.
    NamespaceSettings,
    /// Tables stand before there is anything that could send.
    Tables,
    /// IPv6 off on foreign devices that come up next.
    DeviceSettings,
    /// Foreign devices come up before their sub-interfaces.
    Devices,
    /// Bridges before their ports.
    Bridges,
    /// Sub-interfaces, veth pairs and macvlans.
    Ports,
    /// IPv6 off and offloads, before a link comes up.
    LinkSettings,
    /// Marks, and up.
    LinkChanges,
    /// Addresses.
    Addresses,
    /// Routes, when the addresses that reach their next hops are there.
    Routes,
    /// Settings of the host, some of them of links that exist only now.
    HostSettings,
    /// libvirt hands out the bridges, which are there by now.
    LibvirtNetworks,
    /// libvirt learns what it is to start.
    DefineGuests,
    /// Guests.
    StartGuests,
}

impl Phase {
    /// The phase of an operation.
    pub fn of(op: &Op) -> Self {
        match op {
            Op::StopGuest { .. } => Self::StopGuests,
            Op::UndefineGuest { .. } => Self::UndefineGuests,
            Op::RemoveLibvirtNetwork { .. } => Self::RemoveLibvirtNetworks,
            Op::AddLibvirtNetwork { .. } | Op::ChangeLibvirtNetwork { .. } => Self::LibvirtNetworks,
            Op::RemoveRoute(_) => Self::RemoveRoutes,
            Op::RemoveAddress(_) => Self::RemoveAddresses,
            Op::RemoveLink { id } if id.ns != Ns::Host => Self::RemoveInnerLinks,
            Op::RemoveGroup { ns, .. } if *ns != Ns::Host => Self::RemoveInnerLinks,
            Op::RemoveLink { .. } | Op::RemoveGroup { .. } => Self::RemoveLinks,
            Op::RemoveNamespace { .. } => Self::RemoveNamespaces,
            Op::RemoveTable { .. } => Self::RemoveTables,
            Op::RemoveFile { .. } => Self::RemoveFiles,
            Op::WriteFile { .. } => Self::Files,
            Op::Reload { .. } => Self::Reload,
            Op::AddNamespace { .. } => Self::Namespaces,
            Op::ReplaceTable { .. } | Op::ChangeTable { .. } | Op::RestoreTable { .. } => Self::Tables,
            Op::AddLink { link, .. } => match link.kind {
                LinkKind::Bridge(_) => Self::Bridges,
                LinkKind::Vlan { .. } | LinkKind::Veth { .. } | LinkKind::Macvlan { .. } | LinkKind::Tap => Self::Ports,
            },
            Op::AddVeth { .. } => Self::Ports,
            Op::SetIpv6 { .. } | Op::SetTxChecksum { .. } => Self::LinkSettings,
            Op::ChangeLink { .. } => Self::LinkChanges,
            Op::AddAddress(_) => Self::Addresses,
            Op::AddRoute(_) => Self::Routes,
            Op::Set { key: SettingKey::DeviceState { .. }, value, .. } if value == "up" => Self::Devices,
            Op::Set { key: SettingKey::DeviceState { .. }, .. } => Self::Restore,
            Op::Set { key: SettingKey::Sysctl { ns: Ns::Named(_), .. }, .. } => Self::NamespaceSettings,
            Op::Set { key: SettingKey::Sysctl { ns: Ns::Host, key }, .. } if key.ends_with("/disable_ipv6") => {
                Self::DeviceSettings
            }
            Op::Set { key: SettingKey::Sysctl { ns: Ns::Host, .. }, .. } => Self::HostSettings,
            Op::DefineGuest { .. } => Self::DefineGuests,
            Op::StartGuest { .. } => Self::StartGuests,
        }
    }

    /// What a progress line calls it.
    pub fn title(self) -> &'static str {
        match self {
            Self::StopGuests => "stopping guests",
            Self::UndefineGuests => "undefining guests",
            Self::RemoveLibvirtNetworks => "removing libvirt networks",
            Self::RemoveRoutes => "removing routes",
            Self::RemoveAddresses => "removing addresses",
            Self::RemoveInnerLinks => "removing links in namespaces",
            Self::RemoveLinks => "removing links",
            Self::RemoveNamespaces => "removing namespaces",
            Self::RemoveTables => "removing tables",
            Self::Restore => "restoring what was found",
            Self::RemoveFiles => "removing files",
            Self::Files => "writing files",
            Self::Reload => "telling network managers",
            Self::Namespaces => "adding namespaces",
            Self::NamespaceSettings => "setting up namespaces",
            Self::Tables => "writing tables",
            Self::DeviceSettings => "settling devices",
            Self::Devices => "bringing devices up",
            Self::Bridges => "adding bridges",
            Self::Ports => "adding ports",
            Self::LinkSettings => "settling links",
            Self::LinkChanges => "bringing links up",
            Self::Addresses => "adding addresses",
            Self::Routes => "adding routes",
            Self::HostSettings => "setting up the host",
            Self::LibvirtNetworks => "adding libvirt networks",
            Self::DefineGuests => "defining guests",
            Self::StartGuests => "starting guests",
        }
    }
}
