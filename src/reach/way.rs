//! The way of a try's packets: the links that they pass by the model, in order. Pure.
//!
//! A way has a stretch for each segment. On each the packet goes from MAC to MAC, so on each a question goes before it
//! (who has the next hop?), and where that is not answered the packet itself never shows. What the model says is not
//! to be reached has no way; then the way is a guess, the sender's segment and the one of the target, and says where a
//! leak would show.
//!
//! Of several hosts the model is a view ([`crate::model::view`]) from the sender's: networks go by the names that the view
//! has for them, and points by those of the definition.

use std::net::IpAddr;

use super::path::{End, World};
use super::points::{Point, Question, Spot, Stretch};
use super::{Endpoint, Expectation, How, Position};
use crate::model::{External, HostExternal, Model, Network, Nic, OwnExternal, Router, Vm};
use crate::names::{HostName, NetName};

/// Where what is sent can be seen. `stands_in`: it is not the guest that sends but a probe in its position, in the run
/// of this number.
pub(super) fn way(model: &Model, expectation: &Expectation, stands_in: Option<u64>) -> Vec<Stretch> {
    let ways = Ways { model, world: World::new(model, &[]) };
    let stretches = match &expectation.from {
        Endpoint::Guest(name) => ways.guest_sends(&model.vms()[name], expectation, stands_in),
        gateway @ Endpoint::Gateway(..) => match gateway.network(model) {
            Some(network) => ways.gateway_sends(network, expectation),
            None => Vec::new(),
        },
        Endpoint::Host(host) => ways.host_sends(host.as_ref(), expectation),
        Endpoint::Outside => Vec::new(),
    };
    stretches.into_iter().filter(|stretch| !stretch.points.is_empty()).collect()
}

/// One end of a stretch: its host, and the points between it and the bridge, outermost first.
struct Side<'a> {
    network: &'a Network,
    host: Option<&'a HostName>,
    points: Vec<Point>,
}

struct Ways<'a> {
    model: &'a Model,
    world: World<'a>,
}

fn point(host: Option<&HostName>, spot: Spot) -> Point {
    Point { host: host.cloned(), spot }
}

impl<'a> Ways<'a> {
    fn router(&self) -> Option<&'a Router> {
        self.model.router().as_ref()
    }

    fn said(&self, network: &NetName) -> NetName {
        self.model.said(network).clone()
    }

    fn of_guest(&self, vm: &'a Vm, nic: usize, stands_in: bool) -> Side<'a> {
        let host = vm.host().as_ref();
        let tap = point(host, Spot::Tap { vm: vm.name().clone(), nic });
        let network = self.model.network_of(&vm.nics()[nic]);
        Side { network, host, points: if stands_in { Vec::new() } else { vec![tap] } }
    }

    /// The router's port in a network, from the inside; `None` where it has none.
    fn of_router(&self, network: &NetName) -> Option<Side<'a>> {
        self.router()?.ports().get(network)?;
        let host = self.model.gateway_host(network);
        let inner = point(host, Spot::RouterInner { network: self.said(network) });
        let outer = point(host, Spot::RouterOuter { network: self.said(network) });
        Some(Side { network: &self.model.networks()[network], host, points: vec![inner, outer] })
    }

    /// The bridge on a host, and with `wire` the way from it to the wire.
    fn bridge(&self, network: &Network, host: Option<&HostName>, wire: bool) -> Vec<Point> {
        let name = self.said(network.name());
        let mut points = vec![point(host, Spot::Bridge { network: name.clone() })];
        if let (true, Some(tagged)) = (wire, self.model.tagged_on(network, host)) {
            points.push(point(host, Spot::SubInterface { network: name }));
            points.push(point(host, Spot::Nic { uplink: tagged.uplink, vlan: Some(tagged.vlan) }));
        }
        points
    }

    /// From one to the other: over one bridge where both are on it, else over the wire.
    fn between(&self, from: Side<'_>, to: Side<'_>) -> Vec<Point> {
        let together = from.network.name() == to.network.name() && from.host == to.host;
        let mut points = from.points;
        points.extend(self.bridge(from.network, from.host, !together));
        if !together {
            points.extend(self.bridge(to.network, to.host, true).into_iter().rev());
        }
        points.extend(to.points.into_iter().rev());
        // Two networks on one uplink of one host: untagged, that would be the same point twice.
        points.dedup();
        points
    }

    /// From one onto the wire, where somebody else's machines are.
    fn away(&self, from: Side<'_>) -> Vec<Point> {
        let wire = self.bridge(from.network, from.host, true);
        from.points.into_iter().chain(wire).collect()
    }

    fn guest_sends(&self, vm: &'a Vm, expectation: &Expectation, run: Option<u64>) -> Vec<Stretch> {
        let trip = (expectation.how != How::L2).then(|| self.world.guest_sends(vm, expectation.address));
        let on = |nic: &Nic| Some(self.model.said(nic.network())) == expectation.network.as_ref();
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
        let on_link = vm.nics()[nic].is_on_link(target);
        let next_hop = trip.next_hop.or(if on_link { Some(target) } else { gateway.map(|(_, via)| *via) });
        let question = next_hop.map(|target| Question { by, target });
        if !trip.through_router {
            return vec![Stretch { points: self.directly(side, &trip.end, expectation), question }];
        }
        let Some(port) = self.of_router(side.network.name()) else { return Vec::new() };
        let at = port.host;
        let first = Stretch { points: self.between(side, port), question };
        std::iter::once(first).chain(self.beyond_router(at, &trip.end, expectation)).collect()
    }

    /// On the segment, as asked.
    fn directly(&self, side: Side<'a>, end: &End<'a>, expectation: &Expectation) -> Vec<Point> {
        match end {
            End::Guest { vm, nic } => self.between(side, self.of_guest(vm, *nic, false)),
            End::Router => match self.of_router(side.network.name()) {
                Some(port) => self.between(side, port),
                None => self.away(side),
            },
            End::Foreign | End::Outside => self.away(side),
            End::Lost(_) | End::Unclear(_) => self.toward(side, expectation),
        }
    }

    /// From a segment straight to the one who is tried, whatever lies between.
    fn toward(&self, side: Side<'a>, expectation: &Expectation) -> Vec<Point> {
        match self.of_target(expectation, Some(side.network.name())) {
            Some(target) => self.between(side, target),
            None if matches!(expectation.to, Endpoint::Host(_)) => {
                let bridge = self.bridge(side.network, side.host, false);
                side.points.into_iter().chain(bridge).collect()
            }
            None => self.away(side),
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
            gateway @ Endpoint::Gateway(..) => self.of_router(gateway.network(self.model)?),
            Endpoint::Host(_) | Endpoint::Outside => None,
        }
    }

    /// What the router on a host has taken in, on its further segments.
    fn beyond_router(&self, at: Option<&HostName>, end: &End<'a>, expectation: &Expectation) -> Vec<Stretch> {
        match end {
            End::Router => {
                let there = expectation.to.network(self.model).and_then(|network| self.model.gateway_host(network));
                self.to_router(at, there, expectation.address)
            }
            End::Guest { vm, nic } => self.arrival(at, self.of_guest(vm, *nic, false), expectation),
            End::Outside | End::Foreign | End::Lost(_) | End::Unclear(_) => {
                // Out, where the router knows no better; where it must not be it may show all the same.
                let target = self.of_target(expectation, None);
                let goes_out = matches!(end, End::Outside) || target.is_none();
                let from_host = matches!(expectation.from, Endpoint::Host(_));
                let out = if goes_out && !from_host { self.out(at, expectation.address) } else { None };
                let there = target.map(|target| self.arrival(at, target, expectation));
                out.into_iter().chain(there.into_iter().flatten()).collect()
            }
        }
    }

    /// Into a segment of the lab's, from the router where it has a port there; from one on another host by way of that
    /// host's.
    fn arrival(&self, at: Option<&HostName>, target: Side<'a>, expectation: &Expectation) -> Vec<Stretch> {
        let name = target.network.name().clone();
        match (self.router(), self.of_router(&name)) {
            (Some(router), Some(port)) => {
                let mut stretches = self.to_router(at, port.host, expectation.address);
                let question = Question { by: *router.ports()[&name].inner_mac(), target: expectation.address };
                stretches.push(Stretch { points: self.between(port, target), question: Some(question) });
                stretches
            }
            // What shows there all the same went another way.
            _ => {
                let bridge = self.bridge(target.network, target.host, true);
                vec![Stretch { points: bridge.into_iter().rev().chain(target.points).collect(), question: None }]
            }
        }
    }

    /// From the router on one host to that on another, each by its way outside. What lies between is not the lab's.
    fn to_router(&self, at: Option<&HostName>, there: Option<&HostName>, target: IpAddr) -> Vec<Stretch> {
        if at == there {
            return Vec::new();
        }
        let Some(external) = self.model.external_of(there) else { return Vec::new() };
        let question = match external {
            External::Host(host) => Some(asks_router(host)),
            External::None | External::Macvlan(_) | External::Vlan { .. } => None,
        };
        let via = match external {
            External::Macvlan(own) | External::Vlan { external: own, .. } => {
                own.addresses.iter().map(ipnet::IpNet::addr).find(|own| own.is_ipv4() == target.is_ipv4())
            }
            External::None | External::Host(_) => None,
        };
        let out = self.out(at, via.unwrap_or(target));
        let points = Self::outward(there, external).into_iter().rev().collect();
        out.into_iter().chain([Stretch { points, question }]).collect()
    }

    /// Out of the router by its external interface.
    fn outward(host: Option<&HostName>, external: &External) -> Vec<Point> {
        let last = match external {
            External::None => return Vec::new(),
            External::Host(_) => Spot::HostPort,
            External::Macvlan(own) => Spot::Nic { uplink: own.uplink.clone(), vlan: None },
            External::Vlan { vlan, external: own } => Spot::Nic { uplink: own.uplink.clone(), vlan: Some(*vlan) },
        };
        vec![point(host, Spot::Outside), point(host, last)]
    }

    fn out(&self, at: Option<&HostName>, target: IpAddr) -> Option<Stretch> {
        let external = self.model.external_of(at)?;
        let question = match external {
            External::None => return None,
            External::Host(host) => Some(Question { by: host.inner_mac, target: host.host_address().addr().into() }),
            External::Macvlan(own) | External::Vlan { external: own, .. } => {
                next_hop(own, target).map(|target| Question { by: own.mac, target })
            }
        };
        Some(Stretch { points: Self::outward(at, external), question })
    }

    fn gateway_sends(&self, network: &NetName, expectation: &Expectation) -> Vec<Stretch> {
        let Some(side) = self.of_router(network) else { return Vec::new() };
        let by = self.router().map(|router| *router.ports()[network].inner_mac());
        let question = by.map(|by| Question { by, target: expectation.address });
        vec![Stretch { points: self.toward(side, expectation), question }]
    }

    fn host_sends(&self, host: Option<&HostName>, expectation: &Expectation) -> Vec<Stretch> {
        let Some(external @ External::Host(through)) = self.model.external_of(host) else { return Vec::new() };
        // What is handed to the router is addressed already.
        let asks = expectation.how == How::L3;
        let first = Stretch {
            points: Self::outward(host, external).into_iter().rev().collect(),
            question: asks.then(|| asks_router(through)),
        };
        let end = self.world.router_forwards(expectation.address, host);
        std::iter::once(first).chain(self.beyond_router(host, &end, expectation)).collect()
    }
}

/// The host's question for the router behind it.
fn asks_router(host: &HostExternal) -> Question {
    Question { by: host.outer_mac, target: host.router_address().addr().into() }
}

fn next_hop(own: &OwnExternal, target: IpAddr) -> Option<IpAddr> {
    let gateway = own.gateways.iter().find(|gateway| gateway.is_ipv4() == target.is_ipv4());
    if own.addresses.iter().any(|net| net.contains(&target)) { Some(target) } else { gateway.copied() }
}
