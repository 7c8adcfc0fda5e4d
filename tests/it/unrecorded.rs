//! A guest in QEMU whose record is gone: nothing takes its network or its disk, and nothing says that it does not run.

use crate::matrix::rows::{json, status};
use crate::sandbox;
use crate::world::{Lab, sh, succeeds, with_empty_guest};

const RECORD: &str = "/run/vmnet/lost/guests/vm1.json";

/// What the program says on both channels.
fn said(lab: &Lab, args: &[&str]) -> (String, Option<i32>) {
    let output = lab.vmnet(args);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (text.into_owned(), output.status.code())
}

#[track_caller]
fn refused(lab: &Lab, args: &[&str], says: &str) {
    let (text, code) = said(lab, args);
    assert!(code == Some(1) && text.contains(says), "{args:?}: {text}");
}

#[test]
fn a_guest_without_a_record_keeps_network_and_disk() {
    sandbox::with_qemu("unrecorded::a_guest_without_a_record_keeps_network_and_disk", || {
        let lab = Lab::from_text(&with_empty_guest("lost"));
        sh("qemu-img create -q -f qcow2 /run/lab/empty.qcow2 16M");
        lab.ok(&["create"]);
        lab.ok(&["boot", "vm1"]);
        let pid = json(&lab.ok(&["ps", "lost", "--json"]))["vms"][0]["pid"].to_string();
        let (tap, links) =
            (lab.tap("vm1"), || sh("ip -o link | cut -d ' ' -f 1-3; ip -o link | grep -o 'master br-web'"));
        sh(&format!("mv {RECORD} /run/record"));
        let before = links();
        let changes: [&[&str]; 5] = [
            &["create"],
            &["boot", "vm1"],
            &["destroy", "lost"],
            &["destroy", "--stop", "lost"],
            &["destroy", "--purge", "lost"],
        ];
        for args in changes {
            refused(&lab, args, &format!("processes hold TAPs of lab lost ({tap})"));
            refused(&lab, args, "pgrep -af guest=lost-vm1");
        }
        refused(&lab, &["reset", "vm1"], "runs from /run/state/lost/guests/vm1/disk-1.qcow2");
        assert_eq!(links(), before);
        assert!(said(&lab, &["plan"]).0.contains("create refuses"));
        assert!(lab.ok(&["ps", "lost"]).contains("unknown: a process holds its TAP"));
        let found = json(&lab.ok(&["ps", "lost", "--json"]));
        assert_eq!((&found["vms"][0]["running"], &found["vms"][0]["unrecorded"]), (&false.into(), &true.into()));
        let found = status(&lab);
        assert_eq!(found["condition"], "degraded", "{found:#}");
        assert!(found["obstacles"][0].as_str().is_some_and(|text| text.contains(&tap)), "{found:#}");
        // With its record it is a guest like any other.
        sh(&format!("cp -a /run/record {RECORD}"));
        lab.ok(&["plan", "--check"]);
        sh(&format!("rm {RECORD}"));
        lab.ok(&["destroy", "--force", "lost"]);
        refused(&lab, &["gc", "--purge"], "runs from");
        sh(&format!("kill -KILL {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.05; done"));
        lab.ok(&["gc", "--purge"]);
        assert!(!succeeds("test -e /run/state/lost"));
    });
}
