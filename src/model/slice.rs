//! [`slice`]: one host's part of a lab. Pure.
//!
//! Every host computes the same model from the same file and takes its part. What is below this room knows one host
//! only, and nothing of the others but the subnets that are reached by way of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::router::port;
use super::view::View;
use super::{Across, Bridge, Elsewhere, External, Host, Model, Network, Router, Subnet};
use crate::names::{HostName, LabName, Mac, NetName};
use crate::rule;

/// The MAC of a device of ours on a host.
pub(super) fn device_mac(lab: &LabName, here: Option<&HostName>, role: &str, name: &str) -> Mac {
    match here {
        // No name of a device's object has this character.
        Some(host) => rule::device_mac(lab, role, &format!("{name}@{host}")),
        None => rule::device_mac(lab, role, name),
    }
}

/// The part of a lab that a host has: its guests, the networks that they, the router or the definition need there,
/// with the host's devices; the router where it lives.
///
/// `None` where the lab has no such host.
pub fn slice(whole: &Model, here: &HostName) -> Option<Model> {
    let host = whole.hosts.get(here)?;
    let vms: BTreeMap<_, _> = whole
        .vms
        .iter()
        .filter(|(_, vm)| vm.host.as_ref() == Some(here))
        .map(|(name, vm)| (name.clone(), vm.clone()))
        .collect();
    let networks: BTreeMap<NetName, Network> = whole
        .networks
        .values()
        .filter(|network| network.hosts.contains(here) || has_gateway(whole, network, here))
        .map(|network| (network.name.clone(), of_host(whole, network, host)))
        .collect();
    let router = router(whole, host, &networks);
    let mut uplinks = BTreeMap::new();
    for name in networks.values().filter_map(|network| network.tagged.as_ref()).map(|tagged| &tagged.uplink).chain(
        router.iter().filter_map(|router| match &router.external {
            External::Macvlan(own) | External::Vlan { external: own, .. } => Some(&own.uplink),
            External::None | External::Host(_) => None,
        }),
    ) {
        let Some(mut uplink) = whole.uplinks.get(name).cloned() else { continue };
        if let Some(device) = host.devices.get(name) {
            uplink.device = device.clone();
        }
        uplinks.insert(name.clone(), uplink);
    }
    // Only who has a router can send there.
    let elsewhere = if router.is_some() { elsewhere(whole, here) } else { Vec::new() };
    Some(Model {
        lab: whole.lab.clone(),
        libvirt: whole.libvirt,
        here: Some(here.clone()),
        hosts: whole.hosts.clone(),
        uplinks,
        networks,
        router,
        elsewhere,
        vms,
        expects: Vec::new(),
        view: View::default(),
    })
}

/// The hosts that hold gateways of a network, with the subnets that these are of. One segment has one; who has a leg on
/// it and no gateway sends to that one.
pub(super) fn gateways<'m>(
    whole: &'m Model,
    network: &'m Network,
) -> impl Iterator<Item = (&'m HostName, &'m [Subnet])> {
    let (one, shares) = match network.across {
        Across::Vlan => (whole.router.as_ref().and_then(|router| router.host.as_ref()), None),
        Across::Routed => (None, Some(&network.shares)),
    };
    let one = one.map(|host| (host, network.subnets.as_slice()));
    let each = shares.into_iter().flatten().map(|(host, share)| (host, share.as_slice()));
    one.into_iter().chain(each).filter(|_| network.mode.has_router())
}

/// Whether a host holds a gateway of a network.
fn has_gateway(whole: &Model, network: &Network, host: &HostName) -> bool {
    gateways(whole, network).any(|(holder, _)| holder == host)
}

pub(super) fn of_host(whole: &Model, network: &Network, host: &Host) -> Network {
    let mut network = network.clone();
    if let Some(share) = network.shares.get(&host.name) {
        network.subnets.clone_from(share);
    }
    let differs = host.networks.get(&network.name);
    if let (Some(tagged), Some(uplink)) = (&mut network.tagged, differs.and_then(|differs| differs.uplink.as_ref())) {
        tagged.uplink = uplink.clone();
    }
    network.mtu = differs.and_then(|differs| differs.mtu).or(network.mtu);
    let said = differs.and_then(|differs| differs.bridge.clone());
    match &mut network.bridge {
        Bridge::Own { name, mac } => {
            *name = said.unwrap_or_else(|| name.clone());
            *mac = device_mac(&whole.lab, Some(&host.name), "bridge", network.name.as_str());
        }
        Bridge::Foreign { name } => *name = said.unwrap_or_else(|| name.clone()),
    }
    network
}

fn router(whole: &Model, host: &Host, networks: &BTreeMap<NetName, Network>) -> Option<Router> {
    let router = whole.router.as_ref()?;
    let here = |network: &&Network| has_gateway(whole, network, &host.name);
    let ports: BTreeMap<_, _> = networks
        .values()
        .filter(here)
        .map(|network| {
            let mut port = port(&whole.lab, network);
            port.outer_mac = device_mac(&whole.lab, Some(&host.name), "router-port", network.name.as_str());
            (network.name.clone(), port)
        })
        .collect();
    let external = own_external(whole, router, host);
    (!ports.is_empty()).then(|| Router { external, ports, ..router.clone() })
}

/// The way out of the router on a host, as it is there.
pub(super) fn own_external(whole: &Model, router: &Router, host: &Host) -> External {
    at_host(&whole.lab, host, external(router, host).clone())
}

/// What the definition says of the router's way out on a host.
pub(super) fn external<'m>(router: &'m Router, host: &'m Host) -> &'m External {
    host.external.as_ref().unwrap_or(&router.external)
}

/// The same way out with MACs of this host: two routers of a lab may stand side by side outside.
fn at_host(lab: &LabName, host: &Host, mut external: External) -> External {
    let mac = |role: &str, name: &str| device_mac(lab, Some(&host.name), role, name);
    match &mut external {
        External::None => {}
        External::Host(through) => {
            if through.transit_by_rule {
                through.transit = rule::transit(lab, Some(&host.name));
            }
            through.outer_mac = mac("router-port", "host");
            through.inner_mac = mac("gateway", "host");
        }
        External::Macvlan(own) => own.mac = mac("outside", "macvlan"),
        External::Vlan { external: own, .. } => own.mac = mac("outside", "vlan"),
    }
    external
}

/// The subnets whose gateways are on other hosts.
fn elsewhere(whole: &Model, here: &HostName) -> Vec<Elsewhere> {
    let Some(router) = &whole.router else { return Vec::new() };
    let mut all = Vec::new();
    for network in whole.networks.values() {
        for (host, subnets) in gateways(whole, network).filter(|(host, _)| *host != here) {
            let Some(other) = whole.hosts.get(host) else { continue };
            all.extend(subnets.iter().filter_map(|subnet| {
                let via = next_hop(other, external(router, other), subnet.net.addr().is_ipv4())?;
                Some(Elsewhere { network: network.name.clone(), host: host.clone(), to: subnet.net, via })
            }));
        }
    }
    all
}

/// Where packets for a host's subnets go: to its router's own address outside, or to the host, which hands them on.
pub fn next_hop(host: &Host, external: &External, ipv4: bool) -> Option<IpAddr> {
    let own = match external {
        External::Macvlan(own) | External::Vlan { external: own, .. } => {
            own.addresses.iter().map(ipnet::IpNet::addr).find(|address| address.is_ipv4() == ipv4)
        }
        // The way through the host is IPv4 only, and without one nothing is handed on.
        External::Host(_) => host.underlay.filter(|_| ipv4),
        External::None => None,
    };
    own.filter(|address| address.is_ipv4() == ipv4)
}
