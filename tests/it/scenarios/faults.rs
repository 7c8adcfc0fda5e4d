//! `verify` must see what other tools break, and `create` must repair what is the lab's own.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::world::{Lab, sh};

pub(super) fn look(lab: &Lab) {
    // Two segments become one: nothing of the lab's own has changed, only probes can tell.
    sh("ip link add leak0 type veth peer name leak1");
    sh("ip link set leak0 master br-web up && ip link set leak1 master br-quiet up");
    let found = differences(lab);
    for pair in ["vm1 -> vm3", "vm3 -> vm1", "vm3 -> gateway:web"] {
        assert!(found.contains(pair), "a leak between two networks: {found:?}");
    }
    sh("ip link del leak0");
    assert_eq!(differences(lab), BTreeSet::new());

    // SNAT alone filters nothing: without the policy the way in is open.
    sh(&format!("ip netns exec {} nft flush ruleset", lab.router_ns()));
    let found = differences(lab);
    assert!(found.contains("host -> vm1"), "a router without its policy: {found:?}");
    lab.ok(&["create"]);
    assert_eq!(differences(lab), BTreeSet::new());

    // Linux answers for all its addresses on every interface, so without the guards the host is on every segment.
    sh(&format!("nft delete table bridge vmnet-{}", lab.name));
    let found = differences(lab);
    for pair in ["vm1 -> host", "vm3 -> host"] {
        assert!(found.contains(pair), "bridges without their guards: {found:?}");
    }
    lab.ok(&["create"]);
    assert_eq!(differences(lab), BTreeSet::new());

    // A guest that lost its port.
    sh(&format!("ip link set {} nomaster", lab.tap("vm2")));
    let found = differences(lab);
    for pair in ["vm1 -> vm2", "vm2 -> vm1", "vm2 -> gateway:web"] {
        assert!(found.contains(pair), "a port that was taken away: {found:?}");
    }
    assert!(!found.contains("vm1 -> gateway:web"), "{found:?}");
    lab.ok(&["create"]);
    assert_eq!(differences(lab), BTreeSet::new());

    // Who is not there can't be tried, which is no difference.
    lab.ok(&["stop", "vm3"]);
    assert_eq!(differences(lab), BTreeSet::new());
}

/// The pairs that `verify` says differ; its exit code must agree.
fn differences(lab: &Lab) -> BTreeSet<String> {
    let output = lab.vmnet(&["verify", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("verify prints JSON");
    let rows = report["rows"].as_array().expect("a list of rows").clone();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let differs = rows.iter().filter(|row| row["verdict"] == "differs");
    let found: BTreeSet<String> = differs.map(|row| format!("{} -> {}", text(row, "from"), text(row, "to"))).collect();
    assert_eq!(output.status.code(), Some(i32::from(!found.is_empty())), "{found:?}");
    found
}
