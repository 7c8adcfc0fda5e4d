//! The position of a guest on a network, for a probe that stands in for it. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::model::{ExtraRoute, Model, Network, Vm};
use crate::names::{HostName, LabName, Mac, NetName};
use crate::rule;

/// What a guest has on one network, less its own addresses and MAC. Guests with the same position are interchangeable
/// as senders, so one probe port serves them all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The host, where there are several.
    pub host: Option<HostName>,
    /// The network.
    pub network: NetName,
    /// The subnets that it has addresses of.
    pub subnets: BTreeSet<IpNet>,
    /// Its default gateways on this network.
    pub gateways: BTreeSet<IpAddr>,
    /// Its other routes by way of this network.
    pub routes: BTreeSet<ExtraRoute>,
}

impl Position {
    /// The position of a guest on one of its networks.
    pub fn of(model: &Model, vm: &Vm, network: &NetName) -> Self {
        let here = |nic: &crate::model::Nic| nic.network() == network;
        let addresses = vm.nics().iter().filter(|nic| here(nic)).flat_map(|nic| nic.addresses());
        let routes = vm.nics().iter().filter(|nic| here(nic)).flat_map(|nic| nic.further_routes());
        let gateways = model.default_routes(vm).into_iter().filter(|(nic, _)| here(&vm.nics()[*nic]));
        Self {
            host: vm.host().clone(),
            network: network.clone(),
            subnets: addresses.map(|address| address.trunc()).collect(),
            gateways: gateways.map(|(_, gateway)| gateway).collect(),
            routes: routes.copied().collect(),
        }
    }

    /// The MAC of a probe in this position, another one in each run: on a segment that several hosts share, no two
    /// probes have the same.
    pub fn mac(&self, lab: &LabName, run: u64) -> Mac {
        let Self { host, network, subnets, gateways, routes } = self;
        let host = host.as_ref().map_or("", HostName::as_str);
        rule::port_mac(lab, "probe-far", &format!("{run:016x} {network}@{host} {subnets:?} {gateways:?} {routes:?}"))
    }
}

/// The addresses of a subnet that no guest and no gateway has, from the highest down; on a segment that hosts share,
/// each host has some of them for itself: their probes come at the same time.
pub fn free_addresses<'a>(model: &'a Model, network: &'a Network, subnet: IpNet) -> impl Iterator<Item = IpAddr> + 'a {
    let guests = model.vms().values().flat_map(|vm| vm.nics());
    let mut taken: BTreeSet<IpAddr> = guests
        .filter(|nic| nic.network() == network.name())
        .flat_map(|nic| nic.addresses().iter().map(|address| address.addr()))
        .collect();
    taken.extend(network.subnets().iter().filter_map(|subnet| *subnet.gateway()));
    let mut hosts = network.hosts().iter();
    let place = hosts.position(|host| Some(host) == model.here().as_ref()).unwrap_or(0);
    let free = downward(subnet).filter(move |address| !taken.contains(address));
    free.skip(place).step_by(network.hosts().len().max(1))
}

/// Host addresses from the highest down: in IPv4 without network and broadcast address, except where a /31 or /32 has
/// neither (RFC 3021); in IPv6 without the lowest, which is every router's (RFC 4291, 2.6.1).
fn downward(subnet: IpNet) -> Box<dyn Iterator<Item = IpAddr>> {
    match subnet {
        IpNet::V4(net) => {
            let edge = u32::from(net.prefix_len() < 31);
            let (low, high) = (u32::from(net.network()) + edge, u32::from(net.broadcast()) - edge);
            Box::new((low..=high).rev().map(|address| IpAddr::V4(Ipv4Addr::from(address))))
        }
        IpNet::V6(net) => {
            let edge = u128::from(net.prefix_len() < 127);
            let (low, high) = (u128::from(net.network()) + edge, u128::from(net.broadcast()));
            Box::new((low..=high).rev().map(|address| IpAddr::V6(Ipv6Addr::from(address))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_address_comes_first_and_edges_never() {
        let all = |text: &str| downward(text.parse().unwrap()).map(|a| a.to_string()).collect::<Vec<_>>();
        assert_eq!(all("192.0.2.0/30"), ["192.0.2.2", "192.0.2.1"]);
        assert_eq!(all("192.0.2.0/31"), ["192.0.2.1", "192.0.2.0"]);
        assert_eq!(all("2001:db8::/126"), ["2001:db8::3", "2001:db8::2", "2001:db8::1"]);
        assert_eq!(downward("10.0.0.0/8".parse().unwrap()).next(), Some("10.255.255.254".parse().unwrap()));
    }
}
