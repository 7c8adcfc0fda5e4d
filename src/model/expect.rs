//! `[[expect]]`: what the definition says of who reaches whom, beside what follows from it. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::vm::{are, some_of};
use super::{Assertion, Model, Peer};
use crate::definition::{At, Definition, ExpectDef, Key, Problem, Problems};
use crate::kinds::{Service, Wanted};
use crate::names::{NetName, VmName};

/// Every assertion, with the addresses that it means.
pub(super) fn assertions(model: &Model, definition: &Definition, problems: &mut Problems) -> Vec<Assertion> {
    let mut all: Vec<Assertion> = Vec::new();
    let mut places: BTreeMap<(VmName, Peer, Service, IpAddr), std::ops::Range<usize>> = BTreeMap::new();
    for at in definition.expects.items() {
        let Some(assertion) = assertion(model, at, definition, problems) else { continue };
        let Assertion { from, to, addresses, service, wanted: _ } = &assertion;
        let keys = addresses.iter().map(|address| (from.clone(), to.clone(), *service, *address));
        let again = keys.filter_map(|key| places.insert(key, at.span())).last();
        if let Some(other) = again {
            let title = format!("{service} from {from} to {to} is said twice");
            problems.push(Problem::new(at.span(), title).related(other, "the first").help("keep one of them"));
        }
        all.push(assertion);
    }
    all
}

fn assertion(model: &Model, at: &At<ExpectDef>, definition: &Definition, problems: &mut Problems) -> Option<Assertion> {
    let ExpectDef { from, to, address, service, result } = at.get_ref();
    for (key, missing, example) in [
        ("from", from.is_missing(), "\"vm1\", the guest that tries"),
        ("to", to.is_missing(), "\"vm2\", \"gateway:web\", or \"outside\" with an address"),
        ("result", result.is_missing(), "\"reach\" or \"deny\""),
    ] {
        if missing {
            problems.push(
                Problem::new(at.span(), format!("this expect has no {key}")).help(format!("add {key} = {example}")),
            );
        }
    }
    let sender = known_guest(from.as_ref(), model, definition, problems);
    let there = match to.as_ref() {
        Some(to) => addresses_of(to, model, definition, problems),
        None => None,
    };
    let (sender, from, to, there) = (sender?, from.as_ref()?, to.as_ref()?, there?);
    if *to.get_ref() == Peer::Guest(sender.clone()) {
        let problem = Problem::new(to.span(), format!("{sender} would try itself"));
        problems.push(problem.help("name another guest"));
        return None;
    }
    let meant = meant(to, address, there, problems)?;
    let vm = model.vms.get(&sender)?;
    let can = |ipv4: bool| vm.nics.iter().flat_map(|nic| &nic.addresses).any(|own| own.addr().is_ipv4() == ipv4);
    let addresses: Vec<IpAddr> = meant.into_iter().filter(|address| can(address.is_ipv4())).collect();
    if addresses.is_empty() {
        let title = format!("{sender} has no address of the family to try {} from", to.get_ref());
        problems.push(Problem::new(from.span(), title).help("name a guest that has one, or give it one"));
        return None;
    }
    let service = if service.is_wrong() { return None } else { service.value().copied().unwrap_or_default() };
    let wanted: Wanted = *result.value()?;
    Some(Assertion { from: sender, to: to.get_ref().clone(), addresses, service, wanted })
}

fn known_guest(
    at: Option<&At<VmName>>,
    model: &Model,
    definition: &Definition,
    problems: &mut Problems,
) -> Option<VmName> {
    let at = at?;
    if model.vms.contains_key(at.get_ref()) {
        return Some(at.get_ref().clone());
    }
    if definition.vms.is_whole() {
        problems.push(no_guest(at.span(), at.get_ref(), model));
    }
    None
}

fn no_guest(span: std::ops::Range<usize>, name: &VmName, model: &Model) -> Problem {
    let problem = Problem::new(span, format!("there is no vm {name}"));
    match some_of(model.vms.keys().map(VmName::as_str)) {
        Some(all) => problem.help(format!("{} {all}", are("vm", model.vms.len()))),
        None => problem.help(format!("add [vm.{name}], or remove this expect")),
    }
}

/// The addresses of who is tried; none of a machine outside.
fn addresses_of(to: &At<Peer>, model: &Model, definition: &Definition, problems: &mut Problems) -> Option<Vec<IpAddr>> {
    match to.get_ref() {
        Peer::Outside => Some(Vec::new()),
        Peer::Guest(name) => {
            let vm = model.vms.get(name);
            if vm.is_none() && definition.vms.is_whole() {
                problems.push(no_guest(to.span(), name, model));
            }
            let nets = vm?.nics.iter().flat_map(|nic| &nic.addresses);
            some(to, nets.map(ipnet::IpNet::addr).collect(), "give it one", problems)
        }
        Peer::Gateway(name, host) => {
            let Some(network) = model.networks.get(name) else {
                if definition.networks.is_whole() {
                    let problem = Problem::new(to.span(), format!("there is no network {name}"));
                    let all = some_of(model.networks.keys().map(NetName::as_str)).unwrap_or_default();
                    problems.push(problem.help(format!("{} {all}", are("network", model.networks.len()))));
                }
                return None;
            };
            let share = host.as_ref().and_then(|host| network.shares.get(host));
            if host.is_some() != share.is_some() || (share.is_none() && !network.shares.is_empty()) {
                let hosts = some_of(network.shares.keys().map(|host| host.as_str()));
                let (title, help) = match hosts {
                    None => (format!("network {name} has one gateway"), format!("write \"gateway:{name}\"")),
                    Some(hosts) => (
                        format!("network {name} has a gateway on each host"),
                        format!("say which: \"gateway:{name}@HOST\", with one of {hosts}"),
                    ),
                };
                problems.push(Problem::new(to.span(), title).help(help));
                return None;
            }
            let subnets = share.unwrap_or(&network.subnets);
            let all = subnets.iter().filter_map(|subnet| subnet.gateway).collect();
            some(to, all, "name a guest, or a network with a gateway", problems)
        }
    }
}

fn some(to: &At<Peer>, all: Vec<IpAddr>, help: &str, problems: &mut Problems) -> Option<Vec<IpAddr>> {
    if all.is_empty() {
        problems.push(Problem::new(to.span(), format!("{} has no address", to.get_ref())).help(help));
        return None;
    }
    Some(all)
}

/// The one that is said, or all.
fn meant(to: &At<Peer>, address: &Key<IpAddr>, all: Vec<IpAddr>, problems: &mut Problems) -> Option<Vec<IpAddr>> {
    match address {
        Key::Wrong(_) => None,
        Key::Missing if *to.get_ref() == Peer::Outside => {
            let problem = Problem::new(to.span(), "outside is many machines");
            problems.push(problem.help("add address = \"…\", that of the one to try"));
            None
        }
        Key::Missing => Some(all),
        Key::Is(at) if *to.get_ref() == Peer::Outside || all.contains(at.get_ref()) => Some(vec![*at.get_ref()]),
        Key::Is(at) => {
            let known: Vec<String> = all.iter().map(ToString::to_string).collect();
            let problem =
                Problem::new(at.span(), format!("{} does not have the address {}", to.get_ref(), at.get_ref()));
            problems.push(problem.help(format!("it has {}; without the key all are tried", known.join(", "))));
            None
        }
    }
}
