//! The router: which networks it serves, and its way to the outside. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;

use super::address::{special, unusable};
use super::resolve::pick_uplink;
use super::{External, HostExternal, Network, OwnExternal, Router, RouterPort};
use crate::definition::{At, Definition, ExternalDef, ExternalKind, HostDef, Key, Problem, Problems, RouterDef};
use crate::names::{LabName, NetName, UplinkName, VlanId};
use crate::rule;

/// The router of the lab; `None` where no network is routed or translated.
pub(super) fn router(
    lab: &LabName,
    def: &Key<RouterDef>,
    networks: &BTreeMap<NetName, Network>,
    definition: &Definition,
    problems: &mut Problems,
) -> Option<Router> {
    let external = match def {
        Key::Missing => Some(host_external(lab, None)),
        Key::Wrong(_) => None,
        Key::Is(def) => match &def.get_ref().external {
            Key::Missing => Some(host_external(lab, None)),
            Key::Wrong(_) => None,
            Key::Is(at) => read_external(lab, at, definition, problems),
        },
    };
    // What could not be read has its problem, and the model is not handed out.
    let external = external.unwrap_or(External::None);
    apart_from_outside(&external, def, networks, definition, problems);
    let ports: BTreeMap<NetName, RouterPort> = networks
        .values()
        .filter(|network| network.mode.has_router())
        .map(|network| (network.name.clone(), port(lab, network)))
        .collect();
    (!ports.is_empty()).then(|| Router { namespace: rule::router_namespace(lab), host: None, external, ports })
}

pub(super) fn port(lab: &LabName, network: &Network) -> RouterPort {
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

/// The way to the outside on one host, where it says something about it: key by key over what is said at the top; alone
/// where it goes another way.
pub(super) fn external_of_host(
    lab: &LabName,
    host: &HostDef,
    definition: &Definition,
    networks: &BTreeMap<NetName, Network>,
    problems: &mut Problems,
) -> Option<External> {
    let own = host.router.value()?.external.as_ref()?;
    let top = definition.router.value().and_then(|router| router.external.value());
    let (def, none) = (own.get_ref(), ExternalDef::default());
    let another = def.via.value().is_some_and(|via| top.is_some_and(|top| top.via.value() != Some(via)));
    let top = top.filter(|_| !another).unwrap_or(&none);
    let merged = ExternalDef {
        via: def.via.or(&top.via).clone(),
        uplink: def.uplink.or(&top.uplink).clone(),
        vlan: def.vlan.or(&top.vlan).clone(),
        addresses: def.addresses.or(&top.addresses).clone(),
        gateways: def.gateways.or(&top.gateways).clone(),
        snat: def.snat.or(&top.snat).clone(),
        transit: def.transit.or(&top.transit).clone(),
    };
    let external = read_external(lab, &At::new(own.span(), merged), definition, problems)?;
    apart_from_outside(&external, &host.router, networks, definition, problems);
    Some(external)
}

fn host_external(lab: &LabName, def: Option<&ExternalDef>) -> External {
    let transit = def.and_then(|def| def.transit.value()).copied();
    External::Host(HostExternal {
        transit: transit.unwrap_or_else(|| rule::transit(lab, None)),
        transit_by_rule: transit.is_none(),
        outer: rule::router_port_name(lab, "host"),
        outer_mac: rule::device_mac(lab, "router-port", "host"),
        inner_mac: rule::device_mac(lab, "gateway", "host"),
        snat: def.and_then(|def| def.snat.value()).copied(),
    })
}

fn read_external(
    lab: &LabName,
    at: &At<ExternalDef>,
    definition: &Definition,
    problems: &mut Problems,
) -> Option<External> {
    let def = at.get_ref();
    let via = match &def.via {
        Key::Is(via) => via,
        Key::Wrong(_) => return None,
        Key::Missing => {
            let problem = Problem::new(at.span(), "router.external does not say how it reaches the outside");
            problems.push(problem.help("add via = \"host\", \"macvlan\", \"vlan\" or \"none\""));
            return None;
        }
    };
    let kind = *via.get_ref();
    only_what_fits(kind, def, via.span(), problems);
    match kind {
        ExternalKind::None => Some(External::None),
        ExternalKind::Host => {
            host_keys(def, problems);
            Some(host_external(lab, Some(def)))
        }
        ExternalKind::Macvlan => {
            own_external(lab, "macvlan", at.span(), def, definition, problems).map(External::Macvlan)
        }
        ExternalKind::Vlan => {
            if def.vlan.is_missing() {
                let problem = Problem::new(via.span(), "via = \"vlan\" needs the external VLAN's number");
                problems.push(problem.help("add vlan = 100"));
            }
            let external = own_external(lab, "vlan", at.span(), def, definition, problems)?;
            let vlan = def.vlan.as_ref()?;
            vlan_apart(vlan, &external.uplink, definition, problems);
            Some(External::Vlan { vlan: *vlan.get_ref(), external })
        }
    }
}

fn host_keys(def: &ExternalDef, problems: &mut Problems) {
    if let Key::Is(at) = &def.transit {
        let transit = at.get_ref();
        let wrong = if transit.addr() != transit.network() {
            Some((format!("transit {transit} has host bits set"), format!("write {:?}", transit.trunc().to_string())))
        } else if transit.prefix_len() > 30 {
            Some((
                format!("transit {transit} has no room for the host and the router"),
                "use a prefix length of at most 30, for example \"100.64.0.0/30\"".to_owned(),
            ))
        } else if special(&(*transit).into()) {
            let help = "use a private range, or leave it out to get one by rule";
            Some((format!("transit {transit} is not for hosts"), help.to_owned()))
        } else {
            None
        };
        problems.extend(wrong.map(|(title, help)| Problem::new(at.span(), title).help(help)));
    }
    if let Key::Is(at) = &def.snat {
        let snat = at.get_ref();
        if snat.is_unspecified() || snat.is_multicast() || snat.is_broadcast() || snat.is_loopback() {
            let problem = Problem::new(at.span(), format!("nothing can leave with the source address {snat}"));
            problems.push(problem.help("name an address of this host, or leave snat out to masquerade"));
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
    let uplink = pick_uplink(&def.uplink, &definition.uplinks, span.clone(), "router.external", problems);
    let addresses: Vec<&At<IpNet>> = def.addresses.items().collect();
    if addresses.is_empty() && !def.addresses.is_wrong() && !each_host_says_its_own(definition) {
        let problem = Problem::new(span, "router.external has no address");
        problems.push(problem.help("add address = \"192.168.1.109/24\", one that is free on that network"));
    }
    for address in &addresses {
        let net = address.get_ref();
        if let Some(why) = unusable(&net.trunc(), net.addr()).filter(|_| net.prefix_len() < net.max_prefix_len() - 1) {
            let problem = Problem::new(address.span(), format!("address {net} {why}"));
            problems.push(problem.help("use an address that a host can have"));
        } else if special(net) {
            let problem = Problem::new(address.span(), format!("address {net} is not for hosts"));
            problems.push(problem.help("use one that is free on the network outside"));
        }
    }
    let gateways: Vec<&At<IpAddr>> = def.gateways.items().collect();
    let mut families: BTreeMap<bool, Range<usize>> = BTreeMap::new();
    for gateway in &gateways {
        let address = gateway.get_ref();
        let on_link = addresses.iter().any(|net| net.get_ref().contains(address));
        if !on_link && !def.addresses.is_wrong() && !addresses.is_empty() {
            let problem = Problem::new(gateway.span(), format!("gateway {address} is in no subnet of router.external"));
            problems.push(problem.help("name a router of the external address's own subnet"));
        }
        if addresses.iter().any(|net| net.get_ref().addr() == *address) {
            let problem = Problem::new(gateway.span(), format!("gateway {address} is the router's own address"));
            problems.push(problem.help("name the next router outside"));
        }
        if let Some(first) = families.insert(address.is_ipv4(), gateway.span()) {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let problem = Problem::new(gateway.span(), format!("router.external has two {family} gateways"));
            problems.push(problem.related(first, "the first").help("keep one of them"));
        }
    }
    Some(OwnExternal {
        uplink: uplink?,
        mac: rule::device_mac(lab, "outside", role),
        addresses: addresses.into_iter().map(|address| *address.get_ref()).collect(),
        gateways: gateways.into_iter().map(|gateway| *gateway.get_ref()).collect(),
    })
}

/// What is at the top is nobody's then.
fn each_host_says_its_own(definition: &Definition) -> bool {
    let says = |host: &HostDef| {
        let external = host.router.value().and_then(|router| router.external.value());
        external.is_some_and(|external| !external.addresses.is_missing())
    };
    !definition.hosts.is_empty() && definition.hosts.iter().all(|(_, host)| says(host.get_ref()))
}

fn vlan_apart(vlan: &At<VlanId>, uplink: &UplinkName, definition: &Definition, problems: &mut Problems) {
    for (name, network) in definition.networks.iter() {
        let network = network.get_ref();
        let same_uplink = network.uplink.value().is_none_or(|other| other == uplink);
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
    def: &Key<RouterDef>,
    networks: &BTreeMap<NetName, Network>,
    definition: &Definition,
    problems: &mut Problems,
) {
    let outside: Vec<IpNet> = match external {
        External::None => Vec::new(),
        External::Host(host) => vec![host.transit.trunc().into()],
        External::Macvlan(own) | External::Vlan { external: own, .. } => {
            own.addresses.iter().map(IpNet::trunc).collect()
        }
    };
    let external_def = def.value().and_then(|def| def.external.value());
    // Where it is said what is outside.
    let said = external_def.and_then(|def| def.transit.as_ref().map(At::span).or(def.addresses.as_ref().map(At::span)));
    for network in networks.values().filter(|network| network.mode.has_router()) {
        for subnet in &network.subnets {
            let clash = outside.iter().find(|net| net.contains(&subnet.net) || subnet.net.contains(*net));
            let Some(net) = clash else { continue };
            let Some(def) = definition.networks.get(&network.name) else { continue };
            let item = def.get_ref().subnets.items().find(|item| *item.get_ref() == subnet.net);
            let title = format!("subnet {} of network {} overlaps {net} outside", subnet.net, network.name);
            let problem = Problem::new(item.map_or(def.span(), At::span), title);
            let problem = match &said {
                Some(said) => problem.related(said.clone(), "the router's external side"),
                None => problem,
            };
            problems.push(match external {
                External::Host(_) => problem.help("choose another subnet, or another transit in router.external"),
                _ => problem.help("choose another subnet"),
            });
        }
    }
}
