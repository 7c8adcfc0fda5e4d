//! Shares: the subnet that each host has of a network which is routed between hosts. Pure.
//!
//! What a host says comes first, then what the lock file says, then the lowest free block in natural order of the
//! hosts' names, from the second block on (`192.168.1.0/24` of `192.168.0.0/16`), the first one last.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::address::{natural, nth};
use super::lock::{Lock, ShareKey};
use super::segment::bad_subnet;
use super::{Across, Network, Subnet};
use crate::definition::{At, Definition, Problem, Problems};
use crate::names::{HostName, NetName};

/// Gives each host that needs such a network its subnets. What was chosen by rule goes to the lock file.
pub(super) fn shares(
    networks: &mut BTreeMap<NetName, Network>,
    definition: &Definition,
    old: &Lock,
    problems: &mut Problems,
) -> BTreeMap<ShareKey, Vec<IpNet>> {
    let mut chosen = BTreeMap::new();
    for network in networks.values_mut().filter(|network| network.across == Across::Routed) {
        let mut hosts: Vec<HostName> = network.hosts.iter().cloned().collect();
        hosts.sort_by(|a, b| natural(a.as_str(), b.as_str()));
        let mut taken: Vec<IpNet> = Vec::new();
        let said: Vec<Vec<IpNet>> =
            hosts.iter().map(|host| said(host, network, definition, &mut taken, problems)).collect();
        let mut locked = |host: &HostName, said: &[IpNet]| {
            let key = ShareKey { network: network.name.clone(), host: host.clone() };
            let mut nets: Vec<IpNet> = Vec::new();
            for net in old.shares.get(&key).into_iter().flatten() {
                let of = network.subnets.iter().find(|prefix| prefix.net.contains(net));
                let has = |nets: &[IpNet]| nets.iter().any(|other| of.is_some_and(|prefix| prefix.net.contains(other)));
                let clash = taken.iter().any(|other| overlap(other, net));
                if of.is_some_and(|prefix| block_length(&prefix.net) == Some(net.prefix_len()))
                    && !has(said)
                    && !has(&nets)
                    && !clash
                    && *net == net.trunc()
                {
                    taken.push(*net);
                    nets.push(*net);
                }
            }
            nets
        };
        let locked: Vec<Vec<IpNet>> = hosts.iter().zip(&said).map(|(host, said)| locked(host, said)).collect();
        for ((host, said), mut by_rule) in hosts.iter().zip(said).zip(locked) {
            for prefix in &network.subnets {
                if said.iter().chain(&by_rule).any(|net| prefix.net.contains(net)) {
                    continue;
                }
                match free(&prefix.net, &taken) {
                    Some(net) => {
                        taken.push(net);
                        by_rule.push(net);
                    }
                    None => problems.push(full(network, &prefix.net, host, definition)),
                }
            }
            let all = said.into_iter().chain(by_rule.iter().copied());
            let subnets = all.map(|net| Subnet { net, gateway: nth(&net, 1) }).collect();
            network.shares.insert(host.clone(), subnets);
            if !by_rule.is_empty() {
                chosen.insert(ShareKey { network: network.name.clone(), host: host.clone() }, by_rule);
            }
        }
    }
    chosen
}

/// What a host says its subnets are.
fn said(
    host: &HostName,
    network: &Network,
    definition: &Definition,
    taken: &mut Vec<IpNet>,
    problems: &mut Problems,
) -> Vec<IpNet> {
    let def = definition.hosts.get(host).and_then(|host| host.get_ref().networks.get(&network.name));
    let mut nets = Vec::new();
    for at in def.into_iter().flat_map(|def| def.get_ref().subnets.items()) {
        let net = *at.get_ref();
        if let Some(problem) = bad_subnet(at) {
            problems.push(problem);
        } else if !network.subnets.iter().any(|prefix| prefix.net.contains(&net)) {
            let all: Vec<String> = network.subnets.iter().map(|prefix| prefix.net.to_string()).collect();
            let problem = Problem::new(at.span(), format!("subnet {net} is no part of network {}", network.name));
            problems.push(problem.help(format!("choose one of {}", all.join(", "))));
        } else if let Some(other) = taken.iter().find(|other| overlap(other, &net)) {
            let problem = Problem::new(at.span(), format!("subnet {net} overlaps {other} of network {}", network.name));
            problems.push(problem.help("give each host a subnet of its own"));
        } else {
            taken.push(net);
            nets.push(net);
        }
    }
    nets
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// The prefix length of a host's block: /24 of what is larger than a /22, a sixteenth of anything smaller; a /64 in
/// IPv6 (RFC 4291, 2.5.4) where there is room for sixteen. `None`: too small to be shared.
fn block_length(prefix: &IpNet) -> Option<u8> {
    let (usual, longest) = if prefix.addr().is_ipv4() { (24, 30) } else { (64, 126) };
    let length = usual.max(prefix.prefix_len() + if prefix.prefix_len() + 2 < usual { 2 } else { 4 });
    (length <= longest).then_some(length)
}

/// The lowest free block.
fn free(prefix: &IpNet, taken: &[IpNet]) -> Option<IpNet> {
    let length = block_length(prefix)?;
    let step = 1_u128 << (prefix.max_prefix_len() - length);
    let blocks = 1_u128.checked_shl(u32::from(length - prefix.prefix_len())).unwrap_or(u128::MAX);
    // Each one that is taken stands in the way of few: there are more blocks than hosts, or it ends at the last.
    let block = |number: u128| IpNet::new(nth(prefix, number.checked_mul(step)?)?, length).ok();
    (1..blocks).chain([0]).filter_map(block).find(|net| !taken.iter().any(|other| overlap(other, net)))
}

fn full(network: &Network, prefix: &IpNet, host: &HostName, definition: &Definition) -> Problem {
    let def = &definition.networks[&network.name];
    let item = def.get_ref().subnets.items().find(|item| item.get_ref() == prefix);
    let title = format!("subnet {prefix} of network {} has no room for host {host}", network.name);
    Problem::new(item.map_or(def.span(), At::span), title).help(format!(
        "use a shorter prefix, for example /16, or say subnet for each host: [host.{host}] network.{}.subnet",
        network.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(prefix: &str) -> Vec<String> {
        let prefix = prefix.parse().unwrap();
        let mut taken = Vec::new();
        while let (Some(net), true) = (free(&prefix, &taken), taken.len() < 20) {
            taken.push(net);
        }
        taken.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn blocks_are_those_that_people_would_choose() {
        assert_eq!(all("192.168.0.0/16")[..2], ["192.168.1.0/24", "192.168.2.0/24"]);
        assert_eq!(all("10.0.0.0/21")[..2], ["10.0.1.0/24", "10.0.2.0/24"]);
        let small = all("10.0.0.0/26");
        assert_eq!((small.len(), small[0].as_str(), small[15].as_str()), (16, "10.0.0.4/30", "10.0.0.0/30"));
        assert_eq!(all("10.0.0.0/27"), [] as [&str; 0]);
        assert_eq!(all("fd00::/48")[0], "fd00:0:0:1::/64");
    }
}
