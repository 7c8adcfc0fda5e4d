//! Who may reach whom, and who must not: derived from the [`Model`] alone. Pure.
//!
//! What `verify` compares with. Every guest is taken as a Linux host with its nics, addresses, on-link prefixes and
//! default routes ([`Model::default_routes`]), the router as one with a port in each of its networks; a packet is
//! followed from its sender to whoever holds the address, and its reply back (`path`). An expectation is `Reach` or
//! `Deny` only where that leaves no doubt:
//!
//! - a reply that leaves by another nic than the request came in by depends on the guest's reverse-path filter, so it
//!   is `Unknown`; so is an address that Linux would answer for on a nic that does not have it (weak host model);
//! - what a bridged segment or the world beyond the external interface does is nobody's word in the definition, so
//!   that is `Unknown` too, except that nothing from there may reach an `isolated` or `nat` network;
//! - the next hop beyond an external interface with addresses of its own is expected to answer echo requests.
//!
//! Of several hosts the model is the view of the whole lab from one of them ([`crate::model::view`]): what is expected are
//! the tries of that host's own senders, at whom they try anywhere. All hosts together try everything once.
//!
//! Cost: the square of the number of addresses, in time and in expectations. A few hundred guests are fine.

mod asserted;
mod compare;
mod endpoint;
mod junit;
mod path;
pub mod points;
mod position;
mod table;
pub mod trace;
mod way;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use crate::kinds::Service;
pub use compare::{Report, Row, Seen, Totals, Traces, Verdict};
pub use endpoint::{ASKED, Endpoint, How};
pub use position::{Position, free_addresses};

use crate::model::{Bridge, External, Mode, Model, Network, RouterPort, Vm};
use crate::names::{Mac, NetName};
use path::{End, Trip, World};

/// What the model says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// It must be reached.
    Reach,
    /// It must not be reached.
    Deny,
    /// The model does not say.
    Unknown,
}

/// One thing to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expectation {
    /// Who tries.
    pub from: Endpoint,
    /// Whom.
    pub to: Endpoint,
    /// At which address.
    pub address: IpAddr,
    /// How.
    pub how: How,
    /// The network by which a guest's packet leaves it, as the definition calls it; `None` for other senders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetName>,
    /// The MACs of the one who is tried, as far as they are ours: an answer on the segment from any other machine
    /// (the same address may live on another one) is no answer.
    #[serde(skip)]
    pub macs: Vec<Mac>,
    /// What should come of it.
    pub expect: Expect,
    /// Why, in a few words.
    pub why: &'static str,
}

/// Addresses that the definition does not hold but the caller knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Addresses of the host that runs the lab.
    pub host: Vec<IpAddr>,
    /// Addresses beyond the external interface, of machines that answer echo requests.
    pub outside: Vec<IpAddr>,
    /// Networks that the host has routes to: with `via = "host"` a machine there may have any of their addresses.
    pub routes: Vec<IpNet>,
}

/// Everything to try in a lab, ordered by sender; of a view, what its host's senders try.
pub fn expectations(model: &Model, known: &Known) -> Vec<Expectation> {
    let world = World::new(model, &known.routes);
    let targets = targets(model, known);
    let mut all = Vec::new();
    for vm in model.vms().values().filter(|vm| vm.host() == model.here()) {
        let from = Endpoint::Guest(vm.name().clone());
        for target in targets.iter().filter(|target| target.endpoint != from) {
            all.extend(on_segments(model, vm, target));
            all.extend(by_routes(&world, vm, target));
        }
    }
    from_gateways(model, &mut all);
    from_outside(&world, &targets, &mut all);
    asserted::add(&world, &mut all);
    all
}

/// Whether the gateways of a network are this host's.
fn is_gateway_here(model: &Model, network: &NetName) -> bool {
    model.gateway_host(network) == model.here().as_ref()
}

/// Every guest answers its gateway: the one row in which a machine that others stand in for has to show itself.
fn from_gateways(model: &Model, all: &mut Vec<Expectation>) {
    let Some(router) = model.router() else { return };
    for (name, port) in router.ports().iter().filter(|(name, _)| is_gateway_here(model, name)) {
        for vm in model.vms().values() {
            for nic in vm.nics().iter().filter(|nic| nic.network() == name) {
                let reachable = |net: &&IpNet| port.addresses().iter().any(|own| own.contains(&net.addr()));
                all.extend(nic.addresses().iter().filter(reachable).map(|net| Expectation {
                    from: Endpoint::gateway(model, name),
                    to: Endpoint::Guest(vm.name().clone()),
                    address: net.addr(),
                    how: How::L2,
                    network: None,
                    macs: vec![*nic.mac()],
                    expect: Expect::Reach,
                    why: "on the gateway's segment",
                }));
            }
        }
    }
}

/// An address and whose it is.
struct Target {
    endpoint: Endpoint,
    address: IpAddr,
    /// The network it is on; `None` beyond the router.
    network: Option<NetName>,
    macs: Vec<Mac>,
}

fn targets(model: &Model, known: &Known) -> Vec<Target> {
    let mut all = Vec::new();
    for vm in model.vms().values() {
        let macs: Vec<Mac> = vm.nics().iter().map(|nic| *nic.mac()).collect();
        for (_, nic, network) in model.nics(vm) {
            for address in nic.addresses() {
                all.push(Target {
                    endpoint: Endpoint::Guest(vm.name().clone()),
                    address: address.addr(),
                    network: Some(network.name().clone()),
                    macs: macs.clone(),
                });
            }
        }
    }
    for network in model.networks().values() {
        for gateway in network.subnets().iter().filter_map(|subnet| *subnet.gateway()) {
            all.push(Target {
                endpoint: Endpoint::gateway(model, network.name()),
                address: gateway,
                network: Some(network.name().clone()),
                macs: if network.mode().has_router() { router_macs(model) } else { Vec::new() },
            });
        }
    }
    let beyond =
        |endpoint: &Endpoint, address| Target { endpoint: endpoint.clone(), address, network: None, macs: Vec::new() };
    let mut outside = known.outside.clone();
    let mut host = known.host.clone();
    match model.router().as_ref().map(|router| router.external()) {
        Some(External::Host(external)) => host.push(IpAddr::V4(external.host_address().addr())),
        Some(External::Macvlan(external) | External::Vlan { external, .. }) => outside.extend(&external.gateways),
        Some(External::None) | None => {}
    }
    for addresses in [&mut host, &mut outside] {
        addresses.sort_unstable();
        addresses.dedup();
    }
    let here = Endpoint::Host(model.here().clone());
    all.extend(host.into_iter().map(|address| beyond(&here, address)));
    all.extend(outside.into_iter().map(|address| beyond(&Endpoint::Outside, address)));
    all
}

fn router_macs(model: &Model) -> Vec<Mac> {
    let ports = model.router().as_ref().map(|router| router.ports());
    ports.into_iter().flat_map(|ports| ports.values().map(RouterPort::inner_mac)).copied().collect()
}

/// What a guest finds on the segments it is on. Only what is certain: no `Unknown` here.
fn on_segments(model: &Model, vm: &Vm, target: &Target) -> Vec<Expectation> {
    let theirs = target.network.as_ref().map(|name| &model.networks()[name]);
    let mut segments: Vec<&Network> = Vec::new();
    for (_, _, network) in model.nics(vm) {
        if !segments.iter().any(|other| other.name() == network.name()) {
            segments.push(network);
        }
    }
    let expectation = |network: &Network| {
        let (macs, expect, why) = match theirs {
            Some(theirs) => {
                let (expect, why) = on_segment(model, network, theirs, target)?;
                (target.macs.clone(), expect, why)
            }
            None => (host_macs(network, target)?, Expect::Deny, "the host has no address on the bridge"),
        };
        Some(Expectation {
            from: Endpoint::Guest(vm.name().clone()),
            to: target.endpoint.clone(),
            address: target.address,
            how: How::L2,
            network: Some(model.said(network.name()).clone()),
            macs,
            expect,
            why,
        })
    };
    segments.into_iter().filter_map(expectation).collect()
}

/// The MAC that the host would answer with on a segment: its bridge's. `None` where the bridge is not ours.
fn host_macs(network: &Network, target: &Target) -> Option<Vec<Mac>> {
    match (network.bridge(), &target.endpoint) {
        (Bridge::Own { mac, .. }, Endpoint::Host(_)) => Some(vec![*mac]),
        _ => None,
    }
}

fn on_segment(model: &Model, ours: &Network, theirs: &Network, target: &Target) -> Option<(Expect, &'static str)> {
    if target.macs.is_empty() {
        // The gateway of a bridged segment is somebody else's machine.
        return None;
    }
    if ours.name() == theirs.name() {
        return Some((Expect::Reach, "same network"));
    }
    let both_bridged = *ours.mode() == Mode::Bridged && *theirs.mode() == Mode::Bridged;
    let weak_host = match &target.endpoint {
        // It has a nic here too, and Linux answers for every address it has unless `arp_ignore` says otherwise.
        Endpoint::Guest(name) => model.vms()[name].nics().iter().any(|nic| nic.network() == ours.name()),
        // The router answers for an address on its own port only (`arp_ignore` is 1 in it).
        Endpoint::Gateway(..) | Endpoint::Host(_) | Endpoint::Outside => false,
    };
    (!both_bridged && !weak_host).then_some((Expect::Deny, "different networks"))
}

/// What a guest reaches by its routes.
fn by_routes(world: &World<'_>, vm: &Vm, target: &Target) -> Option<Expectation> {
    let same_family = vm.nics().iter().flat_map(|nic| nic.addresses());
    if !same_family.clone().any(|address| address.addr().is_ipv4() == target.address.is_ipv4()) {
        // A guest without an address of that family has nothing to send from.
        return None;
    }
    let trip = world.guest_sends(vm, target.address);
    let (expect, why) = judge(world, vm, target, &trip);
    // Without a route a packet leaves by no nic; it is tried from the first that has an address of that family.
    let nic = trip.nic.unwrap_or_else(|| {
        let has =
            |nic: &crate::model::Nic| nic.addresses().iter().any(|a| a.addr().is_ipv4() == target.address.is_ipv4());
        vm.nics().iter().position(has).unwrap_or(0)
    });
    Some(Expectation {
        from: Endpoint::Guest(vm.name().clone()),
        to: target.endpoint.clone(),
        address: target.address,
        how: How::L3,
        network: Some(world.model.said(vm.nics()[nic].network()).clone()),
        macs: target.macs.clone(),
        expect,
        why,
    })
}

fn judge(world: &World<'_>, vm: &Vm, target: &Target, trip: &Trip<'_>) -> (Expect, &'static str) {
    match (&trip.end, &target.endpoint) {
        (End::Guest { vm: other, nic }, Endpoint::Guest(name)) if other.name() == name => {
            world.reply(vm, trip, other, *nic)
        }
        (End::Guest { .. }, _) => (Expect::Unknown, "another guest has this address there"),
        (End::Router, Endpoint::Gateway(..)) if trip.through_router => (Expect::Reach, "through the router"),
        (End::Router, Endpoint::Gateway(..)) => (Expect::Reach, "its own gateway"),
        (End::Router, _) => (Expect::Unknown, "the router has this address"),
        (End::Outside, endpoint) => beyond(world, vm, target, trip, endpoint),
        (End::Foreign, _) => foreign(world, target, trip),
        (End::Lost(why), _) => (Expect::Deny, why),
        (End::Unclear(why), _) => (Expect::Unknown, why),
    }
}

/// The packet left by the external interface.
fn beyond(world: &World<'_>, vm: &Vm, target: &Target, trip: &Trip<'_>, endpoint: &Endpoint) -> (Expect, &'static str) {
    let translated = trip.nic.is_some_and(|nic| *world.network(&vm.nics()[nic]).mode() == Mode::Nat);
    match endpoint {
        Endpoint::Guest(_) | Endpoint::Gateway(..) => foreign(world, target, trip),
        Endpoint::Host(_) if world.through_host(trip) => (Expect::Reach, "the host is the router's next hop"),
        Endpoint::Host(_) => (Expect::Unknown, "depends on machines that are not the lab's"),
        Endpoint::Outside if translated => (Expect::Reach, "through the router, translated"),
        Endpoint::Outside => (Expect::Unknown, "needs a route back outside"),
    }
}

/// The packet went where the definition has no word.
fn foreign(world: &World<'_>, target: &Target, trip: &Trip<'_>) -> (Expect, &'static str) {
    let mode = target.network.as_ref().map(|name| *world.model.networks()[name].mode());
    match (mode, &target.endpoint) {
        (Some(Mode::Isolated), _) if world.is_next_door(target.address, trip.router) => {
            (Expect::Unknown, "a machine outside may have this address")
        }
        (Some(Mode::Isolated), _) => (Expect::Deny, "isolated"),
        (Some(Mode::Nat), Endpoint::Guest(_)) => (Expect::Deny, "no way in from outside"),
        _ => (Expect::Unknown, "depends on machines that are not the lab's"),
    }
}

/// What is tried from beyond the external interface, or by the host where that is the router's next hop.
fn from_outside(world: &World<'_>, targets: &[Target], all: &mut Vec<Expectation>) {
    let model = world.model;
    let has_way_out = model.here().is_none() || model.gateway_hosts().any(|host| Some(host) == model.here().as_ref());
    let external = model.router().as_ref().filter(|_| has_way_out).map(|router| router.external());
    let (from, source) = match external {
        Some(External::Host(host)) => {
            (Endpoint::Host(model.here().clone()), Some(IpAddr::V4(host.host_address().addr())))
        }
        Some(External::Macvlan(_) | External::Vlan { .. }) => (Endpoint::Outside, None),
        Some(External::None) | None => return,
    };
    for target in targets {
        if source.is_some_and(|source| source.is_ipv4() != target.address.is_ipv4()) {
            continue;
        }
        let Some(network) = &target.network else { continue };
        // What is outside for all of them is tried at each router's own networks.
        if source.is_none() && !asked_outside(model, network) {
            continue;
        }
        let Some((how, expect, why)) = asked_from_outside(world, target, network, source) else { continue };
        all.push(Expectation {
            from: from.clone(),
            to: target.endpoint.clone(),
            address: target.address,
            how,
            network: None,
            macs: target.macs.clone(),
            expect,
            why,
        });
    }
}

/// Whether it is this host's router at which the outside is tried for a network: its own; of those without gateways, the
/// first one's.
fn asked_outside(model: &Model, network: &NetName) -> bool {
    match model.gateway_host(network) {
        None => model.gateway_hosts().next() == model.here().as_ref(),
        host => host == model.here().as_ref(),
    }
}

fn asked_from_outside(
    world: &World<'_>,
    target: &Target,
    network: &NetName,
    source: Option<IpAddr>,
) -> Option<(How, Expect, &'static str)> {
    let model = world.model;
    let mode = *model.networks()[network].mode();
    Some(match (&target.endpoint, mode) {
        (_, Mode::Bridged) | (Endpoint::Gateway(..), Mode::Nat) => return None,
        (Endpoint::Gateway(..) | Endpoint::Guest(_), Mode::Routed)
            if source.is_some() && !is_gateway_here(model, network) =>
        {
            (How::L3, Expect::Unknown, "by way of another host")
        }
        (Endpoint::Gateway(..), _) if source.is_some() => (How::L3, Expect::Reach, "the host has a route to it"),
        (Endpoint::Guest(name), Mode::Routed) => match source {
            Some(source) => {
                let (expect, why) = world.host_asks(&model.vms()[name], target.address, source);
                (How::L3, expect, why)
            }
            None => (How::L3, Expect::Unknown, "needs a route outside"),
        },
        (Endpoint::Guest(_), Mode::Nat) => (How::Forced, Expect::Deny, "no way in from outside"),
        (Endpoint::Guest(_), Mode::Isolated) => match world.who_else_answers(target.address) {
            Some(why) => (How::Forced, Expect::Unknown, why),
            None => (How::Forced, Expect::Deny, "isolated"),
        },
        (Endpoint::Gateway(..) | Endpoint::Host(_) | Endpoint::Outside, _) => return None,
    })
}

#[cfg(test)]
mod tests;
