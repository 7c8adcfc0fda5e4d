//! What holds for every definition, tried on random ones.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::Config;
use vmnet::definition::Definition;
use vmnet::model::{Lock, Model, Nic, Resolved, resolve};

/// Seeds are not kept in files: a case that fails becomes one below `tests/definitions`.
fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// A definition without mistakes, as the tables that it is made of.
#[derive(Debug, Clone)]
struct Lab {
    networks: Vec<String>,
    guests: Vec<String>,
}

impl Lab {
    fn tables(&self) -> Vec<&str> {
        self.networks.iter().chain(&self.guests).map(String::as_str).collect()
    }
}

const HEAD: &str = "lab = \"campus\"\nuplink.trunk.device = \"eno1\"\ndefaults.vm.engine = \"netns\"\n";

fn text(tables: &[&str]) -> String {
    format!("{HEAD}{}", tables.concat())
}

fn read(text: &str, lock: &Lock) -> Resolved {
    Definition::parse(text)
        .and_then(|definition| resolve(&definition, lock))
        .unwrap_or_else(|problems| panic!("{}\n{text}", problems.render("net.toml", text, false)))
}

/// A network with a number that keeps its VLAN and subnets apart from those of others.
fn network(number: usize) -> impl Strategy<Value = String> {
    let subnets = select(vec![
        "[\"10.N.0.0/24\"]",
        "[\"10.N.0.0/24\", \"10.N.1.0/27\"]",
        "[\"10.N.0.0/16\", \"fd00:N::/64\"]",
        "[\"fd00:N::/120\"]",
    ]);
    let mode = select(vec!["nat", "routed", "isolated"]);
    (subnets, mode, any::<bool>()).prop_map(move |(subnets, mode, tagged)| {
        let vlan = if tagged { format!("vlan = {}\n", number + 1) } else { String::new() };
        let subnets = subnets.replace('N', &number.to_string());
        format!("[network.net{number}]\nmode = \"{mode}\"\n{vlan}subnet = {subnets}\n")
    })
}

/// A guest with a number; each of its nics on one of `networks` networks, without an address of its own.
fn guest(number: usize, networks: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(0..networks, 1..4).prop_map(move |nics| {
        let nics: Vec<String> = nics.iter().map(|network| format!("\"net{network}\"")).collect();
        format!("[vm.vm{number}]\nnic = [{}]\n", nics.join(", "))
    })
}

fn lab() -> impl Strategy<Value = Lab> {
    (1..5_usize).prop_flat_map(|networks| {
        let all_networks: Vec<_> = (0..networks).map(network).collect();
        // Numbers with one, two and three digits: natural order is not that of letters.
        let numbers = subsequence(vec![1_usize, 2, 3, 9, 10, 11, 20, 100], 0..8);
        let guests = numbers.prop_flat_map(move |numbers| {
            numbers.into_iter().map(|number| guest(number, networks)).collect::<Vec<_>>()
        });
        (all_networks, guests).prop_map(|(networks, guests)| Lab { networks, guests })
    })
}

fn nics(model: &Model) -> Vec<(String, &Nic)> {
    let of = |vm: &vmnet::model::Vm| vm.name().to_string();
    model.vms().values().flat_map(|vm| vm.nics().iter().map(move |nic| (of(vm), nic))).collect()
}

proptest! {
    #![proptest_config(config(192))]

    #[test]
    fn the_order_of_tables_means_nothing(
        (lab, order) in lab().prop_flat_map(|lab| {
            let tables: Vec<String> = lab.tables().into_iter().map(str::to_owned).collect();
            (Just(lab), Just(tables).prop_shuffle())
        })
    ) {
        let order: Vec<&str> = order.iter().map(String::as_str).collect();
        prop_assert_eq!(read(&text(&lab.tables()), &Lock::default()), read(&text(&order), &Lock::default()));
    }

    #[test]
    fn a_guest_that_comes_or_goes_moves_nobody(lab in lab(), number in 0..200_usize, away in any::<prop::sample::Index>()) {
        let before = read(&text(&lab.tables()), &Lock::default());
        let newcomer = format!("[vm.new{number}]\nnic = [\"net0\", \"net0\"]\n[network.new]\nsubnet = \"172.16.0.0/24\"\n");
        let mut tables = lab.tables();
        tables.push(&newcomer);
        let after = read(&text(&tables), &before.lock);
        for (vm, nic) in nics(&before.model) {
            let now = &after.model.vms()[vm.as_str()];
            prop_assert!(now.nics().contains(nic), "{vm}: {nic:?} became {:?}", now.nics());
        }
        if lab.guests.is_empty() {
            return Ok(());
        }
        let gone = away.index(lab.guests.len());
        let fewer = Lab {
            guests: lab.guests.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, g)| g.clone()).collect(),
            ..lab.clone()
        };
        let after = read(&text(&fewer.tables()), &before.lock);
        for (vm, nic) in nics(&after.model) {
            prop_assert!(before.model.vms()[vm.as_str()].nics().contains(nic), "{vm}: {nic:?} is new");
        }
    }

    #[test]
    fn a_lock_file_reads_back_and_changes_nothing(lab in lab()) {
        let first = read(&text(&lab.tables()), &Lock::default());
        let lock = Lock::parse(&first.lock.to_string());
        prop_assert_eq!(lock.as_ref(), Ok(&first.lock));
        prop_assert_eq!(read(&text(&lab.tables()), &first.lock), first);
    }

    #[test]
    fn addresses_and_macs_are_there_once_and_where_they_belong(lab in lab()) {
        let Resolved { model, .. } = read(&text(&lab.tables()), &Lock::default());
        let (mut macs, mut taps, mut addresses) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for network in model.networks().values() {
            for subnet in network.subnets() {
                addresses.extend(subnet.gateway().map(|gateway| (network.name(), gateway)));
            }
        }
        for (vm, nic) in nics(&model) {
            prop_assert!(macs.insert(nic.mac()), "{vm} {}", nic.mac());
            prop_assert!(taps.insert(nic.tap()), "{vm} {}", nic.tap());
            let network = model.network_of(nic);
            // One of each family that the network has.
            let families: BTreeSet<bool> = network.subnets().iter().map(|s| s.net().addr().is_ipv4()).collect();
            let found: BTreeSet<bool> = nic.addresses().iter().map(|net| net.addr().is_ipv4()).collect();
            prop_assert_eq!(&families, &found);
            prop_assert_eq!(nic.addresses().len(), found.len());
            for net in nic.addresses() {
                let address: IpAddr = net.addr();
                prop_assert!(addresses.insert((network.name(), address)), "{vm} {address}");
                let subnet = network.subnets().iter().find(|subnet| subnet.net().contains(&address));
                prop_assert_eq!(subnet.map(|subnet| subnet.net().prefix_len()), Some(net.prefix_len()));
                prop_assert!(address != net.network() && address != net.broadcast(), "{vm} {address}");
            }
        }
    }
}

const HEADERS: &[&str] = &[
    "",
    "[uplink.trunk]",
    "[uplink.a]",
    "[network.web]",
    "[network.db]",
    "[[network.db]]",
    "[network.\"$(id)\"]",
    "[router]",
    "[router.external]",
    "[image.debian]",
    "[defaults.vm]",
    "[vm.vm1]",
    "[vm.vm2]",
    "[vm.web]",
    "[vm]",
    "[[vm]]",
    "[vm.vm1.nic]",
    "[[vm.vm2.nic]]",
    "[host.h1]",
];

const KEYS: &[&str] = &[
    "lab",
    "device",
    "mode",
    "vlan",
    "uplink",
    "subnet",
    "gateway",
    "dns",
    "mtu",
    "bridge",
    "ifname",
    "external",
    "via",
    "address",
    "snat",
    "transit",
    "file",
    "format",
    "kernel",
    "initrd",
    "cmdline",
    "nic",
    "engine",
    "accel",
    "cpus",
    "memory",
    "image",
    "disk",
    "user",
    "ssh_keys",
    "cloud_init",
    "password_hash",
    "users",
    "packages",
    "run",
    "user_data",
    "routes",
    "search",
    "network",
    "mac",
    "model",
    "tap",
    "vm",
    "subnets",
    "\"\"",
];

const VALUES: &[&str] = &[
    "\"campus\"",
    "\"trunk\"",
    "\"web\"",
    "\"db\"",
    "\"debian\"",
    "\"eno1\"",
    "\"br0\"",
    "\"nat\"",
    "\"routed\"",
    "\"isolated\"",
    "\"bridged\"",
    "\"host\"",
    "\"macvlan\"",
    "\"vlan\"",
    "\"none\"",
    "\"netns\"",
    "\"qemu\"",
    "10",
    "0",
    "4095",
    "-1",
    "99999999999999999999",
    "1.5",
    "true",
    "2026-11-21",
    "[]",
    "{}",
    "\"\"",
    "\"\\u0000\"",
    "\"192.168.10.0/24\"",
    "\"192.168.10.1\"",
    "[\"192.168.10.0/24\", \"fd00::/64\"]",
    "\"0.0.0.0/0\"",
    "\"::/0\"",
    "\"255.255.255.255\"",
    "\"10.0.0.0/31\"",
    "[\"10.0.0.0/30\", \"10.0.0.0/30\"]",
    "\"52:54:00:00:00:01\"",
    "[\"web\", \"db\", \"web\"]",
    "{ network = \"web\", address = \"192.168.10.10\" }",
    "[{ network = \"web\", mac = \"52:54:00:00:00:01\" }, \"web\"]",
    "\"1GiB\"",
    "\"x.qcow2\"",
    "\"dhcp\"",
    "[\"dhcp\", \"slaac\"]",
    "[{ to = \"10.0.0.0/8\", via = \"192.168.10.9\" }]",
    "[{ name = \"anna\" }, { name = \"anna\" }]",
    "[[\"a\", \"b\"], \"c\"]",
    "false",
    "[[[[1]]]]",
];

/// A definition of known keys with values that fit now and then.
fn plausible() -> impl Strategy<Value = String> {
    let values = proptest::collection::vec(select(VALUES.to_vec()), KEYS.len());
    let table =
        (select(HEADERS.to_vec()), subsequence(KEYS.to_vec(), 0..8), values).prop_map(|(header, keys, values)| {
            let lines = keys.iter().zip(values).map(|(key, value)| format!("{key} = {value}\n"));
            format!("{header}\n{}", lines.collect::<String>())
        });
    proptest::collection::vec(table, 0..6).prop_map(|tables| tables.concat())
}

/// A text that people would call TOML from afar: real definitions with bytes of them lost, doubled or replaced.
fn damaged() -> impl Strategy<Value = String> {
    const TEXTS: [&str; 3] = [
        include_str!("../definitions/good/campus.toml"),
        include_str!("../definitions/good/families.toml"),
        include_str!("../definitions/bad/types.toml"),
    ];
    let piece =
        select(vec!["", "\"", "]", "[", "{", "}", "=", "\n", ".", "#", "'''", "\\", "\u{0}", "ä", "\u{202e}", "1"]);
    let wounds = proptest::collection::vec((any::<prop::sample::Index>(), 0..12_usize, piece), 0..6);
    (select(TEXTS.to_vec()), wounds).prop_map(|(text, wounds)| {
        let mut chars: Vec<char> = text.chars().collect();
        for (at, length, piece) in wounds {
            let at = at.index(chars.len() + 1);
            let end = (at + length).min(chars.len());
            chars.splice(at..end, piece.chars());
        }
        chars.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(config(1024))]

    #[test]
    fn no_text_makes_it_panic(text in prop_oneof![4 => plausible(), 2 => damaged(), 1 => any::<String>()]) {
        let result = Definition::parse(&text).and_then(|definition| resolve(&definition, &Lock::default()));
        if let Err(problems) = result {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.render("net.toml", &text, true).ends_with("problem\n")
                || problems.render("net.toml", &text, false).contains("problems"));
            for report in problems.reports("net.toml", &text) {
                prop_assert!(report.line >= 1 && report.column >= 1 && report.line <= text.matches('\n').count() + 1);
            }
        }
    }
}
