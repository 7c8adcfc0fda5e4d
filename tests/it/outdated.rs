//! Guests that run on as they were started although the definition says something else.

use std::time::{Duration, Instant};

use crate::matrix::rows::{json, status};
use crate::sandbox;
use crate::world::{Lab, sh, succeeds, with_empty_guest};

/// What `ps` says of a guest.
fn is_outdated(lab: &Lab, vm: &str) -> bool {
    let report = json(&lab.ok(&["ps", "outdated", "--json"]));
    let vms = report["vms"].as_array().expect("guests");
    let vm = vms.iter().find(|guest| guest["name"] == vm).expect("the guest");
    assert_eq!(vm["running"], true);
    vm["outdated"].as_bool().expect("yes or no")
}

#[test]
fn running_guests_that_differ_are_marked() {
    sandbox::with_qemu("outdated::running_guests_that_differ_are_marked", || {
        let text = with_empty_guest("outdated") + "[vm.vm2]\nengine = \"netns\"\nnic = \"web\"\n";
        let lab = Lab::from_text(&text);
        sh("qemu-img create -q -f qcow2 /run/lab/empty.qcow2 16M");
        lab.ok(&["create"]);
        lab.ok(&["boot", "--all"]);
        assert!(!is_outdated(&lab, "vm1") && !is_outdated(&lab, "vm2"));
        assert_eq!(status(&lab)["outdated"], serde_json::json!([]));
        // The definition as applied counts, not the file.
        std::fs::write(lab.folder().join("net.toml"), text.replace("64MiB", "96MiB")).unwrap();
        assert!(!is_outdated(&lab, "vm1"));
        let plan = lab.ok(&["plan", "--json"]);
        assert!(plan.contains("takes effect at its next boot: memory"), "{plan}");
        let said = lab.vmnet(&["create"]);
        assert!(String::from_utf8_lossy(&said.stderr).contains("vm1: runs as it was started"), "{said:?}");
        let out = String::from_utf8_lossy(&said.stdout);
        assert!(out.contains("nothing on the host changes; at their next boot it counts for vm1"), "{out}");
        assert!(is_outdated(&lab, "vm1") && !is_outdated(&lab, "vm2"));
        assert_eq!(status(&lab)["outdated"], serde_json::json!(["vm1"]));
        assert!(lab.ok(&["status", "outdated"]).contains("vm1 runs as it was started"));
        assert!(lab.ok(&["ps", "outdated"]).contains("running*"));
        // Nothing in it listens to the power button.
        let pid = json(&lab.ok(&["ps", "outdated", "--json"]))["vms"][0]["pid"].to_string();
        sh(&format!("kill -9 {pid}"));
        // Its threads end one by one, and the last may end after its files are closed.
        let end = Instant::now() + Duration::from_secs(20);
        while lab.ok(&["ps", "outdated"]).contains("running*") {
            assert!(Instant::now() < end, "QEMU was killed, and still runs");
            std::thread::sleep(Duration::from_millis(50));
        }
        lab.ok(&["boot", "vm1"]);
        assert!(!is_outdated(&lab, "vm1"));
        // Leftovers with a guest whose record is gone too: its process holds the TAP.
        sh("cp -r /run/vmnet /run/records; rm -r /run/state /run/vmnet");
        let output = lab.vmnet(&["gc", "--stop", "--json"]);
        let report = json(&String::from_utf8_lossy(&output.stdout));
        let error = report["labs"][0]["error"].as_str().unwrap_or_default();
        assert!(error.contains("processes hold TAPs"), "{report:#}");
        assert_eq!(output.status.code(), Some(1));
        sh("rm -rf /run/vmnet; mv /run/records /run/vmnet");
        lab.ok(&["destroy", "--stop", "--purge", "outdated"]);
        assert!(!succeeds("pgrep -r D,R,S qemu-system"));
    });
}

/// `~` is the home of who created the lab, whoever starts its guests: systemd does at the host's start.
#[test]
fn keys_in_a_home_are_those_of_who_created_the_lab() {
    sandbox::with_qemu("outdated::keys_in_a_home_are_those_of_who_created_the_lab", || {
        sh("cp /etc/passwd /run/passwd; echo alice:x:4711:4711::/run/alice:/bin/sh >>/run/passwd
            mount --bind /run/passwd /etc/passwd; mkdir /run/alice
            ssh-keygen -q -t ed25519 -N '' -f /run/alice/key");
        let lab = Lab::from_text(&format!("{}ssh_keys = \"~/key.pub\"\nautostart = true\n", with_empty_guest("home")));
        sh("qemu-img create -q -f qcow2 /run/lab/empty.qcow2 1M");
        let created = lab.command(&["create"]).env("SUDO_UID", "4711").output().unwrap();
        assert!(created.status.success(), "{created:?}");
        lab.command(&["restore"]).env_remove("SUDO_UID").status().unwrap();
        let guest = json(&lab.ok(&["ps", "home", "--json"]))["vms"][0].clone();
        assert_eq!(guest["running"], true);
        sh(&format!("kill -9 {}", guest["pid"]));
        lab.ok(&["destroy", "--stop", "--purge", "home"]);
    });
}

/// What was applied is compared with what is wanted, where it can be read.
#[test]
fn a_definition_that_cannot_be_read_any_more_is_replaced() {
    sandbox::run("outdated::a_definition_that_cannot_be_read_any_more_is_replaced", || {
        let text = "lab = \"old\"\n[network.web]\nmode = \"isolated\"\n[vm.vm1]\nengine = \"netns\"\nnic = \"web\"\n";
        let lab = Lab::from_text(text);
        lab.ok(&["create"]);
        let path = "/run/state/old/ledger/ledger.json";
        let mut ledger = json(&std::fs::read_to_string(path).unwrap());
        ledger["definition"] = "lab = \"old\"\nword_of_another_version = 1\n".into();
        std::fs::write(path, ledger.to_string()).unwrap();
        lab.ok(&["plan"]);
        lab.ok(&["create"]);
        assert!(lab.ok(&["ps", "old"]).contains("vm1"));
        lab.ok(&["destroy", "old"]);
    });
}
