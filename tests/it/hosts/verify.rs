//! `verify` of several hosts: one report of all, what stops between them, what the definition says, and who is missing.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::fleet::{has, json, said};
use super::{Hosts, can, until};
use crate::sandbox;
use crate::world::{Lab, sh};

/// Networks that are routed between two hosts, and a segment that both are on: a bridge of each on the switch.
const WIDE: &str = r#"lab = "wide"
[defaults.vm]
engine = "netns"
[host.h1]
underlay = "10.99.0.1"
[host.h2]
underlay = "10.99.0.2"
[network.web]
across = "routed"
subnet = "192.168.0.0/16"
[network.db]
mode = "routed"
across = "routed"
subnet = "10.20.0.0/16"
[network.lan]
mode = "bridged"
bridge = "br0"
subnet = "10.3.0.0/24"
[vm.vm1]
host = "h1"
nic = ["web", "lan"]
[vm.vm2]
host = "h1"
nic = "db"
[vm.vm4]
host = "h2"
nic = ["web", "lan"]
[vm.vm5]
host = "h2"
nic = "db"
"#;

fn wide(more: &str) -> (Hosts, Lab) {
    lab_of(&format!("{WIDE}{more}"))
}

/// A lab on two hosts, with guests that run.
fn lab_of(text: &str) -> (Hosts, Lab) {
    let hosts = Hosts::start(2);
    for number in [1, 2] {
        hosts.sh(
            number,
            "ip link add br0 type bridge forward_delay 0; ip link set nic0 master br0; ip link set br0 up
             ip route add default via 10.99.0.254
             # Where bridged packets pass the host's filter too, its connection tracking sees a reset twice, and the
             # second time takes it for nobody's.
             echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables || true",
        );
    }
    let lab = Lab::from_text(text);
    let (text, code) = said(&lab, &["create"]);
    assert_eq!(code, 0, "{text}");
    let (text, code) = said(&lab, &["boot", "--all"]);
    assert_eq!(code, 0, "{text}");
    (hosts, lab)
}

/// The row of a pair.
#[track_caller]
pub(super) fn row<'a>(report: &'a Value, from: &str, to: &str, how: &str, address: &str) -> &'a Value {
    let rows = report["rows"].as_array().unwrap_or_else(|| panic!("{report:#}"));
    let is = |row: &&Value| {
        let pair = row["from"] == from && row["to"] == to && row["how"] == how;
        // A question on another segment than the address's is one more.
        pair && row["address"].as_str().unwrap().starts_with(address) && (how != "l2" || row["expect"] == "reach")
    };
    rows.iter().find(is).unwrap_or_else(|| panic!("no try from {from} to {to} by {how}"))
}

/// The rows that differ, in a line each.
pub(super) fn differences(report: &Value) -> Vec<String> {
    let rows = report["rows"].as_array().unwrap_or_else(|| panic!("{report:#}"));
    let differs = rows.iter().filter(|row| row["verdict"] == "differs");
    differs
        .map(|row| {
            format!("{} -> {} {} {}: {}", row["from"], row["to"], row["address"], row["how"], row["stopped"]["text"])
                .replace('"', "")
        })
        .collect()
}

/// What is said of a pair that differs.
#[track_caller]
pub(super) fn stopped(report: &Value, from: &str, to: &str, how: &str, address: &str) -> String {
    let row = row(report, from, to, how, address);
    row["stopped"]["text"].as_str().unwrap_or_else(|| panic!("nothing is said of {row:#}")).to_owned()
}

#[test]
fn all_hosts_are_one_report_and_packets_are_followed_between_them() {
    let name = "hosts::verify::all_hosts_are_one_report_and_packets_are_followed_between_them";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let (mut hosts, lab) = wide("");
        let (report, code) = json(&lab, &["verify", "--junit", "/run/lab/junit.xml"]);
        assert_eq!((code, differences(&report)), (0, vec![]), "{:#}", report["notes"]);
        for (from, to, how, address, host) in [
            ("vm1", "vm4", "l3", "192.168.2.", "h1"),
            ("vm1", "vm4", "l2", "10.3.0.", "h1"),
            ("vm4", "vm1", "l3", "192.168.1.", "h2"),
            ("vm2", "vm5", "l3", "10.20.2.", "h1"),
            ("vm5", "gateway:web@h1", "l3", "192.168.1.1", "h2"),
            ("gateway:db@h2", "vm5", "l2", "10.20.2.", "h2"),
            ("host@h1", "vm1", "forced", "192.168.1.", "h1"),
            ("host@h2", "vm1", "forced", "192.168.1.", "h2"),
        ] {
            let row = row(&report, from, to, how, address);
            assert_eq!((&row["verdict"], &row["host"]), (&Value::from("met"), &Value::from(host)), "{row:#}");
        }
        assert_eq!((&report["traces"], &report["totals"]["untested"]), (&Value::Null, &Value::from(0)));
        let junit = std::fs::read_to_string("/run/lab/junit.xml").unwrap();
        has(&junit, &["vmnet.wide.vm4", "gateway:web@h1"]);
        let wide = lab.command(&["verify"]).env("COLUMNS", "200").output().unwrap();
        has(&String::from_utf8_lossy(&wide.stdout), &["from \\ to", "vm5", "web@h2", "as expected"]);

        // On a host itself: its own senders, at its own guests.
        let text = hosts.sh(1, "vmnet verify wide");
        has(&text, &["vm4 runs on h2", "0 not as expected"]);
        assert!(!text.contains("gateway:db@h2 ->"), "{text}");

        between_two_bridges(&hosts, &lab);
        between_two_routers(&hosts, &lab);
        a_host_is_missing(&mut hosts, &lab);
        assert_eq!(said(&lab, &["destroy", "--stop", "--purge"]).1, 0);
    });
}

/// The switch that joins the bridges drops what comes from the second host.
fn between_two_bridges(hosts: &Hosts, lab: &Lab) {
    sh("nft add table bridge cut; nft 'add chain bridge cut f { type filter hook forward priority 0; }'
        nft add rule bridge cut f iifname s1 drop");
    hosts.sh(1, "ip -n vmnet-wide.vm1 neigh flush all");
    let (report, code) = json(lab, &["verify"]);
    assert_eq!(code, 1);
    assert_eq!(
        stopped(&report, "vm1", "vm4", "l2", "10.3.0."),
        "request seen last on br0 (bridge of lan) on h1; never on br0 (bridge of lan) on h2"
    );
    // The other way it is the answer that does not come back.
    assert_eq!(
        stopped(&report, "vm4", "vm1", "l2", "10.3.0."),
        "reply seen last on br0 (bridge of lan) on h1; never on br0 (bridge of lan) on h2"
    );
    let place = &row(&report, "vm1", "vm4", "l2", "10.3.0.")["stopped"]["request_last"];
    assert_eq!((&place["host"], &place["link"]), (&Value::from("h1"), &Value::from("br0")));
    sh("nft delete table bridge cut");
}

/// What goes from one host to the other is dropped on the underlay.
fn between_two_routers(hosts: &Hosts, lab: &Lab) {
    hosts.sh(
        2,
        "nft add table inet cut; nft 'add chain inet cut p { type filter hook prerouting priority -300; }'
                 nft add rule inet cut p iifname mgmt0 ip daddr 10.20.2.0/24 drop",
    );
    let (report, code) = json(lab, &["verify"]);
    assert_eq!(code, 1);
    let text = stopped(&report, "vm2", "vm5", "l3", "10.20.2.");
    has(&text, &["request seen last on rt-host-", "(host's port to the router) on h1; never on rt-host-", " on h2"]);
    // A request of vm5 arrives; its answer is what is lost.
    let text = stopped(&report, "vm5", "vm2", "l3", "10.20.1.");
    has(&text, &["reply seen last on rt-host-", "on h1; never on rt-host-", " on h2"]);
    hosts.sh(2, "nft delete table inet cut");
    let (report, code) = json(lab, &["verify"]);
    assert_eq!((code, differences(&report)), (0, vec![]));
}

fn a_host_is_missing(hosts: &mut Hosts, lab: &Lab) {
    hosts.stop_sshd(2);
    let (report, code) = json(lab, &["verify", "--junit", "/run/lab/junit.xml"]);
    assert_eq!((code, &report["totals"]["differs"]), (1, &Value::from(0)), "{:#}", report["totals"]);
    assert!(report["lost"]["h2"].as_str().is_some_and(|why| why.contains("h2")), "{:#}", report["lost"]);
    let from = row(&report, "vm4", "vm1", "l3", "192.168.1.");
    assert!(from["reason"].as_str().unwrap().starts_with("h2 was not asked: "), "{from:#}");
    let to = row(&report, "vm1", "vm4", "l3", "192.168.2.");
    assert_eq!(to["reason"], "vm4 runs on h2, which was not asked");
    has(&std::fs::read_to_string("/run/lab/junit.xml").unwrap(), &["<error message=\"could not be asked: "]);
    // Its gateways are no guests, and are tried from here.
    assert_eq!(row(&report, "vm1", "gateway:web@h2", "l3", "192.168.2.1")["verdict"], "met");
    hosts.start_sshd(2);
    // A part that is not there.
    hosts.sh(2, "vmnet destroy wide --stop");
    let (text, code) = said(lab, &["verify"]);
    assert_eq!(code, 1, "{text}");
    has(&text, &["h2 could not be asked: lab wide is not there; vmnet create", "vm5 runs on h2, which was not asked"]);
    // Nor one of another definition.
    let (text, code) = said(lab, &["create"]);
    assert_eq!(code, 0, "{text}");
    let path = lab.folder().join("net.toml");
    std::fs::write(path, WIDE.replace("nic = \"db\"\n[vm.vm4]", "nic = [\"db\", \"lan\"]\n[vm.vm4]")).unwrap();
    let (text, _) = said(lab, &["verify"]);
    has(&text, &["h1 could not be asked: another definition of lab wide is applied there"]);
}

#[test]
fn probes_of_two_hosts_stand_in_on_one_segment() {
    let name = "hosts::verify::probes_of_two_hosts_stand_in_on_one_segment";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let mut text = "lab = \"wide\"\n[defaults.vm]\nengine = \"netns\"\nnic = \"lan\"\n[host.h1]\n[host.h2]\n\
                        [network.lan]\nmode = \"bridged\"\nbridge = \"br0\"\nsubnet = \"10.3.0.0/24\"\n"
            .to_owned();
        for number in 1..=22 {
            text += &format!("[vm.g{number}]\nhost = \"h{}\"\n", 1 + number % 2);
        }
        let (hosts, lab) = lab_of(&text);
        let (report, code) = json(&lab, &["verify"]);
        assert_eq!((code, differences(&report)), (0, vec![]));
        // Each at all others twice, and at the address of its host once.
        assert_eq!(report["totals"]["met"], 2 * 22 * 21 + 22, "{:#}", report["totals"]);
        // The question of a probe that stands in is known to the other host, too.
        hosts.sh(2, "ip -n vmnet-wide.g1 link set eth0 arp off");
        let (report, _) = json(&lab, &["verify"]);
        let tap = hosts.sh(2, "ip -o link show | grep -o 'g1-0-[0-9a-f]*'");
        let text = stopped(&report, "g10", "g1", "l2", "10.3.0.");
        assert_eq!(text, format!("request reached {} (TAP of g1) on h2; no reply came from it", tap.trim()));
        assert_eq!(said(&lab, &["destroy", "--stop", "--purge"]).1, 0);
    });
}

/// A listener in a guest on a host; it ends when it is dropped.
struct Listener(Child);

impl Listener {
    fn new(hosts: &Hosts, number: usize, guest: &str, program: &str, port: u16) -> Self {
        let ns = format!("vmnet-wide.{guest}");
        let mut command = hosts.on(number, "ip", &["netns", "exec", &ns, "python3", "-c", program]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let listens = format!("ip netns exec {ns} ss -Hltun | grep -q :{port}");
        until("it listens", || hosts.succeeds(number, &listens));
        Self(child)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const TCP: &str = "import socket,time\ns=socket.socket(); s.bind(('',8080)); s.listen(64)\nwhile True: s.accept()";
const UDP: &str = "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('',5353))\nwhile True:\n d,a=s.recvfrom(99); s.sendto(d,a)";

#[test]
fn what_the_definition_expects_of_services() {
    let name = "hosts::verify::what_the_definition_expects_of_services";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let expect = |from: &str, to: &str, service: &str, result: &str| {
            format!("[[expect]]\nfrom = \"{from}\"\nto = \"{to}\"\nservice = \"{service}\"\nresult = \"{result}\"\n")
        };
        let text = [
            expect("vm2", "vm5", "tcp/8080", "reach"),
            expect("vm5", "vm2", "tcp/8080", "deny"),
            expect("vm2", "vm5", "udp/5353", "reach"),
            expect("vm2", "vm5", "udp/514", "reach"),
            expect("vm5", "gateway:db@h1", "tcp/22", "deny"),
            expect("vm2", "vm5", "icmp", "deny"),
        ];
        let (hosts, lab) = wide(&text.concat());
        let tcp = Listener::new(&hosts, 2, "vm5", TCP, 8080);
        let _udp = Listener::new(&hosts, 2, "vm5", UDP, 5353);
        // Somebody who hears and says nothing.
        let _deaf = Listener::new(&hosts, 2, "vm5", &UDP.replace("5353", "514").replace("s.sendto(d,a)", "pass"), 514);
        let (report, code) = json(&lab, &["verify"]);
        assert_eq!(code, 1);
        let verdict = |report: &Value, from: &str, to: &str, how: &str| {
            let row = row(report, from, to, how, "10.20.");
            (row["seen"].as_str().unwrap().to_owned(), row["verdict"].as_str().unwrap().to_owned())
        };
        let is = |seen: &str, verdict: &str| (seen.to_owned(), verdict.to_owned());
        assert_eq!(verdict(&report, "vm2", "vm5", "tcp/8080"), is("reached", "met"));
        // vm2 has no listener, and says so: the packet came through.
        assert_eq!(verdict(&report, "vm5", "vm2", "tcp/8080"), is("refused", "differs"));
        assert_eq!(verdict(&report, "vm2", "vm5", "udp/5353"), is("reached", "met"));
        assert_eq!(verdict(&report, "vm2", "vm5", "udp/514"), is("silent", "open"));
        assert_eq!(verdict(&report, "vm5", "gateway:db@h1", "tcp/22"), is("silent", "met"));
        // What is said replaces what follows from the networks.
        assert_eq!(verdict(&report, "vm2", "vm5", "l3"), is("reached", "differs"));
        let said = row(&report, "vm2", "vm5", "l3", "10.20.");
        assert_eq!(said["why"], "the definition says so");
        assert!(said["stopped"]["text"].as_str().unwrap().starts_with("request passed "), "{said:#}");
        let (text, _) = super::fleet::said(&lab, &["verify"]);
        has(
            &text,
            &[
                "vm5 -> vm2 (10.20.1.10, tcp/8080 on db): expected not to reach it (the definition says so), nobody listens there",
            ],
        );

        // A service that ends is missed; a filter makes what is denied true.
        drop(tcp);
        hosts.sh(2, "ip netns exec vmnet-wide.vm5 sh -c 'nft add table inet own; nft add chain inet own out \\{ type filter hook output priority 0\\; \\}; nft add rule inet own out tcp dport 8080 drop; nft add rule inet own out icmp type echo-reply drop'");
        let (report, _) = json(&lab, &["verify"]);
        assert_eq!(verdict(&report, "vm2", "vm5", "tcp/8080"), is("refused", "differs"));
        assert_eq!(verdict(&report, "vm5", "vm2", "tcp/8080"), is("silent", "met"));
        assert_eq!(verdict(&report, "vm2", "vm5", "l3"), is("silent", "met"));
        std::thread::sleep(Duration::from_millis(10));
        assert_eq!(super::fleet::said(&lab, &["destroy", "--stop", "--purge"]).1, 0);
    });
}
