//! `verify` says where the packets of what differs stopped.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::probe::crowd;
use super::sandbox;
use super::scenarios::has_kind;
use super::skip::skip;
use super::world::{Engine, Lab, output, sh};

/// Two networks with a gateway, and one without.
const NETWORKS: &str = r#"lab = "trace"
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
[vm.vm1]
nic = "web"
[vm.vm2]
nic = "web"
[vm.vm3]
nic = "db"
[vm.vm4]
nic = "quiet"
"#;

fn lab() -> Lab {
    let lab = Lab::from_text(NETWORKS);
    lab.ok(&["create"]);
    lab.ok(&["boot", "--all"]);
    lab
}

fn verify(lab: &Lab) -> Value {
    let verify = lab.vmnet(&["verify", "--json", "--junit", "/run/lab/junit.xml"]);
    let errors = String::from_utf8_lossy(&verify.stderr);
    serde_json::from_slice(&verify.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

/// The row of a pair.
#[track_caller]
fn row<'a>(report: &'a Value, from: &str, to: &str, how: &str) -> &'a Value {
    let rows = report["rows"].as_array().unwrap();
    let is = |row: &&Value| row["from"] == from && row["to"] == to && row["how"] == how;
    rows.iter().find(is).unwrap_or_else(|| panic!("no try from {from} to {to} by {how}"))
}

/// What is said of a pair that differs.
#[track_caller]
fn said(report: &Value, from: &str, to: &str, how: &str) -> String {
    let row = row(report, from, to, how);
    row["stopped"]["text"].as_str().unwrap_or_else(|| panic!("nothing is said of {row:#}")).to_owned()
}

/// Promiscuous links of the host: what a capture could leave.
fn promiscuous() -> String {
    output("ip -o -d link show | grep -o '^[0-9]*: [^:]*.*promiscuity [0-9]*' | sed 's/: <.*promiscuity/ /'")
}

#[test]
fn all_as_expected_is_not_traced() {
    sandbox::run("trace::all_as_expected_is_not_traced", || {
        let lab = lab();
        let report = verify(&lab);
        assert_eq!(report["totals"]["differs"], 0, "{report:#}");
        assert_eq!(report["traces"], Value::Null);
        assert!(report["rows"].as_array().unwrap().iter().all(|row| row.get("stopped").is_none()));
        let text = lab.ok(&["verify"]);
        assert!(!text.contains("seen last"), "{text}");
        lab.ok(&["destroy", "--stop", "--purge"]);
    });
}

#[test]
fn a_guest_that_does_not_answer() {
    sandbox::run("trace::a_guest_that_does_not_answer", || {
        let lab = lab();
        let (tap, ns) = (lab.tap("vm2"), lab.guest_ns("vm2"));
        let before = promiscuous();
        // It is there, and deaf.
        sh(&format!("ip -n {ns} link set eth0 arp off && ip -n {ns} neigh flush dev eth0"));
        let report = verify(&lab);
        let wanted = format!("request reached {tap} (TAP of vm2); no reply came from it");
        assert_eq!(said(&report, "vm1", "vm2", "l2"), wanted);
        let stopped = &row(&report, "vm1", "vm2", "l2")["stopped"];
        assert_eq!(stopped["request_last"]["role"], "tap");
        assert_eq!(stopped["request_last"]["link"], tap.as_str());
        assert_eq!(stopped["reply_last"], Value::Null);
        let lines = String::from_utf8(lab.vmnet(&["verify"]).stdout).unwrap();
        assert!(lines.contains(&format!("    {wanted}\n")), "{lines}");
        let junit = std::fs::read_to_string("/run/lab/junit.xml").unwrap();
        assert!(junit.contains(&wanted), "{junit}");
        sh(&format!("ip -n {ns} link set eth0 arp on"));

        // Its cable is unplugged at its own end.
        sh(&format!("ip -n {ns} link set eth0 down"));
        let report = verify(&lab);
        let text = said(&report, "vm1", "vm2", "l2");
        assert_eq!(
            text,
            format!(
                "request seen last on br-web (bridge of web); never on {tap} (TAP of vm2), which has no carrier: the \
                 other end is down or nobody has it open"
            )
        );
        let text = said(&report, "vm2", "vm1", "l3");
        assert_eq!(
            text,
            format!(
                "request never seen, not even on {tap} (TAP of vm2), which has no carrier: the other end is down or \
                 nobody has it open"
            )
        );
        assert_eq!(promiscuous(), before, "a capture ends with the program");
        lab.ok(&["destroy", "--stop", "--purge"]);
    });
}

#[test]
fn a_foreign_rule_on_the_bridge() {
    sandbox::run("trace::a_foreign_rule_on_the_bridge", || {
        let lab = lab();
        let tap = lab.tap("vm2");
        sh(&format!(
            "nft add table bridge stranger
             nft 'add chain bridge stranger f {{ type filter hook forward priority 0; }}'
             nft add rule bridge stranger f oifname {tap} ether type ip drop"
        ));
        let report = verify(&lab);
        assert_eq!(row(&report, "vm1", "vm2", "l2")["verdict"], "met", "ARP passes");
        let text = said(&report, "vm1", "vm2", "l3");
        assert_eq!(text, format!("request seen last on br-web (bridge of web); never on {tap} (TAP of vm2)"));
        // The request of vm2 arrives, and the reply stops at the same place.
        let text = said(&report, "vm2", "vm1", "l3");
        assert_eq!(text, format!("reply seen last on br-web (bridge of web); never on {tap} (TAP of vm2)"));
        assert_eq!(row(&report, "vm2", "vm1", "l3")["stopped"]["request_last"]["vm"], "vm1");
        sh("nft delete table bridge stranger");

        // Before the bridge has looked at it.
        let from = lab.tap("vm1");
        sh(&format!(
            "nft add table bridge stranger
             nft 'add chain bridge stranger p {{ type filter hook prerouting priority 0; }}'
             nft add rule bridge stranger p 'iifname {{ {from}, {tap} }} ether type arp drop'"
        ));
        sh(&format!("ip -n {} neigh flush dev eth0", lab.guest_ns("vm1")));
        let report = verify(&lab);
        let text = said(&report, "vm1", "vm2", "l2");
        assert_eq!(text, format!("request seen last on {from} (TAP of vm1); never on br-web (bridge of web)"));
        let text = said(&report, "vm1", "vm2", "l3");
        assert_eq!(
            text,
            format!("the question who has 10.1.0.11 seen last on {from} (TAP of vm1); never on br-web (bridge of web)")
        );
        lab.ok(&["destroy", "--stop", "--purge"]);
    });
}

#[test]
fn a_changed_firewall_of_the_router() {
    sandbox::run("trace::a_changed_firewall_of_the_router", || {
        let lab = lab();
        let router = lab.router_ns();
        sh(&format!("ip netns exec {router} nft insert rule inet vmnet-trace forward iifname web oifname db drop"));
        let report = verify(&lab);
        let text = said(&report, "vm1", "vm3", "l3");
        assert_eq!(
            text,
            "request seen last on web (in the router, port to web); the router did not send it on to db (in the \
             router, port to db)"
        );
        // vm3's request passes; the reply to it does not.
        let text = said(&report, "vm3", "vm1", "l3");
        assert_eq!(
            text,
            "reply seen last on web (in the router, port to web); the router did not send it on to db (in the router, \
             port to db)"
        );
        assert_eq!(report["traces"]["left_out"], 0, "{:#}", report["traces"]);
        lab.ok(&["create"]);
        assert_eq!(verify(&lab)["traces"], Value::Null);
        lab.ok(&["destroy", "--stop", "--purge"]);
    });
}

#[test]
fn what_leaks_and_what_is_too_much() {
    sandbox::run("trace::what_leaks_and_what_is_too_much", || {
        let lab = lab();
        // Two segments become one.
        sh("ip link add leak0 type veth peer name leak1");
        sh("ip link set leak0 master br-web up && ip link set leak1 master br-quiet up");
        let report = verify(&lab);
        let (tap, other) = (lab.tap("vm1"), lab.tap("vm4"));
        let text = said(&report, "vm1", "vm4", "l2");
        assert_eq!(
            text,
            format!(
                "request passed {tap} (TAP of vm1), br-web (bridge of web), br-quiet (bridge of quiet), {other} (TAP \
                 of vm4); reply passed {other} (TAP of vm4), br-quiet (bridge of quiet), br-web (bridge of web), {tap} \
                 (TAP of vm1)"
            )
        );
        sh("ip link del leak0");

        // Everything is broken, and only so much of it is looked into.
        sh("ip link set br-web down");
        let report = verify(&lab);
        let differs = report["totals"]["differs"].as_u64().unwrap();
        let rows = report["rows"].as_array().unwrap();
        let traced: BTreeSet<String> = rows.iter().filter_map(|row| Some(row.get("stopped")?.to_string())).collect();
        let count = rows.iter().filter(|row| row.get("stopped").is_some()).count();
        assert!(differs > 8 && count == 8, "{differs} differ, {count} are looked into: {traced:#?}");
        assert_eq!(report["traces"]["left_out"], differs - 8);
        let text = said(&report, "vm1", "vm2", "l2");
        assert_eq!(
            text,
            format!("request seen last on {tap} (TAP of vm1); never on br-web (bridge of web), which is down")
        );
        lab.ok(&["destroy", "--stop", "--purge", "--force"]);
    });
}

#[test]
fn from_a_probe_in_a_guests_place() {
    sandbox::run("trace::from_a_probe_in_a_guests_place", || {
        let lab = crowd();
        lab.ok(&["create"]);
        lab.ok(&["boot", "--all"]);
        let ns = lab.guest_ns("g2");
        sh(&format!("ip -n {ns} link set eth0 arp off"));
        let report = verify(&lab);
        let text = said(&report, "g10", "g2", "l2");
        assert_eq!(text, format!("request reached {} (TAP of g2); no reply came from it", lab.tap("g2")));
        let text = said(&report, "g10", "g2", "l3");
        let wanted =
            format!("the question who has 10.1.0.10 reached {} (TAP of g2); no answer came from it", lab.tap("g2"));
        assert_eq!(text, wanted);
        lab.ok(&["destroy", "--stop", "--purge"]);
    });
}

#[test]
fn nobody_answers_outside() {
    sandbox::run("trace::nobody_answers_outside", || outside("nat-macvlan", "lan"));
}

#[test]
fn nobody_answers_in_a_vlan_outside() {
    const NAME: &str = "trace::nobody_answers_in_a_vlan_outside";
    sandbox::run(NAME, || {
        if has_kind("vlan") {
            outside("nat-vlan", "trunk");
        } else {
            skip(NAME, "the kernel has no links of kind vlan");
        }
    });
}

/// The next hop loses its address: the question leaves by the NIC, and nobody answers.
fn outside(scenario: &str, uplink: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios").join(scenario);
    sh(&format!("cd {} && sh -eu ./world.sh", folder.display()));
    let lab = Lab::new(&folder, Engine::Netns);
    lab.ok(&["create"]);
    lab.ok(&["boot", "--all"]);
    assert_eq!(verify(&lab)["traces"], Value::Null);
    let device = output("ip -n outside -o -4 address show to 192.0.2.1 | cut -d' ' -f2");
    let device = device.split_whitespace().last().expect("somebody outside has the address").to_owned();
    sh(&format!("ip -n outside address flush dev {device} && ip -n {} neigh flush all", lab.router_ns()));
    let report = verify(&lab);
    let text = said(&report, "vm1", "outside", "l3");
    assert_eq!(
        text,
        format!(
            "request seen last on web (in the router, port to web); the question who has 192.0.2.1 left the lab \
             at nic0 (NIC of {uplink}); no answer came back"
        )
    );
    lab.ok(&["destroy", "--stop", "--purge"]);
}
