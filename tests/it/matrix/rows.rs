//! What rows share: surroundings, a lab that uses much, and what every row holds to.

use serde_json::Value;

use crate::snapshot::Snapshot;
use crate::world::{Lab, output, sh};

/// A NIC with an address and a default route, an outside behind it, and a bridge of somebody's.
pub(crate) const WORLD: &str = "
    ip netns add outside
    ip netns exec outside sh -c 'echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad'
    ip link add nic0 index 40 type veth peer name wire0 index 41
    ip link set nic0 address 02:00:00:00:00:10
    ip link set wire0 address 02:00:00:00:00:11
    ip link set wire0 netns outside
    ip -n outside address add 192.0.2.1/24 dev wire0
    ip -n outside link set lo up
    ip -n outside link set wire0 up
    ip link set nic0 up
    ip address add 192.0.2.10/24 dev nic0
    ip route add default via 192.0.2.1 dev nic0
    ip link add br9 address 02:00:00:00:00:12 type bridge
    ip link set br9 up
    ip link add stay0 address 02:00:00:00:00:13 master br9 type veth peer name stay1 address 02:00:00:00:00:14
    ip link set stay0 up
    ip link set stay1 up
";

/// Three networks, a router with an address of its own on the NIC, guests with a nic on each network.
pub(crate) const LAB: &str = r#"
lab = "row"
[uplink.trunk]
device = "nic0"
[defaults.vm]
engine = "netns"
[network.web]
subnet = "10.1.0.0/24"
[network.db]
mode = "routed"
subnet = "10.2.0.0/24"
[network.quiet]
mode = "isolated"
subnet = "10.3.0.0/24"
[router]
external = { via = "macvlan", address = "192.0.2.109/24", gateway = "192.0.2.1" }
[vm.vm1]
nic = ["web", "quiet"]
[vm.vm2]
nic = "db"
"#;

/// The same with both families. Their link-local addresses change a snapshot by themselves.
pub(crate) fn both_families() -> String {
    LAB.replace("subnet = \"10.2.0.0/24\"", "subnet = [\"10.2.0.0/24\", \"2001:db8:2::/64\"]")
}

/// The same through the host.
pub(crate) fn through_host() -> String {
    let macvlan = r#"{ via = "macvlan", address = "192.0.2.109/24", gateway = "192.0.2.1" }"#;
    LAB.replace(macvlan, r#"{ via = "host" }"#).replace("[uplink.trunk]\ndevice = \"nic0\"\n", "")
}

/// Builds the surroundings, runs a row with a lab that is not created yet, and holds it to the promise: a `create`
/// succeeds afterwards, `destroy` does so twice, and everything is as it was.
#[track_caller]
pub(crate) fn holds(definition: &str, row: impl FnOnce(&Lab)) {
    sh(WORLD);
    let before = Snapshot::when_settled();
    let lab = Lab::from_text(definition);
    row(&lab);
    lab.ok(&["create", "net.toml"]);
    as_applied(&lab);
    gone(&lab, &before);
}

/// Destroys a lab twice; nothing of it is left.
#[track_caller]
pub(crate) fn gone(lab: &Lab, before: &Snapshot) {
    lab.ok(&["destroy", "--stop", "--purge", &lab.name]);
    lab.ok(&["destroy", &lab.name]);
    nothing_left(lab, before);
}

/// Everything is as it was before.
#[track_caller]
pub(crate) fn nothing_left(lab: &Lab, before: &Snapshot) {
    let differences = before.differences(&Snapshot::take());
    assert!(differences.is_empty(), "left behind:\n{}", differences.join("\n"));
    let files = output(&format!("find /run/state/{0} /run/vmnet/{0} 2>/dev/null; true", lab.name));
    assert!(files.is_empty(), "left behind:\n{files}");
}

/// `status` and `plan` agree that nothing is to be done.
#[track_caller]
pub(crate) fn as_applied(lab: &Lab) {
    let status = status(lab);
    assert_eq!(status["condition"], "as-applied", "{status:#}");
    lab.ok(&["plan", "--check"]);
}

/// What `status --json` says.
#[track_caller]
pub(crate) fn status(lab: &Lab) -> Value {
    json(&lab.ok(&["status", &lab.name, "--json"]))
}

#[track_caller]
pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// The lines of a list of objects, each its `text`.
#[track_caller]
pub(crate) fn texts(list: &Value) -> Vec<String> {
    let of = |item: &Value| item["text"].as_str().expect("a text").to_owned();
    list.as_array().expect("a list").iter().map(of).collect()
}

/// Runs a verb that must fail with exit code 1, say each of these, and change nothing.
#[track_caller]
pub(crate) fn refused(lab: &Lab, args: &[&str], says: &[&str]) {
    let run = || {
        let before = Snapshot::take();
        fails(lab, args, says);
        before.differences(&Snapshot::take())
    };
    let mut differences = run();
    if !differences.is_empty() {
        // Carriers of links that are new take a second. What is refused can be tried again.
        std::thread::sleep(std::time::Duration::from_millis(1200));
        differences = run();
    }
    assert!(differences.is_empty(), "{args:?} changed something:\n{}", differences.join("\n"));
}

/// Runs a verb that must fail with exit code 1 and say each of these.
#[track_caller]
pub(crate) fn fails(lab: &Lab, args: &[&str], says: &[&str]) {
    let output = lab.vmnet(args);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
    for word in says {
        assert!(text.contains(word), "{args:?} does not say {word:?}: {text}");
    }
}

/// The index of a link of the host.
#[track_caller]
pub(crate) fn index(link: &str) -> String {
    sh(&format!("cat /sys/class/net/{link}/ifindex")).trim().to_owned()
}
