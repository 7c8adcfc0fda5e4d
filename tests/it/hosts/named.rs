//! One file that names hosts as several labs, and a lab on all of them for the time of a command.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::fleet::{SETTLED, TWO, as_before, has, json, said, settled};
use super::{Hosts, can};
use crate::sandbox;
use crate::world::Lab;

/// Two hosts, and a lab of which nothing is another's.
fn apart() -> (Hosts, Lab) {
    let lan = "[network.lan]\nmode = \"bridged\"\nbridge = \"br0\"\nsubnet = \"10.3.0.0/24\"\n";
    assert!(TWO.contains(lan));
    let text = TWO.replace(lan, "").replace(", \"lan\"]", "]");
    (Hosts::start(2), Lab::from_text(&text))
}

#[test]
fn a_name_counts_on_all_hosts() {
    let name = "hosts::named::a_name_counts_on_all_hosts";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let (hosts, lab) = apart();
        let before = settled(&hosts);
        assert_eq!(json(&lab, &["create"]).1, 0);
        assert_eq!(json(&lab, &["boot", "--all", "--wait"]).1, 0);
        let alone = settled(&hosts);
        assert_eq!(json(&lab, &["plan", "--lab", "b"]).0["lab"], "b");
        let (created, code) = json(&lab, &["create", "--lab", "b", "--confirm", "60s"]);
        assert_eq!((code, &created["lab"]), (0, &Value::from("b")), "{created:#}");
        assert_eq!(json(&lab, &["confirm", "--lab", "b"]).1, 0);
        let (booted, code) = json(&lab, &["boot", "vm1", "vm2", "--of", "net.toml", "--lab", "b"]);
        assert_eq!(code, 0, "{booted:#}");
        let (text, code) = said(&lab, &["exec", "b/vm2", "--", "ip", "-o", "-4", "address"]);
        assert_eq!(code, 0, "{text}");
        has(&text, &["10.2.0.10/24"]);
        let (status, _) = json(&lab, &["status", "--lab", "b"]);
        assert_eq!((&status["lab"], &status["whole"]), (&Value::from("b"), &Value::from(true)), "{status:#}");
        assert_eq!(json(&lab, &["verify", "--lab", "b"]).1, 0);
        hosts.sh(
            2,
            "vmnet exec b/vm2 -- true; vmnet exec two/vm2 -- true; test -z \"$(ip -br link show br-b 2>/dev/null)\"",
        );
        // By hand on the host itself, from the same file.
        let text = fs::read_to_string(lab.folder().join("net.toml")).unwrap();
        let lock = fs::read_to_string(lab.folder().join("net.lock")).unwrap();
        hosts.sh(1, "mkdir -p /run/own");
        fs::write(hosts.path(1, "/run/own/net.toml"), text).unwrap();
        fs::write(hosts.path(1, "/run/own/net.lock"), lock).unwrap();
        hosts.sh(1, "cd /run/own; vmnet plan --here h1 --lab b --check");
        assert_eq!(said(&lab, &["stop", "--all", "--lab", "b"]).1, 0);
        assert_eq!(said(&lab, &["destroy", "--lab", "b"]).1, 0);
        as_before(&hosts, &alone, SETTLED, "the file's own lab is untouched");
        assert_eq!(said(&lab, &["destroy", "--stop"]).1, 0);
        as_before(&hosts, &before, SETTLED, "nothing is left");
    });
}

#[test]
fn a_lab_on_all_hosts_for_a_command() {
    let name = "hosts::named::a_lab_on_all_hosts_for_a_command";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let (hosts, lab) = apart();
        let before = settled(&hosts);
        let line = format!("{} exec \"$VMNET_LAB/vm2\" -- ip -o -4 address; exit 7", env!("CARGO_BIN_EXE_vmnet"));
        let (text, code) = said(&lab, &["with", "--lab", "ci-7", "--", "sh", "-c", &line]);
        assert_eq!(code, 7, "{text}");
        has(&text, &["10.2.0.10/24", "created on h1, h2, 2 guests", "lab ci-7: removed"]);
        as_before(&hosts, &before, SETTLED, "nothing is left");
        // One that has such a lab keeps it, and no other gets one.
        assert_eq!(said(&lab, &["create", "--only", "h2"]).1, 0);
        let with_one = settled(&hosts);
        let (text, code) = said(&lab, &["with", "--", "true"]);
        assert_eq!(code, 1, "{text}");
        has(&text, &["there is a lab two already", "--lab NAME"]);
        as_before(&hosts, &with_one, SETTLED, "nothing was done");
        assert_eq!(said(&lab, &["destroy", "--only", "h2"]).1, 0);
        // A host that can't do its part.
        hosts.sh(2, "mkdir -p /run/netns; touch /run/netns/vmnet-two.vm2");
        let (text, code) = said(&lab, &["with", "--", "true"]);
        assert_eq!(code, 1, "{text}");
        has(&text, &["vmnet-two.vm2"]);
        hosts.sh(2, "rm /run/netns/vmnet-two.vm2");
        as_before(&hosts, &before, Duration::from_secs(20), "all are as before");
    });
}
