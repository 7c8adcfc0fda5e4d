//! Rows 17 to 21: the NIC is missing, goes and comes, has another name, or a master.

use std::collections::BTreeMap;

use vmnet::definition::Definition;
use vmnet::desired::{Host, desired};
use vmnet::model::{Lock, resolve};
use vmnet::paths::Paths;
use vmnet::plan::Found;
use vmnet::state::{Device, Facts, Feature, LinkKind, Tool};

use crate::matrix::row;
use crate::matrix::rows::{LAB, as_applied, holds, refused, status, texts};
use crate::sandbox;
use crate::scenarios::has_kind;
use crate::skip::skip;
use crate::world::{Lab, sh, succeeds};

/// [`LAB`] with a VLAN on the trunk, where the kernel has 802.1Q; else the row is skipped.
fn with_vlan() -> Option<String> {
    if !has_kind("vlan") {
        skip(&sandbox::test(), "the kernel has no links of kind vlan");
        return None;
    }
    Some(LAB.replace("[network.web]\n", "[network.web]\nvlan = 10\n"))
}

/// NIC missing: candidates listed, nothing changed.
#[test]
fn row_17_nic_missing() {
    row!(|| {
        // Another lab's links are no candidates.
        let other = Lab::from_text("lab = \"other\"\n[network.x]\nsubnet = \"10.9.0.0/24\"\n");
        other.ok(&["create"]);
        holds(LAB, |lab| {
            let file = lab.folder().join("net.toml");
            for name in ["nic7", "lo", "02:00:00:00:00:77"] {
                std::fs::write(&file, LAB.replace("nic0", name)).unwrap();
                for verb in ["plan", "create"] {
                    refused(lab, &[verb], &["uplink trunk", name, "nic0 (02:00:00:00:00:10)"]);
                }
                let said = String::from_utf8_lossy(&lab.vmnet(&["create"]).stderr).into_owned();
                assert!(!said.contains("rt-"), "links of another lab are listed: {said}");
            }
            std::fs::write(&file, LAB).unwrap();
        });
        other.ok(&["destroy", "other"]);
    });
}

/// NIC vanishes in the middle and returns: degraded, then repaired.
#[test]
fn row_18_nic_vanishes() {
    row!(|| holds(LAB, vanishes));
}

/// The same with a sub-interface on it.
#[test]
fn row_18_nic_vanishes_with_vlan() {
    row!(|| {
        let Some(definition) = with_vlan() else { return };
        holds(&definition, vanishes);
    });
}

fn vanishes(lab: &Lab) {
    lab.ok(&["create"]);
    lab.ok(&["boot", "--all"]);
    assert!(lab.pings("vm1", "192.0.2.1"));
    sh("ip link del nic0");
    let found = status(lab);
    assert_eq!(found["condition"], "degraded", "{found:#}");
    let obstacles = found["obstacles"].to_string();
    assert!(obstacles.contains("uplink trunk") && obstacles.contains("nic0"), "{obstacles}");
    let missing = texts(&found["differences"]);
    for gone in ["link outside is", "address 192.0.2.109/24 is", "route default via 192.0.2.1 dev outside is"] {
        assert!(missing.iter().any(|text| text.starts_with(gone)), "{gone}: {missing:#?}");
    }
    assert!(lab.ok(&["status"]).contains("degraded"));
    refused(lab, &["create"], &["uplink trunk", "nic0"]);
    assert!(lab.pings("vm1", "10.2.0.10"), "what needs no NIC goes on");
    sh("
        ip link add nic0 index 40 type veth peer name wire0 index 41
        ip link set nic0 address 02:00:00:00:00:10
        ip link set wire0 address 02:00:00:00:00:11
        ip link set wire0 netns outside
        ip -n outside address add 192.0.2.1/24 dev wire0
        ip -n outside link set wire0 up
        ip link set nic0 up
        ip address add 192.0.2.10/24 dev nic0
        ip route add default via 192.0.2.1 dev nic0
    ");
    let found = status(lab);
    assert_eq!(found["condition"], "differs", "{found:#}");
    let missing = texts(&found["differences"]);
    assert!(missing.contains(&"link outside is missing in vmnet-row".to_owned()), "{missing:#?}");
    lab.ok(&["create"]);
    as_applied(lab);
    assert!(lab.pings("vm1", "192.0.2.1"), "repaired");
}

/// NIC renamed: by its name it is missing, by an altname it is still the one.
#[test]
fn row_19_nic_renamed() {
    row!(|| {
        holds(LAB, |lab| {
            lab.ok(&["create"]);
            lab.ok(&["boot", "vm1"]);
            rename("nic0", "nic9");
            assert_eq!(status(lab)["condition"], "degraded");
            refused(lab, &["create"], &["uplink trunk", "nic0", "nic9 (02:00:00:00:00:10)"]);
            rename("nic9", "nic0");
            lab.ok(&["create"]);
        });
    });
}

/// NIC named by altname: what its name is does not matter.
#[test]
fn row_19_altname() {
    row!(|| holds(&LAB.replace("nic0", "trunk0"), by_altname));
}

/// The same with a sub-interface, which is named after the NIC.
#[test]
fn row_19_altname_with_vlan() {
    row!(|| {
        let Some(definition) = with_vlan() else { return };
        holds(&definition.replace("nic0", "trunk0"), by_altname);
    });
}

fn by_altname(lab: &Lab) {
    sh("ip link property add dev nic0 altname trunk0");
    lab.ok(&["create"]);
    lab.ok(&["boot", "vm1"]);
    assert!(lab.pings("vm1", "192.0.2.1"));
    rename("nic0", "nic9");
    lab.ok(&["create"]);
    as_applied(lab);
    assert!(lab.pings("vm1", "192.0.2.1"), "the NIC is the same");
    rename("nic9", "nic0");
    lab.ok(&["create"]);
    as_applied(lab);
    // The surroundings as they were, for the comparison.
    lab.ok(&["destroy", "--stop"]);
    sh("ip link property del dev nic0 altname trunk0");
    std::fs::write(lab.folder().join("net.toml"), LAB).unwrap();
}

/// Renames a link that is up: since Linux 6.2 as it is, before only while it is down.
fn rename(from: &str, to: &str) {
    if !succeeds(&format!("ip link set {from} name {to}")) {
        sh(&format!("ip link set {from} down; ip link set {from} name {to}; ip link set {to} up"));
        sh(&format!("ip route replace default via 192.0.2.1 dev {to}"));
    }
}

/// NIC named by its permanent MAC: a stand-in has none, so a host is put together from facts.
#[test]
fn row_19_permanent_mac() {
    let text =
        "lab = \"row\"\nuplink.trunk.device = \"00:11:22:33:44:55\"\n[network.web]\nvlan = 10\nmode = \"isolated\"\n";
    let definition = Definition::parse(text).unwrap_or_else(|problems| panic!("{problems:?}"));
    let model = resolve(&definition, &Lock::default()).unwrap_or_else(|problems| panic!("{problems:?}")).model;
    let mac = "00:11:22:33:44:55".parse().ok();
    let mut facts = Facts { features: Feature::ALL.into(), ..Facts::default() };
    facts.tools.extend([Tool::Nft, Tool::Ip].map(|tool| (tool, format!("/usr/sbin/{}", tool.program()).into())));
    facts.capabilities.extend(["CAP_NET_ADMIN", "CAP_SYS_ADMIN"].map(str::to_owned));
    // A bond that took the address over, and the NIC with another one at present.
    let bond = Device { kind: Some("bond".into()), mac, mtu: 1500, ..Device::default() };
    facts.devices.insert("bond0".into(), bond);
    for name in ["eno1", "nic9"] {
        let device = Device { permanent_mac: mac, mtu: 1500, up: true, ..Device::default() };
        facts.devices.insert(name.into(), device);
        let (paths, found) = (Paths::default(), Found::new());
        let host =
            Host { facts: &facts, paths: &paths, found: &found, guests: &BTreeMap::new(), domains: &BTreeMap::new() };
        let desired = desired(&model, &host).unwrap_or_else(|refusals| panic!("{refusals:?}"));
        let parents: Vec<String> = desired
            .state
            .links
            .values()
            .filter_map(|link| match &link.kind {
                LinkKind::Vlan { parent, .. } => Some(parent.to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(parents, [name]);
        facts.devices.remove(name);
    }
}

/// NIC already has a master: refused where the definition needs it as a port, master named.
#[test]
fn row_21_nic_has_a_master() {
    row!(|| {
        holds(LAB, |lab| {
            sh("ip link set nic0 master br9");
            for verb in ["plan", "create"] {
                refused(lab, &[verb], &["nic0 is a port of br9", "name br9 as the uplink's device"]);
            }
            // The remedy works, and is told for what it is.
            std::fs::write(lab.folder().join("net.toml"), LAB.replace("nic0", "br9")).unwrap();
            let said = lab.vmnet(&["create"]);
            assert!(said.status.success(), "{said:?}");
            assert!(String::from_utf8_lossy(&said.stderr).contains("br9: is a bridge and no NIC"), "{said:?}");
            lab.ok(&["destroy", "row"]);
            sh("ip link set nic0 nomaster");
            std::fs::write(lab.folder().join("net.toml"), LAB).unwrap();
        });
    });
}

/// Allowed for sub-interfaces, with the warning.
#[test]
fn row_21_sub_interface_of_a_port() {
    row!(|| {
        let Some(definition) = with_vlan() else { return };
        let definition =
            definition.split("[router]").next().unwrap().to_owned() + "[router]\nexternal.via = \"none\"\n";
        holds(&definition, |lab| {
            sh("ip link set nic0 master br9");
            let said = lab.vmnet(&["create"]);
            assert!(said.status.success(), "{said:?}");
            assert!(String::from_utf8_lossy(&said.stderr).contains("nic0: is a port of br9"), "{said:?}");
            sh("ip -d link show nic0 | grep -q 'master br9'; ip -d link show nic0.10 | grep -q 'master brvlan-10'");
            sh("ip link set nic0 nomaster");
        });
    });
}
