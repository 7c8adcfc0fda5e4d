//! `vmnet undo`: at once, for what is not confirmed and for what was interrupted.

use std::process::Stdio;

use super::{by_names, definition, fails, gone_back, json, same_names, until};
use crate::sandbox;
use crate::snapshot::Snapshot;
use crate::world::{Lab, sh, succeeds};

#[test]
fn what_is_not_confirmed() {
    sandbox::run("confirm::undo::what_is_not_confirmed", || {
        let lab = Lab::from_text(&definition(2, 1));
        assert!(fails(&lab, &["undo"]).contains("nothing to undo"));
        let nothing = Snapshot::when_settled();
        lab.ok(&["create", "--confirm", "60s"]);
        let until = json(&lab, &["status"])["change"]["until"].clone();
        let listed = &json(&lab, &["list"])["labs"][0];
        assert_eq!((&listed["state"], &listed["confirm_until"]), (&"applied".into(), &until));
        assert!(until.is_number() && lab.ok(&["list"]).contains("unless you say vmnet confirm confirm"));
        let report = json(&lab, &["undo"]);
        assert_eq!((&report["lab"], &report["verb"]), (&"confirm".into(), &"create".into()));
        gone_back(&nothing);
        lab.ok(&["create"]);
        assert!(fails(&lab, &["undo"]).contains("nothing to undo"));
        lab.ok(&["boot", "--all"]);
        let before = Snapshot::when_settled();
        Lab::from_text(&definition(4, 9)).ok(&["create", "--confirm", "60s"]);
        assert!(lab.ok(&["undo"]).contains("as it was before create of 20"));
        gone_back(&before);
        lab.ok(&["destroy", "--stop"]);
    });
}

/// A guest that was only out of the definition for a while has its address again.
#[test]
fn the_lock_file_goes_back_too() {
    sandbox::run("confirm::undo::the_lock_file_goes_back_too", || {
        const LOCK: &str = "/run/lab/net.lock";
        let without = definition(1, 1);
        let more = without.clone() + "[vm.vm2]\nnic = \"net1\"\n";
        let lab = Lab::from_text(&more);
        lab.ok(&["create"]);
        let before = std::fs::read_to_string(LOCK).unwrap();
        assert!(before.contains("vm2"), "{before}");
        Lab::from_text(&without).ok(&["create", "--confirm", "60s"]);
        assert!(!std::fs::read_to_string(LOCK).unwrap().contains("vm2"));
        lab.ok(&["undo"]);
        assert_eq!(std::fs::read_to_string(LOCK).unwrap(), before);
        // What somebody wrote since is theirs.
        Lab::from_text(&without).ok(&["create", "--confirm", "60s"]);
        let own = std::fs::read_to_string(LOCK).unwrap() + "# mine\n";
        std::fs::write(LOCK, &own).unwrap();
        lab.ok(&["undo"]);
        assert_eq!(std::fs::read_to_string(LOCK).unwrap(), own);
        lab.ok(&["destroy"]);
    });
}

#[test]
fn what_was_interrupted() {
    sandbox::run("confirm::undo::what_was_interrupted", || {
        let lab = Lab::from_text(&definition(1, 1));
        lab.ok(&["create"]);
        lab.ok(&["boot", "--all"]);
        let before = Snapshot::when_settled();
        // Many, so that it still runs when the moment is seen.
        let lab = Lab::from_text(&definition(120, 1));
        let interrupted = |args: &[&str], moment: &str| {
            let mut client = lab.command(args);
            let mut client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            until("the moment", || succeeds(moment));
            client.kill().unwrap();
            client.wait().unwrap();
            assert_eq!(json(&lab, &["status"])["change"]["state"], "open");
        };
        interrupted(&["create"], "ip link show br-net2");
        assert!(lab.ok(&["status"]).contains("is not done; unless it still runs: vmnet undo confirm goes back"));
        // Guests would be started in the middle of it, and no way would lead back.
        for args in [["boot", "vm1"], ["stop", "vm1"], ["reset", "vm1"]] {
            let refused = fails(&lab, &args);
            assert!(refused.contains("create of 20") && refused.contains("was interrupted"), "{refused}");
            assert!(refused.contains("vmnet undo confirm (goes back)"), "{refused}");
        }
        let refused = fails(&lab, &["create", "--confirm", "9s"]);
        assert!(refused.contains("vmnet undo confirm first"), "{refused}");
        assert!(fails(&lab, &["confirm"]).contains("nothing to confirm"));
        lab.ok(&["undo"]);
        gone_back(&before);

        // A change on top of an interrupted one leads back to what was whole: past both.
        interrupted(&["create"], "ip link show br-net2");
        interrupted(&["create"], "ip -n vmnet-confirm link show net2");
        lab.ok(&["undo"]);
        gone_back(&before);
        // And one that gets to its end leaves nothing to undo.
        interrupted(&["create"], "ip link show br-net2");
        lab.ok(&["create"]);
        lab.ok(&["plan", "--check"]);
        assert!(fails(&lab, &["undo"]).contains("nothing to undo"));

        Snapshot::when_settled();
        let before = by_names();
        interrupted(&["destroy", "--stop"], "! ip -n vmnet-confirm link show net1");
        lab.ok(&["undo"]);
        same_names(&before);
        lab.ok(&["plan", "--check"]);
        lab.ok(&["destroy", "--stop"]);
    });
}

/// The way back needs no room that the disk does not have by then.
#[test]
fn on_a_disk_that_is_full_by_then() {
    sandbox::run("confirm::undo::on_a_disk_that_is_full_by_then", || {
        sh("mkdir /run/state; mount -t tmpfs -o size=512k,mode=755 tmpfs /run/state");
        let fill = || sh("dd if=/dev/zero of=/run/state/ballast bs=4k 2>/dev/null || true");
        let lab = Lab::from_text(&definition(2, 1));
        let nothing = Snapshot::when_settled();
        lab.ok(&["create", "--confirm", "2s"]);
        fill();
        gone_back(&nothing);
        sh("rm /run/state/ballast");
        lab.ok(&["create"]);
        let before = Snapshot::when_settled();
        Lab::from_text(&definition(4, 9)).ok(&["create", "--confirm", "2s"]);
        fill();
        gone_back(&before);
        assert_eq!(json(&lab, &["status"])["change"], serde_json::Value::Null);
        assert!(Lab::from_text(&definition(2, 1)).ok(&["plan"]).contains("nothing to do"));
        lab.ok(&["destroy"]);
        assert!(sh("ls -A /run/state").trim() == "ballast");
    });
}
