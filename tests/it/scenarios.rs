//! One loop over the folders of `tests/scenarios`: build the surroundings, create, boot, verify, compare, look closer,
//! destroy, and find everything as it was.
//!
//! A folder holds `net.toml`, `expected.toml` ([`Expected`]) and, where the lab needs surroundings, `world.sh`. What
//! data can't say is a function in a file of the same name below `tests/it/scenarios`. Guests are namespaces. Those
//! listed for it run again with QEMU guests in the kernel lab (`VMNET_LAB=1`), or anywhere with
//! `VMNET_TEST_QEMU=tcg` or `kvm`.

mod bridge_macs;
mod bridged;
mod building_blocks;
mod faults;
mod guards;
mod isolated;
mod nat;
mod rehearsed;
mod routed;
mod two_subnets;
mod vlan;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::sandbox;
use super::skip::skip;
use super::snapshot::{Snapshot, inside, namespace_names};
use super::world::{Engine, Lab, output, sh, succeeds};

/// What must come of a scenario.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// The experiment, in a sentence.
    #[serde(rename = "about")]
    _about: String,
    /// Kinds of link that the kernel must know, else the scenario is skipped.
    #[serde(default)]
    needs: Vec<String>,
    /// What `verify` exits with.
    #[serde(default)]
    exit: i32,
    /// `"vm1 -> vm2" = "reach"` or `"deny"`: whether any probe of the pair was answered. Every pair of guests stands
    /// here.
    reach: BTreeMap<String, Outcome>,
    /// The lab's namespaces, as `ip netns` sees them.
    #[serde(default)]
    namespaces: BTreeSet<String>,
    /// Links by name, those in a namespace as `namespace/name`; on several hosts with the host's name in front, as
    /// `h1:name`.
    #[serde(default)]
    links: BTreeMap<String, ExpectedLink>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Reach,
    Deny,
}

/// What `ip -d -j address` must say of a link; what is left out may be anything.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedLink {
    kind: Option<String>,
    master: Option<String>,
    mtu: Option<u64>,
    vlan: Option<u64>,
    parent: Option<String>,
    addresses: Option<BTreeSet<String>>,
}

/// A closer look at a running lab.
type Look = fn(&Lab);

macro_rules! scenarios {
    (
        here { $($name:ident => $look:expr;)* }
        with_qemu { $($again:ident => $closer:expr;)* }
        on_hosts { $($hosts:ident => $far:expr;)* }
        on_hosts_with_qemu { $($machines:ident => $farther:expr;)* }
    ) => {
        $(
            #[test]
            fn $name() {
                let test = || run(stringify!($name), Engine::Netns, $look);
                sandbox::run(concat!("scenarios::", stringify!($name)), test);
            }
        )*

        /// The same with QEMU guests, where QEMU guests can be had.
        mod with_qemu {
            use super::*;
            $(
                #[test]
                fn $again() {
                    let body = |engine| run(stringify!($again), engine, $closer);
                    again_with_qemu(stringify!($again), body);
                }
            )*
            $(
                #[test]
                fn $machines() {
                    let body =
                        |engine| rehearsed::run(stringify!($machines), "scenarios::with_qemu", engine, $farther);
                    again_with_qemu(stringify!($machines), body);
                }
            )*
        }

        /// Those on several hosts.
        mod on_hosts {
            use super::*;
            $(
                #[test]
                fn $hosts() {
                    let module = "scenarios::on_hosts";
                    let test = || rehearsed::run(stringify!($hosts), module, Engine::Netns, $far);
                    sandbox::run(concat!("scenarios::on_hosts::", stringify!($hosts)), test);
                }
            )*
        }

        #[test]
        fn every_folder_is_run() {
            let here: BTreeSet<String> = [$(stringify!($name),)* $(stringify!($hosts),)*].map(|name| name.replace('_', "-")).into();
            let entries = std::fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name());
            let folders: BTreeSet<String> = entries.map(|name| name.into_string().unwrap()).collect();
            assert_eq!(here, folders);
        }
    };
}

scenarios! {
    here {
        bridge_macs => bridge_macs::look;
        bridge_of_three => building_blocks::look;
        bridge_of_two => building_blocks::look;
        bridged => bridged::look;
        bridged_vlan => bridged::look;
        faults => faults::look;
        guards => guards::look;
        guards_foreign_bridge => guards::look;
        isolated => isolated::look;
        nat_host => nat::look;
        nat_macvlan => nat::look;
        nat_vlan => nat::look;
        routed => routed::look;
        two_families => both_families;
        two_subnets => two_subnets::look;
        vlan_isolation => vlan::isolation;
        vlan_router => vlan::router;
    }
    with_qemu {
        guards => guards::look;
        isolated => isolated::look;
        nat_host => nat::look;
        nat_macvlan => nat::look;
        vlan_isolation => vlan::isolation;
        vlan_router => vlan::router;
    }
    on_hosts {
        hosts_gateway => rehearsed::gateway;
        hosts_routed => rehearsed::routed;
        hosts_vlans => rehearsed::vlans;
    }
    on_hosts_with_qemu {
        hosts_vlans => rehearsed::vlans;
    }
}

/// Both families by the guests' own ping.
fn both_families(lab: &Lab) {
    assert!(lab.pings("vm1", "10.2.0.10") && lab.pings("vm1", "2001:db8:2::a"));
    assert!(!lab.pings("vm1", "2001:db8:3::a"), "an address of vm4 on an isolated network");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn again_with_qemu(name: &str, body: impl FnOnce(Engine)) {
    let accel = match std::env::var("VMNET_TEST_QEMU").as_deref() {
        Ok("tcg") => "tcg",
        Ok("kvm") => "kvm",
        Ok(other) => panic!("VMNET_TEST_QEMU is {other:?}; use tcg or kvm"),
        Err(_) if std::env::var_os("VMNET_LAB").is_some() => "kvm",
        Err(_) => "",
    };
    let full = format!("scenarios::with_qemu::{name}");
    if accel.is_empty() {
        return skip(&full, "QEMU guests run in the kernel lab, or with VMNET_TEST_QEMU=tcg");
    }
    sandbox::run(&full, || body(Engine::Qemu(accel)));
}

fn read(name: &str) -> Expected {
    let path = root().join(name.replace('_', "-")).join("expected.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The loop's body.
fn run(name: &str, engine: Engine, look: Look) {
    let folder = root().join(name.replace('_', "-"));
    let expected = read(name);
    for kind in &expected.needs {
        if !has_kind(kind) {
            let module = if let Engine::Qemu(_) = engine { "scenarios::with_qemu" } else { "scenarios" };
            return skip(&format!("{module}::{name}"), &format!("the kernel has no links of kind {kind}"));
        }
    }
    let world = folder.join("world.sh");
    if world.exists() {
        sh(&format!("cd {} && sh -eu ./world.sh", folder.display()));
    }
    let before = Snapshot::when_settled();
    let lab = Lab::new(&folder, engine);
    lab.ok(&["check"]);
    lab.ok(&["create"]);
    unchanged(&lab);
    let wait: &[&str] = if engine == Engine::Netns { &[] } else { &["--wait=150s"] };
    lab.ok(&[&["boot", "--all"], wait].concat());
    unchanged(&lab);
    objects(&expected, engine);
    reachability(&lab, &expected);
    look(&lab);
    lab.ok(&["destroy", "--stop", "--purge"]);
    lab.ok(&["destroy", &lab.name]);
    let differences = before.differences(&Snapshot::take());
    assert!(differences.is_empty(), "{name} left this behind:\n{}", differences.join("\n"));
    for folder in ["/run/state", "/run/vmnet"] {
        let left = output(&format!("find {folder}/{} -type f 2>/dev/null", lab.name));
        assert!(left.is_empty(), "{name} left files behind:\n{left}");
    }
}

pub(crate) fn has_kind(kind: &str) -> bool {
    match kind {
        "vlan" => {
            let made = succeeds(
                "ip link add vlan-test0 type veth peer name vlan-test1 && ip link add link vlan-test0 name vlan-test2 type vlan id 2",
            );
            output("ip link del vlan-test0");
            made
        }
        kind => succeeds(&format!("ip link add kind-test0 type {kind} && ip link del kind-test0")),
    }
}

/// A second plan is empty.
fn unchanged(lab: &Lab) {
    let output = lab.vmnet(&["plan", "--check"]);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the plan after create is not empty:\n{text}");
}

fn reachability(lab: &Lab, expected: &Expected) {
    let verify = lab.vmnet(&["verify", "--json"]);
    let text = String::from_utf8_lossy(&verify.stdout);
    let errors = String::from_utf8_lossy(&verify.stderr);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}{errors}"));
    let rows = report["rows"].as_array().unwrap_or_else(|| panic!("no rows in {text}"));
    let mut seen = BTreeMap::<String, Outcome>::new();
    for row in rows.iter().filter(|row| row["seen"] != "untested") {
        let pair = format!("{} -> {}", text_in(row, "from"), text_in(row, "to"));
        let reached = row["seen"] == "reached";
        let outcome = seen.entry(pair).or_insert(Outcome::Deny);
        if reached {
            *outcome = Outcome::Reach;
        }
    }
    let guests = |pair: &str| !pair.contains(':') && !pair.contains("host") && !pair.contains("outside");
    let wrong: Vec<String> = seen
        .iter()
        .filter(|(pair, outcome)| match expected.reach.get(*pair) {
            Some(wanted) => wanted != *outcome,
            None => guests(pair),
        })
        .map(|(pair, outcome)| format!("{pair}: {outcome:?}, not {:?}", expected.reach.get(pair)))
        .collect();
    let differs: Vec<&Value> = rows.iter().filter(|row| row["verdict"] == "differs").collect();
    assert!(wrong.is_empty(), "seen and not expected: {wrong:#?}\nverify itself says: {differs:#?}");
    let missing: Vec<&String> = expected.reach.keys().filter(|pair| !seen.contains_key(*pair)).collect();
    assert!(missing.is_empty(), "never tried: {missing:?}");
    assert_eq!(verify.status.code(), Some(expected.exit), "{differs:#?}\n{errors}");
}

fn text_in<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn objects(expected: &Expected, engine: Engine) {
    let guest = |name: &str| name.contains('.');
    let there = namespace_names();
    for name in expected.namespaces.iter().filter(|name| engine == Engine::Netns || !guest(name)) {
        assert!(there.contains(name), "no namespace {name} in {there:?}");
        assert!(succeeds(&format!("ip netns exec {name} true")), "ip netns can't enter {name}");
    }
    for (name, wanted) in &expected.links {
        let (ns, link) = name.split_once('/').map_or((None, name.as_str()), |(ns, link)| (Some(ns), link));
        if engine != Engine::Netns && ns.is_some_and(guest) {
            continue;
        }
        let json = output(&inside(ns, &format!("ip -d -j address show dev {link}")));
        let found: Value = serde_json::from_str(&json).unwrap_or(Value::Null);
        let found = &found[0];
        assert!(found.is_object(), "there is no link {name}");
        check_link(name, wanted, found);
    }
}

fn check_link(name: &str, wanted: &ExpectedLink, found: &Value) {
    let ExpectedLink { kind, master, mtu, vlan, parent, addresses } = wanted;
    let same = |what: &str, wanted: Option<Value>, found: &Value| {
        if let Some(wanted) = wanted {
            assert_eq!(&wanted, found, "{what} of {name}");
        }
    };
    same("kind", kind.clone().map(Value::from), &found["linkinfo"]["info_kind"]);
    same("master", master.clone().map(Value::from), &found["master"]);
    same("MTU", mtu.map(Value::from), &found["mtu"]);
    same("VLAN", vlan.map(Value::from), &found["linkinfo"]["info_data"]["id"]);
    same("parent", parent.clone().map(Value::from), &found["link"]);
    if let Some(addresses) = addresses {
        let rows = found["addr_info"].as_array().cloned().unwrap_or_default();
        let net = |row: &Value| format!("{}/{}", text_in(row, "local"), row["prefixlen"]);
        let there: BTreeSet<String> = rows.iter().filter(|row| row["scope"] != "link").map(net).collect();
        assert_eq!(addresses, &there, "addresses of {name}");
    }
}
