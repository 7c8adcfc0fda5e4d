//! A connection that is cut, or a coordinator that dies, at each phase: all hosts end as before, or all as after.

use std::fs;
use std::time::Duration;

use super::fleet::{SETTLED, as_before, has, json, said, settled, two};
use super::{Hosts, can, until};
use crate::sandbox;
use crate::world::Lab;

/// How long a timer and the way back may take.
const GONE_BACK: Duration = Duration::from_secs(80);

const OWN: &str = env!("CARGO_BIN_EXE_vmnet");

/// From now on h2's connection is cut when it is asked for a verb: `before` it is done, or after it; or it is not done.
fn cut_at(hosts: &Hosts, verb: &str, how: &str) {
    let body = match how {
        "before" => format!("ip link set mgmt0 down; exec {OWN} \"$@\""),
        "instead" => "ip link set mgmt0 down; exit 1".to_owned(),
        "for a while" => "[ -e /run/cut ] && exec VMNET \"$@\"; touch /run/cut; ip link set mgmt0 down; sleep 8; ip link set mgmt0 up; exit 1".replace("VMNET", OWN),
        _ => format!("{OWN} \"$@\"; code=$?; sleep 0.3; ip link set mgmt0 down; exit $code"),
    };
    let script = format!("#!/bin/sh\ncase \"$*\" in *'-events {verb}'*) {body};; esac\nexec {OWN} \"$@\"\n");
    hosts.replace_vmnet(2, Some(&script));
}

fn heal(hosts: &Hosts) {
    hosts.sh(2, "ip link set mgmt0 up; rm -f /run/cut");
    hosts.replace_vmnet(2, Some(&format!("#!/bin/sh\nexec {OWN} \"$@\"\n")));
}

fn whole(lab: &Lab) -> bool {
    json(lab, &["status"]).0["whole"] == true
}

#[test]
fn a_cut_before_anything_is_changed_changes_nothing() {
    let name = "hosts::cut::a_cut_before_anything_is_changed_changes_nothing";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let (hosts, lab) = two();
        let before = settled(&hosts);
        for (verb, how) in [("list", "after"), ("plan", "before")] {
            cut_at(&hosts, verb, how);
            let (text, code) = said(&lab, &["create"]);
            assert_eq!(code, 1, "{verb}: {text}");
            has(&text, &["nothing was changed on any host", "h2: error", "h1: could do its part"]);
            heal(&hosts);
            as_before(&hosts, &before, SETTLED, verb);
        }
    });
}

#[test]
fn a_cut_while_hosts_change_leads_all_back() {
    let name = "hosts::cut::a_cut_while_hosts_change_leads_all_back";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let (hosts, lab) = two();
        let before = settled(&hosts);
        for how in ["before", "after"] {
            cut_at(&hosts, "create", how);
            let (text, code) = said(&lab, &["create", "--within", "40s"]);
            assert_eq!(code, 1, "{how}: {text}");
            has(&text, &["was not created", "h1: it went back", "h2", "goes back by itself by", "UTC"]);
            // h2 can't be told, and does it all the same.
            as_before(&hosts, &before, GONE_BACK, "by the timer");
            heal(&hosts);
            as_before(&hosts, &before, SETTLED, how);
        }
        // Back in time, it is told.
        cut_at(&hosts, "create", "for a while");
        let (text, code) = said(&lab, &["create", "--within", "60s"]);
        assert_eq!(code, 1, "{text}");
        heal(&hosts);
        as_before(&hosts, &before, GONE_BACK, "by the timer");
        assert_eq!(said(&lab, &["create"]).1, 0);
        assert!(whole(&lab));
    });
}

#[test]
fn a_cut_while_hosts_are_told_to_keep_it_is_bridged_or_told() {
    let name = "hosts::cut::a_cut_while_hosts_are_told_to_keep_it_is_bridged_or_told";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let (hosts, lab) = two();
        let before = settled(&hosts);
        // The link comes back: the word is said again.
        cut_at(&hosts, "confirm", "for a while");
        let (text, code) = said(&lab, &["create", "--within", "60s"]);
        assert_eq!(code, 0, "{text}");
        heal(&hosts);
        assert!(whole(&lab));
        assert_eq!(said(&lab, &["destroy"]).1, 0);
        // The word arrived and the answer was lost: it counts.
        cut_at(&hosts, "confirm", "before");
        let (text, code) = said(&lab, &["create", "--within", "30s"]);
        assert_eq!(code, 1, "{text}");
        has(&text, &["two minds", "h1: keeps it", "h2", "either was told in time", "vmnet status"]);
        heal(&hosts);
        assert!(whole(&lab));
        assert_eq!(said(&lab, &["destroy"]).1, 0);
        as_before(&hosts, &before, SETTLED, "after");
        // It never arrived. That is the moment that no protocol closes: it is told, and create makes it whole.
        cut_at(&hosts, "confirm", "instead");
        let (text, code) = said(&lab, &["create", "--within", "30s"]);
        assert_eq!(code, 1, "{text}");
        has(&text, &["two minds", "h1: keeps it", "h2", "goes back by itself", "vmnet create"]);
        heal(&hosts);
        until("h2 went back", || json(&lab, &["status"]).0["hosts"]["h2"]["condition"] == "absent");
        assert_eq!(said(&lab, &["create"]).1, 0);
        assert!(whole(&lab));
    });
}

#[test]
fn a_coordinator_that_dies_or_is_interrupted_leaves_all_as_before() {
    let name = "hosts::cut::a_coordinator_that_dies_or_is_interrupted_leaves_all_as_before";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let (hosts, lab) = two();
        let before = settled(&hosts);
        // h2 takes its time, so that the end comes between what h1 did and what h2 does.
        let script = format!("#!/bin/sh\ncase \"$*\" in *'-events create'*) sleep 3;; esac\nexec {OWN} \"$@\"\n");
        hosts.replace_vmnet(2, Some(&script));
        for signal in ["KILL", "INT", "TERM"] {
            let mut child = lab.command(&["create", "--within", "12s"]).spawn().unwrap();
            until("h1 is changed", || hosts.succeeds(1, "test -e /run/state/two/ledger/change.json"));
            std::thread::sleep(Duration::from_millis(500));
            crate::world::sh(&format!("kill -{signal} {}", child.id()));
            let status = child.wait().unwrap();
            if signal != "KILL" {
                assert_eq!(status.code(), Some(1), "{signal}");
                as_before(&hosts, &before, SETTLED, signal);
                assert!(!lab.folder().join("net.lock").exists(), "{signal}");
            } else {
                // Nobody is left: their timers do it.
                std::thread::sleep(Duration::from_secs(4));
                as_before(&hosts, &before, GONE_BACK, "by the timer");
                assert!(lab.folder().join("net.lock").exists(), "what was chosen is not lost");
                fs::remove_file(lab.folder().join("net.lock")).unwrap();
            }
        }
        heal(&hosts);
        assert_eq!(said(&lab, &["create"]).1, 0);
        assert!(whole(&lab));
    });
}
