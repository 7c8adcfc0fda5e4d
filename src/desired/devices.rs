//! Uplinks and what the host must have: which device is meant, what is missing, what is in the way. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::collisions::lab_of;
use super::context::Context;
use super::{Lack, Refusal};
use crate::model::{Bridge, DeviceRef, External, Model, Uplink};
use crate::names::{IfName, UplinkName};
use crate::rule;
use crate::state::{Device, Facts, Feature, Guest, Ns, SettingKey, Tool};

/// The device of each uplink on this host.
pub type Devices = BTreeMap<UplinkName, IfName>;

/// Finds the devices; one that is down is brought up, with IPv6 off on it.
pub(super) fn devices(context: &mut Context<'_>) -> Devices {
    let mut devices = Devices::new();
    for (name, uplink) in context.model.uplinks() {
        let Some((device_name, device)) = find(context.facts(), uplink.device()) else {
            let candidates = candidates(&context.facts().devices);
            context.refuse(Refusal::NoDevice { uplink: name.clone(), device: uplink.device().to_string(), candidates });
            continue;
        };
        let Ok(ifname) = device_name.parse::<IfName>() else {
            let device = device_name.escape_default().to_string();
            context.refuse(Refusal::OddDevice { uplink: name.clone(), device });
            continue;
        };
        if let Some((first, _)) = devices.iter().find(|(_, other)| **other == ifname) {
            let (first, second, device) = (first.clone(), name.clone(), ifname.to_string());
            context.refuse(Refusal::SameDevice { first, second, device });
        }
        bring_up(context, &ifname, device);
        if let Some(master) = &device.master {
            let text = format!(
                "is a port of {}; its VLANs go to vmnet's sub-interfaces before that bridge sees them",
                master.escape_default()
            );
            context.note(&ifname, text);
        }
        if device.kind.as_deref() == Some("bridge") {
            let text = "is a bridge and no NIC: frames come and go by its ports, as its own rules for VLANs allow";
            context.note(&ifname, text);
        }
        devices.insert(name.clone(), ifname);
    }
    devices
}

/// The device of each uplink that is there.
pub fn uplink_devices(model: &Model, facts: &Facts) -> Devices {
    let found =
        |(name, uplink): (&UplinkName, &Uplink)| Some((name.clone(), find(facts, uplink.device())?.0.parse().ok()?));
    model.uplinks().iter().filter_map(found).collect()
}

fn find<'a>(facts: &'a Facts, wanted: &DeviceRef) -> Option<(&'a String, &'a Device)> {
    let devices = &facts.devices;
    match wanted {
        // The loopback device carries no frames.
        DeviceRef::Name(name) if name.as_str() == "lo" => None,
        DeviceRef::Name(name) => {
            let by_altname = |device: &Device| device.altnames.iter().any(|altname| altname == name.as_str());
            devices.get_key_value(name.as_str()).or_else(|| devices.iter().find(|(_, device)| by_altname(device)))
        }
        // A sub-interface and a bridge carry their parent's address too: only a device with a permanent one is meant,
        // and where no device has one (virtual machines' NICs of some kinds), a NIC with that address.
        DeviceRef::Mac(mac) => devices.iter().find(|(_, device)| device.permanent_mac == Some(*mac)).or_else(|| {
            let mut same = devices.iter().filter(|(_, device)| is_nic(device) && device.mac == Some(*mac));
            same.next().filter(|_| same.next().is_none())
        }),
    }
}

/// Whether a device is what a host has for a NIC: hardware; or one end of a veth pair whose other end is elsewhere, as
/// in a container and in a rehearsal, where nothing has a permanent address. That of a lab is none.
fn is_nic(device: &Device) -> bool {
    let is_made = lab_of(device.alias.as_deref()).is_some() || rule::is_link_group(device.group);
    match device.kind.as_deref() {
        None => true,
        Some("veth") => device.lower.is_none() && !is_made,
        Some(_) => false,
    }
}

fn candidates(devices: &BTreeMap<String, Device>) -> String {
    let physical = |device: &Device| device.kind.as_deref().is_none_or(|kind| matches!(kind, "bond" | "veth" | "team"));
    // Veth ends and sub-interfaces that some lab made are nobody's NIC.
    let made = |device: &Device| lab_of(device.alias.as_deref()).is_some() || rule::is_link_group(device.group);
    let names: Vec<String> = devices
        .iter()
        .filter(|(name, device)| *name != "lo" && physical(device) && !made(device))
        .take(16)
        .map(|(name, device)| match device.mac {
            Some(mac) => format!("{} ({mac})", name.escape_default()),
            None => name.escape_default().to_string(),
        })
        .collect();
    if names.is_empty() {
        "it has no NIC at all".to_owned()
    } else {
        format!("name one of its own: {}", names.join(", "))
    }
}

fn bring_up(context: &mut Context<'_>, ifname: &IfName, device: &Device) {
    let key = SettingKey::DeviceState { device: ifname.clone() };
    let ours = context.host.found.contains_key(&key);
    if device.up && !ours {
        return;
    }
    context.state.settings.insert(key, "up".to_owned());
    // Switching IPv6 off deletes addresses. Those of its owner, kept for when it comes up, are not ours to delete.
    let link_local = |net: &ipnet::IpNet| matches!(net, ipnet::IpNet::V6(net) if net.addr().is_unicast_link_local());
    let has_own = device.addresses.iter().any(|net| net.addr().is_ipv6() && !link_local(net));
    if !has_own {
        context.set(&Ns::Host, format!("ipv6/conf/{ifname}/disable_ipv6"), 1);
    }
}

/// Everything that the plan will need from the kernel, from packages and from whoever runs it.
pub(super) fn lacks(context: &mut Context<'_>) {
    let model = context.model;
    let mut features = BTreeSet::new();
    let own_bridge = |bridge: &Bridge| matches!(bridge, Bridge::Own { .. });
    if model.networks().values().any(|network| own_bridge(network.bridge())) {
        features.insert(Feature::Bridge);
        features.insert(Feature::Nftables);
    }
    if model.networks().values().any(|network| network.tagged().is_some()) {
        features.insert(Feature::Vlan);
    }
    if let Some(router) = model.router() {
        features.extend([Feature::Veth, Feature::Nftables]);
        match router.external() {
            External::Macvlan(_) => drop(features.insert(Feature::Macvlan)),
            External::Vlan { .. } => drop(features.insert(Feature::Vlan)),
            External::Host(_) | External::None => {}
        }
    }
    for guest in context.host.guests.values() {
        match guest {
            Guest::Netns { .. } => drop(features.insert(Feature::Veth)),
            Guest::Qemu(_) | Guest::Libvirt(_) => drop(features.insert(Feature::Tun)),
        }
    }
    let facts = context.facts();
    for feature in features.into_iter().filter(|feature| !facts.features.contains(feature)) {
        let why = facts.missing.get(&feature).cloned().unwrap_or_else(|| "it is not there".to_owned());
        context.refuse(Refusal::Lacks(Lack::Feature { feature, why }));
    }
    for tool in [Tool::Nft, Tool::Ip] {
        if !facts.tools.contains_key(&tool) {
            context.refuse(Refusal::Lacks(Lack::Tool { tool }));
        }
    }
    for capability in ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"] {
        if !facts.capabilities.contains(capability) {
            context.refuse(Refusal::Lacks(Lack::Capability { capability: capability.to_owned() }));
        }
    }
}
