//! One file, several hosts: what every verb does on all of them.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::verify::{differences, row, stopped};
use super::{Hosts, can};
use crate::sandbox;
use crate::world::{Lab, sh};

/// Networks that need no common trunk: one of each host's own, and one on a bridge that both hosts have on the switch.
pub(super) const TWO: &str = r#"lab = "two"
[defaults.vm]
engine = "netns"
[host.h1]
[host.h2]
[router]
host = "h1"
external = { via = "none" }
[network.web]
mode = "routed"
subnet = "10.1.0.0/24"
[network.db]
mode = "isolated"
subnet = "10.2.0.0/24"
[network.lan]
mode = "bridged"
bridge = "br0"
subnet = "10.3.0.0/24"
[vm.vm1]
host = "h1"
nic = ["web", "lan"]
[vm.vm2]
host = "h2"
nic = ["db", "lan"]
"#;

/// Two VLANs of a trunk, their gateways on a third host.
const VLANS: &str = r#"lab = "two"
[uplink.trunk]
device = "nic0"
[defaults.vm]
engine = "netns"
[host.h1]
[host.h2]
[host.h3]
[router]
host = "h3"
external = { via = "none" }
[network.web]
mode = "routed"
vlan = 10
subnet = "10.10.0.0/24"
[network.db]
mode = "routed"
vlan = 20
subnet = "10.20.0.0/24"
[vm.vm1]
host = "h1"
nic = { network = "web", address = "10.10.0.11" }
[vm.vm2]
host = "h1"
nic = { network = "db", address = "10.20.0.12" }
[vm.vm4]
host = "h2"
nic = { network = "web", address = "10.10.0.14" }
[vm.vm5]
host = "h2"
nic = { network = "db", address = "10.20.0.15" }
"#;

/// Two hosts with a bridge on the switch, and the definition.
pub(super) fn two() -> (Hosts, Lab) {
    let hosts = Hosts::start(2);
    for number in [1, 2] {
        hosts.sh(
            number,
            "ip link add br0 type bridge forward_delay 0
             ip link set nic0 master br0; ip link set br0 up; sleep 1",
        );
    }
    (hosts, Lab::from_text(TWO))
}

/// What a host has that a lab could change, for a comparison.
pub(super) fn state(hosts: &Hosts, number: usize) -> String {
    hosts.sh(
        number,
        "ip -o link | grep -v mgmt0; ip -o address | grep -v -e mgmt0 -e br0; ip route show table all | grep -v mgmt0
         nft -s list ruleset; ls /run/netns; find /run/state /run/vmnet -not -name lock 2>/dev/null | grep -v -e '^/run/state$' -e '^/run/vmnet$' -e '^/run/vmnet/two$' -e undone.json | sort || true",
    )
}

/// The states of both hosts.
pub(super) fn states(hosts: &Hosts) -> [String; 2] {
    [state(hosts, 1), state(hosts, 2)]
}

/// As [`states`], when nothing changes any more: what was made a moment ago says late that it is up.
pub(super) fn settled(hosts: &Hosts) -> [String; 2] {
    let mut before = states(hosts);
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = states(hosts);
        // An address can be looked for on the link for longer than that.
        if now == before && !now.iter().any(|state| state.contains("tentative")) {
            return now;
        }
        before = now;
    }
}

/// Both hosts are as they were, within a time: bridges say late that they are up, and timers take theirs.
#[track_caller]
pub(super) fn as_before(hosts: &Hosts, before: &[String; 2], within: Duration, what: &str) {
    let begun = Instant::now();
    loop {
        let now = states(hosts);
        if now == *before {
            return;
        }
        if begun.elapsed() > within {
            for (number, (was, is)) in before.iter().zip(&now).enumerate() {
                let (was, is): (BTreeSet<_>, BTreeSet<_>) = (was.lines().collect(), is.lines().collect());
                let (gone, come) = (was.difference(&is).collect::<Vec<_>>(), is.difference(&was).collect::<Vec<_>>());
                assert!(gone.is_empty() && come.is_empty(), "{what}: h{}: gone {gone:#?} come {come:#?}", number + 1);
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// How long a host may take to be seen as it is.
pub(super) const SETTLED: Duration = Duration::from_secs(5);

/// Runs the program; its document, its standard error, and its exit code.
pub(super) fn json(lab: &Lab, args: &[&str]) -> (Value, i32) {
    let output = lab.vmnet(&[args, &["--json"]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let document = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{args:?}: {error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (document, output.status.code().unwrap())
}

/// Everything that it says, and its exit code.
pub(super) fn said(lab: &Lab, args: &[&str]) -> (String, i32) {
    let output = lab.vmnet(args);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (text.into_owned(), output.status.code().unwrap())
}

#[track_caller]
pub(super) fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

#[test]
fn every_verb_acts_on_all_hosts_of_the_file() {
    let name = "hosts::fleet::every_verb_acts_on_all_hosts_of_the_file";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let (hosts, lab) = two();
        let before = settled(&hosts);
        let (text, code) = said(&lab, &["plan", "--check"]);
        assert_eq!(code, 3, "{text}");
        has(&text, &["h1\n", "h2\n", "  adding bridges\n", "on 2 hosts", "net.lock"]);
        let (plan, _) = json(&lab, &["plan"]);
        assert_eq!(
            plan["changes"].as_u64(),
            Some(["h1", "h2"].iter().map(|h| plan["hosts"][h]["changes"].as_u64().unwrap()).sum())
        );
        as_before(&hosts, &before, SETTLED, "a plan changes nothing");
        assert!(!lab.folder().join("net.lock").exists());

        let (created, code) = json(&lab, &["create"]);
        assert_eq!((code, &created["confirm_until"]), (0, &Value::Null), "{created:#}");
        assert_eq!(created["changes"], plan["changes"]);
        assert!(lab.folder().join("net.lock").exists());
        // Nothing waits for a word any more.
        for number in [1, 2] {
            hosts.sh(number, "test ! -e /run/state/two/ledger/change.json");
        }
        let (text, code) = said(&lab, &["plan", "--check"]);
        assert_eq!(code, 0, "{text}");
        let after = settled(&hosts);
        assert_eq!(json(&lab, &["create"]).0["changes"], 0);
        as_before(&hosts, &after, SETTLED, "a second create changes nothing");

        guests_of_both(&lab);
        // A part that drifts is found on its host alone, and put right.
        hosts.sh(2, "ip link del br-db");
        let (text, code) = said(&lab, &["status"]);
        assert_eq!(code, 0, "{text}");
        has(&text, &["differs", "as-applied", "br-db"]);
        assert!(json(&lab, &["create"]).0["hosts"]["h2"]["changes"].as_u64().unwrap() > 0);

        let (text, code) = said(&lab, &["destroy"]);
        assert_eq!(code, 1, "{text}");
        has(&text, &["nothing was removed", "h1", "vm1", "--stop"]);
        let (text, code) = said(&lab, &["destroy", "--stop"]);
        assert_eq!(code, 0, "{text}");
        as_before(&hosts, &before, SETTLED, "nothing is left");
    });
}

/// Guests of two hosts, started, stopped and entered from here.
fn guests_of_both(lab: &Lab) {
    let (booted, code) = json(lab, &["boot", "--all", "--wait"]);
    assert_eq!((code, &booted["hosts"]["h2"]["started"][0]), (0, &Value::from("vm2")), "{booted:#}");
    let (stopped, code) = json(lab, &["stop", "vm2"]);
    assert_eq!(code, 0, "{stopped:#}");
    assert!(stopped["hosts"].get("h1").is_none(), "{stopped:#}");
    json(lab, &["boot", "two/vm2"]);
    let (text, _) = said(lab, &["exec", "vm1", "--", "ip", "-o", "-4", "address"]);
    let address = |vm: &str| {
        let lock = fs::read_to_string(lab.folder().join("net.lock")).unwrap();
        let line = lock.lines().find(|line| line.starts_with(&format!("\"{vm}/lan/0\""))).unwrap().to_owned();
        line.split('"').nth(3).unwrap().to_owned()
    };
    has(&text, &[&address("vm1")]);
    let (text, code) = said(lab, &["exec", "vm1", "--", "ping", "-c", "3", "-W", "1", &address("vm2")]);
    assert_eq!(code, 0, "across hosts: {text}");
    let (text, code) = said(lab, &["ps"]);
    assert_eq!(code, 0, "{text}");
    has(&text, &["vm1", "vm2", "running"]);
    let (status, code) = json(lab, &["status"]);
    assert_eq!(
        (code, &status["whole"], &status["definitions"]),
        (0, &Value::from(true), &Value::from(1)),
        "{status:#}"
    );
    assert_eq!(status["hosts"]["h2"]["status"]["here"], "h2");
    let (text, code) = said(lab, &["verify"]);
    assert_eq!(code, 0, "{text}");
    has(&text, &["host@h1", "host@h2", "0 not as expected"]);
}

#[test]
fn some_hosts_and_the_part_of_this_one() {
    let name = "hosts::fleet::some_hosts_and_the_part_of_this_one";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let (hosts, lab) = two();
        let before = settled(&hosts);
        let (text, code) = said(&lab, &["plan", "--only", "h3"]);
        assert_eq!(code, 2, "{text}");
        has(&text, &["no host h3", "h1, h2"]);
        assert_eq!(said(&lab, &["create", "--only", "h2"]).1, 0);
        assert_eq!(state(&hosts, 1), before[0]);
        let (status, _) = json(&lab, &["status"]);
        assert_eq!(status["hosts"]["h1"]["condition"], "absent", "{status:#}");
        assert_eq!(status["hosts"]["h2"]["condition"], "as-applied");
        assert_eq!(status["whole"], false);
        assert_eq!(said(&lab, &["create"]).1, 0);
        // The same by hand on the host itself: there is nothing to do, since it is the same definition.
        let text = fs::read_to_string(lab.folder().join("net.toml")).unwrap();
        let lock = fs::read_to_string(lab.folder().join("net.lock")).unwrap();
        hosts.sh(1, "mkdir -p /run/own");
        fs::write(hosts.path(1, "/run/own/net.toml"), &text).unwrap();
        fs::write(hosts.path(1, "/run/own/net.lock"), &lock).unwrap();
        hosts.sh(1, "cd /run/own; vmnet plan --here h1 --check");
        let own: Value = serde_json::from_str(&hosts.sh(1, "cd /run/own; vmnet --json create --here h1")).unwrap();
        assert_eq!(own["changes"], 0);
        assert_eq!(json(&lab, &["status"]).0["whole"], true);
        // There the file means that part by now, and the wrong part is refused.
        assert!(hosts.sh(1, "cd /run/own; vmnet status").contains("part of host h1"));
        assert!(!hosts.succeeds(1, "cd /run/own; vmnet destroy --here h2"));
        assert!(!hosts.succeeds(1, "cd /run/own; vmnet status two --only h1"));
        hosts.sh(1, "cd /run/own; vmnet destroy --here h1");
        assert_eq!(state(&hosts, 1), before[0]);
        assert_eq!(said(&lab, &["destroy", "--only", "h2"]).1, 0);
        assert_eq!(state(&hosts, 2), before[1]);
    });
}

#[test]
fn who_confirms_does_it_for_all() {
    let name = "hosts::fleet::who_confirms_does_it_for_all";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let (hosts, lab) = two();
        let before = settled(&hosts);
        let (text, code) = said(&lab, &["create", "--confirm", "60s"]);
        assert_eq!(code, 0, "{text}");
        has(&text, &["unless you say", "vmnet confirm", "net.toml"]);
        let (text, code) = said(&lab, &["create"]);
        assert_eq!(code, 1, "{text}");
        has(&text, &["h1", "h2", "not confirmed", "vmnet undo"]);
        has(&said(&lab, &["status"]).0, &["unconfirmed"]);
        assert_eq!(said(&lab, &["undo"]).1, 0);
        as_before(&hosts, &before, SETTLED, "after");
        has(&said(&lab, &["undo"]).0, &["nothing to undo"]);
        has(&said(&lab, &["confirm"]).0, &["nothing to confirm"]);
        assert_eq!(said(&lab, &["create", "--confirm", "60s"]).1, 0);
        let (text, code) = said(&lab, &["confirm"]);
        assert_eq!(code, 0, "{text}");
        has(&text, &["confirmed", "h1, h2"]);
        assert_eq!(json(&lab, &["status"]).0["whole"], true);
        assert_eq!(said(&lab, &["destroy"]).1, 0);
        // Nobody says a word.
        assert_eq!(said(&lab, &["create", "--confirm", "2s"]).1, 0);
        as_before(&hosts, &before, Duration::from_secs(20), "both went back");
    });
}

#[test]
fn rebuild_ends_in_the_same_state_also_after_a_cut() {
    let name = "hosts::fleet::rebuild_ends_in_the_same_state_also_after_a_cut";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let (hosts, lab) = two();
        let before = settled(&hosts);
        let (report, _) = json(&lab, &["rebuild"]);
        assert_eq!(report["hosts"]["h1"]["boot"]["started"][0], "vm1", "{report:#}");
        let running = |text: &str| text.lines().filter(|line| line.starts_with("vmnet-two.vm")).count();
        let (text, code) = said(&lab, &["rebuild"]);
        assert_eq!(code, 1, "{text}");
        has(&text, &["vm1", "vm2", "nothing was done", "--yes"]);
        // Killed at some moments: the next one ends as if nothing had been.
        for moment in [300, 900, 1800] {
            let mut child = lab.command(&["rebuild", "--yes", "--within", "5s"]).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(moment));
            child.kill().unwrap();
            child.wait().unwrap();
            let (text, _) = said(&lab, &["rebuild", "--yes"]);
            has(&text, &["rebuilt on h1, h2"]);
            assert_eq!(json(&lab, &["status"]).0["whole"], true, "{moment}");
            assert!(states(&hosts).iter().all(|state| running(state) == 1));
        }
        assert_eq!(said(&lab, &["destroy", "--stop"]).1, 0);
        as_before(&hosts, &before, SETTLED, "after");
    });
}

#[test]
fn a_file_without_hosts_is_rebuilt_here() {
    let name = "hosts::fleet::a_file_without_hosts_is_rebuilt_here";
    sandbox::run(name, || {
        let lab = Lab::from_text(
            "lab = \"one\"\n[defaults.vm]\nengine = \"netns\"\n[router]\nexternal = { via = \"none\" }\n\
             [network.web]\nmode = \"routed\"\nsubnet = \"10.1.0.0/24\"\n[vm.vm1]\nnic = \"web\"\n",
        );
        let (report, code) = json(&lab, &["rebuild"]);
        assert_eq!((code, &report["passed"]), (0, &Value::from(true)), "{report:#}");
        let (text, code) = said(&lab, &["rebuild", "--yes"]);
        assert_eq!(code, 0, "{text}");
        has(&text, &["rebuilt on localhost", "1 guest on the network"]);
        assert_eq!(said(&lab, &["plan", "--check"]).1, 0);
        lab.ok(&["destroy", "--stop"]);
    });
}

/// A lab is not removed for one whose guests can't start.
#[test]
fn a_missing_file_costs_no_lab() {
    let name = "hosts::fleet::a_missing_file_costs_no_lab";
    sandbox::run(name, || {
        let text = "lab = \"one\"\n[defaults.vm]\nengine = \"netns\"\n[network.web]\nmode = \"isolated\"\n\
                    [vm.vm1]\nnic = \"web\"\n";
        let lab = Lab::from_text(text);
        lab.ok(&["create"]);
        lab.ok(&["boot", "vm1"]);
        let guest = || sh("stat -c %i /run/netns/vmnet-one.vm1");
        let before = guest();
        let machine = "[vm.vm2]\nengine = \"qemu\"\naccel = \"tcg\"\nnic = \"web\"\nimage = \"small\"\n";
        let digest = "0".repeat(64);
        let away = format!("url = \"http://127.0.0.1:9/none.qcow2\"\nsha256 = \"{digest}\"\n");
        for (image, more, words) in [
            (
                "file = \"none.qcow2\"\n",
                "",
                ["image small", "none.qcow2 does not exist", "nothing was changed", "put it"],
            ),
            (
                "file = \"net.toml\"\nformat = \"raw\"\n",
                "disks = { d = { file = \"no.img\" } }\n",
                ["disks", "no.img", "nothing was", "put"],
            ),
            (
                "file = \"net.toml\"\nformat = \"raw\"\n",
                "ssh_keys = [\"no.pub\"]\n",
                ["vm2: ssh_keys", "no.pub", "nothing was changed", "put"],
            ),
            (&away, "", ["small", "127.0.0.1:9", "nothing was changed", "image"]),
        ] {
            fs::write("/run/lab/net.toml", format!("{text}{machine}{more}[image.small]\n{image}")).unwrap();
            let (text, code) = said(&lab, &["rebuild", "--yes"]);
            assert_eq!(code, 1, "{text}");
            has(&text, &words);
            assert_eq!(guest(), before, "{text}");
        }
        fs::write("/run/lab/net.toml", text).unwrap();
        assert_eq!(said(&lab, &["plan", "--check"]).1, 0);
        lab.ok(&["destroy", "--stop"]);
    });
}

#[test]
fn a_guests_ssh_server_is_reached_through_its_host() {
    let name = "hosts::fleet::a_guests_ssh_server_is_reached_through_its_host";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let (hosts, lab) = two();
        assert_eq!(said(&lab, &["create"]).1, 0);
        assert_eq!(said(&lab, &["boot", "--all", "--wait"]).1, 0);
        // A namespace has no ssh server of its own, so `vmnet ssh` refuses; the way to one is the same.
        let (text, code) = said(&lab, &["ssh", "vm1"]);
        assert_eq!(code, 1, "{text}");
        has(&text, &["h1", "vm1 is a namespace", "vmnet exec"]);
        let mut server =
            hosts.on(1, "ip", &["netns", "exec", "vmnet-two.vm1", "/usr/sbin/sshd", "-D", "-f", "/run/ssh/guest"]);
        fs::write(
            hosts.path(1, "/run/ssh/guest"),
            "HostKey /run/ssh/key\nAuthorizedKeysFile /run/ssh/user\nPermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\n",
        )
        .unwrap();
        let mut server = server.spawn().unwrap();
        // What the host would say of a guest that has one by itself.
        let key = hosts.sh(1, "cut -d' ' -f1,2 /run/ssh/key.pub");
        let about = format!(
            r#"{{"event":"result","value":{{"address":"10.1.0.10","user":"root","alias":"two-vm1","host_key":"{}"}}}}"#,
            key.trim()
        );
        let own = env!("CARGO_BIN_EXE_vmnet");
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in '--events reach --about two/vm1') echo '{about}'; exit 0;; esac\nexec {own} \"$@\"\n"
        );
        hosts.replace_vmnet(1, Some(&script));
        let (text, code) = said(&lab, &["ssh", "vm1", "ip -o -4 address; exit 7"]);
        assert_eq!(code, 7, "{text}");
        has(&text, &["10.1.0.10/24"]);
        server.kill().unwrap();
        server.wait().unwrap();
        assert_eq!(said(&lab, &["destroy", "--stop"]).1, 0);
    });
}

#[test]
fn vlans_of_a_trunk_join_guests_of_two_hosts() {
    let name = "hosts::fleet::vlans_of_a_trunk_join_guests_of_two_hosts";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        if !crate::world::succeeds("ip link add v0 type bridge && ip link add link v0 name v0.5 type vlan id 5") {
            return crate::skip::skip(name, "needs 802.1Q");
        }
        let hosts = Hosts::start(3);
        let lab = Lab::from_text(VLANS);
        let before = settled(&hosts);
        let (text, code) = said(&lab, &["rebuild"]);
        assert_eq!(code, 0, "{text}");
        has(&text, &["rebuilt on h1, h2, h3"]);
        let pings = |from: &str, to: &str| said(&lab, &["exec", from, "--", "ping", "-c", "2", "-W", "1", to]).1 == 0;
        assert!(pings("vm1", "10.10.0.14") && pings("vm2", "10.20.0.15"), "within a VLAN");
        assert!(pings("vm1", "10.20.0.15"), "by way of the router on h3");
        assert!(pings("vm1", "10.10.0.1"));
        assert_eq!(json(&lab, &["status"]).0["whole"], true);
        // The trunk loses a VLAN in one direction.
        sh("nft add table bridge cut; nft 'add chain bridge cut f { type filter hook forward priority 0; }'
            nft add rule bridge cut f iifname s1 oifname s2 vlan id 10 drop");
        let (report, code) = json(&lab, &["verify"]);
        assert_eq!(code, 1);
        assert_eq!(
            stopped(&report, "vm1", "vm4", "l2", "10.10.0."),
            "request seen last on nic0 (NIC of trunk) on h1; never on nic0 (NIC of trunk) on h2"
        );
        // Its answers are lost there as well, and the other VLAN is whole.
        assert_eq!(
            stopped(&report, "vm4", "vm1", "l2", "10.10.0."),
            "reply seen last on nic0 (NIC of trunk) on h1; never on nic0 (NIC of trunk) on h2"
        );
        let elsewhere: Vec<String> =
            differences(&report).into_iter().filter(|text| !text.contains(" 10.10.0.1")).collect();
        assert_eq!(elsewhere, [] as [&str; 0]);
        assert_eq!(row(&report, "vm2", "vm5", "l2", "10.20.0.")["verdict"], "met");
        assert_eq!(said(&lab, &["destroy", "--stop"]).1, 0);
        as_before(&hosts, &before, SETTLED, "after");
    });
}
