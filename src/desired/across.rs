//! The ways to subnets whose gateways are on other hosts. Pure.
//!
//! Packets for them take the way that leads to the other host (or to its router, where that has an address of its own
//! outside), and arrive untranslated. Where a router stands in between, it must know them: no route of ours can do that
//! for it, so what it needs is said.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Refusal;
use super::context::Context;
use super::router::outside;
use crate::model::{Across, External, Mode, Model, OwnExternal, Router};
use crate::names::{HostName, IfName};
use crate::state::{Facts, FoundRoute, Ns, Route};

/// Subnets by the host that has their gateways, and its address.
type ByHost<'m> = BTreeMap<(&'m HostName, IpAddr), Vec<IpNet>>;

pub(super) fn ways(context: &mut Context<'_>) {
    let Some(router) = context.model.router() else { return };
    match router.external() {
        External::None => {}
        External::Host(_) => by_the_host(context),
        External::Macvlan(own) | External::Vlan { external: own, .. } => by_the_router(context, router, own),
    }
    routes_outside(context, router);
}

fn by_host(model: &Model, fits: impl Fn(&IpNet) -> bool) -> ByHost<'_> {
    let mut all = ByHost::new();
    for part in model.elsewhere().iter().filter(|part| fits(part.to())) {
        all.entry((part.host(), *part.via())).or_default().push(*part.to());
    }
    all
}

/// Through the host, which has routes of its own: IPv4 only, as all of that.
fn by_the_host(context: &mut Context<'_>) {
    let (model, facts) = (context.model, context.facts());
    let all = by_host(model, |net| net.addr().is_ipv4());
    let mut has_routes = false;
    for ((host, via), nets) in &all {
        let refuse = |problem: String| Refusal::NoWay { host: (*host).clone(), via: *via, problem };
        if is_here(facts, *via) {
            let here = model.here().as_ref().map_or("this one", HostName::as_str);
            let problem = format!("that is an address of this machine; is it host {host} rather than {here} (--here)?");
            context.refuse(refuse(problem));
            continue;
        }
        let Some((route, device)) = way_to(facts, *via) else {
            context.refuse(refuse("this host has no route to it; add one, or correct its underlay".to_owned()));
            continue;
        };
        let Ok(dev) = device.parse::<IfName>() else {
            let device = device.escape_default();
            context.refuse(refuse(format!("the way there is {device}, a name that vmnet can't write into rules")));
            continue;
        };
        if let Some(router) = route.via {
            behind_a_router(context, host, (*via, router), nets);
        }
        // Where the default route leads to the host, it leads to what is behind it, and may change by DHCP.
        if route.to.prefix_len() > 0 || route.via.is_none() {
            has_routes = true;
            let hop = route.via.unwrap_or(*via);
            let metric = context.group;
            let route = |to: &IpNet| Route { ns: Ns::Host, to: *to, via: Some(hop), dev: dev.clone(), metric };
            context.state.routes.extend(nets.iter().map(route));
        }
        context.ways.extend(nets.iter().map(|net| (dev.clone(), *net)));
    }
    if all.is_empty() {
        return;
    }
    let here = model.here().as_ref().and_then(|here| model.hosts().get(here));
    if let Some(underlay) = here.and_then(|here| *here.underlay()).filter(|underlay| !is_here(facts, *underlay)) {
        let text = "is no address of this machine, and the other hosts send there; correct it, or --here";
        context.note(format!("underlay {underlay}"), text);
    }
    if facts.networkd && has_routes {
        let text = "runs here, and when it starts again it removes routes that it does not know; vmnet create puts them \
                    back, ManageForeignRoutes=no in networkd.conf keeps them";
        context.note("systemd-networkd", text);
    }
}

/// By the router's own external address. What is not on its segment goes to its gateway, as everything does.
fn by_the_router(context: &mut Context<'_>, router: &Router, own: &OwnExternal) {
    let has = |ipv4: bool| own.addresses.iter().any(|net| net.addr().is_ipv4() == ipv4);
    for ((host, via), nets) in by_host(context.model, |net| has(net.addr().is_ipv4())) {
        if own.addresses.iter().any(|net| net.contains(&via)) {
            let ns = Ns::Named(router.namespace().clone());
            let route = |to| Route { ns: ns.clone(), to, via: Some(via), dev: outside(), metric: 0 };
            context.state.routes.extend(nets.into_iter().map(route));
        } else if let Some(gateway) = own.gateways.iter().find(|gateway| gateway.is_ipv4() == via.is_ipv4()) {
            behind_a_router(context, host, (via, *gateway), &nets);
        }
    }
}

fn behind_a_router(context: &mut Context<'_>, host: &HostName, (via, router): (IpAddr, IpAddr), nets: &[IpNet]) {
    let routes = routes(nets, via);
    context.note(
        format!("host {host}"),
        format!("is reached by way of {router}: each router from there to {via} needs the routes {routes}"),
    );
}

/// Who outside is to reach `routed` networks sends to the host that has the part.
fn routes_outside(context: &mut Context<'_>, router: &Router) {
    let model = context.model;
    let Some(host) = model.here().as_ref().and_then(|here| model.hosts().get(here)) else { return };
    let shared = model.networks().values().filter(|network| *network.across() == Across::Routed);
    let shared = shared.filter(|network| *network.mode() == Mode::Routed);
    let nets: Vec<IpNet> = shared.flat_map(|network| network.subnets()).map(|subnet| *subnet.net()).collect();
    let all: Vec<String> = [true, false]
        .into_iter()
        .filter_map(|ipv4| {
            let nets: Vec<IpNet> = nets.iter().filter(|net| net.addr().is_ipv4() == ipv4).copied().collect();
            let via = crate::model::next_hop(host, router.external(), ipv4)?;
            (!nets.is_empty()).then(|| routes(&nets, via))
        })
        .collect();
    if !all.is_empty() {
        let text = format!("machines outside reach this host's part by routes of their own: {}", all.join(", "));
        context.note("routes outside", text);
    }
}

/// Routes in words, as few as say it.
fn routes(nets: &[IpNet], via: IpAddr) -> String {
    let nets = IpNet::aggregate(&nets.to_vec());
    nets.iter().map(|net| format!("{net} via {via}")).collect::<Vec<_>>().join(", ")
}

/// The settings by which the host forwards what comes in toward a router that goes through it, by path below
/// `/proc/sys/net`: on devices with a default route, and on those that lead to other hosts of the lab.
pub fn forwarding(model: &Model, facts: &Facts) -> BTreeSet<String> {
    let through_host = model.router().as_ref().is_some_and(|router| matches!(router.external(), External::Host(_)));
    let hops: BTreeSet<IpAddr> = model.elsewhere().iter().filter(|_| through_host).map(|part| *part.via()).collect();
    let defaults = facts.routes.iter().filter(|route| route.to.prefix_len() == 0 && route.to.addr().is_ipv4());
    let devices = defaults.filter_map(|route| route.dev.as_deref());
    let toward = hops.into_iter().filter(|hop| hop.is_ipv4()).filter_map(|hop| Some(way_to(facts, hop)?.1));
    devices.chain(toward).map(|device| format!("ipv4/conf/{device}/forwarding")).collect()
}

/// The route that the kernel takes to an address, and its device: the narrowest, of equal ones the first (they are listed
/// in the order of their metrics).
fn way_to(facts: &Facts, to: IpAddr) -> Option<(&FoundRoute, &str)> {
    let routes = facts.routes.iter().rev().filter(|route| route.to.contains(&to));
    let with_device = routes.filter_map(|route| Some((route, route.dev.as_deref()?)));
    with_device.max_by_key(|(route, _)| route.to.prefix_len())
}

fn is_here(facts: &Facts, address: IpAddr) -> bool {
    facts.devices.values().any(|device| device.addresses.iter().any(|net| net.addr() == address))
}
