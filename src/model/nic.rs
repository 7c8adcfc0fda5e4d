//! Nics: addresses, MACs and TAPs, chosen so that what has one keeps it. Pure.
//!
//! What the definition says comes first, then what the lock file says, then the lowest free one in natural order of
//! the guests' names. A definition that takes away what the lock file gave to another nic is told so: nobody moves
//! without a word.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;

use super::address::{Free, natural, unusable};
use super::hosts::host_of;
use super::lock::{Lock, NicKey};
use super::route::{self, Destinations};
use super::segment::subnets_are_known;
use super::vm::{are, some_of};
use super::{Network, Nic, NicModel, Subnet};
use crate::definition::{At, Definition, Key, NicDef, Problem, Problems};
use crate::kinds::NicAddress;
use crate::names::{IfName, LabName, Mac, NetName, VmName};
use crate::rule;

/// Every nic, and the lock file that goes with them.
pub(super) struct Nics {
    pub(super) by_vm: BTreeMap<VmName, Vec<Nic>>,
    pub(super) lock: Lock,
}

/// A nic on its way to being one.
struct Draft<'a> {
    key: NicKey,
    def: &'a NicDef,
    span: Range<usize>,
    addresses: Vec<IpNet>,
    mac: Option<Mac>,
    tap: IfName,
}

/// What nics are made from.
struct Input<'a> {
    lab: &'a LabName,
    definition: &'a Definition,
    networks: &'a BTreeMap<NetName, Network>,
    lock: &'a Lock,
}

impl Input<'_> {
    /// The subnets that a guest can have addresses of: its host's share, or all of the network's.
    fn subnets<'n>(&self, network: &'n Network, vm: &VmName) -> &'n [Subnet] {
        let share = host_of(vm, self.definition).and_then(|host| network.shares.get(host));
        share.unwrap_or(&network.subnets)
    }
}

pub(super) fn nics(
    lab: &LabName,
    definition: &Definition,
    networks: &BTreeMap<NetName, Network>,
    lock: &Lock,
    problems: &mut Problems,
) -> Nics {
    let input = Input { lab, definition, networks, lock };
    let mut names: Vec<&VmName> = definition.vms.keys().collect();
    names.sort_by(|a, b| natural(a.as_str(), b.as_str()));
    let mut drafts: Vec<Draft<'_>> = Vec::new();
    for name in names {
        drafts_of(name, &input, &mut drafts, problems);
    }
    let mut lock = Lock::default();
    choose_addresses(&mut drafts, &input, &mut lock, problems);
    choose_macs(&mut drafts, &input, &mut lock, problems);
    let (mut by_vm, mut destinations): (BTreeMap<VmName, Vec<Nic>>, _) = (BTreeMap::new(), Destinations::new());
    for draft in drafts {
        // A nic without a MAC has a problem already, and the model is not handed out.
        let Some(mac) = draft.mac else { continue };
        let nic = finished(&draft, mac, &input, &mut destinations, problems);
        by_vm.entry(draft.key.vm).or_default().push(nic);
    }
    Nics { by_vm, lock }
}

/// A nic whose addresses and MAC are chosen.
fn finished(
    draft: &Draft<'_>,
    mac: Mac,
    input: &Input<'_>,
    destinations: &mut Destinations,
    problems: &mut Problems,
) -> Nic {
    let (def, network, vm) = (draft.def, &input.networks[&draft.key.network], &draft.key.vm);
    let subnets = input.subnets(network, vm);
    let automatic = route::automatic(def, network, subnets, problems);
    let routes = route::routes(def, &draft.addresses, automatic, problems);
    problems.extend(routes.iter().filter_map(|(route, span)| route::only_one(vm, route.to, span, destinations)));
    Nic {
        network: draft.key.network.clone(),
        mac,
        addresses: draft.addresses.clone(),
        automatic,
        gateway: route::takes_gateway(def, subnets, automatic, problems),
        routes: routes.into_iter().map(|(route, _)| route).collect(),
        dns: route::own_name_servers(def, problems),
        search: (!def.search.is_missing()).then(|| def.search.items().map(|at| at.get_ref().clone()).collect()),
        tap: draft.tap.clone(),
        model: def.model.value().map_or(NicModel::Virtio, |model| *model),
    }
}

fn drafts_of<'a>(name: &VmName, input: &Input<'a>, drafts: &mut Vec<Draft<'a>>, problems: &mut Problems) {
    let at = &input.definition.vms[name];
    let nics = at.get_ref().nics.or(&input.definition.defaults.nics);
    if nics.is_missing() || matches!(nics, Key::Is(list) if list.get_ref().is_empty()) {
        let problem = Problem::new(at.span(), format!("vm {name} has no nic"));
        problems.push(problem.help("add nic = \"…\", the name of a network"));
    }
    let mut numbers: BTreeMap<&NetName, usize> = BTreeMap::new();
    for (index, nic) in nics.items().enumerate() {
        let def = nic.get_ref();
        // A nic without a network that can be read has its problem already.
        let Key::Is(network) = &def.network else { continue };
        if !input.networks.contains_key(network.get_ref()) {
            problems.extend(unknown_network(network, input.definition));
            continue;
        }
        if let Some(tap) = def.tap.as_ref().filter(|tap| tap.get_ref().as_str().starts_with("vnet")) {
            let problem = Problem::new(tap.span(), format!("TAP name {} begins with vnet", tap.get_ref()));
            problems.push(problem.help("choose another name: libvirt takes those for its own and renames them"));
        }
        let number = numbers.entry(network.get_ref()).or_default();
        let by_rule = || rule::tap_name(input.lab, name, index);
        drafts.push(Draft {
            key: NicKey { vm: name.clone(), network: network.get_ref().clone(), number: *number },
            def,
            span: nic.span(),
            addresses: Vec::new(),
            mac: None,
            tap: def.tap.value().cloned().unwrap_or_else(by_rule),
        });
        *number += 1;
    }
}

fn unknown_network(at: &At<NetName>, definition: &Definition) -> Option<Problem> {
    if !definition.networks.is_whole() {
        return None;
    }
    let problem = Problem::new(at.span(), format!("there is no network {}", at.get_ref()));
    Some(match some_of(definition.networks.keys().map(NetName::as_str)) {
        None => problem.help(format!("add [network.{}]", at.get_ref())),
        Some(known) => problem.help(format!("{} {known}", are("network", definition.networks.keys().count()))),
    })
}

/// Who has an address of a network.
enum Holder {
    /// The router, or the segment's own router.
    Gateway,
    /// A nic, since the definition says so there.
    Said(NicKey, Range<usize>),
    /// A nic, since the lock file says so.
    Locked(NicKey),
    /// A nic, just now.
    Chosen,
}

/// The addresses of a network.
#[derive(Default)]
struct Addresses {
    holders: BTreeMap<IpAddr, Holder>,
    free: BTreeMap<IpNet, Free>,
}

fn choose_addresses(drafts: &mut [Draft<'_>], input: &Input<'_>, lock: &mut Lock, problems: &mut Problems) {
    let mut all: BTreeMap<&NetName, Addresses> = BTreeMap::new();
    for (name, network) in input.networks {
        let subnets = network.subnets.iter().chain(network.shares.values().flatten());
        let gateways = subnets.filter_map(|subnet| subnet.gateway);
        let holders = gateways.map(|gateway| (gateway, Holder::Gateway)).collect();
        all.insert(name, Addresses { holders, free: BTreeMap::new() });
    }
    for draft in drafts.iter_mut().filter(|draft| draft.def.addresses.is_missing()) {
        let network = &input.networks[&draft.key.network];
        locked_addresses(draft, network, all.entry(&network.name).or_default(), input, problems);
    }
    for draft in drafts.iter_mut() {
        let network = &input.networks[&draft.key.network];
        for at in draft.def.addresses.items() {
            let NicAddress::Fixed(address) = *at.get_ref() else { continue };
            let at = At::new(at.span(), address);
            let addresses = all.entry(&network.name).or_default();
            draft.addresses.extend(said_address(&at, network, addresses, &draft.key, input, problems));
        }
    }
    for draft in drafts.iter_mut().filter(|draft| draft.def.addresses.is_missing()) {
        let network = &input.networks[&draft.key.network];
        let subnets = input.subnets(network, &draft.key.vm);
        free_addresses(draft, (network, subnets), all.entry(&network.name).or_default(), problems);
        if !draft.addresses.is_empty() {
            lock.addresses.insert(draft.key.clone(), draft.addresses.iter().map(IpNet::addr).collect());
        }
    }
}

/// What the lock file gave it, as far as the network still has such addresses: one of each family.
fn locked_addresses(
    draft: &mut Draft<'_>,
    network: &Network,
    addresses: &mut Addresses,
    input: &Input<'_>,
    problems: &mut Problems,
) {
    for address in input.lock.addresses.get(&draft.key).into_iter().flatten() {
        let subnets = input.subnets(network, &draft.key.vm);
        let subnet = subnets.iter().find(|subnet| subnet.net.contains(address));
        let Some(subnet) = subnet.filter(|subnet| unusable(&subnet.net, *address).is_none()) else { continue };
        if draft.addresses.iter().any(|other| other.addr().is_ipv4() == address.is_ipv4()) {
            continue;
        }
        match addresses.holders.get(address) {
            Some(Holder::Gateway) => problems.extend(gateway_of_a_guest(*address, network, &draft.key, input)),
            // A lock file never gives one address twice.
            Some(Holder::Said(..) | Holder::Locked(_) | Holder::Chosen) => {}
            None => {
                addresses.holders.insert(*address, Holder::Locked(draft.key.clone()));
                draft.addresses.extend(IpNet::new(*address, subnet.net.prefix_len()));
            }
        }
    }
}

/// A gateway that was written by hand takes a guest's address away; one by rule is where a changed subnet put it.
fn gateway_of_a_guest(address: IpAddr, network: &Network, key: &NicKey, input: &Input<'_>) -> Option<Problem> {
    let def = input.definition.networks.get(&network.name)?;
    let at = def.get_ref().gateways.items().find(|gateway| *gateway.get_ref() == address)?;
    let problem = Problem::new(at.span(), format!("gateway {address} is the address of {key} by net.lock"));
    Some(problem.help(format!("choose another; or remove the line of {key} from net.lock, and it gets a new address")))
}

fn said_address(
    at: &At<IpAddr>,
    network: &Network,
    addresses: &mut Addresses,
    key: &NicKey,
    input: &Input<'_>,
    problems: &mut Problems,
) -> Option<IpNet> {
    let address = *at.get_ref();
    let subnets = input.subnets(network, &key.vm);
    let Some(subnet) = subnets.iter().find(|subnet| subnet.net.contains(&address)) else {
        let known =
            input.definition.networks.get(&network.name).is_none_or(|def| subnets_are_known(def.get_ref(), network));
        if known {
            let title = format!("address {address} is in no subnet of network {}", network.name);
            let nets: Vec<String> = subnets.iter().map(|subnet| subnet.net.to_string()).collect();
            problems.push(Problem::new(at.span(), title).help(match nets.len() {
                0 => "give the network a subnet, or remove the address".to_owned(),
                1 => format!("its subnet is {}", nets[0]),
                _ => format!("its subnets are {}", nets.join(", ")),
            }));
        }
        return None;
    };
    if let Some(why) = unusable(&subnet.net, address) {
        let problem = Problem::new(at.span(), format!("address {address} {why} of {}", subnet.net));
        problems.push(problem.help("use an address that a host can have"));
    }
    // The first one keeps it: one mistake in the defaults is one problem.
    match addresses.holders.entry(address) {
        Entry::Vacant(free) => drop(free.insert(Holder::Said(key.clone(), at.span()))),
        Entry::Occupied(holder) => problems.extend(taken(at, network, holder.get())),
    }
    IpNet::new(address, subnet.net.prefix_len()).ok()
}

fn taken(at: &At<IpAddr>, network: &Network, holder: &Holder) -> Option<Problem> {
    const FREE: &str = "choose another, or leave it out to get a free one";
    let address = at.get_ref();
    let (whose, help) = match holder {
        Holder::Gateway => (format!("the gateway of network {}", network.name), FREE.to_owned()),
        Holder::Said(key, _) => (format!("that of {key} too"), FREE.to_owned()),
        Holder::Locked(key) => (
            format!("that of {key} by net.lock"),
            format!("{FREE}; or remove the line of {key} from net.lock, and it gets a new one"),
        ),
        Holder::Chosen => return None,
    };
    let problem = Problem::new(at.span(), format!("address {address} is {whose}")).help(help);
    Some(match holder {
        Holder::Said(_, first) if *first != at.span() => problem.related(first.clone(), "the first"),
        _ => problem,
    })
}

/// The lowest free address of the first subnet of each family that it has none of.
fn free_addresses(
    draft: &mut Draft<'_>,
    (network, subnets): (&Network, &[Subnet]),
    addresses: &mut Addresses,
    problems: &mut Problems,
) {
    let Addresses { holders, free } = addresses;
    for ipv4 in [true, false] {
        let subnet = subnets.iter().find(|subnet| subnet.net.addr().is_ipv4() == ipv4);
        let has_one = draft.addresses.iter().any(|address| address.addr().is_ipv4() == ipv4);
        let Some(subnet) = subnet.filter(|_| !has_one) else { continue };
        let Some(address) = free.entry(subnet.net).or_default().next(&subnet.net, holders) else {
            let title = format!("subnet {} of network {} is full", subnet.net, network.name);
            problems.push(Problem::new(draft.span.clone(), title).help("make the subnet larger"));
            continue;
        };
        holders.insert(address, Holder::Chosen);
        draft.addresses.extend(IpNet::new(address, subnet.net.prefix_len()));
    }
}

/// MACs of the definition, then locked ones, then by rule; of two that are equal by rule, the newer one gives way.
fn choose_macs(drafts: &mut [Draft<'_>], input: &Input<'_>, lock: &mut Lock, problems: &mut Problems) {
    let mut taken: BTreeMap<Mac, NicKey> = BTreeMap::new();
    for draft in drafts.iter_mut().filter(|draft| draft.def.mac.is_missing()) {
        if let Some(mac) = input.lock.macs.get(&draft.key).filter(|mac| !taken.contains_key(*mac)) {
            taken.insert(*mac, draft.key.clone());
            lock.macs.insert(draft.key.clone(), *mac);
            draft.mac = Some(*mac);
        }
    }
    let by_rule = |key: &NicKey, attempt| rule::guest_mac(input.lab, &key.vm, &key.network, key.number, attempt);
    // Whoever the lock file knows was there before.
    let (old, new): (Vec<_>, Vec<_>) = (0..drafts.len())
        .filter(|index| drafts[*index].def.mac.is_missing() && drafts[*index].mac.is_none())
        .partition(|index| input.lock.addresses.contains_key(&drafts[*index].key));
    for index in old.into_iter().chain(new) {
        let draft = &mut drafts[index];
        // 24 bits: of a thousand attempts one is free however large the lab.
        let free = (0..1024).map(|attempt| (attempt, by_rule(&draft.key, attempt)));
        let Some((attempt, mac)) = free.into_iter().find(|(_, mac)| !taken.contains_key(mac)) else {
            let problem = Problem::new(draft.span.clone(), format!("no free MAC was found for {}", draft.key));
            problems.push(problem.help("give this nic a mac by hand"));
            continue;
        };
        taken.insert(mac, draft.key.clone());
        if attempt > 0 {
            lock.macs.insert(draft.key.clone(), mac);
        }
        draft.mac = Some(mac);
    }
    let mut places: BTreeMap<Mac, Range<usize>> = BTreeMap::new();
    for draft in drafts.iter_mut() {
        let Key::Is(at) = &draft.def.mac else { continue };
        let mac = *at.get_ref();
        match taken.entry(mac) {
            Entry::Vacant(free) => {
                free.insert(draft.key.clone());
                places.insert(mac, at.span());
            }
            Entry::Occupied(other) => {
                let mut problem = Problem::new(at.span(), format!("MAC {mac} is that of {} too", other.get()));
                if let Some(first) = places.get(&mac).filter(|first| **first != at.span()) {
                    problem = problem.related(first.clone(), "the first");
                }
                problems.push(problem.help("choose another, or leave it out to get one by rule"));
            }
        }
        draft.mac = Some(mac);
    }
}
