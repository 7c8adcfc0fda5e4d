//! What a nic says of its way out: routes of its own, its network's gateway, name servers. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;
use serde::Serialize;

use super::address::{special, unusable};
use super::segment::name_servers;
use super::{Model, Network, Nic, Subnet, Vm};
use crate::definition::{At, Key, NicDef, Problem, Problems, RouteDef};
use crate::kinds::{Mode, NicAddress};
use crate::names::{DomainName, VmName};

/// A route of a nic. To `0.0.0.0/0` or `::/0` it is the guest's default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ExtraRoute {
    /// The destination.
    pub to: IpNet,
    /// The next hop, on a subnet of the nic's.
    pub via: IpAddr,
}

/// Which families a nic asks its segment for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Automatic {
    /// IPv4, by DHCP.
    pub dhcp: bool,
    /// IPv6, by router advertisements.
    pub slaac: bool,
}

impl Automatic {
    /// It has all its addresses from the definition.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a family's addresses are not known here.
    pub fn of(self, ipv4: bool) -> bool {
        if ipv4 { self.dhcp } else { self.slaac }
    }
}

/// What a nic asks for: as it says, else everything on a physical segment whose subnets are not said.
pub(super) fn automatic(def: &NicDef, network: &Network, subnets: &[Subnet], problems: &mut Problems) -> Automatic {
    if def.addresses.is_missing() {
        let asks = network.mode == Mode::Bridged && subnets.is_empty();
        return Automatic { dhcp: asks, slaac: asks };
    }
    let mut found = Automatic::default();
    for at in def.addresses.items() {
        match at.get_ref() {
            NicAddress::Dhcp => found.dhcp = true,
            NicAddress::Slaac => found.slaac = true,
            NicAddress::Fixed(_) => {}
        }
    }
    let fixed = def.addresses.items().find(|at| matches!(at.get_ref(), NicAddress::Fixed(IpAddr::V4(_))));
    if let Some(fixed) = fixed.filter(|_| found.dhcp) {
        let problem =
            Problem::new(fixed.span(), "an IPv4 address beside dhcp: the nic would have two, and two ways out");
        problems.push(problem.help("keep one of the two"));
    }
    found
}

/// Whether the guest's default route may be the gateway of the nic's network.
pub(super) fn takes_gateway(def: &NicDef, subnets: &[Subnet], automatic: Automatic, problems: &mut Problems) -> bool {
    let Key::Is(at) = &def.gateway else { return true };
    let takes = *at.get_ref();
    let has_one = subnets.iter().any(|subnet| subnet.gateway.is_some());
    if !has_one && automatic.is_none() {
        let problem = Problem::new(at.span(), "gateway says something of a gateway, and this nic's network has none");
        problems.push(problem.help("remove it"));
    } else if !takes && automatic.slaac {
        let problem = Problem::new(at.span(), "gateway = false does not keep a router's advertisement from the guest");
        problems.push(problem.help("remove it, or ask for IPv4 alone: address = \"dhcp\""));
    }
    takes
}

/// The routes of one nic. A next hop has to be on a subnet that the nic has an address of; what DHCP brings is not known.
pub(super) fn routes(
    def: &NicDef,
    addresses: &[IpNet],
    automatic: Automatic,
    problems: &mut Problems,
) -> Vec<(ExtraRoute, Range<usize>)> {
    let mut routes = Vec::new();
    for at in def.routes.items() {
        let RouteDef { to: Key::Is(to), via: Key::Is(via) } = at.get_ref() else { continue };
        let problem = bad_destination(to).or_else(|| bad_next_hop(via, to, addresses, automatic)).or_else(|| {
            let own = addresses.iter().find(|own| own.trunc() == *to.get_ref())?;
            let problem = Problem::new(to.span(), format!("{} is on the nic's own link", own.trunc()));
            Some(problem.help("remove this route: what is on the link needs none"))
        });
        match problem {
            Some(problem) => problems.push(problem),
            None => routes.push((ExtraRoute { to: *to.get_ref(), via: *via.get_ref() }, to.span())),
        }
    }
    routes
}

fn bad_destination(at: &At<IpNet>) -> Option<Problem> {
    let to = at.get_ref();
    if *to != to.trunc() {
        let problem = Problem::new(at.span(), format!("{to} has host bits set"));
        return Some(problem.help(format!("write {:?}", to.trunc().to_string())));
    }
    (to.prefix_len() > 0 && special(to)).then(|| {
        Problem::new(at.span(), format!("{to} is not where a route leads to"))
            .help("name a range of hosts, for example \"10.0.0.0/8\"")
    })
}

fn bad_next_hop(at: &At<IpAddr>, to: &At<IpNet>, addresses: &[IpNet], automatic: Automatic) -> Option<Problem> {
    let via = *at.get_ref();
    if via.is_ipv4() != to.get_ref().addr().is_ipv4() {
        let problem = Problem::new(at.span(), format!("{via} is of another family than {}", to.get_ref()));
        return Some(problem.related(to.span(), "the destination").help("write a next hop of the same family"));
    }
    if addresses.iter().any(|own| own.addr() == via) {
        return Some(Problem::new(at.span(), format!("{via} is the nic's own address")).help("name the next router"));
    }
    match addresses.iter().find(|own| own.contains(&via)) {
        Some(own) => unusable(&own.trunc(), via).map(|why| {
            let problem = Problem::new(at.span(), format!("next hop {via} {why} of {}", own.trunc()));
            problem.help("use an address that a router can have")
        }),
        None if automatic.of(via.is_ipv4()) => None,
        None => {
            let nets: Vec<String> = addresses
                .iter()
                .filter(|own| own.addr().is_ipv4() == via.is_ipv4())
                .map(|own| own.trunc().to_string())
                .collect();
            let problem = Problem::new(at.span(), format!("next hop {via} is on no subnet of this nic"));
            Some(problem.help(match nets.as_slice() {
                [] => "give the nic an address of its subnet".to_owned(),
                nets => format!("name a router on {}", nets.join(" or ")),
            }))
        }
    }
}

/// The destinations that a guest has routes to so far.
pub(super) type Destinations = BTreeMap<(VmName, IpNet), Range<usize>>;

/// A guest has one route to a destination.
pub(super) fn only_one(vm: &VmName, to: IpNet, span: &Range<usize>, all: &mut Destinations) -> Option<Problem> {
    let first = all.get(&(vm.clone(), to)).cloned();
    let Some(first) = first else {
        all.insert((vm.clone(), to), span.clone());
        return None;
    };
    let problem = Problem::new(span.clone(), format!("vm {vm} has two routes to {to}"));
    let problem = if first == *span { problem } else { problem.related(first, "the first") };
    Some(problem.help("keep one of them"))
}

/// The name servers of a nic, where it says its own.
pub(super) fn own_name_servers(def: &NicDef, problems: &mut Problems) -> Option<Vec<IpAddr>> {
    (!def.dns.is_missing()).then(|| name_servers(&def.dns, problems))
}

impl Nic {
    /// Its name servers: its own, else its network's.
    pub fn name_servers<'a>(&'a self, network: &'a Network) -> &'a [IpAddr] {
        self.dns.as_ref().unwrap_or(&network.dns)
    }

    /// The domains for short names: its own, else its network's.
    pub fn search_domains<'a>(&'a self, network: &'a Network) -> &'a [DomainName] {
        self.search.as_ref().unwrap_or(&network.search)
    }

    /// Its routes but for the default ones, which are the guest's.
    pub fn further_routes(&self) -> impl Iterator<Item = &ExtraRoute> {
        self.routes.iter().filter(|route| route.to.prefix_len() > 0)
    }

    /// Whether an address is on a subnet that it is known to have an address of.
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.contains(&address))
    }
}

impl Model {
    /// The default route of a guest: the next hop and the number of the nic that it is on. A route that says so holds
    /// it, else the first nic whose network has a gateway of that family.
    pub fn default_routes(&self, vm: &Vm) -> Vec<(usize, IpAddr)> {
        let mut routes: Vec<(usize, IpAddr)> = Vec::new();
        let said = vm.nics.iter().enumerate().flat_map(|(number, nic)| {
            let defaults = nic.routes.iter().filter(|route| route.to.prefix_len() == 0);
            defaults.map(move |route| (number, route.via))
        });
        let by_network = self.nics(vm).filter(|(_, nic, _)| nic.gateway).flat_map(|(number, nic, network)| {
            let gateways = network
                .subnets
                .iter()
                .filter(|subnet| nic.addresses.iter().any(|address| subnet.net.contains(&address.addr())));
            gateways.filter_map(move |subnet| Some((number, subnet.gateway?)))
        });
        for (number, gateway) in said.chain(by_network) {
            if !routes.iter().any(|(_, other)| other.is_ipv4() == gateway.is_ipv4()) {
                routes.push((number, gateway));
            }
        }
        routes
    }
}
