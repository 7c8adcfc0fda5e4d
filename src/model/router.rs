//! The router: which networks it serves, and its way to the outside. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;

use super::address::unusable;
use super::resolve::pick_uplink;
use super::{External, HostExternal, Network, OwnExternal, Router, RouterPort};
use crate::definition::{At, Definition, ExternalDef, ExternalKind, Problem, Problems, RouterDef};
use crate::names::{LabName, NetName, UplinkName};
use crate::rule;

/// The router of the lab; `None` where no network is routed or translated.
pub(super) fn router(
    lab: &LabName,
    def: Option<&At<RouterDef>>,
    networks: &BTreeMap<NetName, Network>,
    definition: &Definition,
    problems: &mut Problems,
) -> Option<Router> {
    let external = def.and_then(|def| def.get_ref().external.as_ref());
    let external = match external {
        None => host_external(lab, None),
        Some(at) => read_external(lab, at, definition, problems),
    };
    apart_from_outside(&external, def, networks, definition, problems);
    let ports: BTreeMap<NetName, RouterPort> = networks
        .values()
        .filter(|network| network.mode.has_router())
        .map(|network| (network.name.clone(), port(lab, network)))
        .collect();
    (!ports.is_empty()).then(|| Router { namespace: rule::router_namespace(lab), external, ports })
}

fn port(lab: &LabName, network: &Network) -> RouterPort {
    let gateways = network.subnets.iter().filter_map(|subnet| {
        // The prefix length was one of this address's family before.
        IpNet::new(subnet.gateway?, subnet.net.prefix_len()).ok()
    });
    RouterPort {
        outer: rule::router_port_name(lab, network.name.as_str()),
        outer_mac: rule::device_mac(lab, "router-port", network.name.as_str()),
        inner: rule::router_inner_name(&network.name),
        inner_mac: rule::device_mac(lab, "gateway", network.name.as_str()),
        addresses: gateways.collect(),
    }
}

fn host_external(lab: &LabName, def: Option<&ExternalDef>) -> External {
    let transit = def.and_then(|def| def.transit.as_ref()).map(|transit| *transit.get_ref());
    External::Host(HostExternal {
        transit: transit.unwrap_or_else(|| rule::transit(lab)),
        outer: rule::router_port_name(lab, "host"),
        outer_mac: rule::device_mac(lab, "router-port", "host"),
        inner_mac: rule::device_mac(lab, "gateway", "host"),
        snat: def.and_then(|def| def.snat.as_ref()).map(|snat| *snat.get_ref()),
    })
}

fn read_external(lab: &LabName, at: &At<ExternalDef>, definition: &Definition, problems: &mut Problems) -> External {
    let def = at.get_ref();
    let Some(via) = &def.via else {
        let problem = Problem::new(at.span(), "router.external does not say how it reaches the outside");
        problems.push(problem.help("add via = \"host\", \"macvlan\", \"vlan\" or \"none\""));
        return External::None;
    };
    let kind = *via.get_ref();
    only_what_fits(kind, def, via.span(), problems);
    let mut own = |role: &str| own_external(lab, role, at.span(), def, definition, problems);
    match kind {
        ExternalKind::None => External::None,
        ExternalKind::Host => {
            if let Some(transit) = &def.transit
                && transit.get_ref().prefix_len() > 30
            {
                let problem = Problem::new(transit.span(), "a transit network needs two host addresses");
                problems.push(problem.help("use a prefix length of 30 or less, for example 100.64.0.0/30"));
            }
            host_external(lab, Some(def))
        }
        ExternalKind::Macvlan => own("macvlan").map_or(External::None, External::Macvlan),
        ExternalKind::Vlan => {
            let external = own("vlan");
            let Some(vlan) = &def.vlan else {
                let problem = Problem::new(via.span(), "via = \"vlan\" needs the external VLAN's number");
                problems.push(problem.help("add vlan = 100"));
                return External::None;
            };
            external.map_or(External::None, |external| {
                vlan_apart(vlan, &external.uplink, definition, problems);
                External::Vlan { vlan: *vlan.get_ref(), external }
            })
        }
    }
}

/// Keys that mean nothing here would be accepted and ignored: that is a lie.
fn only_what_fits(kind: ExternalKind, def: &ExternalDef, via: Range<usize>, problems: &mut Problems) {
    let (host, own, vlan) = match kind {
        ExternalKind::Host => (true, false, false),
        ExternalKind::Macvlan => (false, true, false),
        ExternalKind::Vlan => (false, true, true),
        ExternalKind::None => (false, false, false),
    };
    let ExternalDef { via: _, uplink, vlan: vlan_key, addresses, gateways, snat, transit } = def;
    let keys = [
        ("uplink", uplink.as_ref().map(At::span), own),
        ("vlan", vlan_key.as_ref().map(At::span), vlan),
        ("address", addresses.as_ref().map(At::span), own),
        ("gateway", gateways.as_ref().map(At::span), own),
        ("snat", snat.as_ref().map(At::span), host),
        ("transit", transit.as_ref().map(At::span), host),
    ];
    for (key, span, fits) in keys {
        if let (Some(span), false) = (span, fits) {
            let problem = Problem::new(span, format!("{key} has no meaning with this way to the outside"));
            problems
                .push(problem.related(via.clone(), "said here").help(format!("remove {key}, or choose another via")));
        }
    }
}

fn own_external(
    lab: &LabName,
    role: &str,
    span: Range<usize>,
    def: &ExternalDef,
    definition: &Definition,
    problems: &mut Problems,
) -> Option<OwnExternal> {
    let uplinks: Vec<&UplinkName> = definition.uplinks.keys().collect();
    let uplink = pick_uplink(def.uplink.as_ref(), &uplinks, span.clone(), "router.external", problems);
    let addresses: Vec<&At<IpNet>> = def.addresses.iter().flat_map(At::get_ref).collect();
    if addresses.is_empty() {
        let problem = Problem::new(span, "router.external has no address");
        problems.push(problem.help("add address = \"192.168.1.109/24\", one that is free on that network"));
    }
    for address in &addresses {
        let net = address.get_ref();
        if let Some(why) = unusable(&net.trunc(), net.addr()).filter(|_| net.prefix_len() < net.max_prefix_len() - 1) {
            let problem = Problem::new(address.span(), format!("address {net} {why}"));
            problems.push(problem.help("use an address that a host can have"));
        }
    }
    let gateways: Vec<&At<IpAddr>> = def.gateways.iter().flat_map(At::get_ref).collect();
    let mut families = Vec::new();
    for gateway in &gateways {
        let address = gateway.get_ref();
        if !addresses.iter().any(|net| net.get_ref().contains(address)) {
            let problem = Problem::new(gateway.span(), format!("gateway {address} is in no subnet of router.external"));
            problems.push(problem.help("name a router of the external address's own subnet"));
        }
        if families.contains(&address.is_ipv4()) {
            let problem = Problem::new(gateway.span(), "there are two gateways of one address family");
            problems.push(problem.help("keep one"));
        }
        families.push(address.is_ipv4());
    }
    Some(OwnExternal {
        uplink: uplink?,
        mac: rule::device_mac(lab, "outside", role),
        addresses: addresses.into_iter().map(|address| *address.get_ref()).collect(),
        gateways: gateways.into_iter().map(|gateway| *gateway.get_ref()).collect(),
    })
}

fn vlan_apart(vlan: &At<crate::names::VlanId>, uplink: &UplinkName, definition: &Definition, problems: &mut Problems) {
    for (name, network) in &definition.networks {
        let network = network.get_ref();
        let same_uplink = network.uplink.as_ref().is_none_or(|other| other.get_ref() == uplink);
        if let Some(other) = network.vlan.as_ref().filter(|other| same_uplink && other.get_ref() == vlan.get_ref()) {
            let title = format!("VLAN {} is the external one and network {name}'s", vlan.get_ref());
            let problem = Problem::new(vlan.span(), title).related(other.span(), "used here");
            problems.push(problem.help("the router's external VLAN and the lab's networks need VLANs of their own"));
        }
    }
}

/// The lab's subnets must not be those outside, or the router could not tell them apart.
fn apart_from_outside(
    external: &External,
    def: Option<&At<RouterDef>>,
    networks: &BTreeMap<NetName, Network>,
    definition: &Definition,
    problems: &mut Problems,
) {
    let outside: Vec<IpNet> = match external {
        External::None => Vec::new(),
        External::Host(host) => vec![host.transit.into()],
        External::Macvlan(own) | External::Vlan { external: own, .. } => {
            own.addresses.iter().map(IpNet::trunc).collect()
        }
    };
    let span = def.map_or(0..0, At::span);
    for network in networks.values().filter(|network| network.mode.has_router()) {
        for subnet in &network.subnets {
            let clash = outside.iter().find(|net| net.contains(&subnet.net) || subnet.net.contains(*net));
            let Some(net) = clash else { continue };
            let at = definition.networks.get(&network.name).and_then(|def| def.get_ref().subnets.as_ref());
            let title = format!("subnet {} of network {} overlaps {net} outside", subnet.net, network.name);
            let problem = Problem::new(at.map_or(span.clone(), At::span), title);
            problems.push(match external {
                External::Host(_) => problem.help("choose another subnet, or another router.external.transit"),
                _ => problem.related(span.clone(), "the router's external side").help("choose another subnet"),
            });
        }
    }
}
