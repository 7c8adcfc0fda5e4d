//! Where a packet of a try can be seen: links by what they are for, and what shows there (`way` has the order).
//! Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::{External, Model, OUTSIDE};
use crate::names::{HostName, IfName, Mac, NetName, UplinkName, VlanId, VmName};
use crate::rule;
use crate::state::LinkId;

/// A link of a lab by what it is for: each host has its own name for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "kebab-case")]
pub enum Spot {
    /// The host's end of a guest's cable.
    Tap {
        /// The guest.
        vm: VmName,
        /// The number of its nic.
        nic: usize,
    },
    /// The bridge of a network.
    Bridge {
        /// The network.
        network: NetName,
    },
    /// The sub-interface that carries a network.
    SubInterface {
        /// The network.
        network: NetName,
    },
    /// The device of an uplink.
    Nic {
        /// The uplink.
        uplink: UplinkName,
        /// The VLAN of the frames that count; `None`: untagged ones.
        vlan: Option<VlanId>,
    },
    /// The end of a router's port that is on the bridge.
    RouterOuter {
        /// The network.
        network: NetName,
    },
    /// The end of a router's port that is in the router.
    RouterInner {
        /// The network.
        network: NetName,
    },
    /// The external interface, in the router.
    Outside,
    /// The host's end of the router's way outside.
    HostPort,
}

/// A place where packets can be seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Point {
    /// The host that it is on; `None` where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// The link.
    #[serde(flatten)]
    pub spot: Spot,
}

/// The question who has an address, which goes before what is sent there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Question {
    /// The asker.
    pub by: Mac,
    /// The address in question.
    pub target: IpAddr,
}

/// A packet's way on one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// What it passes, in order.
    pub points: Vec<Point>,
    /// The question that goes before it; `None` where that is not known.
    pub question: Option<Question>,
}

impl Spot {
    /// The link on a host, by its part of the model and the devices of its uplinks; `None` when it has none.
    pub fn link(&self, model: &Model, devices: &BTreeMap<UplinkName, IfName>) -> Option<LinkId> {
        let router = model.router().as_ref();
        let in_router = |name: IfName| router.map(|router| LinkId::inside(router.namespace(), name));
        match self {
            Self::Tap { vm, nic } => Some(LinkId::host(model.vms().get(vm)?.nics().get(*nic)?.tap().clone())),
            Self::Bridge { network } => Some(LinkId::host(model.networks().get(network)?.bridge().name().clone())),
            Self::SubInterface { network } => {
                let tagged = model.networks().get(network)?.tagged().as_ref()?;
                Some(LinkId::host(rule::sub_interface_name(devices.get(&tagged.uplink)?, tagged.vlan)))
            }
            Self::Nic { uplink, .. } => Some(LinkId::host(devices.get(uplink)?.clone())),
            Self::RouterOuter { network } => Some(LinkId::host(router?.ports().get(network)?.outer().clone())),
            Self::RouterInner { network } => in_router(router?.ports().get(network)?.inner().clone()),
            Self::Outside => in_router(OUTSIDE.parse().ok()?),
            Self::HostPort => match router?.external() {
                External::Host(host) => Some(LinkId::host(host.outer.clone())),
                _ => None,
            },
        }
    }

    /// The bridge that it must be a port of.
    pub fn bridge<'a>(&self, model: &'a Model) -> Option<&'a IfName> {
        let network = match self {
            Self::Tap { vm, nic } => model.vms().get(vm)?.nics().get(*nic)?.network(),
            Self::SubInterface { network } | Self::RouterOuter { network } => network,
            Self::Bridge { .. } | Self::Nic { .. } | Self::RouterInner { .. } | Self::Outside | Self::HostPort => {
                return None;
            }
        };
        model.networks().get(network).map(|network| network.bridge().name())
    }
}
