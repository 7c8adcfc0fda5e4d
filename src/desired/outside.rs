//! `via = "host"`: the one case that asks something of the host. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use super::collisions::owner;
use super::context::Context;
use super::router::{default_route, has_ipv6, outside};
use super::{Refusal, across};
use crate::model::{External, HostExternal, Mode, Router};
use crate::render::ETHERNET_MTU;
use crate::state::{Address, LinkId, LinkKind, Ns, Route, SettingKey};

pub(super) fn through_host(context: &mut Context<'_>) {
    let Some(router) = context.model.router() else { return };
    let External::Host(host) = router.external() else { return also_the_hosts(context) };
    transit(context, router, host);
    forwarding(context, host);
    subnets_are_free(context, host);
}

fn transit(context: &mut Context<'_>, router: &Router, host: &HostExternal) {
    let inner = LinkId::inside(router.namespace(), outside());
    let outer = LinkId::host(host.outer.clone());
    let kind = LinkKind::Veth { peer: Some(inner.clone()) };
    let outer_link = context.link(kind, host.outer_mac, ETHERNET_MTU, "transit", "host");
    let kind = LinkKind::Veth { peer: Some(outer.clone()) };
    let mut inner_link = context.link(kind, host.inner_mac, ETHERNET_MTU, "outside", "router");
    inner_link.ipv6 = has_ipv6(router);
    context.add_link(outer.clone(), outer_link);
    context.add_link(inner.clone(), inner_link);
    let addresses = [
        Address { link: outer, net: host.host_address().into() },
        Address { link: inner.clone(), net: host.router_address().into() },
    ];
    context.state.addresses.extend(addresses);
    context.state.routes.insert(default_route(&inner.ns, IpAddr::V4(host.host_address().addr())));
    // Routed networks keep their own addresses, and toward other hosts of the lab all do: the host needs a way back.
    let kept = |mode: Mode| mode == Mode::Routed || (mode.has_router() && !context.ways.is_empty());
    for network in context.model.networks().values().filter(|network| kept(*network.mode())) {
        for subnet in network.subnets().iter().filter(|subnet| subnet.net().addr().is_ipv4()) {
            context.state.routes.insert(Route {
                ns: Ns::Host,
                to: *subnet.net(),
                via: Some(IpAddr::V4(host.router_address().addr())),
                dev: host.outer.clone(),
                metric: 0,
            });
        }
    }
}

/// Forwarding where packets come in: on the veth, on every device with a default route, and on those toward other hosts
/// of the lab. Never the global switch, which would make a router of every interface of the host.
fn forwarding(context: &mut Context<'_>, host: &HostExternal) {
    let facts = context.facts();
    context.set(&Ns::Host, format!("ipv4/conf/{}/forwarding", host.outer), 1);
    for key in across::forwarding(context.model, facts) {
        let ours = context.host.found.contains_key(&SettingKey::sysctl(&Ns::Host, key.as_str()));
        if facts.sysctls.get(&key).is_none_or(|value| value != "1") || ours {
            context.set(&Ns::Host, key, 1);
        }
    }
    if !facts.routes.iter().any(|route| route.to.prefix_len() == 0 && route.to.addr().is_ipv4()) {
        context.note("router", "the host has no default route: guests reach the host's own networks at most");
    }
}

fn subnets_are_free(context: &mut Context<'_>, host: &HostExternal) {
    let transit = ("router.external: transit".to_owned(), host.transit.into());
    for (wanted, subnet) in std::iter::once(transit).chain(routed_subnets(context)).chain(subnets_elsewhere(context)) {
        if let Some((route, dev)) = route_of_the_host(context, &subnet) {
            context.refuse(Refusal::SubnetTaken { wanted, subnet, route, dev });
        }
    }
}

/// A router that does not go through the host has routes of its own: the same subnet on both sides works, and is
/// seldom meant.
fn also_the_hosts(context: &mut Context<'_>) {
    for (wanted, subnet) in routed_subnets(context).into_iter().chain(subnets_elsewhere(context)) {
        if let Some((route, dev)) = route_of_the_host(context, &subnet) {
            let text = format!(
                "{subnet} is the lab's, and this host has a route to {route}{dev}: they don't reach each other"
            );
            context.note(wanted, text);
        }
    }
}

/// The subnets that the router serves, each with what it is called.
fn routed_subnets(context: &Context<'_>) -> Vec<(String, IpNet)> {
    let networks = context.model.networks().values().filter(|network| network.mode().has_router());
    let subnets = networks.flat_map(|network| network.subnets().iter().map(move |subnet| (network, subnet)));
    subnets.map(|(network, subnet)| (format!("network {}: subnet", network.name()), *subnet.net())).collect()
}

/// The subnets whose gateways are on other hosts, each with what it is called.
fn subnets_elsewhere(context: &Context<'_>) -> Vec<(String, IpNet)> {
    let elsewhere = context.model.elsewhere().iter();
    elsewhere.map(|part| (format!("network {}: subnet on host {}", part.network(), part.host()), *part.to())).collect()
}

/// The host's own route that overlaps a subnet, and its device in words.
fn route_of_the_host(context: &Context<'_>, subnet: &IpNet) -> Option<(IpNet, String)> {
    let overlaps = |to: &IpNet| to.prefix_len() > 0 && (to.contains(subnet) || subnet.contains(to));
    let facts = context.facts();
    let route = facts.routes.iter().find(|route| overlaps(&route.to))?;
    let dev = route.dev.as_ref().map_or_else(String::new, |dev| {
        let alias = facts.devices.get(dev).and_then(|device| device.alias.as_deref());
        format!(" on {}{}", dev.escape_default(), owner(alias))
    });
    Some((route.to, dev))
}
