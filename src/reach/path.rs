//! Where a packet goes: a guest's routes, the router's, and who holds an address on a segment. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Expect;
use crate::model::{External, Mode, Model, Network, Nic, OwnExternal, Router, Vm};
use crate::names::HostName;

/// Where a packet ends.
#[derive(Debug)]
pub(super) enum End<'a> {
    /// At a guest, which it enters by this nic.
    Guest { vm: &'a Vm, nic: usize },
    /// At the router, which holds the address.
    Router,
    /// Beyond the router's external interface.
    Outside,
    /// On a bridged segment or beyond its gateway: somebody else's machines.
    Foreign,
    /// Nowhere.
    Lost(&'static str),
    /// The model does not say.
    Unclear(&'static str),
}

/// A packet's way.
#[derive(Debug)]
pub(super) struct Trip<'a> {
    /// The nic it leaves its sender by; `None` when it can't.
    pub nic: Option<usize>,
    /// The address it is sent from, as Linux chooses it: the one of that nic that the next hop shares a subnet with.
    pub source: Option<IpAddr>,
    /// Whom its first frame is for; `None` when it can't leave.
    pub next_hop: Option<IpAddr>,
    /// Whether the lab's router forwards it.
    pub through_router: bool,
    /// The host of the router that it comes to first, where there are several hosts.
    pub router: Option<&'a HostName>,
    /// Where it ends.
    pub end: End<'a>,
}

/// A guest's choice for a destination.
enum Choice {
    OnLink(usize),
    Via(usize, IpAddr),
    None,
    Unclear(&'static str),
}

/// The model, with what is asked of it again and again.
pub(super) struct World<'a> {
    pub model: &'a Model,
    /// The networks that the host has routes to.
    host_routes: &'a [IpNet],
}

impl<'a> World<'a> {
    pub(super) fn new(model: &'a Model, host_routes: &'a [IpNet]) -> Self {
        Self { model, host_routes }
    }

    pub(super) fn network(&self, nic: &Nic) -> &'a Network {
        self.model.network_of(nic)
    }

    /// Follows a packet from a guest.
    pub(super) fn guest_sends(&self, vm: &'a Vm, to: IpAddr) -> Trip<'a> {
        match self.choose(vm, to) {
            Choice::OnLink(nic) => {
                let end = self.on_segment(self.network(&vm.nics()[nic]), to);
                let source = source(vm, nic, to);
                Trip { nic: Some(nic), source, next_hop: Some(to), through_router: false, router: None, end }
            }
            Choice::Via(nic, gateway) => self.by_gateway(vm, nic, gateway, to),
            Choice::None => nowhere(End::Lost("no route to it")),
            Choice::Unclear(why) => nowhere(End::Unclear(why)),
        }
    }

    fn by_gateway(&self, vm: &'a Vm, nic: usize, via: IpAddr, to: IpAddr) -> Trip<'a> {
        let network = self.network(&vm.nics()[nic]);
        let is_gateway = network.subnets().iter().any(|subnet| *subnet.gateway() == Some(via));
        let through_router = is_gateway && network.mode().has_router();
        let router = self.model.gateway_host(network.name());
        let end = match is_gateway {
            true if through_router => self.router_forwards(to, router),
            true => End::Foreign,
            // A next hop that a route of the guest's own names.
            false => match self.on_segment(network, via) {
                End::Guest { .. } | End::Router => End::Unclear("its way leads through another guest"),
                end => end,
            },
        };
        Trip { nic: Some(nic), source: source(vm, nic, via), next_hop: Some(via), through_router, router, end }
    }

    /// Longest matching prefix, on link or by a route of the guest's own, else the default route of that family.
    fn choose(&self, vm: &Vm, to: IpAddr) -> Choice {
        let mut best: Option<(u8, usize)> = None;
        let mut tie = false;
        for (number, nic) in vm.nics().iter().enumerate() {
            for address in nic.addresses().iter().filter(|address| address.contains(&to)) {
                let length = address.prefix_len();
                match best {
                    Some((longest, other)) if longest == length => tie |= other != number,
                    Some((longest, _)) if longest > length => {}
                    _ => (best, tie) = (Some((length, number)), false),
                }
            }
        }
        let asks = |nic: &&Nic| is_asked_for(vm, nic, to);
        let of_network = |nic: &Nic| self.network(nic).subnets().iter().any(|subnet| subnet.net().contains(&to));
        if vm.nics().iter().filter(asks).any(of_network) {
            return Choice::Unclear("a nic of the sender has an address of its subnet that is not known");
        }
        if tie {
            return Choice::Unclear("two nics of the sender share its subnet");
        }
        let routes = vm.nics().iter().enumerate();
        let routes = routes.flat_map(|(number, nic)| nic.further_routes().map(move |route| (number, route)));
        let route = routes.filter(|(_, route)| route.to.contains(&to)).max_by_key(|(_, route)| route.to.prefix_len());
        match (best, route) {
            (Some((on_link, _)), Some((nic, route))) if route.to.prefix_len() > on_link => {
                return Choice::Via(nic, route.via);
            }
            (Some((_, nic)), _) => return Choice::OnLink(nic),
            (None, Some((nic, route))) => return Choice::Via(nic, route.via),
            (None, None) => {}
        }
        let mut defaults = self.model.default_routes(vm).into_iter();
        let default = defaults.find(|(_, gateway)| gateway.is_ipv4() == to.is_ipv4());
        // What a DHCP server or a router's advertisement brings leads to the lab's own subnets only where nothing else does.
        let asks = vm.nics().iter().any(|nic| asks(&nic));
        match default {
            Some((nic, gateway)) if !asks || self.is_of_the_lab(to) => Choice::Via(nic, gateway),
            _ if asks => Choice::Unclear("the sender has routes from its segment that are not known"),
            _ => Choice::None,
        }
    }

    /// Whether an address is in a subnet of one of the lab's networks.
    fn is_of_the_lab(&self, address: IpAddr) -> bool {
        let mut subnets = self.model.networks().values().flat_map(|network| network.subnets());
        subnets.any(|subnet| subnet.net().contains(&address))
    }

    /// Who answers for an address on a segment.
    fn on_segment(&self, network: &'a Network, address: IpAddr) -> End<'a> {
        let mut elsewhere = false;
        for vm in self.model.vms().values() {
            let here = |nic: &Nic| nic.network() == network.name();
            if let Some(nic) = vm.nics().iter().position(|nic| here(nic) && holds(nic, address)) {
                return End::Guest { vm, nic };
            }
            elsewhere |= vm.nics().iter().any(here) && vm.nics().iter().any(|nic| holds(nic, address));
        }
        let port = self.router().and_then(|router| router.ports().get(network.name()));
        if port.is_some_and(|port| port.addresses().iter().any(|own| own.addr() == address)) {
            return End::Router;
        }
        if *network.mode() == Mode::Bridged {
            return End::Foreign;
        }
        let asks = |vm: &Vm, nic: &Nic| nic.network() == network.name() && is_asked_for(vm, nic, address);
        if self.model.vms().values().any(|vm| vm.nics().iter().any(|nic| asks(vm, nic))) {
            return End::Unclear("a guest there has an address that is not known");
        }
        if elsewhere {
            return End::Unclear("a guest here has it on another nic, and may answer for it");
        }
        End::Lost("its subnet is on the sender's own network, where nobody has it")
    }

    /// Follows a packet that the router forwards. Those of several hosts forward as if they were one, and each has a way
    /// to the outside of its own.
    pub(super) fn router_forwards(&self, to: IpAddr, at: Option<&HostName>) -> End<'a> {
        let Some(router) = self.router() else { return End::Lost("there is no router") };
        let ports = || router.ports().iter();
        if ports().any(|(_, port)| port.addresses().iter().any(|own| own.addr() == to)) {
            return End::Router;
        }
        let connected = ports()
            .flat_map(|(name, port)| port.addresses().iter().map(move |own| (name, own)))
            .filter(|(_, own)| own.contains(&to))
            .max_by_key(|(_, own)| own.prefix_len());
        if let Some((name, _)) = connected {
            return self.on_segment(&self.model.networks()[name], to);
        }
        match self.model.external_of(at).unwrap_or(router.external()) {
            External::None => End::Lost("the router has no way outside"),
            External::Host(host) if to == IpAddr::V4(host.router_address().addr()) => End::Router,
            External::Host(_) if to.is_ipv4() => End::Outside,
            External::Host(_) => End::Lost("the router has no way outside for IPv6"),
            External::Macvlan(own) | External::Vlan { external: own, .. } => beyond(own, to),
        }
    }

    /// Whether the answer to a request that entered `vm` by `nic` finds its way back.
    pub(super) fn reply(&self, asker: &Vm, request: &Trip<'_>, vm: &'a Vm, nic: usize) -> (Expect, &'static str) {
        let Some(source) = request.source else { return (Expect::Unknown, "the sender's address is not certain") };
        let back = self.guest_sends(vm, source);
        if let End::Lost(_) = back.end {
            return (Expect::Deny, "it has no route back");
        }
        let home = matches!(back.end, End::Guest { vm, nic } if vm.name() == asker.name() && Some(nic) == request.nic);
        if !home || back.nic != Some(nic) || back.through_router != request.through_router {
            return (Expect::Unknown, "its answer takes another way");
        }
        match (request.through_router, request.nic) {
            (false, _) => (Expect::Reach, "same network and subnet"),
            (true, _) => (Expect::Reach, "through the router"),
        }
    }

    /// Whether the host reaches a guest of a routed network, and hears it.
    pub(super) fn host_asks(&self, vm: &'a Vm, to: IpAddr, source: IpAddr) -> (Expect, &'static str) {
        match self.router_forwards(to, self.model.here().as_ref()) {
            End::Guest { vm: other, nic } if other.name() == vm.name() => {
                let back = self.guest_sends(vm, source);
                if back.nic == Some(nic) && matches!(back.end, End::Outside) {
                    (Expect::Reach, "the host has a route to it")
                } else {
                    (Expect::Unknown, "its answer takes another way")
                }
            }
            _ => (Expect::Unknown, "another machine has this address there"),
        }
    }

    /// Who else answers from a network with a way in, where a packet for an address of one without is handed to the
    /// router: both may have the same subnet.
    pub(super) fn who_else_answers(&self, to: IpAddr) -> Option<&'static str> {
        match self.router_forwards(to, self.model.here().as_ref()) {
            End::Guest { vm, nic } if *self.network(&vm.nics()[nic]).mode() == Mode::Routed => {
                Some("another guest has this address there")
            }
            End::Router => Some("the router has this address"),
            End::Unclear(why) => Some(why),
            End::Guest { .. } | End::Outside | End::Foreign | End::Lost(_) => None,
        }
    }

    /// Whether a network outside, which the router or its host is on, holds the address: a machine there may have it.
    pub(super) fn is_next_door(&self, address: IpAddr, at: Option<&HostName>) -> bool {
        match self.model.external_of(at) {
            Some(External::Macvlan(own) | External::Vlan { external: own, .. }) => {
                own.addresses.iter().any(|net| net.contains(&address))
            }
            // What another host has routes to is not known here.
            Some(External::Host(_)) if at != self.model.here().as_ref() => true,
            Some(External::Host(_)) => self.host_routes.iter().any(|net| net.contains(&address)),
            Some(External::None) | None => false,
        }
    }

    /// Whether the way outside of the router that a packet came to leads through this host.
    pub(super) fn through_host(&self, trip: &Trip<'_>) -> bool {
        let here = self.model.here().as_ref();
        trip.router == here && self.model.external_of(here).is_some_and(|way| matches!(way, External::Host(_)))
    }

    fn router(&self) -> Option<&'a Router> {
        self.model.router().as_ref()
    }
}

fn nowhere(end: End<'_>) -> Trip<'_> {
    Trip { nic: None, source: None, next_hop: None, through_router: false, router: None, end }
}

fn beyond<'a>(own: &OwnExternal, to: IpAddr) -> End<'a> {
    if own.addresses.iter().any(|address| address.addr() == to) {
        return End::Router;
    }
    let connected = own.addresses.iter().any(|address| address.contains(&to));
    let next_hop = own.gateways.iter().any(|gateway| gateway.is_ipv4() == to.is_ipv4());
    if connected || next_hop { End::Outside } else { End::Lost("the router has no way outside for it") }
}

/// Whether a nic has addresses of a family from its segment. A namespace asks nobody.
fn is_asked_for(vm: &Vm, nic: &Nic, family: IpAddr) -> bool {
    vm.engine().is_machine() && nic.automatic().of(family.is_ipv4())
}

fn holds(nic: &Nic, address: IpAddr) -> bool {
    nic.addresses().iter().any(|own| own.addr() == address)
}

/// The address that Linux sends from: that of the nic whose subnet holds the next hop (`inet_select_addr`).
fn source(vm: &Vm, nic: usize, next_hop: IpAddr) -> Option<IpAddr> {
    let mut addresses = vm.nics()[nic].addresses().iter();
    addresses.find(|address| address.contains(&next_hop)).map(|address| address.addr())
}
