//! Networks: modes, VLANs, subnets, bridges. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;

use super::address::{nth, special, unusable};
use super::resolve::pick_uplink;
use super::{Across, Bridge, Mode, Network, Subnet, Tagged};
use crate::definition::{At, Entries, Key, NetworkDef, Problem, Problems, UplinkDef};
use crate::names::{IfName, LabName, NetName, UplinkName};
use crate::rule::{self, BridgeForm};

type Defs = Entries<NetName, NetworkDef>;
type Uplinks = Entries<UplinkName, UplinkDef>;

/// Every network, as far as it makes sense. `form` is that of their bridges' names.
pub(super) fn networks(
    lab: &LabName,
    form: BridgeForm,
    defs: &Defs,
    uplinks: &Uplinks,
    problems: &mut Problems,
) -> BTreeMap<NetName, Network> {
    let mut networks = BTreeMap::new();
    for (name, def) in defs.iter() {
        let span = def.span();
        let def = def.get_ref();
        let mode = match &def.mode {
            Key::Missing => Mode::Nat,
            Key::Is(mode) => *mode.get_ref(),
            // Any mode would bring complaints that may not be true; this one brings the fewest.
            Key::Wrong(_) => Mode::Isolated,
        };
        if def.across.value() == Some(&Across::Routed) {
            fits_across(name, mode, def, problems);
        }
        if !def.mode.is_wrong() {
            fits_mode(name, span.clone(), mode, def, problems);
        }
        let network = Network {
            name: name.clone(),
            mode,
            bridge: bridge(lab, form, name, def),
            tagged: tagged(name, span, def, uplinks, problems),
            subnets: subnets(mode, def, problems),
            dns: name_servers(&def.dns, problems),
            search: def.search.items().map(|at| at.get_ref().clone()).collect(),
            mtu: mtu(def, problems),
            across: def.across.value().copied().unwrap_or_default(),
            // Who needs it, and each host's share, is known when the guests are.
            hosts: BTreeSet::new(),
            shares: BTreeMap::new(),
        };
        networks.insert(name.clone(), network);
    }
    unique_vlans(&networks, defs, problems);
    unique_bridges(lab, &mut networks, defs);
    disjoint_subnets(&networks, defs, problems);
    networks
}

/// Whether every subnet that was written could be read: what is in none of them is a mistake then.
pub(super) fn subnets_are_known(def: &NetworkDef, network: &Network) -> bool {
    !def.subnets.is_wrong() && def.subnets.items().count() == network.subnets.len()
}

/// A subnet for each host wants a router on each.
fn fits_across(name: &NetName, mode: Mode, def: &NetworkDef, problems: &mut Problems) {
    let Some(across) = def.across.as_ref() else { return };
    if !mode.has_router() && !def.mode.is_wrong() {
        let title = format!("network {name} is {} and can't be routed between hosts", mode.word());
        let problem = Problem::new(across.span(), title);
        problems.push(problem.help("say mode = \"routed\" or \"nat\", or join the hosts by a vlan"));
    }
    let keys = [
        def.vlan.as_ref().map(|at| ("vlan", at.span(), "each host has a segment of its own")),
        def.gateways.as_ref().map(|at| ("gateway", at.span(), "each host's subnet has its first address as gateway")),
    ];
    for (key, span, why) in keys.into_iter().flatten() {
        let problem = Problem::new(span, format!("{key} has no meaning with across = \"routed\""));
        problems.push(problem.related(across.span(), "said here").help(format!("remove {key}: {why}")));
    }
}

fn fits_mode(name: &NetName, span: Range<usize>, mode: Mode, def: &NetworkDef, problems: &mut Problems) {
    let no_subnet = def.subnets.is_missing() || def.subnets.value().is_some_and(Vec::is_empty);
    if mode.has_router() && no_subnet {
        let problem = Problem::new(span.clone(), format!("network {name} is {} and has no subnet", mode.word()));
        problems.push(problem.help("add subnet = \"192.168.10.0/24\", or say mode = \"isolated\""));
    }
    if let Key::Is(gateways) = &def.gateways {
        let title = match mode {
            Mode::Isolated => Some(format!("network {name} is isolated and can't have a gateway")),
            Mode::Nat | Mode::Routed if gateways.get_ref().is_empty() => {
                Some(format!("network {name} is {} and needs its gateway", mode.word()))
            }
            _ => None,
        };
        if let Some(title) = title {
            let help = "remove the key; with mode = \"nat\" or \"routed\" the gateway is the subnet's first address";
            problems.push(Problem::new(gateways.span(), title).help(help));
        }
    }
    if let Key::Is(bridge) = &def.bridge {
        fits_foreign_bridge(name, mode, bridge, def, problems);
    } else if mode == Mode::Bridged && def.vlan.is_missing() && def.bridge.is_missing() {
        let problem = Problem::new(span, format!("network {name} is bridged without a VLAN"));
        problems.push(problem.help(
            "add vlan = N; or bridge = \"br0\" for a bridge that exists already: this version does not put the untagged \
             device itself on a bridge",
        ));
    }
}

fn fits_foreign_bridge(name: &NetName, mode: Mode, bridge: &At<IfName>, def: &NetworkDef, problems: &mut Problems) {
    if mode != Mode::Bridged {
        let problem = Problem::new(bridge.span(), format!("network {name} is {} and names a bridge", mode.word()));
        problems.push(problem.help(
            "bridge is for one that exists already and wants mode = \"bridged\"; for a name of vmnet's own bridge write \
             ifname",
        ));
    }
    let keys = [
        def.vlan.as_ref().map(|at| ("vlan", at.span())),
        def.uplink.as_ref().map(|at| ("uplink", at.span())),
        def.ifname.as_ref().map(|at| ("ifname", at.span())),
    ];
    for (key, span) in keys.into_iter().flatten() {
        let problem = Problem::new(span, format!("{key} has no meaning on a foreign bridge"))
            .related(bridge.span(), "the bridge that exists already");
        problems.push(problem.help(format!("remove {key}, or the bridge")));
    }
}

fn bridge(lab: &LabName, form: BridgeForm, name: &NetName, def: &NetworkDef) -> Bridge {
    if let Some(foreign) = def.bridge.value() {
        return Bridge::Foreign { name: foreign.clone() };
    }
    let by_rule = || rule::bridge_name(lab, name, def.vlan.value().copied(), form);
    Bridge::Own {
        name: def.ifname.value().cloned().unwrap_or_else(by_rule),
        mac: rule::device_mac(lab, "bridge", name.as_str()),
    }
}

fn tagged(
    name: &NetName,
    span: Range<usize>,
    def: &NetworkDef,
    uplinks: &Uplinks,
    problems: &mut Problems,
) -> Option<Tagged> {
    // With a bridge of its own a VLAN is a mistake that was told already.
    if !def.bridge.is_missing() {
        return None;
    }
    if let (Key::Is(uplink), Key::Missing) = (&def.uplink, &def.vlan) {
        let problem = Problem::new(uplink.span(), format!("network {name} names an uplink and no VLAN"));
        problems.push(problem.help("add vlan = N, or remove the uplink"));
    }
    let vlan = *def.vlan.value()?;
    let uplink = pick_uplink(&def.uplink, uplinks, span, &format!("network {name}"), problems)?;
    Some(Tagged { uplink, vlan })
}

/// Name servers of a network or a nic.
pub(super) fn name_servers(dns: &Key<Vec<At<IpAddr>>>, problems: &mut Problems) -> Vec<IpAddr> {
    for at in dns.items() {
        let address = at.get_ref();
        if address.is_unspecified() || address.is_multicast() {
            let problem = Problem::new(at.span(), format!("{address} is no name server's address"));
            problems.push(problem.help("name a server that the guests can reach, for example \"9.9.9.9\""));
        }
    }
    dns.items().map(|at| *at.get_ref()).collect()
}

fn mtu(def: &NetworkDef, problems: &mut Problems) -> Option<u32> {
    let mtu = def.mtu.as_ref()?;
    let has_ipv6 = def.subnets.items().any(|net| net.get_ref().addr().is_ipv6());
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
    for net in def.subnets.items() {
        if let Some(problem) = bad_subnet(net) {
            problems.push(problem);
            continue;
        }
        let net = *net.get_ref();
        // Nobody but us can say which address the router gets; a physical segment has its own.
        let shared = def.across.value() == Some(&Across::Routed);
        let gateway = if mode.has_router() && !shared { nth(&net, 1) } else { None };
        subnets.push(Subnet { net, gateway });
    }
    let known = !def.subnets.is_wrong() && subnets.len() == def.subnets.items().count();
    // Isolated and with a gateway is a mistake that was told already.
    let shared = def.across.value() == Some(&Across::Routed);
    let gateways = def.gateways.items().filter(|_| mode != Mode::Isolated && !shared);
    let mut said: BTreeMap<IpNet, Range<usize>> = BTreeMap::new();
    for gateway in gateways {
        set_gateway(&mut subnets, gateway, known, &mut said, problems);
    }
    subnets
}

fn set_gateway(
    subnets: &mut [Subnet],
    gateway: &At<IpAddr>,
    known: bool,
    said: &mut BTreeMap<IpNet, Range<usize>>,
    problems: &mut Problems,
) {
    let address = *gateway.get_ref();
    let Some(subnet) = subnets.iter_mut().find(|subnet| subnet.net.contains(&address)) else {
        if known {
            let problem = Problem::new(gateway.span(), format!("gateway {address} is in no subnet of this network"));
            problems.push(problem.help("name an address of the subnet, or remove the gateway"));
        }
        return;
    };
    if let Some(why) = unusable(&subnet.net, address) {
        let problem = Problem::new(gateway.span(), format!("gateway {address} {why} of {}", subnet.net));
        problems.push(problem.help("use an address that a host can have, usually the first one"));
    }
    if let Some(other) = said.insert(subnet.net, gateway.span()) {
        let problem = Problem::new(gateway.span(), format!("subnet {} has two gateways", subnet.net));
        problems.push(problem.related(other, "the first").help("keep one of them"));
    }
    subnet.gateway = Some(address);
}

pub(super) fn bad_subnet(at: &At<IpNet>) -> Option<Problem> {
    let net = at.get_ref();
    let longest = if net.addr().is_ipv4() { 30 } else { 126 };
    if net.addr() != net.network() {
        let problem = Problem::new(at.span(), format!("subnet {net} has host bits set"));
        return Some(problem.help(format!("write {:?}", net.trunc().to_string())));
    }
    if net.prefix_len() > longest {
        let problem = Problem::new(at.span(), format!("subnet {net} has no room for a gateway and a guest"));
        return Some(problem.help(format!("use a prefix length of at most {longest}")));
    }
    special(net).then(|| {
        Problem::new(at.span(), format!("subnet {net} is not for hosts"))
            .help("use a private range, for example 192.168.10.0/24 (RFC 1918) or fd00:10::/64 (RFC 4193)")
    })
}

fn unique_vlans(networks: &BTreeMap<NetName, Network>, defs: &Defs, problems: &mut Problems) {
    let mut seen: BTreeMap<&Tagged, &NetName> = BTreeMap::new();
    for (name, network) in networks {
        let Some(tagged) = &network.tagged else { continue };
        let place = |name: &NetName| defs[name].get_ref().vlan.as_ref().map_or_else(|| defs[name].span(), At::span);
        let other = *seen.entry(tagged).or_insert(name);
        if other != name {
            // What stands further down was probably written later.
            let (first, second) = if place(other).start < place(name).start { (other, name) } else { (name, other) };
            let title = format!("VLAN {} of uplink {} is used twice", tagged.vlan, tagged.uplink);
            let problem = Problem::new(place(second), title).related(place(first), format!("network {first} has it"));
            problems.push(problem.help("give each network a VLAN of its own"));
        }
    }
}

/// Names by rule that are not unique in the file get their hashed form.
fn unique_bridges(lab: &LabName, networks: &mut BTreeMap<NetName, Network>, defs: &Defs) {
    let mut owners: BTreeMap<IfName, Vec<NetName>> = BTreeMap::new();
    for (name, network) in networks.iter() {
        owners.entry(network.bridge.name().clone()).or_default().push(name.clone());
    }
    for owner in owners.into_values().filter(|owners| owners.len() > 1).flatten() {
        let def = defs[&owner].get_ref();
        if let (Some(network), true) = (networks.get_mut(&owner), def.ifname.is_missing())
            && let Bridge::Own { name, .. } = &mut network.bridge
        {
            *name = rule::bridge_name(lab, &owner, def.vlan.value().copied(), BridgeForm::Hashed);
        }
    }
}

/// A subnet of a network, and whether a router joins it to others.
struct Claim<'a> {
    net: IpNet,
    network: &'a NetName,
    routed: bool,
}

/// Subnets that one router joins, and subnets of one network, must not overlap.
fn disjoint_subnets(networks: &BTreeMap<NetName, Network>, defs: &Defs, problems: &mut Problems) {
    let mut claims: Vec<Claim<'_>> = Vec::new();
    for (name, network) in networks {
        let routed = network.mode.has_router();
        claims.extend(network.subnets.iter().map(|subnet| Claim { net: subnet.net, network: name, routed }));
    }
    // Sorted by address, then shorter prefixes first: one that contains another stands before it.
    claims.sort_by_key(|claim| (claim.net.network(), claim.net.prefix_len(), claim.network));
    // Those that contain the present one, each narrower than the one before it: never more than prefix lengths.
    let mut joined: Vec<&Claim<'_>> = Vec::new();
    let mut of_network: BTreeMap<&NetName, Vec<&Claim<'_>>> = BTreeMap::new();
    for claim in &claims {
        let own = of_network.entry(claim.network).or_default();
        for before in [&mut *own, &mut joined] {
            before.retain(|wider| wider.net.contains(&claim.net));
        }
        if let Some(wider) = own.first().or(joined.first().filter(|_| claim.routed)) {
            problems.push(overlap(claim, wider, defs));
        }
        if own.last().is_none_or(|last| last.net != claim.net) {
            own.push(claim);
        }
        if claim.routed && joined.last().is_none_or(|last| last.net != claim.net) {
            joined.push(claim);
        }
    }
}

fn overlap(claim: &Claim<'_>, wider: &Claim<'_>, defs: &Defs) -> Problem {
    let place = |claim: &Claim<'_>| {
        let def = &defs[claim.network];
        let item = def.get_ref().subnets.items().find(|item| *item.get_ref() == claim.net);
        item.map_or_else(|| def.span(), At::span)
    };
    if claim.network == wider.network {
        let title = format!("subnets {} and {} of network {} overlap", wider.net, claim.net, claim.network);
        return Problem::new(place(claim), title).help("subnets of one network must not overlap");
    }
    let title = format!(
        "subnet {} of network {} overlaps {} of network {}",
        claim.net, claim.network, wider.net, wider.network
    );
    let problem = Problem::new(place(claim), title).related(place(wider), "overlaps this one");
    problem.help("give every network that the router joins a subnet of its own")
}
