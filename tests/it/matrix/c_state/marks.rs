//! Row 30 again: leftovers of labs without a ledger, and what only looks like them.

use std::process::{Command, Stdio};

use vmnet::rule;

use crate::matrix::row;
use crate::matrix::rows::{LAB, fails, holds, json, nothing_left};
use crate::snapshot::Snapshot;
use crate::world::{Lab, sh, succeeds};

const OTHER: &str = "lab = \"other\"\n[defaults.vm]\nengine = \"netns\"\n[network.x]\nsubnet = \"10.9.0.0/24\"\n[vm.vm1]\nnic = \"x\"\n";

/// `gc` removes what carries the marks of a lab without a ledger, and nothing else.
#[test]
fn row_30_gc() {
    row!(|| {
        let other = Lab::from_text(OTHER);
        other.ok(&["create"]);
        other.ok(&["boot", "vm1"]);
        holds(LAB, |lab| {
            let before = Snapshot::take();
            lab.ok(&["create"]);
            lab.ok(&["boot", "--all"]);
            assert_eq!(json(&lab.ok(&["gc", "--json"]))["labs"], serde_json::json!([]), "both have a ledger");
            sh("rm -r /run/state/row");
            let whole = Snapshot::take();
            let (dry, code) = gc(lab, &["--dry-run", "--stop"]);
            assert_eq!(code, 0, "{dry:#}");
            assert_eq!(dry["labs"].as_array().unwrap().len(), 1, "{dry:#}");
            assert_eq!(dry["labs"][0]["lab"], "row");
            assert!(dry["labs"][0]["changes"].as_u64().unwrap() > 5, "{dry:#}");
            // As for destroy, guests that run are in the way, and so are devices that are not the lab's.
            let (running, code) = gc(lab, &[]);
            assert_eq!(code, 1);
            assert!(running["labs"][0]["error"].as_str().unwrap().contains("vm1, vm2"), "{running:#}");
            assert_eq!(whole.differences(&Snapshot::take()), Vec::<String>::new());
            sh("ip tuntap add vnet0 mode tap; ip link set vnet0 master br-web");
            let (hurt, code) = gc(lab, &["--stop"]);
            assert_eq!(code, 1);
            assert!(hurt["labs"][0]["error"].as_str().unwrap().contains("vnet0 is a port of br-web"), "{hurt:#}");
            sh("ip link del vnet0");
            let (done, code) = gc(lab, &["--stop"]);
            assert_eq!(code, 0, "{done:#}");
            nothing_left(lab, &before);
            // A kill in the middle of it leaves a ledger without a definition: still leftovers.
            lab.ok(&["create"]);
            let text = std::fs::read_to_string("/run/state/row/ledger/ledger.json").unwrap();
            let mut ledger = json(&text);
            ledger["definition"] = "".into();
            ledger["progress"] = "changing".into();
            std::fs::write("/run/state/row/ledger/ledger.json", ledger.to_string()).unwrap();
            let (done, code) = gc(lab, &[]);
            assert_eq!((code, &done["labs"][0]["settings_unknown"]), (0, &true.into()), "{done:#}");
            nothing_left(lab, &before);
            lab.ok(&["create"]);
            sh("rm -r /run/state/row/ledger");
            let apart = "VMNET_STATE_DIR=/run/apart VMNET_RUN_DIR=/run/elsewhere";
            let refused = sh(&format!("{apart} {} gc && exit 1; true", env!("CARGO_BIN_EXE_vmnet")));
            assert!(refused.contains("it may belong to another VMNET_STATE_DIR"), "{refused}");
            let text = lab.ok(&["gc"]);
            assert!(text.contains("it has no ledger: settings of the host that it changed"), "{text}");
            nothing_left(lab, &before);
        });
        assert!(other.pings("vm1", "10.9.0.1"), "a lab with a ledger is not touched");
        other.ok(&["destroy", "--stop", "other"]);
    });
}

/// Runs `gc --json`.
fn gc(lab: &Lab, more: &[&str]) -> (serde_json::Value, i32) {
    let output = lab.vmnet(&[&["gc", "--json"], more].concat());
    (json(&String::from_utf8_lossy(&output.stdout)), output.status.code().unwrap())
}

/// What has our numbers or names and can't be proven to be ours is listed, and stays.
#[test]
fn row_30_unproven() {
    row!(|| {
        let lab = Lab::from_text(LAB);
        let group = rule::link_group(&"unknown".parse().unwrap());
        sh(&format!(
            "ip link add a0 group {group} type bridge
             ip link add b0 type bridge; ip link set b0 alias vmnet:gone:bridge:web
             ip link add c0 group {group} type bridge; ip link set c0 alias vmnet:gone:bridge:web
             ip link add d0 type bridge; ip link set d0 up; ip route add 198.51.100.0/24 dev d0 proto 118
             ip netns add vmnet-mine
             touch /run/netns/vmnet-plain
             nft add table inet vmnet-mine
             mkdir -p /run/NetworkManager/conf.d; echo mine > /run/NetworkManager/conf.d/90-vmnet-mine.conf"
        ));
        let before = Snapshot::take();
        let (found, code) = gc(&lab, &["--force", "--stop", "--purge"]);
        assert_eq!(code, 0, "{found:#}");
        assert_eq!(found["labs"], serde_json::json!([]), "{found:#}");
        let listed: Vec<&str> =
            found["unproven"].as_array().unwrap().iter().map(|thing| thing["name"].as_str().unwrap()).collect();
        for name in ["a0", "b0", "c0", "198.51.100.0/24", "vmnet-mine", "vmnet-plain", "inet vmnet-mine"] {
            assert!(listed.contains(&name), "{name} is not in {listed:?}");
        }
        assert_eq!(before.differences(&Snapshot::take()), Vec::<String>::new());
        assert!(succeeds("grep -q mine /run/NetworkManager/conf.d/90-vmnet-mine.conf"));
        // The group's lab becomes known by something that is proven: then the unmarked link is one that was killed
        // before its mark.
        sh("mkdir -p /run/vmnet/unknown");
        let (found, code) = gc(&lab, &[]);
        assert_eq!((code, &found["labs"][0]["lab"]), (0, &"unknown".into()), "{found:#}");
        assert!(!succeeds("ip link show a0") && succeeds("ip link show c0"));
    });
}

/// What another tool took the proof from stays, and `destroy` says so.
#[test]
fn row_30_destroy_tells_what_stays() {
    row!(|| {
        holds(LAB, |lab| {
            lab.ok(&["create"]);
            sh("ip link set br-web group 0; ip -n vmnet-row link set lo alias mine");
            let said = lab.ok(&["destroy", "row"]);
            for name in ["link br-web: its alias names lab row", "namespace vmnet-row: it has no mark"] {
                assert!(said.contains(name), "{name}: {said}");
            }
            let again = json(&lab.ok(&["destroy", "row", "--json"]));
            assert_eq!(again["unproven"].as_array().unwrap().len(), 2, "{again:#}");
            sh("ip link del br-web; ip netns del vmnet-row");
            assert!(!lab.ok(&["destroy", "row"]).contains("not proven"));
        });
    });
}

/// A disk that a machine runs from, which somebody else started or whose record is gone, is not removed under it.
#[test]
fn row_30_disks_in_use() {
    row!(|| {
        holds(LAB, |lab| {
            for folder in ["by-hand/vm1.0", "guests/vm1"] {
                let disk = format!("/run/state/row/{folder}/disk-1.qcow2");
                lab.ok(&["create"]);
                sh(&format!("mkdir -p $(dirname {disk}); truncate -s 1M {disk}"));
                let mut qemu = Command::new("qemu-system-x86_64");
                qemu.args(["-S", "-display", "none", "-nodefaults", "-drive", &format!("file={disk},format=raw")]);
                let mut qemu = qemu.stdin(Stdio::null()).spawn().unwrap();
                while !succeeds(&format!("grep -q :$(stat -c %i {disk}) /proc/locks")) {
                    assert!(qemu.try_wait().unwrap().is_none(), "QEMU ends");
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                let kept = if folder.starts_with("guests") { "disks were kept" } else { "nothing was changed" };
                fails(lab, &["destroy", "--purge", "row"], &[&disk, "runs from", kept]);
                assert!(succeeds(&format!("test -e {disk}")), "{folder}");
                lab.ok(&["destroy", "row"]);
                fails(lab, &["gc", "--purge"], &[&disk, "runs from"]);
                qemu.kill().unwrap();
                qemu.wait().unwrap();
                lab.ok(&["destroy", "--purge", "row"]);
                assert!(!succeeds("test -e /run/state/row"), "{folder}");
            }
        });
    });
}

/// Disks are data: they outlive a lab, are listed, and go only with `--purge`.
#[test]
fn row_30_disks() {
    row!(|| {
        let lab = Lab::from_text(LAB);
        sh("mkdir -p /run/state/row/guests/vm1; touch /run/state/row/guests/vm1/disk-1.qcow2");
        assert_eq!(json(&lab.ok(&["list", "--json"]))["labs"][0]["state"], "disks");
        lab.ok(&["gc"]);
        assert!(succeeds("test -e /run/state/row/guests/vm1/disk-1.qcow2"));
        let text = lab.ok(&["gc", "--purge", "--dry-run"]);
        assert!(text.contains("would be removed: /run/state/row/guests/vm1/disk-1.qcow2"), "{text}");
        lab.ok(&["gc", "--purge"]);
        assert!(!succeeds("test -e /run/state/row"));
    });
}
