//! Between hosts: whether those that hold gateways can send to each other. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;

use super::slice::{external, gateways, next_hop};
use super::{Across, External, Host, Model, OwnExternal, Router};
use crate::definition::{At, Definition, Problem, Problems};
use crate::names::{HostName, NetName};
use crate::rule;

/// A host with gateways of one family, and one of the networks that they are of.
struct Holder<'m> {
    host: &'m Host,
    network: &'m NetName,
    external: &'m External,
}

/// Hosts with routers of their own reach each other's subnets by static routes: each needs a way out, and an address for
/// the others.
pub(super) fn reachable(model: &Model, definition: &Definition, problems: &mut Problems) {
    let Some(router) = &model.router else { return };
    transits_apart(model, router, definition, problems);
    for ipv4 in [true, false] {
        let holders = holders(model, router, ipv4);
        if holders.len() < 2 {
            continue;
        }
        let mut told = BTreeSet::new();
        let mut seen: BTreeMap<IpAddr, &HostName> = BTreeMap::new();
        for holder in holders.values() {
            let Some(hop) = next_hop(holder.host, holder.external, ipv4) else {
                let (span, title, help) = no_hop(holder, ipv4, definition);
                // What the router says for all hosts is one mistake.
                if told.insert(title.clone()) {
                    problems.push(Problem::new(span, title).help(help));
                }
                continue;
            };
            let name = &holder.host.name;
            // Of two hosts that both say it, that was told.
            if let Some(other) = seen.insert(hop, name).filter(|other| !both_say(holder, &model.hosts[*other])) {
                let title = format!("hosts {other} and {name} have one address for the others, {hop}");
                let help = "give each host its own underlay, or its router an address of its own: [host.NAME] \
                            router.external.address";
                problems.push(Problem::new(place(&definition.hosts, name), title).help(help));
            }
        }
        for holder in holders.values() {
            let (External::Macvlan(own) | External::Vlan { external: own, .. }) = holder.external else { continue };
            problems.extend(cut_off(holder, own, ipv4, &seen, definition));
        }
    }
}

fn holders<'m>(model: &'m Model, router: &'m Router, ipv4: bool) -> BTreeMap<&'m HostName, Holder<'m>> {
    let mut holders = BTreeMap::new();
    for network in model.networks.values() {
        for (host, subnets) in gateways(model, network) {
            let of_family = subnets.iter().any(|subnet| subnet.net.addr().is_ipv4() == ipv4);
            let Some(host) = model.hosts.get(host).filter(|_| of_family) else { continue };
            // A network that is routed between hosts is why there are several.
            let holder = Holder { host, network: &network.name, external: external(router, host) };
            match network.across {
                Across::Routed => drop(holders.insert(&host.name, holder)),
                Across::Vlan => drop(holders.entry(&host.name).or_insert(holder)),
            }
        }
    }
    holders
}

fn both_say(holder: &Holder<'_>, other: &Host) -> bool {
    let says = |host: &Host| matches!(host.external, Some(External::Macvlan(_) | External::Vlan { .. }));
    says(holder.host) && says(other)
}

fn no_hop(holder: &Holder<'_>, ipv4: bool, definition: &Definition) -> (Range<usize>, String, String) {
    let Holder { host, network, external } = holder;
    let name = &host.name;
    let (span, whose) = match &host.external {
        Some(_) => (place(&definition.hosts, name), format!("the router of host {name}")),
        None => {
            let network = || definition.networks.get(*network).map_or(0..0, At::span);
            (definition.router.as_ref().map_or_else(network, At::span), "the router".to_owned())
        }
    };
    match (external, ipv4) {
        (External::None, _) => (
            span,
            format!("networks are routed between hosts, and {whose} has no way out"),
            "say via = \"host\" and an underlay for each host, or via = \"macvlan\" or \"vlan\"".to_owned(),
        ),
        (External::Host(_), false) => (
            span,
            format!("network {network} is routed between hosts with IPv6, and {whose} goes through the host"),
            "via = \"host\" is IPv4 only: say via = \"macvlan\" or \"vlan\", or leave the IPv6 subnet out".to_owned(),
        ),
        (External::Host(_), true) => (
            place(&definition.hosts, name),
            format!("network {network} is routed between hosts, and host {name} has no IPv4 address for the others"),
            "add underlay = \"…\", the host's IPv4 address at which the others reach it".to_owned(),
        ),
        (External::Macvlan(_) | External::Vlan { .. }, _) => {
            let family = if ipv4 { "IPv4" } else { "IPv6" };
            (
                span,
                format!("network {network} is routed between hosts, and {whose} has no {family} address outside"),
                format!("add an {family} address to router.external"),
            )
        }
    }
}

/// Without a gateway a router reaches what is on its external segment alone.
fn cut_off(
    holder: &Holder<'_>,
    own: &OwnExternal,
    ipv4: bool,
    hops: &BTreeMap<IpAddr, &HostName>,
    definition: &Definition,
) -> Option<Problem> {
    if own.gateways.iter().any(|gateway| gateway.is_ipv4() == ipv4) {
        return None;
    }
    let name = &holder.host.name;
    let on_link = |hop: &IpAddr| own.addresses.iter().any(|net| net.contains(hop));
    let (hop, other) = hops.iter().find(|(hop, other)| **other != name && !on_link(hop))?;
    let title = format!("the router of host {name} has no way to {hop}, where host {other} is");
    let problem = Problem::new(place(&definition.hosts, name), title);
    Some(problem.help("add a gateway to router.external, or give both an address of one subnet outside"))
}

/// The transit network of each host that was chosen by rule must be none of the lab's.
fn transits_apart(model: &Model, router: &Router, definition: &Definition, problems: &mut Problems) {
    for host in model.hosts.values() {
        let External::Host(through) = external(router, host) else { continue };
        if !through.transit_by_rule {
            continue;
        }
        let transit = ipnet::IpNet::from(rule::transit(&model.lab, Some(&host.name)));
        for network in model.networks.values().filter(|network| network.mode.has_router()) {
            for subnet in network.subnets.iter().filter(|subnet| subnet.net.contains(&transit)) {
                let title = format!("subnet {} of network {} holds {transit}", subnet.net, network.name);
                let span = definition.networks.get(&network.name).map_or(0..0, At::span);
                let host = &host.name;
                problems.push(Problem::new(span, title).help(format!(
                    "that is the transit network of host {host} by rule: choose another subnet, or say another transit \
                     in router.external of [host.{host}]"
                )));
            }
        }
    }
}

fn place(hosts: &crate::definition::Entries<HostName, crate::definition::HostDef>, name: &HostName) -> Range<usize> {
    hosts.get(name).map_or(0..0, At::span)
}
