//! `destroy` in one go: when it returns, everything is gone, whatever still runs in a namespace.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::matrix::rows::{LAB, WORLD, gone, through_host};
use crate::sandbox;
use crate::snapshot::Snapshot;
use crate::world::{Lab, sh, succeeds};

/// A process inside a namespace, as a shell that somebody left there.
fn left_inside(ns: &str) -> Child {
    let child = Command::new("ip").args(["netns", "exec", ns, "sleep", "600"]).spawn().expect("ip starts");
    let inside = format!("ip netns pids {ns} | grep -q .");
    let end = Instant::now() + Duration::from_secs(5);
    while !succeeds(&inside) {
        assert!(Instant::now() < end, "nobody is in {ns}");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// Twenty rounds; what is left inside stays until the end. Nothing waits between the verbs.
fn rounds(definition: &str, leave: impl Fn(&Lab) -> Vec<Child>) {
    sh(WORLD);
    let before = Snapshot::when_settled();
    let lab = Lab::from_text(definition);
    let mut left = Vec::new();
    let links = || sh("ip -o link | cut -d: -f2; ip netns");
    let host = links();
    for round in 0..20 {
        lab.ok(&["create"]);
        lab.ok(&["boot", "--all"]);
        left.extend(leave(&lab));
        lab.ok(&["destroy", "--stop"]);
        assert_eq!(links(), host, "round {round}: when destroy returns, it is gone");
    }
    for mut child in left {
        child.kill().expect("it still sleeps");
        child.wait().expect("it ends");
    }
    gone(&lab, &before);
}

#[test]
fn destroy_and_create_in_a_loop() {
    sandbox::run("one_go::destroy_and_create_in_a_loop", || rounds(LAB, |_| Vec::new()));
}

#[test]
fn with_a_shell_left_in_the_router() {
    sandbox::run("one_go::with_a_shell_left_in_the_router", || rounds(LAB, |lab| vec![left_inside(&lab.router_ns())]));
}

#[test]
fn with_shells_left_in_router_and_guests_through_the_host() {
    sandbox::run("one_go::with_shells_left_in_router_and_guests_through_the_host", || {
        rounds(&through_host(), |lab| {
            [lab.router_ns(), lab.guest_ns("vm1"), lab.guest_ns("vm2")].iter().map(|ns| left_inside(ns)).collect()
        });
    });
}

/// A guest is stopped in one go too, with a shell inside.
#[test]
fn stop_and_boot_in_a_loop() {
    sandbox::run("one_go::stop_and_boot_in_a_loop", || {
        let lab = Lab::from_text(LAB.replace("device = \"nic0\"", "device = \"nic1\"").as_str());
        sh("ip link add nic1 type veth peer name wire1; ip link set nic1 up; ip link set wire1 up");
        lab.ok(&["create"]);
        let mut left = Vec::new();
        for _ in 0..10 {
            lab.ok(&["boot", "vm1"]);
            left.push(left_inside(&lab.guest_ns("vm1")));
            lab.ok(&["stop", "vm1"]);
            assert!(!succeeds(&format!("ip link show {}", lab.tap("vm1"))));
        }
        for mut child in left {
            child.kill().expect("it still sleeps");
            child.wait().expect("it ends");
        }
        lab.ok(&["destroy"]);
    });
}
