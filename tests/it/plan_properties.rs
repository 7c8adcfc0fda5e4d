//! What holds for every plan, tried on random hosts: the way back from any part of a wave, nothing foreign in any
//! operation, and the same plan whatever the order of the definition.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use vmnet::apply::Host as _;
use vmnet::definition::Definition;
use vmnet::desired::{self, Host};
use vmnet::model::{Lock, Model, resolve};

use vmnet::paths::Paths;
use vmnet::plan::{Found, Hurt, Op, Plan, Strangers, diff, hurt, own_groups};
use vmnet::rule;
use vmnet::state::{Device, Facts, Feature, ForeignNamespace, FoundRoute, HostState, LinkId, LinkKind, Ns, Tool};

use crate::fake::FakeHost;
use crate::plan_apply::block_on;
use crate::states::{self, defaults, found_settings, state};

fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// Equal but for settings that nobody asked for.
fn assert_back(now: &HostState, then: &HostState) {
    let strip = |state: &HostState| HostState { settings: Default::default(), ..state.clone() };
    assert_eq!(strip(now), strip(then));
    for (key, value) in &then.settings {
        assert_eq!(now.settings.get(key), Some(value), "{key}");
    }
}

proptest! {
    #![proptest_config(config(300))]

    /// All waves before one, and any part of that one: from there the way back leads to what was before, and the way
    /// on to what was wanted.
    #[test]
    fn from_any_part_of_a_wave_there_is_a_way_back_and_on(
        a in states::wanted(),
        b in states::wanted(),
        wave in any::<prop::sample::Index>(),
        part in proptest::collection::vec(any::<bool>(), 64),
    ) {
        let (a, b) = (state(&a, true), state(&b, false));
        let mut host = FakeHost::new(&a, &defaults());
        let own = own_groups(&host.look(), &Facts::default(), &Strangers::new());
        let plan = diff(&host.look(), &b, &found_settings(), &own);
        if plan.is_empty() {
            return Ok(());
        }
        let last = wave.index(plan.waves.len());
        for (number, wave) in plan.waves.iter().enumerate().take(last + 1) {
            let done = |index: &usize| number < last || part[index % part.len()];
            let ops: Vec<Op> = (0..wave.ops.len()).filter(done).map(|index| wave.ops[index].clone()).collect();
            let answers = block_on(host.run(&ops));
            prop_assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        }
        let from = host.clone();
        for (there, name) in [(&a, "back"), (&b, "on")] {
            let mut host = from.clone();
            let way = diff(&host.look(), there, &found_settings(), &BTreeSet::new());
            for op in way.ops() {
                let answers = block_on(host.run(std::slice::from_ref(op)));
                prop_assert!(answers.iter().all(Result::is_ok), "{name}: {op}: {answers:?}");
            }
            assert_back(&host.look(), there);
            prop_assert!(diff(&host.look(), there, &found_settings(), &BTreeSet::new()).is_empty(), "{name}");
        }
    }

    /// Foreign devices on the lab's bridges, stacked on its links, in its namespaces, some of its own link group: no
    /// operation names one, none is swept away with a group, and every one that would lose its network is told.
    #[test]
    fn foreign_devices_are_in_no_operation(
        a in states::found(),
        b in states::wanted(),
        foreign in proptest::collection::vec(any::<(prop::sample::Index, bool, u8)>(), 0..8),
    ) {
        let (a, b) = (state(&a, true), state(&b, false));
        let (facts, strangers) = around(&a, &foreign);
        let own = own_groups(&a, &facts, &strangers);
        let plan = diff(&a, &b, &found_settings(), &own);
        assert_untouched(&plan);
        let none = BTreeMap::new();
        for op in plan.ops() {
            if let Op::RemoveGroup { ns, group, count: _ } = op {
                let devices = ns.name().map_or(&facts.devices, |name| strangers.get(name).unwrap_or(&none));
                prop_assert!(devices.values().all(|device| device.group != *group), "{op}");
            }
        }
        let told: BTreeSet<String> =
            hurt(plan.ops(), &a, &facts, &strangers, &[]).iter().map(|hurt: &Hurt| hurt.device().to_owned()).collect();
        let mut host = FakeHost::new(&a, &defaults());
        let mut gone = BTreeSet::new();
        for op in plan.ops() {
            let before: BTreeSet<LinkId> = host.look().links.into_keys().collect();
            block_on(host.run(std::slice::from_ref(op)));
            let after: BTreeSet<LinkId> = host.look().links.into_keys().collect();
            // What goes with a guest's process is nobody's to keep.
            if !matches!(op, Op::StopGuest { .. }) {
                gone.extend(before.difference(&after).cloned());
            }
        }
        let places = std::iter::once((Ns::Host, &facts.devices))
            .chain(strangers.iter().map(|(ns, devices)| (Ns::Named(ns.clone()), devices)));
        for (ns, devices) in places {
            for (name, device) in devices {
                let on = [&device.master, &device.lower].into_iter().flatten();
                let mut on = on.map(|name| LinkId { ns: ns.clone(), name: name.parse().unwrap() });
                prop_assert!(told.contains(name) || !on.any(|id| gone.contains(&id)), "{name} is not told");
            }
        }
    }

    /// The definition's tables, and the lines of each, in any order, on a host with any foreign things: one desired
    /// state, and nothing foreign in the plan toward it or away from it.
    #[test]
    fn order_and_foreign_things_change_no_plan(
        (tables, other) in lab().prop_flat_map(|tables| (Just(tables.clone()), Just(tables).prop_shuffle())),
        turn in any::<prop::sample::Index>(),
        foreign in proptest::collection::vec(any::<(u8, u8)>(), 0..12),
    ) {
        let (model, other) = (read(&tables, 0), read(&other, turn.index(5)));
        let facts = host_facts(&foreign);
        let (paths, found, guests) = (Paths::default(), Found::new(), BTreeMap::new());
        let host = Host { facts: &facts, paths: &paths, found: &found, guests: &guests, domains: &BTreeMap::new() };
        let wanted = desired::desired(&model, &host);
        prop_assert_eq!(&wanted, &desired::desired(&other, &host));
        let Ok(wanted) = wanted else { return Ok(()) };
        let empty = HostState::default();
        let there = diff(&empty, &wanted.state, &found, &BTreeSet::new());
        assert_untouched(&there);
        assert_untouched(&diff(&wanted.state, &empty, &found, &own_groups(&wanted.state, &facts, &Strangers::new())));
    }
}

/// What every foreign name here has in it, and nothing of a lab's.
const FOREIGN: &str = "zz-foreign";

#[track_caller]
fn assert_untouched(plan: &Plan) {
    for op in plan.ops() {
        let text = format!("{op} {}", serde_json::to_string(op).unwrap());
        assert!(!text.contains(FOREIGN), "{text}");
    }
}

/// Foreign devices on and beside the links of a state.
fn around(state: &HostState, foreign: &[(prop::sample::Index, bool, u8)]) -> (Facts, Strangers) {
    let (mut facts, mut strangers) = (Facts::default(), Strangers::new());
    let links: Vec<&LinkId> = state.links.keys().collect();
    for (number, (index, ours, how)) in foreign.iter().enumerate() {
        let name = format!("{FOREIGN}{number}");
        let Some(id) = (!links.is_empty()).then(|| links[index.index(links.len())]) else { continue };
        let group = if *ours { rule::link_group(&states::lab()) } else { 0 };
        let on = Some(id.name.to_string());
        let is_bridge = matches!(state.links[id].kind, LinkKind::Bridge(_));
        let (master, lower) = match how % 3 {
            0 if is_bridge => (on, None),
            1 => (None, on),
            _ => (None, None),
        };
        let device = Device { kind: Some("veth".into()), group, master, lower, ..Device::default() };
        match &id.ns {
            Ns::Host => drop(facts.devices.insert(name, device)),
            Ns::Named(ns) => drop(strangers.entry(ns.clone()).or_default().insert(name, device)),
        }
    }
    (facts, strangers)
}

/// Tables of a definition: the parts that the host has a say in.
fn lab() -> impl Strategy<Value = Vec<String>> {
    let network = |number: usize| {
        prop_oneof![
            Just(format!("[network.n{number}]\nmode = \"nat\"\nvlan = {number}\nsubnet = \"10.{number}.0.0/24\"\n")),
            Just(format!(
                "[network.n{number}]\nmode = \"routed\"\nmtu = 1400\nsubnet = [\"10.{number}.0.0/24\", \"fd00:{number}::/64\"]\n"
            )),
            Just(format!("[network.n{number}]\nmode = \"isolated\"\nifname = \"br{number}\"\n")),
            Just(format!(
                "[network.n{number}]\nmode = \"bridged\"\nbridge = \"br0\"\nsubnet = \"10.{number}.0.0/24\"\n"
            )),
        ]
    };
    let outside = prop_oneof![
        Just("[router.external]\nvia = \"host\"\nsnat = \"192.0.2.2\"\n".to_owned()),
        Just("[router.external]\nvia = \"macvlan\"\naddress = \"192.0.2.9/24\"\ngateway = \"192.0.2.1\"\n".to_owned()),
        Just("[router.external]\nvia = \"vlan\"\nvlan = 99\naddress = \"192.0.2.9/24\"\n".to_owned()),
        Just("[router.external]\nvia = \"none\"\n".to_owned()),
    ];
    let networks = (1..5_usize).map(network).collect::<Vec<_>>();
    (networks, outside).prop_map(|(mut tables, outside)| {
        // A network that no guest could be on has no router either.
        if tables.iter().any(|table| table.contains("\"nat\"") || table.contains("\"routed\"")) {
            tables.push(outside);
        }
        tables.push("[uplink.t]\ndevice = \"eno1\"\n".into());
        tables.extend((1..5).map(|number| format!("[vm.g{number}]\nengine = \"netns\"\nnic = \"n{number}\"\n")));
        tables
    })
}

/// Reads the tables, the lines of each turned by so many places.
fn read(tables: &[String], turn: usize) -> Model {
    let mut text = String::from("lab = \"campus\"\n");
    for table in tables {
        let mut lines: Vec<&str> = table.lines().collect();
        let count = lines.len() - 1;
        lines[1..].rotate_left(turn % count.max(1));
        text.push_str(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    }
    let read = Definition::parse(&text).and_then(|definition| resolve(&definition, &Lock::default()));
    read.unwrap_or_else(|problems| panic!("{}", problems.render("net.toml", &text, false))).model
}

/// A host with everything that a lab needs, and foreign things of every kind.
fn host_facts(foreign: &[(u8, u8)]) -> Facts {
    let device = |kind: Option<&str>, mtu| Device { kind: kind.map(str::to_owned), mtu, up: true, ..Device::default() };
    let mut facts = Facts {
        features: Feature::ALL.into(),
        tools: Tool::ALL.into_iter().map(|tool| (tool, "/usr/sbin/tool".into())).collect(),
        capabilities: ["CAP_NET_ADMIN".to_owned(), "CAP_SYS_ADMIN".to_owned()].into(),
        devices: [("eno1".to_owned(), device(None, 1500)), ("br0".to_owned(), device(Some("bridge"), 1500))].into(),
        routes: vec![FoundRoute { to: "0.0.0.0/0".parse().unwrap(), dev: Some("eno1".into()), via: None }],
        ..Facts::default()
    };
    facts.sysctls.insert("ipv4/conf/eno1/forwarding".into(), "0".into());
    for (number, (kind, value)) in foreign.iter().enumerate() {
        let name = format!("{FOREIGN}{number}");
        match kind % 6 {
            0 => {
                let master = (value % 2 == 0).then(|| format!("br{}", value % 5));
                let one = Device { master, group: rule::link_group(&states::lab()), ..device(Some("tun"), 9000) };
                facts.devices.insert(name, one);
            }
            1 => {
                let to = ipnet::Ipv4Net::new(Ipv4Addr::new(172, 16, *value, 0), 24).unwrap();
                facts.routes.push(FoundRoute { to: to.into(), dev: Some(name), via: None });
            }
            2 => drop(facts.namespaces.insert(name, ForeignNamespace::NotOne)),
            3 => drop(facts.tables.insert(format!("inet {name}"))),
            4 => drop(facts.foreign_files.insert(format!("/run/vmnet/campus/hooks/{name}").into())),
            _ => drop(facts.foreign_macs.insert(format!("52:54:00:01:02:{value:02x}").parse().unwrap(), name)),
        }
    }
    facts.network_manager = foreign.len().is_multiple_of(2);
    facts
}

/// The random hosts reach every kind of object and every operation: what no case has, no case tests.
#[test]
fn random_hosts_have_everything() {
    let mut runner = TestRunner::deterministic();
    let strategy = (states::found(), states::wanted());
    let mut seen = BTreeMap::<String, usize>::new();
    for _ in 0..400 {
        let (a, b) = strategy.new_tree(&mut runner).unwrap().current();
        let (a, b) = (state(&a, true), state(&b, false));
        let own = own_groups(&a, &Facts::default(), &Strangers::new());
        for op in diff(&a, &b, &found_settings(), &own).ops().chain(diff(&b, &a, &found_settings(), &own).ops()) {
            let value = serde_json::to_value(op).unwrap();
            *seen.entry(value["op"].as_str().unwrap().to_owned()).or_default() += 1;
            if let Op::AddLink { link, .. } = op {
                let kind = serde_json::to_value(&link.kind).unwrap();
                let kind = kind.as_object().map_or_else(|| kind.to_string(), |map| map.keys().cloned().collect());
                *seen.entry(format!("link {kind}")).or_default() += 1;
            }
        }
    }
    let text = seen.iter().map(|(what, count)| format!("{what}: {count}")).collect::<Vec<_>>().join("\n");
    println!("{text}");
    let (tables, mut possible) = (lab(), 0);
    for _ in 0..100 {
        let model = read(&tables.new_tree(&mut runner).unwrap().current(), 0);
        let (facts, paths, found, guests) =
            (host_facts(&[(0, 0), (1, 1)]), Paths::default(), Found::new(), BTreeMap::new());
        let host = Host { facts: &facts, paths: &paths, found: &found, guests: &guests, domains: &BTreeMap::new() };
        possible += usize::from(desired::desired(&model, &host).is_ok());
    }
    assert!(possible > 60, "{possible} of 100 labs are possible on their host");
    for op in [
        "add-namespace",
        "remove-namespace",
        "add-link",
        "add-veth",
        "set-ipv6",
        "set-tx-checksum",
        "change-link",
        "remove-link",
        "remove-group",
        "add-address",
        "remove-address",
        "add-route",
        "remove-route",
        "set",
        "replace-table",
        "remove-table",
        "write-file",
        "remove-file",
        "reload",
        "start-guest",
        "stop-guest",
    ] {
        assert!(seen.get(op).is_some_and(|count| *count >= 10), "{op} is rare or missing:\n{text}");
    }
}
