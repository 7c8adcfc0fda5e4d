//! The way back of one lab beside the other labs of the host.

use super::{definition, fails, gone_back, until, watchers};
use crate::sandbox;
use crate::snapshot::Snapshot;
use crate::world::{Lab, sh, succeeds};

/// A lab whose traffic goes through the host, over a NIC that is down.
fn through_host(lab: &str, number: usize) -> String {
    format!(
        "lab = \"{lab}\"\n[network.{lab}]\nsubnet = \"10.{number}.0.0/24\"\n[router]\nexternal = {{ via = \"host\" }}\n"
    )
}

fn forwarding() -> String {
    sh("cat /proc/sys/net/ipv4/conf/nic0/forwarding").trim().to_owned()
}

/// What another lab came to need of the host meanwhile stays, until that one goes.
#[test]
fn what_another_lab_needs_stays() {
    sandbox::run("confirm::others::what_another_lab_needs_stays", || {
        sh("ip link add nic0 type veth peer name far0; ip link set nic0 up; ip link set far0 up
            ip address add 192.0.2.2/24 dev nic0; ip route add default via 192.0.2.1
            echo 0 >/proc/sys/net/ipv4/conf/nic0/forwarding");
        let lab = Lab::from_text(&through_host("first", 1));
        lab.ok(&["create", "--confirm", "2s"]);
        assert_eq!(forwarding(), "1");
        let other = Lab::from_text(&through_host("second", 2));
        other.ok(&["create"]);
        until("the watcher is gone", || watchers().is_empty());
        assert!(!succeeds("ip link show br-first") && succeeds("ip link show br-second"));
        assert_eq!(forwarding(), "1");
        other.ok(&["plan", "--check"]);
        other.ok(&["destroy"]);
        assert_eq!(forwarding(), "0");
    });
}

/// Another lab's ledger is damaged: the host goes back, but for what that lab may need of it.
#[test]
fn a_damaged_ledger_of_another_lab_is_no_obstacle() {
    sandbox::run("confirm::others::a_damaged_ledger_of_another_lab_is_no_obstacle", || {
        let other = Lab::from_text(&through_host("other", 7));
        other.ok(&["create"]);
        let lab = Lab::from_text(&definition(2, 1));
        let before = Snapshot::when_settled();
        lab.ok(&["create", "--confirm", "1s"]);
        const LEDGER: &str = "/run/state/other/ledger/ledger.json";
        let ledger = std::fs::read(LEDGER).unwrap();
        std::fs::write(LEDGER, "{").unwrap();
        gone_back(&before);
        assert!(!lab.ok(&["list"]).contains("confirm"), "a lab that was undone is not left over");
        // Nor are guests kept from anybody; a change of the network has to know what the other one needs.
        std::fs::write(LEDGER, &ledger).unwrap();
        lab.ok(&["create"]);
        std::fs::write(LEDGER, "{").unwrap();
        lab.ok(&["boot", "vm1"]);
        lab.ok(&["stop", "vm1"]);
        for verb in [&["create"][..], &["destroy", "confirm"]] {
            let said = fails(&lab, verb);
            assert!(said.contains("ledger of lab other, another one of this host"), "{said}");
            assert!(said.contains("`vmnet destroy other`"), "{said}");
        }
        std::fs::write(LEDGER, ledger).unwrap();
        lab.ok(&["destroy"]);
        lab.ok(&["destroy", "other"]);
    });
}
