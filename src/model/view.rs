//! [`view`]: the whole lab as its packets see it, from one host. Pure.
//!
//! A network that is routed between hosts is as many segments as hosts have a share of it, so the view has a network for
//! each. Devices are those of the host that looks: by the names of networks it finds its own bridges and router ports.

use std::collections::{BTreeMap, BTreeSet};

use super::router::port;
use super::slice::{gateways, of_host, own_external};
use super::{Across, External, Model, Network, Router, ShareKey, Subnet, Tagged, slice};
use crate::names::{HostName, NetName};

/// What a [`view`] has beside the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Networks that are one host's share of another network.
    shares: BTreeMap<NetName, ShareKey>,
    /// The way to the outside of each host that holds gateways.
    externals: BTreeMap<HostName, External>,
}

/// The whole lab, seen from a host. Of a lab without hosts it is the lab itself.
///
/// The share of `here` keeps the network's name, those of other hosts have names of their own; [`Model::said`] gives what
/// the definition calls them. The router has all ports.
pub fn view(whole: &Model, here: Option<&HostName>) -> Model {
    if whole.hosts.is_empty() {
        return whole.clone();
    }
    let own = here.and_then(|here| slice(whole, here));
    let mut view = whole.clone();
    view.here = here.cloned();
    view.networks.clear();
    let mut taken: BTreeSet<NetName> = whole.networks.keys().cloned().collect();
    for network in whole.networks.values() {
        let mine = own.as_ref().and_then(|own| own.networks.get(&network.name));
        if network.across == Across::Vlan {
            let mut seen = network.clone();
            if let Some(mine) = mine {
                seen.bridge = mine.bridge.clone();
            }
            view.networks.insert(network.name.clone(), seen);
            continue;
        }
        for (host, subnets) in &network.shares {
            let name = if here == Some(host) { network.name.clone() } else { fresh(network, host, &mut taken) };
            let share = share(whole, network, (host, subnets), &name);
            view.view.shares.insert(name.clone(), ShareKey { network: network.name.clone(), host: host.clone() });
            view.networks.insert(name, share);
        }
    }
    rename(&mut view);
    let holders: BTreeSet<&HostName> =
        whole.networks.values().flat_map(|network| gateways(whole, network)).map(|(host, _)| host).collect();
    if let Some(router) = &whole.router {
        let hosts = holders.into_iter().filter_map(|host| whole.hosts.get(host));
        let own = hosts.map(|host| (host.name.clone(), own_external(whole, router, host)));
        view.view.externals = own.collect();
    }
    view.router = whole.router.as_ref().map(|router| routed(router, &view, own.as_ref()));
    view.elsewhere = own.map(|own| own.elsewhere).unwrap_or_default();
    view
}

/// One host's share as a network.
fn share(whole: &Model, network: &Network, (host, subnets): (&HostName, &[Subnet]), name: &NetName) -> Network {
    let mut share = match whole.hosts.get(host) {
        Some(host) => of_host(whole, network, host),
        None => network.clone(),
    };
    share.name = name.clone();
    share.subnets = subnets.to_vec();
    share.hosts = BTreeSet::from([host.clone()]);
    share.shares = BTreeMap::from([(host.clone(), subnets.to_vec())]);
    share
}

/// A name that no network has. Nobody reads it.
fn fresh(network: &Network, host: &HostName, taken: &mut BTreeSet<NetName>) -> NetName {
    let speaking = std::iter::once(format!("{}-{host}", network.name));
    let names = speaking.chain((0..).map(|number| format!("share-{number}")));
    let free = |name: String| name.parse().ok().filter(|name| !taken.contains(name));
    let name: NetName = names.filter_map(free).next().unwrap_or_else(|| network.name.clone());
    taken.insert(name.clone());
    name
}

/// Nics are on the share of their guest's host.
fn rename(view: &mut Model) {
    let names: BTreeMap<(&NetName, &HostName), &NetName> =
        view.view.shares.iter().map(|(name, key)| ((&key.network, &key.host), name)).collect();
    for vm in view.vms.values_mut() {
        let Some(host) = &vm.host else { continue };
        for nic in &mut vm.nics {
            if let Some(name) = names.get(&(&nic.network, host)) {
                nic.network = (*name).clone();
            }
        }
    }
}

/// The router with a port in every network that it serves.
fn routed(router: &Router, view: &Model, own: Option<&Model>) -> Router {
    let mine = own.and_then(|own| own.router.as_ref());
    let ports = view.networks.values().filter(|network| network.mode.has_router()).map(|network| {
        let said = view.said(&network.name);
        let mut port = port(&view.lab, &Network { name: said.clone(), ..network.clone() });
        // One of another host has this name too, and another MAC.
        if let Some(mine) = mine.and_then(|mine| mine.ports.get(said)).filter(|_| *said == network.name) {
            port.outer_mac = mine.outer_mac;
        }
        (network.name.clone(), port)
    });
    let ports = ports.collect();
    let of = |host: &HostName| view.view.externals.get(host);
    let external = view.here.as_ref().and_then(of).or(router.host.as_ref().and_then(of)).unwrap_or(&router.external);
    Router { ports, external: external.clone(), ..router.clone() }
}

impl Model {
    /// What the definition calls a network of a [`view`].
    pub fn said<'a>(&'a self, network: &'a NetName) -> &'a NetName {
        self.view.shares.get(network).map_or(network, |key| &key.network)
    }

    /// The host whose share of a network this network of a [`view`] is; `None` where it is a whole network.
    pub fn share_of(&self, network: &NetName) -> Option<&HostName> {
        self.view.shares.get(network).map(|key| &key.host)
    }

    /// The network of a [`view`] that is a host's share of a network.
    pub fn share_at<'a>(&'a self, network: &'a NetName, host: &HostName) -> &'a NetName {
        let is_it = |(_, key): &(&NetName, &ShareKey)| key.network == *network && key.host == *host;
        self.view.shares.iter().find(is_it).map_or(network, |(name, _)| name)
    }

    /// The host whose router holds the gateways of a network; `None` where it has none, or the lab no hosts.
    pub fn gateway_host(&self, network: &NetName) -> Option<&HostName> {
        let router = self.router.as_ref()?;
        let found = self.networks.get(network)?;
        match self.share_of(network) {
            Some(host) => Some(host),
            None => router.host.as_ref().filter(|_| found.mode.has_router()),
        }
    }

    /// The hosts that hold gateways.
    pub fn gateway_hosts(&self) -> impl Iterator<Item = &HostName> {
        self.view.externals.keys()
    }

    /// The way to the outside of the router on a host.
    pub fn external_of(&self, host: Option<&HostName>) -> Option<&External> {
        let router = self.router.as_ref()?;
        Some(host.and_then(|host| self.view.externals.get(host)).unwrap_or(&router.external))
    }

    /// The VLAN and uplink of a network of a [`view`] on a host.
    pub fn tagged_on(&self, network: &Network, host: Option<&HostName>) -> Option<Tagged> {
        let tagged = network.tagged.as_ref()?;
        let host = host.and_then(|host| self.hosts.get(host));
        let differs = host.and_then(|host| host.networks.get(self.said(&network.name))?.uplink.as_ref());
        Some(Tagged { uplink: differs.unwrap_or(&tagged.uplink).clone(), vlan: tagged.vlan })
    }
}
