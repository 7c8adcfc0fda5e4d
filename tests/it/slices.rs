//! What holds for the parts of every lab on several hosts, tried on random ones.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::Config;
use vmnet::definition::Definition;
use vmnet::model::{Across, Bridge, External, Lock, Model, Resolved, resolve, slice};
use vmnet::names::{HostName, Mac};

fn config() -> Config {
    Config { cases: 128, failure_persistence: None, ..Config::default() }
}

const HEAD: &str = "lab = \"campus\"\nuplink.trunk.device = \"eno1\"\ndefaults.vm.engine = \"netns\"\n\
                    [router]\nhost = \"h2\"\n";

/// Natural order of these is not that of letters.
const HOSTS: [usize; 4] = [1, 2, 10, 11];

fn host(number: usize) -> String {
    format!("[host.h{number}]\nunderlay = \"192.0.2.{number}\"\n")
}

fn network(number: usize) -> impl Strategy<Value = String> {
    let mode = select(vec!["nat", "routed"]);
    let rest = select(vec![
        "mode = \"MODE\"\nvlan = V\nsubnet = [\"10.N.0.0/24\", \"10.N.1.0/24\"]\n",
        "mode = \"MODE\"\nacross = \"routed\"\nsubnet = \"10.N.0.0/16\"\n",
        "mode = \"MODE\"\nacross = \"routed\"\nsubnet = [\"10.N.0.0/16\", \"172.16.N.0/24\"]\nhosts = [\"h2\"]\n",
        "mode = \"isolated\"\nvlan = V\nhosts = [\"h1\", \"h11\"]\n",
    ]);
    (mode, rest).prop_map(move |(mode, rest)| {
        let rest = rest.replace("MODE", mode).replace('N', &number.to_string()).replace('V', &(number + 1).to_string());
        format!("[network.net{number}]\n{rest}")
    })
}

fn guest(number: usize, networks: usize) -> impl Strategy<Value = String> {
    let nics = proptest::collection::vec(0..networks, 1..3);
    (nics, select(HOSTS.to_vec())).prop_map(move |(nics, host)| {
        let nics: Vec<String> = nics.iter().map(|network| format!("\"net{network}\"")).collect();
        format!("[vm.vm{number}]\nnic = [{}]\nhost = \"h{host}\"\n", nics.join(", "))
    })
}

/// The tables of a definition without mistakes.
fn lab() -> impl Strategy<Value = Vec<String>> {
    (1..5_usize, 0..9_usize).prop_flat_map(|(networks, guests)| {
        let all_networks: Vec<_> = (0..networks).map(network).collect();
        let guests: Vec<_> = (1..=guests).map(|number| guest(number, networks)).collect();
        let hosts: Vec<String> = HOSTS.iter().copied().map(host).collect();
        (all_networks, guests).prop_map(move |(networks, guests)| [networks, guests, hosts.clone()].concat())
    })
}

fn read(tables: &[String], lock: &Lock) -> Resolved {
    let text = format!("{HEAD}{}", tables.concat());
    Definition::parse(&text)
        .and_then(|definition| resolve(&definition, lock))
        .unwrap_or_else(|problems| panic!("{}\n{text}", problems.render("net.toml", &text, false)))
}

fn parts(whole: &Model) -> BTreeMap<HostName, Model> {
    let of = |host: &HostName| (host.clone(), slice(whole, host).expect("a host of the lab's"));
    whole.hosts().keys().map(of).collect()
}

/// The MACs of what is made on a host, but of gateways and guests, which are the same wherever they are.
fn device_macs(part: &Model) -> Vec<Mac> {
    let mut macs = Vec::new();
    for network in part.networks().values() {
        if let Bridge::Own { mac, .. } = network.bridge() {
            macs.push(*mac);
        }
        macs.push(part.device_mac("uplink", network.name().as_str()));
    }
    if let Some(router) = part.router() {
        macs.extend(router.ports().values().map(|port| *port.outer_mac()));
        match router.external() {
            External::Host(through) => macs.extend([through.outer_mac, through.inner_mac]),
            External::Macvlan(own) | External::Vlan { external: own, .. } => macs.push(own.mac),
            External::None => {}
        }
    }
    macs
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn each_guest_and_each_gateway_is_on_one_host(lab in lab()) {
        let whole = read(&lab, &Lock::default()).model;
        let parts = parts(&whole);
        for (name, vm) in whole.vms() {
            let homes: Vec<&HostName> =
                parts.iter().filter(|(_, part)| part.vms().contains_key(name)).map(|(host, _)| host).collect();
            prop_assert_eq!(homes, vec![vm.host().as_ref().unwrap()]);
            let part = &parts[vm.host().as_ref().unwrap()];
            prop_assert!(vm.nics().iter().all(|nic| part.networks().contains_key(nic.network())));
        }
        let mut gateways = BTreeMap::new();
        for (host, part) in &parts {
            for port in part.router().iter().flat_map(|router| router.ports().values()) {
                for address in port.addresses() {
                    prop_assert_eq!(gateways.insert(*address, host), None, "{} is on two hosts", address);
                }
            }
        }
        // The gateway of each subnet that a guest sees is somewhere.
        for subnet in parts.values().flat_map(|part| part.networks().values()).flat_map(|network| network.subnets()) {
            let Some(gateway) = subnet.gateway() else { continue };
            prop_assert!(gateways.keys().any(|net| net.addr() == *gateway), "{} is nowhere", gateway);
        }
        // What a router has not itself, it has a way to.
        for part in parts.values().filter(|part| part.router().is_some()) {
            let here = part.router().iter().flat_map(|router| router.ports().values()).flat_map(|port| port.addresses());
            let mut all: BTreeSet<IpNet> = here.map(IpNet::trunc).collect();
            for elsewhere in part.elsewhere() {
                prop_assert!(all.insert(*elsewhere.to()), "{} twice", elsewhere.to());
            }
            prop_assert_eq!(all, gateways.keys().map(IpNet::trunc).collect::<BTreeSet<IpNet>>());
        }
    }

    #[test]
    fn no_two_devices_of_two_hosts_have_one_mac(lab in lab()) {
        let whole = read(&lab, &Lock::default()).model;
        let mut seen = BTreeMap::new();
        for (host, part) in parts(&whole) {
            for mac in device_macs(&part) {
                prop_assert!(seen.insert(mac, host.clone()).is_none(), "{}", mac);
            }
        }
    }

    #[test]
    fn the_order_of_tables_means_nothing_for_parts((lab, order) in lab().prop_flat_map(|lab| {
        (Just(lab.clone()), Just(lab).prop_shuffle())
    })) {
        let (one, other) = (read(&lab, &Lock::default()), read(&order, &Lock::default()));
        prop_assert_eq!(parts(&one.model), parts(&other.model));
        prop_assert_eq!(one.lock, other.lock);
    }

    #[test]
    fn shares_are_apart_inside_and_stay(lab in lab(), newcomer in 3..300_usize, shift in any::<bool>()) {
        let before = read(&lab, &Lock::default());
        for network in before.model.networks().values().filter(|network| *network.across() == Across::Routed) {
            let nets: Vec<IpNet> = network.shares().values().flatten().map(|subnet| *subnet.net()).collect();
            for (number, net) in nets.iter().enumerate() {
                prop_assert!(network.subnets().iter().any(|prefix| prefix.net().contains(net)));
                prop_assert!(nets[..number].iter().all(|other| !overlap(other, net)), "{} in {:?}", net, nets);
            }
        }
        prop_assert_eq!(Lock::parse(&before.lock.to_string()).unwrap(), before.lock.clone());
        // A host that sorts first or last, with a guest on every network.
        let name = if shift { format!("a{newcomer}") } else { format!("h{}", newcomer + 20) };
        let nics: Vec<String> = before.model.networks().keys().map(|network| format!("\"{network}\"")).collect();
        let more = format!(
            "[vm.new]\nnic = [{}]\nhost = \"{name}\"\n[host.{name}]\nunderlay = \"198.51.100.7\"\n",
            nics.join(", ")
        );
        let after = read(&[lab, vec![more]].concat(), &before.lock);
        for (name, network) in before.model.networks() {
            let now = after.model.networks()[name].shares();
            prop_assert!(network.shares().iter().all(|(host, share)| now[host] == *share));
        }
        for (name, vm) in before.model.vms() {
            prop_assert_eq!(vm, &after.model.vms()[name]);
        }
    }
}
