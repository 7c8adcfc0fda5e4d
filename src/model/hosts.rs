//! Hosts: who runs where, and what differs on each. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;

use super::address::natural;
use super::router::external_of_host;
use super::vm::{are, some_of};
use super::{Across, Bridge, External, Host, Network, NetworkOfHost};
use crate::definition::{At, Definition, HostDef, Key, NetworkDef, Problem, Problems};
use crate::names::{HostName, LabName, NetName, VmName};

/// The machines of a rehearsal beside the hosts.
const RESERVED: [&str; 2] = ["outside", "switches"];

/// Where the definition says that a guest runs.
pub(super) fn host_of<'d>(vm: &VmName, definition: &'d Definition) -> Option<&'d HostName> {
    let def = definition.vms.get(vm)?.get_ref();
    def.host.or(&definition.defaults.host).value()
}

/// The hosts that need each network, for guests or because the definition lists them. Every guest has a host where
/// there are any.
pub(super) fn needed(definition: &Definition, problems: &mut Problems) -> BTreeMap<NetName, BTreeSet<HostName>> {
    let mut needed: BTreeMap<NetName, BTreeSet<HostName>> = BTreeMap::new();
    for (name, def) in definition.networks.iter() {
        for host in def.get_ref().hosts.items() {
            if known(host, definition, problems) {
                needed.entry(name.clone()).or_default().insert(host.get_ref().clone());
            }
        }
    }
    let mut load: BTreeMap<&HostName, usize> = definition.hosts.keys().map(|host| (host, 0)).collect();
    let said = |vm: &VmName| host_of(vm, definition);
    definition.vms.keys().filter_map(said).for_each(|host| *load.entry(host).or_default() += 1);
    for (name, at) in definition.vms.iter() {
        let def = at.get_ref();
        match def.host.or(&definition.defaults.host) {
            Key::Is(host) if known(host, definition, problems) => {
                let nics = def.nics.or(&definition.defaults.nics).items();
                for network in nics.filter_map(|nic| nic.get_ref().network.value()) {
                    needed.entry(network.clone()).or_default().insert(host.get_ref().clone());
                }
            }
            Key::Missing => problems.extend(homeless(name, at.span(), &mut load)),
            Key::Is(_) | Key::Wrong(_) => {}
        }
    }
    needed
}

/// That a guest is nowhere; proposes the host with the fewest.
fn homeless(vm: &VmName, span: Range<usize>, load: &mut BTreeMap<&HostName, usize>) -> Option<Problem> {
    let order = |a: &(&&HostName, &mut usize), b: &(&&HostName, &mut usize)| {
        a.1.cmp(&b.1).then_with(|| natural(a.0.as_str(), b.0.as_str()))
    };
    let (host, guests) = load.iter_mut().min_by(order)?;
    *guests += 1;
    let problem = Problem::new(span, format!("vm {vm} does not say on which host it runs"));
    Some(problem.help(format!("add host = \"{host}\", which has the fewest guests; or one for all in [defaults.vm]")))
}

/// Whether a host that is named somewhere is one of the definition's.
fn known(at: &At<HostName>, definition: &Definition, problems: &mut Problems) -> bool {
    let hosts = &definition.hosts;
    if hosts.contains_key(at.get_ref()) {
        return true;
    }
    if hosts.is_whole() {
        let problem = Problem::new(at.span(), format!("there is no host {}", at.get_ref()));
        problems.push(match some_of(hosts.keys().map(HostName::as_str)) {
            None => problem.help(format!("add [host.{}] with its ssh destination, or remove the key", at.get_ref())),
            Some(all) => problem.help(format!("{} {all}", are("host", hosts.len()))),
        });
    }
    false
}

/// The host that holds the gateways of networks which are one segment.
pub(super) fn of_router(
    definition: &Definition,
    networks: &BTreeMap<NetName, Network>,
    problems: &mut Problems,
) -> Option<HostName> {
    let def = definition.router.as_ref();
    match def.map(|def| &def.get_ref().host) {
        Some(Key::Is(host)) => return known(host, definition, problems).then(|| host.get_ref().clone()),
        Some(Key::Wrong(_)) => return None,
        Some(Key::Missing) | None => {}
    }
    let mut hosts: Vec<&HostName> = definition.hosts.keys().collect();
    hosts.sort_by(|a, b| natural(a.as_str(), b.as_str()));
    if let [only] = hosts.as_slice() {
        return Some((*only).clone());
    }
    let one_segment = |network: &&Network| network.mode.has_router() && network.across == Across::Vlan;
    let network = networks.values().find(one_segment)?;
    let first = hosts.first()?;
    let span = definition.networks.get(&network.name).map_or(0..0, At::span);
    let problem = Problem::new(
        def.map_or(span.clone(), At::span),
        "the definition has several hosts and does not say on which one the router lives",
    );
    let problem = if def.is_some() { problem.related(span, "its gateway is the router's") } else { problem };
    problems.push(problem.help(format!("add host = \"{first}\" to [router]; it holds the gateways of all hosts")));
    None
}

/// What joins the parts of a network that several hosts have.
pub(super) fn joined(networks: &BTreeMap<NetName, Network>, definition: &Definition, problems: &mut Problems) {
    for (name, network) in networks {
        let def = &definition.networks[name];
        let alone = network.tagged.is_none() && matches!(network.bridge, Bridge::Own { .. });
        // A VLAN that could not be read would join them.
        let may_be_tagged = !def.get_ref().vlan.is_missing() || !def.get_ref().bridge.is_missing();
        let router = definition.router.value().and_then(|router| router.host.value());
        let mut hosts: BTreeSet<&HostName> = network.hosts.iter().collect();
        hosts.extend(router.filter(|_| network.mode.has_router()));
        if network.across == Across::Vlan && alone && !may_be_tagged && hosts.len() > 1 {
            let all: Vec<&str> = hosts.iter().map(|host| host.as_str()).collect();
            let title = format!("network {name} is on {} and nothing joins them", all.join(", "));
            let problem = Problem::new(def.span(), title);
            problems.push(problem.help(match network.mode.has_router() {
                true => "add vlan = N of a trunk that they share, or across = \"routed\"",
                false => "add vlan = N of a trunk that they share",
            }));
        }
    }
}

/// Every host, with what differs on it.
pub(super) fn hosts(
    lab: &LabName,
    definition: &Definition,
    networks: &BTreeMap<NetName, Network>,
    problems: &mut Problems,
) -> BTreeMap<HostName, Host> {
    let mut hosts = BTreeMap::new();
    for (name, at) in definition.hosts.iter() {
        let def = at.get_ref();
        if RESERVED.contains(&name.as_str()) {
            let problem = Problem::new(at.span(), format!("host name {name} is reserved"));
            problems.push(problem.help("choose another: a rehearsal has machines of the names outside and switches"));
        }
        let ssh = def.ssh.as_ref();
        if let Some(ssh) = ssh.filter(|ssh| !is_destination(&ssh.get_ref().0)) {
            let problem = Problem::new(ssh.span(), "this is no destination for ssh");
            problems.push(
                problem.help("write \"root@h1.example\", a name of your ssh configuration, or ssh://user@host:port"),
            );
        }
        if let Some(underlay) = def.underlay.as_ref().filter(|underlay| !is_host_address(underlay.get_ref())) {
            let problem = Problem::new(underlay.span(), format!("{} is no host's address", underlay.get_ref()));
            problems.push(problem.help("write the address at which the other hosts reach this one"));
        }
        let host = Host {
            name: name.clone(),
            ssh: ssh.map_or_else(|| name.to_string(), |ssh| ssh.get_ref().0.clone()),
            underlay: def.underlay.value().copied(),
            devices: devices(def, definition, problems),
            networks: of_networks(def, definition, networks, problems),
            external: external_of_host(lab, def, definition, networks, problems),
        };
        hosts.insert(name.clone(), host);
    }
    own_addresses(&hosts, definition, problems);
    hosts
}

/// What OpenSSH takes as a destination and never as an option.
fn is_destination(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@.:/_-[]%+".contains(c);
    !text.is_empty() && !text.starts_with('-') && text.chars().all(plain)
}

fn is_host_address(address: &IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback() && !broadcast
}

fn devices(
    def: &HostDef,
    definition: &Definition,
    problems: &mut Problems,
) -> BTreeMap<crate::names::UplinkName, super::DeviceRef> {
    let mut devices = BTreeMap::new();
    for (name, at) in def.uplinks.iter() {
        if !definition.uplinks.contains_key(name) && definition.uplinks.is_whole() {
            let problem = Problem::new(at.span(), format!("there is no uplink {name} to override"));
            problems.push(problem.help(match some_of(definition.uplinks.keys().map(|name| name.as_str())) {
                None => format!("add [uplink.{name}] at the top"),
                Some(all) => format!("{} {all}", are("uplink", definition.uplinks.len())),
            }));
        }
        if let Key::Is(device) = &at.get_ref().device {
            devices.insert(name.clone(), device.get_ref().clone());
        }
    }
    devices
}

fn of_networks(
    def: &HostDef,
    definition: &Definition,
    networks: &BTreeMap<NetName, Network>,
    problems: &mut Problems,
) -> BTreeMap<NetName, NetworkOfHost> {
    let mut all = BTreeMap::new();
    for (name, at) in def.networks.iter() {
        let Some(network) = networks.get(name) else {
            if definition.networks.is_whole() {
                let problem = Problem::new(at.span(), format!("there is no network {name} to override"));
                problems.push(problem.help(match some_of(definition.networks.keys().map(NetName::as_str)) {
                    None => format!("add [network.{name}] at the top"),
                    Some(all) => format!("{} {all}", are("network", definition.networks.len())),
                }));
            }
            continue;
        };
        let def = at.get_ref();
        fits_network(def, network, definition, problems);
        let bridge = def.bridge.value().or(def.ifname.value()).cloned();
        all.insert(
            name.clone(),
            NetworkOfHost { uplink: def.uplink.value().cloned(), mtu: def.mtu.value().copied(), bridge },
        );
    }
    all
}

/// What a host says of a network has to mean something there.
fn fits_network(def: &NetworkDef, network: &Network, definition: &Definition, problems: &mut Problems) {
    let is_foreign = matches!(network.bridge, Bridge::Foreign { .. });
    let name = &network.name;
    let subnets = def.subnets.as_ref().map(|at| at.span());
    let keys = [
        ("uplink", def.uplink.as_ref().map(At::span), network.tagged.is_some(), "a network with a vlan"),
        ("subnet", subnets, network.across == Across::Routed, "a network with across = \"routed\""),
        ("bridge", def.bridge.as_ref().map(At::span), is_foreign, "a network with bridge = \"…\" at the top"),
        ("ifname", def.ifname.as_ref().map(At::span), !is_foreign, "a network with a bridge of vmnet's own"),
    ];
    for (key, span, fits, wanted) in keys {
        if let (Some(span), false) = (span, fits) {
            let problem = Problem::new(span, format!("{key} of network {name} can't differ between hosts"));
            problems.push(problem.help(format!("remove it: it is for {wanted}")));
        }
    }
    if let Some(uplink) = def.uplink.as_ref().filter(|uplink| !definition.uplinks.contains_key(uplink.get_ref())) {
        let problem = Problem::new(uplink.span(), format!("there is no uplink {}", uplink.get_ref()));
        problems.push(problem.help(format!("add [uplink.{}] at the top", uplink.get_ref())));
    }
    if let Some(mtu) = def.mtu.as_ref().filter(|mtu| !(68..=65535).contains(mtu.get_ref())) {
        let problem = Problem::new(mtu.span(), format!("an MTU of {} bytes is not possible here", mtu.get_ref()));
        problems.push(problem.help("use a number from 68 to 65535, and no more than the uplink's"));
    }
}

/// Two routers outside can't have one address.
fn own_addresses(hosts: &BTreeMap<HostName, Host>, definition: &Definition, problems: &mut Problems) {
    let mut seen: BTreeMap<IpAddr, &HostName> = BTreeMap::new();
    for (name, host) in hosts {
        let Some(External::Macvlan(own) | External::Vlan { external: own, .. }) = &host.external else { continue };
        for address in own.addresses.iter().map(ipnet::IpNet::addr) {
            if let Some(other) = seen.insert(address, name) {
                let span = definition.hosts.get(name).map_or(0..0, At::span);
                let title = format!("hosts {other} and {name} have the external address {address}");
                problems.push(Problem::new(span, title).help("give the router of each host an address of its own"));
            }
        }
    }
}
