//! Segments: each network's bridge, and its sub-interface on the uplink. Pure.

use super::Refusal;
use super::collisions::{lab_of, owner};
use super::context::Context;
use super::devices::Devices;
use crate::model::{Bridge, Network, Tagged};
use crate::names::IfName;
use crate::render::ETHERNET_MTU;
use crate::rule;
use crate::state::{BridgeSettings, LinkId, LinkKind};

pub(super) fn segments(context: &mut Context<'_>, devices: &Devices) {
    for network in context.model.networks().values() {
        match network.bridge() {
            Bridge::Foreign { name } => foreign(context, network, name),
            Bridge::Own { name, mac } => {
                let device = network.tagged().as_ref().and_then(|tagged| devices.get(&tagged.uplink));
                let mtu = segment_mtu(context, network, device);
                context.mtu.insert(network.name().clone(), mtu);
                let kind = LinkKind::Bridge(BridgeSettings::OURS);
                let bridge = context.link(kind, *mac, mtu, "bridge", network.name().as_str());
                context.add_link(LinkId::host(name.clone()), bridge);
                if let (Some(device), Some(tagged)) = (device, network.tagged()) {
                    sub_interface(context, network, name, device, tagged);
                }
            }
        }
    }
}

fn segment_mtu(context: &mut Context<'_>, network: &Network, device: Option<&IfName>) -> u32 {
    let limit = device.and_then(|device| context.facts().devices.get(device.as_str())).map(|device| device.mtu);
    let mtu = network.mtu().or(limit).unwrap_or(ETHERNET_MTU);
    if let (Some(limit), Some(device)) = (limit.filter(|limit| mtu > *limit), device) {
        let (network, device) = (network.name().clone(), device.to_string());
        context.refuse(Refusal::MtuTooLarge { network, mtu, device, limit });
    }
    mtu
}

fn sub_interface(context: &mut Context<'_>, network: &Network, bridge: &IfName, device: &IfName, tagged: &Tagged) {
    let remedy = |holder: &str| {
        format!(
            "make {holder} a port of a bridge of your own and say mode = \"bridged\" and bridge = \"…\" instead of vlan, or \
             choose another VLAN"
        )
    };
    vlan_is_free(context, &format!("network {}", network.name()), device, tagged, remedy);
    let name = rule::sub_interface_name(device, tagged.vlan);
    let kind = LinkKind::Vlan { parent: device.clone(), id: tagged.vlan };
    let mac = context.model.device_mac("uplink", network.name().as_str());
    let mut link = context.link(kind, mac, context.mtu_of(network), "uplink", network.name().as_str());
    link.master = Some(bridge.to_string());
    context.wires.push(name.clone());
    context.add_link(LinkId::host(name), link);
}

/// The kernel has one sub-interface of a device for each VLAN (EEXIST), whatever its name.
pub(super) fn vlan_is_free(
    context: &mut Context<'_>,
    wanted: &str,
    device: &IfName,
    tagged: &Tagged,
    remedy: impl Fn(&str) -> String,
) {
    let facts = context.facts();
    let on_host = facts.devices.iter().find(|(_, other)| {
        other.vlan.as_ref().is_some_and(|(parent, vlan)| parent == device.as_str() && *vlan == tagged.vlan)
    });
    let hidden = facts.hidden_vlans.iter().find(|other| other.device == device.as_str() && other.vlan == tagged.vlan);
    let (holder, alias, remedy) = match (on_host, hidden) {
        (Some((name, found)), _) => {
            let name = name.escape_default().to_string();
            let remedy = remedy(&name);
            (name, &found.alias, remedy)
        }
        (None, Some(found)) => {
            let holder = format!("{} in {}", found.name.escape_default(), found.place.escape_default());
            (holder, &found.alias, "remove it there, or choose another VLAN".to_owned())
        }
        (None, None) => return,
    };
    let remedy = match lab_of(alias.as_deref()) {
        Some(lab) => format!("labs share no VLAN: choose another, or give that one up (vmnet destroy {lab})"),
        None => remedy,
    };
    let (wanted, owner) = (wanted.to_owned(), owner(alias.as_deref()));
    context.refuse(Refusal::VlanTaken { wanted, vlan: tagged.vlan, device: device.to_string(), holder, owner, remedy });
}

fn foreign(context: &mut Context<'_>, network: &Network, name: &IfName) {
    let problem = match context.facts().devices.get(name.as_str()) {
        None => {
            let remedy = "remove bridge = and let vmnet make one (a bridged network has a vlan = then)";
            Some(format!("does not exist; make it first, or {remedy}"))
        }
        Some(device) => match device.kind.as_deref() {
            Some("bridge") => {
                let mtu = device.mtu;
                context.mtu.insert(network.name().clone(), network.mtu().unwrap_or(mtu));
                if let Some(wanted) = network.mtu().filter(|wanted| *wanted > mtu) {
                    let (network, device) = (network.name().clone(), name.to_string());
                    context.refuse(Refusal::MtuTooLarge { network, mtu: wanted, device, limit: mtu });
                }
                None
            }
            kind => Some(format!(
                "is no bridge but a {} device; name a bridge",
                kind.unwrap_or("physical").escape_default()
            )),
        },
    };
    if let Some(problem) = problem {
        context.refuse(Refusal::NoBridge { network: network.name().clone(), bridge: name.to_string(), problem });
    }
}
