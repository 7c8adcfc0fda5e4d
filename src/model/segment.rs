//! Networks: modes, VLANs, subnets, bridges. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;

use super::address::{nth, unusable};
use super::resolve::pick_uplink;
use super::{Bridge, Mode, Network, Subnet, Tagged};
use crate::definition::{At, Entries, NetworkDef, Problem, Problems};
use crate::names::{IfName, LabName, NetName, UplinkName};
use crate::rule;

type Defs = Entries<NetName, NetworkDef>;

/// Every network, as far as it makes sense.
pub(super) fn networks(
    lab: &LabName,
    defs: &Defs,
    uplinks: &[&UplinkName],
    problems: &mut Problems,
) -> BTreeMap<NetName, Network> {
    let mut networks = BTreeMap::new();
    for (name, def) in defs {
        let span = def.span();
        let def = def.get_ref();
        let mode = def.mode.as_ref().map_or(Mode::Nat, |mode| *mode.get_ref());
        fits_mode(name, span.clone(), mode, def, problems);
        let network = Network {
            name: name.clone(),
            mode,
            bridge: bridge(lab, name, def),
            tagged: tagged(name, span, def, uplinks, problems),
            subnets: subnets(mode, def, problems),
            dns: def.dns.iter().flat_map(At::get_ref).map(|dns| *dns.get_ref()).collect(),
            mtu: mtu(def, problems),
        };
        networks.insert(name.clone(), network);
    }
    unique_vlans(&networks, defs, problems);
    unique_bridges(lab, &mut networks, defs, problems);
    disjoint_subnets(&networks, defs, problems);
    networks
}

fn fits_mode(name: &NetName, span: Range<usize>, mode: Mode, def: &NetworkDef, problems: &mut Problems) {
    if mode.has_router() && def.subnets.is_none() {
        let problem = Problem::new(span.clone(), format!("network {name} is {} and has no subnet", mode.word()));
        problems.push(problem.help("add subnet = \"192.168.10.0/24\", or say mode = \"isolated\""));
    }
    if mode == Mode::Isolated
        && let Some(gateway) = &def.gateways
    {
        let problem = Problem::new(gateway.span(), format!("network {name} is isolated and can't have a gateway"));
        problems.push(problem.help("remove the gateway, or say mode = \"routed\""));
    }
    if let Some(bridge) = &def.bridge {
        if mode != Mode::Bridged {
            let problem =
                Problem::new(bridge.span(), format!("network {name} is {} and uses a foreign bridge", mode.word()));
            problems.push(problem.help("say mode = \"bridged\", or remove the bridge: vmnet makes one"));
        }
        let with = [
            def.vlan.as_ref().map(|at| ("vlan", at.span())),
            def.uplink.as_ref().map(|at| ("uplink", at.span())),
            def.ifname.as_ref().map(|at| ("ifname", at.span())),
        ];
        for (key, span) in with.into_iter().flatten() {
            let problem = Problem::new(span, format!("{key} has no meaning on a foreign bridge"))
                .related(bridge.span(), "the bridge that exists already");
            problems.push(problem.help(format!("remove {key}, or the bridge")));
        }
    } else if mode == Mode::Bridged && def.vlan.is_none() {
        let problem = Problem::new(span, format!("network {name} is bridged without a VLAN"));
        problems.push(problem.help(
            "add vlan = N; or bridge = \"br0\" for a bridge that exists already: this version does not put the untagged \
             device itself on a bridge",
        ));
    }
}

fn bridge(lab: &LabName, name: &NetName, def: &NetworkDef) -> Bridge {
    if let Some(foreign) = &def.bridge {
        return Bridge::Foreign { name: foreign.get_ref().clone() };
    }
    let vlan = def.vlan.as_ref().map(|vlan| *vlan.get_ref());
    let by_rule = || rule::bridge_name(lab, name, vlan, false);
    Bridge::Own {
        name: def.ifname.as_ref().map_or_else(by_rule, |ifname| ifname.get_ref().clone()),
        mac: rule::device_mac(lab, "bridge", name.as_str()),
    }
}

fn tagged(
    name: &NetName,
    span: Range<usize>,
    def: &NetworkDef,
    uplinks: &[&UplinkName],
    problems: &mut Problems,
) -> Option<Tagged> {
    if def.bridge.is_some() {
        return None;
    }
    let Some(vlan) = &def.vlan else {
        if let Some(uplink) = &def.uplink {
            let problem = Problem::new(uplink.span(), format!("network {name} names an uplink and no VLAN"));
            problems.push(problem.help("add vlan = N, or remove the uplink"));
        }
        return None;
    };
    let uplink = pick_uplink(def.uplink.as_ref(), uplinks, span, &format!("network {name}"), problems)?;
    Some(Tagged { uplink, vlan: *vlan.get_ref() })
}

fn mtu(def: &NetworkDef, problems: &mut Problems) -> Option<u32> {
    let mtu = def.mtu.as_ref()?;
    let has_ipv6 = def.subnets.iter().flat_map(At::get_ref).any(|net| net.get_ref().addr().is_ipv6());
    // 68: RFC 791; 1280: RFC 8200, section 5; 65535: the most a veth takes.
    let least = if has_ipv6 { 1280 } else { 68 };
    if !(least..=65535).contains(mtu.get_ref()) {
        let problem = Problem::new(mtu.span(), format!("an MTU of {} bytes is not possible here", mtu.get_ref()));
        problems.push(problem.help(format!("use a number from {least} to 65535, and no more than the uplink's")));
    }
    Some(*mtu.get_ref())
}

fn subnets(mode: Mode, def: &NetworkDef, problems: &mut Problems) -> Vec<Subnet> {
    let mut subnets: Vec<Subnet> = Vec::new();
    for net in def.subnets.iter().flat_map(At::get_ref) {
        if let Some(problem) = bad_subnet(net) {
            problems.push(problem);
            continue;
        }
        let net = *net.get_ref();
        // Nobody but us can say which address the router gets; a physical segment has its own.
        let gateway = if mode.has_router() { nth(&net, 1) } else { None };
        subnets.push(Subnet { net, gateway });
    }
    for gateway in def.gateways.iter().flat_map(At::get_ref) {
        set_gateway(&mut subnets, gateway, problems);
    }
    subnets
}

fn set_gateway(subnets: &mut [Subnet], gateway: &At<IpAddr>, problems: &mut Problems) {
    let address = *gateway.get_ref();
    let Some(subnet) = subnets.iter_mut().find(|subnet| subnet.net.contains(&address)) else {
        let problem = Problem::new(gateway.span(), format!("gateway {address} is in no subnet of this network"));
        problems.push(problem.help("name an address of the subnet, or remove the gateway"));
        return;
    };
    if let Some(why) = unusable(&subnet.net, address) {
        let problem = Problem::new(gateway.span(), format!("gateway {address} {why} of {}", subnet.net));
        problems.push(problem.help("use an address that a host can have, usually the first one"));
    }
    subnet.gateway = Some(address);
}

fn bad_subnet(at: &At<IpNet>) -> Option<Problem> {
    let net = at.get_ref();
    let longest = if net.addr().is_ipv4() { 30 } else { 126 };
    if net.addr() != net.network() {
        let problem = Problem::new(at.span(), format!("subnet {net} has host bits set"));
        return Some(problem.help(format!("write {}", net.trunc())));
    }
    if net.prefix_len() > longest {
        let problem = Problem::new(at.span(), format!("subnet {net} has no room for a gateway and a guest"));
        return Some(problem.help(format!("use a prefix length of at most {longest}")));
    }
    let special = match net.addr() {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_loopback() || v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    };
    special.then(|| {
        Problem::new(at.span(), format!("subnet {net} is not for hosts"))
            .help("use a private range, for example 192.168.10.0/24 (RFC 1918) or fd00:10::/64 (RFC 4193)")
    })
}

fn unique_vlans(networks: &BTreeMap<NetName, Network>, defs: &Defs, problems: &mut Problems) {
    let mut seen: BTreeMap<&Tagged, &NetName> = BTreeMap::new();
    for (name, network) in networks {
        let Some(tagged) = &network.tagged else { continue };
        let place = |name: &NetName| defs[name].get_ref().vlan.as_ref().map_or_else(|| defs[name].span(), At::span);
        if let Some(other) = seen.insert(tagged, name) {
            let title = format!("VLAN {} of uplink {} is used twice", tagged.vlan, tagged.uplink);
            let problem = Problem::new(place(name), title).related(place(other), format!("network {other} has it"));
            problems.push(problem.help("give each network a VLAN of its own"));
        }
    }
}

/// Names by rule that are not unique in the file get their hashed form; names by hand must be unique.
fn unique_bridges(lab: &LabName, networks: &mut BTreeMap<NetName, Network>, defs: &Defs, problems: &mut Problems) {
    let mut owners: BTreeMap<IfName, Vec<NetName>> = BTreeMap::new();
    for (name, network) in networks.iter() {
        owners.entry(network.bridge.name().clone()).or_default().push(name.clone());
    }
    for (ifname, owners) in owners.into_iter().filter(|(_, owners)| owners.len() > 1) {
        for owner in &owners {
            let def = defs[owner].get_ref();
            let by_hand = def.ifname.as_ref().map(At::span);
            let foreign = def.bridge.is_some();
            match (by_hand, networks.get_mut(owner).map(|network| &mut network.bridge)) {
                (Some(span), _) => {
                    let problem = Problem::new(span, format!("the bridge name {ifname} is used twice"));
                    problems.push(problem.help("choose another ifname"));
                }
                (None, Some(Bridge::Own { name, .. })) if !foreign => {
                    let vlan = def.vlan.as_ref().map(|vlan| *vlan.get_ref());
                    *name = rule::bridge_name(lab, owner, vlan, true);
                }
                // Several networks may sit on one foreign bridge.
                _ => {}
            }
        }
    }
}

/// Subnets that one router joins, and subnets of one network, must not overlap.
fn disjoint_subnets(networks: &BTreeMap<NetName, Network>, defs: &Defs, problems: &mut Problems) {
    let mut all: Vec<(IpNet, &NetName, bool)> = Vec::new();
    for (name, network) in networks {
        all.extend(network.subnets.iter().map(|subnet| (subnet.net, name, network.mode.has_router())));
    }
    // Sorted by address, then shorter prefixes first: one that contains another stands before it.
    all.sort_by_key(|(net, name, _)| (net.network(), net.prefix_len(), *name));
    let mut open: Vec<(IpNet, &NetName, bool)> = Vec::new();
    for (net, name, routed) in all {
        open.retain(|(wider, ..)| wider.contains(&net));
        let clash = open.iter().find(|(_, other, other_routed)| *other == name || (routed && *other_routed));
        if let Some((wider, other, _)) = clash {
            let title = format!("subnet {net} of network {name} overlaps {wider} of network {other}");
            let place =
                |name: &NetName| defs[name].get_ref().subnets.as_ref().map_or_else(|| defs[name].span(), At::span);
            let problem = Problem::new(place(name), title);
            let problem = if *other == name { problem } else { problem.related(place(other), "overlaps this one") };
            problems.push(problem.help("give every network that the router joins a subnet of its own"));
        }
        open.push((net, name, routed));
    }
}
