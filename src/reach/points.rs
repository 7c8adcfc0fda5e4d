//! Where a packet of a try can be seen on its way: the links that it passes by the model, in order. Pure.
//!
//! A way has a stretch for each segment. On each the packet goes from MAC to MAC, so on each a question goes before it
//! (who has the next hop?), and where that is not answered the packet itself never shows. What the model says is not
//! to be reached has no way; then the way is a guess, the sender's segment and the one of the target, and says where a
//! leak would show.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::path::{End, World};
use super::{Endpoint, Expectation, How, Position};
use crate::model::{External, Model, Network, Nic, OUTSIDE, Router, Vm};
use crate::names::{IfName, Mac, NetName, UplinkName, VlanId, VmName};
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
    pub host: Option<String>,
    /// The link.
    #[serde(flatten)]
    pub spot: Spot,
}

/// Who is where, in a lab of several hosts. By default everybody is on the one host that there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Homes {
    /// The host of each guest.
    pub guests: BTreeMap<VmName, String>,
    /// The router's host.
    pub router: Option<String>,
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

/// Where what is sent can be seen. `stands_in`: it is not the guest that sends but a probe in its position, in the run
/// of this number.
pub(super) fn way(model: &Model, homes: &Homes, expectation: &Expectation, stands_in: Option<u64>) -> Vec<Stretch> {
    let ways = Ways { model, world: World::new(model, &[]), homes };
    let stretches = match &expectation.from {
        Endpoint::Guest(name) => ways.guest_sends(&model.vms()[name], expectation, stands_in),
        Endpoint::Gateway(network) => ways.gateway_sends(network, expectation),
        Endpoint::Host => ways.host_sends(expectation),
        Endpoint::Outside => Vec::new(),
    };
    stretches.into_iter().filter(|stretch| !stretch.points.is_empty()).collect()
}

/// One end of a stretch: its host, and the points between it and the bridge, outermost first.
struct Side<'a> {
    network: &'a Network,
    host: Option<String>,
    points: Vec<Point>,
}

struct Ways<'a> {
    model: &'a Model,
    world: World<'a>,
    homes: &'a Homes,
}

impl<'a> Ways<'a> {
    fn router(&self) -> Option<&'a Router> {
        self.model.router().as_ref()
    }

    fn of_guest(&self, vm: &Vm, nic: usize, stands_in: bool) -> Side<'a> {
        let host = self.homes.guests.get(vm.name()).cloned();
        let tap = Point { host: host.clone(), spot: Spot::Tap { vm: vm.name().clone(), nic } };
        let network = self.model.network_of(&vm.nics()[nic]);
        Side { network, host, points: if stands_in { Vec::new() } else { vec![tap] } }
    }

    /// The router's port in a network, from the inside; `None` where it has none.
    fn of_router(&self, network: &NetName) -> Option<Side<'a>> {
        self.router()?.ports().get(network)?;
        let host = self.homes.router.clone();
        let point = |spot| Point { host: host.clone(), spot };
        let inner = point(Spot::RouterInner { network: network.clone() });
        let outer = point(Spot::RouterOuter { network: network.clone() });
        Some(Side { network: &self.model.networks()[network], host, points: vec![inner, outer] })
    }

    /// The bridge on a host, and with `wire` the way from it to the wire.
    fn bridge(network: &Network, host: Option<&String>, wire: bool) -> Vec<Point> {
        let point = |spot| Point { host: host.cloned(), spot };
        let name = network.name().clone();
        let mut points = vec![point(Spot::Bridge { network: name.clone() })];
        if let (true, Some(tagged)) = (wire, network.tagged()) {
            points.push(point(Spot::SubInterface { network: name }));
            points.push(point(Spot::Nic { uplink: tagged.uplink.clone(), vlan: Some(tagged.vlan) }));
        }
        points
    }

    /// From one to the other: over one bridge where both are on it, else over the wire.
    fn between(from: Side<'_>, to: Side<'_>) -> Vec<Point> {
        let together = from.network.name() == to.network.name() && from.host == to.host;
        let mut points = from.points;
        points.extend(Self::bridge(from.network, from.host.as_ref(), !together));
        if !together {
            points.extend(Self::bridge(to.network, to.host.as_ref(), true).into_iter().rev());
        }
        points.extend(to.points.into_iter().rev());
        // Two networks on one uplink of one host: untagged, that would be the same point twice.
        points.dedup();
        points
    }

    /// From one onto the wire, where somebody else's machines are.
    fn away(from: Side<'_>) -> Vec<Point> {
        let wire = Self::bridge(from.network, from.host.as_ref(), true);
        from.points.into_iter().chain(wire).collect()
    }

    fn guest_sends(&self, vm: &'a Vm, expectation: &Expectation, run: Option<u64>) -> Vec<Stretch> {
        let trip = (expectation.how != How::L2).then(|| self.world.guest_sends(vm, expectation.address));
        let on = |nic: &Nic| Some(nic.network()) == expectation.network.as_ref();
        let nic = trip.as_ref().and_then(|trip| trip.nic).or_else(|| vm.nics().iter().position(on));
        let Some(nic) = nic else { return Vec::new() };
        let side = self.of_guest(vm, nic, run.is_some());
        let by = match run {
            Some(run) => Position::of(self.model, vm, vm.nics()[nic].network()).mac(self.model.lab(), run),
            None => *vm.nics()[nic].mac(),
        };
        let target = expectation.address;
        let Some(trip) = trip else {
            return vec![Stretch { points: self.toward(side, expectation), question: Some(Question { by, target }) }];
        };
        let routes = self.model.default_routes(vm);
        let gateway = routes.iter().find(|(on, via)| *on == nic && via.is_ipv4() == target.is_ipv4());
        let on_link = vm.nics()[nic].addresses().iter().any(|own| own.contains(&target));
        let next_hop = if on_link { Some(target) } else { gateway.map(|(_, via)| *via) };
        let question = next_hop.map(|target| Question { by, target });
        if !trip.through_router {
            return vec![Stretch { points: self.directly(side, &trip.end, expectation), question }];
        }
        let Some(port) = self.of_router(side.network.name()) else { return Vec::new() };
        let first = Stretch { points: Self::between(side, port), question };
        std::iter::once(first).chain(self.beyond_router(&trip.end, expectation)).collect()
    }

    /// On the segment, as asked.
    fn directly(&self, side: Side<'a>, end: &End<'_>, expectation: &Expectation) -> Vec<Point> {
        match end {
            End::Guest { vm, nic } => Self::between(side, self.of_guest(vm, *nic, false)),
            End::Router => match self.of_router(side.network.name()) {
                Some(port) => Self::between(side, port),
                None => Self::away(side),
            },
            End::Foreign | End::Outside => Self::away(side),
            End::Lost(_) | End::Unclear(_) => self.toward(side, expectation),
        }
    }

    /// From a segment straight to the one who is tried, whatever lies between.
    fn toward(&self, side: Side<'a>, expectation: &Expectation) -> Vec<Point> {
        match self.of_target(expectation, Some(side.network.name())) {
            Some(target) => Self::between(side, target),
            None if expectation.to == Endpoint::Host => {
                let bridge = Self::bridge(side.network, side.host.as_ref(), false);
                side.points.into_iter().chain(bridge).collect()
            }
            None => Self::away(side),
        }
    }

    /// Where the one who is tried has that address; `near` decides where two have it.
    fn of_target(&self, expectation: &Expectation, near: Option<&NetName>) -> Option<Side<'a>> {
        match &expectation.to {
            Endpoint::Guest(name) => {
                let vm = &self.model.vms()[name];
                let has = |nic: &Nic| nic.addresses().iter().any(|own| own.addr() == expectation.address);
                let here = |nic: &Nic| has(nic) && Some(nic.network()) == near;
                let nic = vm.nics().iter().position(here).or_else(|| vm.nics().iter().position(has))?;
                Some(self.of_guest(vm, nic, false))
            }
            Endpoint::Gateway(network) => self.of_router(network),
            Endpoint::Host | Endpoint::Outside => None,
        }
    }

    /// What the router has taken in, on its further segments.
    fn beyond_router(&self, end: &End<'_>, expectation: &Expectation) -> Vec<Stretch> {
        let out = || self.out(expectation.address);
        match end {
            End::Router => Vec::new(),
            End::Guest { vm, nic } => vec![self.arrival(self.of_guest(vm, *nic, false), expectation)],
            End::Outside | End::Foreign | End::Lost(_) | End::Unclear(_) => {
                // Out, where the router knows no better; where it must not be it may show all the same.
                let target = self.of_target(expectation, None);
                let goes_out = matches!(end, End::Outside) || target.is_none();
                let out = if goes_out && expectation.from != Endpoint::Host { out() } else { None };
                out.into_iter().chain(target.map(|target| self.arrival(target, expectation))).collect()
            }
        }
    }

    /// Into a segment of the lab's, from the router where it has a port there.
    fn arrival(&self, target: Side<'a>, expectation: &Expectation) -> Stretch {
        let name = target.network.name().clone();
        match (self.router(), self.of_router(&name)) {
            (Some(router), Some(port)) => {
                let question = Question { by: *router.ports()[&name].inner_mac(), target: expectation.address };
                Stretch { points: Self::between(port, target), question: Some(question) }
            }
            // What shows there all the same went another way.
            _ => {
                let bridge = Self::bridge(target.network, target.host.as_ref(), true);
                Stretch { points: bridge.into_iter().rev().chain(target.points).collect(), question: None }
            }
        }
    }

    /// Out of the router by its external interface.
    fn out(&self, target: IpAddr) -> Option<Stretch> {
        let external = self.router()?.external();
        let point = |spot| Point { host: self.homes.router.clone(), spot };
        Some(match external {
            External::None => return None,
            External::Host(host) => Stretch {
                points: vec![point(Spot::Outside), point(Spot::HostPort)],
                question: Some(Question { by: host.inner_mac, target: host.host_address().addr().into() }),
            },
            External::Macvlan(own) | External::Vlan { external: own, .. } => {
                let vlan = match external {
                    External::Vlan { vlan, .. } => Some(*vlan),
                    _ => None,
                };
                let nic = Spot::Nic { uplink: own.uplink.clone(), vlan };
                let on_link = own.addresses.iter().any(|net| net.contains(&target));
                let gateway = own.gateways.iter().find(|gateway| gateway.is_ipv4() == target.is_ipv4());
                let next_hop = if on_link { Some(target) } else { gateway.copied() };
                Stretch {
                    points: vec![point(Spot::Outside), point(nic)],
                    question: next_hop.map(|target| Question { by: own.mac, target }),
                }
            }
        })
    }

    fn gateway_sends(&self, network: &NetName, expectation: &Expectation) -> Vec<Stretch> {
        let Some(side) = self.of_router(network) else { return Vec::new() };
        let by = self.router().map(|router| *router.ports()[network].inner_mac());
        let question = by.map(|by| Question { by, target: expectation.address });
        vec![Stretch { points: self.toward(side, expectation), question }]
    }

    fn host_sends(&self, expectation: &Expectation) -> Vec<Stretch> {
        let Some(External::Host(host)) = self.router().map(Router::external) else { return Vec::new() };
        let point = |spot| Point { host: self.homes.router.clone(), spot };
        // What is handed to the router is addressed already.
        let asks = expectation.how == How::L3;
        let first = Stretch {
            points: vec![point(Spot::HostPort), point(Spot::Outside)],
            question: asks.then(|| Question { by: host.outer_mac, target: host.router_address().addr().into() }),
        };
        let end = self.world.router_forwards(expectation.address);
        std::iter::once(first).chain(self.beyond_router(&end, expectation)).collect()
    }
}
